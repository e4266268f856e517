//! The suite against every base, and what is promised beyond the contract.

mod mock;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_stream::StreamExt;

use super::*;
use crate::backends::{Backend, MemoryBackend};
#[cfg(feature = "sled")]
use crate::backends::{SledBackend, SledSettings};
#[cfg(feature = "sled")]
use crate::env::Env;
use crate::store::{Durability, Settings, Store};
use crate::types::{Error, ErrorKind, Position};

/// Entries fetched at a time, so that 100 need paging.
const PAGE: usize = 10;

/// The bases under a store. A further one is a further line; `dir` is an empty directory for it.
#[cfg_attr(not(feature = "sled"), expect(unused_variables, reason = "memory needs no directory"))]
fn bases(dir: &Path) -> Vec<(&'static str, Arc<dyn Backend>)> {
    vec![
        ("memory", Arc::new(MemoryBackend::new())),
        #[cfg(feature = "sled")]
        ("sled", Arc::new(SledBackend::open(Env::os(), &dir.join("base"), SledSettings::default()).unwrap())),
    ]
}

/// Syncs cost most of the time of small writes and are the log's to prove.
fn settings() -> Settings {
    Settings {
        segment_bytes: 1 << 20,
        min_free_bytes: Some(0),
        durability: Durability::Interval { ms: 5 },
        ..Settings::default()
    }
}

async fn open(dir: &Path, name: &str, base: Arc<dyn Backend>) -> Kv {
    let builder = Store::builder(dir.join(name)).settings(settings()).with_backend(base);
    Kv::new(builder.open_or_create().await.unwrap(), "test").page_entries(PAGE)
}

async fn memory() -> (tempfile::TempDir, Kv) {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path(), "store", Arc::new(MemoryBackend::new())).await;
    (dir, kv)
}

/// Writes a checkpoint after every so many writes, so that reads meet the base.
struct Checkpointed {
    kv: Kv,
    every: usize,
    writes: AtomicUsize,
}

impl Checkpointed {
    async fn count(&self, done: Result<(), KvError>) -> Result<(), KvError> {
        done?;
        if self.writes.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every) {
            self.kv.store().checkpoint().await?;
        }
        Ok(())
    }
}

impl KeyValue for Checkpointed {
    fn get<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, KvValue> {
        self.kv.get(partition, key)
    }

    fn set<'a>(&'a self, partition: &'a [u8], key: &'a [u8], value: Option<&'a [u8]>) -> KvFuture<'a, ()> {
        Box::pin(async move { self.count(self.kv.set(partition, key, value).await).await })
    }

    fn set_if<'a>(
        &'a self,
        partition: &'a [u8],
        key: &'a [u8],
        value: Option<&'a [u8]>,
        predicate: &'a KvPredicate,
    ) -> KvFuture<'a, ()> {
        Box::pin(async move { self.count(self.kv.set_if(partition, key, value, predicate).await).await })
    }

    fn delete<'a>(&'a self, partition: &'a [u8], key: &'a [u8]) -> KvFuture<'a, ()> {
        Box::pin(async move { self.count(self.kv.delete(partition, key).await).await })
    }

    fn scan<'a>(&'a self, partition: &'a [u8], options: KvScan<'a>) -> KvFuture<'a, Box<dyn Entries>> {
        self.kv.scan(partition, options)
    }

    fn close(&self) -> KvFuture<'_, ()> {
        self.kv.close()
    }
}

#[tokio::test]
async fn every_base_passes_the_suite() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for ((name, base), (_, other)) in bases(one.path()).into_iter().zip(bases(two.path())) {
        let store = open(one.path(), &format!("store-{name}"), base).await;
        let other = open(two.path(), &format!("store-{name}"), other).await;
        conformance::run_all(&store, &other).await;
    }
}

#[tokio::test]
async fn every_base_passes_the_suite_with_checkpoints_between() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for ((name, base), (_, other)) in bases(one.path()).into_iter().zip(bases(two.path())) {
        let kv = open(one.path(), &format!("store-{name}"), base).await;
        let store = Checkpointed { kv, every: 31, writes: AtomicUsize::new(0) };
        let kv = open(two.path(), &format!("store-{name}"), other).await;
        let other = Checkpointed { kv, every: 1, writes: AtomicUsize::new(0) };
        conformance::run_all(&store, &other).await;
        assert!(store.kv.store().stats().await.unwrap().checkpoint > Position::ZERO, "{name}");
    }
}

#[test]
fn the_suite_runs_all_its_functions() {
    let calls = include_str!("conformance/run.rs");
    let mut found = 0;
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/kv/conformance")).unwrap() {
        let path = file.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        if path.ends_with("run.rs") {
            continue;
        }
        for rest in source.split("\npub async fn ").skip(1) {
            let name = rest.split('(').next().unwrap();
            assert!(calls.contains(&format!("    {name}(")), "{name} is not run");
            found += 1;
        }
    }
    assert!(found > 50, "{found} functions found");
}

#[tokio::test]
async fn a_scan_sees_one_position() {
    let (_dir, kv) = memory().await;
    for number in 0..100u8 {
        kv.set(b"p", &[number], Some(b"old")).await.unwrap();
    }
    let mut entries = kv.scan(b"p", KvScan::default()).await.unwrap();
    for number in 0..=200u8 {
        match number % 3 {
            0 => kv.delete(b"p", &[number]).await.unwrap(),
            _ => kv.set(b"p", &[number], Some(b"new")).await.unwrap(),
        }
        if number % 50 == 0 {
            kv.store().checkpoint().await.unwrap();
        }
    }
    // Twice: a seek stays at the position.
    for _ in 0..2 {
        for number in 0..100u8 {
            let entry = entries.next().await.unwrap().unwrap();
            assert_eq!((&entry.key()[..], &entry.value[..]), (&[number][..], &b"old"[..]));
        }
        assert!(entries.next().await.is_none());
        entries.seek_ge(b"").unwrap();
    }
}

#[tokio::test]
async fn a_token_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let base = MemoryBackend::new();
    let kv = open(dir.path(), "store", Arc::new(base.clone())).await;
    kv.set(b"p", b"k", Some(b"v")).await.unwrap();
    let found = kv.get(b"p", b"k").await.unwrap();
    kv.close().await.unwrap();
    drop(kv);
    let kv = open(dir.path(), "store", Arc::new(base)).await;
    assert_eq!(kv.get(b"p", b"k").await.unwrap(), found);
    kv.set_if(b"p", b"k", Some(b"w"), &found.predicate).await.unwrap();
}

#[tokio::test]
async fn of_concurrent_set_ifs_with_one_token_one_wins() {
    let (_dir, kv) = memory().await;
    for round in 0..20u8 {
        kv.set(b"p", b"k", Some(&[round])).await.unwrap();
        let token = kv.get(b"p", b"k").await.unwrap().predicate;
        let tasks: Vec<_> = (0..8u8)
            .map(|number| {
                let (kv, token) = (kv.clone(), token.clone());
                tokio::spawn(async move { kv.set_if(b"p", b"k", Some(&[round, number]), &token).await })
            })
            .collect();
        let mut won = Vec::new();
        for (number, task) in (0u8..).zip(tasks) {
            match task.await.unwrap() {
                Ok(()) => won.push(number),
                Err(error) => assert!(matches!(error, KvError::PredicateFailed { .. }), "{error:?}"),
            }
        }
        assert_eq!(won.len(), 1);
        assert_eq!(kv.get(b"p", b"k").await.unwrap().value[..], [round, won[0]]);
    }
}

#[tokio::test]
async fn what_the_store_refuses_is_refused_with_its_kind() {
    let (_dir, kv) = memory().await;
    let long = vec![b'x'; 2601];
    for result in [
        kv.set(&long[..513], b"k", Some(b"v")).await,
        kv.set(b"p", &long, Some(b"v")).await,
        kv.set(b"p", b"k", Some(&vec![0; (16 << 20) + 1])).await,
        kv.set(b"\0own", b"k", Some(b"v")).await,
        kv.set_if(b"\0own", b"k", Some(b"v"), &KvPredicate::Absent).await,
        kv.delete(b"\0own", b"k").await,
        kv.get(b"p", &long).await.map(|_| ()),
        kv.scan(&long[..513], KvScan::default()).await.map(|_| ()),
        Kv::new(kv.store().clone(), "").set(b"p", b"k", Some(b"v")).await,
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, KvError::Store(_)), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    // A start above every possible key is no error.
    assert!(kv.scan(b"p", KvScan::from(&long)).await.unwrap().next().await.is_none());
    assert_eq!(kv.store().head(), Position::ZERO);
}

#[test]
fn errors_keep_their_kind_and_their_cause() {
    let full = || Error::new(ErrorKind::Unavailable, "the queue is full");
    let error = KvError::from(full());
    assert!(matches!(error, KvError::SlowDown { .. }));
    assert_eq!(Error::from(error).report(), "the store asks to slow down: the queue is full");
    for kind in [ErrorKind::Closed, ErrorKind::Unknown, ErrorKind::Corrupt] {
        let error = KvError::from(Error::new(kind, "broken").with_source("disk"));
        assert_eq!((error.kind(), error.to_string()), (kind, "broken".to_owned()));
        // One that an iterator still holds, and the only one.
        assert_eq!(Error::from(error.clone()).report(), "broken: disk");
        assert_eq!(Error::from(error).report(), "broken: disk");
    }
    for (error, kind) in [
        (KvError::MissingPartition, ErrorKind::Invalid),
        (KvError::not_found(b"p", b"\xff"), ErrorKind::NotFound),
        (KvError::predicate_failed(b"p", b"k"), ErrorKind::Conflict),
        (KvError::ClosedEntries, ErrorKind::Closed),
    ] {
        assert_eq!(Error::from(error).kind(), kind);
    }
    assert_eq!(KvError::not_found(b"p", b"\xff").to_string(), "not found, partition=`p` key=`\\xff`");
}

#[test]
fn paths_are_joined_as_lakefs_joins_them() {
    assert_eq!(format_path(&["repos", "r1", "", "a/b"]), "repos/r1//a/b");
    assert_eq!(format_path::<&str>(&[]), "");
}

#[test]
fn secondary_index_has_the_bytes_of_lakefs() {
    use prost::Message;
    let index = SecondaryIndex { primary_key: b"name/a".to_vec() };
    assert_eq!(index.encode_to_vec(), b"\x0a\x06name/a");
    assert_eq!(SecondaryIndex::decode(&b"\x0a\x06name/a"[..]).unwrap(), index);
}

#[tokio::test]
async fn a_partition_iterator_goes_on_after_an_undecodable_value_only_by_a_seek() {
    let (_dir, kv) = memory().await;
    kv.set(b"p", b"a", Some(b"\xff")).await.unwrap();
    set_message(&kv, b"p", b"b", &SecondaryIndex::default()).await.unwrap();
    let mut entries = PartitionIterator::<SecondaryIndex>::new(&kv, b"p", 0);
    for _ in 0..3 {
        assert!(matches!(entries.next().await, Err(KvError::Decode { .. })));
    }
    entries.seek_ge(b"b").await.unwrap();
    assert_eq!(entries.next().await.unwrap().unwrap().key[..], *b"b");
    assert!(entries.next().await.unwrap().is_none());
}
