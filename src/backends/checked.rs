//! [`CheckedChanges`]: what every backend checks of a write before it believes it.

use super::{BackendError, Change, Changes};
use crate::types::{Limits, Position, Slice, Stamp};

/// Longest encoded key and prefix that a backend takes, in bytes: far above what the limits of the
/// store can encode to, and what two bytes can count.
pub(crate) const ENCODED_KEY_BYTES_MAX: usize = u16::MAX as usize;

/// The changes of one write, with the order and the versions that the contract promises checked on
/// the way. Ends after the first error.
pub(crate) struct CheckedChanges<'a> {
    changes: Changes<'a>,
    former: Option<Position>,
    stamp: Position,
    last: Option<(Option<Slice>, Position)>,
    failed: bool,
}

impl<'a> CheckedChanges<'a> {
    /// Checks stamp and `keep` against the former stamp. `Invalid` when they break the contract.
    pub(crate) fn new(
        former: Option<&Stamp>,
        stamp: &Stamp,
        keep: &[Position],
        changes: Changes<'a>,
    ) -> Result<CheckedChanges<'a>, BackendError> {
        if let Some(former) = former {
            if former.log_id != stamp.log_id {
                return Err(invalid(format!("log=`{}` former=`{}`", stamp.log_id, former.log_id)));
            }
            if stamp.position <= former.position {
                return Err(invalid(format!("stamp=`{}` former=`{}`", stamp.position, former.position)));
            }
        }
        let floor = former.map(|former| former.history.unwrap_or(stamp.position));
        if stamp.history.is_some_and(|from| from > stamp.position || floor.is_some_and(|floor| from < floor)) {
            return Err(invalid(format!("a history that cannot begin there, history=`{:?}`", stamp.history)));
        }
        if keep.windows(2).any(|pair| pair[0] >= pair[1]) || keep.last().is_some_and(|&last| last > stamp.position) {
            return Err(invalid(format!("positions to keep unsorted or above stamp=`{}`", stamp.position)));
        }
        let former = former.map(|former| former.position);
        Ok(CheckedChanges { changes, former, stamp: stamp.position, last: None, failed: false })
    }

    fn check(&mut self, change: &Change) -> Result<(), BackendError> {
        let (key, prefix, version, value_len) = match change {
            Change::DeleteRange { prefix, version } => (None, Some(prefix), *version, 0),
            Change::Put { key, version, value } => (Some(key), None, *version, value.len()),
            Change::Delete { key, version } => (Some(key), None, *version, 0),
        };
        let long = key.or(prefix).is_some_and(|bytes| bytes.len() > ENCODED_KEY_BYTES_MAX);
        if long || value_len > Limits::VALUE_BYTES_MAX {
            return Err(invalid(format!("a key or a value above the limits, version=`{version}`")));
        }
        // Late puts are entries of an index that was not there before.
        let late = self.former.is_some_and(|former| version <= former) && !matches!(change, Change::Put { .. });
        if version > self.stamp || late {
            return Err(invalid(format!("a change outside the write, version=`{version}` stamp=`{}`", self.stamp)));
        }
        let ordered = match (&self.last, key) {
            (None, _) => true,
            // Range deletes first, by ascending version.
            (Some((None, last)), None) => *last <= version,
            (Some((None, _)), Some(_)) => true,
            (Some((Some(_), _)), None) => false,
            // Then keys, ascending; one key by descending version.
            (Some((Some(last_key), last)), Some(key)) => last_key < key || (last_key == key && *last > version),
        };
        if !ordered {
            return Err(invalid(format!("changes out of order, version=`{version}`")));
        }
        self.last = Some((key.cloned(), version));
        Ok(())
    }
}

impl Iterator for CheckedChanges<'_> {
    type Item = Result<Change, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.changes.next()?.and_then(|change| self.check(&change).map(|()| change));
        self.failed = next.is_err();
        Some(next)
    }
}

fn invalid(detail: String) -> BackendError {
    BackendError::Invalid { detail }
}
