//! Redis: a primary and its replica as real servers, and what is not one.

use std::sync::Arc;

use watchdog::domain::observation::{FailureKind, Measure, RedisMeasure};
use watchdog::domain::plan::RedisEndpoint;
use watchdog::probe::{Probe, ProbeSpec, Role};

use crate::parts::*;

#[path = "../lab/redis.rs"]
#[allow(dead_code, reason = "shared with other tests, which use all of it")]
mod server;
use server::Redis;

fn at(server: &Redis) -> RedisEndpoint {
    let password_file = Some(server.password_file().display().to_string());
    RedisEndpoint { address: server.address(), user: None, password_file }
}

fn spec(server: &Redis, primary: Option<&Redis>, expect_role: Role) -> ProbeSpec {
    ProbeSpec::Redis { server: at(server), primary: primary.map(at), expect_role }
}

async fn until(probe: &Arc<dyn Probe>, what: &str, good: impl Fn(&RedisMeasure) -> bool) -> RedisMeasure {
    wait_until(what, || async {
        match probe.probe().await {
            Ok(Some(Measure::Redis(measure))) => Some(measure).filter(&good),
            _ => None,
        }
    })
    .await
}

#[tokio::test]
async fn the_life_of_a_replica() {
    let folder = folder();
    let mut primary = Redis::primary(&folder.path().join("a"), true);
    let replica = Redis::replica_of(&primary, &folder.path().join("b"));
    let of_primary = probe_of(&spec(&primary, None, Role::Primary));
    let seen = until(&of_primary, "the primary is seen", |seen| seen.is_primary).await;
    assert!(!seen.linked && seen.behind_bytes().is_none(), "{seen:?}");
    let probe = probe_of(&spec(&replica, Some(&primary), Role::Standby));
    let seen = until(&probe, "it is in step", |seen| seen.linked && seen.behind_bytes() == Some(0)).await;
    assert!(!seen.is_primary && seen.last_io_age_ms.is_some(), "{seen:?}");

    // Cut off, it stays as it was while the primary goes on.
    replica.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let value = "x".repeat(5000);
    primary.ask(&["SET", "key", &value]);
    let seen = until(&probe, "it is behind", |seen| seen.behind_bytes().is_some_and(|n| n >= 5000)).await;
    assert!(!seen.linked, "{seen:?}");

    // The primary dies: its last word is kept, and grows old.
    primary.kill();
    let seen = until(&probe, "the word is old", |seen| seen.primary_offset_age_ms.is_some_and(|ms| ms > 300)).await;
    assert!(seen.behind_bytes().is_some_and(|n| n >= 5000), "{seen:?}");
    assert_eq!(kind(&of_primary.probe().await), Some(FailureKind::WrongAnswer), "the held connection was closed");
    assert_eq!(kind(&of_primary.probe().await), Some(FailureKind::Refused));

    // Promoted it has a history of its own, and is not what was expected.
    replica.ask(&["REPLICAOF", "NO", "ONE"]);
    let failure = probe.probe().await.unwrap_err();
    assert!(failure.kind == FailureKind::WrongAnswer && failure.detail.contains("expected a replica"), "{failure:?}");
    let any = probe_of(&spec(&replica, None, Role::Any));
    assert!(until(&any, "it is a primary", |seen| seen.is_primary).await.primary_offset.is_none());
}

#[tokio::test]
async fn our_faults_are_told_from_the_servers() {
    let folder = folder();
    let server = Redis::primary(&folder.path().join("a"), true);
    let right = at(&server);
    let wrong_file = folder.path().join("wrong");
    std::fs::write(&wrong_file, "guess\n").unwrap();
    let asked = async |server: RedisEndpoint| {
        probe_of(&ProbeSpec::Redis { server, primary: None, expect_role: Role::Any }).probe().await
    };
    assert!(asked(right.clone()).await.is_ok());
    for (password_file, words) in [
        (None, "NOAUTH"),
        (Some(wrong_file.display().to_string()), "WRONGPASS"),
        (Some("/no/such/file".to_owned()), "/no/such/file"),
    ] {
        let failure = asked(RedisEndpoint { password_file, ..right.clone() }).await.unwrap_err();
        assert!(failure.kind == FailureKind::OurFault && failure.detail.contains(words), "{failure:?}");
        assert!(!failure.detail.contains("guess") && !failure.detail.contains("secret"), "{failure:?}");
    }
    let failure = probe_of(&spec(&server, None, Role::Standby)).probe().await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongAnswer);
    assert_eq!(
        kind(&asked(RedisEndpoint { address: "127.0.0.1:1".to_owned(), ..right }).await),
        Some(FailureKind::Refused)
    );
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_unusable_and_not_gone() {
    let folder = folder();
    // Each key takes a tenth of a millisecond to load: two seconds in all.
    let more = "key-load-delay 100\nloading-process-events-interval-bytes 1024\nenable-debug-command yes";
    let mut server = Redis::at(&folder.path().join("a"), server::free_port(), false, more);
    server.start();
    server.ask(&["DEBUG", "POPULATE", "20000"]);
    server.ask(&["SAVE"]);
    server.kill();
    let probe = probe_of(&ProbeSpec::Redis {
        server: RedisEndpoint { address: server.address(), user: None, password_file: None },
        primary: None,
        expect_role: Role::Any,
    });
    server.begin();
    let failure = wait_until("it is seen to load", || async {
        probe.probe().await.err().filter(|failure| failure.kind == FailureKind::Unusable)
    })
    .await;
    assert!(failure.detail.contains("loading its data"), "{failure:?}");
    until(&probe, "it has loaded", |seen| seen.is_primary).await;
}

#[tokio::test]
async fn what_is_no_redis_server_is_a_wrong_answer() {
    for bytes in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"$99999999999\r\n", b"$3\r\nabc\r\n", b"+OK\r\n", b"\r\n", b""]
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 64];
            let _n = tokio::io::AsyncReadExt::read(&mut stream, &mut asked).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
        });
        let server = RedisEndpoint { address, user: None, password_file: None };
        let outcome = probe_of(&ProbeSpec::Redis { server, primary: None, expect_role: Role::Any }).probe().await;
        assert_eq!(kind(&outcome), Some(FailureKind::WrongAnswer), "{bytes:?}: {outcome:?}");
        answering.await.unwrap();
    }
}
