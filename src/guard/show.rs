//! What the guard shows: to the cluster as data, on the host as words. Read-only, and without network.

use std::fmt::Write;

use super::actions::rejoin;
use super::config::Config;
use super::describe;
use super::egress::{Kind, probe};
use super::host;
use super::in_flight;
use super::latch;
use super::lease::config::GateKind;
use super::lease::{boot, files, hold};
use super::ledger;
use super::postgres;
use super::protocol::{GroupStatus, HoldShown, PostgresStatus, RedisShown, Status, WalShown};
use super::records::RecordError;
use super::redis;
use super::token_store::{self, GroupFiles};
use super::wal;
use crate::domain::ids::{GroupName, HostName};
use crate::domain::stuck::UNLATCH;

/// How many ledger records are shown.
const LAST: usize = 5;

/// Everything, read afresh.
pub fn status(config: &Config) -> Status {
    let postgres = config.postgres.as_ref().zip(config.postgres_group()).map(|(pg, group)| {
        let seen = postgres::look(pg);
        let role = seen.role.into();
        PostgresStatus { group: group.clone(), role, seen_by: seen.how, wal: wal::shown(pg, role) }
    });
    let groups = config.groups.iter().map(|group| group_status(config, group)).collect();
    Status { host: host::name(), cluster: config.cluster.clone(), groups, postgres }
}

fn group_status(config: &Config, group: &GroupName) -> GroupStatus {
    let files = GroupFiles::new(&config.state_dir, group);
    let mut faults = Vec::new();
    let record = match token_store::load(&files, group) {
        Ok(record) => Some(record),
        Err(RecordError::Missing(_)) => {
            faults.push(format!("not enrolled: type `watchdog-guard enroll --group {group}` (see --help)"));
            None
        }
        Err(e) => {
            faults.push(format!("{e}: everything is refused; type `watchdog-guard enroll --group {group}`"));
            None
        }
    };
    let latch = match latch::load(&files) {
        Ok(latch) => latch.mark,
        // Said already: not enrolled.
        Err(RecordError::Missing(_)) if record.is_none() => None,
        Err(e) => {
            faults.push(format!("{e}: taken as latched; type `watchdog-guard enroll --group {group} --latch …`"));
            None
        }
    };
    let hold = hold::standing(&files).unwrap_or_else(|e| {
        faults.push(format!("{e}: nothing is promoted; type `watchdog-guard enroll --group {group}`"));
        Some(HoldShown { host: HostName(String::new()), remaining_ms: u64::MAX })
    });
    let in_flight = in_flight::look(&files).unwrap_or_else(|e| {
        faults.push(format!("{e}: what is in flight cannot be told"));
        None
    });
    let entries = ledger::load(&files.ledger()).unwrap_or_else(|e| {
        faults.push(format!("{e}: type `watchdog-guard set-ledger-aside --group {group}`"));
        Vec::new()
    });
    GroupStatus {
        group: group.clone(),
        token: record.as_ref().map(|record| record.token),
        epoch: record.as_ref().map(|record| record.epoch),
        latch,
        hold,
        in_flight,
        last: entries[entries.len().saturating_sub(LAST)..].iter().map(ledger::Entry::hint).collect(),
        fault: (!faults.is_empty()).then(|| faults.join("; ")),
    }
}

/// The host's Redis server, where its latch is set or cannot be read.
pub fn latched_redis(config: &Config) -> Option<RedisShown> {
    let group = config.redis_group()?;
    let (latch, fault) = match latch::load_at(&GroupFiles::new(&config.state_dir, group).redis_latch()) {
        Ok(latch) => (Some(latch.mark?), None),
        Err(e) => (None, Some(e.to_string())),
    };
    Some(RedisShown { group: group.clone(), latch, fault })
}

/// May the database be started?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    Open,
    /// No: latched; in words.
    Latched(String),
    /// No: no lease lets it answer; whom it waits for, in words.
    NoLease(String),
    /// Cannot be told, so no; in words.
    CannotTell(String),
}

/// The boot gate: asked by the database's unit before it starts. In mode `lease` waits for a lease, up to `wait_s` seconds.
pub fn gate(config: &Config, wait_s: u64) -> Gate {
    match latch_gate(config) {
        Gate::Open => boot::waits_for(config, wait_s).map_or(Gate::Open, Gate::NoLease),
        shut => shut,
    }
}

/// The boot gate of Redis: asked by its unit before it starts.
pub fn redis_gate(config: &Config) -> Gate {
    let Some(group) = config.redis_group() else {
        return Gate::CannotTell("the guard's configuration has no [redis]: there is nothing to gate".to_owned());
    };
    match latch::load_at(&GroupFiles::new(&config.state_dir, group).redis_latch()) {
        Ok(latch) => latch.mark.map_or(Gate::Open, |mark| {
            let (run, step, host) = (mark.run, mark.step, host::name());
            Gate::Latched(format!(
                "the Redis server of group {group} is latched: fenced under token {} by {run}/{step}. Another may be the \
                 primary by now. Where you answer for it that there is none: {UNLATCH} --redis --group {group} --confirm \
                 {host} --reason TEXT",
                mark.token,
            ))
        }),
        Err(e) => Gate::CannotTell(format!(
            "{e}. Not knowing is not clear: type watchdog-guard enroll --group {group} (see --help)"
        )),
    }
}

fn latch_gate(config: &Config) -> Gate {
    let Some(group) = config.postgres_group() else {
        return Gate::CannotTell("the guard's configuration has no [postgres]: there is nothing to gate".to_owned());
    };
    if config.postgres.as_ref().is_some_and(rejoin::was_begun) {
        let why = "the data directory was being made a standby, and is not whole: rejoin it again (then DATA.rejoining is gone)";
        return Gate::CannotTell(why.to_owned());
    }
    match latch::load(&GroupFiles::new(&config.state_dir, group)) {
        Ok(latch) => latch.mark.map_or(Gate::Open, |mark| {
            Gate::Latched(format!(
                "group {group} is latched: fenced under token {} by {}/{}. Another server may be the primary by now: two \
                 of them write apart from each other. Where you answer for it that there is none, or have made this one \
                 its standby: {UNLATCH} --group {group} --confirm {} --reason TEXT",
                mark.token,
                mark.run,
                mark.step,
                host::name()
            ))
        }),
        Err(e) => Gate::CannotTell(format!(
            "{e}. Not knowing is not clear: type watchdog-guard enroll --group {group} (see --help)"
        )),
    }
}

/// For people.
pub fn in_words(config: &Config, status: &Status) -> String {
    let mut text = format!("host {}   cluster {}   guard {}\n", status.host, status.cluster, env!("CARGO_PKG_VERSION"));
    for group in &status.groups {
        let token = group.token.map_or("-".to_owned(), |token| token.to_string());
        let latch = group.latch.as_ref().map_or("clear".to_owned(), |mark| {
            format!("SET: fenced under token {} by {}/{}", mark.token, mark.run, mark.step)
        });
        let hold = group.hold.as_ref().map_or("none stands".to_owned(), ToString::to_string);
        let in_flight = group.in_flight.as_ref().map_or("nothing".to_owned(), ToString::to_string);
        let _infallible = writeln!(text, "\ngroup {}", group.group)
            .and_then(|()| writeln!(text, "  token      {token}"))
            .and_then(|()| writeln!(text, "  latch      {latch}"))
            .and_then(|()| writeln!(text, "  hold       {hold}"))
            .and_then(|()| writeln!(text, "  in flight  {in_flight}"));
        for hint in &group.last {
            let _infallible = writeln!(
                text,
                "  ledger     {} {} {}/{} attempt {} token {} {}",
                hint.event, hint.action, hint.run, hint.step, hint.attempt, hint.token, hint.detail
            );
        }
        if let Some(fault) = &group.fault {
            let _infallible = writeln!(text, "  FAULT      {fault}");
        }
    }
    if let Some(postgres) = &status.postgres {
        database_in_words(config, postgres, &mut text);
    }
    if let Some((redis, group)) = config.redis.as_ref().zip(config.redis_group()) {
        let gate = match redis_gate(config) {
            Gate::Open => "open: Redis may start".to_owned(),
            Gate::Latched(why) | Gate::NoLease(why) | Gate::CannotTell(why) => format!("shut: {why}"),
        };
        let _infallible = writeln!(text, "\nRedis of group {group}")
            .and_then(|()| writeln!(text, "  role       {}", redis::look(redis).how))
            .and_then(|()| writeln!(text, "  boot gate  {gate}"));
    }
    text
}

fn database_in_words(config: &Config, postgres: &PostgresStatus, text: &mut String) {
    let (group, role) = (&postgres.group, postgres.role);
    let now = config.lease.as_ref().map(|_| files::now(&GroupFiles::new(&config.state_dir, group)));
    let mut rows = vec![("role", format!("{role} ({})", postgres.seen_by))];
    rows.extend(postgres.wal.iter().map(|wal| ("log", log_in_words(wal))));
    match &now {
        None => {}
        Some(Ok(now)) => {
            rows.push(("lease", now.stands()));
            rows.push(("", format!("the cluster: {}", now.said)));
            rows.push(("", format!("the gate: {}", now.gate)));
        }
        Some(Err(why)) => rows.push(("lease", format!("unknown: {why}"))),
    }
    if let Some(now) = now.as_ref().filter(|_| config.lease.as_ref().is_some_and(|lease| lease.commit_gate)) {
        let running_without = || "configured, but NOT IN FORCE: restart `watchdog-guard serve`".to_owned();
        let stands = match now {
            Ok(now) => now.commit_gate.clone().unwrap_or_else(running_without),
            Err(why) => format!("unknown: {why}"),
        };
        rows.push(("commits", stands));
    }
    let gate = gate(config, 0);
    rows.push(match &gate {
        Gate::Open => ("boot gate", "open: the database may start".to_owned()),
        Gate::Latched(why) | Gate::NoLease(why) | Gate::CannotTell(why) => ("boot gate", format!("shut: {why}")),
    });
    rows.extend(to_type(group, &gate, now.as_ref()).into_iter().map(|line| ("type", line)));
    let _infallible = writeln!(text, "\ndatabase of group {group}");
    for (label, words) in rows {
        let _infallible = writeln!(text, "  {label:<9}  {words}");
    }
}

fn log_in_words(wal: &WalShown) -> String {
    let mut words = format!("{}; checkpoint at {} on timeline {}", wal.state, wal.checkpoint_lsn, wal.timeline);
    let WalShown { running: Some(running), .. } = wal else {
        return words + &wal.unread.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    };
    for (what, lsn) in
        [("written", running.current_lsn), ("received", running.received_lsn), ("replayed", running.replayed_lsn)]
    {
        words.push_str(&lsn.map(|lsn| format!("; {what} {lsn}")).unwrap_or_default());
    }
    if running.replayed_lsn.is_some() {
        words.push_str(if running.streams { "; its receiver streams" } else { "; its receiver does not stream" });
    }
    words
}

/// What to type here where the database waits, the likeliest first. (A latch's own words say what to type.)
fn to_type(group: &GroupName, gate: &Gate, now: Option<&Result<files::Now, String>>) -> Vec<String> {
    match (gate, now) {
        (Gate::NoLease(_), Some(Err(_))) => {
            vec!["systemctl start watchdog-guard-serve     the resident guard keeps the lease".to_owned()]
        }
        (Gate::NoLease(_), Some(Ok(now))) if now.until_boottime_ms == 0 || !now.open_ended => vec![
            "watchdogctl status                       on a node: which region serves? If another, this one stays down"
                .to_owned(),
            format!(
                "watchdog-guard break-glass --group {group} --confirm {} --reason TEXT     where none serves and no node can be reached",
                host::name()
            ),
        ],
        _ => Vec::new(),
    }
}

/// For programs: what the cluster is told, and on the host also how the lease stands.
#[derive(Debug, serde::Serialize)]
pub struct HostStatus<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// Mode `lease`: how it stands; `null` without it, or where the resident guard does not run.
    lease: Option<files::Now>,
    /// What the boot gate would say: `open`, `latched`, `no lease`, `cannot tell`; `null` without a database.
    boot_gate: Option<&'static str>,
    /// Why it is shut.
    boot_gate_reason: Option<String>,
}

/// With the status as [`status`] gave it.
pub fn on_host<'a>(config: &Config, status: &'a Status) -> HostStatus<'a> {
    let group = config.lease.as_ref().and(config.postgres_group());
    let lease = group.and_then(|group| files::now(&GroupFiles::new(&config.state_dir, group)).ok());
    let gate = status.postgres.as_ref().map(|_| gate(config, 0));
    let (boot_gate, boot_gate_reason) = match gate {
        None => (None, None),
        Some(Gate::Open) => (Some("open"), None),
        Some(Gate::Latched(why)) => (Some("latched"), Some(why)),
        Some(Gate::NoLease(why)) => (Some("no lease"), Some(why)),
        Some(Gate::CannotTell(why)) => (Some("cannot tell"), Some(why)),
    };
    HostStatus { status, lease, boot_gate, boot_gate_reason }
}

/// Actions that could not even be started here, a line each.
pub fn missing(config: &Config) -> Vec<String> {
    let actions = describe::actions(config).into_iter();
    actions.filter_map(|(name, shown)| Some(format!("action {name} could not be started: {}", shown.fault?))).collect()
}

/// Whether this host can do what its configuration says: mode `lease` needs a gate and a clock that counts.
///
/// # Errors
/// What it cannot do, and what to do instead.
pub fn check(config: &Config) -> Result<String, String> {
    let sound = "the configuration is sound";
    let Some(lease) = &config.lease else { return Ok(sound.to_owned()) };
    let probe = probe::probe();
    let mut faults: Vec<String> = lease.clock_fault(&probe.clock_source).into_iter().collect();
    let kinds: Vec<Kind> = match lease.gate {
        GateKind::Auto => vec![Kind::Bpf, Kind::Nftables],
        GateKind::Bpf => vec![Kind::Bpf],
        GateKind::Nftables => vec![Kind::Nftables],
    };
    if !kinds.iter().any(|kind| probe.can(*kind)) {
        let why = "lease.gate: this host can do none that is asked for; use fencing = \"confirm\", or mend this";
        faults.push(format!("{why}:\n{}", probe.in_words()));
    }
    if faults.is_empty() { Ok(format!("{sound}\n{}", probe.in_words())) } else { Err(faults.join("\n")) }
}
