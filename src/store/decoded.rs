//! [`Decoded`]: transactions of the log as plain data, decoded and gathered into runs ahead of whoever applies them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::event::{Event, Transaction};
use crate::log::{Frame, Log, LogError};
use crate::projection::{IndexSet, Run, WriteSet, project_events, project_request};
use crate::types::{Error, ErrorKind, Position, Result, Timestamp};

/// Above so many transactions a thread of its own decodes ahead.
const AHEAD_MIN: u64 = 10_000;
/// Bytes in memory after which a run ends. The more writes come at once, the more fall into the same leaf of the memtable.
const RUN_BYTES_MAX: usize = 16 << 20;
/// Steps that wait to be applied, at most.
const STEPS_AHEAD: usize = 2;

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
        Ok(Decoded::of(position, time, payload_bytes, decode(position, payload)?))
    }

    fn of(position: Position, time: Timestamp, payload_bytes: usize, transaction: Transaction) -> Decoded {
        let restores = transaction.events.iter().any(|event| matches!(event, Event::RestoreRange { .. }));
        let set = (!restores).then(|| project_events(&transaction.events, Vec::new()));
        Decoded { position, payload_bytes, time, transaction, set }
    }
}

/// What is applied next.
pub(crate) enum Step {
    /// Transactions that write keys which no index covers, and nothing else: what they write follows from each of them alone.
    Run(DecodedRun),
    /// Any other one.
    One(Decoded),
}

/// The writes of such transactions.
#[derive(Default)]
pub(crate) struct DecodedRun {
    pub last: Position,
    pub payload_bytes: usize,
    pub run: Run,
}

/// The transactions above a position, in order, decoded. A run that is applied adds little more than `run_bytes` to memory, as
/// does each of the few that wait.
///
/// Errors, from the iterator too: those of the log; as [`Decoded::new`].
pub(crate) fn decoded_above<'a>(
    log: &'a Arc<dyn Log>,
    indexes: &'a IndexSet,
    from: Position,
    run_bytes: usize,
) -> Result<Box<dyn Iterator<Item = Result<Step>> + 'a>> {
    let run_bytes = run_bytes.min(RUN_BYTES_MAX);
    if log.head().position.0.saturating_sub(from.0) < AHEAD_MIN {
        return Ok(Box::new(Steps::new(log.read(from.next())?, indexes, run_bytes)));
    }
    Ok(Box::new(Ahead::start(log.clone(), indexes.clone(), from, run_bytes)?))
}

/// Gathers transactions into runs.
struct Steps<'a, F> {
    frames: F,
    indexes: &'a IndexSet,
    run_bytes: usize,
    /// What met the end of a run.
    next: Option<Result<Step>>,
}

impl<'a, F: Iterator<Item = std::result::Result<Frame, LogError>>> Steps<'a, F> {
    fn new(frames: F, indexes: &'a IndexSet, run_bytes: usize) -> Steps<'a, F> {
        Steps { frames, indexes, run_bytes, next: None }
    }

    /// Adds a transaction to a run; it comes back when none takes it.
    fn push(&self, run: &mut DecodedRun, frame: Frame) -> Result<Option<Decoded>> {
        let Frame { position, time, payload, .. } = frame;
        let payload_bytes = payload.len();
        let transaction = decode(position, payload)?;
        let takes = |key: &[u8]| !self.indexes.covers(key);
        let plain = transaction.request.is_none() && run.run.push_events(position, &transaction.events, takes);
        if !plain {
            let mut decoded = Decoded::of(position, time, payload_bytes, transaction);
            if !self.push_set(run, &mut decoded) {
                return Ok(Some(decoded));
            }
        }
        run.last = position;
        run.payload_bytes += payload_bytes;
        Ok(None)
    }

    /// The same of what it writes beside sets and deletes.
    fn push_set(&self, run: &mut DecodedRun, decoded: &mut Decoded) -> bool {
        let Decoded { position, time, transaction, set: Some(set), .. } = decoded else { return false };
        if set.writes.iter().any(|write| self.indexes.covers(&write.key)) {
            return false;
        }
        let known = set.writes.len();
        if let Some(request) = &transaction.request {
            project_request(*time, request, set);
        }
        let pushed = run.run.push(*position, set);
        set.writes.truncate(known);
        pushed
    }
}

impl<F: Iterator<Item = std::result::Result<Frame, LogError>>> Iterator for Steps<'_, F> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        let mut run = DecodedRun::default();
        while let Some(frame) = self.frames.next() {
            let pushed = frame.map_err(Error::from).and_then(|frame| self.push(&mut run, frame));
            let met = pushed.map(|decoded| decoded.map(Step::One)).transpose();
            if met.is_some() {
                self.next = met;
                break;
            }
            if run.run.bytes() >= self.run_bytes {
                break;
            }
        }
        // A transaction that writes nothing is one that is reached all the same.
        if run.last == Position::ZERO { self.next.take() } else { Some(Ok(Step::Run(run))) }
    }
}

/// What a thread reads and decodes while others are applied. The thread ends with it.
struct Ahead {
    steps: Option<Receiver<Result<Step>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    fn start(log: Arc<dyn Log>, indexes: IndexSet, from: Position, run_bytes: usize) -> Result<Ahead> {
        let (sender, steps) = sync_channel(STEPS_AHEAD);
        let thread = std::thread::Builder::new().name("lakelog-replay".to_owned());
        let thread = thread.spawn(move || match log.read(from.next()) {
            // Nobody left to tell is no reason to complain.
            Err(error) => drop(sender.send(Err(error.into()))),
            Ok(frames) => {
                let mut steps = Steps::new(frames, &indexes, run_bytes);
                while steps.next().is_some_and(|step| sender.send(step).is_ok()) {}
            }
        });
        let failed = |error| Error::new(ErrorKind::Unavailable, "cannot start a thread").with_source(error);
        Ok(Ahead { steps: Some(steps), thread: Some(thread.map_err(failed)?) })
    }
}

impl Iterator for Ahead {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        if let Ok(step) = self.steps.as_ref()?.recv() {
            return Some(step);
        }
        self.steps = None;
        let panicked = self.thread.take()?.join().is_err();
        panicked.then(|| Err(Error::new(ErrorKind::Internal, "the thread that decodes the log panicked")))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // It ends with the step that it is at; until then it holds the log.
        self.steps = None;
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

    /// Some transactions are of kinds that no run takes.
    #[tokio::test]
    async fn ahead_gives_what_reading_gives_and_may_be_left() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { durability: Durability::None, segment_bytes: 64 << 10, ..Settings::default() };
        let builder = Store::builder(dir.path().join("store")).settings(settings);
        let store = builder.with_backend(Arc::new(MemoryBackend::new())).create().await.unwrap();
        for i in 0..600 {
            let batch = match i % 100 {
                0 => Batch::new().delete_range(b"p", format!("{i}").as_bytes()),
                1 => Batch::new().set(b"p", format!("{i}").as_bytes(), &[0; 2000]),
                _ => Batch::new().set(b"p", format!("{i}").as_bytes(), b"v"),
            };
            store.write(Context::new("test"), batch).await.unwrap();
        }
        // Nothing is written by some of the store's own, and they are reached all the same.
        store.write(Context::new("test"), Batch::new().delete_range(b"p", b"")).await.unwrap();
        let head = store.append(&Context::new("test"), Vec::new()).await.unwrap();
        store.sync().await.unwrap();
        let shared = store.shared();
        let shown = |step: Result<Step>| match step.unwrap() {
            Step::Run(DecodedRun { last, payload_bytes, run }) => format!("{last} {payload_bytes} {run:?}"),
            Step::One(Decoded { position, payload_bytes, time, set, .. }) => {
                format!("{position} {payload_bytes} {time} {set:?}")
            }
        };
        let run_bytes = 2000;
        let above = |from| decoded_above(&shared.log, &shared.indexes, from, run_bytes).unwrap().map(shown);
        let ahead = |from| Ahead::start(shared.log.clone(), shared.indexes.clone(), from, run_bytes).unwrap();
        let read: Vec<String> = above(Position(3)).collect();
        assert_eq!(read.iter().filter(|step| step.contains("ranges")).count(), 11, "range deletes and large values");
        assert!(read.last().unwrap().starts_with(&format!("{head} ")));
        assert!(read.len() > 20 && read.len() < 200, "{}", read.len());
        assert_eq!(ahead(Position(3)).map(shown).collect::<Vec<_>>(), read);
        let mut left = ahead(Position(3));
        assert_eq!(left.next().map(shown).as_ref(), read.first());
        drop(left);
        let behind = shared.log.head().position.next();
        assert!(ahead(behind).next().is_some_and(|end| end.is_err()));
        store.close().await.unwrap();
    }
}
