//! [`Gate`]: a base for tests that waits and fails when it is told to; and [`trim`], without a state behind it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use super::engine::Shared;
use crate::backends::{Backend, BackendError, BackendFuture, Changes, MemoryBackend, Usage};
use crate::env::sim::SimWorld;
use crate::log::Snapshot;
use crate::types::{Digest, Page, Position, Slice, Stamp, VersionPage};

/// A base that can be made to wait behind a page that it has read, and to fail after so many writes.
#[derive(Debug)]
pub(super) struct Gate {
    pub base: MemoryBackend,
    /// The next scan gives its page only at the second poll.
    pub waits: AtomicBool,
    /// The next write begins only at the second poll.
    pub write_waits: AtomicBool,
    pub writes_left: AtomicUsize,
    /// Each piece of maintenance says that there is more.
    pub always_more: AtomicBool,
    pub pieces: AtomicUsize,
}

impl Backend for Gate {
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
        self.base.stamp()
    }

    fn write<'a>(&'a self, stamp: &'a Stamp, keep: &'a [Position], changes: Changes<'a>) -> BackendFuture<'a, ()> {
        if self.writes_left.load(Ordering::Relaxed) == 0 {
            let full = BackendError::Unavailable { place: "the base".into(), detail: "it is full".into() };
            return Box::pin(async { Err(full) });
        }
        self.writes_left.fetch_sub(1, Ordering::Relaxed);
        Box::pin(async move {
            let waits = || self.write_waits.swap(false, Ordering::Relaxed);
            poll_fn(|_| if waits() { Poll::Pending } else { Poll::Ready(()) }).await;
            self.base.write(stamp, keep, changes).await
        })
    }

    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
        self.base.get(at, key)
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(async move {
            let page = self.base.scan(at, from, to, limit).await;
            poll_fn(|_| if self.waits.swap(false, Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(()) }).await;
            page
        })
    }

    fn versions<'a>(
        &'a self,
        from: &'a [u8],
        below: Position,
        to: &'a [u8],
        limit: usize,
    ) -> BackendFuture<'a, VersionPage> {
        self.base.versions(from, below, to, limit)
    }

    fn maintain<'a>(&'a self, at: Position, keep: &'a [Position]) -> BackendFuture<'a, bool> {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let more = self.base.maintain(at, keep).await?;
            Ok(more || self.always_more.load(Ordering::Relaxed))
        })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        self.base.clear()
    }

    fn usage(&self) -> Usage {
        self.base.usage()
    }
}

impl Gate {
    /// A gate that stands open before a base.
    pub fn new(base: MemoryBackend) -> Gate {
        let (waits, write_waits, always_more) = (false.into(), false.into(), false.into());
        let (writes_left, pieces) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        Gate { base, waits, write_waits, writes_left, always_more, pieces }
    }
}

/// Trims the log of the store in `/store` to a floor that a snapshot stands for which nobody will read.
pub(super) fn trim(world: &SimWorld, shared: &Shared, floor: Position) {
    let head = shared.log.head_at(floor).unwrap();
    let snapshot = Snapshot { head, bytes: 5, digest: Digest::of_bytes(b"state") };
    world.fs.plant(&snapshot.path("/store/log".as_ref()), b"state".to_vec());
    shared.log.trim(snapshot, floor).unwrap();
}
