//! PostgreSQL: it answers, in the role expected, and where asked it can still write.
//!
//! A connection is kept: a look costs one round trip, a death is seen when the connection closes, and a server out of
//! connections goes on being seen. Every [`RENEW_AFTER`]th look opens a new one, since a server can serve old
//! connections while it takes no new ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::error::SqlState;

use super::postgres_link::{Held, Link, column, parse_bool, parse_lsn, remaining};
use super::{Endpoint, Probe, ProbeError, Role};
use crate::domain::observation::{Failure, FailureKind, Measure};

/// A connection is used for this many looks.
const RENEW_AFTER: u32 = 20;

const LOOK: &str = "SELECT r AS in_recovery, \
    CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn, \
    CASE WHEN r THEN lpad(to_hex((SELECT timeline_id FROM pg_control_checkpoint())), 8, '0') \
    ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline \
    FROM pg_is_in_recovery() AS r";

/// Asks a server for its role and position, and lets it write.
pub struct PostgresProbe {
    link: Link,
    expect_role: Role,
    canary: Option<Canary>,
    timeout_ms: u64,
    looks: AtomicU32,
}

struct Canary {
    write: String,
}

impl Canary {
    const CREATE: &str =
        "CREATE TABLE IF NOT EXISTS watchdog_canary (who text PRIMARY KEY, written_at timestamptz NOT NULL)";

    /// One row per writer, overwritten, so that the table stays small and nobody waits for another's row.
    fn new(who: &str) -> Self {
        let who = who.replace('\0', "").replace('\'', "''");
        let write = format!(
            "INSERT INTO watchdog_canary (who, written_at) VALUES ('{who}', clock_timestamp()) \
             ON CONFLICT (who) DO UPDATE SET written_at = excluded.written_at"
        );
        Self { write }
    }
}

impl PostgresProbe {
    /// `canary` is who writes (node and target), where it shall write.
    ///
    /// # Errors
    /// A connection string that cannot be read, or a file that is missing.
    pub fn new(
        database: &Endpoint,
        timeout_ms: u64,
        expect_role: Role,
        canary: Option<&str>,
    ) -> Result<Self, ProbeError> {
        Ok(Self {
            timeout_ms,
            link: Link::new(database, timeout_ms)?,
            expect_role,
            canary: canary.map(Canary::new),
            looks: AtomicU32::new(0),
        })
    }

    async fn read(&self) -> Result<(Held, SimpleQueryRow), Failure> {
        let renew = self.looks.fetch_add(1, Ordering::Relaxed) % RENEW_AFTER == RENEW_AFTER - 1;
        let held = if renew { self.link.take() } else { None };
        let Some(held) = held else { return self.link.read(LOOK).await };
        match self.link.read_anew(LOOK).await {
            // No free connection now: the one we have still tells.
            Err(failure) if failure.kind == FailureKind::Unusable => {
                self.link.put_back(held);
                self.link.read(LOOK).await
            }
            // A failed renewal closes the old one too, or the next look would be good again.
            other => other,
        }
    }

    fn check(&self, row: &SimpleQueryRow) -> Result<Measure, Failure> {
        let link = &self.link;
        let in_recovery = column(link, row, "in_recovery", parse_bool)?
            .ok_or_else(|| link.failure(FailureKind::WrongAnswer, "in_recovery is NULL"))?;
        let lsn = column(link, row, "lsn", parse_lsn)?;
        let timeline = column(link, row, "timeline", |text| u32::from_str_radix(text, 16).ok())?;
        let wrong = match self.expect_role {
            Role::Primary => in_recovery.then_some("it is a standby (in recovery), expected the primary"),
            Role::Standby => (!in_recovery).then_some("it is a primary (not in recovery), expected a standby"),
            Role::Any => None,
        };
        match wrong {
            Some(what) => Err(link.failure(FailureKind::WrongAnswer, what)),
            None => Ok(Measure::Postgres { in_recovery, lsn, timeline }),
        }
    }

    async fn write(&self, held: &Held, canary: &Canary) -> Result<(), Failure> {
        match self.link.execute(held, &canary.write).await {
            Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                self.link.execute(held, Canary::CREATE).await.map_err(|e| self.write_failed(&e))?;
                self.link.execute(held, &canary.write).await.map_err(|e| self.write_failed(&e))
            }
            other => other.map_err(|e| self.write_failed(&e)),
        }
    }

    /// It has just answered a question: what a write runs into makes it unusable, not absent.
    fn write_failed(&self, error: &tokio_postgres::Error) -> Failure {
        let mut failure = self.link.failed(error);
        if failure.kind == FailureKind::TimedOut {
            failure.kind = FailureKind::Unusable;
        }
        failure.detail = format!("write canary: {}", failure.detail);
        if failure.kind == FailureKind::OurFault {
            failure.detail.push_str("; let the probe's user create or write the table watchdog_canary");
        }
        failure
    }
}

#[async_trait]
impl Probe for PostgresProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let started = Instant::now();
        let (held, row) = self.read().await?;
        let measure = match self.check(&row) {
            Ok(measure) => measure,
            Err(failure) => {
                self.link.put_back(held);
                return Err(failure);
            }
        };
        if let (Some(canary), Measure::Postgres { in_recovery: false, .. }) = (&self.canary, &measure) {
            match timeout(remaining(self.timeout_ms, started), self.write(&held, canary)).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    self.link.put_back(held);
                    return Err(failure);
                }
                Err(_) => {
                    let what = format!("write canary: no answer within the {} ms a look may take", self.timeout_ms);
                    return Err(self.link.failure(FailureKind::Unusable, what));
                }
            }
        }
        self.link.put_back(held);
        Ok(Some(measure))
    }

    fn nudge(&self) -> Option<Arc<Notify>> {
        Some(self.link.closed())
    }
}
