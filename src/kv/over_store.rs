//! [`Kv`]: the contract over a [`Store`].

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use tokio_stream::Stream;

use super::{Entries, KeyValue, KvError, KvFuture, KvPredicate, KvScan, KvToken, KvValue};
use crate::store::{Batch, Context, EntryStream, Predicate, Reader, ScanOptions, Store};
use crate::types::{Entry, ErrorKind};

/// The contract over a store, in the name of one actor. Cheap to make and to clone: a server may
/// make one for each of its users.
///
/// Beyond [`KeyValue`] it promises: a scan sees exactly one position, that of the moment when its future was
/// first polled; and a token of [`KvPredicate::Token`] passes only for the very entry that was read.
#[derive(Clone, Debug)]
pub struct Kv {
    store: Store,
    actor: String,
    page_entries: usize,
}

impl Kv {
    /// Writes through this `Kv` are recorded as `actor`'s (never empty, at most 1 KiB; writes are
    /// refused as `invalid` otherwise).
    pub fn new(store: Store, actor: impl Into<String>) -> Kv {
        Kv { store, actor: actor.into(), page_entries: 0 }
    }

    /// Entries that a scan fetches at a time when its caller does not say. 0, the default, is the store's.
    #[must_use]
    pub fn page_entries(mut self, entries: usize) -> Kv {
        self.page_entries = entries;
        self
    }

    /// The store underneath.
    pub fn store(&self) -> &Store {
        &self.store
    }

    async fn write(&self, batch: Batch) -> Result<(), KvError> {
        self.store.write(Context::new(self.actor.as_str()), batch).await?;
        Ok(())
    }
}

impl KeyValue for Kv {
    fn get<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, KvValue> {
        Box::pin(async move {
            check_key(partition, key)?;
            let entry = self.store.get(partition, key).await?;
            let entry = entry.ok_or_else(|| KvError::not_found(partition, key))?;
            let token = KvToken { log_id: self.store.log_id(), version: entry.version };
            Ok(KvValue { value: entry.value, predicate: token.into() })
        })
    }

    fn set<'a>(&'a self, partition: &'a [u8], key: &'a [u8], value: Option<&'a [u8]>) -> KvFuture<'a, ()> {
        Box::pin(async move {
            let value = check_value(partition, key, value)?;
            self.write(Batch::new().set(partition, key, value)).await
        })
    }

    fn set_if<'a>(
        &'a self,
        partition: &'a [u8],
        key: &'a [u8],
        value: Option<&'a [u8]>,
        predicate: &'a KvPredicate,
    ) -> KvFuture<'a, ()> {
        Box::pin(async move {
            let value = check_value(partition, key, value)?;
            let predicate = match predicate {
                KvPredicate::Absent => Predicate::Absent,
                KvPredicate::Exists => Predicate::Exists,
                KvPredicate::Value(expected) => Predicate::Value(Bytes::clone(expected)),
                KvPredicate::Token(token) if token.log_id == self.store.log_id() => Predicate::Version(token.version),
                // Nothing in this store was written by a position of another log.
                KvPredicate::Token(_) => return Err(KvError::predicate_failed(partition, key)),
            };
            match self.write(Batch::new().set_if(partition, key, value, predicate)).await {
                // The batch has no other condition.
                Err(error) if error.kind() == ErrorKind::Conflict => Err(KvError::predicate_failed(partition, key)),
                done => done,
            }
        })
    }

    fn delete<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, ()> {
        Box::pin(async move {
            check_key(partition, key)?;
            self.write(Batch::new().delete(partition, key)).await
        })
    }

    fn scan<'a>(&'a self, partition: &'a [u8], options: KvScan<'a>) -> KvFuture<'a, Box<dyn Entries>> {
        Box::pin(async move {
            check_partition(partition)?;
            let (batch_size, limit) = (options.batch_size, KvScan::BATCH_SIZE_MAX);
            if batch_size > limit {
                return Err(KvError::BatchSizeTooBig { batch_size, limit });
            }
            let batch = if batch_size == 0 { self.page_entries } else { batch_size };
            let mut entries = StoreEntries { partition: partition.to_vec(), batch, open: None, ended: false };
            entries.position(self.store.reader(), options.key_start)?;
            Ok(Box::new(entries) as Box<dyn Entries>)
        })
    }

    /// Closes the store, for all who use it.
    fn close(&self) -> KvFuture<'_, ()> {
        Box::pin(async move { Ok(self.store.close().await?) })
    }
}

/// A scan at one position.
struct StoreEntries {
    partition: Vec<u8>,
    batch: usize,
    /// The position read at, and the entries from where the last seek went; `None` when closed.
    open: Option<(Reader, EntryStream)>,
    /// An error was given; only a seek goes on.
    ended: bool,
}

impl StoreEntries {
    fn position(&mut self, reader: Reader, from: &[u8]) -> Result<(), KvError> {
        // A new stream at the same position: nothing is fetched before it is polled.
        let stream = reader.scan(ScanOptions::new(&self.partition).from(from).batch(self.batch))?;
        self.open = Some((reader, stream));
        self.ended = false;
        Ok(())
    }
}

impl Stream for StoreEntries {
    type Item = Result<Entry, KvError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let polled = match &mut this.open {
            None => Poll::Ready(Some(Err(KvError::ClosedEntries))),
            Some((_, stream)) => Pin::new(stream).poll_next(context).map_err(KvError::from),
        };
        this.ended = matches!(&polled, Poll::Ready(Some(Err(_))));
        polled
    }
}

impl Entries for StoreEntries {
    fn seek_ge(&mut self, key: &[u8]) -> Result<(), KvError> {
        let (reader, _) = self.open.take().ok_or(KvError::ClosedEntries)?;
        self.position(reader, key)
    }

    fn close(&mut self) {
        if self.open.take().is_some() {
            self.ended = false;
        }
    }
}

fn check_partition(partition: &[u8]) -> Result<(), KvError> {
    if partition.is_empty() { Err(KvError::MissingPartition) } else { Ok(()) }
}

fn check_key(partition: &[u8], key: &[u8]) -> Result<(), KvError> {
    check_partition(partition)?;
    if key.is_empty() { Err(KvError::MissingKey) } else { Ok(()) }
}

fn check_value<'a>(partition: &[u8], key: &[u8], value: Option<&'a [u8]>) -> Result<&'a [u8], KvError> {
    check_key(partition, key)?;
    value.ok_or(KvError::MissingValue)
}
