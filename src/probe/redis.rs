//! Redis: it answers, in the role expected, and how far a replica is behind its primary.
//!
//! The two servers are asked side by side, and the primary may fail: what was last known of it is kept and grows old, as
//! long as both share one history. Its failure is no failure of the replica.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use super::postgres_link::remaining;
use super::{Probe, Role as Expected, failure};
use crate::clock;
use crate::domain::observation::{Failure, FailureKind, Measure, RedisMeasure};
use crate::domain::plan::RedisEndpoint;
use crate::redis::{Connection, Role, Shown, Trouble};

/// Asks a server, and its primary where one is named.
pub struct RedisProbe {
    server: Link,
    primary: Option<Link>,
    expect_role: Expected,
    timeout_ms: u64,
    known: Mutex<Option<Known>>,
}

/// What outlives the primary.
struct Known {
    history: String,
    offset: u64,
    asked_ms: u64,
}

/// A connection that is kept. A look takes it out and puts it back only when all went well.
struct Link {
    server: RedisEndpoint,
    held: Mutex<Option<Connection>>,
}

impl Link {
    fn new(server: RedisEndpoint) -> Self {
        Self { server, held: Mutex::new(None) }
    }

    async fn look(&self) -> Result<Shown, Trouble> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match held {
            Some(connection) => connection,
            None => Connection::open(&self.server).await?,
        };
        let shown = connection.look().await?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(shown)
    }
}

impl RedisProbe {
    /// Looks at `server`, and at the `primary` that it is to follow.
    pub fn new(server: RedisEndpoint, primary: Option<RedisEndpoint>, expect_role: Expected, timeout_ms: u64) -> Self {
        let (server, primary) = (Link::new(server), primary.map(Link::new));
        Self { server, primary, expect_role, timeout_ms, known: Mutex::new(None) }
    }

    /// The primary's position, where it can be had, in a shorter time than the look as a whole.
    async fn read_primary(&self, started: Instant) {
        let Some(primary) = &self.primary else { return };
        let asked_ms = clock::boot_ms();
        let Ok(Ok(shown)) = timeout(remaining(self.timeout_ms, started), primary.look()).await else { return };
        if shown.role == Role::Primary {
            let known = Known { history: shown.history, offset: shown.offset, asked_ms };
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        }
    }

    fn failure(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        failure::failure(kind, format!("redis {}: {what}", self.server.server.address))
    }

    fn failed(&self, trouble: &Trouble) -> Failure {
        let kind = match trouble {
            _ if trouble.is_ours() => FailureKind::OurFault,
            Trouble::Io(error) => failure::kind_of(error),
            Trouble::Said(said) if said.starts_with("LOADING") => FailureKind::Unusable,
            _ => FailureKind::WrongAnswer,
        };
        self.failure(kind, trouble)
    }

    fn judge(&self, shown: Shown) -> Result<RedisMeasure, Failure> {
        if shown.loading {
            return Err(self.failure(FailureKind::Unusable, "it is loading its data from the disk"));
        }
        let wrong = match (self.expect_role, &shown.role) {
            (Expected::Primary, Role::Replica { of, .. }) => {
                Some(format!("it is a replica of {of}, expected the primary"))
            }
            (Expected::Standby, Role::Primary) => Some("it is a primary, expected a replica".to_owned()),
            _ => None,
        };
        if let Some(what) = wrong {
            return Err(self.failure(FailureKind::WrongAnswer, what));
        }
        let mut measure =
            RedisMeasure { is_primary: shown.role == Role::Primary, offset: shown.offset, ..RedisMeasure::default() };
        if let Role::Replica { linked, last_io_s, .. } = shown.role {
            measure.linked = linked;
            measure.last_io_age_ms = last_io_s.map(|s| s.saturating_mul(1000));
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.history == shown.history) {
            measure.primary_offset = Some(known.offset);
            measure.primary_offset_age_ms = Some(clock::boot_ms().saturating_sub(known.asked_ms));
        }
        Ok(measure)
    }
}

#[async_trait]
impl Probe for RedisProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let started = Instant::now();
        let ((), shown) = tokio::join!(self.read_primary(started), self.server.look());
        let shown = shown.map_err(|trouble| self.failed(&trouble))?;
        self.judge(shown).map(|measure| Some(Measure::Redis(measure)))
    }
}
