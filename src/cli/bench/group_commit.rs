//! The bare loops that durable writes are measured against: nothing but what durability itself asks for.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::bed::{io, panicked};
use super::sample::{Noise, VALUE_BYTES, pair};
use crate::types::{Error, ErrorKind, Result};

/// Length and checksum before each record.
const HEADER_BYTES: usize = 8;
/// As many as the store's own queue holds.
const QUEUE_RECORDS: usize = 4096;
const BATCH_RECORDS_MAX: usize = 8192;
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// A file of zeros, on disk, that is written round and round.
pub(super) struct Ring {
    file: File,
    bytes: u64,
    at: u64,
}

impl Ring {
    /// Makes the file.
    pub fn create(path: &Path, bytes: u64) -> Result<Ring> {
        let fill = || {
            let file = OpenOptions::new().write(true).create_new(true).open(path)?;
            for at in (0..bytes).step_by(ZEROS.len()) {
                file.write_all_at(&ZEROS, at)?;
            }
            file.sync_all()?;
            Ok(file)
        };
        Ok(Ring { file: fill().map_err(io("make a file", path))?, bytes, at: 0 })
    }

    /// Writes and makes it durable.
    pub fn write(&mut self, buffer: &[u8]) -> Result<()> {
        if self.at + buffer.len() as u64 > self.bytes {
            self.at = 0;
        }
        let written = self.file.write_all_at(buffer, self.at).and_then(|()| self.file.sync_data());
        self.at += buffer.len() as u64;
        written.map_err(|error| Error::new(ErrorKind::Unavailable, "a bare write failed").with_source(error))
    }
}

/// What a client sends.
struct Record {
    body: Vec<u8>,
    kept: Option<Kept>,
    done: oneshot::Sender<()>,
}

/// What the log's chain and the view ask for.
struct Kept {
    digest: [u8; 32],
    key: Arc<[u8]>,
    value: Arc<[u8]>,
}

/// Group commit as bare as it gets: tasks send records through a bounded queue to one thread, which writes
/// whatever has come with one write and one sync, and wakes each client. With `kept` also a digest and a chain hash of each
/// record, and a place in an ordered map.
pub(super) struct GroupCommit {
    queue: Option<mpsc::Sender<Record>>,
    kept: bool,
    noise: Noise,
    writer: Option<JoinHandle<Result<()>>>,
}

impl GroupCommit {
    /// Starts the writer thread.
    pub fn start(ring: Ring, kept: bool, noise: Noise) -> GroupCommit {
        let (queue, records) = mpsc::channel(QUEUE_RECORDS);
        let writer = std::thread::spawn(move || write(ring, records));
        GroupCommit { queue: Some(queue), kept, noise, writer: Some(writer) }
    }

    /// A client of it.
    pub fn client(&self) -> impl Fn(u64) -> Writing + Clone + Send + use<> {
        let (queue, kept, noise) = (self.queue.clone(), self.kept, self.noise.clone());
        move |i| {
            let body = noise.record(i).to_vec();
            let kept = kept.then(|| Kept {
                digest: Sha256::digest(&body).into(),
                key: Arc::from(&pair(i)[..]),
                value: Arc::from(&body[..VALUE_BYTES]),
            });
            let queue = queue.clone();
            Box::pin(async move {
                let (done, answer) = oneshot::channel();
                let gone = || Error::new(ErrorKind::Closed, "the bare loop ended");
                queue.ok_or_else(gone)?.send(Record { body, kept, done }).await.map_err(|_| gone())?;
                answer.await.map_err(|_| gone())
            })
        }
    }

    /// Ends the thread; its clients are gone.
    pub fn finish(mut self) -> Result<()> {
        self.queue = None;
        self.writer.take().map_or(Ok(()), |writer| writer.join().map_err(|_| panicked())?)
    }
}

/// One write on its way.
pub(super) type Writing = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

fn write(mut ring: Ring, mut records: mpsc::Receiver<Record>) -> Result<()> {
    let (mut batch, mut buffer) = (Vec::new(), Vec::new());
    let (mut chain, mut view) = ([0; 32], BTreeMap::new());
    while records.blocking_recv_many(&mut batch, BATCH_RECORDS_MAX) > 0 {
        buffer.clear();
        for record in &mut batch {
            let body = &record.body;
            buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
            buffer.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
            buffer.extend_from_slice(body);
            if let Some(Kept { digest, key, value }) = record.kept.take() {
                chain = Sha256::new().chain_update(chain).chain_update(digest).finalize().into();
                view.insert(key, value);
            }
        }
        debug_assert!(buffer.len() >= batch.len() * HEADER_BYTES);
        ring.write(&buffer)?;
        for record in batch.drain(..) {
            // A client that went away does not matter.
            let _ = record.done.send(());
        }
    }
    std::hint::black_box((chain, view.len()));
    Ok(())
}
