//! Diff: what differs between two positions, found from the changes between them, not by reading the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::engine::{Shared, on_blocking_thread};
use super::facade::Store;
use super::pages::{PageStream, Pages, page_stream};
use super::prepare::check_partition;
use super::reader::Reader;
use crate::event::Transaction;
use crate::log::Log;
use crate::projection::{Scanner, project_events};
use crate::types::{At, Entry, Error, ErrorKind, Key, KeyRange, OWN_PARTITION_BYTE, Position, Result, Slice};

/// Keys and ranges of a diff remembered at a time; with more of them the changes are read several times, a part of them each time.
const KEYS_MAX: usize = if cfg!(test) { 16 } else { 1 << 18 };
/// Keys compared at a time.
const PAGE_KEYS: usize = 256;

/// A key whose value differs between two positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The encoded pair of partition and key.
    pub encoded_key: Slice,
    /// The entry at the first position.
    pub old: Option<Entry>,
    /// The entry at the second position.
    pub new: Option<Entry>,
}

impl Difference {
    /// The partition.
    pub fn partition(&self) -> Vec<u8> {
        Key::partition_of(&self.encoded_key).unwrap_or_default()
    }

    /// The key within its partition.
    pub fn key(&self) -> Slice {
        let start = Key::key_start(&self.encoded_key).unwrap_or(0);
        self.encoded_key.part(start..self.encoded_key.len())
    }
}

/// What to compare: everything but the store's own partitions, or a partition, or the keys of it that begin with a prefix.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiffOptions<'a> {
    partition: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> DiffOptions<'a> {
    /// Everything but the store's own partitions.
    pub fn new() -> DiffOptions<'a> {
        DiffOptions::default()
    }

    /// Only a partition.
    #[must_use]
    pub fn partition(mut self, partition: &'a [u8]) -> DiffOptions<'a> {
        self.partition = Some((partition, b""));
        self
    }

    /// Only keys of a partition that begin with a prefix.
    #[must_use]
    pub fn prefix(mut self, partition: &'a [u8], prefix: &'a [u8]) -> DiffOptions<'a> {
        self.partition = Some((partition, prefix));
        self
    }

    /// The partition and the prefix.
    pub(super) fn scope(&self) -> Option<(&'a [u8], &'a [u8])> {
        self.partition
    }

    /// Encoded `from <= key < to`.
    fn bounds(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let Some((partition, prefix)) = self.partition else { return Ok((vec![OWN_PARTITION_BYTE + 1], Vec::new())) };
        check_partition(partition)?;
        if partition.first() == Some(&OWN_PARTITION_BYTE) {
            let message = format!(
                "the store's own partitions are not compared, partition=`{}`; read them at both positions",
                partition.escape_ascii()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let range = KeyRange::new(partition, prefix);
        Ok((range.prefix().to_vec(), range.end()))
    }
}

impl Store {
    /// What differs between two positions, times or marks, in order of keys: entries that are there at one of them only,
    /// and values that are not the same bytes. `a` may lie after `b`.
    ///
    /// Costs by the number of changes between the two and by what range operations there met, in bounded memory.
    ///
    /// # Errors
    /// As [`Store::at`]; `invalid` for a partition of the store's own, whose entries no event of the log names; from the stream `corrupt`
    /// where transactions between are damaged.
    pub async fn diff(&self, a: impl Into<At>, b: impl Into<At>, options: DiffOptions<'_>) -> Result<Differences> {
        options.bounds()?;
        let (a, b) = (self.at(a).await?, self.at(b).await?);
        // The log tells changes up to the synced position.
        if a.position().max(b.position()) > self.synced() {
            self.sync().await?;
        }
        Differences::between(a, b, options)
    }
}

impl Differences {
    /// Of what two readers of one store read; both lie at or below the synced position.
    ///
    /// Errors: `invalid` for options that name no partition.
    pub(super) fn between(a: Reader, b: Reader, options: DiffOptions<'_>) -> Result<Differences> {
        let (from, to) = options.bounds()?;
        let pages = DifferencePages {
            log: a.shared().log.clone(),
            a,
            b,
            from: Vec::new(),
            to,
            next: Some(from),
            touched: Touched::default(),
            range: None,
        };
        Ok(Differences { pages: PageStream::new(pages) })
    }
}

/// Differences in order of keys. After an error it ends.
#[derive(Debug)]
#[must_use = "a stream does nothing unless polled"]
pub struct Differences {
    pages: PageStream<DifferencePages>,
}

page_stream!(Differences, Difference);

struct DifferencePages {
    log: Arc<dyn Log>,
    a: Reader,
    b: Reader,
    /// Where the keys in `touched` begin.
    from: Vec<u8>,
    to: Vec<u8>,
    /// From which key on the changes have to be read; `None` when all that follows is in `touched`.
    next: Option<Vec<u8>>,
    touched: Touched,
    /// A range of which all entries are compared.
    range: Option<RangeDiff>,
}

/// Keys that may differ, in order.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub keys: BTreeSet<Key>,
    /// Ranges that lie in no other.
    pub ranges: BTreeMap<Vec<u8>, KeyRange>,
    /// Keys and ranges from here on were left out.
    pub cut: Option<Vec<u8>>,
}

impl Touched {
    /// What the transactions after `after` up to `last` touched of `from <= key < to`, each once, the first [`KEYS_MAX`] keys and ranges.
    pub fn read(log: &dyn Log, after: Position, last: Position, from: &[u8], to: &[u8]) -> Result<Touched> {
        let mut touched = Touched::default();
        if after >= last {
            return Ok(touched);
        }
        for frame in log.read(after.next())? {
            let frame = frame?;
            if frame.position > last {
                break;
            }
            // What a range restore brought lies in its range.
            let set = project_events(&Transaction::decode(frame.payload)?.events, Vec::new());
            for range in set.ranges.into_iter().filter(|range| range.meets(from, to)) {
                if !touched.is_cut(range.prefix()) {
                    touched.add_range(range);
                    touched.cut_to(KEYS_MAX);
                }
            }
            for write in set.writes {
                let inside = write.key[..] >= *from && (to.is_empty() || write.key[..] < *to);
                if inside && !touched.is_cut(&write.key) && write.key.first() != Some(&OWN_PARTITION_BYTE) {
                    touched.add_key(write.key);
                    touched.cut_to(KEYS_MAX);
                }
            }
        }
        Ok(touched)
    }

    pub fn add_key(&mut self, key: Key) {
        if self.covering(&key).is_none() {
            self.keys.insert(key);
        }
    }

    /// How many keys and ranges.
    pub fn len(&self) -> usize {
        self.keys.len() + self.ranges.len()
    }

    fn is_cut(&self, key: &[u8]) -> bool {
        self.cut.as_ref().is_some_and(|cut| *key >= cut[..])
    }

    /// Leaves out keys and ranges beyond the first so many.
    fn cut_to(&mut self, count: usize) {
        while self.len() > count {
            let range = self.ranges.last_key_value().map(|(prefix, _)| &prefix[..]);
            self.cut = match self.keys.last().map(|key| &key[..]) > range {
                true => self.keys.pop_last().map(|key| key.to_vec()),
                false => self.ranges.pop_last().map(|(prefix, _)| prefix),
            };
        }
    }

    /// Whether a key was touched, by itself or in a range.
    pub fn meets_key(&self, key: &[u8]) -> bool {
        self.keys.contains(key) || self.covering(key).is_some()
    }

    /// Whether the keys with this encoded prefix were touched.
    pub fn meets_range(&self, prefix: &[u8]) -> bool {
        let begins = |key: Option<&[u8]>| key.is_some_and(|key| key.starts_with(prefix));
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.covering(prefix).is_some()
            || begins(self.keys.range::<[u8], _>(from).next().map(|key| &key[..]))
            || begins(self.ranges.range::<[u8], _>(from).next().map(|(prefix, _)| &prefix[..]))
    }

    pub fn add_range(&mut self, range: KeyRange) {
        if self.covering(range.prefix()).is_some() {
            return;
        }
        self.ranges.retain(|prefix, _| !range.contains(prefix));
        self.keys.retain(|key| !range.contains(key));
        self.ranges.insert(range.prefix().to_vec(), range);
    }

    /// The range that a key, or the prefix of another range, lies in.
    pub fn covering(&self, key: &[u8]) -> Option<&KeyRange> {
        // Ranges nest or are disjoint, and of those none lies in another: only the last one before can.
        let before = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.map(|(_, range)| range).filter(|range| range.contains(key))
    }

    /// The next keys, or the next range, whichever comes first.
    fn take(&mut self, limit: usize) -> Taken {
        let range = self.ranges.first_key_value().map(|(prefix, _)| prefix.clone());
        let beyond = |key: &Key| range.as_ref().is_some_and(|range| key[..] > range[..]);
        let mut keys = Vec::new();
        while keys.len() < limit
            && let Some(key) = self.keys.pop_first()
        {
            if beyond(&key) {
                self.keys.insert(key);
                break;
            }
            keys.push(key);
        }
        if !keys.is_empty() {
            return Taken::Keys(keys);
        }
        self.ranges.pop_first().map_or(Taken::Nothing, |(_, range)| Taken::Range(range))
    }
}

enum Taken {
    Keys(Vec<Key>),
    Range(KeyRange),
    Nothing,
}

impl Pages for DifferencePages {
    type Item = Difference;

    async fn page(&mut self) -> Result<Vec<Difference>> {
        loop {
            if let Some(range) = &mut self.range {
                match range.page().await? {
                    Some(page) if page.is_empty() => continue,
                    Some(page) => return Ok(page),
                    None => self.range = None,
                }
            }
            match self.touched.take(PAGE_KEYS) {
                Taken::Keys(keys) => {
                    let page = self.compare(keys).await?;
                    if !page.is_empty() {
                        return Ok(page);
                    }
                }
                Taken::Range(range) => {
                    // A range larger than what is asked for is compared inside it only.
                    let to = match (range.end(), &self.to) {
                        (end, to) if end.is_empty() || (!to.is_empty() && *to < end) => to.clone(),
                        (end, _) => end,
                    };
                    self.range = Some(RangeDiff::new(&self.a, &self.b, range.prefix().max(&self.from), to));
                }
                Taken::Nothing => {
                    let Some(from) = self.next.take() else { return Ok(Vec::new()) };
                    self.read(from).await?;
                }
            }
        }
    }
}

impl DifferencePages {
    async fn read(&mut self, from: Vec<u8>) -> Result<()> {
        let (low, high) = (self.a.position().min(self.b.position()), self.a.position().max(self.b.position()));
        let (log, to) = (self.log.clone(), self.to.clone());
        self.from.clone_from(&from);
        let read = on_blocking_thread(move || Touched::read(log.as_ref(), low, high, &from, &to)).await;
        self.touched = read??;
        if let Some(cut) = self.touched.cut.take() {
            self.next = Some(match self.touched.covering(&cut) {
                Some(range) => range.end(),
                None => cut,
            });
            self.next.take_if(|next| next.is_empty());
        }
        Ok(())
    }

    async fn compare(&self, keys: Vec<Key>) -> Result<Vec<Difference>> {
        let mut page = Vec::new();
        for key in keys {
            let entry = async |reader: &Reader| -> Result<Option<Entry>> {
                let found = reader.shared().value_at(&key, reader.position()).await?;
                Ok(found.map(|(version, value)| Entry { encoded_key: key.clone().into(), version, value }))
            };
            let (old, new) = (entry(&self.a).await?, entry(&self.b).await?);
            page.extend(difference(key.clone().into(), old, new));
        }
        Ok(page)
    }
}

fn difference(encoded_key: Slice, old: Option<Entry>, new: Option<Entry>) -> Option<Difference> {
    let value = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.value.clone());
    (value(&old) != value(&new)).then_some(Difference { encoded_key, old, new })
}

/// Compares all entries of a range at two positions, both read in order.
pub(super) struct RangeDiff {
    old: Side,
    new: Side,
}

struct Side {
    shared: Arc<Shared>,
    scanner: Scanner,
    ready: VecDeque<Entry>,
    ended: bool,
}

impl Side {
    fn new(reader: &Reader, from: &[u8], to: Vec<u8>) -> Side {
        let scanner = Scanner::new(reader.shared().view.clone(), reader.pin().clone(), from, to, 0);
        Side { shared: reader.shared().clone(), scanner, ready: VecDeque::new(), ended: false }
    }

    async fn fill(&mut self) -> Result<()> {
        if self.ready.is_empty() && !self.ended {
            self.ready = self.shared.page(&mut self.scanner).await?.into();
            self.ended = self.ready.is_empty();
        }
        Ok(())
    }
}

impl RangeDiff {
    pub fn new(old: &Reader, new: &Reader, from: &[u8], to: Vec<u8>) -> RangeDiff {
        RangeDiff { old: Side::new(old, from, to.clone()), new: Side::new(new, from, to) }
    }

    /// Differences among the next entries, perhaps none; `None` at the end.
    pub async fn page(&mut self) -> Result<Option<Vec<Difference>>> {
        self.old.fill().await?;
        self.new.fill().await?;
        let mut page = Vec::new();
        loop {
            let (old, new) = (self.old.ready.front(), self.new.ready.front());
            let order = match (old, new) {
                (None, None) if self.old.ended && self.new.ended => {
                    return Ok(Some(page).filter(|page| !page.is_empty()));
                }
                (Some(old), Some(new)) => old.encoded_key.cmp(&new.encoded_key),
                (Some(_), None) if self.new.ended => std::cmp::Ordering::Less,
                (None, Some(_)) if self.old.ended => std::cmp::Ordering::Greater,
                // One of them has to be read on.
                _ => return Ok(Some(page)),
            };
            let old = if order.is_le() { self.old.ready.pop_front() } else { None };
            let new = if order.is_ge() { self.new.ready.pop_front() } else { None };
            let key = old.as_ref().or(new.as_ref()).map(|entry| entry.encoded_key.clone());
            page.extend(key.and_then(|key| difference(key, old, new)));
        }
    }
}
