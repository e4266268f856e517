//! Encoded keys as two columns that sort as the key does: [`Columns`].
//!
//! An encoded key doubles the zero bytes of its partition, so the longest one would not fit a row of an index; the pair of
//! columns does. The split is defined for every byte string, so nothing here depends on keys being pairs.

/// The columns `partition` and `key` of an encoded key, in that order of comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Columns {
    /// The bytes up to the first `00` that no `FF` follows, each `00 FF` before it as `00`.
    pub(super) partition: Vec<u8>,
    /// The rest: of a pair `00 01` and the key within the partition.
    pub(super) key: Vec<u8>,
}

impl Columns {
    /// Splits an encoded key.
    pub(super) fn of(encoded: &[u8]) -> Columns {
        let mut partition = Vec::new();
        let mut rest = encoded;
        loop {
            rest = match rest {
                [0, 0xff, after @ ..] => {
                    partition.push(0);
                    after
                }
                [] | [0, ..] => return Columns { partition, key: rest.to_vec() },
                [byte, after @ ..] => {
                    partition.push(*byte);
                    after
                }
            };
        }
    }

    /// The encoded key of two columns.
    pub(super) fn join(partition: &[u8], key: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(partition.len() + key.len());
        for &byte in partition {
            encoded.push(byte);
            if byte == 0 {
                encoded.push(0xff);
            }
        }
        encoded.extend_from_slice(key);
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Key, Limits};

    #[test]
    fn every_string_comes_back_and_sorts_as_before() {
        // All strings of up to five of the bytes that matter.
        let mut strings = vec![Vec::new()];
        for from in 0..5 {
            let longest: Vec<Vec<u8>> = strings.iter().filter(|string| string.len() == from).cloned().collect();
            strings.extend(
                longest.iter().flat_map(|string| {
                    [0, 1, 2, 0xfe, 0xff].map(|byte| string.iter().copied().chain([byte]).collect())
                }),
            );
        }
        strings.sort();
        let columns: Vec<Columns> = strings.iter().map(|string| Columns::of(string)).collect();
        for (string, columns) in strings.iter().zip(&columns) {
            assert_eq!(Columns::join(&columns.partition, &columns.key), *string);
        }
        assert!(columns.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_pair_is_its_partition_and_its_key() {
        let columns = Columns::of(&Key::encode(b"\0a\0\xff", b"\0k"));
        assert_eq!((&columns.partition[..], &columns.key[..]), (&b"\0a\0\xff"[..], &b"\x00\x01\0k"[..]));
        let longest = Key::encode(
            &[0; Limits::PARTITION_BYTES_MAX],
            &vec![7; Limits::PARTITION_AND_KEY_BYTES_MAX - Limits::PARTITION_BYTES_MAX],
        );
        let columns = Columns::of(&longest);
        assert_eq!(columns.partition.len() + columns.key.len(), Limits::PARTITION_AND_KEY_BYTES_MAX + 2);
    }
}
