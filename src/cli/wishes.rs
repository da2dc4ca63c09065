//! What an operator may wish to be moved or recovered, as words of the command line.

use clap::{Args, Subcommand};

/// A move of traffic by an operator's word.
#[derive(Debug, Args)]
pub struct TrafficWish {
    /// The group.
    pub group: String,
    /// Where to. Not needed where there is only one other region.
    #[arg(long, value_name = "REGION")]
    pub to: Option<String>,
    /// Why; goes into the audit.
    #[arg(long, required_unless_present = "dry_run", default_value_if("dry_run", "true", "dry run"))]
    pub reason: Option<String>,
    /// Change nothing: print the plan, the gates and what each resource shows. Exits 3 where a gate is closed.
    #[arg(long)]
    pub dry_run: bool,
    /// The group's name typed again instead of being asked for it.
    #[arg(long, value_name = "GROUP")]
    pub yes: Option<String>,
    /// Open the run and do not follow it.
    #[arg(long)]
    pub detach: bool,
}

/// Verbs about one service. Each prints the plan, the gates and what is there first.
#[derive(Debug, Subcommand)]
pub enum ServiceVerb {
    /// Start every instance anew, and wait until the rollout is over.
    Restart(ServiceWish),
    /// Run so many instances, and wait until they do.
    Scale {
        /// Which, why and where.
        #[command(flatten)]
        wish: ServiceWish,
        /// To how many.
        #[arg(long, value_name = "N")]
        replicas: u32,
    },
    /// Go back to the version before, and wait until the rollout is over.
    Rollback(ServiceWish),
}

/// A service's recovery by an operator's word.
#[derive(Debug, Args)]
pub struct ServiceWish {
    /// The group.
    pub group: String,
    /// The service, as a `[[group.service]]` names it.
    pub name: String,
    /// Where. Not needed where it runs in one region only.
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Why; goes into the audit.
    #[arg(long, required_unless_present = "dry_run", default_value_if("dry_run", "true", "dry run"))]
    pub reason: Option<String>,
    /// Change nothing: print the plan, the gates and what the host shows. Exits 3 where a gate is closed.
    #[arg(long)]
    pub dry_run: bool,
    /// The group's name typed again instead of being asked for it.
    #[arg(long, value_name = "GROUP")]
    pub yes: Option<String>,
    /// Open the run and do not follow it.
    #[arg(long)]
    pub detach: bool,
}

/// A planned move or a rejoin by an operator's word.
#[derive(Debug, Args)]
pub struct MoveWish {
    /// The group.
    pub group: String,
    /// Why; goes into the audit.
    #[arg(long, required_unless_present = "dry_run", default_value_if("dry_run", "true", "dry run"))]
    pub reason: Option<String>,
    /// Change nothing: print the plan, the gates and what each resource shows. Exits 3 where a gate is closed.
    #[arg(long)]
    pub dry_run: bool,
    /// The group's name typed again instead of being asked for it.
    #[arg(long, value_name = "GROUP")]
    pub yes: Option<String>,
    /// Open the run and do not follow it.
    #[arg(long)]
    pub detach: bool,
}
