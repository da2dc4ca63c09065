//! HTTP and TCP.

use std::process::Command;

use url::Url;
use watchdog::domain::observation::{FailureKind, Measure};
use watchdog::probe::{ProbeBuilder, ProbeSpec, ProbeSurroundings};

use crate::parts::*;

fn http(url: &str) -> ProbeSpec {
    ProbeSpec::Http {
        url: Url::parse(url).unwrap(),
        expect_status: 200,
        body_contains: None,
        ca_file: None,
        follow_redirects: false,
    }
}

fn answer(head: &str, body: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[tokio::test]
async fn what_an_answer_means() {
    use FailureKind::*;
    let huge_header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(2_000_000));
    let table = [
        ("good", answer("200 OK", "fine"), None),
        ("error", answer("500 Internal Server Error", ""), Some(WrongAnswer)),
        ("unavailable", answer("503 Service Unavailable", ""), Some(WrongAnswer)),
        ("redirect", answer("302 Found\r\nLocation: /elsewhere", ""), Some(WrongAnswer)),
        ("credentials", answer("401 Unauthorized", ""), Some(OurFault)),
        ("path that never was", answer("404 Not Found", ""), Some(OurFault)),
        ("another 2xx", answer("204 No Content", ""), Some(WrongAnswer)),
        ("closes", Reply::Close, Some(WrongAnswer)),
        ("no HTTP", Reply::Bytes(b"\x00\x01\x02 hello\r\n\r\n".to_vec()), Some(WrongAnswer)),
        ("cut head", Reply::Bytes(b"HTTP/1.1 200 O".to_vec()), Some(WrongAnswer)),
        ("cut body", Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf".to_vec()), Some(WrongAnswer)),
        ("endless head", Reply::Bytes(huge_header.into_bytes()), Some(WrongAnswer)),
    ];
    for (name, reply, wanted) in table {
        let port = stand_in(reply).await;
        let outcome = probe_of(&http(&format!("http://127.0.0.1:{port}/health"))).probe().await;
        assert_eq!(kind(&outcome), wanted, "{name}: {outcome:?}");
        match outcome {
            Ok(measure) => assert_eq!(measure, Some(Measure::Http { status: 200 }), "{name}"),
            Err(failure) => assert!(failure.detail.contains(&port.to_string()), "{name}: {}", failure.detail),
        }
    }
}

#[tokio::test]
async fn refused_and_unresolvable_are_told_apart() {
    let port = free_port();
    for (spec, wanted) in [
        (http(&format!("http://127.0.0.1:{port}/")), FailureKind::Refused),
        (ProbeSpec::Tcp { address: format!("127.0.0.1:{port}") }, FailureKind::Refused),
        (http("http://no-such-name.invalid/"), FailureKind::OurFault),
        (ProbeSpec::Tcp { address: "no-such-name.invalid:80".to_owned() }, FailureKind::OurFault),
    ] {
        let outcome = probe_of(&spec).probe().await;
        assert_eq!(kind(&outcome), Some(wanted), "{spec:?}: {outcome:?}");
    }
    let listening = stand_in(Reply::Silence).await;
    let outcome = probe_of(&ProbeSpec::Tcp { address: format!("127.0.0.1:{listening}") }).probe().await;
    assert_eq!(outcome, Ok(None));
}

#[tokio::test]
async fn the_body_is_looked_into_and_bounded() {
    let long = format!("{}needle", "x".repeat(70_000));
    for (body, wanted) in [
        ("all needles here", None),
        ("nothing", Some(FailureKind::WrongAnswer)),
        (&long, Some(FailureKind::WrongAnswer)),
    ] {
        let port = stand_in(answer("200 OK", body)).await;
        let mut spec = http(&format!("http://127.0.0.1:{port}/"));
        if let ProbeSpec::Http { body_contains, .. } = &mut spec {
            *body_contains = Some("needle".to_owned());
        }
        assert_eq!(kind(&probe_of(&spec).probe().await), wanted);
    }
}

#[tokio::test]
async fn redirects_are_followed_where_asked() {
    let end = stand_in(answer("200 OK", "")).await;
    let start = stand_in(answer(&format!("302 Found\r\nLocation: http://127.0.0.1:{end}/"), "")).await;
    let mut spec = http(&format!("http://127.0.0.1:{start}/"));
    let outcome = probe_of(&spec).probe().await;
    assert!(outcome.unwrap_err().detail.contains(&format!("redirects to http://127.0.0.1:{end}/")));
    if let ProbeSpec::Http { follow_redirects, .. } = &mut spec {
        *follow_redirects = true;
    }
    assert_eq!(probe_of(&spec).probe().await, Ok(Some(Measure::Http { status: 200 })));
}

#[tokio::test]
async fn an_untrusted_certificate_is_our_fault() {
    let (folder, port) = (folder(), free_port());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (path("key.pem"), path("cert.pem"));
    run(Command::new("openssl").args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]).args([
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-days",
        "2",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ]));
    let accept = format!("127.0.0.1:{port}");
    let arguments = ["s_server", "-www", "-quiet", "-accept", &accept, "-key", &key, "-cert", &certificate];
    let _server = Running::start("openssl", None, &arguments, folder.path());
    wait_until("openssl listens", || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
    let trusting = |host: &str, trusted: Option<&str>| {
        let mut spec = http(&format!("https://{host}:{port}/"));
        if let ProbeSpec::Http { ca_file, .. } = &mut spec {
            *ca_file = trusted.map(Into::into);
        }
        probe_of(&spec)
    };
    assert_eq!(trusting("127.0.0.1", Some(&certificate)).probe().await, Ok(Some(Measure::Http { status: 200 })));
    let untrusted = trusting("127.0.0.1", None).probe().await;
    assert_eq!(kind(&untrusted), Some(FailureKind::OurFault), "{untrusted:?}");
    let other_name = trusting("127.0.0.2", Some(&certificate)).probe().await;
    assert!(matches!(kind(&other_name), Some(FailureKind::OurFault | FailureKind::Refused)), "{other_name:?}");
}

#[tokio::test]
async fn a_useless_ca_file_is_named_at_once() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = folder();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "not a certificate").unwrap();
    for file in [empty, "/nonexistent/ca.pem".into()] {
        let mut spec = http("https://127.0.0.1/");
        if let ProbeSpec::Http { ca_file, .. } = &mut spec {
            *ca_file = Some(file.clone());
        }
        let error = ProbeBuilder::default().build(&spec, ProbeSurroundings::default()).err().expect("it is useless");
        assert!(error.to_string().starts_with(&format!("ca_file {}", file.display())), "{error}");
    }
}
