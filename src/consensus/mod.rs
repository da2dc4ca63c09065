//! The replicated log and state: openraft over redb and gRPC.
//!
//! Reading order: [`Consensus`] is what the rest of a node uses; `types`, `store` (the log on disk), `state_machine`
//! (what applying does), `network` (calls between nodes), `membership` (who is in the cluster).

mod error;
mod handle;
mod membership;
mod network;
mod options;
mod state_machine;
mod store;
mod types;

pub use error::{BootstrapError, ConfirmError, LeaderHint, MembershipError, ProposeError, StartError, TransferError};
pub use handle::{Consensus, Leadership};
pub use membership::Membership;
pub use network::wire;
pub use network::{Dial, Line, LineError, PeerError, PeerService, Pong};
pub use options::{Options, Retention, Timing};
pub use state_machine::{SnapshotBuilder, StateMachine};
pub use store::{MARK_FILE, Reached, STORE_FILE, Store, StoreError};
pub use types::{Identity, MAX_COMMAND_BYTES, MAX_MESSAGE_BYTES, MAX_SNAPSHOT_BYTES, Node, TypeConfig};
