//! The outside world behind three narrow traits: files, clock, randomness.
//!
//! Every access to the operating system goes through these, so that a simulation can lose unsynced
//! sectors, fail a sync or let a clock jump back. sled is the one exception: it opens its own files.

mod os;
mod sequential;
#[cfg(any(test, feature = "conformance"))]
pub mod sim;
mod socket;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use os::{OsEntropy, OsFs, SystemClock};
pub(crate) use sequential::filled_pieces;
pub use sequential::{Sequential, Streamed};
pub(crate) use socket::SocketFile;

use crate::types::Timestamp;

/// A file system. Paths are absolute or relative as the caller gave them.
///
/// Contract: files are created 0600 and directories 0700 whatever the umask. Creation, rename and
/// removal are durable only after [`Fs::sync_dir`] of the parent; content only after a sync of the
/// file. Nothing else may be assumed about order.
pub trait Fs: Debug + Send + Sync {
    /// Creates a directory and its missing parents. An existing one is no error.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>>;
    /// Whether something exists at the path.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames within one file system, replacing the target atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it. An absent one is no error.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes an exclusive advisory lock on a file (created when absent) and writes `content` into
    /// it. `WouldBlock` when another process or another handle holds it; `Unsupported` where the
    /// file system has no locks. Released on drop and when the process ends.
    fn lock(&self, path: &Path, content: &[u8]) -> io::Result<Box<dyn Lock>>;
}

/// Creates a directory and its missing parents, each entry synced: what is acknowledged in a store is
/// worth nothing when the store's own name is lost with the power.
pub(crate) fn create_dir_durably(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    let here = Path::new(".");
    let missing = dir.ancestors().take_while(|path| !path.as_os_str().is_empty());
    let mut unsynced = Vec::new();
    for path in missing {
        if fs.exists(path)? {
            break;
        }
        unsynced.push(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(here));
    }
    fs.create_dir_all(dir)?;
    unsynced.iter().rev().try_for_each(|parent| fs.sync_dir(parent))
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing, for reading.
    Read,
    /// Existing, for reading and writing.
    Write,
    /// New, for reading and writing; an existing file is `AlreadyExists`.
    CreateNew,
}

/// An open file. All access names its offset, so one handle serves many threads.
#[expect(clippy::len_without_is_empty, reason = "asking for the size is an access that may fail")]
pub trait File: Debug + Send + Sync {
    /// Reads at an offset; fewer bytes than asked for only at the end of the file or on a short read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset; may write fewer bytes than given.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the content durable (fdatasync: with the size where it changed). After an error
    /// nothing may be assumed about what was written since the last success.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and metadata durable (fsync).
    fn sync_all(&self) -> io::Result<()>;
    /// The size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Truncates or extends (with zeros) to a size.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Extends (with zeros) to a size, with room that later writes find, where the file system can do that without writing. A file
    /// that is larger stays as it is.
    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.len()? < len { self.set_len(len) } else { Ok(()) }
    }
    /// Says that these bytes were written for good: the system may begin to bring them to the disk. Promises nothing.
    fn begin_sync(&self, _offset: u64, _len: u64) {}
}

/// Conveniences over [`File`].
pub trait FileExt: File {
    /// Fills the buffer; `UnexpectedEof` when the file ends before. Interrupted and short reads go on.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the whole buffer. Interrupted and short writes go on; a write of nothing is `WriteZero`.
    fn write_all_at(&self, mut buffer: &[u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.write_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    buffer = &buffer[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<F: File + ?Sized> FileExt for F {}

/// A held lock; dropping it releases it.
pub trait Lock: Debug + Send + Sync {}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free for an unprivileged process.
    pub free: u64,
    /// The size of the file system.
    pub total: u64,
}

/// Tells the time. May jump back: recorded time is kept monotone by the committer.
pub trait Clock: Debug + Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Gives unpredictable bytes: salts, log ids, segment tags.
pub trait Entropy: Debug + Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// The three together, cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    /// Files.
    pub fs: Arc<dyn Fs>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Env {
    /// The operating system.
    pub fn os() -> Env {
        Env { fs: Arc::new(OsFs), clock: Arc::new(SystemClock), entropy: Arc::new(OsEntropy) }
    }
}
