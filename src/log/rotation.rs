//! Rotation: the spare segment, and the step from a full segment to the next one.
//!
//! Everything that may fail for want of room happens before anything in use is touched, so it refuses an append and
//! latches nothing. The rest is one order of writes and syncs, and a failure in it latches.
//!
//! ```text
//! seal + sync | header of the next + sync | rename + directory sync | manifest + sync | frames
//! ```
//! Whichever of these steps a crash falls between, the manifest names the segment that holds the
//! head, or the one before it, which then ends with its seal.

use std::sync::Arc;

use super::error::IoAt;
use super::format::{FRAMES_AT, FrameKind, SegmentHeader, seal_body};
use super::manifest::{self, Manifest, SegmentEntry};
use super::segment::{self, Spare};
use super::writer::{FileLog, State, Writer, io_of};
use super::{Head, LogError};
use crate::env::FileExt as _;
use crate::types::LogId;

impl FileLog {
    /// Fills a spare segment when none is ready, so that the next rotation need not. Takes as long as writing
    /// `segment_bytes` zeros does; appends go on meanwhile.
    ///
    /// Errors: `NoSpace` and `Io`, with nothing harmed: a rotation without a spare tries again itself.
    pub fn prepare_spare(&self) -> Result<(), LogError> {
        let mut spare = self.spare.lock();
        if spare.is_none() {
            *spare = Some(self.allocate(self.settings.segment_bytes)?);
        }
        Ok(())
    }

    fn allocate(&self, size: u64) -> Result<Spare, LogError> {
        let room = if self.unseen { Spare::reserve } else { Spare::allocate };
        room(self.env.fs.as_ref(), &self.dir, size, self.settings.min_free())
    }

    /// Everything that can fail for want of room, before anything is written. `ready` stays locked until the spare has
    /// its segment's name: until then a second one would be made of the same file.
    fn take_spare(&self, ready: &mut Option<Spare>, needed: u64) -> Result<Spare, LogError> {
        match ready.take() {
            Some(spare) if spare.size() >= needed => Ok(spare),
            // A ready one that is too small is made larger: it is the same file.
            _ => self.allocate(needed.max(self.settings.segment_bytes)),
        }
    }

    /// Seals the segment that ends at `head` and begins the next one. Everything up to `head` is synced then.
    ///
    /// `ready` is where a spare is kept: its lock is held until the file has its segment's name, since whoever filled a
    /// spare meanwhile would fill this one.
    ///
    /// Errors: `NoSpace` and `Io` with nothing touched; `DurabilityUnknown`, latched.
    pub(super) fn rotate(
        &self,
        writer: &mut Writer,
        ready: &mut Option<Spare>,
        needed: u64,
        head: Head,
    ) -> Result<(), LogError> {
        let spare = self.take_spare(ready, needed)?;
        let fs = self.env.fs.as_ref();
        let synced = self.view.lock().synced;
        let before = self.view.lock().manifest.clone();
        let slot = 1 - writer.slot;
        let file = match manifest::open_slot(fs, &self.dir, slot) {
            Ok(file) => file,
            Err(refused) => {
                *ready = Some(spare);
                return Err(refused);
            }
        };
        match manifest::reserve(fs, &self.dir, file.as_ref(), slot, before.segments.len() + 1) {
            Ok(()) => {}
            Err(refused @ LogError::NoSpace { .. }) => {
                *ready = Some(spare);
                return Err(refused);
            }
            Err(error) => return Err(writer.latch(io_of(error), synced.position.next(), head.position)),
        }
        let next = SegmentEntry::empty(writer.id.next(), segment::random_tag(&self.env), head);
        let mut seal = std::mem::take(&mut writer.buffer);
        seal.clear();
        let body = seal_body(next.id.0, next.tag);
        writer.header(FrameKind::Seal, body.len(), &head, synced.position, writer.end).encode(&[&body], &mut seal);
        let latched = (|| {
            writer.file.write_all_at(&seal, writer.end).at("write the seal", &writer.path)?;
            writer.file.sync_data().at("sync the segment", &writer.path)?;
            let header = segment_header(self.id, &next, head, spare.size());
            let size = spare.size();
            let (file, end) = spare.into_segment(fs, &self.dir, &header, |_| Ok(FRAMES_AT))?;
            let mut manifest = Manifest::clone(&before);
            manifest.generation += 1;
            manifest.promise = head.position;
            if let Some(active) = manifest.segments.last_mut() {
                (active.last, active.end, active.chain) = (head.position, writer.end, head.chain);
                active.last_time = head.time;
                active.first_time = writer.first_time.unwrap_or(head.time);
            }
            manifest.segments.push(next);
            manifest::store(fs, &self.dir, slot, &manifest)?;
            Ok((file, size, end, manifest))
        })();
        let (file, size, end, manifest) = match latched {
            Ok(rotated) => rotated,
            Err(error) => return Err(writer.latch(io_of(error), synced.position.next(), head.position)),
        };
        *writer = Writer {
            file,
            path: next.path(&self.dir),
            id: next.id,
            tag: next.tag,
            size,
            end,
            first_time: None,
            slot,
            buffer: seal,
            state: State::Open,
        };
        {
            let mut view = self.view.lock();
            (view.synced, view.manifest) = (head, Arc::new(manifest));
        }
        self.synced.send_replace(head.position);
        tracing::debug!(segment = %next.id, first = %next.first, "segment begun");
        Ok(())
    }
}

/// The header of a segment that begins after `before`.
pub(super) fn segment_header(log_id: LogId, entry: &SegmentEntry, before: Head, size: u64) -> SegmentHeader {
    SegmentHeader {
        log_id,
        tag: entry.tag,
        sequence: entry.id.0,
        first: entry.first,
        time_before: before.time,
        chain_before: before.chain,
        size,
    }
}
