//! [`Sequential`]: a file read or written from one end to the other, as `std::io` does.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::File;

/// A place in a file that moves with each read and write. Clones have places of their own.
#[derive(Clone, Debug)]
pub struct Sequential {
    file: Arc<dyn File>,
    at: u64,
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
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
