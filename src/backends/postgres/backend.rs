//! [`PostgresBackend`]: the trait over two kinds of connections, and what is known of the base.
//!
//! Reads use a pool. Whatever changes the base goes through one connection more, which holds the base's advisory lock as
//! long as it lives: while it answers, no other process writes. What is known of the base is kept in memory with its
//! generation; each read brings the generation that it saw, and one that is not the known one makes the base known anew.

use std::fmt;

use parking_lot::RwLock;
use sqlx::postgres::PgConnection;

use super::base::Base;
use super::error::PostgresError;
use super::pool::{Pool, Pooled};
use super::read::{self, At, Saw};
use super::settings::PostgresSettings;
use super::sweep::{self, Sweep};
use super::write::{self, WriteError};
use super::{lock_key, within};
use crate::backends::checked::CheckedChanges;
use crate::backends::{Backend, BackendError, BackendFuture, Changes, Usage};
use crate::types::{Page, Position, Slice, Stamp, VersionPage};

/// The longest name of a base, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Reads are tried again when the base changes meanwhile, so many times.
const READS_MAX: u32 = 16;
/// How many times longer than a read a step of a write may take.
const PATIENCE: u32 = 20;
/// The largest position that the tables hold.
const POSITION_MAX: Position = Position(i64::MAX as u64);

/// A base in Postgres. One process at a time holds it.
///
/// Takes a [tokio](https://docs.rs/tokio) runtime: futures are polled where it was connected. A lost connection is
/// `Unavailable`, and the next call connects again.
pub struct PostgresBackend {
    settings: PostgresSettings,
    name: String,
    place: String,
    pool: Pool,
    /// The connection that holds the lock; empty when there is none that can be trusted.
    writer: tokio::sync::Mutex<Option<PgConnection>>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    base: Base,
    /// A commit that was sent and not answered: until the base is read again nothing is known.
    doubt: Option<Commit>,
    /// The same, once it was found to be there: writing it again is done already.
    landed: Option<Commit>,
    /// What is left of removing what nobody sees; `None` when nothing is.
    sweep: Option<Sweep>,
    disk_bytes: u64,
}

/// A write as it is committed.
#[derive(Clone)]
struct Commit {
    stamp: Stamp,
    former: Position,
}

impl PostgresBackend {
    /// Connects, brings the schema to this version, takes the base of a name (at most 200 bytes; a store names its base by
    /// the id of its log) and reads its stamp. What is not there is made.
    ///
    /// # Errors
    ///
    /// `Unavailable`, saying why: no connection, login refused, no such database, a privilege that is missing, a read-only
    /// server, a newer schema, a base that another process holds. `Corrupt` when the stamp makes no sense. `Unusable`
    /// for a name that is empty or too long.
    pub async fn connect(settings: PostgresSettings, name: &str) -> Result<PostgresBackend, BackendError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
            let detail = format!("empty, above {NAME_BYTES_MAX} bytes, or with a zero byte");
            return Err(BackendError::Unusable { what: "name of a base", detail });
        }
        let backend = PostgresBackend {
            place: settings.place(),
            pool: Pool::new(settings.clone()),
            settings,
            name: name.to_owned(),
            writer: tokio::sync::Mutex::default(),
            known: RwLock::default(),
        };
        let connection = backend.session(None).await.map_err(|error| error.at(&backend.place))?;
        *backend.writer.lock().await = Some(connection);
        Ok(backend)
    }

    /// A connection that holds the lock, with the base known: the one given if it still answers, else a new one.
    async fn session(&self, given: Option<PgConnection>) -> Result<PgConnection, PostgresError> {
        if let Some(mut connection) = given {
            match within(self.settings.timeout, self.learn(&mut connection)).await {
                Ok(()) => return Ok(connection),
                // Another connection may do.
                Err(PostgresError::Lost { .. } | PostgresError::Late { .. }) => drop(connection),
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.settings.session().await?;
        within(self.settings.timeout, self.lock(&mut connection)).await?;
        within(self.settings.timeout, self.learn(&mut connection)).await?;
        Ok(connection)
    }

    /// Takes the base for this connection.
    async fn lock(&self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        // What is acknowledged has to be durable, whatever the role's default.
        let set_up = "select set_config('lock_timeout', $1, false),
                             case when current_setting('synchronous_commit') = 'off'
                                  then set_config('synchronous_commit', 'on', false) end";
        sqlx::query(set_up).bind(self.settings.lock_wait.as_millis().to_string()).execute(&mut *connection).await?;
        let key = lock_key("base", &self.settings.schema, &self.name);
        match sqlx::query("select pg_advisory_lock($1)").bind(key).execute(&mut *connection).await {
            Err(sqlx::Error::Database(answer)) if answer.code().as_deref() == Some("55P03") => {
                Err(PostgresError::InUse { base: self.name.clone() })
            }
            locked => {
                locked?;
                sqlx::query("select set_config('lock_timeout', '0', false)").execute(connection).await?;
                Ok(())
            }
        }
    }

    /// Reads the base's row. What is known and still true stays.
    async fn learn(&self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        let base = Base::load(connection, &self.name).await?;
        let mut known = self.known.write();
        let doubt = known.doubt.take();
        if doubt.is_some() || known.base.id != base.id || known.base.generation != base.generation {
            known.landed = doubt.filter(|commit| base.stamp.as_ref() == Some(&commit.stamp));
            known.base = base;
            // Whoever wrote it may not have removed what nobody sees.
            known.sweep = Some(Sweep::default());
        }
        Ok(())
    }

    /// Makes the base known anew, unless somebody did since `stale` was found not to be true.
    async fn relearn(&self, stale: i64) -> Result<(), PostgresError> {
        let mut writer = self.writer.lock().await;
        if self.generation().is_none_or(|generation| generation == stale) {
            *writer = Some(self.session(writer.take()).await?);
        }
        Ok(())
    }

    /// The generation that is known, unless a commit is in doubt.
    fn generation(&self) -> Option<i64> {
        let known = self.known.read();
        known.doubt.is_none().then_some(known.base.generation)
    }

    /// What is known of the base, once nothing is in doubt.
    async fn base<T>(&self, look: impl Fn(&Base) -> Result<T, BackendError>) -> Result<T, BackendError> {
        if self.generation().is_none() {
            self.relearn(i64::MIN).await.map_err(|error| error.at(&self.place))?;
        }
        look(&self.known.read().base)
    }

    fn trusted(&self, base: &Base) -> Result<(), BackendError> {
        let damage = base.damage.as_ref();
        damage.map_or(Ok(()), |detail| Err(PostgresError::Nonsense { detail: detail.clone() }.at(&self.place)))
    }

    /// Where to read a position, and at which generation that holds.
    async fn spot(&self, at: Position) -> Result<(At, Spot), BackendError> {
        self.base(|base| {
            self.trusted(base)?;
            base.readable.check(at)?;
            let current = base.stamp.as_ref().is_none_or(|stamp| stamp.position == at);
            Ok((if current { At::Stamp } else { At::Past(at) }, Spot::of(base)))
        })
        .await
    }

    async fn pooled(&self) -> Result<Pooled<'_>, BackendError> {
        self.pool.take().await.map_err(|error| error.at(&self.place))
    }

    /// What a read found, if it can be believed; `None` when it has to be tried again.
    async fn judge<T>(
        &self,
        spot: Spot,
        tries: &mut u32,
        pooled: Pooled<'_>,
        saw: Result<Saw<T>, PostgresError>,
    ) -> Result<Option<T>, BackendError> {
        *tries += 1;
        match saw {
            Ok(saw) => {
                self.pool.give(pooled);
                if saw.generation == Some(spot.generation) {
                    return Ok(Some(saw.found));
                }
                if *tries > READS_MAX {
                    return Err(PostgresError::Meddled.at(&self.place));
                }
                self.relearn(spot.generation).await.map_err(|error| error.at(&self.place))?;
                Ok(None)
            }
            Err(error) => {
                drop(pooled);
                // A connection that lay idle for long is the likeliest to be lost, and others with it.
                if error.is_lost() && (*tries == 1 || self.pool.forget()) && *tries <= READS_MAX {
                    self.pool.forget();
                    return Ok(None);
                }
                self.mark_damaged(&error).await;
                Err(error.at(&self.place))
            }
        }
    }

    /// Remembers damage that the server found, for this process and for the next open.
    async fn mark_damaged(&self, error: &PostgresError) {
        let PostgresError::Damaged { detail, .. } = error else { return };
        let id = {
            let mut known = self.known.write();
            known.base.damage = Some(detail.clone());
            known.base.id
        };
        tracing::error!(%error, place = self.place, "the base is damaged");
        if let Some(connection) = &mut *self.writer.lock().await {
            // Where this fails too, the damage is found again by the next read that meets it.
            let _ = within(self.settings.timeout, Base::mark_damaged(connection, id, detail)).await;
        }
    }

    async fn write_now(&self, stamp: &Stamp, keep: &[Position], changes: Changes<'_>) -> Result<(), BackendError> {
        if stamp.position > POSITION_MAX {
            return Err(BackendError::Invalid {
                detail: format!("above what Postgres counts to, stamp=`{}`", stamp.position),
            });
        }
        let mut writer = self.writer.lock().await;
        let mut connection = self.session(writer.take()).await.map_err(|error| error.at(&self.place))?;
        match self.write_on(&mut connection, stamp, keep, changes).await {
            Ok(()) => {
                *writer = Some(connection);
                Ok(())
            }
            Err(WriteError::Changes(error)) => {
                *writer = self.rolled_back(connection).await;
                Err(error)
            }
            Err(WriteError::Postgres(error)) => {
                if self.generation().is_some() {
                    *writer = self.rolled_back(connection).await;
                } else {
                    // Whether the commit happened is for the base to say. A server that has gone says it later.
                    drop(connection);
                    *writer = self.session(None).await.ok();
                    if self.known.read().landed.as_ref().is_some_and(|landed| landed.stamp == *stamp) {
                        return Ok(());
                    }
                }
                drop(writer);
                self.mark_damaged(&error).await;
                Err(error.at(&self.place))
            }
        }
    }

    async fn write_on(
        &self,
        connection: &mut PgConnection,
        stamp: &Stamp,
        keep: &[Position],
        changes: Changes<'_>,
    ) -> Result<(), WriteError> {
        let (base, landed) = {
            let known = self.known.read();
            (known.base.clone(), known.landed.clone().filter(|landed| landed.stamp == *stamp))
        };
        self.trusted(&base).map_err(WriteError::Changes)?;
        if let Some(landed) = landed {
            let lacks = |at: &&Position| **at > landed.former && base.readable.check(**at).is_err();
            return match keep.iter().find(lacks) {
                None => Ok(()),
                Some(at) => {
                    let detail = format!("written already, without a position that is read since, position=`{at}`");
                    Err(WriteError::Changes(BackendError::Unavailable { place: self.place.clone(), detail }))
                }
            };
        }
        let changes = CheckedChanges::new(base.stamp.as_ref(), stamp, keep, changes).map_err(WriteError::Changes)?;
        let mut readable = base.readable.clone();
        readable.advance(stamp, keep);
        let patience = self.settings.timeout * PATIENCE;
        within(patience, sqlx::raw_sql("begin").execute(&mut *connection)).await?;
        let empty = base.stamp.is_none();
        write::changes(&mut *connection, (base.id, empty), &readable, patience, changes).await?;
        within(patience, base.save(&mut *connection, stamp, &readable)).await?;
        let disk_bytes = within(patience, sweep::disk_bytes(&mut *connection)).await?;
        let former = base.stamp.as_ref().map_or(Position::ZERO, |stamp| stamp.position);
        self.known.write().doubt = Some(Commit { stamp: stamp.clone(), former });
        within(patience, sqlx::raw_sql("commit").execute(&mut *connection)).await?;
        let mut known = self.known.write();
        let forgets = base.stamp.as_ref().is_some_and(|former| former.history != stamp.history);
        known.base = Base { generation: base.generation + 1, stamp: Some(stamp.clone()), readable, ..base };
        known.disk_bytes = disk_bytes;
        (known.doubt, known.landed) = (None, None);
        if forgets {
            known.sweep = Some(Sweep::default());
        }
        Ok(())
    }

    /// The connection, if it is good for more.
    async fn rolled_back(&self, mut connection: PgConnection) -> Option<PgConnection> {
        let ended = within(self.settings.timeout, sqlx::raw_sql("rollback").execute(&mut connection)).await;
        ended.is_ok().then_some(connection)
    }

    async fn maintain_now(&self, at: Position, keep: &[Position]) -> Result<bool, PostgresError> {
        let mut writer = self.writer.lock().await;
        let (mut base, mut sweep, doubt) = {
            let known = self.known.read();
            (known.base.clone(), known.sweep, known.doubt.is_some())
        };
        if doubt || writer.is_none() {
            *writer = Some(self.session(writer.take()).await?);
            (base, sweep) = (self.known.read().base.clone(), self.known.read().sweep);
        }
        let before = base.readable.clone();
        base.readable.retain(at, keep);
        // What the history shows stays readable whoever lets go of it.
        let forgets = before.retained().any(|position| base.readable.check(position).is_err());
        if forgets {
            sweep = Some(Sweep::default());
        } else {
            self.known.write().base.readable = base.readable.clone();
        }
        let Some(sweep) = sweep else { return Ok(false) };
        // Taken while it works: a call that is dropped half-way leaves no connection behind that is in the midst of something.
        let mut connection = self.session(writer.take()).await?;
        if Spot::of(&self.known.read().base).generation != base.generation {
            *writer = Some(connection);
            return Ok(true);
        }
        let swept =
            within(self.settings.timeout * PATIENCE, Self::sweep_on(&mut connection, &mut base, forgets, sweep));
        match swept.await {
            Ok(left) => {
                let mut known = self.known.write();
                (known.base, known.sweep) = (base, left);
                *writer = Some(connection);
                Ok(left.is_some())
            }
            Err(error) => {
                *writer = self.rolled_back(connection).await;
                Err(error)
            }
        }
    }

    /// One step of the sweep, and before it, in the same transaction, what is readable now: rows go only when nobody may read
    /// them, after a crash either.
    async fn sweep_on(
        connection: &mut PgConnection,
        base: &mut Base,
        forgets: bool,
        sweep: Sweep,
    ) -> Result<Option<Sweep>, PostgresError> {
        sqlx::raw_sql("begin").execute(&mut *connection).await?;
        if forgets && let Some(stamp) = base.stamp.clone() {
            base.save(&mut *connection, &stamp, &base.readable).await?;
            base.generation += 1;
        }
        let left = sweep.step(&mut *connection, base).await?;
        sqlx::raw_sql("commit").execute(&mut *connection).await?;
        Ok(left)
    }

    async fn clear_now(&self) -> Result<(), PostgresError> {
        let mut writer = self.writer.lock().await;
        let mut connection = self.session(writer.take()).await?;
        let base = self.known.read().base.clone();
        if base.stamp.is_some() || base.damage.is_some() {
            // An answer that is lost is no doubt: the next call finds either.
            within(self.settings.timeout, base.clear(&mut connection)).await?;
            within(self.settings.timeout, self.learn(&mut connection)).await?;
        }
        *writer = Some(connection);
        Ok(())
    }
}

/// Which base a read is about, as it was known when it began.
#[derive(Clone, Copy)]
struct Spot {
    base: i64,
    generation: i64,
}

impl Spot {
    fn of(base: &Base) -> Spot {
        Spot { base: base.id, generation: base.generation }
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend").field("place", &self.place).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Backend for PostgresBackend {
    fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
        Box::pin(self.base(|base| self.trusted(base).map(|()| base.stamp.clone())))
    }

    fn write<'a>(&'a self, stamp: &'a Stamp, keep: &'a [Position], changes: Changes<'a>) -> BackendFuture<'a, ()> {
        Box::pin(self.write_now(stamp, keep, changes))
    }

    fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
        Box::pin(async move {
            let mut tries = 0;
            loop {
                let (place, spot) = self.spot(at).await?;
                let mut pooled = self.pooled().await?;
                let read = read::get(&mut pooled.connection, spot.base, place, key);
                let saw = within(self.settings.timeout, read).await;
                if let Some(found) = self.judge(spot, &mut tries, pooled, saw).await? {
                    return Ok(found);
                }
            }
        })
    }

    fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
        Box::pin(async move {
            let mut tries = 0;
            loop {
                let (place, spot) = self.spot(at).await?;
                let mut pooled = self.pooled().await?;
                let read = read::page(&mut pooled.connection, spot.base, place, (from, to), limit);
                let saw = within(self.settings.timeout, read).await;
                if let Some(found) = self.judge(spot, &mut tries, pooled, saw).await? {
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
            let mut tries = 0;
            loop {
                let (history, spot) = self
                    .base(|base| {
                        self.trusted(base)?;
                        base.readable.check_history()?;
                        Ok((base.readable.history().unwrap_or_default(), Spot::of(base)))
                    })
                    .await?;
                let mut pooled = self.pooled().await?;
                let read = read::versions(&mut pooled.connection, spot.base, history, (from, below), to, limit);
                let saw = within(self.settings.timeout, read).await;
                if let Some(found) = self.judge(spot, &mut tries, pooled, saw).await? {
                    return Ok(found);
                }
            }
        })
    }

    fn maintain<'a>(&'a self, at: Position, keep: &'a [Position]) -> BackendFuture<'a, bool> {
        Box::pin(async move { self.maintain_now(at, keep).await.map_err(|error| error.at(&self.place)) })
    }

    fn clear(&self) -> BackendFuture<'_, ()> {
        Box::pin(async move { self.clear_now().await.map_err(|error| error.at(&self.place)) })
    }

    fn usage(&self) -> Usage {
        Usage { disk_bytes: self.known.read().disk_bytes, memory_bytes: 0 }
    }
}
