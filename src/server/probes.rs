//! From the configuration's targets to probes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::ServerError;
use crate::config::{Config, DatabaseRole, NodeConfig, Schedule, TargetConfig, TargetKind};
use crate::consensus::Consensus;
use crate::domain::ids::{GroupName, NodeId, RegionName};
use crate::domain::observation::{Failure, FailureKind, Measure};
use crate::domain::plan::RecordKind;
use crate::domain::verdict::WindowParameters;
use crate::probe::{
    ExpectedValues, Peer, Probe, ProbeBuilder, ProbeError, ProbeSpec, ProbeSurroundings, Reference, Role, Target,
};
use crate::resolve::Question;

/// Peers are asked this often; a ping is small, and Raft's own heartbeats are not counted.
const PEER_WINDOW: WindowParameters =
    WindowParameters { interval_ms: 1000, fastinter_ms: 300, timeout_ms: 1000, fall: 3, rise: 1 };

/// Everything this node looks at.
pub struct Looks {
    pub targets: Vec<Target>,
    pub references: Vec<Reference>,
    pub peers: Vec<Peer>,
}

/// Makes every probe.
pub fn build(config: &Config, own: &NodeConfig, consensus: &Consensus) -> Result<Looks, ServerError> {
    let mut builder = ProbeBuilder::default();
    let mut make = |target: &TargetConfig, expected: Option<ExpectedValues>| {
        let wrong = |source| ServerError::Probe { target: target.name.to_string(), source };
        let around = ProbeSurroundings {
            who: format!("{}/{}", own.name, target.name),
            timeout_ms: window(&target.schedule).timeout_ms,
            expected,
        };
        builder.build(&spec(&target.kind).map_err(wrong)?, around).map_err(wrong)
    };
    let mut looks = Looks { targets: Vec::new(), references: Vec::new(), peers: Vec::new() };
    for group in config.groups.values() {
        for target in group.targets.values() {
            let expected = expected_values(&group.name, &target.kind, consensus);
            let probe = make(target, expected)?;
            let window = window(&target.schedule);
            looks.targets.push(Target { group: group.name.clone(), name: target.name.clone(), window, probe });
        }
    }
    for target in config.references.values() {
        let probe = make(target, None)?;
        looks.references.push(Reference { name: target.name.to_string(), window: window(&target.schedule), probe });
    }
    for node in config.nodes.keys().filter(|id| **id != own.id) {
        let probe = Arc::new(PeerProbe { node: *node, consensus: consensus.clone() });
        looks.peers.push(Peer { node: *node, window: PEER_WINDOW, probe });
    }
    Ok(looks)
}

fn window(schedule: &Schedule) -> WindowParameters {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    WindowParameters {
        interval_ms: ms(schedule.interval),
        fastinter_ms: ms(schedule.fastinter),
        timeout_ms: ms(schedule.timeout),
        fall: schedule.fall,
        rise: schedule.rise,
    }
}

fn spec(kind: &TargetKind) -> Result<ProbeSpec, ProbeError> {
    let path = |file: &Option<String>| file.as_ref().map(PathBuf::from);
    Ok(match kind {
        TargetKind::Http { url, expect_status, body_contains, ca_file, follow_redirects } => ProbeSpec::Http {
            url: url.parse().map_err(|error| ProbeError::HttpClient { detail: format!("url {url}: {error}") })?,
            expect_status: *expect_status,
            body_contains: body_contains.clone(),
            ca_file: path(ca_file),
            follow_redirects: *follow_redirects,
        },
        TargetKind::Tcp { address } => ProbeSpec::Tcp { address: address.clone() },
        TargetKind::Postgres { database, expect_role, canary } => ProbeSpec::Postgres {
            conninfo: database.conninfo.clone(),
            password_file: path(&database.password_file),
            tls_ca_file: path(&database.tls_ca_file),
            expect_role: match expect_role {
                DatabaseRole::Primary => Role::Primary,
                DatabaseRole::Standby => Role::Standby,
                DatabaseRole::Any => Role::Any,
            },
            canary: *canary,
        },
        TargetKind::Replication { primary, standby } => ProbeSpec::Replication {
            primary: primary.conninfo.clone(),
            standby: standby.conninfo.clone(),
            password_file: path(&standby.password_file),
            tls_ca_file: path(&standby.tls_ca_file),
        },
        TargetKind::Dns { server, record_name, record_type, .. } => ProbeSpec::Dns {
            server: server.clone(),
            record_name: record_name.clone(),
            question: match record_type {
                RecordKind::A => Question::A,
                RecordKind::Aaaa => Question::Aaaa,
                RecordKind::Cname => Question::Cname,
            },
        },
    })
}

/// What a DNS target must answer moves with the serving region.
fn expected_values(group: &GroupName, kind: &TargetKind, consensus: &Consensus) -> Option<ExpectedValues> {
    let TargetKind::Dns { expected, .. } = kind else { return None };
    let (expected, group): (BTreeMap<RegionName, String>, GroupName) = (expected.clone(), group.clone());
    let state = consensus.state();
    Some(Arc::new(move || {
        let state = state.borrow();
        let region = state.group(&group)?.serving.region.clone()?;
        expected.get(&region).map(|value| vec![value.clone()])
    }))
}

/// A peer answers a ping.
struct PeerProbe {
    node: NodeId,
    consensus: Consensus,
}

#[async_trait]
impl Probe for PeerProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        match self.consensus.ping(self.node, Duration::from_millis(PEER_WINDOW.timeout_ms)).await {
            Ok(_) => Ok(None),
            Err(error) => Err(Failure { kind: FailureKind::Unreachable, detail: error.to_string() }),
        }
    }
}
