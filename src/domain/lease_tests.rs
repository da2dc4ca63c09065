//! When a lease is granted, when silence proves something, and when it does not.

use super::command::{Change, FenceProof, RejectionCode};
use super::decide::{Decision, decide};
use super::fixtures::{World, down_for, group, policy, region, view};
use super::ids::{HostName, Token, UnixMs};
use super::lease::{
    GateSeen, Given, GrantsSeen, LeaseAnswer, LeaseAsked, LeaseBinding, LeaseRequest, answer, lapsed, silence_ms,
    why_unbound,
};
use super::policy::Fencing;
use super::run::{RunOutcome, StepPhase};
use super::view::View;

const TTL_MS: u64 = 2000;

fn bounded() -> GateSeen {
    GateSeen::Bounded { evidence: "bpf, port 5432".to_owned() }
}

fn request(gate: GateSeen) -> LeaseRequest {
    LeaseRequest {
        group: group(),
        host: "db-hcmc".into(),
        region: region("hcmc"),
        ttl_ms: TTL_MS,
        gate,
        holders: vec!["db-hanoi".into()],
        may_bind: true,
    }
}

fn binding() -> LeaseBinding {
    LeaseBinding {
        region: region("hcmc"),
        host: "db-hcmc".into(),
        ttl_ms: TTL_MS,
        holders: vec!["db-hanoi".into()],
        since: UnixMs(1_000_000),
        attestation: "bpf, port 5432".to_owned(),
    }
}

/// A world in mode `lease`.
fn leased() -> World {
    let mut world = World::new();
    let mut groups = super::decide::specs(&policy());
    for spec in groups.values_mut() {
        spec.fencing = Fencing::Lease { ttl_ms: TTL_MS };
    }
    world.must(Change::AdoptConfig {
        cluster: policy().cluster,
        epoch: 1,
        digest: super::fixtures::digest(),
        groups,
        receivers: policy().receivers,
        on_call: policy().on_call,
    });
    world
}

fn bind(world: &mut World) {
    world.must(Change::BindLease { group: group(), binding: binding() });
}

fn opened(is_bound: bool) -> (World, Token) {
    let mut world = leased();
    if is_bound {
        bind(&mut world);
    }
    world.must(world.open_change("r1"));
    let token = world.claim("r1");
    (world, token)
}

fn lapse(world: &World, token: Token) -> Change {
    Change::LeaseLapsed {
        group: group(),
        run: world.run().id.clone(),
        token,
        step: "fence".into(),
        evidence: "quiet for 3 s".to_owned(),
    }
}

fn promote(world: &World, token: Token, read_under: Token) -> Change {
    match world.start_change("promote", token) {
        Change::StepStarted { group, run, step, token, attempt, expected_loss_ms, loss_limit_ms, .. } => {
            let fence_proof = Some(FenceProof::LeaseExpired { token: read_under, evidence: "quiet".to_owned() });
            Change::StepStarted { group, run, step, token, attempt, fence_proof, expected_loss_ms, loss_limit_ms }
        }
        other => other,
    }
}

/// A guard that was enrolled before the backup was restored: its old primary's gate stays as it is, whatever the mode.
#[test]
fn a_cluster_formed_anew_lets_nobody_open_until_a_person_has_spoken() {
    let mut world = leased();
    for fencing in [world.state.groups[&group()].fencing.clone(), crate::domain::policy::Fencing::Confirm] {
        let known = world.state.groups.get_mut(&group()).unwrap();
        (known.unconfirmed, known.fencing) = (true, fencing);
        for gate in [bounded(), GateSeen::OpenEnded] {
            let denied = answer(&world.state, &request(gate), false, UnixMs(5));
            assert!(matches!(&denied, LeaseAnswer::Denied { why } if why.contains("formed anew")), "{denied:?}");
        }
    }
    world.must(Change::Pause { group: group(), reason: "formed anew".to_owned(), until: None });
    world.must(Change::Resume { group: group(), reason: "it is served from home".to_owned(), expired: None });
    let answered = answer(&world.state, &request(GateSeen::OpenEnded), false, UnixMs(5));
    assert!(!matches!(answered, LeaseAnswer::Denied { .. }), "{answered:?}");
}

#[test]
fn the_answer_to_each_request() {
    let now = UnixMs(5);
    let unbound = leased().state;
    let mut bound = leased();
    bind(&mut bound);
    let is_granted = |answer: &LeaseAnswer| matches!(answer, LeaseAnswer::Granted { .. });

    let open = answer(&unbound, &request(GateSeen::OpenEnded), false, now);
    assert_eq!(open, LeaseAnswer::Granted { bind: None }, "first the gate must be bounded");
    let first = answer(&unbound, &request(bounded()), false, now);
    assert!(matches!(&first, LeaseAnswer::Granted { bind: Some(to) } if to.holders == binding().holders), "{first:?}");
    let held_up = LeaseRequest { may_bind: false, ..request(bounded()) };
    let late = answer(&unbound, &held_up, false, now);
    assert_eq!(late, LeaseAnswer::Granted { bind: None }, "its gate may have been opened since");
    let again = answer(&bound.state, &request(bounded()), false, now);
    assert_eq!(again, LeaseAnswer::Granted { bind: None }, "nothing new to commit");
    for gate in [GateSeen::OpenEnded, GateSeen::Absent { why: "detached".to_owned() }] {
        let unreliable = answer(&bound.state, &request(gate), false, now);
        assert!(matches!(unreliable, LeaseAnswer::Unreliable { .. }), "{unreliable:?}");
    }
    let silent_holder = LeaseRequest { holders: Vec::new(), ..request(bounded()) };
    assert_eq!(answer(&bound.state, &silent_holder, false, now), LeaseAnswer::Granted { bind: None });

    let elsewhere = LeaseRequest { region: region("hanoi"), host: "db-hanoi".into(), ..request(bounded()) };
    let other_host = LeaseRequest { host: "db-hcmc-2".into(), ..request(bounded()) };
    let too_long = LeaseRequest { ttl_ms: TTL_MS + 1, ..request(bounded()) };
    for denied in [elsewhere, other_host, too_long] {
        let answer = answer(&bound.state, &denied, false, now);
        assert!(matches!(answer, LeaseAnswer::Denied { .. }), "{denied:?}: {answer:?}");
    }
    assert!(!is_granted(&answer(&bound.state, &request(bounded()), true, now)), "a fence was proposed");

    bound.must(Change::Pause { group: group(), reason: "maintenance".to_owned(), until: None });
    let paused = answer(&bound.state, &request(bounded()), false, now);
    assert!(matches!(paused, LeaseAnswer::OpenEnded { unbind: true, .. }), "{paused:?}");
}

#[test]
fn nothing_is_granted_once_the_fence_is_committed() {
    let (mut world, token) = opened(true);
    assert!(matches!(answer(&world.state, &request(bounded()), false, UnixMs(5)), LeaseAnswer::Granted { .. }));
    world.must(world.start_change("fence", token));
    assert!(matches!(answer(&world.state, &request(bounded()), false, UnixMs(5)), LeaseAnswer::Denied { .. }));
}

#[test]
fn a_region_that_does_not_serve_is_denied_in_every_mode() {
    let (mut world, token) = opened(true);
    world.must(world.start_change("fence", token));
    let adopt = Change::AdoptConfig {
        cluster: policy().cluster,
        epoch: 1,
        digest: super::fixtures::digest(),
        groups: super::decide::specs(&policy()),
        receivers: policy().receivers,
        on_call: policy().on_call,
    };
    world.must(adopt);
    assert_eq!(world.group().fencing, Fencing::Confirm);
    let denied = answer(&world.state, &request(bounded()), false, UnixMs(5));
    assert!(matches!(denied, LeaseAnswer::Denied { .. }), "a run may count on its silence: {denied:?}");
}

#[test]
fn p4_silence_is_proved_by_time_alone_only_without_renewals_and_holds() {
    let needed_ms = silence_ms(TTL_MS);
    assert_eq!(needed_ms, 2400);
    let seen = |led_ms, last_granted_ms, holds_over| GrantsSeen { led_ms, last_granted_ms, holds_over };
    let table = [
        (seen(needed_ms, None, true), true, "a leader that never granted"),
        (seen(needed_ms - 1, None, true), false, "an earlier leader may have granted just before"),
        (seen(60_000, Some(needed_ms), true), true, "long enough since the last grant"),
        (seen(60_000, Some(needed_ms - 1), true), false, "too soon since the last grant"),
        (seen(needed_ms, Some(60_000), true), true, "a grant of an earlier leadership of its own"),
        (seen(60_000, None, false), false, "a standby may still hold"),
    ];
    for (seen, is_proved, why) in table {
        assert_eq!(lapsed(&binding(), seen).is_ok(), is_proved, "{why}");
    }
    let alone = LeaseBinding { holders: Vec::new(), ..binding() };
    assert!(lapsed(&alone, seen(needed_ms, None, false)).is_ok(), "without holders there is nothing to end");
}

#[test]
fn p4_only_a_lease_bound_before_proves_anything() {
    let (mut world, token) = opened(false);
    world.must(world.start_change("fence", token));
    assert_eq!(world.rejected(lapse(&world, token)), RejectionCode::NoFenceProof);
    assert_eq!(world.rejected(Change::BindLease { group: group(), binding: binding() }), RejectionCode::Stale);
    world.do_fence_fail(token);
    assert_eq!(world.rejected(promote(&world, token, token)), RejectionCode::Illegal, "its stage is not due");
}

#[test]
fn p4_an_expired_lease_takes_the_fences_place_and_leaves_the_host_to_be_fenced() {
    let (mut world, token) = opened(true);
    assert_eq!(world.rejected(lapse(&world, token)), RejectionCode::Illegal, "leases are still granted");
    world.must(world.start_change("fence", token));
    assert_eq!(world.rejected(promote(&world, token, token)), RejectionCode::Illegal);
    world.must(lapse(&world, token));
    assert_eq!(world.run().phase_of(&"fence".into()), StepPhase::Skipped);
    let (run, reason) = (world.run().id.clone(), "decided just before".to_owned());
    let stuck = Change::MarkStuck { group: group(), run, token, step: "fence".into(), reason };
    assert_eq!(world.rejected(stuck), RejectionCode::Illegal, "nothing would set it going again");
    let unbind = Change::UnbindLease { group: group(), reason: "break-glass".to_owned() };
    assert_eq!(world.rejected(unbind), RejectionCode::RunOpen, "a run counts on it");
    let newer = world.claim("r1");
    assert_eq!(world.rejected(promote(&world, newer, token)), RejectionCode::NoFenceProof, "judged under an old token");
    world.must(promote(&world, newer, newer));
    assert_eq!(world.group().lease, None, "the new primary is not bound yet");
    assert!(world.group().unsettled.values().all(|left| left.is_due) && world.group().unsettled.len() == 1);
    let (there, host, holders) = (region("hanoi"), "db-hanoi".into(), Vec::new());
    world.must(Change::BindLease {
        group: group(),
        binding: LeaseBinding { region: there, host, holders, ..binding() },
    });
    // The run counts on the silence of hcmc, not on hanoi's.
    world.must(Change::UnbindLease { group: group(), reason: "its gate is not in force".to_owned() });
}

#[test]
fn a_withdrawn_run_leaves_nobody_to_be_fenced() {
    let (mut world, token) = opened(true);
    world.must(world.start_change("fence", token));
    world.must(lapse(&world, token));
    world.must(Change::CloseRun {
        group: group(),
        run: world.run().id.clone(),
        token,
        outcome: RunOutcome::Withdrawn,
        settled: std::collections::BTreeMap::new(),
        old_primary_untouched: true,
        reason: "it lives".to_owned(),
        monitor_ms: 0,
    });
    assert_eq!(world.group().serving.region, Some(region("hcmc")));
    assert!(world.group().unsettled.values().all(|left| !left.is_due), "it serves again");
}

#[test]
fn a_binding_only_grows_until_it_is_unbound() {
    let mut world = leased();
    bind(&mut world);
    let fewer = LeaseBinding { holders: Vec::new(), ..binding() };
    let shorter = LeaseBinding { ttl_ms: TTL_MS - 1, ..binding() };
    let longer = LeaseBinding { ttl_ms: TTL_MS + 1, ..binding() };
    let other = LeaseBinding { host: "db-hcmc-2".into(), ..binding() };
    let change = |binding| Change::BindLease { group: group(), binding };
    assert_eq!(world.rejected(change(fewer)), RejectionCode::Illegal);
    assert_eq!(world.rejected(change(shorter)), RejectionCode::Illegal);
    assert_eq!(world.rejected(change(longer)), RejectionCode::Invalid);
    assert_eq!(world.rejected(change(other)), RejectionCode::Illegal);
    world.must(Change::UnbindLease { group: group(), reason: "paused".to_owned() });
    let unbind = Change::UnbindLease { group: group(), reason: "again".to_owned() };
    assert_eq!(world.rejected(unbind), RejectionCode::Illegal);
}

#[test]
fn it_is_said_why_a_lease_is_not_bound() {
    let asked = |given, gate, age_ms| {
        let (host, why) = ("db-hcmc".into(), "the reason".to_owned());
        Some(LeaseAsked { host, age_ms, given, why, gate, open_for_ms: 0, holds: Vec::new() })
    };
    let host = HostName::from("db-hcmc");
    let gone = || GateSeen::Absent { why: "no program is attached".to_owned() };
    let free = leased();
    let table = [
        (None, None, "names no database_host"),
        (Some(&host), None, "the guard of db-hcmc has asked nothing since this node leads"),
        (Some(&host), asked(Given::Granted, bounded(), TTL_MS + 1), "asked nothing for 2.0 s"),
        (Some(&host), asked(Given::Denied, bounded(), 10), "db-hcmc was last denied: the reason"),
        (Some(&host), asked(Given::Denied, gone(), 10), "the gate of db-hcmc is not in force: no program is attached"),
        (Some(&host), asked(Given::Granted, gone(), 10), "is not in force: no program is attached"),
        (Some(&host), asked(Given::Granted, GateSeen::OpenEnded, 10), "the gate of db-hcmc stands open"),
        (Some(&host), asked(Given::Granted, bounded(), 10), "its next request binds it"),
    ];
    for (host, asked, words) in table {
        let said = why_unbound(free.group(), host, asked.as_ref());
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }
    let mut world = leased();
    let (reason, until) = ("power work".to_owned(), None);
    world.must(Change::Pause { group: group(), reason, until });
    assert!(why_unbound(world.group(), Some(&host), None).contains("paused by"));
    let mut world = leased();
    bind(&mut world);
    assert_eq!(why_unbound(world.group(), Some(&host), None), "", "it is bound");
    assert_eq!(why_unbound(World::new().group(), Some(&host), None), "", "there is no lease in mode confirm");
}

#[test]
fn silence_for_want_of_a_lease_is_no_evidence() {
    let mut world = leased();
    let mut policy = policy();
    policy.groups.values_mut().for_each(|rules| rules.fencing = Fencing::Lease { ttl_ms: TTL_MS });
    let opens = |world: &World, watched_ms| {
        let down = Some(down_for(20_000));
        let view = View { watched_ms, ..view(&[down, down, down]) };
        let decided = decide(&world.state, &policy, &view, world.now);
        decided.propose.iter().any(|decision| matches!(decision, Decision::Open(_)))
    };
    assert!(opens(&world, 0), "unbound: nothing could stall");
    bind(&mut world);
    assert!(!opens(&world, 2 * TTL_MS - 1), "nobody has renewed it for long enough");
    assert!(opens(&world, 2 * TTL_MS));
}

impl World {
    fn do_fence_fail(&mut self, token: Token) {
        let failed = super::attempt::Outcome::Failed { retryable: true, reason: "no route".to_owned() };
        self.must(self.finish_change("fence", token, failed));
    }
}
