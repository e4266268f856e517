//! [`SecondaryIterator`]: messages in the order of a secondary index.

use prost::Message;

use super::{KeyValue, KvError, MessageEntry, PrimaryIterator, StartAt, get_message};

/// The value of an entry that refers to another one of its partition (lakeFS's
/// `io.treeverse.lakefs.kv.SecondaryIndex`).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct SecondaryIndex {
    /// The key referred to.
    #[prost(bytes = "vec", tag = "1")]
    pub primary_key: Vec<u8>,
}

/// The messages that the index entries under a prefix refer to, in the index's order.
///
/// The key of an entry is the secondary one, which is also what paging goes on behind. An index entry whose primary
/// is missing is skipped; one that names no primary stops the iterator with [`KvError::MissingKey`],
/// one that does not decode, or whose primary does not, with [`KvError::Decode`]; it then
/// stays so. The index is read as of one moment, each primary as of when it is reached.
pub struct SecondaryIterator<'a, M> {
    store: &'a dyn KeyValue,
    partition: Vec<u8>,
    index: PrimaryIterator<SecondaryIndex>,
    /// The index entry whose primary is being read: a call dropped meanwhile must not lose it.
    pending: Option<MessageEntry<SecondaryIndex>>,
    failed: Option<KvError>,
    messages: std::marker::PhantomData<fn() -> M>,
}

impl<'a, M: Message + Default> SecondaryIterator<'a, M> {
    /// Scans the index at once.
    pub async fn open(
        store: &'a dyn KeyValue,
        partition: &[u8],
        prefix: &[u8],
        start: StartAt<'_>,
    ) -> Result<SecondaryIterator<'a, M>, KvError> {
        let index = PrimaryIterator::open(store, partition, prefix, start).await?;
        let (partition, messages) = (partition.to_vec(), std::marker::PhantomData);
        Ok(SecondaryIterator { store, partition, index, pending: None, failed: None, messages })
    }

    /// The next entry; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<MessageEntry<M>>, KvError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.advance().await;
        self.failed = next.as_ref().err().cloned();
        next
    }

    async fn advance(&mut self) -> Result<Option<MessageEntry<M>>, KvError> {
        loop {
            if self.pending.is_none() {
                self.pending = self.index.next().await?;
            }
            let Some(entry) = &self.pending else { return Ok(None) };
            let found = get_message(self.store, &self.partition, &entry.message.primary_key).await;
            let key = entry.key.clone();
            self.pending = None;
            match found {
                Ok((message, _)) => return Ok(Some(MessageEntry { key, message })),
                Err(KvError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the scan; further calls are [`KvError::ClosedEntries`].
    pub fn close(&mut self) {
        self.index.close();
        self.failed = Some(KvError::ClosedEntries);
    }
}
