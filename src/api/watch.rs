//! The whole picture as it goes: a status at once, and again whenever something of it changed, with the audit since the
//! message before, so that no change of state is missed between two of them.
//!
//! Only the leader counts votes, so that another node passes the leader's messages on. Where the leader is lost it shows
//! its own state, says so, and goes back to the leader's as soon as there is one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::backend::{AdminBackend, Leader};
use super::refuse::{invalid, nothing_done, signed_by, too_many};
use super::service::AdminService;
use super::{access, audit, check, deadline, forward, origin, status};
use crate::domain::audit::{AuditEntry, AuditHash};
use crate::domain::identity::Caller;
use crate::domain::ids::GroupName;
use crate::domain::state::{AUDIT_KEPT, ClusterState};
use crate::proto::{GetStatusResponse, WatchRequest, WatchResponse};
use crate::tls::Dialer;

/// Changes closer together than this are one message.
const COALESCE: Duration = Duration::from_millis(250);
/// Votes ring no bell: they are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A leader that does not open a stream within this is done without.
const REACH: Duration = Duration::from_millis(1_500);
/// And is asked again after this.
const REACH_AGAIN: Duration = Duration::from_secs(2);
/// At most so many entries of the audit in one message; the rest follows at once.
const NEWS_MAX: usize = 200;
/// Of their texts, bytes: a message has room for more, with the status beside them.
const NEWS_BYTES: usize = 1 << 20;
/// At most so many watchers at once on one node.
pub(super) const WATCHERS_MAX: usize = 32;

/// What a watcher reads.
pub(super) type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

/// How far a watcher has been told: the cluster's epoch, and a place in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    epoch: u64,
    index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.index)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no position: give the last one that an earlier stream told, or none");
        let (epoch, index) = text.split_once('.').ok_or_else(wrong)?;
        Ok(Self { epoch: epoch.parse().map_err(|_| wrong())?, index: index.parse().map_err(|_| wrong())? })
    }
}

impl Position {
    fn of(state: &ClusterState) -> Self {
        Self { epoch: state.epoch, index: state.applied_index }
    }
}

/// The audit since a position.
#[derive(Debug, PartialEq)]
struct News<'a> {
    /// Each with the hash of the one before.
    entries: Vec<(Option<AuditHash>, &'a AuditEntry)>,
    /// Some that should be here are not remembered any more.
    missing: bool,
    /// How far this tells.
    until: Position,
    /// There is more at once.
    more: bool,
}

/// What the state remembers since then. A node that lags behind the position has no news yet.
fn news<'a>(state: &'a ClusterState, since: Position, only: Option<&GroupName>) -> News<'a> {
    // Before a configuration is adopted the epoch is 0.
    if since.epoch != state.epoch && since.epoch != 0 {
        return News { entries: Vec::new(), missing: true, until: Position::of(state), more: false };
    }
    let oldest = state.audit.front().map_or(0, |entry| entry.index);
    let is_cut = state.audit_base.seq > 0 || state.audit.len() >= AUDIT_KEPT;
    let missing = is_cut && oldest > since.index.saturating_add(1);
    let concerns = |(_, entry): &(_, &AuditEntry)| match (&entry.group, only) {
        (Some(group), Some(only)) => group == only,
        _ => true,
    };
    // From the newest: a watcher is seldom far behind.
    let newest = audit::with_hashes_before(state).rev();
    let mut entries: Vec<_> = newest.take_while(|(_, entry)| entry.index > since.index).filter(concerns).collect();
    entries.reverse();
    let mut until = Position { epoch: state.epoch, index: state.applied_index.max(since.index) };
    // Entries of one command stay together.
    let mut bytes = 0_usize;
    let fits = entries.iter().take(NEWS_MAX).take_while(|(_, entry)| {
        bytes = bytes.saturating_add(text_bytes(entry));
        bytes <= NEWS_BYTES
    });
    let fits = fits.count().max(1);
    let next = entries.get(fits).map(|(_, entry)| entry.index).unwrap_or(u64::MAX);
    let cut = entries.iter().position(|(_, entry)| entry.index >= next).filter(|cut| *cut > 0);
    if let Some(cut) = cut {
        until.index = entries[cut - 1].1.index;
        entries.truncate(cut);
    }
    News { entries, missing, until, more: cut.is_some() }
}

/// What its texts take; the rest of an entry is small.
fn text_bytes(entry: &AuditEntry) -> usize {
    let evidence = entry.evidence.iter().map(String::len).sum::<usize>();
    [&entry.what, &entry.reason, &entry.outcome].into_iter().map(String::len).sum::<usize>() + evidence
}

/// The status without what only says how the time goes: two that are alike now are no news.
fn essence(status: &GetStatusResponse) -> GetStatusResponse {
    let mut status = status.clone();
    if let Some(standing) = &mut status.standing {
        (standing.as_of_index, standing.at_ms) = (0, 0);
    }
    for node in &mut status.nodes {
        node.last_report_age_ms = None;
    }
    for group in &mut status.groups {
        for vote in &mut group.votes {
            (vote.held_for_ms, vote.age_ms) = (0, 0);
        }
        for into in &mut group.replication {
            // What a busy primary wrote in the last moment is no news; a full second, or a mebibyte, is.
            into.expected_loss_ms = into.expected_loss_ms.map(|ms| ms / 1_000);
            into.behind_bytes = into.behind_bytes.map(|bytes| bytes >> 20);
        }
        if let Some(lease) = &mut group.lease_status {
            if let Some(asked) = &mut lease.asked {
                (asked.at_ms, asked.gate_until_ms) = (0, asked.gate_until_ms.map(|_| 0));
                for hold in &mut asked.holds {
                    hold.until_ms = 0;
                }
            }
            if let Some(grant) = &mut lease.grant {
                (grant.at_ms, grant.until_ms) = (0, 0);
            }
        }
    }
    status
}

/// One watcher.
struct Watcher {
    backend: Arc<dyn AdminBackend>,
    dialer: Dialer,
    caller: Caller,
    only: Option<GroupName>,
    /// Where an earlier stream ended.
    after: Option<Position>,
    /// The call came through another node, which is to be told what this node knows.
    is_forwarded: bool,
    deadline: Option<Instant>,
    /// The watcher's certificate.
    proved_until: Option<Instant>,
    shutdown: CancellationToken,
    to: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// Why one way of telling ended.
enum End {
    /// The watcher left, or was told why the stream ends.
    Over,
    /// There is a leader to be asked.
    Ask,
    /// The leader's stream ended, or could not be opened; why, where it should not have.
    Lost(String),
}

impl Watcher {
    /// Tells until the watcher leaves, its deadline passes, or the node stops.
    async fn tell(mut self) {
        let mut note = String::new();
        let mut own_until = Instant::now();
        loop {
            let end = match self.other_leader() {
                Some(leader) if Instant::now() >= own_until => self.pass_on(&leader).await,
                _ => self.tell_own(&note, own_until).await,
            };
            match end {
                End::Over => return,
                End::Ask => own_until = Instant::now(),
                End::Lost(why) => {
                    own_until = if why.is_empty() { Instant::now() } else { Instant::now() + REACH_AGAIN };
                    note = why;
                }
            }
        }
    }

    fn other_leader(&self) -> Option<Leader> {
        let standing = self.backend.standing().borrow().clone();
        let elsewhere = !self.is_forwarded && standing.has_quorum && !standing.is_leader();
        standing.leader.filter(|_| elsewhere)
    }

    /// This node's own state, until a leader elsewhere can be asked, and not before `own_until`.
    async fn tell_own(&mut self, note: &str, own_until: Instant) -> End {
        let (mut applied, mut standing) = (self.backend.state(), self.backend.standing());
        let mut told: Option<GetStatusResponse> = None;
        loop {
            let state = applied.borrow_and_update().clone();
            standing.mark_unchanged();
            let since = self.after.unwrap_or_else(|| Position::of(&state));
            let new = news(&state, since, self.only.as_ref());
            let status = status::status(self.backend.as_ref(), self.only.as_ref());
            let now = essence(&status);
            if told.as_ref() != Some(&now) || !new.entries.is_empty() || new.missing {
                let policy = self.backend.policy();
                let message = WatchResponse {
                    note: if status.has_sight { String::new() } else { note.to_owned() },
                    status: Some(status),
                    news: new.entries.iter().map(|(prev, entry)| audit::shown(entry, *prev, &policy)).collect(),
                    news_missing: new.missing,
                    position: new.until.to_string(),
                };
                self.after = Some(new.until);
                if !self.send(Ok(message)).await {
                    return End::Over;
                }
                told = Some(now);
            } else {
                self.after = Some(new.until);
            }
            if new.more {
                continue;
            }
            if self.rest(COALESCE).await {
                return End::Over;
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return End::Over },
                changed = standing.changed() => if changed.is_err() { return End::Over },
                over = self.rest(LOOK_EVERY) => if over { return End::Over },
            }
            if self.other_leader().is_some() && Instant::now() >= own_until {
                return End::Ask;
            }
        }
    }

    /// The leader's messages, as long as it leads and they come.
    async fn pass_on(&mut self, leader: &Leader) -> End {
        let mut standing = self.backend.standing();
        standing.mark_unchanged();
        let lost = |why: &str| {
            End::Lost(format!(
                "the leader {} does not tell ({why}): no votes, and what is shown may be old",
                leader.name
            ))
        };
        let (own, cluster) = (standing.borrow().clone(), self.backend.policy().cluster.clone());
        let ask = WatchRequest {
            group: self.only.as_ref().map(|group| group.0.clone()).unwrap_or_default(),
            resume_after: self.after.map(|position| position.to_string()).unwrap_or_default(),
        };
        let open = async {
            let mut client = forward::connect(&self.dialer, &cluster, leader, REACH).await?;
            let mut request = forward::carried(ask, &own, &self.caller);
            // Its deadline is the watcher's, which is kept here.
            request.metadata_mut().remove("grpc-timeout");
            client.watch(request).await
        };
        let mut stream = match tokio::time::timeout(REACH, open).await {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(refused)) if refused.code() == Code::NotFound => {
                let _ = self.to.send(Err(refused)).await;
                return End::Over;
            }
            Ok(Err(refused)) => return lost(refused.message()),
            Err(_) => return lost("no answer"),
        };
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                changed = standing.changed() => {
                    let is_same = self.other_leader().is_some_and(|now| now.node == leader.node);
                    match changed {
                        Err(_) => return End::Over,
                        Ok(()) if is_same => continue,
                        Ok(()) => return End::Lost(String::new()),
                    }
                }
                over = self.rest(Duration::MAX) => if over { return End::Over } else { continue },
            };
            match message {
                Ok(Some(message)) => {
                    self.after = message.position.parse().ok().or(self.after);
                    if !self.send(Ok(message)).await {
                        return End::Over;
                    }
                }
                Ok(None) => return lost("its stream ended"),
                Err(refused) => return lost(refused.message()),
            }
        }
    }

    async fn send(&self, message: Result<WatchResponse, Status>) -> bool {
        self.to.send(message).await.is_ok()
    }

    /// Waits so long; true where the stream is over, and its end was told.
    async fn rest(&self, pause: Duration) -> bool {
        let over = tokio::select! {
            () = tokio::time::sleep(pause) => return false,
            () = self.to.closed() => return true,
            () = deadline::passed(self.deadline) => Status::deadline_exceeded("your deadline passed; what you were told stands"),
            () = deadline::passed(self.proved_until) => deadline::no_longer_proved(),
            () = self.shutdown.cancelled() => nothing_done("this node is stopping: watch another, from the last position"),
        };
        let standing = self.backend.standing().borrow().clone();
        let _ = self.to.try_send(Err(signed_by(over, &standing)));
        true
    }
}

impl AdminService {
    /// Opens a watcher's stream, while there is room.
    pub(super) fn watch(&self, request: &Request<WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let (caller, ask) = (access::caller(request)?, request.get_ref());
        let only = check::group_or_all(&ask.group)?;
        if let Some(group) = &only {
            self.known_group(&self.state(), group)?;
        }
        let after = match ask.resume_after.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|why: String| invalid("resume_after", why))?),
        };
        let place = Arc::clone(&self.watchers)
            .try_acquire_owned()
            .map_err(|_| too_many(format!("{WATCHERS_MAX} callers watch at this node already; ask another")))?;
        let (to, stream) = mpsc::channel(4);
        let watcher = Watcher {
            backend: Arc::clone(&self.backend),
            dialer: self.dialer.clone(),
            caller,
            only,
            after,
            is_forwarded: request.metadata().get(forward::FORWARDED_BY).is_some(),
            deadline: deadline::current(),
            proved_until: deadline::proved_until(),
            shutdown: self.shutdown.clone(),
            to,
        };
        // Also for the leader, to whom it may go on.
        let call = origin::current();
        tokio::spawn(async move {
            origin::within(call, watcher.tell()).await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{NodeId, UnixMs};
    use crate::proto::{GroupStatus, NodeStatus, Replication, Standing, Vote};

    fn entry(index: u64, group: Option<&str>) -> AuditEntry {
        AuditEntry {
            seq: 0,
            index,
            at: UnixMs(index),
            node: NodeId(1),
            by: "operator:linh".into(),
            from: String::new(),
            group: group.map(GroupName::from),
            change: String::new(),
            command: AuditHash::NONE,
            code: String::new(),
            what: format!("change {index}"),
            reason: String::new(),
            evidence: Vec::new(),
            outcome: "done".to_owned(),
            hash: AuditHash::NONE,
        }
    }

    fn state(entries: impl IntoIterator<Item = AuditEntry>) -> ClusterState {
        let audit: std::collections::VecDeque<_> = entries.into_iter().collect();
        let applied_index = audit.back().map_or(0, |entry| entry.index);
        ClusterState { epoch: 1, applied_index, audit, ..ClusterState::default() }
    }

    fn at(index: u64) -> Position {
        Position { epoch: 1, index }
    }

    fn indexes(news: &News<'_>) -> Vec<u64> {
        news.entries.iter().map(|(_, entry)| entry.index).collect()
    }

    #[test]
    fn news_are_what_came_since() {
        let state = state([entry(3, Some("a")), entry(5, None), entry(5, Some("b")), entry(9, Some("b"))]);
        for (since, only, wanted) in [
            (0, None, vec![3, 5, 5, 9]),
            (3, None, vec![5, 5, 9]),
            (3, Some("b"), vec![5, 5, 9]),
            (0, Some("a"), vec![3, 5]),
            (9, None, vec![]),
            (40, None, vec![]),
        ] {
            let found = news(&state, at(since), only.map(GroupName::from).as_ref());
            assert_eq!(indexes(&found), wanted, "since {since} of {only:?}");
            assert_eq!((found.until, found.missing, found.more), (at(since.max(9)), false, false));
        }
    }

    #[test]
    fn what_is_forgotten_and_another_epoch_are_said_to_be_missing() {
        let full = state((100..100 + AUDIT_KEPT as u64).map(|index| entry(index, None)));
        assert!(news(&full, at(50), None).missing);
        assert!(!news(&full, at(99), None).missing);
        let other = news(&full, Position { epoch: 3, index: 100 }, None);
        assert_eq!((other.missing, other.entries.len(), other.until), (true, 0, at(full.applied_index)));
        assert!(!news(&full, Position { epoch: 0, index: 99 }, None).missing, "nothing was adopted then");
    }

    /// One entry alone may be larger: it goes by itself.
    #[test]
    fn large_news_come_in_parts_that_fit_a_message() {
        let large = |index| AuditEntry { reason: "x".repeat(400 << 10), ..entry(index, None) };
        let state = state((1..=7).map(large));
        let (mut since, mut seen) = (at(0), Vec::new());
        loop {
            let part = news(&state, since, None);
            assert!((1..=2).contains(&part.entries.len()), "{} of 400 KiB", part.entries.len());
            seen.extend(indexes(&part));
            since = part.until;
            if !part.more {
                break;
            }
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
        let huge = AuditEntry { reason: "x".repeat(3 << 20), ..entry(8, None) };
        let alone = super::tests::state([huge, entry(9, None)]);
        assert_eq!(indexes(&news(&alone, at(7), None)), [8]);
    }

    #[test]
    fn many_news_come_in_parts_without_gap_or_overlap() {
        // Two entries a command, and one command that has more of them than a message.
        let pairs = (1..=250u64).flat_map(|index| [entry(index, None), entry(index, None)]);
        let state = state(pairs.chain((0..300).map(|_| entry(251, None))));
        let (mut since, mut seen, mut parts) = (at(0), Vec::new(), 0);
        loop {
            let part = news(&state, since, None);
            seen.extend(indexes(&part));
            (since, parts) = (part.until, parts + 1);
            if !part.more {
                break;
            }
        }
        let all: Vec<u64> = state.audit.iter().map(|entry| entry.index).collect();
        assert_eq!((seen, since.index), (all, 251));
        assert!(parts > 2);
    }

    #[test]
    fn a_position_reads_as_it_is_written_and_nothing_else_does() {
        let position = Position { epoch: 2, index: 77 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "7", "1.", ".1", "1.x", "-1.2", "1.2.3"] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn time_that_passes_is_no_change_and_all_else_is() {
        let vote = Vote { target: "db".into(), held_for_ms: 100, age_ms: 20, ..Vote::default() };
        let into = Replication { expected_loss_ms: Some(120), behind_bytes: Some(16), ..Replication::default() };
        let group = GroupStatus { votes: vec![vote], replication: vec![into], ..GroupStatus::default() };
        let before = GetStatusResponse {
            standing: Some(Standing { as_of_index: 7, at_ms: 5, ..Standing::default() }),
            nodes: vec![NodeStatus { last_report_age_ms: Some(3), ..NodeStatus::default() }],
            groups: vec![group],
            ..GetStatusResponse::default()
        };
        type Change = fn(&mut GetStatusResponse);
        let table: [(Change, bool); 9] = [
            (|s| s.standing.as_mut().unwrap().at_ms = 9, false),
            (|s| s.standing.as_mut().unwrap().as_of_index = 9, false),
            (|s| s.nodes[0].last_report_age_ms = Some(900), false),
            (|s| s.groups[0].votes[0].held_for_ms = 900, false),
            (|s| s.groups[0].replication[0].expected_loss_ms = Some(180), false),
            (|s| s.groups[0].replication[0].expected_loss_ms = None, true),
            (|s| s.groups[0].replication[0].expected_loss_ms = Some(61_000), true),
            (|s| s.groups[0].votes[0].verdict = 3, true),
            (|s| s.standing.as_mut().unwrap().has_quorum = true, true),
        ];
        for (n, (change, is_news)) in table.into_iter().enumerate() {
            let mut after = before.clone();
            change(&mut after);
            assert_eq!(essence(&before) != essence(&after), is_news, "row {n}");
        }
    }
}
