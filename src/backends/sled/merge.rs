//! Merging adjacent generations into one: what no readable position sees stays behind.

use std::sync::Arc;

use super::block::Row;
use super::files::corrupt;
use super::generation::{Cursor, Generation, GenerationWriter, generation_dir};
use crate::backends::BackendError;
use crate::backends::readable::Readable;
use crate::types::{Position, Slice};

/// Streams the rows of `inputs` (oldest first) into `output`. `lowest`: nothing older lies below
/// them, so deletes and range deletes have done their work once the rows they hide are gone.
pub(super) fn merge(
    inputs: &[Arc<Generation>],
    lowest: bool,
    readable: &Readable,
    output: &mut GenerationWriter,
) -> Result<(), BackendError> {
    if !lowest {
        for (prefix, version) in inputs.iter().flat_map(|generation| generation.ranges().list()) {
            output.push_range(prefix.clone(), *version);
        }
    }
    // Newest first, so that of one key the newest versions come first.
    let mut cursors = Vec::new();
    for generation in inputs.iter().rev() {
        cursors.push(Cursor::seek(generation.clone(), b"")?);
    }
    let mut group = Group::default();
    while let Some(index) = least(&cursors) {
        let Some(cursor) = cursors.get_mut(index) else { break };
        if let Some(row) = cursor.row() {
            let hidden = inputs.iter().filter_map(|input| input.ranges().first_above(&row.key, row.version)).min();
            group.take(row, hidden, lowest, readable, output)?;
        }
        cursor.advance()?;
    }
    for cursor in cursors {
        let record = &cursor.generation.record;
        if cursor.passed() != record.rows {
            let place = generation_dir("".as_ref(), record.id);
            return Err(corrupt(&place, format!("rows=`{}` expected=`{}`", cursor.passed(), record.rows)));
        }
    }
    Ok(())
}

/// The versions of one key, newest first, as they pass.
#[derive(Default)]
struct Group {
    key: Option<Slice>,
    newer: Option<Position>,
    /// Deletes that matter only if something older follows.
    deletes: Vec<Row>,
}

impl Group {
    /// Takes the next version; `hidden` is the oldest range delete above it.
    fn take(
        &mut self,
        row: Row,
        hidden: Option<Position>,
        lowest: bool,
        readable: &Readable,
        output: &mut GenerationWriter,
    ) -> Result<(), BackendError> {
        if self.key.as_ref() != Some(&row.key) {
            *self = Group { key: Some(row.key.clone()), ..Group::default() };
        }
        let newer = self.newer.replace(row.version);
        // A range delete at the newer version's own position or above it has nothing left to hide.
        let hidden = hidden.filter(|&range| newer.is_none_or(|newer| range < newer));
        if lowest
            && let Some(range) = hidden
            && readable.any_in(range, newer)
        {
            // The range delete is dropped: what it hides needs a delete of its own.
            self.deletes.push(Row { key: row.key.clone(), version: range, value: None });
        }
        if !readable.any_in(row.version, hidden.or(newer)) {
            return Ok(());
        }
        if lowest && row.value.is_none() {
            self.deletes.push(row);
            return Ok(());
        }
        for delete in self.deletes.drain(..) {
            output.push(&delete)?;
        }
        output.push(&row)
    }
}

fn least(cursors: &[Cursor]) -> Option<usize> {
    let standing = cursors.iter().enumerate().filter(|(_, cursor)| cursor.head().is_some());
    standing.min_by(|(_, a), (_, b)| a.key().cmp(&b.key())).map(|(index, _)| index)
}
