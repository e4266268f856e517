//! [`Sequential`] and [`Streamed`]: files read or written from one end to the other, as `std::io` does.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::{File, os};

/// A place in a file that moves with each read and write. Clones have places of their own.
#[derive(Clone, Debug)]
pub struct Sequential {
    file: Arc<dyn File>,
    at: u64,
}

/// The disk is kept busy with pieces of this size while more is written.
const PIECE_BYTES: u64 = 8 << 20;

/// Of a file that is written from one end to the other, and whose end went from `before` to `now`: where the pieces lie that are full
/// since, as offset and length. Whoever writes it tells the system to begin with them ([`File::begin_sync`]).
pub(crate) fn filled_pieces(before: u64, now: u64) -> Option<(u64, u64)> {
    let (first, end) = (before / PIECE_BYTES, now / PIECE_BYTES);
    (first < end).then(|| (first * PIECE_BYTES, (end - first) * PIECE_BYTES))
}

impl Sequential {
    /// From the beginning of the file.
    pub fn new(file: Arc<dyn File>) -> Sequential {
        Sequential { file, at: 0 }
    }

    /// The file.
    pub fn file(&self) -> &dyn File {
        self.file.as_ref()
    }
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Sequential {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(buffer, self.at)?;
        let before = self.at;
        self.at += written as u64;
        if let Some((offset, len)) = filled_pieces(before, self.at) {
            self.file.begin_sync(offset, len);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file or pipe outside the store that is written from one end to the other, and whose bytes go to the disk while more come.
#[derive(Debug)]
pub struct Streamed {
    file: fs::File,
    at: u64,
}

impl Streamed {
    /// From the beginning of an empty file.
    pub fn new(file: fs::File) -> Streamed {
        Streamed { file, at: 0 }
    }

    /// The file.
    pub fn file(&self) -> &fs::File {
        &self.file
    }
}

impl Write for Streamed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        let before = self.at;
        self.at += written as u64;
        if let Some((offset, len)) = filled_pieces(before, self.at) {
            os::begin_sync(&self.file, offset, len);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
