//! From the configuration to what a node looks at.

use std::sync::Arc;

use async_trait::async_trait;

use super::observer::Closely;
use super::simulated::{Faults, SimulatedFault};
use super::{
    Endpoint, Observer, ObserverOptions, Peer, Probe, ProbeBuilder, ProbeError, ProbeSpec, ProbeSurroundings,
    Reference, Role, Target, backup,
};
use crate::config::{BackupSource, Config, DatabaseRole, NodeConfig, Schedule, TargetConfig, TargetKind};
use crate::domain::ids::{GroupName, RegionName, TargetName, UnixMs};
use crate::domain::observation::{Failure, FailureKind, Measure};
use crate::domain::plan::DatabaseEndpoint;
use crate::domain::verdict::WindowParameters;

/// Which region of a group serves now, as the replicated state says; `None` while none does.
pub type Serving = Arc<dyn Fn(&GroupName) -> Option<RegionName> + Send + Sync>;

/// A target's probe cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("target {name}: {source}")]
pub struct TargetError {
    /// Which target.
    pub name: TargetName,
    /// Why.
    pub source: ProbeError,
}

impl Observer {
    /// Starts looking at everything that the configuration names, and at `peers`.
    ///
    /// # Errors
    /// A target that cannot be looked at as configured: a missing file, an unreadable connection string.
    pub fn of_config(
        config: &Config,
        node: &NodeConfig,
        incarnation: UnixMs,
        (serving, faults, closely): (&Serving, &Faults, Closely),
        peers: Vec<Peer>,
    ) -> Result<Self, TargetError> {
        let mut builder = ProbeBuilder::default();
        let (mut targets, mut references) = (Vec::new(), Vec::new());
        for target in config.targets().filter(|target| is_for(target, node)) {
            let around = surroundings(target, node, serving);
            let probe = spec_of(target)
                .and_then(|spec| builder.build(&spec, around))
                .map_err(|source| TargetError { name: target.name.clone(), source })?;
            let window = window_of(&target.schedule);
            match &target.group {
                Some(group) => {
                    let probe = match may_be_simulated(config, group, &target.name) {
                        true => Arc::new(SimulatedFault::around(probe, group.clone(), faults.clone())),
                        false => probe,
                    };
                    targets.push(Target { group: group.clone(), name: target.name.clone(), window, probe });
                }
                None => references.push(Reference { name: target.name.to_string(), window, probe }),
            }
        }
        Ok(Self::start(ObserverOptions {
            node: node.id,
            incarnation,
            digest: config.digest.clone(),
            report_interval_ms: milliseconds(config.timing.report_interval),
            targets,
            references,
            peers,
            closely: Some(closely),
        }))
    }
}

/// In the home trigger of a group that is there for drills.
fn may_be_simulated(config: &Config, group: &GroupName, target: &TargetName) -> bool {
    config.groups.get(group).is_some_and(|group| {
        let trigger = group.policy.triggers.get(&group.policy.home);
        group.policy.drills.is_resource && trigger.is_some_and(|trigger| trigger.targets.contains(target))
    })
}

/// What lies on one machine only is looked at there only.
fn is_for(target: &TargetConfig, node: &NodeConfig) -> bool {
    match &target.kind {
        TargetKind::Backup { nodes, .. } => nodes.is_empty() || nodes.contains(&node.name),
        _ => true,
    }
}

/// The schedule as the window takes it.
pub fn window_of(schedule: &Schedule) -> WindowParameters {
    WindowParameters {
        interval_ms: milliseconds(schedule.interval),
        fastinter_ms: milliseconds(schedule.fastinter),
        timeout_ms: milliseconds(schedule.timeout),
        fall: schedule.fall,
        rise: schedule.rise,
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn surroundings(target: &TargetConfig, node: &NodeConfig, serving: &Serving) -> ProbeSurroundings {
    let mut around = ProbeSurroundings {
        who: format!("{}/{}", node.name, target.name),
        timeout_ms: milliseconds(target.schedule.timeout),
        expected: None,
    };
    if let (TargetKind::Dns { expected, .. }, Some(group)) = (&target.kind, &target.group) {
        let (expected, group, serving) = (expected.clone(), group.clone(), serving.clone());
        around.expected =
            Some(Arc::new(move || serving(&group).and_then(|region| expected.get(&region).cloned()).map(|v| vec![v])));
    }
    around
}

fn spec_of(target: &TargetConfig) -> Result<ProbeSpec, ProbeError> {
    Ok(match target.kind.clone() {
        TargetKind::Http { url, expect_status, body_contains, ca_file, follow_redirects } => ProbeSpec::Http {
            url: parsed(&url)?,
            expect_status,
            body_contains,
            ca_file: ca_file.map(Into::into),
            follow_redirects,
        },
        TargetKind::Tcp { address } => ProbeSpec::Tcp { address },
        TargetKind::Postgres { database, expect_role, canary } => {
            ProbeSpec::Postgres { database: endpoint_of(database), expect_role: role_of(expect_role), canary }
        }
        TargetKind::Replication { primary, standby } => {
            ProbeSpec::Replication { primary: endpoint_of(primary), standby: endpoint_of(standby) }
        }
        TargetKind::Redis { server, primary, expect_role } => {
            ProbeSpec::Redis { server, primary, expect_role: role_of(expect_role) }
        }
        TargetKind::Backup { source, stanza, ca_file, .. } => ProbeSpec::Backup {
            source: match source {
                BackupSource::File(path) => backup::BackupSource::File(path.into()),
                BackupSource::Url(url) => backup::BackupSource::Url(parsed(&url)?),
            },
            format: match stanza {
                Some(stanza) => backup::BackupFormat::PgBackRest { stanza },
                None => backup::BackupFormat::Modified,
            },
            ca_file: ca_file.map(Into::into),
        },
        TargetKind::Dns { server, record_name, record_type, .. } => {
            ProbeSpec::Dns { server, record_name, question: record_type.into() }
        }
    })
}

fn role_of(role: DatabaseRole) -> Role {
    match role {
        DatabaseRole::Primary => Role::Primary,
        DatabaseRole::Standby => Role::Standby,
        DatabaseRole::Any => Role::Any,
    }
}

fn parsed(url: &str) -> Result<url::Url, ProbeError> {
    url::Url::parse(url).map_err(|e| ProbeError::Url { url: url.to_owned(), detail: e.to_string() })
}

fn endpoint_of(endpoint: DatabaseEndpoint) -> Endpoint {
    Endpoint {
        conninfo: endpoint.conninfo,
        password_file: endpoint.password_file.map(Into::into),
        tls_ca_file: endpoint.tls_ca_file.map(Into::into),
    }
}

/// A probe from anything that can be awaited: how the server tells whether a peer answers.
pub struct PingProbe<F>(pub F);

#[async_trait]
impl<F, A> Probe for PingProbe<F>
where
    F: Fn() -> A + Send + Sync,
    A: Future<Output = Result<(), String>> + Send,
{
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        match (self.0)().await {
            Ok(()) => Ok(None),
            Err(detail) => Err(super::failure::failure(FailureKind::Unreachable, detail)),
        }
    }
}
