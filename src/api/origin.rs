//! From where a call came, as the first node saw its caller: it goes with the call as its span does, so that whatever is
//! proposed for it can say so in the audit.

use tonic::codegen::http::HeaderMap;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::forward::FORWARDED_BY;
use crate::tls::Peer;

/// Header of a forwarded call: from where it came to its first node. Believed of nodes only, as on-behalf-of is.
pub(super) const CALLED_FROM: &str = "watchdog-called-from";

/// No address is longer, bytes: it goes into the audit.
const BYTES_MAX: usize = 64;

tokio::task_local! {
    static ORIGIN: Option<String>;
}

/// Where the call came from that this task answers; nothing outside of a call.
pub fn origin() -> Option<String> {
    ORIGIN.try_with(Clone::clone).ok().flatten()
}

/// Answers a call that came from there.
pub(super) async fn within<T>(origin: Option<String>, answer: impl Future<Output = T>) -> T {
    ORIGIN.scope(origin, answer).await
}

/// What a call's connection and headers say; its headers must have been judged.
pub(super) fn of_call(headers: &HeaderMap, peer: Option<&Peer>) -> Option<String> {
    let is_address =
        |text: &&str| !text.is_empty() && text.len() <= BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    let carried = headers.get(CALLED_FROM).filter(|_| headers.contains_key(FORWARDED_BY));
    let carried = carried.and_then(|value| value.to_str().ok()).filter(is_address);
    carried.map(str::to_owned).or_else(|| peer.and_then(Peer::from).map(|from| from.to_string()))
}

/// Tells the leader.
pub(super) fn carry(metadata: &mut MetadataMap) {
    if let Some(value) = origin().and_then(|from| AsciiMetadataValue::try_from(from).ok()) {
        metadata.insert(CALLED_FROM, value);
    }
}
