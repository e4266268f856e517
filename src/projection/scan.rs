//! [`Scanner`]: entries of a key range in order, at one position, page by page.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arc_swap::Guard;

use super::memtable::{Item, Items};
use super::pins::Pin;
use super::project::REDACTIONS;
use super::view::{Layers, View};
use crate::backends::BackendError;
use crate::types::{Entry, KeyRange, Position, Slice};

/// Keys looked at in one layer under one lock, unless the caller's hint is smaller.
const PAGE_KEYS_MAX: usize = 512;

/// The positions of all redactions that a view knows of.
pub async fn redactions(view: &Arc<View>) -> Result<BTreeSet<Position>, BackendError> {
    let range = KeyRange::new(REDACTIONS, b"");
    let mut scanner = Scanner::new(view.clone(), view.pins().pin(), range.prefix(), range.end(), 0);
    let mut redactions = BTreeSet::new();
    loop {
        let page = scanner.page().await?;
        if page.is_empty() {
            return Ok(redactions);
        }
        redactions.extend(page.iter().map(|entry| entry.version));
    }
}

/// Reads a range at one position. Pins the position; holds layers only while it fetches a page.
///
/// What it hands out does not depend on the page size nor on checkpoints that happen meanwhile.
#[derive(Debug)]
pub struct Scanner {
    view: Arc<View>,
    pin: Pin,
    to: Vec<u8>,
    page_keys: usize,
    /// Where the next page begins; `None` at the end.
    next: Option<Slice>,
    /// What the layers gave beyond the last page, one a memtable, the base last.
    sources: Vec<Source>,
    /// Which layers `sources` were read from. Only their number is kept: holding them would keep
    /// memtables alive that a checkpoint has made superfluous.
    generation: Option<u64>,
}

/// A layer's items not yet merged.
#[derive(Debug, Default)]
struct Source {
    items: VecDeque<Item>,
    /// Where to read on; `None` when the layer is exhausted.
    next: Option<Slice>,
}

impl Scanner {
    /// Entries with `from <= key < to` (encoded; `to` empty: to the end) at the pinned position.
    pub fn new(view: Arc<View>, pin: Pin, from: &[u8], to: Vec<u8>, page_keys: usize) -> Scanner {
        let page_keys = if page_keys == 0 { PAGE_KEYS_MAX } else { page_keys.min(PAGE_KEYS_MAX) };
        Scanner { view, pin, to, page_keys, next: Some(from.into()), sources: Vec::new(), generation: None }
    }

    /// The position read at.
    pub fn position(&self) -> Position {
        self.pin.position()
    }

    /// Goes to the first entry not below `from`, forwards or backwards, also after the end.
    pub fn seek(&mut self, from: &[u8]) {
        self.next = Some(from.into());
        self.forget_sources();
    }

    /// The next entries in order; empty only at the end.
    pub async fn page(&mut self) -> Result<Vec<Entry>, BackendError> {
        while self.next.is_some() {
            let layers = Guard::into_inner(self.view.layers());
            if layers.is_closed() {
                return Err(BackendError::Closed);
            }
            let entries = self.merge_page(&layers).await?;
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        self.forget_sources();
        Ok(Vec::new())
    }

    fn forget_sources(&mut self) {
        self.sources.clear();
        self.generation = None;
    }

    /// Fills every source, then merges them up to the lowest key that some source has not read beyond.
    async fn merge_page(&mut self, layers: &Arc<Layers>) -> Result<Vec<Entry>, BackendError> {
        let Some(from) = self.next.clone() else { return Ok(Vec::new()) };
        let at = self.position();
        if self.generation != Some(layers.generation()) {
            let source = || Source { items: VecDeque::new(), next: Some(from.clone()) };
            self.sources = (0..=layers.tables().len()).map(|_| source()).collect();
            self.generation = Some(layers.generation());
        }
        let (base, tables) = self.sources.split_last_mut().expect("there is a source for the base");
        for (source, table) in tables.iter_mut().zip(layers.tables()) {
            if source.items.is_empty()
                && let Some(next) = source.next.take()
            {
                source.fill(table.items(&next, &self.to, at, self.page_keys));
            }
        }
        if base.items.is_empty()
            && let Some(next) = base.next.take()
        {
            base.fill(base_items(layers, &next, &self.to, at, self.page_keys).await?);
        }
        let bound = self.sources.iter().filter_map(|source| source.next.clone()).min();
        let merged = merge(&mut self.sources, bound.as_deref());
        let entries = visible(layers, at, merged);
        // Every source has handed out all below the bound, so the next page begins there; when all
        // are exhausted the merge took everything.
        self.next = bound;
        Ok(entries)
    }
}

impl Source {
    fn fill(&mut self, items: Items) {
        self.items = items.items.into();
        self.next = items.next;
    }
}

/// A page of the base, without what memtables' range deletes cover: when a page ends inside a deleted range
/// the next one begins behind it, so a large deleted range costs one page.
async fn base_items(
    layers: &Layers,
    from: &[u8],
    to: &[u8],
    at: Position,
    limit: usize,
) -> Result<Items, BackendError> {
    let base_at = layers.base_at(at);
    if base_at == Position::ZERO {
        return Ok(Items::default());
    }
    let page = layers.base().scan(base_at, from, to, limit).await?;
    let mut next = page.next;
    if let (Some(resume), Some(last)) = (&next, page.entries.last())
        && let Some((_, prefix)) = layers.covering(&last.encoded_key, at)
    {
        let end = KeyRange::end_of(&prefix);
        if end.is_empty() || (!to.is_empty() && &end[..] >= to) {
            next = None;
        } else if end[..] > resume[..] {
            next = Some(end.into());
        }
    }
    let items = page.entries.into_iter();
    let items = items.map(|entry| Item { key: entry.encoded_key, version: entry.version, value: Some(entry.value) });
    Ok(Items { items: items.collect(), next })
}

/// Takes all items below the bound in key order; of one key the newest version wins.
fn merge(sources: &mut [Source], bound: Option<&[u8]>) -> Vec<Item> {
    let below = |item: &Item| bound.is_none_or(|bound| &item.key[..] < bound);
    let mut contributors: Vec<&mut Source> =
        sources.iter_mut().filter(|source| source.items.front().is_some_and(below)).collect();
    if let [only] = &mut contributors[..] {
        if only.items.back().is_some_and(below) {
            return std::mem::take(&mut only.items).into();
        }
        let end = only.items.partition_point(below);
        return only.items.drain(..end).collect();
    }
    let mut merged: Vec<Item> = Vec::new();
    loop {
        // Few layers, so a linear look is faster than a heap.
        let least = contributors
            .iter()
            .filter_map(|source| source.items.front())
            .filter(|item| below(item))
            .min_by(|a, b| a.key.cmp(&b.key).then(b.version.cmp(&a.version)));
        let Some(least) = least.cloned() else { return merged };
        for source in &mut contributors {
            if source.items.front().is_some_and(|item| item.key == least.key) {
                source.items.pop_front();
            }
        }
        merged.push(least);
    }
}

/// Drops deletes and what a range delete of some layer covers.
fn visible(layers: &Layers, at: Position, items: Vec<Item>) -> Vec<Entry> {
    let ranges = layers.tables().iter().any(|table| table.has_ranges());
    let live = items
        .into_iter()
        .filter(|item| !ranges || layers.covering(&item.key, at).is_none_or(|(range, _)| range <= item.version));
    live.filter_map(|item| Some(Entry { encoded_key: item.key, version: item.version, value: item.value? })).collect()
}
