//! A command in short: all that varies of it within the model.

use std::collections::BTreeMap;

use watchdog::domain::attempt::Outcome;
use watchdog::domain::command::{Change, FenceProof, RunOrder};
use watchdog::domain::ids::{HostName, Principal, RunId, Token};
use watchdog::domain::lease::LeaseBinding;
use watchdog::domain::run::{Cause, RunKind, RunOutcome};

use super::cluster::{self, HOME, digest, group_name};
use super::log::{NOW, token};
use super::rules::{Mode, Rules};
use super::steps::{Place, Step};

/// How an attempt ended, as reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ended {
    Done,
    Failed,
    Unknown,
    Refused,
}

/// What a promotion is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proof {
    Guard,
    Asserted,
    Standing,
    Lapsed,
}

/// How a run is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    Succeeded,
    Withdrawn,
    Aborted,
    Reverted,
}

/// A person's word on the open run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    Retry(Step),
    Skip(Step),
    Abort,
    AssertFence,
}

/// Places, each with whether it is among them.
pub type Places = [bool; 3];

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cmd {
    Open {
        run: u8,
        token: u8,
        epoch: u8,
    },
    Claim {
        run: u8,
        expected: u8,
    },
    Start {
        run: u8,
        step: Step,
        token: u8,
        attempt: u8,
        proof: Option<Proof>,
    },
    Finish {
        run: u8,
        step: Step,
        token: u8,
        attempt: u8,
        ended: Ended,
    },
    Stuck {
        run: u8,
        step: Step,
        token: u8,
    },
    Unstick {
        run: u8,
        token: u8,
    },
    TurnBack {
        run: u8,
        token: u8,
    },
    Close {
        run: u8,
        token: u8,
        end: End,
        is_untouched: bool,
        settled: Places,
    },
    Settle {
        place: Place,
        is_untouched: bool,
    },
    Order {
        run: u8,
        word: Word,
    },
    Pause,
    Resume,
    /// `holders`: a bit for each of [`HOLDERS`].
    Bind {
        holders: u8,
    },
    Unbind,
    Lapse {
        run: u8,
        token: u8,
    },
}

/// Hosts whose promotion holds may renew the lease. The first is the one that the plan promotes.
pub const HOLDERS: [&str; 2] = ["db-hanoi", "db-hue"];

/// The holders of these bits.
pub fn holders(bits: u8) -> Vec<HostName> {
    let named = |(n, name): (usize, &&str)| (bits & (1 << n) > 0).then(|| HostName::from(*name));
    HOLDERS.iter().enumerate().filter_map(named).collect()
}

/// The bits of these holders.
pub fn bits_of(holders: &[HostName]) -> u8 {
    let bit = |(n, name): (usize, &&str)| u8::from(holders.iter().any(|host| host.as_str() == *name)) << n;
    HOLDERS.iter().enumerate().map(bit).sum()
}

fn run_id(n: u8) -> RunId {
    RunId(format!("r{n}"))
}

impl Cmd {
    /// The run it is about, 0 where none.
    pub fn run(self) -> u8 {
        match self {
            Cmd::Open { run, .. }
            | Cmd::Claim { run, .. }
            | Cmd::Start { run, .. }
            | Cmd::Finish { run, .. }
            | Cmd::Stuck { run, .. }
            | Cmd::Unstick { run, .. }
            | Cmd::TurnBack { run, .. }
            | Cmd::Close { run, .. }
            | Cmd::Order { run, .. }
            | Cmd::Lapse { run, .. } => run,
            Cmd::Settle { .. } | Cmd::Pause | Cmd::Resume | Cmd::Bind { .. } | Cmd::Unbind => 0,
        }
    }

    /// The same under another token: for a log that does not compare them.
    pub fn under(self, current: u8) -> Cmd {
        match self {
            Cmd::Start { run, step, attempt, proof, .. } => Cmd::Start { run, step, token: current, attempt, proof },
            Cmd::Finish { run, step, attempt, ended, .. } => Cmd::Finish { run, step, token: current, attempt, ended },
            Cmd::Stuck { run, step, .. } => Cmd::Stuck { run, step, token: current },
            Cmd::Unstick { run, .. } => Cmd::Unstick { run, token: current },
            Cmd::TurnBack { run, .. } => Cmd::TurnBack { run, token: current },
            Cmd::Close { run, end, is_untouched, settled, .. } => {
                Cmd::Close { run, token: current, end, is_untouched, settled }
            }
            other => other,
        }
    }

    /// The whole change, as a node or an operator would propose it.
    pub fn change(self, rules: Rules) -> Change {
        let group = group_name();
        let reason = "model".to_owned();
        match self {
            Cmd::Open { run, token: expected, epoch } => open(run, expected, epoch, rules),
            Cmd::Claim { run, expected } => {
                Change::ClaimRun { group, run: run_id(run), expected_token: token_or_none(expected), floor: None }
            }
            Cmd::Start { run, step, token: under, attempt, proof } => Change::StepStarted {
                group,
                run: run_id(run),
                step: step.id(),
                token: token(under),
                attempt: attempt.into(),
                fence_proof: proof.map(|proof| match proof {
                    Proof::Guard => FenceProof::Guard { token: token(under), evidence: String::new() },
                    Proof::Asserted => FenceProof::Asserted,
                    Proof::Standing => FenceProof::Standing,
                    Proof::Lapsed => FenceProof::LeaseExpired { token: token(under), evidence: String::new() },
                }),
                expected_loss_ms: Some(0),
                loss_limit_ms: Some(1),
            },
            Cmd::Finish { run, step, token: under, attempt, ended } => Change::StepFinished {
                group,
                run: run_id(run),
                step: step.id(),
                token: token(under),
                attempt: attempt.into(),
                outcome: outcome(ended, under),
            },
            Cmd::Stuck { run, step, token: under } => {
                Change::MarkStuck { group, run: run_id(run), token: token(under), step: step.id(), reason }
            }
            Cmd::Unstick { run, token: under } => {
                Change::Unstick { group, run: run_id(run), token: token(under), reason }
            }
            Cmd::TurnBack { run, token: under } => {
                Change::TurnBack { group, run: run_id(run), token: token(under), reason }
            }
            Cmd::Close { run, token: under, end, is_untouched, settled } => Change::CloseRun {
                group,
                run: run_id(run),
                token: token(under),
                outcome: match end {
                    End::Succeeded => RunOutcome::Succeeded,
                    End::Withdrawn => RunOutcome::Withdrawn,
                    End::Aborted => RunOutcome::Aborted,
                    End::Reverted => RunOutcome::Reverted,
                },
                settled: [Place::Old, Place::New, Place::Zone]
                    .into_iter()
                    .filter(|place| settled[*place as usize])
                    .map(|place| (place.resource(), String::new()))
                    .collect::<BTreeMap<_, _>>(),
                old_primary_untouched: is_untouched,
                reason,
                monitor_ms: 0,
            },
            Cmd::Settle { place, is_untouched } => {
                Change::Settle { group, resource: place.resource(), evidence: String::new(), untouched: is_untouched }
            }
            Cmd::Order { run, word } => {
                let order = match word {
                    Word::Retry(step) => RunOrder::Retry { step: step.id() },
                    Word::Skip(step) => RunOrder::Skip { step: step.id() },
                    Word::Abort => RunOrder::Abort,
                    Word::AssertFence => RunOrder::AssertFence { region: HOME.into() },
                };
                Change::Order { group, run: run_id(run), expected_token: None, order, reason }
            }
            Cmd::Pause => Change::Pause { group, reason, until: None },
            Cmd::Resume => Change::Resume { group, reason, expired: None },
            Cmd::Bind { holders: bits } => Change::BindLease { group, binding: binding(bits, rules) },
            Cmd::Unbind => Change::UnbindLease { group, reason },
            Cmd::Lapse { run, token: under } => Change::LeaseLapsed {
                group,
                run: run_id(run),
                token: token(under),
                step: Step::Fence.id(),
                evidence: String::new(),
            },
        }
    }
}

fn binding(bits: u8, rules: Rules) -> LeaseBinding {
    let Mode::Lease(ttl_ms) = rules.mode else { panic!("only mode lease binds") };
    LeaseBinding {
        region: HOME.into(),
        host: cluster::OLD_HOST.into(),
        ttl_ms,
        holders: holders(bits),
        since: NOW,
        attestation: String::new(),
    }
}

fn token_or_none(n: u8) -> Token {
    Token { epoch: 1, n: n.into() }
}

fn outcome(ended: Ended, under: u8) -> Outcome {
    match ended {
        Ended::Done => Outcome::Done { evidence: String::new() },
        Ended::Failed => Outcome::Failed { retryable: true, reason: String::new() },
        Ended::Unknown => Outcome::Unknown { reason: String::new() },
        Ended::Refused => Outcome::Refused { held: token(under.saturating_add(1)) },
    }
}

fn open(run: u8, expected: u8, epoch: u8, rules: Rules) -> Change {
    let is_planned = rules.is_planned(run);
    Change::OpenRun {
        run: run_id(run),
        group: group_name(),
        kind: if is_planned { RunKind::Switchover } else { RunKind::Failover },
        drill: false,
        plan: cluster::plan(rules, is_planned),
        digest: digest(),
        expected_token: token_or_none(expected),
        expected_serving_epoch: epoch.into(),
        cause: Cause {
            by: Principal("node:model".to_owned()),
            automatic: !is_planned,
            reason: String::new(),
            evidence: Vec::new(),
            fault_at: None,
            expected_loss_ms: Some(0),
        },
        loss_acceptance: None,
        fence_assertion: None,
    }
}
