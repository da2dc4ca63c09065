//! `watchdogctl status`: what an engineer wants to know at three in the morning, worst first.

use super::text::{Page, Span, bad, bold, dim, good, warn};
use super::when::{ago, bytes, span, stamp};
use super::{lease_page, pages, readiness_page, run_page};
use crate::proto::{
    Fencing, GetStatusResponse, GroupStatus, Mode, NodeStatus, PageStatus, Reach, Replication, Standing, Verdict, Vote,
    Word,
};

/// Width of the labels at the left.
pub(super) const LABEL: usize = 11;

/// The page.
pub fn page(status: &GetStatusResponse) -> Page {
    let mut page = Page::default();
    let standing = status.standing.clone().unwrap_or_default();
    head(&mut page, status, &standing);
    for group in &status.groups {
        page.gap();
        group_part(&mut page, group, status, standing.at_ms);
    }
    if status.groups.is_empty() {
        page.gap();
        page.line([dim("no groups: no configuration was adopted yet, or its file names none")]);
    }
    if !status.incidents.is_empty() {
        page.gap();
        let more = if status.incidents_total as usize > status.incidents.len() { ", the worst" } else { "" };
        page.line([bold("open incidents"), dim(format!("   {}{more}", status.incidents_total))]);
        page.table(2, status.incidents.iter().map(|one| pages::in_status(one, standing.at_ms)).collect());
    }
    if !status.nodes.is_empty() {
        page.gap();
        page.line([bold("nodes")]);
        page.table(2, status.nodes.iter().map(node_row).collect());
    }
    if status.pages_undelivered_total > 0 {
        page.gap();
        page.line([warn(format!("{} not delivered", plural(status.pages_undelivered_total.into(), "page")))]);
        page.table(2, status.pages_undelivered.iter().map(|one| undelivered_row(one, standing.at_ms)).collect());
    }
    page
}

fn plural(n: u64, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

fn head(page: &mut Page, status: &GetStatusResponse, standing: &Standing) {
    let cluster = if status.cluster.is_empty() { "(no configuration adopted yet)" } else { &status.cluster };
    let leader = match standing.leader.as_str() {
        "" => bad("none"),
        name => bold(name),
    };
    let quorum = if standing.has_quorum { good("yes") } else { bad("no") };
    page.line([
        bold(cluster),
        dim("   leader "),
        leader,
        dim("   quorum "),
        quorum,
        dim(format!(
            "   as of {}, from {}, log {}, term {}",
            stamp(standing.at_ms),
            standing.node,
            standing.as_of_index,
            standing.term
        )),
    ]);
    if !standing.has_quorum || standing.leader.is_empty() {
        let note = if standing.note.is_empty() { "no leader or no quorum" } else { &standing.note };
        let text = format!("{}: {note}; nothing can be changed, and what follows may be old", standing.node);
        page.line([bad("! "), bad(text)]);
    } else if !standing.note.is_empty() {
        page.line([warn("! "), warn(&standing.note)]);
    }
    for warning in &status.warnings {
        page.line([warn("! "), warn(warning)]);
    }
}

fn group_part(page: &mut Page, group: &GroupStatus, status: &GetStatusResponse, now_ms: i64) {
    group_head(page, group, now_ms);
    match &group.open_run {
        Some(run) => run_page::in_status(page, run, now_ms),
        None if !status.has_sight => {
            labelled(page, "why", vec![dim("the leader did not say: no votes, no explanation")]);
        }
        None => {}
    }
    labelled(page, "why", group.explanation.iter().map(|line| line.as_str().into()).collect());
    let judged = group.readiness.as_ref().map(|mark| readiness_page::in_a_line(Some(mark), now_ms));
    labelled(page, "readiness", judged.into_iter().collect());
    labelled(page, "standby", group.replication.iter().map(standby).collect());
    let left: Vec<Span> = group
        .unsettled
        .iter()
        .map(|left| {
            let run = run_page::short(&left.run_id);
            let since = ago(left.since_ms, now_ms);
            warn(format!(
                "{}: {} of run {run} under token {} may still be at work, since {since}",
                left.resource, left.action, left.token
            ))
        })
        .collect();
    labelled(page, "unsettled", left);
    if let Some(last) = &group.last_failover {
        let how = if last.automatic { "automatic" } else { "by an operator" };
        let text = format!("run {}, {}, {how}", run_page::short(&last.run_id), ago(last.at_ms, now_ms));
        labelled(page, "last", vec![dim(text)]);
    }
    votes_part(page, &group.votes);
}

/// Which region serves, the mode, the fencing, and what of it is out of the ordinary.
pub(super) fn group_head(page: &mut Page, group: &GroupStatus, now_ms: i64) {
    let serving = group.serving.clone().unwrap_or_default();
    let at_home = serving.region == group.home;
    let region = match serving.region.as_str() {
        "" => bad(format!("nobody (was {})", serving.last)),
        region if at_home => good(region),
        region => warn(format!("{region} (home is {})", group.home)),
    };
    let mode = match group.mode() {
        Mode::Automatic => good("automatic"),
        Mode::Shadow => warn("shadow: decides and pages, does nothing"),
        Mode::Paused => warn("paused"),
        Mode::Unspecified => bad("unknown mode"),
    };
    let fencing = match group.fencing() {
        Fencing::None => warn(format!("   fencing none, asserted by {}", group.fencing_asserted_by)),
        _ => dim(format!("   fencing {}", Fencing::word(group.fencing))),
    };
    let configured = match group.fencing_configured() {
        Fencing::Unspecified => Span::default(),
        same if same == group.fencing() => Span::default(),
        _ => warn(format!(" (this node's file says {}: not in force)", Fencing::word(group.fencing_configured))),
    };
    let epoch_and_token = dim(format!("   serving epoch {}   token {}", serving.epoch, group.token));
    page.line([
        bold(&group.name),
        dim("   serving "),
        region,
        "   ".into(),
        mode,
        fencing,
        configured,
        epoch_and_token,
    ]);
    if group.fencing() == Fencing::Lease {
        lease_page::part(page, group, now_ms);
    }
    if !group.traffic_region.is_empty() && group.traffic_region != serving.last {
        let text = format!("goes to {}, while the database is served from {}", group.traffic_region, serving.last);
        labelled(page, "traffic", vec![warn(text)]);
    }
    if let Some(pause) = &group.pause {
        let until = match pause.until_ms {
            Some(until) => format!("ends {}, {}", ago(until, now_ms), stamp(until)),
            None => "until resumed".to_owned(),
        };
        let text = format!("by {} {}, {until}: {}", pause.by, ago(pause.at_ms, now_ms), pause.reason);
        labelled(page, "paused", vec![warn(text)]);
    }
}

/// Lines under a label; nothing where there are none.
pub(super) fn labelled(page: &mut Page, label: &str, lines: Vec<Span>) {
    for (n, line) in lines.into_iter().enumerate() {
        let label = if n == 0 { label } else { "" };
        page.line([dim(format!("  {label:<LABEL$}")), line]);
    }
}

/// Lines under a label, each with a word of its own.
pub(super) fn labelled_rows(page: &mut Page, label: &str, rows: Vec<(&str, Span)>) {
    let width = rows.iter().map(|(word, _)| word.len()).max().unwrap_or_default();
    for (n, (word, line)) in rows.into_iter().enumerate() {
        let label = if n == 0 { label } else { "" };
        page.line([dim(format!("  {label:<LABEL$}{word:<width$}  ")), line]);
    }
}

fn standby(seen: &Replication) -> Span {
    let stream = if seen.streaming { "streaming" } else { "NOT streaming" };
    let behind = seen.behind_bytes.map(|n| format!(", {} behind", bytes(n))).unwrap_or_default();
    let limit = span(seen.limit_ms);
    if !seen.streaming && seen.expected_loss_ms.is_none() {
        return warn(format!("{}: no standby streams, so nothing moves there by itself (loss unknown)", seen.region));
    }
    let (loss, within) = match seen.expected_loss_ms {
        Some(ms) => (format!("would lose {} (limit {limit})", span(ms)), ms <= seen.limit_ms),
        None => (format!("loss unknown, which exceeds the limit of {limit}"), false),
    };
    let text = format!("{}: {stream}{behind}, {loss}", seen.region);
    match (within, seen.streaming) {
        (true, true) => good(text),
        (true, false) => warn(text),
        (false, _) => bad(text),
    }
}

/// Targets down, nodes across; what each cell's trouble is stands below.
fn votes_part(page: &mut Page, votes: &[Vote]) {
    if votes.is_empty() {
        return;
    }
    let mut targets: Vec<(&str, &str)> = Vec::new();
    let mut nodes: Vec<&str> = Vec::new();
    for vote in votes {
        let target = (vote.region.as_str(), vote.target.as_str());
        if !targets.contains(&target) {
            targets.push(target);
        }
        if !nodes.contains(&vote.node.as_str()) {
            nodes.push(&vote.node);
        }
    }
    let mut head = vec![dim("votes"), dim("in")];
    head.extend(nodes.iter().map(dim));
    let mut rows = vec![head];
    for (region, target) in targets {
        let mut row = vec![Span::from(target), dim(region)];
        for node in &nodes {
            let vote = votes.iter().find(|vote| vote.node == *node && vote.target == target);
            row.push(vote.map_or_else(|| dim("–"), cell));
        }
        rows.push(row);
    }
    page.table(2, rows);
    troubles(page, votes);
}

/// Why targets are not up, nodes that say the same in one line.
fn troubles(page: &mut Page, votes: &[Vote]) {
    let mut lines: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for vote in votes.iter().filter(|vote| vote.verdict() != Verdict::Up) {
        let mut why = Vec::new();
        if !vote.failure_detail.is_empty() {
            why.push(vote.failure_detail.clone());
        }
        if !vote.counts {
            why.push(format!("does not count: {}", vote.not_counted));
        }
        let why = why.join("; ");
        match lines.iter_mut().find(|(target, same, _)| *target == vote.target && *same == why) {
            _ if why.is_empty() => {}
            Some((_, _, nodes)) => nodes.push(&vote.node),
            None => lines.push((&vote.target, why, vec![&vote.node])),
        }
    }
    for (target, why, nodes) in lines {
        page.line([dim(format!("    {target} from {}: ", nodes.join(", "))), Span::from(why)]);
    }
}

fn cell(vote: &Vote) -> Span {
    let held = span(vote.held_for_ms);
    let text = format!("{} {held}", Verdict::word(vote.verdict));
    match (vote.verdict(), vote.counts) {
        (_, false) => dim(format!("({text})")),
        (Verdict::Up, _) => good(text),
        (Verdict::Down, _) => bad(text),
        _ => warn(text),
    }
}

fn node_row(node: &NodeStatus) -> Vec<Span> {
    let reach = match node.reach() {
        Reach::Reachable => good("reachable"),
        Reach::Unreachable => bad("unreachable"),
        _ => dim("not known from here"),
    };
    let mut notes = Vec::new();
    if !node.is_voter {
        notes.push("no voter".to_owned());
    }
    if node.isolated {
        notes.push("isolated: its down does not count".to_owned());
    }
    if node.other_config {
        notes.push("runs under another configuration: neither opens nor executes".to_owned());
    }
    if let Some(behind) = node.behind_entries.filter(|behind| *behind > 0) {
        notes.push(format!("{behind} entries behind"));
    }
    if let Some(age) = node.last_report_age_ms.filter(|age| *age > 3_000) {
        notes.push(format!("last report {} ago", span(age)));
    }
    let name = if node.is_leader { bold(&node.name) } else { Span::from(node.name.as_str()) };
    let mark = if node.is_leader { good("★ leader") } else { Span::default() };
    vec![name, dim(&node.region), reach, mark, warn(notes.join("; "))]
}

fn undelivered_row(page: &PageStatus, now_ms: i64) -> Vec<Span> {
    let mut troubles = Vec::new();
    if !page.waiting_for.is_empty() {
        troubles.push(format!("waits for {}", page.waiting_for.join(", ")));
    }
    troubles.extend(page.refused_by.iter().map(|refusal| format!("refused by {refusal}")));
    vec![
        dim(ago(page.at_ms, now_ms)),
        warn(&page.severity),
        bold(&page.event),
        Span::from(page.summary.as_str()),
        warn(troubles.join("; ")),
    ]
}
