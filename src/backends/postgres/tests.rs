//! The base in Postgres against a real server: the contract, what two processes do, what a person sees.

mod faults;
mod proxy;
mod refusals;
#[path = "../../../tests/it/postgres_server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use sqlx::{Connection as _, Executor as _, SqlSafeStr as _};

use super::*;
use crate::backends::conformance::{
    self, History,
    fixture::{delete_range, dump, put, stamp, try_write as write},
};
use crate::backends::{Backend, BackendError};
use crate::types::{Key, Limits, Position, ProjectionVersion, Slice, Stamp};
use server::Server;

async fn get(backend: &PostgresBackend, at: u64, key: impl AsRef<[u8]>) -> Result<Option<(u64, Slice)>, BackendError> {
    let found = backend.get(Position(at), key.as_ref()).await?;
    Ok(found.map(|(version, value)| (version.0, value)))
}

async fn maintain(backend: &PostgresBackend, at: u64) {
    while backend.maintain(Position(at), &[]).await.unwrap() {}
}

/// Impatient with a base in use, so that its tests are quick.
fn settings(url: &str) -> PostgresSettings {
    let mut settings = PostgresSettings::new(url).unwrap();
    settings.lock_wait = Duration::from_millis(20);
    settings
}

async fn try_connect(url: &str, name: &str) -> Result<PostgresBackend, BackendError> {
    PostgresBackend::connect(settings(url), name).await
}

/// As a process does that follows one that just ended.
async fn connect(url: &str, name: &str) -> PostgresBackend {
    PostgresBackend::connect(PostgresSettings::new(url).unwrap(), name).await.unwrap()
}

fn database_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn conforms() {
    let url = Server::shared().database();
    conformance::run_all(&connect(&url, "test").await).await;
    let rows = "select (select count(*) from lakelog.live) + (select count(*) from lakelog.superseded)";
    let backend = connect(&url, "another").await;
    maintain(&backend, 0).await;
    assert_eq!(Server::shared().sql(database_of(&url), rows), "0", "what was cleared is removed");
}

#[tokio::test]
async fn conforms_behind_a_pointer_and_in_another_schema() {
    let url = Server::shared().database() + "?schema=_other9";
    let shared: Arc<dyn Backend> = Arc::new(connect(&url, "test").await);
    conformance::run_all(&shared).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn equals_the_model(seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = Server::shared().database();
            conformance::compare_with_model(&connect(&url, "test").await, seed, 40).await;
        });
    }
}

#[tokio::test]
async fn two_bases_in_one_schema_go_on_after_every_reopen() {
    let url = Server::shared().database();
    let mut histories = [("one", History::new(100)), ("two", History::new(101))];
    for round in 0..8 {
        for (name, history) in &mut histories {
            let backend = connect(&url, name).await;
            history.reopened(&backend).await;
            for _ in 0..4 {
                history.step(&backend).await;
            }
        }
        let third = connect(&url, "three").await;
        write(&third, &stamp(1), &[], [put("a", 1, "")]).await.unwrap();
        third.clear().await.unwrap();
        if round % 3 == 0 {
            maintain(&third, 0).await;
        }
    }
    for (name, history) in &histories {
        history.check_all(&connect(&url, name).await).await;
    }
}

#[tokio::test]
async fn every_statement_is_one() {
    let url = Server::shared().database();
    let _backend = connect(&url, "test").await;
    let statements =
        base::STATEMENTS.iter().chain(&read::STATEMENTS).chain(&sweep::STATEMENTS).chain(&write::STATEMENTS);
    let mut connection = sqlx::PgConnection::connect(&format!("{url}?options=-csearch_path%3Dlakelog")).await.unwrap();
    for statement in statements {
        let prepared = connection.prepare(statement.into_sql_str()).await;
        prepared.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

#[tokio::test]
async fn a_stamp_comes_back_whole_from_another_process() {
    let url = Server::shared().database();
    let mut whole = stamp(9);
    let index = |name: &str, since| ProjectionVersion { name: name.into(), version: u32::MAX, since: Position(since) };
    (whole.projections, whole.history) = (vec![index("a", 0), index("\u{e9}", 7)], Some(Position(3)));
    whole.redaction = Position(2);
    write(&connect(&url, "test").await, &whole, &[], []).await.unwrap();
    assert_eq!(connect(&url, "test").await.stamp().await.unwrap(), Some(whole));
}

#[tokio::test]
async fn positions_above_what_postgres_counts_to_are_refused() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    let largest = i64::MAX as u64;
    let refused = write(&backend, &stamp(largest + 1), &[], [put("a", 1, "")]).await.unwrap_err();
    assert!(
        matches!(&refused, BackendError::Invalid { detail } if detail.contains("9223372036854775808")),
        "{refused}"
    );
    write(&backend, &stamp(largest), &[], [put("a", largest, "x")]).await.unwrap();
    assert_eq!(get(&backend, largest, "a").await.unwrap().unwrap().0, largest);
    assert!(matches!(get(&backend, u64::MAX, "a").await, Err(BackendError::Unreadable { .. })));
}

#[tokio::test]
async fn the_longest_keys_fit_whatever_is_in_them() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    let mut noise = 1u64;
    let mut bytes = |len: usize, zeros: bool| -> Vec<u8> {
        let mut next = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 33) as u8
        };
        (0..len).map(|at| if zeros && at % 2 == 0 { 0 } else { next() }).collect()
    };
    let rest = Limits::PARTITION_AND_KEY_BYTES_MAX - Limits::PARTITION_BYTES_MAX;
    let mut keys: Vec<Vec<u8>> = [(true, true), (true, false), (false, true), (false, false)]
        .map(|(a, b)| Key::encode(&bytes(Limits::PARTITION_BYTES_MAX, a), &bytes(rest, b)).to_vec())
        .to_vec();
    keys.push(Key::encode(b"p", &bytes(Limits::PARTITION_AND_KEY_BYTES_MAX - 1, false)).to_vec());
    keys.sort();
    let mut first = stamp(1);
    first.history = Some(Position(1));
    write(&backend, &first, &[], keys.iter().map(|key| put(key, 1, "1"))).await.unwrap();
    let mut second = stamp(2);
    second.history = Some(Position(1));
    write(&backend, &second, &[], keys.iter().map(|key| put(key, 2, "2"))).await.unwrap();
    for key in &keys {
        assert_eq!(get(&backend, 1, key).await.unwrap(), Some((1, b"1"[..].into())));
        assert_eq!(get(&backend, 2, key).await.unwrap(), Some((2, b"2"[..].into())));
    }
    // Beyond the limits of a store the server's own are met: an error, and nothing is changed.
    let refused = write(&backend, &stamp(3), &[], [put("a", 3, ""), put(bytes(6000, false), 3, "")]).await.unwrap_err();
    assert!(matches!(refused, BackendError::Invalid { .. }), "{refused}");
    assert_eq!(backend.stamp().await.unwrap(), Some(second));
}

#[tokio::test]
async fn what_nobody_sees_is_not_kept() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    let superseded = || Server::shared().sql(database_of(&url), "select count(*) from lakelog.superseded");
    let rows = |version: u64| (0..100).map(move |row| put(format!("{row:03}"), version, ""));
    write(&backend, &stamp(1), &[], rows(1)).await.unwrap();
    write(&backend, &stamp(2), &[], rows(2)).await.unwrap();
    assert_eq!(superseded(), "0", "nobody asked for the former stamp");
    write(&backend, &stamp(3), &[2], rows(3)).await.unwrap();
    assert_eq!(superseded(), "100");
    let history = |position, from| Stamp { history: Some(Position(from)), ..stamp(position) };
    write(&backend, &history(4, 4), &[2], [delete_range("", 4)]).await.unwrap();
    maintain(&backend, 4).await;
    assert_eq!(superseded(), "0", "the retained position was let go, and the history begins after all of it");
    for version in 5..9 {
        write(&backend, &history(version, 4), &[], rows(version)).await.unwrap();
    }
    assert_eq!(superseded(), "300");
    // A trim: what only positions below 7 see may go, which needs the background work.
    write(&backend, &history(9, 7), &[], []).await.unwrap();
    maintain(&backend, 9).await;
    assert_eq!(superseded(), "100");
    assert_eq!(dump(&backend, 7).await.unwrap().len(), 100);
    write(&backend, &stamp(10), &[], []).await.unwrap();
    maintain(&backend, 10).await;
    assert_eq!(superseded(), "0");
}

#[tokio::test]
async fn a_person_can_read_the_rows() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    let key = |partition: &[u8], key: &[u8]| Key::encode(partition, key).to_vec();
    let mut history = stamp(2);
    history.history = Some(Position(2));
    let rows = [
        put(key(b"\0own", b"k"), 1, "\u{e9}"),
        put(key(b"graveler", "repos/\u{e9}".as_bytes()), 2, [0xff, b'a']),
        put(key(b"graveler", b"\xff"), 2, "text"),
    ];
    write(&backend, &history, &[], rows).await.unwrap();
    let mut later = stamp(3);
    later.history = Some(Position(2));
    write(&backend, &later, &[], [put(key(b"graveler", b"\xff"), 3, "new")]).await.unwrap();
    let shown = "select * from lakelog.entries_readable order by 2, 3, 4";
    let expected = "test|\\000own|k|1||\u{e9}\n\
                    test|graveler|\\377|2|3|text\n\
                    test|graveler|\\377|3||new\n\
                    test|graveler|repos/\u{e9}|2||\\377a";
    assert_eq!(Server::shared().sql(database_of(&url), shown), expected);
}

#[tokio::test]
async fn a_stamp_that_makes_no_sense_is_damage_until_it_is_cleared() {
    let url = Server::shared().database();
    for spoiled in
        ["chain = '\\x00'", "position = -1", "projection_since = '{1,2}'", "log_id = ''", "damaged = 'a bad page'"]
    {
        let backend = connect(&url, "test").await;
        backend.clear().await.unwrap();
        write(&backend, &stamp(5), &[], [put("a", 1, "1")]).await.unwrap();
        drop(backend);
        Server::shared().sql(database_of(&url), &format!("update lakelog.bases set {spoiled}"));
        let backend = connect(&url, "test").await;
        let damaged = backend.stamp().await;
        assert!(matches!(damaged, Err(BackendError::Corrupt { .. })), "{spoiled}: {damaged:?}");
        assert!(matches!(get(&backend, 0, "a").await, Err(BackendError::Corrupt { .. })));
        assert!(matches!(write(&backend, &stamp(6), &[], []).await, Err(BackendError::Corrupt { .. })));
        backend.clear().await.unwrap();
        assert_eq!(backend.stamp().await.unwrap(), None);
        write(&backend, &stamp(2), &[], [put("b", 2, "2")]).await.unwrap();
        assert_eq!(dump(&backend, 2).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_see_one_position_while_writes_and_sweeps_go_on() {
    const KEYS: u64 = 300;
    let url = Server::shared().database();
    let backend = Arc::new(connect(&url, "test").await);
    let (published, last) = (Arc::new(AtomicU64::new(0)), 30);
    let reader = || {
        let (backend, published) = (backend.clone(), published.clone());
        async move {
            let mut seen = 0;
            while published.load(Ordering::Acquire) < last {
                let at = published.load(Ordering::Acquire);
                match dump(&backend, at).await {
                    Ok(entries) => {
                        assert_eq!(entries.len() as u64, if at == 0 { 0 } else { KEYS });
                        assert!(entries.iter().all(|(_, version, _)| *version == at), "mixed positions at {at}");
                        seen += 1;
                    }
                    Err(BackendError::Unreadable { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            seen
        }
    };
    let readers = [tokio::spawn(reader()), tokio::spawn(reader())];
    for version in 1..=last {
        // The former stamp is kept, so that a reader may finish with it.
        let rows = (0..KEYS).map(|key| put(format!("{key:04}"), version, version.to_string()));
        write(&backend, &stamp(version), &[version - 1], rows).await.unwrap();
        published.store(version, Ordering::Release);
        backend.maintain(Position(version), &[Position(version - 1)]).await.unwrap();
    }
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_reader_sees_what_the_base_shows_and_changes_nothing() {
    let url = Server::shared().database();
    assert!(PostgresReader::connect(settings(&url), "test").await.unwrap().is_none());
    let backend = connect(&url, "test").await;
    let history = |position| Stamp { history: Some(Position(1)), ..stamp(position) };
    for version in 1..6 {
        let rows =
            (0..300).filter(|row| row % version == 0).map(|row| put(format!("{row:03}"), version, [version as u8]));
        write(&backend, &history(version), &[], rows).await.unwrap();
    }
    let reader = PostgresReader::connect(settings(&url), "test").await.unwrap().unwrap();
    assert!(PostgresReader::connect(settings(&url), "other").await.unwrap().is_none());
    assert_eq!(reader.stamp().await.unwrap(), backend.stamp().await.unwrap());
    for at in 1..6 {
        assert_eq!(dump(&reader, at).await.unwrap(), dump(&backend, at).await.unwrap());
        assert_eq!(reader.get(Position(at), b"240").await.unwrap().unwrap().0, Position(at));
    }
    let versions = async |base: &dyn Backend| base.versions(b"", Position::MAX, b"", 4000).await.unwrap();
    assert_eq!(versions(&reader).await, versions(&backend).await);
    assert!(matches!(reader.get(Position(6), b"240").await, Err(BackendError::Unreadable { .. })));
    for refused in [
        reader.clear().await,
        reader.maintain(Position(5), &[]).await.map(drop),
        write(&reader, &stamp(9), &[], []).await,
    ] {
        assert!(matches!(refused, Err(BackendError::Invalid { .. })), "{refused:?}");
    }
    // Lost connections are made again; a base that somebody writes is not read on.
    let all = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database()
               and pid <> pg_backend_pid()";
    Server::shared().sql(database_of(&url), all);
    assert!(reader.get(Position(5), b"240").await.unwrap().is_some());
    write(&backend, &history(6), &[], [put("000", 6, "")]).await.unwrap();
    let moved = reader.get(Position(5), b"240").await;
    assert!(matches!(&moved, Err(BackendError::Unavailable { detail, .. }) if detail.contains("changed")), "{moved:?}");
}

/// The blocks that a page of versions reads, and the rows that it throws away.
async fn cost_of_versions(connection: &mut sqlx::PgConnection, from: &[u8], below: u64) -> (u64, u64) {
    let explained: serde_json::Value = {
        let row = read::explain_versions(connection, 1, from, Position(below), 100).await;
        serde_json::from_str(sqlx::Row::try_get_raw(&row, 0).unwrap().as_str().unwrap()).unwrap()
    };
    fn thrown_away(plan: &serde_json::Value) -> u64 {
        let own = plan["Rows Removed by Filter"].as_u64().unwrap_or(0);
        own + plan["Plans"].as_array().into_iter().flatten().map(thrown_away).sum::<u64>()
    }
    let plan = &explained[0]["Plan"];
    let blocks = ["Shared Hit Blocks", "Shared Read Blocks"].map(|name| plan[name].as_u64().unwrap());
    (blocks.iter().sum(), thrown_away(plan))
}

#[tokio::test]
async fn a_page_of_a_hot_keys_versions_costs_the_same_wherever_it_lies() {
    const VERSIONS: u64 = 20_000;
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    let history = |position| Stamp { history: Some(Position(1)), ..stamp(position) };
    let around = ["a", "z"].into_iter().flat_map(|prefix| (0..500).map(move |row| format!("{prefix}{row:03}")));
    let around: Vec<String> = around.collect();
    let hot = (1..=VERSIONS).rev().map(|version| put("hot", version, version.to_string()));
    let rows = around[..500].iter().map(|key| put(key, 1, "")).chain(hot);
    let rows = rows.chain(around[500..].iter().map(|key| put(key, 1, "")));
    write(&backend, &history(VERSIONS), &[], rows).await.unwrap();

    let mut found = Vec::new();
    let (mut from, mut below) = (Slice::from(&b"hot"[..]), Position::MAX);
    loop {
        let page = backend.versions(&from, below, b"hou", 1000).await.unwrap();
        found.extend(page.versions.into_iter().map(|version| version.version.0));
        match page.next {
            Some(next) => (from, below) = next,
            None => break,
        }
    }
    assert!(found.into_iter().eq((1..=VERSIONS).rev()));

    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    schema::prepare(&mut connection, "lakelog").await.unwrap();
    for below in [u64::MAX, VERSIONS, VERSIONS / 2, 200] {
        let (blocks, thrown_away) = cost_of_versions(&mut connection, b"hot", below).await;
        assert!(blocks < 150 && thrown_away < 10, "below {below}: {blocks} blocks, {thrown_away} rows for nothing");
    }
}

#[tokio::test]
async fn keys_are_looked_up_whatever_the_statistics_say() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    write(&backend, &stamp(1), &[], (0..1000).map(|row| put(format!("{row:04}"), 1, ""))).await.unwrap();
    drop(backend);
    for statistics in
        ["reltuples = 0, relpages = 16000", "reltuples = -1, relpages = 0", "reltuples = 1e9, relpages = 1"]
    {
        let spoil = format!("update pg_class set {statistics} where oid = 'lakelog.live'::regclass");
        Server::shared().sql(database_of(&url), &spoil);
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        schema::prepare(&mut connection, "lakelog").await.unwrap();
        let plan = write::explain_supersede(&mut connection).await;
        assert!(!plan.contains("Join Filter") && plan.contains("Tid Scan on live"), "{statistics}:\n{plan}");
        assert!(plan.contains("(partition = closed.partition) AND (key = closed.key)"), "{statistics}:\n{plan}");
    }
}
