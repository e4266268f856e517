//! Reads: one statement each, prepared once a connection, with the base's generation in the same snapshot.
//!
//! A page is cut by rows and by bytes on the server, so that no value travels only to be dropped: lengths are
//! known without reading what is stored aside.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{FromRow as _, Row as _};

use super::error::PostgresError;
use super::key::Columns;
use super::write::number;
use crate::types::{Entry, KeyVersion, Page, Position, Slice, VersionPage};

/// Bytes after which a page ends.
const PAGE_BYTES: i64 = 1 << 20;
/// What a row of an index holds at most, in bytes.
const INDEX_ROW_BYTES_MAX: usize = 2704;
/// Rows of a page at most: the server looks at all of them before it cuts by bytes.
const PAGE_ROWS: usize = 4 << 10;

const GET_LIVE: &str = "
    select b.generation, e.version, e.value
    from bases b left join live e on e.base = $1 and e.partition = $2 and e.key = $3
    where b.id = $1";

/// Of the superseded versions the first one that lasts beyond the position, if it began by then; else the live one.
const GET_PAST: &str = "
    select b.generation, e.version, e.value
    from bases b left join lateral (
        (select version, value from superseded where base = $1 and partition = $2 and key = $3 and until > $4
         order by until limit 1)
        union all
        select version, value from live where base = $1 and partition = $2 and key = $3
    ) e on e.version <= $4
    where b.id = $1";

const LIVE_PAGE: &str = "
    select b.generation, e.partition, e.key, e.version, e.value
    from bases b left join lateral (
        select *, coalesce(sum(octet_length(partition) + octet_length(key) + octet_length(value)) over (
            order by partition, key rows between unbounded preceding and 1 preceding), 0) as before
        from (
            select partition, key, version, value from live
            where base = $1 and (partition, key) >= ($2, $3) and (partition, key) < ($4, $5)
            order by partition, key limit $6
        ) row
    ) e on e.before < $7
    where b.id = $1";

/// A page from both tables, `$1` the base, `$2` to `$5` its range, at most `$6` rows and `$7` bytes. It reaches as far as so many rows of `live`,
/// seen or not, so that neither table is read to its end for a page that the other one fills. The row without a version
/// says how far that is, where `live` has more. `$first` are rows that come before all others, and tables before them.
macro_rules! page_of_both {
    ($order:literal, $first:literal, $from:literal, $superseded:literal, $live:literal) => {
        concat!(
            "select b.generation, e.partition, e.key, e.version, e.value, e.until
            from bases b left join lateral (
                with first as materialized (", $first, "), near as materialized (
                    select partition, key, version, 9223372036854775807 as until, value from live
                    where base = $1 and (partition, key) ", $from, " ($2, $3) and (partition, key) < ($4, $5)
                    and (select count(*) from first) < $6 order by partition, key limit $6
                ), reach as materialized (
                    select partition, key from near where (select count(*) from near) = $6
                    order by partition desc, key desc limit 1
                ), past as materialized (
                    select partition, key, version, until, value from superseded
                    where base = $1 and (partition, key) ", $from, " ($2, $3) and (partition, key) < ($4, $5)
                    and (select count(*) from first) < $6
                    and (partition, key) <= (coalesce((select partition from reach), $4), coalesce((select key from reach), $5))
                    and ", $superseded, " order by ", $order, " limit $6
                ), measured as (
                    select *, coalesce(sum(octet_length(partition) + octet_length(key) + octet_length(value)) over (
                        order by ", $order, " rows between unbounded preceding and 1 preceding), 0) as before
                    from (
                        select * from first union all select * from past union all select * from near where ", $live,
            "           order by ", $order, " limit $6
                    ) row
                )
                select partition, key, version, until, value from measured where before < $7
                union all
                select partition, key, null, null, null from reach
            ) e on true
            where b.id = $1"
        )
    };
}
/// `$8` the position.
const PAST_PAGE: &str = page_of_both!(
    "partition, key",
    "select partition, key, version, until, value from superseded where false",
    ">=",
    "version <= $8 and until > $8",
    "version <= $8"
);
/// `$8` from where history is kept, `$9` below which the first key's versions lie. What is live has no end: the largest number. Of the first
/// key, which may have very many versions, a run of the index is read: versions of a key do not overlap, so what began below `$9`
/// ended by then, but for one.
const VERSIONS_PAGE: &str = page_of_both!(
    "partition, key, until desc",
    "select partition, key, version, 9223372036854775807 as until, value from live
     where base = $1 and partition = $2 and key = $3 and version < $9 and ($2, $3) < ($4, $5)
     union all (
        select partition, key, version, until, value from superseded
        where base = $1 and partition = $2 and key = $3 and ($2, $3) < ($4, $5)
        and until > $8 and until <= coalesce((
            select until from (
                select version, until from superseded where base = $1 and partition = $2 and key = $3 and until > $9
                order by until limit 1
            ) over_it where version < $9
        ), $9) order by until desc limit $6
     )",
    ">",
    "until > $8",
    "true"
);

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 5] = [GET_LIVE, GET_PAST, LIVE_PAGE, PAST_PAGE, VERSIONS_PAGE];

/// What a statement saw.
pub(super) struct Saw<T> {
    /// The base's generation then; `None` when the base was not there.
    pub(super) generation: Option<i64>,
    pub(super) found: T,
}

/// Where to read a position: the live entries alone hold the stamp's.
#[derive(Clone, Copy)]
pub(super) enum At {
    Stamp,
    Past(Position),
}

/// The entry of a key.
pub(super) async fn get(
    connection: &mut PgConnection,
    base: i64,
    at: At,
    key: &[u8],
) -> Result<Saw<Option<(Position, Slice)>>, PostgresError> {
    let columns = Columns::of(key);
    let query = match at {
        At::Stamp => sqlx::query(GET_LIVE).bind(base).bind(columns.partition).bind(columns.key),
        At::Past(at) => sqlx::query(GET_PAST).bind(base).bind(columns.partition).bind(columns.key).bind(number(at)),
    };
    // Superseded and live versions do not overlap: there is one row.
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(Saw { generation: None, found: None }) };
    let version: Option<i64> = row.try_get(1)?;
    let found = match version {
        Some(version) => Some((position(version)?, Slice::from(row.try_get::<&[u8], _>(2)?))),
        None => None,
    };
    Ok(Saw { generation: Some(row.try_get(0)?), found })
}

/// A page of entries.
pub(super) async fn page(
    connection: &mut PgConnection,
    base: i64,
    at: At,
    (from, to): (&[u8], &[u8]),
    limit: usize,
) -> Result<Saw<Page>, PostgresError> {
    let (bounds, limit) = (Bounds::of(from, to), limit.clamp(1, PAGE_ROWS));
    let query = match at {
        At::Stamp => bounds.query(LIVE_PAGE, base, limit),
        At::Past(at) => bounds.query(PAST_PAGE, base, limit).bind(number(at)),
    };
    let rows = query.fetch_all(connection).await?;
    let mut page = Page::default();
    let (found, reach) = entries(&rows)?;
    let mut bytes = 0;
    for row in found {
        bytes += row.bytes();
        page.entries.push(Entry { encoded_key: row.encoded_key, version: row.version, value: row.value });
    }
    page.next = match page.entries.last() {
        Some(last) if page.entries.len() >= limit || bytes >= PAGE_BYTES => Some(after(&last.encoded_key)),
        _ => reach.map(|reach| after(&reach)),
    };
    Ok(Saw { generation: generation(&rows)?, found: page })
}

/// A page of versions, from `history` on.
pub(super) async fn versions(
    connection: &mut PgConnection,
    base: i64,
    history: Position,
    (from, below): (&[u8], Position),
    to: &[u8],
    limit: usize,
) -> Result<Saw<VersionPage>, PostgresError> {
    let (bounds, limit) = (Bounds::of(from, to), limit.clamp(1, PAGE_ROWS));
    let query = bounds.query(VERSIONS_PAGE, base, limit).bind(number(history)).bind(number(below));
    let rows = query.fetch_all(connection).await?;
    let mut page = VersionPage::default();
    let (found, reach) = entries(&rows)?;
    let (many, mut bytes) = (found.len() >= limit, 0);
    for row in found {
        bytes += row.bytes();
        // Where the next newer version began, or the page does: an end before that is a delete.
        let newer = match page.versions.last() {
            Some(last) if last.encoded_key == row.encoded_key => last.version,
            None if row.encoded_key[..] == *from => below,
            _ => Position::MAX,
        };
        if row.until.is_some_and(|until| until < newer) {
            let version = row.until.unwrap_or_default();
            page.versions.push(KeyVersion { encoded_key: row.encoded_key.clone(), version, value: None });
        }
        page.versions.push(KeyVersion { encoded_key: row.encoded_key, version: row.version, value: Some(row.value) });
    }
    let cut = many || bytes >= PAGE_BYTES || page.versions.len() > limit;
    page.versions.truncate(limit);
    page.next = match page.versions.last() {
        Some(last) if cut => Some((last.encoded_key.clone(), last.version)),
        _ => reach.map(|reach| (after(&reach), Position::MAX)),
    };
    Ok(Saw { generation: generation(&rows)?, found: page })
}

/// What the server says that [`versions`] did.
#[cfg(test)]
pub(super) async fn explain_versions(
    connection: &mut PgConnection,
    base: i64,
    from: &[u8],
    below: Position,
    limit: usize,
) -> PgRow {
    let explain = format!("explain (analyze, buffers, format json) {VERSIONS_PAGE}");
    let query = Bounds::of(from, b"").query(sqlx::AssertSqlSafe(explain), base, limit);
    query.bind(0i64).bind(number(below)).fetch_one(connection).await.unwrap()
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// A range of keys.
struct Bounds {
    from: Columns,
    to: Columns,
}

impl Bounds {
    /// `to` empty: to the end, which is above every key that fits a row of an index.
    fn of(from: &[u8], to: &[u8]) -> Bounds {
        let end = || Columns { partition: vec![0xff; INDEX_ROW_BYTES_MAX], key: Vec::new() };
        Bounds { from: Columns::of(from), to: if to.is_empty() { end() } else { Columns::of(to) } }
    }

    fn query(self, statement: impl sqlx::SqlSafeStr, base: i64, limit: usize) -> Query<'static> {
        let Bounds { from, to } = self;
        let query = sqlx::query(statement).bind(base).bind(from.partition).bind(from.key);
        query.bind(to.partition).bind(to.key).bind(limit as i64).bind(PAGE_BYTES)
    }
}

struct VersionRow {
    encoded_key: Slice,
    version: Position,
    value: Slice,
    /// Only in pages of versions, and only of superseded ones.
    until: Option<Position>,
    key_bytes: usize,
}

impl VersionRow {
    /// As the server counts.
    fn bytes(&self) -> i64 {
        (self.key_bytes + self.value.len()) as i64
    }
}

impl sqlx::FromRow<'_, PgRow> for VersionRow {
    fn from_row(row: &PgRow) -> Result<VersionRow, sqlx::Error> {
        let (partition, key): (&[u8], &[u8]) = (row.try_get(1)?, row.try_get(2)?);
        let until: Option<i64> = if row.len() > 5 { Some(row.try_get(5)?) } else { None };
        let position = |number| position(number).map_err(|error| sqlx::Error::Decode(Box::new(error)));
        Ok(VersionRow {
            encoded_key: Columns::join(partition, key).into(),
            version: position(row.try_get(3)?)?,
            value: row.try_get::<&[u8], _>(4)?.into(),
            until: until.filter(|&until| until != i64::MAX).map(position).transpose()?,
            key_bytes: partition.len() + key.len(),
        })
    }
}

/// The rows that are entries, in order, and how far the page reaches if `live` goes on. A base without any gives a row
/// that is neither.
fn entries(rows: &[PgRow]) -> Result<(Vec<VersionRow>, Option<Slice>), PostgresError> {
    let (mut found, mut reach) = (Vec::with_capacity(rows.len()), None);
    for row in rows {
        if row.try_get::<Option<i64>, _>(3)?.is_some() {
            found.push(VersionRow::from_row(row)?);
        } else if let Some(partition) = row.try_get::<Option<&[u8]>, _>(1)? {
            reach = Some(Columns::join(partition, row.try_get(2)?).into());
        }
    }
    // As the server counted them: an order within a statement is no promise of its answer's.
    found.sort_by(|a, b| a.encoded_key.cmp(&b.encoded_key).then(b.version.cmp(&a.version)));
    Ok((found, reach))
}

fn generation(rows: &[PgRow]) -> Result<Option<i64>, PostgresError> {
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

pub(super) fn position(number: i64) -> Result<Position, PostgresError> {
    let position = u64::try_from(number).map(Position);
    position.map_err(|_| PostgresError::Nonsense { detail: format!("position={number}") })
}

/// The smallest key above another.
fn after(key: &[u8]) -> Slice {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}
