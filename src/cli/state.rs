//! A state to read, wherever it is: in a store that this process opens, or beside the process that has it open.

use crate::migrate::{ExportEntries, ExportSource};
use crate::store::{
    BesideReader, BesideStream, DiffOptions, Difference, Differences, EntryStream, History, Reader, ScanOptions, Stats,
    Store, Version,
};
use crate::types::{At, Entry, ErrorKind, Position, Result};

use super::command::{AtArgs, Shell, close};
use super::output::note;

/// A store that can be read.
pub enum State {
    /// Opened by this process, and a reader of it.
    Own(Store, Reader),
    /// Asked from the process that has it open.
    Beside(BesideReader),
}

/// Items from either.
pub enum Items<O, B> {
    /// From this process.
    Own(O),
    /// From the other.
    Beside(B),
}

macro_rules! items {
    ($name:ident, $own:ty, $item:ty) => {
        pub type $name = Items<$own, BesideStream<$item>>;

        impl $name {
            /// The next one; `None` at the end.
            pub async fn next(&mut self) -> Option<Result<$item>> {
                match self {
                    Items::Own(items) => items.next().await,
                    Items::Beside(items) => items.next().await,
                }
            }
        }
    };
}

items!(Entries, EntryStream, Entry);
items!(Versions, History, Version);
items!(DifferenceItems, Differences, Difference);

impl Shell {
    /// Reads a state, of now or as of what is meant. Where another process has the store open it is asked, at one pinned
    /// position.
    ///
    /// # Errors
    ///
    /// As [`Shell::with_store`], and those of [`Store::at`].
    pub async fn with_state<T>(
        &mut self,
        at: &AtArgs,
        work: impl AsyncFnOnce(&State, &mut Shell) -> Result<T>,
    ) -> Result<T> {
        let at = at.at.as_ref();
        let store = match self.open_store().await {
            Ok(store) => store,
            Err(locked) if locked.kind() == ErrorKind::Unavailable => {
                // Not locked but out of order otherwise, or nobody answers: then the first error says more.
                return match BesideReader::connect(&self.dir, at).await {
                    Ok(reader) => work(&State::Beside(reader), self).await,
                    Err(error) if error.kind() == ErrorKind::Unavailable => Err(locked),
                    Err(error) => Err(error),
                };
            }
            Err(error) => return Err(error),
        };
        let reader = match at {
            Some(at) => store.at(at.clone()).await,
            None => Ok(store.reader()),
        };
        let done = match reader {
            Ok(reader) => work(&State::Own(store.clone(), reader), self).await,
            Err(error) => Err(error),
        };
        close(&store).await;
        done
    }
}

impl State {
    /// The position read at.
    pub fn position(&self) -> Position {
        match self {
            State::Own(_, reader) => reader.position(),
            State::Beside(reader) => reader.position(),
        }
    }

    /// The entry of a key.
    pub async fn get(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        match self {
            State::Own(_, reader) => reader.get(partition, key).await,
            State::Beside(reader) => reader.get(partition, key).await,
        }
    }

    /// Entries in key order.
    pub async fn scan(&self, options: ScanOptions<'_>) -> Result<Entries> {
        match self {
            State::Own(_, reader) => Ok(Items::Own(reader.scan(options)?)),
            State::Beside(reader) => Ok(Items::Beside(reader.scan(options).await?)),
        }
    }

    /// Every version of a key, or of the keys with a prefix.
    pub async fn history(&self, partition: &[u8], key: Option<&[u8]>, prefix: &[u8]) -> Result<Versions> {
        Ok(match (self, key) {
            (State::Own(_, reader), Some(key)) => Items::Own(reader.history(partition, key)?),
            (State::Own(_, reader), None) => Items::Own(reader.history_of(partition, prefix)?),
            (State::Beside(reader), Some(key)) => Items::Beside(reader.history(partition, key).await?),
            (State::Beside(reader), None) => Items::Beside(reader.history_of(partition, prefix).await?),
        })
    }

    /// What differs between two positions.
    pub async fn diff(&self, a: At, b: At, options: DiffOptions<'_>) -> Result<DifferenceItems> {
        match self {
            State::Own(store, _) => Ok(Items::Own(store.diff(a, b, options).await?)),
            State::Beside(reader) => Ok(Items::Beside(reader.diff(&a, &b, options).await?)),
        }
    }

    /// The figures of the store.
    pub async fn stats(&self) -> Result<Stats> {
        match self {
            State::Own(store, _) => store.stats().await,
            State::Beside(reader) => {
                note("asked from the process that has the store open");
                reader.stats().await
            }
        }
    }
}

impl ExportSource for State {
    async fn entry(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        self.get(partition, key).await
    }

    async fn entries(&self, internal: bool) -> Result<ExportEntries> {
        match self {
            State::Own(_, reader) => reader.entries(internal).await,
            State::Beside(reader) => reader.entries(internal).await,
        }
    }
}
