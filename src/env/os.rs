//! The real operating system behind the traits of this folder.

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt as _, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::{Clock, Entropy, File, Fs, Lock, OpenMode, Space};
use crate::types::Timestamp;

const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// The file system of the machine.
#[derive(Clone, Copy, Debug)]
pub struct OsFs;

impl Fs for OsFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_dir_all(parent)?;
        }
        match fs::DirBuilder::new().mode(DIR_MODE).create(path) {
            // The mode of creation is cut by the umask; what we promise is not.
            Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(DIR_MODE)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        if mode == OpenMode::CreateNew {
            file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        }
        Ok(Box::new(OsFile(file)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space { free: stat.f_bavail * stat.f_frsize, total: stat.f_blocks * stat.f_frsize })
    }

    fn lock(&self, path: &Path, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(OsLock::take(path, content)?))
    }
}

/// Locks a directory too: people remove lock files that they take for stale, and whoever makes the file anew locks another file.
/// None where the file system locks only what is open for writing, as NFS does.
fn lock_dir(path: &Path) -> io::Result<Option<fs::File>> {
    let dir = fs::File::open(path)?;
    match dir.try_lock().map_err(io_of) {
        Ok(()) => Ok(Some(dir)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
        Err(_) => Ok(None),
    }
}

fn io_of(error: fs::TryLockError) -> io::Error {
    match error {
        fs::TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        fs::TryLockError::Error(error) => error,
    }
}

/// Refuses what lies beyond the process's limit of file sizes: the kernel would end a process that does not expect its signal.
fn check_file_size(end: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if end > limit => Err(io::ErrorKind::FileTooLarge.into()),
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct OsFile(fs::File);

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        check_file_size(offset.saturating_add(buffer.len() as u64))?;
        self.0.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // To make a file smaller is allowed, however large it stays.
        if len > self.len()? {
            check_file_size(len)?;
        }
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        check_file_size(len)?;
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.len()? < len => self.set_len(len),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    fn begin_sync(&self, offset: u64, len: u64) {
        begin_sync(&self.0, offset, len);
    }
}

/// What is still to be written is written, without waiting; only what is on the disk already leaves the cache.
pub(super) fn begin_sync(file: &fs::File, offset: u64, len: u64) {
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(len), Advice::DontNeed);
}

#[derive(Debug)]
struct OsLock {
    file: fs::File,
    dir: Option<fs::File>,
}

impl OsLock {
    fn take(path: &Path, content: &[u8]) -> io::Result<OsLock> {
        let file =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        file.try_lock().map_err(io_of)?;
        let mut lock = OsLock { file, dir: None };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        lock.dir = lock_dir(parent)?;
        lock.file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        lock.file.set_len(0)?;
        lock.file.write_all_at(content, 0)?;
        Ok(lock)
    }
}

impl Lock for OsLock {}

/// Unlocks by name. Closing the files is not enough: a child that was forked and has not yet begun its program holds them
/// too, and for that moment the store would be locked by a process that closed it.
impl Drop for OsLock {
    fn drop(&mut self) {
        // What fails here is unlocked when the last of them closes its files.
        let _ = self.dir.as_ref().map(fs::File::unlock);
        let _ = self.file.unlock();
    }
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// The thread's cryptographic generator, seeded by the machine.
#[derive(Clone, Copy, Debug)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        rand::rng().fill(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copied descriptor stands for a forked child that has not yet begun its program.
    #[test]
    fn a_lock_ends_with_its_owner_whoever_else_holds_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let lock = OsLock::take(&path, b"first").unwrap();
        let copies = (lock.file.try_clone().unwrap(), lock.dir.as_ref().unwrap().try_clone().unwrap());
        assert_eq!(OsFs.lock(&path, b"second").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        let second = OsFs.lock(&path, b"second").unwrap();
        drop((copies, second));
    }
}
