//! Trims: what can be read afterwards reads the same, whatever fell between two steps.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::sandbox::{LOG, Sandbox};
use super::*;
use crate::backends::{Backend as _, MemoryBackend};
use crate::env::Fs as _;
use crate::env::sim::{Effect, Fault, Keep, Operation};
use crate::log::{Check, LogFiles};
use crate::types::{At, Entry, ErrorKind, Position, Result};

const DAY: i64 = 86_400_000_000;

/// Everything that can be read at a position: encoded key, version, value.
type State = Vec<(Vec<u8>, Position, Vec<u8>)>;

fn me() -> Context {
    Context::new("test")
}

fn before(position: u64) -> TrimOptions {
    TrimOptions::before(Position(position))
}

/// So many transactions that change 8 keys over and over, some bytes each, nothing in them that could be compressed.
async fn write(store: &Store, count: u64) {
    for _ in 0..count {
        let head = store.head().0;
        let mut value = Vec::new();
        while value.len() < 10_000 {
            value.extend_from_slice(
                &crate::types::Digest::of_bytes(&[head, value.len() as u64].map(u64::to_le_bytes).concat()).0,
            );
        }
        store.write(me(), Batch::new().set(b"p", &[b'a' + (head % 8) as u8], &value)).await.unwrap();
    }
}

async fn state(store: &Store, at: Position) -> Result<State> {
    let mut entries = store.at(at).await?.scan_all(true);
    let mut state = State::new();
    while let Some(entry) = entries.next().await {
        let Entry { encoded_key, version, value } = entry?;
        state.push((encoded_key.to_vec(), version, value.to_vec()));
    }
    Ok(state)
}

/// Every state that can be read.
async fn states(store: &Store) -> BTreeMap<Position, State> {
    let mut states = BTreeMap::new();
    for at in store.shared().log.floor().0..=store.head().0 {
        states.insert(Position(at), state(store, Position(at)).await.unwrap());
    }
    states
}

/// Every state from the floor on is what it was, and below it there is none.
async fn check(store: &Store, expected: &BTreeMap<Position, State>) {
    let floor = store.shared().log.floor();
    for (at, expected) in expected {
        match state(store, *at).await {
            Ok(found) => assert!(*at >= floor && found == *expected, "{at} floor {floor}"),
            Err(error) => {
                assert!(*at < floor && error.kind() == ErrorKind::NotFound, "{at} floor {floor}: {error}");
                assert!(error.message().contains(&format!("floor=`{floor}`")), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_trim_leaves_every_state_from_the_floor_on_as_it_was_and_gives_back_room() {
    let mut world = Sandbox::new(1);
    let store = world.open().await;
    write(&store, 40).await;
    let before_trim = states(&store).await;
    // The spare segment, which comes by itself sooner or later, counts before and after.
    store.shared().log.upkeep().unwrap();
    let used = world.world.fs.used();
    let trimmed = store.trim(me(), before(31)).await.unwrap();
    assert_eq!(trimmed.floor, Position(30));
    assert!(trimmed.segments >= 4 && trimmed.bytes >= trimmed.segments * (64 << 10), "{trimmed:?}");
    // A snapshot of eight values takes its place, and a spare segment that upkeep may have made meanwhile.
    assert!(world.world.fs.used() < used - trimmed.bytes + (100 << 10) + (64 << 10));
    assert_eq!(world.snapshots(), 1);
    check(&store, &before_trim).await;
    // The base has forgotten, and what was kept for a floor is not kept twice.
    assert_eq!(world.base.stamp().await.unwrap().unwrap().history, Some(Position(30)));
    let mut history = store.reader().history(b"p", b"a").unwrap();
    let first = history.next().await.unwrap().unwrap();
    assert!(first.position <= Position(30) && first.origin.is_none());
    assert!(history.next().await.unwrap().unwrap().origin.is_some());
    // The next one removes what the first has left, one behind.
    write(&store, 20).await;
    let later = states(&store).await;
    store.trim(me(), before(51)).await.unwrap();
    assert_eq!(world.snapshots(), 2, "the former one stays");
    assert!(store.shared().log.removable(Position(30)).unwrap().segments == 0);
    check(&store, &later).await;
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.floor, Position(50));
    store.close().await.unwrap();
    let store = world.open().await;
    check(&store, &later).await;
    store.close().await.unwrap();
    check(&world.open_without_base().await, &later).await;
}

#[tokio::test]
async fn what_cannot_be_trimmed_changes_nothing() {
    let mut world = Sandbox::new(2);
    let store = world.open().await;
    write(&store, 20).await;
    store.mark(me(), "release", Some(Position(7))).await.unwrap();
    store.mark(me(), "other", Some(Position(15))).await.unwrap();
    let (head, files) = (store.head(), world.files());
    let refused = async |store: &Store, context: Context, options: TrimOptions, kind: ErrorKind| {
        let error = store.trim(context, options).await.unwrap_err();
        assert_eq!((error.kind(), store.head(), world.files()), (kind, head, files.clone()), "{error}");
        error
    };
    refused(&store, me(), before(head.0 + 1), ErrorKind::Invalid).await;
    refused(&store, me(), TrimOptions::before(At::Mark("none".to_owned())), ErrorKind::NotFound).await;
    let error = refused(&store, me(), before(12), ErrorKind::Conflict).await;
    assert!(error.message().contains("marks=`release=7`"), "{error}");
    let error = refused(&store, me(), before(18), ErrorKind::Conflict).await;
    assert!(error.message().contains("other=15, release=7"), "{error}");
    let request = RequestId { id: "r".to_owned(), digest: Default::default() };
    refused(&store, me().request(request), before(3), ErrorKind::Invalid).await;
    // Nothing to do is no error, and a dry run does nothing.
    let nothing = store.trim(me(), before(1)).await.unwrap();
    assert_eq!((nothing.floor, nothing.segments, store.head()), (Position::ZERO, 0, head));
    let dry = store.trim(me(), TrimOptions { dry_run: true, ..before(8) }).await.unwrap();
    assert_eq!((dry.floor, store.head(), world.files()), (Position(7), head, files.clone()));
    let done = store.trim(me(), TrimOptions::before(At::Mark("release".to_owned()))).await.unwrap();
    assert_eq!((done.floor, done.segments <= dry.segments), (Position(6), true));
    let below = store.trim(me(), before(5)).await.unwrap_err();
    assert_eq!(below.kind(), ErrorKind::NotFound);
    // A mark may name the floor, and nothing below it.
    assert_eq!(store.mark(me(), "low", Some(Position(5))).await.unwrap_err().kind(), ErrorKind::NotFound);
    store.mark(me(), "low", Some(Position(6))).await.unwrap();
    store.close().await.unwrap();

    world.settings.history = false;
    let store = world.open_without_base().await;
    write(&store, 2).await;
    store.delete_mark(me(), "low").await.unwrap();
    let error = store.trim(me(), before(7)).await;
    assert_eq!(error.unwrap().floor, Position(6), "where it is");
    store.checkpoint().await.unwrap();
    let base = store.stats().await.unwrap().checkpoint.0;
    write(&store, 2).await;
    let error = store.trim(me(), before(base)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "marks are asked first: {error}");
    for mark in ["release", "other"] {
        store.delete_mark(me(), mark).await.unwrap();
    }
    let error = store.trim(me(), before(base)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.message().contains(&format!("base=`{base}`")), "{error}");
    assert_eq!(store.trim(me(), before(base + 1)).await.unwrap().floor, Position(base));
}

#[tokio::test]
async fn the_floor_never_parts_a_restore_from_what_it_restored() {
    let mut world = Sandbox::new(3);
    world.settings.memtable_soft_bytes = 64 << 10;
    let store = world.open().await;
    for n in 0..20u8 {
        store.write(me(), Batch::new().set(b"q", &[n], &[n])).await.unwrap();
    }
    write(&store, 10).await;
    // Twenty keys are more than are restored one by one.
    store.write(me(), Batch::new().delete_range(b"q", b"")).await.unwrap();
    write(&store, 5).await;
    let rewound = store.rewind(me(), &[(b"q", b"")], Position(25)).await.unwrap();
    assert_eq!((rewound.position, rewound.answer.restored), (Position(37), 20));
    write(&store, 10).await;
    let before_trim = states(&store).await;
    store.close().await.unwrap();
    for (asked, floor) in [(30, 25), (37, 25), (38, 37)] {
        let store = world.open().await;
        assert_eq!(store.trim(me(), before(asked)).await.unwrap().floor, Position(floor), "before {asked}");
        check(&store, &before_trim).await;
        store.close().await.unwrap();
        let store = world.open_without_base().await;
        check(&store, &before_trim).await;
        store.close().await.unwrap();
    }
}

/// What a trim removes while the log is being verified is no damage.
#[tokio::test]
async fn a_trim_during_a_verification_damages_nothing() {
    let world = Sandbox::new(14);
    let store = world.open().await;
    write(&store, 30).await;
    store.trim(me(), before(5)).await.unwrap();
    let (env, runtime, trimming) = (world.world.env(), tokio::runtime::Handle::current(), store.clone());
    let found = tokio::task::spawn_blocking(move || {
        let mut trimmed = false;
        crate::log::verify(
            &env,
            Path::new(LOG),
            None,
            &mut |_| {
                if !std::mem::replace(&mut trimmed, true) {
                    runtime.block_on(trimming.trim(me(), before(20))).unwrap();
                    runtime.block_on(trimming.trim(me(), before(28))).unwrap();
                }
            },
            &mut |_, _| {},
        )
    });
    let found = found.await.unwrap().unwrap();
    assert_eq!(found.problems, []);
    assert_eq!(store.shared().log.floor(), Position(27));
}

#[tokio::test]
async fn fault_30_readers_go_on_below_a_floor_that_rose_under_them() {
    let world = Sandbox::new(4);
    let store = world.open().await;
    write(&store, 20).await;
    let old = store.at(Position(9)).await.unwrap();
    let expected = state(&store, Position(9)).await.unwrap();
    let mut half = old.scan_all(true);
    let first = half.next().await.unwrap().unwrap();
    store.trim(me(), before(15)).await.unwrap();
    write(&store, 10).await;
    store.checkpoint().await.unwrap();
    store.trim(me(), before(25)).await.unwrap();
    let mut found = vec![first];
    while let Some(entry) = half.next().await {
        found.push(entry.unwrap());
    }
    let mut again = old.scan_all(true);
    let mut twice = Vec::new();
    while let Some(entry) = again.next().await {
        twice.push(entry.unwrap());
    }
    assert_eq!(found, twice);
    assert_eq!(found.len(), expected.len());
    assert_eq!(store.at(Position(9)).await.unwrap_err().kind(), ErrorKind::NotFound);
    // A history ends with what the reader sees, not with what was at the floor.
    let mut versions = old.history_of(b"p", b"").unwrap();
    let mut newest = BTreeMap::new();
    while let Some(version) = versions.next().await {
        let version = version.unwrap();
        newest.insert(version.encoded_key.to_vec(), (version.position, version.value.map(|value| value.to_vec())));
    }
    let seen = expected.into_iter().filter(|(key, ..)| key.starts_with(b"p"));
    let seen: BTreeMap<_, _> = seen.map(|(key, position, value)| (key, (position, Some(value)))).collect();
    assert_eq!(newest, seen);
}

#[tokio::test]
async fn fault_08_30_a_crash_at_any_step_leaves_the_floor_before_or_after() {
    let prepared = async |seed| {
        let world = Sandbox::new(seed);
        let store = world.open().await;
        write(&store, 16).await;
        store.trim(me(), before(6)).await.unwrap();
        write(&store, 8).await;
        let states = states(&store).await;
        (world, store, states)
    };
    let (world, store, _) = prepared(5).await;
    let operations = world.world.fs.operations();
    store.trim(me(), before(16)).await.unwrap();
    let steps = world.world.fs.operations() - operations;
    assert!(steps > 10, "{steps}");
    let mut floors = [0, 0];
    for step in 0..steps {
        let keep = [Keep::Nothing, Keep::Random, Keep::Everything, Keep::SizesWithoutContent][step as usize % 4];
        let (mut world, store, expected) = prepared(step).await;
        world.world.fs.crash_at(step);
        let done = store.trim(me(), before(16)).await;
        let _ = store.close().await;
        world.world.fs.crash(keep);
        let store = world.open().await;
        let floor = store.shared().log.floor();
        assert!(floor == Position(15) || (floor == Position(5) && done.is_err()), "{step} {keep:?}: {floor} {done:?}");
        floors[usize::from(floor == Position(15))] += 1;
        check(&store, &expected).await;
        assert!(!world.files().contains(&"snapshot.new".to_owned()));
        // The same again gets through, and nothing is left over.
        assert_eq!(store.trim(me(), before(16)).await.unwrap().floor, Position(15));
        assert!(world.snapshots() <= 2, "{step} {keep:?} {:?}", world.files());
        store.close().await.unwrap();
        check(&world.open_without_base().await, &expected).await;
    }
    assert!(floors[0] > 3 && floors[1] > 3, "{floors:?}");
}

#[tokio::test]
async fn fault_12_13_a_disk_that_fails_leaves_the_store_as_it_was() {
    for (operation, path) in [
        (Operation::Create, "snapshot.new"),
        (Operation::Write, "snapshot.new"),
        (Operation::Sync, "snapshot.new"),
        (Operation::Read, "snapshot.new"),
        (Operation::Rename, "snapshot-"),
        (Operation::SyncDir, "/store/log"),
        (Operation::Write, "/elsewhere"),
    ] {
        let world = Sandbox::new(6);
        let store = world.open().await;
        write(&store, 20).await;
        let expected = states(&store).await;
        world.world.fs.inject(Fault::on(operation).path(path).times(u64::MAX));
        let options = TrimOptions { archive: Some("/elsewhere".into()), ..before(15) };
        let error = store.trim(me(), options.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{operation:?} {path}: {error}");
        assert_eq!(store.shared().log.floor(), Position::ZERO);
        world.world.fs.heal();
        check(&store, &expected).await;
        write(&store, 1).await;
        assert_eq!(store.trim(me(), options).await.unwrap().floor, Position(14), "{operation:?} {path}");
        check(&store, &expected).await;
        assert_eq!(world.snapshots(), 1);
    }
}

#[tokio::test]
async fn fault_12_on_a_full_disk_a_trim_says_what_it_needs_or_makes_room_with_the_former_snapshot() {
    let mut world = Sandbox::new(7);
    world.settings.min_free_bytes = Some(4 << 20);
    let store = world.open().await;
    write(&store, 20).await;
    let expected = states(&store).await;
    let fs = &world.world.fs;
    // Below what is kept from ordinary writes: enough for eight values of 10,000 bytes, or not.
    fs.set_capacity(fs.used() + (64 << 10));
    let (files, head) = (world.files(), store.head());
    let error = store.trim(me(), before(15)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let needed: u64 = error.message().split("needed=`").nth(1).unwrap().split('`').next().unwrap().parse().unwrap();
    assert!((80_000..100_000).contains(&needed), "{error}");
    assert_eq!((world.files(), store.head()), (files, head));
    check(&store, &expected).await;
    fs.set_capacity(fs.used() + needed);
    assert_eq!(store.trim(me(), before(15)).await.unwrap().floor, Position(14));
    fs.set_capacity(1 << 40);
    write(&store, 10).await;
    assert_eq!(store.trim(me(), before(20)).await.unwrap().floor, Position(19));
    assert_eq!(world.snapshots(), 2);
    write(&store, 10).await;
    let expected = states(&store).await;
    fs.set_capacity(fs.used() + (32 << 10));
    assert_eq!(store.trim(me(), before(30)).await.unwrap().floor, Position(29));
    check(&store, &expected).await;
    fs.set_capacity(1 << 40);
    // Met in the middle of it: once, and always.
    write(&store, 5).await;
    let full =
        || Fault::on(Operation::Write).path("snapshot.new").effect(Effect::Fail(std::io::ErrorKind::StorageFull));
    fs.inject(full());
    assert_eq!(store.trim(me(), before(31)).await.unwrap().floor, Position(30));
    fs.inject(full().times(u64::MAX));
    let error = store.trim(me(), before(35)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("needed=`"), "{error}");
    assert_eq!(store.shared().log.floor(), Position(30));
    fs.heal();
    assert_eq!(store.trim(me(), before(35)).await.unwrap().floor, Position(34));
    store.close().await.unwrap();
    let expected = expected.into_iter().filter(|(at, _)| at.0 >= 34).collect();
    check(&world.open_without_base().await, &expected).await;
}

#[tokio::test]
async fn fault_23_a_damaged_snapshot_is_never_trusted_and_never_replaced_by_nothing() {
    let mut world = Sandbox::new(8);
    let store = world.open().await;
    write(&store, 20).await;
    store.trim(me(), before(15)).await.unwrap();
    let name = world.files().into_iter().find(|name| name.starts_with("snapshot-")).unwrap();
    store.close().await.unwrap();
    let path = Path::new(LOG).join(name);
    let mut content = world.world.fs.content(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    world.world.fs.plant(&path, content);
    // With a base nobody needs it; without one it is damage.
    world.open().await.close().await.unwrap();
    world.base = MemoryBackend::new();
    assert_eq!(world.try_open().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_archive_has_what_the_trims_removed() {
    let mut world = Sandbox::new(9);
    let store = world.open().await;
    write(&store, 30).await;
    let archive = Path::new("/elsewhere/archive");
    let options = |at| TrimOptions { archive: Some(archive.to_owned()), ..before(at) };
    store.trim(me(), options(12)).await.unwrap();
    write(&store, 10).await;
    let done = store.trim(me(), options(25)).await.unwrap();
    assert!(done.segments > 0);
    assert_eq!(world.snapshots(), 1, "the former one is archived too");
    let files = LogFiles::open_with_archive(&world.world.env(), Path::new(LOG), archive).unwrap();
    let positions = files.frames(Position(1), Check::Chain).unwrap().map(|frame| frame.unwrap().position);
    assert!(positions.eq((1..=store.synced().0).map(Position)));
    assert_eq!(crate::log::verify_archive(&world.world.env(), Path::new(LOG), archive).unwrap(), []);
    // Another store's is refused, and the floor stays.
    let strange = Sandbox { settings: world.settings.clone(), ..Sandbox::new(10) };
    let other = strange.open().await;
    write(&other, 30).await;
    strange.world.env().fs.create_dir_all(archive).unwrap();
    for name in world.world.fs.read_dir(archive).unwrap() {
        strange.world.fs.plant(&archive.join(&name), world.world.fs.content(&archive.join(&name)).unwrap());
    }
    assert_eq!(other.trim(me(), options(12)).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!((other.shared().log.floor(), strange.snapshots()), (Position::ZERO, 0));
    let expected = states(&store).await;
    store.close().await.unwrap();
    check(&world.open_without_base().await, &expected).await;
}

#[tokio::test]
async fn retention_trims_by_itself_as_far_as_marks_allow() {
    let mut world = Sandbox::new(11);
    world.settings.retention = Retention::Days(7);
    world.settings.archive = Some("/elsewhere".into());
    let store = world.open().await;
    // The chores of the open have looked once.
    let hour = DAY / 24;
    for _ in 0..10 {
        world.world.clock.advance(DAY);
        write(&store, 8).await;
    }
    let days = states(&store).await;
    store.mark(me(), "kept", Some(Position(10))).await.unwrap();
    world.world.clock.advance(hour);
    let trimmed = store.retain().await.unwrap().expect("three days are over");
    assert_eq!(trimmed.floor, Position(10));
    store.delete_mark(me(), "kept").await.unwrap();
    assert_eq!(store.retain().await.unwrap(), None, "not within the hour");
    world.world.clock.advance(hour);
    let trimmed = store.retain().await.unwrap().unwrap();
    assert_eq!(trimmed.floor, Position(24), "the state of seven days ago is there");
    world.world.clock.advance(hour);
    assert_eq!(store.retain().await.unwrap(), None, "no whole segment would go");
    check(&store, &days).await;
    let files = LogFiles::open_with_archive(&world.world.env(), Path::new(LOG), Path::new("/elsewhere")).unwrap();
    assert_eq!(files.floor().position, Position::ZERO);
    store.close().await.unwrap();

    world.settings.retention = Retention::Bytes(200 << 10);
    world.settings.archive = None;
    let store = world.open().await;
    world.world.clock.advance(hour);
    let floor = store.retain().await.unwrap().unwrap().floor;
    let kept: u64 = store.head().0 - floor.0;
    assert!((20..32).contains(&kept), "{kept} of 10,000 bytes");
    check(&store, &days).await;
    for settings in [Retention::Days(0), Retention::Bytes(0)] {
        assert!(Settings { retention: settings, ..Settings::default() }.validate().is_err());
    }
}

#[tokio::test]
async fn a_retention_that_cannot_raise_the_floor_gives_up_no_snapshot() {
    let mut world = Sandbox::new(15);
    world.settings.retention = Retention::Bytes(64 << 10);
    let store = world.open().await;
    write(&store, 20).await;
    store.trim(me(), before(8)).await.unwrap();
    write(&store, 10).await;
    let floor = store.trim(me(), before(15)).await.unwrap().floor;
    write(&store, 20).await;
    store.mark(me(), "kept", Some(floor)).await.unwrap();
    // A spare segment comes and goes.
    let kept = || world.files().into_iter().filter(|name| name != "spare.seg").collect::<Vec<_>>();
    let (files, head) = (kept(), store.head());
    assert_eq!(world.snapshots(), 2);
    world.world.clock.advance(DAY / 24);
    assert_eq!(store.retain().await.unwrap(), None);
    assert_eq!((kept(), store.head(), store.shared().log.floor()), (files, head, floor));
    // It is the mark that held it up.
    store.delete_mark(me(), "kept").await.unwrap();
    world.world.clock.advance(DAY / 24);
    assert!(store.retain().await.unwrap().unwrap().floor > floor);
}

#[tokio::test]
async fn a_retention_without_a_history_is_refused() {
    let mut world = Sandbox::new(16);
    world.settings.history = false;
    for retention in [Retention::Days(7), Retention::Bytes(1 << 30)] {
        world.settings.retention = retention;
        let error = world.try_open().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.message().contains("history"), "{error}");
    }
    world.settings.retention = Retention::Never;
    world.open().await.close().await.unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    Delete(u8),
    DeleteRange(u8),
    Rewind(u8, u8),
    Checkpoint,
    Trim(u8),
    Reopen { base: bool },
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12u8, any::<u8>()).prop_map(|(key, value)| Step::Set(key, value)),
        2 => (0..12u8).prop_map(Step::Delete),
        2 => (0..4u8).prop_map(Step::DeleteRange),
        1 => (0..4u8, any::<u8>()).prop_map(|(range, at)| Step::Rewind(range, at)),
        2 => Just(Step::Checkpoint),
        2 => any::<u8>().prop_map(Step::Trim),
        1 => any::<bool>().prop_map(|base| Step::Reopen { base }),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 10..60)
}

/// Keys are `range / key`, so that every range has three.
fn key(number: u8) -> [u8; 2] {
    [number / 3, number]
}

type Naive = BTreeMap<Vec<u8>, u8>;

/// What a naive map says is what is read, at every position from the floor on.
async fn check_naive(store: &Store, history: &BTreeMap<Position, Naive>) {
    let floor = store.shared().log.floor();
    for at in floor.0..=store.head().0 {
        let reader = store.at(Position(at)).await.unwrap();
        let mut entries = reader.scan(ScanOptions::new(b"p")).unwrap();
        let mut found = Naive::new();
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            found.insert(entry.key().to_vec(), entry.value[0]);
        }
        // Transactions of the store's own change nothing.
        let (_, expected) = history.range(..=Position(at)).next_back().unwrap();
        assert_eq!(found, *expected, "at {at}, floor {floor}");
    }
    if floor > Position::ZERO {
        assert_eq!(store.at(floor.previous()).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

async fn run(steps: Vec<Step>) {
    let mut world = Sandbox::new(12);
    let mut store = world.open().await;
    let mut history = BTreeMap::from([(Position::ZERO, Naive::new())]);
    for step in steps {
        let mut now = history.last_key_value().unwrap().1.clone();
        let written = match step {
            Step::Set(at, value) => {
                now.insert(key(at).to_vec(), value);
                // Large enough that segments end now and then.
                let bytes = [&[value][..], &vec![0; 6000]].concat();
                Some(store.write(me(), Batch::new().set(b"p", &key(at), &bytes)).await.unwrap().position)
            }
            Step::Delete(at) => {
                now.remove(&key(at)[..]);
                Some(store.write(me(), Batch::new().delete(b"p", &key(at))).await.unwrap().position)
            }
            Step::DeleteRange(range) => {
                now.retain(|key, _| key[0] != range);
                Some(store.write(me(), Batch::new().delete_range(b"p", &[range])).await.unwrap().position)
            }
            Step::Rewind(range, at) => {
                let floor = store.shared().log.floor().0;
                let at = Position(floor + u64::from(at) % (store.head().0 - floor + 1));
                let then = history.range(..=at).next_back().unwrap().1.clone();
                now.retain(|key, _| key[0] != range);
                now.extend(then.into_iter().filter(|(key, _)| key[0] == range));
                // As a whole, however little it is.
                let done =
                    store.transact(me(), move |tx: Tx| async move { tx.restore_range(b"p", &[range], at).await }).await;
                Some(done.unwrap().position)
            }
            Step::Checkpoint => {
                store.checkpoint().await.unwrap();
                None
            }
            Step::Trim(at) => {
                let head = store.head().0;
                let at = u64::from(at) % (head + 1);
                match store.trim(me(), before(at)).await {
                    Ok(trimmed) => {
                        assert!(trimmed.floor <= Position(at.saturating_sub(1)).max(store.shared().log.floor()))
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                }
                None
            }
            Step::Reopen { base } => {
                store.close().await.unwrap();
                if !base {
                    world.base = MemoryBackend::new();
                }
                store = world.open().await;
                None
            }
            Step::Crash => {
                let _ = store.close().await;
                world.world.fs.crash(Keep::Random);
                store = world.open().await;
                None
            }
        };
        if let Some(position) = written {
            history.insert(position, now);
        }
    }
    check_naive(&store, &history).await;
    store.close().await.unwrap();
    check_naive(&world.open_without_base().await, &history).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn fault_30_every_position_from_the_floor_on_reads_as_a_naive_map_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
