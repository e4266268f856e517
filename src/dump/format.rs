//! The bytes of a dump: pure functions between values and `&[u8]`.
//!
//! Normative text: `docs/format.md`, part 5. Owns layout and the checks that need nothing but the bytes themselves;
//! order and chain are judged by the reader.
//!
//! ```text
//! | header | block of entries | ... | block of frames | ... | trailer |
//! block  | header 32 | items, perhaps compressed |
//! ```

use bytes::{Buf as _, Bytes};

use crate::log::{Frame, Head, LOG_FORMAT, Proof};
use crate::types::{Digest, Hash, Limits, LogId, Position, Salt, Timestamp};

/// The version of the format of dumps that this crate writes.
pub const DUMP_FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"LAKELOGD";
const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;
const LENGTH_AT: usize = 16;
/// What stands at the same place in every version of the format: magic, version, checksum, length.
pub(super) const PREFIX_BYTES: usize = 20;
const FIXED_BYTES: usize = PREFIX_BYTES + 4 + 1 + 1 + 2 + 4 + 16 + 8 + HEAD_BYTES;
const HEAD_BYTES: usize = 8 + 8 + 32;
/// A header longer than this is none.
const HEADER_BYTES_MAX: usize = 64 << 10;
const FLAG_COMPRESSED: u8 = 1;

/// What a dump holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpKind {
    /// Everything that the log can read: all transactions, or the state at the floor and those above it.
    Full = 1,
    /// Transactions after a position.
    Incremental = 2,
    /// The state at a position, without its history.
    State = 3,
}

impl DumpKind {
    /// The name, as the command line prints it.
    pub fn name(self) -> &'static str {
        match self {
            DumpKind::Full => "full",
            DumpKind::Incremental => "incremental",
            DumpKind::State => "state",
        }
    }
}

/// An index whose entries a state holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedIndex {
    /// Its unique name.
    pub name: String,
    /// The version of its rules.
    pub version: u32,
}

/// What a dump says of itself before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpHeader {
    /// What it holds.
    pub kind: DumpKind,
    /// Whether blocks may be compressed.
    pub compressed: bool,
    /// The log that it was taken from.
    pub log_id: LogId,
    /// When that log was created.
    pub created: Timestamp,
    /// The state before its first transaction; for [`DumpKind::State`] the state that it holds.
    pub base: Head,
    /// The indexes whose entries the state in it holds whole, sorted by name.
    pub indexes: Vec<DumpedIndex>,
}

/// Why bytes are not a header that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    Foreign,
    Newer { found: u32, supported: u32 },
    Damaged(&'static str),
}

/// The length of a header, from its first [`PREFIX_BYTES`].
pub(super) fn header_bytes(prefix: &[u8]) -> Result<usize, Unusable> {
    if !MAGIC.starts_with(prefix.get(..MAGIC.len()).unwrap_or(prefix)) || prefix.is_empty() {
        return Err(Unusable::Foreign);
    }
    let mut fields = prefix.get(LENGTH_AT..).unwrap_or_default();
    match fields.try_get_u32_le().map(|length| length as usize) {
        Err(_) => Err(Unusable::Damaged("the file ends inside the header")),
        Ok(length) if (PREFIX_BYTES..=HEADER_BYTES_MAX).contains(&length) => Ok(length),
        Ok(_) => Err(Unusable::Damaged("impossible length of the header")),
    }
}

impl DumpHeader {
    /// Whether blocks of entries come before those of frames.
    pub(super) fn has_state(&self) -> bool {
        match self.kind {
            DumpKind::Full => self.base.position > Position::ZERO,
            DumpKind::Incremental => false,
            DumpKind::State => true,
        }
    }

    /// The header's bytes. An index has a name of at most 255 bytes, and there are at most 255.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; PREFIX_BYTES];
        let mut put = |field: &[u8]| bytes.extend_from_slice(field);
        put(&LOG_FORMAT.to_le_bytes());
        put(&[self.kind as u8, if self.compressed { FLAG_COMPRESSED } else { 0 }, 0, 0]);
        put(&(self.indexes.len() as u32).to_le_bytes());
        put(&self.log_id.0);
        put(&self.created.0.to_le_bytes());
        put(&encode_head(&self.base));
        for DumpedIndex { name, version } in &self.indexes {
            put(&version.to_le_bytes());
            put(&(name.len() as u32).to_le_bytes());
            put(name.as_bytes());
        }
        let length = bytes.len() as u32;
        bytes[..VERSION_AT].copy_from_slice(&MAGIC);
        bytes[VERSION_AT..CRC_AT].copy_from_slice(&DUMP_FORMAT.to_le_bytes());
        bytes[LENGTH_AT..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
        seal_header(&mut bytes);
        bytes
    }

    /// Reads a whole header.
    pub(super) fn decode(bytes: &[u8]) -> Result<DumpHeader, Unusable> {
        if header_bytes(bytes)? != bytes.len() {
            return Err(Unusable::Damaged("the file ends inside the header"));
        }
        if header_crc(bytes).to_le_bytes() != bytes[CRC_AT..LENGTH_AT] {
            return Err(Unusable::Damaged("the header has a wrong checksum"));
        }
        match (&bytes[VERSION_AT..CRC_AT]).get_u32_le() {
            DUMP_FORMAT => {}
            found if found > DUMP_FORMAT => return Err(Unusable::Newer { found, supported: DUMP_FORMAT }),
            _ => return Err(Unusable::Damaged("a version that never was")),
        }
        let mut fields = &bytes[PREFIX_BYTES..];
        if bytes.len() < FIXED_BYTES {
            return Err(Unusable::Damaged("the header is too short"));
        }
        match fields.get_u32_le() {
            LOG_FORMAT => {}
            found if found > LOG_FORMAT => return Err(Unusable::Newer { found, supported: LOG_FORMAT }),
            _ => return Err(Unusable::Damaged("a version of the log that never was")),
        }
        let kind = match fields.get_u8() {
            1 => DumpKind::Full,
            2 => DumpKind::Incremental,
            3 => DumpKind::State,
            _ => return Err(Unusable::Damaged("an unknown kind of dump")),
        };
        let compressed = match fields.get_u8() {
            0 => false,
            FLAG_COMPRESSED => true,
            _ => return Err(Unusable::Damaged("unknown flags")),
        };
        fields.advance(2);
        let count = fields.get_u32_le();
        let log_id = LogId(take(&mut fields));
        let created = Timestamp(fields.get_i64_le());
        let base = decode_head(&mut fields);
        let mut indexes = Vec::new();
        for _ in 0..count {
            indexes.push(decode_index(&mut fields).ok_or(Unusable::Damaged("an index without a name"))?);
        }
        let header = DumpHeader { kind, compressed, log_id, created, base, indexes };
        match header.is_sound() && fields.is_empty() {
            true => Ok(header),
            false => Err(Unusable::Damaged("the header contradicts itself")),
        }
    }

    fn is_sound(&self) -> bool {
        let origin = Head::origin(self.log_id);
        let begins = self.base.position > Position::ZERO || self.base == origin;
        // Nothing is a state of nothing: a dump of that is a full one.
        let state = self.kind != DumpKind::State || self.base.position > Position::ZERO;
        begins && state && (self.has_state() || self.indexes.is_empty())
    }
}

fn decode_index(fields: &mut &[u8]) -> Option<DumpedIndex> {
    let version = fields.try_get_u32_le().ok()?;
    let length = fields.try_get_u32_le().ok()? as usize;
    let (name, rest) = fields.split_at_checked(length)?;
    *fields = rest;
    Some(DumpedIndex { name: String::from_utf8(name.to_vec()).ok()?, version })
}

/// Puts the checksum into a header of at least [`PREFIX_BYTES`].
pub(super) fn seal_header(bytes: &mut [u8]) {
    let crc = header_crc(bytes);
    bytes[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
}

fn header_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[LENGTH_AT..]);
    hasher.finalize()
}

fn encode_head(head: &Head) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&head.position.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&head.time.0.to_le_bytes());
    bytes[16..].copy_from_slice(&head.chain.0);
    bytes
}

/// Only where a length was checked before.
fn take<const N: usize>(fields: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    fields.copy_to_slice(&mut bytes);
    bytes
}

fn decode_head(fields: &mut &[u8]) -> Head {
    Head { position: Position(fields.get_u64_le()), time: Timestamp(fields.get_i64_le()), chain: Hash(take(fields)) }
}

/// A block ends behind the item that fills it up to this, before compression: so equal content has equal blocks.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// No item is larger.
const ITEM_BYTES_MAX: usize = FRAME_ITEM_BYTES + 32 + Limits::TRANSACTION_BYTES_MAX;
/// No block is larger, before compression.
const CONTENT_BYTES_MAX: usize = BLOCK_BYTES + ITEM_BYTES_MAX;
/// The size of a block's header.
pub(super) const BLOCK_HEADER_BYTES: usize = 32;
const BLOCK_MAGIC: [u8; 4] = *b"LLdb";

/// What is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    Entries = 1,
    Frames = 2,
    Trailer = 3,
}

/// A block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub kind: BlockKind,
    pub compressed: bool,
    /// Bytes that follow.
    pub stored: usize,
    /// Bytes of the items in them.
    pub content: usize,
    /// CRC-32 of the items; only of compressed ones, else 0: the other checksum covers them.
    pub content_crc: u32,
    /// Counted from 0.
    pub sequence: u64,
}

impl BlockHeader {
    /// The header's bytes, with a checksum over them and the stored bytes.
    pub fn encode(&self, stored: &[u8]) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[8] = self.kind as u8;
        bytes[9] = u8::from(self.compressed);
        bytes[12..16].copy_from_slice(&(self.stored as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.content as u32).to_le_bytes());
        bytes[20..24].copy_from_slice(&self.content_crc.to_le_bytes());
        bytes[24..].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = block_crc(&bytes, stored);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header whose checksum is not yet proven: its lengths are possible, nothing else of it may be trusted.
    pub fn parse(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<BlockHeader, &'static str> {
        let mut fields = &bytes[..];
        if take::<4>(&mut fields) != BLOCK_MAGIC {
            return Err("no block where one must begin");
        }
        fields.advance(4);
        let kind = match fields.get_u8() {
            1 => BlockKind::Entries,
            2 => BlockKind::Frames,
            3 => BlockKind::Trailer,
            _ => return Err("an unknown kind of block"),
        };
        let compressed = match fields.get_u8() {
            0 => false,
            1 => true,
            _ => return Err("an unknown encoding of a block"),
        };
        if fields.get_u16_le() != 0 {
            return Err("unknown flags of a block");
        }
        let (stored, content) = (fields.get_u32_le() as usize, fields.get_u32_le() as usize);
        let (content_crc, sequence) = (fields.get_u32_le(), fields.get_u64_le());
        let possible = match (kind, compressed) {
            (BlockKind::Trailer, _) => !compressed && stored == TRAILER_BYTES && content == stored,
            (_, false) => stored == content && content_crc == 0,
            (_, true) => stored < content,
        };
        if !possible || content == 0 || content > CONTENT_BYTES_MAX {
            return Err("impossible lengths of a block");
        }
        Ok(BlockHeader { kind, compressed, stored, content, content_crc, sequence })
    }
}

/// Whether the checksum in a block's header is that of the header and its stored bytes.
pub(super) fn block_checksum_holds(header: &[u8; BLOCK_HEADER_BYTES], stored: &[u8]) -> bool {
    header[4..8] == block_crc(header, stored).to_le_bytes()
}

fn block_crc(header: &[u8; BLOCK_HEADER_BYTES], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[8..]);
    hasher.update(stored);
    hasher.finalize()
}

const ENTRY_ITEM_BYTES: usize = 16;
const FRAME_ITEM_BYTES: usize = 24;
const FLAG_ERASED: u32 = 1;

/// Appends an entry to a block.
pub(super) fn put_entry(key: &[u8], version: Position, value: &[u8], block: &mut Vec<u8>) {
    block.extend_from_slice(&(key.len() as u32).to_le_bytes());
    block.extend_from_slice(&(value.len() as u32).to_le_bytes());
    block.extend_from_slice(&version.0.to_le_bytes());
    block.extend_from_slice(key);
    block.extend_from_slice(value);
}

/// Takes an entry off a block: key, version, value. `None` when it does not hold one.
pub(super) fn take_entry(block: &mut Bytes) -> Option<(Bytes, Position, Bytes)> {
    if block.len() < ENTRY_ITEM_BYTES {
        return None;
    }
    let (key, value) = (block.get_u32_le() as usize, block.get_u32_le() as usize);
    let version = Position(block.get_u64_le());
    if key.checked_add(value)? > block.len() {
        return None;
    }
    Some((block.split_to(key), version, block.split_to(value)))
}

/// Appends a transaction to a block.
pub(super) fn put_frame(frame: &Frame, block: &mut Vec<u8>) {
    let (flags, proof) = match &frame.proof {
        Proof::Salted(salt) => (0, &salt.0[..]),
        Proof::Erased(digest) => (FLAG_ERASED, &digest.0[..]),
    };
    let mut fields = [0; FRAME_ITEM_BYTES];
    fields[..4].copy_from_slice(&(frame.payload.len() as u32).to_le_bytes());
    fields[4..8].copy_from_slice(&flags.to_le_bytes());
    fields[8..16].copy_from_slice(&frame.position.0.to_le_bytes());
    fields[16..].copy_from_slice(&frame.time.0.to_le_bytes());
    block.reserve(fields.len() + proof.len() + frame.payload.len());
    block.extend_from_slice(&fields);
    block.extend_from_slice(proof);
    block.extend_from_slice(&frame.payload);
}

/// A transaction as it stands in a block.
#[derive(Debug)]
pub(super) struct FrameItem<'a> {
    pub position: Position,
    pub time: Timestamp,
    pub proof: Proof,
    pub payload: &'a [u8],
}

impl<'a> FrameItem<'a> {
    /// The one that a block begins with, and what is behind it. `None` when the block does not hold one.
    pub fn first(block: &'a [u8]) -> Option<(FrameItem<'a>, &'a [u8])> {
        let (mut fields, rest) = block.split_first_chunk::<FRAME_ITEM_BYTES>().map(|(item, rest)| (&item[..], rest))?;
        let (length, flags) = (fields.get_u32_le() as usize, fields.get_u32_le());
        let (position, time) = (Position(fields.get_u64_le()), Timestamp(fields.get_i64_le()));
        let (proof, rest) = match flags {
            0 => rest.split_first_chunk().map(|(salt, rest)| (Proof::Salted(Salt(*salt)), rest))?,
            FLAG_ERASED => rest.split_first_chunk().map(|(digest, rest)| (Proof::Erased(Digest(*digest)), rest))?,
            _ => return None,
        };
        let (payload, rest) = rest.split_at_checked(length)?;
        let possible = length <= Limits::TRANSACTION_BYTES_MAX;
        possible.then_some((FrameItem { position, time, proof, payload }, rest))
    }

    /// The digest that the chain was extended with.
    pub fn digest(&self) -> Digest {
        match &self.proof {
            Proof::Salted(salt) => Digest::of(salt, self.payload),
            Proof::Erased(digest) => *digest,
        }
    }
}

/// Takes a transaction off a block; its chain hash is not in it. `None` when the block does not hold one.
pub(super) fn take_frame(block: &mut Bytes) -> Option<Frame> {
    let (FrameItem { position, time, proof, payload }, rest) = FrameItem::first(block)?;
    let (length, behind) = (payload.len(), rest.len());
    block.advance(block.len() - behind - length);
    Some(Frame { position, time, chain: Hash::default(), proof, payload: block.split_to(length) })
}

/// The last block's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub transactions: u64,
    pub entries: u64,
    /// Of all items, before compression.
    pub content: u64,
    /// The state that the dump leads to.
    pub head: Head,
    /// SHA-256 of all entries as they stand in blocks; zeros without any.
    pub state: Digest,
    /// SHA-256 of the dump's header: the chain and the digest of the entries prove the rest.
    pub header: Digest,
}

/// The size of a trailer's content.
pub(super) const TRAILER_BYTES: usize = 24 + HEAD_BYTES + 64;

impl Trailer {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        for number in [self.transactions, self.entries, self.content] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&encode_head(&self.head));
        bytes.extend_from_slice(&self.state.0);
        bytes.extend_from_slice(&self.header.0);
        bytes
    }

    /// `None` unless there are [`TRAILER_BYTES`].
    pub fn decode(mut fields: &[u8]) -> Option<Trailer> {
        if fields.len() != TRAILER_BYTES {
            return None;
        }
        Some(Trailer {
            transactions: fields.get_u64_le(),
            entries: fields.get_u64_le(),
            content: fields.get_u64_le(),
            head: decode_head(&mut fields),
            state: Digest(take(&mut fields)),
            header: Digest(take(&mut fields)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn header() -> DumpHeader {
        DumpHeader {
            kind: DumpKind::State,
            compressed: true,
            log_id: LogId([0xab; 16]),
            created: Timestamp(-2),
            base: Head { position: Position(0x0102), time: Timestamp(3), chain: Hash([0xc5; 32]) },
            indexes: vec![DumpedIndex { name: "users".to_owned(), version: 7 }],
        }
    }

    #[test]
    fn golden_bytes_of_the_header() {
        let bytes = header().encode();
        let expect = format!(
            "4c414b454c4f474401000000{}750000000100000003010000\
             01000000{}feffffffffffffff02010000000000000300000000000000{}07000000050000007573657273",
            GOLDEN_CRC[0],
            "ab".repeat(16),
            "c5".repeat(32),
        );
        assert_eq!(hex(&bytes), expect);
        assert_eq!(DumpHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn golden_bytes_of_blocks() {
        let mut entries = Vec::new();
        put_entry(b"p\0\x01k", Position(5), b"value", &mut entries);
        assert_eq!(hex(&entries), "040000000500000005000000000000007000016b76616c7565");
        let mut taken = Bytes::from(entries.clone());
        let entry = (Bytes::from_static(b"p\0\x01k"), Position(5), Bytes::from_static(b"value"));
        assert_eq!((take_entry(&mut taken), taken.len()), (Some(entry), 0));

        for (proof, expect) in [
            (Proof::Salted(Salt([0xaa; 16])), format!("0300000000000000{}{}78797a", GOLDEN_PLACE, "aa".repeat(16))),
            (Proof::Erased(Digest([0xdd; 32])), format!("0300000001000000{}{}78797a", GOLDEN_PLACE, "dd".repeat(32))),
        ] {
            let (position, time) = (Position(6), Timestamp(-1));
            let payload = Bytes::from_static(b"xyz");
            let frame = Frame { position, time, chain: Hash::default(), proof, payload };
            let mut bytes = Vec::new();
            put_frame(&frame, &mut bytes);
            assert_eq!(hex(&bytes), expect);
            let mut taken = Bytes::from(bytes);
            assert_eq!((take_frame(&mut taken), taken.len()), (Some(frame), 0));
        }

        for (compressed, content, content_crc, crc, expect) in [
            (false, entries.len(), 0, GOLDEN_CRC[1], "010000001900000019000000000000000900000000000000"),
            (true, 300, 0x0102_0304, GOLDEN_CRC[2], "01010000190000002c010000040302010900000000000000"),
        ] {
            let kind = BlockKind::Entries;
            let block = BlockHeader { kind, compressed, stored: entries.len(), content, content_crc, sequence: 9 };
            let bytes = block.encode(&entries);
            assert_eq!(hex(&bytes), format!("4c4c6462{crc}{expect}"));
            assert_eq!(BlockHeader::parse(&bytes), Ok(block));
            assert!(block_checksum_holds(&bytes, &entries) && !block_checksum_holds(&bytes, &entries[1..]));
        }
    }

    #[test]
    fn golden_bytes_of_the_trailer() {
        let head = header().base;
        let trailer = Trailer {
            transactions: 1,
            entries: 2,
            content: 3,
            head,
            state: Digest([0x55; 32]),
            header: Digest([0x66; 32]),
        };
        let expect = format!(
            "01000000000000000200000000000000030000000000000002010000000000000300000000000000{}{}{}",
            "c5".repeat(32),
            "55".repeat(32),
            "66".repeat(32)
        );
        assert_eq!((hex(&trailer.encode()), trailer.encode().len()), (expect, TRAILER_BYTES));
        assert_eq!(Trailer::decode(&trailer.encode()), Some(trailer));
    }

    const GOLDEN_CRC: [&str; 3] = ["52cbc1d2", "5f697af3", "edd44b1a"];
    const GOLDEN_PLACE: &str = "0600000000000000ffffffffffffffff";

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        let sound =
            DumpHeader { kind: DumpKind::Full, base: Head::origin(LogId([0xab; 16])), indexes: vec![], ..header() };
        assert_eq!(DumpHeader::decode(&sound.encode()), Ok(sound.clone()));
        for wrong in [
            DumpHeader { kind: DumpKind::State, ..sound.clone() },
            DumpHeader { log_id: LogId([1; 16]), ..sound.clone() },
            DumpHeader { kind: DumpKind::Incremental, ..header() },
            DumpHeader { indexes: header().indexes, ..sound },
        ] {
            assert!(matches!(DumpHeader::decode(&wrong.encode()), Err(Unusable::Damaged(_))), "{wrong:?}");
        }
    }

    #[test]
    fn lengths_that_no_block_can_have_are_refused_before_they_cost_memory() {
        let kind = BlockKind::Frames;
        let sound = BlockHeader { kind, compressed: true, stored: 10, content: 20, content_crc: 1, sequence: 0 };
        assert!(BlockHeader::parse(&sound.encode(&[])).is_ok());
        for wrong in [
            BlockHeader { stored: 20, ..sound },
            BlockHeader { content: CONTENT_BYTES_MAX + 1, ..sound },
            BlockHeader { compressed: false, ..sound },
            BlockHeader { compressed: false, stored: 0, content: 0, content_crc: 0, ..sound },
            BlockHeader { kind: BlockKind::Trailer, ..sound },
        ] {
            assert!(BlockHeader::parse(&wrong.encode(&[])).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_error_or_an_item_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(DumpHeader::decode(&bytes).is_err());
            let mut near = header().encode();
            let at = bytes.len().min(near.len());
            near.splice(at.., bytes.iter().copied());
            prop_assert!(DumpHeader::decode(&near).map_or(true, |found| found == header()));
            let mut block = Bytes::from(bytes);
            while take_entry(&mut block.clone()).is_some() && take_frame(&mut block).is_some() {}
        }
    }
}
