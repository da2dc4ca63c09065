//! `watchdogctl` as a process: what it prints, compared with `golden/`, and its exit codes.
//!
//! `UPDATE_GOLDEN=1` writes the files anew: look at the difference before committing it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use watchdog::clock::unix_now;
use watchdog::domain::attempt::Outcome;
use watchdog::domain::command::Change;
use watchdog::domain::ids::UnixMs;
use watchdog::domain::page::{Page, PageAction, Severity};

use crate::standin::{GROUP, Log, Mood, RUN, Served, StandInNode, failing_sight, leader, serve, wait_until};

pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

pub fn ctl(endpoints: &str, args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_watchdogctl"))
        .args(args)
        .env_clear()
        .env("WATCHDOG_ENDPOINTS", endpoints)
        .env("USER", "linh")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

/// Hides what differs from run to run: dates, times of day, ports.
fn masked(text: &str) -> String {
    let is_shape = |chars: &[char], shape: &str| {
        chars.len() >= shape.len()
            && shape.chars().zip(chars).all(|(want, got)| if want == '0' { got.is_ascii_digit() } else { want == *got })
    };
    let shapes = [
        ("0000-00-00 00:00:00.000Z", "DATE-AND-TIME"),
        ("00:00:00.000", "TIME-OF-DAY"),
        ("127.0.0.1:00000", "ENDPOINT"),
    ];
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < chars.len() {
        match shapes.iter().find(|(shape, _)| is_shape(&chars[at..], shape)) {
            Some((shape, word)) => {
                // As wide as it was, so that columns stay columns.
                out.push_str(&format!("{word:<width$}", width = shape.len()));
                at += shape.len();
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

pub fn golden(name: &str, printed: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/golden").join(name);
    let printed: String = masked(printed).lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(printed == wanted, "{} differs; printed:\n{printed}\nwanted:\n{wanted}", path.display());
}

/// So long ago that the words for it do not change while the test runs.
pub fn long_ago() -> UnixMs {
    UnixMs(unix_now().0 - (2 * 3600 + 5 * 60 + 30) * 1000)
}

/// A stuck run two hours old, with a page that was not delivered, seen by a leader.
pub async fn stuck() -> (Arc<Log>, Arc<StandInNode>, Served) {
    let (log, node, served) = leader().await;
    *node.sight.lock().unwrap() = failing_sight();
    let at = long_ago();
    let token = log.fencing_at(at);
    let reason = "db-hcmc (10.1.0.21:22): no route to host".to_owned();
    log.finish(at.plus(2_020), RUN, "fence", token, Outcome::Unknown { reason });
    log.stuck(at.plus(10_020), RUN, "fence", token, "no fence proof: db-hcmc cannot be reached for 10 s");
    (log, node, served)
}

#[tokio::test]
async fn a_quiet_status() {
    let (log, node, served) = leader().await;
    let mut sight = failing_sight();
    sight.warnings.clear();
    for node in &mut sight.nodes {
        (node.is_reachable, node.is_isolated) = (Some(true), false);
        (node.last_report_age_ms, node.behind_entries) = (Some(200), Some(0));
    }
    let group = sight.groups.as_mut().unwrap().get_mut(&GROUP.into()).unwrap();
    group.explanation = vec!["hcmc is up: nothing to do".to_owned()];
    group.replication[0].is_streaming = true;
    (group.replication[0].expected_loss_ms, group.replication[0].behind_bytes) = (Some(180), Some(0));
    for vote in &mut group.votes {
        (vote.verdict, vote.held_ms) = (watchdog::domain::observation::Verdict::Up, 273_600_000);
        (vote.failure, vote.not_counted) = (None, None);
    }
    *node.sight.lock().unwrap() = sight;
    drop(log);
    let said = ctl(&served.address, &["status"]);
    golden("status-quiet.txt", &said.stdout);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
}

#[tokio::test]
async fn a_side_without_a_standby_is_told_calmly() {
    let (_log, node, served) = leader().await;
    let mut sight = failing_sight();
    let group = sight.groups.as_mut().unwrap().get_mut(&GROUP.into()).unwrap();
    (group.replication[0].expected_loss_ms, group.replication[0].behind_bytes) = (None, None);
    *node.sight.lock().unwrap() = sight;
    let said = ctl(&served.address, &["status"]).stdout;
    let line = "standby    hanoi: no standby streams, so nothing moves there by itself (loss unknown)\n";
    assert!(said.contains(line), "{said}");
}

#[tokio::test]
async fn a_node_without_quorum_says_so() {
    let (_log, node, served) = leader().await;
    node.lose_quorum();
    let mut sight = failing_sight();
    sight.groups = None;
    *node.sight.lock().unwrap() = sight;
    let said = ctl(&served.address, &["status"]);
    golden("status-no-quorum.txt", &said.stdout);
    assert_eq!(said.code, 4);
}

#[tokio::test]
async fn a_stuck_run_in_status_and_in_full() {
    let (log, _node, served) = stuck().await;
    log.done_at(
        long_ago(),
        Change::Tell {
            page: Page {
                key: "demo/aicamera/lag".to_owned(),
                event: "REPLICATION_LAG".to_owned(),
                action: PageAction::Trigger,
                severity: Severity::Warning,
                summary: "hanoi is 320 s behind\u{1b}[31m".to_owned(),
                group: Some(GROUP.into()),
                run: None,
                details: [].into(),
            },
        },
    );
    golden("status-stuck.txt", &ctl(&served.address, &["status"]).stdout);
    golden("run-show.txt", &ctl(&served.address, &["run", "show", GROUP]).stdout);
    golden("run-list.txt", &ctl(&served.address, &["run", "list"]).stdout);
    golden("audit.txt", &ctl(&served.address, &["audit", "--limit", "4"]).stdout);
    // A remote text cannot steer the terminal.
    assert!(!ctl(&served.address, &["status"]).stdout.contains('\u{1b}'));
    let coloured = ctl(&served.address, &["status", "--color", "always"]).stdout;
    assert!(coloured.contains("\u{1b}[1;31m") && coloured.contains("320 s behind·[31m"), "{coloured}");
}

#[tokio::test]
async fn a_run_whose_target_is_latched_is_told_how_to_clear_it() {
    let (log, _node, served) = leader().await;
    let at = long_ago();
    let token = log.fencing_at(at);
    log.finish(at.plus(300), RUN, "fence", token, Outcome::Done { evidence: "stopped and latched".to_owned() });
    log.start(at.plus(310), RUN, "promote", token);
    let reason = "guard refused (latched): this host is latched: type here: watchdog-guard unlatch --group aicamera";
    let failed = Outcome::Failed { retryable: false, reason: reason.to_owned() };
    log.finish(at.plus(400), RUN, "promote", token, failed);
    log.stuck(at.plus(410), RUN, "promote", token, &format!("promote after 1 attempt: {reason}"));
    golden("run-show-latched.txt", &ctl(&served.address, &["run", "show", GROUP]).stdout);
    let json = ctl(&served.address, &["run", "show", GROUP, "--output", "json"]).stdout;
    let answer: serde_json::Value = serde_json::from_str(&json).unwrap();
    let ways = answer["run"]["stuck"]["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 4, "{json}");
    assert!(ways[0]["command"].as_str().unwrap().starts_with("watchdog-guard unlatch --group aicamera"), "{json}");
}

#[tokio::test]
async fn an_operator_steers_a_stuck_run_to_its_end() {
    let (log, _node, served) = stuck().await;
    let say = ["--reason", "looked at the rack: powered off", "--yes", GROUP];
    let said = ctl(&served.address, &[&["run", "assert-fence", GROUP, "--region", "hcmc"][..], &say].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("fence asserted") && said.stdout.contains("by operator:linh"), "{}", said.stdout);
    // What it is about goes before, on stderr, though --yes asked nobody.
    let shown = said.stderr.starts_with(&format!("run {RUN}\n")) && said.stderr.contains("no fence proof: db-hcmc");
    assert!(shown && !said.stderr.contains("fence asserted"), "as it was: {}", said.stderr);
    let json = ctl(&served.address, &[&["run", "accept-loss", GROUP, "-o", "json"][..], &say].concat());
    assert_eq!((json.code, json.stderr.as_str()), (0, ""), "programs are told nothing beside it");
    for verb in ["accept-loss", "abort"] {
        assert_eq!(ctl(&served.address, &[&["run", verb, GROUP][..], &say].concat()).code, 0, "{verb}");
    }
    let state = log.state();
    let run = state.groups[&GROUP.into()].open_run.as_ref().unwrap();
    assert_eq!(run.phase.word(), "aborting");
    assert_eq!(run.loss_acceptance.as_ref().unwrap().reason, "looked at the rack: powered off");
}

#[tokio::test]
async fn a_dry_run_and_what_it_leads_to() {
    let (log, _node, served) = leader().await;
    let said = ctl(&served.address, &["failover", GROUP, "--to", "hanoi", "--dry-run"]);
    golden("dry-run.txt", &said.stdout);
    assert_eq!(said.code, 0);

    // With one other region there is nothing to choose.
    let words = ["failover", GROUP, "--reason", "hcmc floods", "--yes", GROUP, "--assert-fence", "hcmc", "--detach"];
    let said = ctl(&served.address, &words);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("would open and go through"), "{}", said.stdout);
    let state = log.state();
    let run = state.groups[&GROUP.into()].open_run.as_ref().unwrap();
    assert!(said.stdout.contains(run.id.as_str()));
    assert_eq!(run.fence_assertion.as_ref().unwrap().reason, "hcmc floods");

    let said = ctl(&served.address, &words);
    assert_eq!(said.code, 3, "a run is open: {}", said.stdout);
    assert!(said.stdout.contains("would not open"), "{}", said.stdout);
}

#[tokio::test]
async fn a_dry_run_waits_for_an_election() {
    let (_log, node, served) = leader().await;
    node.lose_quorum();
    let address = served.address.clone();
    let asked = std::thread::spawn(move || ctl(&address, &["failover", GROUP, "--to", "hanoi", "--dry-run"]));
    node.wait_until_asked().await;
    node.lead();
    let said = tokio::task::spawn_blocking(move || asked.join().unwrap()).await.unwrap();
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[tokio::test]
async fn following_prints_the_timeline_and_ends_with_the_run() {
    let (log, _node, served) = leader().await;
    let at = long_ago();
    let token = log.fencing_at(at);
    let address = served.address.clone();
    let follower = std::thread::spawn(move || ctl(&address, &["run", "follow", RUN]));
    log.finish(at.plus(300), RUN, "fence", token, Outcome::Done { evidence: "stopped and latched".to_owned() });
    log.abort(at.plus(400), RUN, token);
    let said = tokio::task::spawn_blocking(move || follower.join().unwrap()).await.unwrap();
    golden("follow.txt", &said.stdout);
    assert_eq!(said.code, 1, "an aborted run did not succeed");
}

/// A command on a terminal of its own, given by `script`.
pub struct OnTerminal {
    child: std::process::Child,
    printed: Arc<Mutex<String>>,
}

impl OnTerminal {
    pub fn start(endpoints: &str, args: &str, typed: &str) -> Self {
        use std::io::{Read, Write};
        let command = format!("{} {args}", env!("CARGO_BIN_EXE_watchdogctl"));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
            .env_clear()
            .envs([("WATCHDOG_ENDPOINTS", endpoints), ("USER", "linh"), ("TERM", "xterm"), ("SHELL", "/bin/sh")])
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&printed);
        std::thread::spawn(move || {
            let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
            while let Ok(n) = stdout.read(&mut piece)
                && n > 0
            {
                bytes.extend_from_slice(&piece[..n]);
                *shared.lock().unwrap() = String::from_utf8_lossy(&bytes).into_owned();
            }
        });
        Self { child, printed }
    }

    pub async fn until_printed(&self, words: &str) {
        wait_until(words, || async { self.printed.lock().unwrap().contains(words) }).await;
    }

    async fn ended(&mut self) -> (i32, String) {
        let child = Mutex::new(&mut self.child);
        let has_ended = || child.lock().unwrap().try_wait().unwrap().is_some();
        wait_until("the command ends", || async { has_ended() }).await;
        let code = self.child.wait().unwrap().code();
        (code.unwrap(), self.printed.lock().unwrap().clone())
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_wrongly_typed_name_opens_nothing() {
    let (log, _node, served) = leader().await;
    let words = "failover aicamera --to hanoi --reason floods";
    let mut ctl = OnTerminal::start(&served.address, words, "aicamerA\n");
    ctl.until_printed("is not aicamera; nothing was changed").await;
    assert_eq!(ctl.ended().await.0, 2);
    assert!(log.state().groups[&GROUP.into()].open_run.is_none());
}

#[tokio::test]
async fn on_a_terminal_the_run_is_redrawn_until_it_ends() {
    let (log, _node, served) = leader().await;
    let words = "failover aicamera --to hanoi --reason floods";
    let mut ctl = OnTerminal::start(&served.address, words, "aicamera\n");
    wait_until("the run is open", || async { log.state().groups[&GROUP.into()].open_run.is_some() }).await;
    let run = log.state().groups[&GROUP.into()].open_run.as_ref().unwrap().id.0.clone();
    let token = log.claim(unix_now(), &run);
    log.start(unix_now(), &run, "fence", token);
    ctl.until_printed("0 of 5 steps").await;
    ctl.until_printed("⠸").await;
    log.abort(unix_now(), &run, token);
    ctl.until_printed("aborted").await;
    let (code, printed) = ctl.ended().await;
    assert_eq!(code, 1, "{printed}");
    let (off, on) = (printed.matches("\u{1b}[?7l").count(), printed.matches("\u{1b}[?7h").count());
    assert!(off > 1 && off == on, "wrapping is left on: {off} {on}");
}

#[tokio::test]
async fn json_is_data_and_nothing_else() {
    let (_log, _node, served) = stuck().await;
    let table: [(&[&str], &str); 5] = [
        (&["status"], "/groups/0/open_run/summary/phase"),
        (&["run", "show", GROUP], "/run/steps/0/phase"),
        (&["run", "list"], "/runs/0/kind"),
        (&["audit"], "/entries/0/by"),
        (&["failover", GROUP, "--to", "hanoi", "--dry-run"], "/steps/0/present"),
    ];
    let words = ["stuck", "unknown", "failover", "node:danang-1", "unknown"];
    for ((args, pointer), word) in table.iter().zip(words) {
        let said = ctl(&served.address, &[args, &["-o", "json"][..]].concat());
        let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        assert_eq!(json.pointer(pointer).and_then(|value| value.as_str()), Some(word), "{args:?} {pointer}");
        assert!(json.pointer("/standing/as_of_index").is_some_and(serde_json::Value::is_u64), "{args:?}");
    }
    // The keys are the ones of admin.proto, and all of them are there.
    let said = ctl(&served.address, &["status", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let keys: Vec<String> = json["groups"][0].as_object().unwrap().keys().cloned().collect();
    golden("status-json-keys.txt", &keys.join("\n"));
}

#[tokio::test]
async fn exit_codes() {
    let (_log, node, served) = leader().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let here = served.address.as_str();
    let quick = ["--timeout", "1s"];
    let table: [(&str, &[&str], i32, &str); 13] = [
        (here, &["status"], 0, ""),
        (here, &["frobnicate"], 2, "unrecognized subcommand"),
        (here, &["pause", GROUP], 2, "--reason"),
        (here, &["pause", GROUP, "--reason", " "], 2, "--reason is empty"),
        (here, &["pause", GROUP, "--reason", "x", "--for", "soon"], 2, "write it like 90s"),
        ("nonsense", &["status"], 2, "is not HOST:PORT"),
        (here, &["failover", GROUP, "--to", "hanoi", "--reason", "x"], 2, "give --yes aicamera"),
        (here, &["failover", GROUP, "--to", "hanoi", "--reason", "x", "--yes", "other"], 2, "this is about aicamera"),
        (here, &["resume", GROUP, "--reason", "x"], 3, "group aicamera is not paused\nnext: nothing is to be done"),
        (here, &["pause", "nobody", "--reason", "x"], 3, "known: aicamera"),
        (here, &["run", "show", "ffffffff"], 3, "no run ffffffff"),
        (&gone, &["status"], 4, "Connection refused"),
        (&gone, &["pause", GROUP, "--reason", "x"], 4, "nothing was changed"),
    ];
    for (endpoints, args, code, words) in table {
        let said = ctl(endpoints, &[args, &quick].concat());
        assert_eq!(said.code, code, "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{args:?}: {}", said.stderr);
        assert!(code == 0 || said.stdout.is_empty(), "{args:?} printed data: {}", said.stdout);
        let is_ours = code != 0 && !said.stderr.contains("Usage:") && !said.stderr.contains("For more information");
        assert!(!is_ours || said.stderr.contains("\nnext: "), "{args:?} does not say what next: {}", said.stderr);
    }

    node.set_mood(Mood::ForgetsToAnswer);
    let said = ctl(here, &[&["pause", GROUP, "--reason", "x", "--request-id", "pause-0001"][..], &quick].concat());
    assert_eq!(said.code, 5, "{}", said.stderr);
    assert!(said.stderr.contains("with --request-id pause-0001 is safe to repeat"), "{}", said.stderr);
    node.set_mood(Mood::Healthy);
    let said = ctl(here, &["pause", GROUP, "--reason", "x", "--request-id", "pause-0001"]);
    assert_eq!(said.code, 0, "asked again, the first answer: {}", said.stderr);
}

#[test]
fn usage_names_what_is_required_and_nothing_else() {
    for (words, wanted) in [
        (&["pause", GROUP][..], "Usage: watchdogctl pause [OPTIONS] --reason <REASON> <GROUP>\n"),
        (&["run", "skip", GROUP], "Usage: watchdogctl run skip [OPTIONS] --reason <REASON> <RUN> <STEP>\n"),
        (&["--endpoint", "x:1", "run", "show"], "Usage: watchdogctl run show [OPTIONS] <RUN>\n"),
    ] {
        let said = ctl("127.0.0.1:1", words);
        assert!(said.code == 2 && said.stderr.contains(wanted), "{words:?}: {}", said.stderr);
    }
}

#[test]
fn every_program_says_its_own_name_and_version() {
    for (path, name) in [
        (env!("CARGO_BIN_EXE_watchdogd"), "watchdogd"),
        (env!("CARGO_BIN_EXE_watchdogctl"), "watchdogctl"),
        (env!("CARGO_BIN_EXE_watchdog-guard"), "watchdog-guard"),
    ] {
        let said = Command::new(path).arg("--version").output().unwrap().stdout;
        assert_eq!(String::from_utf8(said).unwrap(), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[tokio::test]
async fn orders_on_a_closed_run_are_told_how_and_when_it_ended() {
    let (log, _node, served) = leader().await;
    let token = log.fencing_at(long_ago());
    log.abort(long_ago(), RUN, token);
    let say = ["--reason", "x", "--yes", GROUP];
    let orders: [&[&str]; 5] = [
        &["run", "retry", GROUP, "fence", "--reason", "x"],
        &[&["run", "skip", GROUP, "fence"][..], &say].concat(),
        &[&["run", "abort", GROUP][..], &say].concat(),
        &[&["run", "accept-loss", GROUP][..], &say].concat(),
        &[&["run", "assert-fence", GROUP, "--region", "hcmc"][..], &say].concat(),
    ];
    for words in orders {
        let said = ctl(&served.address, words);
        assert_eq!((said.code, said.stdout.as_str()), (3, ""), "{words:?}: {}", said.stderr);
        let wanted = format!("refused: run {RUN} is over: it was aborted 2 h ago; nothing is left to order\nnext: ");
        assert!(said.stderr.starts_with(&wanted), "{words:?}: {}", said.stderr);
    }
}

#[tokio::test]
async fn without_a_quorum_every_verb_says_so_calmly() {
    let (log, node, served) = leader().await;
    log.fencing_at(long_ago());
    let say = ["--reason", "x", "--yes", GROUP];
    let with = |words: &[&'static str]| [words, &say].concat();
    let writes = [
        vec!["pause", GROUP, "--reason", "x"],
        vec!["resume", GROUP, "--reason", "x"],
        vec!["failover", GROUP, "--dry-run"],
        with(&["failover", GROUP]),
        vec!["run", "retry", GROUP, "fence", "--reason", "x"],
        with(&["run", "skip", GROUP, "fence"]),
        with(&["run", "abort", GROUP]),
        with(&["run", "accept-loss", GROUP]),
        with(&["run", "assert-fence", GROUP, "--region", "hcmc"]),
    ];
    let reads = [vec!["status"], vec!["run", "list"], vec!["run", "show", GROUP], vec!["audit"]];
    let before = log.state();
    // One that knows of no leader, and one that still takes itself for it.
    for lose in [StandInNode::lose_quorum, StandInNode::lead_alone] {
        lose(&node);
        for words in &writes {
            let said = ctl(&served.address, &[words, &["--timeout", "400ms"][..]].concat());
            assert_eq!((said.code, said.stdout.as_str()), (4, ""), "{words:?}: {}", said.stderr);
            let first = "no quorum: danang-1 (";
            let why =
                "danang-1 has no quorum (1 of 3 voters answer it; 2 are needed); nothing was changed\nnext: see that";
            // An order and a pause show first what they are about, as this node has it.
            let (_, refusal) = said.stderr.split_at(said.stderr.find(first).unwrap_or(0));
            assert!(refusal.starts_with(first) && refusal.contains(why), "{words:?}: {}", said.stderr);
            let shows = matches!(words[0], "pause" | "resume") || words[0] == "run" && words[1] != "retry";
            assert_eq!(refusal.len() < said.stderr.len(), shows, "{words:?}: {}", said.stderr);
        }
        for words in &reads {
            let said = ctl(&served.address, words);
            assert_eq!(said.code, 4, "{words:?}: {}", said.stderr);
            let told = format!("{}{}", said.stdout, said.stderr);
            assert!(told.contains("1 of 3 voters answer it") && told.contains("may be old"), "{words:?}: {told}");
        }
    }
    assert_eq!(log.state(), before, "nothing was changed");
}

#[tokio::test]
async fn what_is_read_is_read_where_there_is_a_quorum() {
    let (log, node, served) = leader().await;
    node.lose_quorum();
    let better = StandInNode::new(2, &log);
    better.lead();
    let second = serve(&better).await;
    let said = ctl(&format!("{},{}", served.address, second.address), &["run", "list"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "no runs\n", ""));
}

#[tokio::test]
async fn endpoints_are_tried_in_turn_and_the_request_is_done_once() {
    let log = Log::new();
    let (one, two) = (StandInNode::new(1, &log), StandInNode::new(2, &log));
    one.lead();
    one.set_mood(Mood::Hangs);
    two.lead();
    let (first, second) = (serve(&one).await, serve(&two).await);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let endpoints = format!("{gone},{},{}", first.address, second.address);
    let asked = std::thread::spawn(move || ctl(&endpoints, &["pause", GROUP, "--reason", "power work"]));
    wait_until("the first node applied it", || async { log.state().groups[&GROUP.into()].pause.is_some() }).await;
    let once = log.state().audit.len();
    first.kill();
    let said = tokio::task::spawn_blocking(move || asked.join().unwrap()).await.unwrap();
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(log.state().audit.len(), once, "done once, though two nodes were asked");
}

#[test]
fn check_judges_a_file() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/watchdog.toml");
    let said = ctl("127.0.0.1:1", &["check", "--config", file]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let said = ctl("127.0.0.1:1", &["check", "--config", file, "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["passes"], true);

    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.toml");
    let text = std::fs::read_to_string(file).unwrap().replace("home = \"hcmc\"", "home = \"hue\"");
    std::fs::write(&broken, text).unwrap();
    let said = ctl("127.0.0.1:1", &["check", "--config", &broken.display().to_string()]);
    assert_eq!(said.code, 1);
    assert!(said.stdout.contains("hue"), "{}", said.stdout);
    let said = ctl("127.0.0.1:1", &["check", "--config", "/nowhere/at-all.toml"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("/nowhere/at-all.toml") && said.stderr.contains("next: "), "{}", said.stderr);
}
