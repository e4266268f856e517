//! [`FileStats`]: the figures that the log's files give, also beside the process that has the store open.

use std::path::Path;

use crate::env::Env;
use crate::log::{Check, LOG_FORMAT, LogFiles};
use crate::store::{LOG_DIR, ScrubReport};
use crate::types::{LogId, Position, Result};

const MICROSECONDS_PER_DAY: f64 = 86_400_000_000.0;

/// Figures of a store's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStats {
    /// The log's identity.
    pub log_id: LogId,
    /// The version of the log's format.
    pub format: u32,
    /// The last transaction that is known to be durable; the writing process may be a little further.
    pub synced: Position,
    /// The oldest readable state.
    pub floor: Position,
    /// Segments, the one written to included.
    pub segments: u64,
    /// Bytes of all frames; preallocated room not counted.
    pub log_bytes: u64,
    /// What the background scrub did and found, as the process that runs it last wrote it down.
    pub scrub: ScrubReport,
    /// Bytes a day since the first transaction that is still there; none within one moment.
    pub bytes_per_day: Option<u64>,
}

impl FileStats {
    /// Looks at the files of the store in `dir`, without its lock.
    ///
    /// # Errors
    /// `not_found`, `corrupt`, `unavailable` for a newer format and where the disk fails.
    pub fn read(env: &Env, dir: &Path) -> Result<FileStats> {
        let files = LogFiles::open(env, &dir.join(LOG_DIR))?;
        let segments = files.segments();
        let (head, floor, log_bytes) = (files.head()?, files.floor(), files.bytes());
        let first_time = match floor.position < head.position {
            true => files.frames(floor.position.next(), Check::Order)?.next().transpose()?.map(|frame| frame.time),
            false => None,
        };
        let micros = first_time.map_or(0, |first| head.time.0.saturating_sub(first.0));
        Ok(FileStats {
            log_id: files.id(),
            format: LOG_FORMAT,
            synced: head.position,
            floor: floor.position,
            segments: segments.len() as u64,
            log_bytes,
            scrub: ScrubReport::load(env, dir),
            bytes_per_day: (micros > 0).then(|| (log_bytes as f64 * MICROSECONDS_PER_DAY / micros as f64) as u64),
        })
    }
}
