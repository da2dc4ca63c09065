//! What the service manager shows of a node, and that the node still lives.

use std::sync::Arc;

use super::backend::Backend;
use crate::api::backend::{AdminBackend as _, NodeStanding};
use crate::systemd;

/// Says that the node serves, then how it stands whenever that changes. Never returns.
pub async fn keep_told(backend: Arc<Backend>) {
    let mut standing = backend.standing();
    systemd::ready(&in_words(&standing.borrow_and_update().clone()));
    let shown = async {
        while standing.changed().await.is_ok() {
            systemd::status(&in_words(&standing.borrow_and_update().clone()));
        }
        std::future::pending::<()>().await;
    };
    tokio::join!(shown, systemd::keep_alive());
}

fn in_words(standing: &NodeStanding) -> String {
    let NodeStanding { name, term, note, .. } = standing;
    match &standing.leader {
        Some(_) if standing.is_leader() && standing.has_quorum => format!("{name} leads in term {term}"),
        Some(leader) if standing.has_quorum => format!("{name} follows {} in term {term}", leader.name),
        _ => format!("{name} has no quorum or no leader: {note}"),
    }
}
