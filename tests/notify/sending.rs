//! One attempt: what is sent, and what each answer means.

use std::time::Duration;

use url::Url;
use watchdog::config::template::Template;
use watchdog::domain::ids::ReceiverName;
use watchdog::domain::on_call::built_in_levels;
use watchdog::domain::page::{Notice, PageAction, Told};
use watchdog::notify::{
    Address, Notifier, PagerDuty, Parcel, ReceiverConfig, ReceiverKind, SIGNATURE_HEADER, Sent, TIMESTAMP_HEADER,
    Webhook, sign,
};

use super::receiver::{Answer, StandInReceiver};
use super::{AT, page, secret_file, tls};

const SHORT: Duration = Duration::from_millis(300);
const AMPLE: Duration = Duration::from_secs(20);

fn notice() -> Notice {
    Notice {
        level: built_in_levels().into_iter().next(),
        ladder: Some("night".into()),
        step: "step 2 of 3".to_owned(),
        contacts: vec![Told { name: "bao".into(), role: "database-administrator".to_owned() }],
    }
}

fn pagerduty(base_url: &str, folder: &tempfile::TempDir, timeout: Duration) -> PagerDuty {
    let key = secret_file(folder, "R0UT1NGKEY\n");
    PagerDuty::new("demo".into(), &Url::parse(base_url).unwrap(), key, timeout).unwrap()
}

#[tokio::test]
async fn every_answer_means_one_of_three_things() {
    tls();
    let folder = tempfile::tempdir().unwrap();
    let retry = |after: Option<u64>| Some(after.map(Duration::from_secs));
    // What the receiver answers; Some(after) where the page is to be tried again; a word of the reason.
    for (answer, again, word) in [
        (Answer::Status(202, ""), None, "delivered"),
        (Answer::Status(200, "ok"), None, "delivered"),
        (Answer::Status(400, "invalid event"), None, "invalid event"),
        (Answer::Status(404, "no R0UT1NGKEY here\u{1b}[2J"), None, "no [redacted] here\\u{1b}[2J"),
        (Answer::Status(302, ""), None, "redirects are not followed"),
        (Answer::Status(500, "oops"), retry(None), "500"),
        (Answer::Status(503, ""), retry(None), "503"),
        (Answer::TooMany(7), retry(Some(7)), "429"),
        (Answer::TooMany(86_400), retry(Some(300)), "429"),
        (Answer::Hang, retry(None), "did not answer within 300 ms"),
        (Answer::HangInBody, None, "answered 400"),
    ] {
        let timeout = if matches!(answer, Answer::Hang | Answer::HangInBody) { SHORT } else { AMPLE };
        let receiver = StandInReceiver::start(std::slice::from_ref(&answer)).await;
        let sent = pagerduty(&receiver.url(), &folder, timeout)
            .send(Parcel { seq: Some(1), at: AT, page: &page("k"), notice: None })
            .await;
        match (&sent, again, word) {
            (Sent::Delivered, None, "delivered") => {}
            (Sent::Refused { reason }, None, word) => assert!(reason.contains(word), "{answer:?}: {reason}"),
            (Sent::Retry { reason, after }, Some(again), word) => {
                assert_eq!(*after, again, "{answer:?}");
                assert!(reason.contains(word), "{answer:?}: {reason}");
            }
            _ => panic!("{answer:?}: {sent:?}"),
        }
        assert!(!format!("{sent:?}").contains("R0UT1NGKEY"), "{sent:?}");
        assert_eq!(receiver.received().len(), 1, "one call is one attempt");
    }
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_and_shows_no_secret() {
    tls();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = Url::parse(&format!("http://me:pass@{closed}/services/T0KEN?k=T0KEN")).unwrap();
    let hook = Webhook::new("demo".into(), url.clone(), None, AMPLE).unwrap();
    let sent = hook.send(Parcel { seq: None, at: AT, page: &page("k"), notice: None }).await;
    let Sent::Retry { reason, after: None } = sent else { panic!("{sent:?}") };
    assert!(reason.contains("refused") && reason.contains(&closed.to_string()), "{reason}");

    let kind = ReceiverKind::Webhook { to: url.into(), template: None, secret_file: None };
    let shown = format!("{reason} {:?}", ReceiverConfig { name: ReceiverName::from("chat"), kind });
    assert!(!shown.contains("T0KEN") && !shown.contains("pass"), "{shown}");
}

#[tokio::test]
async fn pagerduty_is_sent_a_genuine_event() {
    tls();
    let folder = tempfile::tempdir().unwrap();
    let receiver = StandInReceiver::start(&[]).await;
    let pager = pagerduty(&format!("{}/gateway/", receiver.url()), &folder, AMPLE);
    let mut long = page("demo/aicamera/run/0199-run");
    long.summary = "ộ".repeat(3000);
    let notice = notice();
    let parcel = Parcel { seq: Some(7), at: AT, page: &long, notice: Some(&notice) };
    assert_eq!(pager.send(parcel).await, Sent::Delivered);
    let over = watchdog::domain::page::Page { action: PageAction::Resolve, ..page("demo/aicamera/run/0199-run") };
    assert_eq!(pager.send(Parcel { seq: Some(8), at: AT, page: &over, notice: None }).await, Sent::Delivered);

    let mine = watchdog::domain::page::Page { action: PageAction::Acknowledge, ..over };
    assert_eq!(pager.send(Parcel { seq: Some(9), at: AT, page: &mine, notice: None }).await, Sent::Delivered);

    let received = receiver.received();
    let event = &received[0].body;
    assert_eq!(received[0].path, "/gateway/v2/enqueue");
    assert_eq!(received[0].headers["content-type"], "application/json");
    assert_eq!(event["payload"]["summary"].as_str().unwrap().chars().count(), 1024);
    assert_eq!(event["routing_key"], "R0UT1NGKEY");
    assert_eq!(event["event_action"], "trigger");
    assert_eq!(received[1].body["event_action"], "resolve");
    assert_eq!(received[2].body["event_action"], "acknowledge");
    assert_eq!(event["dedup_key"], received[2].body["dedup_key"]);
    assert_eq!(event["dedup_key"], "demo/aicamera/run/0199-run");
    assert_eq!(event["dedup_key"], received[1].body["dedup_key"]);
    let mut payload = event["payload"].clone();
    payload["summary"].take();
    assert_eq!(
        payload,
        serde_json::json!({
            "summary": null, "severity": "critical", "source": "demo", "timestamp": "2026-11-21T03:04:27.012Z",
            "component": "failover-watchdog", "group": "aicamera", "class": "DR_FAILOVER_SUCCESS",
            "custom_details": {
                "recovery_time_ms": "3870", "run": "0199-run", "seq": "7", "ladder_step": "step 2 of 3",
                "contacts": "bao (database-administrator)",
            },
        })
    );
}

#[tokio::test]
async fn an_empty_query_hides_nothing() {
    tls();
    let receiver = StandInReceiver::start(&[Answer::Status(404, "no such hook")]).await;
    let url = Url::parse(&format!("{}/s3cret?", receiver.url())).unwrap();
    let hook = Webhook::new("demo".into(), url, None, AMPLE).unwrap();
    let sent = hook.send(Parcel { seq: None, at: AT, page: &page("k"), notice: None }).await;
    assert!(matches!(&sent, Sent::Refused { reason } if reason.contains(": no such hook;")), "{sent:?}");
}

#[tokio::test]
async fn a_webhook_is_sent_the_promised_shape_signed() {
    tls();
    let folder = tempfile::tempdir().unwrap();
    let receiver = StandInReceiver::start(&[]).await;
    let url = Url::parse(&format!("{}/pages?to=oncall", receiver.url())).unwrap();
    let hook = Webhook::new("demo".into(), url.clone(), Some(secret_file(&folder, "s3cret\r\n")), AMPLE).unwrap();
    let (page, notice) = (page("demo/k"), notice());
    let parcel = Parcel { seq: Some(7), at: AT, page: &page, notice: Some(&notice) };
    assert_eq!(hook.send(parcel).await, Sent::Delivered);
    let plain = Webhook::new("demo".into(), url, None, AMPLE).unwrap();
    assert_eq!(plain.send(Parcel { seq: None, at: AT, page: &page, notice: None }).await, Sent::Delivered);

    let received = receiver.received();
    assert_eq!(received[0].path, "/pages?to=oncall");
    assert_eq!(
        received[0].body,
        serde_json::json!({
            "cluster": "demo", "key": "demo/k", "event": "DR_FAILOVER_SUCCESS", "severity": "critical",
            "action": "trigger", "summary": "aicamera serves from hanoi", "group": "aicamera", "run": "0199-run",
            "details": {"recovery_time_ms": "3870"}, "seq": 7, "at": "2026-11-21T03:04:27.012Z",
            "level": 1, "level_name": "critical", "ladder": "night", "ladder_step": "step 2 of 3",
            "contacts": [{"name": "bao", "role": "database-administrator"}],
        })
    );
    let timestamp_s: u64 = received[0].headers[TIMESTAMP_HEADER].to_str().unwrap().parse().unwrap();
    let signature = received[0].headers[SIGNATURE_HEADER].to_str().unwrap();
    assert_eq!(signature, sign(b"s3cret", timestamp_s, &received[0].raw));
    assert_ne!(signature, sign(b"other", timestamp_s, &received[0].raw));
    assert!(!received[1].headers.contains_key(SIGNATURE_HEADER));
    let nobody = serde_json::json!([null, null, []]);
    assert_eq!(
        serde_json::json!([received[1].body["level"], received[1].body["ladder"], received[1].body["contacts"]]),
        nobody
    );
}

#[tokio::test]
async fn a_bad_key_file_is_named_and_nothing_is_sent() {
    tls();
    let receiver = StandInReceiver::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let long = folder.path().join("long");
    std::fs::write(&long, "k".repeat(5000)).unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\nsecond line\n").unwrap();
    for (path, word) in [(missing, "No such file"), (long, "longer than 4096"), (empty, "first line of")] {
        let url = Url::parse(&receiver.url()).unwrap();
        let hook = Webhook::new("demo".into(), url.clone(), Some(path.clone()), AMPLE).unwrap();
        let pager = PagerDuty::new("demo".into(), &url, path.clone(), AMPLE).unwrap();
        for notifier in [&hook as &dyn Notifier, &pager] {
            let sent = notifier.send(Parcel { seq: None, at: AT, page: &page("k"), notice: None }).await;
            let Sent::Retry { reason, after: None } = sent else { panic!("{sent:?}") };
            assert!(reason.contains(word) && reason.contains(path.to_str().unwrap()), "{reason}");
        }
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn chats_are_sent_bodies_of_their_own() {
    tls();
    let receiver = StandInReceiver::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    // A bot's address is its token: kept in a file.
    let address = secret_file(&folder, &format!("{}/botT0KEN/sendMessage\n", receiver.url()));
    let own = r#"{"card": {"title": "{{event}}", "lines": ["{{summary}}", "{{group}}"]}, "n": 1}"#;
    for template in [Template::telegram("-100123"), Template::slack(), Template::parse(own).unwrap()] {
        let hook = Webhook::new("demo".into(), Address::File(address.clone()), None, AMPLE).unwrap();
        let hook = hook.with_template(Some(template));
        let page = page("\"}, {{event}}");
        assert_eq!(hook.send(Parcel { seq: Some(1), at: AT, page: &page, notice: None }).await, Sent::Delivered);
    }
    let received = receiver.received();
    assert!(received.iter().all(|one| one.path.ends_with("/botT0KEN/sendMessage")), "{received:?}");
    let page = page("\"}, {{event}}");
    assert_eq!(received[0].body["chat_id"], "-100123");
    let text = received[0].body["text"].as_str().unwrap();
    assert!(text.starts_with('[') && text.contains(&page.summary) && text.contains(&page.event), "{text}");
    assert_eq!(received[1].body, serde_json::json!({ "text": text }));
    assert_eq!(received[2].body["card"]["lines"][0], page.summary);
    // A refused one is told without the bot's token.
    let refusing = StandInReceiver::start(&[Answer::Status(400, "chat not found for botT0KEN")]).await;
    let address = secret_file(&folder, &format!("{}/botT0KEN/sendMessage\n", refusing.url()));
    let hook = Webhook::new("demo".into(), Address::File(address), None, AMPLE).unwrap();
    let sent =
        hook.with_template(Some(Template::slack())).send(Parcel { seq: None, at: AT, page: &page, notice: None }).await;
    let Sent::Refused { reason } = sent else { panic!("{sent:?}") };
    assert!(reason.contains("400") && !reason.contains("T0KEN"), "{reason}");
}
