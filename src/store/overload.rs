//! More than the store can take: thousands of writers, large values, a disk that is slow or stands still, a base that takes nothing.
//!
//! Waits are counted in transactions that pass by, not in time. What a caller is told is typed, memory stays within its bound, and
//! reads go on.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::task::JoinSet;

use super::engine::Shared;
use super::gate::Gate;
use super::{Batch, Context, Settings, Store, TrimOptions, Tx};
use crate::backends::MemoryBackend;
use crate::env::sim::SimWorld;
use crate::env::{Env, File, Fs, Lock, OpenMode, Space};
use crate::types::{ErrorKind, Position, Result};

/// A disk that does something before each sync: it is slow, or waits, or looks around.
struct SlowFs {
    disk: Arc<dyn Fs>,
    before_sync: Arc<dyn Fn() + Send + Sync>,
}

struct SlowFile {
    file: Box<dyn File>,
    before_sync: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for SlowFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlowFs")
    }
}

impl std::fmt::Debug for SlowFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlowFile")
    }
}

impl Fs for SlowFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.read_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let file = self.disk.open(path, mode)?;
        Ok(Box::new(SlowFile { file, before_sync: self.before_sync.clone() }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn lock(&self, path: &Path, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path, content)
    }
}

impl File for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.before_sync)();
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// A store over a gate, on a disk that does something before each sync.
async fn open(settings: Settings, before_sync: impl Fn() + Send + Sync + 'static) -> (Store, Arc<Gate>) {
    let world = SimWorld::new(11);
    let fs = SlowFs { disk: Arc::new(world.fs.clone()), before_sync: Arc::new(before_sync) };
    let (env, gate) = (Env { fs: Arc::new(fs), ..world.env() }, Arc::new(Gate::new(MemoryBackend::new())));
    let builder = Store::builder("/store").settings(settings).with_env(env).with_backend(gate.clone());
    (builder.create().await.unwrap(), gate)
}

fn settings() -> Settings {
    Settings { segment_bytes: 1 << 20, min_free_bytes: Some(0), scrub_bytes_per_second: 0, ..Settings::default() }
}

async fn set(store: &Store, key: &str, value: &[u8]) -> Result<u64> {
    Ok(store.write(Context::new("writer"), Batch::new().set(b"p", key.as_bytes(), value)).await?.position.0)
}

/// How many were committed between a call and its answer; sorted.
fn sorted(passed: Vec<u64>) -> Vec<u64> {
    let mut passed = passed;
    passed.sort_unstable();
    passed
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_writers_wait_for_each_other_and_no_longer() {
    const WRITERS: u64 = 3000;
    const WRITES: u64 = 4;
    let settings = Settings { queue_transactions_max: 256, ..settings() };
    let (store, _) = open(settings, || std::thread::sleep(Duration::from_micros(500))).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut passed = Vec::new();
            for _ in 0..WRITES {
                let before = store.head().0;
                passed.push(set(&store, &writer.to_string(), b"value").await.unwrap() - before);
            }
            passed
        });
    }
    let passed = sorted(writers.join_all().await.concat());
    assert_eq!(passed.len() as u64, WRITERS * WRITES);
    // Each has one write under way: in turn, everybody is passed by everybody else once, and by what was under way already.
    assert!(*passed.last().unwrap() <= 2 * WRITERS, "{passed:?}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_starves_nobody() {
    const CLIENTS: u64 = 48;
    const ROUNDS: u64 = 25;
    let (store, _) = open(settings(), || {}).await;
    let count = |tx: Tx| async move {
        let found = tx.get(b"p", b"hot").await?;
        let count = found.map_or(0, |entry| u64::from_le_bytes(entry.value[..8].try_into().unwrap())) + 1;
        tx.set(b"p", b"hot", &count.to_le_bytes())?;
        Ok(count)
    };
    let committed = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (store, committed) = (store.clone(), committed.clone());
        clients.spawn(async move {
            let mut passed = Vec::new();
            for _ in 0..ROUNDS {
                let before = committed.load(Ordering::SeqCst);
                let answer = store.transact(Context::new("client"), count).await.unwrap().answer;
                committed.fetch_max(answer, Ordering::SeqCst);
                passed.push(answer - before);
            }
            passed
        });
    }
    let passed = sorted(clients.join_all().await.concat());
    assert_eq!(passed.len() as u64, CLIENTS * ROUNDS);
    assert_eq!(committed.load(Ordering::SeqCst), CLIENTS * ROUNDS);
    // A few lost attempts, then a turn in the lane behind everybody who waits for it.
    assert!(*passed.last().unwrap() <= 6 * CLIENTS, "{passed:?}");
    store.close().await.unwrap();
}

// On one thread, so that all who wait for memory are woken before the first of them has used it.
#[tokio::test]
async fn memory_stays_within_its_bound_when_the_base_takes_one_checkpoint_and_no_more() {
    const VALUE: usize = 1 << 20;
    const WRITERS: usize = 150;
    let settings = Settings {
        memtable_soft_bytes: 1 << 20,
        memtable_hard_bytes: 4 << 20,
        queue_bytes_max: 64 << 20,
        write_wait_ms: 5000,
        ..settings()
    };
    let bound = settings.memtable_hard_bytes + settings.queue_bytes_max;
    let most = Arc::new(AtomicUsize::new(0));
    let shared: Arc<OnceLock<Weak<Shared>>> = Arc::default();
    let (seen, looked_at) = (most.clone(), shared.clone());
    // Before the sync of a batch all of it is in memory.
    let look = move || {
        if let Some(shared) = looked_at.get().and_then(Weak::upgrade) {
            seen.fetch_max(shared.view.layers().bytes(), Ordering::Relaxed);
        }
    };
    let (store, gate) = open(settings, look).await;
    shared.set(Arc::downgrade(store.shared())).unwrap();
    gate.writes_left.store(0, Ordering::Relaxed);
    for number in 0..4 {
        set(&store, &format!("first{number}"), &[1; VALUE]).await.unwrap();
    }
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move { set(&store, &number.to_string(), &[2; VALUE]).await });
    }
    // Until they have come as far as they can; if they do not, the bound will say so.
    for _ in 0..400 {
        if store.shared().queue.free_bytes() < 2 * VALUE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.get(b"p", b"first0").await.unwrap().unwrap().value.len(), VALUE, "reads go on");
    // Nobody else comes to remind the store that a checkpoint is due.
    gate.writes_left.store(1, Ordering::Relaxed);
    let mut done = 0;
    for written in writers.join_all().await {
        match written {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
                assert!(error.to_string().contains("nothing was changed"), "{error}");
            }
        }
    }
    assert!(done > 0 && done < WRITERS, "{done}");
    let most = most.load(Ordering::Relaxed);
    assert!(most <= bound, "{most} bytes, bound {bound}");
    // The base takes what it is given again: everything goes on, and is as it was told.
    gate.writes_left.store(usize::MAX, Ordering::Relaxed);
    store.checkpoint().await.unwrap();
    set(&store, "last", &[3; VALUE]).await.unwrap();
    assert_eq!(store.head().0 as usize, 4 + done + 1);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stands_still_bounds_the_queue_and_stops_no_reader() {
    const WRITERS: usize = 2000;
    let stall = Arc::new((Mutex::new(false), Condvar::new()));
    let waits = stall.clone();
    let before_sync = move || {
        let mut stalled = waits.0.lock();
        waits.1.wait_while(&mut stalled, |stalled| *stalled);
    };
    let settings = Settings { queue_transactions_max: 32, write_wait_ms: 300, ..settings() };
    let (store, _) = open(settings, before_sync).await;
    set(&store, "before", b"value").await.unwrap();
    *stall.0.lock() = true;
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move { set(&store, &number.to_string(), b"value").await });
    }
    let mut refused = 0;
    // Those who found no place are told so while the disk stands still; the others wait for it.
    while writers.len() > 3 * 32 {
        let error = writers.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        refused += 1;
    }
    assert_eq!(store.head().0, 1);
    assert_eq!(&store.get(b"p", b"before").await.unwrap().unwrap().value[..], b"value");
    *stall.0.lock() = false;
    stall.1.notify_all();
    let mut written = 0;
    for done in writers.join_all().await {
        match done {
            Ok(_) => written += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
                refused += 1;
            }
        }
    }
    assert!(written >= 32 && written + refused == WRITERS, "written {written}, refused {refused}");
    assert_eq!(store.head().0 as usize, 1 + written, "who was refused is nowhere");
    store.close().await.unwrap();
}

/// A merge of a long history takes longer than writers take to fill the memory again.
#[tokio::test]
async fn a_long_maintenance_of_the_base_keeps_no_checkpoint_from_freeing_memory() {
    let settings =
        Settings { memtable_soft_bytes: 64 << 10, memtable_hard_bytes: 256 << 10, write_wait_ms: 2000, ..settings() };
    let (store, gate) = open(settings, || {}).await;
    gate.always_more.store(true, Ordering::Relaxed);
    for number in 0..64 {
        set(&store, &number.to_string(), &[1; 16 << 10]).await.unwrap();
    }
    let pieces = gate.pieces.load(Ordering::Relaxed);
    assert!(pieces > 0, "and maintenance has its turn");
    // It is at work, and ends with the piece that it is at.
    store.close().await.unwrap();
}

/// What is due is done once there is nothing else to do, also when nobody writes any more.
#[tokio::test]
async fn a_checkpoint_that_waited_for_maintenance_is_made_when_that_ends() {
    let settings = Settings { memtable_soft_bytes: 64 << 10, ..settings() };
    let (store, gate) = open(settings, || {}).await;
    gate.always_more.store(true, Ordering::Relaxed);
    // The first is written at once, the second waits.
    for number in 0..16 {
        set(&store, &number.to_string(), &[1; 16 << 10]).await.unwrap();
    }
    gate.always_more.store(false, Ordering::Relaxed);
    for _ in 0..400 {
        if store.shared().view.layers().bytes() < 64 << 10 {
            return store.close().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} bytes wait", store.shared().view.layers().bytes());
}

/// A trim waits for so many pieces of maintenance and no more; the others are done without anybody asking for them.
#[tokio::test]
async fn what_a_trim_does_not_wait_for_is_maintained_all_the_same() {
    let (store, gate) = open(settings(), || {}).await;
    for number in 0..4 {
        set(&store, &number.to_string(), &[1; 16]).await.unwrap();
    }
    gate.always_more.store(true, Ordering::Relaxed);
    store.trim(Context::new("test"), TrimOptions::before(Position(3))).await.unwrap();
    let waited_for = gate.pieces.load(Ordering::Relaxed);
    for _ in 0..400 {
        if gate.pieces.load(Ordering::Relaxed) > waited_for + 100 {
            gate.always_more.store(false, Ordering::Relaxed);
            return store.close().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{waited_for} pieces, and then {}", gate.pieces.load(Ordering::Relaxed) - waited_for);
}
