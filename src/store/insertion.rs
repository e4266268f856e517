//! [`Insertion`]: the writes of a batch on their way into the memtable, and the thread that brings them there while the committer
//! appends and syncs.
//!
//! Whoever holds the lock inserts what is left: the thread when it is awake in time, and the committer otherwise, before it publishes. So
//! nothing depends on the thread, and a committer without one is the same with less speed. Knows nothing of the log.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::submission::Submission;
use crate::projection::Memtable;
use crate::types::Position;

/// Batches for which the thread is woken, in transactions. Smaller ones are inserted before it would be awake; where there are larger ones
/// the processors are busy with those who write, and a further thread takes its time from them.
const WAKE_TRANSACTIONS: std::ops::Range<usize> = 8..128;

/// Transactions of one batch, of which the first ones are in the memtable.
#[derive(Debug, Default)]
pub(super) struct Pending {
    #[expect(clippy::vec_box, reason = "they are large, and go back to their callers as they came")]
    pub accepted: Vec<Box<Submission>>,
    inserted: usize,
}

impl Pending {
    /// Inserts what is left. The batch begins behind `head`, and its writes were announced.
    pub fn insert(&mut self, table: &Memtable, head: Position) {
        while self.insert_next(table, head) {}
    }

    /// Inserts one transaction; `false` when none is left.
    fn insert_next(&mut self, table: &Memtable, head: Position) -> bool {
        let Some(submission) = self.accepted.get(self.inserted) else { return false };
        table.insert_announced(Position(head.0 + self.inserted as u64 + 1), &submission.prepared.set);
        // Not before: should a thread panic, whoever needs the batch meets the same transaction again.
        self.inserted += 1;
        true
    }

    /// Forgets everything; the memory is used again.
    pub fn clear(&mut self) {
        self.accepted.clear();
        self.inserted = 0;
    }
}

/// A batch that is being inserted, and where.
#[derive(Debug)]
struct Work {
    pending: Pending,
    table: Arc<Memtable>,
    head: Position,
}

/// What the committer shares with the thread.
#[derive(Debug, Default)]
pub(crate) struct Insertion {
    /// Held while a transaction is inserted.
    state: Mutex<State>,
    /// Rung when there is a batch to insert, or the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    work: Option<Work>,
    ended: bool,
}

impl Insertion {
    /// What the thread does until it is told to end. There is one at most.
    pub fn run(&self) {
        loop {
            // The lock is free in between: a committer that needs the rest does not wait for a thread that lost its processor.
            let mut state = self.state.lock();
            while !state.ended && !state.insert_next() {
                self.changed.wait(&mut state);
            }
            if state.ended {
                return;
            }
        }
    }

    /// Lets the thread begin with a batch. [`Insertion::end`] gives it back.
    pub(super) fn begin(&self, pending: Pending, table: Arc<Memtable>, head: Position) {
        let worth = WAKE_TRANSACTIONS.contains(&(pending.accepted.len() - pending.inserted));
        self.state.lock().work = Some(Work { pending, table, head });
        if worth {
            self.changed.notify_one();
        }
    }

    /// The batch that was begun, all of it inserted.
    pub(super) fn end(&self) -> Pending {
        let Some(mut work) = self.state.lock().work.take() else { return Pending::default() };
        work.pending.insert(&work.table, work.head);
        work.pending
    }

    /// Ends the thread, and lets go of a batch that nobody asked for.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let abandoned = state.work.take();
        drop(state);
        self.changed.notify_one();
        drop(abandoned);
    }
}

impl State {
    /// Inserts one transaction; `false` when there is none.
    fn insert_next(&mut self) -> bool {
        self.work.as_mut().is_some_and(|work| work.pending.insert_next(&work.table, work.head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::Found;
    use crate::types::Key;

    fn key(position: u64) -> Key {
        Key::new(b"p", &position.to_be_bytes())
    }

    /// Transactions behind `head`, as many, announced.
    fn pending(table: &Memtable, head: u64, count: u64) -> Pending {
        let mut pending = Pending::default();
        for position in head + 1..=head + count {
            let (mut submission, _) = Submission::empty();
            submission.prepared.set.put(key(position), Some(b"value"));
            table.announce(Position(position), &submission.prepared.set);
            pending.accepted.push(submission);
        }
        pending
    }

    #[test]
    fn a_batch_is_whole_at_its_end_whoever_inserts_it() {
        for with_thread in [false, true] {
            let (insertion, table) = (Arc::new(Insertion::default()), Arc::new(Memtable::new(Position::ZERO)));
            let beside = insertion.clone();
            let thread = with_thread.then(|| std::thread::spawn(move || beside.run()));
            let mut head = 0;
            for count in [1, 7, 8, 64, 127, 128, 600].into_iter().cycle().take(210) {
                let mut begun = pending(&table, head, count);
                if count % 2 == 0 {
                    begun.insert(&table, Position(head));
                }
                insertion.begin(begun, table.clone(), Position(head));
                let ended = insertion.end();
                assert_eq!(ended.accepted.len() as u64, count);
                for position in head + 1..=head + count {
                    let found = table.get(&key(position), Position::MAX);
                    assert!(matches!(found, Found::Value(at, _) if at == Position(position)), "{position}: {found:?}");
                }
                head += count;
            }
            assert!(insertion.end().accepted.is_empty(), "nothing was begun");
            insertion.stop();
            assert!(thread.is_none_or(|thread| thread.join().is_ok()));
        }
    }

    #[test]
    fn a_thread_that_comes_after_the_end_ends() {
        let insertion = Insertion::default();
        insertion.stop();
        insertion.run();
    }

    #[test]
    fn what_is_announced_may_be_written_before_it_is() {
        let table = Memtable::new(Position::ZERO);
        let mut announced = pending(&table, 4, 1);
        assert!(table.may_be_written_since(&key(5), Position(4)) && !table.may_be_written_since(&key(5), Position(5)));
        assert!(!table.written_since(&key(5), Position(4)));
        announced.insert(&table, Position(4));
        assert!(table.written_since(&key(5), Position(4)));
    }
}
