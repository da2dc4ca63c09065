//! Writing the run's token into the promoted database: the proof that it takes writes, and one more place that refuses
//! a lower token.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Fault;
use crate::domain::attempt::Warrant;
use crate::domain::ids::Token;
use crate::domain::plan::DatabaseEndpoint;

/// Made at the first write, by whoever writes first.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS watchdog_token (group_name text PRIMARY KEY, epoch bigint NOT NULL, \
    n bigint NOT NULL, run text NOT NULL, at timestamptz NOT NULL)";
/// Only a higher token, or the same one by the same run, gets in.
const UPSERT: &str = "INSERT INTO watchdog_token AS held (group_name, epoch, n, run, at) VALUES ($1, $2, $3, $4, now()) \
    ON CONFLICT (group_name) DO UPDATE SET epoch = excluded.epoch, n = excluded.n, run = excluded.run, at = excluded.at \
    WHERE (held.epoch, held.n) < (excluded.epoch, excluded.n) \
    OR ((held.epoch, held.n) = (excluded.epoch, excluded.n) AND held.run = excluded.run)";

/// Writes under one transaction, and only where the server is no standby.
pub(super) async fn write(warrant: &Warrant, database: &DatabaseEndpoint, until: Instant) -> Result<String, Fault> {
    let mut client = connect(database).await?;
    let transaction = client.transaction().await.map_err(|e| words(&e))?;
    in_transaction(warrant, &transaction, until).await?;
    // Where a synchronous standby is wanted and absent, this does not come back: then the database is not writable.
    transaction.commit().await.map_err(|e| format!("the commit failed: {}", words(&e)))?;
    Ok(format!("{} took token {} into watchdog_token", name_of(database), warrant.token))
}

async fn in_transaction(warrant: &Warrant, on: &Transaction<'_>, until: Instant) -> Result<(), Fault> {
    let failed = |e: tokio_postgres::Error| Fault::Fails(words(&e));
    let limit_ms = until.saturating_duration_since(Instant::now()).as_millis().max(1);
    // A statement left behind by a dropped connection shall not hold its locks for longer than we would have waited.
    on.batch_execute(&format!("SET LOCAL statement_timeout = {limit_ms}")).await.map_err(failed)?;
    let row = on.query_one("SELECT pg_is_in_recovery(), to_regclass('watchdog_token') IS NULL", &[]).await;
    let row = row.map_err(failed)?;
    let column = |n: usize| row.try_get::<_, bool>(n).map_err(failed);
    if column(0)? {
        return Err(Fault::Fails("it is a standby (in recovery), not a primary".to_owned()));
    }
    if column(1)? {
        // Two that make it at the same time would collide in the catalogue.
        let lock = "SELECT pg_advisory_xact_lock(hashtext('watchdog_token'))";
        on.query_one(lock, &[]).await.map_err(failed)?;
        on.batch_execute(TABLE).await.map_err(failed)?;
    }
    let number = |n: u64| i64::try_from(n).map_err(|_| Fault::Fails(format!("token {} is too high", warrant.token)));
    let (epoch, n) = (number(warrant.token.epoch)?, number(warrant.token.n)?);
    let (group, run) = (warrant.group.as_str(), warrant.run.as_str());
    if on.execute(UPSERT, &[&group, &epoch, &n, &run]).await.map_err(failed)? == 1 {
        return Ok(());
    }
    let held = on.query_one("SELECT epoch, n FROM watchdog_token WHERE group_name = $1", &[&group]).await;
    let held = held.map_err(failed)?;
    let held = (held.try_get::<_, i64>(0).map_err(failed)?, held.try_get::<_, i64>(1).map_err(failed)?);
    match (u64::try_from(held.0), u64::try_from(held.1)) {
        (Ok(epoch), Ok(n)) => Err(Fault::Held(Token { epoch, n })),
        _ => Err(Fault::Fails(format!("watchdog_token holds {}.{}, which is no token", held.0, held.1))),
    }
}

pub(super) async fn connect(database: &DatabaseEndpoint) -> Result<Client, String> {
    let mut config: Config = database.conninfo.parse().map_err(|e| format!("conninfo: {}", words(&e)))?;
    if let Some(file) = &database.password_file {
        let text = tokio::fs::read_to_string(file).await.map_err(|e| format!("password_file {file}: {e}"))?;
        config.password(text.lines().next().unwrap_or_default());
    }
    config.application_name("watchdog verify");
    let Some(file) = &database.tls_ca_file else {
        config.ssl_mode(SslMode::Disable);
        let (client, connection) = config.connect(NoTls).await.map_err(|e| words(&e))?;
        // It ends when the client is dropped.
        tokio::spawn(connection);
        return Ok(client);
    };
    config.ssl_mode(SslMode::Require);
    let tls = tls(Path::new(file)).map_err(|e| format!("tls_ca_file {file}: {e}"))?;
    let (client, connection) = config.connect(tls).await.map_err(|e| words(&e))?;
    tokio::spawn(connection);
    Ok(client)
}

fn tls(authority: &Path) -> Result<MakeRustlsConnect, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).map_err(|e| e.to_string())? {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("no certificate is in it".to_owned());
    }
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Where it is, without user and password.
pub(super) fn name_of(database: &DatabaseEndpoint) -> String {
    use tokio_postgres::config::Host;
    let Ok(config) = database.conninfo.parse::<Config>() else {
        return "a database whose conninfo cannot be read".to_owned();
    };
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    let name = config.get_dbname().or(config.get_user()).unwrap_or("postgres");
    let hosts = hosts.collect::<Vec<_>>().join(",");
    if ports.is_empty() { format!("{hosts}/{name}") } else { format!("{hosts}:{}/{name}", ports.join(",")) }
}

/// The server's own words where it spoke; else the error with its causes.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}
