//! Chosen failures: which operation, on which path, and what becomes of it.

use std::io;
use std::path::Path;

/// What is done to a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening a file, existing or new.
    Open,
    /// Reading content.
    Read,
    /// Writing content.
    Write,
    /// Syncing a file.
    Sync,
    /// Syncing a directory.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a file or a directory with everything in it.
    Remove,
    /// Changing a size.
    SetLen,
    /// Creating a file or directory (after [`Operation::Open`], for a file).
    Create,
    /// Listing a directory.
    List,
    /// Taking a lock.
    Lock,
}

impl Operation {
    /// Whether it changes the disk or makes changes durable: these are counted.
    pub(super) fn changes(self) -> bool {
        !matches!(self, Operation::Open | Operation::Read | Operation::List)
    }
}

/// What becomes of a chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails, and nothing is done. A failed sync also forgets what it should have synced.
    Fail(io::ErrorKind),
    /// Half of the bytes are read or written, without an error.
    Short,
    /// Nothing is written, without an error.
    Nothing,
    /// Half of the bytes are written, then it fails.
    FailHalfway(io::ErrorKind),
}

/// A failure to come, built step by step:
/// `Fault::on(Operation::Sync).path(".seg").after(2)` is the third sync of a segment failing with an I/O error.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    path: String,
    after: u64,
    times: u64,
    effect: Effect,
}

impl Fault {
    /// The next such operation fails once, as a disk error does (`Other`).
    pub fn on(operation: Operation) -> Fault {
        Fault { operation, path: String::new(), after: 0, times: 1, effect: Effect::Fail(io::ErrorKind::Other) }
    }

    /// Only on paths that contain this.
    #[must_use]
    pub fn path(mut self, part: &str) -> Fault {
        self.path = part.to_owned();
        self
    }

    /// So many matching operations pass before.
    #[must_use]
    pub fn after(mut self, passed: u64) -> Fault {
        self.after = passed;
        self
    }

    /// So many matching operations are concerned; `u64::MAX` for all.
    #[must_use]
    pub fn times(mut self, times: u64) -> Fault {
        self.times = times;
        self
    }

    /// What becomes of them.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Fault {
        self.effect = effect;
        self
    }

    /// The effect on an operation; counts it when it matches.
    pub(super) fn strike(&mut self, operation: Operation, path: &Path) -> Option<Effect> {
        if operation != self.operation || self.times == 0 || !path.to_string_lossy().contains(&self.path) {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        self.times = self.times.saturating_sub(1);
        Some(self.effect)
    }
}
