//! Judging single fields: present, in range, of the right form, known, unique.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::config::check::Place;
use crate::config::types::NamedFile;

use super::Judge;

/// An hour: no time-out or interval of a probe is longer.
pub(super) const HOUR_MS: u64 = 3_600_000;

impl Judge<'_> {
    /// The value, or a fault that it is missing.
    pub(super) fn required<T: Clone>(&mut self, place: &Place, key: &str, value: &Option<T>) -> Option<T> {
        if value.is_none() {
            self.report.error(place, key, format!("{key} is missing"), format!("add {key} = …"));
        }
        value.clone()
    }

    /// A name: letters, digits, `-`, `_`, `.`; it becomes part of file names, keys and DNS names.
    pub(super) fn name(&mut self, place: &Place, key: &str, value: &Option<String>) -> Option<String> {
        let name = self.required(place, key, value)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && name.len() <= 63 && name.chars().all(plain) {
            return Some(name);
        }
        let what = format!("{:?} cannot be a name", cut(&name));
        self.report.error(
            place,
            key,
            what,
            "use up to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit",
        );
        None
    }

    /// A number in its range, or the default.
    pub(super) fn number<T>(
        &mut self,
        place: &Place,
        key: &str,
        value: Option<T>,
        default: T,
        range: RangeInclusive<T>,
    ) -> T
    where
        T: Copy + PartialOrd + Display,
    {
        match value {
            None => default,
            Some(value) if range.contains(&value) => value,
            Some(value) => {
                let what = format!("{value} is outside {}..{}", range.start(), range.end());
                self.report.error(place, key, what, format!("usual is {default}"));
                default
            }
        }
    }

    /// One word out of several; the default where it is not written and there is one.
    pub(super) fn choice<T: Clone>(
        &mut self,
        place: &Place,
        key: &str,
        value: &Option<String>,
        default: Option<T>,
        options: &[(&str, T)],
    ) -> Option<T> {
        let word = match (value, default) {
            (None, Some(default)) => return Some(default),
            (value, _) => self.required(place, key, value)?,
        };
        if let Some((_, found)) = options.iter().find(|(option, _)| *option == word) {
            return Some(found.clone());
        }
        let all: Vec<String> = options.iter().map(|(option, _)| format!("{option:?}")).collect();
        self.report.error(
            place,
            key,
            format!("{:?} is not a choice here", cut(&word)),
            format!("choose {}", all.join(" or ")),
        );
        None
    }

    /// `host:port`, as something to connect to.
    pub(super) fn host_port(&mut self, place: &Place, key: &str, value: &Option<String>) -> Option<String> {
        let text = self.required(place, key, value)?;
        if is_host_port(&text) {
            return Some(text);
        }
        let what = format!("{:?} is not an address with a port", cut(&text));
        self.report.error(place, key, what, "write host:port, for example 10.1.0.5:7101 or [fd00::5]:7101");
        None
    }

    /// `IP:port`, to bind, or of a name server: which cannot be looked up by name.
    pub(super) fn socket(&mut self, place: &Place, key: &str, value: &Option<String>) -> Option<SocketAddr> {
        let text = self.required(place, key, value)?;
        if let Some(address) = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0) {
            return Some(address);
        }
        let what = format!("{:?} is not an IP address with a port", cut(&text));
        self.report.error(place, key, what, "write IP:port, for example 10.1.0.5:7101 or [fd00::5]:7101");
        None
    }

    /// An absolute path: the same file on every node, wherever a node was started from.
    pub(super) fn path(&mut self, place: &Place, key: &str, text: &str) -> Option<PathBuf> {
        if Path::new(text).is_absolute() {
            return Some(PathBuf::from(text));
        }
        self.report.error(place, key, format!("{:?} is not an absolute path", cut(text)), "begin it with /");
        None
    }

    /// A file that is read when it is needed; noted for `check --files`.
    pub(super) fn file(&mut self, place: &Place, key: &str, value: &Option<String>, secret: bool) -> Option<String> {
        let text = value.as_ref()?;
        let path = self.path(place, key, text)?;
        self.files.push(NamedFile { field: place.path_of(key), line: place.line_of(key), path, secret });
        Some(text.clone())
    }

    /// An absolute http or https URL without a password in it.
    pub(super) fn url(&mut self, place: &Place, key: &str, value: &Option<String>) -> Option<String> {
        let text = self.required(place, key, value)?;
        let todo = "write it as http://host:port/path or https://…";
        match url::Url::parse(&text) {
            Ok(url) if url.password().is_some() || !url.username().is_empty() => {
                self.report.error(
                    place,
                    key,
                    "the URL holds a user or password",
                    "take it out: secrets belong in files",
                );
                None
            }
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.host().is_some() => Some(text),
            Ok(url) => {
                self.report.error(place, key, format!("scheme {:?} is neither http nor https", url.scheme()), todo);
                None
            }
            Err(error) => {
                let shown = if text.contains('@') { String::new() } else { format!("{:?}: ", cut(&text)) };
                self.report.error(place, key, format!("{shown}not a URL ({error})"), todo);
                None
            }
        }
    }

    /// A fully qualified DNS name with its final dot.
    pub(super) fn fqdn(&mut self, place: &Place, key: &str, value: &Option<String>) -> Option<String> {
        let name = self.required(place, key, value)?;
        match fqdn_fault(&name) {
            None => Some(name),
            Some((what, todo)) => {
                self.report.error(place, key, format!("{:?} {what}", cut(&name)), todo);
                None
            }
        }
    }

    /// A reference to something the file must define.
    pub(super) fn refers(
        &mut self,
        place: &Place,
        key: &str,
        value: &Option<String>,
        known: &BTreeSet<String>,
        what: &str,
    ) -> Option<String> {
        let name = self.required(place, key, value)?;
        if known.contains(&name) {
            return Some(name);
        }
        let todo = match known.is_empty() {
            true => format!("define it with [[{what}]]"),
            false => format!("there are: {}", known.iter().cloned().collect::<Vec<_>>().join(", ")),
        };
        self.report.error(place, key, format!("no {what} is called {:?}", cut(&name)), todo);
        None
    }

    /// Tells a value that was used before.
    pub(super) fn unique(
        &mut self,
        seen: &mut BTreeMap<String, Option<usize>>,
        place: &Place,
        key: &str,
        value: &str,
        what: &str,
    ) -> bool {
        if let Some(first) = seen.get(value) {
            let first = first.map_or(String::new(), |line| format!(" (first in line {line})"));
            let message = format!("{:?} stands twice as {what}{first}", cut(value));
            self.report.error(place, key, message, "give each its own");
            return false;
        }
        seen.insert(value.to_owned(), place.line_of(key));
        true
    }

    /// Tells keys that mean nothing for a kind.
    pub(super) fn only(&mut self, place: &Place, kind: &str, common: &[&str], own: &[&str]) {
        let keys: Vec<String> = place.keys.keys().filter(|key| !key.contains('.')).cloned().collect();
        for key in keys {
            if !common.contains(&key.as_str()) && !own.contains(&key.as_str()) {
                let todo = format!("remove it; {kind} takes: {}", own.join(", "));
                self.report.error(place, &key, format!("means nothing for kind {kind:?}"), todo);
            }
        }
    }
}

/// At most so much of a value is repeated in a message.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// `host:port`, `1.2.3.4:port` or `[v6]:port`, port not 0.
pub(super) fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    host_is_good && digits && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// What is wrong with a fully qualified name, and what to do.
pub(super) fn fqdn_fault(name: &str) -> Option<(&'static str, String)> {
    let Some(body) = name.strip_suffix('.') else {
        return Some(("has no final dot", format!("write {:?}", cut(&format!("{name}.")))));
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > 254 || !body.split('.').all(label) {
        let todo = "labels of 1 to 63 letters, digits, '-' or '_', with dots between them, as in api.example.vn.";
        return Some(("is not a DNS name", todo.to_owned()));
    }
    None
}

/// The name is the zone's or lies below it. DNS does not tell cases apart.
pub(super) fn is_within(name: &str, zone: &str) -> bool {
    let (name, zone) = (name.to_ascii_lowercase(), zone.to_ascii_lowercase());
    name == zone || name.ends_with(&format!(".{zone}"))
}
