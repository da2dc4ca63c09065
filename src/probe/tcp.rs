//! Whether a TCP connection can be opened. Says nothing about what listens there.

use async_trait::async_trait;
use tokio::net::TcpStream;

use super::{Probe, failure};
use crate::domain::observation::{Failure, Measure};

/// Opens a connection and closes it.
pub struct TcpProbe {
    address: String,
}

impl TcpProbe {
    /// `address` is `HOST:PORT`.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

#[async_trait]
impl Probe for TcpProbe {
    async fn probe(&self) -> Result<Option<Measure>, Failure> {
        match TcpStream::connect(&self.address).await {
            Ok(_) => Ok(None),
            Err(e) => Err(failure::from_error(&format!("tcp {}", self.address), &e)),
        }
    }
}
