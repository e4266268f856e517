//! What callers send to the committer, and what they get back.

use tokio::sync::oneshot;

use super::engine::Room;
use super::lane::{LaneId, Reads};
use super::prepare::Prepared;
use crate::types::{Error, Position, Slice};

/// A message to the committer.
pub(crate) enum Command {
    /// Commit a transaction.
    Commit(Box<Submission>),
    /// Grant the exclusive lane for these reads when it is this caller's turn.
    Reserve { id: LaneId, reads: Reads, granted: oneshot::Sender<()> },
    /// The holder of a lane, or who waits for one, went away.
    Release(LaneId),
    /// Put a new memtable on top and say at which position.
    Freeze(oneshot::Sender<Result<Position, Error>>),
    /// Sync what durability left unsynced.
    Sync(oneshot::Sender<Result<Position, Error>>),
    /// Time passes: sync when an interval is due, let an idle lane go.
    Tick,
    /// Finish: sync and take nothing more.
    Close(oneshot::Sender<Result<(), Error>>),
}

/// A prepared transaction with what it read.
pub(crate) struct Submission {
    /// The position that everything was read at.
    pub read_at: Position,
    /// What was read: only writes above `read_at` can invalidate it.
    pub reads: Reads,
    /// Values at `read_at` of what `prepared.indexed` names, in the same order. No recorded reads.
    pub old_values: Vec<Option<Slice>>,
    pub prepared: Prepared,
    /// The lane that the caller holds.
    pub lane: Option<LaneId>,
    pub reply: oneshot::Sender<Result<Position, Refusal>>,
    /// Room in the queue, given back when the answer is sent.
    pub room: Room,
}

/// Why a submission was not committed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Something that it read was written since: read again, decide again.
    Conflict,
    /// It was refused, or its fate is not known.
    Failed(Error),
}
