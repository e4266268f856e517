//! What callers send to the committer, and what they get back.

use tokio::sync::oneshot;

use super::lane::{LaneId, Reads};
use super::prepare::Prepared;
use crate::types::{Error, Position, Slice};

/// A message to the committer.
#[derive(Debug)]
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
#[derive(Debug)]
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
    /// Taken when it is answered.
    pub reply: Option<oneshot::Sender<Answered>>,
    /// What it takes of the queue's room, given back when it is answered.
    pub units: usize,
}

impl Submission {
    /// A submission, and where its answer comes.
    pub fn new(
        read_at: Position,
        reads: Reads,
        prepared: Prepared,
        lane: Option<LaneId>,
    ) -> (Box<Submission>, oneshot::Receiver<Answered>) {
        let (reply, answer) = oneshot::channel();
        let reply = Some(reply);
        (Box::new(Submission { read_at, reads, old_values: Vec::new(), prepared, lane, reply, units: 0 }), answer)
    }
}

#[cfg(test)]
impl Submission {
    /// One that writes nothing.
    pub fn empty() -> (Box<Submission>, oneshot::Receiver<Answered>) {
        let prepared = Prepared {
            payload: Default::default(),
            salt: Default::default(),
            digest: Default::default(),
            set: Default::default(),
            indexed: Vec::new(),
            request: None,
        };
        Submission::new(Position::ZERO, Reads::default(), prepared, None)
    }
}

/// The fate of a submission.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The position of the transaction, once it is done.
    pub fate: Result<Position, Refusal>,
    /// What is left of the submission: whoever made it frees it, since the allocator's locks are what a committer that
    /// frees for all callers would wait for.
    pub _remains: Option<Box<Submission>>,
}

/// Why a submission was not committed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Something of this, which it read, was written since: read again, decide again.
    Conflict(Reads),
    /// It was refused, or its fate is not known.
    Failed(Error),
}
