//! What HTTP servers answer: to a probe, and to a page.

use std::cell::RefCell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::timeout;
use url::Url;
use watchdog::domain::ids::UnixMs;
use watchdog::domain::observation::Measure;
use watchdog::domain::page::{Page, PageAction, Severity};
use watchdog::notify::{Notifier, PagerDuty, Parcel, Sent, Webhook};
use watchdog::probe::{ProbeBuilder, ProbeSpec, ProbeSurroundings};

use crate::corpus;
use crate::runner::{Target, Trial, holds, printable, runtime};

/// A server on loopback that hears something, answers with what is set, and closes.
pub async fn serve(answer: Rc<RefCell<Vec<u8>>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.borrow().clone();
            tokio::task::spawn_local(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

pub fn any_http_answer_is_what_was_asked_for_or_a_failure() -> Trial {
    let (runtime, local) = (runtime(), LocalSet::new());
    let answer = Rc::new(RefCell::new(Vec::new()));
    let port = local.block_on(&runtime, serve(answer.clone()));
    let spec = ProbeSpec::Http {
        url: Url::parse(&format!("http://127.0.0.1:{port}/health?key=S3CRETKEY")).unwrap(),
        expect_status: 200,
        body_contains: Some("fine".to_owned()),
        ca_file: None,
        follow_redirects: false,
    };
    let around = ProbeSurroundings { who: "test".to_owned(), timeout_ms: 1000, expected: None };
    let probe = ProbeBuilder::default().build(&spec, around).unwrap();
    Target::new("http-answers", corpus::of("http")).judged_by(move |bytes| {
        answer.replace(bytes.to_vec());
        let looked = local.block_on(&runtime, async { timeout(Duration::from_secs(5), probe.probe()).await });
        match looked.map_err(|_| "it was still reading after 5 s".to_owned())? {
            Ok(measure) => {
                let text = String::from_utf8_lossy(bytes);
                let fine = measure == Some(Measure::Http { status: 200 }) && text.contains("200");
                holds(fine, || format!("{measure:?} of {text:?}"))
            }
            Err(failure) => {
                holds(failure.detail.chars().count() <= 301, || format!("{} bytes of detail", failure.detail.len()))?;
                holds(!failure.detail.contains("S3CRETKEY"), || failure.detail.clone())?;
                printable(&failure.detail)
            }
        }
    })
}

pub fn any_answer_to_a_page_is_delivery_retry_or_refusal() -> Trial {
    let (runtime, local) = (runtime(), LocalSet::new());
    let answer = Rc::new(RefCell::new(Vec::new()));
    let port = local.block_on(&runtime, serve(answer.clone()));
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "R0UT1NGKEY\n").unwrap();
    let base = format!("http://127.0.0.1:{port}");
    let limit = Duration::from_millis(2000);
    let pagerduty = PagerDuty::new("demo".into(), &Url::parse(&base).unwrap(), key.clone(), limit).unwrap();
    let hook = Url::parse(&format!("{base}/hook/S3CRETPATH?")).unwrap();
    let webhook = Webhook::new("demo".into(), hook, Some(key), limit).unwrap();
    let page = Page {
        key: "demo/aicamera".to_owned(),
        event: "DR_FAILOVER_SUCCESS".to_owned(),
        action: PageAction::Trigger,
        severity: Severity::Critical,
        summary: "aicamera serves from hanoi".to_owned(),
        group: Some("aicamera".into()),
        run: None,
        details: [].into(),
    };
    Target::new("answers-to-pages", corpus::of("http"))
        .cases(200)
        .judged_by(move |bytes| {
            let parcel = || Parcel { seq: Some(1), at: UnixMs(1_795_231_050_123), page: &page, notice: None };
            answer.replace(bytes.to_vec());
            for (receiver, secret_path) in [(&pagerduty as &dyn Notifier, false), (&webhook, true)] {
                let (reason, after) = match local.block_on(&runtime, receiver.send(parcel())) {
                    Sent::Delivered => {
                        holds(bytes.windows(2).any(|pair| pair == b" 2"), || "delivered without a 2xx".to_owned())?;
                        continue;
                    }
                    Sent::Retry { reason, after } => (reason, after),
                    Sent::Refused { reason } => (reason, None),
                };
                holds(after.is_none_or(|after| after <= Duration::from_secs(300)), || format!("{after:?}"))?;
                // The path is the webhook's own secret; to the other it is a word like any.
                let told = reason.contains("R0UT1NGKEY") || (reason.contains("/hook/S3CRETPATH") && secret_path);
                holds(!told, || reason.clone())?;
                holds(reason.contains("127.0.0.1") && reason.len() < 5000, || reason.clone())?;
                // A secret that is no text must not turn every answer into marks of what was taken out.
                let said = String::from_utf8_lossy(bytes);
                let named: usize =
                    ["R0UT1NGKEY", "/hook/S3CRETPATH"].iter().map(|word| said.matches(word).count()).sum();
                holds(reason.matches("[redacted]").count() <= named + 2, || reason.clone())?;
                printable(&reason)?;
            }
            Ok(())
        })
        .keeping(folder)
}
