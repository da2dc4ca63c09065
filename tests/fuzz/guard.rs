//! Requests to a guard: as bytes, and as served on an enrolled host. What is refused changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use watchdog::domain::ids::{GroupName, Token};
use watchdog::guard::config::Config;
use watchdog::guard::enroll::{Enrolment, enroll};
use watchdog::guard::handler::{answer, parse, read_request, serve};
use watchdog::guard::host;
use watchdog::guard::protocol::{ANSWER_BYTES_MAX, Refusal, Reply};
use watchdog::guard::token_store::{self, GroupFiles};

use crate::corpus;
use crate::runner::{Target, Trial, holds};

pub fn any_request_is_read_as_it_is_printed_or_refused() -> Trial {
    Target::new("guard-requests", corpus::of("guard-request")).cases(1000).judged_by(move |bytes| {
        let parsed = parse(bytes);
        // A few bytes at a time, as a pipe may give them.
        let piped = read_request(Trickle(bytes));
        match (&parsed, piped) {
            (Ok(request), piped) => {
                let printed = serde_json::to_vec(request).unwrap();
                holds(parse(&printed).as_ref() == Ok(request), || format!("{request:?} comes back as another"))?;
                holds(piped.as_ref() == Ok(request), || format!("read as {piped:?}"))
            }
            // What follows the first line was not waited for: there the pipe may see less.
            (Err(why), Err(early)) => {
                let told = matches!(*early, Reply::Refused { refusal: Refusal::BadRequest, .. });
                holds(told && !why.is_empty(), || format!("{early:?}"))
            }
            (Err(why), Ok(_)) => {
                holds(why.contains("more than one line") || why.contains("longer than"), || why.clone())
            }
        }
    })
}

struct Trickle<'a>(&'a [u8]);

impl std::io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let few = buffer.len().min(777);
        self.0.read(&mut buffer[..few])
    }
}

const CONFIG: &str = r#"
cluster = "demo"
state_dir = "DIR/state"
groups = ["aicamera"]

[action.once]
argv = [["/bin/true"]]
read_back = ["/bin/false"]
user = "root"
timeout_s = 10

[action.scale]
argv = [["/bin/echo", "--replicas", "{replicas}"]]
user = "root"
timeout_s = 10
repeatable = true
[action.scale.params.replicas]
chars = "0-9"
max_length = 3
"#;

/// A host that is enrolled and holds token 1.5.
struct Enrolled {
    dir: tempfile::TempDir,
    config: Config,
    files: GroupFiles,
    group: GroupName,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Enrolled {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guard.toml");
        fs::write(&path, CONFIG.replace("DIR", &dir.path().display().to_string())).unwrap();
        let config = Config::load(&path).unwrap();
        let group = GroupName::from("aicamera");
        let (cluster, confirm) = ("demo".into(), host::name());
        enroll(&config, &Enrolment { group: group.clone(), cluster, epoch: 1, confirm, floor: 5, latch: None })
            .unwrap();
        let files = GroupFiles::new(&config.state_dir, &group);
        let before = every_file(&config.state_dir);
        Self { dir, config, files, group, before }
    }

    fn held(&self) -> Token {
        token_store::load(&self.files, &self.group).unwrap().token
    }

    /// As it was enrolled.
    fn restore(&self) {
        let now = every_file(&self.config.state_dir);
        for path in now.keys().filter(|path| !self.before.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in self.before.iter().filter(|(path, bytes)| now.get(*path) != Some(*bytes)) {
            fs::write(path, bytes).unwrap();
        }
    }

    /// Names of the files that are not as they were.
    fn changed(&self) -> Vec<String> {
        let now = every_file(&self.config.state_dir);
        let all = self.before.keys().chain(now.keys());
        let mut changed: Vec<String> = all
            .filter(|path| now.get(*path) != self.before.get(*path))
            .map(|path| path.strip_prefix(self.dir.path()).unwrap().display().to_string())
            .collect();
        changed.sort();
        changed.dedup();
        changed
    }
}

fn every_file(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(every_file(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

pub fn any_request_to_an_enrolled_host_is_answered_and_a_refused_one_changes_nothing() -> Trial {
    use Refusal::{BadParameter, DamagedLedger, Latched, UnknownAction};
    let host = Enrolled::new();
    let held = host.held();
    Target::new("guard-serving", corpus::of("guard-request")).cases(300).judged_by(move |bytes| {
        host.restore();
        let reply = serve(&host.config, read_request(bytes));
        let changed = host.changed();
        let line = serde_json::to_string(&answer(reply.clone())).unwrap();
        holds(line.len() < ANSWER_BYTES_MAX, || format!("an answer of {} bytes", line.len()))?;
        holds(host.held() >= held, || format!("the store went back to {}", host.held()))?;
        let only_raised = || changed.iter().all(|name| name == "state/aicamera/token.json");
        match reply {
            Reply::Status(_) => holds(changed.is_empty(), || format!("status changed {changed:?}")),
            // The token was sound and is remembered; the action was not.
            Reply::Refused { refusal: UnknownAction | BadParameter | Latched | DamagedLedger, .. } => {
                holds(only_raised(), || format!("refused, and yet changed {changed:?}"))
            }
            Reply::Refused { .. } => holds(changed.is_empty(), || format!("refused, and yet changed {changed:?}")),
            Reply::Raised { held, .. } => holds(only_raised() && held == host.held(), || format!("{changed:?}")),
            _ => Ok(()),
        }
    })
}
