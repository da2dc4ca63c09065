//! The file as a whole: its tables, each with where it stands.

use super::{
    RawAudit, RawCluster, RawContact, RawDns, RawDrill, RawDrillCheck, RawEscalation, RawGroup, RawGroupRegion,
    RawGroupService, RawHeartbeat, RawHost, RawIncidentLevel, RawNode, RawProbe, RawReceiver, RawRecord, RawRegion,
    RawRole, RawStep, RawTarget, RawTiming, RawTls, RawTraces, RawVerify,
};
use crate::config::check::Item;

/// One `[[group]]` with its sub-tables.
#[derive(Debug, Clone, Default)]
pub struct RawGroupTables {
    /// Its own keys.
    pub group: Item<RawGroup>,
    /// `[[group.region]]`
    pub regions: Vec<Item<RawGroupRegion>>,
    /// `[[group.target]]`
    pub targets: Vec<Item<RawTarget>>,
    /// `[[group.record]]`
    pub records: Vec<Item<RawRecord>>,
    /// `[[group.traffic_record]]`
    pub traffic_records: Vec<Item<RawRecord>>,
    /// `[[group.service]]`
    pub services: Vec<Item<RawGroupService>>,
    /// `[[group.verify]]`
    pub verify: Vec<Item<RawVerify>>,
    /// `[[group.step]]`
    pub steps: Vec<Item<RawStep>>,
    /// `[[group.drill]]`
    pub drills: Vec<Item<RawDrill>>,
    /// `[[group.drill_check]]`
    pub drill_checks: Vec<Item<RawDrillCheck>>,
}

/// The whole file.
#[derive(Debug, Clone, Default)]
pub struct RawConfig {
    /// `[cluster]`
    pub cluster: Item<RawCluster>,
    /// `[tls]`
    pub tls: Item<RawTls>,
    /// `[[role]]`
    pub roles: Vec<Item<RawRole>>,
    /// `[timing]`
    pub timing: Item<RawTiming>,
    /// `[audit]`
    pub audit: Item<RawAudit>,
    /// `[heartbeat]`
    pub heartbeat: Item<RawHeartbeat>,
    /// `[traces]`
    pub traces: Item<RawTraces>,
    /// `[probe_defaults]`
    pub probe_defaults: Item<RawProbe>,
    /// `[[region]]`
    pub regions: Vec<Item<RawRegion>>,
    /// `[[node]]`
    pub nodes: Vec<Item<RawNode>>,
    /// `[[reference]]`
    pub references: Vec<Item<RawTarget>>,
    /// `[[receiver]]`
    pub receivers: Vec<Item<RawReceiver>>,
    /// `[[contact]]`
    pub contacts: Vec<Item<RawContact>>,
    /// `[[escalation]]`
    pub escalations: Vec<Item<RawEscalation>>,
    /// `[[incident_level]]`
    pub incident_levels: Vec<Item<RawIncidentLevel>>,
    /// `[[host]]`
    pub hosts: Vec<Item<RawHost>>,
    /// `[[dns]]`
    pub dns: Vec<Item<RawDns>>,
    /// `[[group]]`
    pub groups: Vec<RawGroupTables>,
}
