//! Certificates in files: what `cert init` and `cert issue` make is good, everything else is told by its file, and a
//! running program takes up what is good and keeps what it has where it is not.

#![allow(clippy::unwrap_used, reason = "a helper that cannot do its part ends the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use watchdog::clock::unix_now;
use watchdog::config::judge;
use watchdog::domain::identity::Kind;
use watchdog::domain::ids::UnixMs;
use watchdog::tls::authority::{Ask, init, issue};
use watchdog::tls::material::{Use, load};
use watchdog::tls::{Files, Material};

const DAY_MS: u64 = 24 * 3600 * 1000;

fn ask(kind: Kind, name: &str) -> Ask<'_> {
    Ask { kind, name, hosts: &[], days: 30, renew: false }
}

/// An authority, and what it issued for node n1 and user linh.
struct Pki {
    folder: TempDir,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "test", 100, unix_now()).unwrap();
        for (kind, name) in [(Kind::Node, "n1"), (Kind::User, "linh")] {
            issue(folder.path(), &ask(kind, name), unix_now()).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self, ca: &str, certificate: &str, key: &str) -> Files {
        Files { ca: self.path(ca), certificate: self.path(certificate), key: self.path(key) }
    }

    fn node(&self) -> Files {
        self.files("ca.pem", "node-n1.pem", "node-n1.key")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_issued_is_good_for_what_it_is_for_and_keys_are_kept_from_others() {
    let pki = Pki::new();
    let loaded = load(&pki.node(), Use::Both, unix_now()).unwrap();
    assert_eq!(loaded.identity.as_str(), "watchdog://test/node/n1");
    let user = pki.files("ca.pem", "user-linh.pem", "user-linh.key");
    assert_eq!(load(&user, Use::Call, unix_now()).unwrap().identity.as_str(), "watchdog://test/user/linh");
    let error = load(&user, Use::Both, unix_now()).err().expect("a person's certificate serves nobody").to_string();
    assert!(error.contains("user-linh.pem") && error.contains("not issued for this use"), "{error}");
    for key in ["ca.key", "node-n1.key", "user-linh.key"] {
        assert_eq!(mode(&pki.path(key)), 0o600, "{key}");
    }
}

#[test]
fn an_authority_and_a_certificate_are_never_written_over_by_mistake() {
    let pki = Pki::new();
    let error = init(pki.folder.path(), "test", 100, unix_now()).unwrap_err().to_string();
    assert!(error.contains("ca.pem is there already") && error.contains("cert issue"), "{error}");
    let error = issue(pki.folder.path(), &ask(Kind::Node, "n1"), unix_now()).unwrap_err().to_string();
    assert!(error.contains("node-n1.pem is there already") && error.contains("--renew"), "{error}");
    let (certificate, key) = (fs::read(pki.path("node-n1.pem")).unwrap(), fs::read(pki.path("node-n1.key")).unwrap());
    let renewed = Ask { renew: true, ..ask(Kind::Node, "n1") };
    issue(pki.folder.path(), &renewed, UnixMs(unix_now().0 + DAY_MS)).unwrap();
    assert_ne!(fs::read(pki.path("node-n1.pem")).unwrap(), certificate);
    assert_eq!(fs::read(pki.path("node-n1.key")).unwrap(), key, "so that there is no moment at which the two differ");
    let left: Vec<_> = fs::read_dir(pki.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 6, "{left:?}");
}

#[test]
fn who_died_after_writing_the_key_goes_on_with_it() {
    let pki = Pki::new();
    fs::remove_file(pki.path("node-n1.pem")).unwrap();
    let key = fs::read(pki.path("node-n1.key")).unwrap();
    issue(pki.folder.path(), &ask(Kind::Node, "n1"), unix_now()).unwrap();
    assert_eq!(fs::read(pki.path("node-n1.key")).unwrap(), key);
    load(&pki.node(), Use::Both, unix_now()).unwrap();
}

#[test]
fn nothing_outlives_its_authority() {
    let pki = Pki::new();
    let made = issue(pki.folder.path(), &Ask { days: 3000, ..ask(Kind::Node, "n2") }, unix_now()).unwrap();
    assert!(made.not_after.0 <= unix_now().0 + 100 * DAY_MS);
}

#[test]
fn bad_files_are_told_by_their_name_with_what_to_do() {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.write("empty", "");
    pki.write("garbage", [0xff, 0xfe, 0x00]);
    pki.write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    pki.write("not-x509.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    pki.write("open.key", fs::read(pki.path("node-n1.key")).unwrap());
    fs::set_permissions(pki.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    pki.write("long", vec![b'x'; (1 << 20) + 1]);
    for (name, from) in [("other-ca.pem", "ca.pem"), ("other.pem", "node-n1.pem"), ("other.key", "node-n1.key")] {
        pki.write(name, fs::read(other.path(from)).unwrap());
    }
    for (ca, certificate, key, file, phrase) in [
        ("none.pem", "node-n1.pem", "node-n1.key", "none.pem", "No such file"),
        ("empty", "node-n1.pem", "node-n1.key", "empty", "holds no certificate"),
        ("garbage", "node-n1.pem", "node-n1.key", "garbage", "BEGIN CERTIFICATE"),
        ("long", "node-n1.pem", "node-n1.key", "long", "is it the right file"),
        ("not-x509.pem", "node-n1.pem", "node-n1.key", "not-x509.pem", "cannot be trusted"),
        ("ca.pem", "none.pem", "node-n1.key", "none.pem", "put the file there"),
        ("ca.pem", "cut.pem", "node-n1.key", "cut.pem", "BEGIN CERTIFICATE"),
        ("ca.pem", "not-x509.pem", "node-n1.key", "not-x509.pem", "not an X.509 certificate"),
        ("ca.pem", "node-n1.key", "node-n1.key", "node-n1.key", "holds no certificate"),
        ("ca.pem", "node-n1.pem", "none.key", "none.key", "No such file"),
        ("ca.pem", "node-n1.pem", "node-n1.pem", "node-n1.pem", ""),
        ("ca.pem", "node-n1.pem", "open.key", "open.key", "chmod 600"),
        ("ca.pem", "node-n1.pem", "user-linh.key", "user-linh.key", "is not the key of the certificate in"),
        (
            "other-ca.pem",
            "node-n1.pem",
            "node-n1.key",
            "node-n1.pem",
            "one certificate authority for the whole cluster",
        ),
        ("ca.pem", "other.pem", "other.key", "other.pem", "one certificate authority for the whole cluster"),
        ("ca.pem", "ca.pem", "ca.key", "ca.pem", "none of watchdog://CLUSTER/node/NAME"),
    ] {
        let loaded = load(&pki.files(ca, certificate, key), Use::Both, unix_now());
        let error = loaded.err().unwrap_or_else(|| panic!("{ca} {certificate} {key}"));
        let told = error.to_string();
        assert!(
            error.file == pki.path(file) && told.contains(phrase) && !error.todo.is_empty(),
            "{ca} {certificate} {key}: {told}"
        );
        assert!(!told.contains("PRIVATE KEY-----\nM"), "{told}");
    }
}

#[test]
fn too_early_and_too_late_are_told_with_both_times() {
    let pki = Pki::new();
    let at = |now: UnixMs| load(&pki.node(), Use::Both, now).err().map(|error| error.to_string()).unwrap_or_default();
    let now = unix_now();
    assert_eq!(at(UnixMs(now.0 - DAY_MS / 2)), "", "half a day of a wrong clock is borne");
    let late = at(UnixMs(now.0 + 31 * DAY_MS));
    assert!(late.contains("node-n1.pem: it expired at 20") && late.contains("issue a new one"), "{late}");
    let early = at(UnixMs(now.0 - 3 * DAY_MS));
    assert!(early.contains("it is valid from 20") && early.contains("set the clock right"), "{early}");
}

#[test]
fn what_changed_is_taken_up_and_what_cannot_be_used_is_not() {
    let pki = Pki::new();
    let material = Material::open(pki.node(), Use::Both).unwrap();
    let (first, good) = (material.current().not_after, fs::read(pki.path("node-n1.pem")).unwrap());
    assert_eq!(material.warnings(), Vec::<String>::new());

    pki.write("node-n1.pem", "half of a cert");
    material.look_again();
    assert_eq!(material.current().not_after, first);
    let [warning] = &material.warnings()[..] else { panic!("{:?}", material.warnings()) };
    assert!(warning.contains("node-n1.pem") && warning.contains("stays in use"), "{warning}");

    pki.write("node-n1.pem", good);
    material.look_again();
    assert_eq!(material.warnings(), Vec::<String>::new());

    let renewed = Ask { renew: true, days: 5, ..ask(Kind::Node, "n1") };
    issue(pki.folder.path(), &renewed, unix_now()).unwrap();
    material.look_again();
    assert!(material.current().not_after < first, "the new one ends sooner");
    let [warning] = &material.warnings()[..] else { panic!("{:?}", material.warnings()) };
    assert!(warning.contains("expires at") && warning.contains("in 4 days"), "{warning}");

    fs::remove_file(pki.path("node-n1.key")).unwrap();
    material.look_again();
    assert!(material.warnings()[0].contains("node-n1.key"), "{:?}", material.warnings());
}

#[test]
fn a_node_that_finds_anothers_certificate_does_not_start() {
    let pki = Pki::new();
    issue(pki.folder.path(), &ask(Kind::Node, "n2"), unix_now()).unwrap();
    let dir = pki.folder.path().display();
    let with = |certificate: &str| {
        crate::faults::BASE
            .replace("/etc/watchdog/tls/ca.pem", &format!("{dir}/ca.pem"))
            .replace("/etc/watchdog/tls/node.pem", &format!("{dir}/{certificate}.pem"))
            .replace("/etc/watchdog/tls/node.key", &format!("{dir}/{certificate}.key"))
    };
    // The other files that the base names are not on this machine.
    let told = |certificate: &str, node: Option<&str>| {
        let (config, _) = judge(with(certificate).as_bytes());
        let config = config.expect("sound");
        let node = node.map(|name| config.node(name).unwrap().name.clone());
        let faults = config.check_files(node.as_ref()).errors;
        let about = faults.iter().filter(|fault| fault.path.starts_with("tls")).map(ToString::to_string);
        about.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(told("node-n1", Some("n1")), "");
    let another = told("node-n1", Some("n2"));
    assert!(another.contains("watchdog://test/node/n1 (node n1), not of node n2"), "{another}");
    let person = told("user-linh", Some("n1"));
    assert!(person.contains("not issued for this use"), "{person}");
    assert_eq!(told("node-{node}", Some("n2")), "");
    assert_eq!(told("node-{node}", None), "", "those that are here");
    assert!(told("node-{node}", Some("n3")).contains("node-n3.pem: No such file"));
    assert!(told("none-{node}", None).contains("no node's file is on this machine"));
}
