//! Every way in which a change of the membership is refused, by table, and what is to be done next where it is not.

use std::collections::{BTreeMap, BTreeSet};

use super::command::RejectionCode::{self, *};
use super::fixtures::policy;
use super::ids::{NodeId, UnixMs};
use super::membership::*;
use super::policy::{ClusterPolicy, Member};
use super::state::{NodePhase, NodeRecord, NodeSpec};

fn spec(name: &str, region: &str) -> NodeSpec {
    NodeSpec { name: name.into(), region: region.into(), address: format!("{name}:7101") }
}

fn seen(name: &str, region: &str) -> Seen {
    Seen { spec: spec(name, region), is_voter: true, answers: true, behind: Some(0) }
}

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// 1+1+1, led by the witness (3); the configuration also knows of 4 (hanoi-2), 5 (hcmc-2) and 6 (witness-2).
struct Site {
    members: BTreeMap<NodeId, Seen>,
    records: BTreeMap<NodeId, NodeRecord>,
    policy: ClusterPolicy,
    goal: Option<BTreeSet<NodeId>>,
    silent: bool,
    other_file: bool,
}

impl Site {
    fn new() -> Self {
        let mut policy = policy();
        for (id, name, region) in [(4, "hanoi-2", "hanoi"), (5, "hcmc-2", "hcmc"), (6, "witness-2", "witness")] {
            policy.members.insert(NodeId(id), Member { name: name.into(), region: region.into() });
        }
        let members = [(1, "hcmc-1", "hcmc"), (2, "hanoi-1", "hanoi"), (3, "witness-1", "witness")];
        Self {
            members: members.into_iter().map(|(id, name, region)| (NodeId(id), seen(name, region))).collect(),
            records: BTreeMap::new(),
            policy,
            goal: None,
            silent: false,
            other_file: false,
        }
    }

    fn member(&mut self, id: u64) -> &mut Seen {
        self.members.get_mut(&NodeId(id)).expect("a member")
    }

    fn voter(mut self, id: u64, name: &str, region: &str) -> Self {
        self.members.insert(NodeId(id), seen(name, region));
        self
    }

    fn learner(mut self, id: u64, name: &str, region: &str, behind: Option<u64>, phase: NodePhase) -> Self {
        self.members.insert(NodeId(id), Seen { is_voter: false, behind, ..seen(name, region) });
        self.record(id, name, region, phase)
    }

    fn record(mut self, id: u64, name: &str, region: &str, phase: NodePhase) -> Self {
        let record =
            NodeRecord { spec: spec(name, region), phase, since: UnixMs(1), by: "user:linh".into(), replaces: None };
        self.records.insert(NodeId(id), record);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn judge(&self, ask: &Ask) -> Judged {
        let picture = Picture {
            leader: NodeId(3),
            members: self.members.clone(),
            goal: self.goal.clone(),
            used: ids(&[1, 2, 3, 9]),
            records: &self.records,
            policy: &self.policy,
            newcomer_silent: self.silent.then(|| "connection refused".to_owned()),
            is_in_force: !self.other_file,
        };
        judge(&picture, ask)
    }
}

fn add(id: u64, name: &str, region: &str) -> Ask {
    Ask::Add { node: NodeId(id), spec: spec(name, region), as_learner: false }
}

fn replace(old: u64, id: u64, name: &str, region: &str) -> Ask {
    Ask::Replace { old: NodeId(old), node: NodeId(id), spec: spec(name, region) }
}

fn remove(id: u64) -> Ask {
    Ask::Remove { node: NodeId(id) }
}

fn dead(id: u64) -> impl FnOnce(&mut Site) {
    move |site: &mut Site| site.member(id).answers = false
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do_next() {
    let new = Site::new;
    let witness_2 = || add(6, "witness-2", "witness");
    let table: Vec<(Site, Ask, RejectionCode, &str)> = vec![
        // Section 3.
        (new(), add(5, "hcmc-2", "hcmc"), LayoutBroken, "when hcmc is lost, 2 of 4 voters remain, and 3 are needed"),
        (new(), remove(1), LayoutBroken, "2 voters would be left, fewer than 3"),
        (new(), replace(2, 5, "hcmc-2", "hcmc"), LayoutBroken, "when hcmc is lost, 1 of 3 voters remain"),
        (
            new().voter(4, "hanoi-2", "hanoi").voter(5, "hcmc-2", "hcmc"),
            remove(1),
            LayoutBroken,
            "when hanoi is lost, 2 of 4 voters remain, and 3 are needed",
        ),
        (
            new().with(|site| drop(site.policy.members.remove(&NodeId(2)))),
            replace(1, 5, "hcmc-2", "hcmc"),
            LayoutBroken,
            "where hanoi-1 stands witness-1 does not know",
        ),
        // The majority that is left would not answer.
        (
            new().voter(6, "witness-2", "witness").with(dead(1)).with(dead(2)),
            remove(6),
            QuorumLost,
            "1 of 3 voters would answer, and 2 are needed: bring hcmc-1, hanoi-1 back first",
        ),
        // Nobody but the leader would be left.
        (
            new().with(dead(1)).with(dead(2)).with(|site| site.silent = true),
            replace(1, 5, "hcmc-2", "hcmc"),
            NotReachable,
            "hcmc-2 does not answer",
        ),
        // Used before, or another's.
        (new(), add(9, "witness-2", "witness"), Taken, "number 9 was used before"),
        (
            new().record(6, "witness-9", "witness", NodePhase::Gone),
            witness_2(),
            Taken,
            "number 6 was witness-9's: numbers are used once",
        ),
        (
            new().record(6, "other", "witness", NodePhase::Joining),
            witness_2(),
            Taken,
            "is being added as other in witness",
        ),
        (new(), add(2, "witness-2", "witness"), Taken, "node 2 is hanoi-1 in hanoi at hanoi-1:7101, a member already"),
        (new(), add(6, "hanoi-1", "witness"), Taken, "hanoi-1 is the name of node 2, which lives"),
        (new(), replace(1, 6, "hanoi-1", "witness"), Taken, "hanoi-1 is the name of node 2, which lives"),
        (
            new().with(|site| site.member(2).spec.address = "witness-2:7101".to_owned()),
            witness_2(),
            Taken,
            "witness-2:7101 is the address of hanoi-1",
        ),
        (new(), replace(1, 1, "hcmc-1", "hcmc"), Taken, "cannot take its own place"),
        // The configuration says where a node stands.
        (new(), add(7, "witness-7", "witness"), OtherConfig, "witness-1's configuration has no [[node]] with id = 7"),
        (new(), add(6, "witness-7", "witness"), OtherConfig, "calls node 6 witness-2, not witness-7"),
        (new(), add(6, "witness-2", "hanoi"), OtherConfig, "has witness-2 in witness, not in hanoi"),
        // One at a time.
        (
            new().learner(4, "hanoi-2", "hanoi", Some(0), NodePhase::Joining),
            witness_2(),
            ChangeUnderWay,
            "hanoi-2 (node 4) is being added, by user:linh",
        ),
        (
            new().record(1, "hcmc-1", "hcmc", NodePhase::Leaving).with(|site| site.goal = Some(ids(&[2, 3]))),
            witness_2(),
            ChangeUnderWay,
            "hcmc-1 (node 1) is being removed",
        ),
        (
            new().record(1, "hcmc-1", "hcmc", NodePhase::Leaving).with(|site| site.member(1).is_voter = false),
            witness_2(),
            ChangeUnderWay,
            "hcmc-1 (node 1) is being removed",
        ),
        // What the others do not run under.
        (
            new().with(|site| site.other_file = true),
            witness_2(),
            OtherConfig,
            "witness-1 leads under a configuration that is",
        ),
        (new().with(|site| site.other_file = true), remove(1), OtherConfig, "is not in force"),
        (
            new().with(|site| site.goal = Some(ids(&[1, 2, 3, 4]))),
            witness_2(),
            ChangeUnderWay,
            "a change of the voters to hcmc-1, hanoi-1, witness-1, hanoi-2 is half done",
        ),
        // The leader, nobody, and one that is not there.
        (new().voter(6, "witness-2", "witness"), remove(3), IsLeader, "watchdogctl node transfer"),
        (new(), replace(3, 6, "witness-2", "witness"), IsLeader, "watchdogctl node transfer"),
        (new(), remove(8), NotFound, "there is no node 8: watchdogctl node list"),
        (new(), replace(8, 6, "witness-2", "witness"), NotFound, "there is no node 8"),
        (new().with(|site| site.silent = true), witness_2(), NotReachable, "does not answer as node 6"),
        (
            new().learner(6, "witness-2", "witness", Some(0), NodePhase::Learner),
            replace(6, 4, "hanoi-2", "hanoi"),
            Illegal,
            "is a learner and has no vote to hand on",
        ),
    ];
    for (site, ask, code, words) in table {
        let judged = site.judge(&ask);
        let refusal = judged.refusal().unwrap_or_else(|| panic!("{ask:?} was not refused: {judged:#?}"));
        assert_eq!(refusal.code, code, "{ask:?}: {refusal:?}");
        assert!(refusal.message.contains(words), "{ask:?}: {:?} does not say {words:?}", refusal.message);
    }
}

#[test]
fn what_can_be_goes_on_where_it_stopped() {
    let new = Site::new;
    let witness_2 = || add(6, "witness-2", "witness");
    let joining = |behind| new().learner(6, "witness-2", "witness", behind, NodePhase::Joining);
    let in_place = |behind| new().with(dead(1)).learner(5, "hcmc-2", "hcmc", behind, NodePhase::Joining);
    let vote = |voters: &[u64]| Next::Vote { voters: ids(voters) };
    let as_learner = |id, name, region| Ask::Add { node: NodeId(id), spec: spec(name, region), as_learner: true };
    let table: Vec<(Site, Ask, Next)> = vec![
        (new(), witness_2(), Next::Admit),
        (new().record(6, "witness-2", "witness", NodePhase::Joining), witness_2(), Next::Admit),
        (joining(None), witness_2(), Next::Wait { behind: None }),
        (joining(Some(5000)), witness_2(), Next::Wait { behind: Some(5000) }),
        (joining(Some(3)), witness_2(), vote(&[1, 2, 3, 6])),
        // The leader died between the two steps of the change.
        (
            new().voter(6, "witness-2", "witness").with(|site| site.goal = Some(ids(&[1, 2, 3, 6]))),
            witness_2(),
            vote(&[1, 2, 3, 6]),
        ),
        (new().voter(6, "witness-2", "witness"), witness_2(), Next::Done),
        (joining(Some(3)), remove(6), Next::Drop),
        (new().voter(6, "witness-2", "witness"), remove(6), vote(&[1, 2, 3])),
        (new().voter(6, "witness-2", "witness").with(dead(6)), remove(6), vote(&[1, 2, 3])),
        (new().record(6, "witness-2", "witness", NodePhase::Leaving), remove(6), Next::Done),
        // In a dead node's place: nobody votes too many, nobody too few. Under its name and address, if need be.
        (new().with(dead(1)), replace(1, 5, "hcmc-2", "hcmc"), Next::Admit),
        (in_place(Some(900)), replace(1, 5, "hcmc-2", "hcmc"), Next::Wait { behind: Some(900) }),
        (in_place(Some(0)), replace(1, 5, "hcmc-2", "hcmc"), vote(&[2, 3, 5])),
        (
            new().voter(5, "hcmc-2", "hcmc").with(|site| drop(site.members.remove(&NodeId(1)))),
            replace(1, 5, "hcmc-2", "hcmc"),
            Next::Done,
        ),
        // Two that keep the balance together.
        (new(), as_learner(5, "hcmc-2", "hcmc"), Next::Admit),
        (new().learner(5, "hcmc-2", "hcmc", Some(0), NodePhase::Joining), as_learner(5, "hcmc-2", "hcmc"), Next::Rest),
        (
            new().learner(5, "hcmc-2", "hcmc", Some(0), NodePhase::Learner).learner(
                4,
                "hanoi-2",
                "hanoi",
                Some(0),
                NodePhase::Joining,
            ),
            add(4, "hanoi-2", "hanoi"),
            vote(&[1, 2, 3, 4, 5]),
        ),
        // Accepted by name.
        (
            new().with(|site| site.policy.accepted_losses = BTreeSet::from(["hcmc".into()])),
            add(5, "hcmc-2", "hcmc"),
            Next::Admit,
        ),
    ];
    for (site, ask, next) in table {
        let judged = site.judge(&ask);
        assert_eq!(judged.refusal(), None, "{ask:?}");
        assert_eq!(judged.next, next, "{ask:?}: {judged:#?}");
    }
}

#[test]
fn a_node_is_found_by_its_number_or_its_name_and_the_living_before_the_dead() {
    let site = Site::new().record(9, "hcmc-1", "hcmc", NodePhase::Gone).record(7, "old", "hcmc", NodePhase::Gone);
    let picture = Picture {
        leader: NodeId(3),
        members: site.members.clone(),
        goal: None,
        used: ids(&[8]),
        records: &site.records,
        policy: &site.policy,
        newcomer_silent: None,
        is_in_force: true,
    };
    for (text, found) in [
        ("hcmc-1", Some(1)),
        ("1", Some(1)),
        ("9", Some(9)),
        ("old", Some(7)),
        ("8", Some(8)),
        ("x", None),
        ("6", None),
    ] {
        assert_eq!(picture.find(text), found.map(NodeId), "{text}");
    }
}

#[test]
fn leadership_goes_to_a_voter_that_keeps_it() {
    let heir = || Heir { seen: seen("hanoi-1", "hanoi"), digest: Some("d1".into()), is_isolated: false };
    let in_force = "d1".into();
    let refused = |heir: Heir| may_lead("hanoi-1", &heir, Some(&in_force)).err().map(|rejection| rejection.code);
    assert_eq!(refused(heir()), None);
    assert_eq!(refused(Heir { digest: None, ..heir() }), None);
    assert_eq!(refused(Heir { digest: Some("d2".into()), ..heir() }), Some(OtherConfig));
    assert_eq!(refused(Heir { seen: Seen { is_voter: false, ..heir().seen }, ..heir() }), Some(Illegal));
    assert_eq!(refused(Heir { seen: Seen { answers: false, ..heir().seen }, ..heir() }), Some(NotReachable));
    assert_eq!(refused(Heir { seen: Seen { behind: Some(999), ..heir().seen }, ..heir() }), Some(Stale));
    assert_eq!(refused(Heir { is_isolated: true, ..heir() }), Some(NotReachable));
}

/// Its leader died between the record and the change; then another node was lost. Repair must not wait for the first.
#[test]
fn a_removal_that_was_never_begun_is_given_up_by_the_next_change() {
    let site = Site::new().record(1, "hcmc-1", "hcmc", NodePhase::Leaving).with(dead(2));
    let judged = site.judge(&replace(2, 4, "hanoi-2", "hanoi"));
    assert_eq!((judged.refusal(), &judged.given_up, &judged.next), (None, &ids(&[1]), &Next::Admit));
    let gate = judged.gates.iter().find(|gate| gate.name == "one at a time").expect("the gate");
    assert!(gate.detail.contains("the removal of hcmc-1, which was ordered and never begun"), "{}", gate.detail);
    // The same removal again goes on with it, and one that another node is to take the place of belongs to that change.
    assert!(site.judge(&remove(1)).given_up.is_empty());
    let mut replaced = Site::new().record(2, "hanoi-1", "hanoi", NodePhase::Leaving);
    replaced = replaced.learner(4, "hanoi-2", "hanoi", Some(0), NodePhase::Joining);
    replaced.records.get_mut(&NodeId(4)).expect("on record").replaces = Some(NodeId(2));
    let judged = replaced.judge(&add(6, "witness-2", "witness"));
    assert_eq!(judged.refusal().map(|refusal| refusal.code), Some(ChangeUnderWay));
    assert!(judged.given_up.is_empty());
}
