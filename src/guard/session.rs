//! A session with the database's server, kept for the next question. The resident guard asks several times in each TTL, and
//! a `psql` for each question costs a standby's host more than everything else that the guard does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::config::Postgres;
use super::host::{self, boottime_ms};
use super::postgres::{self, CLOSE_LOOK_MS, Seen};

/// A session is not used for longer, milliseconds: `pg_ctl stop -m smart` waits for sessions, and lets no new one in.
const AGE_MS_MAX: u64 = 10_000;

struct Held {
    client: Client,
    since_boottime_ms: u64,
}

/// The session, or none yet. It cannot outlive its server: no other server starts in the data directory while one of the
/// old one's processes is left.
#[derive(Default)]
pub struct Session {
    held: Mutex<Option<Held>>,
}

impl Session {
    /// [`postgres::look_closely`] over this session. Blocks: to be called where a thread of tokio's may.
    pub fn look_closely(&self, pg: &Postgres) -> Seen {
        postgres::look_closely_by(pg, |question| {
            let limit = Duration::from_millis(CLOSE_LOOK_MS);
            let asked = async { tokio::time::timeout(limit, self.ask(pg, question)).await };
            // Not put back by whoever ran out of time: the session ends.
            Handle::current().block_on(asked).unwrap_or_else(|_| Err("the server gave no answer in time".to_owned()))
        })
    }

    async fn ask(&self, pg: &Postgres, question: &str) -> Result<String, String> {
        if let Some(held) = self.take()
            && let Ok(answer) = value(&held.client, question).await
        {
            self.put_back(held);
            return Ok(answer);
        }
        // The server may have been restarted since; and what it answers to a fresh session is what it says.
        let held = open(pg).await?;
        let answer = value(&held.client, question).await?;
        self.put_back(held);
        Ok(answer)
    }

    fn take(&self) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        held.filter(|held| !held.client.is_closed() && boottime_ms() < held.since_boottime_ms + AGE_MS_MAX)
    }

    fn put_back(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }
}

/// One question over a session of its own, on a thread of its own: whoever asks may be in a runtime or not.
///
/// # Errors
/// No server, no answer within `limit_ms`, or what the server said.
pub fn once(pg: &Postgres, question: &str, limit_ms: u64) -> Result<String, String> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let asked = async { value(&open(pg).await?.client, question).await };
        let limit = Duration::from_millis(limit_ms);
        runtime
            .block_on(async { tokio::time::timeout(limit, asked).await })
            .unwrap_or_else(|_| Err(format!("the server gave no answer within {limit_ms} ms")))
    };
    std::thread::scope(|scope| {
        scope.spawn(ask).join().unwrap_or_else(|_| Err("the asking thread ended badly".to_owned()))
    })
}

async fn open(pg: &Postgres) -> Result<Held, String> {
    let socket = pg.socket_dir.join(format!(".s.PGSQL.{}", pg.port));
    let cannot = |why: &dyn std::fmt::Display| format!("cannot connect to {}: {why}", socket.display());
    let user = host::user(&pg.user)?;
    let stream = host::connect_as(&socket, &user).and_then(UnixStream::from_std).map_err(|e| cannot(&e))?;
    let mut config = tokio_postgres::Config::new();
    config.user(&pg.user).dbname("postgres").application_name("watchdog-guard").options("-c statement_timeout=2000");
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(|e| cannot(&in_words(&e)))?;
    // Ends with the client.
    tokio::spawn(connection);
    Ok(Held { client, since_boottime_ms: boottime_ms() })
}

/// The first row's first value.
async fn value(client: &Client, question: &str) -> Result<String, String> {
    let messages = client.simple_query(question).await.map_err(|e| in_words(&e))?;
    let first = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(first.unwrap_or_default().to_owned())
}

fn in_words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| format!("the server says: {}", said.message()))
}
