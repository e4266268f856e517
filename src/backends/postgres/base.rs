//! [`Base`]: the row of a base, as it was last seen.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::PostgresError;
use super::read::position;
use super::write::{Seen, number};
use crate::backends::readable::Readable;
use crate::types::{Hash, LogId, ProjectionVersion, Stamp};

const MAKE: &str = "insert into bases (name) values ($1) on conflict (name) do nothing";
const LOAD: &str = "
    select id, generation, log_id, stamp_format, position, chain, projection_names, projection_versions, retained, history
    from bases where name = $1";
const SAVE: &str = "
    update bases set generation = generation + 1, log_id = $3, stamp_format = $4, position = $5, chain = $6,
                     projection_names = $7, projection_versions = $8, retained = $9, history = $10
    where id = $1 and generation = $2";
/// A new id: rows of the former one belong to nobody, and are removed in the background.
const CLEAR: &str = "
    with former as (
        update bases set id = default, generation = generation + 1, log_id = null, stamp_format = null, position = null,
                         chain = null, projection_names = '{}', projection_versions = '{}', retained = '{}', history = null
        where id = $1
    )
    insert into cleared (base) values ($1) on conflict do nothing";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 4] = [MAKE, LOAD, SAVE, CLEAR];

/// What is known of a base.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    pub(super) id: i64,
    pub(super) generation: i64,
    pub(super) stamp: Option<Stamp>,
    pub(super) readable: Readable,
}

impl Base {
    /// Reads the row; makes it when absent.
    pub(super) async fn load(connection: &mut PgConnection, name: &str) -> Result<Base, PostgresError> {
        let mut row = sqlx::query(LOAD).bind(name).fetch_optional(&mut *connection).await?;
        if row.is_none() {
            sqlx::query(MAKE).bind(name).execute(&mut *connection).await?;
            row = sqlx::query(LOAD).bind(name).fetch_optional(&mut *connection).await?;
        }
        let Some(row) = row else { return Err(PostgresError::Meddled) };
        let mut base = Base { id: row.try_get(0)?, generation: row.try_get(1)?, ..Base::default() };
        let Some(log_id) = row.try_get::<Option<Vec<u8>>, _>(2)? else { return Ok(base) };
        let (names, versions): (Vec<String>, Vec<i64>) = (row.try_get(6)?, row.try_get(7)?);
        let versions = versions.into_iter().map(|version| u32::try_from(version).map_err(nonsense));
        let projections = names.into_iter().zip(versions);
        let stamp = Stamp {
            log_id: LogId(log_id.try_into().map_err(|_| nonsense("log_id"))?),
            format: u32::try_from(row.try_get::<i64, _>(3)?).map_err(nonsense)?,
            position: position(row.try_get(4)?)?,
            chain: Hash(row.try_get::<Vec<u8>, _>(5)?.try_into().map_err(|_| nonsense("chain"))?),
            projections: projections
                .map(|(name, version)| Ok(ProjectionVersion { name, version: version? }))
                .collect::<Result<_, PostgresError>>()?,
            history: row.try_get::<Option<i64>, _>(9)?.map(position).transpose()?,
        };
        let retained: Vec<i64> = row.try_get(8)?;
        let retained: Vec<_> = retained.into_iter().map(position).collect::<Result<_, _>>()?;
        base.readable = Readable::new(stamp.position, retained);
        base.stamp = Some(stamp);
        Ok(base)
    }

    /// Writes the row of a stamp and of what is readable besides, if nobody changed it since this was loaded.
    pub(super) async fn save(
        &self,
        connection: &mut PgConnection,
        stamp: &Stamp,
        readable: &Readable,
    ) -> Result<(), PostgresError> {
        let seen = Seen::by(readable);
        let saved = sqlx::query(SAVE)
            .bind(self.id)
            .bind(self.generation)
            .bind(&stamp.log_id.0[..])
            .bind(i64::from(stamp.format))
            .bind(number(stamp.position))
            .bind(&stamp.chain.0[..])
            .bind(stamp.projections.iter().map(|projection| projection.name.clone()).collect::<Vec<_>>())
            .bind(stamp.projections.iter().map(|projection| i64::from(projection.version)).collect::<Vec<_>>())
            .bind(seen.positions())
            .bind(stamp.history.map(number))
            .execute(connection)
            .await?;
        if saved.rows_affected() == 1 { Ok(()) } else { Err(PostgresError::Meddled) }
    }

    /// Forgets everything; the rows go later.
    pub(super) async fn clear(&self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        sqlx::query(CLEAR).bind(self.id).execute(connection).await?;
        Ok(())
    }
}

fn nonsense(what: impl ToString) -> PostgresError {
    PostgresError::Nonsense { detail: what.to_string() }
}
