//! Protobuf messages as values: get, set, set-if, and the decoding of entries.

use std::marker::PhantomData;

use prost::Message;
use tokio_stream::StreamExt;

use super::{Entries, KeyValue, KvError, KvPredicate};
use crate::types::{Entry, Slice};

/// An entry whose value is a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageEntry<M> {
    /// The key.
    pub key: Slice,
    /// The decoded value.
    pub message: M,
}

/// The message of a key, and the predicate of [`KeyValue::get`] (which alone gives the predicate without
/// decoding). [`KvError::Decode`] when the value is no such message.
pub async fn get_message<M: Message + Default>(
    store: &dyn KeyValue,
    partition: &[u8],
    key: &[u8],
) -> Result<(M, KvPredicate), KvError> {
    let found = store.get(partition, key).await?;
    let message = M::decode(&found.value[..]).map_err(|source| KvError::decode(key, source))?;
    Ok((message, found.predicate))
}

/// Sets a key to an encoded message. One with only default fields encodes to no bytes, a legal value.
pub async fn set_message<M: Message>(
    store: &dyn KeyValue,
    partition: &[u8],
    key: &[u8],
    message: &M,
) -> Result<(), KvError> {
    store.set(partition, key, Some(&message.encode_to_vec())).await
}

/// Sets a key to an encoded message if the predicate holds, as [`KeyValue::set_if`].
pub async fn set_message_if<M: Message>(
    store: &dyn KeyValue,
    partition: &[u8],
    key: &[u8],
    message: &M,
    predicate: &KvPredicate,
) -> Result<(), KvError> {
    store.set_if(partition, key, Some(&message.encode_to_vec()), predicate).await
}

/// Decoded entries. The error that it stops at is repeated, until a seek.
pub(super) struct MessageEntries<M> {
    entries: Box<dyn Entries>,
    failed: Option<KvError>,
    messages: PhantomData<fn() -> M>,
}

impl<M: Message + Default> MessageEntries<M> {
    pub fn new(entries: Box<dyn Entries>) -> MessageEntries<M> {
        MessageEntries { entries, failed: None, messages: PhantomData }
    }

    pub async fn next(&mut self) -> Result<Option<MessageEntry<M>>, KvError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some(next) = self.entries.next().await else { return Ok(None) };
        let decoded = next.and_then(|entry| decode(&entry));
        self.failed = decoded.as_ref().err().cloned();
        decoded.map(Some)
    }

    pub fn seek_ge(&mut self, key: &[u8]) -> Result<(), KvError> {
        self.entries.seek_ge(key)?;
        self.failed = None;
        Ok(())
    }

    pub fn close(&mut self) {
        self.entries.close();
        self.failed = Some(KvError::ClosedEntries);
    }
}

fn decode<M: Message + Default>(entry: &Entry) -> Result<MessageEntry<M>, KvError> {
    let key = entry.key();
    let message = M::decode(&entry.value[..]).map_err(|source| KvError::decode(&key, source))?;
    Ok(MessageEntry { key, message })
}
