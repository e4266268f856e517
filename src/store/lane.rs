//! The exclusive lane: how a transaction that lost several times is sure to win.
//!
//! Who holds the lane has named what it reads. Until it commits or its time is up, transactions that
//! would invalidate those reads wait in their order; all others pass.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::submission::Submission;
use crate::projection::WriteSet;
use crate::types::{Key, OWN_PARTITION_BYTE, Position};

/// Identifies one caller's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneId(pub u64);

/// Keys and key ranges that a transaction read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    pub keys: Vec<Key>,
    /// Encoded `from <= key < to`; an empty `to` is no end.
    pub ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Reads {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// In order and each once, as [`Reads::met_by`] and [`Reads::holds`] need them.
    fn sorted(mut self) -> Reads {
        self.keys.sort_unstable();
        self.keys.dedup();
        self.ranges.sort_unstable();
        self.ranges.dedup();
        self
    }

    /// Whether all of the others are among these.
    fn holds(&self, others: &Reads) -> bool {
        others.keys.iter().all(|key| self.keys.binary_search(key).is_ok())
            && others.ranges.iter().all(|range| self.ranges.binary_search(range).is_ok())
    }

    /// Whether something of the store's own was read: what is written there is not known before a
    /// transaction is admitted, so a lane cannot keep it.
    fn own(&self) -> bool {
        let mut starts = self.keys.iter().map(|key| &key[..]).chain(self.ranges.iter().map(|(from, _)| &from[..]));
        starts.any(|start| start.first() == Some(&OWN_PARTITION_BYTE))
    }

    /// Whether the writes change what was read. Keys are sorted: both sides may be large, and the committer waits.
    fn met_by(&self, set: &WriteSet) -> bool {
        set.writes.iter().any(|write| self.keys.binary_search(&write.key).is_ok())
            || set.ranges.iter().any(|range| {
                let first = self.keys.partition_point(|key| &key[..] < range.prefix());
                self.keys.get(first).is_some_and(|key| range.contains(key))
            })
            || self.ranges.iter().any(|(from, to)| set.meets_range(from, to))
    }
}

/// Ticks that a lane is held at most without its holder committing.
const TICKS_MAX: u32 = 20;

/// The lane, who waits for it, and who waits because of it.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    held: Option<Held>,
    waiting: VecDeque<(LaneId, Reads, oneshot::Sender<()>)>,
    parked: VecDeque<Box<Submission>>,
}

#[derive(Debug)]
struct Held {
    id: LaneId,
    reads: Reads,
    /// Nothing above this position has changed what `reads` names.
    since: Position,
    ticks: u32,
}

impl Lanes {
    /// Queues a caller for the lane. `head`, here and below, is the last position given to a transaction.
    pub fn reserve(&mut self, id: LaneId, reads: Reads, granted: oneshot::Sender<()>, head: Position) {
        self.waiting.push_back((id, reads.sorted(), granted));
        self.advance(head);
    }

    /// Whether the lane has kept everything that its holder read, so that nothing else has to be asked: neither
    /// how much was written beside it nor whether a checkpoint has taken the recent writes away.
    pub fn keeps(&self, submission: &Submission) -> bool {
        self.held.as_ref().is_some_and(|held| {
            submission.lane == Some(held.id)
                && submission.read_at >= held.since
                && held.reads.holds(&submission.reads)
                && !submission.reads.own()
        })
    }

    /// Whether the submission has to wait for the holder of the lane.
    pub fn blocks(&self, submission: &Submission) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| submission.lane != Some(held.id) && held.reads.met_by(&submission.prepared.set))
    }

    /// Lets a submission wait.
    pub fn park(&mut self, submission: Box<Submission>) {
        self.parked.push_back(submission);
    }

    /// The holder lost once more because it read something else than it had named: that is kept for
    /// it as well from now on.
    pub fn widen(&mut self, id: LaneId, reads: &Reads, head: Position) {
        if let Some(held) = self.held.as_mut().filter(|held| held.id == id) {
            let mut widened = std::mem::take(&mut held.reads);
            widened.keys.extend(reads.keys.iter().cloned());
            widened.ranges.extend(reads.ranges.iter().cloned());
            held.reads = widened.sorted();
            held.since = head;
        }
    }

    /// The lane of this id is given back, whether held or waited for.
    pub fn release(&mut self, id: LaneId, head: Position) {
        self.waiting.retain(|(waiting, ..)| *waiting != id);
        if self.held.as_ref().is_some_and(|held| held.id == id) {
            self.held = None;
        }
        self.advance(head);
    }

    /// Time passes. A holder that takes too long loses the lane, not its transaction.
    pub fn tick(&mut self, head: Position) {
        if let Some(held) = &mut self.held {
            held.ticks += 1;
            if held.ticks > TICKS_MAX {
                self.held = None;
            }
        }
        self.advance(head);
    }

    /// Those who waited and now may try, in their order; empty while the lane is held.
    pub fn unpark(&mut self) -> VecDeque<Box<Submission>> {
        if self.held.is_some() { VecDeque::new() } else { std::mem::take(&mut self.parked) }
    }

    /// Everybody who waited, when the committer closes.
    pub fn take_all(&mut self) -> VecDeque<Box<Submission>> {
        self.held = None;
        self.waiting.clear();
        std::mem::take(&mut self.parked)
    }

    /// Grants a free lane to the next in line, but not before those whom the last holder kept waiting had
    /// their try.
    pub fn advance(&mut self, head: Position) {
        while self.held.is_none() && self.parked.is_empty() {
            let Some((id, reads, granted)) = self.waiting.pop_front() else { return };
            if granted.send(()).is_ok() {
                self.held = Some(Held { id, reads, since: head, ticks: 0 });
            }
        }
    }
}
