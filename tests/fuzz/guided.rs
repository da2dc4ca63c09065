//! One input at a time, as libFuzzer chooses them: what each program in `libfuzzer/targets` is made of.

use std::cell::OnceCell;
use std::fs;

use crate::corpus::root;
use crate::runner::Trial;
use crate::targets::guided;

thread_local! {
    static TRIAL: OnceCell<Trial> = const { OnceCell::new() };
}

fn trial<T>(name: &str, then: impl FnOnce(&Trial) -> T) -> T {
    let set_up = || guided(name).unwrap_or_else(|| panic!("{name} is no target of tests/fuzz/targets.rs"));
    TRIAL.with(|trial| then(trial.get_or_init(set_up)))
}

/// Writes the target's corpus to where `cargo fuzz` and `scripts/fuzz --guided` begin from, before that is read.
pub fn begin(name: &str) {
    let folder = root().join("tests/fuzz/libfuzzer/corpus").join(name);
    fs::create_dir_all(&folder).unwrap();
    trial(name, |trial| {
        for (nth, input) in trial.target.corpus.iter().enumerate() {
            fs::write(folder.join(format!("seed-{nth:03}")), input).unwrap();
        }
    });
}

/// Panics where something does not hold of it.
pub fn one(name: &str, input: &[u8]) {
    trial(name, |trial| trial.one(input));
}

/// A program that gives a target whatever libFuzzer thinks of.
#[macro_export]
macro_rules! guide {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(init: $crate::guided::begin($name), |input: &[u8]| $crate::guided::one($name, input));
    };
}
