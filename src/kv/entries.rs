//! [`Entries`]: what a scan gives, and [`KvScan`]: what it is asked.

use tokio_stream::Stream;

use super::KvError;
use crate::types::Entry;

/// Where a scan begins and how it fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvScan<'a> {
    /// The first key to give (inclusive; it need not exist). Empty: from the first of the partition.
    pub key_start: &'a [u8],
    /// Entries fetched at a time: a hint that never changes the result. 0 is the implementation's default.
    pub batch_size: usize,
}

impl<'a> KvScan<'a> {
    /// The largest batch size. One of lakeFS's drivers has this limit; here it is everybody's, so that
    /// what works on one implementation works on all.
    pub const BATCH_SIZE_MAX: usize = i32::MAX as usize;

    /// A scan from this key on.
    pub fn from(key_start: &'a [u8]) -> KvScan<'a> {
        KvScan { key_start, batch_size: 0 }
    }
}

/// Entries of one partition in key order.
///
/// As a stream it gives an error once and is then at its end, so that it never goes on behind
/// something that it could not read. [`Entries::seek_ge`] makes it usable again. Dropping it closes it.
pub trait Entries: Stream<Item = Result<Entry, KvError>> + Send + Unpin {
    /// Goes to the first entry whose key is not below `key`, forwards or backwards, also after the end or an error;
    /// the next item is that entry. No I/O. [`KvError::ClosedEntries`] after [`Entries::close`].
    fn seek_ge(&mut self, key: &[u8]) -> Result<(), KvError>;

    /// Lets go of what the scan holds. The next item is [`KvError::ClosedEntries`], then the stream
    /// is at its end. Closing again does nothing.
    fn close(&mut self);
}
