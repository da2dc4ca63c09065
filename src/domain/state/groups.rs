//! What concerns a group as such: configuration in force, pauses, resources left unsettled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{ClusterState, Effect, Entry, GroupDrills, GroupState, Pause, Serving, reject};
use crate::domain::command::{GroupSpec, Rejection, RejectionCode};
use crate::domain::ids::{ClusterName, ConfigDigest, GroupName, ReceiverName, ResourceName, TargetName, Token, UnixMs};
use crate::domain::on_call::OnCall;
use crate::domain::plan::{Action, Plan};
use crate::domain::run::RunKind;

impl GroupState {
    /// A plan moves from where the group is to another of its regions; one of kind `recovery` stays in the region acted upon.
    pub(super) fn fits(&self, name: &GroupName, kind: RunKind, plan: &Plan) -> Result<(), Rejection> {
        if kind == RunKind::Recovery {
            if plan.to == plan.from && self.regions.contains(&plan.to) {
                return Ok(());
            }
            let message = format!(
                "group {name}: a {kind} acts upon one of its regions: a plan from {} to {} does not fit",
                plan.from, plan.to
            );
            return reject(RejectionCode::Invalid, message);
        }
        let here = if kind == RunKind::Traffic { &self.traffic } else { &self.serving.last };
        if &plan.from != here || plan.to == plan.from || !self.regions.contains(&plan.to) {
            let message = format!("group {name} is at {here}: a plan from {} to {} does not fit", plan.from, plan.to);
            return reject(RejectionCode::Invalid, message);
        }
        Ok(())
    }
}

impl ClusterState {
    /// Takes a configuration into force. A new digest makes every target prove itself up again.
    pub(super) fn adopt_config(
        &mut self,
        cluster: &ClusterName,
        epoch: u64,
        digest: &ConfigDigest,
        groups: &BTreeMap<GroupName, GroupSpec>,
        (receivers, on_call): (&[ReceiverName], &OnCall),
    ) -> Effect {
        if let Some(own) = &self.cluster
            && own != cluster
        {
            return reject(
                RejectionCode::OtherConfig,
                format!("this is cluster {own}, the configuration is {cluster}'s"),
            );
        }
        if epoch < self.epoch {
            let message =
                format!("the cluster's epoch is {}, the configuration says {epoch}; epochs never fall", self.epoch);
            return reject(RejectionCode::OtherConfig, message);
        }
        for (name, spec) in groups {
            if let Some(group) = self.groups.get(name)
                && !spec.regions.contains(&group.serving.last)
            {
                let message = format!(
                    "group {name} serves from {}, which the new configuration does not list; move it first",
                    group.serving.last
                );
                return reject(RejectionCode::Illegal, message);
            }
        }
        let changed = self.digest.as_ref() != Some(digest);
        self.cluster = Some(cluster.clone());
        self.epoch = epoch;
        self.digest = Some(digest.clone());
        self.receivers = receivers.to_vec();
        self.on_call.clone_from(on_call);
        for (name, spec) in groups {
            let group = self.groups.entry(name.clone()).or_insert_with(|| new_group(spec, epoch));
            group.home = spec.home.clone();
            group.regions.clone_from(&spec.regions);
            group.fencing = spec.fencing.clone();
            if changed {
                group.seen_up.clear();
            }
        }
        Ok(None)
    }

    pub(super) fn mark_seen_up(&mut self, group: &GroupName, digest: &ConfigDigest, targets: &[TargetName]) -> Effect {
        if self.digest.as_ref() != Some(digest) {
            return reject(
                RejectionCode::OtherConfig,
                format!("targets seen up under {digest}, which is not in force"),
            );
        }
        let group = self.group_mut(group)?;
        group.seen_up.extend(targets.iter().cloned());
        Ok(None)
    }

    pub(super) fn pause(&mut self, entry: Entry<'_>, group: &GroupName, reason: &str, until: Option<UnixMs>) -> Effect {
        if reason.trim().is_empty() {
            return reject(RejectionCode::Invalid, "reason: say why the group is paused, for whoever is on call next");
        }
        if until.is_some_and(|until| until <= entry.at) {
            return reject(RejectionCode::Invalid, "until: lies in the past");
        }
        let group = self.group_mut(group)?;
        group.pause = Some(Pause { by: entry.by.clone(), at: entry.at, reason: reason.to_owned(), until });
        Ok(None)
    }

    pub(super) fn resume(&mut self, entry: Entry<'_>, name: &GroupName, expired: Option<UnixMs>) -> Effect {
        let group = self.group_mut(name)?;
        let Some(pause) = &group.pause else {
            return reject(RejectionCode::NotPaused, format!("group {name} is not paused"));
        };
        if expired.is_some() && pause.until != expired {
            return reject(RejectionCode::Stale, format!("the pause of group {name} was changed since"));
        }
        group.pause = None;
        // By a person, who has seen that it is served from home: that pause has no end of its own.
        group.unconfirmed = false;
        group.resumed_at = Some(entry.at);
        Ok(None)
    }

    /// `untouched`: the resource was read back as if nobody had tried. A fence so found gives serving back, where nobody
    /// has it and no run is open.
    pub(super) fn settle(&mut self, name: &GroupName, resource: &ResourceName, untouched: bool) -> Effect {
        let group = self.group_mut(name)?;
        let Some(left) = group.unsettled.remove(resource) else {
            return reject(RejectionCode::NotFound, format!("{resource} of group {name} is not unsettled"));
        };
        let is_fence = matches!(left.action, Action::Fence { .. });
        if untouched && is_fence && group.open_run.is_none() && group.serving.region.is_none() {
            let last = group.serving.last.clone();
            group.serve_from(Some(last));
            group.unsettled.values_mut().for_each(|left| left.is_due = false);
        }
        Ok(None)
    }

    /// Whether [`Change::AdoptConfig`](crate::domain::command::Change::AdoptConfig) would be taken, and else why not.
    pub fn would_adopt(
        &self,
        cluster: &ClusterName,
        epoch: u64,
        digest: &ConfigDigest,
        groups: &BTreeMap<GroupName, GroupSpec>,
    ) -> Result<(), Rejection> {
        self.clone().adopt_config(cluster, epoch, digest, groups, (&[], &OnCall::default())).map(drop)
    }
}

fn new_group(spec: &GroupSpec, epoch: u64) -> GroupState {
    GroupState {
        home: spec.home.clone(),
        regions: spec.regions.clone(),
        serving: Serving { region: Some(spec.home.clone()), last: spec.home.clone(), epoch: 1 },
        traffic: spec.home.clone(),
        token: Token { epoch, n: 0 },
        pause: None,
        unconfirmed: false,
        resumed_at: None,
        fencing: spec.fencing.clone(),
        lease: None,
        open_run: None,
        history: VecDeque::new(),
        last_failover: None,
        seen_up: BTreeSet::new(),
        readiness: None,
        drills: GroupDrills::default(),
        unsettled: BTreeMap::new(),
    }
}
