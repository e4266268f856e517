//! [`PrimaryIterator`]: the messages under a prefix.

use prost::Message;

use super::message::MessageEntries;
use super::{KeyValue, KvError, MessageEntry, scan_prefix};

/// Where an iterator begins. A full key, not one relative to the prefix; it need not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt<'a> {
    /// At the first key of the prefix.
    #[default]
    First,
    /// At this key.
    From(&'a [u8]),
    /// Behind this key.
    After(&'a [u8]),
}

impl<'a> StartAt<'a> {
    fn key(self) -> &'a [u8] {
        match self {
            StartAt::First => b"",
            StartAt::From(key) | StartAt::After(key) => key,
        }
    }
}

/// The entries of a partition whose keys begin with a prefix, decoded.
///
/// A value that does not decode stops it for good, with the same error at every further call.
pub struct PrimaryIterator<M> {
    messages: MessageEntries<M>,
    /// The key to leave out should it come first.
    skip: Option<Vec<u8>>,
}

impl<M: Message + Default> PrimaryIterator<M> {
    /// Scans at once: the entries are those of this moment.
    pub async fn open(
        store: &dyn KeyValue,
        partition: &[u8],
        prefix: &[u8],
        start: StartAt<'_>,
    ) -> Result<PrimaryIterator<M>, KvError> {
        let entries = scan_prefix(store, partition, prefix, start.key()).await?;
        let skip = if let StartAt::After(key) = start { Some(key.to_vec()) } else { None };
        Ok(PrimaryIterator { messages: MessageEntries::new(Box::new(entries)), skip })
    }

    /// The next entry; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<MessageEntry<M>>, KvError> {
        let next = self.messages.next().await?;
        // Forgotten only once an entry came: a call that was dropped half-way took none.
        match (self.skip.take(), &next) {
            (Some(skip), Some(entry)) if entry.key[..] == skip[..] => self.messages.next().await,
            _ => Ok(next),
        }
    }

    /// Closes the scan; further calls are [`KvError::ClosedEntries`].
    pub fn close(&mut self) {
        self.messages.close();
    }
}
