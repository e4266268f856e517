//! Restoring dumps into a store's directory, under its lock. Views are built by the next open.

use super::builder::Builder;
use super::open::{BASE_DIR, LOCK_FILE, LOG_DIR};
use crate::dump::{DumpSource, RestoreOptions, Restored, restore};
use crate::env::create_dir_durably;
use crate::log::{DirLock, LogError, LogSettings};
use crate::types::{Error, ErrorKind, Result};

impl Builder {
    /// Restores a dump, or a chain of them in order, into the directory: one that is absent or empty, or a store whose history the dumps
    /// go on from or are a part of. With `as_clone` under a new log id. The dump of a state begins a log of its own, which has
    /// a new id too. What was interrupted is completed by the same call. `progress` is called with bytes read and bytes to
    /// read, where that is known. Blocks the thread on files; the store must not be open.
    ///
    /// # Errors
    /// With nothing changed: `invalid` for what is no dump; `corrupt` for a damaged one; `conflict` for a gap, a fork, another log;
    /// `unavailable` for a newer format, when a process has the store open, and without room. When the disk fails, what is
    /// visible is as before or a longer part of the dumps' history.
    pub fn restore(
        self,
        sources: Vec<DumpSource>,
        as_clone: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Restored> {
        self.settings.validate()?;
        let Builder { env, dir, settings, .. } = self;
        let failed = |source| LogError::Io { action: "create the directory", path: dir.clone(), source };
        create_dir_durably(env.fs.as_ref(), &dir).map_err(failed)?;
        let lock = DirLock::take(&env, &dir.join(LOCK_FILE))?;
        let (log, base) = (dir.join(LOG_DIR), dir.join(BASE_DIR));
        let exists = |path| {
            let failed = |source| LogError::Io { action: "look for the store", path: dir.clone(), source };
            env.fs.exists(path).map_err(failed)
        };
        // It may be all that is left of a log that was lost, and hold more than the dump.
        if !exists(&log)? && exists(&base)? && !exists(&dir.join("log.replaced"))? {
            let message = format!(
                "the log is missing, but there is a base made from it, path=`{}`; put the log back, or move the base away to restore",
                base.display()
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let settings = LogSettings { segment_bytes: settings.segment_bytes, min_free_bytes: settings.min_free_bytes };
        let options = RestoreOptions { as_clone, settings };
        Ok(restore(&env, lock, &log, sources, &options, progress)?)
    }
}
