//! How the API is named and explained, judged over the descriptors that a node serves: what `buf lint` would say, and that
//! nothing is left without a comment.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// With comments, which the embedded set is without.
const COMMENTED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/watchdog-commented.bin"));

/// Nodes and guards speak these among themselves: they share envelopes, and nobody else calls them.
const INTERNAL: &[&str] = &["Peer", "Lease", "Hold"];

fn set() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(COMMENTED).unwrap();
    set.file.retain(|file| file.package().starts_with("watchdog"));
    set
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_lower_snake(name: &str) -> bool {
    let ends = |at: Option<char>| at.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes_ok = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    bytes_ok && name.starts_with(|c: char| c.is_ascii_lowercase()) && ends(name.chars().last()) && !name.contains("__")
}

/// `FailureKind` as `FAILURE_KIND`.
fn upper_snake(name: &str) -> String {
    let mut out = String::new();
    for (n, c) in name.char_indices() {
        if n > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// One file's faults.
struct Judge<'a> {
    file: &'a FileDescriptorProto,
    commented: BTreeSet<&'a [i32]>,
    faults: Vec<String>,
}

impl<'a> Judge<'a> {
    fn new(file: &'a FileDescriptorProto) -> Self {
        let locations = file.source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
        let has_words = |text: &str| !text.trim().is_empty();
        let with_comment = locations.iter().filter(|at| has_words(at.leading_comments()));
        Self { file, commented: with_comment.map(|at| at.path.as_slice()).collect(), faults: Vec::new() }
    }

    fn fault(&mut self, what: String) {
        self.faults.push(format!("{}: {what}", self.file.name()));
    }

    fn explained(&mut self, path: &[i32], name: &str) {
        if !self.commented.contains(path) {
            self.fault(format!("{name} has no comment: say what it is, in what unit, and what empty means"));
        }
    }

    fn package(&mut self) {
        let package = self.file.package().to_owned();
        let version = package.rsplit('.').next().unwrap_or_default();
        if version.strip_prefix('v').is_none_or(|n| n.parse::<u32>().is_err()) {
            self.fault(format!("package {package} does not end in a version"));
        }
        if !self.file.name().starts_with(&format!("{}/", package.replace('.', "/"))) {
            self.fault(format!("package {package} is not where its name says"));
        }
    }

    fn message(&mut self, path: &[i32], message: &DescriptorProto) {
        let name = message.name();
        self.explained(path, name);
        if !is_pascal(name) {
            self.fault(format!("message {name} is not PascalCase"));
        }
        for (n, field) in message.field.iter().enumerate() {
            let at = format!("{name}.{}", field.name());
            if !is_lower_snake(field.name()) {
                self.fault(format!("{at} is not lower_snake_case"));
            }
            let is_number = matches!(field.r#type(), Type::Int64 | Type::Uint64 | Type::Int32 | Type::Uint32);
            let is_time =
                ["_at", "_until", "_age", "_timeout", "_deadline"].iter().any(|end| field.name().ends_with(end));
            if is_number && is_time {
                self.fault(format!("{at} does not say its unit: end it in _ms"));
            }
            self.explained(&[path, &[2, n as i32]].concat(), &at);
        }
        // What a map is on the wire nobody wrote, and so nobody can explain.
        let is_map = |inner: &DescriptorProto| inner.options.as_ref().is_some_and(|options| options.map_entry());
        for (n, inner) in message.nested_type.iter().enumerate().filter(|(_, inner)| !is_map(inner)) {
            self.message(&[path, &[3, n as i32]].concat(), inner);
        }
        for (n, inner) in message.enum_type.iter().enumerate() {
            self.kind(&[path, &[4, n as i32]].concat(), inner);
        }
    }

    fn kind(&mut self, path: &[i32], kind: &EnumDescriptorProto) {
        self.explained(path, kind.name());
        if !is_pascal(kind.name()) {
            self.fault(format!("enum {} is not PascalCase", kind.name()));
        }
        let prefix = format!("{}_", upper_snake(kind.name()));
        for (n, value) in kind.value.iter().enumerate() {
            let name = value.name();
            if !name.starts_with(&prefix) {
                self.fault(format!("{name} does not begin with {prefix}"));
            }
            if value.number() == 0 && name != format!("{prefix}UNSPECIFIED") {
                self.fault(format!(
                    "{name} is 0, which is what an old program sends that knows no better: {prefix}UNSPECIFIED"
                ));
            }
            self.explained(&[path, &[2, n as i32]].concat(), name);
        }
    }

    /// `used` counts what every method of every file takes and gives.
    fn services(&mut self, used: &BTreeMap<String, usize>) {
        for (n, service) in self.file.service.iter().enumerate() {
            self.explained(&[6, n as i32], service.name());
            for (m, method) in service.method.iter().enumerate() {
                let at = format!("{}.{}", service.name(), method.name());
                self.explained(&[6, n as i32, 2, m as i32], &at);
                if !is_pascal(method.name()) {
                    self.fault(format!("{at} is not PascalCase"));
                }
                if INTERNAL.contains(&service.name()) {
                    continue;
                }
                for (kind, found) in [("Request", method.input_type()), ("Response", method.output_type())] {
                    let wanted = format!(".{}.{}{kind}", self.file.package(), method.name());
                    if found != wanted {
                        self.fault(format!("{at} has {found}, and not its own {wanted}"));
                    }
                    if used.get(found).is_some_and(|uses| *uses > 1) {
                        self.fault(format!("{at} shares {found} with another method: neither could grow alone"));
                    }
                }
            }
        }
    }
}

fn faults(set: &FileDescriptorSet) -> Vec<String> {
    let mut used = BTreeMap::new();
    for method in set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method) {
        for kind in [method.input_type(), method.output_type()] {
            *used.entry(kind.to_owned()).or_insert(0) += 1;
        }
    }
    let judged = set.file.iter().flat_map(|file| {
        let mut judge = Judge::new(file);
        judge.package();
        for (n, message) in file.message_type.iter().enumerate() {
            judge.message(&[4, n as i32], message);
        }
        for (n, kind) in file.enum_type.iter().enumerate() {
            judge.kind(&[5, n as i32], kind);
        }
        judge.services(&used);
        judge.faults
    });
    judged.collect()
}

#[test]
fn the_api_is_named_and_explained_as_it_should_be() {
    let found = faults(&set());
    assert!(found.is_empty(), "{} faults in proto/:\n{}", found.len(), found.join("\n"));
}

#[test]
fn each_rule_finds_what_breaks_it() {
    type Break = fn(&mut FileDescriptorProto);
    let table: [(&str, Break); 11] = [
        ("does not end in a version", |file| file.package = Some("watchdog".to_owned())),
        ("is not where its name says", |file| file.name = Some("admin.proto".to_owned())),
        ("message pause is not PascalCase", |file| file.message_type[0].name = Some("pause".to_owned())),
        (".endMs is not lower_snake_case", |file| file.message_type[0].field[0].name = Some("endMs".to_owned())),
        (".end_at does not say its unit", |file| {
            let field = &mut file.message_type[0].field[0];
            (field.name, field.r#type) = (Some("end_at".to_owned()), Some(Type::Int64.into()));
        }),
        ("does not begin with REACH_", |file| file.enum_type[0].value[1].name = Some("YES".to_owned())),
        ("is 0, which is what an old program sends", |file| {
            file.enum_type[0].value[0].name = Some("REACH_NONE".to_owned());
        }),
        ("has .watchdog.v1.Run, and not its own .watchdog.v1.GetStatusResponse", |file| {
            file.service[0].method[0].output_type = Some(".watchdog.v1.Run".to_owned());
        }),
        ("shares .watchdog.v1.PauseRequest with another method", |file| {
            file.service[0].method[0].input_type = Some(".watchdog.v1.PauseRequest".to_owned());
        }),
        ("Admin.GetStatus has no comment", |file| {
            file.source_code_info.as_mut().unwrap().location.retain(|at| at.path != [6, 0, 2, 0]);
        }),
        ("has no comment: say what it is", |file| {
            file.source_code_info.as_mut().unwrap().location.retain(|at| at.path != [4, 0, 2, 0]);
        }),
    ];
    for (wanted, change) in table {
        let mut set = set();
        change(set.file.iter_mut().find(|file| file.name().ends_with("/admin.proto")).unwrap());
        let found = faults(&set);
        assert!(found.iter().any(|fault| fault.contains(wanted)), "no {wanted:?} in {found:?}");
    }
}
