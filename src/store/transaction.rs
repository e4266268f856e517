//! [`Tx`]: a transaction while it is being decided.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::batch::Predicate;
use super::engine::Shared;
use super::lane::Reads;
use super::prepare::{check_key, check_range, check_readable, check_value};
use super::reader::{Reader, ScanOptions};
use crate::event::Event;
use crate::log::LogError;
use crate::projection::{Pin, Restored, Scanner, redaction_key};
use crate::types::{Entry, Error, ErrorKind, Key, KeyRange, Limits, Position, Result, Slice};

/// What an entry that is restored costs beside its bytes, in the transaction and then in the memtable.
const RESTORED_OVERHEAD_BYTES: usize = 192;

/// A handle on one attempt of a transaction. Reads see one position and the transaction's own
/// writes; they are recorded, and validated when it commits. Cheap to clone; useless after the
/// closure has returned.
#[derive(Clone, Debug)]
pub struct Tx {
    shared: Arc<Shared>,
    // Shared by the clones: each pin of its own is an entry in a list that all readers share.
    pin: Arc<Pin>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    reads: Reads,
    ranges: Vec<KeyRange>,
    range_events: Vec<Event>,
    writes: BTreeMap<Key, (Event, Option<Slice>)>,
    /// What each range restore brings, in their order.
    restored: Vec<Restored>,
    /// The memory that it takes.
    restored_bytes: usize,
    /// The same as the transaction sees it: without what later operations took away.
    seen: BTreeMap<Key, Slice>,
    /// Keep the states that are restored.
    pins: Vec<Pin>,
    /// Events of the store itself: they write partitions that no other event may write.
    own: Vec<Event>,
}

/// What a transaction gives back when it is done, remembered for its request id. At most 4 KiB
/// encoded, no secrets.
pub trait Answer: Sized + Send {
    /// Bytes to remember.
    fn encode(&self) -> Vec<u8>;
    /// The inverse; `None` for bytes that `encode` does not give.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Answer for () {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_: &[u8]) -> Option<()> {
        Some(())
    }
}

impl Answer for bool {
    fn encode(&self) -> Vec<u8> {
        vec![u8::from(*self)]
    }

    fn decode(bytes: &[u8]) -> Option<bool> {
        bytes.first().map(|&byte| byte != 0)
    }
}

impl Answer for u64 {
    fn encode(&self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl Answer for String {
    fn encode(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

impl Answer for Vec<u8> {
    fn encode(&self) -> Vec<u8> {
        self.clone()
    }

    fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
        Some(bytes.to_vec())
    }
}

/// What an attempt leaves behind.
pub(crate) struct Attempt {
    pub read_at: Position,
    pub reads: Reads,
    pub events: Vec<Event>,
    /// What each range restore among the events brings.
    pub restored: Vec<Restored>,
    /// Keep the states that are restored until this is dropped.
    pub pins: Vec<Pin>,
}

impl Tx {
    pub(crate) fn new(shared: Arc<Shared>) -> Tx {
        let pin = Arc::new(shared.view.pins().pin());
        Tx { shared, pin, state: Arc::default() }
    }

    /// The position that the transaction reads at.
    pub fn position(&self) -> Position {
        self.pin.position()
    }

    /// The entry of a key, the transaction's own write included (its version is then
    /// [`Position::MAX`]).
    pub async fn get(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        check_readable(partition, key)?;
        let key = Key::new(partition, key);
        let found = self.read(&key).await?;
        Ok(found.map(|(version, value)| Entry { encoded_key: Slice::from(key), version, value }))
    }

    /// Requires a predicate to hold for a key, else the transaction ends as `conflict`.
    pub async fn check(&self, partition: &[u8], key: &[u8], predicate: &Predicate) -> Result<()> {
        check_readable(partition, key)?;
        self.check_encoded(&Key::new(partition, key), predicate).await
    }

    pub(crate) async fn check_encoded(&self, key: &Key, predicate: &Predicate) -> Result<()> {
        predicate.check(key, self.read(key).await?)
    }

    /// Entries of a partition in key order, the transaction's own writes included: at most
    /// `options.limit` of them. Recorded is the range up to the last key handed out.
    pub async fn scan(&self, options: ScanOptions<'_>) -> Result<Vec<Entry>> {
        let (from, to) = options.encoded()?;
        let limit = options.limit.unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut scanner = Scanner::new(self.shared.view.clone(), Pin::clone(&self.pin), &from, to.clone(), limit);
        let mut entries: Vec<Entry> = Vec::new();
        let mut exhausted = false;
        // Own writes may hide entries, so pages are read until enough is left of them.
        while !exhausted && entries.len() < limit {
            let mut page = scanner.page().await?;
            exhausted = page.is_empty();
            self.hide(&mut page);
            entries.append(&mut page);
        }
        let mut seen = self.overlay(entries, &from, &to, !exhausted);
        let cut = seen.len() > limit || !exhausted;
        seen.truncate(limit);
        let read_to = match seen.last().filter(|_| cut) {
            // The smallest key above the last one handed out.
            Some(last) => [&last.encoded_key[..], &[0]].concat(),
            None => to,
        };
        self.state.lock().reads.ranges.push((from, read_to));
        Ok(seen)
    }

    /// Takes out what the transaction itself has deleted or replaced.
    fn hide(&self, entries: &mut Vec<Entry>) {
        let state = self.state.lock();
        entries.retain(|entry| {
            let key = &entry.encoded_key[..];
            !state.writes.contains_key(key) && !state.covers(key)
        });
    }

    /// Adds the transaction's own entries; with `bounded` none beyond the last of the others.
    fn overlay(&self, mut entries: Vec<Entry>, from: &[u8], to: &[u8], bounded: bool) -> Vec<Entry> {
        let last = entries.last().map(|entry| entry.encoded_key.clone());
        let state = self.state.lock();
        let inside = |key: &Key| {
            let beyond = bounded && last.as_ref().is_none_or(|last| key[..] > last[..]);
            !beyond && (to.is_empty() || key[..] < *to)
        };
        let own = |key: &Key, value: Slice| Entry { encoded_key: key.clone().into(), version: Position::MAX, value };
        let before = entries.len();
        let ahead = (Bound::Included(from), Bound::Unbounded);
        let written = state.writes.range::<[u8], _>(ahead).take_while(|(key, _)| inside(key));
        entries.extend(written.filter_map(|(key, (_, value))| Some(own(key, value.clone()?))));
        let restored = state.seen.range::<[u8], _>(ahead).take_while(|(key, _)| inside(key));
        let restored = restored.filter(|(key, _)| !state.writes.contains_key(*key));
        entries.extend(restored.map(|(key, value)| own(key, value.clone())));
        if entries.len() > before {
            entries.sort_unstable_by(|a, b| a.encoded_key.cmp(&b.encoded_key));
        }
        entries
    }

    /// Sets a key.
    pub fn set(&self, partition: &[u8], key: &[u8], value: &[u8]) -> Result<()> {
        check_key(partition, key)?;
        check_value(value)?;
        let event = Event::Set {
            partition: Bytes::copy_from_slice(partition),
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        };
        self.state.lock().writes.insert(Key::new(partition, key), (event, Some(value.into())));
        Ok(())
    }

    /// Deletes a key; a missing one is no error.
    pub fn delete(&self, partition: &[u8], key: &[u8]) -> Result<()> {
        check_key(partition, key)?;
        let event = Event::Delete { partition: Bytes::copy_from_slice(partition), key: Bytes::copy_from_slice(key) };
        self.state.lock().writes.insert(Key::new(partition, key), (event, None));
        Ok(())
    }

    /// Deletes every key of a partition that begins with `prefix` (empty: all), the transaction's own
    /// earlier writes included. One event however many there are; only where an index covers
    /// the range it is carried out as single deletes, up to the limit of a transaction.
    pub async fn delete_range(&self, partition: &[u8], prefix: &[u8]) -> Result<()> {
        check_range(partition, prefix)?;
        let range = KeyRange::new(partition, prefix);
        if self.shared.indexes.meets(&range) {
            return self.delete_singly(partition, prefix).await;
        }
        let mut state = self.state.lock();
        state.cover(range);
        let (partition, prefix) = (Bytes::copy_from_slice(partition), Bytes::copy_from_slice(prefix));
        state.range_events.push(Event::DeleteRange { partition, prefix });
        Ok(())
    }

    /// Makes every key of a partition that begins with `prefix` (empty: all) what it was at an earlier position, the transaction's
    /// own earlier writes there undone. One event however many there are, and blind: it conflicts with nothing. What it
    /// brings is held in memory, and all that one transaction restores may take [`Settings::memtable_hard_bytes`](super::Settings), each entry counted
    /// with 192 bytes beside key and value. Where an index covers the range, and
    /// where no history is kept, it is carried out as single writes, up to the limit of a transaction (1 M keys, 64 MiB).
    ///
    /// # Errors
    /// `not_found` below the floor, `invalid` above the position that the transaction reads at and for what is too large:
    /// restore narrower prefixes, each in a transaction of its own, or open the store with a higher limit.
    pub async fn restore_range(&self, partition: &[u8], prefix: &[u8], as_of: Position) -> Result<()> {
        check_range(partition, prefix)?;
        if as_of > self.position() {
            return Err(LogError::AboveHead { position: as_of, head: self.position() }.into());
        }
        let then = Reader::at(&self.shared, as_of)?;
        let range = KeyRange::new(partition, prefix);
        if self.shared.indexes.meets(&range) || !self.shared.settings.history {
            return self.restore_singly(&then, partition, prefix).await;
        }
        let mut entries = then.scan(ScanOptions::new(partition).prefix(prefix))?;
        let limit = self.shared.settings.memtable_hard_bytes;
        let before = self.state.lock().restored_bytes;
        let (mut restored, mut bytes) = (Restored::new(), 0);
        while let Some(entry) = entries.next().await.transpose()? {
            bytes += entry.encoded_key.len() + entry.value.len() + RESTORED_OVERHEAD_BYTES;
            if before + bytes > limit {
                return Err(too_large_to_restore(partition, prefix, limit));
            }
            restored.push((Key(Arc::from(&entry.encoded_key[..])), Arc::from(&entry.value[..])));
        }
        let mut state = self.state.lock();
        state.restored_bytes += bytes;
        if state.restored_bytes > limit {
            // Another one was restored meanwhile.
            return Err(too_large_to_restore(partition, prefix, limit));
        }
        state.cover(range);
        state.seen.extend(restored.iter().map(|(key, value)| (key.clone(), Slice::new(value.clone()))));
        state.restored.push(restored);
        state.pins.push(then.pin().clone());
        let (partition, prefix) = (Bytes::copy_from_slice(partition), Bytes::copy_from_slice(prefix));
        state.range_events.push(Event::RestoreRange { partition, prefix, as_of });
        Ok(())
    }

    async fn restore_singly(&self, then: &Reader, partition: &[u8], prefix: &[u8]) -> Result<()> {
        self.delete_singly(partition, prefix).await?;
        let mut entries = then.scan(ScanOptions::new(partition).prefix(prefix))?;
        while let Some(entry) = entries.next().await.transpose()? {
            let key = entry.key();
            let now = self.shared.view.get(&entry.encoded_key, self.position()).await?;
            match now.filter(|(_, value)| *value == entry.value) {
                // It is what it was: the delete that was noted for it is taken back.
                Some(_) if !self.state.lock().covers(&entry.encoded_key) => self.forget(&entry.encoded_key),
                _ => {
                    self.note_erasable(&entry.encoded_key, entry.version);
                    self.set(partition, &key, &entry.value)?;
                }
            }
            if self.state.lock().writes.len() > Limits::TRANSACTION_OPERATIONS_MAX {
                return Err(too_many_to_restore(partition, prefix));
            }
        }
        Ok(())
    }

    pub(super) fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Records that a value of the past is about to be written again: a redaction of it makes the transaction decide again.
    pub(super) fn note_erasable(&self, key: &[u8], version: Position) {
        self.state.lock().reads.keys.push(redaction_key(key, version));
    }

    fn forget(&self, key: &[u8]) {
        self.state.lock().writes.remove(key);
    }

    /// Records that everything in a range was read, without reading it.
    pub(super) fn note_range(&self, range: &KeyRange) {
        self.state.lock().reads.ranges.push((range.prefix().to_vec(), range.end()));
    }

    async fn delete_singly(&self, partition: &[u8], prefix: &[u8]) -> Result<()> {
        let limit = Limits::TRANSACTION_OPERATIONS_MAX;
        let entries = self.scan(ScanOptions::new(partition).prefix(prefix).limit(limit + 1)).await?;
        if entries.len() > limit {
            let (partition, prefix) = (partition.escape_ascii(), prefix.escape_ascii());
            let message = format!(
                "too many indexed entries for one range delete, partition=`{partition}` prefix=`{prefix}` limit=`{limit}`"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        entries.iter().try_for_each(|entry| self.delete(partition, &entry.key()))
    }

    /// Adds an event as it is. What it writes is not seen by the reads of the transaction, and nothing else may write it.
    pub(crate) fn record(&self, event: Event) {
        self.state.lock().own.push(event);
    }

    /// A recorded read of an encoded key.
    pub(crate) async fn read(&self, key: &Key) -> Result<Option<(Position, Slice)>> {
        {
            let mut state = self.state.lock();
            if let Some((_, value)) = state.writes.get(key) {
                return Ok(value.clone().map(|value| (Position::MAX, value)));
            }
            if state.covers(key) {
                return Ok(state.seen.get(key).map(|value| (Position::MAX, value.clone())));
            }
            state.reads.keys.push(key.clone());
        }
        Ok(self.shared.view.get(key, self.position()).await?)
    }

    /// Recorded reads of many keys, as if nothing had been written by the transaction itself.
    pub(crate) async fn read_all(&self, keys: &[Key]) -> Result<Vec<Option<(Position, Slice)>>> {
        self.state.lock().reads.keys.extend_from_slice(keys);
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.shared.view.get(key, self.position()).await?);
        }
        Ok(found)
    }

    /// What the attempt read and wants to write: range deletes first, then key writes, then the store's own
    /// events.
    pub(crate) fn finish(&self) -> Attempt {
        let state = std::mem::take(&mut *self.state.lock());
        let writes = state.writes.into_values().map(|(event, _)| event);
        let events = state.range_events.into_iter().chain(writes).chain(state.own).collect();
        Attempt { read_at: self.position(), reads: state.reads, events, restored: state.restored, pins: state.pins }
    }
}

impl State {
    /// Whether a range operation of this transaction covers a key.
    fn covers(&self, key: &[u8]) -> bool {
        self.ranges.iter().any(|range| range.contains(key))
    }

    /// A range operation takes away what the transaction did in the range before.
    fn cover(&mut self, range: KeyRange) {
        self.writes.retain(|key, _| !range.contains(key));
        self.seen.retain(|key, _| !range.contains(key));
        self.ranges.push(range);
    }
}

fn too_large_to_restore(partition: &[u8], prefix: &[u8], limit: usize) -> Error {
    let (partition, prefix) = (partition.escape_ascii(), prefix.escape_ascii());
    let message = format!(
        "what is to be restored at once takes too much memory, partition=`{partition}` prefix=`{prefix}` limit=`{limit}` bytes; restore narrower prefixes one by one, or raise memtable_hard_bytes"
    );
    Error::new(ErrorKind::Invalid, message)
}

/// Of single writes, which the limit of a transaction holds for.
fn too_many_to_restore(partition: &[u8], prefix: &[u8]) -> Error {
    let (partition, prefix, limit) =
        (partition.escape_ascii(), prefix.escape_ascii(), Limits::TRANSACTION_OPERATIONS_MAX);
    let message = format!(
        "too many keys to be restored one by one, partition=`{partition}` prefix=`{prefix}` limit=`{limit}`; restore narrower prefixes one by one"
    );
    Error::new(ErrorKind::Invalid, message)
}
