//! The lab's program: the demo, the bench, the parts alone, and the small processes the parts consist of.

#[path = "mod.rs"]
mod lab;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real parts on loopback: see a region die and its group fail over.
#[derive(Debug, Parser)]
#[command(name = "lab", max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// See a region die and its group fail over.
    Demo(lab::demo::Wish),
    /// Several failovers without words, and what they took.
    Bench(lab::bench::Wish),
    /// Start the parts without nodes, promote by hand, and say how long that took.
    Floor {
        /// How often.
        #[arg(long, default_value_t = 1)]
        times: u32,
    },
    /// Start everything and leave it running until Ctrl-C.
    Up {
        /// What answers for the zone.
        #[arg(long, value_enum, default_value_t = lab::parts::Zone::Bind)]
        dns: lab::parts::Zone,
        /// Where everything lives; must be empty or not there. A fresh temporary folder by default.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// The parts alone, without nodes.
        #[arg(long)]
        no_nodes: bool,
    },
    /// The service of a region (started by the region's own script).
    #[command(hide = true)]
    Service(lab::service::Settings),
    /// Stands before a guard, so that trip wires can hold what is asked of it.
    #[command(hide = true)]
    Door {
        /// The lab's folder.
        #[arg(long)]
        folder: PathBuf,
        /// The guard.
        #[arg(long)]
        guard: PathBuf,
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Ends whatever carries the folder's mark, once its standard input closes.
    #[command(hide = true)]
    Janitor {
        /// The lab's folder.
        folder: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = Arguments::parse();
    if let Subcommands::Door { folder, guard, config } = &asked.command {
        return lab::door::guard(folder, guard, config).unwrap_or_else(|error| {
            eprintln!("door: {error:#}");
            ExitCode::FAILURE
        });
    }
    let work = async {
        match asked.command {
            Subcommands::Service(settings) => lab::service::serve(settings).await,
            Subcommands::Door { .. } => Ok(()),
            Subcommands::Janitor { folder } => lab::folder::janitor(&folder),
            Subcommands::Demo(wish) => lab::demo::demo(&wish).await,
            Subcommands::Bench(wish) => lab::bench::bench(&wish).await,
            Subcommands::Up { dns, folder, no_nodes } => up(dns, folder, !no_nodes).await,
            Subcommands::Floor { times } => lab::bench::floor(times).await,
        }
    };
    let done = tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => {
            let ended_well = lab::demo::ENDED_WELL.load(std::sync::atomic::Ordering::SeqCst);
            if ended_well { Ok(()) } else { Err(anyhow::anyhow!("interrupted")) }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn up(zone: lab::parts::Zone, folder: Option<PathBuf>, nodes: bool) -> anyhow::Result<()> {
    let mut lab =
        lab::parts::Lab::start(lab::parts::Options { zone, folder, speak: true, ..Default::default() }).await?;
    if nodes {
        lab.start_nodes().await?;
    }
    println!("Everything is in {}. Ctrl-C ends it.", lab.folder.path.display());
    std::future::pending().await
}
