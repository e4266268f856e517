//! [`SledBackend`]: the trait over generations, who may do what at the same time, and damage.
//!
//! One write and one merge may run at once; both end in a short publication under a third lock.
//! Reads take what they need under a read lock and then go on without any.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::block::Row;
use super::files::{corrupt, from_io};
use super::generation::{Generation, GenerationWriter, generation_dir};
use super::record::{GenerationRecord, RECORD, RECORD_TMP, Record};
use super::{merge, read, tiers};
use crate::backends::checked::CheckedChanges;
use crate::backends::readable::Readable;
use crate::backends::{Backend, BackendError, BackendFuture, Change, Changes, Usage};
use crate::env::{Env, FileExt as _, OpenMode};
use crate::types::{Page, Position, Slice, Stamp};

const DAMAGED: &str = "DAMAGED";
const GENERATION_PREFIX: &str = "gen-";
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
    next_id: AtomicU64,
    /// Held through a write.
    writing: Mutex<()>,
    /// Held through a merge.
    merging: Mutex<()>,
    /// Held while the record is replaced, after `writing` or `merging`.
    publishing: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Why the base is not trusted. Without a stamp nothing of it can be read.
    damage: Option<BackendError>,
    stamp: Option<Stamp>,
    readable: Readable,
    /// Oldest first.
    generations: Arc<[Arc<Generation>]>,
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
        let mut backend = SledBackend {
            env,
            dir: dir.to_path_buf(),
            settings,
            state: RwLock::default(),
            next_id: AtomicU64::new(1),
            writing: Mutex::default(),
            merging: Mutex::default(),
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
        self.next_id = AtomicU64::new(record.next_id);
        let total = record.generations.iter().map(|generation| generation.raw_bytes).sum();
        let mut generations = Vec::new();
        for generation in record.generations {
            generations.push(Arc::new(self.open_generation(generation, total)?));
        }
        *self.state.get_mut() = State {
            damage: None,
            readable: Readable::new(record.stamp.position, record.retained),
            stamp: Some(record.stamp),
            generations: generations.into(),
        };
        Ok(())
    }

    fn open_generation(&self, record: GenerationRecord, total_bytes: u64) -> Result<Generation, BackendError> {
        let share = record.raw_bytes as f64 / total_bytes.max(1) as f64;
        let cache_bytes = (self.settings.cache_bytes as f64 * share) as u64;
        Generation::open(&self.env.fs, &self.dir, record, cache_bytes.max(CACHE_BYTES_MIN))
    }

    /// Removes directories of generations that nobody holds, and a staged record.
    fn remove_unnamed(&self) -> Result<(), BackendError> {
        let held: Vec<PathBuf> = self.state.read().generations.iter().map(|held| self.dir_of(held)).collect();
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

    /// The generations to read a position from.
    fn readable_at(&self, at: Position) -> Result<Arc<[Arc<Generation>]>, BackendError> {
        let state = self.state.read();
        match &state.damage {
            // Met while reading: other blocks are checked one by one.
            Some(damage) if state.stamp.is_none() => return Err(damage.clone()),
            _ => state.readable.check(at)?,
        }
        Ok(state.generations.clone())
    }

    fn new_writer(&self) -> Result<GenerationWriter, BackendError> {
        let mut tag = [0; 8];
        self.env.entropy.fill(&mut tag);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        GenerationWriter::create(&self.env.fs, &self.dir, id, u64::from_le_bytes(tag))
    }

    fn finish(&self, writer: GenerationWriter) -> Result<Option<Arc<Generation>>, BackendError> {
        if writer.is_empty() {
            return Ok(None);
        }
        let record = writer.finish()?;
        let held: u64 = self.state.read().generations.iter().map(|generation| generation.record.raw_bytes).sum();
        let (dir, total) = (generation_dir(&self.dir, record.id), held + record.raw_bytes);
        let opened = self.open_generation(record, total);
        if opened.is_err() {
            let _ = self.env.fs.remove_dir_all(&dir);
        }
        opened.map(|generation| Some(Arc::new(generation)))
    }

    fn write_now(&self, stamp: &Stamp, keep: &[Position], changes: Changes<'_>) -> Result<(), BackendError> {
        let _writing = self.writing.lock();
        self.sound()?;
        let former = self.state.read().stamp.clone();
        let changes = CheckedChanges::new(former.as_ref(), stamp, keep, changes)?;
        let mut writer = None;
        for change in changes {
            let change = change?;
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(self.new_writer()?),
            };
            match change {
                Change::DeleteRange { prefix, version } => writer.push_range(prefix, version),
                Change::Put { key, version, value } => writer.push(&Row { key, version, value: Some(value) })?,
                Change::Delete { key, version } => writer.push(&Row { key, version, value: None })?,
            }
        }
        let added = writer.map(|writer| self.finish(writer)).transpose()?.flatten();
        self.publish(Some((stamp, keep)), &[], added)
    }

    /// Replaces adjacent generations by what was made of them, or adds one with a new stamp.
    fn publish(
        &self,
        written: Option<(&Stamp, &[Position])>,
        replaced: &[Arc<Generation>],
        added: Option<Arc<Generation>>,
    ) -> Result<(), BackendError> {
        let _publishing = self.publishing.lock();
        let (stamp, mut readable, generations) = {
            let state = self.state.read();
            (state.stamp.clone(), state.readable.clone(), state.generations.clone())
        };
        let stamp = written.map(|(stamp, _)| stamp.clone()).or(stamp);
        let Some(stamp) = stamp else {
            return Err(BackendError::Invalid { detail: "cleared while it was merged".into() });
        };
        if let Some((stamp, keep)) = written {
            readable.advance(stamp.position, keep);
        }
        let mut generations: Vec<Arc<Generation>> = generations.to_vec();
        let is_replaced = |own: &Arc<Generation>| replaced.iter().any(|replaced| Arc::ptr_eq(own, replaced));
        let start = generations.iter().position(is_replaced).unwrap_or(generations.len());
        generations.splice(start..start + replaced.len(), added.clone());
        let record = Record {
            stamp: stamp.clone(),
            retained: readable.retained().collect(),
            next_id: self.next_id.load(Ordering::Relaxed),
            generations: generations.iter().map(|generation| generation.record.clone()).collect(),
        };
        if let Err(error) = record.stage(&*self.env.fs, &self.dir) {
            added.iter().for_each(|added| added.supersede());
            return Err(error);
        }
        // From here on either record may be found after a crash: the new generation stays.
        Record::switch(&*self.env.fs, &self.dir)?;
        let mut state = self.state.write();
        if let Some((stamp, keep)) = written {
            // Positions may have been let go meanwhile.
            state.readable.advance(stamp.position, keep);
        }
        state.stamp = Some(stamp);
        state.generations = generations.into();
        drop(state);
        replaced.iter().for_each(|replaced| replaced.supersede());
        Ok(())
    }

    fn pick(&self) -> Option<(Vec<Arc<Generation>>, bool)> {
        let generations = self.state.read().generations.clone();
        let bytes: Vec<u64> = generations.iter().map(|generation| generation.record.raw_bytes).collect();
        let run = tiers::pick(&bytes)?;
        let lowest = run.start == 0;
        Some((generations.get(run)?.to_vec(), lowest))
    }

    fn merge_once(&self) -> Result<bool, BackendError> {
        let _merging = self.merging.lock();
        self.sound()?;
        let Some((inputs, lowest)) = self.pick() else { return Ok(false) };
        // Positions that become readable later are above everything that is merged.
        let readable = self.state.read().readable.clone();
        let mut writer = self.new_writer()?;
        merge::merge(&inputs, lowest, &readable, &mut writer)?;
        let output = self.finish(writer)?;
        tracing::debug!(
            generations = inputs.len(),
            rows = output.as_ref().map_or(0, |output| output.record.rows),
            "base generations merged"
        );
        self.publish(None, &inputs, output)?;
        Ok(self.pick().is_some())
    }

    fn clear_now(&self) -> Result<(), BackendError> {
        let (_writing, _merging, _publishing) = (self.writing.lock(), self.merging.lock(), self.publishing.lock());
        // The record first: without it nothing is trusted, with it and without the mark all would be.
        for name in [RECORD, DAMAGED] {
            let path = self.dir.join(name);
            if self.env.fs.exists(&path).map_err(from_io(&path))? {
                self.env.fs.remove_file(&path).map_err(from_io(&path))?;
            }
            self.env.fs.sync_dir(&self.dir).map_err(from_io(&self.dir))?;
        }
        let former = std::mem::take(&mut *self.state.write());
        former.generations.iter().for_each(|generation| generation.supersede());
        // A reader may still hold some; those remove themselves.
        let held: Vec<_> = former.generations.iter().map(|own| (Arc::downgrade(own), self.dir_of(own))).collect();
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
            let generations = self.readable_at(at)?;
            self.watch(read::get(&generations, at, key))
        })
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(async move {
            let generations = self.readable_at(at)?;
            self.watch(read::page(&generations, at, from, to, limit.max(1)))
        })
    }

    fn retain(&self, positions: &[Position]) {
        self.state.write().readable.retain(positions);
    }

    fn maintain(&self) -> BackendFuture<'_, bool> {
        Box::pin(async { self.watch(self.merge_once()) })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        Box::pin(async { self.clear_now() })
    }

    fn usage(&self) -> Usage {
        let state = self.state.read();
        let disk_bytes = state.generations.iter().map(|generation| generation.record.disk_bytes).sum::<u64>();
        let index_bytes = state.generations.iter().map(|generation| generation.memory_bytes()).sum::<u64>();
        Usage { disk_bytes, memory_bytes: index_bytes + disk_bytes.min(self.settings.cache_bytes) }
    }
}
