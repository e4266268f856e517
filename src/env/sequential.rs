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
    /// Up to here the system knows that what was written stays.
    handed_on: u64,
}

/// The disk is kept busy with pieces of this size while more is written.
const HAND_ON_BYTES: u64 = 16 << 20;

impl Sequential {
    /// From the beginning of the file.
    pub fn new(file: Arc<dyn File>) -> Sequential {
        Sequential { file, at: 0, handed_on: 0 }
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
        self.at += written as u64;
        if self.at - self.handed_on >= HAND_ON_BYTES {
            self.file.begin_sync(self.handed_on, self.at - self.handed_on);
            self.handed_on = self.at;
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
    handed_on: u64,
}

impl Streamed {
    /// From the beginning of an empty file.
    pub fn new(file: fs::File) -> Streamed {
        Streamed { file, at: 0, handed_on: 0 }
    }

    /// The file.
    pub fn file(&self) -> &fs::File {
        &self.file
    }
}

impl Write for Streamed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.at += written as u64;
        if self.at - self.handed_on >= HAND_ON_BYTES {
            os::begin_sync(&self.file, self.handed_on, self.at - self.handed_on);
            self.handed_on = self.at;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
