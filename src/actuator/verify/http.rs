//! One GET: no redirects, no proxy, no second try.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use url::{Host, Url};

use crate::resolve::{Question, query};

/// How the server is found, instead of by the system's resolver.
#[derive(Debug, Clone, Copy)]
pub(super) struct By<'a> {
    /// This `address:port`.
    pub connect_to: Option<&'a str>,
    /// What this name server answers.
    pub resolve_at: Option<&'a str>,
}

/// Gets `url` and compares the status. The body is not read.
pub(super) async fn get(url: &str, expect_status: u16, by: By<'_>, until: Instant) -> Result<String, String> {
    let asked = Url::parse(url).map_err(|e| format!("not an absolute URL: {e}"))?;
    let host = asked.host().map(|host| host.to_owned()).ok_or("the URL names no host")?;
    let limit = until.saturating_duration_since(Instant::now());
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(0)
        .timeout(limit);
    let mut target = asked.clone();
    let mut found = String::new();
    if let Some(connect_to) = by.connect_to {
        let address: SocketAddr =
            connect_to.parse().map_err(|e| format!("connect_to {connect_to:?} is not address:port: {e}"))?;
        target.set_port(Some(address.port())).map_err(|()| "the URL takes no port".to_owned())?;
        match &host {
            // The name stays in the URL: TLS checks the certificate against it.
            Host::Domain(domain) => builder = builder.resolve(domain, address),
            _ => target.set_ip_host(address.ip()).map_err(|()| "the URL takes no address".to_owned())?,
        }
        found = format!(" at {address}");
    } else if let (Some(server), Host::Domain(domain)) = (by.resolve_at, &host) {
        let addresses = addresses(server, domain, limit).await?;
        found = format!(" at {}", addresses.iter().map(|a| a.ip().to_string()).collect::<Vec<_>>().join(" "));
        builder = builder.resolve_to_addrs(domain, &addresses);
    }
    let client = builder.build().map_err(|e| words(&e))?;
    let mut request = client.get(target.clone());
    if target.port() != asked.port() {
        let port = asked.port().map(|port| format!(":{port}")).unwrap_or_default();
        request = request.header(reqwest::header::HOST, format!("{host}{port}"));
    }
    let response = request.send().await.map_err(|e| format!("no answer{found}: {}", words(&e.without_url())))?;
    let status = response.status().as_u16();
    if status != expect_status {
        return Err(format!("status {status}{found}, not {expect_status}"));
    }
    Ok(format!("GET {} is {status}{found}", without_secrets(url)))
}

/// A URL without user, password and query.
pub(super) fn without_secrets(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return "a URL that is none".to_owned() };
    // Neither can fail on a URL that has them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// What the name server says now. Port 0: that of the URL.
async fn addresses(server: &str, domain: &str, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    for question in [Question::A, Question::Aaaa] {
        let answer = query(server, domain, question, limit).await.map_err(|e| e.to_string())?;
        let addresses: Vec<SocketAddr> = answer.addresses().into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
        if !addresses.is_empty() {
            return Ok(addresses);
        }
    }
    Err(format!("name server {server} answers no address for {domain}"))
}

fn words(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}
