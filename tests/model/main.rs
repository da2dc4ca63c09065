//! The pure run machine, its claims and tokens, and leaders that freeze, die and come back, searched to the end of a
//! stated bound. `docs/VERIFICATION.md` tells what is modelled and what was found.
//!
//! `MODEL_WIDE=1` searches further (`scripts/model-check`).

/// A test for each scope of the module's `SCOPES`, and one that searches its `WIDE` where that is asked for, by its `holds`.
macro_rules! scopes {
    (further out: $wide:ident, $($test:ident: $name:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            holds(SCOPES.iter().find(|scope| scope.name == $name).expect("a scope of that name"));
        })+

        #[test]
        fn every_scope_has_its_test() {
            let tested = [$($name),+];
            assert!(SCOPES.iter().all(|scope| tested.contains(&scope.name)));
        }

        #[test]
        fn $wide() {
            if std::env::var_os("MODEL_WIDE").is_none() {
                println!("not searched: set MODEL_WIDE=1 (scripts/model-check)");
                return;
            }
            for scope in WIDE {
                holds(scope);
            }
        }
    };
}

mod cluster;
mod command;
mod executor;
mod lease;
mod log;
mod mutations;
mod promises;
mod rules;
mod steps;
mod watchdogs;
mod world;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use rules::{SCOPES, Scope, WIDE};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use watchdogs::Watchdogs;

/// What a search came to.
struct Found {
    states: usize,
    depth: usize,
    took_s: f64,
    /// The promises seen to break.
    broken: Vec<&'static str>,
    /// A way there.
    way: Vec<String>,
    /// Promised possibilities that were met.
    possible: Vec<&'static str>,
    wrong_states: Vec<String>,
}

impl Found {
    /// A line of the table of broken rules.
    fn line(&self, rule: &str, promise: &str) -> String {
        let steps = if self.way.is_empty() { "-".to_owned() } else { self.way.len().to_string() };
        format!("{rule:<26} {promise:<42} {steps:>5} {:>8} {:>6.1}", self.states, self.took_s)
    }
}

/// Searches breadth first to the end of the bound, or until a promise is seen to break. One thread, so that the way there
/// is the same every time.
fn explore<M>(model: M, wrong: impl Fn(&M) -> Vec<String>) -> Found
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Debug + Clone + PartialEq + Send + Sync + 'static,
    M::Action: Debug + Clone + PartialEq,
{
    let began = Instant::now();
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut found = Found {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took_s: began.elapsed().as_secs_f64(),
        broken: Vec::new(),
        way: Vec::new(),
        possible: Vec::new(),
        wrong_states: wrong(checker.model()),
    };
    for (promise, path) in checker.discoveries() {
        if checker.model().property(promise).expectation == Expectation::Sometimes {
            found.possible.push(promise);
        } else {
            found.broken.push(promise);
            found.way = path.into_actions().iter().map(|act| format!("{act:?}")).collect();
        }
    }
    found
}

fn search(scope: &Scope) -> Found {
    explore(Watchdogs::new(scope.rules), |model| model.log.broken())
}

/// Prints what a search came to, and fails where a promise broke or something promised was never seen.
fn report(name: &str, found: &Found, wanted: &[&str]) {
    println!("{name:<28} {:>9} states, depth {:>3}, {:>6.1} s", found.states, found.depth, found.took_s);
    let (broken, wrong) = (&found.broken, &found.wrong_states);
    assert!(broken.is_empty(), "{name}: broken: {broken:?}\n    {}\n{wrong:?}", found.way.join("\n    "));
    for wanted in wanted {
        assert!(found.possible.contains(wanted), "{name}: never seen: {wanted}");
    }
}

fn holds(scope: &Scope) {
    report(scope.name, &search(scope), &promises::possible(&scope.rules));
}

scopes! {
    further out: the_promises_hold_further_out,
    the_promises_hold_where_answers_are_lost: "answers are lost",
    the_promises_hold_where_answers_are_lost_and_orders_given: "answers and orders",
    the_promises_hold_where_hosts_fail_and_triggers_go: "hosts fail, triggers go",
    the_promises_hold_under_operators: "operators",
    the_promises_hold_while_paused: "paused",
    the_promises_hold_over_two_runs: "two runs",
    the_promises_hold_among_three_leaders: "three leaders",
    the_promises_hold_where_late_proposals_count: "late proposals count",
    the_promises_hold_for_the_whole_plan: "the whole plan",
    the_promises_hold_for_dns_beside_promotion: "DNS beside promotion",
    the_promises_hold_where_requests_arrive_twice: "requests arrive twice",
    the_promises_hold_in_mode_none: "mode none",
    the_promises_hold_where_moved_by_plan: "moved by plan",
    the_promises_hold_where_moved_and_answers_are_lost: "moved, answers lost",
    the_promises_hold_where_moved_under_operators: "moved, operators",
    the_promises_hold_where_moved_and_hosts_die: "moved, hosts die",
    the_promises_hold_where_moved_and_paused: "moved, paused",
    the_promises_hold_where_moved_and_then_lost: "moved, then lost",
    the_promises_hold_where_moved_and_requests_arrive_twice: "moved, requests arrive twice",
    the_promises_hold_where_moved_and_late_proposals_count: "moved, late proposals count",
    the_promises_hold_where_moved_in_mode_none: "moved, mode none",
}
