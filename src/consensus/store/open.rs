//! Opening a store: everything in it is read and verified before anything of it is used.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use openraft::entry::RaftEntry;
use redb::{Database, ReadableDatabase, ReadableTable};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc, watch};

use super::error::StoreError;
use super::mark::Mark;
use super::past::{self, Start};
use super::writer::{
    self, COMMITTED, GENERATION, IDENTITY, LOG, MEMBERS, META, PEERS, POSITION, PURGED, REACHED, REVOKED, Request,
    SNAPSHOT, STARTS, STORE_ID, VOTE, Writer,
};
use super::{Cache, Cached, MARK_FILE, STORE_FILE, Store, record};
use crate::clock::{unique_id, unix_now};
use crate::consensus::types::{Entry, Identity, LogId, SnapshotMeta};

/// redb's own page cache. The log is in memory anyway.
const CACHE_BYTES: usize = 2 << 20;
/// Requests waiting for the writer.
const QUEUE: usize = 1024;

impl Store {
    /// Opens the store in `folder`, or creates it where there never was one. Blocks: reads all of it.
    pub fn open(folder: &Path, identity: &Identity) -> Result<Self, StoreError> {
        let file = folder.join(STORE_FILE);
        // redb may panic on pages that are not what it wrote: that too is an error with a file's name.
        let (writer, opened) = catch_unwind(AssertUnwindSafe(|| prepare(folder, &file, identity)))
            .unwrap_or_else(|panic| Err(StoreError::corrupt(&file, "file", "-", writer::panic_text(panic.as_ref()))))?;
        let (store, queue) = Self::assemble(file.clone(), identity, &writer, opened);
        std::thread::Builder::new()
            .name("consensus-store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| StoreError::open(&file, format!("cannot start its writer: {error}")))?;
        Ok(store)
    }

    fn assemble(
        file: PathBuf,
        identity: &Identity,
        writer: &Writer,
        opened: Opened,
    ) -> (Self, mpsc::Receiver<Request>) {
        let (requests, queue) = mpsc::channel(QUEUE);
        let store = Self {
            id: Arc::from(opened.id),
            node: identity.node,
            position: writer.position.clone(),
            starts: Arc::from(opened.starts),
            heard: Arc::new(Notify::new()),
            revoked: Arc::new(watch::Sender::new(None)),
            file: Arc::new(file),
            cache: Arc::new(Mutex::new(opened.cache)),
            requests,
        };
        (store, queue)
    }

    /// A store on what stands for a disk, and its writer, which the caller runs: `pace` is how long the disk takes before
    /// each transaction. There is no mark: what stands for a disk forgets nothing that it synced.
    #[cfg(feature = "simulation")]
    pub fn open_on<D, F, P>(
        disk: D,
        identity: &Identity,
        pace: F,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<D, F, P>), StoreError>
    where
        D: redb::StorageBackend,
        F: FnMut() -> P + Send + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        let file = PathBuf::from(STORE_FILE);
        let length = disk.len().map_err(|error| StoreError::open(&file, error))?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database =
            builder.create_with_backend(disk).map_err(|error| StoreError::corrupt(&file, "file", "-", error))?;
        let mut opened = read_store(&database, &file, length, identity)?;
        opened.start(&database, &file)?;
        let position = Arc::new(AtomicU64::new(opened.position));
        let writer = Writer { file: file.clone(), database, mark: None, generation: opened.generation, position };
        let (store, queue) = Self::assemble(file, identity, &writer, opened);
        Ok((store, writer.run_paced(queue, pace)))
    }
}

/// What a store was found to be.
struct Opened {
    generation: u64,
    position: u64,
    starts: Vec<Start>,
    id: String,
    cache: Cache,
}

impl Opened {
    /// Writes down that the store is used from here under a new name, before anything is said in it.
    fn start(&mut self, database: &Database, file: &Path) -> Result<(), StoreError> {
        let (generation, position) = (self.generation + 1, self.position + 1);
        past::begin(&mut self.starts, Start { id: unique_id(unix_now()), began: position });
        let starts = record::to_json(file, &self.starts)?;
        let (generation_text, position_text) = (generation.to_string(), position.to_string());
        let records = [
            (STARTS, starts.as_slice()),
            (POSITION, position_text.as_bytes()),
            (GENERATION, generation_text.as_bytes()),
        ];
        write_meta(database, &records).map_err(|error| StoreError::write(file, error))?;
        (self.generation, self.position) = (generation, position);
        Ok(())
    }
}

fn prepare(folder: &Path, file: &Path, identity: &Identity) -> Result<(Writer, Opened), StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| StoreError::open(file, format!("cannot create its folder: {error}")))?;
    let mark_path = folder.join(MARK_FILE);
    let marked = Mark::read(&mark_path)?;
    let length = fs::metadata(file).map(|found| found.len()).unwrap_or(0);
    if marked.is_some() && length == 0 {
        let detail = format!("it is missing or empty, but {} shows that it was used", mark_path.display());
        return Err(StoreError::corrupt(file, "file", "-", detail));
    }
    let database = open_database(file, length)?;
    let mut opened = read_store(&database, file, length, identity)?;
    let generation = opened.generation;
    match marked {
        Some(marked) if marked > generation => {
            let detail = format!("it is at generation {generation}, but had reached {marked}: it went back in time");
            return Err(StoreError::corrupt(file, "meta", GENERATION, detail));
        }
        None if generation > 1 => {
            let detail = format!("it is missing, but {} is at generation {generation}", file.display());
            return Err(StoreError::corrupt(&mark_path, "file", "mark", detail));
        }
        _ => {}
    }
    // There before anything else is written: a new store without a mark was never used.
    let mark = Mark::open(&mark_path, generation)?;
    opened.start(&database, file)?;
    mark.write(opened.generation)?;
    let position = Arc::new(AtomicU64::new(opened.position));
    let writer = Writer { file: file.to_owned(), database, mark: Some(mark), generation: opened.generation, position };
    Ok((writer, opened))
}

/// All it holds; founded where it is new.
fn read_store(database: &Database, file: &Path, length: u64, identity: &Identity) -> Result<Opened, StoreError> {
    let generation = match read_meta::<u64>(database, file, GENERATION)? {
        Some(generation) => generation,
        None if length == 0 => found_store(database, file, identity)?,
        None => return Err(StoreError::corrupt(file, "meta", GENERATION, "it is missing")),
    };
    check_identity(database, file, identity)?;
    let id: String = read_meta(database, file, STORE_ID)?
        .ok_or_else(|| StoreError::corrupt(file, "meta", STORE_ID, "it is missing"))?;
    if let Some(detail) = read_meta(database, file, REVOKED)? {
        return Err(StoreError::WentBack { file: file.to_owned(), detail });
    }
    let starts: Vec<Start> = read_meta(database, file, STARTS)?.unwrap_or_default();
    let position: u64 = read_meta(database, file, POSITION)?.unwrap_or_default();
    if starts.last().is_some_and(|start| start.began > position) {
        let detail = format!("it is at {position}, before its last start: {:?}", starts.last());
        return Err(StoreError::corrupt(file, "meta", POSITION, detail));
    }
    Ok(Opened { generation, position, starts, id, cache: load(database, file)? })
}

fn open_database(file: &Path, length: u64) -> Result<Database, StoreError> {
    let failed = |error: redb::DatabaseError| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { file: file.to_owned() },
        redb::DatabaseError::Storage(redb::StorageError::Io(error))
            if matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::StorageFull) =>
        {
            StoreError::open(file, error)
        }
        other => StoreError::corrupt(file, "file", "-", other),
    };
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let mut database = builder.create(file).map_err(failed)?;
    if length > 0 && !database.check_integrity().map_err(failed)? {
        return Err(StoreError::corrupt(file, "file", "-", "pages of it do not match their checksums"));
    }
    Ok(database)
}

/// Writes who this store belongs to. Returns its first generation.
fn found_store(database: &Database, file: &Path, identity: &Identity) -> Result<u64, StoreError> {
    let payload = record::to_json(file, identity)?;
    let id = record::to_json(file, &unique_id(unix_now()))?;
    let records = [(IDENTITY, payload.as_slice()), (STORE_ID, id.as_slice()), (GENERATION, b"1")];
    write_meta(database, &records).map_err(|error| StoreError::write(file, error))?;
    Ok(1)
}

/// Writes these records in one transaction, durably; makes the tables where they are not there.
fn write_meta(database: &Database, records: &[(&str, &[u8])]) -> Result<(), redb::Error> {
    let transaction = writer::begin(database)?;
    {
        transaction.open_table(LOG)?;
        transaction.open_table(SNAPSHOT)?;
        let mut meta = transaction.open_table(META)?;
        for (key, payload) in records {
            let framed = record::frame("meta", key.as_bytes(), payload).map_err(|_| redb::Error::Unsupported)?;
            meta.insert(*key, framed.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn check_identity(database: &Database, file: &Path, expected: &Identity) -> Result<(), StoreError> {
    let found: Identity = read_meta(database, file, IDENTITY)?
        .ok_or_else(|| StoreError::corrupt(file, "meta", IDENTITY, "it is missing"))?;
    let fields = [
        ("cluster", found.cluster.0, expected.cluster.0.clone()),
        ("epoch", found.epoch.to_string(), expected.epoch.to_string()),
        ("node", found.node.to_string(), expected.node.to_string()),
    ];
    match fields.into_iter().find(|(_, found, expected)| found != expected) {
        Some((field, found, expected)) => {
            Err(StoreError::OtherIdentity { file: file.to_owned(), field, found, expected })
        }
        None => Ok(()),
    }
}

fn read_meta<T: DeserializeOwned>(database: &Database, file: &Path, key: &str) -> Result<Option<T>, StoreError> {
    let wrong = |detail: String| StoreError::corrupt(file, "meta", key, detail);
    let transaction = database.begin_read().map_err(|error| wrong(error.to_string()))?;
    let table = match transaction.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let Some(framed) = table.get(key).map_err(|error| wrong(error.to_string()))? else { return Ok(None) };
    record::unframe("meta", key.as_bytes(), framed.value()).and_then(record::from_json).map(Some).map_err(wrong)
}

fn load(database: &Database, file: &Path) -> Result<Cache, StoreError> {
    let mut cache = Cache {
        vote: read_meta(database, file, VOTE)?,
        committed: read_meta(database, file, COMMITTED)?,
        purged: read_meta(database, file, PURGED)?,
        peers: read_meta(database, file, PEERS)?.unwrap_or_default(),
        members: read_meta(database, file, MEMBERS)?.unwrap_or_default(),
        reached: read_meta(database, file, REACHED)?.unwrap_or_default(),
        ..Cache::default()
    };
    let failed = |key: &str, detail: String| StoreError::corrupt(file, "log", key, detail);
    let transaction = database.begin_read().map_err(|error| failed("-", error.to_string()))?;
    let table = transaction.open_table(LOG).map_err(|error| failed("-", error.to_string()))?;
    let first = cache.purged.map_or(0, |purged: LogId| purged.index + 1);
    let found = table.iter().map_err(|error| failed("-", error.to_string()))?;
    for (expected, found) in (first..).zip(found) {
        let (key, framed) = found.map_err(|error| failed("-", error.to_string()))?;
        let index = key.value();
        let wrong = |detail: String| failed(&index.to_string(), detail);
        if index != expected {
            return Err(wrong(format!("entry {expected} should be here: there is a hole in the log")));
        }
        let payload = record::unframe("log", &index.to_be_bytes(), framed.value()).map_err(wrong)?;
        let entry: Entry = record::from_json(payload).map_err(wrong)?;
        if entry.index() != index {
            return Err(wrong(format!("it holds entry {}", entry.index())));
        }
        cache.log.insert(index, Cached { entry, bytes: payload.len() });
    }
    let covered = match writer::read_snapshot(database, file)? {
        Some((meta, _)) => {
            let meta: SnapshotMeta =
                record::from_json(&meta).map_err(|detail| StoreError::corrupt(file, "snapshot", "meta", detail))?;
            meta.last_log_id
        }
        None => None,
    };
    if cache.purged.map(|purged| purged.index) > covered.map(|covered| covered.index) {
        let detail = format!("entries up to {:?} are gone, but the snapshot covers {covered:?}", cache.purged);
        return Err(StoreError::corrupt(file, "snapshot", "meta", detail));
    }
    Ok(cache)
}
