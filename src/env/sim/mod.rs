//! The simulated world of the crash tests: a disk in memory that knows synced from unsynced, a clock that
//! tests set, randomness from a seed.
//!
//! [`SimFs`] keeps every promise that [`Fs`](super::Fs) makes and breaks everything it does not promise, on demand:
//!
//! - [`SimFs::crash`] is a power loss. Of what was written since the last sync of a file, each
//!   512-byte sector is kept or lost as [`Keep`] says, in any of the versions it had; sizes and directory entries too.
//! - [`SimFs::kill`] is the end of the process: everything written stays, locks are released.
//! - [`SimFs::crash_at`] makes the n-th changing operation from now, and all after it, fail: a test runs its
//!   workload until that happens, then calls [`SimFs::crash`] or [`SimFs::kill`] and opens again.
//! - [`SimFs::inject`] fails, shortens or interrupts chosen operations. A failed sync behaves as on Linux: the
//!   pages look clean and hold the new bytes, but a part of them is not on the disk and never will be.
//! - [`SimFs::stall`] lets chosen operations not come back until a test says so.
//! - [`SimFs::fail_reads`], [`SimFs::set_capacity`], [`SimFs::set_read_only`]: bad sectors, full disks, a file system that turned read-only.
//! - [`SimFs::fork`] copies the world, so that one moment can end in many ways.
//!
//! Handles opened before a crash or kill fail afterwards. What a sector keeps, it keeps whole: writes within 512
//! bytes do not tear.
//!
//! ```
//! # use lakelog::env::{FileExt as _, Fs as _, OpenMode, sim::{Keep, SimFs}};
//! # use std::path::Path;
//! let fs = SimFs::new(1);
//! let file = fs.open(Path::new("/file"), OpenMode::CreateNew)?;
//! fs.sync_dir(Path::new("/"))?;
//! file.write_all_at(b"synced", 0)?;
//! file.sync_data()?;
//! file.write_all_at(b"unsynced", 512)?;
//! fs.crash(Keep::Nothing);
//! assert_eq!(fs.content(Path::new("/file")).as_deref(), Some(&b"synced"[..]));
//! # std::io::Result::Ok(())
//! ```

mod disk;
mod faults;
mod fs;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

pub use disk::Keep;
pub use faults::{Effect, Fault, Operation};
pub use fs::{SimFs, Stall};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Clock, Entropy, Env};
use crate::types::Timestamp;

/// A clock that stands still until it is set. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimClock(Arc<AtomicI64>);

impl SimClock {
    /// Sets the time; it may go back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    /// Moves the time on, or back, by so many microseconds.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// Randomness that a seed repeats. Clones share it.
#[derive(Clone, Debug)]
pub struct SimEntropy(Arc<Mutex<StdRng>>);

impl SimEntropy {
    /// From a seed.
    pub fn new(seed: u64) -> SimEntropy {
        SimEntropy(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().fill(buffer);
    }
}

/// All three, from one seed.
#[derive(Clone, Debug)]
pub struct SimWorld {
    /// The disk.
    pub fs: SimFs,
    /// The clock.
    pub clock: SimClock,
    /// The randomness.
    pub entropy: SimEntropy,
}

impl SimWorld {
    /// An empty world: a root directory `/`, time 0.
    pub fn new(seed: u64) -> SimWorld {
        SimWorld { fs: SimFs::new(seed), clock: SimClock::default(), entropy: SimEntropy::new(seed) }
    }

    /// The world as the store takes it. All envs of one world share disk, clock and randomness.
    pub fn env(&self) -> Env {
        Env {
            fs: Arc::new(self.fs.clone()),
            clock: Arc::new(self.clock.clone()),
            entropy: Arc::new(self.entropy.clone()),
        }
    }

    /// A copy that goes its own way from here: disk copied as [`SimFs::fork`] does, time copied, randomness
    /// seeded anew.
    pub fn fork(&self, seed: u64) -> SimWorld {
        let world = SimWorld { fs: self.fs.fork(seed), clock: SimClock::default(), entropy: SimEntropy::new(seed) };
        world.clock.set(self.clock.now());
        world
    }
}

#[cfg(test)]
mod tests;
