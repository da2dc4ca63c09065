//! Whether a standby has all that its stopped primary ever acknowledged, by what both guards show. Changes nothing, raises nothing.
//!
//! The old primary was shut down in an orderly way, so its log ends with the record of the shutdown checkpoint, whose begin its control
//! file names. A standby of the same database cluster and timeline that has replayed beyond that begin has replayed the record itself,
//! since a replayed position is always the end of one; so it has everything before it too. What it has received is not asked: after a
//! standby's restart that says nothing (`guard::wal` tells what was measured).

use tokio::time::Instant;

use super::guarded::GuardedActuator;
use super::shown::Shown;
use crate::domain::attempt::{Outcome, ReadBack, Warrant};
use crate::domain::ids::{HostName, Token};
use crate::domain::plan::GuardEndpoint;
use crate::guard::protocol::{GroupStatus, PostgresRole, Status, WalRunning, WalShown, WalState};

/// What both guards show together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caught {
    /// It has everything.
    Up(String),
    /// Something is missing still.
    NotYet(String),
    /// It cannot become so by waiting.
    Never(String),
    /// Cannot be told now.
    CannotTell(String),
    /// A later token was raised at one of them.
    Outrun(Token),
}

impl Caught {
    pub(super) fn into_outcome(self) -> Outcome {
        match self {
            Caught::Up(evidence) => Outcome::Done { evidence },
            Caught::NotYet(reason) | Caught::CannotTell(reason) => Outcome::Failed { retryable: true, reason },
            Caught::Never(reason) => Outcome::Failed { retryable: false, reason },
            Caught::Outrun(held) => Outcome::Refused { held },
        }
    }

    pub(super) fn into_read_back(self) -> ReadBack {
        match self {
            Caught::Up(evidence) => ReadBack::Done { evidence },
            Caught::NotYet(evidence) | Caught::Never(evidence) => ReadBack::NotDone { evidence },
            Caught::CannotTell(reason) => ReadBack::Unknown { reason },
            Caught::Outrun(held) => ReadBack::Refused { held },
        }
    }
}

impl GuardedActuator {
    /// Asks both guards, side by side. Nothing is begun by it: who does not answer is asked again.
    pub(super) async fn catch_up(
        &self,
        warrant: &Warrant,
        (from, to): (&GuardEndpoint, &GuardEndpoint),
        deadline: Instant,
    ) -> Caught {
        let asked = (self.group_shown(warrant, from, deadline), self.group_shown(warrant, to, deadline));
        let (from_shows, to_shows) = tokio::join!(asked.0, asked.1);
        match (from_shows, to_shows) {
            (Ok(old), Ok(new)) => judge((&from.host, &old), (&to.host, &new), Some(warrant.token)),
            (Err(why), Ok(_)) | (Ok(_), Err(why)) => Caught::CannotTell(why),
            (Err(why), Err(more)) => Caught::CannotTell(format!("{why}; {more}")),
        }
    }
}

/// For a dry run: what both statuses show, as far as the same group is in both.
pub(super) fn present(
    (from, from_shows): (&GuardEndpoint, Result<Status, String>),
    (to, to_shows): (&GuardEndpoint, Result<Status, String>),
) -> ReadBack {
    let shown = |endpoint: &GuardEndpoint, status: Result<Status, String>| {
        let status = status?;
        let group = status.postgres.as_ref().map(|postgres| postgres.group.clone());
        let none = || format!("guard of host {} shows no database: configure it there", endpoint.host);
        Shown::of(&group.ok_or_else(none)?, endpoint, status)
    };
    match (shown(from, from_shows), shown(to, to_shows)) {
        (Ok(old), Ok(new)) => judge((&from.host, &old), (&to.host, &new), None).into_read_back(),
        (Err(reason), _) | (_, Err(reason)) => ReadBack::Unknown { reason },
    }
}

/// Judges what the old primary's host and the standby's show. `token`: whose run asks; `None` for a dry run, where the old primary may
/// still run.
pub(super) fn judge(from: (&HostName, &Shown), to: (&HostName, &Shown), token: Option<Token>) -> Caught {
    let held = [from, to].into_iter().filter_map(|(_, shown)| shown.group.token).max();
    if let (Some(held), Some(token)) = (held, token)
        && held > token
    {
        return Caught::Outrun(held);
    }
    let stopped = match end_of(from) {
        Ok(wal) => wal,
        Err(caught) => return caught,
    };
    let (host, shown) = to;
    let (role, seen_by) = (shown.role, &shown.seen_by);
    match role {
        PostgresRole::InRecovery => {}
        PostgresRole::Writable => return Caught::Never(format!("{host}: server writable ({seen_by}): no standby")),
        PostgresRole::Stopped => return Caught::NotYet(format!("{host}: server stopped ({seen_by}): start it there")),
        PostgresRole::Unknown => return Caught::CannotTell(format!("{host}: server unknown ({seen_by})")),
    }
    let Some(wal) = &shown.wal else { return Caught::CannotTell(untold(host)) };
    if wal.system_identifier != stopped.system_identifier {
        let (there, here) = (wal.system_identifier, stopped.system_identifier);
        return Caught::Never(format!(
            "{host}: system identifier {there}, but {} has {here}: another database",
            from.0
        ));
    }
    let (running, replayed) = match (&wal.running, &wal.unread) {
        (Some(running @ WalRunning { replayed_lsn: Some(replayed), .. }), _) => (running, *replayed),
        (_, Some(why)) => return Caught::CannotTell(format!("{host}: its server could not be asked: {why}")),
        _ => return Caught::CannotTell(format!("{host}: its server has replayed nothing yet")),
    };
    let (end, timeline) = (stopped.checkpoint_lsn, stopped.timeline);
    if replayed <= end {
        let receives = if running.streams { "its receiver streams" } else { "its receiver does not stream" };
        let received = running.received_lsn.map_or_else(|| "nothing".to_owned(), |lsn| lsn.to_string());
        let missing = end.0 - replayed.0;
        return Caught::NotYet(format!(
            "{host}: replayed {replayed}, received {received} ({receives}); {} ends with the checkpoint at {end}: {missing} bytes and \
             that record are missing",
            from.0
        ));
    }
    match running.timeline {
        None => Caught::CannotTell(format!(
            "{host}: the timeline of {replayed} cannot be told: its segment is not in pg_wal"
        )),
        Some(other) if other != timeline => Caught::Never(format!(
            "{host}: replayed {replayed} on timeline {other}, but {} ended on timeline {timeline}: their ways had parted",
            from.0
        )),
        Some(_) => Caught::Up(format!(
            "{}: shut down, its log ends with the checkpoint at {end} on timeline {timeline}; {host}: replayed {replayed}",
            from.0
        )),
    }
}

fn untold(host: &HostName) -> String {
    format!("{host}: its guard does not tell where the log stands: install this version there")
}

/// The old primary's log, ended.
fn end_of((host, shown): (&HostName, &Shown)) -> Result<WalShown, Caught> {
    let (role, seen_by) = (shown.role, &shown.seen_by);
    match role {
        PostgresRole::Stopped => {}
        PostgresRole::Unknown => return Err(Caught::CannotTell(format!("{host}: server unknown ({seen_by})"))),
        PostgresRole::InRecovery | PostgresRole::Writable => {
            return Err(Caught::NotYet(format!("{host}: server {role} ({seen_by}): it must be stopped first")));
        }
    }
    if let GroupStatus { latch: None, .. } = &shown.group {
        return Err(Caught::NotYet(format!("{host}: server stopped, but not latched: it could start again")));
    }
    let wal = shown.wal.clone().ok_or_else(|| Caught::CannotTell(untold(host)))?;
    match wal.state {
        WalState::ShutDown => Ok(wal),
        state => Err(Caught::Never(format!(
            "{host}: pg_control says {state}, not shut down: it did not end in an orderly way, and what it wrote last may be missing \
             elsewhere"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::UnixMs;
    use crate::guard::protocol::{LatchMark, Lsn};

    fn token(n: u64) -> Token {
        Token { epoch: 1, n }
    }

    fn old() -> Shown {
        let latch = LatchMark { token: token(5), run: "r".into(), step: "fence".into(), at: UnixMs(0) };
        Shown {
            role: PostgresRole::Stopped,
            seen_by: "looked".to_owned(),
            group: GroupStatus {
                group: "a".into(),
                token: Some(token(5)),
                epoch: Some(1),
                latch: Some(latch),
                in_flight: None,
                hold: None,
                last: Vec::new(),
                fault: None,
            },
            wal: Some(WalShown {
                state: WalState::ShutDown,
                system_identifier: 7,
                timeline: 2,
                checkpoint_lsn: Lsn(0x363_7180),
                running: None,
                unread: None,
            }),
        }
    }

    fn standby() -> Shown {
        let mut shown = old();
        (shown.role, shown.group.latch) = (PostgresRole::InRecovery, None);
        shown.wal = Some(WalShown {
            state: WalState::InArchiveRecovery,
            system_identifier: 7,
            // As long as no restart point was made.
            timeline: 1,
            checkpoint_lsn: Lsn(0x300_0000),
            running: Some(WalRunning {
                received_lsn: Some(Lsn(0x300_0000)),
                replayed_lsn: Some(Lsn(0x363_71F8)),
                current_lsn: None,
                timeline: Some(2),
                streams: false,
            }),
            unread: None,
        });
        shown
    }

    fn running(shown: &mut Shown) -> &mut WalRunning {
        shown.wal.as_mut().and_then(|wal| wal.running.as_mut()).expect("it runs")
    }

    #[test]
    fn only_a_standby_that_replayed_the_shutdown_checkpoint_has_everything() {
        type Change = fn(&mut Shown, &mut Shown);
        let table: [(Change, &str, &str); 16] = [
            (|_, _| {}, "up", "checkpoint at 0/3637180 on timeline 2; db-b: replayed 0/36371F8"),
            (
                |_, to| running(to).replayed_lsn = Some(Lsn(0x363_7180)),
                "not yet",
                "0 bytes and that record are missing",
            ),
            (|_, to| running(to).replayed_lsn = Some(Lsn(0x363_7080)), "not yet", "256 bytes"),
            (|_, to| running(to).replayed_lsn = None, "cannot tell", "replayed nothing"),
            (|_, to| running(to).timeline = Some(1), "never", "parted"),
            (|_, to| running(to).timeline = None, "cannot tell", "timeline of 0/36371F8 cannot be told"),
            (|_, to| to.role = PostgresRole::Writable, "never", "no standby"),
            (|_, to| to.role = PostgresRole::Stopped, "not yet", "start it"),
            (|_, to| to.role = PostgresRole::Unknown, "cannot tell", "unknown"),
            (|_, to| to.wal = None, "cannot tell", "install this version"),
            (|from, _| from.wal = None, "cannot tell", "install this version"),
            (|from, _| from.group.latch = None, "not yet", "not latched"),
            (|from, _| from.role = PostgresRole::Writable, "not yet", "stopped first"),
            (|from, _| from.role = PostgresRole::Unknown, "cannot tell", "unknown"),
            (|from, _| from.group.token = Some(token(6)), "outrun", "1.6"),
            (|_, to| to.group.token = Some(token(7)), "outrun", "1.7"),
        ];
        for (change, wanted, words) in table {
            let (mut from, mut to) = (old(), standby());
            change(&mut from, &mut to);
            assert_caught(&from, &to, wanted, words);
        }
        for state in [WalState::InProduction, WalState::ShuttingDown, WalState::ShutDownInRecovery] {
            let (mut from, to) = (old(), standby());
            from.wal.as_mut().expect("shown").state = state;
            assert_caught(&from, &to, "never", &state.to_string());
        }
        let (mut from, mut to) = (old(), standby());
        from.wal.as_mut().expect("shown").system_identifier = 8;
        assert_caught(&from, &to, "never", "another database");
        let wal = to.wal.as_mut().expect("shown");
        (wal.running, wal.unread) = (None, Some("no answer".to_owned()));
        assert_caught(&old(), &to, "cannot tell", "no answer");
    }

    fn assert_caught(from: &Shown, to: &Shown, wanted: &str, words: &str) {
        let (a, b) = ("db-a".into(), "db-b".into());
        let (kind, said) = match judge((&a, from), (&b, to), Some(token(5))) {
            Caught::Up(said) => ("up", said),
            Caught::NotYet(said) => ("not yet", said),
            Caught::Never(said) => ("never", said),
            Caught::CannotTell(said) => ("cannot tell", said),
            Caught::Outrun(held) => ("outrun", held.to_string()),
        };
        assert_eq!(kind, wanted, "{said}");
        assert!(said.contains(words), "{said} / {words}");
    }
}
