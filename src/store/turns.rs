//! Who commits: the store's thread or a caller's ([`CommitOn`]), from every kind of thread, and what becomes of the callers when the
//! committer panics.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::Builder as RuntimeBuilder;

use super::simulation::{poll, ready};
use super::{Batch, CommitOn, Context, Settings, Store};
use crate::backends::MemoryBackend;
use crate::projection::{Index, IndexEntry};
use crate::types::{ErrorKind, KeyRange, Position};

struct World {
    dir: tempfile::TempDir,
    base: MemoryBackend,
    settings: Settings,
}

impl World {
    fn new(commit_on: CommitOn) -> World {
        let settings = Settings { commit_on, segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        World { dir: tempfile::tempdir().unwrap(), base: MemoryBackend::new(), settings }
    }

    async fn open(&self) -> Store {
        let builder = Store::builder(self.dir.path().join("store")).settings(self.settings.clone());
        builder
            .with_backend(Arc::new(self.base.clone()))
            .with_index(Arc::new(Panicking))
            .open_or_create()
            .await
            .unwrap()
    }
}

fn me() -> Context {
    Context::new("test")
}

fn set(key: &[u8]) -> Batch {
    Batch::new().set(b"p", key, b"v")
}

/// An index that cannot take one partition.
#[derive(Debug)]
struct Panicking;

impl Index for Panicking {
    fn name(&self) -> &'static str {
        "panicking"
    }

    fn version(&self) -> u32 {
        1
    }

    fn covers(&self, key: &[u8]) -> bool {
        KeyRange::new(b"panics", b"").contains(key)
    }

    fn meets(&self, range: &KeyRange) -> bool {
        KeyRange::new(b"panics", b"").contains(range.prefix())
    }

    fn entries(&self, _: &[u8], _: &[u8]) -> Vec<IndexEntry> {
        panic!("as the test wants it")
    }
}

#[test]
fn a_caller_without_a_runtime_commits_on_its_own_thread() {
    let world = World::new(CommitOn::CallerThread);
    let runtime = RuntimeBuilder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = runtime.block_on(world.open());
    for n in 1..20u8 {
        // Answered at the first poll: nobody else has to be waited for.
        let mut write = pin!(store.write(me(), set(&[n])));
        match poll(write.as_mut()) {
            Poll::Ready(done) => assert_eq!(done.unwrap().position, Position(n.into())),
            // A tick of the store's own thread may have the turn.
            Poll::Pending => assert_eq!(runtime.block_on(write).unwrap().position, Position(n.into())),
        }
        assert_eq!(store.synced(), Position(n.into()));
    }
    runtime.block_on(store.close()).unwrap();
    assert_eq!(ready(store.write(me(), set(b"k"))).unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_runtime_of_one_thread_is_not_blocked() {
    let world = World::new(CommitOn::CallerThread);
    let store = world.open().await;
    assert_eq!(store.write(me(), set(b"k")).await.unwrap().position, Position(1));
    // block_in_place would panic here.
    tokio::task::LocalSet::new().run_until(async { store.write(me(), set(b"k")).await.unwrap() }).await;
    assert_eq!(store.get(b"p", b"k").await.unwrap().unwrap().version, Position(2));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn callers_and_the_stores_thread_take_turns() {
    for commit_on in [CommitOn::CallerThread, CommitOn::OwnThread] {
        let world = World::new(commit_on);
        let store = world.open().await;
        // Alone, together, alone again.
        let mut next = 1;
        for writers in [1, 6, 1, 3, 1u64] {
            let tasks: Vec<_> = (0..writers)
                .map(|writer| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        let mut positions = Vec::new();
                        for n in 0..40u64 {
                            let key = [writer.to_be_bytes(), n.to_be_bytes()].concat();
                            let position = store.write(me(), set(&key)).await.unwrap().position;
                            let found = store.get(b"p", &key).await.unwrap().unwrap();
                            assert_eq!(found.version, position, "what was acknowledged is seen");
                            positions.push(position.0);
                        }
                        assert!(positions.is_sorted());
                        positions
                    })
                })
                .collect();
            let mut positions = Vec::new();
            for task in tasks {
                positions.extend(task.await.unwrap());
            }
            positions.sort_unstable();
            assert_eq!(positions, (next..next + 40 * writers).collect::<Vec<u64>>());
            next += 40 * writers;
        }
        assert_eq!(store.synced(), Position(next - 1));
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
        let store = world.open().await;
        assert_eq!(store.head(), Position(next - 1));
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_committer_that_panicked() {
    for commit_on in [CommitOn::CallerThread, CommitOn::OwnThread] {
        let world = World::new(commit_on);
        let store = world.open().await;
        store.write(me(), set(b"before")).await.unwrap();
        let panicking = store.clone();
        let panicked =
            tokio::spawn(async move { panicking.write(me(), Batch::new().set(b"panics", b"k", b"v")).await }).await;
        // On the caller's thread it is the caller's panic.
        assert!(panicked.is_err() || panicked.unwrap().unwrap_err().kind() == ErrorKind::Closed);
        let after = store.write(me(), set(b"after")).await.unwrap_err();
        assert_eq!(after.kind(), ErrorKind::Closed);
        assert_eq!(store.get(b"p", b"before").await.unwrap().unwrap().version, Position(1));
        assert!(store.get(b"panics", b"k").await.unwrap().is_none());
        store.close().await.unwrap();
        let store = world.open().await;
        assert_eq!(store.head(), Position(1));
        store.close().await.unwrap();
    }
}
