//! `[[contact]]`, `[[escalation]]` and `[[incident_level]]`: who is told when, and how bad what is.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::check::{Item, Place};
use crate::config::raw::{RawConfig, RawContact, RawEscalation, RawEscalationStep, RawIncidentLevel};
use crate::domain::ids::{ContactName, GroupName, LadderName, ReceiverName};
use crate::domain::on_call::{Contact, Ladder, LadderStep, Level, LevelRule, OnCall, built_in_levels};
use crate::domain::page::Severity;

use super::Judge;
use super::fields::cut;

/// A ladder that tells more often than this tells nobody anything.
const STEPS_MAX: usize = 20;
const REPEATS_MAX: u32 = 20;
/// No step comes later, and no acknowledgement lasts longer.
const WEEK_S: u64 = 7 * 86_400;
const LEVELS_MAX: u8 = 9;

const SEVERITIES: [(&str, Severity); 4] = [
    ("critical", Severity::Critical),
    ("error", Severity::Error),
    ("warning", Severity::Warning),
    ("info", Severity::Info),
];

impl Judge<'_> {
    pub(super) fn on_call(&mut self, raw: &RawConfig) -> OnCall {
        let contacts = self.contacts(&raw.contacts);
        let routes = raw.contacts.iter().filter(|one| one.value.receivers.as_ref().is_some_and(|all| !all.is_empty()));
        // As written: a receiver that is not known is a fault of its own.
        let routed: BTreeSet<ContactName> = routes.filter_map(|one| one.value.name.clone()).map(ContactName).collect();
        let ladders = self.ladders(&raw.escalations, &routed);
        let levels = self.levels(&raw.incident_levels);
        self.unrouted(raw, &contacts, &ladders);
        OnCall { contacts, ladders, levels }
    }

    fn contacts(&mut self, items: &[Item<RawContact>]) -> BTreeMap<ContactName, Contact> {
        let mut contacts = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for Item { place, value } in items {
            let name = self.name(place, "name", &value.name);
            if let Some(name) = &name {
                self.unique(&mut seen, place, "name", name, "contact");
            }
            let role = self.name(place, "role", &value.role).unwrap_or_default();
            let texts = [("phone", &value.phone), ("mail", &value.mail), ("url", &value.url)];
            let [phone, mail, url] = texts.map(|(key, text)| self.line(place, key, text));
            let receivers =
                self.known_names(place, "receivers", &value.receivers, &self.known.receivers.clone(), "receiver");
            if receivers.is_empty() && phone.is_none() && mail.is_none() && url.is_none() {
                let todo = "add receivers = [\"…\"], or phone, mail or url for people";
                self.report.error(place, "", "nobody can reach this contact", todo);
            }
            let receivers = receivers.into_iter().map(ReceiverName).collect();
            if let Some(name) = name {
                contacts.insert(ContactName(name), Contact { role, phone, mail, url, receivers });
            }
        }
        contacts
    }

    /// One short line for people.
    fn line(&mut self, place: &Place, key: &str, text: &Option<String>) -> Option<String> {
        let text = text.as_ref()?;
        if text.trim().is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
            let what = format!("{:?} is not one line of at most 200 characters", cut(text));
            self.report.error(place, key, what, "write what people type or call");
            return None;
        }
        Some(text.trim().to_owned())
    }

    /// Names of things that the file defines, none of them twice.
    fn known_names(
        &mut self,
        place: &Place,
        key: &str,
        names: &Option<Vec<String>>,
        known: &BTreeSet<String>,
        what: &str,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for name in names.iter().flatten() {
            if let Some(name) = self.refers(place, key, &Some(name.clone()), known, what) {
                if found.contains(&name) {
                    self.report.error(place, key, format!("{what} {name} stands twice"), "name each once");
                } else {
                    found.push(name);
                }
            }
        }
        found
    }

    fn ladders(&mut self, items: &[Item<RawEscalation>], routed: &BTreeSet<ContactName>) -> Vec<Ladder> {
        let mut ladders: Vec<Ladder> = Vec::new();
        let mut seen = BTreeMap::new();
        for Item { place, value } in items {
            let name = self.name(place, "name", &value.name);
            if let Some(name) = &name {
                self.unique(&mut seen, place, "name", name, "escalation");
            }
            let groups = self.known_names(place, "groups", &value.groups, &self.known.groups.clone(), "group");
            if value.groups.as_ref().is_some_and(Vec::is_empty) {
                let todo = "name groups, or leave groups out: then it is for all that no other ladder names";
                self.report.error(place, "groups", "names no group", todo);
            }
            let severities = self.severities(place, &value.severities);
            let steps = self.ladder_steps(place, &value.steps, routed);
            let every_s = self.minutes(
                place,
                ("repeat_every_min", value.repeat_every_min),
                ("repeat_every_s", value.repeat_every_s),
            );
            let repeat_max = self.number(place, "repeat_max", value.repeat_max, 3, 0..=REPEATS_MAX);
            if every_s.is_none() && value.repeat_max.is_some_and(|max| max > 0) {
                self.report.error(
                    place,
                    "repeat_max",
                    "how often is not said",
                    "add repeat_every_min, or take repeat_max out",
                );
            }
            if every_s == Some(0) {
                let key = if place.has("repeat_every_s") { "repeat_every_s" } else { "repeat_every_min" };
                self.report.error(place, key, "0 would repeat without end", "write 1 or more, or leave it out");
            }
            let ack_s = self.minutes(place, ("ack_lasts_min", value.ack_lasts_min), ("ack_lasts_s", value.ack_lasts_s));
            let ladder = Ladder {
                name: LadderName(name.unwrap_or_default()),
                groups: groups.into_iter().map(GroupName).collect(),
                severities,
                steps,
                repeat_every_ms: every_s.unwrap_or(0) * 1000,
                repeat_max: if every_s.is_some() { repeat_max } else { 0 },
                ack_lasts_ms: ack_s.map(|s| s * 1000),
            };
            self.hidden(place, &ladders, &ladder);
            ladders.push(ladder);
        }
        ladders
    }

    /// Whatever this ladder is for, an earlier one takes first.
    fn hidden(&mut self, place: &Place, before: &[Ladder], ladder: &Ladder) {
        let is_wider = |first: &Ladder| {
            let groups = first.groups == ladder.groups
                || (!ladder.groups.is_empty() && ladder.groups.iter().all(|group| first.groups.contains(group)));
            let all: Vec<Severity> = SEVERITIES.iter().map(|(_, severity)| *severity).collect();
            let wanted = if ladder.severities.is_empty() { &all } else { &ladder.severities };
            groups && (first.severities.is_empty() || wanted.iter().all(|one| first.severities.contains(one)))
        };
        if let Some(first) = before.iter().find(|first| is_wider(first)) {
            let what = format!("is never climbed: {} takes the same incidents first", first.name);
            self.report.error(place, "", what, "give each its own groups or severities, or take one out");
        }
    }

    fn severities(&mut self, place: &Place, words: &Option<Vec<String>>) -> Vec<Severity> {
        if words.as_ref().is_some_and(Vec::is_empty) {
            self.report.error(place, "severities", "names none", "leave severities out: then it is for all");
        }
        let words = words.iter().flatten();
        words.filter_map(|word| self.choice(place, "severities", &Some(word.clone()), None, &SEVERITIES)).collect()
    }

    /// A time by minutes or by seconds, in seconds.
    fn minutes(&mut self, place: &Place, minutes: (&str, Option<u64>), seconds: (&str, Option<u64>)) -> Option<u64> {
        let (key, s) = match (minutes.1, seconds.1) {
            (Some(_), Some(_)) => {
                let what = format!("stands beside {}", minutes.0);
                self.report.error(place, seconds.0, what, "write one of them");
                return None;
            }
            (Some(min), None) => (minutes.0, min.saturating_mul(60)),
            (None, Some(s)) => (seconds.0, s),
            (None, None) => return None,
        };
        if s > WEEK_S {
            self.report.error(place, key, "is more than a week", "nobody waits for that: write less");
            return None;
        }
        Some(s)
    }

    fn ladder_steps(
        &mut self,
        place: &Place,
        steps: &Option<Vec<RawEscalationStep>>,
        routed: &BTreeSet<ContactName>,
    ) -> Vec<LadderStep> {
        let Some(steps) = self.required(place, "steps", steps) else { return Vec::new() };
        if steps.is_empty() || steps.len() > STEPS_MAX {
            let what = format!("has {} steps", steps.len());
            let todo = format!("1 to {STEPS_MAX}: steps = [{{ after_min = 0, contacts = [\"…\"] }}, …]");
            self.report.error(place, "steps", what, todo);
            return Vec::new();
        }
        let mut found: Vec<LadderStep> = Vec::new();
        for (n, step) in (1..).zip(&steps) {
            // A step that cannot be read is told, and its place kept.
            let after_s = self.minutes(place, ("after_min", step.after_min), ("after_s", step.after_s));
            let after_ms = after_s.map_or(0, |s| s * 1000);
            let before = found.last().map(|step: &LadderStep| step.after_ms);
            match (after_s, before) {
                (None, _) if step.after_min.is_none() && step.after_s.is_none() => {
                    self.report.error(
                        place,
                        "steps",
                        format!("step {n} has no after_min"),
                        "say when: after_min = 0 for the first",
                    );
                }
                (Some(1..), None) => {
                    let what = "step 1 does not begin at 0: nobody would be told at first";
                    self.report.error(place, "steps", what, "write after_min = 0");
                }
                (Some(_), Some(before)) if after_ms <= before => {
                    let what = format!(
                        "step {n} comes {} s after the incident opened, step {} {} s",
                        after_ms / 1000,
                        n - 1,
                        before / 1000
                    );
                    self.report.error(place, "steps", what, "let the times rise");
                }
                _ => {}
            }
            let names = self.known_names(place, "steps", &step.contacts, &self.known.contacts.clone(), "contact");
            let names: Vec<ContactName> = names.into_iter().map(ContactName).collect();
            if step.contacts.as_ref().is_none_or(Vec::is_empty) {
                self.report.error(place, "steps", format!("step {n} tells nobody"), "add contacts = [\"…\"]");
            } else if n == 1 && !names.is_empty() && !names.iter().any(|name| routed.contains(name)) {
                let todo = "give one of them receivers = [\"…\"], or put somebody else first";
                let what = "step 1 reaches nobody: none of its contacts has receivers";
                self.report.error(place, "steps", what, todo);
            }
            found.push(LadderStep { after_ms, contacts: names });
        }
        found
    }

    fn levels(&mut self, items: &[Item<RawIncidentLevel>]) -> Vec<LevelRule> {
        let mut levels = Vec::new();
        let (mut seen, mut named) = (BTreeMap::new(), BTreeMap::new());
        for Item { place, value } in items {
            let number = self.required(place, "level", &value.level);
            let number = number.map(|number| self.number(place, "level", Some(number), 1, 1..=LEVELS_MAX)).unwrap_or(1);
            let groups = self.known.groups.clone();
            let group =
                value.group.is_some().then(|| self.refers(place, "group", &value.group, &groups, "group")).flatten();
            let of = group.clone().unwrap_or_default();
            self.unique(&mut seen, place, "level", format!("{of} {number}").trim(), "an incident level");
            let built_in = built_in_levels().into_iter().find(|level| level.number == number);
            let name = match (&value.name, &built_in) {
                (None, Some(level)) => level.name.clone(),
                (name, _) => self.name(place, "name", name).unwrap_or_default(),
            };
            let severity = Some(built_in.as_ref().map_or(Severity::Warning, |level| level.severity));
            let severity = self.choice(place, "severity", &value.severity, severity, &SEVERITIES);
            let rto_s = self.objective(place, "rto_s", value.rto_s, built_in.as_ref().map(|level| level.rto_ms));
            let rpo_s = self.objective(place, "rpo_s", value.rpo_s, built_in.as_ref().map(|level| level.rpo_ms));
            let events = self.events(place, value, &of, &mut named);
            let level = Level {
                number,
                name,
                severity: severity.unwrap_or(Severity::Warning),
                rto_ms: rto_s * 1000,
                rpo_ms: rpo_s * 1000,
            };
            levels.push(LevelRule { group: group.map(GroupName), events, level });
        }
        levels
    }

    fn objective(&mut self, place: &Place, key: &str, value: Option<u64>, built_in_ms: Option<u64>) -> u64 {
        match (value, built_in_ms) {
            (None, Some(ms)) => ms / 1000,
            (None, None) => self.required(place, key, &value).unwrap_or_default(),
            (Some(_), _) => self.number(place, key, value, built_in_ms.unwrap_or(3_600_000) / 1000, 0..=365 * 86_400),
        }
    }

    fn events(
        &mut self,
        place: &Place,
        value: &RawIncidentLevel,
        group: &str,
        named: &mut BTreeMap<String, Option<usize>>,
    ) -> Vec<String> {
        let mut events = Vec::new();
        for event in value.events.iter().flatten() {
            let word = event.strip_suffix('*').unwrap_or(event);
            let is_event = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            if word.is_empty() || word.len() > 63 || !word.chars().all(is_event) {
                let what = format!("{:?} is not an event's name", cut(event));
                self.report.error(
                    place,
                    "events",
                    what,
                    "write DR_FAILOVER_BLOCKED, or DR_FAILOVER_* for all that begin so",
                );
            } else if self.unique(named, place, "events", format!("{group} {event}").trim(), "an event of a level") {
                events.push(event.clone());
            }
        }
        events
    }

    /// With ladders a receiver is told only by way of a contact on one of them.
    fn unrouted(&mut self, raw: &RawConfig, contacts: &BTreeMap<ContactName, Contact>, ladders: &[Ladder]) {
        if ladders.is_empty() {
            if let Some(Item { place, .. }) = raw.contacts.first() {
                let todo = "add an [[escalation]] that names them";
                self.report.warn(
                    place,
                    "",
                    "no [[escalation]]: every receiver gets every page, whoever the contacts are",
                    todo,
                );
            }
            return;
        }
        let steps = ladders.iter().flat_map(|ladder| &ladder.steps);
        let on_ladders: BTreeSet<&ContactName> = steps.flat_map(|step| &step.contacts).collect();
        let named = contacts.iter().filter(|(name, _)| on_ladders.contains(name));
        let routed: BTreeSet<&str> =
            named.flat_map(|(_, one)| one.receivers.iter().map(ReceiverName::as_str)).collect();
        for Item { place, value } in &raw.receivers {
            if let Some(name) = value.name.as_deref().filter(|name| !routed.contains(name)) {
                let what = format!("nobody on a ladder is reached by {name}: it is told only where no ladder fits");
                self.report.warn(place, "", what, "name it in the receivers of a [[contact]] that a ladder names");
            }
        }
    }
}
