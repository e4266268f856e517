//! The store as an embedder sees it, on real files.

use std::sync::Arc;

use super::gate::Gate;
use super::*;
use crate::backends::MemoryBackend;
use crate::projection::IndexEntry;
use crate::types::{Digest, ErrorKind, Key, KeyRange, Position};

struct World {
    dir: tempfile::TempDir,
    backend: MemoryBackend,
    settings: Settings,
}

impl World {
    fn new() -> World {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        World { dir: tempfile::tempdir().unwrap(), backend: MemoryBackend::new(), settings }
    }

    fn builder(&self) -> Builder {
        self.embedded().with_backend(Arc::new(self.backend.clone()))
    }

    /// With the base that an embedder gets by default.
    fn embedded(&self) -> Builder {
        Store::builder(self.dir.path().join("store")).settings(self.settings.clone())
    }

    async fn open(&self) -> Store {
        self.builder().open_or_create().await.unwrap()
    }
}

fn me() -> Context {
    Context::new("test")
}

async fn all(store: &Store) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut entries = store.reader().scan_all(true);
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await {
        let entry = entry.unwrap();
        found.push((entry.partition(), entry.key().to_vec(), entry.value.to_vec()));
    }
    found
}

#[tokio::test]
async fn what_is_written_is_read_also_after_close_and_after_a_drop() {
    let world = World::new();
    let store = world.open().await;
    assert_eq!(store.write(me(), Batch::new().set(b"p", b"k", b"v1")).await.unwrap().position, Position(1));
    assert_eq!(store.write(me(), Batch::new().set(b"p", b"k", b"v2")).await.unwrap().position, Position(2));
    store.write(me(), Batch::new().set(b"p", b"gone", b"").delete_range(b"q", b"")).await.unwrap();
    store.write(me(), Batch::new().delete(b"p", b"gone")).await.unwrap();
    let entry = store.get(b"p", b"k").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.version), (&b"v2"[..], Position(2)));
    let before = all(&store).await;
    assert_eq!(before, [(b"p".to_vec(), b"k".to_vec(), b"v2".to_vec())]);
    store.close().await.unwrap();
    assert_eq!(store.write(me(), Batch::new().set(b"p", b"k", b"v3")).await.unwrap_err().kind(), ErrorKind::Closed);
    let store = world.open().await;
    assert_eq!(all(&store).await, before);
    assert_eq!(store.head(), Position(4));
    store.checkpoint().await.unwrap();
    assert_eq!(all(&store).await, before);
    store.close().await.unwrap();
    let store = world.open().await;
    assert_eq!(all(&store).await, before);
    assert_eq!(store.stats().await.unwrap().checkpoint, Position(4));
}

#[tokio::test]
async fn the_default_base_is_released_by_close_and_dropped_on_doubt() {
    let world = World::new();
    let store = world.embedded().create().await.unwrap();
    for n in 0..50u8 {
        store.write(me(), Batch::new().set(b"p", &[n], &[n])).await.unwrap();
    }
    let pinned = store.reader();
    store.checkpoint().await.unwrap();
    store.write(me(), Batch::new().delete_range(b"p", b"")).await.unwrap();
    store.checkpoint().await.unwrap();
    assert!(all(&store).await.is_empty());
    assert_eq!(pinned.get(b"p", &[7]).await.unwrap().unwrap().version, Position(8));
    store.write(me(), Batch::new().set(b"p", b"k", b"v")).await.unwrap();
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.get(b"p", b"k").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pinned.get(b"p", &[7]).await.unwrap_err().kind(), ErrorKind::Closed);
    // The base is gone, then it is garbage, then it is another log's: the log is the truth each time.
    let base = world.dir.path().join("store/base");
    std::fs::remove_dir_all(&base).unwrap();
    for _ in 0..3 {
        let store = world.embedded().open().await.unwrap();
        assert_eq!(all(&store).await, [(b"p".to_vec(), b"k".to_vec(), b"v".to_vec())]);
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
        for entry in std::fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() {
                std::fs::write(entry, b"garbage").unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_predicate_that_fails_changes_nothing() {
    let world = World::new();
    let store = world.open().await;
    let conflict = |batch| {
        let store = store.clone();
        async move { store.write(me(), batch).await.unwrap_err().kind() }
    };
    assert_eq!(conflict(Batch::new().set_if(b"p", b"k", b"v", Predicate::Exists)).await, ErrorKind::Conflict);
    let first = store.write(me(), Batch::new().set_if(b"p", b"k", b"v", Predicate::Absent)).await.unwrap().position;
    assert_eq!(conflict(Batch::new().set_if(b"p", b"k", b"w", Predicate::Absent)).await, ErrorKind::Conflict);
    store.write(me(), Batch::new().set_if(b"p", b"k", b"w", Predicate::Version(first))).await.unwrap();
    store.write(me(), Batch::new().set_if(b"p", b"k", b"v", Predicate::Value(b"w"[..].into()))).await.unwrap();
    // The value is back, the version is not.
    let stale = Batch::new().set(b"p", b"other", b"x").delete_if(b"p", b"k", Predicate::Version(first));
    assert_eq!(conflict(stale).await, ErrorKind::Conflict);
    assert_eq!(store.get(b"p", b"other").await.unwrap(), None);
    assert_eq!(store.head(), Position(3));
}

#[tokio::test]
async fn counters_lose_no_increment_under_contention() {
    let world = World::new();
    let store = world.open().await;
    let increments = (0..16).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                let add = |tx: Tx| async move {
                    let old = tx.get(b"p", b"n").await?.map_or(0, |e| u64::decode(&e.value).unwrap());
                    tx.set(b"p", b"n", &(old + 1).encode())?;
                    Ok(old + 1)
                };
                store.transact(me(), add).await.unwrap();
            }
        })
    });
    for task in increments.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(u64::decode(&store.get(b"p", b"n").await.unwrap().unwrap().value), Some(320));
}

#[tokio::test]
async fn a_request_is_applied_once() {
    let world = World::new();
    let store = world.open().await;
    let request = |digest| me().request(RequestId { id: "r1".into(), digest: Digest([digest; 32]) });
    let create = |tx: Tx| async move {
        let old = tx.get(b"p", b"n").await?.map_or(0, |e| u64::decode(&e.value).unwrap());
        tx.set(b"p", b"n", &(old + 1).encode())?;
        Ok(old + 1)
    };
    let first = store.transact(request(1), create).await.unwrap();
    assert_eq!((first.position, first.answer, first.repeated), (Position(1), 1, false));
    let again = store.transact(request(1), create).await.unwrap();
    assert_eq!((again.position, again.answer, again.repeated), (Position(1), 1, true));
    assert_eq!(store.transact(request(2), create).await.unwrap_err().kind(), ErrorKind::Invalid);
    store.close().await.unwrap();
    let store = world.open().await;
    assert!(store.transact(request(1), create).await.unwrap().repeated);
    assert_eq!(store.expire_requests().await.unwrap(), 0);
}

#[tokio::test]
async fn bad_arguments_are_invalid_and_change_nothing() {
    let world = World::new();
    let store = world.open().await;
    let long = vec![b'x'; 3000];
    let huge = vec![0; (16 << 20) + 1];
    for batch in [
        Batch::new().set(b"", b"k", b"v"),
        Batch::new().set(b"p", b"", b"v"),
        Batch::new().set(&long[..513], b"k", b"v"),
        Batch::new().set(b"p", &long, b"v"),
        Batch::new().set(b"p", b"k", &huge),
        Batch::new().set(b"\0own", b"k", b"v"),
        Batch::new().delete(b"\0own", b"k"),
        Batch::new().delete_range(b"\0own", b""),
        Batch::new().delete_range(b"", b""),
        Batch::new().set(b"p", b"k", b"v").delete(b"p", b"k"),
    ] {
        assert_eq!(store.write(me(), batch).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let unnamed = store.write(Context::new(""), Batch::new().set(b"p", b"k", b"v")).await;
    assert_eq!(unnamed.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.head(), Position::ZERO);
}

#[tokio::test]
async fn one_process_writes() {
    let world = World::new();
    assert_eq!(world.builder().open().await.unwrap_err().kind(), ErrorKind::NotFound);
    let store = world.builder().create().await.unwrap();
    let error = world.builder().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.report().contains(&format!("pid {}", std::process::id())), "{}", error.report());
    store.close().await.unwrap();
    drop(store);
    assert_eq!(world.builder().create().await.unwrap_err().kind(), ErrorKind::Conflict);
    world.builder().open().await.unwrap();
}

/// Every entry of partition `p` by the first byte of its value.
#[derive(Debug)]
pub(super) struct ByFirstByte;

impl ByFirstByte {
    pub(super) const PARTITION: &'static [u8] = b"\0index/by-first-byte";
}

impl crate::projection::Index for ByFirstByte {
    fn name(&self) -> &'static str {
        "by-first-byte"
    }

    fn version(&self) -> u32 {
        1
    }

    fn covers(&self, key: &[u8]) -> bool {
        KeyRange::new(b"p", b"").contains(key)
    }

    fn meets(&self, range: &KeyRange) -> bool {
        let source = KeyRange::new(b"p", b"");
        range.contains(source.prefix()) || source.contains(range.prefix())
    }

    fn entries(&self, key: &[u8], value: &[u8]) -> Vec<IndexEntry> {
        let Some(first) = value.first() else { return Vec::new() };
        let primary = &key[Key::key_start(key).unwrap()..];
        let key = Key::new(Self::PARTITION, &[&[*first][..], primary].concat());
        vec![IndexEntry { key, value: primary.to_vec() }]
    }
}

async fn index(store: &Store) -> Vec<Vec<u8>> {
    let entries = all(store).await.into_iter().filter(|(partition, ..)| partition == ByFirstByte::PARTITION);
    entries.map(|(_, key, _)| key).collect()
}

#[tokio::test]
async fn an_index_is_built_while_the_others_serve() {
    for embedded in [false, true] {
        let world = World::new();
        let builder = || if embedded { world.embedded() } else { world.builder() };
        let store = builder().create().await.unwrap();
        for n in 0..60u8 {
            store.write(me(), Batch::new().set(b"p", &[b'k', n], &[n % 7])).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        store.write(me(), Batch::new().set(b"p", b"k", b"after the checkpoint")).await.unwrap();
        store.close().await.unwrap();

        // Killed before the build was saved: it starts again.
        let with_index = || builder().with_index(Arc::new(ByFirstByte));
        let store = with_index().open().await.unwrap();
        store.write(me(), Batch::new().set(b"p", &[b'k', 3], b"\x09 live").delete(b"p", &[b'k', 4])).await.unwrap();
        store.close().await.unwrap();

        let store = with_index().open().await.unwrap();
        let mut tries = 0;
        while crate::store::indexing::check_built(store.shared(), "by-first-byte", store.head()).is_err() {
            tries += 1;
            assert!(tries < 500, "the index is never built");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let expected: Vec<Vec<u8>> = {
            let entries = all(&store).await.into_iter().filter(|(partition, ..)| partition == b"p");
            let mut keys: Vec<Vec<u8>> = entries.map(|(_, key, value)| [&value[..1], &key].concat()).collect();
            keys.sort();
            keys
        };
        assert_eq!((index(&store).await, expected.len()), (expected.clone(), 60));
        // The build's own checkpoint may still be on its way.
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
        // Now it is whole: no build at the next open, the same entries, and rebuilt from zero too.
        let store = with_index().open().await.unwrap();
        assert!(crate::store::indexing::check_built(store.shared(), "by-first-byte", store.head()).is_ok());
        assert_eq!(index(&store).await, expected);
        store.close().await.unwrap();
        let fresh = world.embedded().with_backend(Arc::new(MemoryBackend::new())).with_index(Arc::new(ByFirstByte));
        let store = fresh.open().await.unwrap();
        assert_eq!(index(&store).await, expected);
        store.close().await.unwrap();
        // A program without the index does not let it go stale: the base is rebuilt without it.
        let store = builder().open().await.unwrap();
        assert_eq!(index(&store).await, Vec::<Vec<u8>>::new());
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_was_read_has_no_phantoms() {
    let world = World::new();
    let store = world.open().await;
    let tasks = (0..24u8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let enter = |tx: Tx| async move {
                let there = tx.scan(ScanOptions::new(b"room").prefix(b"seat/")).await?;
                if there.len() < 3 {
                    tx.set(b"room", &[b"seat/"[..].to_vec(), vec![n]].concat(), b"taken")?;
                }
                Ok(there.len() < 3)
            };
            store.transact(me(), enter).await.unwrap().answer
        })
    });
    let mut seated = 0;
    for task in tasks.collect::<Vec<_>>() {
        seated += usize::from(task.await.unwrap());
    }
    assert_eq!((seated, all(&store).await.len()), (3, 3));
}

#[tokio::test]
async fn a_transaction_sees_its_own_writes_in_scans_of_any_length() {
    let world = World::new();
    let store = world.open().await;
    for key in ["a", "b", "c", "d1", "d2", "e"] {
        store.write(me(), Batch::new().set(b"p", key.as_bytes(), b"old")).await.unwrap();
    }
    for limit in 0..9 {
        let look = move |tx: Tx| async move {
            tx.set(b"p", b"d2", b"lost to the range delete")?;
            tx.delete(b"p", b"b")?;
            tx.delete_range(b"p", b"d").await?;
            tx.set(b"p", b"bb", b"new")?;
            tx.set(b"p", b"d3", b"new")?;
            tx.set(b"p", b"f", b"new")?;
            tx.delete(b"p", b"f")?;
            assert_eq!(tx.get(b"p", b"d1").await?, None);
            let found = tx.scan(ScanOptions::new(b"p").from(b"a").limit(limit)).await?;
            Ok(found
                .iter()
                .map(|entry| String::from_utf8_lossy(&entry.key()).into_owned())
                .collect::<Vec<_>>()
                .join(" "))
        };
        let expected = ["a", "bb", "c", "d3", "e"];
        let store = store.clone();
        let answer = store.transact(me(), look).await.unwrap().answer;
        assert_eq!(answer, expected[..limit.min(5)].join(" "));
        // Back to what it was.
        let again =
            ["b", "d1", "d2"].iter().fold(Batch::new().delete(b"p", b"bb").delete(b"p", b"d3"), |batch, key| {
                batch.set(b"p", key.as_bytes(), b"old")
            });
        store.write(me(), again).await.unwrap();
    }
}

/// A slow transaction among fast ones that always write what it read: without its lane it would never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_keeps_losing_gets_its_turn() {
    let world = World::new();
    let store = world.open().await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers = (0..4u8).map(|n| {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                store.write(me(), Batch::new().set(b"hot", &[n], b"x")).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let slow = |tx: Tx| async move {
        let mut read = 0;
        for _ in 0..20 {
            read += tx.scan(ScanOptions::new(b"hot")).await?.len() as u64;
            tokio::time::sleep(std::time::Duration::from_micros(500)).await;
        }
        tx.set(b"cold", b"sum", &read.encode())?;
        Ok(read)
    };
    let won = tokio::time::timeout(std::time::Duration::from_secs(60), store.transact(me(), slow)).await;
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    won.expect("the lane lets it win").unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn dropping_every_handle_frees_the_directory() {
    let world = World::new();
    for n in 0..5u8 {
        let store = world.embedded().open_or_create().await.unwrap();
        store.write(me(), Batch::new().set(b"p", &[n], b"v")).await.unwrap();
        drop(store);
        // Threads end by themselves; the next opener may have to wait a moment for the lock.
        let mut tries = 0;
        loop {
            match world.embedded().open().await {
                Ok(store) => {
                    assert_eq!(all(&store).await.len(), usize::from(n) + 1);
                    store.close().await.unwrap();
                    break;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
            tries += 1;
            assert!(tries < 500, "the lock is never freed");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn fault_14_memory_ends_at_the_hard_limit_and_reads_go_on() {
    let mut world = World::new();
    world.settings.memtable_soft_bytes = 64 << 10;
    world.settings.memtable_hard_bytes = 256 << 10;
    world.settings.write_wait_ms = 50;
    let base = Arc::new(Gate::new(world.backend.clone()));
    base.writes_left.store(0, std::sync::atomic::Ordering::Relaxed);
    let store = world.embedded().with_backend(base.clone()).create().await.unwrap();
    let refused = loop {
        let key = store.head().0.to_be_bytes();
        if let Err(error) = store.write(me(), Batch::new().set(b"p", &key, &[7; 4096])).await {
            break error;
        }
        assert!(store.head() < Position(200), "memory is not bounded");
    };
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.report().contains("it is full"), "{}", refused.report());
    assert_eq!(all(&store).await.len() as u64, store.head().0);
    base.writes_left.store(usize::MAX, std::sync::atomic::Ordering::Relaxed);
    let mut tries = 0;
    while store.write(me(), Batch::new().set(b"p", b"late", b"v")).await.is_err() {
        tries += 1;
        assert!(tries < 200, "writers never get going again");
    }
    store.close().await.unwrap();
    assert_eq!(all(&world.open().await).await.last().unwrap().1, b"late");
}

#[tokio::test]
async fn fault_12_a_store_opens_without_room_for_a_checkpoint() {
    let mut world = World::new();
    world.settings.memtable_soft_bytes = 64 << 10;
    world.settings.memtable_hard_bytes = 256 << 10;
    world.settings.write_wait_ms = 1;
    let base = Arc::new(Gate::new(world.backend.clone()));
    base.writes_left.store(0, std::sync::atomic::Ordering::Relaxed);
    let store = world.embedded().with_backend(base.clone()).create().await.unwrap();
    let write = async |store: &Store| {
        store.write(me(), Batch::new().set(b"p", &store.head().0.to_be_bytes(), &[7; 4096])).await
    };
    while write(&store).await.is_ok() {}
    let before = all(&store).await;
    store.close().await.unwrap();
    for _ in 0..2 {
        let again = world.embedded().with_backend(base.clone()).open().await.unwrap();
        assert_eq!(all(&again).await, before);
        assert_eq!(write(&again).await.unwrap_err().kind(), ErrorKind::Unavailable);
        again.close().await.unwrap();
    }
    // What does not fit into memory cannot be served without a base.
    world.settings.memtable_hard_bytes = 64 << 10;
    let refused = world.embedded().with_backend(base.clone()).open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    base.writes_left.store(usize::MAX, std::sync::atomic::Ordering::Relaxed);
    let roomy = world.embedded().with_backend(base).open().await.unwrap();
    assert_eq!(all(&roomy).await, before);
    write(&roomy).await.unwrap();
    assert_eq!(roomy.checkpoint().await.unwrap(), roomy.head());
    roomy.close().await.unwrap();
}

#[tokio::test]
async fn fault_22_a_log_that_was_lost_is_not_replaced_by_a_new_one() {
    let world = World::new();
    let store = world.embedded().create().await.unwrap();
    store.write(me(), Batch::new().set(b"p", b"k", b"v")).await.unwrap();
    store.checkpoint().await.unwrap();
    store.close().await.unwrap();
    let (log, away) = (world.dir.path().join("store/log"), world.dir.path().join("away"));
    std::fs::rename(&log, &away).unwrap();
    // What is left of it is the base: a new log would have it dropped.
    for opened in [world.embedded().open_or_create().await, world.embedded().create().await] {
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    std::fs::rename(&away, &log).unwrap();
    let store = world.embedded().open_or_create().await.unwrap();
    assert_eq!(store.stats().await.unwrap().checkpoint, Position(1));
    store.close().await.unwrap();
}

pub(super) fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn fault_22_the_base_of_a_fork_is_not_believed() {
    let (world, fork) = (World::new(), World::new());
    let store = world.embedded().create().await.unwrap();
    store.write(me(), Batch::new().set(b"p", b"common", b"v")).await.unwrap();
    store.close().await.unwrap();
    let (dir, fork_dir) = (world.dir.path().join("store"), fork.dir.path().join("store"));
    copy_dir(&dir, &fork_dir);
    for (world, value) in [(&world, b"original"), (&fork, b"forked__")] {
        let store = world.embedded().open().await.unwrap();
        store.write(me(), Batch::new().set(b"p", b"k", value)).await.unwrap();
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
    }
    let swap = |base: &std::path::Path| {
        std::fs::remove_dir_all(fork_dir.join("base")).unwrap();
        copy_dir(base, &fork_dir.join("base"));
    };
    // Same log id, same position, another chain.
    swap(&dir.join("base"));
    let store = fork.embedded().open().await.unwrap();
    assert_eq!(&store.get(b"p", b"k").await.unwrap().unwrap().value[..], b"forked__");
    store.close().await.unwrap();
    // Another log altogether.
    let other = World::new();
    let store = other.embedded().create().await.unwrap();
    store.write(me(), Batch::new().set(b"p", b"k", b"other")).await.unwrap();
    store.checkpoint().await.unwrap();
    store.close().await.unwrap();
    swap(&other.dir.path().join("store/base"));
    let store = fork.embedded().open().await.unwrap();
    assert_eq!(&store.get(b"p", b"k").await.unwrap().unwrap().value[..], b"forked__");
    store.close().await.unwrap();
    // A fork that is ahead looks like lost transactions: nothing is thrown away on that doubt.
    let store = world.embedded().open().await.unwrap();
    for _ in 0..3 {
        store.write(me(), Batch::new().set(b"p", b"k", b"ahead")).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    store.close().await.unwrap();
    swap(&dir.join("base"));
    let error = fork.embedded().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.report().contains("3..=5"), "{}", error.report());
}

#[tokio::test]
async fn users_are_found_by_email_in_any_case() {
    let world = World::new();
    let store = world.open().await;
    let user = |email: &str| [&[0x22, email.len() as u8], email.as_bytes()].concat();
    let users = Batch::new()
        .set(b"auth", b"users/ann", &user("Ann@Example.org"))
        .set(b"auth", b"users/anna", &user("ann@example.org"))
        .set(b"auth", b"users/bob", &user("ann@example.org.uk"));
    store.write(me(), users).await.unwrap();
    for checkpoint in [false, true] {
        if checkpoint {
            store.checkpoint().await.unwrap();
        }
        assert_eq!(store.users_by_email("ANN@example.ORG").await.unwrap(), [&b"users/ann"[..], b"users/anna"]);
        assert_eq!(store.users_by_email("ann@example").await.unwrap(), Vec::<Vec<u8>>::new());
    }
    // A change of address, and a range delete, take the entries along.
    store.write(me(), Batch::new().set(b"auth", b"users/ann", &user("new@example.org"))).await.unwrap();
    assert_eq!(store.users_by_email("ann@example.org").await.unwrap(), [b"users/anna"]);
    store.write(me(), Batch::new().delete_range(b"auth", b"")).await.unwrap();
    assert!(store.users_by_email("new@example.org").await.unwrap().is_empty());
}
