//! [`Decoded`]: transactions of the log as plain data, decoded ahead of whoever applies them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::event::{Event, Transaction};
use crate::log::{Frame, Log};
use crate::projection::{WriteSet, project_events};
use crate::types::{Error, ErrorKind, Position, Result, Timestamp};

/// Above so many transactions a thread of its own decodes ahead.
const AHEAD_MIN: u64 = 10_000;
/// Transactions and bytes after which the thread hands over what it has.
const BATCH_TRANSACTIONS: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;
/// Batches that wait to be applied, at most.
const BATCHES_AHEAD: usize = 4;

/// A transaction of the log, decoded, with all of its writes that follow from it alone.
pub(crate) struct Decoded {
    pub position: Position,
    pub payload_bytes: usize,
    pub time: Timestamp,
    pub transaction: Transaction,
    /// None when it restores a range: what that brings is read where it is applied.
    pub set: Option<WriteSet>,
}

impl Decoded {
    /// Errors: `corrupt` when it does not decode, `unavailable` when it holds what this version does not know.
    pub fn new(frame: Frame) -> Result<Decoded> {
        let Frame { position, time, payload, .. } = frame;
        let payload_bytes = payload.len();
        let transaction = decode(position, payload)?;
        let restores = transaction.events.iter().any(|event| matches!(event, Event::RestoreRange { .. }));
        let set = (!restores).then(|| project_events(&transaction.events, Vec::new()));
        Ok(Decoded { position, payload_bytes, time, transaction, set })
    }
}

/// The transactions above a position, in order, decoded.
///
/// Errors, from the iterator too: those of the log; as [`Decoded::new`].
pub(crate) fn decoded_above(
    log: &Arc<dyn Log>,
    from: Position,
) -> Result<Box<dyn Iterator<Item = Result<Decoded>> + '_>> {
    if log.head().position.0.saturating_sub(from.0) < AHEAD_MIN {
        return Ok(Box::new(log.read(from.next())?.map(|frame| Decoded::new(frame?))));
    }
    Ok(Box::new(Ahead::start(log.clone(), from)?))
}

/// What a thread reads and decodes while others are applied. The thread ends with it.
struct Ahead {
    batches: Option<Receiver<Vec<Result<Decoded>>>>,
    ready: std::vec::IntoIter<Result<Decoded>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    fn start(log: Arc<dyn Log>, from: Position) -> Result<Ahead> {
        let (sender, batches) = sync_channel(BATCHES_AHEAD);
        let thread = std::thread::Builder::new().name("lakelog-replay".to_owned());
        let thread = thread.spawn(move || {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            match log.read(from.next()) {
                Err(error) => batch.push(Err(error.into())),
                Ok(frames) => {
                    for frame in frames {
                        let decoded = frame.map_err(Error::from).and_then(Decoded::new);
                        bytes += decoded.as_ref().map_or(0, |decoded| decoded.payload_bytes);
                        batch.push(decoded);
                        if batch.len() < BATCH_TRANSACTIONS && bytes < BATCH_BYTES {
                            continue;
                        }
                        bytes = 0;
                        if sender.send(std::mem::take(&mut batch)).is_err() {
                            return;
                        }
                    }
                }
            }
            // Nobody left to tell is no reason to complain.
            let _ = sender.send(batch);
        });
        let failed = |error| Error::new(ErrorKind::Unavailable, "cannot start a thread").with_source(error);
        Ok(Ahead { batches: Some(batches), ready: Vec::new().into_iter(), thread: Some(thread.map_err(failed)?) })
    }
}

impl Iterator for Ahead {
    type Item = Result<Decoded>;

    fn next(&mut self) -> Option<Result<Decoded>> {
        loop {
            if let Some(decoded) = self.ready.next() {
                return Some(decoded);
            }
            match self.batches.as_ref()?.recv() {
                Ok(batch) => self.ready = batch.into_iter(),
                Err(_) => {
                    self.batches = None;
                    let panicked = self.thread.take()?.join().is_err();
                    return panicked
                        .then(|| Err(Error::new(ErrorKind::Internal, "the thread that decodes the log panicked")));
                }
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // It ends at its next batch; until then it holds the log.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a frame's payload says, as far as this version understands it.
///
/// Errors: as [`Decoded::new`].
pub(crate) fn decode(position: Position, payload: Bytes) -> Result<Transaction> {
    let transaction = Transaction::decode(payload).map_err(|error| {
        let message = format!("a transaction does not decode, position=`{position}`; run `lakelog verify`");
        Error::new(ErrorKind::Corrupt, message).with_source(error)
    })?;
    if let Some(event) = transaction.unsupported() {
        let message = format!(
            "the store holds an event of a kind that this version does not know, position=`{position}` kind=`{}` needed=`{}`; use that version of lakelog",
            event.kind,
            event.minimum_reader_version()
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    Ok(transaction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::MemoryBackend;
    use crate::store::{Batch, Context, Durability, Settings, Store};

    #[tokio::test]
    async fn ahead_gives_what_reading_gives_and_may_be_left() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { durability: Durability::None, segment_bytes: 64 << 10, ..Settings::default() };
        let builder = Store::builder(dir.path().join("store")).settings(settings);
        let store = builder.with_backend(Arc::new(MemoryBackend::new())).create().await.unwrap();
        for i in 0..2 * BATCH_TRANSACTIONS + 7 {
            let batch = Batch::new().set(b"p", format!("{i}").as_bytes(), b"v");
            store.write(Context::new("test"), batch).await.unwrap();
        }
        store.sync().await.unwrap();
        let log = &store.shared().log;
        let shown = |decoded: Result<Decoded>| {
            let Decoded { position, payload_bytes, time, set, .. } = decoded.unwrap();
            format!("{position} {payload_bytes} {time} {set:?}")
        };
        let read: Vec<String> = decoded_above(log, Position(3)).unwrap().map(shown).collect();
        assert_eq!(read.len(), 2 * BATCH_TRANSACTIONS + 4);
        let ahead: Vec<String> = Ahead::start(log.clone(), Position(3)).unwrap().map(shown).collect();
        assert_eq!(ahead, read);
        let mut left = Ahead::start(log.clone(), Position(3)).unwrap();
        assert_eq!(left.next().map(shown).as_ref(), read.first());
        drop(left);
        assert!(Ahead::start(log.clone(), log.head().position.next()).unwrap().next().is_some_and(|end| end.is_err()));
        store.close().await.unwrap();
    }
}
