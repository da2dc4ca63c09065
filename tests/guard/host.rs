//! A host with a guard: its folder, its configuration, its scripts; and how it is asked.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use watchdog::domain::attempt::Warrant;
use watchdog::domain::ids::Token;
use watchdog::guard::host::{boot_nonce, boottime_ms};
use watchdog::guard::protocol::{Answer, Reply, Request, Status};

#[path = "../lab/stopped.rs"]
mod stopped;

/// A host.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
}

/// What every test host can do besides `extra`. `slow` waits for the file `go`, then appends to `effects`.
const ACTIONS: &str = r#"
[action.slow]
argv = [["{dir}/slow"]]
read_back = ["{dir}/is-there"]
user = "root"
timeout_s = 60

[action.once]
argv = [["{dir}/append"]]
read_back = ["{dir}/is-there"]
user = "root"
timeout_s = 60

[action.blind]
argv = [["{dir}/slow"]]
user = "root"
timeout_s = 60

[action.brief]
argv = [["{dir}/slow"]]
user = "root"
timeout_s = 1

[action.fails]
argv = [["{dir}/append"], ["/bin/sh", "-c", "echo no such service >&2; exit 5"], ["{dir}/append"]]
user = "root"
timeout_s = 60

[action.missing]
argv = [["/no/such/program"]]
user = "root"
timeout_s = 60

[action.daemon]
argv = [["{dir}/daemon"]]
user = "root"
timeout_s = 60

[action.scale]
argv = [["{dir}/say", "--replicas", "{replicas}"]]
user = "root"
timeout_s = 60
repeatable = true
[action.scale.params.replicas]
chars = "0-9"
max_length = 3
"#;

impl Host {
    /// Enrolled with cluster `demo`, epoch 1.
    pub fn new(extra: &str) -> Self {
        let host = Self::not_enrolled(extra);
        host.enroll(1);
        host
    }

    pub fn not_enrolled(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = dir.path().display().to_string();
        let script = |name: &str, body: &str| {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{}\n", body.replace("{dir}", &at))).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        script("append", "echo $$ >>{dir}/effects");
        script(
            "slow",
            "sleep 300 &\nwhile [ -d {dir} ] && [ ! -e {dir}/go ]; do sleep 0.01; done\nkill $!\nexec {dir}/append",
        );
        script("is-there", "[ -s {dir}/effects ]");
        script("daemon", "setsid sleep 300 & echo $! >{dir}/daemon.pid");
        script("say", "printf '%s|' \"$@\"");
        let config = dir.path().join("guard.toml");
        let head = format!("cluster = \"demo\"\nstate_dir = \"{at}/state\"\ngroups = [\"aicamera\"]\n");
        fs::write(&config, head + &ACTIONS.replace("{dir}", &at) + extra).unwrap();
        Self { dir, config }
    }

    pub fn enroll(&self, epoch: u64) {
        let epoch = epoch.to_string();
        let words = ["enroll", "--group", "aicamera", "--cluster", "demo", "--epoch", &epoch, "--confirm", &name()];
        let out = self.run(&words);
        assert!(out.status.success(), "{}", text(&out.stderr));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of the group's state.
    pub fn state(&self, name: &str) -> PathBuf {
        self.path("state/aicamera").join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog-guard"));
        command.arg("--config").arg(&self.config).args(words);
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// The forced command, asked and not awaited.
    pub fn begin(&self, request: &Request) -> Asked {
        let mut child = self
            .command(&["ssh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let line = serde_json::to_string(request).unwrap() + "\n";
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        Asked(child)
    }

    pub fn ask(&self, request: &Request) -> (Reply, i32) {
        self.begin(request).answer()
    }

    /// Any bytes.
    pub fn ask_raw(&self, bytes: &[u8]) -> (Reply, i32) {
        let mut child = self.command(&["ssh"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Too long a request is not read to its end.
        let _broken_pipe = child.stdin.take().unwrap().write_all(bytes);
        Asked(child).answer()
    }

    pub fn status(&self) -> Status {
        match self.ask(&Request::status("demo".into(), 1)).0 {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// How often the effect was brought.
    pub fn effects(&self) -> usize {
        fs::read_to_string(self.path("effects")).unwrap_or_default().lines().count()
    }

    /// Lets `slow` go on.
    pub fn go(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    /// Ledger events of a step, in order.
    pub fn events(&self, step: &str) -> Vec<String> {
        let entries = watchdog::guard::ledger::load(&self.state("ledger.log")).unwrap();
        entries.iter().filter(|e| e.step.as_str() == step).map(|e| e.event.word().to_owned()).collect()
    }

    /// Waits until an action is in flight and its command runs.
    pub fn until_in_flight(&self) -> watchdog::guard::protocol::InFlight {
        wait_until("something in flight", || {
            self.status().groups[0].in_flight.clone().filter(|in_flight| in_flight.process_group.is_some())
        })
    }
}

/// A guard at work on a request.
pub struct Asked(pub Child);

impl Asked {
    pub fn answer(mut self) -> (Reply, i32) {
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let status = self.0.wait().unwrap();
        let answer: Answer = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said:?} ({status})"));
        assert_eq!(answer.boot_nonce, boot_nonce());
        assert!(answer.boottime_ms <= boottime_ms());
        (answer.reply, status.code().unwrap_or(-1))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        signal_to(self.0.id(), signal);
    }
}

pub fn signal_to(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
    if signal == rustix::process::Signal::STOP {
        stopped::until_stopped(pid.as_raw_nonzero().get().unsigned_abs());
    }
}

pub fn warrant(run: &str, step: &str, n: u64) -> Warrant {
    Warrant {
        cluster: "demo".into(),
        group: "aicamera".into(),
        run: run.into(),
        step: step.into(),
        attempt: 1,
        token: Token { epoch: 1, n },
        fenced_host: None,
    }
}

/// To act, with a deadline that nothing here reaches.
pub fn act(warrant: &Warrant, action: &str) -> Request {
    act_within(warrant, action, 60_000)
}

pub fn act_within(warrant: &Warrant, action: &str, ms: u64) -> Request {
    Request::act(warrant, action, Default::default(), &boot_nonce(), boottime_ms() + ms)
}

pub fn read_back(warrant: &Warrant, action: &str) -> Request {
    Request::read_back(warrant, action, Default::default())
}

pub fn name() -> String {
    watchdog::guard::host::name()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Does a process run? A zombie does not.
pub fn runs(pid: u32) -> bool {
    watchdog::guard::host::process_started(pid).is_some()
}

/// Polls until there is something.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited 60 s for {what}");
        watchdog::guard::host::pause(5);
    }
}

/// Flips one bit in the middle of a file.
pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}
