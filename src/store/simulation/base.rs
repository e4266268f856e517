//! [`SimBase`]: the base of a simulated store. It gives up its turn before everything that it does, so that others come between,
//! and can be told to fail.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use crate::backends::{Backend, BackendError, BackendFuture, Changes, MemoryBackend, Usage};
use crate::types::{Page, Position, Slice, Stamp, VersionPage};

/// Clones share one state.
#[derive(Clone, Debug, Default)]
pub(super) struct SimBase {
    pub base: MemoryBackend,
    fails: Arc<AtomicBool>,
}

/// Lets others have a turn.
pub(super) async fn pause() {
    let mut paused = false;
    poll_fn(|_| if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl SimBase {
    pub fn fork(&self) -> SimBase {
        SimBase { base: self.base.fork(), fails: Arc::default() }
    }

    /// Whether writes fail from now on.
    pub fn set_fails(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    async fn turn(&self) -> Result<(), BackendError> {
        pause().await;
        match self.fails.load(Ordering::Relaxed) {
            true => Err(BackendError::Unavailable { place: "the base".into(), detail: "it is full".into() }),
            false => Ok(()),
        }
    }
}

impl Backend for SimBase {
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
        self.base.stamp()
    }

    fn write<'a>(&'a self, stamp: &'a Stamp, keep: &'a [Position], changes: Changes<'a>) -> BackendFuture<'a, ()> {
        Box::pin(async move {
            self.turn().await?;
            self.base.write(stamp, keep, changes).await
        })
    }

    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
        Box::pin(async move {
            pause().await;
            self.base.get(at, key).await
        })
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(async move {
            let page = self.base.scan(at, from, to, limit).await;
            pause().await;
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
        Box::pin(async move {
            self.turn().await?;
            self.base.maintain(at, keep).await
        })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        Box::pin(async move {
            self.turn().await?;
            self.base.clear().await
        })
    }

    fn usage(&self) -> Usage {
        self.base.usage()
    }
}
