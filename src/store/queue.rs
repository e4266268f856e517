//! [`Queue`]: what waits for the committer, bounded in number and bytes, and taken as a whole.
//!
//! One lock for everything that came during the last batch, instead of one a transaction; and the committer's thread is only
//! woken when it sleeps. Knows nothing of what is in a command.

use parking_lot::{Condvar, Mutex};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, TryAcquireError};

use super::settings::Settings;
use super::submission::{Command, Submission};

/// The unit of the room for transactions: a semaphore counts to less than the bytes of a large queue.
const ROOM_UNIT_BYTES: usize = 1024;

/// Commands on their way to the committer.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Rung when something arrives while [`Queue::wait`] sleeps.
    arrived: Condvar,
    /// One for each transaction that may still join those that wait.
    places: Semaphore,
    /// Room for the bytes of transactions that wait or are being committed, in units of [`ROOM_UNIT_BYTES`].
    room: Semaphore,
    room_units: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: Vec<Command>,
    transactions: usize,
    ticks: bool,
    sleeps: bool,
    closed: bool,
}

/// The right to put one transaction among those that wait.
#[derive(Debug)]
pub(crate) struct Place<'a>(SemaphorePermit<'a>);

/// Room for the bytes of one transaction.
#[derive(Debug)]
pub(crate) struct Space<'a>(SemaphorePermit<'a>);

/// The queue takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl From<AcquireError> for Closed {
    fn from(_: AcquireError) -> Closed {
        Closed
    }
}

impl Queue {
    /// An empty queue of the size that the settings say.
    pub fn new(settings: &Settings) -> Queue {
        let room_units = (settings.queue_bytes_max / ROOM_UNIT_BYTES).min(u32::MAX as usize >> 4);
        Queue {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            places: Semaphore::new(settings.queue_transactions_max),
            room: Semaphore::new(room_units),
            room_units,
        }
    }

    /// Room for a transaction of so many bytes; none when there is none free now.
    pub fn try_space(&self, bytes: usize) -> Result<Option<Space<'_>>, Closed> {
        free(self.room.try_acquire_many(self.units(bytes)).map(Space))
    }

    /// Waits for such room. First come, first served.
    pub async fn space(&self, bytes: usize) -> Result<Space<'_>, Closed> {
        Ok(Space(self.room.acquire_many(self.units(bytes)).await?))
    }

    /// A place for a transaction; none when there is none free now.
    pub fn try_place(&self) -> Result<Option<Place<'_>>, Closed> {
        free(self.places.try_acquire().map(Place))
    }

    /// Waits for a place. First come, first served.
    pub async fn place(&self) -> Result<Place<'_>, Closed> {
        Ok(Place(self.places.acquire().await?))
    }

    /// Bytes that there is room for.
    #[cfg(test)]
    pub fn free_bytes(&self) -> usize {
        self.room.available_permits() * ROOM_UNIT_BYTES
    }

    /// Puts a transaction into its place. With `ring` the committer's thread is woken; without, whoever pushes takes the turn.
    pub fn push(
        &self,
        place: Place<'_>,
        space: Space<'_>,
        mut submission: Box<Submission>,
        ring: bool,
    ) -> Result<(), Closed> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Closed);
        }
        submission.units = space.0.num_permits();
        space.0.forget();
        place.0.forget();
        waiting.transactions += 1;
        waiting.commands.push(Command::Commit(submission));
        if ring {
            self.ring(waiting);
        }
        Ok(())
    }

    /// Puts a command into the queue that needs no room: there are never more of these than callers.
    pub fn command(&self, command: Command) -> Result<(), Closed> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Closed);
        }
        waiting.commands.push(command);
        self.ring(waiting);
        Ok(())
    }

    /// Says that time has passed. Time that passed while the committer was busy counts once.
    pub fn tick(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.closed && !std::mem::replace(&mut waiting.ticks, true) {
            waiting.commands.push(Command::Tick);
            self.ring(waiting);
        }
    }

    fn ring(&self, mut waiting: parking_lot::MutexGuard<'_, Waiting>) {
        let sleeps = std::mem::replace(&mut waiting.sleeps, false);
        drop(waiting);
        if sleeps {
            self.arrived.notify_one();
        }
    }

    /// Waits until there is something to take; `false` when the queue is closed.
    pub fn wait(&self) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.commands.is_empty() && !waiting.closed {
            waiting.sleeps = true;
            self.arrived.wait(&mut waiting);
        }
        waiting.sleeps = false;
        !waiting.closed
    }

    /// Takes everything that waits; `commands` is empty, its memory is used again. The places are free then, the room only when
    /// the transactions are done.
    pub fn take(&self, commands: &mut Vec<Command>) {
        let mut waiting = self.waiting.lock();
        std::mem::swap(&mut waiting.commands, commands);
        waiting.ticks = false;
        let taken = std::mem::take(&mut waiting.transactions);
        drop(waiting);
        self.places.add_permits(taken);
    }

    /// Gives back the room of transactions that are done.
    pub fn give_back(&self, units: usize) {
        self.room.add_permits(units);
    }

    /// Takes nothing more. Who waits for a place, and who was not taken yet, is told that it is closed.
    pub fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        let abandoned = std::mem::take(&mut waiting.commands);
        drop(waiting);
        self.places.close();
        self.room.close();
        self.arrived.notify_one();
        drop(abandoned);
    }

    /// The units that a transaction takes: never more than there are.
    fn units(&self, bytes: usize) -> u32 {
        bytes.div_ceil(ROOM_UNIT_BYTES).min(self.room_units) as u32
    }
}

fn free<T>(taken: Result<T, TryAcquireError>) -> Result<Option<T>, Closed> {
    match taken {
        Ok(taken) => Ok(Some(taken)),
        Err(TryAcquireError::NoPermits) => Ok(None),
        Err(TryAcquireError::Closed) => Err(Closed),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use tokio::sync::oneshot;

    use super::*;
    use crate::store::simulation::poll;
    use crate::store::submission::Answered;
    use crate::types::Limits;

    fn queue(transactions: usize) -> Queue {
        let settings = Settings {
            queue_transactions_max: transactions,
            queue_bytes_max: Limits::TRANSACTION_BYTES_MAX,
            ..Settings::default()
        };
        Queue::new(&settings)
    }

    fn taken(queue: &Queue) -> Vec<Command> {
        let mut commands = Vec::new();
        queue.take(&mut commands);
        commands
    }

    fn push(queue: &Queue, bytes: usize) -> oneshot::Receiver<Answered> {
        let (submission, answer) = Submission::empty();
        let (place, space) = (queue.try_place().unwrap().unwrap(), queue.try_space(bytes).unwrap().unwrap());
        queue.push(place, space, submission, true).unwrap();
        answer
    }

    #[test]
    fn places_are_free_once_taken_and_room_once_given_back() {
        let queue = queue(2);
        let half = Limits::TRANSACTION_BYTES_MAX / 2;
        push(&queue, half);
        push(&queue, 1);
        assert!(queue.try_place().unwrap().is_none(), "there are two places");
        let (mut waits_for_place, mut waits) = (pin!(queue.place()), pin!(queue.space(half)));
        assert!(poll(waits_for_place.as_mut()).is_pending() && poll(waits.as_mut()).is_pending());
        let commands = taken(&queue);
        assert_eq!(commands.len(), 2);
        // The places are free, but what was taken is still in memory.
        assert!(matches!(poll(waits_for_place.as_mut()), Poll::Ready(Ok(_))));
        assert!(poll(waits.as_mut()).is_pending());
        let Some(Command::Commit(first)) = commands.first() else { panic!("transactions were sent") };
        assert_eq!(first.units, half / ROOM_UNIT_BYTES);
        queue.give_back(first.units);
        let Poll::Ready(Ok(space)) = poll(waits.as_mut()) else { panic!("there is room") };
        // Given up without having pushed anything: nothing is lost.
        drop(space);
        assert!(queue.try_space(half).unwrap().is_some());
        assert!(queue.try_space(usize::MAX).unwrap().is_none());
    }

    #[test]
    fn a_transaction_of_any_size_gets_in_once_nothing_else_is_there() {
        let queue = queue(2);
        let space = queue.try_space(usize::MAX).unwrap().unwrap();
        assert!(queue.try_space(1).unwrap().is_none());
        drop(space);
        assert!(queue.try_space(1).unwrap().is_some());
    }

    #[test]
    fn time_that_passes_while_nobody_looks_counts_once() {
        let queue = queue(2);
        (0..3).for_each(|_| queue.tick());
        assert!(matches!(taken(&queue)[..], [Command::Tick]));
        queue.tick();
        assert!(matches!(taken(&queue)[..], [Command::Tick]));
        assert!(taken(&queue).is_empty());
    }

    #[test]
    fn who_waits_when_it_closes_is_told_so() {
        let queue = queue(1);
        let mut answer = push(&queue, 1);
        let (mut waits_for_place, mut waits) = (pin!(queue.place()), pin!(queue.space(usize::MAX)));
        assert!(poll(waits_for_place.as_mut()).is_pending() && poll(waits.as_mut()).is_pending());
        queue.close();
        assert!(matches!(poll(waits_for_place.as_mut()), Poll::Ready(Err(Closed))));
        assert!(matches!(poll(waits.as_mut()), Poll::Ready(Err(Closed))));
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(!queue.wait() && queue.try_place().is_err() && queue.try_space(1).is_err());
        assert_eq!(queue.command(Command::Tick), Err(Closed));
        queue.tick();
        assert!(taken(&queue).is_empty());
    }

    #[test]
    fn what_arrives_wakes_who_sleeps() {
        let queue = queue(1);
        std::thread::scope(|scope| {
            let sleeping = scope.spawn(|| {
                let mut found = 0;
                while queue.wait() {
                    found += taken(&queue).len();
                }
                found
            });
            for _ in 0..1000 {
                queue.command(Command::Tick).unwrap();
            }
            while !queue.waiting.lock().commands.is_empty() {
                std::thread::yield_now();
            }
            queue.close();
            assert_eq!(sleeping.join().unwrap(), 1000);
        });
    }
}
