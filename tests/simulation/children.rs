//! One schedule, one process: asked for by its seed, told by what it prints.

use std::fmt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::drive::{self, Ended};
use crate::mutation::ALL;

/// A schedule that takes longer than this spins without its clock going on.
const PATIENCE: Duration = Duration::from_secs(40);
const RESULT: &str = "RESULT ";

/// What a process is asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    pub seed: u64,
    pub mutant: Option<&'static str>,
}

/// What it told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub seed: u64,
    pub hash: String,
    pub virtual_ms: u64,
    pub commands: u64,
    pub runs: u64,
    pub state: String,
    pub broken: Vec<String>,
    /// Everything it printed.
    pub text: String,
}

impl Told {
    pub fn is_well(&self) -> bool {
        !self.hash.is_empty() && self.broken.is_empty()
    }
}

/// How much was simulated.
#[derive(Debug, Default)]
pub struct Figures {
    pub schedules: u64,
    virtual_ms: u64,
    commands: u64,
    runs: u64,
    states: std::collections::BTreeMap<String, u64>,
}

impl Figures {
    fn add(&mut self, told: &Told) {
        self.schedules += 1;
        self.virtual_ms += told.virtual_ms;
        self.commands += told.commands;
        self.runs += told.runs;
        let state = told.state.split(':').next().unwrap_or_default();
        *self.states.entry(state.to_owned()).or_default() += 1;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.virtual_ms as f64 / 3_600_000.0;
        let Self { schedules, commands, runs, states, .. } = self;
        write!(f, "{schedules} schedules, {hours:.1} h of virtual time, {commands} commands, {runs} runs; {states:?}")
    }
}

pub fn of_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

/// The one schedule that is asked for by `SEED=…`, with `MUTANT=…` where one is named.
pub fn one_seed() -> Option<Asked> {
    let seed = of_environment("SEED")?;
    let name = std::env::var("MUTANT").unwrap_or_default();
    let mutant = ALL.iter().map(|taken| taken.name).find(|known| *known == name);
    Some(Asked { seed, mutant })
}

/// Runs a schedule in a process of its own.
pub fn ask(asked: &Asked) -> Told {
    let program = std::env::current_exe().expect("this test's own program");
    let mut command = Command::new(program);
    command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads", "1"]);
    command.env("CHILD_SEED", asked.seed.to_string()).env("CHILD_MUTANT", asked.mutant.unwrap_or_default());
    let output = command.output().expect("it runs");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    let mut told = Told { seed: asked.seed, ..Told::default() };
    if let Some(line) = text.lines().find_map(|line| line.strip_prefix(RESULT)) {
        let mut parts = line.splitn(5, ' ');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        (told.virtual_ms, told.commands, told.runs) = (number(), number(), number());
        told.hash = parts.next().unwrap_or_default().to_owned();
        told.state = parts.next().unwrap_or_default().to_owned();
    }
    told.broken = text.lines().filter_map(|line| line.strip_prefix("BROKEN ").map(str::to_owned)).collect();
    told.text = text;
    told
}

/// Asks for one schedule after the other, on all cores, until one answers `wanted`; answers the first of those.
pub fn first_that(
    seeds: impl Iterator<Item = u64> + Send,
    mutant: Option<&'static str>,
    figures: &mut Figures,
    wanted: impl Fn(&Told) -> bool + Sync,
) -> Option<Told> {
    let left = Mutex::new((seeds, None::<Told>, std::mem::take(figures)));
    let work = || loop {
        let seed = {
            let mut left = left.lock().expect("whole");
            if left.1.is_some() {
                return;
            }
            let Some(seed) = left.0.next() else { return };
            seed
        };
        let told = ask(&Asked { seed, mutant });
        let is_wanted = wanted(&told);
        let mut left = left.lock().expect("whole");
        left.2.add(&told);
        if is_wanted && left.1.as_ref().is_none_or(|known| known.seed > told.seed) {
            left.1 = Some(told);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (_, found, counted) = left.into_inner().expect("whole");
    *figures = counted;
    found
}

/// In the process: runs what the environment asks for, and prints what came of it.
pub fn child() {
    let Some(seed) = of_environment("CHILD_SEED") else { return };
    let name = std::env::var("CHILD_MUTANT").unwrap_or_default();
    let mutant = ALL.iter().find(|taken| taken.name == name).map(|taken| taken.mutant);
    let (done, ended) = channel();
    // A thread that has hashed nothing yet: whatever it hashes follows from the seed.
    std::thread::spawn(move || drop(done.send(drive::run(seed, mutant))));
    match ended.recv_timeout(PATIENCE) {
        Ok(ended) => print(&ended),
        Err(error) => panic!("seed {seed} came to no end ({error}); LOUD=1 shows how far it gets"),
    }
}

fn print(ended: &Ended) {
    // libtest leaves its own line open.
    println!();
    let is_asked_for = of_environment("SEED").is_some();
    if is_asked_for || !ended.broken.is_empty() {
        println!("seed {}", ended.seed);
        for planned in &ended.planned {
            println!("planned {planned}");
        }
        for (at, what) in &ended.trace {
            println!("{:>9.3} s  {what}", *at as f64 / 1e6);
        }
    }
    for (at, what) in &ended.broken {
        println!("BROKEN {what} (at {:.3} s)", *at as f64 / 1e6);
    }
    let Ended { virtual_ms, commands, runs, hash, state, .. } = ended;
    println!("{RESULT}{virtual_ms} {commands} {runs} {hash} {state}");
}
