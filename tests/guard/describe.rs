//! What the guard tells of what its host can do, over the wire and to a person who checks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use watchdog::guard::protocol::{Reply, Request};

use crate::host::{Host, text};

const MORE: &str = "\n[action.as-nobody]\nargv = [[\"{dir}/private/tool\"]]\nuser = \"nobody\"\ntimeout_s = 5\n\
                    [action.nobody-there]\nargv = [[\"true\"]]\nuser = \"no-such-user\"\ntimeout_s = 5\n\
                    [action.found-by-path]\nargv = [[\"true\"]]\nread_back = [\"no-such-look\"]\nuser = \"nobody\"\ntimeout_s = 5\n";

/// Each action's fault, where it has one.
fn faults(host: &Host) -> Vec<(String, String)> {
    match host.ask(&Request::describe("demo".into(), 1)) {
        (Reply::Described { status, actions, redis: None }, 0) => {
            assert_eq!(status.groups.len(), 1, "the status comes along");
            assert!(actions["scale"].params.contains("replicas"), "{actions:?}");
            actions.into_iter().filter_map(|(name, shown)| Some((name, shown.fault?))).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_could_not_be_started_is_told_with_the_reason() {
    let host = Host::new("");
    let dir = host.dir.path().display().to_string();
    let config = fs::read_to_string(&host.config).unwrap() + &MORE.replace("{dir}", &dir);
    fs::write(&host.config, config).unwrap();
    fs::create_dir(host.path("private")).unwrap();
    fs::write(host.path("private/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(host.path("private/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    // The program is everybody's, the folder is not.
    fs::set_permissions(host.path("private"), fs::Permissions::from_mode(0o700)).unwrap();

    let known = [
        ("as-nobody", "Permission denied (os error 13) (as user nobody)"),
        ("found-by-path", "no-such-look: no such program"),
        ("missing", "/no/such/program: no such program (as user root)"),
        ("nobody-there", "no user \"no-such-user\" on this host"),
    ];
    let expect = |found: Vec<(String, String)>, wanted: &[(&str, &str)]| {
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, wanted.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{found:?}");
        for ((_, fault), (_, words)) in found.iter().zip(wanted) {
            assert!(fault.contains(words), "{fault:?} does not say {words:?}");
        }
    };
    expect(faults(&host), &known);

    // Taken away while the guard is in service: the next question sees it.
    fs::set_permissions(host.path("append"), fs::Permissions::from_mode(0o644)).unwrap();
    let gone = [known[0], ("fails", "append: is there, but may not be run"), known[1], known[2], known[3]];
    expect(faults(&host), &[&gone[..], &[("once", "append: is there")]].concat());
    fs::set_permissions(host.path("append"), fs::Permissions::from_mode(0o755)).unwrap();
    expect(faults(&host), &known);
    assert_eq!(host.effects(), 0, "looking starts nothing");
}

/// The resident guard is started after `check`: a missing program must not keep the lease away.
#[test]
fn a_check_says_what_is_missing_and_fails_for_it_only_where_asked() {
    let host = Host::new("");
    for (words, code) in [(&["check"][..], 0), (&["check", "--strict"], 1)] {
        let out = host.run(words);
        let complained = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{words:?}: {complained}");
        assert!(complained.contains("action missing could not be started: /no/such/program: no such program"));
    }
    let config = fs::read_to_string(&host.config).unwrap().replace("/no/such/program", "/bin/true");
    fs::write(&host.config, config).unwrap();
    let out = host.run(&["check", "--strict"]);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
}
