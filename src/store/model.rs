//! The store against a model of maps, with checkpoints, crashes and reopening among the operations.
//!
//! After every crash the store holds exactly what was acknowledged: each call is answered before the next
//! begins, so nothing is in flight. Readers pinned before keep seeing their position until the crash.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::simulation::{Stepped, ready};
use super::{Batch, Predicate, Reader, ScanOptions, Settings};
use crate::backends::MemoryBackend;
use crate::env::sim::{Keep, SimWorld};
use crate::types::{ErrorKind, Key, Position};

type Keys = (u8, u8);
type Model = BTreeMap<(Vec<u8>, Vec<u8>), (Position, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Op {
    Set(Keys, u8),
    SetIf(Keys, u8, Condition),
    Delete(Keys),
    DeleteRange(u8, Option<u8>),
    Batch {
        sets: Vec<(Keys, u8)>,
        deletes: Vec<Keys>,
        range: Option<(u8, Option<u8>)>,
        check: Option<(Keys, Condition)>,
    },
    Scan {
        partition: u8,
        prefix: Option<u8>,
        from: u8,
        limit: usize,
        batch: usize,
    },
    Get(Keys),
    Pin,
    Checkpoint,
    Upkeep,
    Close,
    Crash(usize),
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Absent,
    Exists,
    CurrentVersion,
    StaleVersion,
    CurrentValue,
    OtherValue,
}

fn keys() -> impl Strategy<Value = Keys> {
    (0u8..4, 0u8..9)
}

fn condition() -> impl Strategy<Value = Condition> {
    use Condition::*;
    prop::sample::select(vec![Absent, Exists, CurrentVersion, StaleVersion, CurrentValue, OtherValue])
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0u8..4, prop::option::of(0u8..3));
    prop_oneof![
        5 => (keys(), any::<u8>()).prop_map(|(k, v)| Op::Set(k, v)),
        3 => (keys(), any::<u8>(), condition()).prop_map(|(k, v, c)| Op::SetIf(k, v, c)),
        2 => keys().prop_map(Op::Delete),
        2 => range().prop_map(|(p, prefix)| Op::DeleteRange(p, prefix)),
        3 => (prop::collection::vec((keys(), any::<u8>()), 0..5), prop::collection::vec(keys(), 0..3),
              prop::option::of(range()), prop::option::of((keys(), condition())))
            .prop_map(|(sets, deletes, range, check)| Op::Batch { sets, deletes, range, check }),
        2 => (0u8..4, prop::option::of(0u8..3), 0u8..9, 0usize..12, 0usize..4)
            .prop_map(|(partition, prefix, from, limit, batch)| Op::Scan { partition, prefix, from, limit, batch }),
        1 => keys().prop_map(Op::Get),
        1 => Just(Op::Pin),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Upkeep),
        1 => Just(Op::Close),
        2 => (0usize..6).prop_map(Op::Crash),
    ]
}

fn partition(number: u8) -> &'static [u8] {
    // Prefixes of one another, bytes that need escaping, and one that an index covers.
    [&b"m"[..], b"ma", b"m\0", b"auth"][usize::from(number)]
}

fn key(number: u8) -> &'static [u8] {
    [&b"users/a"[..], b"users/b", b"users/\0", b"a", b"aa", b"a\0", b"b", b"\xff", b"\xff\xff"][usize::from(number)]
}

fn prefix(number: Option<u8>) -> &'static [u8] {
    number.map_or(b"", |number| [&b"users/"[..], b"a", b"\xff"][usize::from(number)])
}

fn value(seed: u8) -> Vec<u8> {
    // Empty, a user with an address, something that is no user.
    match seed % 4 {
        0 => Vec::new(),
        1 | 2 => vec![0x22, 2, b'a' + seed % 3, b'@'],
        _ => vec![seed; usize::from(seed)],
    }
}

struct World {
    world: SimWorld,
    base: MemoryBackend,
    settings: Settings,
    stepped: Option<Stepped>,
    model: Model,
    head: Position,
    pins: Vec<(Reader, Model)>,
}

impl World {
    fn new() -> World {
        let settings = Settings {
            segment_bytes: 64 << 10,
            min_free_bytes: Some(0),
            memtable_soft_bytes: 4 << 10,
            ..Settings::default()
        };
        let mut world = World {
            world: SimWorld::new(7),
            base: MemoryBackend::new(),
            settings,
            stepped: None,
            model: Model::new(),
            head: Position::ZERO,
            pins: Vec::new(),
        };
        world.reopen();
        world
    }

    fn reopen(&mut self) {
        self.stepped = Some(Stepped::open(&self.world, &self.base, &self.settings).unwrap());
    }

    fn store(&mut self) -> &mut Stepped {
        self.stepped.as_mut().unwrap()
    }

    fn predicate(&self, keys: Keys, condition: Condition) -> (Predicate, bool) {
        let current = self.model.get(&(partition(keys.0).to_vec(), key(keys.1).to_vec()));
        match condition {
            Condition::Absent => (Predicate::Absent, current.is_none()),
            Condition::Exists => (Predicate::Exists, current.is_some()),
            Condition::CurrentVersion => {
                let version = current.map_or(Position(1 << 40), |(version, _)| *version);
                (Predicate::Version(version), current.is_some())
            }
            Condition::StaleVersion => (Predicate::Version(Position(1 << 40)), false),
            Condition::CurrentValue => {
                let value = current.map_or(b"absent".to_vec(), |(_, value)| value.clone());
                (Predicate::Value(value.into()), current.is_some())
            }
            Condition::OtherValue => (Predicate::Value(b"no such value"[..].into()), false),
        }
    }

    /// Applies to the model and to the store, and compares the outcome.
    fn write(&mut self, batch: Batch, holds: bool, effect: impl FnOnce(&mut Model, Position)) {
        let done = self.store().write("model", batch);
        if !holds {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Conflict);
            return;
        }
        let position = done.unwrap().position;
        assert!(position == self.head.next() || position == self.head);
        effect(&mut self.model, position);
        self.head = position;
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Set(keys, seed) => {
                self.apply(Op::Batch { sets: vec![(keys, seed)], deletes: vec![], range: None, check: None })
            }
            Op::SetIf(keys, seed, condition) => self.apply(Op::Batch {
                sets: vec![(keys, seed)],
                deletes: vec![],
                range: None,
                check: Some((keys, condition)),
            }),
            Op::Delete(keys) => self.apply(Op::Batch { sets: vec![], deletes: vec![keys], range: None, check: None }),
            Op::DeleteRange(p, prefix) => {
                self.apply(Op::Batch { sets: vec![], deletes: vec![], range: Some((p, prefix)), check: None });
            }
            Op::Batch { sets, deletes, range, check } => self.batch(sets, deletes, range, check),
            Op::Scan { partition: p, prefix: pre, from, limit, batch } => {
                self.scan(p, prefix(pre), key(from), limit, batch)
            }
            Op::Get((p, k)) => {
                let found = ready(self.store().store.get(partition(p), key(k))).unwrap();
                let expected = self.model.get(&(partition(p).to_vec(), key(k).to_vec())).cloned();
                assert_eq!(found.map(|entry| (entry.version, entry.value.to_vec())), expected);
            }
            Op::Pin => {
                let reader = self.store().store.reader();
                assert_eq!(reader.position(), self.head);
                self.pins.push((reader, self.model.clone()));
            }
            Op::Checkpoint => {
                assert_eq!(self.store().checkpoint().unwrap(), self.head);
            }
            Op::Upkeep => self.store().store.shared().log.upkeep().unwrap(),
            Op::Close => {
                self.pins.clear();
                self.store().store.shared().log.close().unwrap();
                self.end_process();
            }
            Op::Crash(ending) => {
                self.pins.clear();
                self.stepped = None;
                let keep = [
                    Keep::Nothing,
                    Keep::Everything,
                    Keep::Random,
                    Keep::SizesWithoutContent,
                    Keep::ContentWithoutSizes,
                ];
                match keep.get(ending) {
                    Some(keep) => self.world.fs.crash(*keep),
                    None => self.world.fs.kill(),
                }
                self.end_process();
            }
        }
    }

    fn end_process(&mut self) {
        self.stepped = None;
        self.world.fs.kill();
        self.reopen();
        assert_eq!(self.stepped.as_ref().unwrap().store.head(), self.head);
        self.check();
    }

    fn batch(
        &mut self,
        sets: Vec<(Keys, u8)>,
        deletes: Vec<Keys>,
        range: Option<(u8, Option<u8>)>,
        check: Option<(Keys, Condition)>,
    ) {
        let mut batch = Batch::new();
        let mut writes: BTreeMap<Keys, Option<Vec<u8>>> = sets.into_iter().map(|(k, s)| (k, Some(value(s)))).collect();
        writes.extend(deletes.into_iter().map(|keys| (keys, None)));
        for (keys, value) in &writes {
            batch = match value {
                Some(value) => batch.set(partition(keys.0), key(keys.1), value),
                None => batch.delete(partition(keys.0), key(keys.1)),
            };
        }
        if let Some((p, pre)) = range {
            batch = batch.delete_range(partition(p), prefix(pre));
        }
        let mut holds = true;
        if let Some((keys, condition)) = check {
            let (predicate, result) = self.predicate(keys, condition);
            holds = result;
            batch = batch.check(partition(keys.0), key(keys.1), predicate);
        }
        self.write(batch, holds, |model, position| {
            if let Some((p, pre)) = range {
                model.retain(|(q, k), _| !(q == partition(p) && k.starts_with(prefix(pre))));
            }
            for (keys, value) in writes {
                let at = (partition(keys.0).to_vec(), key(keys.1).to_vec());
                match value {
                    Some(value) => drop(model.insert(at, (position, value))),
                    None => drop(model.remove(&at)),
                }
            }
        });
    }

    fn scan(&mut self, p: u8, prefix: &[u8], from: &[u8], limit: usize, batch: usize) {
        let options = ScanOptions::new(partition(p)).prefix(prefix).from(from).limit(limit).batch(batch);
        let mut readers: Vec<(Reader, Model)> = self.pins.clone();
        readers.push((self.store().store.reader(), self.model.clone()));
        for (reader, model) in readers {
            let found = ready(async {
                let mut stream = reader.scan(options).unwrap();
                let mut found = Vec::new();
                while let Some(entry) = stream.next().await {
                    let entry = entry.unwrap();
                    found.push((entry.key().to_vec(), entry.version, entry.value.to_vec()));
                }
                found
            });
            let expected: Vec<_> = model
                .iter()
                .filter(|((q, k), _)| q == partition(p) && k.starts_with(prefix) && &k[..] >= from)
                .take(limit)
                .map(|((_, k), (version, value))| (k.clone(), *version, value.clone()))
                .collect();
            assert_eq!(found, expected);
        }
    }

    /// Everything, and that the index says what the users say.
    fn check(&mut self) {
        let entries = self.stepped.as_ref().unwrap().entries();
        let (own, outside): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key.first() == Some(&0));
        let expected = self.model.iter().map(|((p, k), (_, value))| (Key::encode(p, k), value.clone()));
        assert_eq!(outside, expected.collect::<Vec<_>>());
        for ((p, k), (version, _)) in &self.model {
            let found = ready(self.stepped.as_ref().unwrap().store.get(p, k)).unwrap();
            assert_eq!(found.map(|entry| entry.version), Some(*version));
        }
        let mut users: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for ((p, k), (_, value)) in &self.model {
            if p == b"auth" && k.starts_with(b"users/") && value.len() == 4 && value[0] == 0x22 {
                let index_key = [b"\0\xffindex/users-by-email\0\x01", &value[2..], &[0], &k[6..]].concat();
                users.push((index_key, k.clone()));
            }
        }
        users.sort();
        assert_eq!(own, users);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_maps_that_were_acknowledged(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.check();
        world.apply(Op::Crash(0));
    }
}
