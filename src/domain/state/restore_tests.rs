//! A backup of every kind of state, put into a cluster that was formed anew.

use std::collections::BTreeMap;

use super::restore::{BackupOrigin, BackupPart, GroupRestored, parts};
use super::{ClusterState, Unsettled};
use crate::domain::command::{Applied, Change, Command, RejectionCode};
use crate::domain::decide::specs;
use crate::domain::fixtures::{World, digest, group, plan, policy, region};
use crate::domain::ids::{NodeId, RequestId, ResourceName, Token, UnixMs};
use crate::domain::invariants::{violations, violations_between};
use crate::domain::plan::Action;
use crate::domain::run::{RunOutcome, RunPhase};

/// Formed anew at that epoch, with the same configuration.
fn formed(epoch: u64) -> World {
    let policy = policy();
    let mut world = World { state: ClusterState::default(), index: 0, now: UnixMs(9_000_000) };
    world.must(Change::AdoptConfig {
        cluster: policy.cluster.clone(),
        epoch,
        digest: digest(),
        groups: specs(&policy),
        receivers: policy.receivers.clone(),
        on_call: policy.on_call.clone(),
    });
    world
}

fn origin() -> BackupOrigin {
    BackupOrigin { id: "b1".to_owned(), at: UnixMs(5_000_000), by: "user:linh".into() }
}

fn serving(at: &str) -> BTreeMap<crate::domain::ids::GroupName, crate::domain::ids::RegionName> {
    BTreeMap::from([(group(), region(at))])
}

/// As a node hands it over, through JSON.
fn hand_over(world: &mut World, backup: &ClusterState) -> u32 {
    let all = parts(backup);
    let count = u32::try_from(all.len()).unwrap();
    for (part, content) in (0..).zip(all) {
        let json = serde_json::to_string(&Change::RestorePart { backup: "b1".to_owned(), part, content }).unwrap();
        assert!(json.len() < 200 << 10, "part {part} has {} bytes", json.len());
        world.must(serde_json::from_str(&json).unwrap());
    }
    count
}

fn restore(parts: u32, at: &str) -> Change {
    Change::Restore { origin: origin(), parts, serving: serving(at), reason: "all nodes were lost".to_owned() }
}

fn code(applied: &Applied) -> Option<RejectionCode> {
    if let Applied::Rejected(rejection) = applied { Some(rejection.code) } else { None }
}

/// The fence is done, the promotion started, and then everything was lost; before that a run was aborted and left its
/// fence due.
fn in_the_middle() -> World {
    let (mut world, token) = World::opened("r1");
    world.do_step("fence", token);
    let mut promote = world.start_change("promote", token);
    if let Change::StepStarted { fence_proof, .. } = &mut promote {
        *fence_proof = Some(crate::domain::command::FenceProof::Guard { token, evidence: "stopped".to_owned() });
    }
    world.must(promote);
    let plan = plan("hcmc", "hanoi");
    let (_, step) = plan.steps().find(|(_, step)| matches!(step.action, Action::Fence { .. })).unwrap();
    let left = Unsettled { run: "r0".into(), token, since: UnixMs(1), action: step.action.clone(), is_due: true };
    let left_at = ResourceName::from("host:db-old");
    world.state.groups.get_mut(&group()).unwrap().unsettled.insert(left_at, left);
    world
}

#[test]
fn p3_every_token_is_above_the_old_and_nothing_is_believed_that_may_have_changed() {
    let old = in_the_middle();
    let mut world = formed(2);
    assert!(world.group().pause.as_ref().unwrap().reason.contains("was formed anew"));
    assert!(world.group().unconfirmed, "no guard is answered");
    let count = hand_over(&mut world, &old.state);
    let before = world.state.clone();
    // Nothing of it is in force before the last word.
    assert_eq!(world.group().token, Token { epoch: 2, n: 0 });
    world.must(restore(count, "hcmc"));
    assert_eq!(violations(&world.state), Vec::<String>::new());
    assert_eq!(violations_between(&before, &world.state), Vec::<String>::new());
    assert!(world.state.restoring.is_none());

    let group = world.group();
    assert!(!group.unconfirmed);
    assert!(group.token > old.group().token && group.token == Token { epoch: 2, n: 1 });
    assert_eq!((group.serving.region.as_ref(), &group.serving.last), (Some(&region("hcmc")), &region("hcmc")));
    assert!(group.serving.epoch > old.group().serving.epoch);
    assert!(group.pause.as_ref().unwrap().reason.starts_with("restored from the backup of log position"));
    assert!(group.open_run.is_none() && group.lease.is_none() && group.seen_up.is_empty());
    let run = group.history.back().unwrap();
    assert!(run.id.as_str() == "r1" && matches!(run.phase, RunPhase::Closed { outcome: RunOutcome::Aborted, .. }));
    assert!(group.unsettled.len() >= 2, "what was started, and what was left before: {:?}", group.unsettled);
    assert!(group.unsettled.values().all(|left| !left.is_due && left.token < group.token));
    let told: Vec<&str> = world.state.outbox.iter().map(|waiting| waiting.page.event.as_str()).collect();
    assert!(told.contains(&"DR_FAILOVER_FAILED") && told.contains(&"DR_FAILOVER_ENDED"), "{told:?}");
    let last = world.state.audit.back().unwrap();
    assert!(last.what.starts_with("restore the backup made by user:linh") && last.reason == "all nodes were lost");
    let head = old.state.audit_head();
    assert!(last.evidence.iter().any(|line| line.contains(&format!("entry {}, {}", head.seq, head.hash))), "{last:?}");
    assert!(world.state.audit.iter().all(|entry| !entry.what.starts_with("open failover r1")), "another chain");

    // Paused means paused; and then the next claim is above again.
    assert_eq!(world.rejected(world.open_change("r2")), RejectionCode::Paused);
    world.must(Change::Resume {
        group: crate::domain::fixtures::group(),
        reason: "looked at".to_owned(),
        expired: None,
    });
    world.must(world.open_change("r2"));
    assert_eq!(world.claim("r2"), Token { epoch: 2, n: 2 });
}

#[test]
fn what_cannot_be_restored_is_refused_and_changes_nothing() {
    let old = in_the_middle().state;
    let other = ClusterState { cluster: Some("other".into()), ..old.clone() };
    let later = ClusterState { epoch: 2, ..old.clone() };
    let mut more = old.clone();
    let known = more.groups[&group()].clone();
    more.groups.insert("gone".into(), known);
    let nothing = ClusterState::default();
    let table = [
        (&old, serving("nowhere"), RejectionCode::Invalid, "its regions are hcmc, hanoi"),
        (&old, BTreeMap::new(), RejectionCode::Invalid, "when the backup was made it was hanoi? Look at its databases"),
        (
            &old,
            [serving("hcmc"), BTreeMap::from([("x".into(), region("hcmc"))])].into_iter().flatten().collect(),
            RejectionCode::NotFound,
            "there is no group x",
        ),
        (&other, serving("hcmc"), RejectionCode::OtherConfig, "the backup is of cluster other, this is test"),
        (&later, serving("hcmc"), RejectionCode::OtherConfig, "epoch = 3 or higher"),
        (&more, serving("hcmc"), RejectionCode::OtherConfig, "the backup has group gone"),
        (&nothing, serving("hcmc"), RejectionCode::Invalid, "had adopted no configuration"),
    ];
    for (backup, serving, wanted, words) in table {
        let mut world = formed(2);
        let refusal = world.state.would_restore(backup, &serving).unwrap_err();
        assert!(refusal.code == wanted && refusal.message.contains(words), "{refusal:?} for {words:?}");
        let parts = hand_over(&mut world, backup);
        let before = world.state.groups.clone();
        let refused = world.apply(Change::Restore { origin: origin(), parts, serving, reason: "x".to_owned() });
        // A head without a cluster is one with an empty name.
        assert!(code(&refused).is_some(), "{words:?}");
        assert_eq!(world.state.groups, before);
    }
    // One that is in use, or has no configuration yet.
    let (mut used, _) = World::opened("r9");
    let part = |part, content| Change::RestorePart { backup: "b1".to_owned(), part, content };
    let head = parts(&old).remove(0);
    assert_eq!(code(&used.apply(part(0, head.clone()))), Some(RejectionCode::Illegal));
    let mut empty = World { state: ClusterState::default(), index: 0, now: UnixMs(1) };
    assert_eq!(code(&empty.apply(part(0, head.clone()))), Some(RejectionCode::OtherConfig));
    // Not handed over whole, or in another order.
    let mut world = formed(2);
    assert_eq!(code(&world.apply(restore(3, "hcmc"))), Some(RejectionCode::Stale));
    assert_eq!(code(&world.apply(part(1, BackupPart::Audit { entries: vec![] }))), Some(RejectionCode::Stale));
    assert_eq!(code(&world.apply(part(1, head.clone()))), Some(RejectionCode::Invalid));
    world.must(part(0, head));
    assert_eq!(code(&world.apply(part(2, BackupPart::Audit { entries: vec![] }))), Some(RejectionCode::Stale));
    assert_eq!(code(&world.apply(restore(2, "hcmc"))), Some(RejectionCode::Stale));
}

/// Whoever hands over may die and begin again; a request that is repeated is answered and not done again.
#[test]
fn handing_over_can_be_repeated_and_so_can_the_last_word() {
    let old = in_the_middle().state;
    let mut world = formed(2);
    hand_over(&mut world, &old);
    let count = hand_over(&mut world, &old);
    let command = |change| Command {
        node: NodeId(1),
        at: UnixMs(9_500_000),
        by: "user:linh".into(),
        from: None,
        request_id: Some(RequestId("restore-1".to_owned())),
        change,
    };
    let first = world.state.apply(900, &command(restore(count, "hanoi")));
    let done = world.state.clone();
    assert!(matches!(first, Applied::Done { .. }), "{first:?}");
    assert_eq!(world.state.apply(901, &command(restore(count, "hanoi"))), first);
    assert_eq!(world.state.groups, done.groups);
    let judged: Vec<GroupRestored> = formed(2).state.would_restore(&old, &serving("hanoi")).unwrap();
    assert_eq!(judged[0].served, Some(Some(region("hanoi"))));
    assert!(judged[0].open_run.as_ref().unwrap().starts_with("r1 (failover from hcmc to hanoi, open"));
}
