//! [`FileStats`]: the figures that the log's files give, also beside the process that has the store open.

use std::path::Path;

use crate::env::{Env, Space};
use crate::log::{Check, LOG_FORMAT, LogFiles, LogSettings};
use crate::store::{LOG_DIR, ScrubReport};
use crate::types::{Error, ErrorKind, LogId, Position, Result, Timestamp};

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;
/// How far back growth is measured.
const RECENT_DAYS: i64 = 7;

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
    /// Bytes that the log grew by a day, over the last 7 days or, when that is shorter, since the first transaction that is
    /// still there; none within one moment.
    pub bytes_per_day: Option<u64>,
    /// The time that this was measured over, in microseconds.
    pub measured_micros: i64,
    /// The room on the file system that the log lies on.
    pub space: Space,
}

impl FileStats {
    /// Looks at the files of the store in `dir`, without its lock. Reads a segment where the last 7 days begin in its middle.
    ///
    /// # Errors
    /// `not_found`, `corrupt`, `unavailable` for a newer format and where the disk fails.
    pub fn read(env: &Env, dir: &Path) -> Result<FileStats> {
        let log_dir = dir.join(LOG_DIR);
        let files = LogFiles::open(env, &log_dir)?;
        let head = files.head()?;
        let (recent_bytes, measured_micros) = recent_growth(&files, env.clock.now().max(head.time))?;
        let space = env.fs.space(&log_dir).map_err(|error| {
            let message = format!("cannot ask for free space, path=`{}`", log_dir.display());
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        let per_day = |bytes: u64| (bytes as f64 * MICROSECONDS_PER_DAY as f64 / measured_micros as f64) as u64;
        Ok(FileStats {
            log_id: files.id(),
            format: LOG_FORMAT,
            synced: head.position,
            floor: files.floor().position,
            segments: files.segments().len() as u64,
            log_bytes: files.bytes(),
            scrub: ScrubReport::load(env, dir),
            bytes_per_day: (measured_micros > 0).then(|| per_day(recent_bytes)),
            measured_micros,
            space,
        })
    }

    /// Whole days until ordinary writes find no room, if the log goes on as in the last days and nothing is trimmed; none
    /// before it was measured over a whole day, and when it did not grow. `base_bytes` is what of the base lies on the same disk: it is taken to grow with
    /// the log. `min_free_bytes` is the setting of that name.
    pub fn days_until_full(&self, min_free_bytes: Option<u64>, base_bytes: u64) -> Option<u64> {
        let settings = LogSettings { min_free_bytes, ..LogSettings::default() };
        let room = self.space.free.saturating_sub(settings.kept_free(self.space.total));
        let log_per_day = self.bytes_per_day.filter(|_| self.measured_micros >= MICROSECONDS_PER_DAY)?;
        let both = self.log_bytes.saturating_add(base_bytes) as f64 / self.log_bytes.max(1) as f64;
        (log_per_day > 0).then(|| (room as f64 / (log_per_day as f64 * both)) as u64)
    }
}

/// Bytes that came into the log in the last days before `now`, and how many microseconds these were.
fn recent_growth(files: &LogFiles, now: Timestamp) -> Result<(u64, i64)> {
    let floor = files.floor().position;
    if floor >= files.synced() {
        return Ok((0, 0));
    }
    let Some(first) = files.frames(floor.next(), Check::Order)?.next().transpose()? else {
        return Ok((0, 0));
    };
    let begin = Timestamp(now.0.saturating_sub(RECENT_DAYS * MICROSECONDS_PER_DAY));
    let (from, begin) = match begin > first.time {
        true => (files.position_at(begin)?, begin),
        false => (floor, first.time),
    };
    Ok((files.bytes_after(from)?, now.0.saturating_sub(begin.0)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::env::Clock;
    use crate::log::{DirLock, Draft, FileLog, Log as _};
    use crate::types::{Digest, Salt};

    /// A clock that stands.
    #[derive(Debug)]
    struct Day(i64);

    impl Clock for Day {
        fn now(&self) -> Timestamp {
            Timestamp(self.0 * MICROSECONDS_PER_DAY)
        }
    }

    fn on(day: i64) -> Env {
        Env { clock: Arc::new(Day(day)), ..Env::os() }
    }

    /// A log with a transaction of so many bytes on each of these days.
    fn log(dir: &Path, transactions: &[(i64, usize)]) {
        let settings = LogSettings { segment_bytes: 64 << 10, min_free_bytes: Some(0) };
        let (env, lock) = (on(0), DirLock::take(&Env::os(), &dir.join("LOCK")).unwrap());
        let log = FileLog::create(env, lock, &dir.join(LOG_DIR), settings).unwrap();
        for &(day, bytes) in transactions {
            let (salt, payload) = (Salt([day as u8; 16]), Bytes::from(vec![day as u8; bytes]));
            let time = Timestamp(day * MICROSECONDS_PER_DAY);
            let draft = Draft { time, salt, digest: Digest::of(&salt, &payload), payload };
            log.append(log.head().position, &[draft]).unwrap();
            log.sync().unwrap();
        }
        log.close().unwrap();
    }

    #[test]
    fn growth_is_that_of_the_last_days() {
        let dir = tempfile::tempdir().unwrap();
        // A large import long ago, then a quiet time, then 10 kB a day: over several segments, the last of which holds a part of the quiet time.
        let import = (0..20).map(|_| (1, 30_000));
        let daily = (90..=100).map(|day| (day, 10_000));
        log(dir.path(), &import.chain(daily).collect::<Vec<_>>());
        let stats = |day| FileStats::read(&on(day), dir.path()).unwrap();
        let now = stats(100);
        assert!(now.segments > 5 && now.log_bytes > 700_000, "{now:?}");
        assert_eq!(now.measured_micros, 7 * MICROSECONDS_PER_DAY);
        // Days 94 to 100; what is above 10,000 is the frame around it, and the header of the segment that they may have begun.
        let per_day = now.bytes_per_day.unwrap();
        assert!((10_000..11_500).contains(&per_day), "{per_day}");
        // Nothing came in since.
        let later = stats(103).bytes_per_day.unwrap();
        assert!((4 * 10_000 / 7..4 * 11_500 / 7).contains(&later), "{later}");
        assert_eq!((stats(200).bytes_per_day, stats(200).days_until_full(None, 0)), (Some(0), None));
        // A clock that went back is not believed.
        let space = now.space;
        assert_eq!(FileStats { space, ..stats(50) }, now);
    }

    #[test]
    fn the_room_that_is_left_ends_after_so_many_days() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), &[(1, 10_000), (2, 10_000)]);
        let space = Space { free: 5_000_000, total: 40_000_000 };
        let stats = |day| FileStats { space, ..FileStats::read(&on(day), dir.path()).unwrap() };
        let grown = stats(3);
        let per_day = grown.bytes_per_day.unwrap();
        assert!((10_000..13_000).contains(&per_day), "{per_day}");
        assert_eq!(grown.days_until_full(Some(0), 0), Some(5_000_000 / per_day));
        // Without the setting 5 % of the whole is kept.
        assert_eq!(grown.days_until_full(None, 0), Some(3_000_000 / per_day));
        assert_eq!(grown.days_until_full(Some(6_000_000), 0), Some(0));
        // A base as large as the log takes half of the room.
        assert_eq!(grown.days_until_full(Some(0), grown.log_bytes), Some(2_500_000 / per_day));
        // After less than a day there is nothing to go by.
        let young = tempfile::tempdir().unwrap();
        log(young.path(), &[(1, 10_000), (1, 10_000)]);
        let read = FileStats::read(&on(1), young.path()).unwrap();
        assert_eq!((read.bytes_per_day, read.days_until_full(Some(0), 0)), (None, None));
    }

    #[test]
    fn an_empty_log_grew_by_nothing() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), &[]);
        let stats = FileStats::read(&on(9), dir.path()).unwrap();
        assert_eq!((stats.bytes_per_day, stats.days_until_full(None, 0)), (None, None));
    }
}
