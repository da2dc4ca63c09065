//! A held connection to one PostgreSQL server: opened when needed, kept between looks, and told of when it closes.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Endpoint, ProbeError, failure};
use crate::domain::observation::{Failure, FailureKind};

/// A password file longer than this is none.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// A connection in use, or held for the next look.
pub struct Held {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The server, and a connection to it where one is open.
pub struct Link {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    password_file: Option<PathBuf>,
    place: String,
    setup: String,
    held: Mutex<Option<Held>>,
    closed: Arc<Notify>,
}

impl Link {
    /// Checks what can be checked without the server, which gives up on a statement after `timeout_ms`.
    ///
    /// # Errors
    /// A connection string that cannot be read, or a file that is missing.
    pub fn new(spec: &Endpoint, timeout_ms: u64) -> Result<Self, ProbeError> {
        let conninfo_error = |detail: String| ProbeError::Conninfo { detail };
        let mut config = Config::from_str(&spec.conninfo).map_err(|e| conninfo_error(failure::words(&e)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(conninfo_error("it names no host".to_owned()));
        }
        if config.get_application_name().is_none() {
            config.application_name("watchdog");
        }
        let tls = match &spec.tls_ca_file {
            Some(file) => {
                config.ssl_mode(SslMode::Require);
                Some(tls_of(roots_from(file)?)?)
            }
            None if config.get_ssl_mode() == SslMode::Require => {
                Some(tls_of(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())?)
            }
            // `prefer` without anything to verify against would be no better than plain.
            None => {
                config.ssl_mode(SslMode::Disable);
                None
            }
        };
        let link = Self {
            place: place_of(&config),
            // A probe's writes must reach this server's own disk, and are no reason to wait for another's.
            setup: format!("SET statement_timeout = {}; SET synchronous_commit = local", timeout_ms.max(1)),
            config,
            tls,
            password_file: spec.password_file.clone(),
            held: Mutex::new(None),
            closed: Arc::new(Notify::new()),
        };
        link.password()?;
        Ok(link)
    }

    /// What is probed, in words: `postgres HOST:PORT/DATABASE`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Told when a held connection closes.
    pub fn closed(&self) -> Arc<Notify> {
        self.closed.clone()
    }

    /// Keeps the connection for the next look.
    pub fn put_back(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    /// Takes the held connection out, if it is still open. Not put back, it is closed.
    pub fn take(&self) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        held.filter(|held| !held.client.is_closed())
    }

    /// The first row of `sql` over the held connection, or over a new one where that is lost.
    pub async fn read(&self, sql: &str) -> Result<(Held, SimpleQueryRow), Failure> {
        if let Some(held) = self.take() {
            match first_row(&held, sql).await {
                Ok(Some(row)) => return Ok((held, row)),
                Ok(None) => return Err(self.no_row()),
                Err(e) if is_lost(&e) => {}
                Err(e) => return Err(self.failed(&e)),
            }
        }
        self.read_anew(sql).await
    }

    /// The first row of `sql` over a new connection.
    pub async fn read_anew(&self, sql: &str) -> Result<(Held, SimpleQueryRow), Failure> {
        let held = self.connect().await?;
        match first_row(&held, sql).await {
            Ok(Some(row)) => Ok((held, row)),
            Ok(None) => Err(self.no_row()),
            Err(e) => Err(self.failed(&e)),
        }
    }

    /// Runs statements that give no rows.
    pub async fn execute(&self, held: &Held, sql: &str) -> Result<(), tokio_postgres::Error> {
        held.client.batch_execute(sql).await
    }

    /// The failure that an error of the driver means.
    pub fn failed(&self, error: &tokio_postgres::Error) -> Failure {
        let (kind, detail) = match error.as_db_error() {
            Some(db) => {
                let words = format!("{}: {} ({})", self.place, db.message(), db.code().code());
                (of_state(db.code()), words)
            }
            None => (of_driver(error), format!("{}: {}", self.place, failure::words(error))),
        };
        failure::failure(kind, detail)
    }

    /// A failure in our own words.
    pub fn failure(&self, kind: FailureKind, what: impl AsRef<str>) -> Failure {
        failure::failure(kind, format!("{}: {}", self.place, what.as_ref()))
    }

    fn no_row(&self) -> Failure {
        self.failure(FailureKind::WrongAnswer, "answered without the row asked for")
    }

    async fn connect(&self) -> Result<Held, Failure> {
        let mut config = self.config.clone();
        match self.password() {
            Ok(Some(password)) => {
                config.password(password);
            }
            Ok(None) => {}
            Err(e) => return Err(self.failure(FailureKind::OurFault, e.to_string())),
        }
        let closed = self.closed.clone();
        let (client, driver) = match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await.map_err(|e| self.failed(&e))?;
                (client, drive(connection, closed))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(|e| self.failed(&e))?;
                (client, drive(connection, closed))
            }
        };
        let held = Held { client, driver };
        held.client.batch_execute(&self.setup).await.map_err(|e| self.failed(&e))?;
        Ok(held)
    }

    /// Read again for each connection, so that a changed password needs no restart.
    fn password(&self) -> Result<Option<String>, ProbeError> {
        let Some(file) = &self.password_file else { return Ok(None) };
        let unreadable = |detail: String| ProbeError::File { what: "password_file", file: file.clone(), detail };
        let length = std::fs::metadata(file).map_err(|e| unreadable(e.to_string()))?.len();
        if length > MAX_PASSWORD_BYTES {
            return Err(unreadable(format!("{length} bytes are no password; at most {MAX_PASSWORD_BYTES}")));
        }
        let text = std::fs::read_to_string(file).map_err(|e| unreadable(e.to_string()))?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }
}

fn drive<S, T>(connection: tokio_postgres::Connection<S, T>, closed: Arc<Notify>) -> JoinHandle<()>
where
    tokio_postgres::Connection<S, T>: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    tokio::spawn(async move {
        // Why it ended does not matter here: the next look will tell.
        let _ = connection.await;
        closed.notify_one();
    })
}

async fn first_row(held: &Held, sql: &str) -> Result<Option<SimpleQueryRow>, tokio_postgres::Error> {
    let messages = held.client.simple_query(sql).await?;
    Ok(messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }))
}

/// The connection is gone, which says nothing yet about whether another can be had.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => code.code().starts_with("57P0") || code.code().starts_with("08"),
        None => true,
    }
}

fn of_driver(error: &tokio_postgres::Error) -> FailureKind {
    // The driver's kinds are private; its words are not.
    let words = failure::words(error);
    let ours = ["authentication error", "invalid configuration", "server does not support TLS", "no hostname provided"];
    if ours.iter().any(|start| words.contains(start)) { FailureKind::OurFault } else { failure::kind_of(error) }
}

fn of_state(code: &SqlState) -> FailureKind {
    match code.code() {
        // Wrong user, password, database or pg_hba; not allowed to look; something we ask for does not exist here.
        "28P01" | "28000" | "3D000" | "42501" | "42P01" | "42703" | "42883" | "0A000" => FailureKind::OurFault,
        // Starting up, shutting down, recovering from a crash.
        "57P01" | "57P02" | "57P03" => FailureKind::WrongAnswer,
        // Cancelled by the statement time-out that we set.
        "57014" => FailureKind::TimedOut,
        // Read-only transaction.
        "25006" => FailureKind::Unusable,
        // Out of connections, memory or disk; system errors; internal errors and corruption.
        code if ["53", "58", "XX"].iter().any(|class| code.starts_with(class)) => FailureKind::Unusable,
        _ => FailureKind::WrongAnswer,
    }
}

fn roots_from(file: &Path) -> Result<rustls::RootCertStore, ProbeError> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let unreadable = |detail: String| ProbeError::File { what: "tls_ca_file", file: file.to_owned(), detail };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unreadable(e.to_string()))? {
        let certificate = certificate.map_err(|e| unreadable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unreadable(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("it holds no certificate in PEM".to_owned()));
    }
    Ok(roots)
}

fn tls_of(roots: rustls::RootCertStore) -> Result<MakeRustlsConnect, ProbeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ProbeError::Conninfo { detail: format!("TLS cannot be set up: {e}") })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// `postgres HOST:PORT/DATABASE`: no user, no password.
fn place_of(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("postgres {host}:{port}/{}", config.get_dbname().or(config.get_user()).unwrap_or(""))
}

/// A log position `X/Y` as a byte position.
pub(super) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |hex: &str| {
        let plain = !hex.is_empty() && hex.len() <= 8 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        if plain { u64::from_str_radix(hex, 16).ok() } else { None }
    };
    Some(part(high)? << 32 | part(low)?)
}

/// A column of the answer; `None` where it is NULL.
///
/// # Errors
/// The column is missing, or its text is not of the form `read` takes.
pub(super) fn column<T>(
    link: &Link,
    row: &SimpleQueryRow,
    name: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let text = row
        .try_get(name)
        .map_err(|_| link.failure(FailureKind::WrongAnswer, format!("the answer has no column {name}")))?;
    match text {
        None => Ok(None),
        Some(text) => read(text)
            .map(Some)
            .ok_or_else(|| link.failure(FailureKind::WrongAnswer, format!("{name} reads {text:?}, which is none"))),
    }
}

/// A boolean as PostgreSQL prints it.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

/// How long the last part of a look may take, so that it ends before the look is dropped as a whole.
pub(super) fn remaining(timeout_ms: u64, started: tokio::time::Instant) -> Duration {
    Duration::from_millis(timeout_ms / 10 * 9).saturating_sub(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_positions_are_read_strictly() {
        let table = [
            ("0/0", Some(0)),
            ("0/3000148", Some(0x300_0148)),
            ("16/B374D848", Some(0x16_B374_D848)),
            ("FFFFFFFF/FFFFFFFF", Some(u64::MAX)),
            ("", None),
            ("/", None),
            ("1", None),
            ("1/", None),
            ("+1/2", None),
            ("1/123456789", None),
            ("1/2/3", None),
            ("g/1", None),
        ];
        for (text, wanted) in table {
            assert_eq!(parse_lsn(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_bad_connection_string_is_named() {
        let spec = |conninfo: &str| Endpoint { conninfo: conninfo.to_owned(), ..Endpoint::default() };
        for (conninfo, wanted) in [
            ("user=watchdog", "names no host"),
            ("host=127.0.0.1 port=many", "invalid connection string"),
            ("nonsense", "invalid connection string"),
        ] {
            let error = Link::new(&spec(conninfo), 1000).err().expect("it is wrong").to_string();
            assert!(error.contains(wanted), "{conninfo}: {error}");
        }
        let missing =
            Endpoint { password_file: Some("/nonexistent/password".into()), ..spec("host=127.0.0.1 user=watchdog") };
        let error = Link::new(&missing, 1000).err().expect("the file is missing").to_string();
        assert!(error.contains("password_file") && error.contains("/nonexistent/password"), "{error}");
    }

    #[test]
    fn states_are_told_apart() {
        for (code, wanted) in [
            ("28P01", FailureKind::OurFault),
            ("3D000", FailureKind::OurFault),
            ("57P03", FailureKind::WrongAnswer),
            ("53300", FailureKind::Unusable),
            ("53100", FailureKind::Unusable),
            ("25006", FailureKind::Unusable),
            ("XX001", FailureKind::Unusable),
            ("58030", FailureKind::Unusable),
            ("22000", FailureKind::WrongAnswer),
        ] {
            assert_eq!(of_state(&SqlState::from_code(code)), wanted, "{code}");
        }
    }
}
