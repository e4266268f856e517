//! [`Ranges`]: the range deletes of one write or generation, found by the keys that they cover.

use std::collections::{BTreeSet, HashMap};

use crate::types::{Position, Slice};

/// Range deletes by prefix. A look costs one probe for each distinct length of a prefix.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// As written: by ascending version.
    list: Vec<(Slice, Position)>,
    /// Ascending versions.
    by_prefix: HashMap<Slice, Vec<Position>>,
    lengths: BTreeSet<usize>,
}

impl Ranges {
    pub(crate) fn new(list: Vec<(Slice, Position)>) -> Ranges {
        let mut ranges = Ranges::default();
        for (prefix, version) in &list {
            ranges.lengths.insert(prefix.len());
            ranges.by_prefix.entry(prefix.clone()).or_default().push(*version);
        }
        ranges.by_prefix.values_mut().for_each(|versions| versions.sort_unstable());
        ranges.list = list;
        ranges
    }

    #[cfg(feature = "sled")]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn list(&self) -> &[(Slice, Position)] {
        &self.list
    }

    #[cfg(any(test, feature = "sled"))]
    /// The newest range delete not above `at` that covers the key.
    pub(crate) fn newest(&self, key: &[u8], at: Position) -> Option<Position> {
        let last =
            |versions: &Vec<Position>| versions[..versions.partition_point(|&version| version <= at)].last().copied();
        self.covering(key).filter_map(last).max()
    }

    /// The oldest range delete above `version` that covers the key.
    pub(crate) fn first_above(&self, key: &[u8], version: Position) -> Option<Position> {
        let first = |versions: &Vec<Position>| versions.get(versions.partition_point(|&own| own <= version)).copied();
        self.covering(key).filter_map(first).min()
    }

    fn covering<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Vec<Position>> {
        let prefixes = self.lengths.iter().map_while(|&length| key.get(..length));
        prefixes.filter_map(|prefix| self.by_prefix.get(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_covers_a_key() {
        let list = [("a", 3), ("ab", 5), ("a", 9), ("", 4), ("abcdef", 100)];
        let ranges = Ranges::new(list.iter().map(|(prefix, v)| (prefix.as_bytes().into(), Position(*v))).collect());
        assert_eq!(ranges.newest(b"abc", Position(99)), Some(Position(9)));
        assert_eq!(ranges.newest(b"abc", Position(8)), Some(Position(5)));
        assert_eq!(ranges.newest(b"b", Position(99)), Some(Position(4)));
        assert_eq!(ranges.newest(b"b", Position(3)), None);
        assert_eq!(ranges.first_above(b"abc", Position(5)), Some(Position(9)));
        assert_eq!(ranges.first_above(b"ab", Position(0)), Some(Position(3)));
        assert_eq!(ranges.first_above(b"abc", Position(9)), None);
        assert_eq!(ranges.newest(b"", Position(99)), Some(Position(4)));
    }
}
