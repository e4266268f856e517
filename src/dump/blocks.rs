//! [`Blocks`]: the first step of reading a dump: header and blocks, whose checksums hold, unpacked.
//!
//! Memory is bounded by one block, whatever lengths the bytes claim.

use std::io::{self, Read};

use bytes::Bytes;
use zstd::bulk::Decompressor;

use super::error::{DumpError, IoOn};
use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, DumpHeader, PREFIX_BYTES, Unusable};
use crate::types::Position;

/// A block whose checksums hold.
#[derive(Debug)]
pub(super) struct Block {
    pub kind: BlockKind,
    pub content: Bytes,
    /// Where it begins and ends in the dump.
    pub offset: u64,
    pub end: u64,
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
pub(super) struct Blocks<R> {
    input: R,
    name: String,
    unpacker: Decompressor<'static>,
    offset: u64,
    sequence: u64,
    position: Position,
}

impl<R: Read> Blocks<R> {
    /// `offset` is where the first one begins.
    pub fn new(input: R, name: &str, header: &DumpHeader, offset: u64) -> Result<Blocks<R>, DumpError> {
        let unpacker = Decompressor::new().on("begin to unpack", name)?;
        let position = header.base.position;
        Ok(Blocks { input, name: name.to_owned(), unpacker, offset, sequence: 0, position })
    }

    /// The next block. Behind a trailer the input ends.
    ///
    /// Errors: `Corrupt`, `Io`.
    pub fn next(&mut self) -> Result<Block, DumpError> {
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
        if header.kind == BlockKind::Trailer
            && self.input.by_ref().take(1).read_to_end(&mut bytes).on("read the dump", &self.name)? > 0
        {
            return damaged("bytes follow the trailer");
        }
        let content = match header.compressed {
            false => stored,
            true => match unpack(&mut self.unpacker, &stored, &header) {
                Some(content) => content,
                None => return damaged("a block does not unpack to what it was"),
            },
        };
        Ok(Block { kind: header.kind, content: Bytes::from(content), offset, end: self.offset })
    }
}

fn unpack(unpacker: &mut Decompressor<'_>, stored: &[u8], header: &BlockHeader) -> Option<Vec<u8>> {
    let content = unpacker.decompress(stored, header.content).ok()?;
    (content.len() == header.content && crc32fast::hash(&content) == header.content_crc).then_some(content)
}
