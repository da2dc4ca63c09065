//! `verify` against PostgreSQL, BIND and a small HTTP server.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use watchdog::actuator::Actuator;
use watchdog::actuator::verify::VerifyActuator;
use watchdog::domain::attempt::{Outcome, Raised, ReadBack};
use watchdog::domain::plan::{Action, Check, DatabaseEndpoint, DnsRecord, RecordKind};

use crate::parts::{Authority, Named, Postgres};
use crate::{ample, evidence, failure, token, warrant, within};

fn verify(checks: Vec<Check>) -> Action {
    Action::Verify { checks }
}

fn writable(database: DatabaseEndpoint) -> Check {
    Check::DatabaseWritable { database }
}

fn http(url: &str, connect_to: Option<&str>, resolve_at: Option<&str>) -> Check {
    let owned = |text: &str| text.to_owned();
    Check::Http {
        url: url.into(),
        expect_status: 200,
        connect_to: connect_to.map(owned),
        resolve_at: resolve_at.map(owned),
    }
}

fn answers(server: &str, name: &str, kind: RecordKind, value: &str) -> Check {
    let record = DnsRecord { name: name.into(), kind, ttl_s: 300, value: value.into() };
    Check::DnsAnswers { server: server.into(), record }
}

/// `/health` is 200, `/host` is 200 only for the public name, `/moved` redirects, `/slow` never answers. Gives its port.
async fn service() -> u16 {
    let host = |headers: HeaderMap| async move {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
        if host == "ns.demo.test" { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST }
    };
    let routes = Router::new()
        .route("/health", get(|| async { "fine" }))
        .route("/host", get(host))
        .route("/moved", get(|| async { (StatusCode::FOUND, [(header::LOCATION, "/health")]) }))
        .route("/slow", get(|| async { std::future::pending::<()>().await }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

#[tokio::test]
async fn the_database_takes_the_token_and_refuses_a_lower_one() {
    let postgres = Postgres::start(None).await;
    let action = verify(vec![writable(postgres.endpoint("watchdog", "topsecret"))]);
    let check = VerifyActuator::new();
    assert_eq!(check.raise(&warrant(7, "r1"), &action, ample()).await, Raised::Done { in_flight: None });
    let done = check.execute(&warrant(7, "r1"), &action, ample()).await;
    assert!(evidence(&done).contains("took token 1.7"), "{done:?}");
    let held = || postgres.read("SELECT group_name, epoch, n, run FROM watchdog_token");
    assert_eq!(held(), "aicamera|1|7|r1");
    evidence(&check.execute(&warrant(7, "r1"), &action, ample()).await);
    assert!(matches!(check.read_back(&warrant(7, "r1"), &action, ample()).await, ReadBack::Done { .. }));
    for (n, run) in [(6, "r1"), (6, "r0"), (7, "r2")] {
        let refused = Outcome::Refused { held: token(7) };
        assert_eq!(check.execute(&warrant(n, run), &action, ample()).await, refused);
        assert_eq!(check.read_back(&warrant(n, run), &action, ample()).await, ReadBack::Refused { held: token(7) });
    }
    assert_eq!(held(), "aicamera|1|7|r1");
    evidence(&check.execute(&warrant(8, "r2"), &action, ample()).await);
    assert_eq!(held(), "aicamera|1|8|r2");
}

#[tokio::test]
async fn of_many_writers_at_once_the_highest_stays() {
    let postgres = Postgres::start(None).await;
    let action = &verify(vec![writable(postgres.endpoint("watchdog", "topsecret"))]);
    let attempts = (1..=8)
        .map(|n| async move { VerifyActuator::new().execute(&warrant(n, &format!("r{n}")), action, ample()).await });
    let outcomes = futures::future::join_all(attempts).await;
    let expected = |o: &Outcome| matches!(o, Outcome::Done { .. } | Outcome::Refused { .. });
    assert!(outcomes.iter().all(expected), "{outcomes:?}");
    assert!(matches!(outcomes[7], Outcome::Done { .. }), "{outcomes:?}");
    assert_eq!(postgres.read("SELECT n, run FROM watchdog_token"), "8|r8");
}

#[tokio::test]
async fn a_database_that_cannot_be_written_says_why() {
    let postgres = Postgres::start(None).await;
    let good = postgres.endpoint("watchdog", "topsecret");
    let with = |conninfo: &str, password: Option<&str>, ca: Option<&str>| DatabaseEndpoint {
        conninfo: conninfo.into(),
        password_file: password.map(str::to_owned),
        tls_ca_file: ca.map(str::to_owned),
    };
    let authority = Authority::new();
    let ca = authority.certificate.display().to_string();
    let check = VerifyActuator::new();
    for (database, word) in [
        (postgres.endpoint("watchdog", "wrong-topsecret"), "password authentication failed"),
        (postgres.endpoint("reader", "topsecret"), "permission denied"),
        (with("host=127.0.0.1 port=1 user=x", None, None), "refused"),
        (with("host=127.0.0.1 port=nonsense", None, None), "conninfo"),
        (with(&good.conninfo, Some("/nowhere/password"), None), "/nowhere/password"),
        (with(&good.conninfo, good.password_file.as_deref(), Some("/nowhere/ca")), "/nowhere/ca"),
        (with(&good.conninfo, good.password_file.as_deref(), Some(&ca)), "TLS"),
    ] {
        let failed = check.execute(&warrant(1, "r1"), &verify(vec![writable(database)]), ample()).await;
        let reason = failure(&failed, true);
        assert!(reason.contains(word) && !reason.contains("topsecret"), "{word}: {failed:?}");
    }
    assert_eq!(postgres.read("SELECT to_regclass('watchdog_token') IS NULL"), "t");
    // A token that is none, and a lock held by somebody else.
    let action = verify(vec![writable(good)]);
    evidence(&check.execute(&warrant(1, "r1"), &action, ample()).await);
    postgres.read("UPDATE watchdog_token SET epoch = 5, n = -1");
    let failed = check.execute(&warrant(2, "r1"), &action, ample()).await;
    assert!(failure(&failed, true).contains("5.-1"), "{failed:?}");
    postgres.program.freeze();
    let failed = check.execute(&warrant(9, "r1"), &action, within(400)).await;
    postgres.program.thaw();
    assert!(failure(&failed, true).contains("no answer within"), "{failed:?}");
}

#[tokio::test]
async fn a_standby_is_no_writable_database() {
    let postgres = Postgres::start(None).await;
    let endpoint = postgres.endpoint("watchdog", "topsecret");
    let restarted = postgres.into_standby().await;
    let failed = VerifyActuator::new().execute(&warrant(1, "r1"), &verify(vec![writable(endpoint)]), ample()).await;
    assert!(failure(&failed, true).contains("in recovery"), "{failed:?}");
    drop(restarted);
}

#[tokio::test]
async fn with_an_authority_tls_is_required_and_checked() {
    let (authority, other) = (Authority::new(), Authority::new());
    let postgres = Postgres::start(Some(&authority)).await;
    let check = VerifyActuator::new();
    let with = |authority: &Authority| DatabaseEndpoint {
        tls_ca_file: Some(authority.certificate.display().to_string()),
        ..postgres.endpoint("watchdog", "topsecret")
    };
    evidence(&check.execute(&warrant(1, "r1"), &verify(vec![writable(with(&authority))]), ample()).await);
    let failed = check.execute(&warrant(1, "r1"), &verify(vec![writable(with(&other))]), ample()).await;
    assert!(failure(&failed, true).contains("certificate"), "{failed:?}");
}

#[tokio::test]
async fn http_is_looked_at_where_it_is_said_to_be() {
    let named = Named::start().await;
    let port = service().await;
    let (at, ns) = (format!("127.0.0.1:{port}"), Some(&*named.address));
    let check = VerifyActuator::new();
    for good in [
        http(&format!("http://{at}/health"), None, None),
        http(&format!("http://ns.demo.test:{port}/health"), None, ns),
        http(&format!("http://alias.demo.test:{port}/health"), None, ns),
        http(&format!("http://{at}/health"), None, ns),
        // Another address and port, under the public name.
        http("http://ns.demo.test/host", Some(&at), None),
        http("http://192.0.2.1/health", Some(&at), None),
    ] {
        let done = check.execute(&warrant(1, "r1"), &verify(vec![good]), ample()).await;
        assert!(evidence(&done).contains("is 200"), "{done:?}");
    }
    for (bad, word) in [
        (http(&format!("http://{at}/nowhere"), None, None), "status 404"),
        (http(&format!("http://{at}/moved"), None, None), "status 302"),
        (http(&format!("http://{at}/slow"), None, None), "no answer"),
        (http("http://127.0.0.1:1/", None, None), "refused"),
        (http(&format!("http://nobody.demo.test:{port}/"), None, ns), "no address for nobody.demo.test"),
        (http(&format!("http://ns.demo.test:{port}/"), None, Some("127.0.0.1:1")), "refused"),
        (http("http://ns.demo.test/", Some("nonsense"), None), "address:port"),
        (http("nonsense", None, None), "absolute URL"),
        (http("http://user:topsecret@127.0.0.1:1/?key=topsecret", None, None), "refused"),
        (http(&format!("https://{at}/health"), None, None), "no answer"),
    ] {
        let failed = check.execute(&warrant(1, "r1"), &verify(vec![bad]), within(1000)).await;
        let reason = failure(&failed, true);
        assert!(reason.contains(word) && !reason.contains("topsecret"), "{word}: {failed:?}");
    }
}

#[tokio::test]
async fn every_check_that_fails_is_named() {
    let named = Named::start().await;
    let port = service().await;
    let at = &named.address;
    let good = vec![
        http(&format!("http://127.0.0.1:{port}/health"), None, None),
        answers(at, "ns.demo.test.", RecordKind::A, "127.0.0.1"),
        answers(at, "alias.demo.test.", RecordKind::Cname, "NS.demo.test"),
    ];
    let check = VerifyActuator::new();
    let done = check.execute(&warrant(1, "r1"), &verify(good.clone()), ample()).await;
    assert!(evidence(&done).contains("ns.demo.test. A 127.0.0.1"), "{done:?}");
    let bad = vec![
        answers(at, "ns.demo.test.", RecordKind::A, "127.0.0.2"),
        answers(at, "many.demo.test.", RecordKind::A, "10.0.0.1"),
        answers(at, "nobody.demo.test.", RecordKind::A, "10.0.0.1"),
        http(&format!("http://127.0.0.1:{port}/nowhere"), None, None),
    ];
    let action = verify([good, bad].concat());
    let failed = check.execute(&warrant(1, "r1"), &action, ample()).await;
    let reason = failure(&failed, true);
    for word in ["4 of 7", "answers 127.0.0.1, not 127.0.0.2", "10.0.0.0 10.0.0.1", "answers nothing", "status 404"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    assert!(matches!(check.read_back(&warrant(1, "r1"), &action, ample()).await, ReadBack::NotDone { .. }));
    let nothing = check.execute(&warrant(1, "r1"), &verify(Vec::new()), ample()).await;
    assert!(failure(&nothing, false).contains("at least one check"), "{nothing:?}");
}
