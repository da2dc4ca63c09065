//! One request from its bytes to its answer. The order holds: parse strictly; refuse another cluster; take the token
//! lock; refuse a lower token; raise and sync; release; then take the action lock, enter the action as in flight, act,
//! write the ledger, answer.

use std::io::Read;

use super::actions::{self, Context, End, First, Look, Named};
use super::config::{Config, is_name};
use super::describe;
use super::host::{self, boottime_ms, pause};
use super::in_flight::{self, Supervisor, Who};
use super::ledger::{self, Entry, Event};
use super::locks;
use super::protocol::{
    Answer, DESCRIBE, FENCE, InFlight, PROMOTE, RAISE, REDIS_FENCE, REQUEST_BYTES_MAX, Refusal, Reply, Request, STATUS,
};
use super::records::RecordError;
use super::show;
use super::token_store::{self, Compared, GroupFiles, TokenRecord};
use crate::clock::unix_now;
use crate::domain::ids::Token;

/// The token lock is held for a few syncs only; a wait longer than this is a fault, milliseconds.
const TOKEN_LOCK_MS: u64 = 5000;
/// A read-back command may take this long, milliseconds, unless the request says less.
const LOOK_MS: u64 = 20_000;
/// A parameter's value or name is at most this long, bytes.
const PARAM_BYTES_MAX: usize = 1024;

/// An answer found before the end of the way.
pub type Early = Box<Reply>;

fn refuse(refusal: Refusal, reason: impl Into<String>) -> Early {
    Box::new(Reply::Refused { refusal, reason: reason.into(), held: None })
}

/// Wraps a reply with the guard's version, boot and time.
pub fn answer(reply: Reply) -> Answer {
    Answer {
        guard_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_nonce: host::boot_nonce(),
        boottime_ms: boottime_ms(),
        reply,
    }
}

/// Answers what was read.
pub fn serve(config: &Config, request: Result<Request, Early>) -> Reply {
    request.and_then(|request| handle(config, &request)).unwrap_or_else(|early| *early)
}

/// Reads one line of bounded length. What follows the line is an error too.
///
/// # Errors
/// The refusal to answer with.
pub fn read_request(input: impl Read) -> Result<Request, Early> {
    let bad = |why: String| refuse(Refusal::BadRequest, why);
    let mut bytes = Vec::new();
    let mut input = input.take(REQUEST_BYTES_MAX as u64 + 1);
    let mut chunk = [0u8; 4096];
    // One line is enough: a client need not close its end before it is answered.
    while !bytes.contains(&b'\n') {
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(bad(format!("the request could not be read: {e}"))),
        }
    }
    parse(&bytes).map_err(bad)
}

/// The request in these bytes.
///
/// # Errors
/// What is wrong with them, in words.
pub fn parse(bytes: &[u8]) -> Result<Request, String> {
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(format!("the request is longer than {REQUEST_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "the request is not UTF-8 text".to_owned())?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    if line.trim().is_empty() {
        return Err("the request is empty: send one JSON object on one line".to_owned());
    }
    if line.contains('\n') {
        return Err("the request is more than one line".to_owned());
    }
    serde_json::from_str(line).map_err(|e| format!("the request is not as it must be: {e}"))
}

/// Who asks; every field present and sane.
fn who_asks(request: &Request) -> Result<Who, Early> {
    let bad = |why: String| refuse(Refusal::BadRequest, why);
    let missing = |field: &str| bad(format!("{field} is missing: action {:?} needs it", request.action));
    let who = Who {
        group: request.group.clone().ok_or_else(|| missing("group"))?,
        run: request.run.clone().ok_or_else(|| missing("run"))?,
        step: request.step.clone().ok_or_else(|| missing("step"))?,
        attempt: request.attempt.ok_or_else(|| missing("attempt"))?,
        token: request.token.ok_or_else(|| missing("token"))?,
    };
    for (field, name) in [("group", who.group.as_str()), ("run", who.run.as_str()), ("step", who.step.as_str())] {
        if !is_name(name) {
            return Err(bad(format!("{field} {:?} is not a name (letters, digits, . _ -)", ledger::cut(name, 80))));
        }
    }
    if who.token.n == 0 || who.attempt == 0 {
        return Err(bad(format!("token {} attempt {}: both count from 1", who.token, who.attempt)));
    }
    if who.token.epoch != request.epoch {
        return Err(bad(format!("token {} is not of the request's epoch {}", who.token, request.epoch)));
    }
    let acts = request.action != RAISE && !request.read_back;
    if acts && (request.not_after_boottime_ms.is_none() || request.boot_nonce.is_none()) {
        return Err(missing("not_after_boottime_ms or boot_nonce"));
    }
    if request.action == RAISE && (request.read_back || !request.params.is_empty()) {
        return Err(bad("raise takes neither read_back nor params".to_owned()));
    }
    if request.action != RAISE && request.abort {
        return Err(bad("abort goes with raise only".to_owned()));
    }
    if request.fenced_host.is_some() && request.action != PROMOTE {
        return Err(bad("fenced_host goes with promote only".to_owned()));
    }
    let long = |text: &String| text.len() > PARAM_BYTES_MAX;
    if let Some((name, _)) = request.params.iter().find(|(name, value)| long(name) || long(value)) {
        let name = ledger::cut(name, 80);
        return Err(bad(format!("parameter {name:?}: name or value is longer than {PARAM_BYTES_MAX} bytes")));
    }
    Ok(who)
}

fn handle(config: &Config, request: &Request) -> Result<Reply, Early> {
    // It is repeated in refusals, and every answer must stay below the length that a node reads.
    if !is_name(&request.action) {
        let action = ledger::cut(&request.action, 80);
        return Err(refuse(Refusal::BadRequest, format!("action {action:?} is not a name (letters, digits, . _ -)")));
    }
    let only_looks = [STATUS, DESCRIBE].contains(&request.action.as_str());
    let who = if only_looks { None } else { Some(who_asks(request)?) };
    if request.cluster != config.cluster {
        let asked = ledger::cut(request.cluster.as_str(), 80);
        let why = format!("this guard serves cluster {:?}, not {asked:?}", config.cluster.as_str());
        return Err(refuse(Refusal::AnotherCluster, why));
    }
    let Some(who) = who else {
        let status = show::status(config);
        return Ok(match request.action.as_str() {
            DESCRIBE => {
                let (actions, redis) = (describe::actions(config), show::latched_redis(config));
                Reply::Described { status, actions, redis }
            }
            _ => Reply::Status(status),
        });
    };
    if !config.groups.contains(&who.group) {
        let why = format!("group {:?} is not among this host's groups", who.group.as_str());
        return Err(refuse(Refusal::UnknownGroup, why));
    }
    let files = GroupFiles::new(&config.state_dir, &who.group);
    if request.action == RAISE {
        let (held, in_flight) = raise(config, &files, &who, request)?;
        return Ok(Reply::Raised { held, in_flight });
    }
    let (_, in_flight) = raise(config, &files, &who, request)?;
    let named = actions::find(config, &who, &request.action, &request.params)
        .map_err(|(refusal, reason)| refuse(refusal, reason))?;
    let fenced_host = request.fenced_host.as_ref();
    let context = Context { config, files: &files, who: &who, params: &request.params, fenced_host };
    if request.read_back {
        return Ok(read_back(&named, &context, request, in_flight));
    }
    act(&named, &context, request, in_flight)
}

/// A store's error as a refusal: nothing was done.
fn store_refusal(files: &GroupFiles, who: &Who, error: &RecordError) -> Early {
    let enrol = |group: &str| format!("on this host type: watchdog-guard enroll --group {group} (see --help)");
    let group = who.group.as_str();
    match error {
        RecordError::Missing(_) => {
            let dir = files.dir().display();
            refuse(Refusal::NotEnrolled, format!("group {group:?} is not enrolled ({dir}: {error}): {}", enrol(group)))
        }
        RecordError::Damaged { .. } => refuse(Refusal::DamagedStore, format!("{error}: {}", enrol(group))),
        RecordError::Io { .. } => {
            Box::new(Reply::Failed { retryable: true, reason: format!("nothing was done: {error}") })
        }
    }
}

/// Loads the token store and compares. The caller holds the token lock.
fn compare(config: &Config, files: &GroupFiles, who: &Who) -> Result<TokenRecord, Early> {
    let record = token_store::load(files, &who.group).map_err(|e| store_refusal(files, who, &e))?;
    if record.cluster != config.cluster || record.epoch != who.token.epoch {
        let why = format!(
            "group {:?} is enrolled with cluster {:?} epoch {}, not {:?} epoch {}: enroll it again by name to change that",
            who.group.as_str(),
            record.cluster.as_str(),
            record.epoch,
            config.cluster.as_str(),
            who.token.epoch
        );
        return Err(refuse(Refusal::AnotherCluster, why));
    }
    if token_store::compare(record.token, who.token) == Compared::Lower {
        let reason = format!("token {} is lower than {}, which is held here", who.token, record.token);
        let held = Some(record.token);
        return Err(Box::new(Reply::Refused { refusal: Refusal::LowerToken, reason, held }));
    }
    Ok(record)
}

/// Is it too late, or another boot?
fn in_time(request: &Request) -> Result<(), Early> {
    let boot = host::boot_nonce();
    if request.boot_nonce.as_ref().is_some_and(|nonce| *nonce != boot) {
        let why = format!("boot_nonce is not this boot's ({boot}): the host was booted since, take the new time first");
        return Err(refuse(Refusal::AnotherBoot, why));
    }
    let now = boottime_ms();
    match request.not_after_boottime_ms {
        Some(not_after) if now > not_after => {
            let why = format!("not_after_boottime_ms {not_after} passed {} ms ago: nothing was begun", now - not_after);
            Err(refuse(Refusal::Expired, why))
        }
        _ => Ok(()),
    }
}

fn token_lock(files: &GroupFiles, who: &Who) -> Result<locks::Held, Early> {
    let taken = locks::take(&files.token_lock(), boottime_ms() + TOKEN_LOCK_MS);
    taken.map_err(|e| store_refusal(files, who, &e))?.ok_or_else(|| {
        let reason = format!("{} was held for {TOKEN_LOCK_MS} ms: is the disk stuck?", files.token_lock().display());
        Box::new(Reply::Failed { retryable: true, reason })
    })
}

/// Makes the token remembered and says what is in flight; asks it to end where this token pre-empts it.
fn raise(
    config: &Config,
    files: &GroupFiles,
    who: &Who,
    request: &Request,
) -> Result<(Token, Option<InFlight>), Early> {
    let _lock = token_lock(files, who)?;
    let record = compare(config, files, who)?;
    in_time(request)?;
    let failed = |e: RecordError| {
        Box::new(Reply::Failed { retryable: true, reason: format!("the token could not be raised: {e}") })
    };
    token_store::remember(files, &record, who.token).map_err(failed)?;
    let in_flight = in_flight::look(files).map_err(failed)?;
    if let Some(at_work) = in_flight.as_ref().filter(|at_work| in_flight::preempts(at_work, who, request.abort)) {
        in_flight::ask_to_end(files, at_work, who, request.abort).map_err(failed)?;
    }
    Ok((who.token, in_flight))
}

/// Could what is in flight bring the effect asked for?
fn may_bring(in_flight: &InFlight, request: &Request, who: &Who) -> bool {
    in_flight.action == request.action || (in_flight.run == who.run && in_flight.step == who.step)
}

fn read_back(named: &Named<'_>, context: &Context<'_>, request: &Request, in_flight: Option<InFlight>) -> Reply {
    let until = request.not_after_boottime_ms.unwrap_or(u64::MAX).min(boottime_ms().saturating_add(LOOK_MS));
    let on_its_way = in_flight.filter(|at_work| may_bring(at_work, request, context.who));
    match (on_its_way, named.look(context, until)) {
        // A promotion that is through counts, though its guard still writes it down.
        (Some(_), Look::There(evidence)) if request.action == PROMOTE => Reply::Done { evidence, acted: false },
        (Some(in_flight), _) => Reply::InFlight { in_flight },
        (None, Look::There(evidence)) => Reply::Done { evidence, acted: false },
        (None, Look::NotThere(evidence)) => {
            let held = named.not_yet(context).map(|why| format!("; {why}")).unwrap_or_default();
            Reply::NotDone { evidence: evidence + &held }
        }
        (None, Look::OnItsWay(evidence)) => {
            Reply::Unknown { reason: format!("it is on its way, look again: {evidence}") }
        }
        (None, Look::CannotTell(reason)) => Reply::Unknown { reason },
    }
}

/// Waits for the action lock until the request's deadline.
fn action_lock(context: &Context<'_>, until: u64, in_flight: Option<InFlight>) -> Result<locks::Held, Early> {
    let files = context.files;
    let never_ended = |at_work: &InFlight| at_work.action == PROMOTE && at_work.run != context.who.run;
    if let Some(in_flight) = in_flight.filter(never_ended) {
        return Err(Box::new(Reply::InFlight { in_flight }));
    }
    let failed = |reason: String| Box::new(Reply::Failed { retryable: true, reason });
    let taken = locks::take(&files.action_lock(), until).map_err(|e| failed(format!("nothing was done: {e}")))?;
    taken.ok_or_else(|| match in_flight::look(files) {
        Ok(Some(in_flight)) => Box::new(Reply::InFlight { in_flight }),
        _ => failed("the action lock was not free before the deadline; nothing was done".to_owned()),
    })
}

/// Deals with what an earlier guard left running when it died. The caller holds the action lock.
fn settle_orphan(context: &Context<'_>, until: u64) -> Result<(), Early> {
    let failed = |e: RecordError| Box::new(Reply::Failed { retryable: true, reason: format!("nothing was done: {e}") });
    let Some(left) = in_flight::orphan(context.files).map_err(failed)? else { return Ok(()) };
    let Some(group) = left.process_group else { return Ok(()) };
    if left.action != PROMOTE && left.run != context.who.run {
        super::exec::end_group(group, || false);
        return Ok(());
    }
    while in_flight::orphan(context.files).map_err(failed)?.is_some() {
        if boottime_ms() >= until {
            return Err(Box::new(Reply::InFlight { in_flight: left }));
        }
        pause(5);
    }
    Ok(())
}

/// Enters the action as in flight, if its token is still the highest: whoever raises after this sees it.
fn enter<'a>(context: &Context<'a>, request: &Request) -> Result<Supervisor<'a>, Early> {
    let _lock = token_lock(context.files, context.who)?;
    compare(context.config, context.files, context.who)?;
    in_time(request)?;
    Supervisor::enter(context.files, context.who, &request.action)
        .map_err(|e| Box::new(Reply::Failed { retryable: true, reason: format!("nothing was done: {e}") }))
}

fn load_ledger(context: &Context<'_>, request: &Request) -> Result<Vec<Entry>, Early> {
    let path = context.files.ledger();
    let error = match ledger::load(&path) {
        Ok(entries) => return Ok(entries),
        Err(error) => error,
    };
    let damaged = matches!(error, RecordError::Damaged { .. });
    if damaged && [FENCE, REDIS_FENCE].contains(&request.action.as_str()) {
        // To stop is always safe, and its reading back needs no ledger: a fence does not wait for a person.
        if std::fs::rename(&path, path.with_extension(format!("damaged-{}", unix_now().0))).is_ok() {
            return Ok(Vec::new());
        }
    }
    let group = context.who.group.as_str();
    let why = format!("{error}: set it aside by name: watchdog-guard set-ledger-aside --group {group} (see --help)");
    Err(if damaged {
        refuse(Refusal::DamagedLedger, why)
    } else {
        Box::new(Reply::Failed { retryable: true, reason: format!("nothing was done: {error}") })
    })
}

fn act(
    named: &Named<'_>,
    context: &Context<'_>,
    request: &Request,
    in_flight: Option<InFlight>,
) -> Result<Reply, Early> {
    let until = request.not_after_boottime_ms.unwrap_or(0);
    let _lock = action_lock(context, until, in_flight)?;
    settle_orphan(context, until)?;
    let mut supervisor = enter(context, request)?;
    let entries = load_ledger(context, request)?;
    let newest = actions::newest(&entries, &context.who.run, &context.who.step);
    match actions::first_step(named.nature(), newest.map(|entry| entry.event)) {
        First::Act => {}
        First::AnswerDone => {
            let evidence = "the ledger says done for this run and step; no read_back is configured".to_owned();
            return Ok(Reply::Done { evidence, acted: false });
        }
        First::AnswerUnknown => {
            let reason =
                "begun earlier for this run and step, its end was not recorded, and no read_back is configured: \
                          look by hand"
                    .to_owned();
            return Ok(Reply::Unknown { reason });
        }
        First::Look => match (named.look_first(context, until), named.nature().state) {
            (Look::There(evidence), _) => return Ok(Reply::Done { evidence, acted: false }),
            (Look::NotThere(_), _) | (_, true) => {}
            (Look::OnItsWay(reason) | Look::CannotTell(reason), false) => return Ok(Reply::Unknown { reason }),
        },
    }
    if let Some((refusal, reason)) = named.forbidden(context) {
        return Err(refuse(refusal, reason));
    }
    if let Some(why) = named.not_yet(context) {
        return Ok(Reply::Failed { retryable: true, reason: format!("nothing was done: {why}") });
    }
    act_and_record(named, context, request, &mut supervisor)
}

/// From here on there is an effect: it is written down before and after.
fn act_and_record(
    named: &Named<'_>,
    context: &Context<'_>,
    request: &Request,
    supervisor: &mut Supervisor<'_>,
) -> Result<Reply, Early> {
    let who = context.who;
    let entry = |event, detail: &str| Entry {
        at: unix_now(),
        run: who.run.clone(),
        step: who.step.clone(),
        attempt: who.attempt,
        token: who.token,
        action: request.action.clone(),
        event,
        detail: detail.to_owned(),
    };
    let path = context.files.ledger();
    ledger::append(&path, &entry(Event::Started, "")).map_err(|e| {
        Box::new(Reply::Failed { retryable: true, reason: format!("nothing was done, the ledger takes no entry: {e}") })
    })?;
    let until = limit(named, request);
    let end = named.act(context, supervisor, until);
    let (event, detail) = match &end {
        End::Done(evidence) => (Event::Done, evidence),
        End::Failed { reason, .. } => (Event::Failed, reason),
        End::Unknown(reason) => (Event::Unknown, reason),
        End::Preempted(reason) => (Event::Preempted, reason),
    };
    if let Err(e) = ledger::append(&path, &entry(event, detail)) {
        return Ok(Reply::Unknown {
            reason: format!("{}: {detail}; but the ledger takes no entry: {e}", event.word()),
        });
    }
    Ok(match end {
        End::Done(evidence) => Reply::Done { evidence, acted: true },
        End::Failed { retryable, reason } => Reply::Failed { retryable, reason },
        // A later token decides now what comes of it.
        End::Unknown(reason) | End::Preempted(reason) => Reply::Unknown { reason },
    })
}

/// Until when it may act: the request's deadline, and its own time.
fn limit(named: &Named<'_>, request: &Request) -> u64 {
    let deadline = request.not_after_boottime_ms.unwrap_or(0);
    match named {
        Named::Configured(action) => deadline.min(boottime_ms().saturating_add(action.timeout_s.saturating_mul(1000))),
        _ => deadline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_bounded_line_of_the_known_shape_is_read() {
        let good = r#"{"cluster":"demo","epoch":1,"action":"status"}"#;
        assert!(parse(good.as_bytes()).is_ok());
        assert!(parse(format!("{good}\n").as_bytes()).is_ok());
        for (bytes, wanted) in [
            (b"".to_vec(), "empty"),
            (b"\n".to_vec(), "empty"),
            (b"\xff\xfe".to_vec(), "UTF-8"),
            (b"hello".to_vec(), "not as it must be"),
            (b"[]".to_vec(), "not as it must be"),
            (format!("{good}\n{good}\n").into_bytes(), "more than one line"),
            (format!("{good} {good}").into_bytes(), "trailing"),
            (vec![b' '; REQUEST_BYTES_MAX + 1], "longer than 65536"),
        ] {
            let why = parse(&bytes).expect_err(wanted);
            assert!(why.contains(wanted), "{why} / {wanted}");
        }
    }

    #[test]
    fn the_longest_odd_words_fit_into_an_answer() {
        let text = "cluster = \"demo\"\nstate_dir = \"/nonexistent\"\ngroups = [\"aicamera\"]\n";
        let config: Config = toml::from_str(text).expect("a configuration");
        let long = "\u{7f}".repeat(60_000);
        for [action, cluster, group] in [[&long, "demo", "a"], ["once", &long, "a"], ["once", "demo", &long]] {
            let line = format!(r#"{{"cluster":"{cluster}","epoch":1,"group":"{group}","action":"{action}"}}"#);
            let reply = serve(&config, read_request(line.as_bytes()));
            assert!(matches!(reply, Reply::Refused { .. }), "{action:.20}");
            let said = serde_json::to_string(&answer(reply)).expect("JSON");
            assert!(said.len() < super::super::protocol::ANSWER_BYTES_MAX, "{} bytes", said.len());
        }
    }
}
