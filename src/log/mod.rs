//! The log: the truth of the store (laws 1 to 3, 6 and 7).
//!
//! Owns frames, segments, manifest, lock, recovery. Payloads are opaque bytes: what they mean is
//! the business of `event`. A log gives one order: it appends whole batches at an expected head and
//! reads from a position; who may append what is decided by the committer before.

mod append;
mod apply;
mod archive;
mod attached;
mod copy;
mod creation;
#[cfg(test)]
mod damage;
mod error;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod manifest;
#[cfg(test)]
mod misplaced;
mod reader;
mod recovery;
mod redact;
mod repair;
#[cfg(test)]
mod repairs;
mod rotation;
mod salvage;
mod scrub;
mod segment;
mod settings;
#[cfg(test)]
mod simulation;
mod snapshot;
mod stream;
mod survey;
#[cfg(test)]
mod tests;
mod trim;
mod unseen;
mod verify;
mod walk;
mod window;
mod writer;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

pub(crate) use append::frame_room;
pub use archive::{Archived, archive_redaction, verify_archive};
pub use attached::AttachedLog;
use bytes::Bytes;
pub use copy::{FrameSource, LogCopy, Witness};
pub use creation::Birth;
pub use error::LogError;
pub use manifest::SegmentEntry;
pub use reader::LogFiles;
pub use recovery::{Plan, Problem, plan};
pub use redact::Erase;
pub use repair::FrameRepair;
pub use salvage::Piece;
pub use scrub::{Scrubbed, Scrubber};
pub use segment::SegmentId;
pub use settings::{DirLock, LogSettings};
pub use snapshot::Snapshot;
pub use stream::{Check, FrameStream};
pub use survey::{Survey, survey};
use tokio::sync::watch;
pub use trim::Removable;
pub use verify::{Verification, verify};
pub use writer::FileLog;

use crate::types::{Digest, Hash, LogId, Position, Salt, Timestamp};

/// The version of the log's on-disk format that this crate writes. It is hashed into the chain's origin.
pub const LOG_FORMAT: u32 = 1;

/// The end of a log, or any other place in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last position.
    pub position: Position,
    /// Its recorded time; `Timestamp(0)` before the first transaction.
    pub time: Timestamp,
    /// The chain hash at it.
    pub chain: Hash,
}

/// One transaction on its way into the log: everything but its place.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Recorded time. Never below that of the transaction before it: the committer sees to it.
    pub time: Timestamp,
    /// The secret that is hashed with the payload.
    pub salt: Salt,
    /// `Digest::of(salt, payload)`, computed on the caller's side.
    pub digest: Digest,
    /// The encoded transaction.
    pub payload: Bytes,
}

/// One transaction as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its place in the order.
    pub position: Position,
    /// Recorded time.
    pub time: Timestamp,
    /// The chain hash at it. Readers verify it against the frame before where they are asked to.
    pub chain: Hash,
    /// Digest of the original payload; with the salt it was computed with, or without one where
    /// bytes were erased.
    pub proof: Proof,
    /// The encoded transaction; where bytes were erased, what is left of it.
    pub payload: Bytes,
}

/// How a frame proves its payload to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The payload is whole: its digest follows from the salt.
    Salted(Salt),
    /// Bytes of the payload were erased: the digest of the original stands here instead of a salt.
    Erased(Digest),
}

/// Frames in order. After an error it is exhausted.
pub type Frames<'a> = Box<dyn Iterator<Item = Result<Frame, LogError>> + Send + 'a>;

/// An ordered log of transactions, narrow enough that a table in Postgres, DynamoDB or a stream in
/// NATS JetStream can stand behind it.
///
/// All calls may block on I/O. One thread appends (the committer); any thread reads.
pub trait Log: Debug + Send + Sync {
    /// The identity of the log.
    fn id(&self) -> LogId;

    /// When it was created.
    fn created(&self) -> Timestamp;

    /// The last appended transaction, synced or not.
    fn head(&self) -> Head;

    /// The state at a position from the floor to the synced one: what a stamp is compared with.
    ///
    /// Errors: `BelowFloor`, `AboveHead`, `Corrupt`, `Io`.
    fn head_at(&self, position: Position) -> Result<Head, LogError>;

    /// Appends a batch at positions `expected + 1 ..` and returns the new head. All of the batch is appended or, as far as any reader can see, none of it.
    ///
    /// Errors: `HeadMoved` when the head is not `expected`, with nothing appended; `NoSpace` with nothing
    /// appended, and the same call may succeed later; any failed write latches the log (law 6) and
    /// is `DurabilityUnknown`; after that `Latched`.
    fn append(&self, expected: Position, batch: &[Draft]) -> Result<Head, LogError>;

    /// Makes everything appended durable, publishes it to readers in other processes, and returns
    /// the synced position. A failure latches the log.
    fn sync(&self) -> Result<Position, LogError>;

    /// Transactions from `from` to the synced position as it is when the call is made.
    ///
    /// Errors: `BelowFloor` when `from` was trimmed, `AboveHead` when it lies more than one above
    /// the synced position; `Corrupt` from the iterator where frames are damaged.
    fn read(&self, from: Position) -> Result<Frames<'_>, LogError>;

    /// The synced position, and a way to wait until it moves.
    fn follow(&self) -> watch::Receiver<Position>;

    /// The last synced transaction whose recorded time is not after `time`, or the floor.
    ///
    /// Errors: `BelowFloor` when that was trimmed, `Corrupt`, `Io`.
    fn position_at(&self, time: Timestamp) -> Result<Position, LogError>;

    /// Does a bounded piece of background work that appends should not have to wait for, such as
    /// preparing a spare segment. Called from time to time, by another thread than the committer.
    fn upkeep(&self) -> Result<(), LogError>;

    /// Syncs, leaves a durable mark, refuses further calls and gives the lock back. Dropping the log
    /// instead is like a kill. Errors as [`Log::sync`], after which it is closed all the same.
    fn close(&self) -> Result<(), LogError>;

    /// The oldest readable state: transactions above it can be read.
    fn floor(&self) -> Position;

    /// The snapshot of the state at the floor, unless that is the beginning of everything.
    fn snapshot(&self) -> Option<Snapshot>;

    /// What a trim that keeps what lies above `keep` removes.
    ///
    /// Errors: `Corrupt` when some of it is not there, `Io`.
    fn removable(&self, keep: Position) -> Result<Removable, LogError>;

    /// The highest floor that leaves transactions of so many bytes above it, as far as whole sealed segments allow.
    fn floor_above(&self, bytes: u64) -> Position;

    /// Copies what a trim that keeps what lies above `keep` removes into the archive in the directory `dir`, which may be on
    /// another file system and is made when absent; synced, and read back there. An archive of this log is extended.
    ///
    /// Errors: `OtherArchive` when it is of another log or history, or ends below what is to follow; `NoSpace`, `Corrupt` when
    /// what was to be copied is damaged, `Io`. The archive is then what it was.
    fn archive(&self, dir: &Path, keep: Position) -> Result<Removable, LogError>;

    /// The former snapshot, as long as it is kept.
    fn former(&self) -> Option<Snapshot>;

    /// Every synced transaction that is stored in the log, those below the floor too; or those that are in an archive, whether the log
    /// goes on where it ends or not.
    ///
    /// Errors: as [`Log::archived`]; `Corrupt` from the iterator.
    fn read_stored(&self, archive: Option<&Path>) -> Result<Frames<'_>, LogError>;

    /// Replaces the payloads of transactions by what `erase` leaves of them; they keep their position, time and chain hash. `snapshots`, whose
    /// files the caller has put where the log keeps them, take the place of those of the same state. The old files are gone when
    /// this returns. Called again, it finishes what was left.
    ///
    /// Errors: `NoSpace`, `Corrupt`, `Io` with the log as it was; `Io` when old files could not be removed; those of `erase`; a
    /// failed write of the manifest latches the log.
    fn redact(&self, positions: &BTreeSet<Position>, erase: &Erase<'_>, snapshots: &[Snapshot])
    -> Result<(), LogError>;

    /// The same in the archive in `dir`, which notes that everything is done of the redactions up to `redaction`. What attempts to archive
    /// left there is removed.
    ///
    /// Errors: as [`Log::redact`]; `NoArchive`, `OtherArchive`.
    fn redact_archive(
        &self,
        dir: &Path,
        positions: &BTreeSet<Position>,
        erase: &Erase<'_>,
        snapshots: &[Snapshot],
        redaction: Position,
    ) -> Result<(), LogError>;

    /// What is known of the archive in `dir`. One whose index was never written, since the first archiving was interrupted, is empty.
    ///
    /// Errors: `NoArchive`, `OtherArchive`, `Corrupt`, `NewerFormat`, `Io`.
    fn archived(&self, dir: &Path) -> Result<Archived, LogError>;

    /// The state before the first transaction that is stored: the floor, or one below it.
    fn begins(&self) -> Position;

    /// The last redaction of which everything is done.
    fn redaction(&self) -> Position;

    /// Notes that everything is done of the redactions up to this position.
    ///
    /// Errors: a failed write latches the log.
    fn complete_redaction(&self, redaction: Position) -> Result<(), LogError>;

    /// Raises the floor to the state in `snapshot`, whose file the caller has put, synced, where the log keeps them, and
    /// verified. Transactions at or below it are no longer readable; those at or below `keep` are removed too, as far as
    /// whole sealed segments allow, and the snapshot before this one when it lies below `keep`.
    ///
    /// A snapshot of the floor itself takes the place of the one that is there. Errors: `InvalidSnapshot` when it is not of
    /// this history or its file is not there, `BelowFloor`, `AboveHead`; a failed write latches the log.
    fn trim(&self, snapshot: Snapshot, keep: Position) -> Result<(), LogError>;
}
