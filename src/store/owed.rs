//! The archives that a redaction goes through, and those that one still owes something: remembered in a small file beside the log from
//! before a redaction is decided until everything is done.
//!
//! What exactly is owed the archive itself says: its index names the last redaction that went through it. Losing the file loses a
//! reminder, nothing else.

use std::io;
use std::path::{Path, PathBuf};

use super::engine::Shared;
use crate::env::{Env, FileExt as _, OpenMode};
use crate::log::LogError;
use crate::types::{Error, ErrorKind, Position, Result};

/// The file in the store's directory.
pub(crate) const OWED_FILE: &str = "archives.owed";
const OWED_BYTES_MAX: u64 = 1 << 20;

/// The archives that are to be redacted: that of the settings, those that are owed something, and one that was named.
///
/// Errors, naming the archive: `unavailable` for one that is not there, `not_found` for the one that was named; `conflict` for that of
/// another log.
pub(super) fn archives(shared: &Shared, named: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    if let Some(dir) = &shared.settings.archive {
        match shared.log.archived(dir) {
            // Nothing has left the log yet.
            Err(LogError::NoArchive { .. }) if shared.log.begins() == Position::ZERO => {}
            Err(LogError::NoArchive { .. }) => {
                let message = format!(
                    "the archive of the settings is not there, path=`{}`; mount it, or take it out of the settings if nothing was ever archived in it",
                    dir.display()
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            archived => {
                archived?;
                archives.push(dir.clone());
            }
        }
    }
    for dir in owed(shared)? {
        check_owed(shared, &dir)?;
        archives.push(dir);
    }
    if let Some(dir) = named {
        shared.log.archived(dir)?;
        archives.push(absolute(dir));
    }
    archives.sort_unstable();
    archives.dedup();
    Ok(archives)
}

/// Whether an archive that is owed something is there.
pub(super) fn check_owed(shared: &Shared, dir: &Path) -> Result<()> {
    match shared.log.archived(dir) {
        Err(LogError::NoArchive { .. }) => {
            let message = format!(
                "an archive that still holds what was redacted is not there, path=`{}`; mount it, or remove its line from {OWED_FILE} when it is lost for good",
                dir.display()
            );
            Err(Error::new(ErrorKind::Unavailable, message))
        }
        archived => Ok(archived.map(drop)?),
    }
}

/// A later process may have another working directory.
fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf())
}

/// The archives that are owed something.
pub(super) fn owed(shared: &Shared) -> Result<Vec<PathBuf>> {
    owed_in(&shared.env, store_dir(shared))
}

/// The same of the store in `dir`, open or not: one path a line.
///
/// Errors: `corrupt` for what is no text, `unavailable` where the disk fails.
pub(crate) fn owed_in(env: &Env, dir: &Path) -> Result<Vec<PathBuf>> {
    let path = dir.join(OWED_FILE);
    let read = || -> io::Result<Vec<u8>> {
        let file = env.fs.open(&path, OpenMode::Read)?;
        let mut bytes = vec![0; file.len()?.min(OWED_BYTES_MAX) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes = match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(LogError::Io { action: "read which archives are owed a redaction", path, source }.into());
        }
        Ok(bytes) => bytes,
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let message = format!("the list of archives that are owed a redaction is no text, path=`{}`", path.display());
        Error::new(ErrorKind::Corrupt, message).with_source(error)
    })?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}

/// Notes, durably, that archives are owed something.
///
/// Errors: `invalid` for a path that is no line of text; `unavailable` where the disk fails.
pub(super) fn remember(shared: &Shared, archives: &[PathBuf]) -> Result<()> {
    let before = owed(shared)?;
    let mut all: Vec<PathBuf> = before.iter().chain(archives).cloned().collect();
    all.sort_unstable();
    all.dedup();
    if all == before {
        return Ok(());
    }
    store(shared, &all)
}

/// Notes that an archive is owed nothing any more.
pub(super) fn forget(shared: &Shared, archive: &Path) -> Result<()> {
    let mut all = owed(shared)?;
    let before = all.len();
    all.retain(|owed| owed != archive);
    if all.len() == before { Ok(()) } else { store(shared, &all) }
}

fn store(shared: &Shared, archives: &[PathBuf]) -> Result<()> {
    let (fs, dir) = (shared.env.fs.as_ref(), store_dir(shared));
    let (path, making) = (dir.join(OWED_FILE), dir.join(format!("{OWED_FILE}.new")));
    let mut text = String::new();
    for archive in archives {
        match archive.to_str().filter(|line| !line.contains(['\n', '\r'])) {
            Some(line) => text.extend([line, "\n"]),
            None => {
                let message = format!("the path of the archive is no line of text, path=`{}`", archive.display());
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        }
    }
    let removed = |path: &Path| match fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let written = (|| {
        removed(&making)?;
        if archives.is_empty() {
            removed(&path)?;
        } else {
            let file = fs.open(&making, OpenMode::CreateNew)?;
            file.write_all_at(text.as_bytes(), 0)?;
            file.sync_all()?;
            fs.rename(&making, &path)?;
        }
        fs.sync_dir(dir)
    })();
    Ok(written.map_err(|source| LogError::Io { action: "note which archives are owed a redaction", path, source })?)
}

fn store_dir(shared: &Shared) -> &Path {
    shared.log_dir.parent().unwrap_or(&shared.log_dir)
}
