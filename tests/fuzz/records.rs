//! A guard's own files as it finds them again: the same value as was written, or an error with the file's name.

use std::fs;

use watchdog::domain::ids::{GroupName, Token, UnixMs};
use watchdog::guard::latch::{self, Latch};
use watchdog::guard::ledger::{self, Entry, Event};
use watchdog::guard::protocol::LatchMark;
use watchdog::guard::records::{seal, unseal};
use watchdog::guard::token_store::{self, GroupFiles, TokenRecord};

use crate::runner::{Target, Trial, holds};

fn entries() -> Vec<Entry> {
    let entry = |step: &str, event| Entry {
        at: UnixMs(1_795_231_050_123),
        run: "01955555-0000-7000-8000-000000000001".into(),
        step: step.into(),
        attempt: 1,
        token: Token { epoch: 1, n: 7 },
        action: "fence".into(),
        event,
        detail: "đã dừng".into(),
    };
    vec![entry("fence", Event::Started), entry("fence", Event::Done), entry("promote", Event::Unknown)]
}

pub fn any_bytes_in_a_ledger_are_its_entries_or_an_error_with_its_line() -> Trial {
    let written = entries();
    let whole: Vec<u8> = written.iter().flat_map(|entry| seal(entry).into_bytes()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.log");
    Target::new("ledger", vec![whole])
        .judged_by(move |bytes| {
            fs::write(&path, bytes).unwrap();
            match ledger::load(&path) {
                // Lines may be lost or repeated, which no checksum of a line tells; none may be another.
                Ok(found) => holds(found.iter().all(|entry| written.contains(entry)), || format!("{found:?}")),
                Err(why) => {
                    let why = why.to_string();
                    holds(why.contains("ledger.log is damaged: line "), || why)
                }
            }
        })
        .keeping(folder)
}

pub fn any_bytes_in_a_token_store_or_latch_are_what_was_written_or_damage() -> Trial {
    let group = GroupName::from("aicamera");
    let token = Token { epoch: 1, n: 7 };
    let enrolled_at = UnixMs(1);
    let record = TokenRecord { cluster: "demo".into(), epoch: 1, group: group.clone(), token, enrolled_at };
    let mark = LatchMark { token, run: "r1".into(), step: "fence".into(), at: UnixMs(5) };
    let set = Latch { mark: Some(mark), cleared_by: None };
    let folder = tempfile::tempdir().unwrap();
    let files = GroupFiles::new(folder.path(), &group);
    fs::create_dir_all(files.dir()).unwrap();
    Target::new("token-store", vec![seal(&record).into_bytes(), seal(&set).into_bytes()])
        .judged_by(move |bytes| {
            fs::write(files.token(), bytes).unwrap();
            fs::write(files.latch(), bytes).unwrap();
            match token_store::load(&files, &group) {
                Ok(found) => holds(found == record, || format!("{found:?}"))?,
                Err(why) => holds(why.to_string().contains("token"), || why.to_string())?,
            }
            match latch::load(&files) {
                Ok(found) => holds(found == set, || format!("{found:?}")),
                Err(why) => holds(why.to_string().contains("latch"), || why.to_string()),
            }
        })
        .keeping(folder)
}

/// Even with a checksum that holds, an odd value is read strictly.
pub fn any_sealed_json_is_a_record_or_told() -> Trial {
    let json = |record: &Entry| serde_json::to_vec(record).unwrap();
    Target::new("sealed-records", entries().iter().map(json).collect()).judged_by(move |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
        let line = format!("{:08x} {text}", crc32c::crc32c(bytes));
        match unseal::<Entry>(&line) {
            Ok(entry) => holds(unseal::<Entry>(seal(&entry).trim_end()) == Ok(entry.clone()), || format!("{entry:?}")),
            Err(why) => holds(why.contains("known shape"), || why),
        }
    })
}
