//! Trim: the floor rises to a snapshot of the state there, and what is older goes, or into an archive.
//!
//! Order: base at or above the new floor | snapshot written, synced, read back | archive | snapshot named | the log's manifest
//! | files removed | the base forgets. Up to the manifest nothing has changed; from there on the trim is done, and what is left
//! of it is done again by the next trim or checkpoint.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::RwLockReadGuard;

use super::checkpoint;
use super::context::Context;
use super::engine::{FloorAsked, Shared, beside};
use super::erasing;
use super::facade::Store;
use super::marks::Mark;
use super::snapshot::{Staged, State, is_no_space};
use crate::dump::SnapshotReader;
use crate::event::Event;
use crate::log::{LogError, Removable};
use crate::projection::{RESTORES, Scanner};
use crate::types::{At, Entry, Error, ErrorKind, Key, KeyRange, Position, Result};

/// Marks that an error names.
const NAMED_MAX: usize = 8;
/// Pieces of maintenance that a trim waits for; what they leave is done in the background.
const FORGETTING_PIECES_MAX: usize = 64;
/// With this much room over several times the base, nobody asks how large the snapshot will be.
const AMPLE_BYTES: u64 = 64 << 20;

/// What a trim removes, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrimOptions {
    /// The oldest transaction to keep. The state before it is the oldest that can still be read.
    pub before: At,
    /// Where what is removed is kept. Default: nowhere.
    pub archive: Option<PathBuf>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What a trim did, or would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// The oldest readable state.
    pub floor: Position,
    /// Sealed segments that are gone from the log's directory.
    pub segments: u64,
    /// Bytes of their files and of the snapshot that is gone with them. The new snapshot takes some of that.
    pub bytes: u64,
}

/// What happens when a mark names a position that would no longer be readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// The trim fails.
    Refuse,
    /// It goes only so far.
    Respect,
}

impl TrimOptions {
    /// Keeps transaction `before` and those after it.
    pub fn before(before: impl Into<At>) -> TrimOptions {
        TrimOptions { before: before.into(), archive: None, dry_run: false }
    }
}

impl Store {
    /// Gives up the history before a transaction: the state before it becomes the floor, the oldest that can be read, and
    /// is written as a snapshot into the log's directory. Sealed segments below the floor are removed. The snapshot of the floor
    /// before, and the segments after it, stay until the next trim, unless they are archived.
    ///
    /// The floor lies lower where a transaction that can still be read restores a range to what it was below it. Readers
    /// that were made before go on. The base forgets, in the same call, what only lower positions saw. A trim to where
    /// the floor already is finishes what a crash left of the one before.
    ///
    /// Needs room for the snapshot, also that which `min_free_bytes` keeps from ordinary writes; where it is too little, the
    /// former snapshot and its segments are released first, once the present one was verified.
    ///
    /// After a crash the floor is the old one or the new one, and the store reads the same at or above it.
    ///
    /// # Errors
    /// With nothing changed: `invalid` above the head, and for a position that a base without history does not hold; `not_found`
    /// below the floor; `conflict` when marks name positions below the new floor, and for the archive of another log;
    /// `unavailable` without room, naming the bytes needed; `corrupt` when what is to be archived, or the present snapshot, is damaged.
    ///
    /// ```
    /// use lakelog::{At, Batch, Context, Position, Store, TrimOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> lakelog::Result<()> {
    /// # let scratch = tempfile::tempdir().unwrap();
    /// # let store = Store::builder(scratch.path().join("metadata")).create().await?;
    /// for value in [b"v1", b"v2"] {
    ///     store.write(Context::new("alice"), Batch::new().set(b"repos", b"demo", value)).await?;
    /// }
    /// let trimmed = store.trim(Context::new("alice"), TrimOptions::before(Position(2))).await?;
    /// assert_eq!(trimmed.floor, Position(1));
    /// assert!(store.resolve(&At::Position(Position(0))).await.is_err());
    /// # store.close().await
    /// # }
    /// ```
    pub async fn trim(&self, context: Context, options: TrimOptions) -> Result<Trimmed> {
        let context = context.for_many("trimmed")?;
        self.sync().await?;
        let before = self.resolve(&options.before).await?;
        let TrimOptions { archive, dry_run, .. } = options;
        self.raise_floor(context, before.previous(), Marks::Refuse, archive, dry_run).await
    }

    /// Keeps what range restores among the events bring from being trimmed, as long as what is returned is held.
    ///
    /// Errors: `not_found` when it was.
    pub(super) async fn keep_restored(&self, events: &[Event]) -> Result<Option<RwLockReadGuard<'_, ()>>> {
        let mut kept = None;
        for event in events {
            let Event::RestoreRange { as_of, .. } = event else { continue };
            if kept.is_none() {
                kept = Some(self.shared().floor_gate.read().await);
            }
            self.shared().check_kept(*as_of)?;
        }
        Ok(kept)
    }

    /// Raises the floor to `wanted`, or as far as may be.
    pub(super) async fn raise_floor(
        &self,
        context: Context,
        wanted: Position,
        marks: Marks,
        archive: Option<PathBuf>,
        dry_run: bool,
    ) -> Result<Trimmed> {
        let store = self.clone();
        let trim = async move {
            let shared = store.shared();
            let _one = shared.trimming.lock().await;
            // What is to be erased below the new floor is found in the log, and not there any more.
            erasing::finish(shared).await?;
            if let Some(archive) = archive.as_deref().filter(|_| !dry_run) {
                // What is archived now has been through every redaction; what is there already may not.
                match shared.log.archived(archive) {
                    Err(LogError::NoArchive { .. }) => {}
                    archived => {
                        archived?;
                        erasing::settle(shared, archive).await?;
                    }
                }
            }
            let current = shared.log.floor();
            let mut trim = Trim { store: &store, archive, floor: wanted.max(current), asked: None };
            trim.settle_floor(marks).await?;
            if marks == Marks::Respect && trim.floor <= current {
                // Nobody asked for the former snapshot to be given up.
                return Ok(Trimmed { floor: current, segments: 0, bytes: 0 });
            }
            trim.run(context, dry_run).await
        };
        beside("the trim", trim).await
    }
}

struct Trim<'a> {
    store: &'a Store,
    archive: Option<PathBuf>,
    floor: Position,
    /// Says to others what is going on.
    asked: Option<FloorAsked>,
}

impl Trim<'_> {
    fn shared(&self) -> &Arc<Shared> {
        self.store.shared()
    }

    /// Finds how far the floor may rise. From here on nobody names a position below it any more.
    async fn settle_floor(&mut self, marks: Marks) -> Result<()> {
        self.asked = Some(FloorAsked::new(self.shared(), self.floor).await);
        let current = self.shared().log.floor();
        // Those below the present floor came with the state that the log began at: nothing can be kept for them.
        let held: Vec<Mark> = self.store.marks().await?;
        let held = held.into_iter().filter(|mark| mark.position >= current && mark.position < self.floor);
        match marks {
            Marks::Refuse => refuse(&held.collect::<Vec<_>>(), self.floor)?,
            Marks::Respect => self.floor = held.map(|mark| mark.position).min().unwrap_or(self.floor),
        }
        // A replay from a floor between would not know what was restored. Each entry is a position restored, at the version of the
        // last transaction that did so, which is the only one that counts: a floor above it is above those before it
        // too. Few transactions restore, and what is below the floor is not looked at, so nothing is remembered of it elsewhere.
        while let Some(restored) = self.restored_below().await? {
            self.floor = restored;
        }
        Ok(())
    }

    /// The lowest position below the floor to which a transaction above it restores something.
    async fn restored_below(&self) -> Result<Option<Position>> {
        let from = Key::new(RESTORES, &self.shared().log.floor().0.to_be_bytes());
        let to = Key::new(RESTORES, &self.floor.0.to_be_bytes());
        if from >= to {
            return Ok(None);
        }
        let pin = self.shared().view.pins().pin();
        let mut scanner = Scanner::new(self.shared().view.clone(), pin, &from, to.to_vec(), 0);
        let start = KeyRange::new(RESTORES, b"").prefix().len();
        loop {
            let page = scanner.page().await?;
            if page.is_empty() {
                return Ok(None);
            }
            let restored = |entry: &Entry| {
                let position = entry.encoded_key.get(start..)?.first_chunk::<8>()?;
                Some(Position(u64::from_be_bytes(*position)))
            };
            let open = page.iter().find(|entry| entry.version > self.floor);
            if let Some(restored) = open.and_then(restored) {
                return Ok(Some(restored));
            }
        }
    }

    /// Removal goes up to here: what is archived need not stay.
    fn keep(&self) -> Position {
        let former = self.shared().log.snapshot().map_or(self.floor, |snapshot| snapshot.head.position);
        if self.archive.is_some() { self.floor } else { former }
    }

    async fn run(self, context: Context, dry_run: bool) -> Result<Trimmed> {
        let shared = self.shared();
        let keep = self.keep();
        let removed = shared.log.removable(keep)?;
        if !dry_run {
            if self.floor > shared.log.floor() {
                self.raise(keep).await?;
                self.forget(context).await;
            } else {
                self.finish(keep)?;
            }
        }
        let Removable { segments, bytes } = removed;
        Ok(Trimmed { floor: self.floor, segments, bytes })
    }

    async fn raise(&self, keep: Position) -> Result<()> {
        let shared = self.shared();
        // First the pin: from here on what it sees is kept.
        let pin = shared.view.pins().pin_at(self.floor);
        let base_position = shared.view.layers().base_position();
        if !shared.settings.history && base_position != self.floor {
            let message = format!(
                "the base keeps no history, so only the state that it stands at can become the floor, floor=`{}` base=`{base_position}`; trim before the transaction after that, or open the store with a history",
                self.floor
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if base_position < self.floor {
            checkpoint::run(shared).await?;
        }
        let state = State::at(shared, pin)?;
        let staged = self.stage(&state).await?;
        if let Err(error) = self.archive(keep) {
            staged.discard();
            return Err(error);
        }
        let snapshot = staged.finish()?;
        Ok(shared.log.trim(snapshot, keep)?)
    }

    /// Makes the snapshot, if need be in the room that the former one takes.
    async fn stage<'a>(&self, state: &State<'a>) -> Result<Staged<'a>> {
        let shared = self.shared();
        let free = shared.env.fs.space(&shared.log_dir).map(|space| space.free).unwrap_or(u64::MAX);
        let usual = shared.view.layers().base().usage().disk_bytes.saturating_mul(4);
        if free < usual.saturating_add(AMPLE_BYTES) {
            self.make_room(state.bytes().await?)?;
        }
        match state.stage().await {
            // Others write too, and file systems do not say all.
            Err(error) if is_no_space(&error) => {
                let needed = state.bytes().await?;
                self.make_room(needed)?;
                let again = state.stage().await;
                again.map_err(|error| if is_no_space(&error) { self.no_space(needed) } else { error })
            }
            staged => staged,
        }
    }

    /// Sees to it that so many bytes are free, for which the former snapshot may go: the present one is read to its end before.
    fn make_room(&self, needed: u64) -> Result<()> {
        let shared = self.shared();
        let free = || shared.env.fs.space(&shared.log_dir).map_or(0, |space| space.free);
        if free() >= needed {
            return Ok(());
        }
        let Some(current) = shared.log.snapshot() else { return Err(self.no_space(needed)) };
        let keep = current.head.position;
        let released = shared.log.removable(keep)?.bytes;
        if free().saturating_add(released) < needed {
            return Err(self.no_space(needed));
        }
        let mut reader = SnapshotReader::open(&shared.env, &shared.log_dir, shared.log.id(), &current)?;
        while reader.entry()?.is_some() {}
        self.archive(keep)?;
        shared.log.trim(current, keep)?;
        tracing::info!(bytes = released, "the former snapshot was released to make room");
        if free() >= needed { Ok(()) } else { Err(self.no_space(needed)) }
    }

    fn no_space(&self, needed: u64) -> Error {
        let path = self.shared().log_dir.clone();
        let free = self.shared().env.fs.space(&path).map_or(0, |space| space.free);
        LogError::NoSpace { path, needed, free, kept_free: 0 }.into()
    }

    fn archive(&self, keep: Position) -> Result<()> {
        if let Some(archive) = &self.archive {
            self.shared().log.archive(archive, keep)?;
        }
        Ok(())
    }

    /// The floor is there already: archives and removes what is still below it.
    fn finish(&self, keep: Position) -> Result<()> {
        let Some(snapshot) = self.shared().log.snapshot() else { return Ok(()) };
        self.archive(keep)?;
        Ok(self.shared().log.trim(snapshot, keep)?)
    }

    /// Stamps the base with the new beginning of its history, and lets it remove what nobody sees any more. The trim is done
    /// by then: what fails here is made up for by the next checkpoint.
    async fn forget(&self, context: Context) {
        let shared = self.shared();
        let forgotten = async {
            // A checkpoint needs a position of its own to be stamped with, and the audit should say who trimmed.
            self.store.append(&context, Vec::new()).await?;
            checkpoint::run(shared).await?;
            // Others write and checkpoint meanwhile, so there may always be more to merge: a trim does not wait for the end of that.
            for _ in 0..FORGETTING_PIECES_MAX {
                if !checkpoint::maintain(shared).await? {
                    return Ok(());
                }
            }
            shared.checkpoint_due.notify_one();
            Ok::<(), Error>(())
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(error = %error.report(), "the base has not given back its room yet; the next checkpoint does");
        }
    }
}

fn refuse(marks: &[Mark], floor: Position) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let names = marks.iter().take(NAMED_MAX).map(|mark| format!("{}={}", mark.name.escape_debug(), mark.position));
    let more = marks.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "marks name positions below the new floor, floor=`{floor}` marks=`{}`{more}; delete them, or trim before the lowest",
        names.collect::<Vec<_>>().join(", ")
    );
    Err(Error::new(ErrorKind::Conflict, message))
}
