//! What a person may do about a stuck run, by what keeps it: the same words in status, in the run's page and in the pager.

use super::plan::{Action, REDIS_FENCE, REDIS_HAND_OVER, REDIS_PROMOTE, REDIS_REJOIN, REDIS_RELEASE, Step};
use super::run::{Run, RunPhase, StepPhase};

/// Begins the reason of a run that waits for proof that the old primary is silent.
pub const NO_FENCE_PROOF: &str = "no fence proof";

/// Begins the reason of a run that has nothing to promote.
pub const NO_STANDBY: &str = "no standby to promote";

/// Begins the reason of a run that waits for what an earlier one may still do.
const UNSETTLED: &str = "its resource is unsettled";

/// In the reason of a Redis server that is not promoted, since the old one runs again.
const NO_MORE: &str = "does not hold any more";

/// What clears a latch. A guard that refuses for its latch names it, and so a refusal for the latch is known.
pub const UNLATCH: &str = "watchdog-guard unlatch";

/// One way on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// When it is the right one, and what it means.
    pub meaning: String,
    /// What to type; `…` stands for the operator's own words.
    pub command: String,
}

/// What keeps a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Nothing proves that the old primary is silent.
    FenceUnproved,
    /// Promoting would lose more than the limit, and nobody accepted that.
    Loss,
    /// The host that shall be promoted was fenced earlier.
    Latched,
    /// Nothing stands where the promotion is to be.
    NoStandby,
    /// A resource remembers a higher token.
    HigherToken,
    /// An earlier run's step may still take effect there.
    Unsettled,
    /// It is Redis' own.
    Redis,
    /// The step was tried, and failed.
    Failing,
}

/// The ways on of a stuck run, the likeliest first; none where it is not stuck.
pub fn ways_on(run: &Run) -> Vec<Way> {
    let RunPhase::Stuck { step, reason, .. } = &run.phase else { return Vec::new() };
    let Some(step) = run.plan.step(step) else { return vec![abort(run)] };
    let kept_by = keeps(run, step, reason);
    let mut ways = match kept_by {
        // Nobody's word takes the place of what a planned move proves.
        Keeps::FenceUnproved | Keeps::Loss if run.is_planned() => vec![way("look again", order(run, "retry", step))],
        Keeps::FenceUnproved => {
            vec![assert_fence(run), way("ask the old primary's guard again", order(run, "retry", step))]
        }
        Keeps::Loss => vec![
            way(
                "bring the standby up to date, or lose by your name what it has not received",
                format!("watchdogctl run accept-loss {} --reason …", run.group),
            ),
            way("judge the loss again", order(run, "retry", step)),
        ],
        Keeps::Latched => latched(run, step),
        Keeps::NoStandby => {
            let meaning =
                format!("make the standby in {} run as one (it then goes on by itself), or look again", run.to());
            vec![way(meaning, order(run, "retry", step))]
        }
        Keeps::HigherToken => {
            vec![way("once you know who raised it, claim above it and go on", order(run, "retry", step))]
        }
        Keeps::Unsettled => vec![way("once its resource answers again, go on", order(run, "retry", step))],
        Keeps::Redis => redis(run, step, reason),
        Keeps::Failing => vec![way("try it again, with fresh attempts", order(run, "retry", step))],
    };
    ways.extend(skip(run, step));
    if kept_by == Keeps::Redis && step.action.is_named(REDIS_FENCE) {
        // A person's eyes are what it waits for: that host's guard is asked by itself again and again.
        ways.reverse();
    }
    ways.push(abort(run));
    ways
}

fn keeps(run: &Run, step: &Step, reason: &str) -> Keeps {
    let is_fence = matches!(step.action, Action::Fence { .. });
    let is_promote = matches!(step.action, Action::Promote { .. });
    if reason.contains(", above this run's ") {
        Keeps::HigherToken
    } else if step.action.is_redis() && !reason.starts_with(UNSETTLED) {
        Keeps::Redis
    } else if reason.contains(UNLATCH) {
        Keeps::Latched
    } else if reason.starts_with(NO_STANDBY) {
        Keeps::NoStandby
    } else if is_fence || reason.starts_with(NO_FENCE_PROOF) {
        Keeps::FenceUnproved
    } else if is_promote && run.loss_acceptance.is_none() && reason.contains(" would lose ") {
        Keeps::Loss
    } else if reason.starts_with(UNSETTLED) {
        Keeps::Unsettled
    } else {
        Keeps::Failing
    }
}

fn way(meaning: impl Into<String>, command: String) -> Way {
    Way { meaning: meaning.into(), command }
}

fn order(run: &Run, verb: &str, step: &Step) -> String {
    format!("watchdogctl run {verb} {} {} --reason …", run.group, step.id)
}

fn assert_fence(run: &Run) -> Way {
    let from = run.from();
    way(
        format!("look at the old primary in {from}; when it is silent and stays so, say so by name"),
        format!("watchdogctl run assert-fence {} --region {from} --reason …", run.group),
    )
}

fn latched(run: &Run, step: &Step) -> Vec<Way> {
    // Before it is fenced for nothing, the old primary's step waits for the standby's latch as well.
    let promoted = run.plan.steps().find_map(|(_, planned)| match &planned.action {
        Action::Promote { guard } => Some(guard.host.as_str()),
        _ => None,
    });
    let host = promoted.unwrap_or("that host");
    vec![
        way(
            format!("{host} was fenced earlier; on {host}, when you are sure that its data may serve"),
            format!("{UNLATCH} --group {} --confirm \"$(hostname)\" --reason …", run.group),
        ),
        way("and then try it again", order(run, "retry", step)),
    ]
}

/// What to look at before a step of Redis is tried again.
fn redis(run: &Run, step: &Step, reason: &str) -> Vec<Way> {
    let (Action::Guarded { guard, name, .. }, from, to) = (&step.action, run.from(), run.to()) else {
        return Vec::new();
    };
    let host = &guard.host;
    if name == REDIS_HAND_OVER && run.turned_back.is_some() {
        // Not tried again: the run goes on by itself when that host answers.
        return Vec::new();
    }
    let look = format!("`watchdog-guard status` on {host} tells what keeps it");
    let mut ways = Vec::new();
    let meaning = match name.as_str() {
        REDIS_FENCE => format!("ask the guard of {host} again; when it answers the run goes on by itself too"),
        REDIS_PROMOTE if reason.contains(UNLATCH) => {
            ways.push(way(
                format!("Redis on {host} was fenced earlier; on {host}, when you are sure that its data may serve"),
                format!("{UNLATCH} --redis --group {} --confirm \"$(hostname)\" --reason …", run.group),
            ));
            "and then try it again".to_owned()
        }
        REDIS_PROMOTE if reason.contains(NO_MORE) => format!(
            "somebody started the old Redis server in {from}: copy its RDB or AOF aside where that matters, stop it, then try again"
        ),
        REDIS_HAND_OVER => format!(
            "Redis in {from} takes writes as before: see that its replica in {to} is linked and in step (`INFO replication` \
             there), then try again"
        ),
        REDIS_REJOIN => format!("see that Redis' primary answers from {host}, {look}; then try again"),
        _ => format!("{look}; then try again"),
    };
    ways.push(way(meaning, order(run, "retry", step)));
    ways
}

/// Only where the log would allow it.
fn skip(run: &Run, step: &Step) -> Option<Way> {
    let meaning = match &step.action {
        Action::Fence { .. } => return None,
        Action::Promote { .. } if run.is_planned() => return None,
        Action::Promote { .. } if run.fence_steps().any(|fence| !run.phase_of(&fence.id).is_settled()) => return None,
        Action::Promote { .. } => format!("you have promoted {} by hand; it then counts as the primary", run.to()),
        Action::UpsertDns { .. } => "go on with the names as they are, or as you have set them".to_owned(),
        // Nobody's word takes the place of what was acknowledged, nor of a primary that takes writes.
        Action::CatchUp { .. } | Action::Release { .. } => return None,
        Action::Guarded { name, .. } if name == REDIS_HAND_OVER && run.turned_back.is_none() => return None,
        Action::Guarded { name, .. } if name == REDIS_HAND_OVER => {
            let from = run.from();
            format!(
                "leave Redis in {from} as it is, where its host does not come back; when it answers the run goes on by itself"
            )
        }
        Action::Guarded { name, .. } if name == REDIS_FENCE => {
            format!(
                "look at the old Redis primary in {}; when it is silent and stays so, say so by going on: the one in {} is promoted",
                run.from(),
                run.to()
            )
        }
        Action::Guarded { name, .. } if name == REDIS_PROMOTE => {
            format!("go on with Redis as it is, or you have made the one in {} the primary by hand", run.to())
        }
        Action::Guarded { name, .. } if name == REDIS_RELEASE => format!(
            "you have made Redis in {} the primary by hand: `{UNLATCH} --redis` there, `REPLICAOF NO ONE`, `CLIENT UNPAUSE`",
            run.from()
        ),
        Action::Guarded { .. } => "go on without it, or you have done it by hand".to_owned(),
        Action::Verify { .. } => format!("you have looked yourself, and {} serves as it shall", run.to()),
    };
    Some(way(meaning, order(run, "skip", step)))
}

fn abort(run: &Run) -> Way {
    if run.may_be_turned_back() {
        let command = format!("watchdogctl run abort {} --reason …", run.group);
        return way(format!("turn back: {} is made the primary again, nobody is promoted", run.from()), command);
    }
    let of = |is_it: fn(&Action) -> bool| {
        run.plan.steps().filter(move |(_, step)| is_it(&step.action)).map(|(_, step)| run.phase_of(&step.id))
    };
    let is_promoted = of(|action| matches!(action, Action::Promote { .. })).any(StepPhase::is_settled);
    let fence = || of(|action| matches!(action, Action::Fence { .. }));
    let left = if run.turned_back.is_some() {
        format!("{} may or may not take writes, nobody is promoted", run.from())
    } else if is_promoted {
        format!("{} stays the primary", run.to())
    } else if fence().any(StepPhase::is_settled) {
        format!("{} stays fenced, nobody is promoted", run.from())
    } else if fence().any(|phase| phase != StepPhase::Pending) {
        format!("{} may or may not be stopped, nobody is promoted", run.from())
    } else {
        "nothing was changed yet".to_owned()
    };
    way(
        format!("end the run here and undo nothing ({left})"),
        format!("watchdogctl run abort {} --reason …", run.group),
    )
}

#[cfg(test)]
mod tests {
    use super::super::attempt::Outcome;
    use super::super::command::{Change, RunOrder};
    use super::super::decide::loss_obstacle;
    use super::super::fixtures::{World, group, policy, region};
    use super::super::ids::{HostName, RunId, StepId, Token};
    use super::super::loss::Loss;
    use super::super::plan::Stage;
    use super::super::run::RunKind;
    use super::*;

    const RETRY: &str = "watchdogctl run retry shop promote --reason …";
    const SKIP: &str = "watchdogctl run skip shop promote --reason …";
    const ABORT: &str = "watchdogctl run abort shop --reason …";
    const ACCEPT: &str = "watchdogctl run accept-loss shop --reason …";
    const ASSERT: &str = "watchdogctl run assert-fence shop --region hcmc --reason …";

    fn commands(world: &mut World, token: Token, step: &str, reason: &str) -> Vec<String> {
        let (group, run, step) = (group(), RunId::from("r1"), StepId::from(step));
        world.must(Change::MarkStuck { group, run, token, step, reason: reason.to_owned() });
        ways_on(world.run()).into_iter().map(|way| way.command).collect()
    }

    fn order(world: &mut World, order: RunOrder) {
        let (group, run, reason) = (group(), RunId::from("r1"), "seen".to_owned());
        world.must(Change::Order { group, run, expected_token: None, order, reason });
    }

    fn fenced() -> (World, Token) {
        let (mut world, token) = World::opened("r1");
        world.do_step("fence", token);
        (world, token)
    }

    #[test]
    fn a_fence_without_proof_asks_for_eyes() {
        let (mut world, token) = World::opened("r1");
        let found = commands(&mut world, token, "fence", "no fence proof after 5 attempts: no route to host");
        assert_eq!(found, [ASSERT, "watchdogctl run retry shop fence --reason …", ABORT]);
    }

    #[test]
    fn a_promotion_is_advised_by_what_keeps_it() {
        let rules = &policy().groups[&group()];
        let loss = loss_obstacle(rules, Some(&Loss::Unknown { why: "nobody reports".to_owned() }), &region("hanoi"));
        let loss = loss.expect("an unknown loss is above every limit");
        let higher = "host:db-hanoi holds token 1.9, above this run's 1.1: find out who raised it";
        let latched = "promote after 1 attempt: guard refused (latched): type watchdog-guard unlatch --group shop";
        let unlatch = "watchdog-guard unlatch --group shop --confirm \"$(hostname)\" --reason …";
        let table: &[(&str, Vec<&str>)] = &[
            ("no fence proof: the fence does not hold any more: server writable", vec![ASSERT, RETRY, SKIP, ABORT]),
            (&loss, vec![ACCEPT, RETRY, SKIP, ABORT]),
            (latched, vec![unlatch, RETRY, SKIP, ABORT]),
            (higher, vec![RETRY, SKIP, ABORT]),
            ("its resource is unsettled since run r0: it must answer once", vec![RETRY, SKIP, ABORT]),
            ("promote after 3 attempts: pg_ctl failed", vec![RETRY, SKIP, ABORT]),
        ];
        for (reason, wanted) in table {
            let (mut world, token) = fenced();
            assert_eq!(commands(&mut world, token, "promote", reason), *wanted, "{reason}");
        }
    }

    #[test]
    fn a_fence_that_waits_for_a_standby_is_not_asked_to_be_asserted() {
        let retry = "watchdogctl run retry shop fence --reason …";
        let (mut world, token) = World::opened("r1");
        let stopped = "no standby to promote in hanoi: db-hanoi: server stopped: start it there";
        assert_eq!(commands(&mut world, token, "fence", stopped), [retry, ABORT]);
        let latched = "no standby to promote in hanoi: latched: `watchdog-guard unlatch --group shop` there";
        commands(&mut world, token, "fence", latched);
        let first = ways_on(world.run()).remove(0);
        assert!(first.command.starts_with(UNLATCH) && first.meaning.contains("on db-hanoi"), "{first:?}");
    }

    #[test]
    fn what_was_given_is_not_asked_for_again() {
        let (mut world, token) = fenced();
        order(&mut world, RunOrder::AcceptLoss);
        order(&mut world, RunOrder::AssertFence { region: region("hcmc") });
        let found = commands(&mut world, token, "promote", "promote after 3 attempts: the disk is full");
        assert_eq!(found, [RETRY, SKIP, ABORT]);
    }

    /// A run of that kind with Redis in it, under its first token.
    fn with_redis(kind: RunKind) -> (World, Token) {
        let mut world = World::new();
        let mut open = if kind == RunKind::Failover { world.open_change("r1") } else { world.open_planned("r1") };
        let Change::OpenRun { plan, .. } = &mut open else { panic!("{open:?}") };
        let fences = if kind == RunKind::Failover { REDIS_FENCE } else { REDIS_HAND_OVER };
        let wanted = [(fences, "hcmc"), (REDIS_PROMOTE, "hanoi"), (REDIS_RELEASE, "hcmc")];
        let [first, promote, release] = wanted.map(|(name, region)| {
            let step = plan.steps().next().expect("a step").1.clone();
            let Action::Fence { mut guard } = step.action else { panic!("a fence comes first") };
            guard.host = HostName(format!("redis-{region}"));
            let action = Action::Guarded { guard, name: name.to_owned(), params: Default::default() };
            let blocking = [REDIS_HAND_OVER, REDIS_RELEASE].contains(&name);
            Step { id: name.into(), action, blocking, ..step }
        });
        if kind == RunKind::Failover {
            plan.stages[1].steps.extend([first, promote]);
        } else {
            plan.stages.insert(2, Stage { steps: vec![first] });
            plan.stages.insert(4, Stage { steps: vec![promote] });
            plan.undo[0].steps.push(release);
        }
        world.must(open);
        let token = world.claim("r1");
        (world, token)
    }

    #[test]
    fn each_step_of_redis_has_its_own_way_on() {
        let latched =
            "redis-promote after 1 attempt: guard refused (latched): or watchdog-guard unlatch --redis --group shop";
        let started = "redis-fence does not hold any more: not latched; redis process 7 is a primary at offset 9";
        let unlatch = "watchdog-guard unlatch --redis --group shop --confirm \"$(hostname)\" --reason …";
        let higher = "host:redis-hcmc holds token 1.9, above this run's 1.1: find out who raised it";
        let unsettled = "its resource is unsettled since run r0: it must answer once";
        let (failover, switchover) = (RunKind::Failover, RunKind::Switchover);
        let table: &[(RunKind, &str, &str, &[&str], &str)] = &[
            (failover, REDIS_FENCE, "no route to host", &["skip", "retry"], "look at the old Redis primary in hcmc"),
            (failover, REDIS_FENCE, higher, &["retry", "skip"], "once you know who raised it"),
            (failover, REDIS_PROMOTE, latched, &[unlatch, "retry", "skip"], "Redis on redis-hanoi was fenced earlier"),
            (failover, REDIS_PROMOTE, started, &["retry", "skip"], "copy its RDB or AOF aside"),
            (failover, REDIS_PROMOTE, "refused", &["retry", "skip"], "`watchdog-guard status` on redis-hanoi"),
            (failover, REDIS_PROMOTE, unsettled, &["retry", "skip"], "once its resource answers again"),
            (
                switchover,
                REDIS_HAND_OVER,
                "hanoi has 7 of 9 bytes",
                &["retry"],
                "its replica in hanoi is linked and in step",
            ),
            (
                switchover,
                REDIS_PROMOTE,
                latched,
                &[unlatch, "retry", "skip"],
                "Redis on redis-hanoi was fenced earlier",
            ),
            (switchover, REDIS_RELEASE, "refused", &["retry", "skip"], "`watchdog-guard status` on redis-hcmc"),
        ];
        for (kind, step, reason, wanted, first) in table {
            let (mut world, token) = with_redis(*kind);
            let verb = |verb: &&str| match *verb {
                "retry" | "skip" => format!("watchdogctl run {verb} shop {step} --reason …"),
                other => other.to_owned(),
            };
            let wanted: Vec<String> = wanted.iter().map(verb).chain([ABORT.to_owned()]).collect();
            assert_eq!(commands(&mut world, token, step, reason), wanted, "{step}: {reason}");
            let said = ways_on(world.run()).remove(0).meaning;
            assert!(said.contains(first), "{step}: {said}");
        }
    }

    #[test]
    fn a_promotion_is_skipped_only_behind_a_fence() {
        let (mut world, token) = World::opened("r1");
        assert_eq!(commands(&mut world, token, "promote", "its resource is unsettled since run r0"), [RETRY, ABORT]);
    }

    #[test]
    fn what_an_abort_leaves_is_told_as_it_is() {
        let told = |world: &World| ways_on(world.run()).pop().expect("abort is always a way").meaning;
        let (mut world, token) = World::opened("r1");
        commands(&mut world, token, "fence", "too few nodes can tell");
        assert!(told(&world).ends_with("(nothing was changed yet)"), "{}", told(&world));
        let (mut world, token) = World::opened("r1");
        world.must(world.start_change("fence", token));
        commands(&mut world, token, "fence", "no fence proof after 1 attempt: no answer yet");
        assert!(told(&world).contains("hcmc may or may not be stopped, nobody is promoted"), "{}", told(&world));
        let (mut world, token) = fenced();
        commands(&mut world, token, "promote", "no luck");
        assert!(told(&world).ends_with("(hcmc stays fenced, nobody is promoted)"), "{}", told(&world));
        let (mut world, token) = fenced();
        world.do_step("promote", token);
        world.must(world.start_change("services", token));
        let failed = Outcome::Failed { retryable: false, reason: "exit code 1".to_owned() };
        world.must(world.finish_change("services", token, failed));
        commands(&mut world, token, "services", "start-services after 1 attempt: exit code 1");
        assert!(told(&world).ends_with("(hanoi stays the primary)"), "{}", told(&world));
    }
}
