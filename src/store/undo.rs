//! Undo: a new transaction that restores what earlier ones changed, unless something later depends on them.
//!
//! Found from the log: the keys and ranges that the undone transactions touched, then whatever wrote there since. Where the
//! state tells that nothing did, the log is not read that far.
//! Both go into the transaction's recorded reads, so that a change which comes while it is decided makes it decide again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::context::Context;
use super::diff::Touched;
use super::engine::{Shared, on_blocking_thread};
use super::facade::{Committed, Store};
use super::reader::Reader;
use super::transaction::Tx;
use crate::event::{Event, Transaction};
use crate::log::{Log, LogError};
use crate::projection::{Write, WriteSet, may_be_referred_to, project_events, references};
use crate::types::{Error, ErrorKind, Key, KeyRange, Limits, OWN_PARTITION_BYTE, PartitionClass, Position, Result};

/// Later changes that are named, the most.
const DEPENDENTS_NAMED_MAX: usize = 100;

/// Keys and ranges that one undo takes back: what one transaction takes.
const UNDONE_MAX: usize = if cfg!(test) { 512 } else { Limits::TRANSACTION_OPERATIONS_MAX };
/// Bytes of keys and values that one undo sets.
const UNDONE_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { Limits::TRANSACTION_BYTES_MAX };

/// What an undo does, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// The transactions that are undone.
    pub undone: RangeInclusive<Position>,
    /// Single keys that change, with the value that they get back: `None` where they go.
    pub keys: Vec<(Key, Option<Vec<u8>>)>,
    /// Ranges that become what they were before.
    pub ranges: Vec<KeyRange>,
    /// Later changes that depend on what is undone: it is refused while there is one.
    pub dependents: Vec<Dependent>,
}

/// A later change that depends on what is to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// The transaction.
    pub position: Position,
    /// A key that it wrote, which was written before or refers to what would go; or the prefix of a range that it deleted or restored. Encoded.
    pub key: Key,
}

/// Who touched since what the undone transactions touched.
#[derive(Default)]
struct Found {
    dependents: Vec<Dependent>,
    /// By the key that was set since and refers to something touched: where, and to what.
    holders: BTreeMap<Key, (Position, Vec<Key>)>,
}

impl Store {
    /// What [`Store::undo`] would do now; changes nothing, and names what stands against it instead of failing.
    ///
    /// # Errors
    /// `not_found` where the state before `first` is not readable, `invalid` above the head, and for what is more than one transaction
    /// takes: 1 M keys and ranges, 64 MiB of keys and values. What a range delete or restore covers counts as one.
    pub async fn plan_undo(&self, first: Position, last: Position) -> Result<Undo> {
        let tx = Tx::new(self.shared().clone());
        plan(self.shared(), &tx, first, last).await
    }

    /// Undoes the transactions `first..=last` as one new transaction: every key that they wrote gets the value back that it had
    /// before, every range that they deleted or restored becomes what it was. The undo can be undone in its turn.
    ///
    /// Remembered requests, marks, cursors and operational partitions are neither undone nor counted. Where all that was
    /// touched is as it was before, nothing is written.
    ///
    /// One undo takes back at most what one transaction can write, 1 M keys and ranges and 64 MiB of them; of ranges what
    /// [`Tx::restore_range`] can bring. More is `invalid` and changes nothing: undo parts, the latest transactions first, or [`Store::rewind`] what
    /// they touched.
    ///
    /// # Errors
    /// `conflict`, naming them, when later transactions depend on what is undone: they wrote a key that it wrote, met a
    /// range that it deleted or restored, or wrote what still refers to an entry that would go (a membership, a policy or credentials
    /// of a user, group or policy in lakeFS's `auth`). Others as [`Store::plan_undo`] and [`Tx::restore_range`].
    pub async fn undo(&self, context: Context, first: Position, last: Position) -> Result<Committed<()>> {
        let shared = self.shared().clone();
        self.transact(context, move |tx: Tx| {
            let shared = shared.clone();
            async move {
                let undo = plan(&shared, &tx, first, last).await?;
                if !undo.dependents.is_empty() {
                    return Err(refusal(&undo));
                }
                for range in &undo.ranges {
                    let (partition, prefix) = pair(range.prefix());
                    tx.restore_range(&partition, &prefix, first.previous()).await?;
                }
                for (key, value) in &undo.keys {
                    let (partition, key) = pair(key);
                    match value {
                        Some(value) => tx.set(&partition, &key, value)?,
                        None => tx.delete(&partition, &key)?,
                    }
                }
                Ok(())
            }
        })
        .await
    }
}

async fn plan(shared: &Arc<Shared>, tx: &Tx, first: Position, last: Position) -> Result<Undo> {
    let head = tx.position();
    if first == Position::ZERO || first > last {
        let message = format!("there is nothing to undo in that range, first=`{first}` last=`{last}`");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if last > head {
        return Err(LogError::AboveHead { position: last, head }.into());
    }
    // Checks that the state before is there, and keeps it.
    let before = Reader::at(shared, first.previous())?;
    shared.sync_to(head).await?;
    let log = shared.log.clone();
    let mut touched = on_blocking_thread(move || touched(log.as_ref(), first, last)).await??;
    let mut found = Found::default();
    if last < head && !is_untouched_since(shared, tx, &touched, last).await? {
        let log = shared.log.clone();
        (touched, found) = on_blocking_thread(move || {
            let found = find(log.as_ref(), &touched, last, head)?;
            Ok::<_, Error>((touched, found))
        })
        .await??;
    }
    let Found { mut dependents, holders } = found;
    for (holder, (position, referred)) in holders {
        if dependents.len() >= DEPENDENTS_NAMED_MAX {
            break;
        }
        for key in referred {
            let goes = shared.view.get(&key, before.position()).await?.is_none();
            if goes && tx.read(&holder).await?.is_some() {
                dependents.push(Dependent { position, key: holder });
                break;
            }
        }
    }
    dependents.sort_by(|one, other| (one.position, &one.key).cmp(&(other.position, &other.key)));
    let (mut keys, mut bytes) = (Vec::new(), 0);
    for key in touched.keys {
        let now = tx.read(&key).await?.map(|(_, value)| value);
        let then = shared.value_at(&key, before.position()).await?;
        if now.as_ref() == then.as_ref().map(|(_, value)| value) {
            continue;
        }
        bytes += key.len() + then.as_ref().map_or(0, |(_, value)| value.len());
        if bytes > UNDONE_BYTES_MAX {
            let message = format!(
                "too many bytes to undo at once, limit=`{UNDONE_BYTES_MAX}`; undo fewer transactions, or rewind the partition"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some((version, _)) = &then {
            tx.note_erasable(&key, *version);
        }
        keys.push((key, then.map(|(_, value)| value.to_vec())));
    }
    let ranges: Vec<KeyRange> = touched.ranges.into_values().collect();
    ranges.iter().for_each(|range| tx.note_range(range));
    Ok(Undo { undone: first..=last, keys, ranges, dependents })
}

/// Whether the state alone tells that nothing after `last` depends on what was touched: every write of a key raises its
/// version, and what a range delete or restore covers goes or is written anew.
async fn is_untouched_since(shared: &Shared, tx: &Tx, touched: &Touched, last: Position) -> Result<bool> {
    // A range holds keys that are not there, and references are found in the log alone.
    if !touched.ranges.is_empty() || touched.keys.iter().any(|key| may_be_referred_to(key)) {
        return Ok(false);
    }
    let remembered = {
        let layers = shared.view.layers();
        (last >= layers.floor()).then(|| !touched.keys.iter().any(|key| layers.written_since(key, last)))
    };
    if let Some(untouched) = remembered {
        return Ok(untouched);
    }
    for key in &touched.keys {
        // Of a key that is not there a base does not say which deletes have met it.
        if tx.read(key).await?.is_none_or(|(version, _)| version > last) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The transactions `first..=last`, and of each what its events that count write.
fn writes(
    log: &dyn Log,
    first: Position,
    last: Position,
) -> Result<impl Iterator<Item = Result<(Position, WriteSet)>> + '_> {
    let count = usize::try_from(last.0.saturating_sub(first.0)).unwrap_or(usize::MAX).saturating_add(1);
    Ok(log.read(first)?.take(count).map(|frame| {
        let frame = frame?;
        let events: Vec<Event> = Transaction::decode(frame.payload)?.events.into_iter().filter(counts).collect();
        Ok((frame.position, project_events(&events, Vec::new())))
    }))
}

/// What the undone transactions touched.
fn touched(log: &dyn Log, first: Position, last: Position) -> Result<Touched> {
    let mut touched = Touched::default();
    for set in writes(log, first, last)? {
        let (_, set) = set?;
        set.ranges.into_iter().for_each(|range| touched.add_range(range));
        let own = |write: &Write| write.key.first() == Some(&OWN_PARTITION_BYTE);
        set.writes.into_iter().filter(|write| !own(write)).for_each(|write| touched.add_key(write.key));
        if touched.len() > UNDONE_MAX {
            let message = format!(
                "too many keys and ranges to undo at once, limit=`{UNDONE_MAX}`; undo fewer transactions, or rewind the partition"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    Ok(touched)
}

/// Who touched it in the transactions after `last` up to `head`.
fn find(log: &dyn Log, touched: &Touched, last: Position, head: Position) -> Result<Found> {
    let mut found = Found::default();
    for set in writes(log, last.next(), head)? {
        if found.dependents.len() >= DEPENDENTS_NAMED_MAX {
            break;
        }
        let (position, set) = set?;
        let ranges = set.ranges.iter().map(KeyRange::prefix).filter(|prefix| touched.meets_range(prefix));
        let keys = set.writes.iter().map(|write| &write.key[..]).filter(|key| touched.meets_key(key));
        if let Some(key) = ranges.chain(keys).next() {
            found.dependents.push(Dependent { position, key: Key(key.into()) });
            continue;
        }
        for write in set.writes.iter().filter(|write| write.value.is_some()) {
            let mut referred = references(&write.key);
            referred.retain(|key| touched.meets_key(key));
            if !referred.is_empty() {
                found.holders.insert(write.key.clone(), (position, referred));
            }
        }
        if found.holders.len() > UNDONE_MAX {
            let message =
                format!("too much refers to what is to be undone, limit=`{UNDONE_MAX}`; undo later transactions first");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    Ok(found)
}

/// Whether an event can be undone and counts as a later change.
fn counts(event: &Event) -> bool {
    let partition = match event {
        Event::Set { partition, .. }
        | Event::Delete { partition, .. }
        | Event::Erased { partition, .. }
        | Event::DeleteRange { partition, .. }
        | Event::RestoreRange { partition, .. } => partition,
        _ => return false,
    };
    PartitionClass::of(partition) == PartitionClass::Record
}

fn refusal(undo: &Undo) -> Error {
    let mut positions: BTreeMap<Position, String> = BTreeMap::new();
    for dependent in &undo.dependents {
        let (partition, key) = pair(&dependent.key);
        let named = format!("`{}` in `{}`", key.escape_ascii(), partition.escape_ascii());
        positions.entry(dependent.position).or_insert(named);
    }
    let named =
        positions.iter().map(|(position, key)| format!("{position} wrote {key}")).collect::<Vec<_>>().join(", ");
    let more = if undo.dependents.len() >= DEPENDENTS_NAMED_MAX { ", and perhaps more" } else { "" };
    let (first, last) = (undo.undone.start(), undo.undone.end());
    let message = format!(
        "later changes depend on what is to be undone, positions=`{first}..={last}`: {named}{more}; undo them too, or none"
    );
    Error::new(ErrorKind::Conflict, message)
}

/// Partition and key of an encoded pair.
fn pair(encoded: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let start = Key::key_start(encoded).unwrap_or(0);
    (Key::partition_of(encoded).unwrap_or_default(), encoded.get(start..).unwrap_or_default().to_vec())
}
