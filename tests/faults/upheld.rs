//! What must hold when everything is over, read from where it cannot be embellished: the guards' ledgers, the zone, the
//! databases, the receivers of pages, each node's own copy of the run, and what `watchdogctl run show` tells people.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::guard::ledger::Event;
use watchdog::proto::Run;

use crate::lab::client::Client;
use crate::lab::folder::binaries;
use crate::lab::parts::Lab;
use crate::lab::process::{run_async, tail};
use crate::lab::region::pg_ctl_ledger;
use crate::lab::trip::Point;
use crate::lab::watch::group;
use crate::lab::{DR, GROUP, HOME, pki, wait};
use crate::scene::{ledger, points_at};
use crate::strike::{effect_of, follows};
use crate::struck::Toll;
use crate::table::{At, Case, What, Who};

/// How a step may end well: by its effect, or a fence by the lease that ran out.
const ENDS: [&str; 2] = ["done", "lease expired"];
/// What is on its way to be told arrives within this.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// Everything, for a row of the table.
pub async fn upheld(lab: &Lab, case: &Case, run: &Run, toll: &Toll, old: &Client) -> Result<()> {
    for node in &lab.nodes {
        follows(lab, &node.name).await?;
    }
    refused_by_name(lab, case, run, toll).await?;
    claims_tell(run, case, toll)?;
    if case.who != Who::Guard {
        each_begun_once(lab)?;
    }
    nothing_is_lost(lab, old).await?;
    untouched_by_it(lab, run, toll, old).await
}

/// What holds whoever was struck, wherever.
pub async fn untouched_by_it(lab: &Lab, run: &Run, toll: &Toll, old: &Client) -> Result<()> {
    each_effect_once(lab, toll)?;
    one_promotion(lab).await?;
    old_side_is_silent(lab, old).await?;
    zone_is_the_runs(lab, run).await?;
    one_run(lab, run).await?;
    tokens_rise(run)?;
    shown(lab, run).await?;
    paged_once_per_key(lab, run, toll).await
}

fn in_log(log: &Path, count: impl Fn(&str) -> bool) -> usize {
    std::fs::read_to_string(log).unwrap_or_default().lines().filter(|line| count(line)).count()
}

/// Each effect is once in the ledgers, unless the guard that would have written it down was killed; and nothing else is.
fn each_effect_once(lab: &Lab, toll: &Toll) -> Result<()> {
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut newest = BTreeMap::new();
    for site in [HOME, DR] {
        for entry in ledger(lab, site)? {
            let before = newest.insert(site, entry.token);
            ensure!(before.is_none_or(|token| token <= entry.token), "{site}: {before:?} came before {entry:?}");
            *counts.entry((format!("{site}/{}", entry.action), entry.event.word())).or_default() += 1;
        }
    }
    let mut known = BTreeSet::new();
    for step in ["fence", "promote", "services"] {
        let (site, action) = effect_of(step)?;
        let effect = format!("{site}/{action}");
        let count = |event: Event| counts.get(&(effect.clone(), event.word())).copied().unwrap_or_default();
        let killed = usize::from(toll.guards_killed.contains(&effect));
        let (started, done) = (count(Event::Started), count(Event::Done));
        let ended = done + count(Event::Failed) + count(Event::Unknown) + count(Event::Preempted);
        ensure!(started == ended + killed, "{effect} was begun {started} times and ended {ended}: {counts:?}");
        let cut_short = step == "fence" && toll.fence_may_be_cut_short && done == 0 && count(Event::Preempted) == 1;
        ensure!(done + killed == 1 || cut_short, "{effect} was done {done} times, {killed} without a word: {counts:?}");
        known.insert(effect);
    }
    ensure!(counts.keys().all(|(effect, _)| known.contains(effect)), "something else was done, too: {counts:?}");
    Ok(())
}

/// Whoever takes over adopts what is at work; it does not end it and begin again.
fn each_begun_once(lab: &Lab) -> Result<()> {
    for site in [HOME, DR] {
        let entries = ledger(lab, site)?;
        let begun =
            |action: &str| entries.iter().filter(|it| it.action == action && it.event == Event::Started).count();
        let again = entries.iter().find(|entry| begun(&entry.action) != 1);
        ensure!(again.is_none(), "{site} began something again: {entries:?}");
    }
    Ok(())
}

/// The resources' own word: one promotion asked for, one new timeline, one start of the service; the old primary stopped
/// in good order, latched, and its boot gate shut.
async fn one_promotion(lab: &Lab) -> Result<()> {
    let runs_of = |site: &str, words: &str| in_log(&pg_ctl_ledger(&lab.folder, site), |line| line.contains(words));
    ensure!(runs_of(DR, "promote") == 1, "promoted {} times", runs_of(DR, "promote"));
    let log = lab.folder.log(&format!("postgres-{DR}"));
    let asked = in_log(&log, |line| line.contains("received promote request"));
    ensure!(asked == 1, "the database was asked {asked} times to promote");
    ensure!(lab.standby.timeline().await? == 2, "timeline {}", lab.standby.timeline().await?);
    let log = lab.folder.log(&format!("service-{DR}"));
    let served = in_log(&log, |line| line.starts_with("serving "));
    ensure!(served == 1, "the service was started {served} times");
    ensure!(lab.services[DR].health().await?.0 == 200, "the service in {DR} is not well");

    ensure!(!lab.primary.is_running(), "the old primary runs");
    ensure!(runs_of(HOME, "stop -m fast") == 1, "{}", tail(&pg_ctl_ledger(&lab.folder, HOME)));
    let mut gate = Command::new(binaries()?.guard);
    gate.arg("--config").arg(lab.folder.path.join(HOME).join("guard.toml")).arg("gate");
    let code = tokio::task::spawn_blocking(move || gate.output()).await??.status.code();
    ensure!(code == Some(40), "the boot gate's answer is {code:?}, not 40 (latched)");
    Ok(())
}

/// Nothing was acknowledged on the old side after the new one's first row.
async fn old_side_is_silent(lab: &Lab, old: &Client) -> Result<()> {
    let (home, dr) = (lab.primary.address.to_string(), lab.standby.address.to_string());
    let first = lab.client()?.first_from(&dr, TOLD_WITHIN).await?;
    for rows in [lab.client()?, old].map(Client::acknowledged) {
        let late = rows.iter().filter(|row| row.by == home && row.at > first.at).count();
        ensure!(late == 0, "{late} rows were acknowledged by {home} after the first by {dr}");
    }
    Ok(())
}

/// The old primary was stopped in good order with its standby listening: nothing that anybody acknowledged is missing.
pub async fn nothing_is_lost(lab: &Lab, old: &Client) -> Result<()> {
    // Taken before the rows are read: what is acknowledged meanwhile need not be among them.
    let acknowledged = [lab.client()?, old].map(Client::acknowledged);
    let present: BTreeSet<i64> = lab.standby.row_ids().await?.into_iter().collect();
    for rows in acknowledged {
        let lost = rows.iter().filter(|row| !present.contains(&row.id)).count();
        ensure!(lost == 0 && !rows.is_empty(), "{lost} of {} acknowledged rows are lost", rows.len());
    }
    Ok(())
}

/// The zone's token is one of the run's, not older than the one under which the record was changed.
async fn zone_is_the_runs(lab: &Lab, run: &Run) -> Result<()> {
    let zone = lab.zone_token().await?;
    let tokens: Vec<&str> = run.claims.iter().map(|claim| claim.token.as_str()).collect();
    let dns = run.steps.iter().find(|step| step.id == "dns").context("no step dns")?;
    let at_least = tokens.iter().position(|token| *token == dns.token).context("dns was done under no claim")?;
    let holds = tokens.iter().skip(at_least).any(|token| zone.split_whitespace().any(|word| holds_token(word, token)));
    ensure!(holds, "the zone holds {zone:?}; dns was done under {}, the claims are {tokens:?}", dns.token);
    points_at(lab, DR)
}

fn holds_token(word: &str, token: &str) -> bool {
    word.split(|c: char| c != '.' && !c.is_ascii_digit()).any(|part| part == token)
}

/// One run, the same on every node, and the other region serves.
async fn one_run(lab: &Lab, run: &Run) -> Result<()> {
    let id = &run.summary.as_ref().context("no summary")?.id;
    wait::until("every node to tell the same one run", TOLD_WITHIN, async || {
        ensure!(lab.runs().await?.len() == 1, "{:?}", lab.runs().await?);
        let status = lab.status().await?;
        let serving = group(&status)?.serving.clone().unwrap_or_default();
        ensure!(serving.region == DR, "{serving:?}");
        let mut told = BTreeSet::new();
        for node in &lab.nodes {
            told.insert(node.ctl(&["run", "show", id]).await?["run"].to_string());
        }
        ensure!(told.len() == 1, "{told:#?}");
        Ok(())
    })
    .await
}

fn tokens_rise(run: &Run) -> Result<()> {
    let numbers = run.claims.iter().map(|claim| claim.token.rsplit_once('.').and_then(|(_, n)| n.parse::<u64>().ok()));
    let numbers: Vec<u64> = numbers.collect::<Option<_>>().context("a token without a number")?;
    ensure!(numbers.is_sorted_by(|a, b| a < b), "tokens do not rise: {:?}", run.claims);
    Ok(())
}

/// Every struck holder had claimed, and whoever was not replaced claimed alone.
fn claims_tell(run: &Run, case: &Case, toll: &Toll) -> Result<()> {
    let mut nodes: Vec<&str> = run.claims.iter().map(|claim| claim.node.as_str()).collect();
    nodes.dedup();
    match case.who {
        Who::Leader => {
            let mut claims = nodes.iter();
            let told = toll.holders.iter().all(|holder| claims.any(|node| node == holder));
            ensure!(told && claims.next().is_some(), "struck: {:?}, claims: {:?}", toll.holders, run.claims);
        }
        Who::Follower => ensure!(run.claims.len() == 1, "a follower's end made somebody claim: {:?}", run.claims),
        Who::Guard => ensure!(nodes.len() == 1, "a guard's end cost the leader its run: {:?}", run.claims),
    }
    Ok(())
}

/// `run show` names every claim with its node, and every step's end.
async fn shown(lab: &Lab, run: &Run) -> Result<()> {
    let listen = lab.nodes.first().context("no node")?.listen;
    // Whoever has just been woken may hand leadership on meanwhile, and the answer is then: ask again.
    wait::until("run show to tell the whole story", TOLD_WITHIN, async || {
        let mut command = Command::new(binaries()?.watchdogctl);
        pki::with_certificate(&mut command, listen)?;
        command.args(["--endpoint", &listen.to_string(), "run", "show", GROUP]);
        let text = run_async(command).await?;
        for claim in &run.claims {
            let all = ["claimed", &claim.token, &claim.node];
            let told = text.lines().any(|line| all.iter().all(|word| line.contains(word)));
            ensure!(told, "run show does not tell that {} claimed {}:\n{text}", claim.node, claim.token);
        }
        for step in ["fence", "dns", "promote", "services", "verify"] {
            let told = text.lines().any(|line| line.contains(step) && ENDS.iter().any(|end| line.contains(end)));
            ensure!(told, "run show does not tell how {step} ended:\n{text}");
        }
        ensure!(text.contains("succeeded"), "run show does not tell how it ended:\n{text}");
        Ok(())
    })
    .await
}

/// Both receivers were told, of the run under one key and of its end under that key, too, so that its incident closes; a page
/// came again only where the leader that sent it could not write that down, and then under the same key.
async fn paged_once_per_key(lab: &Lab, run: &Run, toll: &Toll) -> Result<()> {
    let id = &run.summary.as_ref().context("no summary")?.id;
    let incident = format!("/{GROUP}/{id}");
    wait::until("both receivers to be told", TOLD_WITHIN, async || {
        let mut times: BTreeMap<(&str, String, String), usize> = BTreeMap::new();
        let (mut successes, mut resolved) = (BTreeSet::new(), BTreeSet::new());
        for page in lab.receivers.received() {
            let field = |name: &str| page.body.get(name).and_then(|value| value.as_str()).map(str::to_owned);
            let key = field("key").or_else(|| field("dedup_key")).context("a page without a key")?;
            let root = ["/stuck", "/result"].iter().find_map(|end| key.strip_suffix(end)).unwrap_or(&key);
            let is_known = !page.headline().starts_with("DR_FAILOVER") || root.ends_with(&incident);
            ensure!(is_known, "{} was paged about the run under another key: {key}", page.by);
            if page.says("DR_FAILOVER_SUCCESS") {
                successes.insert((page.by, key.clone()));
            }
            if field("action").or_else(|| field("event_action")).is_some_and(|action| action == "resolve") {
                resolved.insert((page.by, key.clone()));
            }
            *times.entry((page.by, key, page.headline())).or_default() += 1;
        }
        for by in ["webhook", "pagerduty"] {
            let told = successes.iter().filter(|(who, _)| *who == by).count();
            ensure!(told == 1, "{by} was told of the success under {told} keys: {times:#?}");
            let is_over = resolved.iter().any(|(who, key)| *who == by && key.ends_with(&incident));
            ensure!(is_over, "{by} was not told that {incident} is over: {times:#?}");
        }
        let again = times.iter().find(|(_, count)| **count > 1 + toll.holders.len());
        ensure!(again.is_none(), "paged too often: {again:?}");
        Ok(())
    })
    .await
}

/// Who slept through it says so when it wakes; what it had sent is refused by name.
async fn refused_by_name(lab: &Lab, case: &Case, run: &Run, toll: &Toll) -> Result<()> {
    for (node, length) in &toll.frozen {
        let log = lab.node(node)?.part()?.log.clone();
        wait::until(&format!("{node} to say what became of its run"), TOLD_WITHIN, async || {
            let text = std::fs::read(&log)?;
            let since = String::from_utf8_lossy(text.get(usize::try_from(*length)?..).unwrap_or_default()).into_owned();
            let told = ["no longer leads", "not done", "rejected: "].iter().any(|words| since.contains(words));
            ensure!(told, "its log ends with:\n{}", tail(&log));
            Ok(())
        })
        .await?;
    }
    ensure!(case.what != What::Frozen || case.who != Who::Leader || !toll.frozen.is_empty(), "nobody was frozen");
    for step in toll.late.iter().filter(|_| case.at == At::Held(Point::Before)) {
        if step == "dns" {
            let bind = lab.folder.log("bind");
            wait::until("the name server to refuse the late update", TOLD_WITHIN, async || {
                ensure!(in_log(&bind, |line| line.contains("prerequisite not satisfied")) > 0, "{}", tail(&bind));
                Ok(())
            })
            .await?;
            continue;
        }
        let (site, action) = effect_of(step)?;
        let log = lab.folder.log(&format!("guard-{site}"));
        let asked = format!("\"action\":\"{action}\"");
        wait::until(&format!("the guard to refuse the late {action} by name"), TOLD_WITHIN, async || {
            let refused = in_log(&log, |line| line.contains(&asked) && line.contains("lower_token"));
            ensure!(refused > 0, "run {:?}; the guard's log ends with:\n{}", run.summary, tail(&log));
            Ok(())
        })
        .await?;
    }
    Ok(())
}
