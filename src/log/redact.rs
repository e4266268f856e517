//! Redaction: transactions are replaced by what is left of them, in files of their own that take the place of the old ones.
//!
//! Frames keep position, time and chain hash; the digest of the original stands where the salt stood. New files are written, synced
//! and read back under new names first; the manifest, in both slots, is the moment; then the old files are removed. Done
//! again, it finds nothing left to do.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::archive::{self, Index};
use super::error::IoAt;
use super::format::{FRAMES_AT, FrameKind, SEAL_BYTES};
use super::manifest::{Manifest, SegmentEntry};
use super::segment::{SegmentId, corrupt};
use super::snapshot::Snapshot;
use super::stream::{Check, FrameStream, Source};
use super::window::{RawFrame, SegmentReader, Slot};
use super::writer::FileLog;
use super::{Frame, Frames, Head, LogError, Proof};
use crate::env::{FileExt as _, Fs, OpenMode};
use crate::types::Position;

const BLOCK_BYTES: u64 = 4096;

/// What is left of a transaction at a position; `None` when it stays as it is.
pub type Erase<'a> = dyn Fn(Position, &Bytes) -> Result<Option<Bytes>, LogError> + Send + Sync + 'a;

impl FileLog {
    /// See [`super::Log::read_stored`].
    pub(super) fn stored(&self, archive: Option<&Path>) -> Result<Frames<'_>, LogError> {
        let view = self.view.lock().clone();
        if let Some(dir) = archive {
            let index = Index::of_copies(self.env.fs.as_ref(), dir, &view.manifest)?;
            let source = Source::new(self.env.fs.clone(), dir);
            return Ok(Box::new(archive::frames(&source, &view.manifest, index.start, &index.segments, Check::Order)?));
        }
        let manifest = Manifest { floor: view.manifest.start, ..Manifest::clone(&view.manifest) };
        let from = manifest.start.position.next();
        let frames = FrameStream::new(self.source(), Arc::new(manifest), from, view.synced.position, Check::Order)?;
        Ok(Box::new(frames))
    }

    /// See [`super::Log::redact`].
    pub(super) fn redact_frames(
        &self,
        positions: &BTreeSet<Position>,
        erase: &Erase<'_>,
        snapshots: &[Snapshot],
    ) -> Result<(), LogError> {
        self.seal_up_to(positions)?;
        let before = self.view.lock().manifest.clone();
        let sealed = before.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        let source = self.source();
        let replaced = self.rewrite(&source, &before, before.start, sealed, &self.dir, positions, erase)?;
        for snapshot in snapshots {
            snapshot.verify(self.env.fs.as_ref(), &self.dir)?;
        }
        let mut writer = self.writer.lock();
        writer.check()?;
        let mut manifest = Manifest::clone(&self.view.lock().manifest);
        manifest.segments.iter_mut().for_each(|entry| replace(entry, &replaced));
        for former in [&mut manifest.snapshot, &mut manifest.former].into_iter().flatten() {
            if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.head == former.head) {
                *former = *snapshot;
            }
        }
        for _slot in 0..2 {
            manifest.generation += 1;
            self.store_manifest(&mut writer, manifest.clone())?;
        }
        drop(writer);
        // Until this is done the bytes are still there.
        self.remove_unlisted()
    }

    /// See [`super::Log::complete_redaction`].
    pub(super) fn note_redaction(&self, redaction: Position) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let mut manifest = Manifest::clone(&self.view.lock().manifest);
        manifest.redaction = manifest.redaction.max(redaction);
        for _slot in 0..2 {
            manifest.generation += 1;
            self.store_manifest(&mut writer, manifest.clone())?;
        }
        Ok(())
    }

    /// See [`super::Log::redact_archive`].
    pub(super) fn redact_archived(
        &self,
        dir: &Path,
        positions: &BTreeSet<Position>,
        erase: &Erase<'_>,
        snapshots: &[Snapshot],
        redaction: Position,
    ) -> Result<(), LogError> {
        let fs = self.env.fs.as_ref();
        let manifest = self.view.lock().manifest.clone();
        let mut index = Index::of_copies(fs, dir, &manifest)?;
        let source = Source::new(self.env.fs.clone(), dir);
        let replaced = self.rewrite(&source, &manifest, index.start, &index.segments, dir, positions, erase)?;
        index.segments.iter_mut().for_each(|entry| replace(entry, &replaced));
        for former in &mut index.snapshots {
            if let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.head == former.head) {
                snapshot.verify(fs, dir)?;
                *former = *snapshot;
            }
        }
        let written = Index::load(fs, dir)?.is_some();
        if written && (!replaced.is_empty() || !snapshots.is_empty()) {
            index.store(fs, dir)?;
        }
        // Until this is done the bytes are still there.
        archive::remove_unlisted(fs, dir, &index)?;
        index.redaction = index.redaction.max(redaction);
        match written {
            true => index.store(fs, dir),
            false => Ok(()),
        }
    }

    /// Begins a new segment when one of the positions lies in the active one.
    fn seal_up_to(&self, positions: &BTreeSet<Position>) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let (head, manifest) = {
            let view = self.view.lock();
            (view.head, view.manifest.clone())
        };
        if !concerned(positions, manifest.active().first, head.position) {
            return Ok(());
        }
        let mut ready = self.spare.lock();
        self.rotate(&mut writer, &mut ready, FRAMES_AT + SEAL_BYTES, head)
    }

    /// Writes anew, into `dir`, the segments in which something is to be erased, and proves them there. Gives their entries.
    #[expect(clippy::too_many_arguments, reason = "the same for the log and for an archive, which share no type")]
    fn rewrite(
        &self,
        source: &Source,
        manifest: &Manifest,
        start: Head,
        segments: &[SegmentEntry],
        dir: &Path,
        positions: &BTreeSet<Position>,
        erase: &Erase<'_>,
    ) -> Result<Vec<SegmentEntry>, LogError> {
        let fs = self.env.fs.as_ref();
        let mut replaced = Vec::new();
        let mut before = start;
        for entry in segments {
            let leftovers = has_leftovers(source, manifest, before, entry)?;
            if (leftovers || concerned(positions, entry.first, entry.last))
                && let Some(rewritten) =
                    rewrite_segment(fs, source, manifest, before, entry, dir, positions, erase, leftovers)?
            {
                archive::prove(source, manifest, before, &[rewritten])?;
                replaced.push(rewritten);
            }
            before = entry.head();
        }
        fs.sync_dir(dir).at("sync the directory", dir)?;
        Ok(replaced)
    }
}

/// Whether one of the positions lies in `first..=last`, which may be empty.
fn concerned(positions: &BTreeSet<Position>, first: Position, last: Position) -> bool {
    positions.range(first..).next().is_some_and(|position| *position <= last)
}

/// Whether something stands behind the end of a segment: where recovery ended it, what it has written anew elsewhere, and what it
/// has cut, is still in the old file.
fn has_leftovers(source: &Source, manifest: &Manifest, before: Head, entry: &SegmentEntry) -> Result<bool, LogError> {
    let (file, _) = source.open(manifest.log_id, entry, before, OpenMode::Read, entry.last)?;
    let mut reader = SegmentReader::new(file, source.path(entry), entry.tag)?;
    match reader.slot(entry.end)? {
        // Nothing is ever written behind a seal.
        Slot::Frame(frame) if frame.header.kind == FrameKind::Seal => Ok(false),
        _ => Ok(reader.last_nonzero(entry.end)?.is_some()),
    }
}

fn replace(entry: &mut SegmentEntry, replaced: &[SegmentEntry]) {
    if let Some(rewritten) = replaced.iter().find(|rewritten| rewritten.id == entry.id) {
        *entry = *rewritten;
    }
}

/// Writes a segment anew under its next name, without what stands behind its end; `None` when nothing in it changes.
#[expect(clippy::too_many_arguments, reason = "one step of a loop over segments")]
fn rewrite_segment(
    fs: &dyn Fs,
    source: &Source,
    manifest: &Manifest,
    before: Head,
    entry: &SegmentEntry,
    dir: &Path,
    positions: &BTreeSet<Position>,
    erase: &Erase<'_>,
    leftovers: bool,
) -> Result<Option<SegmentEntry>, LogError> {
    let (file, mut header) = source.open(manifest.log_id, entry, before, OpenMode::Read, entry.last)?;
    let mut reader = SegmentReader::new(file, source.path(entry), entry.tag)?;
    let mut rewritten = SegmentEntry { revision: entry.revision.saturating_add(1), ..*entry };
    let path = rewritten.path(dir);
    archive::remove(fs, &path)?;
    let target = fs.open(&path, OpenMode::CreateNew).at("create the segment", &path)?;
    let (mut from, mut to) = (FRAMES_AT, FRAMES_AT);
    let (mut position, mut changed) = (before.position, leftovers);
    let mut buffer = Vec::new();
    let mut put = |frame: RawFrame, to: &mut u64| {
        let RawFrame { mut header, body } = frame;
        header.offset = *to;
        buffer.clear();
        header.encode(&[&body], &mut buffer);
        target.write_all_at(&buffer, *to).at("write the segment", &path)?;
        *to += buffer.len() as u64;
        Ok::<(), LogError>(())
    };
    while position < entry.last {
        let frame = match reader.slot(from)? {
            Slot::Frame(frame)
                if frame.header.kind == FrameKind::Transaction && frame.header.position == position.next() =>
            {
                frame
            }
            _ => return Err(corrupt(reader.path(), from, position.next(), entry.last, "transactions are missing")),
        };
        (position, from) = (frame.header.position, frame.header.end());
        let frame = match positions.contains(&position) {
            true => {
                let (frame, erased) = erased(frame, erase)?;
                changed |= erased;
                frame
            }
            false => frame,
        };
        put(frame, &mut to)?;
    }
    rewritten.end = to;
    if let Slot::Frame(frame) = reader.slot(from)?
        && frame.header.kind == FrameKind::Seal
    {
        put(frame, &mut to)?;
    }
    if !changed {
        archive::remove(fs, &path)?;
        return Ok(None);
    }
    header.size = to.next_multiple_of(BLOCK_BYTES);
    let written = (|| {
        target.set_len(header.size)?;
        target.write_all_at(&header.encode(), 0)?;
        target.sync_all()
    })();
    written.at("write the segment", &path)?;
    Ok(Some(rewritten))
}

/// A frame without what is to be erased, and whether that is another one.
fn erased(raw: RawFrame, erase: &Erase<'_>) -> Result<(RawFrame, bool), LogError> {
    let mut header = raw.header;
    let Frame { position, proof, payload, .. } = raw.clone().into_frame();
    let Some(left) = erase(position, &payload)?.filter(|left| *left != payload) else { return Ok((raw, false)) };
    let digest = match proof {
        Proof::Erased(digest) => digest,
        Proof::Salted(salt) => crate::types::Digest::of(&salt, &payload),
    };
    let body = Bytes::from([&digest.0[..], &left].concat());
    header.erased = true;
    header.body_len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    Ok((RawFrame { header, body }, true))
}

/// Removes files of segments in other revisions than those listed, and of snapshots that are not listed.
pub(super) fn remove_unlisted(
    fs: &dyn Fs,
    dir: &Path,
    segments: &[SegmentEntry],
    snapshots: &[Snapshot],
) -> Result<(), LogError> {
    let first = segments.first().map_or(SegmentId(0), |entry| entry.id);
    let listed: Vec<String> = snapshots.iter().map(Snapshot::file_name).collect();
    let goes = |name: &String| match SegmentId::and_revision_of(name) {
        Some((id, _)) if id < first => true,
        Some((id, revision)) => segments.iter().any(|entry| entry.id == id && entry.revision != revision),
        None => Snapshot::is_file_name(name) && !listed.contains(name),
    };
    let names = fs.read_dir(dir).at("list the directory", dir)?;
    for name in names.iter().filter(|name| goes(name)) {
        let path = dir.join(name);
        fs.remove_file(&path).at("remove a file", &path)?;
    }
    fs.sync_dir(dir).at("sync the directory", dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::log::simulation::Machine;
    use crate::log::{Log as _, LogFiles, verify};

    fn files(env: &Env) -> LogFiles {
        LogFiles::open(env, &Machine::dir()).unwrap()
    }

    #[test]
    fn readers_go_on_where_a_segment_was_replaced_under_them() {
        let mut machine = Machine::new(1);
        let log = machine.create().unwrap();
        for _ in 0..12 {
            machine.append(&log, &[20_000]).unwrap();
            machine.sync(&log).unwrap();
        }
        let env = machine.world.env();
        let (beside, left) = (files(&env), Bytes::from_static(b"left"));
        // Both know the way into every segment, and stand in the first one.
        assert_eq!(beside.frames(Position(1), Check::Order).unwrap().count(), 12);
        let mut streams =
            [log.read_checked(Position(1), Check::Chain).unwrap(), beside.frames(Position(1), Check::Order).unwrap()];
        for stream in &mut streams {
            assert_eq!(stream.next().unwrap().unwrap().position, Position(1));
        }
        let positions = [Position(8), Position(12)].into();
        let erase = |position, _: &Bytes| Ok((position != Position(12)).then(|| left.clone()));
        let entries = log.segments();
        log.redact(&positions, &erase, &[]).unwrap();
        let changed: Vec<_> =
            entries.iter().zip(log.segments()).filter(|(old, new)| old.revision != new.revision).collect();
        assert_eq!(changed.len(), 1, "where nothing was left out the file stays");
        assert!(machine.world.fs.content(&changed[0].0.path(&Machine::dir())).is_none());
        for stream in streams {
            let frames: Vec<Frame> = stream.map(Result::unwrap).collect();
            assert_eq!(frames.len(), 11);
            let erased: Vec<_> = frames.iter().filter(|frame| matches!(frame.proof, Proof::Erased(_))).collect();
            assert_eq!((erased.len(), erased[0].position, &erased[0].payload), (1, Position(8), &left));
        }
        assert_eq!(beside.refresh().unwrap(), Position(12));
        assert_eq!(beside.frames(Position(9), Check::Order).unwrap().count(), 4);
        // Again it changes nothing; another one makes another file.
        let revision = |log: &FileLog| log.segments().iter().map(|entry| entry.revision).max();
        log.redact(&positions, &erase, &[]).unwrap();
        assert_eq!(revision(&log), Some(1));
        let erase = |_, _: &Bytes| Ok(Some(Bytes::new()));
        log.redact(&[Position(7)].into(), &erase, &[]).unwrap();
        assert_eq!(revision(&log), Some(2));
        log.close().unwrap();
        drop(log);
        let log = machine.open().unwrap();
        assert_eq!(log.read_checked(Position(1), Check::Chain).unwrap().filter_map(Result::ok).count(), 12);
        assert_eq!(verify(&env, &Machine::dir(), None, &mut |_| {}, &mut |_, _| {}).unwrap().problems, []);
    }
}
