//! Rewind: partitions, or keys with a prefix, become what they were at an earlier position, as one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::diff::{Difference, RangeDiff};
use super::engine::Shared;
use super::facade::{Committed, Store};
use super::prepare::check_range;
use super::reader::Reader;
use super::transaction::{Answer, Tx};
use crate::types::{At, Error, ErrorKind, KeyRange, Result};

/// Up to so many keys are written one by one, so that what did not change keeps its version; above, a range is restored as a whole.
const SINGLE_KEYS_MAX: u64 = if cfg!(test) { 8 } else { 10_000 };
/// The same in bytes of keys and values.
const SINGLE_BYTES_MAX: usize = if cfg!(test) { 64 << 10 } else { 8 << 20 };

/// How many keys a rewind changes, or would change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// Keys that get their value of then back.
    pub restored: u64,
    /// Keys that were not there then and go.
    pub removed: u64,
}

impl Answer for Rewound {
    fn encode(&self) -> Vec<u8> {
        [self.restored.to_le_bytes(), self.removed.to_le_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Rewound> {
        let (restored, removed) = bytes.split_first_chunk()?;
        let [restored, removed] = [*restored, removed.try_into().ok()?].map(u64::from_le_bytes);
        Some(Rewound { restored, removed })
    }
}

impl Store {
    /// Counts what [`Store::rewind`] would change now.
    ///
    /// # Errors
    /// As [`Store::rewind`].
    pub async fn plan_rewind(&self, scope: &[(&[u8], &[u8])], to: impl Into<At>) -> Result<Rewound> {
        let scope = disjoint(scope)?;
        let then = self.at(to).await?;
        // Of one position, as the transaction will be.
        let now = self.reader();
        let mut rewound = Rewound::default();
        for (partition, prefix) in &scope {
            let range = KeyRange::new(partition, prefix);
            for_each_difference(&then, &now, &range, |difference| rewound.count(&difference)).await?;
        }
        Ok(rewound)
    }

    /// Makes every key in the scope (pairs of a partition and a prefix, empty: all of it) what it was at a position, a time or
    /// a mark, as one transaction. Parts of the scope that lie in others count once. Keys that are as they were keep their version where few others differ. With nothing to
    /// change nothing is written.
    ///
    /// # Errors
    /// Those of [`Store::at`] and of [`Tx::restore_range`]; `invalid` for an empty scope and for a partition of the store's own. What the ranges
    /// of one rewind bring is held in memory: see [`Tx::restore_range`] for the limit and for what to do above it.
    pub async fn rewind(
        &self,
        context: Context,
        scope: &[(&[u8], &[u8])],
        to: impl Into<At>,
    ) -> Result<Committed<Rewound>> {
        let scope = disjoint(scope)?;
        // Pinned until it is done.
        let then = self.at(to).await?;
        let (shared, scope) = (self.shared().clone(), Arc::new(scope));
        self.transact(context, move |tx: Tx| {
            let (shared, scope, then) = (shared.clone(), scope.clone(), then.clone());
            async move {
                let mut rewound = Rewound::default();
                for (partition, prefix) in scope.iter() {
                    rewind_range(&shared, &tx, &then, partition, prefix, &mut rewound).await?;
                }
                Ok(rewound)
            }
        })
        .await
    }
}

/// The ranges of a scope that lie in no other of it, each once and in order.
///
/// Errors: `invalid` for none, and for what is no range of the caller's.
fn disjoint(scope: &[(&[u8], &[u8])]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    if scope.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "there is nothing to rewind: name a partition"));
    }
    let mut ranges = BTreeMap::new();
    for (partition, prefix) in scope {
        check_range(partition, prefix)?;
        ranges.insert(KeyRange::new(partition, prefix).prefix().to_vec(), (partition.to_vec(), prefix.to_vec()));
    }
    // A prefix comes right before what begins with it.
    let mut outer: Option<Vec<u8>> = None;
    ranges.retain(|encoded, _| {
        let inside = outer.as_ref().is_some_and(|outer| encoded.starts_with(outer));
        if !inside {
            outer = Some(encoded.clone());
        }
        !inside
    });
    Ok(ranges.into_values().collect())
}

async fn rewind_range(
    shared: &Arc<Shared>,
    tx: &Tx,
    then: &Reader,
    partition: &[u8],
    prefix: &[u8],
    rewound: &mut Rewound,
) -> Result<()> {
    let range = KeyRange::new(partition, prefix);
    // What comes into the range while this is decided makes it decide again.
    tx.note_range(&range);
    let now = Reader::pinned(shared.clone(), tx.pin().clone());
    let mut single = Vec::new();
    let (mut differing, mut bytes) = (Rewound::default(), 0);
    for_each_difference(then, &now, &range, |difference| {
        differing.count(&difference);
        bytes += difference.encoded_key.len() + difference.old.as_ref().map_or(0, |entry| entry.value.len());
        if differing.total() <= SINGLE_KEYS_MAX && bytes <= SINGLE_BYTES_MAX {
            single.push(difference);
        }
    })
    .await?;
    rewound.restored += differing.restored;
    rewound.removed += differing.removed;
    if differing.total() > SINGLE_KEYS_MAX || bytes > SINGLE_BYTES_MAX {
        return tx.restore_range(partition, prefix, then.position()).await;
    }
    for difference in single {
        match &difference.old {
            Some(entry) => {
                tx.note_erasable(&entry.encoded_key, entry.version);
                tx.set(partition, &difference.key(), &entry.value)?;
            }
            None => tx.delete(partition, &difference.key())?,
        }
    }
    Ok(())
}

/// Hands out what differs in a range.
async fn for_each_difference(
    then: &Reader,
    now: &Reader,
    range: &KeyRange,
    mut take: impl FnMut(Difference),
) -> Result<()> {
    let mut differences = RangeDiff::new(then, now, range.prefix(), range.end());
    while let Some(page) = differences.page().await? {
        page.into_iter().for_each(&mut take);
    }
    Ok(())
}

impl Rewound {
    fn count(&mut self, difference: &Difference) {
        match difference.old {
            Some(_) => self.restored += 1,
            None => self.removed += 1,
        }
    }

    fn total(self) -> u64 {
        self.restored + self.removed
    }
}
