//! The wire between a node and a guard: what is written is read, and nothing else.

use super::*;

fn warrant() -> Warrant {
    Warrant {
        cluster: "demo".into(),
        group: "aicamera".into(),
        run: "r1".into(),
        step: "fence".into(),
        attempt: 1,
        token: Token { epoch: 1, n: 7 },
        fenced_host: None,
    }
}

#[test]
fn a_request_survives_the_wire() {
    for request in [
        Request::status("demo".into(), 1),
        Request::raise(&warrant(), true),
        Request::act(&warrant(), FENCE, BTreeMap::from([("a".to_owned(), "b".to_owned())]), "boot", 5),
        Request::read_back(&warrant(), PROMOTE, BTreeMap::new()),
    ] {
        let text = serde_json::to_string(&request).expect("plain data");
        assert_eq!(serde_json::from_str::<Request>(&text).expect("own text"), request, "{text}");
    }
}

#[test]
fn unknown_and_repeated_keys_are_errors_at_every_depth() {
    for text in [
        r#"{"cluster":"demo","epoch":1,"action":"status","sudo":true}"#,
        r#"{"cluster":"demo","epoch":1,"action":"status","action":"fence"}"#,
        r#"{"cluster":"demo","epoch":1,"action":"raise","token":{"epoch":1,"n":2,"x":3}}"#,
        r#"{"cluster":"demo","epoch":1,"action":"raise","token":{"epoch":1,"n":-2}}"#,
        r#"{"cluster":"demo","epoch":"1","action":"status"}"#,
        r#"{"epoch":1,"action":"status"}"#,
    ] {
        assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
    }
}

/// Guards of before do not tell of Redis; nodes of before know no such key, and are not told where nothing is amiss.
#[test]
fn a_latched_redis_is_told_only_where_there_is_one() {
    let status = Status { host: "db".to_owned(), cluster: "demo".into(), groups: Vec::new(), postgres: None };
    let mark = LatchMark { token: warrant().token, run: "r1".into(), step: REDIS_FENCE.into(), at: UnixMs(0) };
    let shown = |latch, fault| Some(RedisShown { group: "aicamera".into(), latch, fault });
    for (redis, is_told) in [
        (None, false),
        (shown(Some(mark), None), true),
        (shown(None, Some("redis-latch.json: cut off".to_owned())), true),
        (shown(None, None), true),
    ] {
        let reply = Reply::Described { status: status.clone(), actions: BTreeMap::new(), redis };
        let text = serde_json::to_string(&reply).expect("plain data");
        assert_eq!(text.contains("\"redis\":"), is_told, "{text}");
        assert_eq!(serde_json::from_str::<Reply>(&text).expect("own text"), reply, "{text}");
    }
    let strange = r#"{"kind":"described","status":{"host":"db","cluster":"demo","groups":[],"postgres":null},"actions":{},"redis":{"group":"a","x":1}}"#;
    assert!(serde_json::from_str::<Reply>(strange).is_err());
}

#[test]
fn an_answer_survives_the_wire() {
    let answer = Answer {
        guard_version: "0.1.0".into(),
        boot_nonce: "b".into(),
        boottime_ms: 12,
        reply: Reply::Refused {
            refusal: Refusal::LowerToken,
            reason: "held 1.9".into(),
            held: Some(Token { epoch: 1, n: 9 }),
        },
    };
    let text = serde_json::to_string(&answer).expect("plain data");
    assert_eq!(serde_json::from_str::<Answer>(&text).expect("own text"), answer);
    assert_eq!(answer.reply.into_outcome(), Outcome::Refused { held: Token { epoch: 1, n: 9 } });
}
