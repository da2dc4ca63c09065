//! TOML text to [`RawConfig`]: every key is read by itself, so that one bad value hides no other, and every fault has its line.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::check::{Item, Place, Report};
use super::raw::{RawConfig, RawGroupTables};

/// A configuration larger than this is certainly a mistake.
pub const MAX_BYTES: usize = 1 << 20;

/// Keys whose value may hold what should not be there: never repeated in a message.
const UNQUOTED: &[&str] = &["conninfo", "primary", "standby", "url", "base_url", "endpoint", "endpoint_url"];

/// Reads the text. `None` when it is not TOML at all; otherwise what could be read, with faults for the rest.
pub fn read(text: &str, report: &mut Report) -> Option<RawConfig> {
    if text.len() > MAX_BYTES {
        let what = format!("the file has {} bytes, more than {MAX_BYTES}", text.len());
        report.error(&Place::default(), "", what, "is this the right file?");
        return None;
    }
    let mut reader = Reader { text, lines: line_starts(text), report };
    let (root, errors) = DeTable::parse_recoverable(text);
    // One bracket left open makes a fault of everything after it: only the first is certainly one.
    let Some(first) = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start)) else {
        let root = root.into_inner();
        return if reader.is_a_guards(&root) { None } else { Some(reader.root(root)) };
    };
    let at = first.span().map(|span| reader.line_and_column(span.start));
    let place = Place { line: at.map(|(line, _)| line), ..Place::default() };
    let column = at.map_or_else(String::new, |(_, column)| format!(" at column {column}"));
    let what = format!("not TOML{column}: {}", first.message().trim());
    let todo = "mend it and check again: what follows was not read (a bracket or quote left open may stand further up)";
    reader.report.error(&place, "", what, todo);
    None
}

struct Reader<'t> {
    text: &'t str,
    lines: Vec<usize>,
    report: &'t mut Report,
}

/// A table taken out of the document: where it begins, and what it holds.
type Taken<'t> = (usize, DeTable<'t>);

impl<'t> Reader<'t> {
    fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// Both from 1, the column in characters.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// The other program's file: one fault that says so, instead of one for each of its keys.
    fn is_a_guards(&mut self, root: &DeTable<'t>) -> bool {
        let has = |key: &str| root.keys().any(|known| known.get_ref() == key);
        if !has("state_dir") || ["node", "region", "group"].iter().any(|key| has(key)) {
            return false;
        }
        let at = root.keys().find(|key| key.get_ref() == "state_dir").map(|key| self.line(key.span().start));
        let place = Place { path: "state_dir".to_owned(), line: at, ..Place::default() };
        let what = "this is a guard's file (it has state_dir and no [[node]]), not the cluster's configuration";
        self.report.error(&place, "", what, "judge it on its host with `watchdog-guard --config FILE check`");
        true
    }

    fn root(&mut self, mut root: DeTable<'t>) -> RawConfig {
        let raw = RawConfig {
            cluster: self.one(&mut root, "cluster"),
            tls: self.one(&mut root, "tls"),
            roles: self.many(&mut root, "", "role"),
            timing: self.one(&mut root, "timing"),
            audit: self.one(&mut root, "audit"),
            heartbeat: self.one(&mut root, "heartbeat"),
            traces: self.one(&mut root, "traces"),
            probe_defaults: self.one(&mut root, "probe_defaults"),
            regions: self.many(&mut root, "", "region"),
            nodes: self.many(&mut root, "", "node"),
            references: self.many(&mut root, "", "reference"),
            receivers: self.many(&mut root, "", "receiver"),
            contacts: self.many(&mut root, "", "contact"),
            escalations: self.many(&mut root, "", "escalation"),
            incident_levels: self.many(&mut root, "", "incident_level"),
            hosts: self.many(&mut root, "", "host"),
            dns: self.many(&mut root, "", "dns"),
            groups: self.groups(&mut root),
        };
        const KNOWN: &[&str] = &[
            "cluster",
            "tls",
            "role",
            "timing",
            "audit",
            "heartbeat",
            "traces",
            "probe_defaults",
            "region",
            "node",
            "reference",
            "receiver",
            "contact",
            "escalation",
            "incident_level",
            "host",
            "dns",
            "group",
        ];
        for key in root.keys() {
            let place =
                Place { line: Some(self.line(key.span().start)), path: key.get_ref().to_string(), ..Place::default() };
            self.report.error(&place, "", "no such table", advice(key.get_ref(), KNOWN));
        }
        raw
    }

    fn groups(&mut self, root: &mut DeTable<'t>) -> Vec<RawGroupTables> {
        let taken = self.take(root, "", "group");
        let mut groups = Vec::new();
        for (n, (offset, mut table)) in taken.into_iter().enumerate() {
            let path = format!("group[{}]", label(&table, n));
            groups.push(RawGroupTables {
                regions: self.many(&mut table, &path, "region"),
                targets: self.many(&mut table, &path, "target"),
                records: self.many(&mut table, &path, "record"),
                traffic_records: self.many(&mut table, &path, "traffic_record"),
                services: self.many(&mut table, &path, "service"),
                verify: self.many(&mut table, &path, "verify"),
                steps: self.many(&mut table, &path, "step"),
                drills: self.many(&mut table, &path, "drill"),
                drill_checks: self.many(&mut table, &path, "drill_check"),
                group: self.item(path, offset, table),
            });
        }
        groups
    }

    /// A table that stands once.
    fn one<T: DeserializeOwned + Default>(&mut self, root: &mut DeTable<'t>, key: &str) -> Item<T> {
        let Some(value) = root.remove(key) else {
            return Item { place: Place { path: key.to_owned(), ..Place::default() }, value: T::default() };
        };
        let offset = value.span().start;
        match value.into_inner() {
            DeValue::Table(table) => self.item(key.to_owned(), offset, table),
            other => {
                let place = Place { path: key.to_owned(), line: Some(self.line(offset)), ..Place::default() };
                self.report.error(
                    &place,
                    "",
                    format!("is written as {}", other.type_str()),
                    format!("write [{key}] once"),
                );
                Item { place: Place { unread: true, ..place }, value: T::default() }
            }
        }
    }

    /// Tables that stand any number of times.
    fn many<T: DeserializeOwned + Default>(&mut self, from: &mut DeTable<'t>, path: &str, key: &str) -> Vec<Item<T>> {
        let taken = self.take(from, path, key);
        let dot = if path.is_empty() { "" } else { "." };
        let read = |(n, (offset, table)): (usize, Taken<'t>)| {
            let path = format!("{path}{dot}{key}[{}]", label(&table, n));
            self.item(path, offset, table)
        };
        taken.into_iter().enumerate().map(read).collect()
    }

    fn take(&mut self, from: &mut DeTable<'t>, path: &str, key: &str) -> Vec<Taken<'t>> {
        let Some(value) = from.remove(key) else { return Vec::new() };
        let offset = value.span().start;
        let header = if path.is_empty() { key.to_owned() } else { format!("group.{key}") };
        let mut taken = Vec::new();
        let mut wrong = |offset: usize, kind: &str| {
            let dot = if path.is_empty() { "" } else { "." };
            let place = Place { path: format!("{path}{dot}{key}"), line: Some(self.line(offset)), ..Place::default() };
            self.report.error(&place, "", format!("is written as {kind}"), format!("begin each one with [[{header}]]"));
        };
        match value.into_inner() {
            DeValue::Array(array) => {
                for element in array {
                    let offset = element.span().start;
                    match element.into_inner() {
                        DeValue::Table(table) => taken.push((offset, table)),
                        other => wrong(offset, other.type_str()),
                    }
                }
            }
            DeValue::Table(_) => wrong(offset, "a single [table]"),
            other => wrong(offset, other.type_str()),
        }
        taken
    }

    /// Reads every key by itself; a key that cannot be read is told and left out.
    fn item<T: DeserializeOwned + Default>(&mut self, path: String, offset: usize, table: DeTable<'t>) -> Item<T> {
        let mut place = Place { path, line: Some(self.line(offset)), ..Place::default() };
        let mut good = DeTable::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            place.keys.insert(name.clone(), self.line(key.span().start));
            if let DeValue::Table(inner) = value.get_ref() {
                for key in inner.keys() {
                    place.keys.insert(format!("{name}.{}", key.get_ref()), self.line(key.span().start));
                }
            }
            let mut alone = DeTable::new();
            alone.insert(key.clone(), value.clone());
            match deserialize::<T>(alone) {
                Ok(_) => {
                    good.insert(key, value);
                }
                Err(error) => {
                    let meant = self.unreadable(&place, &name, &value, &error);
                    place.faulty.extend(meant);
                    place.faulty.insert(name);
                }
            }
        }
        match deserialize(good) {
            Ok(value) => Item { place, value },
            Err(error) => {
                self.report.error(&place, "", error.message().to_owned(), "mend the table");
                Item { place, value: T::default() }
            }
        }
    }

    /// Tells why a key cannot be read; gives the key that was probably meant.
    fn unreadable(
        &mut self,
        place: &Place,
        key: &str,
        value: &Spanned<DeValue<'t>>,
        error: &toml::de::Error,
    ) -> Option<String> {
        let message = error.message().trim();
        if let Some((unknown, known)) = unknown_field(message) {
            let what = match unknown == key {
                true => "no such key".to_owned(),
                false => format!("no such key in it: {unknown:?}"),
            };
            self.report.error(place, key, what, advice(unknown, &known));
            return meant(unknown, &known).map(|(word, _)| word.to_owned());
        }
        let found = self.text.get(value.span()).unwrap_or_default();
        let quoted = match UNQUOTED.contains(&key) || found.is_empty() {
            true => String::new(),
            false => format!("{}: ", found.lines().next().unwrap_or_default().chars().take(80).collect::<String>()),
        };
        let what = format!("{quoted}{}", in_words(message));
        let todo = format!("give {key} a value of that kind; docs/CONFIGURATION.md lists them");
        self.report.error(place, key, what, todo);
        None
    }
}

fn deserialize<T: DeserializeOwned>(table: DeTable<'_>) -> Result<T, toml::de::Error> {
    T::deserialize(ValueDeserializer::from(Spanned::new(0..0, DeValue::Table(table))))
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// What people would call the table: its name, its id, else its place in the file.
fn label(table: &DeTable<'_>, n: usize) -> String {
    let word = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str()).map(str::to_owned);
    let shown = |word: &String| word.len() <= 64 && !word.chars().any(char::is_control);
    word("name").or_else(|| word("id")).filter(shown).unwrap_or_else(|| format!("#{}", n + 1))
}

/// Takes serde's sentence apart: ``unknown field `a`, expected one of `b`, `c` ``.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    Some((unknown, rest.split('`').skip(1).step_by(2).collect()))
}

fn in_words(message: &str) -> String {
    let mut words = message.lines().next().unwrap_or_default().to_owned();
    for number in ["u64", "u32", "u16", "u8", "usize"] {
        words = words.replace(&format!("expected {number}"), "expected a whole number, not negative, without a unit");
    }
    words.replace("data did not match any variant of untagged enum RawNeed", "expected \"all\", \"any\" or a number")
}

/// What to do about an unknown word.
fn advice(unknown: &str, known: &[&str]) -> String {
    match meant(unknown, known) {
        Some((word, true)) => format!("did you mean {word}? (the unit is part of the name)"),
        Some((word, false)) => format!("did you mean {word}?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The nearest known word, if one is near, and whether it differs by its unit only.
fn meant<'k>(unknown: &str, known: &[&'k str]) -> Option<(&'k str, bool)> {
    let with_unit = known.iter().find(|word| stem(word) == stem(unknown) && stem(word) != **word);
    let near = known.iter().map(|word| (distance(unknown, word), *word)).min();
    match (with_unit, near) {
        (Some(word), _) => Some((*word, true)),
        (None, Some((far, word))) if far <= 2.max(word.len() / 4) => Some((word, false)),
        _ => None,
    }
}

/// A key without its unit.
fn stem(key: &str) -> &str {
    ["_ms", "_s", "_secs", "_seconds", "_m", "_min"].iter().find_map(|unit| key.strip_suffix(unit)).unwrap_or(key)
}

/// Levenshtein's distance, for words of reasonable length.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let cost = usize::from(left != right);
            let next = (diagonal + cost).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
