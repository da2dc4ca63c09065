//! The one thread that writes the store. It takes what is queued, commits it as one transaction with one fsync, and only
//! then answers: votes and entries reach the disk in the order they were asked for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::IOFlushed;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use super::error::StoreError;
use super::mark::Mark;
use super::record;
use crate::consensus::types::TypeConfig;

pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(super) const SNAPSHOT: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshot");

pub(super) const IDENTITY: &str = "identity";
pub(super) const GENERATION: &str = "generation";
pub(super) const STORE_ID: &str = "store_id";
pub(super) const PEERS: &str = "peers";
pub(super) const MEMBERS: &str = "members";
pub(super) const STARTS: &str = "starts";
pub(super) const POSITION: &str = "position";
pub(super) const REACHED: &str = "reached";
pub(super) const REVOKED: &str = "revoked";
pub(super) const VOTE: &str = "vote";
pub(super) const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";
pub(super) const SNAPSHOT_META: &str = "meta";
pub(super) const SNAPSHOT_DATA: &str = "data";

/// How many requests one transaction takes at most.
const BATCH: usize = 256;

/// A snapshot's metadata and data, both as JSON.
pub(super) type RawSnapshot = (Vec<u8>, Vec<u8>);
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked to do. Payloads are JSON, not yet framed.
pub(super) enum Request {
    Append {
        entries: Vec<(u64, Vec<u8>)>,
        done: IOFlushed<TypeConfig>,
    },
    Vote {
        payload: Vec<u8>,
        done: Reply<()>,
    },
    /// What this node keeps for itself, in [`META`]: nobody else relies on it.
    Note {
        key: &'static str,
        payload: Vec<u8>,
        done: Reply<()>,
    },
    /// Rides along with the next commit; not worth an fsync of its own.
    Committed {
        payload: Vec<u8>,
    },
    Truncate {
        from: u64,
        done: Reply<()>,
    },
    Purge {
        upto: u64,
        payload: Vec<u8>,
        done: Reply<()>,
    },
    Snapshot {
        meta: Vec<u8>,
        data: Vec<u8>,
        done: Reply<()>,
    },
    ReadSnapshot {
        done: Reply<Option<RawSnapshot>>,
    },
    Close {
        done: Reply<()>,
    },
}

/// What is done once the transaction is on the disk.
enum Answer {
    Flushed(IOFlushed<TypeConfig>),
    Done(Reply<()>),
}

pub(super) struct Writer {
    pub(super) file: PathBuf,
    pub(super) database: Database,
    /// `None` where there is no folder to keep one in.
    pub(super) mark: Option<Mark>,
    pub(super) generation: u64,
    /// Counts the commits that hold something others rely on. What they tell of one another is not: or each would write
    /// because the other did.
    pub(super) position: Arc<AtomicU64>,
}

/// What a writer carries from one batch to the next.
#[derive(Default)]
struct Carry {
    failed: Option<StoreError>,
    committed: Option<Vec<u8>>,
    closing: Option<Reply<()>>,
}

impl Writer {
    /// Runs until closed, or until nobody can ask any more.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut carry = Carry::default();
        while carry.closing.is_none() {
            let Some(first) = requests.blocking_recv() else { break };
            self.take(with_queued(first, &mut requests), &mut carry);
        }
        self.end(carry);
    }

    /// As [`run`](Self::run), without a thread: `pace` is how long the disk takes before each transaction.
    #[cfg(feature = "simulation")]
    pub(super) async fn run_paced<P>(mut self, mut requests: mpsc::Receiver<Request>, mut pace: impl FnMut() -> P)
    where
        P: Future<Output = ()>,
    {
        let mut carry = Carry::default();
        while carry.closing.is_none() {
            let Some(first) = requests.recv().await else { break };
            pace().await;
            self.take(with_queued(first, &mut requests), &mut carry);
        }
        self.end(carry);
    }

    fn take(&mut self, batch: Vec<Request>, carry: &mut Carry) {
        let mut writes = Vec::new();
        for request in batch {
            match request {
                Request::Committed { payload } => carry.committed = Some(payload),
                Request::Close { done } => carry.closing = Some(done),
                Request::ReadSnapshot { done } => {
                    self.write(std::mem::take(&mut writes), carry);
                    drop(done.send(self.guarded(|writer| writer.read_snapshot())));
                }
                write => writes.push(write),
            }
        }
        self.write(writes, carry);
    }

    fn end(mut self, mut carry: Carry) {
        if carry.failed.is_none()
            && let Some(payload) = carry.committed
        {
            carry.failed = self.guarded(|writer| writer.commit(&[], Some(&payload))).err();
        }
        // Dropping the database writes to it, which on a broken disk may go wrong in any way.
        drop(catch_unwind(AssertUnwindSafe(|| drop(self.database))));
        if let Some(done) = carry.closing {
            drop(done.send(carry.failed.map_or(Ok(()), Err)));
        }
    }

    fn write(&mut self, writes: Vec<Request>, carry: &mut Carry) {
        if writes.is_empty() {
            return;
        }
        let result = match &carry.failed {
            Some(error) => Err(error.clone()),
            None => self.guarded(|writer| writer.commit(&writes, carry.committed.as_deref())),
        };
        match &result {
            Ok(()) => carry.committed = None,
            Err(error) => {
                tracing::error!(%error, "the store takes no more writes");
                carry.failed = Some(error.clone());
            }
        }
        for answer in writes.into_iter().filter_map(answer) {
            match answer {
                Answer::Flushed(done) => done.io_completed(result.clone().map_err(Into::into)),
                // Whoever asked may have gone: then nobody wants to know.
                Answer::Done(done) => drop(done.send(result.clone())),
            }
        }
    }

    /// redb may panic on pages that are not what it wrote: that too is an error with a file's name.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let file = self.file.clone();
        catch_unwind(AssertUnwindSafe(|| work(self)))
            .unwrap_or_else(|panic| Err(StoreError::corrupt(&file, "file", "-", panic_text(panic.as_ref()))))
    }

    fn commit(&mut self, writes: &[Request], committed: Option<&[u8]>) -> Result<(), StoreError> {
        let next = self.generation + 1;
        let position = self.position.load(Ordering::Acquire) + u64::from(writes.iter().any(is_relied_on));
        self.transact(writes, committed, (next, position)).map_err(|error| match error {
            TransactError::Store(error) => error,
            TransactError::Redb(error) => StoreError::write(&self.file, error),
        })?;
        self.generation = next;
        self.position.store(position, Ordering::Release);
        self.mark.as_ref().map_or(Ok(()), |mark| mark.write(next))
    }

    fn transact(
        &self,
        writes: &[Request],
        committed: Option<&[u8]>,
        (generation, position): (u64, u64),
    ) -> Result<(), TransactError> {
        let transaction = begin(&self.database)?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            let mut put = |key: &'static str, payload: &[u8]| -> Result<(), TransactError> {
                meta.insert(key, record::frame("meta", key.as_bytes(), payload)?.as_slice())?;
                Ok(())
            };
            for write in writes {
                match write {
                    Request::Append { entries, .. } => {
                        for (index, payload) in entries {
                            let framed = record::frame("log", &index.to_be_bytes(), payload)?;
                            log.insert(index, framed.as_slice())?;
                        }
                    }
                    Request::Vote { payload, .. } => put(VOTE, payload)?,
                    Request::Note { key, payload, .. } => put(key, payload)?,
                    Request::Truncate { from, .. } => log.retain_in::<u64, _>(*from.., |_, _| false)?,
                    Request::Purge { upto, payload, .. } => {
                        log.retain_in::<u64, _>(..=*upto, |_, _| false)?;
                        put(PURGED, payload)?;
                    }
                    Request::Snapshot { meta, data, .. } => {
                        let mut snapshot = transaction.open_table(SNAPSHOT)?;
                        for (key, payload) in [(SNAPSHOT_META, meta), (SNAPSHOT_DATA, data)] {
                            let framed = record::frame("snapshot", key.as_bytes(), payload)?;
                            snapshot.insert(key, framed.as_slice())?;
                        }
                    }
                    Request::Committed { .. } | Request::ReadSnapshot { .. } | Request::Close { .. } => {}
                }
            }
            if let Some(payload) = committed {
                put(COMMITTED, payload)?;
            }
            put(GENERATION, generation.to_string().as_bytes())?;
            put(POSITION, position.to_string().as_bytes())?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn read_snapshot(&self) -> Result<Option<RawSnapshot>, StoreError> {
        read_snapshot(&self.database, &self.file)
    }
}

/// The first request and all that wait behind it, up to a batch.
fn with_queued(first: Request, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let mut batch = vec![first];
    while batch.len() < BATCH
        && let Ok(next) = requests.try_recv()
    {
        batch.push(next);
    }
    batch
}

/// Begins a transaction that is on the disk when its commit returns. Two phases, so that a torn primary is an error and
/// never a silent step back to the commit before.
pub(super) fn begin(database: &Database) -> Result<redb::WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// The snapshot's metadata and data, verified.
pub(super) fn read_snapshot(database: &Database, file: &Path) -> Result<Option<RawSnapshot>, StoreError> {
    let failed = |error: redb::Error| StoreError::corrupt(file, "snapshot", "-", error);
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let table = match transaction.open_table(SNAPSHOT) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(failed(error.into())),
    };
    let read = |key: &str| -> Result<Option<Vec<u8>>, StoreError> {
        let Some(framed) = table.get(key).map_err(|error| failed(error.into()))? else { return Ok(None) };
        record::unframe("snapshot", key.as_bytes(), framed.value())
            .map(|payload| Some(payload.to_vec()))
            .map_err(|detail| StoreError::corrupt(file, "snapshot", key, detail))
    };
    match (read(SNAPSHOT_META)?, read(SNAPSHOT_DATA)?) {
        (None, None) => Ok(None),
        (Some(meta), Some(data)) => Ok(Some((meta, data))),
        _ => Err(StoreError::corrupt(file, "snapshot", SNAPSHOT_META, "one of its two records is missing")),
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the storage engine gave up on it: {}", said.unwrap_or("no reason given"))
}

/// Others count on it once it is answered.
fn is_relied_on(request: &Request) -> bool {
    match request {
        Request::Append { .. }
        | Request::Vote { .. }
        | Request::Truncate { .. }
        | Request::Purge { .. }
        | Request::Snapshot { .. } => true,
        Request::Note { .. } | Request::Committed { .. } | Request::ReadSnapshot { .. } | Request::Close { .. } => {
            false
        }
    }
}

fn answer(request: Request) -> Option<Answer> {
    match request {
        Request::Append { done, .. } => Some(Answer::Flushed(done)),
        Request::Vote { done, .. }
        | Request::Note { done, .. }
        | Request::Truncate { done, .. }
        | Request::Purge { done, .. }
        | Request::Snapshot { done, .. } => Some(Answer::Done(done)),
        Request::Committed { .. } | Request::ReadSnapshot { .. } | Request::Close { .. } => None,
    }
}

#[derive(Debug)]
enum TransactError {
    Store(StoreError),
    Redb(redb::Error),
}

impl From<StoreError> for TransactError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<E: Into<redb::Error>> From<E> for TransactError {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}
