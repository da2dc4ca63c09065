//! The page's parts but runs: head, groups with their votes, incidents, nodes, audit, pages that nobody took.

use std::collections::{BTreeMap, BTreeSet};

use super::html::Html;
use super::run;
use super::words::Words;
use super::{Picture, end_table, moment, table};
use crate::api::when::{bytes, span};
use crate::proto::{self, Fencing, Mode, ReadinessState, Verdict, Word};

/// Rows of a table that is not bounded by the configuration.
const ROWS_MAX: usize = 50;

/// A word with its sign: colour alone says nothing to many people.
pub(super) fn sign(html: &mut Html, class: &'static str, text: &str) {
    let mark = match class {
        "good" => "✓ ",
        "warn" => "◆ ",
        "bad" => "✗ ",
        _ => "",
    };
    html.open("span", class).text(mark).text(text).close("span");
}

pub(super) fn head(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    let standing = picture.status.standing.clone().unwrap_or_default();
    html.open("dl", "").el("dt", "", words.leader).open("dd", "");
    match standing.leader.as_str() {
        "" => sign(&mut html, "bad", words.nobody),
        name => drop(html.text(name)),
    }
    html.close("dd").el("dt", "", words.quorum).open("dd", "");
    let (class, word) = if standing.has_quorum { ("good", words.yes) } else { ("bad", words.no) };
    sign(&mut html, class, word);
    html.close("dd").el("dt", "", words.as_of).open("dd", "");
    moment(&mut html, standing.at_ms / 1000 * 1000);
    html.text(format!(", {} {}", words.seen_from, standing.node)).close("dd").close("dl");
    if !standing.has_quorum || standing.leader.is_empty() {
        html.open("p", "alarm bad").text("✗ ").text(words.no_quorum).text(" ").text(&standing.note).close("p");
    }
    for warning in &picture.status.warnings {
        html.open("p", "warn").text("◆ ").text(warning).close("p");
    }
    html
}

pub(super) fn groups(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    html.el("h2", "", words.groups);
    for group in &picture.status.groups {
        html.raw("<article class=\"card\"").attr("aria-label", format!("{} {}", words.group, group.name)).raw(">");
        html.el("h3", "", &group.name).open("dl", "");
        facts(&mut html, group, words);
        html.close("dl");
        match &group.open_run {
            Some(run) => run::open(&mut html, run, picture.status.standing.as_ref().map_or(0, |it| it.at_ms), words),
            None => drop(html.el("p", "dim", words.no_open_run)),
        }
        votes(&mut html, group, picture, words);
        html.raw("</article>");
    }
    if picture.status.groups.is_empty() {
        html.el("p", "", words.no_groups);
    }
    html
}

fn facts(html: &mut Html, group: &proto::GroupStatus, words: &Words) {
    let serving = group.serving.clone().unwrap_or_default();
    html.el("dt", "", words.serving).open("dd", "");
    match serving.region.as_str() {
        "" => sign(html, "bad", &format!("{} ({} {})", words.serving_nobody, words.last_was, serving.last)),
        region if region == group.home => sign(html, "good", &format!("{region} ({})", words.home)),
        region => sign(html, "warn", &format!("{region} ({}: {})", words.away, group.home)),
    }
    html.close("dd").el("dt", "", words.mode).open("dd", "");
    match group.mode() {
        Mode::Automatic => sign(html, "good", words.automatic),
        Mode::Shadow => sign(html, "warn", words.shadow),
        Mode::Paused => sign(html, "warn", words.paused),
        Mode::Unspecified => sign(html, "bad", words.unknown),
    }
    if let Some(pause) = &group.pause {
        html.text(format!(" {} {}, {} ", words.paused_by, pause.by, words.since));
        moment(html, pause.at_ms);
        html.text(format!(", {} ", words.until));
        match pause.until_ms {
            Some(until) => moment(html, until),
            None => drop(html.text(words.resumed)),
        }
        html.text(format!(": {}", pause.reason));
    }
    html.close("dd").el("dt", "", words.fencing).open("dd", "").text(Fencing::word(group.fencing));
    if !group.fencing_asserted_by.is_empty() {
        html.text(format!(" ({} {})", words.by, group.fencing_asserted_by));
    }
    html.close("dd").el("dt", "", words.token).el("dd", "", &group.token);
    if !group.traffic_region.is_empty() && group.traffic_region != serving.last {
        html.el("dt", "", words.traffic).open("dd", "");
        sign(html, "warn", &group.traffic_region);
        html.close("dd");
    }
    readiness(html, group, words);
    for seen in &group.replication {
        html.el("dt", "", words.standby).open("dd", "");
        standby(html, seen, words);
        html.close("dd");
    }
    if !group.explanation.is_empty() {
        html.el("dt", "", words.why).open("dd", "");
        for line in group.explanation.iter().take(ROWS_MAX) {
            html.text(line).raw("<br>");
        }
        html.close("dd");
    }
    for left in group.unsettled.iter().take(ROWS_MAX) {
        html.el("dt", "", words.unsettled).open("dd", "");
        sign(html, "warn", &format!("{}: {}", left.resource, left.action));
        html.close("dd");
    }
}

fn standby(html: &mut Html, seen: &proto::Replication, words: &Words) {
    let (class, word) = if seen.streaming { ("good", words.streaming) } else { ("bad", words.not_streaming) };
    sign(html, class, &format!("{}: {word}", seen.region));
    match seen.expected_loss_ms {
        Some(ms) => {
            let class = if ms <= seen.limit_ms { "" } else { "bad" };
            html.text("; ");
            sign(html, class, &format!("{} {} ({} {})", words.would_lose, span(ms), words.limit, span(seen.limit_ms)));
        }
        None => {
            html.text("; ");
            sign(html, "warn", words.loss_unknown);
        }
    }
    if let Some(behind) = seen.behind_bytes {
        html.text(format!("; {}", bytes(behind)));
    }
}

fn readiness(html: &mut Html, group: &proto::GroupStatus, words: &Words) {
    html.el("dt", "", words.readiness).open("dd", "");
    let Some(mark) = &group.readiness else {
        html.text(words.not_judged).close("dd");
        return;
    };
    match mark.verdict() {
        ReadinessState::Yes => sign(html, "good", words.ready),
        ReadinessState::Weak => sign(html, "warn", words.weak),
        ReadinessState::No => sign(html, "bad", words.not_ready),
        _ => sign(html, "warn", words.unknown),
    }
    html.text(format!(" ({} {}), {} ", words.if_lost, mark.to_region, words.since));
    moment(html, mark.since_ms);
    if mark.is_of_earlier_epoch {
        html.text(format!(" ({})", words.earlier));
    }
    if !mark.why.is_empty() {
        html.text(format!(": {}", mark.why));
    }
    html.close("dd");
}

/// Nodes across, targets down.
fn votes(html: &mut Html, group: &proto::GroupStatus, picture: &Picture, words: &Words) {
    html.el("h3", "", words.votes);
    if group.votes.is_empty() {
        html.el("p", "dim", words.votes_unknown);
        return;
    }
    let nodes: BTreeSet<&str> = group.votes.iter().map(|vote| vote.node.as_str()).collect();
    let mut rows: BTreeMap<(&str, &str), BTreeMap<&str, &proto::Vote>> = BTreeMap::new();
    for vote in &group.votes {
        rows.entry((&vote.region, &vote.target)).or_default().insert(&vote.node, vote);
    }
    let now_ms = picture.status.standing.as_ref().map_or(0, |standing| standing.at_ms);
    table(html, words.votes_of, [words.target].into_iter().chain(nodes.iter().copied()));
    for ((region, target), cells) in rows {
        html.raw("<tr><th scope=\"row\">").text(target).el("small", "", region).raw("</th>");
        for node in &nodes {
            html.open("td", "");
            match cells.get(node) {
                Some(vote) => cell(html, vote, now_ms, words),
                None => drop(html.el("span", "dim", words.unspecified)),
            }
            html.close("td");
        }
        html.close("tr");
    }
    end_table(html);
}

fn cell(html: &mut Html, vote: &proto::Vote, now_ms: i64, words: &Words) {
    let (class, word) = match vote.verdict() {
        Verdict::Up => ("good", words.up),
        Verdict::Suspect => ("warn", words.suspect),
        Verdict::Down => ("bad", words.down),
        Verdict::Unspecified => ("", words.unspecified),
    };
    sign(html, class, word);
    let held = i64::try_from(vote.held_for_ms.saturating_add(vote.age_ms)).unwrap_or(i64::MAX);
    html.open("small", "").text(format!("{} ", words.since));
    // To the second: what is told anew each time differs by milliseconds.
    moment(html, now_ms.saturating_sub(held).saturating_add(500) / 1000 * 1000);
    html.close("small");
    if !vote.counts {
        html.el("small", "", format!("{}: {}", words.not_counted, vote.not_counted));
    }
    if !vote.failure_detail.is_empty() {
        html.el("small", "", &vote.failure_detail);
    }
}

pub(super) fn incidents(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    html.el("h2", "", words.incidents);
    if picture.status.incidents.is_empty() {
        html.el("p", "dim", words.no_incidents);
        return html;
    }
    table(&mut html, words.incidents, [words.severity, words.when, words.what, words.who]);
    for one in picture.status.incidents.iter().take(ROWS_MAX) {
        html.raw("<tr><td>");
        let class = if ["critical", "error"].contains(&one.severity.as_str()) { "bad" } else { "warn" };
        sign(&mut html, class, &one.severity);
        html.raw("</td><td>");
        moment(&mut html, one.since_ms);
        html.raw("</td><th scope=\"row\">").text(&one.event).el("small", "", &one.summary).raw("</th><td>");
        match &one.acknowledged {
            Some(had) => drop(html.text(format!("{} {}", words.has_it, had.by))),
            None => drop(html.text(words.nobody_has_it)),
        }
        html.raw("</td></tr>");
    }
    end_table(&mut html);
    html
}

pub(super) fn nodes(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    html.el("h2", "", words.nodes);
    table(&mut html, words.nodes, [words.node, words.region, words.votes_too, words.answers, words.notes]);
    for node in &picture.status.nodes {
        html.raw("<tr><th scope=\"row\">").text(&node.name).raw("</th><td>").text(&node.region).raw("</td><td>");
        html.text(if node.is_voter { words.yes } else { words.no }).raw("</td><td>");
        match node.reach() {
            proto::Reach::Reachable => sign(&mut html, "good", words.yes),
            proto::Reach::Unreachable => sign(&mut html, "bad", words.no),
            _ => drop(html.text(words.unknown)),
        }
        html.raw("</td><td>");
        let notes = [
            (node.is_leader, words.leads.to_owned()),
            (node.isolated, words.isolated.to_owned()),
            (node.other_config, words.other_config.to_owned()),
            (node.behind_entries.unwrap_or(0) > 100, format!("{} {}", node.behind_entries.unwrap_or(0), words.behind)),
        ];
        let notes: Vec<String> = notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect();
        html.text(notes.join("; ")).raw("</td></tr>");
    }
    end_table(&mut html);
    html
}

pub(super) fn audit(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    html.el("h2", "", words.audit);
    table(&mut html, words.audit, [words.when, words.who, words.group, words.what, words.outcome]);
    for entry in picture.audit.iter().take(ROWS_MAX) {
        html.raw("<tr><td>");
        moment(&mut html, entry.at_ms);
        html.raw("</td><td>").text(&entry.by).raw("</td><td>").text(&entry.group).raw("</td><th scope=\"row\">");
        html.text(&entry.what).el("small", "", &entry.reason).raw("</th><td>").text(&entry.outcome).raw("</td></tr>");
    }
    end_table(&mut html);
    html
}

pub(super) fn pages(picture: &Picture, words: &Words) -> Html {
    let mut html = Html::default();
    if picture.status.pages_undelivered.is_empty() {
        return html;
    }
    html.el("h2", "", words.pages_waiting);
    table(&mut html, words.pages_waiting, [words.when, words.what, words.detail]);
    for page in picture.status.pages_undelivered.iter().take(ROWS_MAX) {
        html.raw("<tr><td>");
        moment(&mut html, page.at_ms);
        html.raw("</td><th scope=\"row\">").text(&page.event).el("small", "", &page.summary).raw("</th><td>");
        if !page.waiting_for.is_empty() {
            sign(&mut html, "warn", &format!("{} {}", words.waits_for, page.waiting_for.join(", ")));
        }
        for refused in &page.refused_by {
            sign(&mut html, "bad", &format!("{} {refused}", words.refused_by));
        }
        html.raw("</td></tr>");
    }
    end_table(&mut html);
    html
}
