//! Merging generations: what is current stays current, what was superseded moves to the past, and what no
//! readable position sees stays behind.

use std::sync::Arc;

use super::block::Row;
use super::files::corrupt;
use super::generation::{Cursor, Generation, GenerationWriter, generation_dir};
use crate::backends::BackendError;
use crate::backends::readable::Readable;
use crate::types::{Position, Slice};

/// A generation in the making, begun when the first row comes: often none does.
pub(super) struct Output<'a> {
    begin: Box<dyn Fn() -> Result<GenerationWriter, BackendError> + 'a>,
    writer: Option<GenerationWriter>,
}

impl<'a> Output<'a> {
    pub(super) fn new(begin: impl Fn() -> Result<GenerationWriter, BackendError> + 'a) -> Output<'a> {
        Output { begin: Box::new(begin), writer: None }
    }

    pub(super) fn push(&mut self, row: &Row) -> Result<(), BackendError> {
        self.writer()?.push(row)
    }

    pub(super) fn push_range(&mut self, prefix: Slice, version: Position) -> Result<(), BackendError> {
        self.writer()?.push_range(prefix, version);
        Ok(())
    }

    pub(super) fn into_writer(self) -> Option<GenerationWriter> {
        self.writer
    }

    fn writer(&mut self) -> Result<&mut GenerationWriter, BackendError> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => Ok(none.insert((self.begin)()?)),
        }
    }
}

/// Streams the rows of current generations (oldest first) into one, and what they supersede into the past. `lowest`:
/// nothing older lies below them, so that deletes and range deletes have done their work once what they hide is gone.
pub(super) fn merge_current(
    inputs: &[Arc<Generation>],
    lowest: bool,
    readable: &Readable,
    current: &mut Output<'_>,
    past: &mut Output<'_>,
) -> Result<(), BackendError> {
    let keeps_past = readable.has_past();
    for (prefix, version) in inputs.iter().flat_map(|generation| generation.ranges().list()) {
        if !lowest {
            current.push_range(prefix.clone(), *version)?;
        } else if keeps_past {
            past.push_range(prefix.clone(), *version)?;
        }
    }
    each_row(inputs, |Passing { row, until, .. }| {
        match (until, &row.value) {
            (None, Some(_)) => current.push(&row),
            (None, None) if !lowest => current.push(&row),
            // What it hides may be in the past already.
            (None, None) if keeps_past => past.push(&row),
            (Some(_), _) if readable.any_in(row.version, until) => past.push(&row),
            _ => Ok(()),
        }
    })
}

/// Streams the rows of past generations into one. `all`: there are no others, so that deletes with nothing older below
/// them in `current` go, and range deletes below everything readable.
pub(super) fn merge_past(
    inputs: &[Arc<Generation>],
    all: bool,
    current: &[Arc<Generation>],
    readable: &Readable,
    output: &mut Output<'_>,
) -> Result<(), BackendError> {
    let mut ranges: Vec<_> = inputs.iter().flat_map(|generation| generation.ranges().list().iter().cloned()).collect();
    ranges.sort_by_key(|(_, version)| *version);
    for (prefix, version) in ranges {
        if !all || version > readable.oldest() {
            output.push_range(prefix, version)?;
        }
    }
    // Keys rise, so what is current is gone along with them: looked up one by one it would cost more than the merge.
    let mut beside = Vec::new();
    if all {
        for generation in current {
            beside.push(Cursor::seek(generation.clone(), b"")?);
        }
    }
    // Deletes that matter only if something older follows.
    let mut deletes: Vec<Row> = Vec::new();
    each_row(inputs, |Passing { row, until, begins }| {
        if begins {
            settle_deletes(&mut deletes, current, output)?;
        }
        if !readable.any_in(row.version, until) || (all && is_beneath(&row, &mut beside, readable.oldest())?) {
            return Ok(());
        }
        if all && row.value.is_none() {
            deletes.push(row);
            return Ok(());
        }
        for delete in deletes.drain(..) {
            output.push(&delete)?;
        }
        output.push(&row)
    })?;
    settle_deletes(&mut deletes, current, output)
}

/// Whether something in current generations has superseded or hidden a row by `oldest`: from there on nobody sees it. Asked for rows
/// by rising key.
fn is_beneath(row: &Row, current: &mut [Cursor], oldest: Position) -> Result<bool, BackendError> {
    if row.version >= oldest {
        return Ok(false);
    }
    for cursor in current {
        cursor.advance_to(&row.key)?;
        let generation = cursor.generation.clone();
        let head = cursor.head().filter(|_| cursor.key() == Some(&row.key[..])).map(|head| head.version);
        let newer = match head {
            Some(version) if version > oldest => generation.get(&row.key, oldest)?.map(|(version, _)| version),
            version => version,
        };
        if newer.max(generation.ranges().newest(&row.key, oldest)) > Some(row.version) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The deletes at the bottom of a key: kept if a current generation holds something older.
fn settle_deletes(
    deletes: &mut Vec<Row>,
    current: &[Arc<Generation>],
    output: &mut Output<'_>,
) -> Result<(), BackendError> {
    let Some(oldest) = deletes.last() else { return Ok(()) };
    for generation in current {
        if generation.get(&oldest.key, oldest.version.previous())?.is_some() {
            return deletes.drain(..).try_for_each(|delete| output.push(&delete));
        }
    }
    deletes.clear();
    Ok(())
}

/// One row of a merge.
struct Passing {
    row: Row,
    /// The version that supersedes it, or of the range delete that hides it; `None` when neither is among the inputs.
    until: Option<Position>,
    /// Whether it is the first of its key.
    begins: bool,
}

/// Hands out all rows in order: by key, of one key newest first.
fn each_row(
    inputs: &[Arc<Generation>],
    mut take: impl FnMut(Passing) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let mut cursors = Vec::new();
    for generation in inputs {
        cursors.push(Cursor::seek(generation.clone(), b"")?);
    }
    let mut newer: Option<(Slice, Position)> = None;
    while let Some(index) = least(&cursors) {
        let Some(cursor) = cursors.get_mut(index) else { break };
        let row = cursor.row();
        cursor.advance()?;
        let Some(row) = row else { continue };
        let begins = newer.as_ref().is_none_or(|(key, _)| *key != row.key);
        let above = newer.replace((row.key.clone(), row.version)).filter(|_| !begins).map(|(_, version)| version);
        let hidden = inputs.iter().filter_map(|input| input.ranges().first_above(&row.key, row.version)).min();
        // A range delete at the newer version's own position or above it has nothing left to hide.
        let until = hidden.filter(|&range| above.is_none_or(|above| range < above)).or(above);
        take(Passing { row, until, begins })?;
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

/// The cursor with the least key; of several the one with the newest version.
fn least(cursors: &[Cursor]) -> Option<usize> {
    let standing =
        cursors.iter().enumerate().filter_map(|(at, cursor)| Some((at, cursor.key()?, cursor.head()?.version)));
    standing.min_by(|a, b| a.1.cmp(b.1).then(b.2.cmp(&a.2))).map(|(at, ..)| at)
}
