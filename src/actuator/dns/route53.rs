//! Amazon Route 53. A change batch is applied as a whole or not at all, and a DELETE must name the record set exactly as
//! it is: together they are the compare-and-swap. No retry happens underneath (the SDK's are off): a batch sent twice
//! could not be told from another's.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_sdk_route53::Client;
use aws_sdk_route53::config::retry::RetryConfig;
use aws_sdk_route53::config::timeout::TimeoutConfig;
use aws_sdk_route53::config::{Config, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_route53::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_route53::types::{
    Change, ChangeAction, ChangeBatch, ChangeStatus, ResourceRecord, ResourceRecordSet, RrType,
};
use aws_smithy_http_client::tls;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::zone::{Present, Seen, Settled, SwapTrouble, Trouble, Wanted, Zone, canonical_value, conflict};
use super::{TOKEN_TTL_S, names, route53_text};
use crate::domain::attempt::Warrant;
use crate::domain::ids::RunId;
use crate::domain::plan::{DnsProvider, DnsRecord, RecordKind};
use crate::resolve::canonical_name;

/// Route 53's control plane is in one region only.
const REGION: &str = "us-east-1";
/// No connection takes longer, or the control plane is not to be had.
const CONNECT_MS: u64 = 3000;
/// Upper bound of one call; an attempt's deadline is usually shorter.
const OPERATION_MS: u64 = 30_000;
/// Waits between two looks at a change grow from this …
const POLL_FIRST: Duration = Duration::from_millis(20);
/// … to this: an account has five calls a second for everything.
const POLL_MOST: Duration = Duration::from_secs(2);
/// Changes remembered until they are seen everywhere. A change forgotten costs a weaker evidence, nothing else.
const REMEMBERED: usize = 256;
/// Record sets asked for at one name; a name with more than this has a routing policy.
const LISTED: i32 = 100;

/// One client per provider, and the changes accepted but not seen everywhere yet.
#[derive(Debug, Default)]
pub(super) struct Clients {
    clients: Mutex<BTreeMap<String, Client>>,
    changes: Mutex<BTreeMap<ChangeKey, String>>,
}

/// Hosted zone, token record, run.
type ChangeKey = (String, String, RunId);

/// One attempt's view of a hosted zone.
pub(super) struct Route53<'a> {
    clients: &'a Clients,
    client_key: String,
    client: Client,
    hosted_zone_id: String,
    run: RunId,
}

/// The record sets that a change has to delete exactly as they are.
#[derive(Debug, PartialEq)]
pub(super) struct Raw {
    token: Option<ResourceRecordSet>,
    conflicting: Vec<ResourceRecordSet>,
}

impl Clients {
    /// The provider's zone; its client is made at the first use.
    pub async fn zone(&self, provider: &DnsProvider, warrant: &Warrant) -> Result<Route53<'_>, Trouble> {
        let DnsProvider::Route53 { name, hosted_zone_id, endpoint_url, credentials_file } = provider else {
            return Err(permanent("this provider is not Route 53: a fault of the program".to_owned()));
        };
        let client_key = format!("{provider:?}");
        let known = lock(&self.clients).get(&client_key).cloned();
        let client = match known {
            Some(client) => client,
            None => {
                let credentials = credentials(credentials_file.as_deref())
                    .await
                    .map_err(|reason| permanent(format!("DNS provider {name}: {reason}")))?;
                let client = client(credentials, endpoint_url.as_deref());
                lock(&self.clients).insert(client_key.clone(), client.clone());
                client
            }
        };
        let hosted_zone_id = hosted_zone_id.clone();
        Ok(Route53 { clients: self, client_key, client, hosted_zone_id, run: warrant.run.clone() })
    }
}

fn client(credentials: SharedCredentialsProvider, endpoint_url: Option<&str>) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_millis(CONNECT_MS))
        .operation_timeout(Duration::from_millis(OPERATION_MS))
        .build();
    let mut config = Config::builder()
        .behavior_version_latest()
        .region(Region::new(REGION))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .http_client(http)
        .credentials_provider(credentials);
    config.set_endpoint_url(endpoint_url.map(str::to_owned));
    Client::from_conf(config.build())
}

async fn credentials(file: Option<&str>) -> Result<SharedCredentialsProvider, String> {
    let Some(path) = file else {
        return Ok(SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()));
    };
    let text = tokio::fs::read_to_string(path).await.map_err(|e| format!("credentials_file: {path}: {e}"))?;
    let credentials = read_credentials(&text).map_err(|e| format!("credentials_file: {path}: {e}"))?;
    Ok(SharedCredentialsProvider::new(credentials))
}

/// The profile `default` of a shared credentials file. The SDK's own reader brings the instance metadata service with
/// it: on a node with a mistyped file, credentials that nobody meant.
fn read_credentials(text: &str) -> Result<Credentials, String> {
    let mut in_default = false;
    let (mut id, mut secret, mut session) = (None, None, None);
    for (nth, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            in_default = section.trim() == "default";
            continue;
        }
        // The line itself is never told: it may be a secret.
        let (key, value) = line.split_once('=').ok_or_else(|| format!("line {} is not KEY = VALUE", nth + 1))?;
        let kept = match key.trim() {
            "aws_access_key_id" => &mut id,
            "aws_secret_access_key" => &mut secret,
            "aws_session_token" => &mut session,
            _ => continue,
        };
        if in_default {
            *kept = Some(value.trim().to_owned());
        }
    }
    let missing = |key: &str| format!("[default] has no {key}");
    let id = id.ok_or_else(|| missing("aws_access_key_id"))?;
    let secret = secret.ok_or_else(|| missing("aws_secret_access_key"))?;
    Ok(Credentials::new(id, secret, session, None, "credentials_file"))
}

impl Route53<'_> {
    async fn list(
        &self,
        name: &str,
        kind: Option<RrType>,
        deadline: Instant,
    ) -> Result<Vec<ResourceRecordSet>, Trouble> {
        let request = self
            .client
            .list_resource_record_sets()
            .hosted_zone_id(&self.hosted_zone_id)
            .start_record_name(name)
            .set_start_record_type(kind)
            .max_items(LISTED);
        let listed = match timeout_at(deadline, request.send()).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => return Err(self.judged(&error, "list the records").into_read_trouble()),
            Err(_) => {
                let reason = format!(
                    "Route 53 did not list zone {} in time; nothing was sent to change it",
                    self.hosted_zone_id
                );
                return Err(Trouble { retryable: true, reason });
            }
        };
        let here = |set: &ResourceRecordSet| route53_text::name(&set.name) == name;
        Ok(listed.resource_record_sets.into_iter().filter(here).collect())
    }

    fn batch(&self, seen: &Raw, wanted: &Wanted<'_>) -> Result<ChangeBatch, Trouble> {
        let mut batch = ChangeBatch::builder().comment(format!("failover watchdog, token {}", wanted.token.token));
        let mut add = |action: ChangeAction, set: ResourceRecordSet| -> Result<(), Trouble> {
            let change = Change::builder().action(action).resource_record_set(set).build();
            batch = std::mem::take(&mut batch).changes(change.map_err(|e| permanent(e.to_string()))?);
            Ok(())
        };
        for old in seen.token.iter() {
            add(ChangeAction::Delete, old.clone())?;
        }
        let text = route53_text::quote(&wanted.token.strings());
        add(ChangeAction::Create, record_set(&wanted.token_record, RrType::Txt, TOKEN_TTL_S, text)?)?;
        if !wanted.records.is_empty() {
            for old in &seen.conflicting {
                add(ChangeAction::Delete, old.clone())?;
            }
        }
        for record in wanted.records {
            let value = canonical_value(record).map_err(permanent)?;
            add(
                ChangeAction::Upsert,
                record_set(&canonical_name(&record.name), rr_type(record.kind), record.ttl_s, value)?,
            )?;
        }
        batch.build().map_err(|e| permanent(e.to_string()))
    }

    fn change_key(&self, wanted: &Wanted<'_>) -> ChangeKey {
        (self.hosted_zone_id.clone(), wanted.token_record.clone(), self.run.clone())
    }

    fn remember(&self, wanted: &Wanted<'_>, id: String) {
        let mut changes = lock(&self.clients.changes);
        changes.insert(self.change_key(wanted), id);
        if changes.len() > REMEMBERED {
            changes.pop_first();
        }
    }

    /// What an error proves about whether the request was carried out.
    fn judged<E: ProvideErrorMetadata + Error + 'static>(&self, error: &SdkError<E>, doing: &str) -> Judged {
        let zone = &self.hosted_zone_id;
        let detail = words(error);
        match error {
            SdkError::ServiceError(service) => {
                let code = service.err().code();
                let message = service.err().message().unwrap_or(&detail);
                let said = code.unwrap_or("something without a code");
                let reason = format!("Route 53 answered to the request to {doing} of zone {zone}: {said}: {message}");
                // An answer that cannot be read comes this way too, and proves nothing.
                let is_fault = code.is_none() || service.raw().status().is_server_error();
                self.judged_code(said, is_fault, reason)
            }
            SdkError::ConstructionFailure(_) => {
                // Credentials are looked for when a request is made; the next attempt shall look afresh.
                self.forget_client();
                Judged::not_sent(format!("the request to {doing} of zone {zone} could not be made: {detail}"))
            }
            SdkError::DispatchFailure(failure) => {
                let reason = format!("Route 53 cannot be reached to {doing} of zone {zone}: {detail}");
                // Only connecting has a time-out of its own in the connector.
                if failure.is_timeout() || failure.is_user() || never_connected(error) {
                    Judged::not_sent(reason)
                } else {
                    Judged::Unsure(reason)
                }
            }
            _ => Judged::Unsure(format!("no usable answer of Route 53 to {doing} of zone {zone}: {detail}")),
        }
    }

    fn judged_code(&self, code: &str, is_fault: bool, reason: String) -> Judged {
        const BUSY: &[&str] =
            &["Throttling", "ThrottlingException", "PriorRequestNotComplete", "RequestLimitExceeded", "SlowDown"];
        const WHO: &[&str] =
            &["InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "UnrecognizedClientException"];
        if BUSY.contains(&code) {
            return Judged::Refused(Trouble { retryable: true, reason });
        }
        if is_fault {
            return Judged::Unsure(reason);
        }
        if WHO.contains(&code) {
            self.forget_client();
        }
        if code == "InvalidChangeBatch" { Judged::NoMatch(reason) } else { Judged::Refused(permanent(reason)) }
    }

    fn forget_client(&self) {
        lock(&self.clients.clients).remove(&self.client_key);
    }
}

/// What is known after an error.
enum Judged {
    /// Nothing was carried out.
    Refused(Trouble),
    /// The batch did not fit what is there.
    NoMatch(String),
    /// Nobody knows.
    Unsure(String),
}

impl Judged {
    fn not_sent(reason: String) -> Self {
        Judged::Refused(Trouble { retryable: true, reason })
    }

    fn into_read_trouble(self) -> Trouble {
        match self {
            Judged::Refused(trouble) => trouble,
            Judged::NoMatch(reason) | Judged::Unsure(reason) => Trouble { retryable: true, reason },
        }
    }
}

#[async_trait]
impl Zone for Route53<'_> {
    type Raw = Raw;

    async fn read(&mut self, wanted: &Wanted<'_>, deadline: Instant) -> Result<Seen<Raw>, Trouble> {
        let mut tokens = self.list(&wanted.token_record, Some(RrType::Txt), deadline).await?;
        tokens.retain(|set| set.r#type == RrType::Txt);
        if tokens.len() > 1 || tokens.iter().any(|set| set.set_identifier.is_some() || set.alias_target.is_some()) {
            let name = &wanted.token_record;
            return Err(permanent(format!(
                "token record {name} has a routing policy: delete it by hand, it must be plain"
            )));
        }
        let token = tokens.pop();
        let values = token.iter().flat_map(|set| set.resource_records.iter().flatten());
        let texts = values.map(|record| route53_text::unquote(&record.value)).collect();
        let (mut present, mut conflicting) = (Vec::new(), Vec::new());
        for name in names(wanted.records) {
            for set in self.list(&name, None, deadline).await? {
                let Some(kind) = kind_of(&set.r#type) else { continue };
                let mut here = wanted.records.iter().filter(|record| canonical_name(&record.name) == name);
                if here.any(|record| conflict(record.kind, kind)) {
                    conflicting.push(set.clone());
                }
                present.push(present_set(name.clone(), kind, &set));
            }
        }
        Ok(Seen { texts, present, raw: Raw { token, conflicting } })
    }

    async fn swap(&mut self, seen: &Seen<Raw>, wanted: &Wanted<'_>, deadline: Instant) -> Result<(), SwapTrouble> {
        let batch = self.batch(&seen.raw, wanted).map_err(SwapTrouble::Failed)?;
        let request =
            self.client.change_resource_record_sets().hosted_zone_id(&self.hosted_zone_id).change_batch(batch);
        let changed = match timeout_at(deadline, request.send()).await {
            Err(_) => {
                let zone = &self.hosted_zone_id;
                return Err(SwapTrouble::Unsure(format!(
                    "Route 53 did not answer in time to the change of zone {zone}"
                )));
            }
            Ok(Ok(changed)) => changed,
            Ok(Err(error)) => match self.judged(&error, "change the records") {
                Judged::Refused(trouble) => return Err(SwapTrouble::Failed(trouble)),
                Judged::Unsure(reason) => return Err(SwapTrouble::Unsure(reason)),
                Judged::NoMatch(reason) => {
                    // Somebody was faster, or the batch can never fit: only looking again can tell.
                    let after = self.read(wanted, deadline).await;
                    let raced = after.is_ok_and(|after| after.raw != seen.raw);
                    return Err(if raced {
                        SwapTrouble::Lost
                    } else {
                        SwapTrouble::Failed(Trouble { retryable: true, reason })
                    });
                }
            },
        };
        if let Some(info) = changed.change_info.filter(|_| !wanted.records.is_empty()) {
            self.remember(wanted, info.id);
        }
        Ok(())
    }

    async fn settled(&mut self, wanted: &Wanted<'_>, deadline: Instant) -> Settled {
        let key = self.change_key(wanted);
        let Some(id) = lock(&self.clients.changes).get(&key).cloned() else {
            let how = "listed by Route 53; whether all its servers answer it is not known, since this node did not send the change";
            return Settled::Yes(how.to_owned());
        };
        let mut pause = POLL_FIRST;
        let mut last;
        loop {
            match timeout_at(deadline, self.client.get_change().id(&id).send()).await {
                Ok(Ok(change))
                    if change.change_info.as_ref().is_some_and(|info| info.status == ChangeStatus::Insync) =>
                {
                    lock(&self.clients.changes).remove(&key);
                    return Settled::Yes(format!("change {id} is INSYNC"));
                }
                Ok(Ok(_)) => last = "PENDING".to_owned(),
                Ok(Err(error)) if error.code() == Some("NoSuchChange") => {
                    lock(&self.clients.changes).remove(&key);
                    return Settled::Yes(format!("listed by Route 53, which no longer knows change {id}"));
                }
                Ok(Err(error)) => last = words(&error),
                Err(_) => last = "without an answer".to_owned(),
            }
            let next = Instant::now() + pause;
            if next >= deadline {
                return Settled::Pending(format!(
                    "change {id} was accepted and not yet seen INSYNC (last look: {last})"
                ));
            }
            sleep_until(next).await;
            pause = (pause * 2).min(POLL_MOST);
        }
    }
}

fn present_set(name: String, kind: RecordKind, set: &ResourceRecordSet) -> Present {
    let mut values: Vec<String> = set
        .resource_records
        .iter()
        .flatten()
        .map(|record| {
            let as_record = DnsRecord { name: name.clone(), kind, ttl_s: 0, value: record.value.clone() };
            canonical_value(&as_record).unwrap_or_else(|_| record.value.clone())
        })
        .collect();
    if let Some(alias) = &set.alias_target {
        values.push(format!("an alias of {}", alias.dns_name));
    }
    if let Some(id) = &set.set_identifier {
        values.push(format!("under routing policy {id}"));
    }
    values.sort();
    let ttl_s = set.ttl.and_then(|ttl| u32::try_from(ttl).ok()).unwrap_or(0);
    Present { name, kind, ttl_s, values }
}

fn record_set(name: &str, kind: RrType, ttl_s: u32, value: String) -> Result<ResourceRecordSet, Trouble> {
    let wrong = |e: aws_sdk_route53::error::BuildError| permanent(e.to_string());
    let record = ResourceRecord::builder().value(value).build().map_err(wrong)?;
    let set = ResourceRecordSet::builder().name(name).r#type(kind).ttl(i64::from(ttl_s)).resource_records(record);
    set.build().map_err(wrong)
}

fn rr_type(kind: RecordKind) -> RrType {
    match kind {
        RecordKind::A => RrType::A,
        RecordKind::Aaaa => RrType::Aaaa,
        RecordKind::Cname => RrType::Cname,
    }
}

fn kind_of(kind: &RrType) -> Option<RecordKind> {
    match kind {
        RrType::A => Some(RecordKind::A),
        RrType::Aaaa => Some(RecordKind::Aaaa),
        RrType::Cname => Some(RecordKind::Cname),
        _ => None,
    }
}

/// An error with its causes, once each.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !words.ends_with(&text) {
            words = format!("{words}: {text}");
        }
        cause = inner.source();
    }
    // What was answered is repeated by the library as it stands, however long, and these words go into the log.
    let printable = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(WORDS_MAX).collect()
}

/// So much of an error is told, characters.
const WORDS_MAX: usize = 600;

/// A refused or unroutable connection somewhere among the causes: no byte of the request went out.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        let kind = inner.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(
            io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable,
        ) = kind
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

fn permanent(reason: String) -> Trouble {
    Trouble { retryable: false, reason }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_the_default_profile() {
        let text =
            "# ours\n[other]\naws_access_key_id=X\n[default]\naws_access_key_id = ID\naws_secret_access_key=a=b\n";
        let read = read_credentials(text).unwrap();
        assert_eq!((read.access_key_id(), read.secret_access_key(), read.session_token()), ("ID", "a=b", None));
    }

    #[test]
    fn bad_credentials_are_named_without_telling_them() {
        for (text, word) in [
            ("", "no aws_access_key_id"),
            ("[default]\naws_access_key_id = TOPSECRET", "no aws_secret_access_key"),
            ("[other]\naws_access_key_id = a\naws_secret_access_key = TOPSECRET", "no aws_access_key_id"),
            ("[default]\nTOPSECRET", "line 2"),
        ] {
            let error = read_credentials(text).unwrap_err();
            assert!(error.contains(word) && !error.contains("TOPSECRET"), "{text}: {error}");
        }
    }
}
