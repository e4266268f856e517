//! [`FaultyFs`]: the real file system, failing at a chosen call, and watching what was synced.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::env::{Env, File, Fs, Lock, OpenMode, OsFs, Space};

/// Fails the n-th call that changes or syncs something: once, or that one and all after it.
#[derive(Clone, Debug)]
pub(super) struct FaultyFs(Arc<Faults>);

#[derive(Debug)]
struct Faults {
    calls_left: AtomicI64,
    crash: AtomicBool,
    synced: Mutex<BTreeSet<PathBuf>>,
}

impl FaultyFs {
    pub(super) fn new() -> FaultyFs {
        let calls_left = AtomicI64::new(i64::MAX);
        FaultyFs(Arc::new(Faults { calls_left, crash: AtomicBool::new(false), synced: Mutex::default() }))
    }

    /// Fails after so many more calls; a crash lets nothing through afterwards.
    pub(super) fn fail_after(&self, calls: i64, crash: bool) {
        self.0.crash.store(crash, Ordering::SeqCst);
        self.0.calls_left.store(calls, Ordering::SeqCst);
    }

    pub(super) fn env(&self) -> Env {
        Env { fs: Arc::new(self.clone()), ..Env::os() }
    }

    fn step(&self) -> io::Result<()> {
        let left = self.0.calls_left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 || (left < 0 && self.0.crash.load(Ordering::SeqCst)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn synced(&self, path: &Path) {
        self.0.synced.lock().insert(path.to_path_buf());
    }

    /// Panics when a generation has a file that was never synced.
    fn assert_synced(&self, base: &Path) {
        let synced = self.0.synced.lock();
        assert!(synced.contains(&base.join("CURRENT.tmp")) && synced.contains(base));
        for name in OsFs.read_dir(base).unwrap().iter().filter(|name| name.starts_with("gen-")) {
            let dir = base.join(name);
            assert!(synced.contains(&dir), "{name}");
            for file in ["db", "conf"] {
                assert!(synced.contains(&dir.join(file)), "{name}/{file}");
            }
            assert!(!dir.join("blobs").exists() || OsFs.read_dir(&dir.join("blobs")).unwrap().is_empty());
        }
    }
}

impl Fs for FaultyFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsFs.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        OsFs.read_dir(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        if mode != OpenMode::Read {
            self.step()?;
        }
        let file = OsFs.open(path, mode)?;
        Ok(Box::new(FaultyFile { file, path: path.to_path_buf(), fs: self.clone() }))
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsFs.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.assert_synced(to.parent().unwrap());
        OsFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsFs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsFs.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.synced(path);
        OsFs.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        OsFs.space(path)
    }
    fn lock(&self, path: &Path, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        OsFs.lock(path, content)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn File>,
    path: PathBuf,
    fs: FaultyFs,
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.fs.step()?;
        // Short writes, so that a fault may fall within the record.
        let half = buffer.len().div_ceil(2).max(60).min(buffer.len());
        self.file.write_at(&buffer[..half], offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.fs.step()?;
        self.fs.synced(&self.path);
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.fs.step()?;
        self.fs.synced(&self.path);
        self.file.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fs.step()?;
        self.file.set_len(len)
    }
}
