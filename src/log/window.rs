//! [`SegmentReader`]: frames of one segment file by offset, read through a window.
//!
//! Checks everything that a frame proves by itself: checksum, own offset, tag of the segment. Order
//! and chain are checked by the callers. Memory is bounded by the window, or by one frame where that is
//! larger; payloads are slices of the window, so holding one holds its window.

use std::path::{Path, PathBuf};

use bytes::{Buf as _, Bytes, BytesMut};

use super::error::IoAt;
use super::format::{
    ALIGNMENT, FRAME_HEADER_BYTES, FRAME_MAGIC, FRAMES_AT, Fields, FrameHeader, FrameKind, frame_checksum_holds,
};
use super::{Frame, Head, LogError, Proof};
use crate::env::File;
use crate::types::{Digest, Position, Salt};

/// The first window; each one is twice as large as the one before, up to the largest: who wants one frame reads little.
const WINDOW_BYTES_MIN: u64 = 32 << 10;
const WINDOW_BYTES_MAX: u64 = 256 << 10;
const BLOCK_BYTES: u64 = 4096;

/// What lies at an offset.
#[derive(Debug)]
pub(super) enum Slot {
    /// A frame that is whole and belongs exactly there.
    Frame(RawFrame),
    /// No frame: zeros, damage, the end of the file. Says what.
    Other(&'static str),
}

/// A frame as it stands in the file.
#[derive(Clone, Debug)]
pub(super) struct RawFrame {
    pub header: FrameHeader,
    pub body: Bytes,
}

impl RawFrame {
    /// The state at this frame.
    pub fn head(&self) -> Head {
        Head { position: self.header.position, time: self.header.time, chain: self.header.chain }
    }

    /// The transaction in it. Parsing has proven that the body is long enough for its proof.
    pub fn into_frame(self) -> Frame {
        let mut fields = Fields(&self.body);
        let proof = match self.header.erased {
            true => Proof::Erased(Digest(fields.bytes().unwrap_or_default())),
            false => Proof::Salted(Salt(fields.bytes().unwrap_or_default())),
        };
        let at = self.body.len() - fields.0.len();
        let mut payload = self.body;
        payload.advance(at);
        let FrameHeader { position, time, chain, .. } = self.header;
        Frame { position, time, chain, proof, payload }
    }
}

impl Frame {
    /// The digest that the chain was extended with; computed anew from a whole payload.
    pub fn digest(&self) -> Digest {
        match &self.proof {
            Proof::Salted(salt) => Digest::of(salt, &self.payload),
            Proof::Erased(digest) => *digest,
        }
    }

    /// Whether the frame follows `before` in the chain: position, time, payload and chain hash.
    pub fn follows(&self, before: &Head) -> bool {
        self.position == before.position.next()
            && self.time >= before.time
            && self.chain == before.chain.extend(self.position, self.time, &self.digest())
    }
}

/// A window over a segment file.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: Box<dyn File>,
    path: PathBuf,
    tag: u64,
    size: u64,
    window: Bytes,
    window_at: u64,
    /// How much the next window holds.
    window_bytes: u64,
    /// From here on a search that came to the end met zeros only.
    zeros_from: u64,
}

impl SegmentReader {
    /// Over a file whose header was checked. A `tag` of 0, which no segment has, takes that of the first whole frame met.
    pub fn new(file: Box<dyn File>, path: PathBuf, tag: u64) -> Result<SegmentReader, LogError> {
        let size = file.len().at("read the segment", &path)?;
        let (window, window_bytes) = (Bytes::new(), WINDOW_BYTES_MIN);
        Ok(SegmentReader { file, path, tag, size, window, window_at: 0, window_bytes, zeros_from: size })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size when it was opened, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What lies at `offset`. `Err` only when the file cannot be read.
    pub fn slot(&mut self, offset: u64) -> Result<Slot, LogError> {
        let Some(head) = self.bytes(offset, FRAME_HEADER_BYTES as u64)? else {
            return Ok(Slot::Other("the end of the file"));
        };
        let header = match FrameHeader::parse(head) {
            Ok(header) => header,
            Err(_) if head[..8] == [0; 8] => return Ok(Slot::Other("zeros")),
            Err(why) => return Ok(Slot::Other(why)),
        };
        // Both before the body is read: bytes that only look like a frame cost no memory.
        if header.offset != offset {
            return Ok(Slot::Other("a frame of another offset"));
        }
        if header.tag != self.tag && self.tag != 0 {
            return Ok(Slot::Other("a frame of another segment"));
        }
        let frame_bytes = header.frame_bytes();
        let Some(frame) = self.bytes(offset, frame_bytes)? else {
            return Ok(Slot::Other("the file ends inside the frame"));
        };
        if !frame_checksum_holds(frame) {
            return Ok(Slot::Other("wrong checksum"));
        }
        // Where no header says which segment this is, the first whole frame does.
        self.tag = header.tag;
        let start = (offset - self.window_at) as usize + FRAME_HEADER_BYTES;
        let body = self.window.slice(start..start + header.body_len as usize);
        Ok(Slot::Frame(RawFrame { header, body }))
    }

    /// The next whole frame that begins in `from..to` (`from` a multiple of 8), if there is one before the end of
    /// the file.
    pub fn search(&mut self, from: u64, to: u64) -> Result<Option<RawFrame>, LogError> {
        let mut offset = from;
        let mut zeros_from = None;
        while offset < to
            && let Some(magic) = self.bytes(offset, 4)?
        {
            if *magic == FRAME_MAGIC.to_le_bytes()
                && let Slot::Frame(frame) = self.slot(offset)?
            {
                return Ok(Some(frame));
            }
            // Whole blocks of zeros, most of what is searched, are skipped at once.
            let zeros = offset.is_multiple_of(BLOCK_BYTES) && self.bytes(offset, BLOCK_BYTES)?.is_some_and(is_zero);
            zeros_from = zeros.then(|| zeros_from.unwrap_or(offset));
            offset += if zeros { BLOCK_BYTES } else { ALIGNMENT };
        }
        if offset == self.size {
            self.zeros_from = zeros_from.unwrap_or(self.size);
        }
        Ok(None)
    }

    /// The end of what is not zero in `from..`, as an offset behind its last byte; `None` when only zeros
    /// follow.
    pub fn last_nonzero(&mut self, from: u64) -> Result<Option<u64>, LogError> {
        let mut last = None;
        let mut offset = from;
        while offset < self.zeros_from {
            let len = (BLOCK_BYTES - offset % BLOCK_BYTES).min(self.size - offset);
            if let Some(block) = self.bytes(offset, len)?
                && !is_zero(block)
            {
                let at = block.iter().rposition(|&byte| byte != 0).unwrap_or(0);
                last = Some(offset + at as u64 + 1);
            }
            offset += len;
        }
        Ok(last)
    }

    /// `len` bytes at `offset`; `None` when the file ends before.
    pub fn bytes(&mut self, offset: u64, len: u64) -> Result<Option<&[u8]>, LogError> {
        let end = match offset.checked_add(len) {
            Some(end) if end <= self.size => end,
            _ => return Ok(None),
        };
        if offset < self.window_at || end > self.window_at + self.window.len() as u64 {
            self.fill(offset, len)?;
        }
        let start = offset.checked_sub(self.window_at).and_then(|start| usize::try_from(start).ok());
        Ok(start.and_then(|start| self.window.get(start..)?.get(..len as usize)))
    }

    /// Reads a window at `offset`, at least `len` bytes unless the file has shrunk.
    fn fill(&mut self, offset: u64, len: u64) -> Result<(), LogError> {
        let wanted = len.max(self.window_bytes).min(self.size - offset) as usize;
        self.window_bytes = (2 * self.window_bytes).min(WINDOW_BYTES_MAX);
        // The buffer is used again when no payload of it is held any more.
        let mut buffer = std::mem::take(&mut self.window).try_into_mut().unwrap_or_else(|_| BytesMut::new());
        buffer.resize(wanted, 0);
        let mut read = 0;
        while read < wanted {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // What was asked for is there: a bad sector behind it is met when its turn comes.
                Err(_) if read as u64 >= len => break,
                Err(error) => return Err(error).at("read the segment", &self.path),
            }
        }
        buffer.truncate(read);
        self.window = buffer.freeze();
        self.window_at = offset;
        Ok(())
    }
}

fn is_zero(block: &[u8]) -> bool {
    // Words first: this runs over whole preallocated segments at open.
    let (words, rest) = block.as_chunks::<8>();
    words.iter().fold(0, |any, word| any | u64::from_le_bytes(*word)) == 0 && rest.iter().all(|&byte| byte == 0)
}

/// Finds the transaction at `position` in a segment whose frames are known to be in order from
/// `FRAMES_AT`; gives the state at it and the offset behind it. `before` is the state before the segment.
pub(super) fn locate(
    reader: &mut SegmentReader,
    before: Head,
    position: Position,
) -> Result<Option<(Head, u64)>, LogError> {
    let (mut head, mut offset) = (before, FRAMES_AT);
    while head.position < position {
        match reader.slot(offset)? {
            Slot::Frame(frame)
                if frame.header.kind == FrameKind::Transaction && frame.header.position == head.position.next() =>
            {
                (head, offset) = (frame.head(), frame.header.end());
            }
            _ => return Ok(None),
        }
    }
    Ok((head.position == position).then_some((head, offset)))
}
