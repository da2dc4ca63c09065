//! openraft's view of the store.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use super::writer::Request;
use super::{Cached, Store, record};
use crate::consensus::types::{Entry, LogId, MAX_APPEND_BYTES, TypeConfig, Vote};

impl RaftLogReader<TypeConfig> for Store {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(bounds) {
            return Ok(Vec::new());
        }
        Ok(self.cache().log.range(bounds).map(|(_, cached)| cached.entry.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let cache = self.cache();
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (_, cached) in cache.log.range(start..end) {
            bytes += cached.bytes;
            if bytes > MAX_APPEND_BYTES && !entries.is_empty() {
                break;
            }
            entries.push(cached.entry.clone());
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.cache().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let cache = self.cache();
        let last = cache.log.last_key_value().map(|(_, cached)| cached.entry.log_id());
        Ok(LogState { last_purged_log_id: cache.purged, last_log_id: last.or(cache.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let payload = record::to_json(&self.file, vote)?;
        self.ask(|done| Request::Vote { payload, done }).await?;
        self.cache().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        let payload = record::to_json(&self.file, &committed)?;
        self.requests.send(Request::Committed { payload }).await.map_err(|_| self.closed())?;
        self.cache().committed = Some(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.cache().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut written = Vec::new();
        let mut cached = Vec::new();
        for entry in entries {
            let payload = record::to_json(&self.file, &entry)?;
            cached.push(Cached { entry, bytes: payload.len() });
            written.push((cached.last().map_or(0, |cached| cached.entry.index()), payload));
        }
        // Readable on return; durable when the writer calls back.
        self.cache().log.extend(cached.into_iter().map(|cached| (cached.entry.index(), cached)));
        self.requests.send(Request::Append { entries: written, done: callback }).await.map_err(|_| self.closed())?;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        drop(self.cache().log.split_off(&from));
        self.ask(|done| Request::Truncate { from, done }).await?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let payload = record::to_json(&self.file, &upto)?;
        {
            let mut cache = self.cache();
            let kept = cache.log.split_off(&(upto.index + 1));
            cache.log = kept;
            cache.purged = cache.purged.max(Some(upto));
        }
        self.ask(|done| Request::Purge { upto: upto.index, payload, done }).await?;
        Ok(())
    }
}

fn is_empty(bounds: (Bound<u64>, Bound<u64>)) -> bool {
    let start = match bounds.0 {
        Bound::Included(start) => start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match bounds.1 {
        Bound::Included(end) => start > end,
        Bound::Excluded(end) => start >= end,
        Bound::Unbounded => false,
    }
}
