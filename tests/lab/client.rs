//! The application's client: inserts a row every few milliseconds on one connection, resolves the public name anew for
//! each connection, and remembers every row that was acknowledged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use hickory_proto::rr::RecordType;
use tokio_postgres::{Client as Session, Statement};

use super::postgres::{DATABASE, connect};
use super::{PUBLIC_NAME, dns, wait};

/// An answer that does not come within this is given up: the row's fate is unknown.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for a client that shall measure how soon somebody is served, and not its own time-outs.
const IMPATIENCE: Duration = Duration::from_millis(250);
/// Between two attempts to connect.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// An acknowledged row.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// The row.
    pub id: i64,
    /// When the answer came.
    pub at: SystemTime,
    /// The address that acknowledged it.
    pub by: String,
}

#[derive(Default)]
struct Log {
    acknowledged: Vec<Acknowledged>,
    unknown: BTreeSet<i64>,
    sessions: usize,
    last_error: Option<String>,
}

/// Where the client connects.
#[derive(Debug, Clone)]
pub enum Route {
    /// Through the public name, asked at this name server.
    Name(SocketAddr),
    /// Straight to one of these addresses, the first that takes a write.
    Addresses(Vec<String>),
}

/// The running client.
pub struct Client {
    log: Arc<Mutex<Log>>,
    task: tokio::task::JoinHandle<()>,
}

/// What the client can say at the end.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Balance {
    /// Rows acknowledged in all.
    pub acknowledged: usize,
    /// Of those, not there now.
    pub lost: usize,
    /// Rows whose answer never came.
    pub unknown: usize,
    /// Of those, there now.
    pub unknown_present: usize,
}

impl Client {
    /// Starts inserting, one row each `every`.
    pub fn start(route: Route, port: u16, every: Duration) -> Self {
        Self::start_with(route, port, every, PATIENCE)
    }

    /// As [`Client::start`], and gives a server up that says nothing for a quarter of a second.
    pub fn start_impatient(route: Route, port: u16, every: Duration) -> Self {
        Self::start_with(route, port, every, IMPATIENCE)
    }

    fn start_with(route: Route, port: u16, every: Duration, patience: Duration) -> Self {
        let log = Arc::new(Mutex::new(Log::default()));
        let task = tokio::spawn(write_for_ever(Arc::clone(&log), route, port, every, patience));
        Self { log, task }
    }

    /// Rows acknowledged so far.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.clone()
    }

    /// The newest acknowledged row.
    pub fn newest(&self) -> Option<Acknowledged> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.last().cloned()
    }

    /// How many connections it has had that took rows.
    pub fn sessions(&self) -> usize {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).sessions
    }

    /// Why the last attempt failed.
    pub fn last_error(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).last_error.clone().unwrap_or_default()
    }

    /// The first row that `address` acknowledged, waited for.
    pub async fn first_from(&self, address: &str, within: Duration) -> Result<Acknowledged> {
        wait::until(&format!("a row acknowledged by {address}"), within, async || {
            let found = self.acknowledged().into_iter().find(|row| row.by == address);
            found.with_context(|| format!("the client's last error: {}", self.last_error()))
        })
        .await
    }

    /// Compares what was acknowledged with what is there.
    pub fn balance(&self, present: &[i64]) -> Balance {
        let present: BTreeSet<i64> = present.iter().copied().collect();
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        Balance {
            acknowledged: log.acknowledged.len(),
            lost: log.acknowledged.iter().filter(|row| !present.contains(&row.id)).count(),
            unknown: log.unknown.len(),
            unknown_present: log.unknown.intersection(&present).count(),
        }
    }

    /// Stops it.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn write_for_ever(log: Arc<Mutex<Log>>, route: Route, port: u16, every: Duration, patience: Duration) {
    // Above those of every earlier client.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut next_id = i64::try_from(now.as_micros()).unwrap_or_default();
    loop {
        match open(&route, port, patience).await {
            Ok((session, insert, by)) => {
                log.lock().unwrap_or_else(PoisonError::into_inner).sessions += 1;
                let into = Into { session, insert, by, every, patience };
                write_while_it_works(&log, &into, &mut next_id).await;
            }
            Err(error) => log.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(format!("{error:#}")),
        }
        wait::pause(RETRY_AFTER).await;
    }
}

/// Resolves, connects and prepares; refuses a server that is read-only.
async fn open(route: &Route, port: u16, patience: Duration) -> Result<(Session, Statement, String)> {
    let addresses = match route {
        Route::Name(server) => dns::lookup(*server, PUBLIC_NAME, RecordType::A).await?,
        Route::Addresses(addresses) => addresses.clone(),
    };
    let mut refusal = anyhow::anyhow!("{PUBLIC_NAME} has no address");
    for address in addresses {
        let opening = tokio::time::timeout(patience * 2, open_at(&address, port));
        match opening.await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer"))) {
            Ok((session, insert)) => return Ok((session, insert, address)),
            Err(error) => refusal = error.context(format!("at {address}:{port}")),
        }
    }
    Err(refusal)
}

async fn open_at(address: &str, port: u16) -> Result<(Session, Statement)> {
    let session = connect(&format!("host={address} port={port} user=app dbname={DATABASE}")).await?;
    let asked = session.query_one("select pg_is_in_recovery()", &[]);
    if tokio::time::timeout(PATIENCE, asked).await??.get(0) {
        bail!("it is a standby");
    }
    let insert = session.prepare("insert into rows (id) values ($1)").await?;
    Ok((session, insert))
}

/// Where rows go, and how.
struct Into {
    session: Session,
    insert: Statement,
    by: String,
    every: Duration,
    patience: Duration,
}

async fn write_while_it_works(log: &Mutex<Log>, into: &Into, next_id: &mut i64) {
    let Into { session, insert, by, every, patience } = into;
    let (every, patience) = (*every, *patience);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let id = *next_id;
        *next_id += 1;
        let answer = tokio::time::timeout(patience, session.execute(insert, &[&id])).await;
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(Ok(_)) => {
                log.acknowledged.push(Acknowledged { id, at: SystemTime::now(), by: by.clone() });
            }
            Ok(Err(error)) => {
                log.unknown.insert(id);
                log.last_error = Some(format!("insert at {by}: {error}"));
                return;
            }
            Err(_) => {
                log.unknown.insert(id);
                log.last_error = Some(format!("insert at {by}: no answer within {patience:?}"));
                return;
            }
        }
    }
}
