//! The DNS actuator against BIND: signed updates with a prerequisite.

use futures::future::join_all;
use watchdog::actuator::Actuator;
use watchdog::actuator::dns::DnsActuator;
use watchdog::clock;
use watchdog::domain::attempt::{Outcome, Raised, ReadBack};
use watchdog::domain::plan::{DnsProvider, DnsRecord, RecordKind};
use watchdog::resolve::Question;

use std::sync::Arc;

use crate::parts::{Named, POWERLESS_KEY, Pass, network_stand_in, wait_until};
use crate::{API, TOKEN_RECORD, a, ample, evidence, failure, token, upsert, warrant, within};

/// The operation stands in the third byte after the length.
fn is_update(piece: &[u8]) -> bool {
    const UPDATE: u8 = 5;
    piece.len() > 4 && (piece[4] >> 3) & 0xf == UPDATE
}

#[tokio::test]
async fn first_claim_raise_upsert_and_repetition() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let to_hanoi = upsert(&named.provider(), vec![a("127.0.0.12")]);
    let w = warrant(1, "r1");
    let before = dns.read_back(&w, &to_hanoi, ample()).await;
    assert!(matches!(&before, ReadBack::NotDone { evidence } if evidence.contains("no token")), "{before:?}");
    assert_eq!(dns.raise(&w, &to_hanoi, ample()).await, Raised::Done { in_flight: None });
    assert_eq!(
        named.answers(TOKEN_RECORD, Question::Txt).await,
        ["v=watchdog1 cluster=demo group=aicamera token=1.1 run=r1"]
    );
    assert!(named.answers(API, Question::A).await.is_empty(), "raising changes no record");
    let raised = dns.read_back(&w, &to_hanoi, ample()).await;
    assert!(matches!(&raised, ReadBack::NotDone { evidence } if evidence.contains("not there")), "{raised:?}");
    let done = dns.execute(&w, &to_hanoi, ample()).await;
    assert!(evidence(&done).contains("set api.demo.test. 300 A 127.0.0.12 with token 1.1"), "{done:?}");
    assert_eq!(named.answers(API, Question::A).await, ["127.0.0.12"]);
    let again = dns.execute(&w, &to_hanoi, ample()).await;
    assert!(evidence(&again).contains("already so"), "{again:?}");
    assert_eq!(dns.raise(&w, &to_hanoi, ample()).await, Raised::Done { in_flight: None });
    let read = dns.read_back(&w, &to_hanoi, ample()).await;
    assert!(matches!(&read, ReadBack::Done { evidence } if evidence.contains("token 1.1")), "{read:?}");
    // The next claim of the same run finds it done; another run does not take it for its own.
    assert!(matches!(dns.read_back(&warrant(2, "r1"), &to_hanoi, ample()).await, ReadBack::Done { .. }));
    assert!(matches!(dns.read_back(&warrant(2, "r2"), &to_hanoi, ample()).await, ReadBack::NotDone { .. }));
}

#[tokio::test]
async fn a_stale_writer_is_refused_by_name() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let (old, new) =
        (upsert(&named.provider(), vec![a("127.0.0.11")]), upsert(&named.provider(), vec![a("127.0.0.12")]));
    evidence(&dns.execute(&warrant(7, "r2"), &new, ample()).await);
    assert_eq!(dns.execute(&warrant(6, "r1"), &old, ample()).await, Outcome::Refused { held: token(7) });
    assert_eq!(dns.raise(&warrant(6, "r1"), &old, ample()).await, Raised::Refused { held: token(7) });
    assert_eq!(dns.read_back(&warrant(6, "r1"), &old, ample()).await, ReadBack::Refused { held: token(7) });
    assert_eq!(named.answers(API, Question::A).await, ["127.0.0.12"]);
}

#[tokio::test]
async fn of_20_that_read_the_same_exactly_one_writes() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    for round in 1..=3 {
        // All changes are held until every writer has read and sent its own.
        let barrier = Arc::new(tokio::sync::Barrier::new(20));
        let judge = move |piece: &[u8]| if is_update(piece) { Pass::Together(Arc::clone(&barrier)) } else { Pass::On };
        let provider = &named.provider_at(&network_stand_in(&named.address, judge).await);
        let attempts = (0..20).map(|n| {
            let dns = &dns;
            async move {
                let action = upsert(provider, vec![a(&format!("127.0.{round}.{n}"))]);
                dns.execute(&warrant(round * 100 + n, &format!("run-{round}-{n}")), &action, ample()).await
            }
        });
        let outcomes = join_all(attempts).await;
        let won: Vec<u64> = (0..20).filter(|n| matches!(outcomes[*n as usize], Outcome::Done { .. })).collect();
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
        assert_eq!(named.answers(API, Question::A).await, [format!("127.0.{round}.{}", won[0])]);
    }
}

#[tokio::test]
async fn of_20_different_tokens_none_is_overtaken_by_a_lower_one() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let attempts = (1..=20).map(|n| {
        let (dns, provider) = (&dns, named.provider());
        async move {
            let action = upsert(&provider, vec![a(&format!("127.0.0.{n}"))]);
            dns.execute(&warrant(n, &format!("r{n}")), &action, ample()).await
        }
    });
    let outcomes = join_all(attempts).await;
    let highest = (1..=20).rev().find(|n| matches!(outcomes[*n as usize - 1], Outcome::Done { .. })).unwrap();
    assert!(outcomes.iter().all(|o| !matches!(o, Outcome::Unknown { .. })), "{outcomes:?}");
    assert_eq!(named.answers(API, Question::A).await, [format!("127.0.0.{highest}")]);
    assert!(named.answers(TOKEN_RECORD, Question::Txt).await[0].contains(&format!("token=1.{highest} ")));
}

#[tokio::test]
async fn text_of_others_is_replaced_and_told() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let action = upsert(&named.provider(), vec![a("127.0.0.12")]);
    named.nsupdate(&format!(
        "update add {TOKEN_RECORD} 60 TXT \"hello\"\nupdate add {TOKEN_RECORD} 60 TXT \"a\\\"b\" \"c\""
    ));
    let done = dns.execute(&warrant(3, "r1"), &action, ample()).await;
    assert!(evidence(&done).contains("somebody else") && evidence(&done).contains("hello"), "{done:?}");
    assert_eq!(named.answers(TOKEN_RECORD, Question::Txt).await.len(), 1);
    // A lower token than the log expects: a zone restored from yesterday.
    let old = "v=watchdog1 cluster=demo group=aicamera token=1.1 run=r0";
    named.nsupdate(&format!("update delete {TOKEN_RECORD} TXT\nupdate add {TOKEN_RECORD} 60 TXT \"{old}\""));
    assert!(matches!(dns.read_back(&warrant(3, "r1"), &action, ample()).await, ReadBack::NotDone { .. }));
    let done = dns.execute(&warrant(3, "r1"), &action, ample()).await;
    assert!(evidence(&done).contains("was token 1.1 of run r0"), "{done:?}");
    // None at all.
    named.nsupdate(&format!("update delete {TOKEN_RECORD} TXT"));
    let done = dns.execute(&warrant(3, "r1"), &action, ample()).await;
    assert!(evidence(&done).contains("there was no token"), "{done:?}");
    // Another group's is never touched.
    let other = "v=watchdog1 cluster=demo group=market token=1.1 run=r0";
    named.nsupdate(&format!("update delete {TOKEN_RECORD} TXT\nupdate add {TOKEN_RECORD} 60 TXT \"{other}\""));
    let failed = dns.execute(&warrant(4, "r2"), &action, ample()).await;
    assert!(failure(&failed, false).contains("market"), "{failed:?}");
    assert!(matches!(dns.raise(&warrant(4, "r2"), &action, ample()).await, Raised::Unknown { .. }));
    assert_eq!(named.answers(TOKEN_RECORD, Question::Txt).await, [other]);
}

#[tokio::test]
async fn aliases_and_addresses_replace_one_another() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let record = |kind, value: &str| DnsRecord { name: API.into(), kind, ttl_s: 300, value: value.into() };
    let address = vec![a("127.0.0.11"), record(RecordKind::Aaaa, "2001:DB8::1")];
    evidence(&dns.execute(&warrant(1, "r1"), &upsert(&named.provider(), address), ample()).await);
    assert_eq!(named.answers(API, Question::Aaaa).await, ["2001:db8::1"]);
    let alias = upsert(&named.provider(), vec![record(RecordKind::Cname, "LB.hanoi.example")]);
    evidence(&dns.execute(&warrant(2, "r2"), &alias, ample()).await);
    assert_eq!(named.answers(API, Question::Cname).await, ["lb.hanoi.example."]);
    let back = upsert(&named.provider(), vec![a("127.0.0.11")]);
    evidence(&dns.execute(&warrant(3, "r3"), &back, ample()).await);
    assert!(named.answers(API, Question::Cname).await.is_empty());
    assert_eq!(named.answers(API, Question::A).await, ["127.0.0.11"]);
    // BIND takes an alias at the zone's own name without a word, and does nothing.
    let apex = DnsRecord { name: "demo.test.".into(), kind: RecordKind::Cname, ttl_s: 300, value: "x.test.".into() };
    let failed = dns.execute(&warrant(4, "r4"), &upsert(&named.provider(), vec![apex]), ample()).await;
    assert!(failure(&failed, false).contains("ignored"), "{failed:?}");
}

#[tokio::test]
async fn faults_of_ours_are_named() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let execute = async |provider: &DnsProvider| {
        dns.execute(&warrant(1, "r1"), &upsert(provider, vec![a("127.0.0.12")]), ample()).await
    };
    for (provider, word) in [
        (named.provider_with("watchdog.", POWERLESS_KEY), "BADSIG"),
        (named.provider_with("nobody.", POWERLESS_KEY), "BADKEY"),
        (named.provider_with("powerless.", POWERLESS_KEY), "REFUSED"),
        (named.provider_with("watchdog.", "not base64!"), "not base64"),
        (named.provider_with("watchdog.", ""), "empty"),
    ] {
        let failed = execute(&provider).await;
        assert!(failure(&failed, false).contains(word), "{word}: {failed:?}");
        assert!(!format!("{failed:?}").contains("not base64!"), "no secret is told: {failed:?}");
    }
    let good = named.provider();
    let DnsProvider::Rfc2136 { name, server, zone, key_name, key_file } = good else { unreachable!() };
    let with = |server: &str, zone: &str, key_file: &str| DnsProvider::Rfc2136 {
        name: name.clone(),
        server: server.into(),
        zone: zone.into(),
        key_name: key_name.clone(),
        key_file: key_file.into(),
    };
    for (provider, retryable, word) in [
        (with(&server, "other.test.", &key_file), false, "not in the zone"),
        (with(&server, "test.", &key_file), false, "NOTAUTH"),
        (with(&server, &zone, "/nowhere/key"), false, "/nowhere/key"),
        (with("nobody", &zone, &key_file), false, "address:port"),
        (with("127.0.0.1:1", &zone, &key_file), true, "cannot be reached"),
    ] {
        let failed = execute(&provider).await;
        assert!(failure(&failed, retryable).contains(word), "{word}: {failed:?}");
    }
    assert!(named.answers(TOKEN_RECORD, Question::Txt).await.is_empty());
}

#[tokio::test]
async fn a_clock_an_hour_off_is_named() {
    let named = Named::start().await;
    let dns = DnsActuator::with_clock(|| clock::unix_now().plus(3_600_000));
    let failed = dns.execute(&warrant(1, "r1"), &upsert(&named.provider(), vec![a("127.0.0.12")]), ample()).await;
    assert!(failure(&failed, true).contains("BADTIME"), "{failed:?}");
}

#[tokio::test]
async fn a_frozen_server_leaves_no_lie_behind() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let action = upsert(&named.provider(), vec![a("127.0.0.12")]);
    let w = warrant(1, "r1");
    named.program.freeze();
    // The reading before it got no answer, so nothing was sent that could change anything.
    let failed = dns.execute(&w, &action, within(300)).await;
    failure(&failed, true);
    assert!(matches!(dns.raise(&w, &action, within(300)).await, Raised::Unknown { .. }));
    assert!(matches!(dns.read_back(&w, &action, within(300)).await, ReadBack::Unknown { .. }));
    named.program.thaw();
    wait_until("the thawed server is read", || async {
        matches!(dns.read_back(&w, &action, within(1000)).await, ReadBack::NotDone { .. })
    })
    .await;
    assert!(named.answers(API, Question::A).await.is_empty());
    evidence(&dns.execute(&w, &action, ample()).await);
}

#[tokio::test]
async fn an_outage_in_the_middle_of_an_update_is_unknown_until_read_back() {
    let named = Arc::new(Named::start().await);
    let dns = DnsActuator::new();
    // The server freezes just before the update reaches it, and thaws later: the update is carried out after all.
    let frozen = Arc::clone(&named);
    let judge = move |piece: &[u8]| {
        if is_update(piece) {
            frozen.program.freeze();
        }
        Pass::On
    };
    let action = upsert(&named.provider_at(&network_stand_in(&named.address, judge).await), vec![a("127.0.0.12")]);
    let w = warrant(1, "r1");
    let outcome = dns.execute(&w, &action, within(1000)).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
    let read = dns.read_back(&w, &action, within(300)).await;
    assert!(matches!(read, ReadBack::Unknown { .. }), "{read:?}");
    named.program.thaw();
    wait_until("the update is read back", || async {
        matches!(dns.read_back(&w, &action, within(2000)).await, ReadBack::Done { .. })
    })
    .await;
    // The update never reaches the server, or only its answer is lost: the same outcome, another truth.
    for (n, arrives) in [(2, false), (3, true)] {
        let judge = move |piece: &[u8]| match (is_update(piece), arrives) {
            (true, true) => Pass::SwallowAnswer,
            (true, false) => Pass::Swallow,
            (false, _) => Pass::On,
        };
        let records = vec![a(&format!("127.0.1.{n}"))];
        let action = upsert(&named.provider_at(&network_stand_in(&named.address, judge).await), records.clone());
        let w = warrant(n, &format!("r{n}"));
        let outcome = dns.execute(&w, &action, within(500)).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
        let read = dns.read_back(&w, &upsert(&named.provider(), records), ample()).await;
        assert_eq!(matches!(read, ReadBack::Done { .. }), arrives, "{read:?}");
        assert_eq!(matches!(read, ReadBack::NotDone { .. }), !arrives, "{read:?}");
    }
}

#[tokio::test]
async fn an_answer_without_the_right_signature_proves_nothing() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let framed = |message: Vec<u8>| [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message[..]].concat();
    type Forge = fn(&[u8]) -> Vec<u8>;
    let cases: [(Forge, &str); 5] = [
        (|_| b"garbage".to_vec(), "no DNS message"),
        (|q| vec![q[0] ^ 1, q[1], 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0], "instead of"),
        // NOERROR, REFUSED and NXRRSET with the right id, and nobody's signature.
        (|q| vec![q[0], q[1], 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0], "without a signature"),
        (|q| vec![q[0], q[1], 0xa8, 5, 0, 0, 0, 0, 0, 0, 0, 0], "REFUSED"),
        (|q| vec![q[0], q[1], 0xa8, 8, 0, 0, 0, 0, 0, 0, 0, 0], "NXRRSet"),
    ];
    for (forge, word) in cases {
        let judge = move |piece: &[u8]| {
            if is_update(piece) { Pass::Answer(framed(forge(&piece[2..]))) } else { Pass::On }
        };
        let provider = named.provider_at(&network_stand_in(&named.address, judge).await);
        let outcome = dns.execute(&warrant(1, "r1"), &upsert(&provider, vec![a("127.0.0.12")]), within(2000)).await;
        assert!(matches!(&outcome, Outcome::Unknown { reason } if reason.contains(word)), "{word}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_token_raised_to_settle_another_run_is_no_obstacle() {
    let named = Named::start().await;
    let dns = DnsActuator::new();
    let action = upsert(&named.provider(), vec![a("127.0.0.12")]);
    // An aborted run's step is settled under the newest token of the group, which the next run was given.
    assert_eq!(dns.raise(&warrant(9, "aborted"), &action, ample()).await, Raised::Done { in_flight: None });
    assert_eq!(dns.raise(&warrant(9, "next"), &action, ample()).await, Raised::Done { in_flight: None });
    let done = dns.execute(&warrant(9, "next"), &action, ample()).await;
    assert!(evidence(&done).contains("set "), "{done:?}");
    assert!(named.answers(TOKEN_RECORD, Question::Txt).await[0].ends_with("run=next"));
    assert!(matches!(dns.read_back(&warrant(9, "next"), &action, ample()).await, ReadBack::Done { .. }));
}
