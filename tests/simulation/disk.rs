//! A disk under a node's store: what was not synced is lost with the power, or half of it, in any order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::chance::Chance;

const PAGE: usize = 4096;

/// What a disk holds: pages that were never written are zeros. A copy shares all pages.
#[derive(Debug, Clone, Default)]
struct Pages {
    length: usize,
    pages: BTreeMap<usize, Arc<[u8; PAGE]>>,
}

impl Pages {
    fn set_len(&mut self, length: usize) {
        if length < self.length {
            drop(self.pages.split_off(&length.div_ceil(PAGE)));
            if let Some(page) = self.pages.get_mut(&(length / PAGE)) {
                Arc::make_mut(page)[length % PAGE..].fill(0);
            }
        }
        self.length = length;
    }

    /// Goes over a range by pages: the page, where in it, and where in the range.
    fn by_pages(at: usize, length: usize) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (page, from) = ((at + done) / PAGE, (at + done) % PAGE);
            let count = (PAGE - from).min(length - done);
            let of_range = done..done + count;
            done += count;
            (count > 0).then(|| (page, from..from + count, of_range))
        })
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        for (page, within, of_range) in Self::by_pages(at, out.len()) {
            match self.pages.get(&page) {
                Some(page) => out[of_range].copy_from_slice(&page[within]),
                None => out[of_range].fill(0),
            }
        }
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        self.length = self.length.max(at + data.len());
        for (page, within, of_range) in Self::by_pages(at, data.len()) {
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within].copy_from_slice(&data[of_range]);
        }
    }
}

#[derive(Debug, Default)]
struct Platters {
    /// What a machine that comes up again finds.
    synced: Pages,
    /// What the running program reads.
    live: Pages,
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
        let end = (at + length).min(self.live.length);
        if at < end {
            let mut data = vec![0; end - at];
            self.live.read(at, &mut data);
            self.synced.write(at, &data);
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
        Ok(self.lock().live.length as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.lock();
        let at = index(offset);
        if at + out.len() > platters.live.length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end"));
        }
        platters.live.read(at, out);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platters = self.lock();
        if platters.detached {
            return Ok(());
        }
        platters.refuse()?;
        let (old, new) = (platters.live.length, index(len));
        platters.live.set_len(new);
        if new > old {
            platters.dirty.push((old, new - old));
        } else if platters.synced.length > new {
            platters.synced.set_len(new);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platters = self.lock();
        if platters.detached {
            return Ok(());
        }
        platters.refuse()?;
        platters.dirty.clear();
        platters.synced = platters.live.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.lock();
        if platters.detached {
            return Ok(());
        }
        platters.refuse()?;
        let at = index(offset);
        platters.live.write(at, data);
        platters.dirty.push((at, data.len()));
        Ok(())
    }
}
