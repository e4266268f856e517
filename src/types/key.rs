//! [`Key`]: partition and key as one byte string that sorts by partition, then key.
//!
//! Encoding: the partition with every `00` replaced by `00 FF`, then `00 01`, then the key as it
//! is. So partitions that are prefixes of one another never mix, a prefix of a partition's keys is
//! a prefix of the encoded bytes, and the order of encoded bytes is the order of the pairs.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::Slice;

/// Partitions that begin with this byte belong to the store itself.
pub const OWN_PARTITION_BYTE: u8 = 0;

const ESCAPED_ZERO: [u8; 2] = [0, 0xff];
const END_OF_PARTITION: [u8; 2] = [0, 1];

/// A partition and a key, encoded as one ordered byte string.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(crate) Arc<[u8]>);

impl Key {
    /// Encodes a pair. Arguments are not checked here: the committer and the key/value contract
    /// check them before anything is encoded.
    pub fn new(partition: &[u8], key: &[u8]) -> Key {
        if partition.contains(&0) {
            return Key(Key::encode(partition, key).into());
        }
        // The usual case, made in its place: every read and write makes a key.
        let end = partition.len() + END_OF_PARTITION.len();
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, end + key.len()).collect();
        if let Some(bytes) = Arc::get_mut(&mut bytes) {
            bytes[..partition.len()].copy_from_slice(partition);
            bytes[partition.len()..end].copy_from_slice(&END_OF_PARTITION);
            bytes[end..].copy_from_slice(key);
        }
        Key(bytes)
    }

    /// The encoded bytes of a pair.
    pub fn encode(partition: &[u8], key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(partition.len() + key.len() + 4);
        Key::encode_into(partition, key, &mut bytes);
        bytes
    }

    /// The same, behind what is there.
    pub(crate) fn encode_into(partition: &[u8], key: &[u8], bytes: &mut Vec<u8>) {
        let mut parts = partition.split(|&byte| byte == 0);
        bytes.extend_from_slice(parts.next().unwrap_or_default());
        for part in parts {
            bytes.extend_from_slice(&ESCAPED_ZERO);
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&END_OF_PARTITION);
        bytes.extend_from_slice(key);
    }

    /// Where the key begins in encoded bytes; `None` when they hold no end of partition.
    pub fn key_start(encoded: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(zero) = encoded.get(at..)?.iter().position(|&byte| byte == 0) {
            match encoded.get(at + zero + 1) {
                Some(1) => return Some(at + zero + 2),
                Some(0xff) => at += zero + 2,
                _ => return None,
            }
        }
        None
    }

    /// The partition of encoded bytes; `None` when they are not an encoded pair.
    pub fn partition_of(encoded: &[u8]) -> Option<Vec<u8>> {
        let end = Key::key_start(encoded)? - END_OF_PARTITION.len();
        let mut partition = Vec::with_capacity(end);
        let mut bytes = encoded.get(..end)?.iter();
        while let Some(&byte) = bytes.next() {
            partition.push(byte);
            if byte == 0 {
                bytes.next();
            }
        }
        Some(partition)
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Key> for Slice {
    fn from(key: Key) -> Slice {
        Slice::new(key.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// All encoded keys that begin with one prefix: a partition, or a prefix of its keys.
///
/// Two such ranges are always nested or disjoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange(Arc<[u8]>);

impl KeyRange {
    /// The keys of `partition` that begin with `prefix`; an empty prefix is the whole partition.
    pub fn new(partition: &[u8], prefix: &[u8]) -> KeyRange {
        KeyRange(Key::encode(partition, prefix).into())
    }

    /// The encoded prefix that every key of the range begins with; also its first possible key.
    pub fn prefix(&self) -> &[u8] {
        &self.0
    }

    /// Whether the encoded key lies in the range.
    pub fn contains(&self, encoded: &[u8]) -> bool {
        encoded.starts_with(&self.0)
    }

    /// The first encoded key above the range.
    pub fn end(&self) -> Vec<u8> {
        Self::end_of(&self.0)
    }

    /// The smallest byte string above everything that begins with `prefix`; empty when there is
    /// none (a prefix of `ff` bytes only), which callers treat as "no end".
    pub fn end_of(prefix: &[u8]) -> Vec<u8> {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                break;
            }
        }
        end
    }

    /// Whether it has a key in common with `from <= key < to` (`to` empty: no end).
    pub fn meets(&self, from: &[u8], to: &[u8]) -> bool {
        let end = self.end();
        (to.is_empty() || self.prefix() < to) && (end.is_empty() || &end[..] > from)
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRange({}*)", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_is_partition_then_key(
            a in (prop::collection::vec(0u8..3, 0..4), prop::collection::vec(any::<u8>(), 0..4)),
            b in (prop::collection::vec(0u8..3, 0..4), prop::collection::vec(any::<u8>(), 0..4)),
        ) {
            prop_assert_eq!(Key::new(&a.0, &a.1).cmp(&Key::new(&b.0, &b.1)), a.cmp(&b));
        }

        #[test]
        fn pairs_come_back(partition in prop::collection::vec(0u8..3, 0..6), key in prop::collection::vec(0u8..3, 0..6)) {
            let encoded = Key::encode(&partition, &key);
            prop_assert_eq!(&encoded[..], &Key::encode(&partition, &key)[..]);
            prop_assert_eq!(Key::partition_of(&encoded), Some(partition));
            prop_assert_eq!(&encoded[Key::key_start(&encoded).unwrap()..], &key[..]);
        }

        #[test]
        fn a_range_holds_what_begins_with_it(
            partition in prop::collection::vec(0u8..3, 1..3),
            prefix in prop::collection::vec(254u8.., 0..3),
            other in (prop::collection::vec(0u8..3, 1..3), prop::collection::vec(254u8.., 0..4)),
        ) {
            let range = KeyRange::new(&partition, &prefix);
            let key = Key::encode(&other.0, &other.1);
            let inside = other.0 == partition && other.1.starts_with(&prefix);
            prop_assert_eq!(range.contains(&key), inside);
            let end = range.end();
            prop_assert_eq!(range.prefix() <= &key[..] && (end.is_empty() || key < end), inside);
        }
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for bytes in [&b""[..], b"abc", b"abc\0", b"a\0\x02b"] {
            assert_eq!(Key::partition_of(bytes), None, "{bytes:?}");
        }
    }
}
