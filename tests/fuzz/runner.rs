//! Runs one property over mutated and random bytes, or over one input at a time for who chooses them by coverage
//! (`libfuzzer`). `FUZZ_CASES` raises the cases of each target, `FUZZ_SEED` repeats a run.

use std::any::Any;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use crate::mutate::any_input;
use crate::{corpus, meter};

/// No case takes longer, however busy the machine is.
const CASE_LIMIT: Duration = Duration::from_secs(20);
/// Bytes of a failing input that are printed.
const SHOWN: usize = 4000;

/// One target: its corpus, and its bounds.
pub struct Target {
    pub name: &'static str,
    pub corpus: Vec<Vec<u8>>,
    /// Cases in the everyday run.
    pub cases: u32,
    /// One case may hold so much memory, bytes.
    pub memory_max: usize,
    /// Panics that the code under test catches itself and turns into errors are no fault.
    pub catches: bool,
}

/// `Err` says what does not hold.
type Property = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// A target and what must hold there of any bytes, with everything it needs set up.
pub struct Trial {
    pub target: Target,
    property: Property,
    _kept: Box<dyn Any>,
}

impl Target {
    /// With what suits a parser of small things. Its corpus: genuine inputs, and what guided runs found.
    pub fn new(name: &'static str, mut corpus: Vec<Vec<u8>>) -> Self {
        assert!(!corpus.is_empty(), "{name}: no corpus");
        corpus.extend(corpus::found(name));
        Self { name, corpus, cases: 400, memory_max: 16 << 20, catches: false }
    }

    pub fn cases(self, cases: u32) -> Self {
        Self { cases, ..self }
    }

    pub fn judged_by(self, property: impl Fn(&[u8]) -> Result<(), String> + 'static) -> Trial {
        Trial { target: self, property: Box::new(property), _kept: Box::new(()) }
    }
}

impl Trial {
    /// With something that must last as long: a folder, a server.
    pub fn keeping(self, what: impl Any) -> Self {
        Self { _kept: Box::new(what), ..self }
    }

    /// Everyday: the corpus first, as it is; then mutated.
    pub fn run(self) {
        let Target { name, corpus, cases: everyday, .. } = &self.target;
        for input in corpus {
            self.one(input);
        }
        let (seed, cases) = (seed(), cases(*everyday));
        // No files: what was found is kept as a test with a name.
        let config = Config {
            cases,
            failure_persistence: None,
            max_shrink_iters: 400,
            rng_seed: RngSeed::Fixed(seed),
            ..Config::default()
        };
        let result = TestRunner::new(config)
            .run(&any_input(corpus.clone()), |input| self.judge(&input.0).map_err(TestCaseError::fail));
        match result {
            Ok(()) => eprintln!("{name}: {cases} cases, FUZZ_SEED={seed}"),
            Err(TestError::Fail(why, input)) => {
                panic!("{name}: {why}\nFUZZ_SEED={seed} FUZZ_CASES={cases}\n{}", shown(&input.0))
            }
            Err(TestError::Abort(why)) => panic!("{name}: {why}"),
        }
    }

    /// One input, whoever chose it. Panics where something does not hold.
    pub fn one(&self, input: &[u8]) {
        self.judge(input).unwrap_or_else(|why| panic!("{}: {why}\n{}", self.target.name, shown(input)));
    }

    fn judge(&self, input: &[u8]) -> Result<(), String> {
        meter::install();
        let started = Instant::now();
        let (verdict, cost) = meter::measured(|| (self.property)(input));
        verdict?;
        if let Some(panic) = cost.panics.first().filter(|_| !self.target.catches) {
            return Err(format!("somebody panicked: {panic}"));
        }
        if cost.bytes > self.target.memory_max {
            return Err(format!("it held {} bytes, more than {}", cost.bytes, self.target.memory_max));
        }
        match started.elapsed() {
            took if took > CASE_LIMIT => Err(format!("it took {} ms", took.as_millis())),
            _ => Ok(()),
        }
    }
}

/// `Ok` where it holds.
pub fn holds(truth: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if truth { Ok(()) } else { Err(what()) }
}

/// Nothing of it moves a terminal's cursor or colours it.
pub fn printable(text: &str) -> Result<(), String> {
    holds(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), || format!("control characters in {text:?}"))
}

/// One runtime on this thread, so that what a task panics or holds is counted here.
pub fn runtime() -> tokio::runtime::Runtime {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn shown(input: &[u8]) -> String {
    let cut = input.get(..SHOWN).unwrap_or(input);
    format!("{} bytes: \"{}\"", input.len(), cut.escape_ascii())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

fn seed() -> u64 {
    number("FUZZ_SEED").unwrap_or_else(rand::random)
}

/// `FUZZ_CASES` are those of a target of usual cost; a dear one has its share of it.
fn cases(everyday: u32) -> u32 {
    let Some(asked) = number("FUZZ_CASES") else { return everyday };
    u32::try_from(asked * u64::from(everyday) / 400).unwrap_or(u32::MAX).max(everyday)
}
