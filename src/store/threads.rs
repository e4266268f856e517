//! The store's threads: thin loops around what can be stepped without them.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as std_mpsc;
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::answers::Answers;
use super::checkpoint;
use super::committer::Committer;
use super::engine::Shared;
use super::scrub::{FIRST_WAIT, Scrub};
use super::settings::{CommitOn, Durability};
use super::submission::Command;
use super::turn::take_turns;
use crate::types::{Error, ErrorKind, Result};

/// The longest time between two ticks of the committer.
const TICK: Duration = Duration::from_millis(100);
/// Wait after a failed checkpoint or upkeep before the next try.
const RETRY: Duration = Duration::from_secs(1);

/// Committer, checkpoint and upkeep.
#[derive(Debug)]
pub(crate) struct Threads {
    handles: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped to stop upkeep, scrub and the wait after a failed checkpoint at once.
    stop: Mutex<Vec<std_mpsc::Sender<()>>>,
    /// For callers who commit themselves.
    committer: Option<Arc<Mutex<Committer>>>,
    shared: Arc<Shared>,
}

impl Threads {
    /// Starts them. Futures of the backend run on the given runtime.
    pub fn start(shared: &Arc<Shared>, committer: Committer, handle: &Handle) -> Result<Threads> {
        let (stop_upkeep, stopped) = std_mpsc::channel();
        let (stop_scrub, scrub_stopped) = std_mpsc::channel();
        let (stop_checkpoints, checkpoints_stopped) = std_mpsc::channel();
        let stop = Mutex::new(vec![stop_upkeep, stop_scrub, stop_checkpoints]);
        let insertion = committer.insertion();
        let committer = Arc::new(Mutex::new(committer.answering(Answers::through(handle))));
        let for_callers = (shared.settings.commit_on == CommitOn::CallerThread).then(|| committer.clone());
        let threads = Threads { handles: Mutex::default(), stop, committer: for_callers, shared: shared.clone() };
        let commit_shared = shared.clone();
        threads.spawn("lakelog-commit", move || take_turns(&committer, &commit_shared.queue))?;
        threads.spawn("lakelog-insert", move || insertion.run())?;
        let (checkpoint_shared, runtime) = (shared.clone(), handle.clone());
        threads.spawn("lakelog-checkpoint", move || {
            runtime.block_on(checkpoints(&checkpoint_shared, &checkpoints_stopped));
        })?;
        let upkeep_shared = shared.clone();
        threads.spawn("lakelog-upkeep", move || upkeep(&upkeep_shared, &stopped))?;
        if shared.settings.scrub_bytes_per_second > 0 {
            let scrub = Scrub::new(shared.clone());
            threads.spawn("lakelog-scrub", move || scrub_until(scrub, &scrub_stopped))?;
        }
        Ok(threads)
    }

    /// None: whoever holds the committer steps it.
    #[cfg(test)]
    pub fn none(shared: &Arc<Shared>) -> Threads {
        Threads { handles: Mutex::default(), stop: Mutex::default(), committer: None, shared: shared.clone() }
    }

    /// The committer, where callers may step it.
    pub fn committer(&self) -> Option<&Mutex<Committer>> {
        self.committer.as_deref()
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("cannot start a thread, name=`{name}`")).with_source(error)
        })?;
        self.handles.lock().push(thread);
        Ok(())
    }

    /// Waits until all have ended; the store is closing.
    pub fn join(&self) {
        self.stop.lock().clear();
        let handles = std::mem::take(&mut *self.handles.lock());
        for handle in handles {
            if handle.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The last handle is gone without a close. Nobody waits for the threads: they end by themselves once they
        // see that the store is closing, and only then is the directory free.
        self.shared.closing.store(true, Ordering::Release);
        let (reply, _) = tokio::sync::oneshot::channel();
        // Behind everything that waits: each of those is still answered.
        let _ = self.shared.queue.command(Command::Close(reply));
        self.shared.checkpoint_due.notify_one();
    }
}

/// Has a thread of its own, so what blocks it delays nobody. Maintenance of the base goes on between checkpoints, a piece at a time:
/// merging a long history takes longer than writers take to fill the memory that a checkpoint frees. Not beside them on another thread:
/// what both hold of large values together is more than the store may take.
async fn checkpoints(shared: &Arc<Shared>, stopped: &std_mpsc::Receiver<()>) {
    // `more`: the base may have work left.
    let (mut due, mut more) = (false, false);
    loop {
        let mut notified = pin!(shared.checkpoint_due.notified());
        if !more && !due {
            notified.await;
            due = true;
        } else if notified.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            due = true;
        }
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        // As long as nobody is near to waiting for it, maintenance goes on: under constant load it would come to nothing otherwise.
        // Somebody may have made one meanwhile.
        due = due && checkpoint::is_due(shared, shared.view.layers().bytes());
        if due && (!more || checkpoint::presses(shared)) {
            due = false;
            if let Err(error) = checkpoint::run_beside_writers(shared).await {
                tracing::warn!(error = %error.report(), "checkpoint failed; it is tried again");
                // Not a timer of the runtime: that may be shutting down with the store still open, and its timers panic then.
                if let Err(std_mpsc::RecvTimeoutError::Disconnected) = stopped.recv_timeout(RETRY) {
                    return;
                }
                // Whoever waits for memory has asked for it once, and waits.
                due = true;
                continue;
            }
        }
        more = checkpoint::maintain(shared).await.unwrap_or_else(|error| {
            tracing::warn!(error = %error.report(), "maintenance of the base failed");
            false
        });
    }
}

/// Ends at once when the store closes: at most one piece is being read.
fn scrub_until(mut scrub: Scrub, stopped: &std_mpsc::Receiver<()>) {
    let mut wait = FIRST_WAIT;
    while let Err(std_mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
        wait = scrub.step();
    }
}

fn upkeep(shared: &Shared, stopped: &std_mpsc::Receiver<()>) {
    // What a replay left; nobody has to wait for that.
    let replayed = shared.view.layers().active().clone();
    replayed.pack();
    drop(replayed);
    let tick = match shared.settings.durability {
        Durability::Interval { ms } => TICK.min(Duration::from_millis(ms)),
        Durability::Sync | Durability::None => TICK,
    };
    let mut due = Instant::now();
    loop {
        if Instant::now() >= due
            && let Err(error) = shared.log.upkeep()
        {
            // The next append that needs the room says so to its caller. Not at every tick: a quota that is
            // met half-way would have all of it written again each time.
            due = Instant::now() + RETRY;
            tracing::debug!(error = &error as &dyn std::error::Error, "upkeep of the log failed");
        }
        match stopped.recv_timeout(tick) {
            Err(std_mpsc::RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        if shared.closing.load(Ordering::Acquire) {
            return;
        }
        checkpoint::free_retired(shared);
        shared.queue.tick();
    }
}
