//! The models: a few threads each, small enough for many orders. That nobody waits for ever is shuttle's to see: it fails where every thread
//! waits.

use parking_lot::Mutex;
use shuttle::future::block_on;
use shuttle::sync::Arc;
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread::{self, JoinHandle};
use tokio::sync::oneshot;

use crate::insertion::{Insertion, Pending};
use crate::projection::Memtable;
use crate::queue::{Closed, Queue};
use crate::settings::Settings;
use crate::submission::{Command, Submission};
use crate::turn::{Steps, Turn, take_turns};
use crate::types::Position;

/// Answers every transaction with its number.
struct Committer {
    queue: Arc<Queue>,
    commands: Vec<Command>,
    handled: u64,
    ticks: Sender<()>,
    alone: bool,
    ended: bool,
}

impl Steps for Committer {
    fn handle_waiting(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        self.queue.take(&mut commands);
        self.alone = commands.len() <= 1;
        for command in commands.drain(..) {
            match command {
                // Not answered: its writer is told by that.
                Command::Commit(submission) if self.ended => self.queue.give_back(submission.units),
                Command::Commit(mut submission) => {
                    self.handled += 1;
                    let reply = submission.reply.take().expect("nobody has answered it");
                    reply.send(self.handled).expect("its writer waits");
                    self.queue.give_back(submission.units);
                }
                Command::Tick => self.ticks.send(()).expect("somebody counts them"),
                Command::Close(reply) => {
                    self.ended = true;
                    self.queue.close();
                    reply.send(()).expect("who closes waits");
                }
            }
        }
        self.commands = commands;
    }

    fn is_alone(&self) -> bool {
        self.alone
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn break_off(&mut self) {
        self.queue.close();
    }
}

/// A queue with its committer, whose thread runs.
struct World {
    queue: Arc<Queue>,
    committer: Arc<Mutex<Committer>>,
    /// Ticks that the committer has met.
    felt: Receiver<()>,
    thread: JoinHandle<()>,
}

impl World {
    fn new(queue_transactions_max: usize, queue_bytes_max: usize) -> World {
        let queue = Arc::new(Queue::new(&Settings { queue_transactions_max, queue_bytes_max }));
        let ((ticks, felt), commands, handled) = (channel(), Vec::new(), 0);
        let committer = Committer { queue: queue.clone(), commands, handled, ticks, alone: true, ended: false };
        let committer = Arc::new(Mutex::new(committer));
        let (own, rung) = (committer.clone(), queue.clone());
        let thread = thread::spawn(move || take_turns(&own, &rung));
        World { queue, committer, felt, thread }
    }

    /// A thread that writes so often, each time so many bytes; on it, where it finds nobody else. What it is answered.
    fn writer(&self, writes: usize, bytes: usize, commits: bool) -> JoinHandle<Vec<Result<u64, Closed>>> {
        let (queue, committer) = (self.queue.clone(), self.committer.clone());
        thread::spawn(move || {
            let committer = Some(&*committer).filter(|_| commits);
            (0..writes).map(|_| block_on(write(&queue, bytes, committer))).collect()
        })
    }

    /// Closes, and gives how many transactions were answered. Everybody else is done, or is told.
    fn close(self) -> u64 {
        let (reply, closed) = oneshot::channel();
        self.queue.command(Command::Close(reply)).expect("nobody else closes");
        block_on(closed).expect("the committer answers a close");
        self.thread.join().expect("the committer's thread ends");
        self.committer.lock().handled
    }
}

/// What `Shared::submit` does.
async fn write(queue: &Queue, bytes: usize, committer: Option<&Mutex<Committer>>) -> Result<u64, Closed> {
    let space = match queue.try_space(bytes)? {
        Some(space) => space,
        None => queue.space(bytes).await?,
    };
    let place = match queue.try_place()? {
        Some(place) => place,
        None => queue.place().await?,
    };
    let (submission, answer) = Submission::new(0);
    match committer.and_then(Turn::try_take) {
        Some(mut turn) => {
            queue.push(place, space, submission, false)?;
            turn.step();
        }
        None => queue.push(place, space, submission, true)?,
    }
    answer.await.map_err(|_| Closed)
}

fn joined<T>(threads: Vec<JoinHandle<Vec<T>>>) -> Vec<T> {
    threads.into_iter().flat_map(|thread| thread.join().expect("a writer ends")).collect()
}

/// As many numbers, each once.
fn assert_all_answered(answers: Vec<Result<u64, Closed>>) {
    let mut numbers: Vec<u64> = answers.into_iter().map(|answer| answer.expect("nobody has closed")).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
}

pub fn every_write_is_answered() {
    let world = World::new(8, 64 << 10);
    let writers = (0..2).map(|_| world.writer(2, 100, false)).collect();
    world.queue.tick();
    assert_all_answered(joined(writers));
    assert_eq!(world.close(), 4);
}

pub fn a_full_queue_lets_in_whom_it_has_room_for() {
    // One place and room for one of them; a transaction larger than all the room gets all of it.
    let world = World::new(1, 4 << 10);
    let writers = [3000, 3000, 9000].into_iter().map(|bytes| world.writer(2, bytes, false)).collect();
    assert_all_answered(joined(writers));
    let all = world.queue.try_space(4 << 10);
    assert!(matches!(all, Ok(Some(_))), "room was lost");
    drop(all);
    assert!(matches!(world.queue.try_place(), Ok(Some(_))), "a place was lost");
    world.close();
}

pub fn a_close_leaves_nobody_waiting_for_room() {
    closed_while_they_write(World::new(8, 4 << 10), 3000);
}

pub fn a_close_leaves_nobody_waiting_for_a_place() {
    closed_while_they_write(World::new(1, 64 << 10), 100);
}

fn closed_while_they_write(world: World, bytes: usize) {
    let writers = (0..3).map(|number| world.writer(2, bytes, number == 0)).collect();
    let handled = world.close();
    let answered = joined(writers).into_iter().filter(Result::is_ok).count();
    assert_eq!(answered as u64, handled, "an answer went astray");
}

pub fn callers_and_the_thread_take_turns() {
    let world = World::new(8, 64 << 10);
    let writers = [true, true, false].into_iter().map(|commits| world.writer(2, 100, commits)).collect();
    world.queue.tick();
    assert_all_answered(joined(writers));
    assert_eq!(world.close(), 6);
}

pub fn every_tick_is_felt() {
    let world = World::new(8, 64 << 10);
    let writer = world.writer(1, 100, true);
    for _ in 0..3 {
        world.queue.tick();
        world.felt.recv().expect("the committer is there");
    }
    assert_all_answered(joined(vec![writer]));
    world.close();
}

/// So many transactions behind `head`, each with its position as content.
fn pending(head: u64, count: u64) -> Pending {
    let mut pending = Pending::default();
    pending.accepted.extend((head + 1..=head + count).map(|position| Submission::new(position).0));
    pending
}

/// An insertion with its thread, and where it inserts.
fn with_thread() -> (Arc<Insertion>, Arc<Memtable>, JoinHandle<()>) {
    let insertion = Arc::new(Insertion::default());
    let beside = insertion.clone();
    (insertion, Arc::default(), thread::spawn(move || beside.run()))
}

/// How many were inserted: each once, in order.
fn inserted(table: &Memtable) -> u64 {
    let inserted = table.inserted.lock();
    let count = inserted.len() as u64;
    assert!(inserted.iter().copied().eq((1..=count).map(|position| (Position(position), position))), "{inserted:?}");
    count
}

pub fn a_batch_is_inserted_once_whoever_does() {
    let (insertion, table, thread) = with_thread();
    let mut head = 0;
    // For the first and the last the thread is woken. Of those some are in the table already, as when a later transaction of the batch may
    // have read what they write.
    for (before, behind) in [(0, 8), (0, 2), (2, 8)] {
        let mut begun = pending(head, before);
        begun.insert(&table, Position(head));
        begun.accepted.extend(pending(head + before, behind).accepted);
        insertion.begin(begun, table.clone(), Position(head));
        // The append.
        thread::yield_now();
        let ended = insertion.end();
        assert_eq!(ended.accepted.len() as u64, before + behind);
        head += before + behind;
        assert_eq!(inserted(&table), head);
    }
    insertion.stop();
    thread.join().expect("the thread ends");
}

pub fn an_end_in_the_middle_of_a_batch() {
    let (insertion, table, thread) = with_thread();
    insertion.begin(pending(0, 8), table.clone(), Position(0));
    // As when the committer panics in an append.
    insertion.stop();
    thread.join().expect("the thread ends");
    assert!(insertion.end().accepted.is_empty(), "the batch was let go");
    assert!(inserted(&table) <= 8);
}
