//! The bytes of frames and segment headers: pure functions between values and `&[u8]`.
//!
//! Normative text: `docs/format.md`. Owns layout, checksums and the checks that need nothing but
//! the bytes themselves; whether a frame belongs where it was found (position, chain) is judged by
//! the readers, and no file is touched here.
//!
//! ```text
//! segment file   | header block 4096 | frame | frame | ... | mark or seal | zeros ... |
//! frame          | header 88 | body | zeros up to a multiple of 8 |
//! ```

use crate::log::LOG_FORMAT;
use crate::types::{Hash, Limits, LogId, Position, Timestamp};

/// Frames begin at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;
/// `LLfr`: the first four bytes of every frame.
pub(super) const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"LLfr");

const CRC_AT: usize = 4;
/// The frame's checksum covers everything from here to the end of the padding.
const COVERED_AT: usize = CRC_AT + 4;
const KIND_AT: usize = COVERED_AT;
const FLAGS_AT: usize = KIND_AT + 1;
const HEADER_LEN_AT: usize = FLAGS_AT + 1;
const BODY_LEN_AT: usize = HEADER_LEN_AT + 2;
const POSITION_AT: usize = BODY_LEN_AT + 4;
const TIME_AT: usize = POSITION_AT + 8;
const PROMISE_AT: usize = TIME_AT + 8;
const OFFSET_AT: usize = PROMISE_AT + 8;
const TAG_AT: usize = OFFSET_AT + 8;
const CHAIN_AT: usize = TAG_AT + 8;
/// The size of a frame's header.
pub(super) const FRAME_HEADER_BYTES: usize = CHAIN_AT + 32;
const _: () = assert!(FRAME_HEADER_BYTES == 88 && FRAME_HEADER_BYTES.is_multiple_of(ALIGNMENT as usize));

const FLAG_ERASED: u8 = 1;
/// The salt before a whole payload.
pub(super) const SALT_BYTES: usize = 16;
/// The digest before a payload of which bytes were erased.
pub(super) const DIGEST_BYTES: usize = 32;
const SEAL_BODY_BYTES: usize = 16;
/// The largest body: a digest and a transaction of the greatest size.
pub(super) const BODY_BYTES_MAX: usize = DIGEST_BYTES + Limits::TRANSACTION_BYTES_MAX;
/// The size of a mark in the file.
pub(super) const MARK_BYTES: u64 = frame_bytes(0);
/// The size of a seal in the file: what every segment keeps free behind its last frame.
pub(super) const SEAL_BYTES: u64 = frame_bytes(SEAL_BODY_BYTES);

/// The size in the file of a frame with a body of `body` bytes.
pub(super) const fn frame_bytes(body: usize) -> u64 {
    (FRAME_HEADER_BYTES as u64 + body as u64).next_multiple_of(ALIGNMENT)
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// One transaction at its position.
    Transaction = 1,
    /// No transaction: says that everything up to its position was synced.
    Mark = 2,
    /// The last frame of a segment; its body names the next one.
    Seal = 3,
}

/// A frame's header, everything but magic and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub kind: FrameKind,
    /// The body begins with the digest of the original payload instead of its salt.
    pub erased: bool,
    /// Without the padding.
    pub body_len: u32,
    /// Of the transaction; of the last one before a mark or seal.
    pub position: Position,
    /// Recorded time of that transaction.
    pub time: Timestamp,
    /// The highest position known to be synced when this was written.
    pub promise: Position,
    /// Where in the file the frame begins.
    pub offset: u64,
    /// The identity of the segment.
    pub tag: u64,
    /// The chain hash at `position`.
    pub chain: Hash,
}

impl FrameHeader {
    /// Appends the whole frame, body parts joined and padded, to `buffer`.
    ///
    /// The parts must add up to `body_len`: the caller computed it from them.
    pub fn encode(&self, body: &[&[u8]], buffer: &mut Vec<u8>) {
        let start = buffer.len();
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..CRC_AT].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        header[KIND_AT] = self.kind as u8;
        header[FLAGS_AT] = if self.erased { FLAG_ERASED } else { 0 };
        header[HEADER_LEN_AT..BODY_LEN_AT].copy_from_slice(&(FRAME_HEADER_BYTES as u16).to_le_bytes());
        header[BODY_LEN_AT..POSITION_AT].copy_from_slice(&self.body_len.to_le_bytes());
        header[POSITION_AT..TIME_AT].copy_from_slice(&self.position.0.to_le_bytes());
        header[TIME_AT..PROMISE_AT].copy_from_slice(&self.time.0.to_le_bytes());
        header[PROMISE_AT..OFFSET_AT].copy_from_slice(&self.promise.0.to_le_bytes());
        header[OFFSET_AT..TAG_AT].copy_from_slice(&self.offset.to_le_bytes());
        header[TAG_AT..CHAIN_AT].copy_from_slice(&self.tag.to_le_bytes());
        header[CHAIN_AT..].copy_from_slice(&self.chain.0);
        buffer.extend_from_slice(&header);
        body.iter().for_each(|part| buffer.extend_from_slice(part));
        debug_assert_eq!(buffer.len() - start, FRAME_HEADER_BYTES + self.body_len as usize);
        buffer.resize(start + self.frame_bytes() as usize, 0);
        let crc = crc32fast::hash(&buffer[start + COVERED_AT..]);
        buffer[start + CRC_AT..start + COVERED_AT].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header whose checksum is not yet proven: nothing of it may be trusted but that its
    /// lengths are possible. `Err` says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<FrameHeader, &'static str> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_BYTES>().ok_or("the file ends inside a frame header")?;
        if u32_at(bytes, 0) != FRAME_MAGIC {
            return Err("no frame magic");
        }
        let kind = match bytes[KIND_AT] {
            1 => FrameKind::Transaction,
            2 => FrameKind::Mark,
            3 => FrameKind::Seal,
            _ => return Err("unknown kind of frame"),
        };
        let erased = match bytes[FLAGS_AT] {
            0 => false,
            FLAG_ERASED => true,
            _ => return Err("unknown frame flags"),
        };
        if u16::from_le_bytes([bytes[HEADER_LEN_AT], bytes[HEADER_LEN_AT + 1]]) as usize != FRAME_HEADER_BYTES {
            return Err("unknown length of frame header");
        }
        let body_len = u32_at(bytes, BODY_LEN_AT);
        let possible = match kind {
            FrameKind::Transaction => {
                let proof = if erased { DIGEST_BYTES } else { SALT_BYTES };
                (proof..=BODY_BYTES_MAX).contains(&(body_len as usize))
            }
            FrameKind::Mark => body_len == 0 && !erased,
            FrameKind::Seal => body_len as usize == SEAL_BODY_BYTES && !erased,
        };
        if !possible {
            return Err("impossible body length");
        }
        let mut chain = [0; 32];
        chain.copy_from_slice(&bytes[CHAIN_AT..CHAIN_AT + 32]);
        Ok(FrameHeader {
            kind,
            erased,
            body_len,
            position: Position(u64_at(bytes, POSITION_AT)),
            time: Timestamp(u64_at(bytes, TIME_AT) as i64),
            promise: Position(u64_at(bytes, PROMISE_AT)),
            offset: u64_at(bytes, OFFSET_AT),
            tag: u64_at(bytes, TAG_AT),
            chain: Hash(chain),
        })
    }

    /// The size of the frame in the file, padding included.
    pub fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_len as usize)
    }

    /// Where the next frame begins.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.frame_bytes())
    }
}

/// Whether the checksum of a whole frame (padding included) is right.
pub(super) fn frame_checksum_holds(frame: &[u8]) -> bool {
    match (frame.first_chunk::<COVERED_AT>(), frame.get(COVERED_AT..)) {
        (Some(head), Some(covered)) => u32_at(head, CRC_AT) == crc32fast::hash(covered),
        _ => false,
    }
}

/// The body of a seal: sequence and tag that the writer chose for the next segment.
pub(super) fn seal_body(next_sequence: u64, next_tag: u64) -> [u8; SEAL_BODY_BYTES] {
    let mut body = [0; SEAL_BODY_BYTES];
    body[..8].copy_from_slice(&next_sequence.to_le_bytes());
    body[8..].copy_from_slice(&next_tag.to_le_bytes());
    body
}

/// The first block of a segment file holds its header; frames begin behind it.
pub(super) const SEGMENT_HEADER_BYTES: usize = 4096;
/// Where the first frame begins.
pub(super) const FRAMES_AT: u64 = SEGMENT_HEADER_BYTES as u64;
const SEGMENT_MAGIC: [u8; 8] = *b"LAKELOGS";

/// What a segment file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub log_id: LogId,
    /// Random identity, never zero: bytes of another segment never pass for this one's.
    pub tag: u64,
    pub sequence: u64,
    /// The position of the first transaction in it.
    pub first: Position,
    /// Recorded time before it.
    pub time_before: Timestamp,
    /// The chain hash before it.
    pub chain_before: Hash,
    /// The preallocated size of the file in bytes.
    pub size: u64,
}

/// Why a header block or manifest slot is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Not what it should be.
    Damaged(&'static str),
    /// Sound, but of a newer version of the format.
    Newer(u32),
}

/// Magic, version and checksum stand at the same places in every version of every file, so that a
/// newer version is told from damage.
pub(super) const VERSION_AT: usize = 8;
const FILE_CRC_AT: usize = VERSION_AT + 4;
/// Where the version's own fields begin.
pub(super) const FIELDS_AT: usize = FILE_CRC_AT + 4;

/// Puts magic, version and checksum around the fields of `bytes`.
pub(super) fn close_block(magic: [u8; 8], bytes: &mut [u8]) {
    bytes[..8].copy_from_slice(&magic);
    bytes[VERSION_AT..FILE_CRC_AT].copy_from_slice(&LOG_FORMAT.to_le_bytes());
    let crc = block_crc(bytes);
    bytes[FILE_CRC_AT..FIELDS_AT].copy_from_slice(&crc.to_le_bytes());
}

/// Checks magic, checksum and version of a block that [`close_block`] wrote.
pub(super) fn check_block(magic: [u8; 8], bytes: &[u8]) -> Result<(), Unusable> {
    if bytes.len() < FIELDS_AT || bytes[..8] != magic {
        return Err(Unusable::Damaged("no magic"));
    }
    if u32_at(bytes, FILE_CRC_AT) != block_crc(bytes) {
        return Err(Unusable::Damaged("wrong checksum"));
    }
    match u32_at(bytes, VERSION_AT) {
        LOG_FORMAT => Ok(()),
        version if version > LOG_FORMAT => Err(Unusable::Newer(version)),
        _ => Err(Unusable::Damaged("a version that never was")),
    }
}

fn block_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..FILE_CRC_AT]);
    hasher.update(&bytes[FIELDS_AT..]);
    hasher.finalize()
}

impl SegmentHeader {
    /// The header block.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIELDS_AT];
        bytes.extend_from_slice(&self.log_id.0);
        bytes.extend_from_slice(&self.tag.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.first.0.to_le_bytes());
        bytes.extend_from_slice(&self.time_before.0.to_le_bytes());
        bytes.extend_from_slice(&self.chain_before.0);
        bytes.extend_from_slice(&self.size.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        close_block(SEGMENT_MAGIC, &mut bytes);
        bytes
    }

    /// Reads a header block of [`SEGMENT_HEADER_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, Unusable> {
        if bytes.len() != SEGMENT_HEADER_BYTES {
            return Err(Unusable::Damaged("the file ends inside the segment header"));
        }
        check_block(SEGMENT_MAGIC, bytes)?;
        let mut fields = Fields(&bytes[FIELDS_AT..]);
        let header = fields.segment_header().ok_or(Unusable::Damaged("the segment header is too short"))?;
        if header.tag == 0 {
            return Err(Unusable::Damaged("the segment has no tag"));
        }
        Ok(header)
    }
}

/// Takes fixed-width fields off the front of a slice; `None` when it is used up.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub fn position(&mut self) -> Option<Position> {
        self.u64().map(Position)
    }

    pub fn time(&mut self) -> Option<Timestamp> {
        self.bytes().map(i64::from_le_bytes).map(Timestamp)
    }

    pub fn hash(&mut self) -> Option<Hash> {
        self.bytes().map(Hash)
    }

    fn segment_header(&mut self) -> Option<SegmentHeader> {
        Some(SegmentHeader {
            log_id: LogId(self.bytes()?),
            tag: self.u64()?,
            sequence: self.u64()?,
            first: self.position()?,
            time_before: self.time()?,
            chain_before: self.hash()?,
            size: self.u64()?,
        })
    }
}

/// Only for offsets that a constant or an earlier check proves to lie inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn header(kind: FrameKind, body_len: u32) -> FrameHeader {
        FrameHeader {
            kind,
            erased: false,
            body_len,
            position: Position(0x0102),
            time: Timestamp(-2),
            promise: Position(0x0101),
            offset: 4096,
            tag: 0x1122_3344_5566_7788,
            chain: Hash([0xc5; 32]),
        }
    }

    const COMMON: &str = "0201000000000000feffffffffffffff010100000000000000100000000000008877665544332211\
                          c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5";

    #[test]
    fn golden_bytes_of_each_kind_of_frame() {
        for (header, body, crc, expect) in [
            (
                header(FrameKind::Transaction, 19),
                [&[0xaa; 16][..], b"xyz"].concat(),
                GOLDEN_CRC[0],
                format!("0100580013000000{COMMON}{}78797a0000000000", "aa".repeat(16)),
            ),
            (header(FrameKind::Mark, 0), vec![], GOLDEN_CRC[1], format!("0200580000000000{COMMON}")),
            (
                header(FrameKind::Seal, 16),
                seal_body(7, 9).to_vec(),
                GOLDEN_CRC[2],
                format!("0300580010000000{COMMON}07000000000000000900000000000000"),
            ),
            (
                FrameHeader { erased: true, ..header(FrameKind::Transaction, 32) },
                vec![0xdd; 32],
                GOLDEN_CRC[3],
                format!("0101580020000000{COMMON}{}", "dd".repeat(32)),
            ),
        ] {
            let mut bytes = Vec::new();
            header.encode(&[&body], &mut bytes);
            assert_eq!(hex(&bytes), format!("4c4c6672{crc}{expect}"));
            assert_eq!(bytes.len() as u64, header.frame_bytes());
            assert_eq!(FrameHeader::parse(&bytes), Ok(header));
            assert!(frame_checksum_holds(&bytes));
        }
    }

    const GOLDEN_CRC: [&str; 4] = ["a2cc5279", "435cd1a0", "adb461ed", "a9e0c29b"];

    #[test]
    fn golden_bytes_of_the_segment_header() {
        let header = SegmentHeader {
            log_id: LogId([0x1d; 16]),
            tag: 0x2a,
            sequence: 3,
            first: Position(0x0405),
            time_before: Timestamp(6),
            chain_before: Hash([0xc5; 32]),
            size: 64 << 20,
        };
        let bytes = header.encode();
        assert_eq!(
            hex(&bytes[..104]),
            format!(
                "4c414b454c4f475301000000{GOLDEN_SEGMENT_CRC}{}2a000000000000000300000000000000\
                 05040000000000000600000000000000{}0000000400000000",
                "1d".repeat(16),
                "c5".repeat(32)
            )
        );
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
        assert!(bytes[104..].iter().all(|&byte| byte == 0));
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    }

    const GOLDEN_SEGMENT_CRC: &str = "4f284a4e";

    #[test]
    fn fault_16_every_flipped_bit_of_a_frame_or_header_is_found() {
        let mut frame = Vec::new();
        header(FrameKind::Transaction, 21).encode(&[&[1; 16], b"abcde"], &mut frame);
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::parse(&bytes).is_err() || !frame_checksum_holds(&bytes), "bit {bit}");
        }
        let segment = SegmentHeader {
            log_id: LogId([9; 16]),
            tag: 1,
            sequence: 2,
            first: Position(1),
            time_before: Timestamp(0),
            chain_before: Hash([7; 32]),
            size: 8192,
        }
        .encode();
        for bit in 0..segment.len() * 8 {
            let mut bytes = segment.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(&bytes), Err(Unusable::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = vec![0; 64];
        close_block(SEGMENT_MAGIC, &mut bytes);
        bytes[VERSION_AT] = LOG_FORMAT as u8 + 1;
        assert!(matches!(check_block(SEGMENT_MAGIC, &bytes), Err(Unusable::Damaged(_))));
        let crc = block_crc(&bytes);
        bytes[FILE_CRC_AT..FIELDS_AT].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check_block(SEGMENT_MAGIC, &bytes), Err(Unusable::Newer(LOG_FORMAT + 1)));
    }
}
