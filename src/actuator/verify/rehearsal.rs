//! What a drill looks at, and what it measures a loss by: rows that were acknowledged before a move, counted after it. The
//! table is the drills' own; a marker row harms nobody, and is there once however often it is written.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::database::{connect, name_of, words};
use super::http;
use crate::domain::drill::CheckKind;
use crate::domain::plan::DatabaseEndpoint;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS watchdog_drill_marker (drill text NOT NULL, n bigint NOT NULL, \
    at timestamptz NOT NULL DEFAULT now(), lsn pg_lsn, PRIMARY KEY (drill, n)); \
    ALTER TABLE watchdog_drill_marker ADD COLUMN IF NOT EXISTS lsn pg_lsn";
/// Rows of drills that nobody compares with any more.
const FORGET: &str = "DELETE FROM watchdog_drill_marker WHERE at < now() - interval '400 days'";
/// Each row knows how far the log had come before it.
const INSERT: &str = "INSERT INTO watchdog_drill_marker (drill, n, lsn) VALUES ($1, $2, pg_current_wal_insert_lsn()) \
    ON CONFLICT DO NOTHING";

/// Marker rows that the primary acknowledged, and its position in its log after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    /// Rows.
    pub rows: u64,
    /// Position.
    pub lsn: u64,
}

/// Writes `rows` marker rows, each in a transaction of its own, so that each was acknowledged.
///
/// # Errors
/// What the database said; then none of them counts.
pub async fn mark(database: &DatabaseEndpoint, drill: &str, rows: u64, until: Instant) -> Result<Marked, String> {
    within(database, until, async {
        let client = open(database, until).await?;
        client.batch_execute(TABLE).await.map_err(|e| words(&e))?;
        client.batch_execute(FORGET).await.map_err(|e| words(&e))?;
        for n in 0..i64::try_from(rows).unwrap_or(i64::MAX) {
            client.execute(INSERT, &[&drill, &n]).await.map_err(|e| words(&e))?;
        }
        let row =
            client.query_one("SELECT (pg_current_wal_lsn() - '0/0')::bigint", &[]).await.map_err(|e| words(&e))?;
        let lsn = row.try_get::<_, i64>(0).map_err(|e| words(&e))?;
        Ok(Marked { rows, lsn: u64::try_from(lsn).unwrap_or(0) })
    })
    .await
}

/// What is there of the marker rows after a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Rows.
    pub rows: u64,
    /// The old primary's log is there up to this position at least: where the newest of the rows was written.
    pub lsn: Option<u64>,
}

/// How many of the drill's marker rows are there.
///
/// # Errors
/// What the database said.
pub async fn count(database: &DatabaseEndpoint, drill: &str, until: Instant) -> Result<Kept, String> {
    within(database, until, async {
        let client = open(database, until).await?;
        let counting = "SELECT count(*), (max(lsn) - '0/0')::bigint FROM watchdog_drill_marker WHERE drill = $1";
        let row = client.query_one(counting, &[&drill]).await.map_err(|e| words(&e))?;
        let rows = row.try_get::<_, i64>(0).map_err(|e| words(&e))?;
        let lsn = row.try_get::<_, Option<i64>>(1).map_err(|e| words(&e))?;
        Ok(Kept { rows: u64::try_from(rows).unwrap_or(0), lsn: lsn.and_then(|lsn| u64::try_from(lsn).ok()) })
    })
    .await
}

/// Looks once: `Ok` with what was found where it is as it should be.
///
/// # Errors
/// What is not.
pub async fn examine(check: &CheckKind, until: Instant) -> Result<String, String> {
    match check {
        CheckKind::Http { url, expect_status, connect_to, resolve_at } => {
            let by = http::By { connect_to: connect_to.as_deref(), resolve_at: resolve_at.as_deref() };
            let looking = http::get(url, *expect_status, by, until);
            timeout_at(until, looking).await.map_err(|_| "no answer in time".to_owned())?
        }
        CheckKind::Sql { database, query, expect } => {
            within(database, until, ask(database, query, expect.as_deref(), until)).await
        }
    }
}

async fn ask(database: &DatabaseEndpoint, query: &str, expect: Option<&str>, until: Instant) -> Result<String, String> {
    let client = open(database, until).await?;
    client.batch_execute("BEGIN TRANSACTION READ ONLY").await.map_err(|e| words(&e))?;
    // It is not committed: the connection ends with the answer.
    let answer = client.simple_query(query).await.map_err(|e| words(&e))?;
    let first = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) if !row.is_empty() => Some(row.get(0).unwrap_or("null").to_owned()),
        _ => None,
    });
    match (first, expect) {
        (None, _) => Err("it answers no row".to_owned()),
        (Some(found), Some(wanted)) if found != wanted => Err(format!("it answers {found:?}, not {wanted:?}")),
        (Some(found), _) => Ok(format!("it answers {found:?}")),
    }
}

/// A statement left behind by a dropped connection shall not hold its locks for longer than we would have waited.
async fn open(database: &DatabaseEndpoint, until: Instant) -> Result<Client, String> {
    let client = connect(database).await?;
    let limit_ms = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)).as_millis();
    client.batch_execute(&format!("SET statement_timeout = {limit_ms}")).await.map_err(|e| words(&e))?;
    Ok(client)
}

async fn within<T>(
    database: &DatabaseEndpoint,
    until: Instant,
    doing: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match timeout_at(until, doing).await {
        Ok(done) => done.map_err(|why| format!("{}: {why}", name_of(database))),
        Err(_) => Err(format!("{}: no answer in time", name_of(database))),
    }
}
