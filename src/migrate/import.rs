//! [`import`]: the records of a file become transactions of a store.
//!
//! Owns which record is written, which is there already and which is refused. What it decides, it
//! decides from reads of the transaction that writes, so that others may write meanwhile. Knows
//! nothing of what keys and values mean.
//!
//! ```text
//!   thread: read, decompress, parse --batches--> transactions, a few under way at once --> report
//! ```
//! A batch waits for the one under way that has a key in common with it, so of two records for
//! one key the earlier is always decided first.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::dry::DryRun;
use super::{ReadError, Record, Refusal, read};
use crate::event::Event;
use crate::store::{Context, Store, Tx, check_key, check_value};
use crate::types::{Error, ErrorKind, Key, Position, Result};

/// Records in one transaction at most.
const BATCH_RECORDS_MAX: usize = 1_000;
/// Bytes after which a batch ends; one record may be larger.
const BATCH_BYTES: usize = 2 << 20;
/// Batches read ahead.
const BATCHES_AHEAD: usize = 2;
/// Transactions under way at once: while one is synced, the next ones are decided.
const UNDER_WAY_MAX: usize = 3;
/// Refused records that a report names.
const REFUSED_MAX: usize = 10_000;

/// How to import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Replace existing keys that have other bytes. Of several records for one key the last one wins then.
    pub overwrite: bool,
    /// Change nothing, but report what would happen. Takes about 100 bytes of memory a record.
    pub dry_run: bool,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Records written.
    pub entries: u64,
    /// Records that were there already, with the same bytes.
    pub already: u64,
    /// Transactions made.
    pub transactions: u64,
    /// The position of the last of them; without any, the head.
    pub head: Position,
    /// Records written, by partition.
    pub partitions: BTreeMap<Vec<u8>, u64>,
    /// Records refused in all.
    pub refused: u64,
    /// The first 10,000 of them, in the order of the file.
    pub refusals: Vec<RefusedRecord>,
}

/// A record that was not imported; the others were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its place in the file, from 1.
    pub record: u64,
    /// Its partition, where it is known.
    pub partition: Option<Bytes>,
    /// Its key, where it is known.
    pub key: Option<Bytes>,
    /// Why.
    pub reason: String,
}

/// What is done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    Written = 1,
    Already = 2,
    Conflict = 3,
}

impl Fate {
    /// What to do with a record whose key has this value now.
    pub(super) fn of(found: Option<bool>, overwrite: bool) -> Fate {
        match found {
            Some(true) => Fate::Already,
            Some(false) if !overwrite => Fate::Conflict,
            _ => Fate::Written,
        }
    }
}

/// Imports a file of either format, plain, zstd or gzip.
///
/// A record whose key exists with the same bytes counts as there already; with other bytes it is
/// refused (`conflict`), unless [`ImportOptions::overwrite`]. Refused too: what does not decode, is
/// above the limits, or lies in the store's own partitions. Refused records are named in the report and
/// hold up nothing.
///
/// Each transaction has up to 1,000 records and is of the context, with the reason `import` unless it gives one.
/// Others may write meanwhile. After an error, a kill or a dropped future, what was
/// committed stays (up to three transactions may still commit), and the same import completes it.
/// `progress` is called after each transaction with the records handled so far. Memory does not depend on the length of
/// the file.
///
/// The file is read by a thread of its own. It ends when the import does, or at the next record.
///
/// # Errors
/// [`ReadError`], converted, when the file cannot be read on; `invalid` for a context with a
/// request id; those of [`Store::transact`].
pub async fn import(
    store: &Store,
    context: Context,
    input: impl Read + Send + 'static,
    options: ImportOptions,
    mut progress: impl FnMut(u64),
) -> Result<ImportReport> {
    let context = context.for_many("import")?;
    let mut batches = spawn_reader(input)?;
    let mut run = Run { report: ImportReport { head: store.head(), ..ImportReport::default() }, handled: 0 };
    let mut under_way: VecDeque<UnderWay> = VecDeque::new();
    let hasher = RandomState::new();
    let mut dry = options.dry_run.then(|| DryRun::new(store.reader(), options.overwrite));
    loop {
        let Some(message) = batches.recv().await else {
            return Err(Error::new(ErrorKind::Internal, "the thread that reads the import file panicked"));
        };
        let batch = match message {
            Message::Batch(batch) => batch,
            Message::End(end) => {
                while let Some(first) = under_way.pop_front() {
                    run.finish(first, &mut progress).await?;
                }
                end?;
                return Ok(run.report);
            }
        };
        let records = run.admit(batch);
        if let Some(dry) = &mut dry {
            let fates = dry.decide(&records).await?;
            run.count(&records, &fates, None);
            progress(run.handled);
            continue;
        }
        let mut keys: Vec<u64> =
            records.iter().map(|record| hasher.hash_one((&record.partition, &record.key))).collect();
        keys.sort_unstable();
        while under_way.len() >= UNDER_WAY_MAX || under_way.iter().any(|other| !are_disjoint(&other.keys, &keys)) {
            let Some(first) = under_way.pop_front() else { break };
            run.finish(first, &mut progress).await?;
        }
        let records = Arc::new(records);
        let commit = commit(store.clone(), context.clone(), records.clone(), options.overwrite);
        under_way.push_back(UnderWay { records, keys, commit: tokio::spawn(commit) });
    }
}

/// Decides and writes one batch; gives the fates of its records, one byte each.
async fn commit(
    store: Store,
    context: Context,
    records: Arc<Vec<Record>>,
    overwrite: bool,
) -> Result<(Position, Vec<u8>)> {
    let keys: Vec<Key> = records.iter().map(|record| Key::new(&record.partition, &record.key)).collect();
    let mut sorted: Vec<(&Key, &Record, usize)> =
        keys.iter().zip(records.iter()).enumerate().map(|(at, (key, record))| (key, record, at)).collect();
    // Stable: of two records for one key the earlier is decided first.
    sorted.sort_by_key(|(key, ..)| *key);
    let sorted_keys: Vec<Key> = sorted.iter().map(|(key, ..)| (*key).clone()).collect();
    let (sorted, sorted_keys) = (&sorted, &sorted_keys);
    let decide = |tx: Tx| async move {
        let mut found = tx.read_all(sorted_keys).await?.into_iter();
        let mut fates = vec![Fate::Conflict as u8; sorted.len()];
        for same in sorted.chunk_by(|(a, ..), (b, ..)| a == b) {
            let stands = found.by_ref().take(same.len()).last().flatten();
            let mut written: Option<&Record> = None;
            for &(_, record, at) in same {
                let stands = written.map(|record| &record.value[..]).or(stands.as_ref().map(|(_, value)| &value[..]));
                let fate = Fate::of(stands.map(|stands| *stands == record.value[..]), overwrite);
                if fate == Fate::Written {
                    written = Some(record);
                }
                if let Some(place) = fates.get_mut(at) {
                    *place = fate as u8;
                }
            }
            if let Some(Record { partition, key, value, .. }) = written.cloned() {
                tx.record(Event::Set { partition, key, value });
            }
        }
        Ok(fates)
    };
    let committed = store.transact(context, decide).await?;
    Ok((committed.position, committed.answer))
}

/// Whether two sorted lists have nothing in common.
fn are_disjoint(a: &[u64], b: &[u64]) -> bool {
    let mut b = b.iter().peekable();
    a.iter().all(|a| {
        while b.next_if(|b| *b < a).is_some() {}
        b.peek() != Some(&a)
    })
}

/// A transaction that was begun.
struct UnderWay {
    records: Arc<Vec<Record>>,
    /// Hashes of its keys, sorted: a batch of other keys that is taken for one of the same waits, that is all.
    keys: Vec<u64>,
    commit: JoinHandle<Result<(Position, Vec<u8>)>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.commit.abort();
    }
}

/// The report as it grows.
struct Run {
    report: ImportReport,
    handled: u64,
}

impl Run {
    /// The records that may be written at all; the others are refused.
    fn admit(&mut self, batch: Vec<Result<Record, Refusal>>) -> Vec<Record> {
        let mut records = Vec::with_capacity(batch.len());
        for item in batch {
            let refused = match item {
                Err(Refusal { record, partition, key, reason }) => {
                    RefusedRecord { record, partition, key, reason: reason.to_string() }
                }
                Ok(record) => {
                    let checked = check_key(&record.partition, &record.key).and_then(|()| check_value(&record.value));
                    let Err(error) = checked else {
                        records.push(record);
                        continue;
                    };
                    RefusedRecord {
                        record: record.ordinal,
                        partition: Some(record.partition),
                        key: Some(record.key),
                        reason: error.message().to_owned(),
                    }
                }
            };
            self.handled += 1;
            self.refuse(refused);
        }
        records
    }

    async fn finish(&mut self, mut batch: UnderWay, progress: &mut impl FnMut(u64)) -> Result<()> {
        let done = (&mut batch.commit).await;
        let (position, fates) =
            done.map_err(|error| Error::new(ErrorKind::Internal, "an import task panicked").with_source(error))??;
        let fates: Vec<Fate> = fates
            .iter()
            .map(|&fate| match fate {
                fate if fate == Fate::Written as u8 => Fate::Written,
                fate if fate == Fate::Already as u8 => Fate::Already,
                _ => Fate::Conflict,
            })
            .collect();
        self.count(&batch.records, &fates, Some(position));
        progress(self.handled);
        Ok(())
    }

    /// Adds a decided batch; without a position nothing was made of it.
    fn count(&mut self, records: &[Record], fates: &[Fate], position: Option<Position>) {
        let report = &mut self.report;
        if fates.contains(&Fate::Written) {
            report.transactions += 1;
            report.head = position.unwrap_or(report.head).max(report.head);
        }
        let mut conflicts = Vec::new();
        for (record, fate) in records.iter().zip(fates) {
            match fate {
                Fate::Written => {
                    report.entries += 1;
                    match report.partitions.get_mut(&record.partition[..]) {
                        Some(count) => *count += 1,
                        None => {
                            report.partitions.insert(record.partition.to_vec(), 1);
                        }
                    }
                }
                Fate::Already => report.already += 1,
                Fate::Conflict => conflicts.push(record),
            }
        }
        for record in conflicts {
            self.refuse(RefusedRecord {
                record: record.ordinal,
                partition: Some(record.partition.clone()),
                key: Some(record.key.clone()),
                reason: "conflict: the key exists with another value".to_owned(),
            });
        }
        self.handled += records.len() as u64;
    }

    /// Keeps the first ones of the file: batches are decided a little out of the order in which their bad records are met.
    fn refuse(&mut self, refused: RefusedRecord) {
        self.report.refused += 1;
        let refusals = &mut self.report.refusals;
        let at = refusals.partition_point(|other| other.record < refused.record);
        refusals.insert(at, refused);
        refusals.truncate(REFUSED_MAX);
    }
}

/// What the reading thread sends.
enum Message {
    Batch(Vec<Result<Record, Refusal>>),
    End(Result<(), ReadError>),
}

/// Why the reading thread stops.
enum Stopped {
    Read(ReadError),
    /// Nobody takes batches any more.
    Unwanted,
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Stopped {
        Stopped::Read(error)
    }
}

/// Reads on a thread that nobody waits for: a pipe that gives nothing must not hold up the end of a runtime.
fn spawn_reader(input: impl Read + Send + 'static) -> Result<mpsc::Receiver<Message>> {
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let thread = std::thread::Builder::new().name("lakelog-import".to_owned());
    let spawned = thread.spawn(move || {
        let end = match read_batches(input, &sender) {
            Ok(()) => Ok(()),
            Err(Stopped::Read(error)) => Err(error),
            Err(Stopped::Unwanted) => return,
        };
        // Nobody minds the end of what is not wanted.
        let _ = sender.blocking_send(Message::End(end));
    });
    spawned.map_err(|error| Error::new(ErrorKind::Unavailable, "cannot start a thread").with_source(error))?;
    Ok(batches)
}

fn read_batches(input: impl Read, sender: &mpsc::Sender<Message>) -> Result<(), Stopped> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    read(input, |item| {
        bytes += item.as_ref().map_or(0, |record| record.partition.len() + record.key.len() + record.value.len());
        batch.push(item);
        if batch.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES {
            return Ok(());
        }
        bytes = 0;
        send(std::mem::take(&mut batch), sender)
    })?;
    match batch.is_empty() {
        true => Ok(()),
        false => send(batch, sender),
    }
}

fn send(batch: Vec<Result<Record, Refusal>>, sender: &mpsc::Sender<Message>) -> Result<(), Stopped> {
    sender.blocking_send(Message::Batch(batch)).map_err(|_| Stopped::Unwanted)
}
