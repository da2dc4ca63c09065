//! How far a long command is: `(17%)` as PostgreSQL's programs print it, made into the phase that is told of what is in flight.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::guard::exec::{Stop, Watch};
use crate::guard::host::boottime_ms;
use crate::guard::in_flight::Supervisor;

/// Between two looks at what the command prints, milliseconds.
const LOOK_EVERY_MS: u64 = 500;
/// The last of what it printed, bytes.
const TAIL_BYTES: u64 = 400;

/// Watches for a supervisor, and tells it.
pub struct Progress<'a, 'b> {
    supervisor: &'a mut Supervisor<'b>,
    words: &'static str,
    next_ms: u64,
}

impl<'a, 'b> Progress<'a, 'b> {
    /// Of what is done, in words.
    pub fn of(supervisor: &'a mut Supervisor<'b>, words: &'static str) -> Self {
        supervisor.phase(words);
        Self { supervisor, words, next_ms: 0 }
    }
}

impl Watch for Progress<'_, '_> {
    fn began(&mut self, process_group: u32) {
        self.supervisor.began(process_group);
    }

    fn stop(&mut self) -> Option<Stop> {
        if boottime_ms() >= self.next_ms {
            self.next_ms = boottime_ms().saturating_add(LOOK_EVERY_MS);
            if let Some(percent) = tail(&self.supervisor.output()).as_deref().and_then(percent_in) {
                self.supervisor.phase(&format!("{} {percent} %", self.words));
            }
        }
        self.supervisor.stop()
    }
}

fn tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn percent_in(said: &str) -> Option<u8> {
    let before = said.rsplit_once("%)")?.0;
    let (_, number) = before.rsplit_once('(')?;
    number.trim().parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_share_printed_counts() {
        for (said, percent) in [
            ("", None),
            ("pg_basebackup: initiating base backup", None),
            ("    0/22953 kB (0%), 0/1 tablespace\n22963/22953 kB (100%), 1/1 tablespace", Some(100)),
            ("  12345/67890 kB (18%) copied\rrest", Some(18)),
            ("(300%)", None),
            ("%)", None),
        ] {
            assert_eq!(percent_in(said), percent, "{said:?}");
        }
    }
}
