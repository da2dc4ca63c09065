//! The inputs that mutation starts from: genuine ones, `tests/fuzz/corpus/KIND/` and the samples that are shipped; and
//! odd ones that guided runs found to reach further, `tests/fuzz/found/TARGET/`.
//! `FUZZ_WRITE_CORPUS=1 cargo test --test fuzz genuine` writes those anew that follow from our own types.

use std::fs;
use std::path::{Path, PathBuf};

use watchdog::guard::host::boot_nonce;

/// Stands in the corpus for this boot's nonce.
const NONCE: &[u8] = b"BOOT-NONCE";

/// The project's folder, whichever of the two packages this is built in.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if package.ends_with("tests/fuzz/libfuzzer") { package.ancestors().nth(3).unwrap() } else { package }
}

fn all_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// All genuine inputs of a kind.
pub fn of(kind: &str) -> Vec<Vec<u8>> {
    all_of(&root().join("tests/fuzz/corpus").join(kind)).iter().map(|path| read(path)).collect()
}

/// What guided runs of a target found, if anything.
pub fn found(target: &str) -> Vec<Vec<u8>> {
    let folder = root().join("tests/fuzz/found").join(target);
    if !folder.exists() {
        return Vec::new();
    }
    all_of(&folder).iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    while let Some(at) = bytes.windows(NONCE.len()).position(|piece| piece == NONCE) {
        bytes.splice(at..at + NONCE.len(), boot_nonce().into_bytes());
    }
    bytes
}

/// Those of `cluster-config/` whose names are wanted.
pub fn samples(wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let paths = all_of(&root().join("cluster-config"));
    let tomls = paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    let named = tomls.filter(|path| wanted(path.file_name().unwrap().to_str().unwrap()));
    named.map(|path| fs::read(path).unwrap()).collect()
}
