//! Who was ever put into the cluster, in the replicated state. Who is in it is Raft's membership; this remembers what was
//! asked for, by whom, and that a number is used once, also by nodes whose own store never saw it used.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClusterState, Effect, Entry, reject};
use crate::domain::command::RejectionCode;
use crate::domain::ids::{NodeId, NodeName, Principal, RegionName, UnixMs};

/// No more numbers are given out than this: each stays on record for good.
pub const NODES_MAX: usize = 256;

/// What a node is called, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name.
    pub name: NodeName,
    /// Its region or witness site.
    pub region: RegionName,
    /// `host:port` that its peers dial.
    pub address: String,
}

impl fmt::Display for NodeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} at {}", self.name, self.region, self.address)
    }
}

/// A step of a change of who is in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum NodeStep {
    /// It shall join.
    Admit {
        /// In whose place.
        replaces: Option<NodeId>,
        /// What that one is called, and where.
        old_spec: Option<NodeSpec>,
    },
    /// It votes.
    Joined,
    /// It stays a learner, as was asked.
    Rests,
    /// It shall leave.
    Dismiss,
    /// It left: its number is not used again.
    Gone,
    /// Its removal is given up before anything of it was done.
    Stays,
}

impl NodeStep {
    /// The step's word.
    pub fn word(&self) -> &'static str {
        match self {
            NodeStep::Admit { replaces: Some(_), .. } => "replace",
            NodeStep::Admit { .. } => "add",
            NodeStep::Joined => "joined",
            NodeStep::Rests => "learner",
            NodeStep::Dismiss => "remove",
            NodeStep::Gone => "removed",
            NodeStep::Stays => "keep",
        }
    }
}

/// How far a node was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePhase {
    /// Asked for, and no voter yet.
    Joining,
    /// Shall stay a learner until it is asked for again.
    Learner,
    /// It votes.
    Voter,
    /// Its removal was asked for.
    Leaving,
    /// Removed: its number is not used again.
    Gone,
}

impl NodePhase {
    /// A change that is begun and not over.
    pub fn is_under_way(self) -> bool {
        matches!(self, NodePhase::Joining | NodePhase::Leaving)
    }
}

/// What is on record of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What and where.
    pub spec: NodeSpec,
    /// How far.
    pub phase: NodePhase,
    /// Since when it is in this phase.
    pub since: UnixMs,
    /// Who asked for it.
    pub by: Principal,
    /// Whose place it takes, while it joins.
    #[serde(default)]
    pub replaces: Option<NodeId>,
}

impl ClusterState {
    pub(super) fn change_node(
        &mut self,
        entry: Entry<'_>,
        node: NodeId,
        spec: &NodeSpec,
        step: &NodeStep,
        reason: &str,
    ) -> Effect {
        if reason.trim().is_empty() {
            return reject(RejectionCode::Invalid, "reason: say why, for the audit");
        }
        let phase = self.nodes.get(&node).map(|record| record.phase);
        let old = match step {
            NodeStep::Admit { replaces, .. } => *replaces,
            _ => self.nodes.get(&node).and_then(|record| record.replaces),
        };
        let is_other = |id: &NodeId| *id != node && Some(*id) != old;
        let busy = self.nodes.iter().find(|(id, record)| is_other(id) && record.phase.is_under_way());
        if let (Some((id, record)), NodeStep::Admit { .. } | NodeStep::Dismiss) = (busy, step) {
            let message = format!("node {id} ({}) is being added or removed, by {}", record.spec.name, record.by);
            return reject(RejectionCode::ChangeUnderWay, message);
        }
        let mut replaces = None;
        let next = match (step, phase) {
            (NodeStep::Admit { .. }, Some(NodePhase::Gone | NodePhase::Leaving)) => {
                let message = format!("number {node} was used before: numbers are used once; choose another");
                return reject(RejectionCode::Taken, message);
            }
            (NodeStep::Admit { .. }, None) if self.nodes.len() >= NODES_MAX => {
                let message = format!("{NODES_MAX} numbers are on record: no more nodes can be added to this cluster");
                return reject(RejectionCode::Taken, message);
            }
            (NodeStep::Admit { .. }, Some(_)) if self.nodes.get(&node).is_some_and(|known| &known.spec != spec) => {
                return reject(RejectionCode::Taken, format!("node {node} is on record as another: {spec} differs"));
            }
            (NodeStep::Admit { .. }, Some(NodePhase::Voter)) => NodePhase::Voter,
            (NodeStep::Admit { replaces: old, .. }, _) => {
                replaces = *old;
                NodePhase::Joining
            }
            (NodeStep::Joined | NodeStep::Rests, Some(NodePhase::Gone)) => {
                let message = format!("number {node} is gone for good: numbers are used once; choose another");
                return reject(RejectionCode::Taken, message);
            }
            (NodeStep::Joined, _) => {
                self.replaced(entry, node);
                NodePhase::Voter
            }
            (NodeStep::Rests, _) => NodePhase::Learner,
            (NodeStep::Stays, Some(NodePhase::Leaving)) => NodePhase::Voter,
            (NodeStep::Stays, _) => {
                let message = format!("node {node} is not being removed: there is nothing to give up");
                return reject(RejectionCode::Illegal, message);
            }
            (NodeStep::Dismiss, Some(NodePhase::Gone)) | (NodeStep::Gone, _) => NodePhase::Gone,
            (NodeStep::Dismiss, _) => NodePhase::Leaving,
        };
        if phase == Some(next) && replaces == self.nodes.get(&node).and_then(|known| known.replaces) {
            return Ok(None);
        }
        // Given up: the one whose place it was to take stays.
        if next == NodePhase::Leaving
            && let Some(stays) = old.and_then(|old| self.nodes.get_mut(&old))
            && stays.phase == NodePhase::Leaving
        {
            stays.phase = NodePhase::Voter;
        }
        let record = NodeRecord { spec: spec.clone(), phase: next, since: entry.at, by: entry.by.clone(), replaces };
        self.nodes.insert(node, record);
        if let NodeStep::Admit { replaces: Some(old), old_spec: Some(spec) } = step {
            let known = NodeRecord {
                spec: spec.clone(),
                phase: NodePhase::Leaving,
                since: entry.at,
                by: entry.by.clone(),
                replaces: None,
            };
            self.nodes.entry(*old).or_insert(known);
        }
        Ok(None)
    }

    /// Whose place it took is gone.
    fn replaced(&mut self, entry: Entry<'_>, node: NodeId) {
        let old = self.nodes.get(&node).and_then(|record| record.replaces);
        if let Some(record) = old.and_then(|old| self.nodes.get_mut(&old)) {
            record.phase = NodePhase::Gone;
            record.since = entry.at;
            record.by = entry.by.clone();
        }
    }
}

/// What is on record, by number.
pub type NodeRecords = BTreeMap<NodeId, NodeRecord>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::{Applied, Change};
    use crate::domain::fixtures::World;

    fn spec(name: &str) -> NodeSpec {
        NodeSpec { name: name.into(), region: "hanoi".into(), address: format!("{name}:7101") }
    }

    fn change(node: u64, name: &str, step: NodeStep) -> Change {
        Change::ChangeNode { node: NodeId(node), spec: spec(name), step, reason: "a test".to_owned() }
    }

    fn admit() -> NodeStep {
        NodeStep::Admit { replaces: None, old_spec: None }
    }

    fn code(applied: &Applied) -> Option<RejectionCode> {
        if let Applied::Rejected(rejection) = applied { Some(rejection.code) } else { None }
    }

    #[test]
    fn a_number_is_used_once_and_one_change_is_under_way() {
        let mut world = World::new();
        world.must(change(4, "hanoi-2", admit()));
        world.must(change(4, "hanoi-2", admit()));
        assert_eq!(code(&world.apply(change(4, "hanoi-3", admit()))), Some(RejectionCode::Taken));
        assert_eq!(code(&world.apply(change(5, "hanoi-3", admit()))), Some(RejectionCode::ChangeUnderWay));
        assert_eq!(code(&world.apply(change(1, "hcmc-1", NodeStep::Dismiss))), Some(RejectionCode::ChangeUnderWay));
        world.must(change(4, "hanoi-2", NodeStep::Joined));
        assert_eq!(world.state.nodes[&NodeId(4)].phase, NodePhase::Voter);
        world.must(change(4, "hanoi-2", NodeStep::Dismiss));
        world.must(change(4, "hanoi-2", NodeStep::Gone));
        assert_eq!(code(&world.apply(change(4, "hanoi-2", admit()))), Some(RejectionCode::Taken));
        // It was never added by this record, but it was in the cluster that was formed.
        world.must(change(1, "hcmc-1", NodeStep::Dismiss));
        world.must(change(1, "hcmc-1", NodeStep::Gone));
        assert_eq!(code(&world.apply(change(1, "hcmc-1", admit()))), Some(RejectionCode::Taken));
    }

    #[test]
    fn whose_place_is_taken_is_gone_with_it() {
        let mut world = World::new();
        let admit = NodeStep::Admit { replaces: Some(NodeId(3)), old_spec: Some(spec("witness-1")) };
        world.must(change(4, "witness-2", admit.clone()));
        assert_eq!(world.state.nodes[&NodeId(3)].phase, NodePhase::Leaving);
        world.must(change(4, "witness-2", admit));
        world.must(change(4, "witness-2", NodeStep::Joined));
        assert_eq!(world.state.nodes[&NodeId(3)].phase, NodePhase::Gone);
        assert_eq!(world.state.nodes[&NodeId(4)].phase, NodePhase::Voter);
    }

    #[test]
    fn a_removal_that_is_given_up_makes_way_for_another_change() {
        let mut world = World::new();
        world.must(change(1, "hcmc-1", NodeStep::Dismiss));
        assert_eq!(code(&world.apply(change(4, "hanoi-2", admit()))), Some(RejectionCode::ChangeUnderWay));
        world.must(change(1, "hcmc-1", NodeStep::Stays));
        assert_eq!(world.state.nodes[&NodeId(1)].phase, NodePhase::Voter);
        world.must(change(4, "hanoi-2", admit()));
        assert_eq!(code(&world.apply(change(4, "hanoi-2", NodeStep::Stays))), Some(RejectionCode::Illegal));
        world.must(change(4, "hanoi-2", NodeStep::Gone));
        assert_eq!(code(&world.apply(change(4, "hanoi-2", NodeStep::Stays))), Some(RejectionCode::Illegal));
    }

    #[test]
    fn whose_place_was_not_taken_stays() {
        let mut world = World::new();
        world.must(change(4, "witness-2", NodeStep::Admit { replaces: Some(NodeId(3)), old_spec: Some(spec("w")) }));
        world.must(change(4, "witness-2", NodeStep::Dismiss));
        assert_eq!(world.state.nodes[&NodeId(3)].phase, NodePhase::Voter);
        world.must(change(4, "witness-2", NodeStep::Gone));
        world.must(change(5, "hanoi-2", admit()));
    }

    #[test]
    fn there_is_an_end_of_numbers() {
        let mut world = World::new();
        for node in 10..10 + NODES_MAX as u64 {
            world.must(change(node, "x", admit()));
            world.must(change(node, "x", NodeStep::Gone));
        }
        assert_eq!(code(&world.apply(change(9, "y", admit()))), Some(RejectionCode::Taken));
        world.must(change(1, "hcmc-1", NodeStep::Dismiss));
    }
}
