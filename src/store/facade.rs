//! [`Store`]: the handle that a server embeds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::batch::Batch;
use super::builder::Builder;
use super::context::Context;
use super::engine::{Room, Shared, beside, closed};
use super::lane::{LaneId, Reads};
use super::prepare::{Prepared, check_readable, room_bytes};
use super::reader::{EntryStream, Reader, ScanOptions};
use super::requests;
use super::submission::{Answered, Command, Refusal, Submission};
use super::threads::Threads;
use super::transaction::{Answer, Attempt, Tx};
use crate::event::Event;
use crate::log::LogError;
use crate::types::{Entry, Error, ErrorKind, Key, LogId, Position, Result, Slice};

/// Lost attempts after which a transaction asks for the exclusive lane.
const LOSSES_BEFORE_LANE: u32 = 3;
/// Between two rounds of chores.
const CHORES_INTERVAL: Duration = Duration::from_secs(60);

/// An open store. Cheap to clone; all clones are the same store.
///
/// Dropping the last handle without [`Store::close`] loses nothing acknowledged: the next open
/// recovers, as after a crash.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// A committed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<T> {
    /// Its position. For a transaction that wrote nothing, the position that it read at.
    pub position: Position,
    /// What the closure returned.
    pub answer: T,
    /// Whether the request id was known, so that nothing was applied and this is the first answer.
    pub repeated: bool,
}

impl Store {
    /// Opens the store in a directory, recovering what a crash left. Needs a tokio runtime.
    ///
    /// Errors: `not_found` when there is none (see [`Builder::create`]), `unavailable` when another
    /// process has it open or it was written by a newer version, `corrupt` when acknowledged
    /// bytes are damaged.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Store> {
        Store::builder(dir).open().await
    }

    /// Settings and components first, then [`Builder::open`], [`Builder::create`] or
    /// [`Builder::open_or_create`].
    pub fn builder(dir: impl AsRef<Path>) -> Builder {
        Builder::new(dir.as_ref())
    }

    pub(crate) fn new(shared: Arc<Shared>, threads: Threads) -> Store {
        Store { shared, threads: Arc::new(threads) }
    }

    /// A further handle.
    pub(super) fn from_parts(shared: Arc<Shared>, threads: Arc<Threads>) -> Store {
        Store { shared, threads }
    }

    pub(super) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The identity of the store's log.
    pub fn log_id(&self) -> LogId {
        self.shared.log.id()
    }

    /// The last transaction that readers see.
    pub fn head(&self) -> Position {
        self.shared.view.pins().published()
    }

    /// The last transaction that is durable. Under durability `sync` the same as [`Store::head`].
    pub fn synced(&self) -> Position {
        *self.shared.log.follow().borrow()
    }

    /// Makes everything acknowledged durable, whatever the durability setting, and returns the
    /// synced position.
    pub async fn sync(&self) -> Result<Position> {
        self.shared.ask(Command::Sync).await?
    }

    /// The newest entry of a key.
    pub async fn get(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        check_readable(partition, key)?;
        let key = Key::new(partition, key);
        let found = self.shared.view.latest(&key).await?;
        Ok(found.map(|(version, value)| Entry { encoded_key: Slice::from(key), version, value }))
    }

    /// Reads at the position of now, however long they take.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Entries in key order at the position of now.
    pub fn scan(&self, options: ScanOptions<'_>) -> Result<EntryStream> {
        self.reader().scan(options)
    }

    /// The keys (in partition `auth`) of the users with this e-mail address, in any case.
    pub async fn users_by_email(&self, email: &str) -> Result<Vec<Vec<u8>>> {
        self.reader().users_by_email(email).await
    }

    /// Applies a batch at one position, or, when one of its predicates fails, not at all (`conflict`).
    pub async fn write(&self, context: Context, batch: Batch) -> Result<Committed<()>> {
        batch.validate()?;
        let blind = batch.ranges.is_empty() && batch.checks.is_empty() && context.request.is_none();
        if blind {
            context.validate()?;
            let position = self.emit(&context, batch.writes).instrument(span(&context)).await?;
            return Ok(Committed { position, answer: (), repeated: false });
        }
        // In a place of its own: every write would otherwise be as large as this one, and be moved about.
        Box::pin(self.write_checked(context, batch)).await
    }

    /// A batch with predicates and writes and nothing else, without a [`Tx`]: nothing that it reads is its own. `None` when something of
    /// what it read was written meanwhile.
    async fn try_write_if(&self, context: &Context, batch: &Batch) -> Result<Option<Position>> {
        context.validate()?;
        let pin = self.shared.view.pins().pin();
        let mut reads = Reads { keys: Vec::with_capacity(batch.checks.len()), ranges: Vec::new() };
        for (key, predicate) in &batch.checks {
            predicate.check(key, self.shared.view.get(key, pin.position()).await?)?;
            reads.keys.push(key.clone());
        }
        let room = self.shared.room(room_bytes(&batch.writes, &[])).await?;
        let prepared = Prepared::new(&self.shared, context, Bytes::new(), &batch.writes, Vec::new())?;
        let (submission, fate) = Submission::new(pin.position(), reads, prepared, None);
        match self.submit(submission, fate, room).await {
            Ok(position) => Ok(Some(position)),
            Err(Refusal::Failed(error)) => Err(error),
            Err(Refusal::Conflict(_)) => Ok(None),
        }
    }

    async fn write_checked(&self, context: Context, batch: Batch) -> Result<Committed<()>> {
        if batch.ranges.is_empty() && !batch.writes.is_empty() && context.request.is_none() {
            let tried = self.try_write_if(&context, &batch).instrument(span(&context)).await?;
            if let Some(position) = tried {
                return Ok(Committed { position, answer: (), repeated: false });
            }
        }
        let batch = Arc::new(batch);
        self.transact(context, move |tx| {
            let batch = batch.clone();
            async move {
                for (key, predicate) in &batch.checks {
                    tx.check_encoded(key, predicate).await?;
                }
                for (partition, prefix) in &batch.ranges {
                    tx.delete_range(partition, prefix).await?;
                }
                for event in &batch.writes {
                    match event {
                        Event::Set { partition, key, value } => tx.set(partition, key, value)?,
                        Event::Delete { partition, key } => tx.delete(partition, key)?,
                        _ => {}
                    }
                }
                Ok(())
            }
        })
        .await
    }

    /// Runs a transaction: strictly serializable, retried by the store until it commits.
    ///
    /// The closure reads and writes through the [`Tx`] and awaits nothing else; it may run several
    /// times and must have no other effect. An error that it returns ends the transaction with
    /// nothing written. With a request id in the context, a repetition gives the remembered answer
    /// without running the closure.
    ///
    /// Dropping the future before it is done may leave the transaction committed or not.
    pub async fn transact<T, F, Fut>(&self, context: Context, closure: F) -> Result<Committed<T>>
    where
        T: Answer,
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let span = span(&context);
        self.run(context, closure).instrument(span).await
    }

    async fn run<T, F, Fut>(&self, context: Context, closure: F) -> Result<Committed<T>>
    where
        T: Answer,
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        context.validate()?;
        let mut lane: Option<LaneTicket> = None;
        let mut losses = 0;
        loop {
            let tx = Tx::new(self.shared.clone());
            if let Some(request) = &context.request
                && let Some((position, remembered)) = requests::recall(&tx, request).await?
            {
                let answer = T::decode(&remembered.answer)
                    .ok_or_else(|| Error::new(ErrorKind::Invalid, "the remembered answer is of another type"))?;
                return Ok(Committed { position, answer, repeated: true });
            }
            let answer = closure(tx.clone()).await?;
            let attempt = tx.finish();
            if attempt.events.is_empty() && context.request.is_none() {
                // Everything was read at one published position: that is where it stands in the order.
                return Ok(Committed { position: attempt.read_at, answer, repeated: false });
            }
            // No trim may pass by what the transaction restores before it is committed: it could not be replayed.
            let kept = self.keep_restored(&attempt.events).await?;
            if kept.is_some() && attempt.read_at.0 < self.shared.redacted_at.load(Ordering::Acquire) {
                // What it read may have been redacted since: it decides again.
                continue;
            }
            let remembered = if context.request.is_some() { Bytes::from(answer.encode()) } else { Bytes::new() };
            let Attempt { read_at, reads, events, restored, pins } = attempt;
            let room = self.shared.room(room_bytes(&events, &restored)).await?;
            let prepared = Prepared::new(&self.shared, &context, remembered, &events, restored)?;
            let (submission, fate) = Submission::new(read_at, reads, prepared, lane.as_ref().map(|lane| lane.id));
            let submitted = self.submit(submission, fate, room).await;
            // Until here the states that it restores had to stay readable.
            drop(pins);
            let reads = match submitted {
                Ok(position) => return Ok(Committed { position, answer, repeated: false }),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Conflict(reads)) => reads,
            };
            losses += 1;
            drop(tx);
            if losses % LOSSES_BEFORE_LANE == 0 {
                // One that was held and lost to time is given back first, and its turn comes again.
                drop(lane.take());
                lane = Some(LaneTicket::reserve(&self.shared, reads).await?);
            }
        }
    }

    /// Appends events that read nothing: never a conflict, except with a checkpoint that moved the
    /// old values of indexed keys away.
    pub(crate) async fn emit(&self, context: &Context, events: Vec<Event>) -> Result<Position> {
        if events.is_empty() {
            return Ok(self.head());
        }
        self.append(context, events).await
    }

    /// The same, also with no events at all.
    pub(crate) async fn append(&self, context: &Context, events: Vec<Event>) -> Result<Position> {
        let bytes = room_bytes(&events, &[]);
        let room = self.shared.room(bytes).await?;
        let done = match self.blind(context, events)? {
            Blind::Ready(submission, fate) => {
                self.shared.submit(submission, fate, room, self.threads.committer()).await
            }
            Blind::Indexed(prepared) => return Box::pin(self.append_indexed(*prepared, room, bytes)).await,
        };
        done.map_err(|refusal| match refusal {
            Refusal::Failed(error) => error,
            Refusal::Conflict(_) => Error::new(ErrorKind::Internal, "a write that read nothing lost"),
        })
    }

    /// Makes what [`Store::append`] sends. Not in a future, which would keep room for it and move it about.
    fn blind(&self, context: &Context, events: Vec<Event>) -> Result<Blind> {
        let prepared = Prepared::new(&self.shared, context, Bytes::new(), &events, Vec::new())?;
        if !prepared.indexed.is_empty() {
            return Ok(Blind::Indexed(Box::new(prepared)));
        }
        let (submission, fate) = Submission::new(Position::ZERO, Reads::default(), prepared, None);
        Ok(Blind::Ready(submission, fate))
    }

    async fn append_indexed(&self, prepared: Prepared, mut room: Room<'_>, bytes: usize) -> Result<Position> {
        loop {
            let pin = self.shared.view.pins().pin();
            let (submission, fate) = Submission::new(pin.position(), Reads::default(), prepared.clone(), None);
            match self.submit(submission, fate, room).await {
                Ok(position) => return Ok(position),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Conflict(_)) => room = self.shared.room(bytes).await?,
            }
        }
    }

    /// Reads what the indexes need of before, and sends a decided transaction to the committer. The position that it read at is
    /// pinned by the caller, and so is what it restores.
    pub(super) async fn submit(
        &self,
        mut submission: Box<Submission>,
        fate: oneshot::Receiver<Answered>,
        room: Room<'_>,
    ) -> Result<Position, Refusal> {
        if !submission.prepared.indexed.is_empty() {
            let read = Box::pin(self.read_old_values(&mut submission)).await;
            read.map_err(Refusal::Failed)?;
        }
        self.shared.submit(submission, fate, room, self.threads.committer()).await
    }

    async fn read_old_values(&self, submission: &mut Submission) -> Result<()> {
        let Submission { prepared, read_at, old_values, .. } = submission;
        for write in prepared.indexed_writes() {
            let old = self.shared.view.get(&write.key, *read_at).await?;
            old_values.push(old.map(|(_, value)| value));
        }
        Ok(())
    }

    /// What a store does by itself from time to time: builds missing indexes, forgets old requests, trims as it is told to.
    pub(crate) fn start_chores(&self, runtime: &tokio::runtime::Handle) {
        // The chores keep no store open that its owners have dropped, nor its directory locked.
        let (shared, threads) = (Arc::downgrade(&self.shared), Arc::downgrade(&self.threads));
        runtime.spawn(async move {
            let mut interval = tokio::time::interval(CHORES_INTERVAL);
            loop {
                interval.tick().await;
                let (Some(shared), Some(threads)) = (shared.upgrade(), threads.upgrade()) else { return };
                if shared.closing.load(Ordering::Acquire) {
                    return;
                }
                let store = Store { shared, threads };
                if let Err(error) = store.do_chores().await
                    && !store.shared.closing.load(Ordering::Acquire)
                {
                    tracing::warn!(error = %error.report(), "a chore of the store failed; it is tried again");
                }
            }
        });
    }

    async fn do_chores(&self) -> Result<()> {
        self.finish_redactions().await?;
        self.build_indexes().await?;
        self.expire_requests().await?;
        self.retain().await.map(drop)
    }

    /// Brings everything acknowledged so far into the base and returns the position reached.
    pub async fn checkpoint(&self) -> Result<Position> {
        // The base may block for as long as it writes: not on a thread that callers' tasks share.
        let shared = self.shared.clone();
        beside("the checkpoint", async move { super::checkpoint::run_beside_writers(&shared).await }).await
    }

    /// Syncs and releases the directory; no checkpoint is written, the next open replays what came after the last.
    /// Every handle answers `closed` from then on. Closing again is no error.
    pub async fn close(&self) -> Result<()> {
        self.shared.closing.store(true, Ordering::Release);
        let done = match self.shared.ask(Command::Close).await {
            Ok(done) => done,
            // Closed before: nothing left to do.
            Err(_) => Ok(()),
        };
        self.shared.checkpoint_due.notify_one();
        self.shared.memory_freed.notify_waiters();
        let threads = self.threads.clone();
        // A thread may be in the middle of a long write to the base.
        tokio::task::spawn_blocking(move || threads.join()).await.map_err(|_| closed())?;
        // A checkpoint that a caller asked for may still write to the base: the directory is not free before.
        let _checkpointing = self.shared.checkpointing.lock().await;
        if let Some(socket) = self.shared.socket.lock().take() {
            // Before the next opener may make its own.
            socket.remove();
        }
        let closed = self.shared.log.close();
        self.shared.view.close();
        done?;
        // A second close finds nothing left to do.
        match closed {
            Ok(()) | Err(LogError::Closed) => Ok(()),
            Err(error) => Err(Error::from(error)),
        }
    }
}

/// A transaction that reads nothing.
enum Blind {
    /// On its way but for the queue.
    Ready(Box<Submission>, oneshot::Receiver<Answered>),
    /// Of keys with an index: what they were has to be read first.
    Indexed(Box<Prepared>),
}

/// The span of one change.
fn span(context: &Context) -> tracing::Span {
    tracing::debug_span!("command", actor = %context.actor)
}

/// A place in the exclusive lane, given back on drop.
struct LaneTicket {
    shared: Arc<Shared>,
    id: LaneId,
}

impl LaneTicket {
    async fn reserve(shared: &Arc<Shared>, reads: Reads) -> Result<LaneTicket> {
        let ticket = LaneTicket { shared: shared.clone(), id: shared.lane_id() };
        let (granted, turn) = oneshot::channel();
        let command = Command::Reserve { id: ticket.id, reads, granted };
        shared.queue.command(command).map_err(|_| closed())?;
        // Bounded: a turn that does not come is no reason to stop trying without it.
        let _ = shared.within_wait(turn).await;
        Ok(ticket)
    }
}

impl Drop for LaneTicket {
    fn drop(&mut self) {
        // A closed store has no lanes.
        let _ = self.shared.queue.command(Command::Release(self.id));
    }
}
