//! What is known of a call while it is answered: from where it came, as the first node saw its caller, and what it said of
//! itself. It goes with the call as its span does, so that whatever is proposed or refused can say so in the audit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tonic::codegen::http::HeaderMap;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::forward::FORWARDED_BY;
use crate::domain::ids::{GroupName, Principal};
use crate::tls::Peer;

/// Header of a forwarded call: from where it came to its first node. Believed of nodes only, as on-behalf-of is.
pub(super) const CALLED_FROM: &str = "watchdog-called-from";

/// No address is longer, bytes: it goes into the audit.
const BYTES_MAX: usize = 64;

tokio::task_local! {
    static CALL: Arc<Call>;
}

/// One call.
#[derive(Debug, Default)]
pub struct Call {
    from: Option<String>,
    said: Mutex<Said>,
}

/// What a call said of itself, as far as it was read before it was answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// Who asks.
    pub(super) by: Option<Principal>,
    /// About which group.
    pub(super) group: Option<GroupName>,
    /// Why.
    pub(super) reason: String,
    /// What was decided of it is in the audit.
    pub(super) is_recorded: bool,
}

impl Call {
    /// What its connection and headers say; its headers count only once they were judged.
    pub(super) fn of(headers: &HeaderMap, peer: Option<&Peer>) -> Self {
        let is_address =
            |text: &&str| !text.is_empty() && text.len() <= BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        let carried = headers.get(CALLED_FROM).filter(|_| headers.contains_key(FORWARDED_BY));
        let carried = carried.and_then(|value| value.to_str().ok()).filter(is_address).map(str::to_owned);
        Self { from: carried.or_else(|| address(peer)), said: Mutex::default() }
    }

    /// What its connection alone says.
    pub(super) fn of_connection(peer: Option<&Peer>) -> Self {
        Self { from: address(peer), said: Mutex::default() }
    }

    /// From where.
    pub(super) fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// What it said so far.
    pub(super) fn said(&self) -> Said {
        self.book().clone()
    }

    fn book(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(peer: Option<&Peer>) -> Option<String> {
    peer.and_then(Peer::from).map(|from| from.to_string())
}

/// Outside of a call nothing is noted.
fn note(change: impl FnOnce(&mut Said)) {
    let _ = CALL.try_with(|call| change(&mut call.book()));
}

/// Where the call came from that this task answers; nothing outside of a call.
pub fn origin() -> Option<String> {
    CALL.try_with(|call| call.from.clone()).ok().flatten()
}

/// The call that this task answers, for a task that goes on with it; outside of a call one of which nothing is known.
pub(super) fn current() -> Arc<Call> {
    CALL.try_with(Arc::clone).unwrap_or_default()
}

/// What was decided of this call is in the audit: it need not be entered as refused.
pub fn recorded() {
    note(|said| said.is_recorded = true);
}

/// The call is about this group.
pub(super) fn about(group: &GroupName) {
    note(|said| said.group = Some(group.clone()));
}

/// Who asks, and why.
pub(super) fn asked(by: &Principal, reason: &str) {
    note(|said| {
        said.by = Some(by.clone());
        reason.clone_into(&mut said.reason);
    });
}

/// Answers the call.
pub(super) async fn within<T>(call: Arc<Call>, answer: impl Future<Output = T>) -> T {
    CALL.scope(call, answer).await
}

/// Tells the leader.
pub(super) fn carry(metadata: &mut MetadataMap) {
    if let Some(value) = origin().and_then(|from| AsciiMetadataValue::try_from(from).ok()) {
        metadata.insert(CALLED_FROM, value);
    }
}
