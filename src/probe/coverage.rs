//! How much of what the primary wrote a standby is known to have: by log positions, never by the standby's clock.
//!
//! Samples (when, the primary's position then) are kept until the standby covers them. What the standby has received
//! then answers "everything up to when". An idle primary keeps giving new samples of the same position, so its standby
//! stays fresh; when nothing can be read from the primary any more, the newest covered sample grows old.

use std::collections::VecDeque;

/// Samples kept at most; beyond, older ones are thinned out, which can only make an age larger.
const MAX_SAMPLES: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at_ms: u64,
    lsn: u64,
}

/// What is known of the primary's positions over time.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    /// Oldest first, positions strictly increasing: of equal positions the newest time is kept.
    samples: VecDeque<Sample>,
}

impl Coverage {
    /// The primary was at `lsn` at `at_ms` (taken before it was asked) or later. A position that went back means
    /// another history (rebuilt, or another server): what was known before is forgotten.
    pub fn sample(&mut self, at_ms: u64, lsn: u64) {
        match self.samples.back_mut() {
            Some(newest) if newest.lsn == lsn => newest.at_ms = newest.at_ms.max(at_ms),
            Some(newest) if newest.lsn > lsn => {
                self.samples.clear();
                self.samples.push_back(Sample { at_ms, lsn });
            }
            _ => self.samples.push_back(Sample { at_ms, lsn }),
        }
        if self.samples.len() > MAX_SAMPLES {
            self.thin();
        }
    }

    /// The age at `now_ms` of the newest sample that `received_lsn` covers; `None` where it covers none.
    pub fn covered_age_ms(&mut self, now_ms: u64, received_lsn: u64) -> Option<u64> {
        // What a standby has it keeps having, so only the newest covered sample is worth keeping.
        while self.samples.get(1).is_some_and(|second| second.lsn <= received_lsn) {
            self.samples.pop_front();
        }
        let oldest = self.samples.front()?;
        (oldest.lsn <= received_lsn).then(|| now_ms.saturating_sub(oldest.at_ms))
    }

    /// The last known position and when it was read.
    pub fn newest(&self) -> Option<(u64, u64)> {
        self.samples.back().map(|sample| (sample.at_ms, sample.lsn))
    }

    /// Drops every second sample, keeping the oldest and the newest.
    fn thin(&mut self) {
        let last = self.samples.len().saturating_sub(1);
        let mut index = 0;
        self.samples.retain(|_| {
            let keep = index % 2 == 0 || index == last;
            index += 1;
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_idle_primary_is_not_a_lagging_standby() {
        let mut coverage = Coverage::default();
        for at_ms in (0..3_600_000).step_by(500) {
            coverage.sample(at_ms, 700);
            assert_eq!(coverage.covered_age_ms(at_ms + 3, 700), Some(3));
        }
    }

    #[test]
    fn a_dead_primary_ages_its_standby() {
        let mut coverage = Coverage::default();
        coverage.sample(1000, 700);
        assert_eq!(coverage.covered_age_ms(61_000, 700), Some(60_000));
        assert_eq!(coverage.newest(), Some((1000, 700)));
    }

    #[test]
    fn a_standby_that_stopped_receiving_is_as_old_as_what_it_has() {
        let mut coverage = Coverage::default();
        for step in 0..20_000u64 {
            coverage.sample(step * 500, 100 + step);
            let age_ms = coverage.covered_age_ms(step * 500, 150.min(100 + step));
            let wanted_ms = step.saturating_sub(50) * 500;
            assert_eq!(age_ms, Some(wanted_ms), "step {step}");
        }
        assert!(coverage.samples.len() <= MAX_SAMPLES);
    }

    #[test]
    fn nothing_known_is_none() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.covered_age_ms(5, 700), None);
        coverage.sample(10, 800);
        assert_eq!(coverage.covered_age_ms(11, 799), None, "behind everything ever sampled");
    }

    #[test]
    fn a_position_that_went_back_forgets() {
        let mut coverage = Coverage::default();
        coverage.sample(10, 800);
        coverage.sample(20, 300);
        assert_eq!(coverage.covered_age_ms(25, 300), Some(5));
        assert_eq!(coverage.newest(), Some((20, 300)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Against all samples ever taken: the age is never smaller than the truth, and the oldest is never lost.
        #[test]
        fn never_fresher_than_the_truth(steps in prop::collection::vec((1u64..2000, 0u64..50, 0u64..60), 1..3000)) {
            let mut coverage = Coverage::default();
            let (mut now_ms, mut lsn, mut received) = (0, 1000, 1000u64);
            let mut all = Vec::new();
            for (delta_ms, written, shipped) in steps {
                now_ms += delta_ms;
                lsn += written;
                coverage.sample(now_ms, lsn);
                all.push((now_ms, lsn));
                received = (received + shipped / 2).min(lsn);
                let truth = all.iter().rev().find(|(_, lsn)| *lsn <= received).map(|(at_ms, _)| now_ms - at_ms);
                let told = coverage.covered_age_ms(now_ms, received);
                prop_assert_eq!(told.is_some(), truth.is_some());
                prop_assert!(told >= truth);
                prop_assert!(coverage.samples.len() <= MAX_SAMPLES);
                if all.len() < MAX_SAMPLES { prop_assert_eq!(told, truth); }
            }
        }
    }
}
