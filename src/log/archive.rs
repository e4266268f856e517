//! Archives: what a trim removes, kept in another directory, and attached again for reading.
//!
//! Owns the index of an archive and the copies in it. A copy counts once the index lists it, and the index lists only what
//! was synced and read back there; so an archive is whole at every moment, and a copy that was interrupted begins again.
//! An archive has one run of segments, from where it begins to where the log goes on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::IoAt;
use super::format::{self, FIELDS_AT, Fields, Unusable};
use super::manifest::{self, ENTRY_BYTES, Manifest, SNAPSHOT_BYTES, SegmentEntry};
use super::recovery::Problem;
use super::segment::{self, SegmentId};
use super::snapshot::Snapshot;
use super::stream::{Check, FrameStream, Source};
use super::trim::Removable;
use super::writer::FileLog;
use super::{Head, LOG_FORMAT, LogError};
use crate::env::{Env, FileExt as _, Fs, OpenMode, create_dir_durably};
use crate::types::{LogId, Position, Timestamp};

const MAGIC: [u8; 8] = *b"LAKELOGA";
const INDEX: &str = "archive";
const UNFINISHED: &str = ".new";
const COPY_BYTES: usize = 1 << 20;
/// Larger indexes are refused, as manifests are.
const INDEX_BYTES_MAX: u64 = 256 << 20;

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    log_id: LogId,
    created: Timestamp,
    /// The state before the first segment.
    pub start: Head,
    /// The last redaction of which nothing erased is in it.
    pub redaction: Position,
    pub snapshots: Vec<Snapshot>,
    /// All sealed.
    pub segments: Vec<SegmentEntry>,
}

/// What a log knows of one of its archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The last redaction of which nothing erased is in it.
    pub redaction: Position,
    /// The snapshots in it.
    pub snapshots: Vec<Snapshot>,
    /// The first and last position that neither it nor the log has: they were trimmed without it.
    pub gap: Option<(Position, Position)>,
}

impl Index {
    /// Of an archive that holds nothing yet.
    fn empty(manifest: &Manifest) -> Index {
        Index {
            log_id: manifest.log_id,
            created: manifest.created,
            start: manifest.start,
            redaction: manifest.redaction,
            snapshots: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// The state after the last segment.
    fn end(&self) -> Head {
        self.segments.last().map_or(self.start, SegmentEntry::head)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIELDS_AT + 8];
        bytes.extend_from_slice(&self.log_id.0);
        bytes.extend_from_slice(&self.created.0.to_le_bytes());
        bytes.extend_from_slice(&manifest::head_bytes(&self.start));
        bytes.extend_from_slice(&self.redaction.0.to_le_bytes());
        bytes.extend_from_slice(&(self.snapshots.len() as u64).to_le_bytes());
        self.snapshots.iter().for_each(|snapshot| bytes.extend_from_slice(&manifest::snapshot_bytes(snapshot)));
        bytes.extend_from_slice(&(self.segments.len() as u64).to_le_bytes());
        self.segments.iter().for_each(|entry| bytes.extend_from_slice(&manifest::entry_bytes(entry)));
        let length = (bytes.len() as u64).to_le_bytes();
        bytes[FIELDS_AT..FIELDS_AT + 8].copy_from_slice(&length);
        format::close_block(MAGIC, &mut bytes);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Index, Unusable> {
        format::check_block(MAGIC, bytes)?;
        let fields = Fields(bytes.get(FIELDS_AT..).unwrap_or_default());
        let index = fields.archive(bytes.len()).ok_or(Unusable::Damaged("the archive's length and content differ"))?;
        manifest::check_segments(&index.start, &index.segments).map_err(Unusable::Damaged)?;
        Ok(index)
    }

    /// The index of the archive in `dir`; `None` when there is none.
    pub fn load(fs: &dyn Fs, dir: &Path) -> Result<Option<Index>, LogError> {
        let path = dir.join(INDEX);
        let damaged = |why: &str| Err(segment::corrupt(&path, 0, Position(1), Position::MAX, why));
        let file = match fs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("open the archive", &path),
        };
        let len = file.len().at("read the archive", &path)?;
        if len > INDEX_BYTES_MAX {
            return damaged("too large");
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0).at("read the archive", &path)?;
        match Index::decode(&bytes) {
            Ok(index) => Ok(Some(index)),
            Err(Unusable::Newer(found)) => Err(LogError::NewerFormat { path, found, supported: LOG_FORMAT }),
            Err(Unusable::Damaged(why)) => damaged(why),
        }
    }

    /// The index of the archive of a log in `dir`.
    ///
    /// Errors: `NoArchive`, `OtherArchive`; those of reading it.
    pub fn of_log(fs: &dyn Fs, dir: &Path, manifest: &Manifest) -> Result<Index, LogError> {
        let index = Index::load(fs, dir)?.ok_or_else(|| LogError::NoArchive { path: dir.to_path_buf() })?;
        check_log(&index, dir, manifest)?;
        Ok(index)
    }

    /// The same where an index that was never written counts as an empty one: the first archiving was interrupted, and what it copied
    /// is still in the log.
    ///
    /// Errors: as [`Index::of_log`]; `OtherArchive` when segments lie there that the log has no more.
    pub fn of_copies(fs: &dyn Fs, dir: &Path, manifest: &Manifest) -> Result<Index, LogError> {
        let failed = match Index::of_log(fs, dir, manifest) {
            Err(error @ LogError::NoArchive { .. }) => error,
            index => return index,
        };
        let copies = match fs.exists(dir).at("look for the archive", dir)? {
            true => unlisted_segments(fs, dir, manifest.log_id, &BTreeSet::new())?,
            false => Vec::new(),
        };
        let first = manifest.segments.first().map(|entry| entry.id);
        match copies.first() {
            None => Err(failed),
            Some((id, _)) if Some(*id) < first => Err(other(
                dir,
                format!(
                    "segments of this log lie there without an index, first=`{id}`; bring the index back, or remove them"
                ),
            )),
            // What a redaction left in them nobody knows.
            Some(_) => Ok(Index { redaction: Position::ZERO, ..Index::empty(manifest) }),
        }
    }

    pub fn store(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        let (staged, path) = (dir.join(format!("{INDEX}{UNFINISHED}")), dir.join(INDEX));
        remove(fs, &staged)?;
        let file = fs.open(&staged, OpenMode::CreateNew).at("create the archive's index", &staged)?;
        let written = file.write_all_at(&self.encode(), 0).and_then(|()| file.sync_all());
        written.at("write the archive's index", &staged)?;
        fs.rename(&staged, &path).at("rename the archive's index", &path)?;
        fs.sync_dir(dir).at("sync the directory", dir)
    }
}

impl Fields<'_> {
    fn archive(mut self, bytes: usize) -> Option<Index> {
        if self.u64()? != bytes as u64 {
            return None;
        }
        let (log_id, created, start) = (LogId(self.bytes()?), self.time()?, self.head()?);
        let redaction = self.position()?;
        let snapshots = self.count(SNAPSHOT_BYTES)?;
        let snapshots = (0..snapshots).map(|_| self.snapshot()?).collect::<Option<_>>()?;
        let segments = self.count(ENTRY_BYTES)?;
        let segments = (0..segments).map(|_| self.entry()).collect::<Option<_>>()?;
        self.0.is_empty().then_some(Index { log_id, created, start, redaction, snapshots, segments })
    }

    /// A number of items of so many bytes, which are there.
    fn count(&mut self, item_bytes: usize) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count.checked_mul(item_bytes)? <= self.0.len()).then_some(count)
    }
}

/// A log's manifest, begun with the segments in the archive in `dir`. Gives it with the first segment that the log itself holds.
///
/// Errors: `NoArchive`, `OtherArchive`, `Corrupt`, `NewerFormat`, `Io`.
pub(super) fn attach(fs: &dyn Fs, dir: &Path, manifest: Manifest) -> Result<Manifest, LogError> {
    let index = Index::of_log(fs, dir, &manifest)?;
    let first = manifest.segments.first().map(|entry| entry.id);
    // What was copied and not yet removed is read where it is.
    let mut segments: Vec<_> = index.segments.iter().filter(|entry| Some(entry.id) < first).copied().collect();
    let end = segments.last().map_or(index.start, SegmentEntry::head);
    if end != manifest.start {
        return Err(other(
            dir,
            format!("it ends at another state than the log begins at, {}", ends(end, manifest.start)),
        ));
    }
    segments.extend_from_slice(&manifest.segments);
    let snapshot = index.snapshots.iter().find(|snapshot| snapshot.head == index.start).copied();
    Ok(Manifest { floor: index.start, start: index.start, snapshot, former: None, segments, ..manifest })
}

/// Proves everything in the archive in `dir` of the log in `log_dir`, and gives what is wrong.
///
/// Errors: those of [`LogFiles::open_with_archive`](super::LogFiles::open_with_archive).
pub fn verify_archive(env: &Env, log_dir: &Path, dir: &Path) -> Result<Vec<Problem>, LogError> {
    let fs = env.fs.as_ref();
    let manifest = manifest::load(fs, log_dir)?.manifest;
    attach(fs, dir, manifest.clone())?;
    let index = Index::of_log(fs, dir, &manifest)?;
    let source = Source::new(env.fs.clone(), dir);
    let mut problems = Vec::new();
    let mut before = index.start;
    for entry in &index.segments {
        if let Err(error) = prove(&source, &manifest, before, std::slice::from_ref(entry)) {
            problems.push(Problem::from_error(error)?);
        }
        before = entry.head();
    }
    for snapshot in &index.snapshots {
        if let Err(error) = snapshot.verify(fs, dir) {
            problems.push(Problem::from_error(error)?);
        }
    }
    Ok(problems)
}

/// The segments that the index of the archive in `dir` lists.
///
/// Errors: `NoArchive`; those of reading it.
pub(super) fn segments(fs: &dyn Fs, dir: &Path) -> Result<Vec<SegmentEntry>, LogError> {
    let index = Index::load(fs, dir)?.ok_or_else(|| LogError::NoArchive { path: dir.to_path_buf() })?;
    Ok(index.segments)
}

/// The last redaction of which nothing erased is in the archive in `dir` of the log in `log_dir`.
///
/// Errors: `NoArchive`, `OtherArchive`; those of reading manifest and index.
pub fn archive_redaction(env: &Env, log_dir: &Path, dir: &Path) -> Result<Position, LogError> {
    let fs = env.fs.as_ref();
    Ok(Index::of_log(fs, dir, &manifest::load(fs, log_dir)?.manifest)?.redaction)
}

/// Files in `dir` that are segments of this log and not among the listed ones, in order. Only these are opened.
fn unlisted_segments(
    fs: &dyn Fs,
    dir: &Path,
    log_id: LogId,
    listed: &BTreeSet<PathBuf>,
) -> Result<Vec<(SegmentId, PathBuf)>, LogError> {
    let mut found = Vec::new();
    for name in fs.read_dir(dir).at("list the directory", dir)? {
        let Some((id, _)) = SegmentId::and_revision_of(&name) else { continue };
        let path = dir.join(name);
        if !listed.contains(&path)
            && matches!(segment::open(fs, &path, OpenMode::Read)?, Ok((_, header)) if header.log_id == log_id)
        {
            found.push((id, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes what attempts left in an archive: segments of the log and snapshots that the index does not list, and halves of copies.
pub(super) fn remove_unlisted(fs: &dyn Fs, dir: &Path, index: &Index) -> Result<(), LogError> {
    let listed = index.segments.iter().map(|entry| entry.path(dir)).collect();
    let snapshots: Vec<String> = index.snapshots.iter().map(Snapshot::file_name).collect();
    let unlisted = unlisted_segments(fs, dir, index.log_id, &listed)?;
    let mut goes: Vec<PathBuf> = unlisted.into_iter().map(|(_, path)| path).collect();
    for name in fs.read_dir(dir).at("list the directory", dir)? {
        let half = name.strip_suffix(UNFINISHED).is_some_and(|whole| {
            SegmentId::and_revision_of(whole).is_some() || Snapshot::is_file_name(whole) || whole == INDEX
        });
        let former = Snapshot::is_file_name(&name) && !snapshots.contains(&name);
        let path = dir.join(name);
        if half || former || path == Snapshot::unfinished(dir) {
            goes.push(path);
        }
    }
    for path in &goes {
        fs.remove_file(path).at("remove a file", path)?;
    }
    fs.sync_dir(dir).at("sync the directory", dir)
}

fn check_log(index: &Index, dir: &Path, manifest: &Manifest) -> Result<(), LogError> {
    match index.log_id == manifest.log_id {
        true => Ok(()),
        false => {
            Err(other(dir, format!("it is of another log, log=`{}` archive_log=`{}`", manifest.log_id, index.log_id)))
        }
    }
}

fn other(dir: &Path, detail: String) -> LogError {
    LogError::OtherArchive { path: dir.to_path_buf(), detail }
}

fn ends(archive: Head, log: Head) -> String {
    format!("archive_end=`{}` log_start=`{}`", archive.position, log.position)
}

impl FileLog {
    /// See [`super::Log::archived`].
    pub(super) fn archived_in(&self, dir: &Path) -> Result<Archived, LogError> {
        let manifest = self.view.lock().manifest.clone();
        let index = Index::of_copies(self.env.fs.as_ref(), dir, &manifest)?;
        let (end, begins) = (index.end().position, manifest.start.position);
        let gap = (end < begins).then_some((end.next(), begins));
        Ok(Archived { redaction: index.redaction, snapshots: index.snapshots, gap })
    }

    /// See [`super::Log::archive`].
    pub(super) fn archive_to(&self, dir: &Path, keep: Position) -> Result<Removable, LogError> {
        let fs = self.env.fs.as_ref();
        let manifest = self.view.lock().manifest.clone();
        let (segments, snapshots) = manifest.removable(keep);
        self.prepare(dir)?;
        let mut index = match Index::load(fs, dir)? {
            Some(index) => index,
            None => Index::empty(&manifest),
        };
        check_log(&index, dir, &manifest)?;
        let archived = index.end();
        let (there, missing) = segments.split_at(segments.partition_point(|entry| entry.last <= archived.position));
        let same = |entry: &SegmentEntry| {
            index.segments.iter().any(|other| (other.tag, other.head()) == (entry.tag, entry.head()))
                || entry.last < index.start.position
        };
        if !there.iter().all(same) {
            return Err(other(dir, "it is of another history of this log".to_owned()));
        }
        let before = manifest.before(there.len());
        if !missing.is_empty() && before != archived {
            return Err(other(
                dir,
                format!(
                    "transactions are missing between it and the log, {}; give another directory",
                    ends(archived, before)
                ),
            ));
        }
        let snapshots: Vec<Snapshot> =
            snapshots.into_iter().filter(|snapshot| !index.snapshots.contains(snapshot)).collect();
        self.check_archive_room(dir, missing, &snapshots)?;
        for entry in missing {
            self.replaceable(dir, entry)?;
            self.copy(&entry.path(&self.dir), &entry.path(dir))?;
        }
        for snapshot in &snapshots {
            self.copy(&snapshot.path(&self.dir), &snapshot.path(dir))?;
        }
        fs.sync_dir(dir).at("sync the directory", dir)?;
        // What is damaged here already is not the copy's damage.
        let proven = |dir: &Path| -> Result<(), LogError> {
            prove(&Source::new(self.env.fs.clone(), dir), &manifest, before, missing)?;
            snapshots.iter().try_for_each(|snapshot| snapshot.verify(fs, dir))
        };
        proven(dir).or_else(|error| proven(&self.dir).and(Err(error)))?;
        index.segments.extend_from_slice(missing);
        index.snapshots.extend_from_slice(&snapshots);
        index.store(fs, dir)?;
        // They would be in the way of nothing, but nobody would look for what is in them.
        if let Err(error) = remove_unlisted(fs, dir, &index) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what attempts left in the archive could not be removed"
            );
        }
        tracing::info!(dir = %dir.display(), segments = missing.len(), end = %index.end().position, "archived");
        self.measure(segments, &manifest.removable(keep).1)
    }

    /// Makes the directory, whose name is durable then, and refuses one that is a log's own.
    fn prepare(&self, dir: &Path) -> Result<(), LogError> {
        let fs = self.env.fs.as_ref();
        for slot in 0..2 {
            let path = manifest::slot_path(dir, slot);
            if fs.exists(&path).at("look for a log", &path)? {
                return Err(other(dir, "a log lies there".to_owned()));
            }
        }
        create_dir_durably(fs, dir).at("create the archive", dir)
    }

    /// A file that has the name of a segment is left from an attempt of this log, or not ours to replace.
    fn replaceable(&self, dir: &Path, entry: &SegmentEntry) -> Result<(), LogError> {
        let fs = self.env.fs.as_ref();
        let path = entry.path(dir);
        if !fs.exists(&path).at("look for the segment", &path)? {
            return Ok(());
        }
        match segment::open(fs, &path, OpenMode::Read)? {
            Ok((_, header)) if header.log_id == self.id => Ok(()),
            _ => Err(other(dir, format!("a file is in the way, file=`{}`", path.display()))),
        }
    }

    fn check_archive_room(
        &self,
        dir: &Path,
        segments: &[SegmentEntry],
        snapshots: &[Snapshot],
    ) -> Result<(), LogError> {
        let needed = self.measure(segments, snapshots)?.bytes;
        let free = self.env.fs.space(dir).at("ask for free space", dir)?.free;
        match free < needed {
            true => Err(LogError::NoSpace { path: dir.to_path_buf(), needed, free, kept_free: 0 }),
            false => Ok(()),
        }
    }

    /// Copies a file to another file system, perhaps; the copy has its name only when it is synced.
    fn copy(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        let fs = self.env.fs.as_ref();
        let staged = PathBuf::from(format!("{}{UNFINISHED}", to.display()));
        remove(fs, &staged)?;
        let source = fs.open(from, OpenMode::Read).at("open the file to archive", from)?;
        let len = source.len().at("read the file to archive", from)?;
        let written = (|| {
            let target = fs.open(&staged, OpenMode::CreateNew).at("create a file in the archive", &staged)?;
            let mut buffer = vec![0; COPY_BYTES];
            let mut at = 0;
            while at < len {
                let chunk = &mut buffer[..COPY_BYTES.min(usize::try_from(len - at).unwrap_or(COPY_BYTES))];
                source.read_exact_at(chunk, at).at("read the file to archive", from)?;
                target.write_all_at(chunk, at).at("write a file in the archive", &staged)?;
                at += chunk.len() as u64;
            }
            target.sync_all().at("sync a file in the archive", &staged)
        })();
        if let Err(error) = written {
            // The room is given back; the failure is what counts.
            let _ = fs.remove_file(&staged);
            let free = fs.space(to).map_or(0, |space| space.free);
            return Err(match error {
                LogError::Io { source, .. } if segment::is_no_space(&source) => {
                    let dir = to.parent().unwrap_or(to).to_path_buf();
                    LogError::NoSpace { path: dir, needed: len, free, kept_free: 0 }
                }
                error => error,
            });
        }
        fs.rename(&staged, to).at("rename a file in the archive", to)
    }
}

/// Reads segments that follow `before`, with their chain.
pub(super) fn prove(
    source: &Source,
    manifest: &Manifest,
    before: Head,
    segments: &[SegmentEntry],
) -> Result<(), LogError> {
    let Some(last) = segments.last() else { return Ok(()) };
    let mut head = before;
    for frame in frames(source, manifest, before, segments, Check::Chain)? {
        let frame = frame?;
        head = Head { position: frame.position, time: frame.time, chain: frame.chain };
    }
    match head == last.head() {
        true => Ok(()),
        false => {
            let detail = "the chain hash does not lead to the one in the manifest";
            Err(segment::corrupt(&source.path(last), 0, last.first, last.last, detail))
        }
    }
}

/// The frames of sealed segments that follow `before`.
pub(super) fn frames(
    source: &Source,
    manifest: &Manifest,
    before: Head,
    segments: &[SegmentEntry],
    check: Check,
) -> Result<FrameStream, LogError> {
    let end = segments.last().map_or(before, SegmentEntry::head);
    let (id, tag) = segments.last().map_or((SegmentId(0), 1), |last| (last.id.next(), last.tag));
    // Behind them one that is never entered: all of these are sealed.
    let segments = segments.iter().copied().chain([SegmentEntry::empty(id, tag, end)]).collect();
    let part = Manifest { floor: before, start: before, segments, ..manifest.clone() };
    FrameStream::new(source.clone(), Arc::new(part), before.position.next(), end.position, check)
}

pub(super) fn remove(fs: &dyn Fs, path: &Path) -> Result<(), LogError> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove a file", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
