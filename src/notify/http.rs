//! What the receivers have in common: one bounded `POST`, its answer classified, its secrets kept out of every text.

use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, redirect};
use tokio::io::AsyncReadExt as _;
use url::Url;

use super::Sent;

/// A receiver that asks for more patience than this is asked again sooner.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// So much of a receiver's answer is shown, bytes.
const SHOWN_BODY_MAX: usize = 300;
/// Shorter parts of an address are words, bytes.
const SECRET_PART_MIN: usize = 8;
/// A file with a key may be so long, bytes.
const SECRET_MAX: usize = 4096;

/// A receiver cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The HTTP client.
    #[error("cannot build the HTTP client for {address}: {reason}; are the ca-certificates installed?")]
    Client {
        /// The receiver's address without its path.
        address: String,
        /// Why.
        reason: String,
    },
    /// The base URL.
    #[error("{address} cannot be a base URL; give one like https://events.pagerduty.com")]
    BaseUrl {
        /// The receiver's address without its path.
        address: String,
    },
}

/// A file with a key cannot be used. The content is never shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error("cannot read {what} {}: {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} {} is longer than {SECRET_MAX} bytes or is no UTF-8 text; its first line must be the key", path.display())]
    Shape { what: &'static str, path: PathBuf },
    #[error("the first line of {what} {} is empty; it must be the key", path.display())]
    Empty { what: &'static str, path: PathBuf },
}

/// Reads the first line of a key's file. Bounded; never blocks the runtime.
pub(super) async fn read_secret(what: &'static str, path: &Path) -> Result<String, SecretError> {
    let read = async {
        let mut bytes = Vec::new();
        let limit = SECRET_MAX as u64 + 1;
        tokio::fs::File::open(path).await?.take(limit).read_to_end(&mut bytes).await?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read.await.map_err(|source| SecretError::Read { what, path: path.to_owned(), source })?;
    let shape = || SecretError::Shape { what, path: path.to_owned() };
    if bytes.len() > SECRET_MAX {
        return Err(shape());
    }
    let text = String::from_utf8(bytes).map_err(|_| shape())?;
    match text.lines().next().map(str::trim) {
        Some(key) if !key.is_empty() => Ok(key.to_owned()),
        _ => Err(SecretError::Empty { what, path: path.to_owned() }),
    }
}

/// `scheme://host:port`, and nothing of what may be secret: chat services put their key into the path.
pub fn shown_address(url: &Url) -> String {
    let host = url.host_str().unwrap_or("-");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}/…", url.scheme()),
        None => format!("{}://{host}/…", url.scheme()),
    }
}

/// Where to: an address, or a file whose first line is one, where the address itself is a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// As it is.
    Fixed(Url),
    /// In a file. Read at every send, so that it can be exchanged.
    File(PathBuf),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Fixed(url) => f.write_str(&shown_address(url)),
            Address::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl From<Url> for Address {
    fn from(url: Url) -> Self {
        Address::Fixed(url)
    }
}

impl Address {
    fn shown(&self) -> String {
        match self {
            Address::Fixed(url) => shown_address(url),
            Address::File(path) => format!("the address in {}", path.display()),
        }
    }

    async fn read(&self) -> Result<Url, String> {
        let path = match self {
            Address::Fixed(url) => return Ok(url.clone()),
            Address::File(path) => path,
        };
        let text = read_secret("url_file", path).await.map_err(|error| error.to_string())?;
        let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.ok_or_else(|| format!("the first line of url_file {} is no http or https address", path.display()))
    }
}

/// The header for the bearer token in a file, and the token, so that it can be kept out of every text.
pub(super) async fn bearer(path: &Path) -> Result<(HeaderMap, String), String> {
    let token = read_secret("token_file", path).await.map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| format!("the first line of token_file {} is no token", path.display()))?;
    Ok((HeaderMap::from_iter([(reqwest::header::AUTHORIZATION, value)]), token))
}

/// Speaks to one address.
#[derive(Debug, Clone)]
pub(super) struct Poster {
    client: Client,
    to: Address,
    timeout: Duration,
}

impl Poster {
    pub(super) fn new(to: impl Into<Address>, timeout: Duration) -> Result<Self, NotifyError> {
        let to = to.into();
        // Redirects would carry the page, and a signature made for this address, to another one.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(timeout)
            .timeout(timeout)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("failover-watchdog/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| NotifyError::Client { address: to.shown(), reason: innermost(&e.without_url()) })?;
        Ok(Self { client, to, timeout })
    }

    /// One attempt with a JSON body. `secret` is taken out of whatever is shown.
    pub(super) async fn post(&self, body: Vec<u8>, headers: HeaderMap, secret: Option<&str>) -> Sent {
        self.send(Some(body), headers, secret).await
    }

    /// One attempt, the reading of the answer included in the time-out: `GET` where there is no body.
    pub(super) async fn send(&self, body: Option<Vec<u8>>, headers: HeaderMap, secret: Option<&str>) -> Sent {
        let url = match self.to.read().await {
            Ok(url) => url,
            Err(reason) => return Sent::Retry { reason, after: None },
        };
        let address = shown_address(&url);
        let json = HeaderValue::from_static("application/json");
        let request = match body {
            Some(body) => self.client.post(url.clone()).header(reqwest::header::CONTENT_TYPE, json).body(body),
            None => self.client.get(url.clone()),
        };
        let response = match request.headers(headers).send().await {
            Ok(response) => response,
            Err(e) => {
                let reason = match e.is_timeout() {
                    true => format!("{address} did not answer within {} ms", self.timeout.as_millis()),
                    false => format!("cannot reach {address}: {}", innermost(&e.without_url())),
                };
                return Sent::Retry { reason, after: None };
            }
        };
        let status = response.status();
        if status.is_success() {
            return Sent::Delivered;
        }
        let after = retry_after(response.headers());
        // A 404 page likes to repeat the path it did not find.
        let path = Some(url.path()).filter(|path| path.len() > 1);
        // "…/hook?" has an empty query, which is found between any two characters.
        let whole = [secret, path, url.query().filter(|query| !query.is_empty())];
        // A bot's token is one part of its path, and answers like to repeat that part alone.
        let parts = url.path().split('/').filter(|part| part.len() >= SECRET_PART_MIN).map(Some);
        let hidden: Vec<Option<&str>> = whole.into_iter().chain(parts).collect();
        let answer = shown_body(response, &hidden).await;
        classify(&address, status, after, &answer)
    }
}

/// What an answer other than 2xx means.
fn classify(address: &str, status: StatusCode, after: Option<Duration>, answer: &str) -> Sent {
    let said = format!("{address} answered {status}{answer}");
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => Sent::Retry { reason: said, after },
        300..=399 => {
            Sent::Refused { reason: format!("{said}; redirects are not followed: configure the final address") }
        }
        _ => Sent::Refused { reason: format!("{said}; check the receiver's address and key") },
    }
}

/// Seconds only: the date form needs two clocks that agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The start of an answer, escaped, or nothing.
async fn shown_body(mut response: reqwest::Response, hidden: &[Option<&str>]) -> String {
    let mut bytes = Vec::new();
    // Bounded above what is shown, so that a key that lies across the limit is still found and taken out.
    while bytes.len() < SHOWN_BODY_MAX + SECRET_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    for secret in hidden.iter().flatten() {
        text = text.replace(secret, "[redacted]");
    }
    let shown: String = text.trim().chars().take(SHOWN_BODY_MAX).flat_map(char::escape_debug).collect();
    if shown.is_empty() { String::new() } else { format!(": {shown}") }
}

/// The deepest cause says what happened ("Connection refused"); the outer ones only repeat that it was a request.
fn innermost(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// A header whose value is made by us of visible ASCII.
pub(super) fn header(name: &'static str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?))
}
