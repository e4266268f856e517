//! Where dumps are read from: files, which can be read twice and whose ends can be looked at first, and streams.

use std::fmt;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::{corrupt, read_header};
use super::error::{DumpError, IoOn};
use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, DumpHeader, TRAILER_BYTES, Trailer};
use super::reader::DumpReader;
use crate::env::{File, FileExt as _, Fs, OpenMode, Sequential};
use crate::types::Position;

const COPY_BYTES: usize = 1 << 20;

/// A dump to be read.
pub enum DumpSource {
    /// A file.
    File(PathBuf),
    /// Something that can be read once, such as standard input.
    Stream {
        /// What errors call it.
        name: String,
        /// Where the bytes come from.
        input: Box<dyn Read + Send>,
    },
}

impl fmt::Debug for DumpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpSource::File(path) => f.debug_tuple("File").field(path).finish(),
            DumpSource::Stream { name, .. } => f.debug_tuple("Stream").field(name).finish(),
        }
    }
}

/// A file that is open, so that it stays the same whatever happens to its name.
#[derive(Clone, Debug)]
pub(super) struct DumpFile {
    pub name: String,
    file: Arc<dyn File>,
    pub length: u64,
    pub header: DumpHeader,
    /// As it stands at the end of the file; proven only by reading all of it.
    pub trailer: Trailer,
}

impl DumpFile {
    /// Opens a file and looks at both of its ends.
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<DumpFile, DumpError> {
        let name = path.display().to_string();
        let file: Arc<dyn File> = Arc::from(fs.open(path, OpenMode::Read).on("open the dump", &name)?);
        let length = file.len().on("read the dump", &name)?;
        let (header, _) = read_header(&mut Sequential::new(file.clone()), &name)?;
        let mut end = [0; BLOCK_HEADER_BYTES + TRAILER_BYTES];
        let at = length.saturating_sub(end.len() as u64);
        let cut = || corrupt(&name, at, Position::ZERO, "the file does not end with a trailer");
        match file.read_exact_at(&mut end, at) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(cut()),
            read => read.on("read the dump", &name)?,
        }
        let (block, content) = end.split_first_chunk::<BLOCK_HEADER_BYTES>().ok_or_else(cut)?;
        let sound = BlockHeader::parse(block).is_ok_and(|header| header.kind == BlockKind::Trailer)
            && format::block_checksum_holds(block, content);
        let trailer = Trailer::decode(content).filter(|_| sound).ok_or_else(cut)?;
        Ok(DumpFile { name, file, length, header, trailer })
    }

    /// From the beginning.
    pub fn reader(&self) -> Result<DumpReader, DumpError> {
        DumpReader::new(Sequential::new(self.file.clone()), &self.name)
    }
}

/// A stream of which only the header was read.
pub(super) struct DumpStream {
    pub name: String,
    pub header: DumpHeader,
    input: Box<dyn Read + Send>,
}

impl DumpStream {
    pub fn open(name: String, mut input: Box<dyn Read + Send>) -> Result<DumpStream, DumpError> {
        let (header, bytes) = read_header(&mut input, &name)?;
        Ok(DumpStream { name, header, input: Box::new(Cursor::new(bytes).chain(input)) })
    }

    /// From the beginning.
    pub fn reader(self) -> Result<DumpReader, DumpError> {
        DumpReader::new(self.input, &self.name)
    }

    /// Writes it into a file, from which it can be read twice. A file that is there already is from an earlier attempt.
    pub fn spool(mut self, fs: &dyn Fs, path: &Path) -> Result<DumpFile, DumpError> {
        remove(fs, path)?;
        let name = path.display().to_string();
        let file = fs.open(path, OpenMode::CreateNew).on("create a file for the dump", &name)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        loop {
            let read = match self.input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).on("read the dump", &self.name),
            };
            file.write_all_at(buffer.get(..read).unwrap_or_default(), at).on("write a file for the dump", &name)?;
            at += read as u64;
        }
        Ok(DumpFile { name: self.name, ..DumpFile::open(fs, path)? })
    }
}

/// Removes a file, if there is one.
pub(super) fn remove(fs: &dyn Fs, path: &Path) -> Result<(), DumpError> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).on("remove a file", &path.display().to_string())
        }
        _ => Ok(()),
    }
}
