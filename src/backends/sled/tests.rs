//! The embedded base as a whole: the contract, reopening, what goes on at the same time.

mod crash;
mod damage;
mod faulty_fs;
mod tree;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::backends::conformance::{
    self, History,
    fixture::{delete, dump, positions, put, stamp, try_write},
};
use crate::backends::{Backend, BackendError, Change};
use crate::env::Env;
use crate::types::{Position, Slice, Stamp};

fn open(dir: &Path) -> SledBackend {
    let mut backend = SledBackend::open(Env::os(), dir, SledSettings { cache_bytes: 1 << 20 }).unwrap();
    // What is small here is merged in a few steps.
    backend.step_bytes = 1 << 10;
    backend
}

async fn write(
    backend: &SledBackend,
    position: u64,
    keep: &[u64],
    changes: impl IntoIterator<Item = Change, IntoIter: Send>,
) -> Result<(), BackendError> {
    try_write(backend, &stamp(position), keep, changes).await
}

async fn maintain(backend: &SledBackend, keep: &[u64]) -> Result<bool, BackendError> {
    backend.maintain(backend.stamp().await?.unwrap().position, &positions(keep)).await
}

fn generations(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("gen-")).collect()
}

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run_all(&open(dir.path())).await;
    assert_eq!(generations(dir.path()), [""; 0]);
}

#[tokio::test]
async fn conforms_behind_a_pointer() {
    let dir = tempfile::tempdir().unwrap();
    let shared: Arc<dyn Backend> = Arc::new(open(dir.path()));
    conformance::run_all(&shared).await;
}

#[tokio::test]
async fn a_history_goes_on_after_every_reopen() {
    for seed in 100..102 {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::new(seed);
        for _ in 0..10 {
            let backend = open(dir.path());
            history.reopened(&backend).await;
            for _ in 0..3 {
                history.step(&backend).await;
            }
        }
        history.check_all(&open(dir.path())).await;
    }
}

/// A page of the past passes over what came later, a bounded part of it at a time, and each begins behind the one before.
#[tokio::test]
async fn a_page_of_the_past_ends_among_what_came_later() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    // In one generation, as a merge makes them; and one key that was written very many times.
    let later = (0..4_000).flat_map(|n| {
        let key = format!("m{n:05}");
        [put(&key, 2, [n as u8; 500])].into_iter().chain((n == 0).then(|| put(&key, 1, "1")))
    });
    let often = (3..2_000).rev().map(|version| put("n", version, [version as u8; 500]));
    let changes = [put("a", 1, "1")].into_iter().chain(later).chain(often).chain([put("z", 1, "1")]);
    write(&backend, 2_000, &[1], changes.collect::<Vec<_>>()).await.unwrap();
    let (mut pages, mut found, mut from) = (0, Vec::new(), Slice::from(&b""[..]));
    loop {
        let page = backend.scan(Position(1), &from, b"", 100).await.unwrap();
        found.extend(page.entries.into_iter().map(|entry| (entry.encoded_key.to_vec(), entry.version.0)));
        let Some(next) = page.next else { break };
        assert!(next > from, "{next:?} {from:?}");
        (pages, from) = (pages + 1, next);
    }
    assert_eq!(found, [(b"a".to_vec(), 1), (b"m00000".to_vec(), 1), (b"z".to_vec(), 1)]);
    let all = 4_000 * 500;
    assert!(pages >= all / read::PASSED_BYTES - 1, "{pages} pages");
}

/// No row behind the end of what is asked for is looked at.
#[test]
fn a_page_of_the_past_does_not_go_beyond_its_end() {
    use super::block::Row;
    use super::generation::{Cursor, Generation, GenerationWriter};
    let dir = tempfile::tempdir().unwrap();
    let fs = Env::os().fs;
    let mut writer = GenerationWriter::create(&fs, dir.path(), 1, 7).unwrap();
    for n in 0..100 {
        let (key, value) = (format!("m{n:05}"), Some(b"later"[..].into()));
        writer.push(&Row { key: key.as_bytes().into(), version: Position(2), value }).unwrap();
    }
    let generation = Arc::new(Generation::named(&fs, dir.path(), writer.finish().unwrap(), 1 << 20).unwrap());
    for (to, stands, passed) in
        [(&b"m00005"[..], Some(&b"m00005"[..]), 5), (b"m000055", Some(b"m00006"), 6), (b"", None, 100)]
    {
        let mut cursor = Cursor::seek(generation.clone(), b"").unwrap();
        cursor.settle(Position(1), to, &mut read::Passed::from(b"")).unwrap();
        assert_eq!((cursor.key(), cursor.passed()), (stands, passed));
    }
}

#[tokio::test]
async fn what_the_record_does_not_name_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    write(&backend, 1, &[], [put("a", 1, "1")]).await.unwrap();
    drop(backend);
    std::fs::create_dir_all(dir.path().join("gen-77/blobs")).unwrap();
    std::fs::write(dir.path().join("gen-77/db"), "half").unwrap();
    std::fs::write(dir.path().join("CURRENT.tmp"), "half").unwrap();
    std::fs::write(dir.path().join("somebody-elses"), "kept").unwrap();
    let backend = open(dir.path());
    assert_eq!(generations(dir.path()), ["gen-1"]);
    assert!(!dir.path().join("CURRENT.tmp").exists() && dir.path().join("somebody-elses").exists());
    assert_eq!(dump(&backend, 1).await.unwrap().len(), 1);
    // Ids go on, and a directory in the way of a new generation does not matter.
    std::fs::create_dir_all(dir.path().join("gen-2")).unwrap();
    std::fs::write(dir.path().join("gen-2/db"), "half").unwrap();
    write(&backend, 2, &[], [put("b", 2, "2")]).await.unwrap();
    assert_eq!(dump(&backend, 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn many_rows_are_loaded_merged_and_found_again() {
    const ROWS: u64 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    let key = |row: u64| format!("repos\0\x01main/{row:09}");
    let value = |row: u64, version: u64| format!("{row}-{version}-{}", "x".repeat(row as usize % 50));
    write(&backend, 1, &[], (0..ROWS).map(|row| put(key(row), 1, value(row, 1)))).await.unwrap();
    for version in 2..30 {
        let rows = (version..ROWS).step_by(97 * version as usize);
        write(&backend, version, &[], rows.map(|row| put(key(row), version, value(row, version)))).await.unwrap();
        while backend.maintain(Position(version), &[]).await.unwrap() {}
        assert!(generations(dir.path()).len() < 12, "superseded directories go");
    }
    let written_last = |row: u64| (2..30).rev().find(|v| row >= *v && (row - v).is_multiple_of(97 * v)).unwrap_or(1);
    drop(backend);
    let backend = open(dir.path());
    let entries = dump(&backend, 29).await.unwrap();
    assert_eq!(entries.len() as u64, ROWS);
    for (row, (found, version, bytes)) in (0..ROWS).zip(entries) {
        let expected = written_last(row);
        assert_eq!((&found[..], version), (key(row).as_bytes(), expected));
        assert_eq!(&bytes[..], value(row, expected).as_bytes());
    }
    for row in (0..ROWS).step_by(331) {
        let (version, _) = backend.get(Position(29), key(row).as_bytes()).await.unwrap().unwrap();
        assert_eq!(version.0, written_last(row));
    }
    assert!(backend.usage().disk_bytes > 0 && backend.usage().memory_bytes > 0);
}

#[test]
fn readers_see_one_position_while_writes_and_merges_go_on() {
    const KEYS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    let block_on = |future: std::pin::Pin<Box<dyn Future<Output = ()> + '_>>| {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
    };
    let (published, last) = (AtomicU64::new(0), 40);
    let writer = || async {
        for version in 1..=last {
            // The former stamp is kept, so that a reader may finish with it.
            let rows = (0..KEYS).map(|key| put(format!("{key:04}"), version, version.to_string()));
            write(&backend, version, &[version - 1], rows).await.unwrap();
            published.store(version, Ordering::Release);
        }
    };
    let merger = || async {
        while published.load(Ordering::Acquire) < last {
            let current = published.load(Ordering::Acquire);
            backend.maintain(Position(current), &[Position(current.saturating_sub(1))]).await.unwrap();
            std::thread::yield_now();
        }
    };
    let reader = || async {
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
        assert!(seen > 0);
    };
    std::thread::scope(|scope| {
        let (writer, merger, reader) = (&writer, &merger, &reader);
        scope.spawn(move || block_on(Box::pin(writer())));
        scope.spawn(move || block_on(Box::pin(merger())));
        scope.spawn(move || block_on(Box::pin(reader())));
        scope.spawn(move || block_on(Box::pin(reader())));
    });
    block_on(Box::pin(async { assert_eq!(dump(&backend, last).await.unwrap().len() as u64, KEYS) }));
}

/// A trim under a reader from before it: what the reader holds must not be swept over and over.
#[tokio::test]
async fn a_reader_below_the_floor_does_not_keep_maintenance_busy() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    let with_history = |position, from| Stamp { history: Some(Position(from)), ..stamp(position) };
    let write = async |position: u64, from, keep: &[Position]| {
        let changes = [put("a", position, position.to_string())];
        backend.write(&with_history(position, from), keep, Box::new(changes.into_iter().map(Ok))).await.unwrap();
    };
    for position in 1..=20 {
        write(position, 0, &[]).await;
    }
    let held = [Position(5)];
    write(21, 10, &held).await;
    let mut rounds = 0;
    while backend.maintain(Position(21), &held).await.unwrap() {
        rounds += 1;
        assert!(rounds < 50, "it does not end");
    }
    assert_eq!(dump(&backend, 5).await.unwrap()[0].1, 5);
    // When the reader has gone, what only it saw goes too.
    let mut rounds = 0;
    while backend.maintain(Position(21), &[]).await.unwrap() {
        rounds += 1;
        assert!(rounds < 50, "it does not end");
    }
    assert_eq!(dump(&backend, 10).await.unwrap()[0].1, 10);
    assert!(dump(&backend, 5).await.is_err());
}

/// Without a history: a delete may go from the newest rows only when nothing that it hides is left in the past.
#[tokio::test]
async fn a_delete_goes_only_after_what_it_hides_in_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    write(&backend, 10, &[], [put("k", 10, "old")]).await.unwrap();
    // A reader of 10: a merge puts the old value into the past.
    for position in 15..=18 {
        write(&backend, position, &[10], [put("k", position, "new")]).await.unwrap();
    }
    while maintain(&backend, &[10]).await.unwrap() {}
    write(&backend, 20, &[], [delete("k", 20)]).await.unwrap();
    for position in 21..=24 {
        write(&backend, position, &[], [put(format!("x{position}"), position, "x")]).await.unwrap();
    }
    // One piece of the work only, as when a store is closed in between.
    maintain(&backend, &[]).await.unwrap();
    // From here on the former position is held, so that reads of it look into the past too.
    write(&backend, 30, &[24], [put("y", 30, "y")]).await.unwrap();
    assert_eq!(backend.get(Position(24), b"k").await.unwrap(), None);
}

/// What superseded a value is in the newest rows, the value in the past: nobody at or above the floor sees it.
#[tokio::test]
async fn what_a_current_row_superseded_below_the_floor_goes() {
    let dir = tempfile::tempdir().unwrap();
    let backend = open(dir.path());
    for position in 1..=8 {
        let changes = [put("k", position, "v"), put(format!("x{position}"), position, "x")];
        let stamp = Stamp { history: Some(Position::ZERO), ..stamp(position) };
        backend.write(&stamp, &[], Box::new(changes.into_iter().map(Ok))).await.unwrap();
        while maintain(&backend, &[]).await.unwrap() {}
    }
    let versions = async || {
        let page = backend.versions(b"k", Position::MAX, b"l", 100).await.unwrap();
        page.versions.iter().map(|version| version.version.0).collect::<Vec<_>>()
    };
    assert_eq!(versions().await.len(), 8);
    let stamp = Stamp { history: Some(Position(9)), ..stamp(10) };
    backend.write(&stamp, &[], Box::new([Ok(put("k", 10, "v"))].into_iter())).await.unwrap();
    while maintain(&backend, &[]).await.unwrap() {}
    // 7 is superseded among the newest rows, which no merge has looked at since.
    assert_eq!(versions().await, [10, 8, 7]);
    assert_eq!(dump(&backend, 9).await.unwrap()[0].1, 8);
}

/// Whoever maintains the base has other things to do: writes that free memory, above all.
#[tokio::test]
async fn a_merge_is_done_in_steps_between_which_the_base_is_written_read_and_cleared() {
    let rows = |position: u64| (0..200).map(move |key| put(format!("k{key:03}"), position, [position as u8; 40]));
    for clears in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut backend = open(dir.path());
        backend.step_bytes = 8 << 10;
        for position in 1..=4 {
            write(&backend, position, &[1], rows(position)).await.unwrap();
        }
        let mut steps = 0;
        while backend.maintain(Position(4 + steps), &[Position(1)]).await.unwrap() {
            steps += 1;
            let position = 4 + steps;
            if position == 6 && clears {
                backend.clear().await.unwrap();
                assert_eq!(generations(dir.path()), [""; 0], "what was made of it until then is gone");
                break;
            }
            write(&backend, position, &[1], [put("k100", position, "new")]).await.unwrap();
            assert_eq!(backend.get(Position(position), b"k100").await.unwrap().unwrap().0.0, position);
            for at in [1, position] {
                assert_eq!(dump(&backend, at).await.unwrap().len(), 200);
            }
        }
        if clears {
            write(&backend, 1, &[], [put("k", 1, "v")]).await.unwrap();
            assert!(!maintain(&backend, &[]).await.unwrap());
            assert_eq!(dump(&backend, 1).await.unwrap().len(), 1);
            continue;
        }
        // 800 rows of 58 bytes.
        assert!((5..12).contains(&steps), "{steps}");
        drop(backend);
        let backend = open(dir.path());
        for at in [1, 4 + steps] {
            assert_eq!(dump(&backend, at).await.unwrap().len(), 200);
        }
    }
}
