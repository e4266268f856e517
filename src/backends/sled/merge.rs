//! Merging generations: what is current stays current, what was superseded moves to the past, and what no
//! readable position sees stays behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{Row, row_bytes};
use super::files::corrupt;
use super::generation::{Cursor, Generation, GenerationWriter, generation_dir};
use crate::backends::BackendError;
use crate::backends::readable::Readable;
use crate::env::Env;
use crate::types::{Position, Slice};

/// Where generations are made.
#[derive(Clone)]
pub(super) struct Maker {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    /// Numbers of generations are never used twice.
    pub(super) next_id: Arc<AtomicU64>,
}

impl Maker {
    fn begin(&self) -> Result<GenerationWriter, BackendError> {
        let mut tag = [0; 8];
        self.env.entropy.fill(&mut tag);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        GenerationWriter::create(&self.env.fs, &self.dir, id, u64::from_le_bytes(tag))
    }
}

/// A generation in the making, begun when the first row comes: often none does.
pub(super) struct Output {
    maker: Maker,
    writer: Option<GenerationWriter>,
}

impl Output {
    pub(super) fn new(maker: &Maker) -> Output {
        Output { maker: maker.clone(), writer: None }
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
            none => Ok(none.insert(self.maker.begin()?)),
        }
    }
}

/// Which generations are merged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Current ones, oldest first: into one, and what they supersede into the past. `lowest`: nothing older lies below them,
    /// so that deletes and range deletes have done their work once what they hide is gone.
    Current { lowest: bool },
    /// Past ones, into one. `all`: there are no others, so that deletes with nothing older below them in what is current go, and
    /// range deletes below everything readable.
    Past { all: bool },
}

/// A merge under way: done in steps, between which it holds no block of its inputs.
pub(super) struct Merge {
    pub(super) kind: Kind,
    pub(super) inputs: Vec<Arc<Generation>>,
    /// As of its begin: what becomes readable later is above everything that is merged.
    pub(super) readable: Readable,
    /// What was current when it began, for a merge of all the past.
    held: Arc<[Arc<Generation>]>,
    /// A cursor in each of those: keys rise, so what is current is gone along with them. Looked up one by one it would cost more than
    /// the merge.
    beside: Vec<Cursor>,
    rows: Rows,
    /// Deletes of one key that matter only if something older follows.
    deletes: Vec<Row>,
    current: Output,
    past: Output,
}

impl Merge {
    pub(super) fn begin(
        kind: Kind,
        inputs: Vec<Arc<Generation>>,
        held: Arc<[Arc<Generation>]>,
        readable: Readable,
        maker: &Maker,
    ) -> Result<Merge, BackendError> {
        let (mut current, mut past) = (Output::new(maker), Output::new(maker));
        let keeps_past = readable.has_past();
        let mut ranges = Vec::new();
        for input in &inputs {
            ranges.extend_from_slice(input.ranges()?.list());
        }
        ranges.sort_by_key(|(_, version)| *version);
        for (prefix, version) in ranges {
            match kind {
                Kind::Current { lowest: false } => current.push_range(prefix, version)?,
                Kind::Past { all: true } if version <= readable.oldest() => {}
                _ if keeps_past => past.push_range(prefix, version)?,
                _ => {}
            }
        }
        let keeps = keeps_past || matches!(kind, Kind::Current { .. });
        let beside = if keeps && kind == (Kind::Past { all: true }) { cursors(&held)? } else { Vec::new() };
        let rows = Rows { cursors: if keeps { cursors(&inputs)? } else { Vec::new() }, ..Rows::default() };
        Ok(Merge { kind, inputs, readable, held, beside, rows, deletes: Vec::new(), current, past })
    }

    /// Goes on until so many bytes of rows were read; `true` when all were.
    pub(super) fn step(&mut self, bytes: usize) -> Result<bool, BackendError> {
        self.rows.cursors.iter_mut().chain(&mut self.beside).try_for_each(Cursor::wake)?;
        let mut read = 0;
        while read < bytes {
            let Some(passing) = self.rows.next(&self.inputs)? else {
                self.settle_deletes()?;
                return Ok(true);
            };
            read += row_bytes(&passing.row);
            match self.kind {
                Kind::Current { lowest } => self.take_current(&passing, lowest)?,
                Kind::Past { all } => self.take_past(passing, all)?,
            }
        }
        self.rows.cursors.iter_mut().chain(&mut self.beside).for_each(Cursor::rest);
        Ok(false)
    }

    /// What was made: of what is current, and of the past.
    pub(super) fn into_outputs(self) -> (Output, Output) {
        (self.current, self.past)
    }

    fn take_current(&mut self, passing: &Passing, lowest: bool) -> Result<(), BackendError> {
        let Passing { row, until, .. } = passing;
        match (until, &row.value) {
            (None, Some(_)) => self.current.push(row),
            (None, None) if !lowest => self.current.push(row),
            // What it hides may be in the past already.
            (None, None) if self.readable.has_past() => self.past.push(row),
            (Some(_), _) if self.readable.any_in(row.version, *until) => self.past.push(row),
            _ => Ok(()),
        }
    }

    fn take_past(&mut self, passing: Passing, all: bool) -> Result<(), BackendError> {
        let Passing { row, until, begins } = passing;
        if begins {
            self.settle_deletes()?;
        }
        if !self.readable.any_in(row.version, until)
            || (all && is_beneath(&row, &mut self.beside, self.readable.oldest())?)
        {
            return Ok(());
        }
        if all && row.value.is_none() {
            // Its own bytes: a step may end before the key does.
            self.deletes.push(Row { key: Slice::from(&row.key[..]), ..row });
            return Ok(());
        }
        for delete in self.deletes.drain(..) {
            self.past.push(&delete)?;
        }
        self.past.push(&row)
    }

    /// The deletes at the bottom of a key: kept if a current generation holds something older.
    fn settle_deletes(&mut self) -> Result<(), BackendError> {
        let Some(oldest) = self.deletes.last() else { return Ok(()) };
        for generation in &*self.held {
            if generation.get(&oldest.key, oldest.version.previous())?.is_some() {
                return self.deletes.drain(..).try_for_each(|delete| self.past.push(&delete));
            }
        }
        self.deletes.clear();
        Ok(())
    }
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
        if newer.max(generation.ranges()?.newest(&row.key, oldest)) > Some(row.version) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One row of a merge.
struct Passing {
    row: Row,
    /// The version that supersedes it, or of the range delete that hides it; `None` when neither is among the inputs.
    until: Option<Position>,
    /// Whether it is the first of its key.
    begins: bool,
}

/// At the beginning of each.
fn cursors(generations: &[Arc<Generation>]) -> Result<Vec<Cursor>, BackendError> {
    generations.iter().map(|own| Cursor::seek(own.clone(), b"")).collect()
}

/// All rows of generations in order: by key, of one key newest first.
#[derive(Default)]
struct Rows {
    cursors: Vec<Cursor>,
    /// Of the row before; none at the beginning.
    key: Vec<u8>,
    version: Option<Position>,
}

impl Rows {
    fn next(&mut self, inputs: &[Arc<Generation>]) -> Result<Option<Passing>, BackendError> {
        let least = least(&self.cursors).and_then(|index| self.cursors.get_mut(index));
        let Some((cursor, row)) = least.and_then(|cursor| cursor.row().map(|row| (cursor, row))) else {
            return self.check_counts().map(|()| None);
        };
        cursor.advance()?;
        let begins = self.version.is_none() || self.key != row.key[..];
        let above = self.version.replace(row.version).filter(|_| !begins);
        if begins {
            self.key.clear();
            self.key.extend_from_slice(&row.key);
        }
        let mut until = above;
        for input in inputs {
            // A range delete at the newer version's own position or above it has nothing left to hide.
            let hidden = input.ranges()?.first_above(&row.key, row.version);
            until = hidden.filter(|&range| until.is_none_or(|until| range < until)).or(until);
        }
        Ok(Some(Passing { row, until, begins }))
    }

    fn check_counts(&self) -> Result<(), BackendError> {
        for cursor in &self.cursors {
            let record = &cursor.generation.record;
            if cursor.passed() != record.rows {
                let place = generation_dir("".as_ref(), record.id);
                return Err(corrupt(&place, format!("rows=`{}` expected=`{}`", cursor.passed(), record.rows)));
            }
        }
        Ok(())
    }
}

/// The cursor with the least key; of several the one with the newest version.
fn least(cursors: &[Cursor]) -> Option<usize> {
    let standing =
        cursors.iter().enumerate().filter_map(|(at, cursor)| Some((at, cursor.key()?, cursor.head()?.version)));
    standing.min_by(|a, b| a.1.cmp(b.1).then(b.2.cmp(&a.2))).map(|(at, ..)| at)
}
