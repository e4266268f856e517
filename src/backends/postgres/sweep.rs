//! [`Sweep`]: removing what nobody can see any more, a bounded piece at a time.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::base::Base;
use super::error::PostgresError;
use super::write::Seen;

/// Rows of cleared bases that one step removes from each table.
const STEP_ROWS: i64 = 20_000;
/// Blocks (8 KiB as a rule) of `superseded` that one step looks at.
const STEP_BLOCKS: i64 = 2048;

const CLEARED: &str = "select coalesce(array_agg(base), '{}') from cleared";
const REMOVE_LIVE: &str =
    "delete from live where ctid = any(array(select ctid from live where base = any($1) limit $2))";
const REMOVE_SUPERSEDED: &str =
    "delete from superseded where ctid = any(array(select ctid from superseded where base = any($1) limit $2))";
const FORGET: &str = "delete from cleared where base = any($1)";
const BLOCKS: &str = "select pg_relation_size('superseded') / current_setting('block_size')::bigint";
const REMOVE_UNSEEN: &str = "
    delete from superseded
    where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid and base = $3
      and until <= $4 and not exists (select from unnest($5::bigint[]) at where at >= version and at < until)";
/// What the tables take, those of other bases included.
const DISK_BYTES: &str = "
    select pg_total_relation_size('live') + pg_total_relation_size('superseded')";

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 7] =
    [CLEARED, REMOVE_LIVE, REMOVE_SUPERSEDED, FORGET, BLOCKS, REMOVE_UNSEEN, DISK_BYTES];

/// How far a walk over `superseded` has come. Rows never move, and those that are added meanwhile are seen by somebody.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    next_block: i64,
}

impl Sweep {
    /// One step: rows of cleared bases, whosever they are, then what nobody sees of this one. `None` at the end.
    pub(super) async fn step(self, connection: &mut PgConnection, base: &Base) -> Result<Option<Sweep>, PostgresError> {
        let cleared: Vec<i64> = sqlx::query(CLEARED).fetch_one(&mut *connection).await?.try_get(0)?;
        if !cleared.is_empty() {
            let mut more = false;
            for statement in [REMOVE_LIVE, REMOVE_SUPERSEDED] {
                let removed = sqlx::query(statement).bind(&cleared).bind(STEP_ROWS).execute(&mut *connection).await?;
                more |= removed.rows_affected() >= STEP_ROWS as u64;
            }
            if more {
                return Ok(Some(self));
            }
            sqlx::query(FORGET).bind(&cleared).execute(&mut *connection).await?;
        }
        let blocks: i64 = sqlx::query(BLOCKS).fetch_one(&mut *connection).await?.try_get(0)?;
        let end = self.next_block.saturating_add(STEP_BLOCKS);
        let seen = Seen::by(&base.readable);
        sqlx::query(REMOVE_UNSEEN)
            .bind(self.next_block)
            .bind(end)
            .bind(base.id)
            .bind(seen.history())
            .bind(seen.positions())
            .execute(connection)
            .await?;
        Ok((end < blocks).then_some(Sweep { next_block: end }))
    }
}

/// Bytes of the tables.
pub(super) async fn disk_bytes(connection: &mut PgConnection) -> Result<u64, PostgresError> {
    let bytes: i64 = sqlx::query(DISK_BYTES).fetch_one(connection).await?.try_get(0)?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}
