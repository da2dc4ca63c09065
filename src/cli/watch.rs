//! `--watch`: the status, a list or the audit, again whenever something changed, from whichever node is there.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::args::Output;
use super::call::{Cluster, Kind, Node, Stands};
use super::error::{CliError, Exit};
use super::live::{Live, Ticks, ended, line};
use super::text::{Page, dim, tell};
use super::{Screen, audit_page, readiness_page, run_page, status_page};
use crate::proto::{
    AuditEntry, GetReadinessRequest, GetReadinessResponse, GetStatusRequest, GetStatusResponse, ListAuditRequest,
    ListRunsRequest, ListRunsResponse, WatchResponse,
};

/// Between two looks for a node, once the view was lost.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A calm cluster tells nothing: ages and deadlines on the page are looked at anew after this.
const CALM_AT_MOST: Duration = Duration::from_secs(5);
/// And not waited for longer than this.
const LOOK: Duration = Duration::from_secs(1);
/// News below a status.
const NEWS_SHOWN: usize = 6;
/// Readiness reads every resource of a plan: not more often than this, whatever changes.
const READY_AT_MOST: Duration = Duration::from_secs(5);
/// And so often when nothing changes in the replicated state: hosts and zones have no bell.
const READY_AT_LEAST: Duration = Duration::from_secs(30);

/// What comes from the cluster.
enum Told {
    Message(Box<WatchResponse>),
    /// The view is lost for now, with why.
    Lost(String),
}

type Telling = mpsc::Receiver<Result<Told, CliError>>;

/// Keeps a stream open, at one node after the other. An error is the last word: it comes where no node answered at all,
/// or one refused.
fn start(cluster: &Cluster, group: &str) -> Telling {
    let (to, telling) = mpsc::channel(8);
    let (cluster, group) = (cluster.again(), group.to_owned());
    tokio::spawn(async move {
        let (mut position, mut is_first) = (String::new(), true);
        loop {
            let lost = match cluster.watch(&group, &position).await {
                Ok(mut stream) => loop {
                    match stream.message().await {
                        Ok(Some(message)) => {
                            position.clone_from(&message.position);
                            is_first = false;
                            if to.send(Ok(Told::Message(Box::new(message)))).await.is_err() {
                                return;
                            }
                        }
                        Ok(None) => break "the node ended the stream".to_owned(),
                        Err(status) if status.code() == tonic::Code::NotFound => {
                            let _ = to.send(Err(CliError::from_status(&status))).await;
                            return;
                        }
                        Err(status) => break status.message().to_owned(),
                    }
                },
                Err(error @ (CliError::Unreachable(_) | CliError::NoQuorum(_) | CliError::Full(_))) if !is_first => {
                    error.to_string()
                }
                Err(error) => {
                    let _ = to.send(Err(error)).await;
                    return;
                }
            };
            if to.send(Ok(Told::Lost(lost))).await.is_err() {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    });
    telling
}

async fn heard(telling: &mut Telling) -> Result<Told, CliError> {
    telling.recv().await.unwrap_or_else(|| Err(CliError::Failed("the view ended".to_owned())))
}

/// `status --watch`.
pub async fn status(cluster: &Cluster, group: Option<&str>, screen: Screen) -> Result<Exit, CliError> {
    let mut telling = start(cluster, group.unwrap_or_default());
    let (mut live, mut news) = (Live::new(screen), VecDeque::new());
    let (mut tick, mut last) = (Ticks::new(), None::<(WatchResponse, Instant)>);
    let ended = ended();
    tokio::pin!(ended);
    loop {
        let told = tokio::select! {
            told = heard(&mut telling) => told?,
            () = tick.tick(), if live.is_drawn() => {
                let due = last.as_mut().filter(|(_, at)| at.elapsed() >= CALM_AT_MOST && !live.is_in_trouble());
                if let Some((message, at)) = due {
                    *at = Instant::now();
                    if let Some(status) = status_now(cluster, group).await {
                        message.status = Some(status);
                        live.show(message, || status_and_news(message, news.make_contiguous()))?;
                    }
                }
                live.draw()?;
                continue;
            }
            over = &mut ended => return over.map(|()| Exit::Ok),
        };
        match told {
            Told::Message(message) => {
                news.extend(message.news.iter().cloned());
                news.drain(..news.len().saturating_sub(NEWS_SHOWN));
                live.show(&message, || status_and_news(&message, news.make_contiguous()))?;
                last = Some((*message, Instant::now()));
            }
            Told::Lost(why) => live.trouble(&why)?,
        }
    }
}

/// How it stands now, where a node says so at once; else what was shown stays, with its time.
async fn status_now(cluster: &Cluster, group: Option<&str>) -> Option<GetStatusResponse> {
    let ask = GetStatusRequest { group: group.unwrap_or_default().to_owned(), local: false };
    cluster.within(LOOK).best_status(ask).await.ok()
}

fn status_and_news(message: &WatchResponse, news: &[AuditEntry]) -> Page {
    let status = message.status.clone().unwrap_or_default();
    let mut page = status_page::page(&status);
    if !message.note.is_empty() {
        page.line([super::text::warn("! "), super::text::warn(&message.note)]);
    }
    if !news.is_empty() {
        page.gap();
        page.line([dim("since")]);
        page.table(2, news.iter().map(audit_page::row).collect());
    }
    page
}

/// `audit --watch`: the newest entries, then each as it is made, as a log is followed.
pub async fn audit(cluster: &Cluster, group: Option<&str>, limit: u32, screen: Screen) -> Result<Exit, CliError> {
    let group = group.unwrap_or_default();
    let mut telling = start(cluster, group);
    let ended = ended();
    tokio::pin!(ended);
    let mut last = None;
    loop {
        let told = tokio::select! {
            told = heard(&mut telling) => told?,
            over = &mut ended => return over.map(|()| Exit::Ok),
        };
        let mut entries = match told {
            Told::Lost(why) => {
                tell(&format!("the view is lost, and looked for at every endpoint: {why}"));
                continue;
            }
            Told::Message(message) => {
                if message.news_missing {
                    tell("some entries are missing here: watchdogctl audit, and each node's audit file, have them");
                }
                message.news
            }
        };
        if last.is_none() {
            // Only now, so that nothing falls between the list and the stream.
            let ask = ListAuditRequest { group: group.to_owned(), limit, ..Default::default() };
            let list = cluster.read(ask, |mut node, ask| async move { node.list_audit(ask).await }).await?;
            entries = list.entries.into_iter().rev().collect();
            last = Some(0);
        }
        let seen = last.unwrap_or_default();
        entries.retain(|entry| entry.index > seen);
        last = entries.last().map(|entry| entry.index).or(last);
        if screen.output == Output::Json {
            entries.iter().try_for_each(line)?;
        } else if !entries.is_empty() {
            let mut page = Page::default();
            page.table(0, entries.iter().map(audit_page::row).collect());
            super::text::print(&page.render(screen.paint))?;
        }
    }
}

/// `run list --watch`.
pub async fn runs(cluster: &Cluster, group: Option<&str>, limit: u32, screen: Screen) -> Result<Exit, CliError> {
    let group = group.unwrap_or_default().to_owned();
    let ask = ListRunsRequest { group: group.clone(), limit, before_run_id: String::new() };
    let asking = || cluster.read(ask.clone(), |mut node: Node, ask| async move { node.list_runs(ask).await });
    let often = Often { at_most: Duration::from_millis(500), at_least: Duration::from_secs(3600) };
    again(cluster, &group, often, screen, asking, |answer: &ListRunsResponse| run_page::list(answer)).await
}

/// `readiness --watch`.
pub async fn readiness(cluster: &Cluster, group: &str, to: Option<&str>, screen: Screen) -> Result<Exit, CliError> {
    let ask = GetReadinessRequest { group: group.to_owned(), to_region: to.unwrap_or_default().to_owned() };
    let call = |mut node: Node, ask| async move { node.get_readiness(ask).await };
    let asking = || cluster.ask(Kind::Patient, ask.clone(), call);
    let often = Often { at_most: READY_AT_MOST, at_least: READY_AT_LEAST };
    again(cluster, group, often, screen, asking, |answer: &GetReadinessResponse| readiness_page::page(answer)).await
}

/// How often something is asked anew.
struct Often {
    at_most: Duration,
    at_least: Duration,
}

/// Asks anew when something happened, or it is time, and shows what differs from before.
async fn again<A: Serialize + Stands, F>(
    cluster: &Cluster,
    group: &str,
    often: Often,
    screen: Screen,
    ask: impl Fn() -> F,
    page: impl Fn(&A) -> Page,
) -> Result<Exit, CliError>
where
    F: Future<Output = Result<A, CliError>>,
{
    let mut telling = start(cluster, group);
    let (mut live, mut tick) = (Live::new(screen), Ticks::new());
    let ended = ended();
    tokio::pin!(ended);
    let (mut shown, mut asked, mut is_due) = (None, None::<Instant>, true);
    // What happens between the first answer and the stream's beginning is no news to the stream.
    let (mut seen_index, mut is_begun) = (0, false);
    loop {
        let since = asked.map_or(Duration::MAX, |at| at.elapsed());
        if is_due && since >= often.at_most || since >= often.at_least {
            (asked, is_due) = (Some(Instant::now()), false);
            let answer = tokio::select! {
                answer = ask() => answer,
                over = &mut ended => return over.map(|()| Exit::Ok),
            };
            match answer {
                Ok(answer) => {
                    seen_index = answer.standing().map_or(0, |standing| standing.as_of_index);
                    let now = without_standing(&answer);
                    if shown.as_ref() != Some(&now) {
                        live.show(&answer, || page(&answer))?;
                        shown = Some(now);
                    }
                }
                Err(error @ (CliError::Unreachable(_) | CliError::NoQuorum(_) | CliError::Full(_)))
                    if shown.is_some() =>
                {
                    is_due = true;
                    live.trouble(&error.to_string())?;
                }
                Err(error) => return Err(error),
            }
        }
        tokio::select! {
            told = heard(&mut telling) => match told? {
                Told::Message(message) => {
                    let standing = message.status.as_ref().and_then(|status| status.standing.as_ref());
                    let is_late = !is_begun && standing.is_some_and(|standing| standing.as_of_index > seen_index);
                    is_begun = true;
                    is_due |= asked.is_some() && (is_late || !message.news.is_empty());
                }
                Told::Lost(why) => live.trouble(&why)?,
            },
            () = tick.tick() => live.draw()?,
            over = &mut ended => return over.map(|()| Exit::Ok),
        }
    }
}

/// What an answer says, without when it was said.
fn without_standing<A: Serialize>(answer: &A) -> serde_json::Value {
    let mut value = serde_json::to_value(answer).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("standing");
    }
    value
}
