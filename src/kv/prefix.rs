//! [`PrefixIterator`]: the entries whose keys begin with a prefix, and how lakeFS joins keys.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;

use super::{Entries, KeyValue, KvError, KvScan};
use crate::types::Entry;

/// Joins the parts of a key with `/`, without escapes or checks.
pub fn format_path<S: AsRef<str>>(parts: &[S]) -> String {
    parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/")
}

/// The entries of a partition whose keys begin with `prefix` and are not below `after`: a full key, inclusive
/// here (see [`StartAt`](super::StartAt) for leaving it out).
pub async fn scan_prefix(
    store: &dyn KeyValue,
    partition: &[u8],
    prefix: &[u8],
    after: &[u8],
) -> Result<PrefixIterator, KvError> {
    let entries = store.scan(partition, KvScan::from(prefix.max(after))).await?;
    Ok(PrefixIterator::new(entries, prefix))
}

/// Entries up to the first key without the prefix, where it stops for good.
pub struct PrefixIterator {
    entries: Box<dyn Entries>,
    prefix: Vec<u8>,
    stopped: bool,
}

impl PrefixIterator {
    /// Stops other entries at the end of the prefix. They must already be positioned in it.
    pub fn new(entries: Box<dyn Entries>, prefix: &[u8]) -> PrefixIterator {
        PrefixIterator { entries, prefix: prefix.to_vec(), stopped: false }
    }
}

impl Stream for PrefixIterator {
    type Item = Result<Entry, KvError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.stopped {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut this.entries).poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(entry))) if !entry.key().starts_with(&this.prefix) => {
                this.stopped = true;
                Poll::Ready(None)
            }
            _ => polled,
        }
    }
}

impl Entries for PrefixIterator {
    /// As everywhere, and not clamped to the prefix: after a seek below it the next entry found
    /// there ends the iteration at once.
    fn seek_ge(&mut self, key: &[u8]) -> Result<(), KvError> {
        self.entries.seek_ge(key)?;
        self.stopped = false;
        Ok(())
    }

    fn close(&mut self) {
        self.stopped = false;
        self.entries.close();
    }
}
