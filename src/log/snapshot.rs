//! [`Snapshot`]: the file that holds the state at the floor, as the manifest lists it.
//!
//! Owns its name and the proof that its bytes are those that were listed. What is in it is a dump of the state, which
//! the log neither writes nor reads.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::IoAt;
use super::segment::corrupt;
use super::{Head, LogError};
use crate::env::{File, FileExt as _, Fs, OpenMode};
use crate::types::{Digest, Position};

const PREFIX: &str = "snapshot-";
const UNFINISHED: &str = "snapshot.new";
const READ_BYTES: usize = 1 << 20;

/// A snapshot in the log's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state that it holds.
    pub head: Head,
    /// The size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub digest: Digest,
}

impl Snapshot {
    /// The name of the file: after the position, and the beginning of the digest, so that a snapshot that replaces one of
    /// the same position has another name.
    pub fn file_name(&self) -> String {
        let [first, second, third, fourth, ..] = self.digest.0;
        format!("{PREFIX}{:016x}-{:08x}", self.head.position.0, u32::from_be_bytes([first, second, third, fourth]))
    }

    /// Where one is made before it has its name, in the directory of the log. What is left of an attempt goes at the next open.
    pub fn unfinished(dir: &Path) -> PathBuf {
        dir.join(UNFINISHED)
    }

    /// Whether a file is a snapshot by its name.
    pub fn is_file_name(name: &str) -> bool {
        let digits = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        parts.is_some_and(|(position, digest)| digits(position, 16) && digits(digest, 8))
    }

    /// The file, in the directory of the log.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(self.file_name())
    }

    /// Opens the file; it has the size listed, but its bytes are not looked at.
    ///
    /// Errors: `Corrupt`, `Io`.
    pub fn open(&self, fs: &dyn Fs, dir: &Path) -> Result<Box<dyn File>, LogError> {
        let path = self.path(dir);
        let damaged = |detail: &str| Err(corrupt(&path, 0, Position(1), self.head.position, detail));
        let file = match fs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return damaged("the snapshot is missing"),
            Err(error) => return Err(error).at("open the snapshot", &path),
        };
        match file.len().at("read the snapshot", &path)? {
            found if found == self.bytes => Ok(file),
            _ => damaged("the snapshot does not have the size in the manifest"),
        }
    }

    /// Reads the whole file and compares it with what the manifest says.
    ///
    /// Errors: `Corrupt`, `Io`.
    pub fn verify(&self, fs: &dyn Fs, dir: &Path) -> Result<(), LogError> {
        let file = self.open(fs, dir)?;
        let path = self.path(dir);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut at = 0;
        while at < self.bytes {
            let chunk = &mut buffer[..READ_BYTES.min(usize::try_from(self.bytes - at).unwrap_or(READ_BYTES))];
            file.read_exact_at(chunk, at).at("read the snapshot", &path)?;
            hasher.update(&*chunk);
            at += chunk.len() as u64;
        }
        match hasher.finalize()[..] == self.digest.0 {
            true => Ok(()),
            false => Err(corrupt(&path, 0, Position(1), self.head.position, "the snapshot has another SHA-256")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Hash, Timestamp};

    #[test]
    fn file_names_are_known_again() {
        let head = Head { position: Position(0xab), time: Timestamp(1), chain: Hash([2; 32]) };
        let snapshot = Snapshot { head, bytes: 1, digest: Digest([0xcd; 32]) };
        assert_eq!(snapshot.file_name(), "snapshot-00000000000000ab-cdcdcdcd");
        assert!(Snapshot::is_file_name(&snapshot.file_name()));
        for name in ["snapshot-", "snapshot.new", "snapshot-00000000000000ab", "snapshot-00000000000000ab-cdcdcdc"] {
            assert!(!Snapshot::is_file_name(name), "{name}");
        }
    }
}
