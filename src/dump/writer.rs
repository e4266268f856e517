//! [`DumpWriter`]: puts entries and transactions into blocks; a second thread compresses, hashes and writes them.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use zstd::bulk::Compressor;

use super::error::{DumpError, IoOn};
use super::format::{self, BLOCK_BYTES, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, DumpHeader, DumpKind, Trailer};
use super::redactions::Redactions;
use crate::log::{Frame, Head};
use crate::types::{Digest, LogId, Position};

/// Blocks on their way to the second thread.
const BLOCKS_AHEAD: usize = 2;
/// Faster than the disk, and the better part of what higher levels gain.
const LEVEL: i32 = 1;

/// What is in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpSummary {
    /// What it holds.
    pub kind: DumpKind,
    /// The log that it was taken from.
    pub log_id: LogId,
    /// The state before its first transaction.
    pub base: Head,
    /// The state that it leads to.
    pub head: Head,
    /// How many transactions.
    pub transactions: u64,
    /// How many entries of a state.
    pub entries: u64,
    /// The size of the whole dump.
    pub bytes: u64,
    /// SHA-256 of the state's entries; zeros without a state.
    pub state: Digest,
    /// SHA-256 of the whole dump.
    pub digest: Digest,
}

/// Writes a dump to anything that takes bytes. What was written is a dump only when [`DumpWriter::finish`] has returned.
#[derive(Debug)]
pub struct DumpWriter<W> {
    name: String,
    header: DumpHeader,
    block: Vec<u8>,
    kind: BlockKind,
    full: Option<SyncSender<(BlockKind, Vec<u8>)>>,
    empty: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<Result<Output<W>, DumpError>>>,
    head: Head,
    transactions: u64,
    entries: u64,
    content: u64,
    state: Sha256,
    redactions: Redactions,
}

impl<W: Write + Send + 'static> DumpWriter<W> {
    /// Begins a dump. `name` is what errors call the file. Nothing that decides about the bytes comes from anywhere but the
    /// arguments, so equal content gives equal dumps.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(out: W, name: &str, header: DumpHeader) -> Result<DumpWriter<W>, DumpError> {
        let (full, blocks) = sync_channel::<(BlockKind, Vec<u8>)>(BLOCKS_AHEAD);
        let (used, empty) = sync_channel(BLOCKS_AHEAD + 1);
        let mut output = Output::new(out, name, header.compressed)?;
        output.put(&header.encode())?;
        let thread = std::thread::Builder::new().name("lakelog-dump".to_owned());
        let thread = thread.spawn(move || {
            for (kind, block) in blocks {
                output.block(kind, &block)?;
                // There are enough of them when this does not find room, and never a reason to wait for it.
                let _ = used.try_send(block);
            }
            Ok(output)
        });
        Ok(DumpWriter {
            name: name.to_owned(),
            head: header.base,
            kind: if header.has_state() { BlockKind::Entries } else { BlockKind::Frames },
            header,
            block: Vec::with_capacity(BLOCK_BYTES),
            full: Some(full),
            empty,
            thread: Some(thread.on("start a thread", name)?),
            transactions: 0,
            entries: 0,
            content: 0,
            state: Sha256::new(),
            redactions: Redactions::default(),
        })
    }

    /// Adds an entry of the state, in the order of encoded keys, before the first transaction.
    ///
    /// # Errors
    /// `Io` of this or an earlier one; `Invalid` where no entry can be.
    pub fn entry(&mut self, key: &[u8], version: Position, value: &[u8]) -> Result<(), DumpError> {
        if self.kind != BlockKind::Entries {
            return Err(misplaced("an entry where a dump has transactions"));
        }
        let from = self.block.len();
        format::put_entry(key, version, value, &mut self.block);
        self.state.update(self.block.get(from..).unwrap_or_default());
        self.entries += 1;
        self.flush_full()
    }

    /// Adds a transaction. That its chain hash follows from the one before is for the caller to have proven.
    ///
    /// # Errors
    /// `Io` of this or an earlier one; `Invalid` for one that is not the next.
    pub fn frame(&mut self, frame: &Frame) -> Result<(), DumpError> {
        if self.header.kind == DumpKind::State || frame.position != self.head.position.next() {
            return Err(misplaced("a transaction that is not the next"));
        }
        if self.kind == BlockKind::Entries {
            self.flush()?;
            self.kind = BlockKind::Frames;
        }
        format::put_frame(frame, &mut self.block);
        self.redactions.pass(frame);
        self.head = Head { position: frame.position, time: frame.time, chain: frame.chain };
        self.transactions += 1;
        self.flush_full()
    }

    /// Writes what is left and the trailer, and flushes.
    ///
    /// # Errors
    /// `Io`; `RedactedLater`.
    pub fn finish(mut self) -> Result<(W, DumpSummary), DumpError> {
        if let Some(position) = self.redactions.unproven() {
            return Err(DumpError::RedactedLater { position, end: self.head.position });
        }
        self.flush()?;
        let mut output = self.join()?;
        let state = match self.header.has_state() {
            true => Digest(self.state.clone().finalize().into()),
            false => Digest::default(),
        };
        let digest = Digest(output.hasher.clone().finalize().into());
        let (transactions, entries, content) = (self.transactions, self.entries, self.content);
        let trailer = Trailer { transactions, entries, content, head: self.head, state, digest };
        output.block(BlockKind::Trailer, &trailer.encode())?;
        output.out.flush().on("write the dump", &self.name)?;
        let summary = DumpSummary {
            kind: self.header.kind,
            log_id: self.header.log_id,
            base: self.header.base,
            head: self.head,
            transactions,
            entries,
            bytes: output.bytes,
            state,
            digest: Digest(output.hasher.finalize().into()),
        };
        Ok((output.out, summary))
    }

    fn flush_full(&mut self) -> Result<(), DumpError> {
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DumpError> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.content += self.block.len() as u64;
        let mut next = self.empty.try_recv().unwrap_or_default();
        next.clear();
        let block = std::mem::replace(&mut self.block, next);
        let sent = self.full.as_ref().is_some_and(|full| full.send((self.kind, block)).is_ok());
        if sent { Ok(()) } else { self.join().map(drop) }
    }

    /// Waits for the second thread. Its failure is the answer; so is what it wrote to.
    fn join(&mut self) -> Result<Output<W>, DumpError> {
        self.full = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => done,
            // It has failed before, or panicked: no more bytes go anywhere.
            _ => Err(DumpError::Io {
                action: "write the dump",
                name: self.name.clone(),
                source: std::io::ErrorKind::BrokenPipe.into(),
            }),
        }
    }
}

impl<W> Drop for DumpWriter<W> {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            // Nothing is written any more when this returns, so a file that is not finished can be removed.
            let _ = thread.join();
        }
    }
}

fn misplaced(what: &str) -> DumpError {
    DumpError::Invalid { detail: format!("{what} cannot be written into the dump") }
}

/// Where blocks go.
struct Output<W> {
    out: W,
    name: String,
    compressor: Option<Compressor<'static>>,
    compressed: Vec<u8>,
    hasher: Sha256,
    bytes: u64,
    sequence: u64,
}

impl<W> std::fmt::Debug for Output<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("name", &self.name).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<W: Write> Output<W> {
    fn new(out: W, name: &str, compressed: bool) -> Result<Output<W>, DumpError> {
        let compressor = compressed.then(|| Compressor::new(LEVEL)).transpose().on("begin to compress", name)?;
        let (name, compressed) = (name.to_owned(), Vec::new());
        Ok(Output { out, name, compressor, compressed, hasher: Sha256::new(), bytes: 0, sequence: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), DumpError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).on("write the dump", &self.name)
    }

    fn block(&mut self, kind: BlockKind, content: &[u8]) -> Result<(), DumpError> {
        let mut stored = std::mem::take(&mut self.compressed);
        let gained = kind != BlockKind::Trailer && self.compress(content, &mut stored)?;
        let bytes = if gained { &stored[..] } else { content };
        let header = BlockHeader {
            kind,
            compressed: gained,
            stored: bytes.len(),
            content: content.len(),
            content_crc: if gained { crc32fast::hash(content) } else { 0 },
            sequence: self.sequence,
        };
        self.sequence += 1;
        let header: [u8; BLOCK_HEADER_BYTES] = header.encode(bytes);
        self.put(&header)?;
        self.put(bytes)?;
        self.compressed = stored;
        Ok(())
    }

    /// `true` when the content is smaller now.
    fn compress(&mut self, content: &[u8], stored: &mut Vec<u8>) -> Result<bool, DumpError> {
        let Some(compressor) = &mut self.compressor else { return Ok(false) };
        stored.clear();
        stored.reserve(zstd::zstd_safe::compress_bound(content.len()));
        let bytes = compressor.compress_to_buffer(content, stored).on("compress the dump", &self.name)?;
        Ok(bytes < content.len())
    }
}
