//! `watchdogctl pause` and `resume` as a process: how the group stands goes before, and what that changes.

use crate::ctl::{ctl, golden, stuck};
use crate::standin::{GROUP, leader};

#[tokio::test]
async fn pause_says_until_when_and_resume_ends_it() {
    let (_log, _node, served) = leader().await;
    let paused = ctl(&served.address, &["pause", GROUP, "--reason", "power work", "--for", "2h30s"]);
    golden("pause.txt", &format!("{}{}", paused.stderr, paused.stdout));
    assert!(paused.stdout.starts_with("aicamera paused until "), "data goes to stdout: {}", paused.stdout);
    let status = ctl(&served.address, &["status"]).stdout;
    assert!(status.contains("paused") && status.contains("by operator:linh") && status.contains("ends in 2 h"));

    let longer = ctl(&served.address, &["pause", GROUP, "--reason", "more of it"]).stderr;
    assert!(longer.contains("by operator:linh 0.") && longer.contains(": power work\n"), "{longer}");
    assert!(longer.contains("it is paused already: its end and reason become yours, until resumed\n"), "{longer}");

    let resumed = ctl(&served.address, &["resume", GROUP, "--reason", "done"]);
    assert_eq!(resumed.stdout, "aicamera resumed\n");
    assert!(resumed.stderr.contains(", until resumed: more of it\n"), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("may begin at once, where its trigger holds\n"), "{}", resumed.stderr);
    let again = ctl(&served.address, &["resume", GROUP, "--reason", "done"]);
    assert!(again.code == 3 && again.stderr.contains("changes    nothing: it is not paused\n"), "{}", again.stderr);
}

#[tokio::test]
async fn the_open_run_is_shown_and_what_becomes_of_it() {
    let (_log, _node, served) = stuck().await;
    let said = ctl(&served.address, &["pause", GROUP, "--reason", "wait"]).stderr;
    assert!(said.contains("serving nobody (was hcmc)   automatic") && said.contains("stuck      at fence"), "{said}");
    assert!(said.contains("run 01955555-0000 (failover to hanoi) stops at its next step boundary"), "{said}");
    assert!(!said.contains("stopped the writing"), "{said}");
    let said = ctl(&served.address, &["resume", GROUP, "--reason", "go"]).stderr;
    assert!(said.contains("run 01955555-0000 (failover to hanoi) goes on\n") && !said.contains("turns back"), "{said}");
}

#[tokio::test]
async fn a_planned_move_waits_and_its_limit_with_it() {
    let (_log, _node, served) = leader().await;
    let said = ctl(&served.address, &["switchover", GROUP, "--reason", "x", "--yes", GROUP, "--detach"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = ctl(&served.address, &["pause", GROUP, "--reason", "wait"]).stderr;
    assert!(said.contains("nobody writes meanwhile: its limit for that waits for the resume too\n"), "{said}");
    let said = ctl(&served.address, &["resume", GROUP, "--reason", "go"]).stderr;
    assert!(said.contains("it turns back at once\n"), "{said}");
}

#[tokio::test]
async fn programs_and_repeated_requests_get_the_answer_alone() {
    let (log, node, served) = leader().await;
    for words in [&["-o", "json"][..], &["--request-id", "pause-0001"]] {
        for verb in ["pause", "resume"] {
            let said = ctl(&served.address, &[&[verb, GROUP, "--reason", "x"], words].concat());
            let wanted = match (words[0], verb) {
                ("--request-id", "resume") => {
                    "error: --request-id: pause-0001 was used for \"Pause aicamera\" before; choose a new one\nnext: leave --request-id out"
                }
                _ => "",
            };
            assert_eq!(said.code, if wanted.is_empty() { 0 } else { 2 }, "{words:?} {verb}: {}", said.stderr);
            assert!(said.stderr.starts_with(wanted) && said.stderr.is_empty() == wanted.is_empty(), "{}", said.stderr);
        }
    }
    assert!(log.state().groups[&GROUP.into()].pause.is_some());

    // What cannot be shown is no obstacle: a node that no longer knows how it stands may still reach its leader.
    node.lose_quorum();
    let said = ctl(&served.address, &["pause", GROUP, "--reason", "x", "--timeout", "400ms"]);
    assert_eq!((said.code, said.stdout.as_str()), (4, ""));
    assert!(said.stderr.starts_with("no leader or no quorum: what follows may be old\n"), "{}", said.stderr);
}
