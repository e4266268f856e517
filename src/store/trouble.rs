//! Faults of disk, clock and base that the whole store meets, one by one: what the callers are told, and what is there afterwards.

#[cfg(feature = "sled")]
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::simulation::{Caller, Stepped};
use super::*;
use crate::backends::MemoryBackend;
use crate::env::Fs as _;
use crate::env::sim::{Effect, Fault, Keep, Operation, SimWorld};
use crate::types::{At, Digest, ErrorKind, Key, Position, Result, Timestamp};

const LOG: &str = "/store/log";

struct World {
    world: SimWorld,
    base: MemoryBackend,
    settings: Settings,
}

impl World {
    fn new(seed: u64) -> World {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        World { world: SimWorld::new(seed), base: MemoryBackend::new(), settings }
    }

    fn open(&self) -> Result<Stepped> {
        Stepped::open(&self.world, &self.base, &self.settings)
    }

    async fn threaded(&self) -> Store {
        let builder = Store::builder("/store").settings(self.settings.clone()).with_env(self.world.env());
        builder.with_backend(Arc::new(self.base.clone())).open_or_create().await.unwrap()
    }
}

fn me() -> Context {
    Context::new("test")
}

fn set(stepped: &mut Stepped, key: u64, bytes: usize) -> Position {
    let value = [&key.to_be_bytes()[..], &vec![7; bytes]].concat();
    stepped.write("test", Batch::new().set(b"p", &key.to_be_bytes(), &value)).unwrap().position
}

/// What a digest of everything at a position is.
fn digest(stepped: &mut Stepped, at: Position) -> Digest {
    let store = stepped.store.clone();
    stepped.one(async move {
        let mut entries = store.at(at).await.unwrap().scan_all(true);
        let mut bytes = Vec::new();
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            for part in [&entry.encoded_key[..], &entry.version.0.to_le_bytes(), &entry.value[..]] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Digest::of_bytes(&bytes)
    })
}

/// A group of writers waits for one sync, and it fails: none is told "done", and what is there afterwards is there as a whole.
#[test]
fn fault_11_a_group_of_writers_whose_sync_fails_is_told_so() {
    for (seed, keep) in [Keep::Nothing, Keep::Everything, Keep::Random, Keep::Random].into_iter().enumerate() {
        let world = World::new(seed as u64);
        let mut stepped = world.open().unwrap();
        set(&mut stepped, 1000, 10);
        world.world.fs.inject(Fault::on(Operation::Sync).path("1.seg"));
        let callers = (0..40u64).map(|number| {
            let (store, key) = (stepped.store.clone(), number.to_be_bytes());
            let batch = Batch::new().set(b"p", &key, &[1; 400]).set(b"q", &key, &[1; 400]);
            Box::pin(async move { store.write(me(), batch).await }) as Caller<'_, Result<Committed<()>>>
        });
        let callers = callers.collect();
        for done in stepped.drive(callers) {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Unknown);
        }
        assert_eq!((stepped.store.head(), stepped.store.synced()), (Position(1), Position(1)));
        let late = stepped.write("late", Batch::new().set(b"p", b"late", b"")).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Closed);
        assert_eq!(stepped.checkpoint().unwrap_err().kind(), ErrorKind::Closed, "nothing of it reaches the base");
        drop(stepped);
        world.world.fs.kill();
        world.world.fs.crash(keep);
        let stepped = world.open().unwrap();
        let entries = stepped.entries();
        let of = |partition: u8| entries.keys().filter(|key| key[0] == partition).count();
        assert_eq!(of(b'p'), of(b'q') + 1, "a transaction is there in part");
        assert_eq!(of(b'q') as u64 + 1, stepped.store.head().0);
    }
}

/// The disk fills up under writers: they are told, and nothing of theirs is there. With room again the same store goes on.
#[test]
fn fault_12_a_full_disk_and_room_again() {
    for room in [0, 10_000, 200_000] {
        let world = World::new(room);
        let mut stepped = world.open().unwrap();
        let key = |number: u64| Key::encode(b"p", &number.to_be_bytes());
        set(&mut stepped, 0, 100);
        let mut expected = BTreeSet::from([key(0)]);
        world.world.fs.set_capacity(world.world.fs.used() + room);
        let mut told = 0;
        for number in 1..200u64 {
            match stepped.write("test", Batch::new().set(b"p", &number.to_be_bytes(), &[7; 3000])) {
                Ok(_) => assert!(expected.insert(key(number))),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    told += 1;
                }
            }
        }
        assert!(told > 0 && expected.len() > 1, "{told}");
        let there = |stepped: &Stepped| stepped.entries().into_keys().collect::<BTreeSet<_>>();
        assert_eq!(there(&stepped), expected);
        assert_eq!(stepped.checkpoint().unwrap(), stepped.store.head());
        world.world.fs.set_capacity(1 << 30);
        set(&mut stepped, 1000, 3000);
        expected.insert(key(1000));
        assert_eq!(there(&stepped), expected);
        drop(stepped);
        world.world.fs.kill();
        world.world.fs.crash(Keep::Nothing);
        assert_eq!(there(&world.open().unwrap()), expected);
    }
}

/// Each file of a store with snapshots and an archive, at its beginning and in its middle: never "nothing there", never damage,
/// never anything else than what was written.
#[test]
fn fault_13_an_unreadable_sector_of_any_file() {
    let mut world = World::new(1);
    world.settings.archive = Some("/archive".into());
    let mut stepped = world.open().unwrap();
    for round in 0..3 {
        for key in 0..15 {
            set(&mut stepped, key, 9_000);
        }
        let (store, before) = (stepped.store.clone(), Position(round * 15 + 8));
        let options = TrimOptions { archive: world.settings.archive.clone(), ..TrimOptions::before(before) };
        stepped.one(async move { store.trim(me(), options).await }).unwrap();
    }
    let (head, floor) = (stepped.store.head(), stepped.store.shared().log.floor());
    let (now, then) = (digest(&mut stepped, head), digest(&mut stepped, floor));
    drop(stepped);
    world.world.fs.kill();
    let (mut refused, mut opened) = (0, 0);
    for dir in ["/store", LOG, "/archive"] {
        for name in world.world.fs.read_dir(Path::new(dir)).unwrap() {
            let path = Path::new(dir).join(name);
            let Some(content) = world.world.fs.content(&path) else { continue };
            for at in [0, content.len() as u64 / 2] {
                let broken = World { world: world.world.fork(at), base: MemoryBackend::new(), ..World::new(0) };
                broken.world.fs.fail_reads(&path, at..at + 512);
                match broken.open() {
                    Ok(mut stepped) => {
                        assert_eq!(
                            (digest(&mut stepped, head), digest(&mut stepped, floor)),
                            (now, then),
                            "{path:?} {at}"
                        );
                        opened += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{path:?} {at}: {error}");
                        refused += 1;
                    }
                }
                broken.world.fs.kill();
                broken.world.fs.heal();
                let mut stepped = broken.open().unwrap();
                assert_eq!((digest(&mut stepped, head), digest(&mut stepped, floor)), (now, then), "{path:?} {at}");
            }
        }
    }
    assert!(refused > 4 && opened > 4, "refused {refused}, opened {opened}");
}

/// The disk does not come back from a sync: readers go on, so many writers wait, and the others are told that it is full. Then it
/// comes back, and those who waited are told the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_14_a_sync_that_stalls_holds_up_a_bounded_number_of_writers_and_no_reader() {
    let mut world = World::new(2);
    world.settings.queue_transactions_max = 8;
    world.settings.write_wait_ms = 20;
    let store = world.threaded().await;
    store.write(me(), Batch::new().set(b"p", b"k", b"v")).await.unwrap();
    let stall = world.world.fs.stall(Operation::Sync, ".seg");
    let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let writers = 60;
    for number in 0..writers as u64 {
        let (store, told) = (store.clone(), told.clone());
        tokio::spawn(
            async move { told.send(store.write(me(), Batch::new().set(b"p", &number.to_be_bytes(), b"w")).await) },
        );
    }
    while stall.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    // One batch stands before the disk and one queue behind it; both are bounded by the queue.
    let waiting = 2 * world.settings.queue_transactions_max;
    for _ in 0..writers - waiting {
        let refused = answers.recv().await.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    }
    assert_eq!(&store.get(b"p", b"k").await.unwrap().unwrap().value[..], b"v");
    let mut entries = store.scan(ScanOptions::new(b"p")).unwrap();
    assert_eq!(&entries.next().await.unwrap().unwrap().key()[..], b"k");
    assert!(entries.next().await.is_none(), "what is not durable is not seen");
    assert_eq!(store.head(), Position(1));
    drop(stall);
    drop(told);
    let (mut committed, mut refused) = (0, 0);
    while let Some(answer) = answers.recv().await {
        match answer {
            Ok(_) => committed += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(committed + refused, waiting);
    assert!(committed > 0);
    assert_eq!(store.head().0, 1 + committed as u64);
    store.close().await.unwrap();
}

/// No file can be opened, as when a process has too many: what needs one says so, what does not goes on, and nothing is lost.
#[test]
fn fault_15_too_many_open_files() {
    let world = World::new(4);
    let mut stepped = world.open().unwrap();
    for key in 0..5 {
        set(&mut stepped, key, 9_000);
    }
    world.world.fs.inject(Fault::on(Operation::Open).times(u64::MAX));
    let (mut written, mut refused) = (5, 0);
    for key in 5..30u64 {
        let batch = Batch::new().set(b"p", &key.to_be_bytes(), &[7; 9_000]);
        match stepped.write("test", batch) {
            Ok(_) => written += 1,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Closed),
                    "{error:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(written > 5 && refused > 0, "written {written}, refused {refused}");
    assert_eq!(stepped.entries().len(), written);
    drop(stepped);
    world.world.fs.kill();
    world.world.fs.inject(Fault::on(Operation::Open).times(u64::MAX));
    assert_eq!(world.open().err().unwrap().kind(), ErrorKind::Unavailable);
    world.world.fs.heal();
    assert!(world.open().unwrap().entries().len() >= written);
}

/// Every file of the embedded base flipped, zeroed, cut and removed, under a whole store: it never says anything wrong, and the
/// open after the one that met it has made the base anew.
#[cfg(feature = "sled")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_23_every_damaged_file_of_the_base_is_made_anew() {
    let tempdir = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
    let open = async |dir: &Path| Store::builder(dir).settings(settings.clone()).open_or_create().await;
    let original = tempdir.path().join("store");
    let store = open(&original).await.unwrap();
    for round in 0..3u8 {
        for key in 0..40u8 {
            let value = Digest::of_bytes(&[round, key]).0.repeat(8);
            store.write(me(), Batch::new().set(b"p", &[key], &value)).await.unwrap();
        }
        store.checkpoint().await.unwrap();
    }
    let expected = read_all(&store).await.unwrap();
    assert_eq!(expected.len(), 40);
    store.close().await.unwrap();
    let files = files_below(&original.join("base"));
    let has = |part: &str| files.iter().any(|path| path.to_string_lossy().contains(part));
    assert!(has("/db") && has("/conf") && has("snap.") && has("CURRENT"), "{files:?}");
    let (mut noticed, mut dropped) = (0, 0);
    for (number, file) in files.iter().enumerate() {
        for damage in 0..4 {
            let copy = tempdir.path().join(format!("copy-{number}-{damage}"));
            super::tests::copy_dir(&original, &copy);
            let path = copy.join(file.strip_prefix(&original).unwrap());
            let mut bytes = std::fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            match damage {
                0 => bytes.iter_mut().skip(used / 2).take(1).for_each(|byte| *byte ^= 0x10),
                1 => bytes.iter_mut().take(used).for_each(|byte| *byte = 0),
                2 => bytes.truncate(used / 2),
                _ => {}
            }
            match damage {
                3 => std::fs::remove_file(&path).unwrap(),
                _ => std::fs::write(&path, bytes).unwrap(),
            }
            let store = open(&copy).await.unwrap();
            dropped += usize::from(store.shared().view.layers().base_position() == Position::ZERO);
            match read_all(&store).await {
                Ok(found) => assert!(found == expected, "{path:?} {damage}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{path:?} {damage}: {error}");
                    noticed += 1;
                }
            }
            let _ = store.close().await;
            drop(store);
            let store = open(&copy).await.unwrap();
            assert!(read_all(&store).await.unwrap() == expected, "{path:?} {damage}: after another open");
            store.close().await.unwrap();
            std::fs::remove_dir_all(&copy).unwrap();
        }
    }
    assert!(noticed + dropped > files.len(), "met by a read {noticed}, at the open {dropped}, of {}", 4 * files.len());
}

#[cfg(feature = "sled")]
async fn read_all(store: &Store) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut entries = store.reader().scan_all(true);
    let mut found = BTreeMap::new();
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        found.insert(entry.encoded_key.to_vec(), entry.value.to_vec());
    }
    Ok(found)
}

#[cfg(feature = "sled")]
fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// The clock goes back, stands still and jumps ahead: positions alone order, recorded time never goes back, and a later time never
/// names an earlier state.
#[test]
fn fault_33_a_clock_that_jumps() {
    let world = World::new(5);
    let mut stepped = world.open().unwrap();
    let clock = [1_000, 400, 400, 0, -5, 2_000, 1_999, 2_000, 1_000_000, 3, 1_000_001];
    for (key, now) in clock.into_iter().enumerate() {
        world.world.clock.set(Timestamp(now));
        assert_eq!(set(&mut stepped, key as u64, 10), Position(key as u64 + 1));
    }
    for reopened in [false, true] {
        if reopened {
            drop(stepped);
            world.world.fs.kill();
            world.world.clock.set(Timestamp(-1_000_000));
            stepped = world.open().unwrap();
        }
        let frames = stepped.store.shared().log.read(Position(1)).unwrap();
        let times: Vec<i64> = frames.map(|frame| frame.unwrap().time.0).collect();
        assert!(times.is_sorted() && times.len() == clock.len(), "{times:?}");
        let mut last = Position::ZERO;
        for time in [-10, 0, 399, 400, 999, 1_000, 1_500, 1_999, 2_000, 2_001, 999_999, 1_000_000, 1_000_001, i64::MAX]
        {
            let store = stepped.store.clone();
            let at = stepped.one(async move { store.resolve(&At::Time(Timestamp(time))).await }).unwrap();
            let expected = times.iter().filter(|recorded| **recorded <= time).count() as u64;
            assert!(at >= last && at == Position(expected), "{time}: {at}");
            last = at;
        }
    }
    assert!(set(&mut stepped, 99, 10) > Position(clock.len() as u64));
}

/// The same log, replayed with other batches, other checkpoints, onto other bases and by several threads at once, gives the same
/// views at every position.
#[test]
fn fault_34_replays_give_the_same_views_whatever_their_batches_and_threads() {
    let world = World::new(6);
    let mut stepped = world.open().unwrap();
    let mut random = StdRng::seed_from_u64(6);
    for _ in 0..150 {
        let key = |random: &mut StdRng| format!("users/{}", random.random_range(0..12)).into_bytes();
        let mut batch = Batch::new();
        if random.random_range(0..9) == 0 {
            batch = batch.delete_range([&b"p"[..], b"auth"][random.random_range(0..2)], b"users/1");
        }
        let address = [0x22, 3, b'0' + random.random_range(0..5u8), b'@', b'x'];
        batch = batch.set(b"auth", &key(&mut random), &address);
        batch = match random.random_range(0..4) {
            0 => batch.delete(b"p", &key(&mut random)),
            _ => batch.set(b"p", &key(&mut random), &vec![9; random.random_range(0..900)]),
        };
        stepped.write("test", batch).unwrap();
    }
    let store = stepped.store.clone();
    stepped.one(async move { store.rewind(me(), &[(b"p", b"")], Position(60)).await }).unwrap();
    let positions: Vec<Position> =
        (0..=stepped.store.head().0).step_by(10).map(Position).chain([stepped.store.head()]).collect();
    let expected: Vec<Digest> = positions.iter().map(|at| digest(&mut stepped, *at)).collect();
    drop(stepped);
    world.world.fs.kill();
    std::thread::scope(|threads| {
        for memtable in [1 << 10, 4 << 10, 64 << 10, 8 << 20] {
            let (fork, positions, expected) = (world.world.fork(memtable), &positions, &expected);
            threads.spawn(move || {
                let world = World { world: fork, ..World::new(0) };
                let settings = Settings { memtable_soft_bytes: memtable as usize, ..world.settings.clone() };
                let world = World { settings, ..world };
                for _ in 0..2 {
                    let mut stepped = world.open().unwrap();
                    let found: Vec<Digest> = positions.iter().map(|at| digest(&mut stepped, *at)).collect();
                    assert_eq!(found, *expected, "with {memtable} bytes in memory");
                    stepped.checkpoint().unwrap();
                    drop(stepped);
                    world.world.fs.kill();
                }
            });
        }
    });
}

/// Half of the writes are short, then one writes nothing at all: the first go on, the second is a failure.
#[test]
fn fault_12_a_write_of_nothing_fails_and_a_short_one_goes_on() {
    let world = World::new(7);
    let mut stepped = world.open().unwrap();
    world.world.fs.inject(Fault::on(Operation::Write).times(6).effect(Effect::Short));
    assert_eq!(set(&mut stepped, 1, 3_000), Position(1));
    world.world.fs.inject(Fault::on(Operation::Write).path(".seg").effect(Effect::Nothing));
    let error = stepped.write("test", Batch::new().set(b"p", b"k", b"v")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error:?}");
    drop(stepped);
    world.world.fs.kill();
    assert_eq!(world.open().unwrap().store.head(), Position(1));
}
