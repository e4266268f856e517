//! The application of a recovery plan: the only code that changes a log's files before it serves.
//!
//! Order: newest manifest slot and directory synced | side file + sync | fresh segment with frames + sync |
//! rename + directory sync | manifest + sync. Idempotent: interrupted anywhere, it is planned again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::IoAt;
use super::format::{FRAMES_AT, FrameKind};
use super::manifest::{self, Manifest, SegmentEntry};
use super::recovery::Plan;
use super::rotation::segment_header;
use super::segment::{self, MinFree, SegmentId, Spare, corrupt};
use super::settings::LogSettings;
use super::window::{SegmentReader, Slot};
use super::{Head, LogError};
use crate::env::{Env, File, FileExt as _, OpenMode};
use crate::types::Timestamp;

const COPY_BYTES: u64 = 256 << 10;

/// Bytes behind the last kept frame: torn writes of transactions that were never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CutBytes {
    pub source: PathBuf,
    pub id: SegmentId,
    /// From here ..
    pub offset: u64,
    /// .. to here.
    pub to: u64,
    pub crc: u32,
}

impl CutBytes {
    pub fn len(&self) -> u64 {
        self.to - self.offset
    }

    /// The side file: named by place and content, so that a repeated recovery writes the same one.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("cut-{}-{:08x}-{:08x}", self.id, self.offset, self.crc))
    }

    pub fn checksum(&self, reader: &mut SegmentReader) -> Result<u32, LogError> {
        let mut hasher = crc32fast::Hasher::new();
        self.copy(reader, |_, bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(hasher.finalize())
    }

    fn copy(
        &self,
        reader: &mut SegmentReader,
        mut to: impl FnMut(u64, &[u8]) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut at = self.offset;
        while at < self.to {
            let len = COPY_BYTES.min(self.to - at);
            let bytes = reader.bytes(at, len)?.ok_or_else(|| changed(&self.source, at))?;
            to(at - self.offset, bytes)?;
            at += len;
        }
        Ok(())
    }

    fn keep(&self, env: &Env, dir: &Path, reader: &mut SegmentReader) -> Result<(), LogError> {
        let path = self.path(dir);
        let file = match env.fs.open(&path, OpenMode::CreateNew) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => env.fs.open(&path, OpenMode::Write),
            created => created,
        };
        let file = file.at("create the side file", &path)?;
        self.copy(reader, |at, bytes| file.write_all_at(bytes, at).at("write the side file", &path))?;
        file.sync_all().at("sync the side file", &path)?;
        env.fs.sync_dir(dir).at("sync the directory", dir)?;
        tracing::warn!(bytes = self.len(), kept = %path.display(), "unacknowledged bytes were cut");
        Ok(())
    }
}

/// A log ready to be written to. Everything up to its head is synced.
#[derive(Debug)]
pub(super) struct Recovered {
    pub dir: PathBuf,
    pub manifest: Manifest,
    pub slot: usize,
    pub file: Arc<dyn File>,
    /// Of the active segment's file, in bytes.
    pub size: u64,
    /// Where the next frame goes.
    pub end: u64,
    pub head: Head,
    /// Recorded time of the first transaction in the active segment.
    pub first_time: Option<Timestamp>,
}

/// A segment made by recovery.
struct Fresh {
    file: Arc<dyn File>,
    size: u64,
    end: u64,
    first_time: Option<Timestamp>,
}

impl Plan {
    /// Does what the plan says.
    pub(super) fn apply(self, env: &Env, settings: &LogSettings) -> Result<Recovered, LogError> {
        if let Some(problem) = self.problems().first() {
            return Err(problem.to_error());
        }
        let fs = env.fs.as_ref();
        // What was read may stand in the page cache only, after a sync that failed: the same bytes are written again.
        manifest::store(fs, &self.dir, self.loaded.slot, &self.loaded.manifest)?;
        fs.sync_dir(&self.dir).at("sync the directory", &self.dir)?;
        // A creation that was killed before its last step left a log whose own entry is not durable.
        let parent = self.dir.parent().unwrap_or(Path::new("."));
        fs.sync_dir(parent).at("sync the directory", parent)?;
        let mut manifest = self.manifest.clone();
        let active = *manifest.active();
        let path = active.path(&self.dir);
        let Fresh { file, size, end, first_time } = if self.fresh {
            let next = SegmentEntry::empty(active.id.next(), segment::random_tag(env), self.promised);
            if let Some(active) = manifest.segments.last_mut() {
                (active.last, active.end) = (self.promised.position, self.promised_end);
                (active.last_time, active.chain) = (self.promised.time, self.promised.chain);
                active.first_time = self.first_time.min(self.promised.time);
            }
            manifest.segments.push(next);
            self.begin_fresh(env, settings, &active, &next)?
        } else {
            let file: Arc<dyn File> = Arc::from(fs.open(&path, OpenMode::Write).at("open the segment", &path)?);
            let size = file.len().at("read the segment", &path)?;
            let first_time = (self.head().position >= active.first).then_some(self.first_time);
            Fresh { file, size, end: self.end, first_time }
        };
        let mut slot = self.loaded.slot;
        if self.changes_manifest() {
            manifest.generation += 1;
            manifest.promise = self.head().position;
            slot = 1 - slot;
            manifest::store(fs, &self.dir, slot, &manifest)?;
        }
        Ok(Recovered { head: self.head(), first_time, dir: self.dir, manifest, slot, file, size, end })
    }

    /// Keeps the cut bytes and writes what no promise covers into a segment of its own: the pages it was read
    /// from may be clean in memory and absent on the disk.
    fn begin_fresh(
        &self,
        env: &Env,
        settings: &LogSettings,
        active: &SegmentEntry,
        next: &SegmentEntry,
    ) -> Result<Fresh, LogError> {
        let fs = env.fs.as_ref();
        let path = active.path(&self.dir);
        let mut reader =
            SegmentReader::new(fs.open(&path, OpenMode::Read).at("open the segment", &path)?, path, active.tag)?;
        if let Some(cut) = &self.cut {
            cut.keep(env, &self.dir, &mut reader)?;
        }
        let unpromised = self.end.saturating_sub(self.promised_end);
        let needed = settings.segment_bytes.max((FRAMES_AT + unpromised).next_multiple_of(4096) + FRAMES_AT);
        let spare = Spare::allocate(fs, &self.dir, needed, MinFree::Bytes(0))?;
        let size = spare.size();
        let mut first_time = None;
        let header = segment_header(self.manifest.log_id, next, self.promised, size);
        let (file, end) = spare.into_segment(fs, &self.dir, &header, |file| {
            let (mut from, mut to) = (self.promised_end, FRAMES_AT);
            let mut position = self.promised.position;
            let mut buffer = Vec::new();
            while position < self.head().position {
                let mut frame = match reader.slot(from)? {
                    Slot::Frame(frame)
                        if frame.header.kind == FrameKind::Transaction && frame.header.position == position.next() =>
                    {
                        frame
                    }
                    _ => return Err(changed(reader.path(), from)),
                };
                first_time.get_or_insert(frame.header.time);
                (position, from) = (frame.header.position, frame.header.end());
                (frame.header.offset, frame.header.tag) = (to, next.tag);
                frame.header.promise = self.promised.position;
                buffer.clear();
                frame.header.encode(&[&frame.body], &mut buffer);
                file.write_all_at(&buffer, to).at("write the segment", reader.path())?;
                to += buffer.len() as u64;
            }
            Ok(to)
        })?;
        Ok(Fresh { file, size, end, first_time })
    }
}

fn changed(path: &Path, offset: u64) -> LogError {
    let position = crate::types::Position::ZERO;
    corrupt(path, offset, position, position, "the segment changed between plan and recovery")
}
