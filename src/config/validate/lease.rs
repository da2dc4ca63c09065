//! Mode `lease`: where it would do harm, and what it needs besides (docs/adr/0008).

use std::collections::{BTreeMap, BTreeSet};

use crate::config::check::Item;
use crate::config::raw::{RawConfig, RawGroupTables};
use crate::config::types::{GroupConfig, TargetKind};
use crate::domain::ids::{GroupName, RegionName};
use crate::domain::lease::silence_ms;
use crate::domain::policy::Fencing;

use super::Judge;

/// From here on a TTL is worth a word where the hold-down is shorter, milliseconds.
const LONG_TTL_MS: u64 = 3000;

impl Judge<'_> {
    /// Judges every group's lease; `without`: regions whose loss leaves no quorum.
    pub(super) fn leases(
        &mut self,
        raw: &RawConfig,
        groups: &BTreeMap<GroupName, GroupConfig>,
        without: &BTreeSet<RegionName>,
    ) {
        for tables in &raw.groups {
            let Item { place, value } = &tables.group;
            let Some(group) = value.name.clone().and_then(|name| groups.get(&GroupName(name))) else { continue };
            let Fencing::Lease { ttl_ms } = group.policy.fencing else {
                if value.lease_ttl_ms.is_some() {
                    let what = "lease_ttl_ms means nothing without fencing = \"lease\"";
                    self.report.error(place, "lease_ttl_ms", what, "remove it");
                }
                continue;
            };
            if let Some(region) = without.first() {
                let what = format!(
                    "fencing \"lease\": when {region} is lost no quorum remains, and no leader renews or outwaits a lease"
                );
                self.report.error(place, "fencing", what, "use \"confirm\", or add a witness node in a third place");
            }
            if group.policy.hold_down_ms > 0 && ttl_ms >= LONG_TTL_MS.max(group.policy.hold_down_ms.saturating_mul(2)) {
                let what = format!(
                    "lease_ttl_ms {ttl_ms}: a host that cannot be reached is passed over only {} ms after its last renewal, \
                     while the hold-down is {} ms",
                    silence_ms(ttl_ms),
                    group.policy.hold_down_ms
                );
                self.report.warn(
                    place,
                    "lease_ttl_ms",
                    what,
                    "shorten it: 2000 rides out what a hold-down of 3000 rides out",
                );
            }
            if group.policy.fence_patience_ms <= silence_ms(ttl_ms) {
                let what = format!(
                    "fence_patience_s is over after {} ms, before silence is proved ({} ms): every such run would be stuck first",
                    group.policy.fence_patience_ms,
                    silence_ms(ttl_ms)
                );
                self.report.error(place, "fence_patience_s", what, "lengthen it, or shorten lease_ttl_ms");
            }
            self.lease_of_sides(tables, group);
        }
    }

    fn lease_of_sides(&mut self, tables: &RawGroupTables, group: &GroupConfig) {
        for Item { place, value } in &tables.regions {
            if value.database_host.is_none() {
                let what = "fencing \"lease\" is kept by the guard of the region's database host, which is not named";
                self.report.error(place, "database_host", what, "add database_host = \"NAME\"");
            }
            let region = value.name.clone().map(RegionName);
            let Some(trigger) = region.and_then(|region| group.policy.triggers.get(&region)) else { continue };
            let canaries: Vec<_> = trigger
                .targets
                .iter()
                .filter_map(|name| group.targets.get(name))
                .filter(|target| matches!(target.kind, TargetKind::Postgres { canary: true, .. }))
                .collect();
            if let (Some(slowest), Fencing::Lease { ttl_ms }) =
                (canaries.iter().map(|target| target.schedule.interval).max(), &group.policy.fencing)
                && slowest.as_millis() > u128::from(*ttl_ms) * 2
            {
                let what = format!(
                    "its canary writes every {} ms, more than twice lease_ttl_ms {ttl_ms}: a primary that hangs keeps its lease \
                     for so long unseen",
                    slowest.as_millis()
                );
                self.report.warn(place, "trigger.targets", what, "shorten interval_ms of that target");
            }
            if canaries.is_empty() {
                let what = "fencing \"lease\" needs a postgres target with canary = true among the trigger's: a primary \
                            that cannot write is renewed for ever otherwise";
                self.report.error(place, "trigger.targets", what, "add canary = true to the region's postgres target");
            }
        }
    }
}
