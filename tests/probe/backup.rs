//! Backups: pgBackRest's own words (`info --output=json` of 2.45, recorded from a real repository), files and HTTP.

use std::path::Path;

use url::Url;
use watchdog::domain::ids::UnixMs;
use watchdog::domain::observation::{BackupMeasure, FailureKind, Measure};
use watchdog::probe::ProbeSpec;
use watchdog::probe::backup::{BackupFormat, BackupSource, read_info};

use crate::parts::*;

const TWO: &str = include_str!("pgbackrest/two.json");
const EMPTY: &str = include_str!("pgbackrest/empty.json");
const MISSING: &str = include_str!("pgbackrest/missing.json");

fn spec(source: BackupSource, stanza: Option<&str>) -> ProbeSpec {
    let format = stanza.map_or(BackupFormat::Modified, |stanza| BackupFormat::PgBackRest { stanza: stanza.to_owned() });
    ProbeSpec::Backup { source, format, ca_file: None }
}

fn at(url: &str) -> BackupSource {
    BackupSource::Url(Url::parse(url).unwrap())
}

fn answer(head: &str, body: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[test]
fn what_pgbackrest_says_is_understood() {
    let two = read_info(TWO.as_bytes(), "demo").unwrap();
    let wanted = BackupMeasure {
        last_success: Some(UnixMs(1_795_290_772_000)),
        is_ok: true,
        took_ms: Some(2000),
        size_bytes: Some(22_992_581),
        note: String::new(),
    };
    assert_eq!(two, wanted);
    let none = read_info(EMPTY.as_bytes(), "demo").unwrap();
    assert_eq!((none.last_success, none.is_ok, none.note.as_str()), (None, false, "status 2: no valid backups"));
    let none = read_info(MISSING.as_bytes(), "demo").unwrap();
    assert_eq!((none.last_success, none.is_ok, none.note.as_str()), (None, false, "status 1: missing stanza path"));
    // The newest has pages with wrong checksums: the one before is the last good one, and the tool's word is not "ok".
    let (before, after) = TWO.rsplit_once("\"error\":false").unwrap();
    let damaged = read_info(format!("{before}\"error\":true{after}").as_bytes(), "demo").unwrap();
    assert_eq!(damaged.last_success, Some(UnixMs(1_795_290_769_000)));
    assert!(!damaged.is_ok && damaged.note.contains("wrong checksums"), "{damaged:?}");
}

#[test]
fn what_it_never_says_is_told_in_words() {
    for (text, stanza, phrase) in [
        ("", "demo", "not what `pgbackrest info"),
        ("{}", "demo", "not what"),
        ("[{\"name\": \"demo\"}]", "demo", "status"),
        ("[]", "demo", "no stanza \"demo\" in it"),
        (TWO, "other", "no stanza \"other\" in it, but: demo"),
        ("\u{feff}[]", "demo", "not what"),
    ] {
        let said = read_info(text.as_bytes(), stanza).unwrap_err();
        assert!(said.contains(phrase), "{text:?}: {said}");
    }
}

#[tokio::test]
async fn files_are_read_and_their_absence_is_our_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("info.json");
    let file = |path: &Path| BackupSource::File(path.to_owned());
    let outcome = probe_of(&spec(file(&path), Some("demo"))).probe().await;
    assert_eq!(kind(&outcome), Some(FailureKind::OurFault), "{outcome:?}");
    // A real one, of a real time.
    std::fs::write(&path, TWO.replace("1795290772", "1600000000").replace("1795290769", "1500000000")).unwrap();
    let Ok(Some(Measure::Backup(found))) = probe_of(&spec(file(&path), Some("demo"))).probe().await else { panic!() };
    assert_eq!(found.last_success, Some(UnixMs(1_600_000_000_000)));
    let Ok(Some(Measure::Backup(found))) = probe_of(&spec(file(&path), None)).probe().await else { panic!() };
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let ms = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert_eq!(found.last_success.map(|at| u128::from(at.0)), Some(ms));
    // Half written: the next look sees it whole, and this one says what it is.
    std::fs::write(&path, &TWO[..200]).unwrap();
    let outcome = probe_of(&spec(file(&path), Some("demo"))).probe().await;
    assert_eq!(kind(&outcome), Some(FailureKind::WrongAnswer), "{outcome:?}");
}

#[tokio::test]
async fn what_an_answer_by_http_means() {
    use FailureKind::*;
    let dated = "200 OK\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let old = TWO.replace("1795290772", "1600000000").replace("1795290769", "1500000000");
    let table = [
        ("info", answer("200 OK", &old), Some("demo"), Ok(1_600_000_000_000)),
        ("an object", answer(dated, ""), None, Ok(784_111_777_000)),
        ("no date", answer("200 OK", ""), None, Err(WrongAnswer)),
        ("a date of another kind", answer("200 OK\r\nLast-Modified: today", ""), None, Err(WrongAnswer)),
        ("gone", answer("404 Not Found", ""), Some("demo"), Err(WrongAnswer)),
        ("credentials", answer("403 Forbidden", ""), None, Err(OurFault)),
        ("another stanza", answer("200 OK", &old), Some("prod"), Err(WrongAnswer)),
        ("a page", answer("200 OK", "<html>"), Some("demo"), Err(WrongAnswer)),
        ("the future", answer("200 OK", &TWO.replace("1795290772", "99999999999")), Some("demo"), Err(WrongAnswer)),
    ];
    for (name, reply, stanza, wanted) in table {
        let port = stand_in(reply).await;
        let outcome = probe_of(&spec(at(&format!("http://127.0.0.1:{port}/info?token=s3cret")), stanza)).probe().await;
        let found = match &outcome {
            Ok(Some(Measure::Backup(measure))) => Ok(measure.last_success.unwrap_or_default().0),
            Ok(other) => panic!("{name}: {other:?}"),
            Err(failure) => {
                assert!(!failure.detail.contains("s3cret"), "{name}: {}", failure.detail);
                Err(failure.kind)
            }
        };
        assert_eq!(found, wanted, "{name}: {outcome:?}");
    }
}
