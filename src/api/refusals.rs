//! Calls that were refused before anything was proposed for them, on their way into the replicated audit (P10).
//!
//! Whoever is refused may try again for ever, and must not fill the audit with it: the same refusal again within a minute is
//! counted, a minute has room for so many different ones, and what waits is bounded. What finds no room is counted too, and
//! each refusal is in the node's own log whatever becomes of it here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::access::{ACCESS, Need};
use super::details;
use super::origin::Call;
use crate::clock::{unique_id, unix_now};
use crate::domain::command::{Change, Command};
use crate::domain::identity::Role;
use crate::domain::ids::{GroupName, NodeId, NodeName, Principal, RequestId};

/// Trailer: the refusal is in the audit, or on its way there; nobody else need say so.
pub const RECORDED: &str = "watchdog-recorded";

/// At most so many are handed on at once.
pub const NOTES_MAX: usize = 32;

/// The same refusal again within this is counted.
const SPAN: Duration = Duration::from_secs(60);
/// Different ones that a span has room for.
const KINDS_MAX: usize = 20;
/// Of these, of one caller: whoever is refused everywhere, with a certificate or without, must not crowd out others.
const KINDS_OF_ONE_MAX: usize = 6;
/// Entries that wait for a leader.
const WAITING_MAX: usize = 64;
/// Of a text, characters.
const TEXT_CHARS: usize = 500;

/// A refused call.
pub(super) struct Refused<'a> {
    /// Who called; for the audit.
    pub(super) by: Principal,
    /// Whose repeated calls are one: an identity, or an address.
    pub(super) who: String,
    /// What is known of the call.
    pub(super) call: &'a Call,
    /// `/package.Service/Method`.
    pub(super) path: &'a str,
    /// Why.
    pub(super) status: &'a Status,
}

/// Who, which method, which code.
type Kind = (String, String, i32);

/// What one span has seen.
struct Span {
    ends: Instant,
    /// The first of each kind, and how many more there were.
    kinds: BTreeMap<Kind, (Command, u64)>,
}

#[derive(Default)]
struct Book {
    waiting: VecDeque<Command>,
    span: Option<Span>,
    /// Refusals that found no room.
    lost: u64,
}

/// A node's refusals.
pub struct Refusals {
    node: NodeId,
    name: NodeName,
    book: Mutex<Book>,
    wake: Notify,
}

/// Whether a refusal goes into the audit. A question that cannot be answered does not, unless it was not theirs to ask;
/// nor does what only the nodes say to one another.
pub(super) fn is_told(path: &str, code: Code) -> bool {
    match code {
        Code::PermissionDenied | Code::Unauthenticated => true,
        // No method: somebody tries what there might be.
        Code::Unimplemented => !ACCESS.iter().any(|row| row.path == path),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::ResourceExhausted => {
            let changes = |need| matches!(need, Need::Person(role) if role > Role::Viewer);
            ACCESS.iter().any(|row| row.path == path && changes(row.need))
        }
        // Nothing was judged: no leader, no quorum, no answer.
        _ => false,
    }
}

/// Texts of other people, for the audit and for terminals.
fn cut(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() { '·' } else { c });
    let mut short: String = shown.take(TEXT_CHARS).collect();
    if text.chars().nth(TEXT_CHARS).is_some() {
        short.push('…');
    }
    short
}

impl Refusals {
    /// Of that node.
    pub fn new(node: NodeId, name: NodeName) -> Arc<Self> {
        Arc::new(Self { node, name, book: Mutex::default(), wake: Notify::new() })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub(super) fn add(&self, refused: &Refused<'_>) {
        let known = ACCESS.iter().any(|row| row.path == refused.path);
        let method = if known { refused.path.rsplit('/').next().unwrap_or_default() } else { "an unknown method" };
        let kind = (refused.who.clone(), method.to_owned(), i32::from(refused.status.code()));
        let mut book = self.book();
        self.turn(&mut book);
        let span = book.span.get_or_insert_with(|| Span { ends: Instant::now() + SPAN, kinds: BTreeMap::new() });
        if let Some((_, more)) = span.kinds.get_mut(&kind) {
            *more += 1;
            return;
        }
        let of_one = span.kinds.keys().filter(|(who, _, _)| *who == refused.who).count();
        if span.kinds.len() >= KINDS_MAX || of_one >= KINDS_OF_ONE_MAX {
            book.lost += 1;
            return;
        }
        let said = refused.call.said();
        let why = if said.reason.is_empty() { String::new() } else { format!(": {}", cut(&said.reason)) };
        let outcome = format!("refused ({}): {}", details::reason(refused.status), cut(refused.status.message()));
        let from = refused.call.from().map(str::to_owned);
        let command = self.note(refused.by.clone(), from, said.group, format!("refused {method}{why}"), outcome);
        span.kinds.insert(kind, (command.clone(), 0));
        Self::wait(&mut book, command);
        drop(book);
        self.wake.notify_one();
    }

    fn note(
        &self,
        by: Principal,
        from: Option<String>,
        group: Option<GroupName>,
        what: String,
        outcome: String,
    ) -> Command {
        let at = unix_now();
        let change = Change::Note { group, what, outcome };
        Command { node: self.node, at, by, from, request_id: Some(RequestId(unique_id(at))), change }
    }

    fn wait(book: &mut Book, command: Command) {
        if book.waiting.len() < WAITING_MAX {
            book.waiting.push_back(command);
        } else {
            book.lost += 1;
        }
    }

    /// Where a span is over: what it counted.
    fn turn(&self, book: &mut Book) {
        if book.span.as_ref().is_none_or(|span| Instant::now() < span.ends) {
            return;
        }
        let kinds = book.span.take().map(|span| span.kinds).unwrap_or_default();
        for ((_, method, _), (first, more)) in kinds {
            if more == 0 {
                continue;
            }
            let Change::Note { group, outcome, .. } = first.change else { continue };
            let what = format!("refused {method} {more} times more within {} s", SPAN.as_secs());
            Self::wait(book, self.note(first.by, first.from, group, what, outcome));
        }
        let lost = std::mem::take(&mut book.lost);
        if lost > 0 && book.waiting.len() < WAITING_MAX {
            let by = Principal(format!("node:{}", self.name));
            let what = format!("refused {lost} calls more, not recorded");
            let outcome = format!("refused: they are in {}'s own log", self.name);
            Self::wait(book, self.note(by, None, None, what, outcome));
        } else {
            book.lost += lost;
        }
    }

    /// Waits for entries to write, at most [`NOTES_MAX`].
    pub async fn next(&self) -> Vec<Command> {
        loop {
            let woken = self.wake.notified();
            let ends = {
                let mut book = self.book();
                self.turn(&mut book);
                if !book.waiting.is_empty() {
                    let count = book.waiting.len().min(NOTES_MAX);
                    return book.waiting.drain(..count).collect();
                }
                book.span.as_ref().map(|span| span.ends)
            };
            match ends {
                // Woken or over: looked at again either way.
                Some(ends) => drop(timeout_at(ends, woken).await),
                None => woken.await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: &str = "/watchdog.v1.Admin/Pause";

    fn refuse(refusals: &Refusals, who: &str, path: &str, code: Code) {
        let status = Status::new(code, "no\nway");
        let call = Call::default();
        refusals.add(&Refused { by: who.into(), who: who.to_owned(), call: &call, path, status: &status });
    }

    fn words(commands: &[Command]) -> Vec<String> {
        let what = |command: &Command| match &command.change {
            Change::Note { what, .. } => format!("{} {what}", command.by),
            other => panic!("{other:?}"),
        };
        commands.iter().map(what).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn p10_the_same_refusal_is_entered_once_and_counted() {
        let refusals = Refusals::new(NodeId(1), "hcmc-1".into());
        for _ in 0..1000 {
            refuse(&refusals, "user:vy", PAUSE, Code::PermissionDenied);
        }
        refuse(&refusals, "user:vy", PAUSE, Code::InvalidArgument);
        let first = refusals.next().await;
        assert_eq!(words(&first), ["user:vy refused Pause", "user:vy refused Pause"]);
        let Change::Note { outcome, .. } = &first[0].change else { panic!("a note") };
        assert_eq!(outcome, "refused (internal): no·way");
        assert_eq!(words(&refusals.next().await), ["user:vy refused Pause 999 times more within 60 s"]);
        refuse(&refusals, "user:vy", PAUSE, Code::PermissionDenied);
        assert_eq!(words(&refusals.next().await), ["user:vy refused Pause"], "another minute");
    }

    #[tokio::test(start_paused = true)]
    async fn p10_a_flood_of_different_ones_is_bounded_and_the_rest_is_counted() {
        let refusals = Refusals::new(NodeId(1), "hcmc-1".into());
        for n in 0..10_000 {
            refuse(&refusals, &format!("user:u{n}"), &format!("/x/{n}"), Code::Unimplemented);
        }
        let mut told = Vec::new();
        while told.len() < KINDS_MAX + 1 {
            told.extend(words(&refusals.next().await));
        }
        assert_eq!(told[0], "user:u0 refused an unknown method");
        assert_eq!(told[KINDS_MAX], "node:hcmc-1 refused 9980 calls more, not recorded");
        // Nobody takes them: what waits is bounded, and the rest still counted.
        for n in 0..600 {
            for who in 0..KINDS_MAX {
                refuse(&refusals, &format!("user:{who}"), PAUSE, Code::PermissionDenied);
            }
            if n % 6 == 0 {
                tokio::time::advance(SPAN).await;
            }
        }
        assert!(refusals.book().waiting.len() <= WAITING_MAX && refusals.book().lost > 0);
    }

    #[test]
    fn what_is_told_and_what_is_not() {
        for (path, code, wanted) in [
            (PAUSE, Code::PermissionDenied, true),
            (PAUSE, Code::InvalidArgument, true),
            (PAUSE, Code::NotFound, true),
            (PAUSE, Code::FailedPrecondition, true),
            (PAUSE, Code::Unavailable, false),
            (PAUSE, Code::DeadlineExceeded, false),
            ("/watchdog.v1.Admin/Failover", Code::Aborted, true),
            ("/watchdog.v1.Admin/GetRun", Code::NotFound, false),
            ("/watchdog.v1.Admin/GetRun", Code::PermissionDenied, true),
            ("/watchdog.v1.Admin/ListAudit", Code::InvalidArgument, false),
            ("/watchdog.v1.Admin/ListAudit", Code::Unauthenticated, true),
            ("/watchdog.v1.Peer/Append", Code::PermissionDenied, true),
            ("/watchdog.v1.Peer/Append", Code::FailedPrecondition, false),
            ("/watchdog.v1.Admin/Nothing", Code::Unimplemented, true),
        ] {
            assert_eq!(is_told(path, code), wanted, "{path} {code:?}");
        }
    }
}
