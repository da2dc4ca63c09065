//! HTTP: the status, and where asked a piece of the body. TLS is verified; no proxy, no redirects unless asked.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::redirect::Policy;
use url::Url;

use super::{Probe, ProbeError, failure};
use crate::domain::observation::{Failure, FailureKind, Measure};

/// A body is read up to here; what is looked for must be within.
const MAX_BODY_BYTES: usize = 64 * 1024;
const MAX_REDIRECTS: usize = 5;

/// What makes two targets able to share a client: a client's trust store is its largest part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ClientKind {
    tls: bool,
    ca_file: Option<PathBuf>,
    follow_redirects: bool,
}

/// The clients in use, shared where possible.
#[derive(Default)]
pub struct HttpClients {
    clients: Vec<(ClientKind, reqwest::Client)>,
}

impl HttpClients {
    pub(super) fn client(
        &mut self,
        url: &Url,
        ca_file: Option<&Path>,
        follow_redirects: bool,
    ) -> Result<reqwest::Client, ProbeError> {
        let kind = ClientKind {
            tls: url.scheme() == "https" || follow_redirects,
            ca_file: ca_file.map(Path::to_owned),
            follow_redirects,
        };
        if let Some((_, client)) = self.clients.iter().find(|(known, _)| *known == kind) {
            return Ok(client.clone());
        }
        let client = new_client(&kind)?;
        self.clients.push((kind, client.clone()));
        Ok(client)
    }
}

fn new_client(kind: &ClientKind) -> Result<reqwest::Client, ProbeError> {
    let redirects = if kind.follow_redirects { Policy::limited(MAX_REDIRECTS) } else { Policy::none() };
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .redirect(redirects)
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(2)
        .pool_idle_timeout(Duration::from_secs(60))
        .user_agent(concat!("watchdog/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = &kind.ca_file {
        let unreadable = |detail: String| ProbeError::File { what: "ca_file", file: file.clone(), detail };
        let pem = std::fs::read(file).map_err(|e| unreadable(e.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| unreadable(failure::words(&e)))?;
        if certificates.is_empty() {
            return Err(unreadable("it holds no certificate in PEM".to_owned()));
        }
        builder = builder.tls_certs_only(certificates);
    } else if !kind.tls {
        // Plain HTTP never needs the system's trust store, which takes a megabyte to load.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|e| ProbeError::HttpClient { detail: failure::words(&e) })
}

/// Fetches a URL.
pub struct HttpProbe {
    client: reqwest::Client,
    url: Url,
    place: String,
    expect_status: u16,
    body_contains: Option<String>,
    was_good: AtomicBool,
}

impl HttpProbe {
    /// Fetches `url` and expects `expect_status`, and `body_contains` in the first 64 KiB of the body.
    ///
    /// # Errors
    /// A `ca_file` that cannot be read or holds no certificate.
    pub fn new(
        clients: &mut HttpClients,
        url: Url,
        expect_status: u16,
        body_contains: Option<String>,
        ca_file: Option<&Path>,
        follow_redirects: bool,
    ) -> Result<Self, ProbeError> {
        let client = clients.client(&url, ca_file, follow_redirects)?;
        let place = format!("http {}", without_secrets(&url));
        Ok(Self { client, url, place, expect_status, body_contains, was_good: AtomicBool::new(false) })
    }

    async fn look(&self) -> Result<u16, Failure> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(|e| failed(&self.place, e))?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        // The body is read even where nobody looks into it, or the connection could not be used again.
        let mut body = Vec::new();
        while body.len() < MAX_BODY_BYTES {
            match response.chunk().await.map_err(|e| failed(&self.place, e))? {
                Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY_BYTES - body.len())]),
                None => break,
            }
        }
        if status != self.expect_status {
            let towards = location.map(|to| format!(" (redirects to {to})")).unwrap_or_default();
            let detail = format!("{}: status {status}, expected {}{towards}", self.place, self.expect_status);
            return Err(failure::failure(self.kind_of_status(status), detail));
        }
        match &self.body_contains {
            Some(wanted) if !contains(&body, wanted.as_bytes()) => {
                let detail = format!("{}: {wanted:?} is not in the body's {} bytes", self.place, body.len());
                Err(failure::failure(FailureKind::WrongAnswer, detail))
            }
            _ => Ok(status),
        }
    }

    /// Credentials are ours. A path that never was there is ours too; one that vanished is the target's failure.
    fn kind_of_status(&self, status: u16) -> FailureKind {
        match status {
            401 | 403 | 407 => FailureKind::OurFault,
            404 | 410 if !self.was_good.load(Ordering::Relaxed) => FailureKind::OurFault,
            _ => FailureKind::WrongAnswer,
        }
    }
}

/// The failure that an error of the client means for a probe of `place`.
pub(super) fn failed(place: &str, error: reqwest::Error) -> Failure {
    // The URL, which may hold a secret, is not printed with the error.
    let error = error.without_url();
    let kind = if error.is_timeout() {
        FailureKind::TimedOut
    } else if error.is_dns() || error.is_builder() {
        FailureKind::OurFault
    } else {
        failure::kind_of(&error)
    };
    failure::failure(kind, format!("{place}: {}", failure::words(&error)))
}

#[async_trait]
impl Probe for HttpProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        let status = self.look().await?;
        self.was_good.store(true, Ordering::Relaxed);
        Ok(Some(Measure::Http { status }))
    }
}

/// Scheme, host, port and path: no user, no password, no query.
pub(super) fn without_secrets(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or(""), url.path())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_named_without_its_secrets() {
        let url = Url::parse("https://user:hunter2@api.example.test:8443/health?key=s3cret#x").unwrap();
        assert_eq!(without_secrets(&url), "https://api.example.test:8443/health");
    }
}
