//! Requests that must be refused, each with its own code and words; and that a refusal changes nothing.

use std::collections::BTreeMap;
use std::fs;

use watchdog::domain::ids::Token;
use watchdog::guard::host::{boot_nonce, boottime_ms};
use watchdog::guard::protocol::{REQUEST_BYTES_MAX, Refusal, Reply, Request};

use crate::host::{Host, act, flip, read_back, warrant};

fn refused(host: &Host, request: &Request, refusal: Refusal, code: i32, words: &str) {
    let (reply, exit) = host.ask(request);
    assert_refused(&reply, exit, refusal, code, words);
}

fn assert_refused(reply: &Reply, exit: i32, wanted: Refusal, code: i32, words: &str) {
    match reply {
        Reply::Refused { refusal, reason, .. } => {
            assert_eq!((*refusal, exit), (wanted, code), "{reason}");
            assert!(reason.contains(words), "{reason:?} does not say {words:?}");
        }
        other => panic!("{other:?} instead of {wanted:?}"),
    }
}

#[test]
fn garbage_is_named_and_changes_nothing() {
    let host = Host::new("");
    let before = fs::read(host.state("token.json")).unwrap();
    let act = serde_json::to_string(&act(&warrant("r1", "s", 3), "once")).unwrap();
    let cut = &act[..act.len() / 2];
    let huge = format!("{}{}", " ".repeat(REQUEST_BYTES_MAX), act);
    for (bytes, words) in [
        (b"".to_vec(), "empty"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "more than one line"),
        (b"\x00\x01\x02\xff".to_vec(), "UTF-8"),
        (cut.as_bytes().to_vec(), "EOF"),
        (act.replace("\"token\"", "\"tokens\"").into_bytes(), "unknown field `tokens`"),
        (act.replace("\"n\":3", "\"n\":3,\"m\":1").into_bytes(), "unknown field `m`"),
        (act.replace("\"n\":3", "\"n\":0").into_bytes(), "count from 1"),
        (act.replace("\"n\":3", "\"n\":18446744073709551616").into_bytes(), "invalid type"),
        (act.replace("\"epoch\":1,\"action\"", "\"epoch\":2,\"action\"").into_bytes(), "not of the request's epoch"),
        (act.replace("\"run\":\"r1\",", "").into_bytes(), "run is missing"),
        (act.replace("\"r1\"", "\"../../etc\"").into_bytes(), "is not a name"),
        (act.replace("\"boot_nonce\"", "\"abort\":true,\"boot_nonce\"").into_bytes(), "abort goes with raise"),
        (format!("{act}\n{act}\n").into_bytes(), "more than one line"),
        (huge.into_bytes(), "longer than 65536"),
    ] {
        let (reply, exit) = host.ask_raw(&bytes);
        assert_refused(&reply, exit, Refusal::BadRequest, 20, words);
    }
    let mut no_time = crate::host::act(&warrant("r1", "s", 3), "once");
    no_time.not_after_boottime_ms = None;
    refused(&host, &no_time, Refusal::BadRequest, 20, "not_after_boottime_ms");
    assert_eq!(fs::read(host.state("token.json")).unwrap(), before);
    assert_eq!(host.effects(), 0);
}

#[test]
fn each_refusal_has_its_code_and_words() {
    let host = Host::new("");
    let held = warrant("r1", "s", 5);
    assert_eq!(host.ask(&Request::raise(&held, false)).1, 0);
    let before = fs::read(host.state("token.json")).unwrap();

    let mut other = act(&held, "once");
    other.cluster = "other".into();
    refused(&host, &other, Refusal::AnotherCluster, 21, "serves cluster \"demo\", not \"other\"");
    let mut status = Request::status("other".into(), 1);
    refused(&host, &status, Refusal::AnotherCluster, 21, "not \"other\"");
    status.cluster = "demo".into();
    assert_eq!(host.ask(&status).1, 0);
    let mut rebuilt = held.clone();
    rebuilt.token = Token { epoch: 2, n: 1 };
    refused(&host, &act(&rebuilt, "once"), Refusal::AnotherCluster, 21, "enrolled with cluster \"demo\" epoch 1");

    for lower in [
        act(&warrant("r0", "s", 4), "once"),
        read_back(&warrant("r0", "s", 4), "once"),
        Request::raise(&warrant("r0", "s", 4), false),
    ] {
        refused(&host, &lower, Refusal::LowerToken, 22, "1.4 is lower than 1.5");
        let Reply::Refused { held, .. } = host.ask(&lower).0 else { panic!("refused") };
        assert_eq!(held, Some(Token { epoch: 1, n: 5 }));
    }

    let late = Request::act(&warrant("r1", "s", 6), "once", BTreeMap::new(), &boot_nonce(), boottime_ms() - 1);
    refused(&host, &late, Refusal::Expired, 23, "passed");
    let far = boottime_ms() + 60_000;
    let before_boot = Request::act(&warrant("r1", "s", 6), "once", BTreeMap::new(), "another", far);
    refused(&host, &before_boot, Refusal::AnotherBoot, 24, "booted since");
    let mut unknown_group = act(&held, "once");
    unknown_group.group = Some("payments".into());
    refused(&host, &unknown_group, Refusal::UnknownGroup, 27, "payments");
    assert_eq!(fs::read(host.state("token.json")).unwrap(), before, "a refusal raised the token");

    refused(&host, &act(&held, "reboot"), Refusal::UnknownAction, 25, "\"reboot\"");
    refused(&host, &act(&held, "promote"), Refusal::UnknownAction, 25, "[postgres]");
    for (name, value, words) in [
        ("replicas", Some("3;x"), "';'"),
        ("replicas", Some("1234"), "longer than 3"),
        ("replicas", Some("-1"), "begins with '-'"),
        ("replicas", None, "missing"),
        ("namespace", Some("x"), "not declared"),
    ] {
        let params = value.map(|value| (name.to_owned(), value.to_owned())).into_iter().collect();
        let request = Request::act(&held, "scale", params, &boot_nonce(), far);
        refused(&host, &request, Refusal::BadParameter, 26, words);
    }
    let params = BTreeMap::from([("replicas".to_owned(), "12".to_owned())]);
    let (reply, code) = host.ask(&Request::act(&held, "scale", params, &boot_nonce(), far));
    assert!(
        matches!(&reply, Reply::Done { evidence, acted: true } if evidence.contains("--replicas|12|")),
        "{reply:?}"
    );
    assert_eq!((code, host.effects()), (0, 0));
}

#[test]
fn a_missing_or_damaged_store_is_not_zero() {
    let host = Host::not_enrolled("");
    let request = act(&warrant("r1", "s", 5), "once");
    refused(&host, &request, Refusal::NotEnrolled, 28, "watchdog-guard enroll --group aicamera");
    host.enroll(1);
    assert_eq!(host.ask(&request).1, 0);

    let good = fs::read(host.state("token.json")).unwrap();
    flip(&host.state("token.json"));
    refused(&host, &act(&warrant("r1", "s", 6), "once"), Refusal::DamagedStore, 29, "token.json is damaged");
    fs::write(host.state("token.json"), &good[..good.len() / 2]).unwrap();
    refused(&host, &Request::raise(&warrant("r1", "s", 6), false), Refusal::DamagedStore, 29, "cut short");
    fs::write(host.state("token.json"), "").unwrap();
    refused(&host, &read_back(&warrant("r1", "s", 6), "once"), Refusal::DamagedStore, 29, "token.json");
    let fault = host.status().groups[0].fault.clone();
    assert!(fault.is_some_and(|fault| fault.contains("everything is refused")));
    fs::remove_file(host.state("token.json")).unwrap();
    refused(&host, &act(&warrant("r1", "s", 6), "once"), Refusal::NotEnrolled, 28, "not enrolled");

    // Enrolled again, it believes what the ledger still shows: 1.5 was seen.
    host.enroll(1);
    refused(&host, &act(&warrant("r0", "s", 4), "once"), Refusal::LowerToken, 22, "1.5");
    assert_eq!(host.effects(), 1);
}

#[test]
fn a_damaged_ledger_is_refused_until_set_aside_by_name() {
    let host = Host::new("");
    let request = act(&warrant("r1", "s", 5), "once");
    assert_eq!(host.ask(&request).1, 0);
    flip(&host.state("ledger.log"));
    refused(&host, &act(&warrant("r1", "t", 5), "once"), Refusal::DamagedLedger, 30, "ledger.log is damaged: line");
    let words = ["set-ledger-aside", "--group", "aicamera", "--confirm", "elsewhere"];
    assert_eq!(host.run(&words).status.code(), Some(1));
    let name = crate::host::name();
    assert!(host.run(&["set-ledger-aside", "--group", "aicamera", "--confirm", &name]).status.success());
    assert_eq!(host.ask(&act(&warrant("r1", "t", 5), "once")).1, 0);
    let kept = fs::read_dir(host.path("state/aicamera")).unwrap();
    assert!(kept.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("ledger.damaged-")));
}

#[test]
fn failures_of_commands_are_told_apart() {
    let host = Host::new("");
    let (reply, code) = host.ask(&act(&warrant("r1", "fails", 5), "fails"));
    assert!(
        matches!(&reply, Reply::Failed { retryable: true, reason } if reason.contains("exited with 5: no such service"))
    );
    assert_eq!((code, host.effects()), (10, 1), "the row goes no further than the command that failed");
    let (reply, code) = host.ask(&act(&warrant("r1", "missing", 5), "missing"));
    assert!(matches!(&reply, Reply::Failed { retryable: false, reason } if reason.contains("/no/such/program")));
    assert_eq!(code, 10);
    let (reply, code) = host.ask(&act(&warrant("r1", "brief", 5), "brief"));
    assert!(matches!(&reply, Reply::Unknown { reason } if reason.contains("did not end in its time")), "{reply:?}");
    assert_eq!(code, 11);
    assert_eq!(host.events("brief"), ["started", "unknown"]);
}

#[test]
fn a_broken_configuration_is_told_in_the_answer() {
    let host = Host::not_enrolled("surprise = 1\n");
    let (reply, code) = host.ask(&Request::status("demo".into(), 1));
    assert!(matches!(&reply, Reply::Failed { retryable: false, reason } if reason.contains("surprise")), "{reply:?}");
    assert_eq!(code, 1);
}
