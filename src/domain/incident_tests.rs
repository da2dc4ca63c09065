//! Incidents and their ladders: by table, and by random histories.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::command::{Change, IncidentRef, RejectionCode};
use super::fixtures::{World, digest, group, policy};
use super::ids::{ContactName, LadderName, UnixMs};
use super::incident::{Due, EVENT_LASTS_MS, Incident, NextTelling, due, next, over};
use super::on_call::{Contact, Ladder, LadderStep, Level, LevelRule, OnCall};
use super::page::{Delivery, OutboxEntry, Page, PageAction, Severity};

const MIN: u64 = 60_000;

fn contact(receivers: &[&str]) -> Contact {
    let receivers = receivers.iter().map(|name| (*name).into()).collect();
    Contact { role: "dr-coordinator".to_owned(), phone: Some("+84 1".to_owned()), mail: None, url: None, receivers }
}

fn step(after_min: u64, contacts: &[&str]) -> LadderStep {
    LadderStep { after_ms: after_min * MIN, contacts: contacts.iter().map(|name| ContactName::from(*name)).collect() }
}

fn ladder(name: &str, steps: Vec<LadderStep>) -> Ladder {
    Ladder {
        name: name.into(),
        groups: Vec::new(),
        severities: Vec::new(),
        steps,
        repeat_every_ms: 30 * MIN,
        repeat_max: 2,
        ack_lasts_ms: None,
    }
}

/// linh by phone app, then bao by chat, then the provider, whom only people can call.
fn on_call() -> OnCall {
    let contacts = [("linh", contact(&["phone"])), ("bao", contact(&["chat"])), ("provider", contact(&[]))];
    OnCall {
        contacts: contacts.into_iter().map(|(name, one)| (name.into(), one)).collect(),
        ladders: vec![ladder("day", vec![step(0, &["linh"]), step(10, &["bao"]), step(30, &["provider"])])],
        levels: Vec::new(),
    }
}

fn adopt(world: &mut World, digest: &str, on_call: OnCall) {
    let policy = policy();
    world.must(Change::AdoptConfig {
        cluster: policy.cluster.clone(),
        epoch: 1,
        digest: digest.into(),
        groups: super::decide::specs(&policy),
        receivers: vec!["phone".into(), "chat".into(), "audit".into()],
        on_call,
    });
}

fn world() -> World {
    let mut world = World::new();
    adopt(&mut world, "d2", on_call());
    world
}

const KEY: &str = "test/shop/lag";

fn page(severity: Severity) -> Page {
    Page {
        key: KEY.to_owned(),
        event: "REPLICATION_LAG".to_owned(),
        action: PageAction::Trigger,
        severity,
        summary: "it lags".to_owned(),
        group: Some(group()),
        run: None,
        details: Default::default(),
    }
}

fn tell(world: &mut World, action: PageAction, severity: Severity) {
    world.must(Change::Tell { page: Page { action, ..page(severity) } });
}

fn incident(world: &World) -> &Incident {
    &world.state.incidents[KEY]
}

fn newest(world: &World) -> &OutboxEntry {
    world.state.outbox.back().expect("a page is in the outbox")
}

fn told(entry: &OutboxEntry) -> Vec<&str> {
    entry.deliveries.keys().map(|name| name.as_str()).collect()
}

fn change_of(due: &Due) -> Change {
    Change::Escalate {
        group: due.group.clone(),
        page: IncidentRef { key: due.key.clone(), opened: due.opened },
        told: due.told,
        round: due.round,
        lapsed: due.lapsed,
    }
}

fn due_now(world: &World) -> Vec<Due> {
    due(&world.state.on_call, world.state.incidents.values(), true, world.now).collect()
}

/// Lets time pass, and commits what is due; how many tellings that were.
fn pass(world: &mut World, ms: u64) -> usize {
    world.now = world.now.plus(ms);
    let dues = due_now(world);
    for due in &dues {
        world.must(change_of(due));
    }
    dues.len()
}

fn ack(world: &mut World) {
    let page = IncidentRef { key: KEY.to_owned(), opened: incident(world).opened };
    world.must(Change::Acknowledge { group: Some(group()), pages: vec![page], reason: "I look".to_owned() });
}

#[test]
fn without_ladders_everybody_is_told_once_and_of_the_end() {
    let mut world = World::new();
    adopt(&mut world, "d2", OnCall::default());
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    assert_eq!(told(newest(&world)), ["audit", "chat", "phone"]);
    for _ in 0..100 {
        assert_eq!(pass(&mut world, 60 * MIN), 0);
    }
    tell(&mut world, PageAction::Resolve, Severity::Info);
    assert_eq!(told(newest(&world)), ["audit", "chat", "phone"]);
    assert!(world.state.incidents.is_empty());
    assert_eq!(world.state.past_incidents.len(), 1);
}

#[test]
fn nobody_acknowledges_and_each_step_is_told_in_its_time() {
    let mut world = world();
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    assert_eq!(told(newest(&world)), ["phone"]);
    let notice = newest(&world).notice.clone().expect("a trigger says whom it is for");
    assert_eq!((notice.step.as_str(), notice.contacts[0].name.as_str()), ("step 1 of 3", "linh"));
    assert_eq!(notice.level.expect("critical has a level").title(), "1 critical");
    assert_eq!(newest(&world).page.details["rto_objective_s"], "3600");

    // What passes, whom that tells, and in which words. The provider has no route: whoever was reached calls by hand.
    let everybody: &[&str] = &["chat", "phone"];
    for (minutes, receivers, words) in [
        (9, &[][..], ""),
        (1, &["chat"], "not acknowledged for 10 min (step 2 of 3): it lags"),
        (19, &[], ""),
        (1, everybody, "not acknowledged for 30 min (step 3 of 3): it lags"),
        (29, &[], ""),
        (1, everybody, "not acknowledged for 60 min (repeat 1 of 2): it lags"),
        (30, everybody, "not acknowledged for 90 min (repeat 2 of 2): it lags"),
        (600, &[], ""),
    ] {
        let before = world.state.next_page;
        let tellings = pass(&mut world, minutes * MIN);
        assert_eq!(tellings > 0, !receivers.is_empty(), "after {minutes} more minutes");
        if tellings > 0 {
            assert_eq!((world.state.next_page, newest(&world).page.summary.as_str()), (before + 1, words));
            assert_eq!(told(newest(&world)), receivers);
        }
    }
    tell(&mut world, PageAction::Resolve, Severity::Info);
    assert_eq!(told(newest(&world)), everybody, "whoever was told hears of the end, and nobody else");
}

#[test]
fn a_step_is_told_once_whoever_decides_it() {
    let mut world = world();
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    world.now = world.now.plus(10 * MIN);
    // Two leaders decide the same; one of them sees an old state.
    let (one, two) = (due_now(&world).remove(0), due_now(&world).remove(0));
    world.must(change_of(&one));
    assert_eq!(world.rejected(change_of(&two)), RejectionCode::Stale);
    // Ended and open again: what was decided on the earlier incident is stale, whatever its counts.
    tell(&mut world, PageAction::Resolve, Severity::Info);
    assert_eq!(world.rejected(change_of(&one)), RejectionCode::NotFound);
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    assert_eq!(told(newest(&world)), ["phone"], "it begins anew");
    assert_eq!(world.rejected(change_of(&one)), RejectionCode::Stale);
}

#[test]
fn an_acknowledged_incident_rests_until_its_word_lapses() {
    let mut world = world();
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    let decided = Due { lapsed: None, ..first_step_due(&world) };
    ack(&mut world);
    assert_eq!((newest(&world).page.action, told(newest(&world))), (PageAction::Acknowledge, vec!["phone"]));
    assert_eq!(world.rejected(change_of(&decided)), RejectionCode::Stale, "acknowledged since it was decided");
    assert_eq!(pass(&mut world, 3 * 60 * MIN), 0);
    let pages = world.state.next_page;
    ack(&mut world);
    assert_eq!(world.state.next_page, pages, "said again, it is not told again");
    assert_eq!(pass(&mut world, 3 * 60 * MIN), 0, "but it lasts anew");
    assert_eq!(pass(&mut world, 60 * MIN), 1);
    assert!(incident(&world).acknowledged.is_none());
    assert!(newest(&world).page.summary.starts_with("acknowledged by node:3 240 min ago and not over (step 1 of 3)"));
    assert_eq!(pass(&mut world, 10 * MIN), 1, "and the ladder is climbed anew");
    assert_eq!(told(newest(&world)), ["chat"]);
}

fn first_step_due(world: &World) -> Due {
    let later = world.now.plus(10 * MIN);
    due(&world.state.on_call, world.state.incidents.values(), true, later).next().expect("step 2 is due then")
}

#[test]
fn only_critical_acknowledgements_lapse_by_default() {
    for (severity, configured, lasts) in [
        (Severity::Critical, None, Some(240)),
        (Severity::Error, None, None),
        (Severity::Error, Some(5), Some(5)),
        (Severity::Critical, Some(0), None),
    ] {
        let mut on_call = on_call();
        on_call.ladders[0].ack_lasts_ms = configured.map(|minutes| minutes * MIN);
        let mut world = World::new();
        adopt(&mut world, "d2", on_call);
        tell(&mut world, PageAction::Trigger, severity);
        ack(&mut world);
        let next = next(&world.state.on_call, incident(&world));
        assert_eq!(next.map(|next| next.wait_ms / MIN), lasts, "{severity:?} {configured:?}");
    }
}

#[test]
fn what_becomes_worse_begins_anew_and_what_does_not_only_changes() {
    let mut world = world();
    tell(&mut world, PageAction::Trigger, Severity::Error);
    pass(&mut world, 10 * MIN);
    ack(&mut world);
    tell(&mut world, PageAction::Trigger, Severity::Error);
    assert!(incident(&world).acknowledged.is_some(), "no worse: still in hand");
    assert_eq!(told(newest(&world)), ["chat", "phone"], "but told to whoever was told before");
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    assert!(incident(&world).acknowledged.is_none());
    assert_eq!((incident(&world).told, told(newest(&world))), (1, vec!["chat", "phone"]));
    assert_eq!(pass(&mut world, 10 * MIN), 1);
}

#[test]
fn clocks_that_jump_tell_early_once_and_never_not_at_all() {
    let mut world = world();
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    let opened = world.now;
    let disagreeing = due(&world.state.on_call, world.state.incidents.values(), false, opened.plus(60 * MIN));
    assert_eq!(disagreeing.count(), 0, "a leader whose clock disagrees lets nothing be due");
    // A year forward: the next step at once, the one after it in its time.
    assert_eq!(pass(&mut world, 365 * 24 * 60 * MIN), 1);
    assert_eq!(pass(&mut world, 0), 0);
    // Back again: told a year from now, as it seems, so the next is due; then in its time once more.
    world.now = opened;
    assert_eq!(pass(&mut world, 0), 1);
    assert_eq!(pass(&mut world, 29 * MIN), 0);
    assert_eq!(pass(&mut world, MIN), 1);
    // A little back costs at most the wait again.
    world.now = UnixMs(world.now.0 - 10 * MIN);
    assert_eq!(pass(&mut world, 39 * MIN), 0);
    assert_eq!(pass(&mut world, MIN), 1);
}

#[test]
fn ladders_change_under_an_open_incident_and_nobody_is_left_out() {
    let opened = || {
        let mut world = world();
        tell(&mut world, PageAction::Trigger, Severity::Critical);
        world
    };
    // The ladder is gone: everybody, at once, and once.
    let mut gone = opened();
    adopt(&mut gone, "d3", OnCall { ladders: Vec::new(), ..on_call() });
    assert_eq!(pass(&mut gone, 0), 1);
    assert_eq!(told(newest(&gone)), ["audit", "chat", "phone"]);
    assert_eq!(pass(&mut gone, 600 * MIN), 0);

    // Another takes its place: climbed from its first step, at once.
    let mut another = opened();
    adopt(&mut another, "d3", OnCall { ladders: vec![ladder("night", vec![step(0, &["bao"])])], ..on_call() });
    assert_eq!(pass(&mut another, 0), 1);
    assert_eq!((told(newest(&another)), incident(&another).ladder.clone()), (vec!["chat"], Some("night".into())));
    assert_eq!(pass(&mut another, 29 * MIN), 0);

    // It lost a contact and a step: climbed on from where it is.
    let mut shorter = opened();
    adopt(&mut shorter, "d3", OnCall { ladders: vec![ladder("day", vec![step(0, &["bao"])])], ..on_call() });
    assert_eq!(pass(&mut shorter, 29 * MIN), 0);
    assert_eq!(pass(&mut shorter, MIN), 1);
    assert_eq!(newest(&shorter).notice.as_ref().map(|notice| notice.step.as_str()), Some("repeat 1 of 2"));

    // A receiver is gone: whoever is left is told, and never nobody.
    let mut fewer = opened();
    let policy = policy();
    fewer.must(Change::AdoptConfig {
        cluster: policy.cluster.clone(),
        epoch: 1,
        digest: digest(),
        groups: super::decide::specs(&policy),
        receivers: vec!["audit".into()],
        on_call: on_call(),
    });
    assert_eq!(pass(&mut fewer, 10 * MIN), 1);
    assert_eq!(told(newest(&fewer)), ["audit"]);
}

#[test]
fn a_pause_does_not_silence_anybody() {
    let mut world = world();
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    world.must(Change::Pause { group: group(), reason: "maintenance".to_owned(), until: None });
    assert_eq!(pass(&mut world, 10 * MIN), 1);
}

#[test]
fn a_ladder_is_chosen_by_group_and_severity() {
    let named = |name: &str, groups: &[&str], severities: &[Severity]| Ladder {
        groups: groups.iter().map(|name| (*name).into()).collect(),
        severities: severities.to_vec(),
        ..ladder(name, vec![step(0, &["linh"])])
    };
    let urgent = [Severity::Critical, Severity::Error];
    let on_call = OnCall {
        ladders: vec![named("all-urgent", &[], &urgent), named("shop", &["shop"], &urgent[..1])],
        ..on_call()
    };
    for (group, severity, expected) in [
        (Some("shop"), Severity::Critical, Some("shop")),
        (Some("shop"), Severity::Error, Some("all-urgent")),
        (Some("other"), Severity::Critical, Some("all-urgent")),
        (None, Severity::Critical, Some("all-urgent")),
        (Some("shop"), Severity::Warning, None),
    ] {
        let group = group.map(Into::into);
        let found = on_call.ladder_for(group.as_ref(), severity).map(|ladder| ladder.name.as_str());
        assert_eq!(found, expected, "{group:?} {severity:?}");
    }
}

#[test]
fn a_level_is_chosen_by_event_and_group_and_gives_the_severity() {
    let rule = |group: Option<&str>, number: u8, severity, events: &[&str]| LevelRule {
        group: group.map(Into::into),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        level: Level { number, name: format!("l{number}"), severity, rto_ms: 1000, rpo_ms: 0 },
    };
    let built_in = OnCall::default();
    let configured = OnCall {
        levels: vec![
            rule(None, 3, Severity::Warning, &["REPLICATION_LAG", "LB_*"]),
            rule(Some("shop"), 4, Severity::Critical, &["DATA_*"]),
            rule(Some("shop"), 2, Severity::Warning, &[]),
        ],
        ..OnCall::default()
    };
    for (on_call, group, event, severity, expected) in [
        (&built_in, "shop", "DR_FAILOVER_STARTED", Severity::Critical, Some(("1 critical", Severity::Critical))),
        (&built_in, "shop", "RESOURCE_UNSETTLED", Severity::Error, Some(("2 high", Severity::Error))),
        (&built_in, "shop", "NODE_SILENT", Severity::Warning, Some(("3 medium", Severity::Warning))),
        (&built_in, "shop", "DR_FAILOVER_RESUMED", Severity::Info, None),
        (&configured, "shop", "REPLICATION_LAG", Severity::Critical, Some(("3 l3", Severity::Warning))),
        (&configured, "shop", "LB_FAILOVER", Severity::Warning, Some(("3 l3", Severity::Warning))),
        (&configured, "shop", "DATA_CORRUPTED", Severity::Error, Some(("4 l4", Severity::Critical))),
        (&configured, "other", "DATA_CORRUPTED", Severity::Error, Some(("2 high", Severity::Error))),
        (&configured, "shop", "RESOURCE_UNSETTLED", Severity::Error, Some(("2 l2", Severity::Warning))),
    ] {
        let level = on_call.level_of(Some(&group.into()), event, severity);
        let found = level.as_ref().map(|level| (level.title(), level.severity));
        assert_eq!(found, expected.map(|(title, severity)| (title.to_owned(), severity)), "{group} {event}");
    }
}

#[test]
fn a_person_ends_what_nothing_ends_by_itself_and_nothing_else() {
    let mut world = world();
    let resolve = |world: &World, key: &str| Change::ResolvePage {
        group: None,
        page: IncidentRef { key: key.to_owned(), opened: world.state.incidents[key].opened },
        reason: "looked".to_owned(),
    };
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    let of_alarm = resolve(&world, KEY);
    assert_eq!(world.rejected(of_alarm), RejectionCode::Illegal);

    let test = |receivers: &[&str]| Change::TestPage {
        key: "test/test/1".to_owned(),
        receivers: receivers.iter().map(|name| (*name).into()).collect(),
        reason: "does it ring".to_owned(),
    };
    assert_eq!(world.rejected(test(&["nobody"])), RejectionCode::NotFound);
    assert_eq!(world.rejected(test(&[])), RejectionCode::Invalid);
    world.must(test(&["audit"]));
    assert_eq!(world.rejected(test(&["audit"])), RejectionCode::Illegal);
    assert_eq!(told(newest(&world)), ["audit"]);
    world.must(resolve(&world, "test/test/1"));
    assert_eq!((newest(&world).page.action, told(newest(&world))), (PageAction::Resolve, vec!["audit"]));
    let unknown = IncidentRef { key: "test/nothing".to_owned(), opened: 1 };
    let nothing = Change::Acknowledge { group: None, pages: vec![unknown], reason: "x".to_owned() };
    assert_eq!(world.rejected(nothing), RejectionCode::NotFound);
}

#[test]
fn incidents_stay_bounded_and_the_newest_is_never_forgotten() {
    let mut world = world();
    for n in 0..(super::state::INCIDENTS_MAX + 20) {
        let key = format!("test/shop/{n}");
        world.must(Change::Tell { page: Page { key: key.clone(), ..page(Severity::Error) } });
        assert!(world.state.incidents.contains_key(&key));
    }
    assert_eq!(world.state.incidents.len(), super::state::INCIDENTS_MAX);
    assert!(!world.state.incidents.contains_key("test/shop/0"), "the oldest gave way");
    assert!(world.state.audit.iter().any(|line| line.what == "forget incident test/shop/0"));
}

/// What a telling was for, over one incident's life: rounds and how often was told.
fn position(incident: &Incident) -> (u64, u32, u32) {
    (incident.opened, incident.round, incident.told)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, by however many leaders with however old views: no step is told twice, none is
    /// skipped, and nobody is told by a ladder while somebody has it.
    #[test]
    fn no_step_is_told_twice_none_is_skipped_none_after_a_word(
        rolls in prop::collection::vec((0u8..12, 0u64..40), 1..80),
    ) {
        let mut world = world();
        // Decisions of leaders that are about to be committed, perhaps much later.
        let mut decided: Vec<Due> = Vec::new();
        let mut seen: BTreeSet<(u64, u32, u32)> = BTreeSet::new();
        for (what, dice) in rolls {
            let before = world.state.incidents.get(KEY).cloned();
            let pages = world.state.next_page;
            world.now = world.now.plus(dice * MIN / 2);
            let change = match what {
                0 => Change::Tell { page: page(Severity::Error) },
                1 => Change::Tell { page: page(Severity::Critical) },
                2 => Change::Tell { page: Page { action: PageAction::Resolve, ..page(Severity::Info) } },
                3 => {
                    let opened = before.as_ref().map_or(0, |incident| incident.opened);
                    let page = IncidentRef { key: KEY.to_owned(), opened };
                    Change::Acknowledge { group: None, pages: vec![page], reason: "mine".to_owned() }
                }
                4 | 5 => {
                    decided.extend(due_now(&world));
                    continue;
                }
                _ if decided.is_empty() => match due_now(&world).first() {
                    Some(due) => change_of(due),
                    None => continue,
                },
                _ => change_of(&decided[usize::try_from(dice).unwrap() % decided.len()]),
            };
            let is_escalation = matches!(change, Change::Escalate { .. });
            let applied = world.apply(change);
            let done = matches!(applied, super::command::Applied::Done { .. });
            prop_assert_eq!(super::invariants::violations(&world.state), Vec::<String>::new());
            if is_escalation && done {
                let (before, after) = (before.expect("it was open"), incident(&world).clone());
                prop_assert!(seen.insert(position(&after)), "told twice: {:?}", position(&after));
                prop_assert!(after.acknowledged.is_none());
                if before.acknowledged.is_none() {
                    prop_assert_eq!(position(&after), (before.opened, before.round, before.told + 1), "none is skipped");
                } else {
                    prop_assert_eq!(position(&after), (before.opened, before.round + 1, 1), "only a lapse speaks again");
                    prop_assert!(world.now.0 >= before.acknowledged.expect("checked").at.0 + 240 * MIN);
                }
                prop_assert_eq!(world.state.next_page, pages + 1);
                prop_assert!(!newest(&world).deliveries.is_empty(), "told to nobody");
                prop_assert!(newest(&world).deliveries.values().all(|delivery| matches!(delivery, Delivery::Pending)));
            } else if is_escalation {
                prop_assert_eq!(world.state.next_page, pages, "a rejected telling tells nobody");
                prop_assert_eq!(world.state.incidents.get(KEY), before.as_ref());
            }
        }
    }
}

#[test]
fn what_comes_next_is_said_as_it_will_be() {
    let mut world = world();
    tell(&mut world, PageAction::Trigger, Severity::Critical);
    let next = next(&world.state.on_call, incident(&world)).expect("step 2");
    assert_eq!((next.what.clone(), next.at()), (NextTelling::Step(1), world.now.plus(10 * MIN)));
    assert_eq!(incident(&world).ladder, Some(LadderName::from("day")));
}

/// A success is told once, waits for nobody, and is over by itself.
#[test]
fn what_tells_of_something_over_is_no_open_incident_for_long() {
    let mut world = World::new();
    for event in ["DR_FAILOVER_SUCCESS", "DR_FAILOVER_WITHDRAWN", "LB_FAILOVER", "SERVICE_RECOVERY_SUCCESS"] {
        let told = Page { event: event.to_owned(), ..page(Severity::Warning) };
        world.must(Change::Tell { page: told });
        let incident = world.state.incidents.values().next().unwrap().clone();
        assert!(next(&world.state.on_call, &incident).is_none(), "{event}: nobody climbs for it");
        let over = |now: UnixMs| over(world.state.incidents.values(), true, now).count();
        assert_eq!(
            (over(incident.at.plus(EVENT_LASTS_MS - 1)), over(incident.at.plus(EVENT_LASTS_MS))),
            (0, 1),
            "{event}"
        );
        // Its own alarm ends it here; a run's result has none.
        world.must(Change::Tell { page: Page { action: PageAction::Resolve, ..page(Severity::Info) } });
    }
    world.must(Change::Tell { page: page(Severity::Warning) });
    let later = world.now.plus(10 * EVENT_LASTS_MS);
    assert_eq!(over(world.state.incidents.values(), true, later).count(), 0, "any other stands");
}
