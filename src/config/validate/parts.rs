//! `[[receiver]]`, `[[host]]` and `[[dns]]`.

use std::collections::BTreeMap;

use crate::config::check::{Item, Place};
use crate::config::raw::{RawDns, RawHost, RawReceiver};
use crate::config::template::Template;
use crate::config::types::{HostConfig, ReceiverConfig, ReceiverKind};
use crate::domain::ids::{HostName, ProviderName, ReceiverName, RegionName};
use crate::domain::plan::{DnsProvider, GuardEndpoint};

use super::Judge;
use super::fields::cut;

impl Judge<'_> {
    pub(super) fn receivers(&mut self, items: &[Item<RawReceiver>]) -> BTreeMap<ReceiverName, ReceiverConfig> {
        let mut receivers = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for Item { place, value } in items {
            let name = self.name(place, "name", &value.name);
            if let Some(name) = &name {
                self.unique(&mut seen, place, "name", name, "receiver");
            }
            let kinds = ["pagerduty", "alertmanager", "webhook"].map(|kind| (kind, kind));
            let kind = match self.choice(place, "kind", &value.kind, None, &kinds) {
                Some("pagerduty") => self.pagerduty(&Item { place: place.clone(), value: value.clone() }),
                Some("alertmanager") => self.alertmanager(&Item { place: place.clone(), value: value.clone() }),
                Some(_) => self.webhook(&Item { place: place.clone(), value: value.clone() }),
                None => None,
            };
            if let (Some(name), Some(kind)) = (name, kind) {
                let name = ReceiverName(name);
                receivers.insert(name.clone(), ReceiverConfig { name, kind });
            }
        }
        if items.is_empty() {
            let todo = "add a [[receiver]] of kind \"pagerduty\", \"alertmanager\" or \"webhook\"";
            self.report.warn(&Default::default(), "receiver", "nobody is paged: no [[receiver]]", todo);
        }
        receivers
    }

    fn webhook(&mut self, item: &Item<RawReceiver>) -> Option<ReceiverKind> {
        let Item { place, value } = item;
        let own = ["url", "url_file", "template", "chat_id", "secret_file"];
        self.only(place, "webhook", &["name", "kind"], &own);
        let secret_file = self.file(place, "secret_file", &value.secret_file, true);
        let template = match value.template.as_deref() {
            Some("telegram") => self.telegram(place, &value.chat_id),
            Some("slack") => Some(Template::slack()),
            Some(text) => match Template::parse(text) {
                Ok(template) => Some(template),
                Err(what) => {
                    let todo = "write \"telegram\", \"slack\", or JSON such as '{\"text\": \"{{text}}\"}'";
                    self.report.error(place, "template", what, todo);
                    None
                }
            },
            None => None,
        };
        if value.chat_id.is_some() && value.template.as_deref() != Some("telegram") {
            self.report.error(place, "chat_id", "means nothing without template = \"telegram\"", "remove it");
        }
        let to = self.address(place, &value.url, &value.url_file)?;
        (template.is_some() == value.template.is_some()).then_some(ReceiverKind::Webhook { to, template, secret_file })
    }

    fn telegram(&mut self, place: &Place, chat_id: &Option<String>) -> Option<Template> {
        let chat = self.required(place, "chat_id", chat_id)?;
        let is_number = chat.strip_prefix('-').unwrap_or(&chat).bytes().all(|b| b.is_ascii_digit()) && chat.len() > 1;
        let word = |name: &str| name.len() >= 4 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !chat.is_ascii() || chat.len() > 64 || !(is_number || chat.strip_prefix('@').is_some_and(word)) {
            let what = format!("{:?} is not a chat", cut(&chat));
            self.report.error(place, "chat_id", what, "write its number as text, \"-1001234567890\", or \"@channel\"");
            return None;
        }
        Some(Template::telegram(&chat))
    }

    fn pagerduty(&mut self, item: &Item<RawReceiver>) -> Option<ReceiverKind> {
        let Item { place, value } = item;
        self.only(place, "pagerduty", &["name", "kind"], &["base_url", "routing_key_file"]);
        let base_url = match &value.base_url {
            None => Some("https://events.pagerduty.com".to_owned()),
            given => self.url(place, "base_url", given).map(|url| url.trim_end_matches('/').to_owned()),
        };
        self.required(place, "routing_key_file", &value.routing_key_file);
        let routing_key_file = self.file(place, "routing_key_file", &value.routing_key_file, true);
        Some(ReceiverKind::Pagerduty { base_url: base_url?, routing_key_file: routing_key_file? })
    }

    fn alertmanager(&mut self, item: &Item<RawReceiver>) -> Option<ReceiverKind> {
        let Item { place, value } = item;
        self.only(place, "alertmanager", &["name", "kind"], &["base_url", "token_file"]);
        let base_url = self.url(place, "base_url", &value.base_url).map(|url| url.trim_end_matches('/').to_owned());
        let token_file = self.file(place, "token_file", &value.token_file, true);
        Some(ReceiverKind::Alertmanager { base_url: base_url?, token_file })
    }

    pub(super) fn hosts(&mut self, items: &[Item<RawHost>]) -> BTreeMap<HostName, HostConfig> {
        let mut hosts = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut logins = BTreeMap::new();
        for item in items {
            let Item { place, value } = item;
            if let Some(name) = &value.name {
                self.unique(&mut names, place, "name", name, "host");
            }
            if let (Some(ssh), Some(user)) = (&value.ssh, &value.user) {
                self.unique(&mut logins, place, "ssh", &format!("{user}@{ssh}"), "a guard's login");
            }
            if let Some(host) = self.host(item) {
                hosts.insert(host.guard.host.clone(), host);
            }
        }
        hosts
    }

    fn host(&mut self, item: &Item<RawHost>) -> Option<HostConfig> {
        let Item { place, value } = item;
        let name = self.name(place, "name", &value.name);
        let regions = self.known.regions.clone();
        let region = self.refers(place, "region", &value.region, &regions, "region");
        let address = self.host_port(place, "ssh", &value.ssh);
        let user = self.name(place, "user", &value.user);
        let host_key = self.required(place, "host_key", &value.host_key);
        let host_key = host_key.and_then(|key| match host_key_fault(&key) {
            None => Some(key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")),
            Some(what) => {
                let todo = "copy the line of /etc/ssh/ssh_host_ed25519_key.pub from the host itself";
                self.report.error(place, "host_key", format!("{:?} {what}", cut(&key)), todo);
                None
            }
        });
        self.required(place, "identity_file", &value.identity_file);
        let identity_file = self.file(place, "identity_file", &value.identity_file, true);
        let guard = GuardEndpoint {
            host: HostName(name?),
            address: address?,
            user: user?,
            host_key: host_key?,
            identity_file: identity_file?,
        };
        Some(HostConfig { region: RegionName(region?), guard })
    }

    pub(super) fn providers(&mut self, items: &[Item<RawDns>]) -> BTreeMap<ProviderName, DnsProvider> {
        let mut providers = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for item in items {
            if let Some(name) = &item.value.name {
                self.unique(&mut seen, &item.place, "name", name, "dns provider");
            }
            let kinds = [("rfc2136", true), ("route53", false)];
            let provider = match self.choice(&item.place, "kind", &item.value.kind, None, &kinds) {
                Some(true) => self.rfc2136(item),
                Some(false) => self.route53(item),
                None => None,
            };
            if let Some(provider) = provider {
                providers.insert(provider.name().clone(), provider);
            }
        }
        providers
    }

    fn rfc2136(&mut self, item: &Item<RawDns>) -> Option<DnsProvider> {
        let Item { place, value } = item;
        self.only(place, "rfc2136", &["name", "kind"], &["server", "zone", "key_name", "key_file"]);
        let name = self.name(place, "name", &value.name);
        let server = self.socket(place, "server", &value.server).map(|server| server.to_string());
        let zone = self.fqdn(place, "zone", &value.zone);
        let key_name = self.fqdn(place, "key_name", &value.key_name);
        self.required(place, "key_file", &value.key_file);
        let key_file = self.file(place, "key_file", &value.key_file, true);
        let name = ProviderName(name?);
        if let Some(zone) = &zone {
            self.zones.insert(name.clone(), zone.clone());
        }
        Some(DnsProvider::Rfc2136 { name, server: server?, zone: zone?, key_name: key_name?, key_file: key_file? })
    }

    fn route53(&mut self, item: &Item<RawDns>) -> Option<DnsProvider> {
        let Item { place, value } = item;
        let own = ["hosted_zone_id", "zone", "endpoint_url", "credentials_file"];
        self.only(place, "route53", &["name", "kind"], &own);
        let name = self.name(place, "name", &value.name);
        let hosted_zone_id = self.required(place, "hosted_zone_id", &value.hosted_zone_id).filter(|id| {
            let good = (2..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
            if !good {
                let what = format!("{:?} is not a hosted zone's id", cut(id));
                self.report.error(
                    place,
                    "hosted_zone_id",
                    what,
                    "write the id alone, as in Z0123456789ABC, without /hostedzone/",
                );
            }
            good
        });
        let zone = value.zone.as_ref().and_then(|_| self.fqdn(place, "zone", &value.zone));
        let endpoint_url = match &value.endpoint_url {
            None => None,
            given => Some(self.url(place, "endpoint_url", given)?),
        };
        let credentials_file = self.file(place, "credentials_file", &value.credentials_file, true);
        let name = ProviderName(name?);
        if let Some(zone) = zone {
            self.zones.insert(name.clone(), zone);
        }
        Some(DnsProvider::Route53 { name, hosted_zone_id: hosted_zone_id?, endpoint_url, credentials_file })
    }
}

/// What keeps a text from being an ed25519 public key as OpenSSH writes it (RFC 8709: a length-prefixed name, then 32 bytes).
fn host_key_fault(text: &str) -> Option<&'static str> {
    let mut words = text.split_whitespace();
    if words.next() != Some("ssh-ed25519") {
        return Some("does not begin with ssh-ed25519");
    }
    let Some(blob) = words.next().and_then(base64) else { return Some("has no base64 after ssh-ed25519") };
    let key = blob.strip_prefix(b"\0\0\0\x0bssh-ed25519\0\0\0\x20".as_slice());
    if key.is_none_or(|key| key.len() != 32) {
        return Some("is not a whole ed25519 key (cut off, or another type inside)");
    }
    None
}

/// Standard base64 with padding (RFC 4648), strictly.
fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 || body.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in body.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0x3fff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}
