//! The store in a simulated world: one seed gives a schedule of everything that a store does, and of everything that happens to it.
//!
//! No threads: the harness polls the callers in an order of the seed, steps the committer between them and runs checkpoints, so a
//! seed repeats a run. The base is one in memory, which survives every crash with its last whole write, as its contract says; now
//! and then it is lost, or an older copy of it comes back.
//!
//! [`schedule`] chooses what happens, [`run`] lets it happen and knows what was asked and answered, [`model`] knows what must
//! come of it, [`check`] opens what is left and asserts the four invariants of the fault catalogue: what was acknowledged is
//! there, in order, unchanged (I1); no transaction is there in part (I2); none is there twice or elsewhere (I3); views rebuilt
//! from zero equal the live ones (I4).
//!
//! A failure prints the command that runs its case alone. `scripts/simulate` goes through as many seeds as there is time for.

mod base;
mod calls;
mod check;
mod model;
mod run;
mod schedule;
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::committer::Committer;
use super::open::{Existing, open_stepped};
use super::threads::Threads;
use super::{Batch, Committed, Context, Settings, Store, checkpoint};
use crate::backends::{Backend, MemoryBackend};
use crate::env::sim::SimWorld;
use crate::types::{Position, Result};

const DIR: &str = "/store";
/// Turns after which a caller counts as forgotten.
const TURNS_MAX: usize = 1_000_000;

/// What waits for an answer of the store.
pub(super) type Caller<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A store without threads.
pub(super) struct Stepped {
    pub store: Store,
    pub committer: Committer,
}

thread_local! {
    /// So many callers up the stack step a store on this thread.
    static STEPPING: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread steps a store: then nothing is done on another one, so that a seed repeats a run.
pub(super) fn steps_here() -> bool {
    STEPPING.get() > 0
}

/// Marks the thread, for as long as it is there.
struct Stepping;

impl Stepping {
    fn begin() -> Stepping {
        STEPPING.set(STEPPING.get() + 1);
        Stepping
    }
}

impl Drop for Stepping {
    fn drop(&mut self) {
        STEPPING.set(STEPPING.get() - 1);
    }
}

impl Stepped {
    pub fn open(world: &SimWorld, base: &MemoryBackend, settings: &Settings) -> Result<Stepped> {
        Stepped::open_in(DIR, world, Arc::new(base.clone()), settings)
    }

    fn open_in(dir: &str, world: &SimWorld, base: Arc<dyn Backend>, settings: &Settings) -> Result<Stepped> {
        let builder = Store::builder(dir).settings(settings.clone());
        let builder = builder.with_env(world.env()).with_backend(base);
        let opened = alone(open_stepped(builder, Existing::Allowed))?;
        let store = Store::new(opened.shared.clone(), Threads::none(&opened.shared));
        Ok(Stepped { store, committer: opened.committer })
    }

    /// Polls the callers in turn and steps the committer until all are answered.
    pub fn drive<T>(&mut self, callers: Vec<Caller<'_, T>>) -> Vec<T> {
        let mut turn = 0;
        self.drive_by(callers, |waiting| {
            let now = turn % (waiting + 1);
            turn = now + 1;
            now
        })
    }

    /// The same in an order that is drawn: who is polled next, and when the committer has its turn.
    pub fn drive_at_random<T>(&mut self, callers: Vec<Caller<'_, T>>, random: &mut StdRng) -> Vec<T> {
        self.drive_by(callers, |waiting| random.random_range(0..=waiting))
    }

    /// `next` is asked with the number of callers that wait, and says whose turn it is: that of one of them, or, at the number
    /// itself, the committer's.
    fn drive_by<T>(&mut self, callers: Vec<Caller<'_, T>>, mut next: impl FnMut(usize) -> usize) -> Vec<T> {
        let mut answers: Vec<Option<T>> = callers.iter().map(|_| None).collect();
        let mut waiting: Vec<(usize, Caller<'_, T>)> = callers.into_iter().enumerate().collect();
        // Nothing ever gets to wait for its timer, but timers need a runtime to be made.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = (runtime.enter(), Stepping::begin());
        for _ in 0..TURNS_MAX {
            if waiting.is_empty() {
                return answers.into_iter().flatten().collect();
            }
            let turn = next(waiting.len());
            match waiting.get_mut(turn) {
                None => drop(self.committer.step_waiting()),
                Some((caller, future)) => {
                    if let Poll::Ready(done) = poll(future.as_mut()) {
                        answers[*caller] = Some(done);
                        drop(waiting.remove(turn));
                    }
                }
            }
        }
        panic!("a caller was never answered");
    }

    pub fn one<T>(&mut self, caller: impl Future<Output = T> + 'static) -> T {
        self.drive(vec![Box::pin(caller)]).remove(0)
    }

    pub fn write(&mut self, actor: &str, batch: Batch) -> Result<Committed<()>> {
        let (store, context) = (self.store.clone(), Context::new(actor));
        self.one(async move { store.write(context, batch).await })
    }

    pub fn checkpoint(&mut self) -> Result<Position> {
        let shared = self.store.shared().clone();
        self.one(async move { checkpoint::run(&shared).await })
    }

    /// Everything in the view, the store's own partitions included.
    pub fn entries(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        ready(async {
            let mut entries = self.store.reader().scan_all(true);
            let mut found = BTreeMap::new();
            while let Some(entry) = entries.next().await {
                let entry = entry.unwrap();
                found.insert(entry.encoded_key.to_vec(), entry.value.to_vec());
            }
            found
        })
    }
}

pub(super) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// Runs what waits for nothing but its next turn.
fn alone<F: Future>(future: F) -> F::Output {
    let _stepping = Stepping::begin();
    let mut future = pin!(future);
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
    }
    panic!("something waited for what nobody does");
}

/// Runs what never waits: files of the simulation and a memory base answer at once.
pub(super) fn ready<F: Future>(future: F) -> F::Output {
    let _stepping = Stepping::begin();
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("something waited that never should"),
    }
}
