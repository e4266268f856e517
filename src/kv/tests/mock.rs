//! The partition iterator over a store whose scans are watched.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio_stream::Stream;

use crate::kv::*;
use crate::types::{Entry, Error, ErrorKind, Key, Position};

/// What a [`Mock`] saw.
#[derive(Default)]
struct Seen {
    scans: AtomicUsize,
    closes: AtomicUsize,
}

/// A store whose scans count how they are used, or fail.
struct Mock {
    seen: Arc<Seen>,
    fails: bool,
}

struct MockEntries(Arc<Seen>);

impl Stream for MockEntries {
    type Item = Result<Entry, KvError>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (encoded_key, value) = (Key::new(b"p", b"k").into(), b"\xff"[..].into());
        Poll::Ready(Some(Ok(Entry { encoded_key, version: Position(1), value })))
    }
}

impl Entries for MockEntries {
    fn seek_ge(&mut self, _: &[u8]) -> Result<(), KvError> {
        Ok(())
    }

    fn close(&mut self) {
        self.0.closes.fetch_add(1, Ordering::Relaxed);
    }
}

impl KeyValue for Mock {
    fn get<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, KvValue> {
        Box::pin(async move { Err(KvError::not_found(partition, key)) })
    }

    fn set<'a>(&'a self, _: &'a [u8], _: &'a [u8], _: Option<&'a [u8]>) -> KvFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn set_if<'a>(&'a self, _: &'a [u8], _: &'a [u8], _: Option<&'a [u8]>, _: &'a KvPredicate) -> KvFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn delete<'a>(&'a self, _: &'a [u8], _: &'a [u8]) -> KvFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn scan<'a>(&'a self, _: &'a [u8], _: KvScan<'a>) -> KvFuture<'a, Box<dyn Entries>> {
        Box::pin(async move {
            self.seen.scans.fetch_add(1, Ordering::Relaxed);
            if self.fails {
                return Err(Error::new(ErrorKind::Unavailable, "try later").into());
            }
            Ok(Box::new(MockEntries(self.seen.clone())) as Box<dyn Entries>)
        })
    }

    fn close(&self) -> KvFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_partition_iterator_closes_its_scan_once() {
    let seen = Arc::new(Seen::default());
    let mock = Mock { seen: seen.clone(), fails: false };
    let mut entries = PartitionIterator::<SecondaryIndex>::new(&mock, b"p", 0);
    entries.seek_ge(b"b").await.unwrap();
    entries.close();
    entries.close();
    drop(entries);
    assert_eq!((seen.scans.load(Ordering::Relaxed), seen.closes.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn a_partition_iterator_without_a_scan_closes_nothing() {
    let seen = Arc::new(Seen::default());
    // A Rust scan gives either an iterator or an error, so an error leaves nothing to close.
    let mock = Mock { seen: seen.clone(), fails: true };
    let mut entries = PartitionIterator::<SecondaryIndex>::new(&mock, b"p", 0);
    for _ in 0..2 {
        assert!(matches!(entries.seek_ge(b"b").await, Err(KvError::SlowDown { .. })));
    }
    entries.close();
    assert!(matches!(entries.next().await, Err(KvError::ClosedEntries)));
    assert_eq!((seen.scans.load(Ordering::Relaxed), seen.closes.load(Ordering::Relaxed)), (2, 0));
    let mut untouched = PartitionIterator::<SecondaryIndex>::new(&mock, b"p", 0);
    untouched.close();
    assert_eq!(seen.closes.load(Ordering::Relaxed), 0);
}
