//! [`Answers`]: telling callers that their transactions are done.
//!
//! A task that is woken from outside its runtime takes a lock of the whole runtime, and often a system call to wake a thread that
//! then finds this one task. So many answers go into the runtime as one task, which wakes the callers from the inside.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::submission::{Answered, Submission};
use crate::types::Position;

/// Fewer are told one by one: the task would cost as much, and they would wait for its turn.
const TOGETHER_MIN: usize = 100;

/// Answers on their way to callers.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Where callers probably are. None: each is told at once.
    runtime: Option<Handle>,
    ready: Arc<Ready>,
}

/// Transactions that are done, and whose callers were not told yet.
#[derive(Debug, Default)]
struct Ready(Mutex<Vec<Done>>);

type Done = (Position, Box<Submission>);

/// Tells everybody who waits when it is dropped: also by a runtime that ends before it runs the task.
struct Telling(Arc<Ready>);

impl Answers {
    /// Each caller is told at once.
    pub fn at_once() -> Answers {
        Answers { runtime: None, ready: Arc::default() }
    }

    /// Many are told by a task of this runtime. Not where it has one thread, which may run no tasks for as long as it likes.
    pub fn through(runtime: &Handle) -> Answers {
        let shared = runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        Answers { runtime: shared.then(|| runtime.clone()), ready: Arc::default() }
    }

    /// Tells, now or soon, the callers of these transactions.
    pub fn give(&self, done: impl ExactSizeIterator<Item = Done>) {
        let Some(runtime) = self.runtime.as_ref().filter(|_| done.len() >= TOGETHER_MIN) else {
            return done.for_each(tell);
        };
        let mut ready = self.ready.0.lock();
        // Where some wait already, the task that tells them is on its way.
        let first = ready.is_empty();
        ready.extend(done);
        drop(ready);
        if first {
            let telling = Telling(self.ready.clone());
            runtime.spawn(async move { drop(telling) });
        }
    }

    /// Tells everybody who waits. Called from time to time, it bounds how long a runtime whose threads are all blocked, maybe by
    /// callers who wait for their answers, can hold answers back.
    pub fn flush(&self) {
        self.ready.tell();
    }
}

impl Ready {
    fn tell(&self) {
        let ready = std::mem::take(&mut *self.0.lock());
        ready.into_iter().for_each(tell);
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.tell();
    }
}

fn tell((position, mut submission): Done) {
    if let Some(reply) = submission.reply.take() {
        // A caller who went away does not undo what is done.
        let _ = reply.send(Answered { fate: Ok(position), _remains: Some(submission) });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;

    use super::*;

    /// So many transactions, given, and where their answers come.
    fn given(answers: &Answers, count: u64) -> Vec<Receiver<Answered>> {
        let (done, receivers): (Vec<Done>, Vec<_>) = (0..count)
            .map(|i| {
                let (submission, receiver) = Submission::empty();
                ((Position(i), submission), receiver)
            })
            .unzip();
        answers.give(done.into_iter());
        receivers
    }

    fn told(receivers: &mut [Receiver<Answered>]) -> Vec<u64> {
        let positions = receivers.iter_mut().filter_map(|receiver| receiver.try_recv().ok());
        positions.map(|answered| answered.fate.unwrap().0).collect()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    const MANY: u64 = 3 * TOGETHER_MIN as u64;

    #[test]
    fn each_is_told_its_own_position() {
        let runtime = runtime();
        let answers = Answers::through(runtime.handle());
        for count in [1, MANY, MANY] {
            for (i, receiver) in (0..).zip(given(&answers, count)) {
                assert_eq!(receiver.blocking_recv().unwrap().fate.unwrap(), Position(i));
            }
        }
    }

    #[test]
    fn without_a_runtime_of_many_threads_all_are_told_at_once() {
        let single = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for answers in [Answers::at_once(), Answers::through(single.handle())] {
            assert_eq!(told(&mut given(&answers, MANY)).len() as u64, MANY);
        }
    }

    #[test]
    fn a_runtime_that_has_ended_holds_nothing_back() {
        let runtime = runtime();
        let answers = Answers::through(runtime.handle());
        drop(runtime);
        assert_eq!(told(&mut given(&answers, MANY)).len() as u64, MANY);
    }

    #[test]
    fn a_runtime_whose_threads_are_blocked_holds_nothing_back_for_long() {
        let runtime = runtime();
        let answers = Answers::through(runtime.handle());
        let (unblock, blocked) = std::sync::mpsc::channel::<()>();
        let (begun, begins) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            begun.send(()).unwrap();
            blocked.recv().unwrap_err();
        });
        begins.recv().unwrap();
        let mut receivers = given(&answers, MANY);
        receivers.extend(given(&answers, MANY));
        assert!(told(&mut receivers).is_empty());
        answers.flush();
        assert_eq!(told(&mut receivers).len() as u64, 2 * MANY);
        drop(unblock);
    }
}
