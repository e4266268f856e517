//! [`ChunkTree`]: numbered chunks of bytes in one sled directory. The only file that names sled.
//!
//! Owns how sled 0.34.7 must be held: its `flush` does not sync, its leftovers may keep it from
//! opening, and damaged files may make it panic. Knows nothing of what the chunks mean.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::files::{corrupt, from_io, sync_tree, unavailable};
use crate::backends::BackendError;
use crate::env::{Fs, OpenMode};

/// Longest chunk, in bytes. sled keeps up to 16 values in a page, and puts a page above a quarter of
/// its segment size into a file of its own.
pub(super) const CHUNK_BYTES_MAX: usize = 16 << 10;
/// Fixed when a directory is created. Large enough for 16 chunks in a page, small enough that a small
/// generation opens in 3 ms (25 ms with 8 MiB).
const SEGMENT_BYTES: usize = 2 << 20;
/// Cache of a tree that is being written, in bytes: nothing is read back.
const WRITE_CACHE_BYTES: u64 = 8 << 20;
/// How long a tree that was just closed may still hold its lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// One sled directory, open.
pub(super) struct ChunkTree {
    db: Option<sled::Db>,
    dir: PathBuf,
}

/// The bytes of a chunk, shared with sled's cache.
pub(super) struct Chunk(sled::IVec);

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl ChunkTree {
    /// An empty tree in a fresh directory; whatever was there is removed.
    pub(super) fn create(fs: &dyn Fs, dir: &Path) -> Result<ChunkTree, BackendError> {
        fs.remove_dir_all(dir).map_err(from_io(dir))?;
        fs.create_dir_all(dir).map_err(from_io(dir))?;
        let db = open_db(dir, WRITE_CACHE_BYTES).map_err(|error| error.at(dir))?;
        Ok(ChunkTree { db: Some(db), dir: dir.to_path_buf() })
    }

    /// Looks whether a tree is there, whatever it is like. A missing one is `Corrupt`.
    pub(super) fn check_there(fs: &dyn Fs, dir: &Path) -> Result<(), BackendError> {
        for name in ["db", "conf"] {
            let file = dir.join(name);
            if !fs.exists(&file).map_err(from_io(&file))? {
                return Err(corrupt(&file, "missing"));
            }
        }
        Ok(())
    }

    /// A finished tree. A missing one is `Corrupt`, never created.
    pub(super) fn open(fs: &dyn Fs, dir: &Path, cache_bytes: u64) -> Result<ChunkTree, BackendError> {
        ChunkTree::check_there(fs, dir)?;
        // A crash while sled wrote its own recovery snapshot leaves a file that it fails on.
        remove_snapshots(fs, dir, |name| name.ends_with(".generating"))?;
        let opened = match open_db(dir, cache_bytes) {
            // Without its snapshots sled recovers from its file alone.
            Err(SledFailure::Damage(_)) => {
                remove_snapshots(fs, dir, |_| true)?;
                open_db(dir, cache_bytes)
            }
            other => other,
        };
        Ok(ChunkTree { db: Some(opened.map_err(|error| error.at(dir))?), dir: dir.to_path_buf() })
    }

    /// Writes a chunk; ascending numbers are fastest.
    pub(super) fn insert(&self, number: u32, bytes: &[u8]) -> Result<(), BackendError> {
        self.call(|db| db.insert(number.to_be_bytes(), bytes).map(|_| ()))
    }

    /// Reads a chunk.
    pub(super) fn get(&self, number: u32) -> Result<Option<Chunk>, BackendError> {
        self.call(|db| db.get(number.to_be_bytes())).map(|found| found.map(Chunk))
    }

    /// Brings to the disk what sled has handed to the operating system, so that little is left for the end.
    pub(super) fn sync_written(&self, fs: &dyn Fs) -> Result<(), BackendError> {
        let path = self.dir.join("db");
        fs.open(&path, OpenMode::Read).and_then(|file| file.sync_data()).map_err(from_io(&path))
    }

    /// Closes the tree and makes it durable, all but the directory's own name. Gives its size in
    /// bytes on disk.
    pub(super) fn finish(mut self, fs: &dyn Fs) -> Result<u64, BackendError> {
        // sled rewrites a page that grew piece by piece when it is next read: the last one here, or it does so while the
        // finished tree is read, and then the next open, which has to note that, fails on a full disk.
        self.call(|db| db.last().map(|_| ()))?;
        self.call(|db| db.flush().map(|_| ()))?;
        self.close();
        sync_tree(fs, &self.dir)
    }

    fn call<T>(&self, call: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, BackendError> {
        let Some(db) = &self.db else { return Err(unavailable(&self.dir, "closed")) };
        guarded(|| call(db)).map_err(|error| error.at(&self.dir))
    }

    /// Closes the tree; later calls fail.
    pub(super) fn close(&mut self) {
        let db = self.db.take();
        // Closing a damaged tree may panic too; what it could have written is not needed.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(db)));
    }
}

impl Drop for ChunkTree {
    fn drop(&mut self) {
        self.close();
    }
}

/// What sled failed with, in our terms.
enum SledFailure {
    Damage(String),
    Busy(String),
    Io(std::io::Error),
}

impl SledFailure {
    fn at(self, dir: &Path) -> BackendError {
        match self {
            SledFailure::Damage(detail) => corrupt(dir, detail),
            SledFailure::Busy(detail) => unavailable(dir, detail),
            SledFailure::Io(error) => from_io(dir)(error),
        }
    }
}

fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, SledFailure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
            Err(SledFailure::Busy(error.to_string()))
        }
        Ok(Err(sled::Error::Io(error))) => Err(SledFailure::Io(error)),
        Ok(Err(error)) => Err(SledFailure::Damage(error.to_string())),
        Err(_) => Err(SledFailure::Damage("sled panicked".into())),
    }
}

fn open_db(dir: &Path, cache_bytes: u64) -> Result<sled::Db, SledFailure> {
    let config = sled::Config::new()
        .path(dir)
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(cache_bytes)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None);
    let started = Instant::now();
    loop {
        match guarded(|| config.open()) {
            // Threads of sled may outlive the handle that was dropped, and its lock with them.
            Err(SledFailure::Busy(_)) if started.elapsed() < LOCK_PATIENCE => sleep(Duration::from_millis(1)),
            done => return done,
        }
    }
}

fn remove_snapshots(fs: &dyn Fs, dir: &Path, which: impl Fn(&str) -> bool) -> Result<(), BackendError> {
    for name in fs.read_dir(dir).map_err(from_io(dir))? {
        if name.starts_with("snap.") && which(&name) {
            let file = dir.join(name);
            fs.remove_file(&file).map_err(from_io(&file))?;
        }
    }
    Ok(())
}
