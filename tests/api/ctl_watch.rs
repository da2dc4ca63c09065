//! `--watch` as a process: what is printed when, one JSON document a line, and another node when one dies.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use watchdog::clock::unix_now;
use watchdog::domain::command::Change;

use crate::ctl::{OnTerminal, ctl};
use crate::standin::{GROUP, Log, RUN, StandInNode, failing_sight, leader, serve};

/// A watching `watchdogctl`; killed when dropped.
struct Watching {
    child: Child,
    lines: Receiver<String>,
    trouble: Receiver<String>,
}

fn reader(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (to, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

impl Watching {
    fn start(endpoints: &str, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_watchdogctl"))
            .args(args)
            .env_clear()
            .env("WATCHDOG_ENDPOINTS", endpoints)
            .env("USER", "linh")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, trouble) = (reader(child.stdout.take().unwrap()), reader(child.stderr.take().unwrap()));
        Self { child, lines, trouble }
    }

    /// Lines until one is so.
    async fn until(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) -> String {
        tokio::task::block_in_place(|| {
            loop {
                let line = self.lines.recv_timeout(Duration::from_secs(20));
                let line = line.unwrap_or_else(|_| {
                    panic!("no line with {what}: {:?}", self.trouble.try_iter().collect::<Vec<_>>())
                });
                if is_so(&line) {
                    return line;
                }
            }
        })
    }

    async fn json(&self, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
        let line = self.until(what, |line| is_so(&serde_json::from_str(line).expect("a document on each line"))).await;
        serde_json::from_str(&line).unwrap()
    }

    /// Ends it as Ctrl-C does, and gives its exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pause() -> Change {
    Change::Pause { group: GROUP.into(), reason: "power work".to_owned(), until: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_a_document_a_line_with_what_happened() {
    let (log, _node, served) = leader().await;
    let watching = Watching::start(&served.address, &["status", "--watch", "-o", "json"]);
    let first = watching.json("the first", |_| true).await;
    assert_eq!(first["status"]["groups"][0]["mode"], "automatic");
    log.done(pause());
    let paused = watching.json("the pause", |json| json["status"]["groups"][0]["mode"] == "paused").await;
    assert_eq!(paused["news"][0]["reason"], "power work");
    assert_eq!(watching.interrupt(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_where_there_is_no_terminal_comes_anew() {
    let (log, _node, served) = leader().await;
    let watching = Watching::start(&served.address, &["status", GROUP, "-w"]);
    watching.until("the first page", |line| line.contains("serving hcmc")).await;
    log.done(pause());
    watching.until("the second page", |line| line.contains("paused") && line.contains("power work")).await;
    watching.until("what happened", |line| line.contains("pause") && line.contains("node:danang-1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_at_another_node() {
    let log = Log::new();
    let (one, two) = (StandInNode::new(3, &log), StandInNode::new(2, &log));
    one.lead();
    two.lead();
    let (first, second) = (serve(&one).await, serve(&two).await);
    let endpoints = format!("{},{}", first.address, second.address);
    let watching = Watching::start(&endpoints, &["audit", "--watch", "-o", "json"]);
    watching.json("the list", |json| json["index"] == 1).await;
    first.kill();
    log.done(pause());
    let line = watching.json("what came meanwhile", |json| json["what"].as_str().unwrap().starts_with("pause")).await;
    assert_eq!(line["index"], 2, "nothing between, and nothing twice");
    let told = watching.trouble.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(told.starts_with("the view is lost, and looked for at every endpoint"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_runs_comes_when_it_changed() {
    let (log, _node, served) = leader().await;
    let watching = Watching::start(&served.address, &["run", "list", "--watch", "-o", "json"]);
    watching.json("the empty list", |json| json["runs"] == Value::Array(Vec::new())).await;
    log.open_at(unix_now(), RUN);
    watching.json("the open run", |json| json["runs"][0]["phase"] == "open").await;
}

#[tokio::test]
async fn what_cannot_be_watched_is_said_at_once() {
    let (_log, _node, served) = leader().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (endpoint, args, code, wanted) in [
        (&served.address, &["status", "nobody", "--watch"][..], 3, "no group nobody; known: aicamera"),
        (&served.address, &["readiness", GROUP, "--watch"], 3, "no plan that leads away"),
        (&gone, &["status", "--watch"], 4, "refused"),
        (&served.address, &["status", "--watch", "--local"], 2, "cannot be used with"),
        (&served.address, &["audit", "--watch", "--before", "7"], 2, "cannot be used with"),
    ] {
        let said = ctl(endpoint, args);
        assert_eq!(said.code, code, "{args:?}: {}", said.stderr);
        assert!(said.stderr.contains(wanted), "{args:?}: {}", said.stderr);
    }
}

#[tokio::test]
async fn a_calm_status_on_a_terminal_is_looked_at_anew() {
    let (_log, node, served) = leader().await;
    *node.sight.lock().unwrap() = failing_sight();
    let ctl = OnTerminal::start(&served.address, "status --watch", "");
    ctl.until_printed("up 3 d 4 h").await;
    // Nothing but time has passed, which is no change that the node would tell of.
    let mut later = failing_sight();
    let votes = &mut later.groups.as_mut().unwrap().get_mut(&GROUP.into()).unwrap().votes;
    votes.iter_mut().for_each(|vote| vote.held_ms += 86_400_000);
    *node.sight.lock().unwrap() = later;
    ctl.until_printed("up 4 d 4 h").await;
}
