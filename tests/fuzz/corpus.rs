//! The genuine inputs that mutation starts from: `tests/fuzz/corpus/TARGET/`, and the samples that are shipped.
//! `FUZZ_WRITE_CORPUS=1 cargo test --test fuzz genuine` writes those anew that follow from our own types.

use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn all_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// All files of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    all_of(&root().join("tests/fuzz/corpus").join(target)).iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Those of `cluster-config/` whose names are wanted.
pub fn samples(wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let paths = all_of(&root().join("cluster-config"));
    let tomls = paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    let named = tomls.filter(|path| wanted(path.file_name().unwrap().to_str().unwrap()));
    named.map(|path| fs::read(path).unwrap()).collect()
}
