//! Telling, wired: the leader delivers the replicated outbox; a node without quorum pages by itself (P8).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use url::Url;

use super::ServerError;
use super::backend::Backend;
use super::journal::RaftJournal;
use crate::api::backend::AdminBackend as _;
use crate::clock::unix_now;
use crate::config::{Address, Config, ReceiverKind};
use crate::consensus::Consensus;
use crate::coordinator::Journal as _;
use crate::domain::command::{Change, Command};
use crate::domain::ids::{ClusterName, NodeId, NodeName, Principal};
use crate::domain::page::PageAction;
use crate::notify::{self, Dispatcher, NotifyError, Sent, Settle, Told, no_quorum_page};

/// Quorum may be away this long (an election) before a node pages by itself.
const NO_QUORUM_AFTER: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A node that stays without quorum pages again after this.
const TELL_AGAIN: Duration = Duration::from_secs(300);
/// How long one direct page is tried at a stretch.
const DIRECT_PATIENCE: Duration = Duration::from_secs(30);

/// The configuration's receivers as the notifiers take them.
pub fn receivers(config: &Config) -> Result<Vec<notify::ReceiverConfig>, ServerError> {
    config
        .receivers
        .values()
        .map(|receiver| {
            let url = |text: &str| {
                text.parse::<Url>().map_err(|error| ServerError::Receiver {
                    receiver: receiver.name.clone(),
                    source: NotifyError::BaseUrl { address: error.to_string() },
                })
            };
            let kind = match &receiver.kind {
                ReceiverKind::Pagerduty { base_url, routing_key_file } => notify::ReceiverKind::PagerDuty {
                    base_url: url(base_url)?,
                    routing_key_file: routing_key_file.into(),
                },
                ReceiverKind::Alertmanager { base_url, token_file } => notify::ReceiverKind::Alertmanager {
                    base_url: url(base_url)?,
                    token_file: token_file.as_ref().map(Into::into),
                },
                ReceiverKind::Webhook { to, template, secret_file } => notify::ReceiverKind::Webhook {
                    to: match to {
                        Address::Url(to) => notify::Address::Fixed(url(to)?),
                        Address::File(path) => notify::Address::File(path.into()),
                    },
                    template: template.clone(),
                    secret_file: secret_file.as_ref().map(Into::into),
                },
            };
            Ok(notify::ReceiverConfig { name: receiver.name.clone(), kind })
        })
        .collect()
}

/// Commits what became of a page.
struct Committed {
    journal: Arc<RaftJournal>,
    node: NodeId,
    by: Principal,
}

#[async_trait]
impl Settle for Committed {
    async fn settle(&self, told: Told) -> Result<(), String> {
        let change = Change::Told { seq: told.seq, receiver: told.receiver, refused: told.refused };
        let command =
            Command { node: self.node, at: unix_now(), by: self.by.clone(), from: None, request_id: None, change };
        // A rejection says that another leader settled it before: nothing is left to do.
        self.journal.propose(command).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Delivers while this node leads, and commits what became of each page as `by`.
pub async fn deliver(
    dispatcher: Arc<Dispatcher>,
    consensus: Consensus,
    journal: Arc<RaftJournal>,
    node: NodeId,
    by: Principal,
) {
    let mut leadership = journal.leadership();
    let (publish, leading) = watch::channel(false);
    let settle = Committed { journal, node, by };
    let translate = async {
        loop {
            let leads = leadership.borrow_and_update().leads;
            publish.send_if_modified(|current| std::mem::replace(current, leads) != leads);
            if leadership.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::join!(dispatcher.run(consensus.state(), leading, &settle), translate);
}

/// Pages without the log while there is no quorum to commit to it.
pub async fn page_lost_quorum(dispatcher: Arc<Dispatcher>, backend: Arc<Backend>, cluster: ClusterName, own: NodeName) {
    let standing = backend.standing();
    let mut without: Option<tokio::time::Instant> = None;
    let mut is_told = false;
    let mut told_at: Option<tokio::time::Instant> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (has_quorum, note) = {
            let now = standing.borrow();
            (now.has_quorum, now.note.clone())
        };
        if has_quorum {
            without = None;
        } else {
            without.get_or_insert_with(tokio::time::Instant::now);
        }
        let is_due = without.is_some_and(|since| since.elapsed() >= NO_QUORUM_AFTER);
        // Told again now and then: all nodes share one incident, and one that has recovered resolves it for all.
        let is_repeat = is_due && told_at.is_some_and(|at| at.elapsed() >= TELL_AGAIN);
        if is_due == is_told && !is_repeat {
            continue;
        }
        let (action, summary) = if is_due {
            tracing::error!(%note, "no quorum: this node acts on nothing, and pages by itself");
            (PageAction::Trigger, format!("watchdog node {own} has no quorum: no failover is possible ({note})"))
        } else {
            tracing::info!("quorum is back");
            (PageAction::Resolve, format!("watchdog node {own} has a quorum again"))
        };
        let page = no_quorum_page(&cluster, &own, action, summary);
        let mut is_reached = true;
        for (receiver, sent) in dispatcher.direct_page(&page, unix_now(), DIRECT_PATIENCE).await {
            tracing::info!(%receiver, ?sent, "paged directly");
            is_reached &= !matches!(sent, Sent::Retry { .. });
        }
        // A site that lost its peers has often lost its way to the receivers too: it goes on trying.
        if is_reached {
            is_told = is_due;
            told_at = Some(tokio::time::Instant::now());
        }
    }
}
