//! [`PartitionIterator`]: the messages of a whole partition, with seeks.

use prost::Message;

use super::message::MessageEntries;
use super::{KeyValue, KvError, KvScan, MessageEntry};

/// The entries of a partition, decoded.
///
/// Scans at the first [`PartitionIterator::next`] or [`PartitionIterator::seek_ge`] and reuses that scan for
/// all later seeks. A value that does not decode stops it, with the same error at every further call until a seek.
pub struct PartitionIterator<'a, M> {
    store: &'a dyn KeyValue,
    partition: Vec<u8>,
    batch_size: usize,
    scan: Option<MessageEntries<M>>,
    closed: bool,
}

impl<'a, M: Message + Default> PartitionIterator<'a, M> {
    /// An iterator over a partition; `batch_size` as [`KvScan::batch_size`]. Nothing is checked or read yet.
    pub fn new(store: &'a dyn KeyValue, partition: &[u8], batch_size: usize) -> PartitionIterator<'a, M> {
        PartitionIterator { store, partition: partition.to_vec(), batch_size, scan: None, closed: false }
    }

    /// The next entry; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<MessageEntry<M>>, KvError> {
        self.scan(b"").await?.next().await
    }

    /// Goes to the first entry whose key is not below `key`, forwards or backwards, also after the end.
    pub async fn seek_ge(&mut self, key: &[u8]) -> Result<(), KvError> {
        self.scan(key).await?.seek_ge(key)
    }

    /// The open scan, or a new one from `key`.
    async fn scan(&mut self, key: &[u8]) -> Result<&mut MessageEntries<M>, KvError> {
        if self.closed {
            return Err(KvError::ClosedEntries);
        }
        let scan = match self.scan.take() {
            Some(scan) => scan,
            None => {
                let options = KvScan { key_start: key, batch_size: self.batch_size };
                MessageEntries::new(self.store.scan(&self.partition, options).await?)
            }
        };
        Ok(self.scan.insert(scan))
    }

    /// Closes the scan, if there is one; further calls are [`KvError::ClosedEntries`].
    pub fn close(&mut self) {
        if let Some(mut scan) = self.scan.take() {
            scan.close();
        }
        self.closed = true;
    }
}
