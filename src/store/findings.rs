//! [`Findings`]: what a redaction has to erase, as the stored transactions, archived ones too, and snapshots show it.
//!
//! Looks on from where it stopped, so that each transaction is read once, however often the redacting transaction is decided anew.
//! Asks no view: what a range restore brought follows from the transactions before it, so a store without a history is read like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::engine::{Shared, on_blocking_thread};
use super::redact::Redact;
use crate::dump::SnapshotReader;
use crate::event::{Event, RedactedTransaction, Transaction};
use crate::log::{Frame, Frames};
use crate::types::{Digest, Error, ErrorKind, Key, KeyRange, Limits, Position, Result};

/// What one key, and what is said of it besides, take of a transaction's room: once in the record, once where it is deleted.
const KEY_OVERHEAD_BYTES: usize = 2 * 24;
/// The same of a position.
const POSITION_OVERHEAD_BYTES: usize = 64;
/// Left for actor, reason and envelope.
const ENVELOPE_BYTES: usize = 1 << 20;

/// A partition and a key.
pub(super) type Pair = (Bytes, Bytes);

/// What was found so far.
#[derive(Debug)]
pub(super) struct Findings {
    what: Redact,
    /// Looked at up to here.
    to: Option<Position>,
    found: BTreeMap<Position, Found>,
    /// Of a transaction: since when each key that it set has one of its values, or another one or none.
    fates: BTreeMap<Key, Fate>,
    values: u64,
}

/// What is to be erased of one transaction.
#[derive(Debug, Default)]
struct Found {
    keys: BTreeSet<Pair>,
    /// Of what is left of the payload; without a frame there is nothing to vouch for.
    digest: Digest,
}

#[derive(Debug)]
struct Fate {
    pair: Pair,
    changes: Vec<(Position, bool)>,
}

impl Fate {
    fn become_at(&mut self, position: Position, erasable: bool) {
        match self.changes.last_mut() {
            Some(last) if last.0 == position => last.1 = erasable,
            _ => self.changes.push((position, erasable)),
        }
    }

    fn is_erasable_at(&self, position: Position) -> bool {
        let after = self.changes.partition_point(|(at, _)| *at <= position);
        after.checked_sub(1).and_then(|last| self.changes.get(last)).is_some_and(|(_, erasable)| *erasable)
    }
}

impl Findings {
    pub fn new(what: Redact) -> Findings {
        Findings { what, to: None, found: BTreeMap::new(), fates: BTreeMap::new(), values: 0 }
    }

    /// Values found, each at its position.
    pub fn values(&self) -> u64 {
        self.values
    }

    /// The next positions for one transaction of about so many bytes, in order; none when there are none above `after`. What is found
    /// later lies above all that was found before.
    ///
    /// Errors: `invalid` when one of them alone has too many keys.
    pub fn part(&self, after: Position, bytes_max: usize) -> Result<Vec<Position>> {
        let (mut part, mut bytes, mut operations) = (Vec::new(), 0, 1);
        for (position, found) in self.found.range(after.next()..) {
            let keys = found.keys.iter().map(|(partition, key)| 2 * (partition.len() + key.len()) + KEY_OVERHEAD_BYTES);
            bytes += POSITION_OVERHEAD_BYTES + keys.sum::<usize>();
            operations += found.keys.len();
            let limit = Limits::TRANSACTION_BYTES_MAX - ENVELOPE_BYTES;
            if part.is_empty() && (bytes > limit || operations > Limits::TRANSACTION_OPERATIONS_MAX) {
                let message = format!(
                    "the transaction set too many keys to be redacted at once, position=`{position}` keys=`{}` bytes=`{bytes}` limit=`{limit}`; redact its keys one by one",
                    found.keys.len()
                );
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            if !part.is_empty() && (bytes > bytes_max || operations > Limits::TRANSACTION_OPERATIONS_MAX) {
                break;
            }
            part.push(*position);
        }
        Ok(part)
    }

    /// Whether there is a next part.
    pub fn goes_on(&self, after: Position) -> bool {
        self.found.last_key_value().is_some_and(|(last, _)| *last > after)
    }

    /// What a part erases, by key.
    pub fn keys(&self, part: &[Position]) -> BTreeMap<Pair, BTreeSet<Position>> {
        let mut keys: BTreeMap<Pair, BTreeSet<Position>> = BTreeMap::new();
        for (position, found) in part.iter().filter_map(|position| Some((position, self.found.get(position)?))) {
            for pair in &found.keys {
                keys.entry(pair.clone()).or_default().insert(*position);
            }
        }
        keys
    }

    /// What a part is recorded as.
    pub fn event(&self, part: &[Position]) -> Event {
        let found = part.iter().filter_map(|position| Some((position, self.found.get(position)?)));
        let transactions = found.map(|(position, found)| RedactedTransaction {
            position: *position,
            digest: found.digest,
            keys: found.keys.iter().cloned().collect(),
        });
        Event::Redacted { transactions: transactions.collect() }
    }

    fn look(&mut self, shared: &Shared, archives: &[PathBuf], to: Position) -> Result<()> {
        let log = shared.log.as_ref();
        match (self.to, self.what.clone()) {
            (Some(from), _) if from >= to => return Ok(()),
            (Some(from), _) => self.take_all(log.read(from.next())?, to)?,
            (None, Redact::Position(position)) => self.take_all(log.read(position)?, to)?,
            (None, Redact::Key { partition, key }) => {
                let pair = (Bytes::from(partition), Bytes::from(key));
                for archive in archives {
                    for snapshot in log.archived(archive)?.snapshots {
                        self.take_snapshot(SnapshotReader::open(&shared.env, archive, log.id(), &snapshot)?, &pair)?;
                    }
                    self.take_all(log.read_stored(Some(archive))?, to)?;
                }
                for snapshot in log.snapshot().into_iter().chain(log.former()) {
                    self.take_snapshot(
                        SnapshotReader::open(&shared.env, &shared.log_dir, log.id(), &snapshot)?,
                        &pair,
                    )?;
                }
                self.take_all(log.read_stored(None)?, to)?;
            }
        }
        self.to = Some(to);
        Ok(())
    }

    fn take_snapshot(&mut self, mut reader: SnapshotReader, pair: &Pair) -> Result<()> {
        let encoded = Key::new(&pair.0, &pair.1);
        while let Some(entry) = reader.entry()? {
            if entry.key == encoded[..] && !entry.value.is_empty() {
                self.values += u64::from(self.found.entry(entry.version).or_default().keys.insert(pair.clone()));
            }
        }
        Ok(())
    }

    fn take_all(&mut self, frames: Frames<'_>, to: Position) -> Result<()> {
        for frame in frames {
            let frame = frame?;
            if frame.position > to {
                break;
            }
            self.take(&frame)?;
        }
        Ok(())
    }

    /// In the order of positions, but for what is stored twice.
    fn take(&mut self, frame: &Frame) -> Result<()> {
        let position = frame.position;
        let transaction = Transaction::decode(frame.payload.clone())?;
        let (mut set, mut brought) = (BTreeSet::new(), BTreeSet::new());
        match &self.what {
            Redact::Key { partition, key } => {
                let (pair, encoded) = ((&partition[..], &key[..]), Key::new(partition, key));
                let pair_of_events = (Bytes::copy_from_slice(pair.0), Bytes::copy_from_slice(pair.1));
                for event in &transaction.events {
                    match event {
                        Event::Set { partition, key, .. } if (&partition[..], &key[..]) == pair => {
                            set.insert(pair_of_events.clone());
                        }
                        // Whatever it brought of this key is erased; where it brought nothing, nothing is found there.
                        Event::RestoreRange { partition, prefix, .. }
                            if KeyRange::new(partition, prefix).contains(&encoded) =>
                        {
                            brought.insert(pair_of_events.clone());
                        }
                        _ => {}
                    }
                }
            }
            Redact::Position(wanted) if position == *wanted => {
                for event in &transaction.events {
                    if let Event::Set { partition, key, .. } = event {
                        let pair = (partition.clone(), key.clone());
                        let fate = Fate { pair: pair.clone(), changes: vec![(position, true)] };
                        self.fates.insert(Key::new(partition, key), fate);
                        set.insert(pair);
                    }
                }
            }
            Redact::Position(wanted) if position > *wanted => brought = self.follow(position, &transaction.events),
            Redact::Position(_) => {}
        }
        if set.is_empty() && brought.is_empty() {
            return Ok(());
        }
        let whole = self.what == Redact::Position(position);
        let left = left_of(&frame.payload, &set.iter().cloned().collect::<Vec<_>>(), whole)?;
        let found = self.found.entry(position).or_default();
        found.digest = Digest::of_bytes(if set.is_empty() { &frame.payload } else { &left });
        for pair in set {
            self.values += u64::from(found.keys.insert(pair));
        }
        found.keys.extend(brought);
        Ok(())
    }

    /// What a later transaction makes of the keys that the transaction concerned has set; gives those that get a value of it back.
    fn follow(&mut self, position: Position, events: &[Event]) -> BTreeSet<Pair> {
        let mut touched = BTreeSet::new();
        // Range operations come first, in their order.
        for event in events {
            match event {
                Event::DeleteRange { partition, prefix } => {
                    let range = KeyRange::new(partition, prefix);
                    self.within(&range, |_, fate| fate.become_at(position, false));
                }
                Event::RestoreRange { partition, prefix, as_of } => {
                    let range = KeyRange::new(partition, prefix);
                    self.within(&range, |key, fate| {
                        fate.become_at(position, fate.is_erasable_at(*as_of));
                        touched.insert(key.clone());
                    });
                }
                Event::Set { partition, key, .. }
                | Event::Delete { partition, key }
                | Event::Erased { partition, key } => {
                    if let Some(fate) = self.fates.get_mut(&Key::new(partition, key)) {
                        fate.become_at(position, false);
                    }
                }
                _ => {}
            }
        }
        let fates = touched.iter().filter_map(|key| self.fates.get(key));
        fates.filter(|fate| fate.is_erasable_at(position)).map(|fate| fate.pair.clone()).collect()
    }

    fn within(&mut self, range: &KeyRange, mut each: impl FnMut(&Key, &mut Fate)) {
        let ahead = (Bound::Included(range.prefix()), Bound::Unbounded);
        let fates = self.fates.range_mut::<[u8], _>(ahead).take_while(|(key, _)| range.contains(key));
        fates.for_each(|(key, fate)| each(key, fate));
    }
}

/// Looks through what is stored up to a position and was not looked at before. Archives, snapshots and the floor stay as they are
/// meanwhile: the caller holds [`Shared::trimming`].
pub(super) async fn look(
    shared: &Arc<Shared>,
    findings: &Arc<Mutex<Findings>>,
    archives: &[PathBuf],
    to: Position,
) -> Result<()> {
    shared.sync_to(to).await?;
    let (shared, findings, archives) = (shared.clone(), findings.clone(), archives.to_vec());
    on_blocking_thread(move || findings.lock().look(&shared, &archives, to)).await?
}

/// A payload without the values of these keys.
pub(super) fn left_of(payload: &Bytes, keys: &[Pair], reason: bool) -> Result<Bytes> {
    let mut transaction = Transaction::decode(payload.clone())?;
    let keys: BTreeSet<(&[u8], &[u8])> = keys.iter().map(|(partition, key)| (&partition[..], &key[..])).collect();
    for event in &mut transaction.events {
        if let Event::Set { partition, key, .. } = event
            && keys.contains(&(&partition[..], &key[..]))
        {
            *event = Event::Erased { partition: partition.clone(), key: key.clone() };
        }
    }
    if reason {
        transaction.reason = None;
    }
    Ok(transaction.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_to_their_size_and_what_no_part_can_hold_is_refused() {
        let found = |keys: u16, bytes| {
            let pair =
                |key: u16| (Bytes::from_static(b"p"), Bytes::from([&key.to_be_bytes()[..], &vec![0; bytes]].concat()));
            Found { keys: (0..keys).map(pair).collect(), digest: Digest::default() }
        };
        let mut findings = Findings::new(Redact::Position(Position(1)));
        findings.found = (1..=10).map(|position| (Position(position), found(2, 97))).collect();
        let mut after = Position::ZERO;
        let mut parts = Vec::new();
        while findings.goes_on(after) {
            let part = findings.part(after, 1_700).unwrap();
            after = *part.last().unwrap();
            parts.push(part.len());
        }
        assert_eq!(parts, [3, 3, 3, 1]);
        assert!(findings.part(after, 1_700).unwrap().is_empty());
        assert_eq!(findings.part(Position::ZERO, 1).unwrap().len(), 1, "one always goes");
        findings.found.insert(Position(1), found(13_500, 2_500));
        let error = findings.part(Position::ZERO, 1 << 20).unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains("one by one"), "{error}");
    }
}
