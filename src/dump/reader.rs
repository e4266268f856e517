//! [`DumpReader`]: reads a dump and proves it on the way; a second thread reads, checks and unpacks the blocks.
//!
//! Memory is bounded by a few blocks, whatever lengths the bytes claim. Nothing of the dump is proven as a whole before
//! its end: checksums and the order hold up to what was handed out, the chain hash is compared in the trailer.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::error::{DumpError, IoOn};
use super::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, DumpHeader, DumpKind, PREFIX_BYTES, Trailer, Unusable,
};
use super::redactions::Redactions;
use super::writer::DumpSummary;
use crate::log::{Frame, Head};
use crate::types::{Digest, Key, Position};

const BLOCKS_AHEAD: usize = 2;

/// One entry of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The encoded pair of partition and key ([`Key`]).
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
    blocks: Receiver<Result<Block, DumpError>>,
    content: Bytes,
    kind: BlockKind,
    /// Where the present block begins, and where the next one does.
    offset: u64,
    end: u64,
    head: Head,
    transactions: u64,
    entries: u64,
    content_bytes: u64,
    last_key: Bytes,
    state: Sha256,
    redactions: Redactions,
    summary: Option<DumpSummary>,
}

/// A block whose checksums hold.
#[derive(Debug)]
struct Block {
    kind: BlockKind,
    content: Bytes,
    offset: u64,
    end: u64,
    /// Of a trailer: SHA-256 of everything before it, and of everything.
    digests: Option<(Digest, Digest)>,
}

impl DumpReader {
    /// Reads the header. `name` is what errors call the file.
    ///
    /// # Errors
    /// `NotADump`, `NewerFormat`, `Corrupt`, `Io`.
    pub fn new(mut input: impl Read + Send + 'static, name: &str) -> Result<DumpReader, DumpError> {
        let (header, bytes) = read_header(&mut input, name)?;
        let (ready, blocks) = sync_channel(BLOCKS_AHEAD);
        let mut hasher = Sha256::new();
        hasher.update(&bytes);
        let offset = bytes.len() as u64;
        let mut source =
            Blocks { input, name: name.to_owned(), hasher, offset, sequence: 0, position: header.base.position };
        let thread = std::thread::Builder::new().name("lakelog-restore".to_owned());
        // It ends when the dump does, or when nobody takes its blocks any more.
        let spawned = thread.spawn(move || {
            loop {
                let block = source.next();
                let last = !matches!(&block, Ok(block) if block.kind != BlockKind::Trailer);
                if ready.send(block).is_err() || last {
                    return;
                }
            }
        });
        spawned.on("start a thread", name)?;
        Ok(DumpReader {
            name: name.to_owned(),
            kind: if header.has_state() { BlockKind::Entries } else { BlockKind::Frames },
            head: header.base,
            header,
            blocks,
            content: Bytes::new(),
            offset,
            end: offset,
            transactions: 0,
            entries: 0,
            content_bytes: 0,
            last_key: Bytes::new(),
            state: Sha256::new(),
            redactions: Redactions::default(),
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
        while self.content.is_empty() {
            if self.summary.is_some() {
                return Ok(None);
            }
            let block = match self.blocks.recv() {
                Ok(block) => block?,
                Err(_) => return Err(self.corrupt("nothing more can be read of it")),
            };
            (self.offset, self.end) = (block.offset, block.end);
            match block.digests {
                Some(digests) => self.close(&block, digests)?,
                None => self.open(block)?,
            }
        }
        match self.kind {
            BlockKind::Entries => self.entry().map(DumpItem::Entry).map(Some),
            _ => self.frame().map(|(frame, digest)| Some(DumpItem::Frame(frame, digest))),
        }
    }

    fn open(&mut self, block: Block) -> Result<(), DumpError> {
        let fits = match block.kind {
            BlockKind::Entries => self.kind == BlockKind::Entries,
            _ => self.header.kind != DumpKind::State,
        };
        if !fits {
            return Err(self.corrupt("a block of a kind that does not belong there"));
        }
        self.kind = block.kind;
        if block.kind == BlockKind::Entries {
            self.state.update(&block.content);
        }
        self.content_bytes += block.content.len() as u64;
        self.content = block.content;
        Ok(())
    }

    fn entry(&mut self) -> Result<StateEntry, DumpError> {
        let Some((key, version, value)) = format::take_entry(&mut self.content) else {
            return Err(self.corrupt("an entry that does not fit into its block"));
        };
        if self.entries > 0 && key <= self.last_key {
            return Err(self.corrupt("entries out of order"));
        }
        if Key::partition_of(&key).is_none() || version == Position::ZERO || version > self.header.base.position {
            return Err(self.corrupt("an entry that no state can hold"));
        }
        self.entries += 1;
        self.last_key = key.clone();
        Ok(StateEntry { key, version, value })
    }

    fn frame(&mut self) -> Result<(Frame, Digest), DumpError> {
        let Some(mut frame) = format::take_frame(&mut self.content) else {
            return Err(self.corrupt("a transaction that does not fit into its block"));
        };
        if frame.position != self.head.position.next() || frame.time < self.head.time {
            return Err(self.corrupt("transactions out of order"));
        }
        let digest = frame.digest();
        frame.chain = self.head.chain.extend(frame.position, frame.time, &digest);
        self.redactions.pass(&frame);
        self.head = Head { position: frame.position, time: frame.time, chain: frame.chain };
        self.transactions += 1;
        Ok((frame, digest))
    }

    /// Compares what came with what the trailer says.
    fn close(&mut self, block: &Block, (before, whole): (Digest, Digest)) -> Result<(), DumpError> {
        let Some(trailer) = Trailer::decode(&block.content) else {
            return Err(self.corrupt("impossible length of the trailer"));
        };
        let state = match self.header.has_state() {
            true => Digest(self.state.clone().finalize().into()),
            false => Digest::default(),
        };
        let wrong = if trailer.digest != before {
            Some("the dump has another SHA-256 than its trailer says")
        } else if (trailer.transactions, trailer.entries) != (self.transactions, self.entries)
            || trailer.content != self.content_bytes
        {
            Some("the dump holds another number of transactions, entries or bytes than its trailer says")
        } else if trailer.head != self.head {
            Some("the chain hash does not lead to the one in the trailer")
        } else if trailer.state != state {
            Some("the state is not the one in the trailer")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(self.corrupt(wrong));
        }
        if let Some(position) = self.redactions.unproven() {
            return Err(self.corrupt(&format!(
                "bytes of a transaction were erased, and no redaction vouches for what is left, redacted=`{position}`"
            )));
        }
        self.summary = Some(DumpSummary {
            kind: self.header.kind,
            log_id: self.header.log_id,
            base: self.header.base,
            head: self.head,
            transactions: self.transactions,
            entries: self.entries,
            bytes: self.end,
            state,
            digest: whole,
        });
        Ok(())
    }

    fn corrupt(&self, detail: &str) -> DumpError {
        corrupt(&self.name, self.offset, self.head.position, detail)
    }
}

pub(super) fn corrupt(name: &str, offset: u64, position: Position, detail: &str) -> DumpError {
    DumpError::Corrupt { name: name.to_owned(), offset, position, detail: detail.to_owned() }
}

/// Reads a header, and gives its bytes too.
pub(super) fn read_header(input: &mut impl Read, name: &str) -> Result<(DumpHeader, Vec<u8>), DumpError> {
    let unusable = |unusable| match unusable {
        Unusable::Foreign => DumpError::NotADump { name: name.to_owned() },
        Unusable::Newer { found, supported } => DumpError::NewerFormat { name: name.to_owned(), found, supported },
        Unusable::Damaged(why) => corrupt(name, 0, Position::ZERO, why),
    };
    let mut bytes = Vec::new();
    read_up_to(input, PREFIX_BYTES, &mut bytes).on("read the dump", name)?;
    let length = format::header_bytes(&bytes).map_err(unusable)?;
    read_up_to(input, length - PREFIX_BYTES, &mut bytes).on("read the dump", name)?;
    let header = DumpHeader::decode(&bytes).map_err(unusable)?;
    Ok((header, bytes))
}

/// Appends up to `count` bytes, fewer only at the end. Memory follows what is there, not what was asked for.
fn read_up_to(input: &mut impl Read, count: usize, bytes: &mut Vec<u8>) -> io::Result<usize> {
    const STEP_BYTES: usize = 2 << 20;
    bytes.reserve(count.min(STEP_BYTES));
    input.by_ref().take(count as u64).read_to_end(bytes)
}

/// The blocks of an input whose header was read.
struct Blocks<R> {
    input: R,
    name: String,
    hasher: Sha256,
    offset: u64,
    sequence: u64,
    position: Position,
}

impl<R: Read> Blocks<R> {
    fn next(&mut self) -> Result<Block, DumpError> {
        let offset = self.offset;
        let damaged = |detail: &str| Err(corrupt(&self.name, offset, self.position, detail));
        let mut bytes = Vec::new();
        read_up_to(&mut self.input, BLOCK_HEADER_BYTES, &mut bytes).on("read the dump", &self.name)?;
        let Some(header_bytes) = bytes.first_chunk::<BLOCK_HEADER_BYTES>() else {
            return damaged("the file ends before the trailer");
        };
        let header = match BlockHeader::parse(header_bytes) {
            Ok(header) => header,
            Err(why) => return damaged(why),
        };
        let mut stored = Vec::new();
        let read = read_up_to(&mut self.input, header.stored, &mut stored).on("read the dump", &self.name)?;
        if read < header.stored {
            return damaged("the file ends inside a block");
        }
        if !format::block_checksum_holds(header_bytes, &stored) {
            return damaged("a block has a wrong checksum");
        }
        if header.sequence != self.sequence {
            return damaged("blocks out of order");
        }
        self.offset += (BLOCK_HEADER_BYTES + stored.len()) as u64;
        self.sequence += 1;
        let before = (header.kind == BlockKind::Trailer).then(|| Digest(self.hasher.clone().finalize().into()));
        self.hasher.update(&bytes);
        self.hasher.update(&stored);
        let mut digests = None;
        if let Some(before) = before {
            if self.input.by_ref().take(1).read_to_end(&mut bytes).on("read the dump", &self.name)? > 0 {
                return damaged("bytes follow the trailer");
            }
            digests = Some((before, Digest(self.hasher.clone().finalize().into())));
        }
        let content = match header.compressed {
            false => stored,
            true => match unpack(&stored, &header) {
                Some(content) => content,
                None => return damaged("a block does not unpack to what it was"),
            },
        };
        Ok(Block { kind: header.kind, content: Bytes::from(content), offset, end: self.offset, digests })
    }
}

fn unpack(stored: &[u8], header: &BlockHeader) -> Option<Vec<u8>> {
    let content = zstd::bulk::decompress(stored, header.content).ok()?;
    (content.len() == header.content && crc32fast::hash(&content) == header.content_crc).then_some(content)
}
