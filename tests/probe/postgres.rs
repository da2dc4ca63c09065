//! PostgreSQL: its kinds of failure, and the write canary.

use std::path::PathBuf;

use watchdog::domain::observation::{FailureKind, Measure};
use watchdog::probe::{Endpoint, ProbeSpec, Role};

use crate::parts::*;

pub fn endpoint(server: &Postgres) -> Endpoint {
    Endpoint { conninfo: server.conninfo(), password_file: Some(server.password_file()), tls_ca_file: None }
}

pub fn postgres(database: Endpoint, expect_role: Role, canary: bool) -> ProbeSpec {
    ProbeSpec::Postgres { database, expect_role, canary }
}

#[tokio::test]
async fn whose_fault_it_is() {
    let server = Postgres::primary().await;
    let right = endpoint(&server);
    let outcome = probe_of(&postgres(right.clone(), Role::Primary, false)).probe().await;
    let Ok(Some(Measure::Postgres { in_recovery: false, lsn: Some(lsn), timeline: Some(1) })) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(lsn > 0x100_0000);

    let with = |conninfo: String| Endpoint { conninfo, ..right.clone() };
    let wrong_password = server.folder.path().join("wrong");
    std::fs::write(&wrong_password, "guess").unwrap();
    let ca_file = server.data().join("ca.pem");
    make_certificate(&server, &ca_file);
    let table = [
        (Endpoint { password_file: Some(wrong_password.clone()), ..right.clone() }, Role::Any, FailureKind::OurFault),
        (Endpoint { password_file: None, ..right.clone() }, Role::Any, FailureKind::OurFault),
        (with(server.conninfo().replace("dbname=postgres", "dbname=none")), Role::Any, FailureKind::OurFault),
        (with(server.conninfo().replace("user=watchdog", "user=none")), Role::Any, FailureKind::OurFault),
        (with(server.conninfo().replace("127.0.0.1", "no-such-name.invalid")), Role::Any, FailureKind::OurFault),
        (with(format!("{} sslmode=require", server.conninfo())), Role::Any, FailureKind::OurFault),
        (Endpoint { tls_ca_file: Some(ca_file), ..right.clone() }, Role::Any, FailureKind::OurFault),
        (right.clone(), Role::Standby, FailureKind::WrongAnswer),
    ];
    for (database, role, wanted) in table {
        let outcome = probe_of(&postgres(database.clone(), role, false)).probe().await;
        assert_eq!(kind(&outcome), Some(wanted), "{database:?}: {outcome:?}");
        let detail = outcome.unwrap_err().detail;
        assert!(!detail.contains("secret") && !detail.contains("guess"), "{detail}");
    }

    // A password corrected in its file needs no restart.
    let database = Endpoint { password_file: Some(wrong_password.clone()), ..right };
    let probe = probe_of(&postgres(database, Role::Primary, false));
    assert_eq!(kind(&probe.probe().await), Some(FailureKind::OurFault));
    std::fs::write(&wrong_password, "secret\n").unwrap();
    assert_eq!(kind(&probe.probe().await), None);
}

fn make_certificate(server: &Postgres, file: &std::path::Path) -> PathBuf {
    let key = server.data().join("server.key");
    let (key_text, certificate) = (key.to_str().unwrap(), file.to_str().unwrap());
    run(std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key_text, "-out", certificate]));
    run(std::process::Command::new("chown").arg("postgres:postgres").args([&key, file]));
    key
}

#[tokio::test]
async fn tls_is_verified() {
    let mut server = Postgres::primary().await;
    let certificate = server.data().join("cert.pem");
    let other = server.data().join("other.pem");
    make_certificate(&server, &other);
    let key = make_certificate(&server, &certificate);
    server.kill();
    let paths = (certificate.display(), key.display());
    server.configure(&format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'", paths.0, paths.1));
    server.start().await;
    let trusting = |file: &PathBuf| Endpoint { tls_ca_file: Some(file.clone()), ..endpoint(&server) };
    let trusted = probe_of(&postgres(trusting(&certificate), Role::Primary, false)).probe().await;
    assert_eq!(kind(&trusted), None, "{trusted:?}");
    let untrusted = probe_of(&postgres(trusting(&other), Role::Primary, false)).probe().await;
    assert_eq!(kind(&untrusted), Some(FailureKind::OurFault), "{untrusted:?}");
}

#[tokio::test]
async fn a_server_that_cannot_write_is_unusable() {
    let server = Postgres::primary().await;
    let probe = probe_within(&postgres(endpoint(&server), Role::Primary, true), 2000);
    for _ in 0..3 {
        let outcome = probe.probe().await;
        assert_eq!(kind(&outcome), None, "{outcome:?}");
    }
    assert_eq!(server.sql("SELECT who FROM watchdog_canary"), "test/it's", "one row, created by the probe");

    server.sql("ALTER ROLE watchdog SET default_transaction_read_only = on");
    let fresh = probe_of(&postgres(endpoint(&server), Role::Primary, true));
    let outcome = fresh.probe().await;
    assert_eq!(kind(&outcome), Some(FailureKind::Unusable), "{outcome:?}");
    server.sql("ALTER ROLE watchdog RESET default_transaction_read_only");

    // Writing hangs while reading goes on.
    let lock = "BEGIN; LOCK TABLE watchdog_canary; SELECT pg_sleep(60)";
    let port = server.port.to_string();
    let arguments = ["-Xq", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c", lock];
    let locker = Running::start("psql", None, &arguments, server.folder.path());
    wait_until("the table is locked", || async {
        (server.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted") != "0")
            .then_some(())
    })
    .await;
    let outcome = probe.probe().await;
    assert_eq!(kind(&outcome), Some(FailureKind::Unusable), "{outcome:?}");
    assert!(outcome.unwrap_err().detail.contains("write canary"));
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE %'");
    drop(locker);
    wait_until("writes pass again", || async { probe.probe().await.ok() }).await;

    // Not allowed is our fault, not the server's.
    server
        .sql("DROP TABLE watchdog_canary; CREATE TABLE watchdog_canary (who text PRIMARY KEY, written_at timestamptz)");
    let outcome = probe.probe().await;
    assert_eq!(kind(&outcome), Some(FailureKind::OurFault), "{outcome:?}");
}

#[tokio::test]
async fn a_full_server_is_seen_through_the_held_connection() {
    let mut server = Postgres::primary().await;
    server.kill();
    server.configure("max_connections = 4\nsuperuser_reserved_connections = 1");
    server.start().await;
    let probe = probe_of(&postgres(endpoint(&server), Role::Primary, false));
    assert_eq!(kind(&probe.probe().await), None);
    let mut crowd = Vec::new();
    let config = format!("{} password=secret", server.conninfo());
    while let Ok((client, connection)) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await {
        crowd.push((client, tokio::spawn(connection)));
    }
    for look in 0..50 {
        let outcome = probe.probe().await;
        assert_eq!(kind(&outcome), None, "look {look}: {outcome:?}");
    }
    let newcomer = probe_of(&postgres(endpoint(&server), Role::Primary, false)).probe().await;
    assert_eq!(kind(&newcomer), Some(FailureKind::Unusable), "{newcomer:?}");
}

#[tokio::test]
async fn nonsense_from_a_stand_in() {
    let message = |tag: u8, body: &[u8]| {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    };
    let error = |code: &str| message(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mplanned\0\0").as_bytes());
    let table = [
        ("closes", Reply::Close, FailureKind::WrongAnswer),
        ("another protocol", Reply::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), FailureKind::WrongAnswer),
        ("unknown message", Reply::Bytes(message(b'?', b"")), FailureKind::WrongAnswer),
        ("negative length", Reply::Bytes(b"R\xff\xff\xff\xff".to_vec()), FailureKind::WrongAnswer),
        ("length below itself", Reply::Bytes(b"R\x00\x00\x00\x01".to_vec()), FailureKind::WrongAnswer),
        ("cut in the middle", Reply::Bytes(b"R\x00\x00\x00\x08\x00".to_vec()), FailureKind::WrongAnswer),
        ("unknown authentication", Reply::Bytes(message(b'R', &99u32.to_be_bytes())), FailureKind::WrongAnswer),
        ("error without fields", Reply::Bytes(message(b'E', b"\0")), FailureKind::WrongAnswer),
        ("starting up", Reply::Bytes(error("57P03")), FailureKind::WrongAnswer),
        ("too many connections", Reply::Bytes(error("53300")), FailureKind::Unusable),
        ("disk full", Reply::Bytes(error("53100")), FailureKind::Unusable),
        ("wrong password", Reply::Bytes(error("28P01")), FailureKind::OurFault),
    ];
    for (name, reply, wanted) in table {
        let port = stand_in(reply).await;
        let conninfo = format!("host=127.0.0.1 port={port} user=watchdog");
        let outcome = probe_of(&postgres(Endpoint { conninfo, ..Endpoint::default() }, Role::Any, false)).probe().await;
        assert_eq!(kind(&outcome), Some(wanted), "{name}: {outcome:?}");
    }
}
