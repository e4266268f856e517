//! [`DryRun`]: what an import would do, without doing it.
//!
//! Reads at one position, and remembers what would have been written as digests.

use std::collections::HashMap;

use super::Record;
use super::import::Fate;
use crate::store::Reader;
use crate::types::{Digest, Key, Result, Salt};

/// Decides like the transactions of an import, from the store and the records before.
pub(super) struct DryRun {
    reader: Reader,
    overwrite: bool,
    /// The key and the value of every record that would have been written.
    written: HashMap<Digest, Digest>,
}

impl DryRun {
    /// An import that begins now.
    pub(super) fn new(reader: Reader, overwrite: bool) -> DryRun {
        DryRun { reader, overwrite, written: HashMap::new() }
    }

    /// The fates of the next records.
    pub(super) async fn decide(&mut self, records: &[Record]) -> Result<Vec<Fate>> {
        let mut fates = Vec::with_capacity(records.len());
        for Record { partition, key, value, .. } in records {
            let digest = |bytes: &[u8]| Digest::of(&Salt::default(), bytes);
            let (name, content) = (digest(&Key::encode(partition, key)), digest(value));
            let found = match self.written.get(&name) {
                Some(written) => Some(*written == content),
                None => self.reader.get(partition, key).await?.map(|entry| entry.value[..] == value[..]),
            };
            let fate = Fate::of(found, self.overwrite);
            if fate == Fate::Written {
                self.written.insert(name, content);
            }
            fates.push(fate);
        }
        Ok(fates)
    }
}
