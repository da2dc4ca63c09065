//! Where the voters stand: does the loss of each serving region leave a majority elsewhere? Two regions are not enough for both.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::check::Item;
use crate::config::raw::RawConfig;
use crate::config::types::NodeConfig;
use crate::domain::ids::{NodeId, RegionName};
use crate::domain::layout::{self, Loss, VOTERS_MIN};

use super::Judge;

impl Judge<'_> {
    /// Judges the layout; gives the regions whose loss leaves no quorum, as the file accepts it.
    pub(super) fn layout(&mut self, raw: &RawConfig, nodes: &BTreeMap<NodeId, NodeConfig>) -> BTreeSet<RegionName> {
        let Item { place, value } = &raw.cluster;
        let accepted = value.accept_no_automatic_failover_from.clone().unwrap_or_default();
        let key = "accept_no_automatic_failover_from";
        let known = self.known.regions.clone();
        for name in &accepted {
            self.refers(place, key, &Some(name.clone()), &known, "region");
        }
        // A node whose table is faulty still counts as a voter: the layout is judged as it was meant.
        let voters: Vec<RegionName> =
            raw.nodes.iter().filter_map(|node| node.value.region.clone()).map(RegionName).collect();
        if raw.nodes.len() < VOTERS_MIN {
            let what = format!("{} [[node]]: fewer than three cannot lose one and still agree", raw.nodes.len());
            self.report.error(
                &Default::default(),
                "node",
                what,
                "describe 3 or 5 nodes in three places, as in cluster-config/sites-1-1-1.toml",
            );
            return BTreeSet::new();
        }
        if raw.nodes.len().is_multiple_of(2) {
            let what =
                format!("{} nodes: an even number tolerates no more losses than one node fewer", raw.nodes.len());
            self.report.warn(&Default::default(), "node", what, "add or remove one");
        }
        let serving = self.serving(raw);
        let mut without = BTreeSet::new();
        let accepted = accepted.into_iter().map(RegionName).collect();
        for loss in layout::judge(&serving, &accepted, voters.iter().map(Some)) {
            let Loss { region, outside, voters, is_accepted } = &loss;
            if loss.leaves_majority() {
                if *is_accepted {
                    let what = format!(
                        "{region} is listed, but {outside} of {voters} voters stand outside it: its loss is answered"
                    );
                    self.report.warn(place, key, what, "take it out of the list");
                }
            } else if *is_accepted {
                without.insert(region.clone());
                let todo = "a witness node in a third place would change that";
                self.report.warn(place, key, loss.to_string(), todo);
            } else {
                let todo =
                    format!("put a node in a third place (witness), or write {key} = [\"{region}\"] under [cluster]");
                self.report.error(place, "", loss.to_string(), todo);
            }
        }
        self.unused_regions(raw, nodes, &serving);
        without
    }

    fn serving(&self, raw: &RawConfig) -> BTreeSet<RegionName> {
        let named = raw.groups.iter().flat_map(|tables| &tables.regions).filter_map(|region| region.value.name.clone());
        named.map(RegionName).filter(|name| self.regions.get(name).is_some_and(|region| !region.witness)).collect()
    }

    fn unused_regions(
        &mut self,
        raw: &RawConfig,
        nodes: &BTreeMap<NodeId, NodeConfig>,
        serving: &BTreeSet<RegionName>,
    ) {
        for Item { place, value } in &raw.regions {
            let Some(name) = value.name.clone().map(RegionName) else { continue };
            let has_node = nodes.values().any(|node| node.region == name)
                || raw.nodes.iter().any(|node| node.value.region.as_ref() == Some(&name.0));
            if !has_node && !serving.contains(&name) {
                self.report.warn(
                    place,
                    "name",
                    format!("nothing stands in region {name}"),
                    "remove it, or put a node there",
                );
            } else if !has_node {
                let what = format!("no node stands in {name}: nobody there can tell a cut link from a dead region");
                self.report.warn(place, "name", what, "put a node there");
            }
        }
    }
}
