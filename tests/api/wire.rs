//! The wire stays readable: what a program of today sends and understands, one of tomorrow does too.
//!
//! `golden/wire.txt` has a line for every field, value and method that ever was. A line that is no longer true is a break:
//! give what is new another number or name instead. What was added is recorded with
//! `UPDATE_GOLDEN=1 cargo test --test api wire::`, which adds lines and never takes one away.
//! `golden/wire-bytes.txt` has whole messages as bytes, recorded the same way.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use watchdog::proto::{self, DESCRIPTORS};

const HOW: &str = "record it with: UPDATE_GOLDEN=1 cargo test --test api wire::";

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api/golden").join(name)
}

fn lines(name: &str) -> BTreeSet<String> {
    std::fs::read_to_string(path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn write(name: &str, lines: &BTreeSet<String>) {
    let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    std::fs::write(path(name), text).unwrap();
}

fn field_type(field: &FieldDescriptorProto) -> String {
    let base = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        plain => format!("{plain:?}").to_ascii_lowercase(),
    };
    match (field.label(), field.proto3_optional()) {
        (Label::Repeated, _) => format!("repeated {base}"),
        (_, true) => format!("optional {base}"),
        _ => base,
    }
}

fn of_message(within: &str, message: &DescriptorProto, into: &mut BTreeSet<String>) {
    let name = format!("{within}.{}", message.name());
    for field in &message.field {
        into.insert(format!("field {name} {:>3} {} {}", field.number(), field.name(), field_type(field)));
    }
    for inner in &message.nested_type {
        of_message(&name, inner, into);
    }
    for inner in &message.enum_type {
        of_enum(&name, inner, into);
    }
}

fn of_enum(within: &str, kind: &EnumDescriptorProto, into: &mut BTreeSet<String>) {
    for value in &kind.value {
        into.insert(format!("value {within}.{} {:>3} {}", kind.name(), value.number(), value.name()));
    }
}

fn of_set(set: &FileDescriptorSet) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("watchdog")) {
        for message in &file.message_type {
            of_message(file.package(), message, &mut all);
        }
        for kind in &file.enum_type {
            of_enum(file.package(), kind, &mut all);
        }
        for service in &file.service {
            for method in &service.method {
                let streams = |is_stream: bool| if is_stream { "stream " } else { "" };
                all.insert(format!(
                    "method {}.{}/{} ({}{}) -> {}{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    streams(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    streams(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
    }
    all
}

/// What the recorded wire has and this one has not, and the other way round.
fn compared(recorded: &BTreeSet<String>, now: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    (recorded.difference(now).cloned().collect(), now.difference(recorded).cloned().collect())
}

#[test]
fn nothing_was_removed_renumbered_or_retyped() {
    let now = of_set(&FileDescriptorSet::decode(DESCRIPTORS).unwrap());
    let recorded = lines("wire.txt");
    if is_update() {
        write("wire.txt", &recorded.union(&now).cloned().collect());
    }
    let (broken, new) = compared(&lines("wire.txt"), &now);
    assert!(broken.is_empty(), "programs in use rely on this, and it is gone or different:\n{}", broken.join("\n"));
    assert!(new.is_empty(), "new on the wire; {HOW}\n{}", new.join("\n"));
}

#[test]
fn what_breaks_the_wire_is_found() {
    type Break = fn(&mut FileDescriptorSet);
    fn admin(set: &mut FileDescriptorSet) -> &mut prost_types::FileDescriptorProto {
        set.file.iter_mut().find(|file| file.name().ends_with("/admin.proto")).unwrap()
    }
    let table: [(&str, Break, bool); 7] = [
        ("a field renumbered", |set| admin(set).message_type[0].field[0].number = Some(99), true),
        ("a field retyped", |set| admin(set).message_type[0].field[0].r#type = Some(Type::Bytes.into()), true),
        ("a field renamed", |set| admin(set).message_type[0].field[0].name = Some("other".to_owned()), true),
        ("a field removed", |set| drop(admin(set).message_type[0].field.pop()), true),
        ("a value removed", |set| drop(admin(set).enum_type[0].value.pop()), true),
        ("a method that streams", |set| admin(set).service[0].method[0].server_streaming = Some(true), true),
        ("a message added", |set| admin(set).message_type.push(DescriptorProto::default()), false),
    ];
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let recorded = of_set(&set);
    for (what, change, breaks) in table {
        let mut set = set.clone();
        change(&mut set);
        assert_eq!(!compared(&recorded, &of_set(&set)).0.is_empty(), breaks, "{what}");
    }
}

fn standing() -> Option<proto::Standing> {
    Some(proto::Standing {
        node: "danang-1".to_owned(),
        leader: "danang-1".to_owned(),
        has_quorum: true,
        note: String::new(),
        term: 7,
        as_of_index: 300,
        at_ms: 1_795_000_000_123,
    })
}

fn context() -> Option<proto::WriteContext> {
    Some(proto::WriteContext {
        request_id: "01955555-0000-7000-8000-000000000001".to_owned(),
        by: "linh".to_owned(),
        reason: "điện: power work".to_owned(),
    })
}

fn run() -> proto::Run {
    proto::Run {
        summary: Some(proto::RunSummary {
            id: "01955555-0000-7000-8000-000000000001".to_owned(),
            group: "aicamera".to_owned(),
            kind: proto::RunKind::Failover.into(),
            phase: proto::RunPhase::Stuck.into(),
            from_region: "hcmc".to_owned(),
            to_region: "hanoi".to_owned(),
            opened_at_ms: 1_795_000_000_000,
            closed_at_ms: Some(0),
            token: "1.2".to_owned(),
            ..Default::default()
        }),
        evidence: vec!["hanoi-1: down 3.2 s".to_owned(), "danang-1: down 3.1 s".to_owned()],
        expected_loss_ms: Some(180),
        steps: vec![proto::StepStatus {
            id: "fence".to_owned(),
            stage: 1,
            phase: proto::StepPhase::Unknown.into(),
            attempts: 2,
            ..Default::default()
        }],
        events: vec![proto::RunEvent { index: 12, what: "claimed".to_owned(), ..Default::default() }],
        ..Default::default()
    }
}

fn status() -> proto::GetStatusResponse {
    proto::GetStatusResponse {
        standing: standing(),
        cluster: "demo".to_owned(),
        epoch: 1,
        groups: vec![proto::GroupStatus {
            name: "aicamera".to_owned(),
            mode: proto::Mode::Paused.into(),
            open_run: Some(run()),
            votes: vec![proto::Vote {
                target: "hcmc-db".to_owned(),
                verdict: proto::Verdict::Down.into(),
                failure: proto::FailureKind::Refused.into(),
                counts: true,
                ..Default::default()
            }],
            ..Default::default()
        }],
        has_sight: true,
        ..Default::default()
    }
}

/// Reads bytes, and asserts that they say the same as ever.
type ReadAgain = Box<dyn Fn(&[u8])>;

/// The bytes, and what they read back as, written again.
fn twice<M: Message + Default + PartialEq + std::fmt::Debug + 'static>(name: &str, message: M) -> (String, ReadAgain) {
    let hex = message.encode_to_vec().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let title = name.to_owned();
    let read_again = move |bytes: &[u8]| {
        let read = M::decode(bytes).unwrap_or_else(|error| panic!("{title} of old is no longer read: {error}"));
        assert_eq!(read, message, "{title} of old reads otherwise");
        assert_eq!(read.encode_to_vec(), bytes, "{title} is written otherwise");
    };
    (format!("{name} {hex}"), Box::new(read_again))
}

#[test]
fn bytes_of_old_are_read_and_written_as_ever() {
    let until_ms = Some(1_795_000_600_000);
    let cases = [
        twice("PauseRequest", proto::PauseRequest { context: context(), group: "aicamera".to_owned(), until_ms }),
        twice(
            "FailoverRequest",
            proto::FailoverRequest {
                context: context(),
                group: "aicamera".to_owned(),
                to_region: "hanoi".to_owned(),
                confirm_group: "aicamera".to_owned(),
                expected_token: "1.1".to_owned(),
                accept_loss: true,
                assert_fence_region: "hcmc".to_owned(),
                ..Default::default()
            },
        ),
        twice("GetStatusResponse", status()),
        twice("GetRunResponse", proto::GetRunResponse { standing: standing(), run: Some(run()) }),
        twice(
            "WatchResponse",
            proto::WatchResponse {
                status: Some(status()),
                news: vec![proto::AuditEntry { index: 300, what: "pause".to_owned(), ..Default::default() }],
                news_missing: true,
                position: "1.300".to_owned(),
                note: "the leader is lost".to_owned(),
            },
        ),
    ];
    let recorded = lines("wire-bytes.txt");
    let name_of = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let known: BTreeSet<String> = recorded.iter().map(|line| name_of(line)).collect();
    if is_update() {
        let new = cases.iter().map(|(line, _)| line.clone()).filter(|line| !known.contains(&name_of(line)));
        write("wire-bytes.txt", &recorded.iter().cloned().chain(new).collect());
    }
    let recorded = lines("wire-bytes.txt");
    for (line, read_again) in &cases {
        let name = name_of(line);
        let found = recorded.iter().find(|old| name_of(old) == name);
        let old = found.unwrap_or_else(|| panic!("{name} is not recorded; {HOW}"));
        let hex = old.split(' ').nth(1).unwrap_or_default();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        read_again(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>());
    }
}
