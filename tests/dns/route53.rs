//! The DNS actuator against a Route 53 API server: change batches as compare-and-swap.

use std::sync::Arc;

use futures::future::join_all;
use watchdog::actuator::Actuator;
use watchdog::actuator::dns::DnsActuator;
use watchdog::domain::attempt::{Outcome, Raised, ReadBack};
use watchdog::domain::plan::{DnsProvider, DnsRecord, RecordKind};

use crate::parts::{Pass, Route53, network_stand_in, wait_until};
use crate::{API, TOKEN_RECORD, a, ample, evidence, failure, token, upsert, warrant, within};

fn is_change(piece: &[u8]) -> bool {
    piece.starts_with(b"POST ")
}

#[tokio::test]
async fn first_claim_raise_upsert_and_repetition() {
    let aws = Route53::start().await;
    let dns = DnsActuator::new();
    let to_hanoi = upsert(&aws.provider(), vec![a("127.0.0.12")]);
    let w = warrant(1, "r1");
    let before = dns.read_back(&w, &to_hanoi, ample()).await;
    assert!(matches!(&before, ReadBack::NotDone { evidence } if evidence.contains("no token")), "{before:?}");
    assert_eq!(dns.raise(&w, &to_hanoi, ample()).await, Raised::Done { in_flight: None });
    let text = "\"v=watchdog1 cluster=demo group=aicamera token=1.1 run=r1\"";
    assert_eq!(aws.values(TOKEN_RECORD, "TXT").await, [text]);
    assert!(aws.values(API, "A").await.is_empty(), "raising changes no record");
    let done = dns.execute(&w, &to_hanoi, ample()).await;
    assert!(evidence(&done).contains("INSYNC") && evidence(&done).contains("127.0.0.12"), "{done:?}");
    assert_eq!(aws.values(API, "A").await, ["127.0.0.12"]);
    let again = dns.execute(&w, &to_hanoi, ample()).await;
    assert!(evidence(&again).contains("already so"), "{again:?}");
    assert_eq!(dns.raise(&w, &to_hanoi, ample()).await, Raised::Done { in_flight: None });
    // A node that did not send the change says what it cannot know.
    let other_node = DnsActuator::new();
    let read = other_node.read_back(&warrant(2, "r1"), &to_hanoi, ample()).await;
    assert!(matches!(&read, ReadBack::Done { evidence } if evidence.contains("is not known")), "{read:?}");
    assert!(matches!(dns.read_back(&warrant(2, "r2"), &to_hanoi, ample()).await, ReadBack::NotDone { .. }));
}

#[tokio::test]
async fn a_stale_writer_is_refused_by_name() {
    let aws = Route53::start().await;
    let dns = DnsActuator::new();
    let (old, new) = (upsert(&aws.provider(), vec![a("127.0.0.11")]), upsert(&aws.provider(), vec![a("127.0.0.12")]));
    evidence(&dns.execute(&warrant(7, "r2"), &new, ample()).await);
    assert_eq!(dns.execute(&warrant(6, "r1"), &old, ample()).await, Outcome::Refused { held: token(7) });
    assert_eq!(dns.raise(&warrant(6, "r1"), &old, ample()).await, Raised::Refused { held: token(7) });
    assert_eq!(dns.read_back(&warrant(6, "r1"), &old, ample()).await, ReadBack::Refused { held: token(7) });
    assert_eq!(aws.values(API, "A").await, ["127.0.0.12"]);
}

#[tokio::test]
async fn of_3_that_read_the_same_exactly_one_writes() {
    let aws = Route53::start().await;
    let dns = DnsActuator::new();
    for round in 1..=3 {
        // All changes are held until every writer has read and sent its own.
        let barrier = Arc::new(tokio::sync::Barrier::new(3));
        let judge = move |piece: &[u8]| if is_change(piece) { Pass::Together(Arc::clone(&barrier)) } else { Pass::On };
        let provider = &aws.provider_at(&network_stand_in(&aws.address, judge).await);
        let attempts = (0..3).map(|n| {
            let dns = &dns;
            async move {
                let action = upsert(provider, vec![a(&format!("127.0.{round}.{n}"))]);
                dns.execute(&warrant(round * 100 + n, &format!("run-{round}-{n}")), &action, ample()).await
            }
        });
        let outcomes = join_all(attempts).await;
        let won: Vec<u64> = (0..3).filter(|n| matches!(outcomes[*n as usize], Outcome::Done { .. })).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        for (n, outcome) in (0..).zip(&outcomes).filter(|(n, _)| *n != won[0]) {
            match outcome {
                Outcome::Refused { held } => {
                    assert!(n < won[0] && *held == token(round * 100 + won[0]), "{n}: {outcomes:?}")
                }
                other => {
                    assert!(n > won[0] && failure(other, true).contains("nothing was written"), "{n}: {outcomes:?}")
                }
            }
        }
        assert_eq!(aws.values(API, "A").await, [format!("127.0.{round}.{}", won[0])]);
    }
}

#[tokio::test]
async fn text_of_others_is_replaced_and_told() {
    let aws = Route53::start().await;
    let dns = DnsActuator::new();
    let action = upsert(&aws.provider(), vec![a("127.0.0.12")]);
    aws.change("UPSERT", TOKEN_RECORD, "TXT", &["\"hello\"", "\"two\" \"parts\""]).await;
    let done = dns.execute(&warrant(3, "r1"), &action, ample()).await;
    assert!(evidence(&done).contains("hello") && evidence(&done).contains("twoparts"), "{done:?}");
    assert_eq!(aws.values(TOKEN_RECORD, "TXT").await.len(), 1);
    let old = "\"v=watchdog1 cluster=demo group=aicamera token=1.1 run=r0\"";
    aws.change("UPSERT", TOKEN_RECORD, "TXT", &[old]).await;
    assert!(matches!(dns.read_back(&warrant(3, "r1"), &action, ample()).await, ReadBack::NotDone { .. }));
    let done = dns.execute(&warrant(3, "r1"), &action, ample()).await;
    assert!(evidence(&done).contains("was token 1.1 of run r0"), "{done:?}");
    aws.change("DELETE", TOKEN_RECORD, "TXT", &[&aws.values(TOKEN_RECORD, "TXT").await[0]]).await;
    let done = dns.execute(&warrant(3, "r1"), &action, ample()).await;
    assert!(evidence(&done).contains("there was no token"), "{done:?}");
    aws.change("UPSERT", TOKEN_RECORD, "TXT", &[&old.replace("aicamera", "market")]).await;
    let failed = dns.execute(&warrant(4, "r2"), &action, ample()).await;
    assert!(failure(&failed, false).contains("market"), "{failed:?}");
}

#[tokio::test]
async fn long_run_ids_are_cut_into_strings() {
    let aws = Route53::start().await;
    let dns = DnsActuator::new();
    let action = upsert(&aws.provider(), vec![a("127.0.0.12")]);
    let w = warrant(1, &"r".repeat(600));
    evidence(&dns.execute(&w, &action, ample()).await);
    assert_eq!(aws.values(TOKEN_RECORD, "TXT").await[0].matches("\" \"").count(), 2);
    assert!(matches!(dns.read_back(&w, &action, ample()).await, ReadBack::Done { .. }));
}

#[tokio::test]
async fn aliases_and_addresses_replace_one_another() {
    let aws = Route53::start().await;
    let dns = DnsActuator::new();
    let record = |kind, value: &str| DnsRecord { name: API.into(), kind, ttl_s: 300, value: value.into() };
    let address = vec![a("127.0.0.11"), record(RecordKind::Aaaa, "2001:DB8::1")];
    evidence(&dns.execute(&warrant(1, "r1"), &upsert(&aws.provider(), address), ample()).await);
    let alias = upsert(&aws.provider(), vec![record(RecordKind::Cname, "LB.hanoi.example")]);
    evidence(&dns.execute(&warrant(2, "r2"), &alias, ample()).await);
    assert_eq!(aws.values(API, "CNAME").await, ["lb.hanoi.example."]);
    assert!(aws.values(API, "A").await.is_empty() && aws.values(API, "AAAA").await.is_empty());
    let back = upsert(&aws.provider(), vec![a("127.0.0.11")]);
    evidence(&dns.execute(&warrant(3, "r3"), &back, ample()).await);
    assert_eq!(aws.values(API, "A").await, ["127.0.0.11"]);
    assert!(aws.values(API, "CNAME").await.is_empty());
    assert!(matches!(dns.read_back(&warrant(3, "r3"), &back, ample()).await, ReadBack::Done { .. }));
}

#[tokio::test]
async fn faults_of_ours_are_named() {
    let aws = Route53::start().await;
    let dns = DnsActuator::new();
    let DnsProvider::Route53 { name, hosted_zone_id, endpoint_url, credentials_file } = aws.provider() else {
        panic!()
    };
    let garbage = aws.folder.path().join("garbage");
    std::fs::write(&garbage, "this is no credentials file: TOPSECRET").unwrap();
    let with = |zone: &str, endpoint: &str, credentials: &str| DnsProvider::Route53 {
        name: name.clone(),
        hosted_zone_id: zone.into(),
        endpoint_url: Some(endpoint.into()),
        credentials_file: Some(credentials.into()),
    };
    let (url, file) = (endpoint_url.unwrap(), credentials_file.unwrap());
    for (provider, retryable, word) in [
        (with("ZNOSUCHZONE", &url, &file), false, "NoSuchHostedZone"),
        (with(&hosted_zone_id, &url, "/nowhere/credentials"), false, "/nowhere/credentials"),
        (with(&hosted_zone_id, &url, &garbage.display().to_string()), false, "line 1"),
        (with(&hosted_zone_id, "http://127.0.0.1:1", &file), true, "cannot be reached"),
    ] {
        let failed = dns.execute(&warrant(1, "r1"), &upsert(&provider, vec![a("127.0.0.12")]), ample()).await;
        assert!(failure(&failed, retryable).contains(word), "{word}: {failed:?}");
        assert!(!format!("{failed:?}").contains("TOPSECRET"), "{failed:?}");
    }
}

#[tokio::test]
async fn answers_to_a_change_are_taken_for_what_they_prove() {
    let aws = Route53::start().await;
    let error = |status: &str, code: &str| {
        let body = format!(
            "<?xml version=\"1.0\"?><ErrorResponse xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Error><Type>Sender\
             </Type><Code>{code}</Code><Message>told</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        );
        format!("HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    for (answer, want) in [
        (error("400 Bad Request", "Throttling"), "Failed { retryable: true"),
        (error("400 Bad Request", "PriorRequestNotComplete"), "Failed { retryable: true"),
        (error("400 Bad Request", "InvalidChangeBatch"), "Failed { retryable: true"),
        (error("403 Forbidden", "AccessDenied"), "Failed { retryable: false"),
        (error("403 Forbidden", "SignatureDoesNotMatch"), "Failed { retryable: false"),
        (error("503 Service Unavailable", "ServiceUnavailable"), "Unknown"),
        (error("500 Internal Server Error", "Whatever"), "Unknown"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ngarbage".to_owned(), "Unknown"),
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\nhtml".to_owned(), "Unknown"),
        ("garbage\r\n\r\n".to_owned(), "Unknown"),
    ] {
        let canned = answer.clone();
        let judge =
            move |piece: &[u8]| if is_change(piece) { Pass::Answer(canned.clone().into_bytes()) } else { Pass::On };
        let provider = aws.provider_at(&network_stand_in(&aws.address, judge).await);
        let dns = DnsActuator::new();
        let outcome = dns.execute(&warrant(1, "r1"), &upsert(&provider, vec![a("127.0.0.12")]), within(5000)).await;
        assert!(format!("{outcome:?}").starts_with(want), "{answer}: {outcome:?}");
    }
    assert!(aws.values(TOKEN_RECORD, "TXT").await.is_empty());
}

#[tokio::test]
async fn an_outage_in_the_middle_of_a_change_is_unknown_until_read_back() {
    let aws = Arc::new(Route53::start().await);
    let dns = DnsActuator::new();
    // The server freezes just before the change reaches it, and thaws later: the change is carried out after all.
    let frozen = Arc::clone(&aws);
    let judge = move |piece: &[u8]| {
        if is_change(piece) {
            frozen.program.freeze();
        }
        Pass::On
    };
    let provider = aws.provider_at(&network_stand_in(&aws.address, judge).await);
    let action = upsert(&provider, vec![a("127.0.0.12")]);
    let w = warrant(1, "r1");
    let outcome = dns.execute(&w, &action, within(2000)).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    let read = dns.read_back(&w, &action, within(300)).await;
    assert!(matches!(read, ReadBack::Unknown { .. }), "{read:?}");
    aws.program.thaw();
    wait_until("the change is read back", || async {
        matches!(dns.read_back(&w, &action, within(2000)).await, ReadBack::Done { .. })
    })
    .await;
    // The change never reaches the server, or only its answer is lost: the same outcome, another truth.
    for (n, arrives) in [(2, false), (3, true)] {
        let judge = move |piece: &[u8]| match (is_change(piece), arrives) {
            (true, true) => Pass::SwallowAnswer,
            (true, false) => Pass::Swallow,
            (false, _) => Pass::On,
        };
        let provider = aws.provider_at(&network_stand_in(&aws.address, judge).await);
        let action = upsert(&provider, vec![a(&format!("127.0.1.{n}"))]);
        let w = warrant(n, &format!("r{n}"));
        let outcome = dns.execute(&w, &action, within(1000)).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
        let read =
            DnsActuator::new().read_back(&w, &upsert(&aws.provider(), vec![a(&format!("127.0.1.{n}"))]), ample()).await;
        assert_eq!(matches!(read, ReadBack::Done { .. }), arrives, "{read:?}");
        assert_eq!(matches!(read, ReadBack::NotDone { .. }), !arrives, "{read:?}");
    }
}
