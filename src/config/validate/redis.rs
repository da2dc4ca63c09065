//! Redis of a group: whose guards act upon it, and whether the old one is fenced first.

use std::collections::BTreeMap;

use crate::config::check::Item;
use crate::config::raw::{RawGroup, RawGroupRegion, RawGroupTables};
use crate::domain::ids::{HostName, RegionName};
use crate::domain::policy::Fencing;

use super::Judge;
use super::fields::cut;
use super::group::Side;

impl Judge<'_> {
    pub(super) fn redis_host(&mut self, item: &Item<RawGroupRegion>, region: &RegionName) -> Option<HostName> {
        let Item { place, value } = item;
        value.redis_host.as_ref()?;
        let known = self.known.hosts.clone();
        let name = HostName(self.refers(place, "redis_host", &value.redis_host, &known, "host")?);
        if let Some(host) = self.hosts.get(&name).filter(|host| host.region != *region) {
            let what = format!("host {name} stands in {}, not in {region}", host.region);
            self.report.error(place, "redis_host", what, "name the host of this region's Redis server");
        }
        Some(name)
    }

    /// In every region or in none, and beside a database, whose fence a planned move turns back by.
    pub(super) fn redis_as_a_whole(&mut self, tables: &RawGroupTables, sides: &BTreeMap<RegionName, Side>) {
        if sides.values().all(|side| side.redis_host.is_none()) {
            return;
        }
        for region in &tables.regions {
            let here = &region.place;
            if !here.has("redis_host") {
                let what = "no redis_host, while another region of the group has one";
                self.report.error(here, "", what, "add redis_host = \"…\"");
            } else if !here.has("database_host") {
                let what = "redis_host without database_host: Redis moves with the group's database";
                self.report.error(here, "redis_host", what, "add database_host = \"…\", or remove redis_host");
            }
            if here.has("redis_host") && !here.has("redis") {
                let what = "this region's Redis server is moved, and nobody looks at it";
                self.report.warn(here, "redis_host", what, "add a target of kind redis and redis = \"…\"");
            }
        }
    }

    /// Whether an old Redis primary is fenced before another is promoted.
    pub(super) fn fences_redis(
        &mut self,
        item: &Item<RawGroup>,
        fencing: &Fencing,
        sides: &BTreeMap<RegionName, Side>,
    ) -> bool {
        let Item { place, value } = item;
        let asserted = value.redis_fencing_none_asserted_by.as_deref().map(str::trim).filter(|who| !who.is_empty());
        if sides.values().all(|side| side.redis_host.is_none()) {
            for key in ["redis_fencing", "redis_fencing_none_asserted_by"].into_iter().filter(|key| place.has(key)) {
                self.report.error(place, key, "no region has a redis_host", "remove it, or add redis_host = \"…\"");
            }
            return false;
        }
        let default = !matches!(fencing, Fencing::None { .. });
        let modes = [("confirm", true), ("none", false)];
        let fences = self.choice(place, "redis_fencing", &value.redis_fencing, Some(default), &modes).unwrap_or(true);
        match (value.redis_fencing.is_some() && !fences, asserted) {
            (true, None) => {
                let what = "redis_fencing \"none\" needs a person's word that two Redis primaries do no harm here";
                let todo = "add redis_fencing_none_asserted_by = \"NAME, DATE\", or use redis_fencing = \"confirm\"";
                self.report.error(place, "redis_fencing", what, todo);
            }
            (true, Some(who)) => {
                let what = format!(
                    "redis_fencing \"none\": the old Redis primary is not stopped before another is promoted, on the word of {}",
                    cut(who)
                );
                self.report.warn(place, "redis_fencing", what, "use \"confirm\" unless it is a cache that may diverge");
            }
            (false, Some(_)) => {
                let what = "redis_fencing_none_asserted_by means nothing without redis_fencing = \"none\"";
                self.report.error(place, "redis_fencing_none_asserted_by", what, "remove it");
            }
            (false, None) => {}
        }
        fences
    }
}
