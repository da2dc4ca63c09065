//! Where the voters stand: does the loss of each region that can serve leave a majority elsewhere? Two regions are not
//! enough for both. Asked by `check`, at start-up and before the membership changes.

use std::collections::BTreeSet;

use super::ids::RegionName;

/// Fewer cannot lose one and still agree.
pub const VOTERS_MIN: usize = 3;

/// What is left when one region is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The region.
    pub region: RegionName,
    /// Voters that are known to stand outside it.
    pub outside: usize,
    /// All voters.
    pub voters: usize,
    /// The configuration accepts, by the region's name, that nobody decides then.
    pub is_accepted: bool,
}

impl Loss {
    /// A strict majority of all voters.
    pub fn needed(&self) -> usize {
        self.voters / 2 + 1
    }

    /// A majority is left, and can fail over.
    pub fn leaves_majority(&self) -> bool {
        self.outside >= self.needed()
    }

    /// Neither left nor accepted.
    pub fn is_fault(&self) -> bool {
        !self.leaves_majority() && !self.is_accepted
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Loss { region, outside, voters, .. } = self;
        let needed = self.needed();
        write!(f, "when {region} is lost, {outside} of {voters} voters remain, and {needed} are needed")?;
        match (self.leaves_majority(), self.is_accepted) {
            (true, _) => Ok(()),
            (false, false) => write!(f, ": no automatic failover from {region}"),
            (false, true) => write!(f, ": no automatic failover from {region} (accepted)"),
        }
    }
}

/// The loss of each of `serving`, in order. A voter whose region nobody knows (`None`) counts as a voter and never as one
/// that stands outside.
pub fn judge<'a>(
    serving: &BTreeSet<RegionName>,
    accepted: &BTreeSet<RegionName>,
    voters: impl IntoIterator<Item = Option<&'a RegionName>>,
) -> Vec<Loss> {
    let voters: Vec<Option<&RegionName>> = voters.into_iter().collect();
    let of = |region: &RegionName| Loss {
        region: region.clone(),
        outside: voters.iter().flatten().filter(|at| **at != region).count(),
        voters: voters.len(),
        is_accepted: accepted.contains(region),
    };
    serving.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_that_serves_needs_a_majority_outside_it() {
        let table: &[(&[&str], &[&str], &[&str])] = &[
            // voters, accepted, faults
            (&["hcmc", "hanoi", "witness"], &[], &[]),
            (&["hcmc", "hcmc", "hanoi", "hanoi", "witness"], &[], &[]),
            (&["hcmc", "hanoi", "hanoi"], &[], &["hanoi"]),
            (&["hcmc", "hanoi", "hanoi"], &["hanoi"], &[]),
            (&["hcmc", "hanoi", "hanoi"], &["hcmc"], &["hanoi"]),
            (&["hcmc", "hanoi"], &[], &["hanoi", "hcmc"]),
            (&["hcmc", "hanoi", "witness", "witness"], &[], &[]),
            (&["hcmc", "hcmc", "hanoi", "witness"], &[], &["hcmc"]),
            // Nobody knows where the third stands: it may be either's.
            (&["hcmc", "hanoi", "?"], &[], &["hanoi", "hcmc"]),
            (&["hcmc", "hanoi", "witness", "witness", "?"], &[], &[]),
            (&[], &[], &["hanoi", "hcmc"]),
        ];
        let regions = |names: &[&str]| names.iter().map(|name| RegionName::from(*name)).collect::<BTreeSet<_>>();
        for (voters, accepted, faults) in table {
            let at: Vec<RegionName> = voters.iter().map(|name| RegionName::from(*name)).collect();
            let known = at.iter().map(|region| Some(region).filter(|region| region.as_str() != "?"));
            let judged = judge(&regions(&["hcmc", "hanoi"]), &regions(accepted), known);
            let found: Vec<&str> = judged.iter().filter(|loss| loss.is_fault()).map(|l| l.region.as_str()).collect();
            assert_eq!(found, *faults, "{voters:?}, accepted {accepted:?}");
        }
    }
}
