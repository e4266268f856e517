//! [`DumpReader`]: reads a dump and proves it on the way; a second thread reads, checks and unpacks the blocks, a third one proves what is
//! in them.
//!
//! Memory is bounded by a few blocks, whatever lengths the bytes claim. Nothing of the dump is proven as a whole before
//! its end: checksums and the order hold up to what was handed out, the chain hash is compared in the trailer.

use std::io::Read;
use std::sync::mpsc::{Receiver, sync_channel};
use std::vec;

use bytes::Bytes;

use super::blocks::{Blocks, corrupt, read_header};
use super::error::{DumpError, IoOn};
use super::format::{BlockKind, DumpHeader};
use super::prover::{Page, Prover};
use super::writer::DumpSummary;
use crate::log::{Frame, Head};
use crate::types::{Digest, Position};

const BLOCKS_AHEAD: usize = 2;
/// Pages hold a third of a block when transactions are small. So many go on being proven while a segment is begun.
const PAGES_AHEAD: usize = 8;

/// One entry of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The encoded pair of partition and key ([`crate::types::Key`]).
    pub key: Bytes,
    /// The position that wrote it.
    pub version: Position,
    /// The value.
    pub value: Bytes,
}

/// What a dump hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpItem {
    /// An entry of the state at the base, by ascending key; all before the first transaction.
    Entry(StateEntry),
    /// The next transaction, with its chain hash in the history of the dump's log, and the digest that extended it.
    Frame(Frame, Digest),
}

/// Reads a dump from anything that gives bytes.
#[derive(Debug)]
pub struct DumpReader {
    name: String,
    header: DumpHeader,
    pages: Receiver<Result<Page, DumpError>>,
    items: vec::IntoIter<DumpItem>,
    /// Where the present block begins, and where the next one does.
    offset: u64,
    end: u64,
    head: Head,
    summary: Option<DumpSummary>,
}

impl DumpReader {
    /// Reads the header. `name` is what errors call the file.
    ///
    /// # Errors
    /// `NotADump`, `NewerFormat`, `Corrupt`, `Io`.
    pub fn new(mut input: impl Read + Send + 'static, name: &str) -> Result<DumpReader, DumpError> {
        let (header, bytes) = read_header(&mut input, name)?;
        let offset = bytes.len() as u64;
        let mut source = Blocks::new(input, name, &header, offset)?;
        let mut prover = Prover::new(name, header.clone(), Digest::of_bytes(&bytes));
        let (ready, blocks) = sync_channel(BLOCKS_AHEAD);
        let (proven, pages) = sync_channel(PAGES_AHEAD);
        // Both end when the dump does, or when nobody takes what they have any more.
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let reading = thread("lakelog-restore").spawn(move || {
            loop {
                let block = source.next();
                let last = !matches!(&block, Ok(block) if block.kind != BlockKind::Trailer);
                if ready.send(block).is_err() || last {
                    return;
                }
            }
        });
        reading.on("start a thread", name)?;
        let proving = thread("lakelog-prove").spawn(move || {
            for block in blocks {
                let mut wanted = true;
                let passed = block.and_then(|block| {
                    prover.pass(block, &mut |page| {
                        wanted = proven.send(Ok(page)).is_ok();
                        wanted
                    })
                });
                match passed {
                    Ok(()) if wanted => {}
                    Ok(()) => return,
                    Err(error) => {
                        let _ = proven.send(Err(error));
                        return;
                    }
                }
            }
        });
        proving.on("start a thread", name)?;
        Ok(DumpReader {
            name: name.to_owned(),
            head: header.base,
            header,
            pages,
            items: Vec::new().into_iter(),
            offset,
            end: offset,
            summary: None,
        })
    }

    /// What errors call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the dump says of itself.
    pub fn header(&self) -> &DumpHeader {
        &self.header
    }

    /// How many bytes were read and handed out, to the end of the present block.
    pub fn bytes_read(&self) -> u64 {
        self.end
    }

    /// The last state that was handed out.
    pub fn head(&self) -> Head {
        self.head
    }

    /// What the whole dump holds, once [`DumpReader::next`] has said that it ends: only then all of it is proven.
    pub fn summary(&self) -> Option<DumpSummary> {
        self.summary
    }

    /// The next entry or transaction; `None` when the dump has ended and all of it was as it should be.
    ///
    /// # Errors
    /// `Corrupt`, `Io`. After one of them nothing more is to be had.
    #[allow(clippy::should_implement_trait, reason = "its errors end it, and an iterator would hide that")]
    pub fn next(&mut self) -> Result<Option<DumpItem>, DumpError> {
        loop {
            if let Some(item) = self.items.next() {
                if let DumpItem::Frame(Frame { position, time, chain, .. }, _) = item {
                    self.head = Head { position, time, chain };
                }
                return Ok(Some(item));
            }
            if self.summary.is_some() {
                return Ok(None);
            }
            let Ok(page) = self.pages.recv() else {
                return Err(corrupt(&self.name, self.offset, self.head.position, "nothing more can be read of it"));
            };
            let Page { items, offset, end, summary } = page?;
            (self.offset, self.end, self.summary) = (offset, end, summary);
            self.items = items.into_iter();
        }
    }
}
