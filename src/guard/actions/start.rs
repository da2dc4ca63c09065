//! Starting the server: by the configured words, which bring it where it belongs, or by `pg_ctl` in the gated cgroup: what
//! makes its sockets elsewhere is not gated, and its lease would not be bound.

use std::path::{Path, PathBuf};

use super::{Context, End};
use crate::guard::config::Postgres;
use crate::guard::egress::cgroup::Stay;
use crate::guard::exec::{Ended, Stop, Watch};
use crate::guard::host::boottime_ms;
use crate::guard::postgres;

/// How long the started server may take to answer, milliseconds.
pub const START_MS: u64 = 60_000;

/// As what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A standby.
    Standby,
    /// The primary that it was.
    Primary,
}

/// Starts the server. `Some` where it cannot be, or did not say so in time.
pub fn start(pg: &Postgres, context: &Context<'_>, output: &Path, watch: &mut dyn Watch, what: Start) -> Option<End> {
    let server = match what {
        Start::Standby => "standby",
        Start::Primary => "primary",
    };
    let until = boottime_ms().saturating_add(START_MS);
    let data_dir = pg.data_dir.display().to_string();
    let log = pg.start_log.clone().unwrap_or_else(|| PathBuf::from("/dev/null")).display().to_string();
    let options = pg.start_options.clone().unwrap_or_default();
    let (ran, in_words) = match &pg.start_argv {
        Some(argv) => postgres::run_argv(pg, argv, output, until, watch),
        None => {
            let mut words = vec!["start", "-w", "-t", "60", "-D", &data_dir, "-l", &log];
            if !options.is_empty() {
                words.extend(["-o", &options]);
            }
            let gated = context.config.lease.as_ref().and_then(|lease| lease.gated_cgroup());
            let _stay = match gated.map(Stay::within).transpose() {
                Ok(stay) => stay,
                Err(e) => return Some(End::again(format!("the {server} was not started: {e}"))),
            };
            postgres::program(pg, "pg_ctl", &words, output, until, watch)
        }
    };
    match ran.ended {
        Ended::Exit(0) => None,
        Ended::Stopped(Stop::Preempted(by)) => Some(End::Preempted(by)),
        _ => Some(End::again(format!("the {server} could not be started: {in_words}"))),
    }
}
