//! [`Observed`]: a backend that says how long another one takes, through the `metrics` facade.

use std::future::Future;
use std::time::Instant;

use super::{Backend, BackendError, BackendFuture, Changes, Usage};
use crate::types::{Page, Position, Slice, Stamp, VersionPage};

/// Wraps a backend. Records `lakelog_base_seconds` (histogram, label `operation`),
/// `lakelog_base_errors_total` (counter, labels `operation` and `kind`) and, after each write and
/// merge, `lakelog_base_disk_bytes` and `lakelog_base_memory_bytes` (gauges).
#[derive(Clone, Debug)]
pub struct Observed<B> {
    inner: B,
}

impl<B: Backend> Observed<B> {
    /// Watches a backend.
    pub fn new(inner: B) -> Observed<B> {
        Observed { inner }
    }

    fn gauge(&self) {
        let usage = self.inner.usage();
        metrics::gauge!("lakelog_base_disk_bytes").set(usage.disk_bytes as f64);
        metrics::gauge!("lakelog_base_memory_bytes").set(usage.memory_bytes as f64);
    }
}

async fn timed<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    let started = Instant::now();
    let result = call.await;
    metrics::histogram!("lakelog_base_seconds", "operation" => operation).record(started.elapsed().as_secs_f64());
    if let Err(error) = &result {
        let kind = error.kind().name();
        metrics::counter!("lakelog_base_errors_total", "operation" => operation, "kind" => kind).increment(1);
    }
    result
}

#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for Observed<B> {
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
        Box::pin(timed("stamp", self.inner.stamp()))
    }

    fn write<'a>(&'a self, stamp: &'a Stamp, keep: &'a [Position], changes: Changes<'a>) -> BackendFuture<'a, ()> {
        Box::pin(async move {
            let written = timed("write", self.inner.write(stamp, keep, changes)).await;
            self.gauge();
            written
        })
    }

    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
        Box::pin(timed("get", self.inner.get(at, key)))
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(timed("scan", self.inner.scan(at, from, to, limit)))
    }

    fn versions<'a>(
        &'a self,
        from: &'a [u8],
        below: Position,
        to: &'a [u8],
        limit: usize,
    ) -> BackendFuture<'a, VersionPage> {
        Box::pin(timed("versions", self.inner.versions(from, below, to, limit)))
    }

    fn maintain<'a>(&'a self, at: Position, keep: &'a [Position]) -> BackendFuture<'a, bool> {
        Box::pin(async move {
            let more = timed("maintain", self.inner.maintain(at, keep)).await;
            self.gauge();
            more
        })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        Box::pin(timed("clear", self.inner.clear()))
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::{MemoryBackend, conformance};

    #[tokio::test]
    async fn conforms() {
        conformance::run_all(&Observed::new(MemoryBackend::new())).await;
    }
}
