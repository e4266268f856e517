//! History: every version of a key or of the keys with a prefix, and who wrote it when and why.

use std::collections::VecDeque;
use std::sync::Arc;

use super::engine::{Shared, on_blocking_thread};
use super::pages::{PageStream, Pages, page_stream};
use super::prepare::{check_partition, check_readable};
use super::reader::Reader;
use crate::event::Transaction;
use crate::log::Log;
use crate::projection::{Pin, Timelines};
use crate::types::{Error, ErrorKind, Key, KeyRange, Position, Result, Slice, Timestamp};

/// Versions looked up in the log at a time.
const PAGE_VERSIONS: usize = 64;

/// One version of a key: a value, or that it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The encoded pair of partition and key.
    pub encoded_key: Slice,
    /// The position that wrote or deleted it.
    pub position: Position,
    /// The value; `None` where the key was deleted, by itself or with a range, and where it was redacted.
    pub value: Option<Slice>,
    /// Whether there was a value that was redacted since.
    pub redacted: bool,
    /// Who wrote it when and why; `None` for what was there at the floor already: its transaction is not kept any more.
    pub origin: Option<Origin>,
}

/// Where a version comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Recorded time.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// Why, when it was said.
    pub reason: Option<String>,
    /// The request that was answered.
    pub request_id: Option<String>,
}

impl Version {
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

impl Reader {
    /// Every version of a key up to the position read at, oldest first. The first one may be what was there at the floor.
    ///
    /// # Errors
    /// `invalid` for what is no key; from the stream `unavailable` when no history is kept.
    pub fn history(&self, partition: &[u8], key: &[u8]) -> Result<History> {
        check_readable(partition, key)?;
        let key = Key::encode(partition, key);
        let end = [&key[..], &[0]].concat();
        Ok(History::new(self, &key, end))
    }

    /// The same of encoded `from <= key < to`.
    pub(super) fn history_encoded(&self, from: &[u8], to: Vec<u8>) -> History {
        History::new(self, from, to)
    }

    /// The same of all keys of a partition that begin with a prefix, key by key in order.
    pub fn history_of(&self, partition: &[u8], prefix: &[u8]) -> Result<History> {
        check_partition(partition)?;
        let range = KeyRange::new(partition, prefix);
        Ok(History::new(self, range.prefix(), range.end()))
    }
}

/// The versions of keys, key by key, oldest first. After an error it ends.
#[derive(Debug)]
#[must_use = "a stream does nothing unless polled"]
pub struct History {
    pages: PageStream<VersionPages>,
}

page_stream!(History, Version);

impl History {
    fn new(reader: &Reader, from: &[u8], to: Vec<u8>) -> History {
        let (shared, pin) = (reader.shared().clone(), reader.pin().clone());
        // A reader from before a trim reads on below the floor.
        let floor = shared.log.floor().min(pin.position());
        let timelines = Timelines::new(shared.view.clone(), pin.clone(), floor, from, to);
        History { pages: PageStream::new(VersionPages { shared, _pin: pin, floor, timelines, ready: VecDeque::new() }) }
    }
}

struct VersionPages {
    shared: Arc<Shared>,
    /// Keeps the base from dropping what is being read.
    _pin: Pin,
    floor: Position,
    timelines: Timelines,
    /// Keys and changes of which no version was given yet.
    ready: VecDeque<(Slice, Position, bool)>,
}

impl Pages for VersionPages {
    type Item = Version;

    async fn page(&mut self) -> Result<Vec<Version>> {
        if self.ready.is_empty() {
            for timeline in self.timelines.page().await? {
                let changes = timeline.changes.into_iter();
                self.ready.extend(changes.map(|(position, value)| (timeline.key.clone(), position, value.is_some())));
            }
        }
        let changes: Vec<_> = self.ready.drain(..self.ready.len().min(PAGE_VERSIONS)).collect();
        let above = changes.iter().map(|(_, position, _)| *position).filter(|position| *position > self.floor);
        let (log, positions) = (self.shared.log.clone(), above.collect::<Vec<_>>());
        if let Some(newest) = positions.iter().max() {
            self.shared.sync_to(*newest).await?;
        }
        let mut origins = on_blocking_thread(move || origins(log.as_ref(), &positions)).await??.into_iter();
        let mut versions = Vec::with_capacity(changes.len());
        for (encoded_key, position, lives) in changes {
            let found = match lives {
                // At the floor it is what it was when it was written.
                true => self.shared.view.get(&encoded_key, position.max(self.floor)).await?,
                false => None,
            };
            let redacted = match &found {
                Some((version, value)) => self.shared.is_erased(&encoded_key, *version, value).await?,
                None => false,
            };
            let value = found.map(|(_, value)| value).filter(|_| !redacted);
            let origin = if position > self.floor { origins.next().flatten() } else { None };
            versions.push(Version { encoded_key, position, value, redacted, origin });
        }
        Ok(versions)
    }
}

/// The origins of what was written at these positions, one for each; none for what a trim removed meanwhile.
fn origins(log: &dyn Log, positions: &[Position]) -> Result<Vec<Option<Origin>>> {
    let mut origins: Vec<Option<Origin>> = Vec::with_capacity(positions.len());
    for (at, &position) in positions.iter().enumerate() {
        let same = at.checked_sub(1).filter(|&before| positions.get(before) == Some(&position));
        if let Some(origin) = same.and_then(|before| origins.get(before)).cloned() {
            origins.push(origin);
            continue;
        }
        if position <= log.floor() {
            origins.push(None);
            continue;
        }
        let frame = log.read(position)?.next().transpose()?;
        let frame = frame.filter(|frame| frame.position == position).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("the log does not give what was synced, position=`{position}`"))
        })?;
        let transaction = Transaction::decode(frame.payload)?;
        origins.push(Some(Origin {
            time: frame.time,
            actor: transaction.actor,
            reason: transaction.reason,
            request_id: transaction.request.map(|request| request.id),
        }));
    }
    Ok(origins)
}
