//! Which nodes `watchdogctl` asks, and as whom: options, environment, the file of contexts.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::ctl::Said;

/// Nobody listens on these ports: the refusal tells who was asked.
const FILE: &str = r#"default = "one"

[context.one]
endpoints = ["127.0.0.1:1"]

[context.two]
endpoints = ["127.0.0.1:2"]

[context.tls]
endpoints = ["127.0.0.1:5"]
ca = "pki/ca.pem"
certificate = "pki/user-linh.pem"
key = "/elsewhere/user-linh.key"
"#;

fn run(env: &[(&str, &str)], args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchdogctl"));
    command.args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    let output = command.output().unwrap();
    Said {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

/// A folder with the file in it, and its path.
fn written(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watchdogctl.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file.display().to_string())
}

#[test]
fn typed_goes_before_environment_before_file() {
    const ENDPOINTS: &str = "WATCHDOG_ENDPOINTS";
    const CONTEXT: &str = "WATCHDOG_CONTEXT";
    let (folder, _file) = written(FILE);
    let config_home = folder.path().display().to_string();
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], u16);
    let table: [Row; 11] = [
        (&[], &[], 1),
        (&[(CONTEXT, "")], &[], 1),
        (&[(CONTEXT, "two")], &[], 2),
        (&[(ENDPOINTS, "")], &[], 1),
        (&[(ENDPOINTS, "127.0.0.1:3")], &[], 3),
        (&[(ENDPOINTS, "127.0.0.1:3"), (CONTEXT, "two")], &[], 3),
        (&[(CONTEXT, "two")], &["--context", "one"], 1),
        // What somebody types is what they mean, whatever the shell was set up for.
        (&[(ENDPOINTS, "127.0.0.1:3")], &["--context", "two"], 2),
        (
            &[("WATCHDOG_CA", "/no/ca"), ("WATCHDOG_CERTIFICATE", "/no/c"), ("WATCHDOG_KEY", "/no/k")],
            &["--context", "two"],
            2,
        ),
        (&[(ENDPOINTS, "127.0.0.1:3")], &["--endpoint", "127.0.0.1:4"], 4),
        (&[(CONTEXT, "two")], &["--context", "one", "--endpoint", "127.0.0.1:4"], 4),
    ];
    for (env, args, port) in table {
        let env = [env, &[("XDG_CONFIG_HOME", config_home.as_str())]].concat();
        for words in
            [[&["status", "--timeout", "300ms"], args].concat(), [args, &["status", "--timeout", "300ms"]].concat()]
        {
            let said = run(&env, &words);
            assert_eq!((said.code, said.stdout.as_str()), (4, ""), "{env:?} {words:?}: {}", said.stderr);
            assert!(said.stderr.contains(&format!("127.0.0.1:{port}: ")), "{env:?} {words:?}: {}", said.stderr);
            assert_eq!(said.stderr.matches("127.0.0.1:").count(), 1, "{env:?} {words:?}: {}", said.stderr);
        }
    }
}

#[test]
fn each_certificate_file_comes_from_where_it_ranks() {
    let (folder, file) = written(FILE);
    let inside = folder.path().join("pki/ca.pem").display().to_string();
    for (env, args, wanted) in [
        (None, &["--context", "tls"][..], inside.as_str()),
        (Some("/env/ca.pem"), &["--context", "tls"], inside.as_str()),
        (Some("/env/ca.pem"), &[], "/env/ca.pem"),
        (Some("/env/ca.pem"), &["--context", "tls", "--ca", "/typed/ca.pem"], "/typed/ca.pem"),
    ] {
        let mut all = vec![("WATCHDOG_CONTEXT", "tls"), ("WATCHDOG_CTL_CONFIG", file.as_str())];
        all.extend(env.map(|ca| ("WATCHDOG_CA", ca)));
        let said = run(&all, &[&["status"], args].concat());
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{env:?} {args:?}: {}", said.stderr);
        assert!(said.stderr.starts_with(&format!("error: {wanted}: ")), "{env:?} {args:?}: {}", said.stderr);
    }
}

#[test]
fn a_faulty_file_is_refused_with_its_line() {
    let table = [
        ("defualt = \"one\"\n", ":1: no such key: `defualt`, expected `default` or `context`"),
        (
            "[context.one]\nendpoints = [\"a:1\"]\nkeys = \"x\"\n",
            ":3: no such key: `keys`, expected one of `endpoints`, ",
        ),
        ("\n[context.one]\nca = \"x\"\n", ":2: missing: `endpoints`"),
        ("[context.one]\nendpoints = \"a:1\"\n", ":2: invalid type: string \"a:1\", expected a sequence"),
        ("[context.one\n", ":1: "),
        ("[context.one]\nendpoints = []\n", ": context one: endpoints is empty: name a node's HOST:PORT"),
        ("[context.one]\nendpoints = [\"a\"]\n", ": context one: endpoint \"a\" is not HOST:PORT"),
        ("[context.one]\nendpoints = [\"a:1\"]\nca = \"x\"\n", ": context one: certificate and key missing: ca, "),
        (
            "[context.one]\nendpoints = [\"a:1\"]\nca = \"\"\ncertificate = \"x\"\nkey = \"x\"\n",
            ": context one: an empty path",
        ),
        ("[context.\"a b\"]\nendpoints = [\"a:1\"]\n", ": context \"a b\": a name has no blanks"),
        ("default = \"x\"\n", ": default: no context \"x\"; it has none"),
        ("default = \"x\"\n[context.one]\nendpoints = [\"a:1\"]\n", ": default: no context \"x\"; known: one"),
    ];
    let too_long = format!("#{}\n", "x".repeat(70_000));
    for (text, wanted) in table.into_iter().chain([(too_long.as_str(), ": longer than 65536 bytes")]) {
        let (_folder, file) = written(text);
        let shown = &text[..text.len().min(100)];
        for verb in [&["status"][..], &["contexts"]] {
            let said = run(&[], &[verb, &["--context-file", &file]].concat());
            assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{shown}: {}", said.stderr);
            assert!(said.stderr.starts_with(&format!("error: {file}{wanted}")), "{shown}: {}", said.stderr);
            assert!(said.stderr.contains("\nnext: mend the file"), "{shown}: {}", said.stderr);
        }
        // What asks no node does not stumble over it.
        let said = run(&[("WATCHDOG_CTL_CONFIG", &file)], &["man"]);
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{shown}");
    }
}

#[test]
fn a_file_or_a_context_that_is_not_there() {
    let (folder, file) = written(FILE);
    let empty = tempfile::tempdir().unwrap();
    let (here, nothing) = (folder.path().display().to_string(), empty.path().display().to_string());
    let gone = format!("{nothing}/gone.toml");
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], i32, String);
    let table: [Row; 7] = [
        (
            &[],
            &["--context-file", &gone],
            1,
            format!("{gone}: No such file or directory (os error 2) (named by --context-file)"),
        ),
        (&[("WATCHDOG_CTL_CONFIG", &gone)], &[], 1, "(named by WATCHDOG_CTL_CONFIG)".to_owned()),
        (
            &[("XDG_CONFIG_HOME", &here)],
            &["--context", "three"],
            2,
            format!("--context three: no such context; {file}: known: one, tls, two"),
        ),
        (
            &[("XDG_CONFIG_HOME", &here), ("WATCHDOG_CONTEXT", "three")],
            &[],
            2,
            "WATCHDOG_CONTEXT three: no such context; ".to_owned(),
        ),
        (
            &[("XDG_CONFIG_HOME", &nothing)],
            &["--context", "one"],
            2,
            format!("{nothing}/watchdogctl.toml is not there"),
        ),
        (&[("HOME", &nothing)], &["--context", "one"], 2, format!("{nothing}/.config/watchdogctl.toml is not there")),
        (&[], &["--context", "one"], 2, "neither HOME nor XDG_CONFIG_HOME is set".to_owned()),
    ];
    for (env, args, code, wanted) in table {
        let said = run(env, &[&["status"], args].concat());
        assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{env:?} {args:?}: {}", said.stderr);
        assert!(said.stderr.contains(&wanted), "{env:?} {args:?}: {}", said.stderr);
        assert!(said.stderr.contains("\nnext: "), "{env:?} {args:?}: {}", said.stderr);
    }
    // Nobody named it: then it need not be there.
    let said = run(&[("HOME", &nothing)], &["contexts"]);
    assert_eq!((said.code, said.stdout), (0, format!("no contexts in {nothing}/.config/watchdogctl.toml\n")));
    let said = run(&[("HOME", &nothing)], &["status", "-e", "127.0.0.1:1", "--timeout", "300ms"]);
    assert_eq!(said.code, 4, "{}", said.stderr);
}

fn pki(dir: &Path) {
    let dir = dir.display().to_string();
    for words in [&["cert", "init", "demo", "--dir", &dir][..], &["cert", "issue", "user", "linh", "--dir", &dir]] {
        let said = run(&[], words);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
}

#[test]
fn contexts_are_listed_with_whom_they_are_for() {
    let (folder, file) = written(&FILE.replace("/elsewhere/", "pki/"));
    let dir = folder.path().join("pki");
    pki(&dir);
    let said = run(&[("WATCHDOG_CONTEXT", "tls")], &["contexts", "--context-file", &file]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let (before, until) = said.stdout.split_once(", until ").unwrap();
    let wanted = format!(
        "{file}\n  one  (default)\n    endpoints  127.0.0.1:1\n    as         nobody: plain text, on loopback only\n\
         * tls\n    endpoints  127.0.0.1:5\n    as         watchdog://demo/user/linh"
    );
    assert_eq!(before, wanted);
    assert!(until.contains("\n  two\n"), "{until}");

    // A key that others may read is refused here as everywhere.
    let key = dir.join("user-linh.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = run(&[], &["contexts", "--context-file", &file]);
    let todo = format!("chmod 600 {}", key.display());
    assert!(
        said.code == 0 && said.stdout.contains("    fault      ") && said.stdout.contains(&todo),
        "{}",
        said.stdout
    );
    let said = run(&[], &["status", "--context", "tls", "--context-file", &file]);
    assert!(said.code == 1 && said.stderr.contains(&todo), "{}", said.stderr);

    let said = run(&[], &["contexts", "-o", "json", "--context-file", &file]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["file"], file);
    assert_eq!(json["contexts"][0]["name"], "one");
    assert_eq!((&json["contexts"][0]["is_default"], &json["contexts"][0]["in_use"]), (&true.into(), &true.into()));
    assert!(json["contexts"][1]["fault"].as_str().unwrap().contains("mode 644"), "{json}");
}
