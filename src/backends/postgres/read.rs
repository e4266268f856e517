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

/// A page from rows in order; `$1` the base, `$2` and `$3` where it begins, `$4` rows, `$5` bytes at most.
macro_rules! page {
    ($columns:literal, $rows:expr, $order:literal) => {
        concat!(
            "select b.generation, ", $columns,
            " from bases b left join lateral (
                select *, coalesce(sum(octet_length(partition) + octet_length(key) + octet_length(value)) over (
                    order by ", $order, " rows between unbounded preceding and 1 preceding), 0) as before
                from (", $rows, " order by ", $order, " limit $4) row
            ) e on e.before < $5
            where b.id = $1 order by ", $order
        )
    };
}
macro_rules! live_page {
    ($end:literal) => {
        page!(
            "e.partition, e.key, e.version, e.value",
            concat!(
                "select partition, key, version, value from live where base = $1 and (partition, key) >= ($2, $3)",
                $end
            ),
            "partition, key"
        )
    };
}
/// `$6` the position.
macro_rules! past_page {
    ($end:literal) => {
        page!(
            "e.partition, e.key, e.version, e.value",
            concat!(
                "select partition, key, version, value from live
                 where base = $1 and version <= $6 and (partition, key) >= ($2, $3)", $end,
                " union all
                 select partition, key, version, value from superseded
                 where base = $1 and version <= $6 and until > $6 and (partition, key) >= ($2, $3)", $end
            ),
            "partition, key"
        )
    };
}
/// `$6` from where history is kept, `$7` below which the first key's versions lie. What is live has no end: the largest number.
macro_rules! versions_page {
    ($end:literal) => {
        page!(
            "e.partition, e.key, e.version, e.value, e.until",
            concat!(
                "select * from (
                    select partition, key, version, 9223372036854775807 as until, value from live
                    where base = $1 and (partition, key) >= ($2, $3)", $end,
                "   union all
                    select partition, key, version, until, value from superseded
                    where base = $1 and until > $6 and (partition, key) >= ($2, $3)", $end,
                ") version where version < $7 or (partition, key) <> ($2, $3)"
            ),
            "partition, key, until desc"
        )
    };
}
const LIVE_PAGE: [&str; 2] = [live_page!(""), live_page!(" and (partition, key) < ($6, $7)")];
const PAST_PAGE: [&str; 2] = [past_page!(""), past_page!(" and (partition, key) < ($7, $8)")];
const VERSIONS_PAGE: [&str; 2] = [versions_page!(""), versions_page!(" and (partition, key) < ($8, $9)")];

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 8] = [
    GET_LIVE, GET_PAST, LIVE_PAGE[0], LIVE_PAGE[1], PAST_PAGE[0], PAST_PAGE[1], VERSIONS_PAGE[0], VERSIONS_PAGE[1],
];

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
    let statements = if matches!(at, At::Stamp) { LIVE_PAGE } else { PAST_PAGE };
    let mut query = bounds.begin(statements, base, limit);
    if let At::Past(at) = at {
        query = query.bind(number(at));
    }
    let rows = bounds.end(query).fetch_all(connection).await?;
    let mut page = Page::default();
    let mut bytes = 0;
    for row in entries(&rows)? {
        bytes += row.bytes();
        page.entries.push(Entry { encoded_key: row.encoded_key, version: row.version, value: row.value });
    }
    if (page.entries.len() >= limit || bytes >= PAGE_BYTES)
        && let Some(last) = page.entries.last()
    {
        page.next = Some(after(&last.encoded_key));
    }
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
    let query = bounds.begin(VERSIONS_PAGE, base, limit).bind(number(history)).bind(number(below));
    let rows = bounds.end(query).fetch_all(connection).await?;
    let mut page = VersionPage::default();
    let mut bytes = 0;
    for row in entries(&rows)? {
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
    let more = rows.len() >= limit || bytes >= PAGE_BYTES || page.versions.len() > limit;
    page.versions.truncate(limit);
    if more && let Some(last) = page.versions.last() {
        page.next = Some((last.encoded_key.clone(), last.version));
    }
    Ok(Saw { generation: generation(&rows)?, found: page })
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// A range of keys; `to` absent: to the end.
struct Bounds {
    from: Columns,
    to: Option<Columns>,
}

impl Bounds {
    fn of(from: &[u8], to: &[u8]) -> Bounds {
        Bounds { from: Columns::of(from), to: (!to.is_empty()).then(|| Columns::of(to)) }
    }

    fn begin(&self, [to_end, below]: [&'static str; 2], base: i64, limit: usize) -> Query<'static> {
        let statement = if self.to.is_some() { below } else { to_end };
        let query = sqlx::query(statement).bind(base).bind(self.from.partition.clone()).bind(self.from.key.clone());
        query.bind(limit as i64).bind(PAGE_BYTES)
    }

    fn end<'q>(self, query: Query<'q>) -> Query<'q> {
        match self.to {
            Some(to) => query.bind(to.partition).bind(to.key),
            None => query,
        }
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

/// The rows that are entries: a base without any gives one that is none.
fn entries(rows: &[PgRow]) -> Result<Vec<VersionRow>, PostgresError> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get::<Option<i64>, _>(3)?.is_some() {
            found.push(VersionRow::from_row(row)?);
        }
    }
    Ok(found)
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
