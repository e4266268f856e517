//! Reads over several generations: the newest answer wins.
//!
//! Generations are given oldest first; their ranges of versions do not meet, so an entry or a range
//! delete in one is newer than everything in those before it.

use std::sync::Arc;

use super::generation::{Cursor, Generation};
use crate::backends::BackendError;
use crate::types::{Entry, Page, Position, Slice};

/// Bytes after which a page ends.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of rows that a page passes over at most: hidden ones cost reading too.
const PASSED_BYTES: usize = 8 << 20;

/// The entry of a key at a position.
pub(super) fn get(
    generations: &[Arc<Generation>],
    at: Position,
    key: &[u8],
) -> Result<Option<(Position, Slice)>, BackendError> {
    for generation in generations.iter().rev().filter(|generation| generation.record.oldest <= at) {
        let hidden = generation.ranges().newest(key, at);
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
    let mut cursors = Vec::new();
    // Newest first: of equal keys the first found is the one to believe.
    for generation in generations.iter().rev().filter(|generation| generation.record.oldest <= at) {
        let mut cursor = Cursor::seek(generation.clone(), from)?;
        settle(&mut cursor, at)?;
        cursors.push(cursor);
    }
    let ranged: Vec<&Generation> = generations
        .iter()
        .map(|generation| &**generation)
        .filter(|generation| !generation.ranges().is_empty())
        .collect();
    let (mut bytes, mut passed) = (0, 0);
    while let Some(row) = least(&cursors).and_then(Cursor::row) {
        if !to.is_empty() && row.key[..] >= *to {
            break;
        }
        if page.entries.len() >= limit || bytes >= PAGE_BYTES || passed >= PASSED_BYTES {
            page.next = Some(row.key);
            break;
        }
        for cursor in &mut cursors {
            while cursor.key().is_some_and(|key| *key == row.key[..]) {
                passed += cursor.head().map_or(0, |head| head.end - head.key.start);
                cursor.advance()?;
            }
            settle(cursor, at)?;
        }
        let hidden = ranged.iter().any(|generation| generation.ranges().newest(&row.key, at) > Some(row.version));
        if let Some(value) = row.value.filter(|_| !hidden) {
            bytes += row.key.len() + value.len();
            page.entries.push(Entry { encoded_key: row.key, version: row.version, value });
        }
    }
    Ok(page)
}

/// Goes on to a row that is not above the position.
fn settle(cursor: &mut Cursor, at: Position) -> Result<(), BackendError> {
    while cursor.head().is_some_and(|head| head.version > at) {
        cursor.advance()?;
    }
    Ok(())
}

/// The cursor with the least key; the first of several.
pub(super) fn least(cursors: &[Cursor]) -> Option<&Cursor> {
    let standing = cursors.iter().filter(|cursor| cursor.head().is_some());
    standing.min_by(|a, b| a.key().cmp(&b.key()))
}
