//! Replication, against a primary with a streaming standby.

use std::sync::Arc;
use std::time::Duration;

use watchdog::domain::observation::{FailureKind, Measure, ReplicationMeasure};
use watchdog::probe::{Probe, ProbeSpec, Role};

use crate::parts::*;
use crate::postgres::{endpoint, postgres};

async fn read(probe: &Arc<dyn Probe>) -> ReplicationMeasure {
    match probe.probe().await {
        Ok(Some(Measure::Replication(measure))) => measure,
        other => panic!("{other:?}"),
    }
}

async fn until(probe: &Arc<dyn Probe>, what: &str, good: impl Fn(&ReplicationMeasure) -> bool) -> ReplicationMeasure {
    wait_until(what, || async { Some(read(probe).await).filter(&good) }).await
}

fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

#[tokio::test]
async fn the_life_of_a_standby() {
    let mut primary = Postgres::primary().await;
    let standby = Postgres::standby_of(&primary).await;
    let spec = ProbeSpec::Replication { primary: endpoint(&primary), standby: endpoint(&standby) };
    let probe = probe_of(&spec);
    let streaming = until(&probe, "it streams", |measure| measure.streaming && measure.covered_age_ms.is_some()).await;
    assert!(streaming.in_recovery && streaming.primary_lsn.is_some());

    // An idle primary: nothing is written, the last commit grows old, and the standby stays fresh.
    let idle = until(&probe, "the last replayed commit is two seconds old", |measure| {
        measure.replay_age_ms.is_none_or(|ms| ms > 2000) && measure.covered_age_ms.is_some_and(|ms| ms < 2000)
    })
    .await;
    assert!(idle.streaming);

    // The receiver is dead: nothing comes, which is not freshness as soon as anything was written.
    standby.sql("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1 user=postgres'");
    standby.sql("SELECT pg_reload_conf()");
    until(&probe, "the receiver is gone", |measure| !measure.streaming).await;
    primary.sql("CREATE TABLE lost AS SELECT generate_series(1, 10000) AS id");
    let written = lsn(&primary.sql("SELECT pg_current_wal_lsn()"));
    let behind = until(&probe, "what is covered is a second old", |measure| {
        measure.covered_age_ms.is_some_and(|ms| ms > 1000) && measure.primary_lsn_age_ms.is_some_and(|ms| ms < 1000)
    })
    .await;
    let has = behind.received_lsn.max(behind.replayed_lsn).unwrap();
    assert!(behind.primary_lsn.unwrap() >= written, "{behind:?}");
    assert_eq!(Some(has), idle.received_lsn.max(idle.replayed_lsn), "it has what it had");
    assert!(behind.primary_lsn.unwrap() - has > 500_000, "{behind:?}");

    // The primary dies: the standby is read as before, and the primary's last position is kept.
    primary.kill();
    let orphan = until(&probe, "the primary's position is a second old", |measure| {
        measure.primary_lsn_age_ms.is_some_and(|ms| ms > 1000)
    })
    .await;
    assert_eq!(orphan.primary_lsn, behind.primary_lsn);
    assert!(orphan.covered_age_ms > behind.covered_age_ms, "{orphan:?}");
    assert_eq!(orphan.received_lsn.max(orphan.replayed_lsn), Some(has));

    // It comes back, the receiver is repaired, and it catches up.
    primary.start().await;
    let repaired = format!("host=127.0.0.1 port={} user=postgres", primary.port);
    standby.sql(&format!("ALTER SYSTEM SET primary_conninfo = '{repaired}'"));
    standby.sql("SELECT pg_reload_conf()");
    until(&probe, "it has caught up", |measure| {
        measure.streaming && measure.covered_age_ms.is_some_and(|ms| ms < 2000)
    })
    .await;

    // A role is not what was expected any more.
    let role = probe_of(&postgres(endpoint(&standby), Role::Standby, true));
    assert_eq!(kind(&role.probe().await), None);
    standby.promote();
    let outcome = role.probe().await;
    assert_eq!(kind(&outcome), Some(FailureKind::WrongAnswer), "{outcome:?}");
    assert!(!read(&probe).await.in_recovery, "a reading is good, whatever it says");
    let promoted = probe_of(&postgres(endpoint(&standby), Role::Primary, false)).probe().await;
    assert!(matches!(promoted, Ok(Some(Measure::Postgres { timeline: Some(2), .. }))), "{promoted:?}");
}

#[tokio::test]
async fn a_frozen_primary_does_not_hide_its_standby() {
    let primary = Postgres::primary().await;
    let standby = Postgres::standby_of(&primary).await;
    let spec = ProbeSpec::Replication { primary: endpoint(&primary), standby: endpoint(&standby) };
    let probe = probe_within(&spec, 1000);
    until(&probe, "it streams", |measure| measure.streaming && measure.covered_age_ms.is_some()).await;
    primary.signal(rustix::process::Signal::STOP);
    let frozen = wait_until("what is covered is two seconds old", || async {
        let outcome = tokio::time::timeout(Duration::from_millis(1000), probe.probe()).await;
        match outcome.expect("the look ends within its time").expect("the standby answers") {
            Some(Measure::Replication(measure)) => {
                Some(measure).filter(|m| m.covered_age_ms.is_some_and(|ms| ms > 2000))
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert!(frozen.in_recovery && frozen.primary_lsn.is_some());
}

#[tokio::test]
async fn another_system_is_no_standby() {
    let primary = Postgres::primary().await;
    let other = Postgres::primary().await;
    let spec = ProbeSpec::Replication { primary: endpoint(&primary), standby: endpoint(&other) };
    let outcome = probe_of(&spec).probe().await;
    assert_eq!(kind(&outcome), Some(FailureKind::OurFault), "{outcome:?}");
    assert!(outcome.unwrap_err().detail.contains("system identifier"));
}
