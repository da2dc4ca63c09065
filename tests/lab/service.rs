//! The application's service in a region: `/health` writes to its region's database and reads it back.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::DR;
use super::postgres::connect;
use super::process::MARK;
use super::trip::{Point, hold_async};

/// What it needs to know.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The region it serves.
    #[arg(long)]
    pub region: String,
    /// Where it answers.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Its region's database.
    #[arg(long)]
    pub conninfo: String,
    /// Where to write its process id once it listens.
    #[arg(long)]
    pub pid_file: PathBuf,
}

struct Shared {
    settings: Settings,
    session: Mutex<Option<Client>>,
}

/// Serves until it is killed.
pub async fn serve(settings: Settings) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("the service in {} cannot listen on {}", settings.region, settings.listen))?;
    fs::write(&settings.pid_file, std::process::id().to_string())?;
    println!("serving {} on {}", settings.region, settings.listen);
    let shared = Arc::new(Shared { settings, session: Mutex::new(None) });
    let app = Router::new().route("/health", get(health)).with_state(shared);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn health(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let region = &shared.settings.region;
    let trips = std::env::var_os(MARK).map(PathBuf::from).filter(|_| region == DR);
    if let Some(folder) = &trips {
        hold_async(folder.clone(), "verify", Point::Before).await;
    }
    let answer = match tokio::time::timeout(Duration::from_secs(2), use_database(&shared)).await {
        Ok(Ok(at)) => (StatusCode::OK, Json(json!({"region": region, "database": "writable", "at": at}))),
        Ok(Err(error)) => {
            // A fresh session for the next question.
            *shared.session.lock().await = None;
            unwell(region, &format!("{error:#}"))
        }
        Err(_) => unwell(region, "the database did not answer within 2 s"),
    };
    if let Some(folder) = trips {
        hold_async(folder, "verify", Point::After).await;
    }
    answer
}

fn unwell(region: &str, why: &str) -> (StatusCode, Json<Value>) {
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"region": region, "database": why})))
}

async fn use_database(shared: &Shared) -> Result<String> {
    let mut session = shared.session.lock().await;
    let client = match session.take().filter(|client| !client.is_closed()) {
        Some(client) => session.insert(client),
        None => session.insert(connect(&shared.settings.conninfo).await?),
    };
    let row = client
        .query_one(
            "insert into health values ($1, clock_timestamp())
             on conflict (region) do update set at = excluded.at returning at::text",
            &[&shared.settings.region],
        )
        .await?;
    Ok(row.get(0))
}

/// The process id a running service wrote, if it lives.
pub fn running(pid_file: &Path) -> Option<u32> {
    let pid = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    super::process::is_running(pid).then_some(pid)
}
