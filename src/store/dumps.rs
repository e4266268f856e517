//! Dumps and restores of whole stores: what opens afterwards is what was there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::{BASE_DIR, LOG_DIR};
use super::tests::ByFirstByte;
use super::*;
use crate::backends::MemoryBackend;
use crate::diagnostics::verify;
use crate::dump::{DumpOptions, DumpSource, dump};
use crate::env::Env;
use crate::log::LogFiles;
use crate::types::{Entry, ErrorKind, OWN_PARTITION_BYTE, Position, Result};

struct World {
    tempdir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        World { tempdir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tempdir.path().join(name)
    }

    fn builder(&self, name: &str) -> Builder {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        Store::builder(self.path(name)).settings(settings)
    }

    /// Writes, range deletes, requests and a checkpoint in the middle.
    async fn filled(&self, name: &str) -> Store {
        let store = self.builder(name).create().await.unwrap();
        write(&store, 0..60).await;
        store.checkpoint().await.unwrap();
        let range = Batch::new().delete_range(b"p", b"001");
        let context = Context::new("test").request(RequestId { id: "r".to_owned(), digest: Default::default() });
        store.write(context, range).await.unwrap();
        write(&store, 60..100).await;
        store
    }

    fn dump(&self, store: &str, name: &str, options: DumpOptions) -> PathBuf {
        let (env, path) = (Env::os(), self.path(name));
        let files = LogFiles::open(&env, &self.path(store).join(LOG_DIR)).unwrap();
        dump(&env, &files, options, File::create(&path).unwrap(), name, &mut |_, _| {}).unwrap();
        path
    }

    fn restore(&self, store: &str, dumps: &[&Path]) -> Result<crate::dump::Restored> {
        let sources = dumps.iter().map(|path| DumpSource::File(path.to_path_buf())).collect();
        self.builder(store).restore(sources, false, &mut |_, _| {})
    }

    async fn sound(&self, store: &str) {
        let report = verify(&Env::os(), &self.path(store), &mut |_, done, total| assert!(done <= total)).await.unwrap();
        assert!(report.ok() && report.skipped.is_empty(), "{report:?}");
    }
}

async fn write(store: &Store, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let user = format!("users/{number}");
        // Field 4, an address.
        let value = [&[0x22, 6][..], format!("{number:04}@x").as_bytes()].concat();
        let batch = Batch::new().set(b"p", format!("{number:04}").as_bytes(), &vec![number as u8; 1_000]).set(
            b"auth",
            user.as_bytes(),
            &value,
        );
        store.write(Context::new("test"), batch).await.unwrap();
    }
}

async fn entries(store: &Store) -> Vec<Entry> {
    let mut stream = store.reader().scan_all(true);
    let mut entries = Vec::new();
    while let Some(entry) = stream.next().await {
        entries.push(entry.unwrap());
    }
    entries
}

#[tokio::test]
async fn fault_31_a_restored_store_is_what_was_dumped() {
    let world = World::new();
    let store = world.filled("store").await;
    let before = entries(&store).await;
    // Beside the process that writes.
    let full = world.dump("store", "full", DumpOptions { at: Some(Position(70)), ..DumpOptions::default() });
    let rest = world.dump("store", "rest", DumpOptions { since: Some(Position(70)), ..DumpOptions::default() });
    store.close().await.unwrap();
    world.restore("other", &[&full, &rest]).unwrap();
    let other = world.builder("other").open().await.unwrap();
    assert_eq!((other.log_id(), other.head()), (store.log_id(), store.head()));
    assert_eq!(entries(&other).await, before);
    assert!(world.restore("other", &[&full]).is_err_and(|error| error.kind() == ErrorKind::Unavailable), "it is open");
    other.close().await.unwrap();
    world.sound("other").await;
    let in_memory = world.builder("other").with_backend(Arc::new(MemoryBackend::new())).open().await.unwrap();
    assert_eq!(entries(&in_memory).await, before);
}

#[tokio::test]
async fn a_store_begins_with_a_state() {
    let world = World::new();
    let store = world.filled("store").await;
    let before = entries(&store).await;
    let path = world.path("state");
    let (_, summary) = store.dump_state(None, File::create(&path).unwrap(), "state", true).await.unwrap();
    assert_eq!((summary.entries, summary.head.position), (before.len() as u64, store.head()));
    let floor = store.head();
    let restored = world.restore("other", &[&path]).unwrap();
    assert_ne!(restored.log_id, store.log_id());
    for round in 0..3 {
        let other = world.builder("other").open().await.unwrap();
        assert_eq!(entries(&other).await[..before.len()], before[..], "round {round}");
        assert_eq!(other.users_by_email("0042@X").await.unwrap(), [b"users/42"]);
        assert!(other.shared().log.floor() == floor);
        other.close().await.unwrap();
        world.sound("other").await;
        if round == 1 {
            fs::remove_dir_all(world.path("other").join(BASE_DIR)).unwrap();
        }
    }
    let other = world.builder("other").open().await.unwrap();
    let done = other.write(Context::new("test"), Batch::new().set(b"p", b"new", b"v")).await.unwrap();
    assert_eq!(done.position, floor.next());
    // A request that was remembered is remembered.
    let context = Context::new("test").request(RequestId { id: "r".to_owned(), digest: Default::default() });
    let range = Batch::new().delete_range(b"p", b"001");
    assert!(other.write(context, range).await.unwrap().repeated);
    other.checkpoint().await.unwrap();
    let after = entries(&other).await;
    other.close().await.unwrap();
    world.sound("other").await;

    // A full dump of it has the state, too.
    let full = world.dump("other", "full", DumpOptions::default());
    world.restore("third", &[&full]).unwrap();
    let third = world.builder("third").open().await.unwrap();
    assert_eq!((third.log_id(), entries(&third).await), (restored.log_id, after.clone()));
    third.close().await.unwrap();
    world.sound("third").await;
    let in_memory = world.builder("third").with_backend(Arc::new(MemoryBackend::new())).open().await.unwrap();
    assert_eq!(entries(&in_memory).await, after);
}

#[tokio::test]
async fn fault_23_a_store_whose_only_snapshot_is_damaged_says_so() {
    let world = World::new();
    let store = world.filled("store").await;
    let path = world.path("state");
    store.dump_state(None, File::create(&path).unwrap(), "state", true).await.unwrap();
    world.restore("other", &[&path]).unwrap();
    let log = world.path("other").join(LOG_DIR);
    let snapshot = LogFiles::open(&Env::os(), &log).unwrap().snapshot().unwrap().path(&log);
    let content = fs::read(&snapshot).unwrap();
    for at in [9, 200, content.len() / 2, content.len() - 3] {
        let mut damaged = content.clone();
        damaged[at] ^= 1;
        fs::write(&snapshot, damaged).unwrap();
        let error = world.builder("other").open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}: {error}");
        let report = verify(&Env::os(), &world.path("other"), &mut |_, _, _| {}).await.unwrap();
        assert_eq!(report.problems.iter().map(|problem| problem.kind).collect::<Vec<_>>(), ["snapshot"], "{report:?}");
    }
    fs::write(&snapshot, content).unwrap();
    world.builder("other").open().await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn entries_of_an_index_that_nobody_keeps_up_are_left_out() {
    let world = World::new();
    let store = world.builder("store").with_index(Arc::new(ByFirstByte)).create().await.unwrap();
    write(&store, 0..5).await;
    store.write(Context::new("test"), Batch::new().set(b"p", b"k", b"first")).await.unwrap();
    let path = world.path("state");
    store.dump_state(None, File::create(&path).unwrap(), "state", true).await.unwrap();
    let before = entries(&store).await;
    world.restore("other", &[&path]).unwrap();
    let other = world.builder("other").open().await.unwrap();
    let outside = |entries: &[Entry]| -> Vec<Entry> {
        entries.iter().filter(|entry| entry.encoded_key[0] != OWN_PARTITION_BYTE).cloned().collect()
    };
    assert_eq!(outside(&entries(&other).await), outside(&before));
    // Built anew.
    while other.users_by_email("0003@x").await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(other.users_by_email("0003@x").await.unwrap(), [b"users/3"]);
    other.close().await.unwrap();
    let with = world.builder("other").with_index(Arc::new(ByFirstByte)).open().await.unwrap();
    assert_eq!(outside(&entries(&with).await), outside(&before));
}

#[tokio::test]
async fn a_base_that_is_left_of_a_lost_log_is_not_restored_over() {
    let world = World::new();
    let store = world.filled("store").await;
    store.checkpoint().await.unwrap();
    store.close().await.unwrap();
    let full = world.dump("store", "full", DumpOptions::default());
    fs::remove_dir_all(world.path("store").join(LOG_DIR)).unwrap();
    assert_eq!(world.restore("store", &[&full]).unwrap_err().kind(), ErrorKind::Conflict);
    fs::rename(world.path("store").join(BASE_DIR), world.path("base.old")).unwrap();
    world.restore("store", &[&full]).unwrap();
    world.builder("store").open().await.unwrap().close().await.unwrap();
    world.sound("store").await;
    // An empty store has a base, too, which means nothing.
    let empty = world.builder("empty").create().await.unwrap();
    empty.close().await.unwrap();
    world.restore("empty", &[&full]).unwrap();
    let restored = world.builder("empty").open().await.unwrap();
    assert_eq!(restored.head(), store.head());
    let nothing = world.builder("nothing").create().await.unwrap();
    let error = nothing.dump_state(None, std::io::sink(), "x", true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
