//! [`PostgresReader`]: a base that is only looked at, by a role that may do no more.
//!
//! Takes no lock, makes nothing and changes nothing. Each read brings the base's generation, as those of
//! [`PostgresBackend`](super::PostgresBackend) do: one that is not the one that was found first ends the reading, so all that
//! was read belongs together, and no transaction stays open for as long as it takes.

use std::fmt;

use super::base::Base;
use super::error::PostgresError;
use super::pool::{Pool, Pooled};
use super::read::{self, At, Saw};
use super::settings::PostgresSettings;
use super::{schema, within};
use crate::backends::{Backend, BackendError, BackendFuture, Changes, Usage};
use crate::types::{Page, Position, Slice, Stamp, VersionPage};

/// A base in Postgres as it was when it was found. Writes are refused.
pub(crate) struct PostgresReader {
    settings: PostgresSettings,
    place: String,
    pool: Pool,
    base: Base,
}

impl PostgresReader {
    /// Connects and looks for the base of a name; `None` where nobody made one yet.
    ///
    /// # Errors
    ///
    /// `Unavailable`, saying why: no connection, login refused, no such database, a role that may not even read, a
    /// newer schema.
    pub(crate) async fn connect(
        settings: PostgresSettings,
        name: &str,
    ) -> Result<Option<PostgresReader>, BackendError> {
        let (place, pool) = (settings.place(), Pool::new(settings.clone()));
        let found = async {
            let mut pooled = pool.take().await?;
            let found = within(settings.timeout, find(&mut pooled, &settings.schema, name)).await?;
            pool.give(pooled);
            Ok(found)
        };
        let found = found.await.map_err(|error: PostgresError| error.at(&place))?;
        Ok(found.map(|base| PostgresReader { settings, place, pool, base }))
    }

    fn trusted(&self) -> Result<(), BackendError> {
        match &self.base.damage {
            Some(detail) => Err(PostgresError::Nonsense { detail: detail.clone() }.at(&self.place)),
            None => Ok(()),
        }
    }

    /// Where to read a position.
    fn spot(&self, at: Position) -> Result<At, BackendError> {
        self.trusted()?;
        self.base.readable.check(at)?;
        let current = self.base.stamp.as_ref().is_none_or(|stamp| stamp.position == at);
        Ok(if current { At::Stamp } else { At::Past(at) })
    }

    async fn pooled(&self) -> Result<Pooled<'_>, BackendError> {
        self.pool.take().await.map_err(|error| error.at(&self.place))
    }

    /// What a read found; `None` when it has to be tried again, on another connection.
    fn judge<T>(
        &self,
        lost: &mut bool,
        pooled: Pooled<'_>,
        saw: Result<Saw<T>, PostgresError>,
    ) -> Result<Option<T>, BackendError> {
        match saw {
            Ok(saw) if saw.generation == Some(self.base.generation) => {
                self.pool.give(pooled);
                Ok(Some(saw.found))
            }
            Ok(_) => Err(PostgresError::Moved.at(&self.place)),
            Err(error) if error.is_lost() && !std::mem::replace(lost, true) => {
                self.pool.forget();
                Ok(None)
            }
            Err(error) => Err(error.at(&self.place)),
        }
    }

    fn refused<T>(&self) -> Result<T, BackendError> {
        Err(BackendError::Invalid { detail: format!("it is only read, place=`{}`", self.place) })
    }
}

async fn find(pooled: &mut Pooled<'_>, schema: &str, name: &str) -> Result<Option<Base>, PostgresError> {
    let connection = &mut pooled.connection;
    if !schema::is_there(connection, schema).await? {
        return Ok(None);
    }
    schema::check_reading(connection).await?;
    Base::find(connection, name).await
}

impl fmt::Debug for PostgresReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresReader").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Backend for PostgresReader {
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
        Box::pin(async move { self.trusted().map(|()| self.base.stamp.clone()) })
    }

    fn write<'a>(&'a self, _: &'a Stamp, _: &'a [Position], _: Changes<'a>) -> BackendFuture<'a, ()> {
        Box::pin(async move { self.refused() })
    }

    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
        Box::pin(async move {
            let (place, base) = (self.spot(at)?, self.base.id);
            let mut lost = false;
            loop {
                let mut pooled = self.pooled().await?;
                let read = read::get(&mut pooled.connection, base, place, key);
                let saw = within(self.settings.timeout, read).await;
                if let Some(found) = self.judge(&mut lost, pooled, saw)? {
                    return Ok(found);
                }
            }
        })
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(async move {
            let (place, base) = (self.spot(at)?, self.base.id);
            let mut lost = false;
            loop {
                let mut pooled = self.pooled().await?;
                let read = read::page(&mut pooled.connection, base, place, (from, to), limit);
                let saw = within(self.settings.timeout, read).await;
                if let Some(found) = self.judge(&mut lost, pooled, saw)? {
                    return Ok(found);
                }
            }
        })
    }

    fn versions<'a>(
        &'a self,
        from: &'a [u8],
        below: Position,
        to: &'a [u8],
        limit: usize,
    ) -> BackendFuture<'a, VersionPage> {
        Box::pin(async move {
            self.trusted()?;
            self.base.readable.check_history()?;
            let (history, base) = (self.base.readable.history().unwrap_or_default(), self.base.id);
            let mut lost = false;
            loop {
                let mut pooled = self.pooled().await?;
                let read = read::versions(&mut pooled.connection, base, history, (from, below), to, limit);
                let saw = within(self.settings.timeout, read).await;
                if let Some(found) = self.judge(&mut lost, pooled, saw)? {
                    return Ok(found);
                }
            }
        })
    }

    fn maintain<'a>(&'a self, _: Position, _: &'a [Position]) -> BackendFuture<'a, bool> {
        Box::pin(async move { self.refused() })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        Box::pin(async move { self.refused() })
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}
