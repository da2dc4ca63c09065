//! `[[group.record]]` and `[[group.traffic_record]]`: what is repointed, and the TXT record that keeps the token.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::check::{Item, Place};
use crate::config::raw::{RawGroup, RawRecord};
use crate::domain::ids::{GroupName, ProviderName, RegionName};
use crate::domain::plan::RecordKind;

use super::Judge;
use super::fields::{cut, fqdn_fault, is_within};

/// The words for the types.
pub(super) const KINDS: &[(&str, RecordKind)] =
    &[("A", RecordKind::A), ("AAAA", RecordKind::Aaaa), ("CNAME", RecordKind::Cname)];

/// A record with its value for every serving region.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub provider: ProviderName,
    pub name: String,
    pub kind: RecordKind,
    pub ttl_s: u32,
    pub values: BTreeMap<RegionName, String>,
}

impl Judge<'_> {
    /// The records of one sort; `seen` spans both sorts of a group.
    pub(super) fn records(
        &mut self,
        items: &[Item<RawRecord>],
        regions: &[RegionName],
        seen: &mut BTreeMap<String, Option<usize>>,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        for item in items {
            if let Some(record) = self.record(item, regions) {
                let key = format!("{} {}", record.name.to_ascii_lowercase(), record.kind);
                if self.unique(seen, &item.place, "name", &key, "a record of this group") {
                    records.push(record);
                }
            }
        }
        records
    }

    fn record(&mut self, item: &Item<RawRecord>, regions: &[RegionName]) -> Option<Record> {
        let Item { place, value } = item;
        let known = self.known.dns.clone();
        let provider = self.refers(place, "dns", &value.dns, &known, "dns").map(ProviderName);
        let name = self.fqdn(place, "name", &value.name);
        if let (Some(name), Some(provider)) = (&name, &provider)
            && let Some(zone) = self.zones.get(provider).cloned()
            && !is_within(name, &zone)
        {
            let what = format!("{name} is not inside {provider}'s zone {zone}");
            self.report.error(place, "name", what, "use a name of that zone, or another [[dns]]");
        }
        let kind = self.choice(place, "type", &value.r#type, None, KINDS);
        let ttl_s = self.number(place, "ttl_s", value.ttl_s, 300, 0..=86_400);
        if ttl_s > 3600 {
            let what = format!("ttl_s {ttl_s}: clients keep the old region's value for so long after a failover");
            self.report.warn(place, "ttl_s", what, "use 60 to 300");
        }
        let values = self.required(place, "values", &value.values).unwrap_or_default();
        for (region, text) in &values {
            let key = format!("values.{region}");
            if !regions.iter().any(|known| known.as_str() == region) {
                let what = format!("{:?} is not a region of this group", cut(region));
                self.report.error(place, &key, what, "give values for the group's regions only");
            }
            if let (Some(kind), Some(name)) = (kind, &name) {
                self.record_value(place, &key, name, kind, text);
            }
        }
        if value.values.is_some() {
            for region in regions.iter().filter(|region| !values.contains_key(region.as_str())) {
                let what = format!("no value for region {region}: a failover to it would not know where to point");
                self.report.error(place, "values", what, format!("add {region} = \"…\" to values"));
            }
        }
        let mut distinct: Vec<&String> = values.values().collect();
        distinct.sort();
        distinct.dedup();
        if values.len() > 1 && distinct.len() == 1 {
            let what = "every region has the same value: repointing it changes nothing";
            self.report.warn(place, "values", what, "give each region its own address");
        }
        let values = values.into_iter().map(|(region, text)| (RegionName(region), text)).collect();
        Some(Record { provider: provider?, name: name?, kind: kind?, ttl_s, values })
    }

    fn record_value(&mut self, place: &Place, key: &str, name: &str, kind: RecordKind, text: &str) {
        let fault = match kind {
            RecordKind::A if text.parse::<Ipv4Addr>().is_err() => {
                Some(("is not an IPv4 address".to_owned(), "write it as 203.0.113.7".to_owned()))
            }
            RecordKind::Aaaa if text.parse::<Ipv6Addr>().is_err() => {
                Some(("is not an IPv6 address".to_owned(), "write it as 2001:db8::7".to_owned()))
            }
            RecordKind::Cname if text.eq_ignore_ascii_case(name) => {
                Some(("points to itself".to_owned(), "name the region's load balancer".to_owned()))
            }
            RecordKind::Cname => fqdn_fault(text).map(|(what, todo)| (what.to_owned(), todo)),
            RecordKind::A | RecordKind::Aaaa => None,
        };
        if let Some((what, todo)) = fault {
            self.report.error(place, key, format!("{:?} {what}", cut(text)), todo);
        }
    }

    /// The token's TXT record at each provider that the group uses.
    pub(super) fn token_records(
        &mut self,
        group: &GroupName,
        item: &Item<RawGroup>,
        records: &[Record],
    ) -> BTreeMap<ProviderName, String> {
        let Item { place, value } = item;
        let given = value.token_record.as_ref().and_then(|_| self.fqdn(place, "token_record", &value.token_record));
        if given.is_some() && records.is_empty() {
            let what = "token_record without any [[group.record]]";
            self.report.error(place, "token_record", what, "remove it: nothing is repointed");
        }
        let mut tokens: BTreeMap<ProviderName, String> = BTreeMap::new();
        for record in records {
            let zone = self.zones.get(&record.provider).cloned().unwrap_or_else(|| parent(&record.name).to_owned());
            let token = given.clone().unwrap_or_else(|| format!("_watchdog-{group}.{zone}"));
            if !is_within(&token, &zone) && self.zones.contains_key(&record.provider) {
                let what = format!("{token} is not inside {}'s zone {zone}", record.provider);
                let todo = "remove token_record: each provider then gets one of its own";
                self.report.error(place, "token_record", what, todo);
            }
            if let Some((what, _)) = fqdn_fault(&token) {
                let what = format!("{:?}, the token's record, {what}", cut(&token));
                self.report.error(place, "token_record", what, "set token_record to a short name in the zone");
            }
            if records.iter().any(|other| other.kind == RecordKind::Cname && other.name.eq_ignore_ascii_case(&token)) {
                let what = format!("{token} is also a CNAME: no TXT record can stand beside it");
                self.report.error(place, "token_record", what, "choose another name");
            }
            tokens.entry(record.provider.clone()).or_insert(token);
        }
        tokens
    }
}

/// The name without its first label.
fn parent(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, rest)| rest)
}
