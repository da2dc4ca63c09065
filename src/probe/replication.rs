//! Replication into a standby: positions received and replayed, against the primary's.
//!
//! The two servers are asked side by side and the primary may fail: what was last known of it is kept, and grows old.
//! A reading is good whatever it says, even "not streaming" or "no longer in recovery": what that means depends on who
//! serves, which only the leader knows.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::coverage::Coverage;
use super::postgres_link::{Link, column, parse_bool, parse_lsn, remaining};
use super::{Endpoint, Probe, ProbeError};
use crate::clock;
use crate::domain::observation::{Failure, FailureKind, Measure, ReplicationMeasure};

const PRIMARY: &str = "SELECT r AS in_recovery, \
    CASE WHEN r THEN NULL ELSE pg_current_wal_lsn() END AS lsn, \
    (SELECT system_identifier FROM pg_control_system()) AS system \
    FROM pg_is_in_recovery() AS r";

const STANDBY: &str = "SELECT r AS in_recovery, \
    pg_last_wal_receive_lsn() AS received, pg_last_wal_replay_lsn() AS replayed, \
    (SELECT count(*) > 0 FROM pg_stat_wal_receiver) AS receiving, \
    (SELECT status FROM pg_stat_wal_receiver LIMIT 1) AS status, \
    round(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint AS replay_age_ms, \
    (SELECT system_identifier FROM pg_control_system()) AS system \
    FROM pg_is_in_recovery() AS r";

/// Reads a standby and, where it answers, its primary.
pub struct ReplicationProbe {
    primary: Link,
    standby: Link,
    timeout_ms: u64,
    known: Mutex<Known>,
}

/// What outlives the primary.
#[derive(Default)]
struct Known {
    coverage: Coverage,
    system: Option<u64>,
}

struct StandbyReading {
    measure: ReplicationMeasure,
    system: Option<u64>,
}

impl ReplicationProbe {
    /// Reads `standby` and `primary`.
    ///
    /// # Errors
    /// A connection string that cannot be read, or a file that is missing.
    pub fn new(primary: &Endpoint, standby: &Endpoint, timeout_ms: u64) -> Result<Self, ProbeError> {
        Ok(Self {
            timeout_ms,
            primary: Link::new(primary, timeout_ms)?,
            standby: Link::new(standby, timeout_ms)?,
            known: Mutex::new(Known::default()),
        })
    }

    /// The primary's position, where it can be had. Its failure is no failure of the standby, so it has a shorter
    /// time than the look as a whole.
    async fn read_primary(&self, started: Instant) {
        let asked_ms = clock::boot_ms();
        let Ok(Ok((held, row))) = timeout(remaining(self.timeout_ms, started), self.primary.read(PRIMARY)).await else {
            return;
        };
        let lsn = column(&self.primary, &row, "lsn", parse_lsn);
        let system = column(&self.primary, &row, "system", |text| text.parse().ok());
        if let (Ok(Some(lsn)), Ok(system)) = (lsn, system) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.system != system {
                *known = Known { coverage: Coverage::default(), system };
            }
            known.coverage.sample(asked_ms, lsn);
        }
        self.primary.put_back(held);
    }

    async fn read_standby(&self) -> Result<StandbyReading, Failure> {
        let link = &self.standby;
        let (held, row) = link.read(STANDBY).await?;
        let in_recovery = column(link, &row, "in_recovery", parse_bool)?
            .ok_or_else(|| link.failure(FailureKind::WrongAnswer, "in_recovery is NULL"))?;
        let receiving = column(link, &row, "receiving", parse_bool)?.unwrap_or(false);
        let status = column(link, &row, "status", |text| Some(text.to_owned()))?;
        let measure = ReplicationMeasure {
            in_recovery,
            received_lsn: column(link, &row, "received", parse_lsn)?,
            replayed_lsn: column(link, &row, "replayed", parse_lsn)?,
            streaming: receiving && status.as_deref() == Some("streaming"),
            replay_age_ms: column(link, &row, "replay_age_ms", |text| text.parse::<i64>().ok())?
                .map(|ms| u64::try_from(ms).unwrap_or(0)),
            ..ReplicationMeasure::default()
        };
        let system = column(link, &row, "system", |text| text.parse().ok())?;
        link.put_back(held);
        if receiving && status.is_none() {
            let what = "the WAL receiver's status is hidden from this user: GRANT pg_monitor to it";
            return Err(link.failure(FailureKind::OurFault, what));
        }
        Ok(StandbyReading { measure, system })
    }

    fn compare(&self, reading: StandbyReading) -> Result<ReplicationMeasure, Failure> {
        let StandbyReading { mut measure, system } = reading;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(primary), Some(standby)) = (known.system, system)
            && primary != standby
        {
            let what = format!(
                "its system identifier is {standby}, but {} has {primary}: it is not that server's standby",
                self.primary.place()
            );
            return Err(self.standby.failure(FailureKind::OurFault, what));
        }
        let now_ms = clock::boot_ms();
        if let Some((at_ms, lsn)) = known.coverage.newest() {
            measure.primary_lsn = Some(lsn);
            measure.primary_lsn_age_ms = Some(now_ms.saturating_sub(at_ms));
        }
        // After a restart without a primary nothing was received yet, but what was replayed is there.
        if let Some(has) = measure.received_lsn.max(measure.replayed_lsn) {
            measure.covered_age_ms = known.coverage.covered_age_ms(now_ms, has);
        }
        Ok(measure)
    }
}

#[async_trait]
impl Probe for ReplicationProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let started = Instant::now();
        let ((), reading) = tokio::join!(self.read_primary(started), self.read_standby());
        self.compare(reading?).map(|measure| Some(Measure::Replication(measure)))
    }

    fn nudge(&self) -> Option<Arc<Notify>> {
        Some(self.standby.closed())
    }
}
