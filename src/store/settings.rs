//! [`Settings`]: everything that can be tuned, with its default and its meaning.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::retention::Retention;
use crate::types::{Error, ErrorKind, Limits, Result};

/// The settings of a store. None of them changes what is on disk in a way that another value could
/// not read. Bad values are `invalid` at open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// When a change counts as done. Default: [`Durability::Sync`].
    pub durability: Durability,
    /// On which thread a lone transaction is committed. Default: [`CommitOn::OwnThread`].
    pub commit_on: CommitOn,
    /// Size of a log segment in bytes. Default 64 MiB; at least 64 KiB. One spare segment of this size is kept ready.
    pub segment_bytes: u64,
    /// Bytes of disk kept from ordinary writes, for checkpoints. Default (`None`): the smaller of
    /// 5 % of the file system and 1 GiB. On a small disk better more than `memtable_hard_bytes`: that much may wait for its checkpoint.
    pub min_free_bytes: Option<u64>,
    /// Recent writes held in memory before a checkpoint starts, in bytes. Default 64 MiB.
    pub memtable_soft_bytes: usize,
    /// Recent writes held in memory before writers have to wait, in bytes. Default 256 MiB; at least
    /// the soft limit. What the queue holds by then still goes in, so it can become this and `queue_bytes_max`.
    pub memtable_hard_bytes: usize,
    /// Log bytes since the last checkpoint after which one starts, so that an open replays little.
    /// Default 256 MiB.
    pub checkpoint_log_bytes: u64,
    /// Transactions waiting for the committer. Default 4096. More callers wait.
    pub queue_transactions_max: usize,
    /// Bytes of transactions waiting for the committer, encoded and projected. Default 256 MiB; at least one transaction
    /// (64 MiB). More callers wait, with nothing but what they were called with.
    pub queue_bytes_max: usize,
    /// How long a writer waits for room in the queue and in memory, together, before it gets `unavailable`, in
    /// milliseconds. Default 10,000.
    pub write_wait_ms: u64,
    /// How long a request id is remembered at least, in hours of recorded time. Default 168 (7 days).
    pub request_retention_hours: u32,
    /// Whether the base keeps every version since the floor, for reading as of any position. Default true. Turned on again, the base is
    /// rebuilt at the next open.
    pub history: bool,
    /// How much history is kept; needs `history`. Default: [`Retention::Never`] trims by itself.
    pub retention: Retention,
    /// Where trims by retention keep what they remove. Default: nowhere.
    pub archive: Option<PathBuf>,
    /// Cache of the embedded base, in bytes. Default 64 MiB.
    pub cache_bytes: u64,
    /// How fast sealed segments are read again in the background to find damage, in bytes per second. Default 8 MiB;
    /// 0 never does it.
    pub scrub_bytes_per_second: u64,
    /// Pause between two such passes over the whole log, in hours. Default 168 (7 days); at least 1.
    pub scrub_interval_hours: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            durability: Durability::Sync,
            commit_on: CommitOn::OwnThread,
            segment_bytes: 64 << 20,
            min_free_bytes: None,
            memtable_soft_bytes: 64 << 20,
            memtable_hard_bytes: 256 << 20,
            checkpoint_log_bytes: 256 << 20,
            queue_transactions_max: 4096,
            queue_bytes_max: 256 << 20,
            write_wait_ms: 10_000,
            request_retention_hours: 7 * 24,
            history: true,
            retention: Retention::Never,
            archive: None,
            cache_bytes: 64 << 20,
            scrub_bytes_per_second: 8 << 20,
            scrub_interval_hours: 7 * 24,
        }
    }
}

/// When a change counts as done and becomes visible. In every setting checkpoints and other
/// processes stop at the synced position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When it is on disk. An acknowledged change survives power loss.
    #[default]
    Sync,
    /// When it was handed to the operating system; synced at most this many milliseconds later.
    /// Survives a killed process; power loss may take the last interval, always from the end.
    Interval {
        /// Longest time between a change and its sync.
        ms: u64,
    },
    /// When it was handed to the operating system; synced at checkpoint and close only. Survives a
    /// killed process; power loss may take everything since the last checkpoint.
    None,
}

/// On which thread a transaction is appended and synced when nobody else is writing. With several writers at once it is
/// always a thread of the store, which brings all that wait to the disk with one sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitOn {
    /// A thread of the store: no thread of a caller ever waits for the disk.
    #[default]
    OwnThread,
    /// The thread that polls the caller, which saves waking two threads: some tens of microseconds of each write.
    ///
    /// The thread is blocked for one sync. On a multi-threaded tokio runtime its other tasks are handed over
    /// (`tokio::task::block_in_place`, so other branches of the same task wait, and within a `LocalSet` it panics); on a
    /// single-threaded one the store's own thread is used all the same. Without a runtime the caller's thread does it.
    CallerThread,
}

impl Settings {
    /// Refuses what cannot work.
    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, format!("invalid setting, {what}")));
        if self.segment_bytes < 64 << 10 || self.segment_bytes > 1 << 40 {
            return invalid(format!("segment_bytes=`{}` range=`65536..=1099511627776`", self.segment_bytes));
        }
        if self.memtable_hard_bytes < self.memtable_soft_bytes || self.memtable_soft_bytes == 0 {
            return invalid(format!(
                "memtable_hard_bytes=`{}` memtable_soft_bytes=`{}`; the hard limit is not below the soft one, neither is 0",
                self.memtable_hard_bytes, self.memtable_soft_bytes
            ));
        }
        if self.queue_transactions_max == 0 || self.queue_transactions_max > 1 << 20 {
            return invalid(format!("queue_transactions_max=`{}` range=`1..=1048576`", self.queue_transactions_max));
        }
        if self.queue_bytes_max < Limits::TRANSACTION_BYTES_MAX || self.queue_bytes_max > 1 << 40 {
            return invalid(format!(
                "queue_bytes_max=`{}` range=`{}..=1099511627776`",
                self.queue_bytes_max,
                Limits::TRANSACTION_BYTES_MAX
            ));
        }
        if matches!(self.durability, Durability::Interval { ms: 0 }) {
            return invalid("durability.interval.ms=`0`; choose `sync`".to_owned());
        }
        if matches!(self.retention, Retention::Days(0) | Retention::Bytes(0)) {
            return invalid("retention=`0`; keep something".to_owned());
        }
        if !self.history && self.retention != Retention::Never {
            return invalid(
                "retention together with history=`false`; without a history no earlier state can become the floor"
                    .to_owned(),
            );
        }
        if self.scrub_interval_hours == 0 {
            return invalid("scrub_interval_hours=`0`; to have no scrub set scrub_bytes_per_second to 0".to_owned());
        }
        if self.checkpoint_log_bytes == 0 {
            return invalid("checkpoint_log_bytes=`0`".to_owned());
        }
        Ok(())
    }
}
