//! The resident guards of a real primary and a real standby, with a stand-in for the nodes and one for the kernel's gate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use watchdog::domain::lease::GateSeen;
use watchdog::guard::config::Config;
use watchdog::guard::host::boottime_ms;
use watchdog::guard::lease::gate::{Gate, GateError};
use watchdog::guard::lease::serve::serve;
use watchdog::guard::protocol::{Reply, Request};
use watchdog::proto::{GateState, LeaseWord, RenewRequest};

use crate::host::{Host, act, name, signal_to, text, wait_until, warrant};
use crate::nodes::{StandInNode, TTL_MS, free_address, leased};
use crate::server::Server;

/// Stands in for the kernel's gate: remembers what it was told.
#[derive(Default)]
pub struct StandInGate(Mutex<Option<u64>>);

impl StandInGate {
    /// `u64::MAX`: open-ended. `None`: not installed.
    fn until_ms(&self) -> Option<u64> {
        *self.0.lock().unwrap()
    }
    fn change(&self, change: impl FnOnce(u64) -> u64) -> Result<(), GateError> {
        let mut until_ms = self.0.lock().unwrap();
        *until_ms = until_ms.map(change);
        Ok(())
    }
}

impl Gate for StandInGate {
    fn install(&self) -> Result<(), GateError> {
        self.0.lock().unwrap().get_or_insert(0);
        Ok(())
    }
    fn begin(&self, ms: u64) -> Result<(), GateError> {
        self.install()?;
        self.extend_until(ms)
    }
    fn extend_until(&self, ms: u64) -> Result<(), GateError> {
        self.change(|until_ms| until_ms.max(ms))
    }
    fn bound_at(&self, ms: u64) -> Result<(), GateError> {
        self.change(|until_ms| until_ms.min(ms))
    }
    fn open(&self) -> Result<(), GateError> {
        self.change(|_| u64::MAX)
    }
    fn seen(&self) -> GateSeen {
        match self.until_ms() {
            None => GateSeen::Absent { why: "not installed".to_owned() },
            Some(u64::MAX) => GateSeen::OpenEnded,
            Some(_) => GateSeen::Bounded { evidence: "a stand-in".to_owned() },
        }
    }
}

/// A primary and a standby, each with its resident guard.
pub struct Site {
    runtime: tokio::runtime::Runtime,
    pub node: Arc<StandInNode>,
    gate: Arc<StandInGate>,
    pub primary_host: Host,
    standby_host: Host,
    stop: CancellationToken,
    pub primary: Server,
    _standby: Server,
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with("")
    }

    /// With more in the primary's `[lease]`.
    pub fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let primary = Server::primary(dir.path());
        let standby = Server::standby(dir.path(), &primary);
        let (at_primary, at_standby, at_node) = (free_address(), free_address(), free_address());
        let holders = format!("{more}[lease.holders]\ndb-hanoi = \"{at_standby}\"\n");
        let primary_host = Host::new(&(primary.guarded("") + &leased("db-hcmc", &at_primary, &at_node, &holders)));
        let standby_host = Host::new(&(standby.guarded("") + &leased("db-hanoi", &at_standby, &at_node, "")));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (node, gate, stop) =
            (Arc::new(StandInNode::default()), Arc::new(StandInGate::default()), CancellationToken::new());
        node.serve(&runtime, &at_node);
        let config = Config::load(&standby_host.config).unwrap();
        runtime.spawn(serve(config, Arc::new(StandInGate::default()), stop.clone()));
        let site = Self { runtime, node, gate, primary_host, standby_host, stop, primary, _standby: standby, dir };
        site.start();
        site
    }

    fn start(&self) {
        let config = Config::load(&self.primary_host.config).unwrap();
        self.runtime.spawn(serve(config, self.gate.clone(), self.stop.clone()));
    }

    pub fn until(&self, what: &str, is: impl Fn(u64) -> bool) {
        wait_until(what, || self.gate.until_ms().filter(|until_ms| is(*until_ms)).map(drop));
    }

    fn boot_gate(&self, wait_s: &str) -> (Option<i32>, String) {
        let out = self.primary_host.run(&["gate", "--wait", wait_s]);
        (out.status.code(), text(&out.stderr))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[test]
fn a_lease_is_kept_by_the_cluster_or_by_the_standby_and_ends_with_both() {
    let site = Site::new();
    site.until("the gate to be installed, shut", |until_ms| until_ms == 0);
    wait_until("the boot gate to say for whom it waits", || {
        let (code, words) = site.boot_gate("0");
        assert_eq!(code, Some(42), "{words}");
        (words.contains("holds of db-hanoi") && words.contains("no quorum, says the stand-in")).then_some(())
    });

    site.node.say(Some(LeaseWord::Granted));
    site.until("the first grant", |until_ms| until_ms > boottime_ms());
    assert!(site.gate.until_ms().unwrap() <= boottime_ms() + TTL_MS);
    assert_eq!(site.boot_gate("30").0, Some(0));
    wait_until("the standby to be bound as a holder", || {
        (site.node.holders() == Some(vec!["db-hanoi".to_owned()])).then_some(())
    });
    let shown = site.standby_host.status().groups[0].hold.clone().unwrap();
    assert_eq!(shown.host.as_str(), "db-hcmc");

    // The whole cluster is gone: the standby's word renews it.
    site.node.say(None);
    let gone_ms = boottime_ms();
    site.until("a renewal by the hold alone", |until_ms| until_ms > gone_ms + 2 * TTL_MS);
    // A run's token at the standby ends that, and its promotion waits for the hold.
    assert_eq!(site.standby_host.ask(&Request::raise(&warrant("r1", "promote", 4), false)).1, 0);
    let (reply, _) = site.standby_host.ask(&act(&warrant("r1", "promote", 4), "promote"));
    assert!(matches!(&reply, Reply::Failed { retryable: true, reason } if reason.contains("db-hcmc")), "{reply:?}");
    site.primary.sql("CREATE TABLE before_the_end AS SELECT 1 AS x");
    wait_until("the hold to be over", || {
        let (reply, _) = site.standby_host.ask(&act(&warrant("r1", "promote", 4), "promote"));
        let is_over = matches!(reply, Reply::Done { .. });
        // Whoever could be promoted finds the old primary's gate shut.
        assert!(!is_over || site.gate.until_ms().is_some_and(|until_ms| until_ms <= boottime_ms()));
        is_over.then_some(())
    });
    site.node.say(Some(LeaseWord::Denied));
    let shut_at = site.gate.until_ms();
    let words = wait_until("the denial to be known", || {
        let words = text(&site.primary_host.run(&["status"]).stdout);
        words.contains("denied: says the stand-in").then_some(words)
    });
    assert!(words.contains("lease      none: the gate is shut"), "{words}");
    assert_eq!((site.gate.until_ms(), site.boot_gate("0").0), (shut_at, Some(42)));
}

/// Started by its unit, whose boot gate waits for a lease.
#[test]
fn a_release_leaves_the_gate_to_the_lease_and_holds_begin_again() {
    let site = Site::new();
    let (at, config) = (site.dir.path().display().to_string(), site.primary_host.config.display().to_string());
    let script = format!(
        "#!/bin/sh\n{} --config {config} gate --wait 30 || exit 1\necho >{at}/through\n\
         exec setpriv --reuid=postgres --regid=postgres --init-groups /usr/lib/postgresql/15/bin/pg_ctl start -w -D {} \
         -l {at}/primary/log -o '{}'\n",
        env!("CARGO_BIN_EXE_watchdog-guard"),
        site.primary.data.display(),
        site.primary.options()
    );
    let unit = site.dir.path().join("unit");
    fs::write(&unit, script).unwrap();
    fs::set_permissions(&unit, fs::Permissions::from_mode(0o755)).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("[postgres]\n", &format!("[postgres]\nstart_argv = [\"{}\"]\n", unit.display()));
    fs::write(&config, text).unwrap();

    site.node.say(Some(LeaseWord::Granted));
    site.until("the first grant", |until_ms| until_ms > boottime_ms());
    site.node.say(Some(LeaseWord::Denied));
    assert_eq!(site.standby_host.ask(&Request::raise(&warrant("r1", "catch-up", 5), false)).1, 0);
    let (reply, _) = site.primary_host.ask(&act(&warrant("r1", "fence", 5), "fence"));
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    site.until("the gate to be shut", |until_ms| until_ms <= boottime_ms());

    let releasing = site.primary_host.begin(&act(&warrant("r1", "release", 5), "release"));
    wait_until("the latch to be clear", || site.primary_host.status().groups[0].latch.is_none().then_some(()));
    wait_until("the denial to be known", || {
        let words = text_of_status(&site.primary_host);
        words.contains("denied: says the stand-in").then_some(())
    });
    assert!(site.gate.until_ms().is_some_and(|until_ms| until_ms <= boottime_ms()), "opened without a grant");
    assert!(!site.dir.path().join("through").exists() && site.primary.postmaster().is_none());
    // The log says by now that this region serves.
    site.node.tell_token(5);
    site.node.say(Some(LeaseWord::Granted));
    assert!(matches!(releasing.answer(), (Reply::Done { acted: true, .. }, 0)));
    site.until("the gate to be open by a grant", |until_ms| until_ms > boottime_ms() && until_ms < u64::MAX);
    // And the standby holds again over the run's token: its hold counts once a grant has bound it.
    let nonce = || site.node.last.lock().unwrap().as_ref().map(|request| request.nonce);
    wait_until("the standby's hold to be bound", || site.node.holders().filter(|bound| !bound.is_empty()));
    let bound_by = nonce();
    wait_until("the guard to have heard of it", || (nonce() != bound_by).then_some(()));
    site.node.say(None);
    let gone_ms = boottime_ms();
    site.until("a renewal by the hold alone", |until_ms| until_ms > gone_ms + 2 * TTL_MS);
    assert_eq!(site.primary.sql("SELECT pg_is_in_recovery()"), "f");
}

/// A host that was booted since its fence has no gate until its resident guard has put one in place; the cluster goes on
/// counting on it.
#[test]
fn p4_nothing_is_released_before_a_gate_stands_in_the_kernel() {
    let site = Site::new();
    site.node.say(Some(LeaseWord::Granted));
    site.until("the first grant", |until_ms| until_ms > boottime_ms());
    site.node.say(Some(LeaseWord::Denied));
    let (reply, _) = site.primary_host.ask(&act(&warrant("r1", "fence", 5), "fence"));
    assert!(matches!(reply, Reply::Done { .. }), "{reply:?}");
    site.stop.cancel();
    let lock = site.primary_host.state("lease.lock");
    wait_until("the guard to end", || (!watchdog::guard::locks::is_held(&lock).unwrap()).then_some(()));
    // As a boot leaves it.
    fs::remove_file(site.primary_host.state("lease-now.json")).unwrap();
    *site.gate.0.lock().unwrap() = None;

    let release = || site.primary_host.ask(&act(&warrant("r1", "release", 6), "release"));
    let (reply, code) = release();
    let Reply::Failed { retryable: true, reason } = &reply else { panic!("{reply:?}") };
    assert!(reason.contains("nothing was released: the resident guard does not run"), "{reason}");
    let latch = site.primary_host.status().groups[0].latch.as_ref().map(|mark| mark.token.n);
    assert_eq!((code, latch, site.primary.postmaster()), (10, Some(5), None));

    let (config, stop) = (Config::load(&site.primary_host.config).unwrap(), CancellationToken::new());
    site.runtime.spawn(serve(config, site.gate.clone(), stop.clone()));
    site.until("a gate in place", |until_ms| until_ms <= boottime_ms());
    wait_until("the release to find it", || matches!(release().0, Reply::Done { .. }).then_some(()));
    assert!(site.gate.until_ms().is_some_and(|until_ms| until_ms <= boottime_ms()), "opened without a grant");
    stop.cancel();
}

fn text_of_status(host: &Host) -> String {
    text(&host.run(&["status"]).stdout)
}

#[test]
fn the_gate_stands_open_on_the_clusters_word_alone_or_on_an_operators() {
    let site = Site::new();
    site.node.say(Some(LeaseWord::OpenEnded));
    site.until("the gate to stand open", |until_ms| until_ms == u64::MAX);
    // Ended and begun again in the same boot, without the cluster: open it was, and open it stays.
    site.node.say(None);
    site.stop.cancel();
    let lock = site.primary_host.state("lease.lock");
    wait_until("the guard to end", || (!watchdog::guard::locks::is_held(&lock).unwrap()).then_some(()));
    assert_eq!(site.gate.until_ms(), Some(u64::MAX), "ending opens nothing and shuts nothing");
    let config = Config::load(&site.primary_host.config).unwrap();
    let stop = CancellationToken::new();
    site.runtime.spawn(serve(config, site.gate.clone(), stop.clone()));
    site.node.say(Some(LeaseWord::Granted));
    site.until("the gate to be bounded again", |until_ms| until_ms != u64::MAX && until_ms > boottime_ms());
    let is_bounded = |request: RenewRequest| (request.gate() == GateState::Bounded).then_some(());
    wait_until("a bounded gate to be attested", || site.node.last.lock().unwrap().clone().and_then(is_bounded));

    let me = name();
    let typed = ["break-glass", "--group", "aicamera", "--confirm", &me, "--reason", "a test"];
    let out = site.primary_host.run(&typed);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("unbound the lease"), "{}", text(&out.stdout));
    assert_eq!((site.gate.until_ms(), site.node.holders()), (Some(u64::MAX), None));
    assert!(site.primary_host.run(&[&typed[..], &["--mend"][..]].concat()).status.success());
    site.until("the gate to be bounded again", |until_ms| until_ms != u64::MAX);
    wait_until("the lease to be bound again", || site.node.holders());

    site.node.say(None);
    let own = site.primary_host.run(&[&typed[..], &["--i-own-the-fence"][..]].concat());
    assert!(text(&own.stdout).contains("from here on you own the fence"), "{}{}", text(&own.stdout), text(&own.stderr));
    assert_eq!(site.gate.until_ms(), Some(u64::MAX));
    stop.cancel();
}

#[test]
fn the_resident_guard_of_a_standby_ends_when_told_to_and_only_one_runs() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let primary = Server::primary(dir.path());
    let standby = Server::standby(dir.path(), &primary);
    let lease = leased("db-hanoi", &free_address(), "127.0.0.1:9", "");
    let host = Host::new(&(standby.guarded("") + &lease));
    assert_eq!(host.run(&["gate"]).status.code(), Some(0), "a standby needs no lease to start");
    let mut guard =
        host.command(&["serve", "--log-format", "json"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_until("the guard to tell how it stands", || host.state("lease-now.json").exists().then_some(()));
    let out = host.run(&["serve"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("another `watchdog-guard serve`"), "{}", text(&out.stderr));
    assert!(text(&host.run(&["status"]).stdout).contains("none is needed: the database is a standby"));
    signal_to(guard.id(), Signal::TERM);
    assert_eq!(guard.wait().unwrap().code(), Some(0));
}
