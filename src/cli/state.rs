//! A state to read, wherever it is: in a store that this process opens, beside the process that has it open, or made again from
//! an archive.

use std::env;
use std::path::PathBuf;

use crate::env::Env;
use crate::migrate::{ExportEntries, ExportSource};
use crate::store::{
    Archive, ArchivedPast, BesideReader, BesideStream, DiffOptions, Difference, Differences, EntryStream, History,
    Reader, ScanOptions, Stats, Store, Version,
};
use crate::types::{At, Entry, Error, ErrorKind, Position, Result};

use super::command::{AtArgs, Shell, close};
use super::output::note;
use super::progress::Progress;
use super::reading::ArchiveArgs;

/// A store that can be read.
pub enum State {
    /// Opened by this process, and a reader of it.
    Own(Store, Reader),
    /// Asked from the process that has it open.
    Beside(BesideReader),
    /// Made again from an archive.
    Archived(ArchivedPast, Reader),
}

/// Which states a verb reads, where there is an archive.
pub enum Needs {
    /// That of `--at`.
    State,
    /// All up to that of `--at`.
    History,
    /// Those between two, each of which [`Shell::resolve`] gave.
    Between(At, At),
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

    /// The same, and with an archive also what lies below the floor. That takes room while it lasts: in the directory `TMPDIR`
    /// names, else in the store's.
    ///
    /// # Errors
    ///
    /// As [`Shell::with_state`], [`Archive::attach`] and [`Archive::rebuild`].
    pub async fn with_past<T>(
        &mut self,
        at: &AtArgs,
        archive: &ArchiveArgs,
        needs: Needs,
        work: impl AsyncFnOnce(&State, &mut Shell) -> Result<T>,
    ) -> Result<T> {
        let Some(dir) = &archive.archive else { return self.with_state(at, work).await };
        let archived = Archive::attach(&Env::os(), &self.dir, dir)?;
        let to = match &at.at {
            Some(at) => self.position_in(&archived, at).await?,
            None => archived.head(),
        };
        let (from, to) = match needs {
            Needs::State => (to, to),
            Needs::History => (archived.oldest()?.min(to), to),
            Needs::Between(a, b) => {
                let (a, b) = (archived.resolve(&a)?, archived.resolve(&b)?);
                (a.min(b), a.max(b))
            }
        };
        // What the store reads by itself costs no replay.
        if from >= archived.store_floor() {
            return self.with_state(at, work).await;
        }
        let scratch = env::var_os("TMPDIR").map_or_else(|| self.dir.clone(), PathBuf::from);
        let past = {
            let mut bar = Progress::new("reading the archive", "transactions", Some(archived.head().0));
            archived.rebuild(&scratch, from..=to, |done, _| bar.reach(done)).await?
        };
        let reader = past.at(to)?;
        work(&State::Archived(past, reader), self).await
    }

    /// What is meant, as [`Needs::Between`] takes it: with an archive a position.
    ///
    /// # Errors
    ///
    /// As [`Archive::attach`] and [`Archive::resolve`]; for a mark as [`Shell::with_state`].
    pub async fn resolve(&mut self, archive: &ArchiveArgs, at: At) -> Result<At> {
        let Some(dir) = &archive.archive else { return Ok(at) };
        let archived = Archive::attach(&Env::os(), &self.dir, dir)?;
        self.position_in(&archived, &at).await.map(At::Position)
    }

    async fn position_in(&mut self, archived: &Archive, at: &At) -> Result<Position> {
        match at {
            At::Mark(_) => {
                let at = AtArgs { at: Some(at.clone()) };
                self.with_state(&at, async |state, _| Ok(state.position())).await
            }
            at => archived.resolve(at),
        }
    }
}

impl State {
    /// The position read at.
    pub fn position(&self) -> Position {
        match self {
            State::Own(_, reader) | State::Archived(_, reader) => reader.position(),
            State::Beside(reader) => reader.position(),
        }
    }

    /// The entry of a key.
    pub async fn get(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        match self {
            State::Own(_, reader) | State::Archived(_, reader) => reader.get(partition, key).await,
            State::Beside(reader) => reader.get(partition, key).await,
        }
    }

    /// Entries in key order.
    pub async fn scan(&self, options: ScanOptions<'_>) -> Result<Entries> {
        match self {
            State::Own(_, reader) | State::Archived(_, reader) => Ok(Items::Own(reader.scan(options)?)),
            State::Beside(reader) => Ok(Items::Beside(reader.scan(options).await?)),
        }
    }

    /// Every version of a key, or of the keys with a prefix.
    pub async fn history(&self, partition: &[u8], key: Option<&[u8]>, prefix: &[u8]) -> Result<Versions> {
        Ok(match (self, key) {
            (State::Own(_, reader) | State::Archived(_, reader), Some(key)) => {
                Items::Own(reader.history(partition, key)?)
            }
            (State::Own(_, reader) | State::Archived(_, reader), None) => {
                Items::Own(reader.history_of(partition, prefix)?)
            }
            (State::Beside(reader), Some(key)) => Items::Beside(reader.history(partition, key).await?),
            (State::Beside(reader), None) => Items::Beside(reader.history_of(partition, prefix).await?),
        })
    }

    /// What differs between two positions.
    pub async fn diff(&self, a: At, b: At, options: DiffOptions<'_>) -> Result<DifferenceItems> {
        match self {
            State::Own(store, _) => Ok(Items::Own(store.diff(a, b, options).await?)),
            State::Beside(reader) => Ok(Items::Beside(reader.diff(&a, &b, options).await?)),
            State::Archived(past, _) => match (a, b) {
                (At::Position(a), At::Position(b)) => Ok(Items::Own(past.diff(a, b, options)?)),
                _ => Err(Error::new(ErrorKind::Internal, "an archive is asked for positions only")),
            },
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
            State::Archived(..) => Err(Error::new(ErrorKind::Internal, "an archive has no figures")),
        }
    }
}

impl ExportSource for State {
    async fn entry(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        self.get(partition, key).await
    }

    async fn entries(&self, internal: bool) -> Result<ExportEntries> {
        match self {
            State::Own(_, reader) | State::Archived(_, reader) => reader.entries(internal).await,
            State::Beside(reader) => reader.entries(internal).await,
        }
    }
}
