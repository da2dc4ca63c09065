//! The procedure's eight parts, read off runs in every state.

use super::*;
use crate::domain::command::Change;
use crate::domain::fixtures::{World, group};
use crate::domain::run::RunOutcome;

fn read(world: &World, id: &str) -> Vec<(ChapterKind, Progress)> {
    let group = world.group();
    let all = || group.history.iter().chain(&group.open_run);
    let run = all().find(|run| run.id.as_str() == id).unwrap();
    chapters(run, all()).into_iter().map(|chapter| (chapter.kind, chapter.progress)).collect()
}

fn progress(world: &World, id: &str) -> Vec<&'static str> {
    read(world, id).into_iter().map(|(_, progress)| progress.word()).collect()
}

fn close(world: &mut World, run: &str, token: crate::domain::ids::Token, outcome: RunOutcome) {
    world.must(Change::CloseRun {
        group: group(),
        run: run.into(),
        token,
        outcome,
        settled: Default::default(),
        old_primary_untouched: outcome == RunOutcome::Withdrawn,
        reason: String::new(),
        monitor_ms: 60_000,
    });
}

fn tell_all(world: &mut World, refused: bool) {
    let waiting: Vec<u64> = world.state.outbox.iter().map(|entry| entry.seq).collect();
    for seq in waiting {
        let refused = refused.then(|| "400".to_owned());
        // Some were settled before.
        world.apply(Change::Told { seq, receiver: "oncall".into(), refused });
    }
}

#[test]
fn they_come_in_the_order_of_the_procedure_and_fill_as_the_run_goes_on() {
    let mut world = World::new();
    let mut open = world.open_change("r1");
    let Change::OpenRun { cause, .. } = &mut open else { unreachable!() };
    cause.fault_at = Some(UnixMs(world.now.0 - 3000));
    world.must(open);
    let words: Vec<&str> = read(&world, "r1").into_iter().map(|(kind, _)| kind.word()).collect();
    let order = ["detect", "assess", "decide", "execute", "verify", "communicate", "monitor", "failback"];
    assert_eq!(words, order);
    assert_eq!(progress(&world, "r1"), ["done", "done", "going", "ahead", "ahead", "going", "ahead", "ahead"]);
    let token = world.claim("r1");
    world.do_step("fence", token);
    assert_eq!(progress(&world, "r1")[2..5], ["done", "going", "ahead"]);
    for step in ["dns", "promote", "services", "verify"] {
        world.do_step(step, token);
    }
    assert_eq!(progress(&world, "r1")[2..6], ["done", "done", "done", "going"]);
    close(&mut world, "r1", token, RunOutcome::Succeeded);
    tell_all(&mut world, false);
    assert_eq!(progress(&world, "r1"), ["done", "done", "done", "done", "done", "done", "going", "ahead"]);
    let run = world.group().history.back().unwrap();
    let all = chapters(run, []);
    assert_eq!(all[1].ms(), Some(3010), "from the first failure to the opening");
    assert!(
        all[5].detail.starts_with("3 of 3 pages delivered: DR_FAILOVER_STARTED, DR_FAILOVER_SUCCESS"),
        "{}",
        all[5].detail
    );
    // The outbox forgets; the record does not.
    world.state.outbox.clear();
    assert_eq!(progress(&world, "r1")[5], "done");

    // The way back is found, and what is not one is not.
    world.must(world.open_planned("r2"));
    assert_eq!(progress(&world, "r1")[6..], ["done", "going"]);
    let token = world.claim("r2");
    for step in ["fence", "catch-up", "promote", "dns", "rejoin", "services", "verify"] {
        world.do_step(step, token);
    }
    close(&mut world, "r2", token, RunOutcome::Succeeded);
    assert_eq!(progress(&world, "r1")[7], "done");
    assert_eq!(progress(&world, "r2")[0], "none", "it was ordered");
    let first = world.group().history.front().unwrap();
    let back = chapters(first, world.group().history.iter()).pop().unwrap();
    assert_eq!(back.detail, "by switchover r2");
}

#[test]
fn what_did_not_go_as_it_should_shows() {
    let (mut world, token) = World::opened("r1");
    tell_all(&mut world, true);
    world.must(world.start_change("fence", token));
    let stuck = Change::MarkStuck {
        group: group(),
        run: "r1".into(),
        token,
        step: "fence".into(),
        reason: "no fence proof".to_owned(),
    };
    world.must(stuck);
    assert_eq!(progress(&world, "r1")[3..6], ["amiss", "ahead", "amiss"]);
    let (mut world, token) = World::opened("r1");
    close(&mut world, "r1", token, RunOutcome::Withdrawn);
    assert_eq!(progress(&world, "r1")[3..5], ["none", "none"]);
    assert_eq!(progress(&world, "r1")[6..], ["none", "none"]);
}
