//! [`Model`]: what a read must see, said as naively as possible.

use std::collections::BTreeSet;

use crate::backends::Change;
use crate::types::{Entry, Position, Slice};

/// Every change ever made, searched from end to end by every read.
#[derive(Clone, Debug, Default)]
pub struct Model {
    changes: Vec<Change>,
}

impl Model {
    /// Takes one change, in any order.
    pub fn add(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The entry of a key at a position.
    pub fn get(&self, at: Position, key: &[u8]) -> Option<(Position, Slice)> {
        let (version, value) = self
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Put { key: own, version, value } if own[..] == *key => Some((*version, Some(value))),
                Change::Delete { key: own, version } if own[..] == *key => Some((*version, None)),
                _ => None,
            })
            .filter(|(version, _)| *version <= at)
            .max_by_key(|(version, _)| *version)?;
        let hidden = self.covering(key).any(|range| range > version && range <= at);
        Some((version, value.filter(|_| !hidden)?.clone()))
    }

    /// The versions of the range deletes that cover a key.
    pub(super) fn covering(&self, key: &[u8]) -> impl Iterator<Item = Position> {
        self.changes.iter().filter_map(move |change| match change {
            Change::DeleteRange { prefix, version } if key.starts_with(prefix) => Some(*version),
            _ => None,
        })
    }

    /// Every key that ever had a value.
    pub(super) fn keys(&self) -> BTreeSet<Slice> {
        let puts = self.changes.iter().filter_map(|change| match change {
            Change::Put { key, .. } => Some(key.clone()),
            _ => None,
        });
        puts.collect()
    }

    /// Everything that lives at a position.
    pub fn live(&self, at: Position) -> Vec<Entry> {
        self.keys()
            .into_iter()
            .filter_map(|key| {
                self.get(at, &key).map(|(version, value)| Entry { encoded_key: key.clone(), version, value })
            })
            .collect()
    }
}
