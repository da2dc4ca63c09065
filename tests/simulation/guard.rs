//! The guard of a model host: it speaks the real protocol, in the real guard's order (`src/guard/handler.rs`): refuse a
//! lower token, refuse what is late, raise, then the action lock, then act, then answer.

use watchdog::domain::ids::{Token, UnixMs};
use watchdog::guard::protocol::{
    Answer, FENCE, GroupStatus, HoldShown, InFlight, LatchMark, Lsn, PROMOTE, PostgresStatus, RAISE, REJOIN, RELEASE,
    Refusal, Reply, Request, STATUS, Status, WalRunning, WalShown, WalState,
};

use crate::holding;
use crate::host::{Host, Kind, Line, Work, duration, tick};
use crate::mutation::{Mutant, is_in};
use crate::redis_guard::{self, Look};
use crate::world::{Asker, World};

type Back = Asker<Vec<u8>>;

/// A request has reached the host.
pub fn receive(world: &mut World, at: usize, line: String, asker: Back) {
    let host = &mut world.hosts[at];
    if !host.on {
        return;
    }
    if host.mood.hangs || host.frozen {
        host.held_up.push((line, asker));
        return;
    }
    tick(world);
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            world.broken("P12", format!("the node sent what is no request: {error}"));
            return;
        }
    };
    handle(world, at, request, asker);
}

/// What waited while the guard hung is read now.
pub fn recover(world: &mut World, at: usize) {
    world.hosts[at].mood.hangs = false;
    read_held_up(world, at);
}

/// Reads what waited, where nothing hinders that any more.
pub fn read_held_up(world: &mut World, at: usize) {
    if world.hosts[at].mood.hangs || world.hosts[at].frozen {
        return;
    }
    for (line, asker) in std::mem::take(&mut world.hosts[at].held_up) {
        receive(world, at, line, asker);
    }
}

fn reply(world: &mut World, at: usize, asker: Back, reply: Reply, is_of_action: bool) {
    let now = world.now();
    let host = &world.hosts[at];
    if is_of_action && host.mood.is_mute {
        return;
    }
    let answer = Answer {
        guard_version: "model".to_owned(),
        boot_nonce: host.boot_nonce(),
        boottime_ms: host.boottime_ms(now),
        reply,
    };
    let bytes = serde_json::to_vec(&answer).expect("an answer is JSON");
    asker.answer(world, bytes);
}

pub fn refused(refusal: Refusal, reason: &str, held: Option<Token>) -> Reply {
    Reply::Refused { refusal, reason: reason.to_owned(), held }
}

fn handle(world: &mut World, at: usize, request: Request, asker: Back) {
    if request.action == STATUS {
        let host = &world.hosts[at];
        let hold = holding::standing(host, host.boottime_ms(world.now()));
        let status = Reply::Status(status(host, &request, hold));
        return reply(world, at, asker, status, false);
    }
    let (Some(token), Some(run)) = (request.token, request.run.clone()) else {
        return world.broken("P12", "a request without token or run");
    };
    if let Err(no) = raise(world, at, &request, token) {
        return reply(world, at, asker, *no, false);
    }
    let host = &mut world.hosts[at];
    if let Some(work) = &mut host.work
        && work.what.action != PROMOTE
        && !work.is_deaf
        && token > work.what.token
        && (request.abort || work.what.run != run)
    {
        work.preempted = true;
    }
    let in_flight = host.work.as_ref().map(|work| work.what.clone());
    if request.action == RAISE {
        return reply(world, at, asker, Reply::Raised { held: token, in_flight }, false);
    }
    if request.read_back {
        let seen = read_back(world, at, &request, in_flight);
        if request.action == FENCE && matches!(seen, Reply::Done { .. }) {
            world.hosts[at].fence_seen = Some(token);
        }
        return reply(world, at, asker, seen, false);
    }
    if let Some(at_work) = in_flight {
        if at_work.action == PROMOTE && at_work.run != run {
            return reply(world, at, asker, Reply::InFlight { in_flight: at_work }, true);
        }
        world.hosts[at].waiting.push_back((request, asker));
        return;
    }
    begin(world, at, request, asker);
}

fn in_time(world: &World, at: usize, request: &Request) -> Result<(), Box<Reply>> {
    let host = &world.hosts[at];
    if request.boot_nonce.as_ref().is_some_and(|nonce| *nonce != host.boot_nonce()) {
        return Err(Box::new(refused(Refusal::AnotherBoot, "the host was booted since", None)));
    }
    let now_ms = host.boottime_ms(world.now());
    if request.not_after_boottime_ms.is_some_and(|not_after| now_ms > not_after) && !is_in(Mutant::GuardIgnoresDeadline)
    {
        return Err(Box::new(refused(Refusal::Expired, "the deadline has passed", None)));
    }
    Ok(())
}

fn raise(world: &mut World, at: usize, request: &Request, token: Token) -> Result<(), Box<Reply>> {
    let held = world.hosts[at].token;
    if token < held && !is_in(Mutant::HostTakesLowerTokens) {
        let text = format!("{}: {} refused, {held} is held", world.hosts[at].name, token);
        world.note(text);
        return Err(Box::new(refused(Refusal::LowerToken, "a higher token is held here", Some(held))));
    }
    in_time(world, at, request)?;
    let host = &mut world.hosts[at];
    host.token = token.max(held);
    host.highest = host.highest.max(token);
    if token > held {
        let text = format!("{}: token {token} raised", host.name);
        world.note(text);
    }
    Ok(())
}

fn status(host: &Host, request: &Request, hold: Option<HoldShown>) -> Status {
    let group = crate::site::group();
    Status {
        host: host.name.clone(),
        cluster: request.cluster.clone(),
        groups: vec![GroupStatus {
            group: group.clone(),
            token: Some(host.token),
            epoch: Some(host.token.epoch),
            latch: host.latch.clone(),
            hold,
            in_flight: host.work.as_ref().map(|work| work.what.clone()),
            last: Vec::new(),
            fault: None,
        }],
        postgres: Some(PostgresStatus { group, role: host.role(), seen_by: "model".to_owned(), wal: Some(wal(host)) }),
    }
}

/// Where its log stands: a write's record begins at its moment twice over, the record of an orderly end is the last.
fn wal(host: &Host) -> WalShown {
    let database = &host.database;
    let position = Lsn(database.lsn * 2);
    let is_standby = database.kind == Kind::Standby;
    let running = WalRunning {
        received_lsn: is_standby.then_some(position),
        replayed_lsn: is_standby.then_some(Lsn(position.0 + 1)),
        current_lsn: (!is_standby).then_some(position),
        timeline: Some(1),
        streams: is_standby && !database.is_cut_off,
    };
    let state = match (database.running, database.is_orderly) {
        _ if is_standby => WalState::InArchiveRecovery,
        (false, true) => WalState::ShutDown,
        _ => WalState::InProduction,
    };
    WalShown {
        state,
        system_identifier: 7,
        timeline: 1,
        checkpoint_lsn: position,
        running: database.running.then_some(running),
        unread: None,
    }
}

/// Is the effect there?
fn look(host: &Host, request: &Request) -> Result<String, String> {
    match redis_guard::look(host, request) {
        Some(Look::There(evidence)) => return Ok(evidence),
        Some(Look::NotThere(why) | Look::CannotTell(why)) => return Err(why),
        None => {}
    }
    use watchdog::guard::protocol::PostgresRole::{InRecovery, Stopped, Writable};
    match (request.action.as_str(), host.role()) {
        (FENCE, Writable) => Err("the server takes writes".to_owned()),
        (FENCE, _) if host.latch.is_none() => Err("not latched".to_owned()),
        (FENCE, role) => Ok(format!("{role:?} and latched")),
        (PROMOTE, Writable) => Ok("in production".to_owned()),
        (PROMOTE, role @ (InRecovery | Stopped)) => Err(format!("{role:?}")),
        (RELEASE | REJOIN, _) if host.latch.is_some() => Err("latched".to_owned()),
        (RELEASE, Writable) => Ok("writable, and not latched".to_owned()),
        (REJOIN, InRecovery) => Ok("a standby".to_owned()),
        (RELEASE | REJOIN, role) => Err(format!("{role:?}")),
        _ => {
            let of_step =
                |line: &&Line| Some(&line.run) == request.run.as_ref() && Some(&line.step) == request.step.as_ref();
            match host.ledger.iter().rev().find(of_step) {
                None => Err("no record of this step".to_owned()),
                Some(_) if host.services => Ok("services run".to_owned()),
                Some(_) => Err("services do not run".to_owned()),
            }
        }
    }
}

fn read_back(world: &World, at: usize, request: &Request, in_flight: Option<InFlight>) -> Reply {
    let host = &world.hosts[at];
    let may_bring = |work: &InFlight| {
        work.action == request.action
            || (Some(&work.run) == request.run.as_ref() && Some(&work.step) == request.step.as_ref())
    };
    match (in_flight.filter(may_bring), look(host, request)) {
        (Some(_), Ok(evidence)) if request.action == PROMOTE => Reply::Done { evidence, acted: false },
        (Some(in_flight), _) => Reply::InFlight { in_flight },
        (None, Err(reason)) if matches!(redis_guard::look(host, request), Some(Look::CannotTell(_))) => {
            Reply::Unknown { reason }
        }
        (None, Ok(evidence)) => Reply::Done { evidence, acted: false },
        (None, Err(evidence)) => Reply::NotDone { evidence },
    }
}

/// The action lock is free.
fn begin(world: &mut World, at: usize, request: Request, asker: Back) {
    let now = world.now();
    let (Some(token), Some(run), Some(step)) = (request.token, request.run.clone(), request.step.clone()) else {
        return;
    };
    let held = world.hosts[at].token;
    if token < held && !is_in(Mutant::HostTakesLowerTokens) {
        return reply(world, at, asker, refused(Refusal::LowerToken, "a higher token is held here", Some(held)), true);
    }
    if let Err(no) = in_time(world, at, &request) {
        return reply(world, at, asker, *no, true);
    }
    let host = &world.hosts[at];
    if let Ok(evidence) = look(host, &request) {
        return reply(world, at, asker, Reply::Done { evidence, acted: false }, true);
    }
    if request.action == PROMOTE {
        if host.latch.is_some() {
            return reply(world, at, asker, refused(Refusal::Latched, "this host is latched", None), true);
        }
        let hold = holding::standing(host, host.boottime_ms(now));
        if let Some(hold) = hold.filter(|hold| Some(&hold.host) != request.fenced_host.as_ref()) {
            let reason = format!("nothing was done: {hold}");
            return reply(world, at, asker, Reply::Failed { retryable: true, reason }, true);
        }
        if !host.database.running || host.database.kind == Kind::Primary {
            let reason = "there is no running standby to promote".to_owned();
            return reply(world, at, asker, Reply::Failed { retryable: true, reason }, true);
        }
    }
    crate::recoveries::is_refused(world, at, &request);
    if let Some(no) = forbids(world, at, &request).or_else(|| redis_guard::forbids(&world.hosts[at], &request)) {
        return reply(world, at, asker, no, true);
    }
    let host = &world.hosts[at];
    if host.mood.fails {
        let reason = "the action's command failed".to_owned();
        return reply(world, at, asker, Reply::Failed { retryable: true, reason }, true);
    }
    let what = InFlight {
        run: run.clone(),
        step: step.clone(),
        attempt: request.attempt.unwrap_or(0),
        action: request.action.clone(),
        token,
        guard_pid: 1,
        process_group: None,
        since_boottime_ms: host.boottime_ms(now),
        orphaned: false,
        phase: None,
    };
    crate::promises::effect_begins(world, at, &what);
    let host = &mut world.hosts[at];
    host.ledger.push(Line { run: run.clone(), step: step.clone(), event: "started", token });
    if request.action == FENCE {
        host.latch = Some(LatchMark { token, run, step, at: UnixMs(now) });
    }
    redis_guard::begins(world, at, &what);
    let host = &mut world.hosts[at];
    let serial = host.next_serial();
    let text = format!("{}: {} begins under {token} (attempt {})", host.name, request.action, what.attempt);
    let not_after_ms = request.not_after_boottime_ms;
    host.work =
        Some(Work { serial, what, preempted: false, is_deaf: false, phase: 0, not_after_ms, asker: Some(asker) });
    world.note(text);
    let takes = duration(world, at, &request.action);
    world.later(takes, move |world| end(world, at, serial));
}

/// A later token than set the latch, or the very run that did.
pub fn may_clear(mark: Option<&LatchMark>, request: &Request) -> bool {
    mark.is_none_or(|mark| {
        request.token > Some(mark.token) || request.token == Some(mark.token) && request.run.as_ref() == Some(&mark.run)
    })
}

/// Why a planned move's own actions are not begun here.
fn forbids(world: &World, at: usize, request: &Request) -> Option<Reply> {
    let host = &world.hosts[at];
    let failed = |retryable: bool, reason: &str| Some(Reply::Failed { retryable, reason: reason.to_owned() });
    match request.action.as_str() {
        RELEASE | REJOIN if !may_clear(host.latch.as_ref(), request) => {
            Some(refused(Refusal::Latched, "latched under a token that this one may not clear", None))
        }
        RELEASE if host.database.kind == Kind::Standby => failed(false, "nothing was released: it is a standby's"),
        RELEASE if host.lease.as_ref().is_some_and(|side| !side.is_gated()) => {
            failed(true, "nothing was released: there is no gate since the host was booted")
        }
        REJOIN if host.latch.is_none() && host.takes_writes() => failed(false, "it takes writes: fence it first"),
        REJOIN if !world.hosts[1 - at].takes_writes() => failed(true, "there is no primary to follow"),
        _ => None,
    }
}

/// The first of a release's or rejoin's two effects, unless a later token was raised here meanwhile or it is too late. `false`: it
/// ends.
fn clear(world: &mut World, at: usize, action: &str) -> bool {
    let now_ms = world.hosts[at].boottime_ms(world.now());
    let host = &mut world.hosts[at];
    let Some(work) = host.work.as_mut() else { return false };
    let is_late = work.not_after_ms.is_some_and(|not_after| now_ms > not_after);
    work.preempted |= work.what.token != host.token || is_late;
    work.is_deaf = !work.preempted;
    let is_deaf = work.is_deaf;
    if is_deaf {
        let text = format!("{}: {action} clears the latch", host.name);
        if action == REJOIN {
            // From here on it starts as a standby only.
            crate::host::make_a_standby(world, at);
        }
        world.hosts[at].latch = None;
        world.note(text);
    }
    is_deaf
}

/// What was at work has come to its end, unless the power failed under it.
pub fn end(world: &mut World, at: usize, serial: u64) {
    if world.hosts[at].frozen {
        world.hosts[at].stalled.push(serial);
        return;
    }
    tick(world);
    if world.hosts[at].work.as_ref().is_none_or(|work| work.serial != serial) {
        return;
    }
    if world.hosts[at].work.as_ref().is_some_and(|work| work.what.action.starts_with("redis-")) {
        return redis_guard::go_on(world, at, serial);
    }
    let of_two = world.hosts[at].work.as_ref().filter(|work| [RELEASE, REJOIN].contains(&work.what.action.as_str()));
    if let Some(action) = of_two.filter(|work| !work.is_deaf).map(|work| work.what.action.clone())
        && clear(world, at, &action)
    {
        let takes = duration(world, at, &action);
        world.later(takes, move |world| end(world, at, serial));
        return;
    }
    let Some(work) = world.hosts[at].work.as_ref() else { return };
    let (what, is_preempted) = (work.what.clone(), work.preempted);
    if what.action == FENCE && !is_preempted && world.hosts[at].takes_writes() {
        world.hosts[at].stop_database();
        crate::host::ship_the_last(world, at);
    }
    let reign = world.hosts.iter().map(|host| host.reign).max().unwrap_or(0) + 1;
    let host = &mut world.hosts[at];
    let answer = if is_preempted {
        Reply::Unknown { reason: "ended by a later token".to_owned() }
    } else {
        match what.action.as_str() {
            FENCE => host.stop_database(),
            RELEASE | REJOIN => host.run_database(),
            PROMOTE => {
                host.database.kind = Kind::Primary;
                host.reign = reign;
            }
            _ => host.services = host.on,
        }
        Reply::Done { evidence: format!("{} done", what.action), acted: true }
    };
    ended(world, at, if is_preempted { "preempted" } else { "done" }, answer);
}

/// It is written down, and answered.
pub fn ended(world: &mut World, at: usize, event: &'static str, answer: Reply) {
    let host = &mut world.hosts[at];
    let Some(mut work) = host.work.take() else { return };
    let what = work.what.clone();
    host.ledger.push(Line { run: what.run.clone(), step: what.step.clone(), event, token: what.token });
    let text = format!("{}: {} {event} under {}", host.name, what.action, what.token);
    world.note(text);
    tick(world);
    crate::promises::effect_ends(world, at, &what, event == "done");
    if let Some(asker) = work.asker.take() {
        reply(world, at, asker, answer, true);
    }
    begin_next(world, at);
}

/// The action lock is free: whoever waits for it is let in.
pub fn begin_next(world: &mut World, at: usize) {
    while world.hosts[at].work.is_none() {
        let Some((request, asker)) = world.hosts[at].waiting.pop_front() else { return };
        begin(world, at, request, asker);
    }
}
