//! A node of the failover watchdog.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use watchdog::config::{self, Config, ConfigError, render};
use watchdog::server;

/// One node of the failover watchdog.
///
/// Nodes in every region elect a leader, watch the protected systems, and fail a lost region over once. All nodes read
/// the same file; --node says which of them this is.
#[derive(Parser)]
#[command(name = "watchdogd", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<Run>,
}

#[derive(clap::Args)]
struct Run {
    /// The cluster's configuration file.
    #[arg(long, env = "WATCHDOG_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// This node's name in it.
    #[arg(long, env = "WATCHDOG_NODE", value_name = "NAME")]
    node: String,
    /// How the log is written to standard error. RUST_LOG filters it (default: info).
    #[arg(long, env = "WATCHDOG_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Judge a configuration file: every fault with its line, and whether each region's loss can be survived.
    ///
    /// Exit code 0: it would start; 1: it would not; 2: wrong usage.
    Check {
        /// The file.
        #[arg(long, env = "WATCHDOG_CONFIG", value_name = "FILE")]
        config: PathBuf,
        /// Also look whether the files it names (keys, passwords, certificates) are there and private, on this machine.
        #[arg(long)]
        files: bool,
        /// With --files: as this node finds them.
        #[arg(long, value_name = "NAME", requires = "files")]
        node: Option<String>,
    },
}

fn main() -> ExitCode {
    // Before anything can make a TLS connection; a second provider is a fault of the build.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let ended = match (args.command, args.run) {
        (Some(Command::Check { config, files, node }), _) => return check_file(&config, files, node.as_deref()),
        (None, Some(run)) => serve(&run),
        (None, None) => Err(anyhow::anyhow!("--config and --node are needed; see --help")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watchdogd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check_file(path: &std::path::Path, files: bool, node: Option<&str>) -> ExitCode {
    let report = match config::check_file(path, files, node) {
        Ok(report) => report,
        Err(error) => {
            let todo =
                if matches!(error, ConfigError::Read { .. }) { "; name a file that is there and readable" } else { "" };
            eprintln!("watchdogd: {error}{todo}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", render(&report, &path.display().to_string()));
    if report.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(run: &Run) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match run.log_format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    let config = Config::load(&run.config)?;
    for warning in &config.warnings {
        tracing::warn!(field = %warning.path, "{}", warning.what);
    }
    let files = config.check_files(Some(&config.node(&run.node)?.name));
    if !files.passes() {
        let path = run.config.clone();
        return Err(ConfigError::Faults { path, report: files }.into());
    }
    // Two threads: a node is idle nearly always, and a stalled one must not hold up heartbeats.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(wait_for_signal(shutdown.clone()));
        server::run(config, &run.node, shutdown).await
    });
    // What still blocks (a name being resolved, a hung disk) does not keep a node from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    Ok(ended?)
}

async fn wait_for_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be waited for; Ctrl-C still works");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
    tracing::info!("stopping");
    shutdown.cancel();
}
