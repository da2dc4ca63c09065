//! How one node judges one target: probe outcomes in, a verdict out. Pure; time comes in as monotonic milliseconds.
//!
//! * Any failure makes `suspect` at once; `down` needs `fall` failures in a row, `up` needs `rise` good probes in a row.
//! * A refused connection counts twice: the host itself answered that nothing listens there. So with `fall = 3` two
//!   refusals are `down`. It never takes fewer than two failures, except where `fall = 1` asks for one; and one lost
//!   packet is never `down`, so a time-out or a missing route is always seen twice.
//! * A good probe ends a `down` at once (it becomes `suspect`): `down` says that the target has failed ever since.
//! * A fault of ours only ever makes `suspect`, and ends a streak of failures: what answers "wrong password" is alive.
//! * A verdict whose newest probe is too old (the node was paused, or starved) is `suspect` again, and what was counted
//!   before the gap counts no more: nobody looked in between.

use super::observation::{Failure, FailureKind, Measure, Verdict};

/// How a target is probed and judged. The words are HAProxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowParameters {
    /// From the start of one probe to the start of the next while the verdict is settled, milliseconds.
    pub interval_ms: u64,
    /// The same while it is not: from the first failure until `down`, from the first good probe until `up`.
    pub fastinter_ms: u64,
    /// A probe that takes longer has failed, milliseconds.
    pub timeout_ms: u64,
    /// Failures in a row that make `down` (0 reads as 1).
    pub fall: u32,
    /// Good probes in a row that make `up` (0 reads as 1).
    pub rise: u32,
}

impl Default for WindowParameters {
    fn default() -> Self {
        Self { interval_ms: 500, fastinter_ms: 100, timeout_ms: 1000, fall: 3, rise: 2 }
    }
}

impl WindowParameters {
    /// A verdict whose newest probe ended longer ago than this says nothing any more, milliseconds.
    pub fn expiry_ms(&self) -> u64 {
        self.interval_ms.saturating_add(self.timeout_ms).saturating_mul(2)
    }
}

/// What one probe brought home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It answered as it should, with the numbers that this kind of probe reads.
    Good(Option<Measure>),
    /// It did not.
    Bad(Failure),
}

/// The judgement as of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The judgement.
    pub verdict: Verdict,
    /// Since when it is so, monotonic milliseconds. `down` counts from the first failure of its streak.
    pub since_ms: u64,
    /// It was `up` at least once in this window's life.
    pub seen_up: bool,
    /// Why it is not `up`.
    pub failure: Option<Failure>,
    /// Numbers of the last good probe; ages within are as of now.
    pub measure: Option<Measure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streak {
    /// Nothing was probed yet, or too long ago.
    Empty,
    Good {
        count: u32,
        since_ms: u64,
    },
    Bad {
        count: u32,
        weight: u32,
        since_ms: u64,
    },
    /// The newest failure was a fault of ours.
    Ours,
}

/// One node's judgement of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    parameters: WindowParameters,
    verdict: Verdict,
    since_ms: u64,
    streak: Streak,
    seen_up: bool,
    failure: Option<Failure>,
    measure: Option<(u64, Measure)>,
    newest_ms: Option<u64>,
}

impl Window {
    /// A target nobody has probed yet: `suspect`.
    pub fn new(parameters: WindowParameters, now_ms: u64) -> Self {
        Self {
            parameters,
            verdict: Verdict::Suspect,
            since_ms: now_ms,
            streak: Streak::Empty,
            seen_up: false,
            failure: None,
            measure: None,
            newest_ms: None,
        }
    }

    /// Takes in what a probe brought home at `now_ms`. A time before the newest outcome's is read as that one.
    pub fn record(&mut self, now_ms: u64, outcome: Outcome) {
        let now_ms = now_ms.max(self.newest_ms.unwrap_or(0)).max(self.since_ms);
        if let Some(expired_ms) = self.expired_ms(now_ms) {
            self.turn(Verdict::Suspect, expired_ms);
            self.streak = Streak::Empty;
        }
        self.newest_ms = Some(now_ms);
        match outcome {
            Outcome::Good(measure) => self.good(now_ms, measure),
            Outcome::Bad(failure) if matches!(failure.kind, FailureKind::OurFault | FailureKind::NotLooked) => {
                self.streak = Streak::Ours;
                self.turn(Verdict::Suspect, now_ms);
                self.failure = Some(failure);
            }
            Outcome::Bad(failure) => self.bad(now_ms, failure),
        }
    }

    fn good(&mut self, now_ms: u64, measure: Option<Measure>) {
        let (count, since_ms) = match self.streak {
            Streak::Good { count, since_ms } => (count.saturating_add(1), since_ms),
            _ => (1, now_ms),
        };
        self.streak = Streak::Good { count, since_ms };
        if let Some(measure) = measure {
            self.measure = Some((now_ms, measure));
        }
        if self.verdict == Verdict::Down {
            self.turn(Verdict::Suspect, now_ms);
        }
        if count >= self.parameters.rise.max(1) {
            self.turn(Verdict::Up, since_ms);
            self.seen_up = true;
            self.failure = None;
        }
    }

    fn bad(&mut self, now_ms: u64, failure: Failure) {
        let (count, weight, since_ms) = match self.streak {
            Streak::Bad { count, weight, since_ms } => (count.saturating_add(1), weight, since_ms),
            _ => (1, 0, now_ms),
        };
        let weight = weight.saturating_add(weight_of(failure.kind));
        self.streak = Streak::Bad { count, weight, since_ms };
        let fall = self.parameters.fall.max(1);
        let least = if may_be_a_lost_packet(failure.kind) { 2 } else { fall.min(2) };
        if weight >= fall && count >= least {
            self.turn(Verdict::Down, since_ms);
        } else if self.verdict == Verdict::Up {
            self.turn(Verdict::Suspect, now_ms);
        }
        self.failure = Some(failure);
    }

    fn turn(&mut self, verdict: Verdict, since_ms: u64) {
        if self.verdict != verdict {
            self.verdict = verdict;
            self.since_ms = self.since_ms.max(since_ms);
        }
    }

    /// When the newest outcome stopped saying anything, where that lies in the past.
    fn expired_ms(&self, now_ms: u64) -> Option<u64> {
        let expiry_ms = self.newest_ms?.saturating_add(self.parameters.expiry_ms());
        (now_ms > expiry_ms).then_some(expiry_ms)
    }

    /// The judgement as of `now_ms`.
    pub fn standing(&self, now_ms: u64) -> Standing {
        let measure = self.measure.as_ref().map(|(at_ms, measure)| aged(measure, now_ms.saturating_sub(*at_ms)));
        let standing = Standing {
            verdict: self.verdict,
            since_ms: self.since_ms,
            seen_up: self.seen_up,
            failure: self.failure.clone(),
            measure,
        };
        match self.expired_ms(now_ms) {
            None => standing,
            Some(expired_ms) => {
                let since_ms =
                    if self.verdict == Verdict::Suspect { self.since_ms } else { self.since_ms.max(expired_ms) };
                let detail = format!(
                    "no probe has ended for more than {} ms: this node was paused or is overloaded",
                    self.parameters.expiry_ms()
                );
                let failure = Some(Failure { kind: FailureKind::NotLooked, detail });
                Standing { verdict: Verdict::Suspect, since_ms, failure, ..standing }
            }
        }
    }

    /// As [`pace_ms`](Self::pace_ms) where nothing is settled.
    pub fn fastinter_ms(&self) -> u64 {
        self.parameters.fastinter_ms.min(self.parameters.interval_ms)
    }

    /// From the start of the newest probe to the start of the next, milliseconds.
    pub fn pace_ms(&self) -> u64 {
        let settled = match self.streak {
            Streak::Empty => false,
            Streak::Ours => true,
            Streak::Good { .. } => self.verdict == Verdict::Up,
            Streak::Bad { .. } => self.verdict == Verdict::Down,
        };
        if settled { self.parameters.interval_ms } else { self.fastinter_ms() }
    }

    /// How it is probed and judged.
    pub fn parameters(&self) -> &WindowParameters {
        &self.parameters
    }
}

/// How much one failure counts towards `fall`.
fn weight_of(kind: FailureKind) -> u32 {
    match kind {
        FailureKind::Refused => 2,
        FailureKind::OurFault | FailureKind::NotLooked => 0,
        FailureKind::TimedOut | FailureKind::Unreachable | FailureKind::WrongAnswer | FailureKind::Unusable => 1,
    }
}

fn may_be_a_lost_packet(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::TimedOut | FailureKind::Unreachable)
}

/// The measure as it reads `elapsed_ms` later: nothing new came, so what is an age has grown.
fn aged(measure: &Measure, elapsed_ms: u64) -> Measure {
    let mut measure = measure.clone();
    let ages = match &mut measure {
        Measure::Replication(seen) => [&mut seen.primary_lsn_age_ms, &mut seen.covered_age_ms],
        Measure::Redis(seen) => [&mut seen.primary_offset_age_ms, &mut seen.last_io_age_ms],
        _ => return measure,
    };
    for age in ages {
        *age = age.map(|ms| ms.saturating_add(elapsed_ms));
    }
    measure
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
