//! The deterministic simulation: the real domain, coordinator, Raft, store, probes and actuators on virtual clocks, disks
//! and a virtual network, with model hosts, zone and pager, and with everything going wrong. See docs/VERIFICATION.md.
//!
//! One schedule is one process: tokio seeds its own choices from a counter of the process, and only a fresh one makes a
//! schedule repeatable.

mod acting;
mod asking;
mod chance;
mod children;
mod disk;
mod drive;
mod faults;
mod gate;
mod guard;
mod holding;
mod host;
mod keeping;
mod leases;
mod moves;
mod mutation;
mod node;
mod pager;
mod promises;
mod recoveries;
mod redis;
mod redis_guard;
mod rest;
mod schedule;
mod seeing;
mod shapes;
mod site;
mod wire;
mod world;
mod zone;

use children::{Asked, Told, ask, of_environment};
use mutation::{ALL, Taken};

/// Schedules in an ordinary run of the tests; `SCHEDULES=…` asks for more, `scripts/simulate --minutes N` for as many as
/// there is time for.
const SCHEDULES: u64 = 300;
/// A mutant that so many schedules do not notice is not noticed.
const SCHEDULES_FOR_MUTANT: usize = 1000;
/// Schedules that once showed a defect of the product, and what it was.
const REGRESSIONS: &[(u64, &str)] = &[
    (
        585,
        "what bound the new primary could not be undone while the run was open, and it was denied its lease for ever",
    ),
    (688, "a stuck fence was not tried again for as long as the clock of the node that called it stuck had been ahead"),
    (947, "a run was called stuck at a fence that was skipped meanwhile, for ever, and its leader kept a core busy"),
    (714, "a planned move that turned back was followed by a failover, on the silence that it had made itself"),
    (830, "nothing was released on a host without a gate since its boot, and nobody put one in place"),
    (970, "a leader spun over a look that turning back had made needless"),
    (
        143,
        "a rejoin's own token latched its host in another run's name as it came back, and the rejoin failed for ever",
    ),
    (109, "nobody was called again where a step stayed unanswered after a person's retry"),
    (102, "the writers that a dead guard's hand-over of Redis had paused waited on after the move had turned back"),
];

/// What one process does for the tests below.
#[test]
#[ignore = "asked for by the other tests, each in a process of its own"]
fn child() {
    children::child();
}

#[test]
fn every_promise_is_kept_in_every_schedule() {
    if let Some(asked) = children::one_seed() {
        let told = ask(&asked);
        println!("{}", told.text);
        assert!(told.is_well(), "seed {} breaks a promise, see above", asked.seed);
        return;
    }
    let first = of_environment("FIRST_SEED").unwrap_or(1);
    let until =
        of_environment("SIMULATE_SECONDS").map(|s| std::time::Instant::now() + std::time::Duration::from_secs(s));
    let count = of_environment("SCHEDULES").unwrap_or(if until.is_some() { u64::MAX / 2 } else { SCHEDULES });
    let started = std::time::Instant::now();
    let mut figures = children::Figures::default();
    let failed = children::first_that(first..first + count, None, &mut figures, |told| {
        !told.is_well() || until.is_some_and(|until| std::time::Instant::now() > until)
    });
    println!("{figures}, {:.1} s of real time", started.elapsed().as_secs_f64());
    if let Some(told) = failed.filter(|told| !told.is_well()) {
        panic!("{}\nSEED={} cargo test --test simulation replays it", told.text, told.seed);
    }
}

#[test]
fn what_once_went_wrong_goes_well() {
    for (seed, what) in REGRESSIONS {
        let told = ask(&Asked { seed: *seed, mutant: None });
        assert!(told.is_well(), "again, {what}:\n{}", told.text);
    }
}

#[test]
fn the_same_seed_gives_the_same_schedule() {
    for seed in [4, 9, 22] {
        let asked = Asked { seed, mutant: None };
        let (one, other) = (ask(&asked), ask(&asked));
        assert!(!one.hash.is_empty(), "{}", one.text);
        assert_eq!(one.hash, other.hash, "seed {seed}");
    }
}

/// The seed that is known to notice each mutant comes first; as the product changes, others take its place.
#[test]
fn every_gate_that_is_taken_out_is_missed() {
    if children::one_seed().is_some() {
        return;
    }
    let most = of_environment("SCHEDULES").and_then(|most| most.try_into().ok()).unwrap_or(SCHEDULES_FOR_MUTANT);
    let mut unnoticed = Vec::new();
    println!("| taken out | noticed as | by seed | schedules |");
    println!("|---|---|---|---:|");
    let only = std::env::var("MUTANT").ok();
    let is_asked_for = |name: &str| only.as_deref().is_none_or(|only| name.contains(only));
    for taken in ALL.iter().filter(|taken| is_asked_for(taken.name)) {
        let Taken { name, known, shape, what, .. } = *taken;
        let mut figures = children::Figures::default();
        // The known seed first; then those that were made for it, or any.
        let fits = |seed: &u64| shape.is_none() || schedule::shape_of(*seed) == shape;
        let is_known = Some(known).filter(|known| *known > 0).into_iter();
        let mut search = |seeds: &mut (dyn Iterator<Item = u64> + Send)| {
            children::first_that(seeds, Some(name), &mut figures, |told| !told.is_well())
        };
        match search(&mut is_known.clone()).or_else(|| search(&mut (1..).filter(fits).take(most))) {
            Some(Told { seed, broken, .. }) => {
                println!(
                    "| {what} | {} | {seed} | {} |",
                    broken.first().map_or("-", String::as_str),
                    figures.schedules
                );
            }
            None => unnoticed.push(name),
        }
    }
    assert!(unnoticed.is_empty(), "nobody misses: {}", unnoticed.join(", "));
}
