//! Archived states: whatever can be read below the floor is what it was, and what cannot says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::open::{BASE_DIR, LOCK_FILE};
use super::*;
use crate::env::Env;
use crate::log::DirLock;
use crate::types::{At, ErrorKind, Position, Result};

/// Everything that can be read at a position, the store's own partitions too: encoded key, version, value.
type State = BTreeMap<Vec<u8>, (Position, Vec<u8>)>;

struct World {
    tempdir: tempfile::TempDir,
    states: BTreeMap<Position, State>,
}

impl World {
    fn new() -> World {
        World { tempdir: tempfile::tempdir().unwrap(), states: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tempdir.path().join(name)
    }

    async fn create(&self, name: &str) -> Store {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        Store::builder(self.path(name)).settings(settings).create().await.unwrap()
    }

    /// Notes the state of now.
    async fn note(&mut self, store: &Store) {
        let state = state(&store.reader()).await.unwrap();
        self.states.insert(store.head(), state);
    }

    fn attach(&self, store: &str, archive: &str) -> Result<Archive> {
        Archive::attach(&Env::os(), &self.path(store), &self.path(archive))
    }

    async fn rebuild(&self, archive: Archive, from: u64, to: u64) -> Result<ArchivedPast> {
        archive
            .rebuild(&self.path("scratch"), Position(from)..=Position(to), |done, total| assert!(done <= total))
            .await
    }

    fn scratch(&self) -> Vec<String> {
        let names = fs::read_dir(self.path("scratch")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn me() -> Context {
    Context::new("test")
}

fn into(before: u64, archive: PathBuf) -> TrimOptions {
    TrimOptions { archive: Some(archive), ..TrimOptions::before(Position(before)) }
}

async fn state(reader: &Reader) -> Result<State> {
    let mut entries = reader.scan_all(true);
    let mut state = State::new();
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        state.insert(entry.encoded_key.to_vec(), (entry.version, entry.value.to_vec()));
    }
    Ok(state)
}

fn value(rng: &mut StdRng) -> Vec<u8> {
    (0..4_000).map(|_| rng.random()).collect()
}

/// Writes of few keys over and over, range deletes, rewinds and undos.
async fn change(store: &Store, rng: &mut StdRng) {
    let key = [b'a' + rng.random_range(0..3u8), rng.random_range(0..6u8)];
    match rng.random_range(0..12) {
        0 => drop(store.write(me(), Batch::new().delete_range(b"p", &key[..1])).await.unwrap()),
        1 => {
            let floor = store.stats().await.unwrap().floor.0;
            let to = Position(rng.random_range(floor..=store.head().0));
            store.rewind(me(), &[(b"p", &key[..1])], to).await.unwrap();
        }
        2 => drop(store.undo(me(), store.head(), store.head()).await),
        3 => drop(store.write(me(), Batch::new().delete(b"p", &key)).await.unwrap()),
        _ => {
            let user = [b"users/", &key[..]].concat();
            let address = [&[0x22, 3][..], &key[..1], b"@x"].concat();
            let batch = Batch::new().set(b"p", &key, &value(rng)).set(b"auth", &user, &address);
            store.write(me(), batch).await.unwrap();
        }
    }
}

/// What a model says of the versions of a key up to a position.
fn history_of(states: &BTreeMap<Position, State>, key: &[u8], to: Position) -> Vec<(Position, Option<Vec<u8>>)> {
    let mut versions: Vec<(Position, Option<Vec<u8>>)> = Vec::new();
    for (position, state) in states.range(..=to) {
        match (state.get(key), versions.last()) {
            (Some((version, value)), last) if last.is_none_or(|(last, _)| last < version) => {
                versions.push((*version, Some(value.clone())));
            }
            (None, Some((_, Some(_)))) => versions.push((*position, None)),
            _ => {}
        }
    }
    versions
}

#[tokio::test]
async fn every_state_from_the_beginning_of_the_archive_is_what_it_was() {
    for seed in 0..4 {
        let mut world = World::new();
        let mut rng = StdRng::seed_from_u64(seed);
        let store = world.create("store").await;
        world.states.insert(Position::ZERO, State::new());
        for round in 0..90 {
            let head = store.head();
            change(&store, &mut rng).await;
            if store.head() > head {
                world.note(&store).await;
            }
            if matches!(round, 40 | 65 | 80) {
                let before = rng.random_range(store.stats().await.unwrap().floor.0 + 1..=store.head().0);
                store.trim(me(), into(before, world.path("archive"))).await.unwrap();
                world.note(&store).await;
            }
            if round == 20 {
                store.checkpoint().await.unwrap();
            }
        }
        let floor = store.stats().await.unwrap().floor;
        assert!(floor > Position(10), "seed {seed}");
        assert_eq!(store.at(Position(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
        // Beside the process that has the store open.
        let archive = world.attach("store", "archive").unwrap();
        let (oldest, head) = (archive.oldest().unwrap(), archive.head());
        assert_eq!((oldest, head, archive.store_floor()), (Position::ZERO, store.head(), floor));
        let whole = world.rebuild(archive, 0, head.0).await.unwrap();
        for (position, expected) in &world.states {
            let found = state(&whole.at(*position).unwrap()).await.unwrap();
            assert!(found == *expected, "seed {seed} position {position}");
        }
        // The two parts of a history are one.
        let mut seen = 0;
        for (key, end) in [(b'a', 2), (b'a', head.0 / 2), (b'b', floor.0), (b'c', head.0)] {
            for rest in 0..6u8 {
                let (key, end) = ([key, rest], Position(end));
                let mut versions = whole.at(end).unwrap().history(b"p", &key).unwrap();
                let mut found = Vec::new();
                while let Some(version) = versions.next().await {
                    let version = version.unwrap();
                    assert_eq!(version.origin.as_ref().map(|origin| &*origin.actor), Some("test"));
                    found.push((version.position, version.value.map(|value| value.to_vec())));
                }
                let expected = history_of(&world.states, &crate::types::Key::new(b"p", &key), end);
                assert!(found == expected, "seed {seed} key {key:?} end {end}");
                seen += found.len();
            }
        }
        assert!(seen > 20, "seed {seed}");
        for _ in 0..6 {
            let (a, b) = (rng.random_range(0..floor.0), rng.random_range(0..=head.0));
            let mut found = BTreeMap::new();
            let options = DiffOptions::new().partition(b"p");
            let mut differences = whole.diff(Position(a), Position(b), options).unwrap();
            while let Some(difference) = differences.next().await {
                let difference = difference.unwrap();
                let value = |entry: Option<crate::types::Entry>| entry.map(|entry| entry.value.to_vec());
                found.insert(difference.encoded_key.to_vec(), (value(difference.old), value(difference.new)));
            }
            let (old, new) = (&world.states[&Position(a)], &world.states[&Position(b)]);
            let mut expected = BTreeMap::new();
            for key in old.keys().chain(new.keys()).filter(|key| key.starts_with(b"p\0\x01")) {
                let value = |state: &State| state.get(key).map(|(_, value)| value.clone());
                if value(old) != value(new) {
                    expected.insert(key.clone(), (value(old), value(new)));
                }
            }
            assert!(found == expected, "seed {seed} diff {a} {b}");
        }
        drop(whole);
        assert_eq!(world.scratch(), [] as [String; 0]);
        // From the nearest snapshot only as far as asked.
        for at in [0, 1, floor.0 / 2, floor.0 - 1, floor.0, floor.0 + 1, head.0] {
            let past = world.rebuild(world.attach("store", "archive").unwrap(), at, at).await.unwrap();
            let found = state(&past.at(Position(at)).unwrap()).await.unwrap();
            assert!(found == world.states[&Position(at)], "seed {seed} only {at}");
            assert_eq!(past.at(Position(at + 1)).unwrap_err().kind(), ErrorKind::Invalid);
            if at > 0 {
                assert_eq!(past.at(Position(at - 1)).unwrap_err().kind(), ErrorKind::NotFound);
            }
        }
        store.close().await.unwrap();
    }
}

async fn write(store: &Store, rng: &mut StdRng, count: u64) {
    for _ in 0..count {
        let key = [b'a' + (store.head().0 % 5) as u8];
        store.write(me(), Batch::new().set(b"p", &key, &[value(rng), value(rng)].concat())).await.unwrap();
    }
}

#[tokio::test]
async fn an_archive_that_does_not_go_with_the_log_is_named() {
    let world = World::new();
    let mut rng = StdRng::seed_from_u64(1);
    let store = world.create("store").await;
    let other = world.create("other").await;
    for store in [&store, &other] {
        write(store, &mut rng, 30).await;
    }
    assert_eq!(world.attach("store", "archive").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.attach("nowhere", "archive").unwrap_err().kind(), ErrorKind::NotFound);
    store.trim(me(), into(25, world.path("archive"))).await.unwrap();
    let foreign = world.attach("other", "archive").unwrap_err();
    assert!(foreign.kind() == ErrorKind::Conflict && foreign.message().contains("archive_log"), "{foreign}");
    let archive = world.attach("store", "archive").unwrap();
    let resolved = |at: At| archive.resolve(&at);
    assert_eq!(resolved(At::Position(Position(3))).unwrap(), Position(3));
    assert_eq!(resolved(At::Position(Position(99))).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(resolved(At::Mark("m".to_owned())).unwrap_err().kind(), ErrorKind::Invalid);
    let second = store.shared().log.head_at(Position(27)).unwrap().time;
    assert!(resolved(At::Time(second)).unwrap() >= Position(27));
    // Trims without the archive leave a gap between the two.
    write(&store, &mut rng, 30).await;
    store.trim(me(), TrimOptions::before(Position(45))).await.unwrap();
    write(&store, &mut rng, 30).await;
    store.trim(me(), TrimOptions::before(Position(75))).await.unwrap();
    let gap = world.attach("store", "archive").unwrap_err();
    assert!(gap.kind() == ErrorKind::Conflict && gap.message().contains("archive_end=`"), "{gap}");
    // One that begins later gives what it has.
    write(&store, &mut rng, 30).await;
    store.trim(me(), into(100, world.path("later"))).await.unwrap();
    let later = world.attach("store", "later").unwrap();
    let oldest = later.oldest().unwrap();
    assert!(oldest > Position(25) && oldest < later.store_floor(), "{oldest}");
    let below = world.rebuild(later, oldest.0 - 1, oldest.0).await.unwrap_err();
    assert!(below.kind() == ErrorKind::NotFound && below.message().contains(&format!("floor=`{oldest}`")), "{below}");
    let later = world.attach("store", "later").unwrap();
    let past = world.rebuild(later, oldest.0, oldest.0 + 1).await.unwrap();
    assert_eq!(state(&past.at(oldest).unwrap()).await.unwrap().len(), 5);
    drop(past);
    // Damage in the archive is damage.
    let names = fs::read_dir(world.path("archive")).unwrap();
    assert!(names.count() > 2);
    other.trim(me(), into(25, world.path("damaged"))).await.unwrap();
    let segment = world.path("damaged").join("0000000000000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[9_000] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let damaged = world.attach("other", "damaged").unwrap();
    let error = world.rebuild(damaged, 0, 5).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(world.scratch(), [] as [String; 0]);
    other.close().await.unwrap();
    store.close().await.unwrap();
}

/// The state rebuilt ends before the redaction, which is known all the same.
#[tokio::test]
async fn what_was_redacted_later_is_not_an_empty_value() {
    let world = World::new();
    let mut rng = StdRng::seed_from_u64(2);
    let store = world.create("store").await;
    store.write(me(), Batch::new().set(b"p", b"secret", b"s").set(b"p", b"empty", b"")).await.unwrap();
    write(&store, &mut rng, 20).await;
    store.trim(me(), into(15, world.path("archive"))).await.unwrap();
    let what = Redact::Key { partition: b"p".to_vec(), key: b"secret".to_vec() };
    let options = RedactOptions { archive: Some(world.path("archive")), ..RedactOptions::new(what) };
    assert_eq!(store.redact(me(), options).await.unwrap().values, 1);
    write(&store, &mut rng, 3).await;
    let past = world.rebuild(world.attach("store", "archive").unwrap(), 3, 4).await.unwrap();
    let reader = past.at(Position(3)).unwrap();
    let error = reader.get(b"p", b"secret").await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("redacted"), "{error}");
    assert_eq!(&reader.get(b"p", b"empty").await.unwrap().unwrap().value[..], b"");
    drop(past);
    assert_eq!(reader.get(b"p", b"empty").await.unwrap_err().kind(), ErrorKind::Closed);
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_a_kill_left_is_removed_and_what_is_in_use_is_not() {
    let world = World::new();
    let mut rng = StdRng::seed_from_u64(3);
    let store = world.create("store").await;
    write(&store, &mut rng, 20).await;
    store.trim(me(), into(15, world.path("archive"))).await.unwrap();
    let left = world.path("scratch").join("past-00000000000000ab.tmp");
    fs::create_dir_all(left.join(BASE_DIR)).unwrap();
    fs::write(left.join(BASE_DIR).join("x"), b"x").unwrap();
    let foreign = world.path("scratch").join("past-mine.tmp");
    fs::create_dir_all(&foreign).unwrap();
    let used = world.path("scratch").join("past-00000000000000cd.tmp");
    fs::create_dir_all(&used).unwrap();
    let lock = DirLock::take(&Env::os(), &used.join(LOCK_FILE)).unwrap();
    let past = world.rebuild(world.attach("store", "archive").unwrap(), 3, 4).await.unwrap();
    assert!(!left.exists() && used.exists() && foreign.exists());
    assert_eq!(world.scratch().len(), 3);
    // Two at a time do not meet.
    let again = world.rebuild(world.attach("store", "archive").unwrap(), 5, 6).await.unwrap();
    assert_eq!(state(&past.at(Position(3)).unwrap()).await.unwrap().len(), 3);
    assert_eq!(state(&again.at(Position(6)).unwrap()).await.unwrap().len(), 5);
    drop((past, again, lock));
    assert_eq!(world.scratch().len(), 2);
    store.close().await.unwrap();
}
