//! Kind `nftables`: a table of its own that resets the port's packets unless two things hold: an element with a timeout is
//! in a set, and the wall clock is before a moment written into a rule.
//!
//! The element's timeout is relative, so a guard that is frozen between reckoning and applying would apply it late; the
//! wall clock's moment is absolute and would not. `nft` takes whole seconds of it only, so a deadline is brought forward to
//! one: never late, up to a second early. What remains is told in docs/adr/0007.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::super::host::{boottime_ms, boottime_ns, pause};
use super::lock::Lock;
use super::{EgressError, Net, OPEN_ENDED, SHUT, Scope};

/// Identifiers of nftables may be longer; this reads well.
const NAME_MAX: usize = 32;
/// `nft` works for some milliseconds; it is ended after this many.
const NFT_TIMEOUT_MS: u64 = 5000;
const SECOND_NS: u64 = 1_000_000_000;
/// Before a deadline where it is written into the table.
const MARK: &str = "boottime_ns ";

/// The table in this network namespace.
#[derive(Debug)]
pub(super) struct NftGate {
    table: String,
    port: u16,
    /// What the kernel listed right after the rules were written, deadline left out.
    written: Vec<String>,
}

fn amiss(why: impl Into<String>) -> EgressError {
    EgressError::NotInForce(format!("{}: install it again", why.into()))
}

/// One changes the table at a time; the network namespace itself is the lock.
fn lock() -> Result<Lock, EgressError> {
    let locked = File::open("/proc/self/ns/net").and_then(Lock::take);
    locked.map_err(|e| EgressError::Nft { what: "lock the network namespace", said: e.to_string() })
}

/// Runs `nft`, without a shell, and gives what it printed.
fn nft(what: &'static str, words: &[&str], input: &str) -> Result<String, EgressError> {
    let fault = |said: String| EgressError::Nft { what, said };
    let mut command = Command::new("nft");
    command.args(words).env_clear().env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin").env("TZ", "UTC");
    command.env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => fault("it is not installed: install the package nftables".to_owned()),
        _ => fault(e.to_string()),
    })?;
    let (stdin, input) = (child.stdin.take(), input.to_owned());
    let asks = thread::spawn(move || stdin.map(|mut pipe| pipe.write_all(input.as_bytes())));
    let reads = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut said = Vec::new();
            // What was read until a fault is all there is to tell.
            let _read = pipe.map(|mut pipe| pipe.read_to_end(&mut said));
            String::from_utf8_lossy(&said).into_owned()
        })
    };
    let out = reads(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = reads(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let ended = end_of(&mut child);
    let (_asked, out, err) = (asks.join(), out.join().unwrap_or_default(), err.join().unwrap_or_default());
    match ended {
        Ok(true) => Ok(out),
        Ok(false) => Err(fault(err.lines().take(2).collect::<Vec<_>>().join(" "))),
        Err(why) => Err(fault(why)),
    }
}

fn end_of(child: &mut Child) -> Result<bool, String> {
    let until = boottime_ms() + NFT_TIMEOUT_MS;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if boottime_ms() < until => pause(1),
            Ok(None) => {
                // Whether it was killed or ended itself meanwhile is the same.
                let _gone = child.kill().and_then(|()| child.wait());
                return Err(format!("it did not end within {NFT_TIMEOUT_MS} ms"));
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

fn table_of(scope: &Scope) -> String {
    format!("watchdog_{}", scope.name(NAME_MAX))
}

/// The rules, in one transaction. Sets and chains that are there stay; the deadline is not touched.
fn rules(table: &str, scope: &Scope) -> String {
    let (t, port) = (format!("inet {table}"), scope.port);
    let mut text = format!(
        "add table {t}\nadd set {t} open {{ type inet_service; flags timeout; }}\n\
         add set {t} peers4 {{ type ipv4_addr; flags interval; }}\nadd set {t} peers6 {{ type ipv6_addr; flags interval; }}\n\
         add chain {t} until\n"
    );
    for (way, here, there, hook) in [("out", "sport", "daddr", "output"), ("in", "dport", "saddr", "input")] {
        // A reset carries no answer; both sides must be able to learn that the connection is over.
        let _infallible = write!(
            text,
            "add chain {t} gate_{way}\nadd chain {t} {way} {{ type filter hook {hook} priority 0; policy accept; }}\n\
             flush chain {t} {way}\nflush chain {t} gate_{way}\nadd rule {t} {way} tcp {here} {port} jump gate_{way}\n\
             add rule {t} gate_{way} tcp flags & rst == rst accept\nadd rule {t} gate_{way} ip {there} @peers4 accept\n\
             add rule {t} gate_{way} ip6 {there} @peers6 accept\nadd rule {t} gate_{way} tcp {here} @open jump until\n\
             add rule {t} gate_{way} reject with tcp reset\n"
        );
    }
    let (v4, v6): (Vec<Net>, Vec<Net>) = scope.exempt_once().into_iter().partition(|net| net.address().is_ipv4());
    for (set, nets) in [("peers4", v4), ("peers6", v6)] {
        let _infallible = writeln!(text, "flush set {t} {set}");
        if !nets.is_empty() {
            let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
            let _infallible = writeln!(text, "add element {t} {set} {{ {} }}", nets.join(", "));
        }
    }
    text
}

/// When the gate opens and shuts, in one transaction. (Adding an element that is there does not refresh its timeout.)
fn deadline_rules(table: &str, port: u16, lease: &Lease) -> String {
    let t = format!("inet {table}");
    let mut text = format!("flush set {t} open\nflush chain {t} until\n");
    let (timeout, when, mark) = match lease {
        Lease::Shut => return text,
        Lease::Open => (String::new(), String::new(), OPEN_ENDED),
        Lease::Until { boottime_ns, timeout_ms, wall_s } => {
            (format!("timeout {timeout_ms}ms "), format!("meta time < {wall_s} "), *boottime_ns)
        }
    };
    let _infallible = write!(
        text,
        "add element {t} open {{ {port} {timeout}comment \"{MARK}{mark}\" }}\n\
         add rule {t} until {when}accept comment \"{MARK}{mark}\"\n"
    );
    text
}

/// A deadline as nftables can hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Shut,
    Open,
    Until { boottime_ns: u64, timeout_ms: u64, wall_s: u64 },
}

impl Lease {
    /// Brings a deadline forward to a whole second of the wall clock.
    fn until(until_ns: u64) -> Self {
        // In this order: a freeze between the two makes the moment earlier, never later.
        let wall = clock_gettime(ClockId::Realtime);
        let wall_s = u64::try_from(wall.tv_sec).unwrap_or(0);
        let wall_ns = wall_s.saturating_mul(SECOND_NS).saturating_add(u64::try_from(wall.tv_nsec).unwrap_or(0));
        Self::at(until_ns, boottime_ns(), wall_ns)
    }

    fn at(until_ns: u64, now_ns: u64, wall_ns: u64) -> Self {
        if until_ns == OPEN_ENDED {
            return Self::Open;
        }
        let wall_until = wall_ns.saturating_add(until_ns.saturating_sub(now_ns));
        let boottime_ns = until_ns.saturating_sub(wall_until % SECOND_NS);
        match boottime_ns.saturating_sub(now_ns) / 1_000_000 {
            0 => Self::Shut,
            timeout_ms => Self::Until { boottime_ns, timeout_ms, wall_s: wall_until / SECOND_NS },
        }
    }

    fn deadline(&self) -> u64 {
        match self {
            Self::Shut => SHUT,
            Self::Open => OPEN_ENDED,
            Self::Until { boottime_ns, .. } => *boottime_ns,
        }
    }
}

/// The table as the kernel has it; `None` where there is none.
fn list(table: &str) -> Result<Option<Vec<Value>>, EgressError> {
    match nft("list its table", &["-j", "list", "table", "inet", table], "") {
        Ok(said) => rows_in(&said).map(Some),
        Err(EgressError::Nft { said, .. }) if said.contains("No such file or directory") => Ok(None),
        Err(e) => Err(e),
    }
}

fn rows_in(said: &str) -> Result<Vec<Value>, EgressError> {
    let parsed: Option<Value> = serde_json::from_str(said).ok();
    let rows = parsed.and_then(|mut all| all.get_mut("nftables")?.as_array_mut().map(std::mem::take));
    rows.ok_or_else(|| EgressError::Nft { what: "list its table", said: "it printed no JSON we know".to_owned() })
}

/// What `nft -j list table` printed: the deadline, and all else that is compared with what was written.
///
/// # Errors
/// It is no such listing, or its deadline cannot be read from it.
pub fn listed(said: &str, port: u16) -> Result<(u64, Vec<String>), EgressError> {
    let rows = rows_in(said)?;
    Ok((deadline_in(&rows, port)?, lasting(&rows)))
}

fn text_at<'a>(row: &'a Value, path: &str) -> &'a str {
    row.pointer(path).and_then(Value::as_str).unwrap_or("")
}

/// All but the deadline and the kernel's numbering.
fn lasting(rows: &[Value]) -> Vec<String> {
    let kept = rows.iter().filter(|row| row.get("metainfo").is_none() && text_at(row, "/rule/chain") != "until");
    kept.map(|row| {
        let mut row = row.clone();
        let is_open = text_at(&row, "/set/name") == "open";
        for body in row.as_object_mut().into_iter().flat_map(|row| row.values_mut()).filter_map(Value::as_object_mut) {
            body.remove("handle");
            if is_open {
                body.remove("elem");
            }
            if let Some(elements) = body.get_mut("elem").and_then(Value::as_array_mut) {
                elements.sort_by_key(Value::to_string);
            }
        }
        row.to_string()
    })
    .collect()
}

/// The deadline as both the set and the rule hold it.
fn deadline_in(rows: &[Value], port: u16) -> Result<u64, EgressError> {
    let open = rows.iter().find(|row| text_at(row, "/set/name") == "open").and_then(|row| row.pointer("/set/elem"));
    let elements = open.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    // Past its timeout, or shut.
    let [element] = elements else {
        return if elements.is_empty() { Ok(SHUT) } else { Err(amiss("the set `open` holds more than one port")) };
    };
    if element.pointer("/elem/val").and_then(Value::as_u64) != Some(u64::from(port)) {
        return Err(amiss(format!("the set `open` holds something else than port {port}")));
    }
    let marked = |text: &str| text.strip_prefix(MARK).and_then(|ns| ns.parse::<u64>().ok());
    let rules: Vec<&Value> = rows.iter().filter(|row| text_at(row, "/rule/chain") == "until").collect();
    let [rule] = rules.as_slice() else { return Err(amiss("the chain `until` does not hold one rule")) };
    let deadline = marked(text_at(element, "/elem/comment"));
    let timed = element.pointer("/elem/timeout").is_some();
    let expression = rule.pointer("/rule/expr").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let by_clock = match expression {
        [accept] if accept.get("accept").is_some() => false,
        [clock, accept] if accept.get("accept").is_some() => {
            let is = text_at(clock, "/match/left/meta/key") == "time" && text_at(clock, "/match/op") == "<";
            if !is {
                return Err(amiss("the chain `until` compares something else than the time"));
            }
            true
        }
        _ => return Err(amiss("the chain `until` is not as written")),
    };
    match deadline {
        Some(deadline)
            if marked(text_at(rule, "/rule/comment")) == Some(deadline)
                && timed == by_clock
                && timed == (deadline != OPEN_ENDED) =>
        {
            Ok(deadline)
        }
        _ => Err(amiss("the deadline's two places do not agree")),
    }
}

/// Is there a table of this group?
pub(super) fn in_force(scope: &Scope) -> bool {
    matches!(list(&table_of(scope)), Ok(Some(_)))
}

/// Has the kernel check the rules, without keeping them.
pub(super) fn can(scope: &Scope) -> Result<(), EgressError> {
    let table = table_of(scope);
    let lease = Lease::Until { boottime_ns: 1, timeout_ms: 1, wall_s: 1 };
    let text = rules(&table, scope) + &deadline_rules(&table, scope.port, &lease);
    nft("check the gate's rules", &["-c", "-f", "-"], &text).map(drop)
}

impl NftGate {
    /// `first_ns`: the deadline that a fresh table begins with, in the transaction that makes it.
    pub(super) fn install(scope: &Scope, first_ns: u64) -> Result<Self, EgressError> {
        let _lock = lock()?;
        let table = table_of(scope);
        let mut text = rules(&table, scope);
        match list(&table)? {
            None => text += &deadline_rules(&table, scope.port, &Lease::until(first_ns)),
            Some(rows) if deadline_in(&rows, scope.port).is_ok_and(|at| at != SHUT) => {}
            // A deadline that cannot be read, or is another port's, is not taken over.
            Some(_) => text += &deadline_rules(&table, scope.port, &Lease::Shut),
        }
        nft("write the gate's rules", &["-f", "-"], &text)?;
        let rows = list(&table)?.ok_or_else(|| amiss("the table is gone as soon as it was written"))?;
        Ok(Self { table, port: scope.port, written: lasting(&rows) })
    }

    fn rows(&self) -> Result<Vec<Value>, EgressError> {
        list(&self.table)?.ok_or_else(|| amiss(format!("there is no table inet {}", self.table)))
    }

    fn write(&self, lease: &Lease) -> Result<u64, EgressError> {
        nft("write the deadline", &["-f", "-"], &deadline_rules(&self.table, self.port, lease))?;
        Ok(lease.deadline())
    }

    pub(super) fn at_least(&self, until_ns: u64) -> Result<u64, EgressError> {
        let _lock = lock()?;
        let now = deadline_in(&self.rows()?, self.port)?;
        let lease = Lease::until(until_ns);
        if lease == Lease::Shut {
            return Err(EgressError::Past { until_ns, now_ns: boottime_ns() });
        }
        if lease.deadline() <= now { Ok(now) } else { self.write(&lease) }
    }

    pub(super) fn at_most(&self, until_ns: u64) -> Result<u64, EgressError> {
        // Shutting waits for nobody that is frozen: what such a one writes when it thaws is bounded by the wall clock.
        let _lock = if until_ns == SHUT { lock().ok() } else { Some(lock()?) };
        // What cannot be read is shut, whatever it was.
        let now = if until_ns == SHUT { OPEN_ENDED } else { deadline_in(&self.rows()?, self.port)? };
        if now <= until_ns { Ok(now) } else { self.write(&Lease::until(until_ns)) }
    }

    /// The deadline in force, and how that was seen.
    pub(super) fn read(&self) -> Result<(u64, String), EgressError> {
        let rows = self.rows()?;
        if lasting(&rows) != self.written {
            return Err(amiss(format!("table inet {} is not as it was written", self.table)));
        }
        Ok((deadline_in(&rows, self.port)?, format!("nftables table inet {}", self.table)))
    }

    pub(super) fn remove(self) -> Result<(), EgressError> {
        let _lock = lock()?;
        if list(&self.table)?.is_none() {
            return Ok(());
        }
        nft("delete its table", &["delete", "table", "inet", &self.table], "").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND_NS;

    #[test]
    fn a_deadline_is_brought_forward_to_a_whole_second_never_back() {
        // At wall 100.3 s, boot 50 s: in 2 s it is 102.3 s, so 102 s.
        let lease = Lease::at(52 * S, 50 * S, 100 * S + 300_000_000);
        assert_eq!(lease, Lease::Until { boottime_ns: 51 * S + 700_000_000, timeout_ms: 1700, wall_s: 102 });
        assert_eq!(
            Lease::at(51 * S, 50 * S, 100 * S),
            Lease::Until { boottime_ns: 51 * S, timeout_ms: 1000, wall_s: 101 }
        );
        assert_eq!(Lease::at(50 * S + 400_000_000, 50 * S, 100 * S), Lease::Shut);
        assert_eq!(Lease::at(49 * S, 50 * S, 100 * S), Lease::Shut);
        assert_eq!(Lease::at(OPEN_ENDED, 50 * S, 100 * S), Lease::Open);
    }

    #[test]
    fn the_two_places_of_the_deadline_must_agree() {
        let rows = |elem: &str, rule: &str| -> Vec<Value> {
            let text = format!(
                r#"[{{"set":{{"name":"open","elem":[{elem}]}}}},{{"rule":{{"chain":"until","comment":"boottime_ns 7","expr":[{rule}]}}}}]"#
            );
            serde_json::from_str(&text).expect("rows")
        };
        let clock = r#"{"match":{"op":"<","left":{"meta":{"key":"time"}},"right":"x"}},{"accept":null}"#;
        let elem = |port: u16, more: &str| format!(r#"{{"elem":{{"val":{port},{more}"comment":"boottime_ns 7"}}}}"#);
        let timed = elem(5432, "\"timeout\":2,");
        assert_eq!(deadline_in(&rows(&timed, clock), 5432).ok(), Some(7));
        assert_eq!(deadline_in(&rows("", clock), 5432).ok(), Some(SHUT));
        for (elements, rule) in [
            (elem(5432, ""), clock),
            (elem(5433, "\"timeout\":2,"), clock),
            (timed.clone(), r#"{"accept":null}"#),
            (timed.clone(), r#"{"counter":null},{"accept":null}"#),
            (format!("{timed},{}", elem(80, "")), clock),
        ] {
            assert!(deadline_in(&rows(&elements, rule), 5432).is_err(), "{elements} {rule}");
        }
    }
}
