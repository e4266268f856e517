//! [`Prover`]: the second step of reading a dump: blocks become entries and transactions, in order and with their chain
//! hashes, and the trailer is held against them.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::blocks::{Block, corrupt};
use super::error::DumpError;
use super::format::{self, BlockKind, DumpHeader, DumpKind, Trailer};
use super::reader::{DumpItem, StateEntry};
use super::redactions::Redactions;
use super::writer::DumpSummary;
use crate::log::{Frame, Head};
use crate::types::{Digest, Key, Position};

/// Items that are handed on at once: a block of tiny ones would be many times its size.
const PAGE_ITEMS: usize = 1024;

/// What comes out of a block.
#[derive(Debug)]
pub(super) struct Page {
    pub items: Vec<DumpItem>,
    /// Where the block begins and ends in the dump.
    pub offset: u64,
    pub end: u64,
    /// Behind the trailer, when all is as it says.
    pub summary: Option<DumpSummary>,
}

/// What was read so far of a dump.
pub(super) struct Prover {
    name: String,
    header: DumpHeader,
    /// Of the header's bytes.
    digest: Digest,
    kind: BlockKind,
    offset: u64,
    head: Head,
    transactions: u64,
    entries: u64,
    content_bytes: u64,
    last_key: Bytes,
    state: Sha256,
    redactions: Redactions,
}

impl Prover {
    pub fn new(name: &str, header: DumpHeader, digest: Digest) -> Prover {
        Prover {
            name: name.to_owned(),
            kind: if header.has_state() { BlockKind::Entries } else { BlockKind::Frames },
            head: header.base,
            header,
            digest,
            offset: 0,
            transactions: 0,
            entries: 0,
            content_bytes: 0,
            last_key: Bytes::new(),
            state: Sha256::new(),
            redactions: Redactions::default(),
        }
    }

    /// Hands what is in the next block to `take`, page by page, as long as that answers `true`.
    ///
    /// Errors: `Corrupt`. What was sound before it was handed out.
    pub fn pass(&mut self, block: Block, take: &mut dyn FnMut(Page) -> bool) -> Result<(), DumpError> {
        let Block { kind, mut content, offset, end } = block;
        self.offset = offset;
        if kind == BlockKind::Trailer {
            let summary = Some(self.close(&content, end)?);
            take(Page { items: Vec::new(), offset, end, summary });
            return Ok(());
        }
        let fits = match kind {
            BlockKind::Entries => self.kind == BlockKind::Entries,
            _ => self.header.kind != DumpKind::State,
        };
        if !fits {
            return Err(self.corrupt("a block of a kind that does not belong there"));
        }
        self.kind = kind;
        if kind == BlockKind::Entries {
            self.state.update(&content);
        }
        self.content_bytes += content.len() as u64;
        while !content.is_empty() {
            let mut items = Vec::with_capacity(PAGE_ITEMS);
            let mut fill = || {
                while !content.is_empty() && items.len() < PAGE_ITEMS {
                    items.push(match kind {
                        BlockKind::Entries => DumpItem::Entry(self.entry(&mut content)?),
                        _ => self.frame(&mut content)?,
                    });
                }
                Ok(())
            };
            let filled: Result<(), DumpError> = fill();
            let taken = take(Page { items, offset, end, summary: None });
            filled?;
            if !taken {
                break;
            }
        }
        Ok(())
    }

    fn entry(&mut self, content: &mut Bytes) -> Result<StateEntry, DumpError> {
        let Some((key, version, value)) = format::take_entry(content) else {
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

    fn frame(&mut self, content: &mut Bytes) -> Result<DumpItem, DumpError> {
        let Some(mut frame) = format::take_frame(content) else {
            return Err(self.corrupt("a transaction that does not fit into its block"));
        };
        if frame.position != self.head.position.next() || frame.time < self.head.time {
            return Err(self.corrupt("transactions out of order"));
        }
        let digest = frame.digest();
        frame.chain = self.head.chain.extend(frame.position, frame.time, &digest);
        self.redactions.pass(&frame);
        let Frame { position, time, chain, .. } = frame;
        self.head = Head { position, time, chain };
        self.transactions += 1;
        Ok(DumpItem::Frame(frame, digest))
    }

    /// Compares what came with what the trailer says.
    fn close(&self, content: &[u8], end: u64) -> Result<DumpSummary, DumpError> {
        let Some(trailer) = Trailer::decode(content) else {
            return Err(self.corrupt("impossible length of the trailer"));
        };
        let state = match self.header.has_state() {
            true => Digest(self.state.clone().finalize().into()),
            false => Digest::default(),
        };
        let wrong = if trailer.header != self.digest {
            Some("the header is not the one in the trailer")
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
        Ok(DumpSummary {
            kind: self.header.kind,
            log_id: self.header.log_id,
            base: self.header.base,
            head: self.head,
            transactions: self.transactions,
            entries: self.entries,
            bytes: end,
            state,
        })
    }

    fn corrupt(&self, detail: &str) -> DumpError {
        corrupt(&self.name, self.offset, self.head.position, detail)
    }
}
