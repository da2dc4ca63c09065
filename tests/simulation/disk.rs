//! A disk under a node's store: what was not synced is lost with the power, or half of it, in any order.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::chance::Chance;

#[derive(Debug, Default)]
struct Platters {
    /// What a machine that comes up again finds.
    synced: Vec<u8>,
    /// What the running program reads.
    live: Vec<u8>,
    /// Written since the last sync: where, and how much.
    dirty: Vec<(usize, usize)>,
    /// The program that used it is gone: what it still does at its end reaches nothing.
    detached: bool,
    broken: bool,
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Platters>>);

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Platters> {
        self.0.lock().expect("nothing panics while it is held")
    }

    /// Writing and syncing fail from now on, or work again.
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    /// The program dies. With `tears`, parts of what it had not synced survive it.
    pub fn crash(&self, tears: Option<&mut Chance>) {
        let mut platters = self.lock();
        if let Some(chance) = tears {
            for (at, length) in std::mem::take(&mut platters.dirty) {
                if chance.percent(50) {
                    platters.keep(at, length);
                }
            }
        }
        platters.detached = true;
    }

    /// What the program's successor gets: a disk with what survived.
    pub fn reopen(&self) -> Self {
        let platters = self.lock();
        let synced = platters.synced.clone();
        let live = synced.clone();
        Self(Arc::new(Mutex::new(Platters { synced, live, broken: platters.broken, ..Platters::default() })))
    }
}

impl Platters {
    fn keep(&mut self, at: usize, length: usize) {
        let end = (at + length).min(self.live.len());
        if self.synced.len() < end {
            self.synced.resize(end, 0);
        }
        if at < end {
            self.synced[at..end].copy_from_slice(&self.live[at..end]);
        }
    }

    fn refuse(&self) -> io::Result<()> {
        if self.broken { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a small disk")
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.lock();
        let at = index(offset);
        let Some(there) = platters.live.get(at..at + out.len()) else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end"));
        };
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platters = self.lock();
        if platters.detached {
            return Ok(());
        }
        platters.refuse()?;
        let (old, new) = (platters.live.len(), index(len));
        platters.live.resize(new, 0);
        if new > old {
            platters.dirty.push((old, new - old));
        } else {
            platters.synced.truncate(new);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.lock();
        if platters.detached {
            return Ok(());
        }
        platters.refuse()?;
        for (at, length) in std::mem::take(&mut platters.dirty) {
            platters.keep(at, length);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.lock();
        if platters.detached {
            return Ok(());
        }
        platters.refuse()?;
        let at = index(offset);
        let end = at + data.len();
        if platters.live.len() < end {
            platters.live.resize(end, 0);
        }
        platters.live[at..end].copy_from_slice(data);
        platters.dirty.push((at, data.len()));
        Ok(())
    }
}
