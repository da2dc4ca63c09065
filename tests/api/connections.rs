//! Connections that come to nothing, and what each side is told: another authority, another name, too late, none, no TLS.

use std::process::{Command, Stdio};

use async_trait::async_trait;
use tonic::{Code, Request};
use watchdog::api::lease::{LeaseDesk, LeaseService, Told, Word};
use watchdog::clock::unix_now;
use watchdog::domain::identity::{Caller, Identity, Kind};
use watchdog::domain::ids::{ClusterName, UnixMs};
use watchdog::domain::lease::LeaseRequest;
use watchdog::proto::lease_server::Lease as _;
use watchdog::proto::{GateState, LeaseWord, RenewRequest};
use watchdog::tls::authority::{Ask, issue};
use watchdog::tls::dial::why;
use watchdog::tls::{Dialer, Expect, Files};

use crate::ctl::Said;
use crate::identity::Pki;
use crate::standin::{Log, StandInNode, config, serve};

fn ctl(endpoints: &str, files: Option<&Files>, words: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchdogctl"));
    command.args(words).env_clear().env("WATCHDOG_ENDPOINTS", endpoints).env("USER", "mallory").stdin(Stdio::null());
    if let Some(files) = files {
        command
            .env("WATCHDOG_CA", &files.ca)
            .env("WATCHDOG_CERTIFICATE", &files.certificate)
            .env("WATCHDOG_KEY", &files.key);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code().unwrap() }
}

#[tokio::test]
async fn an_operator_is_told_what_is_wrong_with_which_certificate() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (log, _node, served) = pki.leader().await;
    let good = pki.files("user-linh");
    let past = UnixMs(unix_now().0 - 40 * 24 * 3600 * 1000);
    let late = Ask { kind: Kind::User, name: "late", hosts: &[], days: 30, renew: false };
    issue(pki.folder.path(), &late, past).unwrap();
    let plain = StandInNode::new(3, &log);
    plain.lead();
    let plain = serve(&plain).await;
    let stranger = Files { ca: good.ca.clone(), ..other.files("user-linh") };
    let mixed = Files { ca: other.files("user-linh").ca, ..other.files("user-linh") };
    let elsewhere = "10.255.255.1:7101";
    for (what, endpoint, files, code, phrases) in [
        ("good", served.address.as_str(), Some(&good), 0, &[][..]),
        (
            "expired",
            &served.address,
            Some(&pki.files("user-late")),
            1,
            &["user-late.pem: it expired at 20", "issue a new one"][..],
        ),
        ("another's signature", &served.address, Some(&stranger), 1, &["user-linh.pem", "one certificate authority"]),
        (
            "another cluster's all three",
            &served.address,
            Some(&mixed),
            4,
            &["the certificate that it showed", "authority"],
        ),
        ("plain text to TLS", &served.address, None, 4, &["in plain text", "--certificate"]),
        ("TLS to plain text", &plain.address, Some(&good), 4, &["it speaks no TLS"]),
        ("plain text to another machine", elsewhere, None, 2, &["plain text is for loopback only", "WATCHDOG_CA"]),
        ("https without files", "https://127.0.0.1:1", None, 2, &["needs --ca, --certificate and --key"]),
        ("http with files", "http://127.0.0.1:1", Some(&good), 2, &["means plain text, but a certificate is given"]),
    ] {
        let said = ctl(endpoint, files, &["status"]);
        assert_eq!(said.code, code, "{what}: {}{}", said.stdout, said.stderr);
        for phrase in phrases {
            assert!(said.stderr.contains(phrase), "{what}: no {phrase:?} in {}", said.stderr);
        }
        assert!(code == 0 || said.stderr.contains("next: "), "{what}: {}", said.stderr);
    }
    // Nobody read a word of it: the outcome is not unknown.
    let said = ctl(&served.address, None, &["pause", "aicamera", "--reason", "why not", "--timeout", "600ms"]);
    assert!(said.code == 4 && said.stderr.contains("nothing was changed"), "{} {}", said.code, said.stderr);
    let said = ctl(&served.address, Some(&pki.files("user-vy")), &["pause", "aicamera", "--reason", "why not"]);
    assert!(
        said.code == 3 && said.stderr.contains("Pause needs role operator; watchdog://demo/user/vy has viewer"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("[[role]]"), "{}", said.stderr);
    let said = ctl(&served.address, Some(&good), &["pause", "aicamera", "--reason", "why not"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(log.state().audit.back().unwrap().by.as_str(), "user:linh", "and not mallory");
    let half = ctl(&served.address, None, &["status", "--ca", &good.ca.display().to_string()]);
    assert!(half.code == 2 && half.stderr.contains("the three go together"), "{}", half.stderr);
}

#[tokio::test]
async fn whoever_answers_must_be_who_was_called() {
    let pki = Pki::new();
    let (_log, _node, served) = pki.leader().await;
    let (demo, other): (ClusterName, ClusterName) = ("demo".into(), "other".into());
    let host = "db-hcmc".into();
    for (expect, wanted) in [
        (Expect::node(Some(&demo), Some(&"danang-1".into())), ""),
        (Expect::node(Some(&demo), None), ""),
        (Expect::node(None, None), ""),
        (
            Expect::node(Some(&demo), Some(&"hanoi-1".into())),
            "it is watchdog://demo/node/danang-1, and node hanoi-1 of cluster demo was called",
        ),
        (Expect::node(Some(&other), None), "a node of cluster other was called"),
        (Expect::guard(&demo, &host), "the guard of db-hcmc of cluster demo was called"),
    ] {
        let connector = Dialer::Tls(pki.material("node-hcmc-1")).to(expect);
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
        match endpoint.connect_with_connector(connector).await {
            Ok(_) => assert_eq!(wanted, ""),
            Err(error) => assert!(!wanted.is_empty() && why(&error).contains(wanted), "{}", why(&error)),
        }
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_the_one_who_is_called() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (_log, _node, served) = pki.leader().await;
    // It trusts the node's authority, as anybody may, and shows a certificate of its own.
    let files = other.files("user-linh");
    let both = other.folder.path().join("both.pem");
    let mut text = std::fs::read(&files.ca).unwrap();
    text.extend(std::fs::read(pki.folder.path().join("ca.pem")).unwrap());
    std::fs::write(&both, text).unwrap();
    let said = ctl(&served.address, Some(&Files { ca: both, ..files }), &["status"]);
    assert_eq!(said.code, 4, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("it refused the certificate that was shown to it"), "{}", said.stderr);
}

struct Yes;

#[async_trait]
impl LeaseDesk for Yes {
    fn cluster(&self) -> (ClusterName, u64) {
        ("demo".into(), 1)
    }

    async fn renew(&self, _request: LeaseRequest, _challenge: u64, _told: Told) -> Result<Word, String> {
        let (why, holders) = (String::new(), Vec::new());
        Ok(Word { word: LeaseWord::Granted, why, bound: true, holders, ground: None, ttl_ms: 2000, challenge: 7 })
    }
}

/// The other guard's certificate would keep a dead host's lease alive, or bind it where nothing is gated.
#[tokio::test]
async fn a_guard_renews_the_lease_of_its_own_host_only() {
    let log = Log::new();
    let node = StandInNode::new(3, &log);
    node.lead();
    let service = LeaseService::new(node, Dialer::Plain, std::sync::Arc::new(Yes));
    let roles = config().roles();
    for (who, forwarded, code) in [
        ("watchdog://demo/guard/db-hcmc", false, None),
        ("watchdog://demo/guard/db-hanoi", false, Some(Code::PermissionDenied)),
        ("watchdog://demo/guard/db-hanoi", true, Some(Code::PermissionDenied)),
        ("watchdog://demo/node/hcmc-1", true, None),
        ("watchdog://demo/node/hcmc-1", false, Some(Code::PermissionDenied)),
        ("watchdog://demo/user/an", false, Some(Code::PermissionDenied)),
    ] {
        let mut request = Request::new(RenewRequest {
            cluster: "demo".to_owned(),
            epoch: 1,
            group: "aicamera".to_owned(),
            host: "db-hcmc".to_owned(),
            region: "hcmc".to_owned(),
            ttl_ms: 2000,
            gate: GateState::Bounded.into(),
            nonce: 5,
            forwarded,
            ..RenewRequest::default()
        });
        let identity = Identity::parse(who).unwrap();
        request.extensions_mut().insert(Caller::Proven { held: roles.of(&identity), identity });
        let answer = service.renew(request).await;
        assert_eq!(answer.err().map(|status| status.code()), code, "{who} {forwarded}");
    }
}
