//! The base in Postgres beside a bare table: a checkpoint beside a `COPY`, reads beside a prepared statement.
//!
//! Measured only where `--base` says a server, in a schema of its own that is dropped at the end.

use std::hint::black_box;
use std::time::Instant;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tokio::sync::Mutex;

use super::bed::{Bed, per_second, repeated, side};
use super::figure::Figure;
use super::load::pairs;
use super::sample::{KEY_BYTES, PARTITION, key, scattered};
use crate::backends::{Backend, Change, PostgresBackend};
use crate::cli::base::Base;
use crate::cli::output::note;
use crate::types::{Error, ErrorKind, Hash, Key, LogId, Position, Result, Stamp};

const FIGURES: [&str; 4] = ["checkpoint-postgres", "postgres-update", "postgres-get", "postgres-scan"];
const SCHEMA: &str = "lakelog_bench";
/// The table that the base is measured by: the same columns, one key, one table.
const BARE: &str = "
    drop table if exists lakelog_bench.bare;
    create table lakelog_bench.bare (key bytea primary key, version bigint not null, value bytea not null)";
/// Of so many entries one is changed by an update.
const CHANGED_EACH: usize = 4;
/// Reads between two looks at the clock.
const READS: u64 = 256;

/// Checkpoints into Postgres, and reads from one. Fails `invalid` without a server where nothing else was asked for.
pub(super) async fn measure(bed: &mut Bed<'_>, base: Option<&Base>) -> Result<()> {
    if !bed.wants_any(&FIGURES) {
        return Ok(());
    }
    let Some(base) = base else {
        if bed.asks_for("postgres") {
            let message = "these figures are measured on a server; give one with --base postgres://...";
            return Err(Error::new(ErrorKind::Invalid, format!("{message}, figures=`{}`", FIGURES.join(", "))));
        }
        note(format_args!("skipped: no server was given (--base postgres://...), figures=`{}`", FIGURES.join(", ")));
        return Ok(());
    };
    let backend = PostgresBackend::connect(base.settings().clone().schema(SCHEMA)?, "bench").await?;
    let bare = &Mutex::new(PgConnection::connect(base.url()).await.map_err(failed)?);
    let measured = compare(bed, &backend, bare).await;
    let dropped = sqlx::raw_sql("drop schema lakelog_bench cascade").execute(&mut *bare.lock().await).await;
    measured.and_then(|()| dropped.map(drop).map_err(failed))
}

async fn compare(bed: &mut Bed<'_>, backend: &PostgresBackend, bare: &Mutex<PgConnection>) -> Result<()> {
    let mut sorted = pairs(bed.scale.entries).to_vec();
    sorted.sort_unstable();
    let (sorted, noise, round) = (&sorted, bed.noise.clone(), bed.scale.round);
    let row = &|i: usize, pair: &[u8; KEY_BYTES]| (Key::encode(PARTITION, key(pair)), noise.value(i as u64).to_vec());
    let rows = move |each: usize| sorted.iter().enumerate().step_by(each).map(|(i, pair)| row(i, pair));
    let write = move |position: u64, each: usize| async move {
        let rows = rows(each)
            .map(|(key, value)| Ok(Change::Put { key: key.into(), version: Position(position), value: value.into() }));
        backend.write(&stamp(position), &[], Box::new(rows.collect::<Vec<_>>().into_iter())).await?;
        Ok::<_, Error>(())
    };
    let copy = move |each: usize| async move {
        let rows: Vec<_> = rows(each).collect();
        let connection = &mut *bare.lock().await;
        sqlx::raw_sql(BARE).execute(&mut *connection).await.map_err(failed)?;
        let started = Instant::now();
        copy_in(connection, &rows).await.map_err(failed)?;
        Ok(per_second(rows.len() as u64, started.elapsed()))
    };
    let count = sorted.len() as u64;
    let first = side(move || async move {
        backend.clear().await?;
        while backend.maintain(Position::ZERO, &[]).await? {}
        let started = Instant::now();
        write(1, 1).await?;
        Ok(per_second(count, started.elapsed()))
    });
    let [reference, own] = bed.in_turn([side(move || copy(1)), first]).await?;
    bed.figure(Figure::rate(FIGURES[0], &own, "rows/s", &reference, 0.5))?;

    let position = &std::sync::atomic::AtomicU64::new(2);
    let update = side(move || async move {
        let started = Instant::now();
        write(position.fetch_add(1, std::sync::atomic::Ordering::Relaxed), CHANGED_EACH).await?;
        Ok(per_second(count.div_ceil(CHANGED_EACH as u64), started.elapsed()))
    });
    let [reference, own] = bed.in_turn([side(move || copy(CHANGED_EACH)), update]).await?;
    bed.figure(Figure::rate(FIGURES[1], &own, "rows/s", &reference, 0.25))?;

    copy(1).await?;
    let at = backend.stamp().await?.map_or(Position::ZERO, |stamp| stamp.position);
    let any = move |i: u64| Key::encode(PARTITION, key(&sorted[scattered(i) as usize % sorted.len()]));
    let bare_gets = side(move || {
        repeated(round, async move || {
            let connection = &mut *bare.lock().await;
            for i in 0..READS {
                let get = sqlx::query("select version, value from lakelog_bench.bare where key = $1");
                let found = get.bind(any(i)).fetch_one(&mut *connection).await.map_err(failed)?;
                black_box(found.try_get::<&[u8], _>(1).map_err(failed)?.len());
            }
            Ok(READS)
        })
    });
    let gets = side(move || {
        repeated(round, async move || {
            for i in 0..READS {
                black_box(backend.get(at, &any(i)).await?);
            }
            Ok(READS)
        })
    });
    let [reference, own] = bed.in_turn([bare_gets, gets]).await?;
    bed.figure(Figure::rate(FIGURES[2], &own, "reads/s", &reference, 0.7))?;

    let bare_scan = side(move || {
        repeated(round, async move || {
            let connection = &mut *bare.lock().await;
            let (mut from, mut found) = (Vec::<u8>::new(), 0);
            loop {
                let page = "select key, version, value from lakelog_bench.bare where key > $1 order by key limit 4096";
                let rows = sqlx::query(page).bind(&from).fetch_all(&mut *connection).await.map_err(failed)?;
                let Some(last) = rows.last() else { return Ok(found) };
                from = last.try_get(0).map_err(failed)?;
                found += rows.len() as u64;
            }
        })
    });
    let scan = side(move || {
        repeated(round, async move || {
            let (mut from, mut found) = (Vec::new(), 0);
            loop {
                let page = backend.scan(at, &from, &[], 4096).await?;
                found += page.entries.len() as u64;
                match page.next {
                    Some(next) => from = next.to_vec(),
                    None => return Ok(found),
                }
            }
        })
    });
    let [reference, own] = bed.in_turn([bare_scan, scan]).await?;
    bed.figure(Figure::rate(FIGURES[3], &own, "entries/s", &reference, 0.5))
}

/// All history from the first checkpoint on.
fn stamp(position: u64) -> Stamp {
    Stamp {
        log_id: LogId([0; 16]),
        format: Stamp::FORMAT,
        position: Position(position),
        chain: Hash([0; 32]),
        projections: Vec::new(),
        history: Some(Position(1)),
        redaction: Position::ZERO,
    }
}

async fn copy_in(connection: &mut PgConnection, rows: &[(Vec<u8>, Vec<u8>)]) -> std::result::Result<(), sqlx::Error> {
    let mut copy = connection.copy_in_raw("copy lakelog_bench.bare (key, version, value) from stdin binary").await?;
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for (key, value) in rows {
        bytes.extend_from_slice(&3u16.to_be_bytes());
        for field in [&key[..], &1u64.to_be_bytes()[..], value] {
            bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        if bytes.len() >= 4 << 20 {
            copy.send(&bytes[..]).await?;
            bytes.clear();
        }
    }
    bytes.extend_from_slice(&[0xff, 0xff]);
    copy.send(&bytes[..]).await?;
    copy.finish().await.map(drop)
}

fn failed(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the bare table failed").with_source(error)
}
