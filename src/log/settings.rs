//! [`LogSettings`] and [`DirLock`]: what an opener brings.

use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::LogError;
use super::error::IoAt;
use super::segment::MinFree;
use crate::env::{Env, FileExt as _, Lock, OpenMode};

/// The settings of a log. They may change between openings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// The size of a segment file in bytes, preallocated; 64 KiB to 4 GiB, default 64 MiB. A larger batch gets a
    /// segment of its own size.
    pub segment_bytes: u64,
    /// Bytes of the file system that are not used for segments, so that checkpoint and trim have room; by default
    /// the smaller of 5 % and 1 GiB.
    pub min_free_bytes: Option<u64>,
}

const SEGMENT_BYTES_RANGE: RangeInclusive<u64> = 64 << 10..=4 << 30;

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { segment_bytes: 64 << 20, min_free_bytes: None }
    }
}

impl LogSettings {
    pub(super) fn check(&self) -> Result<(), LogError> {
        if SEGMENT_BYTES_RANGE.contains(&self.segment_bytes) && self.segment_bytes.is_multiple_of(4096) {
            return Ok(());
        }
        let detail = format!(
            "segment_bytes must be a multiple of 4096 from {} to {}, found=`{}`",
            SEGMENT_BYTES_RANGE.start(),
            SEGMENT_BYTES_RANGE.end(),
            self.segment_bytes
        );
        Err(LogError::InvalidSetting { detail })
    }

    pub(super) fn min_free(&self) -> MinFree {
        self.min_free_bytes.map_or(MinFree::Default, MinFree::Bytes)
    }

    /// Bytes that ordinary writes leave free on a file system of so many bytes.
    pub fn kept_free(&self, total: u64) -> u64 {
        self.min_free().bytes(total)
    }
}

/// The lock of a store directory: one process writes. Released when the last clone is dropped and when the process ends.
#[derive(Clone, Debug)]
pub struct DirLock(#[expect(dead_code, reason = "held, never asked")] Arc<dyn Lock>);

impl DirLock {
    /// Takes the lock file at `path` and writes this process's id into it.
    ///
    /// Errors: `Locked` with the content of the file, `LocksUnsupported`, `Io`.
    pub fn take(env: &Env, path: &Path) -> Result<DirLock, LogError> {
        let content = format!("pid {}\n", std::process::id());
        match env.fs.lock(path, content.as_bytes()) {
            Ok(lock) => Ok(DirLock(Arc::from(lock))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(LogError::Locked { path: path.to_path_buf(), holder: DirLock::holder(env, path) })
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(LogError::LocksUnsupported { path: path.to_path_buf() })
            }
            Err(error) => Err(error).at("take the lock", path),
        }
    }

    fn holder(env: &Env, path: &Path) -> String {
        const HOLDER_BYTES_MAX: u64 = 64;
        let content = env.fs.open(path, OpenMode::Read).and_then(|file| {
            let mut content = vec![0; file.len()?.min(HOLDER_BYTES_MAX) as usize];
            file.read_exact_at(&mut content, 0)?;
            Ok(String::from_utf8_lossy(&content).trim().to_owned())
        });
        content.ok().filter(|holder| !holder.is_empty()).unwrap_or_else(|| "unknown".to_owned())
    }
}
