//! Calls between nodes, over gRPC.

mod client;
mod peers;
mod server;
pub mod wire;

pub use peers::{Dial, Line, LineError, PeerError, Pong};
pub use server::PeerService;

pub(super) use client::NetworkFactory;
pub(super) use peers::{Peers, dial_tcp};
pub(super) use server::Contact;
