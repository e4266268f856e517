//! A file that gets its name when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::env::Streamed;
use crate::types::{Error, ErrorKind, Result};

/// A file written under another name first, so that a file with the name asked for is a whole one. Readable by its owner only: it
/// holds what the store holds. What is no regular file, such as a pipe, is written in place.
pub struct Unfinished {
    file: File,
    path: PathBuf,
    /// `None` when written in place.
    unfinished: Option<PathBuf>,
}

impl Unfinished {
    /// Begins the file, in place of what an interrupted run left of one.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub fn create(path: &Path) -> Result<Unfinished> {
        let failed = |error: io::Error| failed(path, error);
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            return Ok(Unfinished { file, path: path.to_owned(), unfinished: None });
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        Ok(Unfinished { file: file.map_err(failed)?, path: path.to_owned(), unfinished: Some(unfinished) })
    }

    /// Another handle of the file, to write to.
    ///
    /// # Errors
    ///
    /// `Unavailable`.
    pub fn writer(&self) -> Result<Streamed> {
        self.file.try_clone().map(Streamed::new).map_err(|error| failed(&self.path, error))
    }

    /// Syncs the file and gives it its name, or removes it when what was to be written failed.
    ///
    /// # Errors
    ///
    /// That of `written`; `Unavailable`.
    pub fn finish<T>(self, written: Result<T>) -> Result<T> {
        let Unfinished { file, path, unfinished } = self;
        let Some(unfinished) = unfinished else { return written };
        let published = written
            .and_then(|done| publish(&file, &unfinished, &path).map(|()| done).map_err(|error| failed(&path, error)));
        if published.is_err() {
            // It is named for what it is; failing to remove it says nothing new.
            let _ = fs::remove_file(&unfinished);
        }
        published
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot write the file, path=`{}`", path.display())).with_source(error)
}

fn publish(file: &File, unfinished: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
