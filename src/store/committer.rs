//! The committer: the one who orders, validates, appends, syncs and publishes.
//!
//! It never reads the base: what a transaction read was read on the caller's side, and what was written
//! since is in the memtables. Turns are taken by its own thread or by callers ([`Steps`]); a step can be called without a
//! thread, so a simulation can schedule it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::{counter, gauge};

use super::answers::Answers;
use super::checkpoint;
use super::engine::{Shared, closed};
use super::insertion::{Insertion, Pending};
use super::lane::Lanes;
use super::recent::Recent;
use super::settings::Durability;
use super::submission::{Answered, Command, Refusal, Submission};
use super::turn::Steps;
use crate::log::{Draft, LogError};
use crate::projection::{Found, Layers, Write, project_request};
use crate::types::{Error, Limits, Position, Timestamp};

/// Transactions in one batch at most.
const BATCH_TRANSACTIONS_MAX: usize = 8192;

/// The commit loop's state.
#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    head: Position,
    last_time: Timestamp,
    recent: Recent,
    lanes: Lanes,
    /// When the oldest unsynced change was appended.
    unsynced_since: Option<Timestamp>,
    /// Why the log takes no more writes. What a failed batch left in the memtable is never published, so
    /// nothing may be validated against it any more.
    latched: Option<String>,
    closed: bool,
    /// Whether at most one command waited at the last step.
    alone: bool,
    answers: Answers,
    insertion: Arc<Insertion>,
    /// Empty between steps; kept for their memory.
    commands: Vec<Command>,
    batch: Batch,
}

/// A batch on its way: drafts, and whom to answer.
#[derive(Debug, Default)]
struct Batch {
    drafts: Vec<Draft>,
    pending: Pending,
    bytes: usize,
}

impl Committer {
    /// A committer for a log whose head is published.
    pub fn new(shared: Arc<Shared>) -> Committer {
        let head = shared.log.head();
        Committer {
            shared,
            head: head.position,
            last_time: head.time,
            recent: Recent::new(head.position),
            lanes: Lanes::default(),
            unsynced_since: None,
            latched: None,
            closed: false,
            alone: true,
            answers: Answers::at_once(),
            insertion: Arc::default(),
            commands: Vec::new(),
            batch: Batch::default(),
        }
    }

    /// Lets a runtime tell callers that they are done.
    #[must_use]
    pub fn answering(mut self, answers: Answers) -> Committer {
        self.answers = answers;
        self
    }

    /// What a thread can help with.
    pub fn insertion(&self) -> Arc<Insertion> {
        self.insertion.clone()
    }

    /// Handles everything that waits, without blocking for more, and says how much that was.
    pub fn step_waiting(&mut self) -> usize {
        let mut commands = std::mem::take(&mut self.commands);
        self.shared.queue.take(&mut commands);
        let handled = commands.len();
        self.alone = handled <= 1;
        self.step(&mut commands);
        self.commands = commands;
        handled
    }

    /// Handles these commands in order.
    fn step(&mut self, commands: &mut Vec<Command>) {
        gauge!("lakelog_queue_transactions").set(commands.len() as f64);
        let mut batch = std::mem::take(&mut self.batch);
        for command in commands.drain(..) {
            match command {
                Command::Commit(submission) => self.admit(submission, &mut batch),
                other => {
                    self.commit(&mut batch);
                    self.control(other, &mut batch);
                }
            }
            if batch.drafts.len() >= BATCH_TRANSACTIONS_MAX || batch.bytes >= Limits::TRANSACTION_BYTES_MAX {
                self.commit(&mut batch);
            }
        }
        self.commit(&mut batch);
        // A lane that was given back during this step lets those who waited for it try now.
        loop {
            let parked = self.lanes.unpark();
            if parked.is_empty() {
                break;
            }
            for submission in parked {
                self.admit(submission, &mut batch);
            }
            self.commit(&mut batch);
            self.lanes.advance(self.head);
        }
        self.batch = batch;
        self.sync_when_due();
    }

    fn control(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Commit(submission) => self.admit(submission, batch),
            Command::Reserve { id, reads, granted } => self.lanes.reserve(id, reads, granted, self.head),
            Command::Release(id) => self.lanes.release(id, self.head),
            Command::Freeze(reply) => {
                let frozen = self.sync().map(|_| self.freeze());
                // Nobody left to tell is no reason not to have frozen.
                let _ = reply.send(frozen);
            }
            Command::Sync(reply) => {
                let _ = reply.send(self.sync());
            }
            // Whatever the step was, it ends with the sync that is due.
            Command::Tick => {
                self.lanes.tick(self.head);
                self.answers.flush();
            }
            Command::Close(reply) => {
                let _ = reply.send(self.end());
            }
        }
    }

    /// Takes nothing more, and syncs.
    fn end(&mut self) -> Result<(), Error> {
        self.closed = true;
        self.shared.queue.close();
        for submission in self.lanes.take_all() {
            self.refuse(submission, Refusal::Failed(closed()));
        }
        let synced = self.sync().map(|_| ());
        self.answers.flush();
        self.insertion.stop();
        self.shared.ended.send_replace(true);
        synced
    }

    /// Validates one transaction and puts it into the batch, or answers it.
    fn admit(&mut self, mut submission: Box<Submission>, batch: &mut Batch) {
        if self.closed {
            return self.refuse(submission, Refusal::Failed(closed()));
        }
        if let Err(latched) = self.check_latch() {
            return self.refuse(submission, Refusal::Failed(latched));
        }
        if self.lanes.blocks(&submission) {
            return self.lanes.park(submission);
        }
        let layers = self.shared.view.layers();
        if self.conflicts(&submission, &layers, batch) {
            counter!("lakelog_conflicts_total").increment(1);
            if let Some(lane) = submission.lane {
                self.lanes.widen(lane, &submission.reads, self.last_given(batch));
            }
            let reads = std::mem::take(&mut submission.reads);
            return self.refuse(submission, Refusal::Conflict(reads));
        }
        let Submission { old_values, prepared, lane, .. } = &mut *submission;
        if batch.drafts.is_empty() {
            // Recorded time never goes back, whatever the clock does. One look at it for all that become durable together.
            self.last_time = self.last_time.max(self.shared.env.clock.now());
        }
        let position = self.last_given(batch).next();
        if !prepared.indexed.is_empty() {
            batch.pending.insert(layers.active(), self.head);
        }
        let set = &mut prepared.set;
        for (&at, old) in prepared.indexed.iter().zip(&*old_values) {
            let Some(Write { key, value: new }) = set.writes.get(at).cloned() else { continue };
            // A newer value among the recent writes replaces what the caller read.
            let recent = layers.recent(&key, Position::MAX);
            let old = match &recent {
                Found::Value(_, value) => Some(&value[..]),
                Found::Deleted(_) => None,
                Found::Nothing => old.as_deref(),
            };
            self.shared.indexes.project(&key, old, new.as_deref(), set);
        }
        if let Some(request) = &prepared.request {
            project_request(self.last_time, request, set);
        }
        // Later transactions of this batch are validated against it, and have it inserted where it may be what they read.
        layers.active().announce(position, set);
        self.recent.push(position, set);
        batch.bytes += prepared.payload.len();
        batch.drafts.push(Draft {
            time: self.last_time,
            salt: prepared.salt,
            digest: prepared.digest,
            payload: std::mem::take(&mut prepared.payload),
        });
        if let Some(lane) = *lane {
            self.lanes.release(lane, position);
        }
        batch.pending.accepted.push(submission);
    }

    /// The last position that was given to a transaction, appended or still in the batch.
    fn last_given(&self, batch: &Batch) -> Position {
        Position(self.head.0 + batch.drafts.len() as u64)
    }

    /// Whether something that the transaction read was written above the position it read at.
    fn conflicts(&self, submission: &Submission, layers: &Layers, batch: &mut Batch) -> bool {
        let Submission { reads, read_at, prepared, .. } = submission;
        if reads.is_empty() && prepared.indexed.is_empty() {
            return false;
        }
        // Older than what the memtables remember: it runs again.
        let old = *read_at < layers.floor();
        if self.lanes.keeps(submission) {
            // But old values of indexed keys are no reads, so the lane does not keep them.
            return old && !prepared.indexed.is_empty();
        }
        let suspect = reads.keys.iter().any(|key| layers.may_be_written_since(key, *read_at));
        if suspect {
            batch.pending.insert(layers.active(), self.head);
        }
        old || (suspect && reads.keys.iter().any(|key| layers.written_since(key, *read_at)))
            || self.recent.invalidates(reads, *read_at)
    }

    /// Appends, syncs, publishes, answers. Leaves the batch empty.
    fn commit(&mut self, batch: &mut Batch) {
        if batch.drafts.is_empty() {
            return;
        }
        let Batch { drafts, pending, bytes } = batch;
        let span = tracing::trace_span!("append", transactions = drafts.len(), bytes);
        let _entered = span.enter();
        let first = self.head.next();
        let last = Position(self.head.0 + drafts.len() as u64);
        // Unseen until published: every version carries its position. So it does not matter when it comes there.
        self.insertion.begin(std::mem::take(pending), self.shared.view.layers().active().clone(), self.head);
        let appended = match self.shared.log.append(self.head, drafts) {
            Ok(_) => self.settle(last),
            Err(error) => Err(error),
        };
        *pending = self.insertion.end();
        let accepted = &mut pending.accepted;
        let units = accepted.iter().map(|submission| submission.units).sum();
        match appended {
            Ok(()) => {
                self.shared.log_bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
                self.shared.view.pins().publish(last);
                let done = drafts.drain(..).zip(accepted.drain(..)).enumerate();
                self.answers.give(done.map(|(number, (draft, mut submission))| {
                    submission.prepared.payload = draft.payload;
                    (Position(first.0 + number as u64), submission)
                }));
                self.after_publish();
            }
            Err(error) => {
                tracing::error!(%first, %last, error = &error as &dyn std::error::Error, "append failed");
                if !self.latch(&error) {
                    self.retract(accepted);
                }
                drafts.clear();
                let error = Error::from(error);
                for submission in accepted.drain(..) {
                    refuse(submission, Refusal::Failed(Error::new(error.kind(), error.report())));
                }
            }
        }
        pending.clear();
        *bytes = 0;
        self.shared.queue.give_back(units);
    }

    /// Makes what was appended durable, as far as the setting asks for it before the answer.
    fn settle(&mut self, last: Position) -> Result<(), LogError> {
        self.head = last;
        match self.shared.settings.durability {
            Durability::Sync => self.shared.log.sync().map(|_| ()),
            Durability::Interval { .. } | Durability::None => {
                self.unsynced_since.get_or_insert(self.last_time);
                Ok(())
            }
        }
    }

    /// Refuses a transaction that did not get into the batch.
    fn refuse(&self, submission: Box<Submission>, refusal: Refusal) {
        self.shared.queue.give_back(submission.units);
        refuse(submission, refusal);
    }

    fn check_latch(&self) -> Result<(), Error> {
        let latched = self.latched.clone().map(|cause| LogError::Latched { cause });
        latched.map_or(Ok(()), |latched| Err(Error::from(latched)))
    }

    /// Notes that the log takes no more writes, when the error says so.
    fn latch(&mut self, error: &LogError) -> bool {
        let latched = matches!(error, LogError::DurabilityUnknown { .. } | LogError::Latched { .. });
        if latched {
            self.latched.get_or_insert_with(|| error.to_string());
        }
        latched
    }

    /// Takes back from the memtable what was not appended: the positions will be used again.
    fn retract(&mut self, accepted: &[Box<Submission>]) {
        let layers = self.shared.view.layers();
        for submission in accepted {
            layers.active().retract(self.head, &submission.prepared.set);
        }
        self.recent.retract(self.head);
    }

    fn after_publish(&mut self) {
        self.recent.forget(self.shared.view.pins().oldest_reader());
        let layers = self.shared.view.layers();
        let active = layers.active().bytes();
        gauge!("lakelog_memtable_bytes").set(layers.bytes() as f64);
        gauge!("lakelog_checkpoint_lag_transactions").set((self.head.0 - layers.base_position().0) as f64);
        if checkpoint::is_due(&self.shared, active) {
            self.shared.checkpoint_due.notify_one();
        }
    }

    /// Puts a new memtable on top; everything below it is published and synced.
    fn freeze(&mut self) -> Position {
        self.shared.view.freeze(self.head);
        self.shared.log_bytes.store(0, Ordering::Relaxed);
        self.head
    }

    fn sync(&mut self) -> Result<Position, Error> {
        // A checkpoint after a failed sync would be stamped with what may be lost.
        self.check_latch()?;
        if self.unsynced_since.is_none() && self.shared.settings.durability == Durability::Sync {
            return Ok(self.head);
        }
        let synced = self.shared.log.sync().inspect_err(|error| {
            self.latch(error);
        })?;
        self.unsynced_since = None;
        Ok(synced)
    }

    fn sync_when_due(&mut self) {
        let Durability::Interval { ms } = self.shared.settings.durability else { return };
        let Some(since) = self.unsynced_since else { return };
        let now = self.shared.env.clock.now();
        // A clock that jumped back counts as due: better a sync too many.
        let due = now < since || now.0 - since.0 >= i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000);
        if due && let Err(error) = self.sync() {
            // The log is latched: every later call says so to whom it concerns.
            tracing::error!(error = %error.report(), "sync failed");
        }
    }
}

impl Steps for Committer {
    fn handle_waiting(&mut self) {
        self.step_waiting();
    }

    fn is_alone(&self) -> bool {
        self.alone
    }

    /// The store is closed, or every handle is gone.
    fn has_ended(&self) -> bool {
        self.closed
    }

    /// Nobody waits for an answer any more, nor for more of the log.
    fn break_off(&mut self) {
        self.closed = true;
        self.shared.queue.close();
        drop((std::mem::take(&mut self.batch), self.lanes.take_all()));
        self.insertion.stop();
        self.answers.flush();
        self.shared.ended.send_replace(true);
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Whatever became of its thread: nobody waits for nothing.
        self.break_off();
    }
}

fn refuse(mut submission: Box<Submission>, refusal: Refusal) {
    if let Some(reply) = submission.reply.take() {
        // A caller who went away needs no answer.
        let _ = reply.send(Answered { fate: Err(refusal), _remains: Some(submission) });
    }
}
