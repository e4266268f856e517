//! [`Timelines`]: when each key of a range got a value or went, page by page.
//!
//! Joins the history that the base keeps with what the memtables hold above it. Of values there is a checksum: whoever wants one reads
//! the view at the position. The outcome depends neither on checkpoints nor on what a base has not dropped yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::Guard;

use super::memtable::Memtable;
use super::pins::Pin;
use super::view::{Layers, View};
use crate::backends::BackendError;
use crate::types::{Position, Slice};

/// Versions fetched from a layer at a time.
const PAGE_VERSIONS: usize = if cfg!(test) { 8 } else { 1024 };

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The encoded key.
    pub key: Slice,
    /// Ascending; the checksum (CRC-32) of the value where it got one, `None` where it went. The first may lie below the floor: what was
    /// there then.
    pub changes: Vec<(Position, Option<u32>)>,
}

/// The timelines of the keys with `from <= key < to` from a floor to a pinned position.
#[derive(Debug)]
pub struct Timelines {
    view: Arc<View>,
    pin: Pin,
    floor: Position,
    to: Vec<u8>,
    /// Where the next page begins; `None` at the end.
    next: Option<Slice>,
}

/// Of each key what happened at which position.
type Found = BTreeMap<Slice, BTreeMap<Position, Option<u32>>>;

impl Timelines {
    /// Keys and bounds are encoded, `to` empty is no end. Nothing below `floor` can be read; the pinned position is not below it.
    pub fn new(view: Arc<View>, pin: Pin, floor: Position, from: &[u8], to: Vec<u8>) -> Timelines {
        Timelines { view, pin, floor, to, next: Some(from.into()) }
    }

    /// The next keys in order, those that never had a value left out; empty only at the end.
    ///
    /// # Errors
    /// `Unreadable` when the base keeps no history.
    pub async fn page(&mut self) -> Result<Vec<Timeline>, BackendError> {
        while let Some(from) = self.next.take() {
            let layers = Guard::into_inner(self.view.layers());
            if layers.is_closed() {
                return Err(BackendError::Closed);
            }
            let (found, next) = self.fetch(&layers, &from).await?;
            self.next = next;
            let timelines = found.into_iter().filter_map(|(key, changes)| self.timeline(&layers, key, changes));
            let timelines: Vec<Timeline> = timelines.collect();
            if !timelines.is_empty() {
                return Ok(timelines);
            }
        }
        Ok(Vec::new())
    }

    /// All versions of some keys, and where the keys after them begin.
    async fn fetch(&self, layers: &Layers, from: &Slice) -> Result<(Found, Option<Slice>), BackendError> {
        let mut found = Found::new();
        let mut bound = None;
        if layers.base_position() > Position::ZERO {
            bound = self.fetch_base(layers, from, &mut found).await?;
        }
        let inside = |key: &[u8], bound: &Option<Slice>| {
            (self.to.is_empty() || key < &self.to[..]) && bound.as_ref().is_none_or(|bound| key < &bound[..])
        };
        for table in layers.tables() {
            let to = bound.as_ref().map_or(&self.to[..], |bound| &bound[..]);
            if let Some(next) = fetch_table(table, from, to, &mut found) {
                bound = Some(next);
            }
        }
        // A layer that was read no further than here bounds what is known of the others.
        found.retain(|key, _| inside(key, &bound));
        Ok((found, bound))
    }

    /// Whole keys only: a page that ends inside one is read on.
    async fn fetch_base(
        &self,
        layers: &Layers,
        from: &Slice,
        found: &mut Found,
    ) -> Result<Option<Slice>, BackendError> {
        let (mut next, mut below, mut to) = (from.clone(), Position::MAX, self.to.clone());
        loop {
            let page = layers.base().versions(&next, below, &to, PAGE_VERSIONS).await?;
            let last = page.versions.last().map(|version| version.encoded_key.clone());
            for version in page.versions {
                let changes = found.entry(version.encoded_key).or_default();
                changes.insert(version.version, version.value.map(checksum));
            }
            match page.next {
                None if to == self.to => return Ok(None),
                None => return Ok(Some(to.into())),
                // None of its versions was given yet.
                Some((key, _)) if last.as_ref().is_some_and(|last| *last != key) => return Ok(Some(key)),
                Some((key, version)) => {
                    if last.is_some() {
                        // The page ends inside a key: read on, but no further than to its end.
                        to = [&key[..], &[0]].concat();
                    }
                    (next, below) = (key, version);
                }
            }
        }
    }

    /// What of a key's versions can be seen, range deletes of the memtables included.
    fn timeline(&self, layers: &Layers, key: Slice, mut changes: BTreeMap<Position, Option<u32>>) -> Option<Timeline> {
        for position in
            layers.tables().iter().filter(|table| table.has_ranges()).flat_map(|table| table.all_covering(&key))
        {
            // What the same transaction wrote came after its range operations.
            changes.entry(position).or_insert(None);
        }
        let mut seen: Vec<(Position, Option<u32>)> = Vec::new();
        for (position, value) in changes.range(..=self.pin.position()) {
            let lived = seen.last().is_some_and(|(_, value)| value.is_some());
            if *position <= self.floor {
                seen.clear();
            }
            // A delete of what was not there is none.
            if value.is_some() || (lived && *position > self.floor) {
                seen.push((*position, *value));
            }
        }
        (!seen.is_empty()).then_some(Timeline { key, changes: seen })
    }
}

/// All versions of some keys from `from` on, and where the keys after them begin; the lock is taken once a page.
fn fetch_table(table: &Memtable, from: &Slice, to: &[u8], found: &mut Found) -> Option<Slice> {
    let (mut next, mut below, mut end) = (from.clone(), Position::MAX, None::<Slice>);
    loop {
        let to = end.as_ref().map_or(to, |end| &end[..]);
        let (versions, rest) = table.versions(&next, below, to, PAGE_VERSIONS);
        let last = versions.last().map(|(key, ..)| key.clone());
        for (key, position, value) in versions {
            found.entry(key).or_default().insert(position, value.map(checksum));
        }
        match rest {
            None => return end,
            // None of its versions was given yet.
            Some((key, _)) if last.is_some_and(|last| last != key) => return Some(key),
            Some((key, version)) => {
                // The page ends inside a key: read on, but no further than to its end.
                end = Some([&key[..], &[0]].concat().into());
                (next, below) = (key, version);
            }
        }
    }
}

fn checksum(value: Slice) -> u32 {
    crc32fast::hash(&value)
}
