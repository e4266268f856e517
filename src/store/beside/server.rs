//! The side of the process that has the store open: a listener, and a task for each connection.
//!
//! Holds the store only while a request is answered, and a pinned position between requests; so neither keeps a store
//! open that its owners have let go. Whoever asks slowly waits for nobody but himself.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::wire::{
    Answer, Hello, PROTOCOL, REQUEST_BYTES_MAX, Request, Text, WireEntry, WireOrigin, WireStats, WireVersion, broken,
    receive, send,
};
use crate::env::SocketFile;
use crate::store::diff::DiffOptions;
use crate::store::engine::{Shared, closed};
use crate::store::facade::Store;
use crate::store::history::Version;
use crate::store::reader::Reader;
use crate::store::threads::Threads;
use crate::types::{At, Entry, Error, ErrorKind, Result};

/// The socket in the store's directory.
pub(super) const SOCKET_FILE: &str = "read.sock";
/// Connections served at a time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// A connection that asks nothing for so long ends: its position costs what was superseded since.
const IDLE: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 64 << 10;

/// What a connection needs of the store; keeps nothing of it.
#[derive(Clone)]
struct Served {
    shared: Weak<Shared>,
    threads: Weak<Threads>,
    /// How long who asks nothing, or takes no answer, is waited for.
    idle: Duration,
}

impl Served {
    fn store(&self) -> Result<Store> {
        let parts = self.shared.upgrade().zip(self.threads.upgrade());
        parts.map(|(shared, threads)| Store::from_parts(shared, threads)).ok_or_else(closed)
    }
}

/// Listens in the store's directory until the store ends. Gives the socket's file: it goes before the directory is unlocked.
///
/// A socket that is there already was left by a killed process: the directory's lock is held.
///
/// Errors: where the file system has no sockets, or `dir` is not there.
pub(in crate::store) fn listen(
    dir: &Path,
    shared: &Arc<Shared>,
    threads: &Arc<Threads>,
    runtime: &Handle,
) -> io::Result<SocketFile> {
    let (file, listener) = SocketFile::listen(dir, SOCKET_FILE)?;
    let served = Served { shared: Arc::downgrade(shared), threads: Arc::downgrade(threads), idle: IDLE };
    let mut ended = shared.ended.subscribe();
    let entered = runtime.enter();
    // It panics on a runtime without I/O, and says so in no other way.
    let listener = std::panic::catch_unwind(AssertUnwindSafe(|| UnixListener::from_std(listener)))
        .map_err(|_| io::Error::new(io::ErrorKind::Unsupported, "the tokio runtime was built without I/O"))??;
    drop(entered);
    runtime.spawn(async move {
        tokio::select! {
            () = accept(listener, served) => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
    });
    Ok(file)
}

async fn accept(listener: UnixListener, served: Served) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, for example: it passes.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(mut ended) = served.shared.upgrade().map(|shared| shared.ended.subscribe()) else { return };
        let served = served.clone();
        tokio::spawn(async move {
            let done = tokio::select! {
                done = serve(stream, served) => done,
                _ = ended.wait_for(|ended| *ended) => Ok(()),
            };
            if let Err(error) = done {
                tracing::debug!(error = %error.report(), "a connection ended");
            }
            drop(place);
        });
    }
}

impl Served {
    /// Sends an answer; who does not take it for so long does not want it.
    async fn tell(&self, to: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> Result<()> {
        tokio::time::timeout(self.idle, send(to, answer)).await.unwrap_or_else(|_| Err(stalled()))
    }

    async fn flush(&self, to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        let flushed = tokio::time::timeout(self.idle, to.flush()).await;
        flushed.map_or_else(|_| Err(stalled()), |flushed| flushed.map_err(broken))
    }
}

fn stalled() -> Error {
    Error::new(ErrorKind::Closed, "a reader beside the store takes no answers")
}

async fn serve(stream: UnixStream, served: Served) -> Result<()> {
    let (read, write) = stream.into_split();
    let (mut from, mut to) = (BufReader::new(read), BufWriter::with_capacity(BUFFER_BYTES, write));
    let reader = match greet(&mut from, &served).await {
        Ok(Some(reader)) => reader,
        Ok(None) => return Ok(()),
        Err(error) => {
            served.tell(&mut to, &Answer::from(&error)).await?;
            return served.flush(&mut to).await;
        }
    };
    let hello = Answer::Hello {
        protocol: PROTOCOL,
        log_id: reader.shared().log.id().to_string(),
        position: reader.position().0,
    };
    served.tell(&mut to, &hello).await?;
    served.flush(&mut to).await?;
    while let Ok(request) = tokio::time::timeout(served.idle, receive(&mut from, REQUEST_BYTES_MAX)).await {
        let answered = match request {
            Ok(None) => return Ok(()),
            Ok(Some(request)) => answer(request, &reader, &served, &mut to).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            served.tell(&mut to, &Answer::from(&error)).await?;
        }
        served.flush(&mut to).await?;
    }
    Ok(())
}

/// The reader that the connection asks for; `None` when it went away.
async fn greet(from: &mut (impl tokio::io::AsyncBufRead + Unpin), served: &Served) -> Result<Option<Reader>> {
    let hello = tokio::time::timeout(served.idle, receive::<Hello>(from, REQUEST_BYTES_MAX)).await;
    let Ok(Some(hello)) = hello.unwrap_or(Ok(None)) else { return Ok(None) };
    if hello.protocol != PROTOCOL {
        let message = format!(
            "the process that has the store open is of another version, protocol=`{PROTOCOL}` asked=`{}`",
            hello.protocol
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let store = served.store()?;
    match hello.at {
        Some(at) => store.at(at.parse::<At>()?).await.map(Some),
        None => Ok(Some(store.reader())),
    }
}

async fn answer(request: Request, reader: &Reader, served: &Served, to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    match request {
        Request::Get { partition, key } => {
            let entry = reader.get(&partition.0, &key.0).await?;
            return served.tell(to, &Answer::Entry(entry.as_ref().map(WireEntry::from))).await;
        }
        Request::Stats => {
            let stats = served.store()?.stats().await?;
            let partitions = stats.partitions.iter().map(|(name, count)| (hex(name), *count)).collect();
            let stats = WireStats {
                head: stats.head.0,
                synced: stats.synced.0,
                floor: stats.floor.0,
                checkpoint: stats.checkpoint.0,
                partitions,
                memory_bytes: stats.memory_bytes,
                base_bytes: stats.base_bytes,
            };
            return served.tell(to, &Answer::Stats(stats)).await;
        }
        Request::Scan { from, to: end, limit } => {
            let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            let mut entries = reader.scan_encoded(&from.0, end.0, limit);
            while let Some(entry) = entries.next().await {
                served.tell(to, &Answer::Entry(Some(WireEntry::from(&entry?)))).await?;
            }
        }
        Request::History { from, to: end } => {
            let mut versions = reader.history_encoded(&from.0, end.0);
            while let Some(version) = versions.next().await {
                served.tell(to, &Answer::Version(wire_version(&version?))).await?;
            }
        }
        Request::Diff { a, b, scope } => {
            let store = served.store()?;
            let options = match &scope {
                Some((partition, prefix)) => DiffOptions::new().prefix(&partition.0, &prefix.0),
                None => DiffOptions::new(),
            };
            let differences = store.diff(a.parse::<At>()?, b.parse::<At>()?, options).await;
            drop(store);
            let mut differences = differences?;
            while let Some(difference) = differences.next().await {
                let difference = difference?;
                let side =
                    |entry: &Option<Entry>| entry.as_ref().map(|entry| (entry.version.0, Text::from(&entry.value)));
                let key = Text::from(&difference.encoded_key);
                let (old, new) = (side(&difference.old), side(&difference.new));
                served.tell(to, &Answer::Difference { key, old, new }).await?;
            }
        }
    }
    served.tell(to, &Answer::End).await
}

fn wire_version(version: &Version) -> WireVersion {
    WireVersion {
        key: Text::from(&version.encoded_key),
        position: version.position.0,
        value: version.value.as_ref().map(Text::from),
        redacted: version.redacted,
        origin: version.origin.as_ref().map(|origin| WireOrigin {
            time: origin.time.0,
            actor: origin.actor.clone(),
            reason: origin.reason.clone(),
            request_id: origin.request_id.clone(),
        }),
    }
}

/// A partition as the name of a JSON member.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::store::{Batch, Context};

    /// What was sent lies where the operating system keeps it; then nothing more goes, and the connection ends with its pin.
    #[tokio::test]
    async fn a_client_that_takes_no_answers_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::builder(dir.path().join("s")).create().await.unwrap();
        let filled = (0..400u32).fold(Batch::new(), |batch, n| batch.set(b"p", &n.to_be_bytes(), &[7; 20_000]));
        store.write(Context::new("test"), filled).await.unwrap();
        let (mut client, server) = UnixStream::pair().unwrap();
        let hello = Hello { protocol: PROTOCOL, at: None };
        let scan = Request::Scan { from: Text(Vec::new()), to: Text(Vec::new()), limit: None };
        send(&mut client, &hello).await.unwrap();
        send(&mut client, &scan).await.unwrap();
        let (shared, threads) = (Arc::downgrade(store.shared()), Arc::downgrade(store.threads()));
        // What is asked lies there already, and nothing is ever taken: the outcome does not depend on how long is waited.
        let served = Served { shared, threads, idle: Duration::from_millis(20) };
        let error = serve(server, served).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).await.unwrap();
        assert!(answers.starts_with(b"{\"hello\"") && !answers.ends_with(b"\"end\"\n"));
        assert!(answers.len() < 4_000_000, "{}", answers.len());
        store.close().await.unwrap();
    }
}
