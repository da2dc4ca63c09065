//! Damaged, foreign, locked and full stores: each is an error that names the file, never a panic, never silent loss.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use watchdog::consensus::{Identity, MARK_FILE, STORE_FILE, Store, StoreError};
use watchdog::domain::ids::NodeId;

use crate::image::{contents, copy, entry, filled, judge, log_id, vote};
use crate::support::{SmallDisk, identity};

fn flip(file: &Path, at: u64, mask: u8) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within the file");
    file.write_all_at(&[byte[0] ^ mask], at).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let written = contents(store.clone()).await.expect("reads");
    // The file as a crash at this instant leaves it: nothing was closed.
    let crashed = copy(folder.path());
    judge(crashed.path(), &[STORE_FILE], &written, "crash").await.expect("opens");
    store.close().await.expect("closes");
    judge(folder.path(), &[STORE_FILE], &written, "restart").await.expect("opens");
    assert_eq!((written.log.len(), written.purged, written.vote), (30, Some(log_id(2, 9)), Some(vote(2))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_log_stays_truncated() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = filled(folder.path()).await;
    store.truncate_after(Some(log_id(2, 19))).await.expect("truncated");
    store.blocking_append((20..23).map(entry)).await.expect("appended");
    store.close().await.expect("closes");
    let found = contents(Store::open(folder.path(), &identity(1)).expect("opens")).await.expect("reads");
    assert_eq!(found.log.iter().map(RaftEntry::index).collect::<Vec<_>>(), (10..23).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_anywhere_is_refused_or_harmless() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let written = contents(store.clone()).await.expect("reads");
    let crashed = copy(folder.path());
    store.close().await.expect("closes");
    for (kind, image) in [("closed", folder.path()), ("crashed", crashed.path())] {
        let bytes = fs::read(image.join(STORE_FILE)).expect("reads");
        let mut refused = 0;
        let offsets = offsets(&bytes);
        for (count, at) in offsets.iter().enumerate() {
            let damaged = copy(image);
            // Every bit has its turn.
            flip(&damaged.path().join(STORE_FILE), *at as u64, 1 << (count % 8));
            let damage = format!("{kind}: byte {at} bit {}", count % 8);
            refused += usize::from(judge(damaged.path(), &[STORE_FILE], &written, &damage).await.is_err());
        }
        eprintln!("{kind}: {refused} of {} flips refused, the others harmless", offsets.len());
        // Many lie in pages that are no longer in use.
        assert!(refused * 10 > offsets.len(), "{kind}: only {refused} of {} were noticed", offsets.len());
    }
}

/// redb's header, and a spread over every page that holds anything. A stride that is odd lets every bit have its turn.
fn offsets(bytes: &[u8]) -> Vec<usize> {
    let used = (320..bytes.len()).filter(|at| bytes[*at] != 0).step_by(401);
    (0..320).step_by(3).chain(used).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_cut_short_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let written = contents(store.clone()).await.expect("reads");
    store.close().await.expect("closes");
    let length = fs::metadata(folder.path().join(STORE_FILE)).expect("is there").len();
    for cut in [0, 1, 63, 64, 319, 320, 4095, 4096, 8192, length / 4, length / 2, length - 4096, length - 1] {
        let damaged = copy(folder.path());
        let file = fs::OpenOptions::new().write(true).open(damaged.path().join(STORE_FILE)).expect("opens");
        file.set_len(cut).expect("cut");
        judge(damaged.path(), &[STORE_FILE], &written, &format!("cut to {cut}")).await.expect_err("is noticed");
    }
    let gone = copy(folder.path());
    fs::remove_file(gone.path().join(STORE_FILE)).expect("removed");
    judge(gone.path(), &[STORE_FILE], &written, "gone").await.expect_err("is noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_went_back_in_time_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = filled(folder.path()).await;
    let yesterday = copy(folder.path());
    store.save_vote(&vote(3)).await.expect("voted");
    let written = contents(store.clone()).await.expect("reads");
    store.close().await.expect("closes");
    fs::copy(yesterday.path().join(STORE_FILE), folder.path().join(STORE_FILE)).expect("restored");
    let error = judge(folder.path(), &[STORE_FILE], &written, "restored").await.expect_err("is noticed");
    assert!(error.to_string().contains("went back in time"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_mark_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let written = contents(store.clone()).await.expect("reads");
    store.close().await.expect("closes");
    let length = fs::metadata(folder.path().join(MARK_FILE)).expect("is there").len();
    for at in 0..length {
        let damaged = copy(folder.path());
        flip(&damaged.path().join(MARK_FILE), at, 1);
        judge(damaged.path(), &[MARK_FILE], &written, &format!("mark byte {at}")).await.expect_err("is noticed");
    }
    fs::remove_file(folder.path().join(MARK_FILE)).expect("removed");
    judge(folder.path(), &[MARK_FILE], &written, "mark gone").await.expect_err("is noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    filled(folder.path()).await.close().await.expect("closes");
    let own = identity(1);
    let others = [
        ("cluster", Identity { cluster: "other".into(), ..own.clone() }),
        ("epoch", Identity { epoch: 2, ..own.clone() }),
        ("node", Identity { node: NodeId(2), ..own.clone() }),
    ];
    for (expected, other) in others {
        match Store::open(folder.path(), &other) {
            Err(StoreError::OtherIdentity { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {:?}", other.err()),
        }
    }
    Store::open(folder.path(), &own).expect("its own node's opens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = filled(folder.path()).await;
    let error = Store::open(folder.path(), &identity(1)).err();
    assert!(matches!(&error, Some(StoreError::Locked { .. })), "{error:?}");
    store.close().await.expect("closes");
    Store::open(folder.path(), &identity(1)).expect("free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_the_write_and_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), "4m") else {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    };
    let mut store = filled(&disk.0).await;
    fs::write(disk.0.join("filler"), vec![0; 1 << 20]).expect("there is room for that");
    let mut answered = 39;
    let error = loop {
        match store.blocking_append([entry(answered + 1)]).await {
            Ok(()) => answered += 1,
            Err(error) => break error,
        }
        assert!(answered < 100_000, "the disk does not fill");
    };
    assert!(error.to_string().contains(STORE_FILE) || error.to_string().contains(MARK_FILE), "{error}");
    let again = store.save_vote(&vote(9)).await.expect_err("no vote is promised on a broken store");
    assert!(again.to_string().contains(STORE_FILE) || again.to_string().contains(MARK_FILE), "{again}");
    drop(store.close().await);
    for folder in [disk.0.clone(), disk.0.join("new")] {
        // Whether it finds room for what opening writes depends on the last bytes; if not, it says where.
        match Store::open(&folder, &identity(1)) {
            Ok(store) => drop(store.close().await),
            Err(error) => assert!(error.to_string().contains("No space left"), "{error}"),
        }
    }
    fs::remove_file(disk.0.join("filler")).expect("room again");
    let found = contents(Store::open(&disk.0, &identity(1)).expect("opens")).await.expect("reads");
    let last = found.last.expect("a log").index;
    // What was never answered may be there or not; what was answered must be.
    assert!(last == answered || last == answered + 1, "{last} after {answered} answers");
    assert_eq!(found.vote, Some(vote(2)));
    eprintln!("full after {answered} entries: {error}");
}
