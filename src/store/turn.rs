//! [`Turn`]: who steps the committer, its own thread or a caller's.
//!
//! Knows nothing of what a step does.

use parking_lot::{Mutex, MutexGuard};

use super::queue::Queue;

/// What takes steps, one at a time.
pub(crate) trait Steps {
    /// Handles everything that waits, without blocking for more.
    fn handle_waiting(&mut self);

    /// Whether at most one command waited at the last step.
    fn is_alone(&self) -> bool;

    /// Whether there is nothing more to do.
    fn has_ended(&self) -> bool;

    /// Ends after a panic in the middle of a step.
    fn break_off(&mut self);
}

/// The right to take a step.
pub(crate) struct Turn<'a, S: Steps>(MutexGuard<'a, S>);

impl<'a, S: Steps> Turn<'a, S> {
    /// Waits for it.
    pub fn wait(steps: &'a Mutex<S>) -> Turn<'a, S> {
        Turn(steps.lock())
    }

    /// When nobody else has it and, as far as can be seen, nobody else writes: where there are more writers they wait for a
    /// sync anyway, and a caller who does the work of all answers late.
    pub fn try_take(steps: &'a Mutex<S>) -> Option<Turn<'a, S>> {
        steps.try_lock().filter(|steps| steps.is_alone()).map(Turn)
    }

    /// Handles everything that waits; `false` when there is nothing more to do.
    pub fn step(&mut self) -> bool {
        self.0.handle_waiting();
        !self.0.has_ended()
    }
}

impl<S: Steps> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.break_off();
        }
    }
}

/// Takes turns until there is nothing more to do, or the queue is closed.
pub(crate) fn take_turns<S: Steps>(steps: &Mutex<S>, queue: &Queue) {
    while queue.wait() && Turn::wait(steps).step() {}
}
