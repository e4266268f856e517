//! [`SledBackend`]: the trait over generations, who may do what at the same time, and damage.
//!
//! One write and one merge may be under way at once; both end in a short publication under a third lock. A merge is done in steps, so
//! that whoever maintains the base can write to it in between.
//! Reads take what they need under a read lock and then go on without any.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use parking_lot::{Mutex, RwLock};

use super::block::Row;
use super::files::{corrupt, from_io};
use super::generation::{Generation, generation_dir};
use super::merge::{Kind, Maker, Merge, Output};
use super::record::{GenerationRecord, RECORD, RECORD_TMP, Record};
use super::{read, tiers};
use crate::backends::checked::CheckedChanges;
use crate::backends::readable::Readable;
use crate::backends::{Backend, BackendError, BackendFuture, Change, Changes, Usage};
use crate::env::{Env, FileExt as _, OpenMode};
use crate::types::{Page, Position, Slice, Stamp, VersionPage};

const DAMAGED: &str = "DAMAGED";
const GENERATION_PREFIX: &str = "gen-";
/// Bytes of rows that one step of a merge reads: a fraction of a second.
const STEP_BYTES: usize = 8 << 20;
/// Threads that open generations.
const OPENERS_MAX: usize = 4;
/// A generation's share of the cache is at least this, in bytes.
const CACHE_BYTES_MIN: u64 = 1 << 20;

/// Settings of the embedded base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SledSettings {
    /// Memory for cached blocks, in bytes, shared among the generations by their size (at least 1 MiB
    /// each). sled takes several times its share while it is busy. Default 64 MiB.
    pub cache_bytes: u64,
}

impl Default for SledSettings {
    fn default() -> SledSettings {
        SledSettings { cache_bytes: 64 << 20 }
    }
}

/// The embedded base, in a directory of its own.
///
/// Futures of [`Backend::write`], [`Backend::maintain`] and [`Backend::clear`] block until they are
/// done: poll them on a thread that may. Reads block for the blocks of one page. The directory
/// belongs to one process at a time; the store's lock sees to that.
pub struct SledBackend {
    env: Env,
    dir: PathBuf,
    settings: SledSettings,
    state: RwLock<State>,
    maker: Maker,
    /// Held through a write.
    writing: Mutex<()>,
    /// Held through a step of a merge: the one that is under way.
    merging: Mutex<Option<Box<Merge>>>,
    /// As [`STEP_BYTES`].
    pub(super) step_bytes: usize,
    /// Held while the record is replaced, after `writing` or `merging`.
    publishing: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Why the base is not trusted. Without a stamp nothing of it can be read.
    damage: Option<BackendError>,
    stamp: Option<Stamp>,
    readable: Readable,
    held: Held,
}

/// The generations of a base.
#[derive(Clone, Default)]
struct Held {
    /// What is current, oldest first: one version of a key in each, and deletes.
    current: Arc<[Arc<Generation>]>,
    /// What was superseded and some position may still see, in no order.
    past: Arc<[Arc<Generation>]>,
    /// The beginning of the history when all of `past` was last merged into one.
    swept: Position,
}

/// What a publication changes: generations taken out, and one put in.
#[derive(Default)]
struct Replace {
    replaced: Vec<Arc<Generation>>,
    added: Option<Arc<Generation>>,
}

impl Replace {
    /// In the place of the first one that goes; at the end when none does.
    fn apply(&self, generations: &[Arc<Generation>]) -> Vec<Arc<Generation>> {
        let is_replaced = |own: &Arc<Generation>| self.replaced.iter().any(|replaced| Arc::ptr_eq(own, replaced));
        let start = generations.iter().position(is_replaced).unwrap_or(generations.len());
        let (before, after) = generations.split_at(start);
        let after = after.iter().filter(|own| !is_replaced(own));
        before.iter().chain(&self.added).chain(after).cloned().collect()
    }
}

impl Held {
    fn iter(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.current.iter().chain(self.past.iter())
    }

    /// All of them, in about the order in which a read in the past finds what is newest first.
    fn newest_first(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.current.iter().rev().chain(self.past.iter().rev())
    }

    /// All of them, to be held while a page is read.
    fn all(&self) -> Vec<Arc<Generation>> {
        self.newest_first().cloned().collect()
    }
}

/// Opens generations, several at the same time: it is little I/O and much arithmetic.
fn open_all(generations: &[Arc<Generation>]) -> Result<(), BackendError> {
    let next = AtomicUsize::new(0);
    let open = || -> Result<(), BackendError> {
        while let Some(generation) = generations.get(next.fetch_add(1, Ordering::Relaxed)) {
            generation.opened()?;
        }
        Ok(())
    };
    let openers = thread::available_parallelism().map_or(1, usize::from).min(OPENERS_MAX).min(generations.len());
    thread::scope(|scope| {
        // Where no thread can be had, the others do its part.
        let others: Vec<_> =
            (1..openers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, open).ok()).collect();
        let mut done = open();
        for other in others {
            done = done.and(other.join().unwrap_or_else(|_| Err(corrupt(Path::new(GENERATION_PREFIX), "panicked"))));
        }
        done
    })
}

impl SledBackend {
    /// Opens the base in a directory, which is created when absent, and removes what the record does
    /// not name. A damaged base, or one of another format, opens too: [`Backend::stamp`] then says
    /// what is wrong, and [`Backend::clear`] starts over.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the directory cannot be made or read, or is in use.
    pub fn open(env: Env, dir: &Path, settings: SledSettings) -> Result<SledBackend, BackendError> {
        env.fs.create_dir_all(dir).map_err(from_io(dir))?;
        let maker = Maker { env: env.clone(), dir: dir.to_path_buf(), next_id: Arc::new(AtomicU64::new(1)) };
        let mut backend = SledBackend {
            env,
            dir: dir.to_path_buf(),
            settings,
            state: RwLock::default(),
            maker,
            writing: Mutex::default(),
            merging: Mutex::default(),
            step_bytes: STEP_BYTES,
            publishing: Mutex::default(),
        };
        match backend.load() {
            Ok(()) => backend.remove_unnamed()?,
            Err(unavailable @ BackendError::Unavailable { .. }) => return Err(unavailable),
            Err(damage) => *backend.state.get_mut() = State { damage: Some(damage), ..State::default() },
        }
        Ok(backend)
    }

    fn load(&mut self) -> Result<(), BackendError> {
        let marker = self.dir.join(DAMAGED);
        if self.env.fs.exists(&marker).map_err(from_io(&marker))? {
            return Err(corrupt(&marker, "a read met damage before"));
        }
        let Some(record) = Record::load(&*self.env.fs, &self.dir)? else { return Ok(()) };
        self.maker.next_id.store(record.next_id, Ordering::Relaxed);
        let total = record.generations.iter().chain(&record.past).map(|generation| generation.raw_bytes).sum();
        let named = |generations: Vec<GenerationRecord>| {
            let named = |generation| self.named(generation, total).map(Arc::new);
            generations.into_iter().map(named).collect::<Result<Arc<[_]>, _>>()
        };
        let held = Held { current: named(record.generations)?, past: named(record.past)?, swept: record.swept };
        // What the past holds is for those who ask for it: it grows with the history, and an open does not.
        open_all(&held.current)?;
        let readable = Readable::new(&record.stamp, record.retained);
        *self.state.get_mut() = State { damage: None, readable, stamp: Some(record.stamp), held };
        Ok(())
    }

    fn named(&self, record: GenerationRecord, total_bytes: u64) -> Result<Generation, BackendError> {
        let share = record.raw_bytes as f64 / total_bytes.max(1) as f64;
        let cache_bytes = (self.settings.cache_bytes as f64 * share) as u64;
        Generation::named(&self.env.fs, &self.dir, record, cache_bytes.max(CACHE_BYTES_MIN))
    }

    /// Removes directories of generations that nobody holds, and a staged record.
    fn remove_unnamed(&self) -> Result<(), BackendError> {
        let held: Vec<PathBuf> = self.state.read().held.iter().map(|held| self.dir_of(held)).collect();
        self.remove_generations_except(&held)?;
        let staged = self.dir.join(RECORD_TMP);
        match self.env.fs.exists(&staged).map_err(from_io(&staged))? {
            true => self.env.fs.remove_file(&staged).map_err(from_io(&staged)),
            false => Ok(()),
        }
    }

    fn remove_generations_except(&self, held: &[PathBuf]) -> Result<(), BackendError> {
        for name in self.env.fs.read_dir(&self.dir).map_err(from_io(&self.dir))? {
            let path = self.dir.join(&name);
            if name.starts_with(GENERATION_PREFIX) && !held.contains(&path) {
                self.env.fs.remove_dir_all(&path).map_err(from_io(&path))?;
            }
        }
        Ok(())
    }

    fn dir_of(&self, generation: &Generation) -> PathBuf {
        generation_dir(&self.dir, generation.record.id)
    }

    fn sound(&self) -> Result<(), BackendError> {
        self.state.read().damage.clone().map_or(Ok(()), Err)
    }

    /// The generations to read from, and whether `at` is the current position, for which the current ones are enough.
    /// No position: the history.
    fn readable_at(&self, at: Option<Position>) -> Result<(Held, bool), BackendError> {
        let state = self.state.read();
        match &state.damage {
            // Met while reading: other blocks are checked one by one.
            Some(damage) if state.stamp.is_none() => return Err(damage.clone()),
            _ => at.map_or_else(|| state.readable.check_history(), |at| state.readable.check(at))?,
        }
        Ok((state.held.clone(), at == state.stamp.as_ref().map(|stamp| stamp.position)))
    }

    fn finish(&self, output: Output) -> Result<Option<Arc<Generation>>, BackendError> {
        let Some(writer) = output.into_writer() else { return Ok(None) };
        let record = writer.finish()?;
        let held: u64 = self.state.read().held.iter().map(|generation| generation.record.raw_bytes).sum();
        let (dir, total) = (generation_dir(&self.dir, record.id), held + record.raw_bytes);
        // Opened here, so that sled has written all that it ever writes for it.
        let made = self.named(record, total).and_then(|made| made.opened().map(drop).map(|()| made));
        if made.is_err() {
            let _ = self.env.fs.remove_dir_all(&dir);
        }
        made.map(|made| Some(Arc::new(made)))
    }

    fn write_now(&self, stamp: &Stamp, keep: &[Position], changes: Changes<'_>) -> Result<(), BackendError> {
        let _writing = self.writing.lock();
        self.sound()?;
        let former = self.state.read().stamp.clone();
        let changes = CheckedChanges::new(former.as_ref(), stamp, keep, changes)?;
        let (mut current, mut past) = (Output::new(&self.maker), Output::new(&self.maker));
        let mut last = None;
        for change in changes {
            let row = match change? {
                Change::DeleteRange { prefix, version } => {
                    current.push_range(prefix, version)?;
                    continue;
                }
                Change::Put { key, version, value } => Row { key, version, value: Some(value) },
                Change::Delete { key, version } => Row { key, version, value: None },
            };
            // The newest version of a key comes first.
            if last.as_ref() == Some(&row.key) {
                past.push(&row)?;
            } else {
                current.push(&row)?;
                last = Some(row.key);
            }
        }
        let current = Replace { replaced: Vec::new(), added: self.finish(current)? };
        let past = Replace { replaced: Vec::new(), added: self.finish(past)? };
        self.publish(Some((stamp, keep)), &current, &past, None)
    }

    /// Replaces generations by what was made of them, or adds some with a new stamp. After a sweep of the whole past
    /// `swept` says from where on the history was kept.
    fn publish(
        &self,
        written: Option<(&Stamp, &[Position])>,
        current: &Replace,
        past: &Replace,
        swept: Option<Position>,
    ) -> Result<(), BackendError> {
        let _publishing = self.publishing.lock();
        let (stamp, mut readable, held) = {
            let state = self.state.read();
            (state.stamp.clone(), state.readable.clone(), state.held.clone())
        };
        let stamp = written.map(|(stamp, _)| stamp.clone()).or(stamp);
        let Some(stamp) = stamp else {
            return Err(BackendError::Invalid { detail: "cleared while it was merged".into() });
        };
        if let Some((stamp, keep)) = written {
            readable.advance(stamp, keep);
        }
        let (added, replaced) =
            (current.added.iter().chain(&past.added), current.replaced.iter().chain(&past.replaced));
        let (current, past) = (current.apply(&held.current), past.apply(&held.past));
        let swept = swept.unwrap_or(held.swept);
        let records = |held: &[Arc<Generation>]| held.iter().map(|generation| generation.record.clone()).collect();
        let record = Record {
            stamp: stamp.clone(),
            retained: readable.retained().collect(),
            next_id: self.maker.next_id.load(Ordering::Relaxed),
            generations: records(&current),
            past: records(&past),
            swept,
        };
        if let Err(error) = record.stage(&*self.env.fs, &self.dir) {
            added.for_each(|added| added.supersede());
            return Err(error);
        }
        // From here on either record may be found after a crash: the new generation stays.
        Record::switch(&*self.env.fs, &self.dir)?;
        let mut state = self.state.write();
        if let Some((stamp, keep)) = written {
            // Positions may have been let go meanwhile.
            state.readable.advance(stamp, keep);
        }
        state.stamp = Some(stamp);
        state.held = Held { current: current.into(), past: past.into(), swept };
        drop(state);
        replaced.for_each(|replaced| replaced.supersede());
        Ok(())
    }

    /// What to merge next, given everything as it is.
    fn pick(state: &State) -> Option<(Kind, Vec<Arc<Generation>>)> {
        let run = |generations: &[Arc<Generation>]| {
            let bytes: Vec<u64> = generations.iter().map(|generation| generation.record.raw_bytes).collect();
            tiers::pick(&bytes)
        };
        let Held { current, past, swept } = &state.held;
        // Before anything else: a delete that is dropped from `current` would uncover what it hides there.
        if !past.is_empty() && !state.readable.has_past() {
            return Some((Kind::Past { all: true }, past.to_vec()));
        }
        if let Some(run) = run(current) {
            let kind = Kind::Current { lowest: run.start == 0 };
            return Some((kind, current.get(run)?.to_vec()));
        }
        if past.is_empty() {
            return None;
        }
        // What readers still hold is swept once more when they go.
        if state.stamp.as_ref().is_some_and(|stamp| stamp.history.is_some()) && state.readable.oldest() > *swept {
            return Some((Kind::Past { all: true }, past.to_vec()));
        }
        let run = run(past)?;
        Some((Kind::Past { all: run.len() == past.len() }, past.get(run)?.to_vec()))
    }

    fn begin_merge(&self) -> Result<Option<Box<Merge>>, BackendError> {
        let state = self.state.read();
        let Some((kind, inputs)) = Self::pick(&state) else { return Ok(None) };
        let (held, readable) = (state.held.current.clone(), state.readable.clone());
        drop(state);
        Merge::begin(kind, inputs, held, readable, &self.maker).map(|merge| Some(Box::new(merge)))
    }

    fn merge_on(&self, at: Position, keep: &[Position]) -> Result<bool, BackendError> {
        self.state.write().readable.retain(at, keep);
        let mut merging = self.merging.lock();
        self.sound()?;
        let under_way = match merging.take() {
            None => self.begin_merge()?,
            under_way => under_way,
        };
        let Some(mut merge) = under_way else { return Ok(false) };
        if !merge.step(self.step_bytes)? {
            *merging = Some(merge);
            return Ok(true);
        }
        let (kind, oldest, inputs) = (merge.kind, merge.readable.oldest(), std::mem::take(&mut merge.inputs));
        let (current, past) = merge.into_outputs();
        let mut current = Replace { added: self.finish(current)?, replaced: Vec::new() };
        let mut past = Replace { added: self.finish(past)?, replaced: Vec::new() };
        match kind {
            Kind::Current { .. } => current.replaced = inputs,
            Kind::Past { .. } => past.replaced = inputs,
        }
        let swept = (kind == Kind::Past { all: true }).then_some(oldest);
        self.publish(None, &current, &past, swept)?;
        tracing::debug!("base generations merged");
        Ok(Self::pick(&self.state.read()).is_some())
    }

    fn clear_now(&self) -> Result<(), BackendError> {
        let (_writing, mut merging, _publishing) = (self.writing.lock(), self.merging.lock(), self.publishing.lock());
        *merging = None;
        // The record first: without it nothing is trusted, with it and without the mark all would be.
        for name in [RECORD, DAMAGED] {
            let path = self.dir.join(name);
            if self.env.fs.exists(&path).map_err(from_io(&path))? {
                self.env.fs.remove_file(&path).map_err(from_io(&path))?;
            }
            self.env.fs.sync_dir(&self.dir).map_err(from_io(&self.dir))?;
        }
        let former = std::mem::take(&mut *self.state.write());
        former.held.iter().for_each(|generation| generation.supersede());
        // A reader may still hold some; those remove themselves.
        let held: Vec<_> = former.held.iter().map(|own| (Arc::downgrade(own), self.dir_of(own))).collect();
        drop(former);
        let held: Vec<PathBuf> =
            held.into_iter().filter(|(own, _)| own.strong_count() > 0).map(|(_, dir)| dir).collect();
        self.remove_generations_except(&held)
    }

    /// Remembers damage that a read met, for this process and for the next open.
    fn watch<T>(&self, result: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(error @ BackendError::Corrupt { .. }) = &result {
            let mut state = self.state.write();
            if state.damage.is_none() {
                state.damage = Some(error.clone());
                drop(state);
                self.mark_damaged(error);
            }
        }
        result
    }

    fn mark_damaged(&self, error: &BackendError) {
        tracing::error!(%error, "the base is damaged");
        let path = self.dir.join(DAMAGED);
        let mark = || {
            let file = self.env.fs.open(&path, OpenMode::CreateNew)?;
            file.write_all_at(error.to_string().as_bytes(), 0)?;
            file.sync_all()?;
            self.env.fs.sync_dir(&self.dir)
        };
        if let Err(error) = mark() {
            // The damage is found again by the next read that meets it.
            tracing::warn!(%error, "the damage could not be recorded");
        }
    }
}

impl fmt::Debug for SledBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledBackend").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Backend for SledBackend {
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
        Box::pin(async { self.sound().map(|()| self.state.read().stamp.clone()) })
    }

    fn write<'a>(&'a self, stamp: &'a Stamp, keep: &'a [Position], changes: Changes<'a>) -> BackendFuture<'a, ()> {
        Box::pin(async move { self.write_now(stamp, keep, changes) })
    }

    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
        Box::pin(async move {
            let found = match self.readable_at(Some(at))? {
                (held, true) => read::get(&held.current, at, key),
                (held, false) => read::get_past(held.newest_first(), at, key),
            };
            self.watch(found)
        })
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(async move {
            let page = match self.readable_at(Some(at))? {
                (held, true) => read::page(&held.current, at, from, to, limit.max(1)),
                (held, false) => read::page(&held.all(), at, from, to, limit.max(1)),
            };
            self.watch(page)
        })
    }

    fn versions<'a>(
        &'a self,
        from: &'a [u8],
        below: Position,
        to: &'a [u8],
        limit: usize,
    ) -> BackendFuture<'a, VersionPage> {
        Box::pin(async move {
            let (held, _) = self.readable_at(None)?;
            self.watch(read::versions(&held.all(), from, below, to, limit.max(1)))
        })
    }

    fn maintain<'a>(&'a self, at: Position, keep: &'a [Position]) -> BackendFuture<'a, bool> {
        Box::pin(async move { self.watch(self.merge_on(at, keep)) })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        Box::pin(async { self.clear_now() })
    }

    fn usage(&self) -> Usage {
        let state = self.state.read();
        let disk_bytes = state.held.iter().map(|generation| generation.record.disk_bytes).sum::<u64>();
        let index_bytes = state.held.iter().map(|generation| generation.memory_bytes()).sum::<u64>();
        Usage { disk_bytes, memory_bytes: index_bytes + disk_bytes.min(self.settings.cache_bytes) }
    }
}
