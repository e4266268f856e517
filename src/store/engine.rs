//! [`Shared`]: what the facade, the committer and the checkpoint have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::committer::Committer;
use super::lane::LaneId;
use super::queue::{Closed, Place, Queue, Space};
use super::scrub::ScrubReport;
use super::settings::Settings;
use super::submission::{Answered, Command, Refusal, Submission};
use super::turn::Turn;
use crate::env::{Env, SocketFile};
use crate::log::{Log, LogError};
use crate::projection::{IndexSet, Memtable, Scanner, View, redaction_key};
use crate::types::{
    Entry, Error, ErrorKind, Key, OWN_PARTITION_BYTE, Position, ProjectionVersion, Result, Slice, Timestamp,
};

/// State shared by all handles and threads of an open store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub env: Env,
    pub settings: Settings,
    pub log: Arc<dyn Log>,
    pub view: Arc<View>,
    pub indexes: IndexSet,
    /// The indexes that the next checkpoint holds whole.
    pub built: Mutex<Vec<ProjectionVersion>>,
    pub queue: Queue,
    /// Rung when memory was freed.
    pub memory_freed: Notify,
    /// Rung when a checkpoint is due, or the base has work left.
    pub checkpoint_due: Notify,
    /// Log bytes appended since the last freeze.
    pub log_bytes: AtomicU64,
    /// Why the last checkpoint failed, until one succeeds.
    pub checkpoint_failure: Mutex<Option<String>>,
    /// Memtables that are in the base and in nobody's layers but those that are looked at right now.
    pub retired: Mutex<Vec<Arc<Memtable>>>,
    /// Held by the one who runs a checkpoint.
    pub checkpointing: tokio::sync::Mutex<()>,
    /// Whether checkpoints keep a history: as the settings say, but while the log is replayed whenever the base has one, since
    /// a range restore reads it.
    pub keeps_history: AtomicBool,
    /// Set when no more writes are taken.
    pub closing: AtomicBool,
    /// Becomes true when nothing more will be synced: the committer has ended, after its last sync.
    pub ended: watch::Sender<bool>,
    /// The socket that readers in other processes ask.
    pub socket: Mutex<Option<SocketFile>>,
    /// Gives lane ids.
    pub lanes: AtomicU64,
    /// The log's directory, where its snapshots lie.
    pub log_dir: PathBuf,
    /// What the scrub did and found.
    pub scrub: Mutex<ScrubReport>,
    /// Held by the one who trims.
    pub trimming: tokio::sync::Mutex<()>,
    /// Held for reading by whoever writes down a position that others are to find readable, from the check until that is
    /// committed.
    pub floor_gate: tokio::sync::RwLock<()>,
    /// Where a trim wants the floor; zero without one.
    pub floor_asked: AtomicU64,
    /// The last redaction of which nothing erased is in the base.
    pub base_redaction: AtomicU64,
    /// The last redaction of this process: what was read below it is not to be written again.
    pub redacted_at: AtomicU64,
    /// Whether there may be a redaction of which not everything is done.
    pub redactions_open: AtomicBool,
    /// Whether there may be anything redacted at all.
    pub redactions: AtomicBool,
    /// When the retention was last looked at.
    pub retained_at: Mutex<Option<Timestamp>>,
}

/// A transaction's part of the queue, given back when it is answered.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    /// How long it may wait for its turn; where it has not waited yet, as long as any.
    until: Option<Instant>,
    space: Space<'a>,
}

/// A floor that a trim wants, for as long as the trim lasts.
#[derive(Debug)]
pub(crate) struct FloorAsked(Arc<Shared>);

impl FloorAsked {
    /// Waits for those who have found a lower position readable and are about to write it down.
    pub async fn new(shared: &Arc<Shared>, floor: Position) -> FloorAsked {
        let _nobody = shared.floor_gate.write().await;
        shared.floor_asked.store(floor.0, Ordering::Release);
        FloorAsked(shared.clone())
    }
}

impl Drop for FloorAsked {
    fn drop(&mut self) {
        self.0.floor_asked.store(0, Ordering::Release);
    }
}

/// What a [`Shared`] is made of; everything else of it begins empty.
pub(crate) struct Parts {
    pub env: Env,
    pub settings: Settings,
    pub log: Arc<dyn Log>,
    pub view: Arc<View>,
    pub indexes: IndexSet,
    pub built: Vec<ProjectionVersion>,
    pub log_dir: PathBuf,
    pub scrub: ScrubReport,
    pub keeps_history: bool,
    pub redaction: Position,
}

impl Shared {
    /// Made of these, with nothing done yet.
    pub fn new(parts: Parts) -> Shared {
        let Parts { env, settings, log, view, indexes, built, log_dir, scrub, keeps_history, redaction } = parts;
        Shared {
            queue: Queue::new(&settings),
            env,
            settings,
            log,
            view,
            indexes,
            built: Mutex::new(built),
            memory_freed: Notify::new(),
            checkpoint_due: Notify::new(),
            log_bytes: AtomicU64::new(0),
            checkpoint_failure: Mutex::new(None),
            retired: Mutex::default(),
            checkpointing: tokio::sync::Mutex::new(()),
            keeps_history: AtomicBool::new(keeps_history),
            closing: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            socket: Mutex::new(None),
            lanes: AtomicU64::new(0),
            log_dir,
            scrub: Mutex::new(scrub),
            trimming: tokio::sync::Mutex::new(()),
            floor_gate: tokio::sync::RwLock::new(()),
            floor_asked: AtomicU64::new(0),
            base_redaction: AtomicU64::new(redaction.0),
            redacted_at: AtomicU64::new(0),
            redactions_open: AtomicBool::new(true),
            redactions: AtomicBool::new(true),
            retained_at: Mutex::new(None),
        }
    }

    /// Room for a transaction that takes so many bytes in the queue, then in memory; asked for before anything of it is encoded,
    /// so that who waits costs no more than what its caller holds anyway.
    ///
    /// Whoever has room waits with it for memory: when memory is freed, no more comes at once than the queue may hold.
    /// Both waits end after `write_wait_ms` in all.
    pub async fn room(&self, bytes: usize) -> Result<Room<'_>> {
        match self.queue.try_space(bytes) {
            Ok(Some(space)) if !self.memory_is_full() => Ok(Room { until: None, space }),
            // What hardly ever happens lies elsewhere: a timer is large, and every write would carry it along.
            Ok(space) => Box::pin(self.wait_for_room(bytes, space)).await,
            Err(Closed) => Err(closed()),
        }
    }

    async fn wait_for_room<'a>(&'a self, bytes: usize, space: Option<Space<'a>>) -> Result<Room<'a>> {
        let until = self.write_wait_ends();
        let space = match space {
            Some(space) => space,
            None => match within(until, self.queue.space(bytes)).await {
                Some(Ok(space)) => space,
                Some(Err(Closed)) => return Err(closed()),
                None => return Err(overloaded("the queue is full")),
            },
        };
        if self.memory_is_full() {
            self.wait_for_memory(until).await?;
        }
        Ok(Room { until: Some(until), space })
    }

    /// Sends a transaction to the committer and waits for its fate.
    ///
    /// Waits no longer than its room allows for its turn in the queue; once the transaction is with the committer it waits until
    /// the fate is known.
    pub async fn submit(
        &self,
        submission: Box<Submission>,
        answer: oneshot::Receiver<Answered>,
        room: Room<'_>,
        committer: Option<&Mutex<Committer>>,
    ) -> Result<Position, Refusal> {
        let failed = |error| Err(Refusal::Failed(error));
        let Room { until, space } = room;
        let place = match self.queue.try_place() {
            Ok(Some(place)) => place,
            Err(Closed) => return failed(closed()),
            // What hardly ever happens lies elsewhere: a timer is large, and every write would carry it along.
            Ok(None) => {
                let until = until.unwrap_or_else(|| self.write_wait_ends());
                match Box::pin(within(until, self.queue.place())).await {
                    Some(Ok(place)) => place,
                    Some(Err(Closed)) => return failed(closed()),
                    None => return failed(overloaded("the queue is full")),
                }
            }
        };
        if let Err(Closed) = self.hand_over(place, space, submission, committer) {
            return failed(closed());
        }
        answer.await.map_or_else(|_| failed(closed()), |answered| answered.fate)
    }

    /// Leaves a transaction to the committer's thread, or commits it here where the settings want it and this thread may block.
    fn hand_over(
        &self,
        place: Place<'_>,
        space: Space<'_>,
        submission: Box<Submission>,
        committer: Option<&Mutex<Committer>>,
    ) -> Result<(), Closed> {
        let Some(committer) = committer else { return self.queue.push(place, space, submission, true) };
        let runtime = Handle::try_current().ok().map(|runtime| runtime.runtime_flavor());
        let blocks = runtime.as_ref().is_none_or(|flavor| *flavor == RuntimeFlavor::MultiThread);
        let Some(mut turn) = Some(committer).filter(|_| blocks).and_then(Turn::try_take) else {
            return self.queue.push(place, space, submission, true);
        };
        self.queue.push(place, space, submission, false)?;
        match runtime {
            Some(_) => tokio::task::block_in_place(|| turn.step()),
            None => turn.step(),
        };
        // What came meanwhile has woken the committer's thread, which waits for this turn to end.
        Ok(())
    }

    /// Sends a command that has no size and waits for its answer.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.queue.command(command(reply)).map_err(|Closed| closed())?;
        answer.await.map_err(|_| closed())
    }

    /// Under a weaker durability the log does not show yet what was published: syncs what is not.
    pub async fn sync_to(&self, position: Position) -> Result<()> {
        if *self.log.follow().borrow() < position {
            self.ask(Command::Sync).await??;
        }
        Ok(())
    }

    fn memory_is_full(&self) -> bool {
        self.view.layers().bytes() >= self.settings.memtable_hard_bytes
    }

    /// Waits while memory is above the hard limit.
    async fn wait_for_memory(&self, until: Instant) -> Result<()> {
        self.checkpoint_due.notify_one();
        let freed = async {
            loop {
                let freed = self.memory_freed.notified();
                // Whoever closes the store has set this before waking us; what follows says it to the caller.
                if !self.memory_is_full() || self.closing.load(Ordering::Acquire) {
                    return;
                }
                freed.await;
            }
        };
        match within(until, freed).await {
            Some(()) => Ok(()),
            None => {
                let cause = self.checkpoint_failure.lock().clone();
                let cause = cause.unwrap_or_else(|| "checkpoints do not keep up".to_owned());
                Err(overloaded(&format!("memory for recent writes is full, cause=`{cause}`")))
            }
        }
    }

    /// What a future gives within the time that a writer waits.
    pub async fn within_wait<F: Future>(&self, future: F) -> Option<F::Output> {
        within(self.write_wait_ends(), future).await
    }

    fn write_wait_ends(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.settings.write_wait_ms)
    }

    /// Where the history begins that the next checkpoint keeps.
    pub fn history(&self) -> Option<Position> {
        self.keeps_history.load(Ordering::Acquire).then(|| self.log.floor())
    }

    /// What the next checkpoint is stamped with.
    pub fn base_redaction(&self) -> Position {
        Position(self.base_redaction.load(Ordering::Acquire))
    }

    /// The newest value of a key not above `at`, and the position that wrote it.
    ///
    /// Errors: `not_found` when it was redacted; those of the base.
    pub async fn value_at(&self, key: &[u8], at: Position) -> Result<Option<(Position, Slice)>> {
        let found = self.view.get(key, at).await?;
        if let Some((version, value)) = &found {
            self.check_erased(key, *version, value).await?;
        }
        Ok(found)
    }

    /// The next entries of a scanner, in order; none at the end.
    ///
    /// Errors: as [`Shared::value_at`].
    pub async fn page(&self, scanner: &mut Scanner) -> Result<Vec<Entry>> {
        let page = scanner.page().await?;
        for entry in page.iter().filter(|entry| self.may_be_erased(&entry.value)) {
            self.check_erased(&entry.encoded_key, entry.version, &entry.value).await?;
        }
        Ok(page)
    }

    /// Whether what was read is the empty value that a redaction leaves.
    pub async fn check_erased(&self, key: &[u8], version: Position, value: &[u8]) -> Result<()> {
        match self.is_erased(key, version, value).await? {
            false => Ok(()),
            true => {
                let start = Key::key_start(key).unwrap_or(0);
                let message = format!(
                    "the value was redacted, partition=`{}` key=`{}` version=`{version}`",
                    Key::partition_of(key).unwrap_or_default().escape_ascii(),
                    key.get(start..).unwrap_or_default().escape_ascii()
                );
                Err(Error::new(ErrorKind::NotFound, message))
            }
        }
    }

    /// Without a look-up: only an empty value, where anything was redacted; while a redaction is decided and not done any, since what
    /// it erases still stands where it was.
    fn may_be_erased(&self, value: &[u8]) -> bool {
        (value.is_empty() || self.redactions_open.load(Ordering::Acquire)) && self.redactions.load(Ordering::Acquire)
    }

    /// The same as an answer.
    pub async fn is_erased(&self, key: &[u8], version: Position, value: &[u8]) -> Result<bool> {
        if !self.may_be_erased(value) || key.first() == Some(&OWN_PARTITION_BYTE) {
            return Ok(false);
        }
        // Asked at the newest position: a redaction holds for every state before it.
        Ok(self.view.latest(&redaction_key(key, version)).await?.is_some())
    }

    /// Whether a position can be written down for others to read at: a trim that is going on does not pass it by. Asked with
    /// [`Shared::floor_gate`] held.
    pub fn check_kept(&self, position: Position) -> Result<()> {
        let floor = Position(self.floor_asked.load(Ordering::Acquire)).max(self.log.floor());
        match position < floor {
            true => Err(LogError::BelowFloor { position, floor }.into()),
            false => Ok(()),
        }
    }

    /// A new lane id.
    pub fn lane_id(&self) -> LaneId {
        LaneId(self.lanes.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a future gives until then; without a runtime there are no timers, and it waits as long as it takes.
async fn within<F: Future>(until: Instant, future: F) -> Option<F::Output> {
    if Handle::try_current().is_err() {
        return Some(future.await);
    }
    tokio::time::timeout_at(until, future).await.ok()
}

/// Runs what blocks, for as long as reading files takes, beside the tasks that callers share a thread with.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let Some(runtime) = shared_runtime() else { return Ok(work()) };
    let done = runtime.spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Internal, "a read of the log panicked").with_source(error))
}

/// Runs an operation that reads and writes files for long in the same way. `what` names it should it panic.
pub(crate) async fn beside<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let Some(runtime) = shared_runtime() else { return work.await };
    let blocking = runtime.clone();
    let done = runtime.spawn_blocking(move || blocking.block_on(work)).await;
    done.map_err(|error| Error::new(ErrorKind::Internal, format!("{what} panicked")).with_source(error))?
}

/// The runtime with whose tasks the thread is shared. Whoever polls without one shares its thread with nobody.
fn shared_runtime() -> Option<Handle> {
    #[cfg(test)]
    if super::simulation::steps_here() {
        return None;
    }
    Handle::try_current().ok()
}

/// The store takes no more writes.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store is closed")
}

fn overloaded(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the write had to wait too long, {why}; nothing was changed"))
}
