//! Appending: one batch, one write at the end of the active segment, whether its transactions are new or come with
//! their place and chain hash from elsewhere.

use std::time::Instant;

use super::error::IoAt;
use super::format::{DIGEST_BYTES, FRAMES_AT, FrameKind, SALT_BYTES, SEAL_BYTES, frame_bytes};
use super::writer::{FileLog, View};
use super::{Draft, Frame, Head, LogError, Proof};
use crate::env::FileExt as _;
use crate::types::{Digest, Hash, Limits, Position, Timestamp};

/// A batch buffer above this is given back after use.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

/// What the chain is extended by.
#[derive(Clone, Copy)]
enum Link {
    Digest(Digest),
    /// Extended already, up to this position.
    Known(Position, Hash),
}

/// One transaction of a batch.
pub(super) struct Item<'a> {
    time: Timestamp,
    link: Link,
    erased: bool,
    /// Salt, or digest of what was erased.
    proof: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Item<'a> {
    pub fn of_draft(draft: &'a Draft) -> Item<'a> {
        let Draft { time, salt, digest, payload } = draft;
        Item { time: *time, link: Link::Digest(*digest), erased: false, proof: &salt.0, payload }
    }

    fn of_frame(frame: &'a Frame) -> Item<'a> {
        let (erased, proof) = match &frame.proof {
            Proof::Salted(salt) => (false, &salt.0[..]),
            Proof::Erased(digest) => (true, &digest.0[..]),
        };
        let link = Link::Known(frame.position, frame.chain);
        Item { time: frame.time, link, erased, proof, payload: &frame.payload }
    }

    fn body_bytes(&self) -> usize {
        self.proof.len() + self.payload.len()
    }

    /// The state after `before` and this.
    fn head(&self, before: &Head) -> Head {
        let position = before.position.next();
        let chain = match &self.link {
            Link::Digest(digest) => before.chain.extend(position, self.time, digest),
            Link::Known(_, chain) => *chain,
        };
        Head { position, time: self.time, chain }
    }
}

impl FileLog {
    /// As [`super::Log::append`], for transactions that another log gave: with their positions, times, proofs and chain
    /// hashes. That the chain hashes follow from each other is for the caller to have proven: nothing is hashed here.
    ///
    /// Errors: as [`super::Log::append`]; `InvalidDraft` for positions that do not follow.
    pub fn append_frames(&self, expected: Position, frames: &[Frame]) -> Result<Head, LogError> {
        self.append_items(expected, frames.iter().map(Item::of_frame))
    }

    /// Whether so many bytes of transactions find room, without touching what is kept from ordinary writes.
    ///
    /// Errors: `NoSpace`, `Io`.
    pub fn check_room(&self, bytes: u64) -> Result<(), LogError> {
        let left = {
            let writer = self.writer.lock();
            writer.size.saturating_sub(writer.end)
        };
        let Some(needed) = bytes.checked_sub(left) else { return Ok(()) };
        // In whole segments, and a seal and what does not fit at the end of each.
        let needed = needed + needed / 16 + self.settings.segment_bytes;
        let space = self.env.fs.space(&self.dir).at("ask for free space", &self.dir)?;
        let kept_free = self.settings.min_free().bytes(space.total);
        if space.free.saturating_sub(needed) < kept_free || space.free < needed {
            return Err(LogError::NoSpace { path: self.dir.clone(), needed, free: space.free, kept_free });
        }
        Ok(())
    }

    pub(super) fn append_items<'a>(
        &self,
        expected: Position,
        batch: impl Iterator<Item = Item<'a>> + Clone,
    ) -> Result<Head, LogError> {
        let started = Instant::now();
        let mut writer = self.writer.lock();
        writer.check()?;
        let View { mut head, synced, .. } = self.view.lock().clone();
        if head.position != expected {
            return Err(LogError::HeadMoved { expected, head: head.position, missing: Vec::new() });
        }
        let bytes = batch_bytes(batch.clone(), head)?;
        let Some(first_time) = batch.clone().next().map(|first| first.time) else { return Ok(head) };
        let mut promise = synced.position;
        if writer.size.saturating_sub(writer.end) < bytes + SEAL_BYTES {
            let mut ready = self.spare.lock();
            self.rotate(&mut writer, &mut ready, FRAMES_AT + bytes + SEAL_BYTES, head)?;
            promise = head.position;
        }
        let mut buffer = std::mem::take(&mut writer.buffer);
        buffer.clear();
        buffer.reserve(bytes as usize);
        for item in batch {
            head = item.head(&head);
            let offset = writer.end + buffer.len() as u64;
            let mut header = writer.header(FrameKind::Transaction, item.body_bytes(), &head, promise, offset);
            header.erased = item.erased;
            header.encode(&[item.proof, item.payload], &mut buffer);
        }
        debug_assert_eq!(buffer.len() as u64, bytes);
        if let Err(error) = writer.file.write_all_at(&buffer, writer.end) {
            return Err(writer.latch(error, promise.next(), head.position));
        }
        if self.unseen {
            writer.begin_sync(bytes);
        }
        self.milestones.pass((writer.id, 0), expected.next(), writer.end);
        writer.first_time.get_or_insert(first_time);
        writer.end += bytes;
        if buffer.capacity() <= BUFFER_BYTES_KEPT {
            writer.buffer = buffer;
        }
        self.view.lock().head = head;
        metrics::histogram!("lakelog_append_seconds").record(started.elapsed());
        metrics::histogram!("lakelog_batch_transactions").record((head.position.0 - expected.0) as f64);
        tracing::trace!(first = %expected.next(), last = %head.position, bytes, "append");
        Ok(head)
    }
}

/// The size of a batch in the file; refuses what cannot be a frame before anything is written.
fn batch_bytes<'a>(batch: impl Iterator<Item = Item<'a>>, before: Head) -> Result<u64, LogError> {
    let Head { mut position, mut time, .. } = before;
    let mut bytes = 0;
    for item in batch {
        position = position.next();
        let len = item.payload.len();
        if len > Limits::TRANSACTION_BYTES_MAX {
            let detail = format!("it is too large, bytes=`{len}` limit=`{}`", Limits::TRANSACTION_BYTES_MAX);
            return Err(LogError::InvalidDraft { detail });
        }
        if item.time < time {
            let detail =
                format!("its time lies before the one of its predecessor, time=`{}` before=`{time}`", item.time);
            return Err(LogError::InvalidDraft { detail });
        }
        if let Link::Known(found, _) = item.link
            && found != position
        {
            let detail = format!("it does not follow its predecessor, position=`{found}` expected=`{position}`");
            return Err(LogError::InvalidDraft { detail });
        }
        time = item.time;
        bytes += frame_bytes(item.body_bytes());
    }
    Ok(bytes)
}

/// The room that a transaction takes in a segment, in bytes.
pub(crate) fn frame_room(payload: usize) -> u64 {
    frame_bytes(DIGEST_BYTES + payload)
}

const _: () = assert!(SALT_BYTES < DIGEST_BYTES);
