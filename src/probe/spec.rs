//! What is to be probed, and the making of probes from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::Probe;
use super::backup::{BackupFormat, BackupProbe, BackupSource};
use super::dns::DnsProbe;
use super::http::{HttpClients, HttpProbe};
use super::postgres::PostgresProbe;
use super::redis::RedisProbe;
use super::replication::ReplicationProbe;
use super::tcp::TcpProbe;
use crate::domain::plan::RedisEndpoint;
use crate::resolve::Question;

/// What a PostgreSQL server is expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// Either.
    Any,
}

/// What a DNS target must resolve to now: the values of the region that serves; `None` while none does.
pub type ExpectedValues = Arc<dyn Fn() -> Option<Vec<String>> + Send + Sync>;

/// A PostgreSQL server and how to get in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// As libpq's, without a password.
    pub conninfo: String,
    /// File with the password; read at start and again at each connection.
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificates to trust; TLS is required then.
    pub tls_ca_file: Option<PathBuf>,
}

/// One kind of probe with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeSpec {
    /// Fetches a URL.
    Http {
        /// What to fetch.
        url: Url,
        /// The status expected.
        expect_status: u16,
        /// Must be within the first 64 KiB of the body.
        body_contains: Option<String>,
        /// PEM file with the certificates to trust instead of the system's.
        ca_file: Option<PathBuf>,
        /// Follow up to five redirects.
        follow_redirects: bool,
    },
    /// Opens a connection.
    Tcp {
        /// `HOST:PORT`.
        address: String,
    },
    /// Asks a PostgreSQL server.
    Postgres {
        /// Which.
        database: Endpoint,
        /// The role expected.
        expect_role: Role,
        /// Let it write a row at each look, where it is a primary.
        canary: bool,
    },
    /// Asks a standby and its primary.
    Replication {
        /// From.
        primary: Endpoint,
        /// Into.
        standby: Endpoint,
    },
    /// Asks a Redis server and, where one is named, its primary.
    Redis {
        /// Which.
        server: RedisEndpoint,
        /// The one it is to follow.
        primary: Option<RedisEndpoint>,
        /// The role expected; [`Role::Standby`] is a replica.
        expect_role: Role,
    },
    /// Reads when the last good backup was made.
    Backup {
        /// Where that is written.
        source: BackupSource,
        /// What it says.
        format: BackupFormat,
        /// PEM file with the certificates to trust instead of the system's.
        ca_file: Option<PathBuf>,
    },
    /// Asks a name server.
    Dns {
        /// `ADDRESS:PORT`.
        server: String,
        /// Whose record.
        record_name: String,
        /// Its type.
        question: Question,
    },
}

/// Why a probe cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// A file that the target names is of no use.
    #[error("{what} {}: {detail}", file.display())]
    File {
        /// Which setting.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The connection string is of no use.
    #[error("conninfo: {detail}")]
    Conninfo {
        /// What is wrong with it (never the string itself, which may hold a password).
        detail: String,
    },
    /// The URL is none.
    #[error("url {url:?}: {detail}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be set up: {detail}")]
    HttpClient {
        /// Why.
        detail: String,
    },
}

/// What a probe needs to know besides its settings.
#[derive(Clone, Default)]
pub struct ProbeSurroundings {
    /// Who looks at what, for the canary's row: `NODE/TARGET`.
    pub who: String,
    /// The time a look may take, milliseconds.
    pub timeout_ms: u64,
    /// For [`ProbeSpec::Dns`]: what is expected now. Without it any value will do.
    pub expected: Option<ExpectedValues>,
}

/// Makes probes; those made by one builder share what they can.
#[derive(Default)]
pub struct ProbeBuilder {
    http: HttpClients,
}

impl ProbeBuilder {
    /// Makes a probe. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Files that are missing or hold something else; a connection string that cannot be read.
    pub fn build(&mut self, spec: &ProbeSpec, around: ProbeSurroundings) -> Result<Arc<dyn Probe>, ProbeError> {
        let timeout_ms = around.timeout_ms;
        Ok(match spec.clone() {
            ProbeSpec::Http { url, expect_status, body_contains, ca_file, follow_redirects } => {
                let (body, ca) = (body_contains, ca_file.as_deref());
                Arc::new(HttpProbe::new(&mut self.http, url, expect_status, body, ca, follow_redirects)?)
            }
            ProbeSpec::Tcp { address } => Arc::new(TcpProbe::new(address)),
            ProbeSpec::Postgres { database, expect_role, canary } => {
                let who = canary.then_some(around.who.as_str());
                Arc::new(PostgresProbe::new(&database, timeout_ms, expect_role, who)?)
            }
            ProbeSpec::Replication { primary, standby } => {
                Arc::new(ReplicationProbe::new(&primary, &standby, timeout_ms)?)
            }
            ProbeSpec::Redis { server, primary, expect_role } => {
                Arc::new(RedisProbe::new(server, primary, expect_role, timeout_ms))
            }
            ProbeSpec::Backup { source, format, ca_file } => {
                Arc::new(BackupProbe::new(&mut self.http, source, format, ca_file.as_deref())?)
            }
            ProbeSpec::Dns { server, record_name, question } => {
                // Shorter than the supervised time, so that the failure can say what came instead of an answer.
                let limit = Duration::from_millis(timeout_ms / 10 * 9);
                Arc::new(DnsProbe::new(server, record_name, question, around.expected, limit))
            }
        })
    }
}
