//! The store as an embedder sees it, on real files.

use std::sync::Arc;

use super::*;
use crate::backends::MemoryBackend;
use crate::types::{Digest, ErrorKind, Position};

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
