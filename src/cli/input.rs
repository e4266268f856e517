//! The file that a verb reads: a path, or `-` for standard input; with how far it was read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::{Error, ErrorKind, Result};

/// A file or standard input, open for reading.
pub struct Input {
    reader: Box<dyn Read + Send>,
    length: Option<u64>,
    read: Arc<AtomicU64>,
}

impl Input {
    /// Opens a path, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such file, else `Unavailable`.
    pub fn open(path: &Path) -> Result<Input> {
        if path == Path::new("-") {
            return Ok(Input::new(Box::new(io::stdin()), None));
        }
        let failed = |error: io::Error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let kind = if missing { ErrorKind::NotFound } else { ErrorKind::Unavailable };
            Error::new(kind, format!("cannot open the file, path=`{}`", path.display())).with_source(error)
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok(Input::new(Box::new(file), metadata.is_file().then_some(metadata.len())))
    }

    fn new(reader: Box<dyn Read + Send>, length: Option<u64>) -> Input {
        Input { reader, length, read: Arc::default() }
    }

    /// The length in bytes, where it is known before the end.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// How many bytes were read, also while somebody else reads.
    pub fn bytes_read(&self) -> impl Fn() -> u64 + use<> {
        let read = self.read.clone();
        move || read.load(Ordering::Relaxed)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_counted() {
        let mut input = Input::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("LICENSE").as_path()).unwrap();
        let read = input.bytes_read();
        input.read_exact(&mut [0; 100]).unwrap();
        assert_eq!(read(), 100);
        let rest = io::copy(&mut input, &mut io::sink()).unwrap();
        assert_eq!((Some(read()), rest + 100), (input.length(), read()));
    }

    #[test]
    fn errors_tell_missing_from_unreadable() {
        let kind = |path: &str| Input::open(Path::new(path)).err().map(|error| error.kind());
        assert_eq!(kind("/no such file"), Some(ErrorKind::NotFound));
        assert_eq!(kind("/dev/null/x"), Some(ErrorKind::Unavailable));
    }
}
