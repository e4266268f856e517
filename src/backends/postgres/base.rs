//! [`Base`]: the row of a base, as it was last seen.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::error::PostgresError;
use super::read::position;
use super::write::{Seen, number};
use crate::backends::readable::Readable;
use crate::types::{Hash, LogId, Position, ProjectionVersion, Stamp};

const MAKE: &str = "insert into bases (name) values ($1) on conflict (name) do nothing";
const LOAD: &str = "
    select id, generation, log_id, stamp_format, position, chain, projection_names, projection_versions, projection_since, retained,
           history, damaged, redaction
    from bases where name = $1";
const SAVE: &str = "
    update bases set generation = generation + 1, log_id = $3, stamp_format = $4, position = $5, chain = $6,
                     projection_names = $7, projection_versions = $8, projection_since = $9, retained = $10, history = $11,
                     redaction = $12
    where id = $1 and generation = $2";
/// A new id: rows of the former one belong to nobody, and are removed in the background.
const CLEAR: &str = "
    with former as (
        update bases set id = default, generation = generation + 1, log_id = null, stamp_format = null, position = null,
                         chain = null, projection_names = '{}', projection_versions = '{}', projection_since = '{}',
                         retained = '{}', history = null, redaction = 0, damaged = null
        where id = $1
    )
    insert into cleared (base) values ($1) on conflict do nothing";

const MARK_DAMAGED: &str = "update bases set damaged = $2 where id = $1";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 5] = [MAKE, LOAD, SAVE, CLEAR, MARK_DAMAGED];

/// What is known of a base.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    pub(super) id: i64,
    pub(super) generation: i64,
    pub(super) stamp: Option<Stamp>,
    pub(super) readable: Readable,
    /// Why the base is not trusted, until it is cleared.
    pub(super) damage: Option<String>,
}

impl Base {
    /// Reads the row; makes it when absent.
    pub(super) async fn load(connection: &mut PgConnection, name: &str) -> Result<Base, PostgresError> {
        if let Some(base) = Base::find(connection, name).await? {
            return Ok(base);
        }
        sqlx::query(MAKE).bind(name).execute(&mut *connection).await?;
        Base::find(connection, name).await?.ok_or(PostgresError::Meddled)
    }

    /// Reads the row, if there is one.
    pub(super) async fn find(connection: &mut PgConnection, name: &str) -> Result<Option<Base>, PostgresError> {
        let Some(row) = sqlx::query(LOAD).bind(name).fetch_optional(connection).await? else { return Ok(None) };
        let mut base = Base { id: row.try_get(0)?, generation: row.try_get(1)?, ..Base::default() };
        base.damage = row.try_get(11)?;
        match stamp(&row) {
            Ok(Some((stamp, retained))) => {
                base.readable = Readable::new(&stamp, retained);
                base.stamp = Some(stamp);
            }
            Ok(None) => {}
            Err(error) => base.damage = Some(error.to_string()),
        }
        Ok(Some(base))
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
            .bind(stamp.projections.iter().map(|projection| number(projection.since)).collect::<Vec<_>>())
            .bind(seen.positions())
            .bind(stamp.history.map(number))
            .bind(number(stamp.redaction))
            .execute(connection)
            .await?;
        if saved.rows_affected() == 1 { Ok(()) } else { Err(PostgresError::Meddled) }
    }

    /// Writes down that a read met damage.
    pub(super) async fn mark_damaged(
        connection: &mut PgConnection,
        id: i64,
        detail: &str,
    ) -> Result<(), PostgresError> {
        sqlx::query(MARK_DAMAGED).bind(id).bind(detail).execute(connection).await?;
        Ok(())
    }

    /// Forgets everything; the rows go later.
    pub(super) async fn clear(&self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        sqlx::query(CLEAR).bind(self.id).execute(connection).await?;
        Ok(())
    }
}

/// The stamp that a row holds, and what is retained.
fn stamp(row: &PgRow) -> Result<Option<(Stamp, Vec<Position>)>, PostgresError> {
    let Some(log_id) = row.try_get::<Option<Vec<u8>>, _>(2)? else { return Ok(None) };
    let numbers = |column| Ok::<_, PostgresError>(row.try_get::<Vec<i64>, _>(column)?);
    let (names, versions, since) = (row.try_get::<Vec<String>, _>(6)?, numbers(7)?, numbers(8)?);
    if names.len() != versions.len() || names.len() != since.len() {
        return Err(nonsense("projections"));
    }
    let mut projections = Vec::new();
    for ((name, version), since) in names.into_iter().zip(versions).zip(since) {
        let version = u32::try_from(version).map_err(nonsense)?;
        projections.push(ProjectionVersion { name, version, since: position(since)? });
    }
    let stamp = Stamp {
        log_id: LogId(log_id.try_into().map_err(|_| nonsense("log_id"))?),
        format: u32::try_from(row.try_get::<i64, _>(3)?).map_err(nonsense)?,
        position: position(row.try_get(4)?)?,
        chain: Hash(row.try_get::<Vec<u8>, _>(5)?.try_into().map_err(|_| nonsense("chain"))?),
        projections,
        history: row.try_get::<Option<i64>, _>(10)?.map(position).transpose()?,
        redaction: position(row.try_get(12)?)?,
    };
    let retained = numbers(9)?.into_iter().map(position).collect::<Result<_, _>>()?;
    Ok(Some((stamp, retained)))
}

fn nonsense(what: impl ToString) -> PostgresError {
    PostgresError::Nonsense { detail: what.to_string() }
}
