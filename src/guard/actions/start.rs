//! Starting the server: by the configured words, or by `pg_ctl`.

use std::path::{Path, PathBuf};

use super::End;
use crate::guard::config::Postgres;
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
pub fn start(pg: &Postgres, output: &Path, watch: &mut dyn Watch, what: Start) -> Option<End> {
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
            postgres::program(pg, "pg_ctl", &words, output, until, watch)
        }
    };
    let server = match what {
        Start::Standby => "standby",
        Start::Primary => "primary",
    };
    match ran.ended {
        Ended::Exit(0) => None,
        Ended::Stopped(Stop::Preempted(by)) => Some(End::Preempted(by)),
        _ => Some(End::again(format!("the {server} could not be started: {in_words}"))),
    }
}
