//! One write: changes become rows with the positions that they live from and until, in one transaction.
//!
//! What the write itself brings is resolved here, before it is sent: which version supersedes which, which a range delete
//! hides, which nobody can see. The server supersedes what it had before: for each chunk of keys first the live rows of
//! these keys, then the new rows are copied in; at the end what range deletes hide of the rows that no key change met.

use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::error::PostgresError;
use super::key::Columns;
use super::rows::{COPY_LIVE, COPY_SUPERSEDED, Copied};
use super::within;
use crate::backends::checked::CheckedChanges;
use crate::backends::ranges::Ranges;
use crate::backends::readable::Readable;
use crate::backends::{BackendError, Change};
use crate::types::{KeyRange, Position, Slice};

/// A chunk is sent once it holds so many bytes of rows or so many keys.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_KEYS: usize = 16 << 10;

/// Moves live rows of keys to `superseded`, those that somebody can see then. Nothing of it is left to be joined in an order of the server's
/// choice: with statistics from when the table was empty it would hold each live row against each key.
const SUPERSEDE_KEYS: &str = "
    with found as materialized (
        select l.at, l.version, closed.until, closed.partition, closed.key, l.value
        from unnest($2::bytea[], $3::bytea[], $4::bigint[]) as closed (partition, key, until)
        cross join lateral (
            select ctid as at, version, value from live
            where base = $1 and partition = closed.partition and key = closed.key offset 0
        ) l
    ), moved as (
        insert into superseded (base, version, until, partition, key, value)
        select $1, version, until, partition, key, value from found
        where until > $5 or exists (select from unnest($6::bigint[]) at where at >= version and at < until)
    )
    delete from live where ctid = any(array(select at from found))";

/// The same for the keys of a range, below a version. `supersede_range!` puts the upper end in.
macro_rules! supersede_range {
    ($end:literal) => {
        concat!(
            "with gone as (
                delete from live where base = $1 and (partition, key) >= ($2, $3)",
            $end,
            " and version < $4 returning version, partition, key, value
            )
            insert into superseded (base, version, until, partition, key, value)
            select $1, version, $4, partition, key, value from gone
            where $4 > $5 or exists (select from unnest($6::bigint[]) at where at >= version and at < $4)"
        )
    };
}
const SUPERSEDE_RANGE: &str = supersede_range!(" and (partition, key) < ($7, $8)");
const SUPERSEDE_RANGE_TO_END: &str = supersede_range!("");

#[cfg(test)]
pub(super) const STATEMENTS: [&str; 3] = [SUPERSEDE_KEYS, SUPERSEDE_RANGE, SUPERSEDE_RANGE_TO_END];

/// How the server would carry out [`SUPERSEDE_KEYS`].
#[cfg(test)]
pub(super) async fn explain_supersede(connection: &mut PgConnection) -> String {
    let explain = sqlx::AssertSqlSafe(format!("explain {SUPERSEDE_KEYS}"));
    let none: [Vec<u8>; 0] = [];
    let query = sqlx::query(explain).bind(1i64).bind(&none[..]).bind(&none[..]).bind([0i64; 0]).bind(0i64);
    let rows = query.bind([0i64; 0]).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| sqlx::Row::get::<String, _>(row, 0) + "\n").collect()
}

/// Why a write ended.
pub(super) enum WriteError {
    /// The changes themselves did.
    Changes(BackendError),
    /// The server did.
    Postgres(PostgresError),
}

impl<E: Into<PostgresError>> From<E> for WriteError {
    fn from(error: E) -> WriteError {
        WriteError::Postgres(error.into())
    }
}

/// What can be seen once the write is complete, as the server's statements take it.
pub(super) struct Seen {
    /// What is superseded above this is seen.
    history: i64,
    positions: Vec<i64>,
}

impl Seen {
    pub(super) fn by(readable: &Readable) -> Seen {
        Seen {
            history: number(readable.history().unwrap_or(Position::MAX)),
            positions: readable.retained().map(number).collect(),
        }
    }

    pub(super) fn history(&self) -> i64 {
        self.history
    }

    pub(super) fn positions(&self) -> &[i64] {
        &self.positions
    }
}

/// A position as the tables hold it. Those that they cannot hold were refused before, and none of them was ever written.
pub(super) fn number(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}

/// Writes the changes into an open transaction; each step may take as long as `timeout`. `empty`: the base has no rows.
pub(super) async fn changes(
    connection: &mut PgConnection,
    (base, empty): (i64, bool),
    readable: &Readable,
    timeout: Duration,
    changes: CheckedChanges<'_>,
) -> Result<(), WriteError> {
    let mut ranges = Vec::new();
    let mut changes = changes.peekable();
    while let Some(Ok(Change::DeleteRange { .. }) | Err(_)) = changes.peek() {
        match changes.next() {
            Some(Ok(Change::DeleteRange { prefix, version })) => ranges.push((prefix, version)),
            Some(Err(error)) => return Err(WriteError::Changes(error)),
            _ => {}
        }
    }
    let mut writer = Writer {
        connection,
        base,
        empty,
        timeout,
        readable,
        seen: Seen::by(readable),
        ranges: Ranges::new(ranges),
        live: Copied::new(COPY_LIVE),
        superseded: Copied::new(COPY_SUPERSEDED),
        closed: Closed::default(),
        group: None,
    };
    for change in changes {
        writer.take(change.map_err(WriteError::Changes)?).await?;
    }
    writer.finish().await
}

struct Writer<'a> {
    connection: &'a mut PgConnection,
    base: i64,
    empty: bool,
    timeout: Duration,
    readable: &'a Readable,
    seen: Seen,
    ranges: Ranges,
    live: Copied,
    superseded: Copied,
    closed: Closed,
    group: Option<Group>,
}

/// Keys whose live rows are superseded, and from when.
#[derive(Default)]
struct Closed {
    partitions: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    untils: Vec<i64>,
}

/// The versions of one key, newest first, as they pass.
struct Group {
    key: Slice,
    columns: Columns,
    /// The oldest version so far, and the oldest range delete above it.
    oldest: Position,
    /// What is live of them: sent with the next chunk, for which the row before has to go first.
    live: Option<(Position, Slice)>,
}

impl Writer<'_> {
    async fn take(&mut self, change: Change) -> Result<(), WriteError> {
        let (key, version, value) = match change {
            Change::Put { key, version, value } => (key, version, Some(value)),
            Change::Delete { key, version } => (key, version, None),
            // They come first, and their order was checked.
            Change::DeleteRange { .. } => return Ok(()),
        };
        let newer = match &mut self.group {
            Some(group) if group.key == key => Some(std::mem::replace(&mut group.oldest, version)),
            _ => {
                self.end_group().await?;
                let columns = Columns::of(&key);
                self.group = Some(Group { key: key.clone(), columns, oldest: version, live: None });
                None
            }
        };
        let Some(group) = &mut self.group else { return Ok(()) };
        let hidden = self.ranges.first_above(&key, version);
        let until = newer.into_iter().chain(hidden).min();
        let Some(value) = value else { return Ok(()) };
        match until {
            None => group.live = Some((version, value)),
            Some(until) if self.readable.any_in(version, Some(until)) => {
                self.superseded.push_superseded(self.base, number(version), number(until), &group.columns, &value);
                if self.superseded.len_bytes() >= CHUNK_BYTES {
                    within(self.timeout, self.superseded.send(self.connection)).await?;
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Takes what is live of a key whose versions have all passed, and what they supersede.
    async fn end_group(&mut self) -> Result<(), WriteError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let hidden = self.ranges.first_above(&group.key, Position::ZERO);
        let until = hidden.map_or(group.oldest, |hidden| hidden.min(group.oldest));
        if let Some((version, value)) = &group.live {
            self.live.push_live(self.base, number(*version), &group.columns, value);
        }
        if !self.empty {
            self.closed.partitions.push(group.columns.partition);
            self.closed.keys.push(group.columns.key);
            self.closed.untils.push(number(until));
        }
        if self.live.len_bytes() >= CHUNK_BYTES || self.closed.keys.len() >= CHUNK_KEYS {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), WriteError> {
        let closed = std::mem::take(&mut self.closed);
        if !closed.keys.is_empty() {
            let query = sqlx::query(SUPERSEDE_KEYS)
                .bind(self.base)
                .bind(closed.partitions)
                .bind(closed.keys)
                .bind(closed.untils)
                .bind(self.seen.history)
                .bind(&self.seen.positions);
            within(self.timeout, query.execute(&mut *self.connection)).await?;
        }
        within(self.timeout, self.live.send(self.connection)).await?;
        within(self.timeout, self.superseded.send(self.connection)).await?;
        Ok(())
    }

    async fn finish(mut self) -> Result<(), WriteError> {
        self.end_group().await?;
        self.send().await?;
        if self.empty {
            return Ok(());
        }
        // Ascending: what an older range delete hides is not there for a newer one.
        for (prefix, version) in self.ranges.list() {
            let (from, end) = (Columns::of(prefix), KeyRange::end_of(prefix));
            let statement = if end.is_empty() { SUPERSEDE_RANGE_TO_END } else { SUPERSEDE_RANGE };
            let to = Columns::of(&end);
            let mut query = sqlx::query(statement)
                .bind(self.base)
                .bind(from.partition)
                .bind(from.key)
                .bind(number(*version))
                .bind(self.seen.history)
                .bind(&self.seen.positions);
            if !end.is_empty() {
                query = query.bind(to.partition).bind(to.key);
            }
            within(self.timeout, query.execute(&mut *self.connection)).await?;
        }
        Ok(())
    }
}
