//! Trimming: the floor rises to a snapshot, and files below it go.
//!
//! The manifest is written into both slots before anything is removed: a damaged slot never leads back to files that
//! are gone.

use super::error::IoAt;
use super::manifest::{Manifest, SegmentEntry};
use super::segment::SegmentId;
use super::snapshot::Snapshot;
use super::writer::FileLog;
use super::{Log as _, LogError, redact};
use crate::env::OpenMode;
use crate::types::Position;

/// What a trim removes from the log's directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removable {
    /// Sealed segments.
    pub segments: u64,
    /// Bytes of their files and of snapshots, preallocated room included.
    pub bytes: u64,
}

impl Manifest {
    /// The segments that end at or below `keep`, and the snapshots of states below it.
    pub(super) fn removable(&self, keep: Position) -> (&[SegmentEntry], Vec<Snapshot>) {
        let sealed = self.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        let gone = sealed.partition_point(|entry| entry.last <= keep);
        let snapshots = [self.snapshot, self.former].into_iter().flatten();
        (&sealed[..gone], snapshots.filter(|snapshot| snapshot.head.position < keep).collect())
    }
}

impl FileLog {
    /// The sizes of files as they are.
    pub(super) fn measure(&self, segments: &[SegmentEntry], snapshots: &[Snapshot]) -> Result<Removable, LogError> {
        let mut bytes = snapshots.iter().map(|snapshot| snapshot.bytes).sum();
        for entry in segments {
            let path = entry.path(&self.dir);
            let file = self.env.fs.open(&path, OpenMode::Read).at("open the segment", &path)?;
            bytes += file.len().at("read the segment", &path)?;
        }
        Ok(Removable { segments: segments.len() as u64, bytes })
    }

    /// See [`super::Log::floor_above`].
    pub(super) fn floor_with_above(&self, bytes: u64) -> Position {
        // One after the other: who writes takes them in the other order.
        let mut above = self.writer.lock().end;
        let manifest = self.view.lock().manifest.clone();
        let sealed = manifest.segments.split_last().map_or(&[][..], |(_, sealed)| sealed);
        for entry in sealed.iter().rev() {
            if above >= bytes {
                return entry.last.max(manifest.floor.position);
            }
            above += entry.end;
        }
        manifest.floor.position
    }

    /// See [`super::Log::trim`].
    pub(super) fn trim_to(&self, snapshot: Snapshot, keep: Position) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.check()?;
        let invalid = |detail: String| LogError::InvalidSnapshot { detail };
        let known = self.head_at(snapshot.head.position)?;
        if known != snapshot.head || snapshot.head.position == Position::ZERO {
            return Err(invalid(format!("it is not of this history, position=`{}`", snapshot.head.position)));
        }
        snapshot.open(self.env.fs.as_ref(), &self.dir).map_err(|error| match error {
            LogError::Corrupt { detail, path, .. } => invalid(format!("{detail}, path=`{}`", path.display())),
            error => error,
        })?;
        let (synced, before) = {
            let view = self.view.lock();
            (view.synced, view.manifest.clone())
        };
        let keep = keep.min(snapshot.head.position);
        let former = match before.snapshot {
            Some(current) if current.head.position < snapshot.head.position => Some(current),
            _ => before.former,
        };
        let gone = before.removable(keep).0.len();
        let mut trimmed = Manifest {
            promise: synced.position,
            floor: snapshot.head,
            start: before.before(gone),
            snapshot: Some(snapshot),
            former: former.filter(|former| former.head.position >= keep),
            segments: before.segments[gone..].to_vec(),
            ..Manifest::clone(&before)
        };
        for _slot in 0..2 {
            trimmed.generation += 1;
            self.store_manifest(&mut writer, trimmed.clone())?;
        }
        drop(writer);
        tracing::info!(floor = %self.floor(), start = %trimmed.start.position, "trimmed");
        // A failure costs room, nothing else: the next trim tries again.
        if let Err(error) = self.remove_unlisted() {
            tracing::warn!(error = &error as &dyn std::error::Error, "trimmed files could not be removed");
        }
        Ok(())
    }

    /// Removes segments below the manifest's, in other revisions, and snapshots that it does not list.
    pub(super) fn remove_unlisted(&self) -> Result<(), LogError> {
        let manifest = self.view.lock().manifest.clone();
        self.forget_places_below(manifest.segments.first().map_or(SegmentId(0), |entry| entry.id));
        let snapshots: Vec<Snapshot> = [manifest.snapshot, manifest.former].into_iter().flatten().collect();
        redact::remove_unlisted(self.env.fs.as_ref(), &self.dir, &manifest.segments, &snapshots)
    }
}
