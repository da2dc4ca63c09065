//! A stand-in for a receiver of pages: a real HTTP server on a free loopback port that answers from a script and keeps
//! what it was sent. Like PagerDuty it opens one incident for each key.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// One answer of the script.
#[derive(Debug, Clone)]
pub enum Answer {
    Status(u16, &'static str),
    /// Seconds.
    TooMany(u64),
    /// Never answers.
    Hang,
    /// Sends the headers and never the body's end.
    HangInBody,
}

#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub raw: Vec<u8>,
    pub body: Value,
}

#[derive(Default)]
struct Kept {
    script: VecDeque<Answer>,
    received: Vec<Received>,
    incidents: BTreeSet<String>,
    dropped: usize,
}

/// Stops with the test's runtime.
#[derive(Clone)]
pub struct StandInReceiver {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

impl StandInReceiver {
    /// Answers from `script`, then 202 for ever.
    pub async fn start(script: &[Answer]) -> Self {
        let kept = Arc::new(Mutex::new(Kept { script: script.iter().cloned().collect(), ..Kept::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(kept.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, kept }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.kept.lock().unwrap().received.clone()
    }

    /// The keys of what was sent, in order.
    pub fn keys(&self) -> Vec<String> {
        self.received().iter().map(|r| key_of(&r.body)).collect()
    }

    pub fn incidents(&self) -> Vec<String> {
        self.kept.lock().unwrap().incidents.iter().cloned().collect()
    }

    /// Requests whose sender went away before an answer.
    pub fn dropped(&self) -> usize {
        self.kept.lock().unwrap().dropped
    }
}

fn key_of(body: &Value) -> String {
    body["dedup_key"].as_str().or(body["key"].as_str()).unwrap_or("no key").to_owned()
}

struct Hanging(Arc<Mutex<Kept>>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.lock().unwrap().dropped += 1;
    }
}

async fn answer(State(kept): State<Arc<Mutex<Kept>>>, uri: Uri, headers: HeaderMap, raw: Bytes) -> Response {
    let answer = {
        let mut now = kept.lock().unwrap();
        let body: Value = serde_json::from_slice(&raw).unwrap_or(Value::Null);
        let answer = now.script.pop_front().unwrap_or(Answer::Status(202, ""));
        if matches!(answer, Answer::Status(200..=299, _)) {
            now.incidents.insert(key_of(&body));
        }
        now.received.push(Received { path: uri.to_string(), headers, raw: raw.to_vec(), body });
        answer
    };
    match answer {
        Answer::Status(code, text) => (StatusCode::from_u16(code).unwrap(), text).into_response(),
        Answer::TooMany(seconds) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Hang => {
            let _hanging = Hanging(kept);
            std::future::pending().await
        }
        Answer::HangInBody => {
            let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            (StatusCode::BAD_REQUEST, axum::body::Body::from_stream(never)).into_response()
        }
    }
}
