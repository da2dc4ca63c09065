//! `page` and `contact`: what is told and not over, who has it, who is told next, and whether pages arrive.

use std::time::Duration;

use tokio::time::Instant;

use super::act::context;
use super::args::{Cli, ContactVerb, PageVerb};
use super::call::{Cluster, Kind, Node};
use super::error::{CliError, Exit};
use super::status_page::labelled;
use super::text::{Page, Span, bad, bold, dim, good, tell, warn};
use super::when::{ago, span, stamp};
use super::{Screen, seen_by};
use crate::proto::{self};
use crate::proto::{
    DeliveryState, GetPageRequest, GetPageResponse, Incident, IncidentLevel, Ladder, ListContactsResponse,
    ListPagesResponse, PageDelivery, Telling,
};

/// What `page ack` takes instead of keys: every open incident of a group.
const ALL_OF: &str = "all-of-";
/// How often a test page's deliveries are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// `page …`.
pub async fn page(cluster: &Cluster, cli: &Cli, verb: &PageVerb, screen: Screen) -> Result<Exit, CliError> {
    match verb {
        PageVerb::List { group, past } => {
            let ask = proto::ListPagesRequest { group: group.clone().unwrap_or_default(), past: *past };
            let answer = cluster.read(ask, |mut node, ask| async move { node.list_pages(ask).await }).await?;
            screen.show(&answer, || list(&answer))?;
            Ok(seen_by(answer.standing.as_ref()))
        }
        PageVerb::Show { page: key } => {
            let answer = get(cluster, key).await?;
            screen.show(&answer, || show(&answer))?;
            Ok(seen_by(answer.standing.as_ref()))
        }
        PageVerb::Ack { pages, reason } => acknowledge(cluster, cli, pages, reason, screen).await,
        PageVerb::Resolve { page: key, reason } => {
            let context = context(cli, reason)?;
            let cluster = cluster.for_request(&context.request_id);
            let ask = proto::ResolvePageRequest { context: Some(context), key: key.clone() };
            let call = |mut node: Node, ask| async move { node.resolve_page(ask).await };
            let answer = cluster.ask(Kind::Write, ask, call).await?;
            screen.show(&answer, || {
                let mut page = Page::default();
                let summary = answer.incident.as_ref().map(|one| one.summary.as_str()).unwrap_or_default();
                page.line([bold(key), good(" resolved"), dim(format!("   {summary}"))]);
                page
            })?;
            Ok(Exit::Ok)
        }
        PageVerb::Test { receiver, contact, reason } => {
            test(cluster, cli, receiver.as_deref(), contact.as_deref(), reason, screen).await
        }
    }
}

async fn get(cluster: &Cluster, key: &str) -> Result<GetPageResponse, CliError> {
    let ask = GetPageRequest { key: key.to_owned() };
    cluster.read(ask, |mut node, ask| async move { node.get_page(ask).await }).await
}

async fn acknowledge(
    cluster: &Cluster,
    cli: &Cli,
    keys: &[String],
    reason: &str,
    screen: Screen,
) -> Result<Exit, CliError> {
    let context = context(cli, reason)?;
    let cluster = cluster.for_request(&context.request_id);
    let (keys, group) = match keys {
        [one] if one.starts_with(ALL_OF) => (Vec::new(), one.trim_start_matches(ALL_OF).to_owned()),
        keys => (keys.to_vec(), String::new()),
    };
    let ask = proto::AcknowledgePagesRequest { context: Some(context), keys, group };
    let call = |mut node: Node, ask| async move { node.acknowledge_pages(ask).await };
    let answer = cluster.ask(Kind::Write, ask, call).await?;
    screen.show(&answer, || {
        let mut page = Page::default();
        let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
        for one in &answer.incidents {
            page.line([bold(format!("#{}", one.number)), good(" acknowledged   "), one.summary.as_str().into()]);
            if let Some(next) = &one.next {
                page.line([dim(format!("  until {}: {}", ago(next.at_ms, now_ms), next.what))]);
            }
        }
        page
    })?;
    Ok(Exit::Ok)
}

async fn test(
    cluster: &Cluster,
    cli: &Cli,
    receiver: Option<&str>,
    contact: Option<&str>,
    reason: &str,
    screen: Screen,
) -> Result<Exit, CliError> {
    let asked = context(cli, reason)?;
    let writer = cluster.for_request(&asked.request_id);
    let text = |word: Option<&str>| word.unwrap_or_default().to_owned();
    let ask = proto::TestPageRequest { context: Some(asked), receiver: text(receiver), contact: text(contact) };
    let answer = writer.ask(Kind::Write, ask, |mut node, ask| async move { node.test_page(ask).await }).await?;
    let Some(mut incident) = answer.incident else {
        return Err(CliError::Failed("the test page is not among the incidents any more; send another".to_owned()));
    };
    let mut standing = answer.standing;
    let until = Instant::now() + Duration::from_millis(cli.timeout);
    while is_pending(&incident) && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        // A node that is gone for the moment is no reason to give up: the page is in the outbox.
        if let Ok(GetPageResponse { standing: newer, incident: Some(now) }) = get(cluster, &incident.key).await {
            (standing, incident) = (newer, now);
        }
    }
    let answer = GetPageResponse { standing, incident: Some(incident.clone()) };
    screen.show(&answer, || {
        let mut page = Page::default();
        for delivery in deliveries(&incident) {
            page.line([bold(&delivery.receiver), "  ".into(), outcome(delivery)]);
        }
        page
    })?;
    tell(&format!("it stays open until you say: watchdogctl page resolve {} --reason …", incident.number));
    let is_taken = deliveries(&incident).all(|one| one.state() == DeliveryState::Delivered);
    Ok(if is_taken { Exit::Ok } else { Exit::Failure })
}

fn deliveries(incident: &Incident) -> impl Iterator<Item = &PageDelivery> {
    incident.tellings.iter().flat_map(|telling| &telling.deliveries)
}

fn is_pending(incident: &Incident) -> bool {
    deliveries(incident).any(|one| one.state() == DeliveryState::Pending)
}

fn outcome(delivery: &PageDelivery) -> Span {
    match delivery.state() {
        DeliveryState::Delivered => good("took it"),
        DeliveryState::Pending => {
            bad("has not taken it yet: it is tried again; the leader's log and `watchdogctl status` say why")
        }
        DeliveryState::Refused => bad(format!("refused it: {}", delivery.reason)),
        _ => dim("answered; no longer kept"),
    }
}

fn list(answer: &ListPagesResponse) -> Page {
    let mut page = Page::default();
    let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
    if answer.incidents.is_empty() {
        page.line([good("no incident is open")]);
    }
    for one in &answer.incidents {
        page.gap();
        head(&mut page, one, now_ms);
        body(&mut page, one, now_ms);
    }
    if !answer.past.is_empty() {
        page.gap();
        page.line([bold("over")]);
        let row = |one: &Incident| {
            let over = one.resolved.clone().unwrap_or_default();
            let (by, at) = (over.by, ago(over.at_ms, now_ms));
            vec![dim(format!("#{}", one.number)), dim(at), dim(&one.event), dim(by), one.summary.as_str().into()]
        };
        page.table(2, answer.past.iter().map(row).collect());
    }
    page
}

fn show(answer: &GetPageResponse) -> Page {
    let mut page = Page::default();
    let now_ms = answer.standing.as_ref().map(|standing| standing.at_ms).unwrap_or_default();
    let Some(one) = &answer.incident else { return page };
    head(&mut page, one, now_ms);
    body(&mut page, one, now_ms);
    if let Some(level) = &one.level {
        labelled(&mut page, "objectives", vec![dim(objectives(level))]);
    }
    let facts = one.details.iter().collect::<std::collections::BTreeMap<_, _>>();
    let known = ["level", "rto_objective_s", "rpo_objective_s"];
    let facts = facts.into_iter().filter(|(name, _)| !known.contains(&name.as_str()));
    labelled(&mut page, "facts", facts.map(|(name, value)| Span::from(format!("{name}: {value}"))).collect());
    page
}

fn objectives(level: &IncidentLevel) -> String {
    format!("serves again within {}, loses at most {} of writes", span(level.rto_ms), span(level.rpo_ms))
}

fn urgency(one: &Incident) -> Span {
    let title = match &one.level {
        Some(level) => format!("{} {}", level.number, level.name),
        None => one.severity.clone(),
    };
    match one.severity.as_str() {
        "critical" => bad(title),
        "error" | "warning" => warn(title),
        _ => dim(title),
    }
}

fn head(page: &mut Page, one: &Incident, now_ms: i64) {
    page.line([
        bold(format!("#{}", one.number)),
        "  ".into(),
        urgency(one),
        "  ".into(),
        bold(&one.event),
        dim(format!("  {}  {}", ago(one.since_ms, now_ms), one.key)),
    ]);
    page.line(["  ".into(), Span::from(one.summary.as_str())]);
}

fn body(page: &mut Page, one: &Incident, now_ms: i64) {
    labelled(page, "told", one.tellings.iter().map(|telling| told(telling, now_ms)).collect());
    if let Some(over) = &one.resolved {
        let text = format!("{} by {}, {}", ago(over.at_ms, now_ms), over.by, stamp(over.at_ms));
        labelled(page, "over", vec![good(text)]);
        return;
    }
    let holder = match &one.acknowledged {
        Some(ack) => {
            let from = if ack.from.is_empty() { String::new() } else { format!(" from {}", ack.from) };
            good(format!("{}{from}, {}: {}", ack.by, ago(ack.at_ms, now_ms), ack.reason))
        }
        None => warn(format!("nobody: watchdogctl page ack {} --reason …", one.number)),
    };
    labelled(page, "has it", vec![holder]);
    labelled(page, "next", vec![coming(one, now_ms)]);
}

fn told(telling: &Telling, now_ms: i64) -> Span {
    let whom = if telling.contacts.is_empty() { String::new() } else { format!(": {}", telling.contacts.join(", ")) };
    let by = telling.deliveries.iter().map(|one| match one.state() {
        DeliveryState::Pending => format!("{} (not taken yet)", one.receiver),
        DeliveryState::Refused => format!("{} (refused: {})", one.receiver, one.reason),
        _ => one.receiver.clone(),
    });
    let by = by.collect::<Vec<_>>().join(", ");
    let text = format!("{}, {}{whom} by {by}", ago(telling.at_ms, now_ms), telling.what);
    let is_well = |one: &PageDelivery| matches!(one.state(), DeliveryState::Delivered | DeliveryState::Forgotten);
    if telling.deliveries.iter().all(is_well) { Span::from(text) } else { warn(text) }
}

/// What comes next, in words.
fn coming(one: &Incident, now_ms: i64) -> Span {
    match &one.next {
        Some(next) => {
            let whom = if next.contacts.is_empty() { String::new() } else { format!(": {}", next.contacts.join(", ")) };
            // A moment that has passed is being told now.
            let when = if next.at_ms <= now_ms { "now".to_owned() } else { ago(next.at_ms, now_ms) };
            Span::from(format!("{when}, {}{whom}", next.what))
        }
        None if one.ends_by_itself => dim("nobody else; it ends by itself when its cause is gone"),
        None => dim(format!("nobody else; when it is done with: watchdogctl page resolve {} --reason …", one.number)),
    }
}

/// One line for the status.
pub fn in_status(one: &Incident, now_ms: i64) -> Vec<Span> {
    let holder = match &one.acknowledged {
        Some(ack) => good(format!("{} has it", ack.by)),
        None => warn("nobody has it"),
    };
    let next = one.next.as_ref().filter(|_| one.acknowledged.is_none());
    let next = next.map(|next| {
        let whom = if next.contacts.is_empty() { next.what.clone() } else { next.contacts.join(", ") };
        dim(format!("{whom} is told {}", if next.at_ms <= now_ms { "now".to_owned() } else { ago(next.at_ms, now_ms) }))
    });
    vec![
        dim(format!("#{}", one.number)),
        dim(ago(one.since_ms, now_ms)),
        urgency(one),
        bold(&one.event),
        holder,
        next.unwrap_or_default(),
        Span::from(one.summary.as_str()),
    ]
}

/// `contact …`.
pub async fn contact(cluster: &Cluster, verb: &ContactVerb, screen: Screen) -> Result<Exit, CliError> {
    let ContactVerb::List { group } = verb;
    let ask = proto::ListContactsRequest { group: group.clone().unwrap_or_default() };
    let answer = cluster.read(ask, |mut node, ask| async move { node.list_contacts(ask).await }).await?;
    screen.show(&answer, || contacts(&answer))?;
    Ok(seen_by(answer.standing.as_ref()))
}

fn contacts(answer: &ListContactsResponse) -> Page {
    let mut page = Page::default();
    for ladder in &answer.ladders {
        page.gap();
        ladder_part(&mut page, ladder, answer);
    }
    if answer.ladders.is_empty() {
        let everybody = answer.receivers.join(", ");
        let text = match answer.receivers.is_empty() {
            true => bad("nobody is told: no [[receiver]] is configured"),
            false => Span::from(format!("no ladder: every page goes to every receiver at once ({everybody})")),
        };
        page.line([text]);
    }
    if !answer.contacts.is_empty() {
        page.gap();
        page.line([bold("contacts")]);
        let row = |one: &proto::Contact| {
            let routes = match one.receivers.is_empty() {
                true => warn("call by hand"),
                false => good(format!("paged by {}", one.receivers.join(", "))),
            };
            let by_hand = [&one.phone, &one.mail, &one.url];
            let by_hand: Vec<&str> = by_hand.iter().filter(|text| !text.is_empty()).map(|text| text.as_str()).collect();
            vec![bold(&one.name), dim(&one.role), routes, Span::from(by_hand.join("   "))]
        };
        page.table(2, answer.contacts.iter().map(row).collect());
    }
    for of in &answer.levels {
        page.gap();
        let whose = if of.group.is_empty() { "levels of the cluster's own incidents" } else { "levels of " };
        page.line([bold(format!("{whose}{}", of.group))]);
        let row = |level: &IncidentLevel| {
            vec![
                Span::from(format!("{} {}", level.number, level.name)),
                dim(&level.severity),
                Span::from(objectives(level)),
            ]
        };
        page.table(2, of.levels.iter().map(row).collect());
    }
    page
}

fn ladder_part(page: &mut Page, ladder: &Ladder, answer: &ListContactsResponse) {
    let groups =
        if ladder.groups.is_empty() { "all that no other ladder names".to_owned() } else { ladder.groups.join(", ") };
    let severities = if ladder.severities.is_empty() { "everything".to_owned() } else { ladder.severities.join(", ") };
    page.line([bold(format!("ladder {}", ladder.name)), dim(format!("   for {groups}: {severities}"))]);
    let whom = |name: &String| {
        let known = answer.contacts.iter().find(|one| &one.name == name).filter(|one| !one.receivers.is_empty());
        known.map_or_else(|| format!("{name} (by hand)"), |one| format!("{name} by {}", one.receivers.join(", ")))
    };
    let mut rows: Vec<Vec<Span>> = Vec::new();
    for step in &ladder.steps {
        let when = if step.after_ms == 0 { "at once".to_owned() } else { format!("after {}", span(step.after_ms)) };
        let all: Vec<String> = step.contacts.iter().map(whom).collect();
        rows.push(vec![dim(when), Span::from(all.join("; "))]);
    }
    if ladder.repeat_every_ms > 0 && ladder.repeat_max > 0 {
        let every = format!("everybody again every {}, {} times", span(ladder.repeat_every_ms), ladder.repeat_max);
        rows.push(vec![dim("then"), Span::from(every)]);
    }
    let lasts = |ms: u64| if ms == 0 { "until it is over".to_owned() } else { span(ms) };
    let critical = format!("critical {}", lasts(ladder.critical_ack_lasts_ms));
    let other = format!("anything else {}", lasts(ladder.ack_lasts_ms));
    rows.push(vec![dim("acknowledged"), Span::from(format!("it rests: {critical}, {other}"))]);
    page.table(2, rows);
}
