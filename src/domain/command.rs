//! What can be written to the replicated log, and what applying it answers.
//!
//! A command is data that was decided elsewhere. Those that open or change a run carry the state they were decided on, so
//! that a decision made on an old view is rejected by `apply` itself: the log's order is the only arbiter.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::attempt::Outcome;
use super::drill::DrillChange;
use super::ids::{
    ClusterName, ConfigDigest, GroupName, NodeId, Principal, ReceiverName, RegionName, RequestId, ResourceName, RunId,
    StepId, TargetName, Token, UnixMs,
};
use super::lease::LeaseBinding;
use super::monitor::MonitorChange;
use super::on_call::OnCall;
use super::page::Page;
use super::plan::Plan;
use super::policy::Fencing;
use super::readiness::mark::Judgement;
pub use super::rejection::{Rejection, RejectionCode};
use super::run::{Assertion, Cause, RunKind, RunOutcome};
use super::state::{BackupOrigin, BackupPart, NodeSpec, NodeStep};

/// A change with who proposed it and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposing node.
    pub node: NodeId,
    /// By its clock; for people.
    pub at: UnixMs,
    /// Who asked for it.
    pub by: Principal,
    /// From where it was asked, as the first node saw the caller; nothing for what a node does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Chosen by an admin caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// What to change.
    pub change: Change,
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.change.name(), self.by)
    }
}

/// What a group is, as far as the replicated state needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Where it serves from when first registered.
    pub home: RegionName,
    /// Every region that may serve it.
    pub regions: Vec<RegionName>,
    /// The fencing mode in force.
    pub fencing: Fencing,
}

/// Every change there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// Take a configuration into force: proposed by a leader that runs under it when a majority of voters do too.
    AdoptConfig {
        /// The cluster's name: refused where it differs from the state's.
        cluster: ClusterName,
        /// The cluster's epoch: never lower than the state's.
        epoch: u64,
        /// The digest from now on.
        digest: ConfigDigest,
        /// Groups; those unknown are registered as serving from home.
        groups: BTreeMap<GroupName, GroupSpec>,
        /// Who is paged from now on.
        receivers: Vec<ReceiverName>,
        /// Who of them when, and how bad what is.
        #[serde(default)]
        on_call: OnCall,
    },
    /// These targets were seen up under the digest: from now on they can trigger.
    MarkSeenUp {
        /// The group.
        group: GroupName,
        /// The digest they were seen under.
        digest: ConfigDigest,
        /// Which.
        targets: Vec<TargetName>,
    },
    /// Open a run.
    OpenRun {
        /// Its id, UUIDv7.
        run: RunId,
        /// The group.
        group: GroupName,
        /// What for.
        kind: RunKind,
        /// A rehearsal.
        drill: bool,
        /// The whole resolved plan.
        plan: Plan,
        /// The digest it was resolved under: must be the one in force.
        digest: ConfigDigest,
        /// The group's last issued token when this was decided.
        expected_token: Token,
        /// The group's serving epoch when this was decided.
        expected_serving_epoch: u64,
        /// Who and why.
        cause: Cause,
        /// An operator's word on the loss.
        loss_acceptance: Option<Assertion>,
        /// An operator's word on the fence.
        fence_assertion: Option<Assertion>,
    },
    /// Claim the open run: issues its next token.
    ClaimRun {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The token of the claim this one succeeds, as the proposer saw it.
        expected_token: Token,
        /// Issue a token above this one: some resource holds it.
        floor: Option<Token>,
    },
    /// The intent to begin an attempt; no effect starts unless this is committed (P2).
    StepStarted {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The step.
        step: StepId,
        /// The executor's token: must be the run's current one.
        token: Token,
        /// One more than the step's attempts so far.
        attempt: u32,
        /// P4: needed for `promote`, as re-read under `token`.
        fence_proof: Option<FenceProof>,
        /// P5: expected loss as judged just now, for `promote`; `None` is unknown.
        expected_loss_ms: Option<u64>,
        /// The limit it was judged against; `None` where an operator accepted the loss.
        loss_limit_ms: Option<u64>,
    },
    /// The result of an attempt, or of reading back.
    StepFinished {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The step.
        step: StepId,
        /// The executor's token.
        token: Token,
        /// The attempt it is about.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// The run cannot go on by itself.
    MarkStuck {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The executor's token.
        token: Token,
        /// The step.
        step: StepId,
        /// Why, and what the operator may do.
        reason: String,
    },
    /// What kept it stuck is gone (proof arrived, gate opened): go on.
    Unstick {
        /// The group.
        group: GroupName,
        /// Its stuck run.
        run: RunId,
        /// The executor's token.
        token: Token,
        /// What changed.
        reason: String,
    },
    /// A planned move cannot go on, and its promotion was never begun: go back.
    TurnBack {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The executor's token.
        token: Token,
        /// What keeps it.
        reason: String,
    },
    /// The run is over.
    CloseRun {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The executor's token.
        token: Token,
        /// How.
        outcome: RunOutcome,
        /// For `withdrawn` and `aborted`: resources with an unfinished step where the token was raised, and what they show.
        settled: BTreeMap<ResourceName, String>,
        /// For `withdrawn` and `aborted`: the old primary was read back under this token and is neither stopped nor latched.
        old_primary_untouched: bool,
        /// In words.
        reason: String,
        /// Where it moved the group: what serves now is watched closely for so long, milliseconds.
        #[serde(default, skip_serializing_if = "is_zero")]
        monitor_ms: u64,
    },
    /// A resource left unsettled by an abort or skip was reached: the token is raised there and this is what it shows.
    Settle {
        /// The group.
        group: GroupName,
        /// Which.
        resource: ResourceName,
        /// What was read.
        evidence: String,
        /// It was read back as if nobody had tried.
        #[serde(default)]
        untouched: bool,
    },
    /// An operator's word on an open run.
    Order {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The run's token as the operator saw it; a later claim makes the order stale.
        expected_token: Option<Token>,
        /// What.
        order: RunOrder,
        /// Why.
        reason: String,
    },
    /// From here on the lease of the serving region's primary proves something.
    BindLease {
        /// The group.
        group: GroupName,
        /// Whose, how long, and what was attested.
        binding: LeaseBinding,
    },
    /// The lease no longer proves anything: committed before the gate may stand open.
    UnbindLease {
        /// The group.
        group: GroupName,
        /// Why.
        reason: String,
    },
    /// The bound lease of the old primary provably ran out: takes the place of the fence step.
    LeaseLapsed {
        /// The group.
        group: GroupName,
        /// Its open run.
        run: RunId,
        /// The executor's token.
        token: Token,
        /// The fence step.
        step: StepId,
        /// How it was judged.
        evidence: String,
    },
    /// Pause a group: nothing automatic starts, an open run stops at its next step boundary.
    Pause {
        /// The group.
        group: GroupName,
        /// Why.
        reason: String,
        /// When it ends by itself.
        until: Option<UnixMs>,
    },
    /// End a pause; by an operator, or by a leader whose clock says it has expired.
    Resume {
        /// The group.
        group: GroupName,
        /// Why.
        reason: String,
        /// The `until` that has passed, where it is an expiry: rejected when the pause was renewed since.
        expired: Option<UnixMs>,
    },
    /// What a leader judged a group's readiness to be; proposed when that is something else than what is remembered.
    Readiness {
        /// The group.
        group: GroupName,
        /// What it found.
        judgement: Judgement,
    },
    /// Put a page in the outbox. The same key again replaces what is not yet delivered.
    Tell {
        /// The page.
        page: Page,
    },
    /// A receiver took a page, or will never take it.
    Told {
        /// The page's number.
        seq: u64,
        /// Who.
        receiver: ReceiverName,
        /// `None` is delivered; otherwise why it is not tried again.
        refused: Option<String>,
    },
    /// A person has these incidents: their ladders stand still.
    Acknowledge {
        /// The group, where all are of one.
        group: Option<GroupName>,
        /// Which: all of them or none.
        pages: Vec<IncidentRef>,
        /// Why, or what is done about it.
        reason: String,
    },
    /// The next step of an incident's ladder is due, or its acknowledgement has lapsed.
    Escalate {
        /// The group it concerns.
        group: Option<GroupName>,
        /// Which.
        page: IncidentRef,
        /// How often its ladder had told somebody when this was decided.
        told: u32,
        /// How often the ladder had begun anew.
        round: u32,
        /// The moment of the acknowledgement that has lapsed.
        lapsed: Option<UnixMs>,
    },
    /// A person ends an incident that nothing ends by itself.
    ResolvePage {
        /// The group it concerns.
        group: Option<GroupName>,
        /// Which.
        page: IncidentRef,
        /// Why.
        reason: String,
    },
    /// A person tries whether pages arrive.
    TestPage {
        /// Its key.
        key: String,
        /// Who is told.
        receivers: BTreeSet<ReceiverName>,
        /// Why.
        reason: String,
    },
    /// What is seen of what serves now, after a run moved it there; or the end of that watch.
    Monitor {
        /// The group.
        group: GroupName,
        /// After which run.
        run: RunId,
        /// The watch's revision as the proposer saw it.
        revision: u32,
        /// What.
        about: MonitorChange,
    },
    /// A node joins or leaves: what was asked before Raft's membership changes, and what came of it after.
    ChangeNode {
        /// Its number.
        node: NodeId,
        /// What it is called, and where.
        spec: NodeSpec,
        /// Which step.
        step: NodeStep,
        /// Why.
        reason: String,
    },
    /// A part of a backup, handed over to a new cluster.
    RestorePart {
        /// Which backup: the SHA-256 of its state.
        backup: String,
        /// Counted from 0.
        part: u32,
        /// It.
        content: BackupPart,
    },
    /// The backup that was handed over takes effect.
    Restore {
        /// Which, when and by whom it was made.
        origin: BackupOrigin,
        /// How many parts it has.
        parts: u32,
        /// Where each group serves, by an operator's word.
        serving: BTreeMap<GroupName, RegionName>,
        /// Why.
        reason: String,
    },
    /// About a group's drills.
    Drill {
        /// The group.
        group: GroupName,
        /// What.
        about: DrillChange,
    },
    /// A line of audit with no other effect (a refused admin call, a failed attempt to reach a resource).
    Note {
        /// The group, where it concerns one.
        group: Option<GroupName>,
        /// What was asked.
        what: String,
        /// What came of it.
        outcome: String,
    },
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Change {
    /// The change's name, as logs and the audit write it.
    pub fn name(&self) -> &'static str {
        match self {
            Change::AdoptConfig { .. } => "AdoptConfig",
            Change::MarkSeenUp { .. } => "MarkSeenUp",
            Change::OpenRun { .. } => "OpenRun",
            Change::ClaimRun { .. } => "ClaimRun",
            Change::StepStarted { .. } => "StepStarted",
            Change::StepFinished { .. } => "StepFinished",
            Change::MarkStuck { .. } => "MarkStuck",
            Change::Unstick { .. } => "Unstick",
            Change::TurnBack { .. } => "TurnBack",
            Change::CloseRun { .. } => "CloseRun",
            Change::Settle { .. } => "Settle",
            Change::Order { .. } => "Order",
            Change::BindLease { .. } => "BindLease",
            Change::UnbindLease { .. } => "UnbindLease",
            Change::LeaseLapsed { .. } => "LeaseLapsed",
            Change::Pause { .. } => "Pause",
            Change::Resume { .. } => "Resume",
            Change::Readiness { .. } => "Readiness",
            Change::Tell { .. } => "Tell",
            Change::Told { .. } => "Told",
            Change::Acknowledge { .. } => "Acknowledge",
            Change::Escalate { .. } => "Escalate",
            Change::ResolvePage { .. } => "ResolvePage",
            Change::TestPage { .. } => "TestPage",
            Change::ChangeNode { .. } => "ChangeNode",
            Change::RestorePart { .. } => "RestorePart",
            Change::Restore { .. } => "Restore",
            Change::Drill { .. } => "Drill",
            Change::Monitor { .. } => "Monitor",
            Change::Note { .. } => "Note",
        }
    }

    /// The group it concerns.
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Change::MarkSeenUp { group, .. }
            | Change::OpenRun { group, .. }
            | Change::ClaimRun { group, .. }
            | Change::StepStarted { group, .. }
            | Change::StepFinished { group, .. }
            | Change::MarkStuck { group, .. }
            | Change::Unstick { group, .. }
            | Change::TurnBack { group, .. }
            | Change::CloseRun { group, .. }
            | Change::Settle { group, .. }
            | Change::Order { group, .. }
            | Change::Drill { group, .. }
            | Change::Monitor { group, .. }
            | Change::BindLease { group, .. }
            | Change::UnbindLease { group, .. }
            | Change::LeaseLapsed { group, .. }
            | Change::Pause { group, .. }
            | Change::Resume { group, .. }
            | Change::Readiness { group, .. } => Some(group),
            Change::Note { group, .. }
            | Change::Acknowledge { group, .. }
            | Change::Escalate { group, .. }
            | Change::ResolvePage { group, .. } => group.as_ref(),
            Change::AdoptConfig { .. }
            | Change::Tell { .. }
            | Change::Told { .. }
            | Change::TestPage { .. }
            | Change::ChangeNode { .. }
            | Change::RestorePart { .. }
            | Change::Restore { .. } => None,
        }
    }
}

/// An incident as its proposer saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IncidentRef {
    /// Its key.
    pub key: String,
    /// Position in the log where it opened: another incident of the key is another.
    pub opened: u64,
}

/// Why promoting is safe (P4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "proof")]
pub enum FenceProof {
    /// The old primary's guard shows it stopped and latched, read under this token.
    Guard {
        /// The token it was read under: must be the promoting one.
        token: Token,
        /// What the guard answered.
        evidence: String,
    },
    /// The lease provably ran out while it was bound.
    LeaseExpired {
        /// The token of the reader.
        token: Token,
        /// How it was computed.
        evidence: String,
    },
    /// An operator's word, recorded in the run.
    Asserted,
    /// Mode `none`: the configuration's standing word.
    Standing,
}

/// What an operator may order an open run to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum RunOrder {
    /// Try the step again, with fresh attempts; `floor` claims above a token some resource holds.
    Retry {
        /// Which step.
        step: StepId,
    },
    /// Go on without the step.
    Skip {
        /// Which step. Never `promote`'s fence without an assertion.
        step: StepId,
    },
    /// End the run at its next boundary; nothing is undone.
    Abort,
    /// "I have looked: the old primary in REGION is silent and stays so."
    AssertFence {
        /// The old primary's region, typed by the operator.
        region: RegionName,
    },
    /// "I accept what is lost."
    AcceptLoss,
}

impl RunOrder {
    /// The order's word.
    pub fn word(&self) -> &'static str {
        match self {
            RunOrder::Retry { .. } => "retry",
            RunOrder::Skip { .. } => "skip",
            RunOrder::Abort => "abort",
            RunOrder::AssertFence { .. } => "assert-fence",
            RunOrder::AcceptLoss => "accept-loss",
        }
    }
}

/// What applying a command answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "applied")]
pub enum Applied {
    /// It took effect.
    Done {
        /// The token issued, for `ClaimRun`.
        token: Option<Token>,
        /// Position in the log.
        index: u64,
    },
    /// It changed nothing but the audit.
    Rejected(Rejection),
    /// An entry without a command (membership, a leader's first entry).
    Nothing,
}
