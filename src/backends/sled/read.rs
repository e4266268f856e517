//! Reads over several generations: the newest answer wins.
//!
//! Current generations are given oldest first; their ranges of versions do not meet, so an entry or a range
//! delete in one is newer than everything in those before it. Of what was superseded any generation may hold what a
//! position in the past sees, so there the newest of all is looked for.

use std::sync::Arc;

use super::generation::{Cursor, Generation};
use crate::backends::BackendError;
use crate::types::{Entry, KeyVersion, Page, Position, Slice, VersionPage};

/// Bytes after which a page ends.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of rows that a page passes over at most, and what is left of a key: hidden ones, and those that came later, cost reading too.
pub(super) const PASSED_BYTES: usize = if cfg!(test) { 128 << 10 } else { 8 << 20 };

/// The entry of a key at a position.
pub(super) fn get(
    generations: &[Arc<Generation>],
    at: Position,
    key: &[u8],
) -> Result<Option<(Position, Slice)>, BackendError> {
    for generation in generations.iter().rev().filter(|generation| generation.record.oldest <= at) {
        let hidden = generation.ranges()?.newest(key, at);
        match generation.get(key, at)? {
            Some((version, value)) if hidden.is_none_or(|range| range <= version) => {
                return Ok(value.map(|value| (version, value)));
            }
            None if hidden.is_none() => {}
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// The entry of a key at a position in the past. The order only decides how many generations are looked into.
pub(super) fn get_past<'a>(
    generations: impl Iterator<Item = &'a Arc<Generation>>,
    at: Position,
    key: &[u8],
) -> Result<Option<(Position, Slice)>, BackendError> {
    let mut newest: Option<(Position, Option<Slice>)> = None;
    let mut hidden = None;
    for generation in generations.filter(|generation| generation.record.oldest <= at) {
        hidden = hidden.max(generation.ranges()?.newest(key, at));
        let beaten = newest.as_ref().is_some_and(|(version, _)| *version >= generation.record.newest);
        if !beaten
            && let Some((version, value)) = generation.get(key, at)?
            && newest.as_ref().is_none_or(|(newest, _)| version > *newest)
        {
            newest = Some((version, value));
        }
    }
    let newest = newest.filter(|(version, _)| hidden.is_none_or(|range| range <= *version));
    Ok(newest.and_then(|(version, value)| Some((version, value?))))
}

/// A page of live entries at a position.
pub(super) fn page(
    generations: &[Arc<Generation>],
    at: Position,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<Page, BackendError> {
    let mut page = Page::default();
    if !to.is_empty() && from >= to {
        return Ok(page);
    }
    let mut passed = Passed::from(from);
    let (mut cursors, mut ranged) = (Vec::new(), Vec::new());
    for generation in generations.iter().rev().filter(|generation| generation.record.oldest <= at) {
        ranged.extend(Some(generation.ranges()?).filter(|ranges| !ranges.is_empty()));
        let mut cursor = Cursor::seek(generation.clone(), from)?;
        cursor.settle(at, to, &mut passed)?;
        cursors.push(cursor);
    }
    let mut bytes = 0;
    while let Some(row) = least(&cursors).and_then(Cursor::row) {
        if !to.is_empty() && row.key[..] >= *to {
            break;
        }
        // With enough passed a cursor may stand at a row that is not seen: no other key below it is either.
        if page.entries.len() >= limit || bytes >= PAGE_BYTES || passed.enough(&row.key) {
            page.next = Some(row.key);
            break;
        }
        for cursor in &mut cursors {
            if cursor.key().is_some_and(|key| *key == row.key[..]) {
                passed.bytes += cursor.head().map_or(0, |head| head.end - head.key.start);
                cursor.pass(&row.key)?;
            }
            cursor.settle(at, to, &mut passed)?;
        }
        let hidden = ranged.iter().any(|ranges| ranges.newest(&row.key, at) > Some(row.version));
        if let Some(value) = row.value.filter(|_| !hidden) {
            bytes += row.key.len() + value.len();
            page.entries.push(Entry { encoded_key: row.key, version: row.version, value });
        }
    }
    Ok(page)
}

/// How much a page has passed over that it does not show.
pub(super) struct Passed<'a> {
    /// Of rows.
    pub bytes: usize,
    /// Where the page begins: that key is passed whatever it costs, so that the next page begins at another.
    from: &'a [u8],
}

impl<'a> Passed<'a> {
    /// Nothing yet, of a page that begins there.
    pub fn from(from: &'a [u8]) -> Passed<'a> {
        Passed { bytes: 0, from }
    }

    /// Whether the page ends before this key.
    pub fn enough(&self, key: &[u8]) -> bool {
        self.bytes >= PASSED_BYTES && key > self.from
    }
}

/// A page of versions: keys in order, of one key newest first, range deletes as deletes of what they hid.
pub(super) fn versions(
    generations: &[Arc<Generation>],
    from: &[u8],
    below: Position,
    to: &[u8],
    limit: usize,
) -> Result<VersionPage, BackendError> {
    let mut page = VersionPage::default();
    if !to.is_empty() && from >= to {
        return Ok(page);
    }
    let (mut cursors, mut ranges) = (Vec::new(), Vec::new());
    for generation in generations {
        ranges.push(generation.ranges()?);
        let mut cursor = Cursor::seek(generation.clone(), from)?;
        cursor.pass_versions(from, below)?;
        cursors.push(cursor);
    }
    let mut bytes = 0;
    // The version above the next one of the same key.
    let mut newer = (Slice::from(from), below);
    while let Some(row) = least(&cursors).and_then(Cursor::row) {
        if !to.is_empty() && row.key[..] >= *to {
            break;
        }
        if newer.0 != row.key {
            newer = (row.key.clone(), Position::MAX);
        }
        let (encoded_key, version) = (row.key, row.version);
        let hidden = ranges.iter().filter_map(|own| own.first_above(&encoded_key, version)).min();
        let deleted = hidden.filter(|&range| row.value.is_some() && range < newer.1);
        for (version, value) in deleted.map(|range| (range, None)).into_iter().chain([(version, row.value)]) {
            if page.versions.len() >= limit || bytes >= PAGE_BYTES {
                page.next = Some((encoded_key, version.next()));
                return Ok(page);
            }
            bytes += encoded_key.len() + value.as_ref().map_or(0, |value| value.len());
            page.versions.push(KeyVersion { encoded_key: encoded_key.clone(), version, value });
        }
        newer.1 = version;
        for cursor in &mut cursors {
            if cursor.key() == Some(&encoded_key[..]) && cursor.head().is_some_and(|head| head.version == version) {
                cursor.advance()?;
            }
        }
    }
    Ok(page)
}

/// The cursor with the least key; of several the one with the newest version.
pub(super) fn least(cursors: &[Cursor]) -> Option<&Cursor> {
    let standing = cursors.iter().filter_map(|cursor| Some((cursor, cursor.key()?, cursor.head()?.version)));
    standing.min_by(|a, b| a.1.cmp(b.1).then(b.2.cmp(&a.2))).map(|(cursor, ..)| cursor)
}
