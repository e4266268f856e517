//! Segment files: names, preallocation, the step from a spare to a segment, opening.
//!
//! A segment is made as `spare.seg`: zeros written and synced, then its header written and synced,
//! and only then renamed to its own name. So a file with a segment's name always began with a whole
//! header, and a `spare.seg` found at open never held a frame. Which segments belong to the log is
//! not decided here but by the manifest.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::IoAt;
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader, Unusable};
use super::{LOG_FORMAT, LogError};
use crate::env::{Env, File, FileExt as _, Fs, OpenMode};
use crate::types::Position;

const ZERO_CHUNK_BYTES: usize = 1 << 20;
/// Zeros that are synced together. What else syncs on the same disk, the active segment first of all, waits behind them in the disk's
/// queue: a spare that is synced only at its end holds it up for as long as the disk needs for a whole segment.
const FILL_SYNCED_BYTES: u64 = 2 << 20;
const SPARE_NAME: &str = "spare.seg";
const SUFFIX: &str = ".seg";

/// The number of a segment: dense and rising within a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The number of the following segment.
    #[must_use]
    pub fn next(self) -> SegmentId {
        SegmentId(self.0.saturating_add(1))
    }

    /// The segment's file in the directory of the log, as it was written first (0), or after so many redactions.
    pub fn path(self, revision: u32, dir: &Path) -> PathBuf {
        dir.join(self.file_name(revision))
    }

    fn file_name(self, revision: u32) -> String {
        match revision {
            0 => format!("{self}{SUFFIX}"),
            revision => format!("{self}-{revision:08x}{SUFFIX}"),
        }
    }

    /// The number that the name of a file as it was written first says; `None` for every other file.
    pub fn of_file_name(name: &str) -> Option<SegmentId> {
        SegmentId::and_revision_of(name).filter(|(_, revision)| *revision == 0).map(|(id, _)| id)
    }

    /// Number and revision that a file name says; `None` for every other file.
    pub fn and_revision_of(name: &str) -> Option<(SegmentId, u32)> {
        let digits = name.strip_suffix(SUFFIX)?;
        let (number, revision) = match digits.split_once('-') {
            Some((number, revision)) => (number, u32::from_str_radix(revision, 16).ok()?),
            None => (digits, 0),
        };
        let id = SegmentId(u64::from_str_radix(number, 16).ok()?);
        (id.file_name(revision) == name).then_some((id, revision))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A zero-filled, synced file that becomes the next segment.
#[derive(Debug)]
pub(super) struct Spare {
    file: Box<dyn File>,
    path: PathBuf,
    size: u64,
}

impl Spare {
    /// Fills `spare.seg` in `dir` with `size` zeros and syncs it; one that is there already is used again, so this
    /// works on a full disk too. `min_free` bytes of the file system are left alone.
    ///
    /// Errors: `NoSpace`, `Io`. Nothing in use was touched, so neither latches anything.
    pub fn allocate(fs: &dyn Fs, dir: &Path, size: u64, min_free: MinFree) -> Result<Spare, LogError> {
        Spare::make(fs, dir, size, min_free, |file| {
            for from in (0..size).step_by(FILL_SYNCED_BYTES as usize) {
                fill(file, from, size.min(from + FILL_SYNCED_BYTES))?;
                file.sync_data()?;
            }
            file.sync_all()
        })
    }

    /// The same, but its zeros are only promised by the file system: for a log that nobody waits for, and that will be written through.
    pub fn reserve(fs: &dyn Fs, dir: &Path, size: u64, min_free: MinFree) -> Result<Spare, LogError> {
        Spare::make(fs, dir, size, min_free, |file| file.allocate(size))
    }

    fn make(
        fs: &dyn Fs,
        dir: &Path,
        size: u64,
        min_free: MinFree,
        fill: impl FnOnce(&dyn File) -> io::Result<()>,
    ) -> Result<Spare, LogError> {
        let path = dir.join(SPARE_NAME);
        let no_space = |needed: u64, kept_free: u64| {
            let free = fs.space(dir).map_or(0, |space| space.free);
            LogError::NoSpace { path: dir.to_path_buf(), needed, free, kept_free }
        };
        let existing = match fs.open(&path, OpenMode::Write) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("open the spare segment", &path),
        };
        let present = match &existing {
            Some(file) => file.len().at("read the spare segment", &path)?,
            None => 0,
        };
        let needed = size.saturating_sub(present);
        if needed > 0 {
            let space = fs.space(dir).at("ask for free space", dir)?;
            let kept_free = min_free.bytes(space.total);
            if space.free.saturating_sub(needed) < kept_free || space.free < needed {
                return Err(no_space(needed, kept_free));
            }
        }
        let filled = (|| {
            let file = match existing {
                Some(file) => file,
                None => fs.open(&path, OpenMode::CreateNew)?,
            };
            if present > size {
                file.set_len(size)?;
            }
            fill(file.as_ref())?;
            Ok(file)
        })();
        match filled {
            Ok(file) => Ok(Spare { file, path, size }),
            Err(error) if is_no_space(&error) => Err(no_space(needed, 0)),
            Err(error) => Err(error).at("fill the spare segment", &path),
        }
    }

    /// The size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes header and frames, syncs them, and only then gives the file its name, durably. A file that
    /// has the name already is replaced.
    ///
    /// After an error the file may or may not have its name.
    pub fn into_segment(
        self,
        fs: &dyn Fs,
        dir: &Path,
        header: &SegmentHeader,
        frames: impl FnOnce(&dyn File) -> Result<u64, LogError>,
    ) -> Result<(Arc<dyn File>, u64), LogError> {
        self.file.write_all_at(&header.encode(), 0).at("write the segment header", &self.path)?;
        let end = frames(self.file.as_ref())?;
        self.file.sync_all().at("sync the segment", &self.path)?;
        let path = SegmentId(header.sequence).path(0, dir);
        fs.rename(&self.path, &path).at("rename the spare segment", &path)?;
        fs.sync_dir(dir).at("sync the directory", dir)?;
        Ok((Arc::from(self.file), end))
    }
}

/// Writes zeros from an offset up to another one.
pub(super) fn fill(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let bytes = to.saturating_sub(from);
    let zeros = vec![0; ZERO_CHUNK_BYTES.min(usize::try_from(bytes).unwrap_or(ZERO_CHUNK_BYTES))];
    let mut offset = from;
    while offset < to {
        let len = (to - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..len as usize], offset)?;
        offset += len;
    }
    Ok(())
}

/// How much of the file system ordinary writes leave free.
#[derive(Clone, Copy, Debug)]
pub(super) enum MinFree {
    /// The smaller of 5 % and 1 GiB.
    Default,
    /// So many bytes.
    Bytes(u64),
}

impl MinFree {
    pub fn bytes(self, total: u64) -> u64 {
        match self {
            MinFree::Default => (total / 20).min(1 << 30),
            MinFree::Bytes(bytes) => bytes,
        }
    }
}

pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A random, nonzero tag.
pub(super) fn random_tag(env: &Env) -> u64 {
    loop {
        let mut bytes = [0; 8];
        env.entropy.fill(&mut bytes);
        let tag = u64::from_le_bytes(bytes);
        if tag != 0 {
            return tag;
        }
    }
}

/// An open segment file with its header, or why the header is of no use.
type Opened = Result<(Box<dyn File>, SegmentHeader), &'static str>;

/// Opens a segment file and reads its header. The outer error is a failed access, the inner one says why the
/// header is of no use; `NewerFormat` is an outer one.
pub(super) fn open(fs: &dyn Fs, path: &Path, mode: OpenMode) -> Result<Opened, LogError> {
    let file = match fs.open(path, mode) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(MISSING)),
        Err(error) => return Err(error).at("open the segment", path),
    };
    let mut block = vec![0; SEGMENT_HEADER_BYTES];
    match file.read_exact_at(&mut block, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err("the file ends inside the segment header"));
        }
        Err(error) => return Err(error).at("read the segment header", path),
    }
    match SegmentHeader::decode(&block) {
        Ok(header) => Ok(Ok((file, header))),
        Err(Unusable::Damaged(why)) => Ok(Err(why)),
        Err(Unusable::Newer(found)) => {
            Err(LogError::NewerFormat { path: path.to_path_buf(), found, supported: LOG_FORMAT })
        }
    }
}

/// What [`open`] says of a file that is not there.
pub(super) const MISSING: &str = "the segment file is missing";

/// A `Corrupt` error over a range of positions.
pub(super) fn corrupt(
    path: &Path,
    offset: u64,
    first: Position,
    last: Position,
    detail: impl Into<String>,
) -> LogError {
    LogError::Corrupt { path: path.to_path_buf(), offset, first, last: last.max(first), detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_come_back_and_others_are_no_segments() {
        let id = SegmentId(0xab);
        assert_eq!(id.path(0, Path::new("d")), Path::new("d/00000000000000ab.seg"));
        assert_eq!(id.path(0x2c, Path::new("d")), Path::new("d/00000000000000ab-0000002c.seg"));
        assert_eq!(SegmentId::and_revision_of("00000000000000ab-0000002c.seg"), Some((id, 0x2c)));
        assert_eq!(SegmentId::and_revision_of("00000000000000ab-00000000.seg"), None);
        assert_eq!(SegmentId::of_file_name("00000000000000ab-0000002c.seg"), None);
        assert_eq!(SegmentId::of_file_name("00000000000000ab.seg"), Some(id));
        for name in ["spare.seg", "ab.seg", "00000000000000AB.seg", "00000000000000ab.seg.old", "manifest.0"] {
            assert_eq!(SegmentId::of_file_name(name), None, "{name}");
        }
    }
}
