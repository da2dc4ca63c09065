//! Clients of the old primary that never give up on it: what it told them, and when.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::postgres::{DATABASE, Postgres};
use super::wait;

/// Between two questions of one client.
const EVERY: Duration = Duration::from_millis(10);
/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Inserts rows.
    Writes,
    /// Asks for the newest row.
    Reads,
}

/// What a client does, and whether it keeps its connection for as long as that lives or connects for every question.
pub type Manner = (Does, bool);

/// Two writers and a reader that stay, a writer and a reader that come anew.
pub const READERS_TOO: &[Manner] =
    &[(Does::Writes, true), (Does::Writes, true), (Does::Reads, true), (Does::Writes, false), (Does::Reads, false)];
/// A writer that stays, and one that comes anew.
pub const WRITERS: &[Manner] = &[(Does::Writes, true), (Does::Writes, false)];

#[derive(Debug, Clone, Copy)]
struct Who {
    client: usize,
    does: Does,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
struct Answer {
    client: usize,
    at: SystemTime,
    /// When its connection was established.
    opened: SystemTime,
    does: Does,
}

/// All answers so far, and the next row's id.
#[derive(Default)]
struct Log {
    answers: Mutex<Vec<Answer>>,
    /// Downward from -1: the lab's own client counts above 0.
    last_id: AtomicI64,
}

impl Log {
    async fn ask(&self, session: &Client, who: Who, opened: SystemTime) -> Result<(), tokio_postgres::Error> {
        let Who { client, does } = who;
        match does {
            Does::Writes => {
                let id = self.last_id.fetch_sub(1, Ordering::SeqCst) - 1;
                session.execute("insert into rows (id) values ($1)", &[&id]).await.map(drop)?;
            }
            Does::Reads => drop(session.query_one("select max(id) from rows", &[]).await?),
        }
        let answer = Answer { client, at: SystemTime::now(), opened, does };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        Ok(())
    }
}

/// Writers and readers at the old primary's own address, whatever the public name says. Each waits for every answer as long as
/// its connection lives.
pub struct Crowd {
    log: Arc<Log>,
    clients: usize,
    tasks: Vec<JoinHandle<()>>,
}

/// Answers after a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Late {
    /// Rows acknowledged, on connections from before the fault.
    pub rows_old: usize,
    /// Rows acknowledged, on later ones.
    pub rows_new: usize,
    /// Reads answered, on connections from before the fault: each is stale.
    pub reads_old: usize,
    /// Reads answered, on later ones.
    pub reads_new: usize,
}

impl Crowd {
    /// Starts one client for each manner.
    pub fn start(primary: &Postgres, manners: &[Manner]) -> Self {
        let (log, at) = (Arc::<Log>::default(), primary.conninfo("app", DATABASE));
        let tasks = manners.iter().enumerate().map(|(client, (does, stays))| {
            let (log, at, who) = (log.clone(), at.clone(), Who { client, does: *does });
            if *stays { tokio::spawn(stay(log, at, who)) } else { tokio::spawn(come_anew(log, at, who)) }
        });
        let tasks = tasks.collect();
        Self { log, clients: manners.len(), tasks }
    }

    fn answers(&self) -> Vec<Answer> {
        self.log.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rows acknowledged so far.
    pub fn rows(&self) -> usize {
        self.answers().iter().filter(|answer| answer.does == Does::Writes).count()
    }

    /// Waits until every one of them has been answered after `moment`.
    pub async fn all_answered(&self, moment: SystemTime) -> Result<()> {
        wait::until("every client of the old primary to be answered", Duration::from_secs(60), async || {
            let since = self.answers().into_iter().filter(|answer| answer.at > moment);
            let heard: BTreeSet<usize> = since.map(|answer| answer.client).collect();
            ensure!(heard.len() == self.clients, "of {} only {heard:?}", self.clients);
            Ok(())
        })
        .await
    }

    /// Waits until every one of them has been answered, and rows come steadily.
    pub async fn busy(&self) -> Result<()> {
        self.all_answered(SystemTime::UNIX_EPOCH).await?;
        wait::until("rows to come steadily", Duration::from_secs(60), async || {
            ensure!(self.rows() >= 100, "{} rows", self.rows());
            Ok(())
        })
        .await
    }

    /// What was answered after `moment`, on connections from before and from after `fault`.
    pub fn late(&self, moment: SystemTime, fault: SystemTime) -> Late {
        let mut late = Late::default();
        for answer in self.answers().iter().filter(|answer| answer.at > moment) {
            let count = match (answer.does, answer.opened < fault) {
                (Does::Writes, true) => &mut late.rows_old,
                (Does::Writes, false) => &mut late.rows_new,
                (Does::Reads, true) => &mut late.reads_old,
                (Does::Reads, false) => &mut late.reads_new,
            };
            *count += 1;
        }
        late
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Without a time limit: a server that sleeps answers when it wakes.
async fn open(at: &str) -> Option<(Client, SystemTime)> {
    let (session, connection) = tokio_postgres::connect(at, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some((session, SystemTime::now()))
}

/// A lease that lapses for a moment ends its connection: it comes again.
async fn stay(log: Arc<Log>, at: String, who: Who) {
    loop {
        if let Some((session, opened)) = open(&at).await {
            while log.ask(&session, who, opened).await.is_ok() {
                wait::pause(EVERY).await;
            }
        }
        wait::pause(EVERY * 5).await;
    }
}

async fn come_anew(log: Arc<Log>, at: String, who: Who) {
    loop {
        // Several may be on their way at once, so that one that is swallowed does not keep the next from trying.
        let (log, at) = (log.clone(), at.clone());
        let once = async move {
            if let Some((session, opened)) = open(&at).await {
                let _refused = log.ask(&session, who, opened).await;
            }
        };
        let _asked = tokio::time::timeout(Duration::from_secs(1), tokio::spawn(once)).await;
        wait::pause(EVERY * 5).await;
    }
}
