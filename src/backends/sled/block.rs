//! A block: sorted rows, compressed where that shrinks them. Pure bytes; `docs/format.md` has
//! the tables.
//!
//! ```text
//!   block    encoding u8 | raw length u32 | rows, raw or lz4
//!   row      key length u16 | value length u32 (ff ff ff ff: delete) | version u64 | key | value
//! ```
//!
//! Little-endian. The checksum of a block is kept in the index, apart from what it protects.

use std::ops::Range;
use std::sync::Arc;

use crate::backends::checked::ENCODED_KEY_BYTES_MAX;
use crate::types::{Limits, Position, Slice};

/// Rows gathered before a block is closed, in raw bytes.
pub(super) const BLOCK_BYTES: usize = 4 << 10;
/// No block is larger raw: one row at the limits.
const RAW_BYTES_MAX: usize = ROW_HEADER_BYTES + ENCODED_KEY_BYTES_MAX + Limits::VALUE_BYTES_MAX + BLOCK_BYTES;
/// No block is longer encoded: what does not shrink is kept raw.
pub(super) const ENCODED_BYTES_MAX: usize = RAW_BYTES_MAX + HEADER_BYTES;

const HEADER_BYTES: usize = 5;
const ROW_HEADER_BYTES: usize = 14;
const RAW: u8 = 0;
const LZ4: u8 = 1;
const DELETE: u32 = u32::MAX;

/// One version of a key; no value is a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: Slice,
    pub(super) version: Position,
    pub(super) value: Option<Slice>,
}

/// Where a row lies in raw block bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowAt {
    pub(super) key: Range<usize>,
    pub(super) version: Position,
    pub(super) value: Option<Range<usize>>,
    /// Where the following row begins.
    pub(super) end: usize,
}

/// How many raw bytes a row takes.
pub(super) fn row_bytes(row: &Row) -> usize {
    ROW_HEADER_BYTES + row.key.len() + row.value.as_ref().map_or(0, |value| value.len())
}

/// Appends a row to raw block bytes. Keys and values are within the limits that writes check.
pub(super) fn push_row(raw: &mut Vec<u8>, row: &Row) {
    let value = row.value.as_deref();
    raw.extend_from_slice(&(row.key.len() as u16).to_le_bytes());
    raw.extend_from_slice(&value.map_or(DELETE, |value| value.len() as u32).to_le_bytes());
    raw.extend_from_slice(&row.version.0.to_le_bytes());
    raw.extend_from_slice(&row.key);
    raw.extend_from_slice(value.unwrap_or_default());
}

/// The row at an offset of raw block bytes; `None` when they are damaged.
pub(super) fn row_at(raw: &[u8], offset: usize) -> Option<RowAt> {
    let (header, rest) = raw.get(offset..)?.split_first_chunk::<ROW_HEADER_BYTES>()?;
    let [k0, k1, v0, v1, v2, v3, version @ ..] = *header;
    let key_len = usize::from(u16::from_le_bytes([k0, k1]));
    let value_len = u32::from_le_bytes([v0, v1, v2, v3]);
    let key = offset + ROW_HEADER_BYTES..offset + ROW_HEADER_BYTES + key_len;
    let value = (value_len != DELETE).then(|| key.end..key.end + value_len as usize);
    let end = value.as_ref().map_or(key.end, |value| value.end);
    let inside = end - offset - ROW_HEADER_BYTES <= rest.len();
    inside.then_some(RowAt { key, version: Position(u64::from_le_bytes(version)), value, end })
}

/// The stored form of raw block bytes.
pub(super) fn encode(raw: &[u8]) -> Vec<u8> {
    let packed = lz4_flex::block::compress(raw);
    // A block that hardly shrinks is read faster as it is.
    let (encoding, payload) = if packed.len() < raw.len() - raw.len() / 8 { (LZ4, &packed[..]) } else { (RAW, raw) };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.push(encoding);
    bytes.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The checksum of a block: CRC-32 of the generation's tag, the block's number and its stored form.
pub(super) fn checksum(tag: u64, number: u32, encoded: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&tag.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(encoded);
    hasher.finalize()
}

/// The raw bytes of a stored block, shared; `None` when it is damaged.
pub(super) fn decode(encoded: &[u8]) -> Option<Slice> {
    let (encoding, raw_len, payload) = split(encoded)?;
    if encoding == RAW {
        return Some(Slice::from(payload));
    }
    let mut raw: Arc<[u8]> = std::iter::repeat_n(0, raw_len).collect();
    let filled = lz4_flex::block::decompress_into(payload, Arc::get_mut(&mut raw)?).ok()?;
    (filled == raw_len).then(|| Slice::new(raw))
}

/// Like [`decode`], for a look that ends before the next one: the bytes lie in `scratch`.
pub(super) fn decode_into<'a>(encoded: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let (encoding, raw_len, payload) = split(encoded)?;
    if encoding == RAW {
        return Some(payload);
    }
    if scratch.len() < raw_len {
        scratch.resize(raw_len, 0);
    }
    let raw = scratch.get_mut(..raw_len)?;
    let filled = lz4_flex::block::decompress_into(payload, raw).ok()?;
    (filled == raw_len).then_some(raw)
}

fn split(encoded: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (&[encoding, a, b, c, d], payload) = encoded.split_first_chunk::<HEADER_BYTES>()?;
    let raw_len = u32::from_le_bytes([a, b, c, d]) as usize;
    let sound = match encoding {
        RAW => raw_len == payload.len(),
        LZ4 => raw_len <= RAW_BYTES_MAX,
        _ => false,
    };
    sound.then_some((encoding, raw_len, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(key: &[u8], version: u64, value: Option<&[u8]>) -> Row {
        Row { key: key.into(), version: Position(version), value: value.map(Slice::from) }
    }

    fn raw_of(rows: &[Row]) -> Vec<u8> {
        let mut raw = Vec::new();
        rows.iter().for_each(|row| push_row(&mut raw, row));
        raw
    }

    #[test]
    fn golden_bytes() {
        let raw = raw_of(&[row(b"ab", 0x0102, Some(b"xyz")), row(b"ab", 1, None)]);
        let rows = b"\x02\0\x03\0\0\0\x02\x01\0\0\0\0\0\0abxyz\x02\0\xff\xff\xff\xff\x01\0\0\0\0\0\0\0ab";
        assert_eq!(raw.escape_ascii().to_string(), rows.escape_ascii().to_string());
        let encoded = encode(&raw);
        assert_eq!(encoded, [&[0, 35, 0, 0, 0][..], rows].concat());
        assert_eq!(checksum(7, 9, &encoded), 0x50eb_4b4a);

        // How well lz4 packs may change with its version; what the bytes mean may not.
        let packed = [1, 100, 0, 0, 0, 0x1f, b'a', 1, 0, 74, 0x60, b'a', b'a', b'a', b'a', b'a', b'a'];
        assert_eq!(decode(&packed).unwrap(), Slice::from(&[b'a'; 100][..]));
        assert!(encode(&[b'a'; 100]).len() <= packed.len());
    }

    proptest! {
        #[test]
        fn rows_come_back(keys in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), any::<u64>(), prop::option::of(prop::collection::vec(0u8..3, 0..90))),
            0..20,
        )) {
            let rows: Vec<Row> = keys.iter().map(|(key, version, value)| row(key, *version, value.as_deref())).collect();
            let raw = raw_of(&rows);
            prop_assert_eq!(raw.len(), rows.iter().map(row_bytes).sum::<usize>());
            let encoded = encode(&raw);
            let decoded = decode(&encoded).unwrap();
            prop_assert_eq!(&decoded[..], &raw[..]);
            let mut scratch = vec![9; 7];
            prop_assert_eq!(decode_into(&encoded, &mut scratch).unwrap(), &raw[..]);
            let mut offset = 0;
            for row in rows {
                let at = row_at(&decoded, offset).unwrap();
                let value = at.value.map(|value| decoded.part(value));
                prop_assert_eq!(Row { key: decoded.part(at.key), version: at.version, value }, row);
                offset = at.end;
            }
            prop_assert_eq!(offset, decoded.len());
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), offset in 0usize..300) {
            let _ = decode(&bytes);
            let _ = decode_into(&bytes, &mut Vec::new());
            if let Some(row) = row_at(&bytes, offset) {
                prop_assert!(row.end <= bytes.len() && row.key.end <= row.end);
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        assert_eq!(decode(&[LZ4, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]), None, "no allocation of 4 GiB");
        assert_eq!(decode(&[RAW, 4, 0, 0, 0, 1, 2, 3]), None);
        assert_eq!(decode(&[2, 3, 0, 0, 0, 1, 2, 3]), None);
        assert_eq!(decode(&[RAW, 0, 0]), None);
        let mut longer = encode(&[b'a'; 100]);
        longer[1] = 101;
        assert_eq!(decode(&longer), None);
    }
}
