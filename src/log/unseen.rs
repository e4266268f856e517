//! What is different in a log that nobody sees before it was closed: a restore writes it through once, from one end to the other.
//!
//! Its segments get their room from the file system, so no zeros are written that frames will stand in the place of. In a log
//! that is in use that would cost every sync; so the last segment, in which others will go on, is settled at the end.

use super::LogError;
use super::format::{SEAL_BYTES, SEGMENT_HEADER_BYTES};
use super::rotation::segment_header;
use super::segment;
use super::writer::{FileLog, View, Writer};
use crate::env::{FileExt as _, filled_pieces};

/// So much room is left for those who go on, in zeros; what they need beyond it is in the next segment.
const LEFT_BYTES: u64 = 1 << 20;

impl Writer {
    /// Says of `bytes` behind the end, which were just written, that they stay as they are, from time to time.
    pub(super) fn begin_sync(&self, bytes: u64) {
        if let Some((offset, len)) = filled_pieces(self.end, self.end + bytes) {
            self.file.begin_sync(offset, len);
        }
    }
}

impl FileLog {
    /// Ends the last segment a little behind its last frame, with zeros that are on the disk.
    ///
    /// Errors: a failed write or sync latches.
    pub(super) fn settle(&self, writer: &mut Writer) -> Result<(), LogError> {
        writer.check()?;
        let left = writer.end + SEAL_BYTES + LEFT_BYTES;
        let size = left.next_multiple_of(SEGMENT_HEADER_BYTES as u64).min(writer.size);
        let View { head, synced, manifest } = self.view.lock().clone();
        let before = manifest.before(manifest.segments.len() - 1);
        let header = segment_header(self.id, manifest.active(), before, size).encode();
        let file = writer.file.clone();
        let settled = (|| {
            segment::fill(file.as_ref(), writer.end, size)?;
            file.write_all_at(&header, 0)?;
            // A file must not be shorter than its header says.
            file.sync_all()?;
            file.set_len(size)?;
            file.sync_all()
        })();
        settled.map_err(|error| writer.latch(error, synced.position.next(), head.position))?;
        writer.size = size;
        Ok(())
    }
}
