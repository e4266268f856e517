//! The past where it is not kept, and range restores seen from inside a transaction and after a crash.

use std::collections::BTreeMap;

use super::diff::Touched;
use super::simulation::{Stepped, ready};
use super::{Batch, Context, DiffOptions, ScanOptions, Settings, Tx};
use crate::backends::MemoryBackend;
use crate::env::sim::{Keep, SimWorld};
use crate::event::{Event, Transaction};
use crate::types::{ErrorKind, Position, Result};

struct World {
    world: SimWorld,
    base: MemoryBackend,
    settings: Settings,
}

impl World {
    fn new() -> World {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        World { world: SimWorld::new(11), base: MemoryBackend::new(), settings }
    }

    fn open(&self, history: bool) -> Stepped {
        let settings = Settings { history, ..self.settings.clone() };
        Stepped::open(&self.world, &self.base, &settings).unwrap()
    }

    fn crash(&self, stepped: Stepped) {
        drop(stepped);
        self.world.fs.crash(Keep::Everything);
    }
}

fn set(stepped: &mut Stepped, key: &[u8], value: &[u8]) -> Position {
    stepped.write("t", Batch::new().set(b"p", key, value)).unwrap().position
}

fn transact<F>(stepped: &mut Stepped, closure: impl Fn(Tx) -> F + 'static) -> Result<Position>
where
    F: Future<Output = Result<()>> + 'static,
{
    let store = stepped.store.clone();
    stepped.one(async move { store.transact(Context::new("t"), closure).await }).map(|done| done.position)
}

fn entries(stepped: &Stepped) -> BTreeMap<Vec<u8>, (Position, Vec<u8>)> {
    ready(async {
        let mut entries = stepped.store.reader().scan(ScanOptions::new(b"p")).unwrap();
        let mut found = BTreeMap::new();
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            found.insert(entry.key().to_vec(), (entry.version, entry.value.to_vec()));
        }
        found
    })
}

fn restores(stepped: &Stepped) -> usize {
    let frames = stepped.store.shared().log.read(Position(1)).unwrap();
    let events = frames.flat_map(|frame| Transaction::decode(frame.unwrap().payload).unwrap().events);
    events.filter(|event| matches!(event, Event::RestoreRange { .. })).count()
}

#[test]
fn without_a_history_only_what_is_in_memory_can_be_read_as_it_was() {
    let world = World::new();
    let mut stepped = world.open(false);
    set(&mut stepped, b"a", b"1");
    set(&mut stepped, b"a", b"2");
    stepped.checkpoint().unwrap();
    set(&mut stepped, b"a", b"3");
    let store = stepped.store.clone();
    let gone = stepped.one(async move { store.at(Position(1)).await.map(|_| ()) }).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unavailable);
    assert!(gone.message().contains("kept_from=`2`"), "{gone}");
    let store = stepped.store.clone();
    let kept = stepped.one(async move { store.at(Position(2)).await.unwrap().get(b"p", b"a").await }).unwrap();
    assert_eq!(&kept.unwrap().value[..], b"2");
    // What was pinned before the checkpoint stays, history or not.
    let reader = stepped.store.reader();
    set(&mut stepped, b"a", b"4");
    stepped.checkpoint().unwrap();
    assert_eq!(&ready(reader.get(b"p", b"a")).unwrap().unwrap().value[..], b"3");
    // With a history asked for, the base is made anew with one.
    drop(reader);
    world.crash(stepped);
    let mut stepped = world.open(true);
    let store = stepped.store.clone();
    let first = stepped.one(async move { store.at(Position(1)).await.unwrap().get(b"p", b"a").await }).unwrap();
    assert_eq!(&first.unwrap().value[..], b"1");
}

/// The restored state lies below the checkpoint, and the program that replays keeps no history.
#[test]
fn a_range_restore_is_replayed_whatever_the_settings_say() {
    for checkpoint_between in [false, true] {
        let world = World::new();
        let mut stepped = world.open(true);
        let then = set(&mut stepped, b"a", b"1");
        set(&mut stepped, b"b", b"2");
        stepped.write("t", Batch::new().delete_range(b"p", b"")).unwrap();
        if checkpoint_between {
            stepped.checkpoint().unwrap();
        }
        let restored = transact(&mut stepped, move |tx| async move { tx.restore_range(b"p", b"", then).await });
        let restored = restored.unwrap();
        set(&mut stepped, b"c", b"3");
        assert_eq!(restores(&stepped), 1);
        let expected = entries(&stepped);
        assert_eq!(expected[&b"a"[..]], (restored, b"1".to_vec()));
        world.crash(stepped);
        // The first program without a history meets a base with one, the second one a base without, the third replays
        // everything from the beginning.
        for round in 0..3 {
            if round == 2 {
                use crate::backends::Backend as _;
                ready(world.base.clear()).unwrap();
            }
            let mut stepped = world.open(false);
            assert_eq!(entries(&stepped), expected, "round {round}");
            if round == 0 && !checkpoint_between {
                stepped.checkpoint().unwrap();
            }
            world.crash(stepped);
        }
    }
}

/// A base without a history that stands between the two positions of a restore is of no use.
#[test]
fn a_base_that_cannot_give_what_is_restored_is_made_anew() {
    let world = World::new();
    let mut stepped = world.open(false);
    let then = set(&mut stepped, b"a", b"1");
    set(&mut stepped, b"a", b"2");
    stepped.checkpoint().unwrap();
    let without = world.base.clone();
    world.crash(stepped);
    // Another base, with a history: the same log goes on with a restore.
    let with = World { base: MemoryBackend::new(), world: world.world, settings: world.settings };
    let mut stepped = with.open(true);
    transact(&mut stepped, move |tx| async move { tx.restore_range(b"p", b"", then).await }).unwrap();
    assert_eq!(restores(&stepped), 1);
    let expected = entries(&stepped);
    with.crash(stepped);
    let again = World { base: without, ..with };
    assert_eq!(entries(&again.open(false)), expected);
}

#[test]
fn without_a_history_a_range_is_restored_key_by_key() {
    let world = World::new();
    let mut stepped = world.open(false);
    let then = set(&mut stepped, b"a", b"1");
    set(&mut stepped, b"a", b"2");
    set(&mut stepped, b"b", b"2");
    transact(&mut stepped, move |tx| async move { tx.restore_range(b"p", b"", then).await }).unwrap();
    assert_eq!(restores(&stepped), 0);
    assert_eq!(entries(&stepped), BTreeMap::from([(b"a".to_vec(), (Position(4), b"1".to_vec()))]));
}

#[test]
fn a_transaction_sees_what_it_restores() {
    let world = World::new();
    let mut stepped = world.open(true);
    set(&mut stepped, b"a1", b"old");
    let then = set(&mut stepped, b"b1", b"old");
    stepped.write("t", Batch::new().delete_range(b"p", b"").set(b"p", b"a2", b"new")).unwrap();
    let done = transact(&mut stepped, move |tx| async move {
        let get = async |key: &[u8]| -> Result<_> { Ok(tx.get(b"p", key).await?.map(|entry| entry.value.to_vec())) };
        let keys = async || {
            let found = tx.scan(ScanOptions::new(b"p")).await?;
            Ok::<_, crate::types::Error>(found.iter().map(|entry| entry.key().to_vec()).collect::<Vec<_>>())
        };
        tx.set(b"p", b"a3", b"lost")?;
        tx.restore_range(b"p", b"a", then).await?;
        assert_eq!((get(b"a1").await?, get(b"a2").await?, get(b"a3").await?), (Some(b"old".to_vec()), None, None));
        assert_eq!(keys().await?, [b"a1"]);
        tx.restore_range(b"p", b"", then).await?;
        assert_eq!(keys().await?, [b"a1", b"b1"]);
        // Later operations win over earlier ones, and key writes over both.
        tx.delete_range(b"p", b"a").await?;
        tx.set(b"p", b"b1", b"newest")?;
        assert_eq!(keys().await?, [b"b1"]);
        assert_eq!(tx.scan(ScanOptions::new(b"p").limit(1)).await?[0].value[..], b"newest"[..]);
        Ok(())
    });
    let position = done.unwrap();
    let expected = BTreeMap::from([(b"b1".to_vec(), (position, b"newest".to_vec()))]);
    assert_eq!(entries(&stepped), expected);
    world.crash(stepped);
    assert_eq!(entries(&world.open(true)), expected);
}

#[test]
fn what_cannot_be_restored_is_refused() {
    let mut world = World::new();
    (world.settings.memtable_soft_bytes, world.settings.memtable_hard_bytes) = (8 << 10, 8 << 10);
    let mut stepped = world.open(true);
    for number in 0..20u8 {
        set(&mut stepped, &[b'k', number], &[number; 1 << 10]);
        stepped.checkpoint().unwrap();
    }
    let head = stepped.store.head();
    let mut restore = |partition: &'static [u8], prefix: &'static [u8], as_of| {
        transact(&mut stepped, move |tx| async move { tx.restore_range(partition, prefix, as_of).await })
    };
    let too_large = restore(b"p", b"", head).unwrap_err();
    assert_eq!(too_large.kind(), ErrorKind::Invalid);
    assert!(too_large.message().contains("memtable_hard_bytes"), "{too_large}");
    // What several restores of one transaction bring counts together.
    let several = |stepped: &mut Stepped, count: u8| {
        transact(stepped, move |tx| async move {
            for number in 0..count {
                tx.restore_range(b"p", &[b'k', number], head).await?;
            }
            Ok(())
        })
    };
    let too_large = several(&mut stepped, 10).unwrap_err();
    assert_eq!(too_large.kind(), ErrorKind::Invalid);
    assert!(too_large.message().contains("memtable_hard_bytes"), "{too_large}");
    let mut restore = |partition: &'static [u8], prefix: &'static [u8], as_of| {
        transact(&mut stepped, move |tx| async move { tx.restore_range(partition, prefix, as_of).await })
    };
    assert_eq!(restore(b"p", b"k\x03", head).unwrap(), head.next());
    assert_eq!(restore(b"p", b"", Position(99)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(restore(b"\0requests", b"", head).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(stepped.store.head(), head.next());
}

#[test]
fn a_range_that_is_deleted_and_then_restored_comes_back() {
    for history in [false, true] {
        let world = World::new();
        let mut stepped = world.open(history);
        set(&mut stepped, b"b", b"1");
        let then = set(&mut stepped, b"a", b"1");
        transact(&mut stepped, move |tx| async move {
            tx.delete_range(b"p", b"").await?;
            tx.restore_range(b"p", b"a", then).await
        })
        .unwrap();
        let left: Vec<_> = entries(&stepped).into_keys().collect();
        assert_eq!(left, [b"a".to_vec()], "history {history}");
    }
}

/// The log shows what is synced, a history what is published.
#[test]
fn a_history_tells_who_wrote_what_was_not_synced_yet() {
    let mut world = World::new();
    world.settings.durability = crate::store::Durability::None;
    let mut stepped = world.open(true);
    let write = |stepped: &mut Stepped, actor: &str, key: &[u8]| {
        stepped.write(actor, Batch::new().set(b"p", key, actor.as_bytes())).unwrap();
    };
    write(&mut stepped, "first", b"a");
    write(&mut stepped, "second", b"b");
    stepped.one({
        let store = stepped.store.clone();
        async move { store.sync().await.unwrap() }
    });
    write(&mut stepped, "third", b"a");
    write(&mut stepped, "fourth", b"c");
    let store = stepped.store.clone();
    let told = stepped.one(async move {
        let mut versions = store.reader().history_of(b"p", b"").unwrap();
        let mut told = Vec::new();
        while let Some(version) = versions.next().await.transpose().unwrap() {
            told.push((version.value.unwrap().to_vec(), version.origin.unwrap().actor.into_bytes()));
        }
        told
    });
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|(value, actor)| value == actor), "{told:?}");
}

#[test]
fn an_undo_of_more_than_a_transaction_takes_is_refused_and_parts_of_it_are_not() {
    let world = World::new();
    let mut stepped = world.open(true);
    for value in [1, 2] {
        for number in 0..12u8 {
            set(&mut stepped, &[number], &[value; 100_000]);
        }
    }
    let head = stepped.store.head();
    let undo = |stepped: &mut Stepped, first: Position, last: Position| {
        let store = stepped.store.clone();
        stepped.one(async move { store.undo(Context::new("t"), first, last).await })
    };
    let refused = undo(&mut stepped, Position(13), head).unwrap_err();
    assert!(refused.kind() == ErrorKind::Invalid && refused.message().contains("bytes to undo at once"), "{refused}");
    assert!(refused.message().contains("undo fewer transactions"), "{refused}");
    assert_eq!(stepped.store.head(), head);
    undo(&mut stepped, Position(19), head).unwrap();
    undo(&mut stepped, Position(13), Position(18)).unwrap();
    assert!(entries(&stepped).values().all(|(_, value)| value[..] == [1; 100_000]));
    // The same of keys and ranges, however small.
    let many = (0..513u32).fold(Batch::new(), |batch, number| batch.set(b"q", &number.to_be_bytes(), b"v"));
    let many = stepped.write("t", many).unwrap().position;
    let refused = undo(&mut stepped, many, many).unwrap_err();
    assert!(refused.kind() == ErrorKind::Invalid && refused.message().contains("keys and ranges"), "{refused}");
    let ranges = (0..513u32).fold(Batch::new(), |batch, number| batch.delete_range(b"q", &number.to_be_bytes()));
    let ranges = stepped.write("t", ranges).unwrap().position;
    let refused = undo(&mut stepped, ranges, ranges).unwrap_err();
    assert!(refused.kind() == ErrorKind::Invalid && refused.message().contains("keys and ranges"), "{refused}");
}

#[test]
fn an_undo_leaves_no_reference_to_what_would_go() {
    let world = World::new();
    let mut stepped = world.open(true);
    let put = |stepped: &mut Stepped, key: &str| {
        stepped.write("t", Batch::new().set(b"auth", key.as_bytes(), key.as_bytes())).unwrap().position
    };
    let undo = |stepped: &mut Stepped, position: Position| {
        let store = stepped.store.clone();
        stepped.one(async move { store.undo(Context::new("t"), position, position).await })
    };
    put(&mut stepped, "users/ann");
    put(&mut stepped, "users/bob");
    let changed = stepped.write("t", Batch::new().set(b"auth", b"users/ann", b"changed")).unwrap().position;
    put(&mut stepped, "gUsers/Admins/users/ann");
    put(&mut stepped, "gUsers/Admins/users/bob");
    // The user stays, so the membership does not depend on its change.
    undo(&mut stepped, changed).unwrap();
    stepped.write("t", Batch::new().delete(b"auth", b"users/ann")).unwrap();
    let again = put(&mut stepped, "users/ann");
    // It was written before, and is nothing that came later.
    undo(&mut stepped, again).unwrap();
    let again = put(&mut stepped, "users/ann");
    let credentials = put(&mut stepped, "uCredentials/ann/credentials/AKIA");
    let refused = undo(&mut stepped, again).unwrap_err();
    assert!(refused.kind() == ErrorKind::Conflict && refused.message().contains("uCredentials/ann"), "{refused}");
    let store = stepped.store.clone();
    let plan = stepped.one(async move { store.plan_undo(again, again).await }).unwrap();
    assert_eq!(plan.dependents.iter().map(|dependent| dependent.position).collect::<Vec<_>>(), [credentials]);
    stepped.write("t", Batch::new().delete(b"auth", b"uCredentials/ann/credentials/AKIA")).unwrap();
    undo(&mut stepped, again).unwrap();
}

/// Of a key that is there its version tells who wrote it last; of one that is not there only the memtables and the log do.
#[test]
fn an_undo_sees_what_met_a_key_that_is_not_there() {
    for (met, checkpoint) in (0..4).flat_map(|met| [0, 1, 2, 3].map(|at| (met, at))) {
        let world = World::new();
        let mut stepped = world.open(true);
        set(&mut stepped, b"k1", b"old");
        let checkpoint_at = |stepped: &mut Stepped, at| {
            if at == checkpoint {
                stepped.checkpoint().unwrap();
            }
        };
        checkpoint_at(&mut stepped, 1);
        let undone = stepped.write("t", Batch::new().delete(b"p", b"k1").set(b"p", b"k2", b"new")).unwrap().position;
        checkpoint_at(&mut stepped, 2);
        set(&mut stepped, b"other", b"value");
        let later = match met {
            0 => None,
            1 => Some(stepped.write("t", Batch::new().delete_range(b"p", b"k1")).unwrap().position),
            2 => Some(stepped.write("t", Batch::new().delete(b"p", b"k1")).unwrap().position),
            _ => Some(set(&mut stepped, b"k2", b"newer")),
        };
        set(&mut stepped, b"other", b"another");
        checkpoint_at(&mut stepped, 3);
        let store = stepped.store.clone();
        let plan = stepped.one(async move { store.plan_undo(undone, undone).await }).unwrap();
        let dependents: Vec<_> = plan.dependents.iter().map(|dependent| dependent.position).collect();
        assert_eq!(dependents, Vec::from_iter(later), "{met} {checkpoint}");
        let store = stepped.store.clone();
        let done = stepped.one(async move { store.undo(Context::new("t"), undone, undone).await });
        assert_eq!(done.is_ok(), later.is_none(), "{met} {checkpoint}");
    }
}

/// Few keys, but large ones: the range is restored as one event, and gives the same.
#[test]
fn a_rewind_of_many_bytes_restores_the_range() {
    for (bytes, expected) in [(1_000, 0), (30_000, 1)] {
        let world = World::new();
        let mut stepped = world.open(true);
        for number in 0..4u8 {
            set(&mut stepped, &[number], &vec![1; bytes]);
        }
        let then = stepped.store.head();
        for number in 1..4u8 {
            set(&mut stepped, &[number], b"2");
        }
        let store = stepped.store.clone();
        let done = stepped.one(async move { store.rewind(Context::new("t"), &[(b"p", b"")], then).await }).unwrap();
        assert_eq!((done.answer.restored, restores(&stepped)), (3, expected));
        assert!(entries(&stepped).values().all(|(_, value)| value[..] == vec![1; bytes]));
    }
}

#[test]
fn what_lies_in_several_parts_of_a_scope_is_rewound_once() {
    let world = World::new();
    let mut stepped = world.open(true);
    set(&mut stepped, b"ka", b"1");
    let then = set(&mut stepped, b"kb", b"1");
    for key in [&b"ka"[..], b"kb", b"kc"] {
        set(&mut stepped, key, b"2");
    }
    let scope: [(&[u8], &[u8]); 4] = [(b"p", b"kb"), (b"p", b"k"), (b"p", b"k"), (b"q", b"")];
    let store = stepped.store.clone();
    let planned = stepped.one(async move { store.plan_rewind(&scope, then).await }).unwrap();
    assert_eq!((planned.restored, planned.removed), (2, 1));
    let store = stepped.store.clone();
    let done = stepped.one(async move { store.rewind(Context::new("t"), &scope, then).await }).unwrap();
    assert_eq!(done.answer, planned);
    assert_eq!(entries(&stepped).len(), 2);
}

#[test]
fn a_diff_over_very_many_ranges_remembers_a_bounded_number_of_them() {
    let world = World::new();
    let mut stepped = world.open(true);
    let name = |number: u8| [b'a' + number % 4, number, 0];
    let before = (0..120).fold(Batch::new(), |batch, number| batch.set(b"p", &name(number), b"old"));
    let before = stepped.write("t", before).unwrap().position;
    for number in (0..120).filter(|number| number % 3 > 0) {
        let batch = Batch::new().delete_range(b"p", &name(number)[..2]);
        // Some of it comes back as it was, some of it otherwise.
        let batch = match number % 5 {
            0 => batch.set(b"p", &name(number), b"old"),
            1 => batch.set(b"p", &name(number), b"new"),
            _ => batch,
        };
        stepped.write("t", batch).unwrap();
    }
    stepped.write("t", Batch::new().set(b"p", b"z", b"new").delete_range(b"p", b"b")).unwrap();
    let (log, head) = (stepped.store.shared().log.clone(), stepped.store.head());
    let touched = Touched::read(log.as_ref(), before, head, &[1], &[]).unwrap();
    assert!(touched.len() <= 16 && touched.cut.is_some(), "{}", touched.len());
    let (store, now) = (stepped.store.clone(), entries(&stepped));
    let found = stepped.one(async move {
        let mut differences = store.diff(before, head, DiffOptions::new()).await.unwrap();
        let mut found = Vec::new();
        while let Some(difference) = differences.next().await.transpose().unwrap() {
            found.push((difference.key().to_vec(), difference.new.map(|entry| entry.value.to_vec())));
        }
        found
    });
    let mut expected = BTreeMap::from([(b"z".to_vec(), Some(b"new".to_vec()))]);
    for key in (0..120).map(name) {
        let value = now.get(&key[..]).map(|(_, value)| value.clone());
        if value.as_deref() != Some(b"old") {
            expected.insert(key.to_vec(), value);
        }
    }
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn the_stores_own_partitions_are_not_compared() {
    let world = World::new();
    let mut stepped = world.open(true);
    let head = set(&mut stepped, b"a", b"1");
    let store = stepped.store.clone();
    let options = DiffOptions::new().partition(b"\0marks");
    let refused = stepped.one(async move { store.diff(Position::ZERO, head, options).await.map(drop) }).unwrap_err();
    assert!(refused.kind() == ErrorKind::Invalid && refused.message().contains("own partitions"), "{refused}");
}
