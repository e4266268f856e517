//! What the files of a base have in common: errors that name the place, and syncing of directories.

use std::io;
use std::path::Path;

use crate::backends::BackendError;
use crate::env::{Fs, OpenMode};

/// Damage at a place.
pub(super) fn corrupt(place: &Path, detail: impl Into<String>) -> BackendError {
    BackendError::Corrupt { place: place.display().to_string(), detail: detail.into() }
}

/// Not possible now.
pub(super) fn unavailable(place: &Path, detail: impl Into<String>) -> BackendError {
    BackendError::Unavailable { place: place.display().to_string(), detail: detail.into() }
}

/// An I/O error: what the surroundings may cure (room, rights, handles, memory) is `Unavailable`,
/// what they will not (missing, cut off, unreadable) is `Corrupt`.
pub(super) fn from_io(place: &Path) -> impl FnOnce(io::Error) -> BackendError + '_ {
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            corrupt(place, error.to_string())
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => corrupt(place, error.to_string()),
        _ => unavailable(place, error.to_string()),
    }
}

/// Makes every file of a directory and the directory itself durable; gives the sum of the sizes.
pub(super) fn sync_tree(fs: &dyn Fs, dir: &Path) -> Result<u64, BackendError> {
    let mut bytes = 0;
    for name in fs.read_dir(dir).map_err(from_io(dir))? {
        let path = dir.join(name);
        // The only directory that sled makes within its own.
        if path.ends_with("blobs") {
            bytes += sync_tree(fs, &path)?;
            continue;
        }
        let sync = || {
            let file = fs.open(&path, OpenMode::Read)?;
            file.sync_all()?;
            file.len()
        };
        bytes += sync().map_err(from_io(&path))?;
    }
    fs.sync_dir(dir).map_err(from_io(dir))?;
    Ok(bytes)
}
