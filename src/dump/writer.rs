//! [`DumpWriter`]: puts entries and transactions into blocks; a second thread proves what is in them, a third one compresses and writes them.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use super::error::{DumpError, IoOn};
use super::format::{self, BLOCK_BYTES, BlockKind, DumpHeader, DumpKind, FrameItem, Trailer};
use super::output::Output;
use super::redactions::Redactions;
use crate::log::{Frame, Head};
use crate::types::{Digest, Hash, LogId, Position};

/// Blocks on their way to each of the other threads.
const BLOCKS_AHEAD: usize = 2;

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
}

/// Writes a dump to anything that takes bytes. What was written is a dump only when [`DumpWriter::finish`] has returned.
#[derive(Debug)]
pub struct DumpWriter<W> {
    name: String,
    header: DumpHeader,
    block: Block,
    full: Option<SyncSender<Block>>,
    empty: Receiver<Block>,
    prover: Option<JoinHandle<Result<Prover, DumpError>>>,
    writer: Option<JoinHandle<Result<Output<W>, DumpError>>>,
    head: Head,
    transactions: u64,
    entries: u64,
    content: u64,
    redactions: Redactions,
}

/// Items on their way into the dump.
#[derive(Debug)]
struct Block {
    kind: BlockKind,
    bytes: Vec<u8>,
    /// The chain hashes of the transactions in it.
    chains: Vec<Hash>,
}

impl<W: Write + Send + 'static> DumpWriter<W> {
    /// Begins a dump. `name` is what errors call the file. Nothing that decides about the bytes comes from anywhere but the
    /// arguments, so equal content gives equal dumps.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(out: W, name: &str, header: DumpHeader) -> Result<DumpWriter<W>, DumpError> {
        let (full, blocks) = sync_channel::<Block>(BLOCKS_AHEAD);
        let (proven, ready) = sync_channel::<Block>(BLOCKS_AHEAD);
        let (used, empty) = sync_channel(2 * BLOCKS_AHEAD + 2);
        let mut output = Output::new(out, name, header.compressed)?;
        output.put(&header.encode())?;
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let mut prover = Prover { head: header.base, state: Sha256::new() };
        let prover = thread("lakelog-prove").spawn(move || {
            for block in blocks {
                prover.pass(&block)?;
                // What stops the last thread is its own to tell.
                if proven.send(block).is_err() {
                    break;
                }
            }
            Ok(prover)
        });
        let prover = prover.on("start a thread", name)?;
        let writer = thread("lakelog-dump").spawn(move || {
            for block in ready {
                output.block(block.kind, &block.bytes)?;
                // There are enough of them when this does not find room, and never a reason to wait for it.
                let _ = used.try_send(block);
            }
            Ok(output)
        });
        let kind = if header.has_state() { BlockKind::Entries } else { BlockKind::Frames };
        Ok(DumpWriter {
            name: name.to_owned(),
            head: header.base,
            header,
            block: Block { kind, bytes: Vec::with_capacity(BLOCK_BYTES), chains: Vec::new() },
            full: Some(full),
            empty,
            prover: Some(prover),
            writer: Some(writer.on("start a thread", name)?),
            transactions: 0,
            entries: 0,
            content: 0,
            redactions: Redactions::default(),
        })
    }

    /// Adds an entry of the state, in the order of encoded keys, before the first transaction.
    ///
    /// # Errors
    /// `Io` of this or an earlier one; `Invalid` where no entry can be.
    pub fn entry(&mut self, key: &[u8], version: Position, value: &[u8]) -> Result<(), DumpError> {
        if self.block.kind != BlockKind::Entries {
            return Err(misplaced("an entry where a dump has transactions"));
        }
        format::put_entry(key, version, value, &mut self.block.bytes);
        self.entries += 1;
        self.flush_full()
    }

    /// Adds a transaction. Its digest and chain hash are proven on the way, at the latest by [`DumpWriter::finish`].
    ///
    /// # Errors
    /// `Io` and `BrokenChain` of this or an earlier one; `Invalid` for one that is not the next.
    pub fn frame(&mut self, frame: &Frame) -> Result<(), DumpError> {
        if self.header.kind == DumpKind::State || frame.position != self.head.position.next() {
            return Err(misplaced("a transaction that is not the next"));
        }
        if self.block.kind == BlockKind::Entries {
            self.flush()?;
            self.block.kind = BlockKind::Frames;
        }
        format::put_frame(frame, &mut self.block.bytes);
        self.block.chains.push(frame.chain);
        self.redactions.pass(frame);
        self.head = Head { position: frame.position, time: frame.time, chain: frame.chain };
        self.transactions += 1;
        self.flush_full()
    }

    /// Writes what is left and the trailer, and flushes.
    ///
    /// # Errors
    /// `Io`; `BrokenChain`; `RedactedLater`.
    pub fn finish(mut self) -> Result<(W, DumpSummary), DumpError> {
        if let Some(position) = self.redactions.unproven() {
            return Err(DumpError::RedactedLater { position, end: self.head.position });
        }
        self.flush()?;
        let (prover, mut output) = self.join()?;
        let state = match self.header.has_state() {
            true => Digest(prover.state.finalize().into()),
            false => Digest::default(),
        };
        let header = Digest::of_bytes(&self.header.encode());
        let (transactions, entries, content) = (self.transactions, self.entries, self.content);
        let trailer = Trailer { transactions, entries, content, head: self.head, state, header };
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
        };
        Ok((output.out, summary))
    }

    fn flush_full(&mut self) -> Result<(), DumpError> {
        if self.block.bytes.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DumpError> {
        if self.block.bytes.is_empty() {
            return Ok(());
        }
        self.content += self.block.bytes.len() as u64;
        let kind = self.block.kind;
        let next = match self.empty.try_recv() {
            Ok(mut used) => {
                used.bytes.clear();
                used.chains.clear();
                Block { kind, ..used }
            }
            Err(_) => Block { kind, bytes: Vec::with_capacity(BLOCK_BYTES), chains: Vec::new() },
        };
        let block = std::mem::replace(&mut self.block, next);
        let sent = self.full.as_ref().is_some_and(|full| full.send(block).is_ok());
        if sent { Ok(()) } else { self.join().map(drop) }
    }

    /// Waits for the other threads. The failure of one is the answer; so is what they made.
    fn join(&mut self) -> Result<(Prover, Output<W>), DumpError> {
        self.full = None;
        let (prover, writer) = (self.prover.take().map(JoinHandle::join), self.writer.take().map(JoinHandle::join));
        match (prover, writer) {
            (Some(Ok(prover)), Some(Ok(output))) => Ok((prover?, output?)),
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
        // Nothing is written any more when this returns, so a file that is not finished can be removed.
        let _ = self.prover.take().map(JoinHandle::join);
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

fn misplaced(what: &str) -> DumpError {
    DumpError::Invalid { detail: format!("{what} cannot be written into the dump") }
}

/// Computes what the trailer says of the content.
#[derive(Debug)]
struct Prover {
    head: Head,
    state: Sha256,
}

impl Prover {
    fn pass(&mut self, block: &Block) -> Result<(), DumpError> {
        if block.kind == BlockKind::Entries {
            self.state.update(&block.bytes);
            return Ok(());
        }
        let mut left = &block.bytes[..];
        for chain in &block.chains {
            let broken = DumpError::BrokenChain { position: self.head.position.next() };
            let Some((item, rest)) = FrameItem::first(left) else { return Err(broken) };
            left = rest;
            let FrameItem { position, time, .. } = item;
            if position != self.head.position.next()
                || time < self.head.time
                || self.head.chain.extend(position, time, &item.digest()) != *chain
            {
                return Err(broken);
            }
            self.head = Head { position, time, chain: *chain };
        }
        Ok(())
    }
}
