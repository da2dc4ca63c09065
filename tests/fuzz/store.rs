//! The store's file with bytes exchanged: it is refused by name, or holds exactly what was written.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;

use watchdog::consensus::{MARK_FILE, STORE_FILE};

use crate::image::{contents, copy, filled, judge};
use crate::runner::{Target, runtime};

/// Damages `file` of a filled store, as closed and as a crash leaves it.
fn damaged(name: &'static str, file: &'static str, cases: u32) {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let (written, crashed) = runtime.block_on(async {
        let store = filled(folder.path()).await;
        let written = contents(store.clone()).await.unwrap();
        let crashed = copy(folder.path());
        store.close().await.unwrap();
        (written, crashed)
    });
    let images = [folder.path(), crashed.path()];
    let corpus = images.iter().map(|image| fs::read(image.join(file)).unwrap()).collect();
    let refused = Rc::new(Cell::new(0));
    // redb panics on some pages; opening turns that into an error with the file's name.
    let target = Target { catches: true, memory_max: 256 << 20, ..Target::new(name, corpus).cases(cases) };
    let seen = refused.clone();
    let trial = target.judged_by(move |bytes| {
        // The other file is the crashed store's: behind none of what the file may hold.
        let damaged = copy(crashed.path());
        fs::write(damaged.path().join(file), bytes).unwrap();
        let other = runtime.block_on(judge(damaged.path(), &[STORE_FILE, MARK_FILE], &written, "fuzzed"));
        seen.set(seen.get() + usize::from(other.is_err()));
        Ok(())
    });
    trial.run();
    assert!(refused.get() > 0, "{name}: nothing was ever refused");
}

#[test]
fn any_store_file_is_refused_by_name_or_whole() {
    damaged("store-file", STORE_FILE, 40);
}

#[test]
fn any_mark_beside_it_is_refused_by_name_or_harmless() {
    damaged("store-mark", MARK_FILE, 40);
}
