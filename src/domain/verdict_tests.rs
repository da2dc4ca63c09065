//! Tables and properties of the window.

use proptest::prelude::*;

use super::*;
use crate::domain::observation::ReplicationMeasure;

fn bad(kind: FailureKind) -> Outcome {
    Outcome::Bad(Failure { kind, detail: "planned".to_owned() })
}

fn good() -> Outcome {
    Outcome::Good(None)
}

fn window(fall: u32, rise: u32) -> Window {
    Window::new(WindowParameters { fall, rise, ..Default::default() }, 0)
}

fn feed(window: &mut Window, start_ms: u64, outcomes: impl IntoIterator<Item = Outcome>) -> u64 {
    let mut now_ms = start_ms;
    for outcome in outcomes {
        now_ms += 100;
        window.record(now_ms, outcome);
    }
    now_ms
}

#[test]
fn how_many_failures_make_down() {
    use FailureKind::*;
    let table = [
        (1, vec![TimedOut], Verdict::Suspect),
        (1, vec![Unreachable], Verdict::Suspect),
        (1, vec![TimedOut, TimedOut], Verdict::Down),
        (1, vec![Refused], Verdict::Down),
        (1, vec![WrongAnswer], Verdict::Down),
        (2, vec![Refused], Verdict::Suspect),
        (2, vec![Refused, Refused], Verdict::Down),
        (3, vec![Refused, Refused], Verdict::Down),
        (3, vec![Refused, TimedOut], Verdict::Down),
        (3, vec![TimedOut, TimedOut], Verdict::Suspect),
        (3, vec![TimedOut, WrongAnswer, Unusable], Verdict::Down),
        (3, vec![Refused, OurFault, Refused], Verdict::Suspect),
        (1, vec![OurFault; 9], Verdict::Suspect),
    ];
    for (fall, kinds, wanted) in table {
        let mut window = window(fall, 1);
        feed(&mut window, 0, [good(), good()]);
        let now_ms = feed(&mut window, 200, kinds.iter().copied().map(bad));
        assert_eq!(window.standing(now_ms).verdict, wanted, "fall {fall}, {kinds:?}");
    }
}

#[test]
fn down_counts_from_the_first_failure_of_its_streak() {
    let mut window = window(3, 1);
    window.record(100, good());
    window.record(600, bad(FailureKind::TimedOut));
    assert_eq!((window.standing(650).verdict, window.standing(650).since_ms), (Verdict::Suspect, 600));
    window.record(1700, bad(FailureKind::TimedOut));
    window.record(2800, bad(FailureKind::TimedOut));
    assert_eq!((window.standing(2800).verdict, window.standing(2800).since_ms), (Verdict::Down, 600));
}

#[test]
fn one_good_probe_ends_a_down_and_rise_makes_up() {
    let mut window = window(2, 2);
    let now_ms = feed(&mut window, 0, [bad(FailureKind::Refused), bad(FailureKind::Refused)]);
    assert_eq!(window.standing(now_ms).verdict, Verdict::Down);
    assert!(!window.standing(now_ms).seen_up);
    window.record(400, good());
    assert_eq!((window.standing(400).verdict, window.standing(400).since_ms), (Verdict::Suspect, 400));
    assert!(window.standing(400).failure.is_some(), "the reason stays until it is up");
    window.record(500, good());
    let standing = window.standing(500);
    assert_eq!((standing.verdict, standing.since_ms, standing.seen_up), (Verdict::Up, 400, true));
    assert_eq!(standing.failure, None);
}

#[test]
fn the_pace_is_fast_while_in_doubt_only() {
    let mut window = window(2, 2);
    assert_eq!(window.pace_ms(), 100, "at the start");
    let steps = [
        (good(), 100),
        (good(), 500),
        (bad(FailureKind::TimedOut), 100),
        (bad(FailureKind::TimedOut), 500),
        (bad(FailureKind::TimedOut), 500),
        (good(), 100),
        (bad(FailureKind::OurFault), 500),
        (good(), 100),
        (good(), 500),
    ];
    for (number, (outcome, pace_ms)) in steps.into_iter().enumerate() {
        window.record(number as u64 * 100, outcome);
        assert_eq!(window.pace_ms(), pace_ms, "after step {number}");
    }
}

#[test]
fn a_gap_expires_the_verdict_and_what_was_counted() {
    let mut window = window(2, 1);
    let now_ms = feed(&mut window, 0, [good(), bad(FailureKind::TimedOut), bad(FailureKind::TimedOut)]);
    let expiry_ms = now_ms + window.parameters().expiry_ms();
    assert_eq!(window.standing(expiry_ms).verdict, Verdict::Down);
    let late = window.standing(expiry_ms + 60_000);
    assert_eq!((late.verdict, late.since_ms), (Verdict::Suspect, expiry_ms));
    assert_eq!(late.failure.map(|failure| failure.kind), Some(FailureKind::NotLooked));
    window.record(expiry_ms + 60_000, bad(FailureKind::TimedOut));
    assert_eq!(window.standing(expiry_ms + 60_000).verdict, Verdict::Suspect, "counted afresh after the gap");
    window.record(expiry_ms + 60_100, bad(FailureKind::TimedOut));
    let standing = window.standing(expiry_ms + 60_100);
    assert_eq!((standing.verdict, standing.since_ms), (Verdict::Down, expiry_ms + 60_000));
}

#[test]
fn ages_grow_when_nothing_new_comes() {
    let mut window = window(3, 1);
    let measure = ReplicationMeasure {
        primary_lsn: Some(7),
        primary_lsn_age_ms: Some(5),
        covered_age_ms: Some(10),
        ..Default::default()
    };
    window.record(1000, Outcome::Good(Some(Measure::Replication(measure))));
    window.record(1500, bad(FailureKind::Refused));
    let Some(Measure::Replication(read)) = window.standing(301_000).measure else {
        panic!("the last good measure stays")
    };
    assert_eq!((read.covered_age_ms, read.primary_lsn_age_ms), (Some(300_010), Some(300_005)));
    assert_eq!(read.primary_lsn, Some(7));
}

fn outcomes() -> impl Strategy<Value = Vec<(u64, u8)>> {
    prop::collection::vec((prop_oneof![8 => 0u64..1500, 1 => 0u64..20_000], 0u8..7), 1..80)
}

fn outcome_of(code: u8) -> Outcome {
    match code {
        0 => bad(FailureKind::Refused),
        1 => bad(FailureKind::TimedOut),
        2 => bad(FailureKind::Unreachable),
        3 => bad(FailureKind::WrongAnswer),
        4 => bad(FailureKind::Unusable),
        5 => bad(FailureKind::OurFault),
        _ => good(),
    }
}

proptest! {
    /// Against the plain reading of the rules, over the outcomes since the last break.
    #[test]
    fn a_verdict_is_never_stronger_than_its_streak(steps in outcomes(), fall in 1u32..6, rise in 1u32..4) {
        let mut window = window(fall, rise);
        let expiry_ms = window.parameters().expiry_ms();
        let (mut now_ms, mut since_ms, mut seen_up) = (0u64, 0u64, false);
        let mut failures: Vec<(u64, u8)> = Vec::new();
        let mut goods = 0u32;
        for (index, (delta_ms, code)) in steps.into_iter().enumerate() {
            now_ms += delta_ms;
            if index > 0 && delta_ms > expiry_ms {
                failures.clear();
                goods = 0;
            }
            match code {
                0..=4 => { failures.push((now_ms, code)); goods = 0; }
                5 => { failures.clear(); goods = 0; }
                _ => { failures.clear(); goods += 1; }
            }
            window.record(now_ms, outcome_of(code));
            let standing = window.standing(now_ms);
            let weight: usize = failures.iter().map(|(_, code)| if *code == 0 { 2 } else { 1 }).sum();
            match standing.verdict {
                Verdict::Down => {
                    prop_assert!(weight >= fall as usize, "down on {failures:?} with fall {fall}");
                    prop_assert!(failures.len() >= 2.min(fall as usize));
                    prop_assert!(failures.len() > 1 || !matches!(code, 1 | 2), "one lost packet");
                    prop_assert_eq!(standing.since_ms, failures[0].0);
                    prop_assert!(standing.failure.is_some());
                }
                Verdict::Up => {
                    prop_assert!(goods >= rise);
                    prop_assert!(standing.failure.is_none());
                }
                Verdict::Suspect => {
                    prop_assert!(goods < rise, "good {goods} times and not up");
                    prop_assert!(failures.len() < fall.max(2) as usize, "failed {} times and not down", failures.len());
                }
            }
            prop_assert!(standing.since_ms >= since_ms, "since went backwards");
            prop_assert!(standing.since_ms <= now_ms);
            prop_assert!(standing.seen_up || !seen_up, "seen_up is never taken back");
            prop_assert!([100, 500].contains(&window.pace_ms()));
            let expired = window.standing(now_ms + expiry_ms + 1);
            prop_assert_eq!(expired.verdict, Verdict::Suspect);
            prop_assert!(expired.since_ms >= standing.since_ms);
            since_ms = standing.since_ms;
            seen_up = standing.seen_up;
        }
    }

    /// A clock handed in backwards, extreme parameters: no panic, no overflow, no verdict from nothing.
    #[test]
    fn odd_input_is_harmless(steps in prop::collection::vec((any::<u64>(), 0u8..7), 0..40), parameters in any::<[u64; 3]>(), counts in any::<[u32; 2]>()) {
        let [interval_ms, fastinter_ms, timeout_ms] = parameters;
        let [fall, rise] = counts;
        let mut window = Window::new(WindowParameters { interval_ms, fastinter_ms, timeout_ms, fall, rise }, 0);
        for (now_ms, code) in steps {
            window.record(now_ms, outcome_of(code));
            let standing = window.standing(now_ms);
            prop_assert!(standing.verdict != Verdict::Down || code < 5);
            prop_assert!(window.pace_ms() <= interval_ms);
        }
    }
}
