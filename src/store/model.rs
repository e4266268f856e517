//! The store against a model of maps, with checkpoints, crashes and reopening among the operations.
//!
//! After every crash the store holds exactly what was acknowledged: each call is answered before the next
//! begins, so nothing is in flight. Readers pinned before keep seeing their position until the crash. Every position
//! of the past is what it was, whatever came after it; histories, differences, undo and rewind follow from that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;

use super::simulation::{Stepped, ready};
use super::{Batch, Context, DiffOptions, Predicate, Reader, Rewound, ScanOptions, Settings, Store};
use crate::backends::MemoryBackend;
use crate::dump::{DumpOptions, DumpSource, dump};
use crate::env::sim::{Keep, SimWorld};
use crate::log::LogFiles;
use crate::types::{ErrorKind, Key, Position};

type Keys = (u8, u8);
type Model = BTreeMap<(Vec<u8>, Vec<u8>), (Position, Vec<u8>)>;

/// What a transaction wrote: keys one by one, and ranges by partition and prefix.
#[derive(Clone, Debug, Default)]
struct Touched {
    keys: BTreeSet<(Vec<u8>, Vec<u8>)>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

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
    AsOf(usize),
    History(Keys),
    Diff(usize, usize, Option<(u8, Option<u8>)>),
    Undo(usize, usize),
    Rewind(u8, Option<u8>, usize),
    Checkpoint,
    Upkeep,
    Close,
    Crash(usize),
    /// Into a dump, and a store that is restored from it goes on instead.
    Move,
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
        1 => any::<usize>().prop_map(Op::AsOf),
        1 => keys().prop_map(Op::History),
        1 => (any::<usize>(), any::<usize>(), prop::option::of(range())).prop_map(|(a, b, r)| Op::Diff(a, b, r)),
        2 => (any::<usize>(), 0usize..3).prop_map(|(at, more)| Op::Undo(at, more)),
        1 => (range(), any::<usize>()).prop_map(|((p, prefix), at)| Op::Rewind(p, prefix, at)),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Upkeep),
        1 => Just(Op::Close),
        2 => (0usize..6).prop_map(Op::Crash),
        1 => Just(Op::Move),
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

fn value_in(model: &Model, at: &(Vec<u8>, Vec<u8>)) -> Option<Vec<u8>> {
    model.get(at).map(|(_, value)| value.clone())
}

struct World {
    world: SimWorld,
    base: MemoryBackend,
    settings: Settings,
    stepped: Option<Stepped>,
    model: Model,
    /// The model at every position, and what the transaction there wrote.
    past: Vec<(Model, Touched)>,
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
            past: vec![Default::default()],
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
    fn write(&mut self, batch: Batch, holds: bool, touched: Touched, effect: impl FnOnce(&mut Model, Position)) {
        let done = self.store().write("model", batch);
        if !holds {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Conflict);
            return;
        }
        let position = done.unwrap().position;
        assert!(position == self.head.next() || position == self.head);
        effect(&mut self.model, position);
        self.reach(position, touched);
    }

    fn reach(&mut self, position: Position, touched: Touched) {
        if position > self.head {
            self.past.push((self.model.clone(), touched));
        }
        self.head = position;
        assert_eq!(self.past.len() as u64, self.head.0 + 1);
    }

    fn position(&self, seed: usize) -> Position {
        Position((seed % self.past.len()) as u64)
    }

    fn at(&self, position: Position) -> &Model {
        &self.past[position.0 as usize].0
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
            Op::AsOf(seed) => self.as_of(self.position(seed)),
            Op::History(keys) => self.history(partition(keys.0), key(keys.1)),
            Op::Diff(a, b, range) => self.diff(self.position(a), self.position(b), range),
            Op::Undo(seed, more) => {
                let first = self.position(seed).max(Position(1)).min(self.head);
                self.undo(first, Position(first.0 + more as u64).min(self.head));
            }
            Op::Rewind(p, pre, seed) => self.rewind(partition(p), prefix(pre), self.position(seed)),
            Op::Checkpoint => {
                assert_eq!(self.store().checkpoint().unwrap(), self.head);
            }
            Op::Upkeep => self.store().store.shared().log.upkeep().unwrap(),
            Op::Close => {
                self.pins.clear();
                self.store().store.shared().log.close().unwrap();
                self.end_process();
            }
            Op::Move => self.relocate(),
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

    fn relocate(&mut self) {
        self.pins.clear();
        self.store().store.shared().log.close().unwrap();
        self.stepped = None;
        let dir = Path::new("/store");
        let files = LogFiles::open(&self.world.env(), &dir.join("log")).unwrap();
        let options = DumpOptions { compress: self.head.0.is_multiple_of(2), ..DumpOptions::default() };
        let (bytes, _) = dump(&self.world.env(), &files, options, Vec::new(), "dump", &mut |_, _| {}).unwrap();
        (self.world, self.base) = (SimWorld::new(self.head.0), MemoryBackend::new());
        let source = DumpSource::Stream { name: "dump".into(), input: Box::new(std::io::Cursor::new(bytes)) };
        let builder = Store::builder(dir).settings(self.settings.clone()).with_env(self.world.env());
        builder.restore(vec![source], false, &mut |_, _| {}).unwrap();
        self.reopen();
        assert_eq!(self.stepped.as_ref().unwrap().store.head(), self.head);
        self.check();
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
        let keys = writes.keys().map(|keys| (partition(keys.0).to_vec(), key(keys.1).to_vec())).collect();
        let mut touched = Touched { keys, ranges: Vec::new() };
        if let Some((p, pre)) = range {
            touched.cover(&self.model, partition(p), prefix(pre));
        }
        self.write(batch, holds, touched, |model, position| {
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

    fn as_of(&mut self, position: Position) {
        let store = self.store().store.clone();
        let (found, addresses) = self.store().one(async move {
            let reader = store.at(position).await.unwrap();
            let mut found = Model::new();
            let mut entries = reader.scan_all(false);
            while let Some(entry) = entries.next().await {
                let entry = entry.unwrap();
                found.insert((entry.partition(), entry.key().to_vec()), (entry.version, entry.value.to_vec()));
            }
            for ((p, k), (version, value)) in &found {
                let entry = reader.get(p, k).await.unwrap().unwrap();
                assert_eq!((entry.version, &entry.value[..]), (*version, &value[..]));
            }
            (found, reader.users_by_email("A@").await.unwrap())
        });
        let model = self.at(position);
        assert_eq!(&found, model, "as of {position}");
        let users = model
            .iter()
            .filter(|((p, k), (_, value))| p == b"auth" && k.starts_with(b"users/") && value == &[0x22, 2, b'a', b'@']);
        assert_eq!(addresses, users.map(|((_, k), _)| k.clone()).collect::<Vec<_>>(), "index as of {position}");
    }

    fn history(&mut self, p: &'static [u8], k: &'static [u8]) {
        let reader = self.store().store.reader();
        let found = self.store().one(async move {
            let mut versions = reader.history(p, k).unwrap();
            let mut of_range = reader.history_of(p, k).unwrap();
            let mut found = Vec::new();
            while let Some(version) = versions.next().await {
                let version = version.unwrap();
                assert_eq!(of_range.next().await.unwrap().unwrap(), version, "the key itself comes first");
                let origin = version.origin.unwrap();
                assert_eq!(origin.actor, "model");
                found.push((version.position, version.value.map(|value| value.to_vec())));
            }
            found
        });
        let at = (p.to_vec(), k.to_vec());
        let mut expected = Vec::new();
        for (position, pair) in self.past.windows(2).enumerate() {
            let (before, now) = (pair[0].0.get(&at), pair[1].0.get(&at));
            let position = Position(position as u64 + 1);
            match now {
                Some((version, value)) if *version == position => expected.push((position, Some(value.clone()))),
                None if before.is_some() => expected.push((position, None)),
                _ => {}
            }
        }
        assert_eq!(found, expected);
    }

    fn diff(&mut self, a: Position, b: Position, range: Option<(u8, Option<u8>)>) {
        let store = self.store().store.clone();
        let found = self.store().one(async move {
            let options = match range {
                None => DiffOptions::new(),
                Some((p, pre)) => DiffOptions::new().prefix(partition(p), prefix(pre)),
            };
            let mut differences = store.diff(a, b, options).await.unwrap();
            let mut found = Vec::new();
            while let Some(difference) = differences.next().await {
                let difference = difference.unwrap();
                let value = |entry: &Option<crate::types::Entry>| entry.as_ref().map(|entry| entry.value.to_vec());
                let at = (difference.partition(), difference.key().to_vec());
                found.push((at, value(&difference.old), value(&difference.new)));
            }
            found
        });
        let keys: BTreeSet<_> = self.at(a).keys().chain(self.at(b).keys()).cloned().collect();
        let inside =
            |(p, k): &(Vec<u8>, Vec<u8>)| range.is_none_or(|(q, pre)| p == partition(q) && k.starts_with(prefix(pre)));
        let differences = keys.into_iter().filter(inside).map(|at| {
            let (old, new) = (value_in(self.at(a), &at), value_in(self.at(b), &at));
            (at, old, new)
        });
        let expected: Vec<_> = differences.filter(|(_, old, new)| old != new).collect();
        assert_eq!(found, expected, "between {a} and {b} in {range:?}");
    }

    fn undo(&mut self, first: Position, last: Position) {
        if self.head == Position::ZERO {
            return;
        }
        let store = self.store().store.clone();
        let undo = async move {
            let plan = store.plan_undo(first, last).await.unwrap();
            (plan, store.undo(Context::new("model"), first, last).await)
        };
        let (plan, done) = self.store().one(undo);
        let mut undone = Touched::default();
        for (_, touched) in &self.past[first.0 as usize..=last.0 as usize] {
            undone.keys.extend(touched.keys.iter().cloned());
            undone.ranges.extend(touched.ranges.iter().cloned());
        }
        let later = self.past[last.0 as usize + 1..].iter().zip(last.0 + 1..);
        let dependents: Vec<Position> =
            later.filter(|((_, touched), _)| undone.meets(touched)).map(|(_, position)| Position(position)).collect();
        assert_eq!(plan.dependents.iter().map(|dependent| dependent.position).collect::<Vec<_>>(), dependents);
        if !dependents.is_empty() {
            let error = done.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.message().contains(&format!("{} wrote", dependents[0])), "{error}");
            return;
        }
        let before = self.at(first.previous()).clone();
        let mut touched = Touched { keys: BTreeSet::new(), ranges: undone.ranges.clone() };
        let position = done.unwrap().position;
        for (p, pre) in &undone.ranges {
            self.restore_range(&before, p, pre, position);
        }
        for at in undone.keys.iter().filter(|at| !undone.covers(at)) {
            touched.keys.extend(self.restore_key(&before, at, position).then(|| at.clone()));
        }
        assert_eq!(position > self.head, !touched.keys.is_empty() || !touched.ranges.is_empty());
        self.reach(position, touched);
    }

    fn rewind(&mut self, p: &'static [u8], pre: &'static [u8], to: Position) {
        let store = self.store().store.clone();
        let (plan, done) = self.store().one(async move {
            let plan = store.plan_rewind(&[(p, pre)], to).await.unwrap();
            (plan, store.rewind(Context::new("model"), &[(p, pre)], to).await.unwrap())
        });
        let before = self.at(to).clone();
        let keys: BTreeSet<_> = before.keys().chain(self.model.keys()).cloned().collect();
        let inside = keys.into_iter().filter(|(q, k)| q == p && k.starts_with(pre));
        let differing: Vec<_> = inside.filter(|at| value_in(&before, at) != value_in(&self.model, at)).collect();
        let restored = differing.iter().filter(|at| before.contains_key(*at)).count() as u64;
        let expected = Rewound { restored, removed: differing.len() as u64 - restored };
        assert_eq!((done.answer, plan), (expected, expected));
        assert_eq!(done.position > self.head, !differing.is_empty());
        let mut touched = Touched::default();
        if differing.len() > 8 && p != b"auth" {
            touched.ranges.push((p.to_vec(), pre.to_vec()));
            self.restore_range(&before, p, pre, done.position);
        } else {
            for at in differing {
                self.restore_key(&before, &at, done.position);
                touched.keys.insert(at);
            }
        }
        self.reach(done.position, touched);
    }

    fn restore_range(&mut self, before: &Model, p: &[u8], pre: &[u8], position: Position) {
        let inside = |(q, k): &(Vec<u8>, Vec<u8>)| q == p && k.starts_with(pre);
        self.model.retain(|at, _| !inside(at));
        let then = before.iter().filter(|(at, _)| inside(at));
        self.model.extend(then.map(|(at, (_, value))| (at.clone(), (position, value.clone()))));
    }

    /// Whether the key changes.
    fn restore_key(&mut self, before: &Model, at: &(Vec<u8>, Vec<u8>), position: Position) -> bool {
        let then = value_in(before, at);
        if then == value_in(&self.model, at) {
            return false;
        }
        match then {
            Some(value) => drop(self.model.insert(at.clone(), (position, value))),
            None => drop(self.model.remove(at)),
        }
        true
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
        // Positions that were restored are noted for trims.
        let own: Vec<_> = own.into_iter().filter(|(key, _)| !key.starts_with(b"\0\xffrestores\0\x01")).collect();
        assert_eq!(own, users);
    }
}

impl Touched {
    /// A range delete: where an index covers it, it is carried out key by key.
    fn cover(&mut self, model: &Model, p: &[u8], pre: &[u8]) {
        if p == b"auth" && (pre.is_empty() || pre.starts_with(b"users/")) {
            self.keys.extend(model.keys().filter(|(q, k)| q == p && k.starts_with(pre)).cloned());
        } else {
            self.ranges.push((p.to_vec(), pre.to_vec()));
        }
    }

    fn covers(&self, (p, k): &(Vec<u8>, Vec<u8>)) -> bool {
        self.ranges.iter().any(|(q, pre)| q == p && k.starts_with(pre))
    }

    fn meets(&self, other: &Touched) -> bool {
        let ranges = |a: &(Vec<u8>, Vec<u8>), b: &(Vec<u8>, Vec<u8>)| {
            a.0 == b.0 && (a.1.starts_with(&b.1) || b.1.starts_with(&a.1))
        };
        other.keys.iter().any(|at| self.keys.contains(at) || self.covers(at))
            || self.keys.iter().any(|at| other.covers(at))
            || self.ranges.iter().any(|a| other.ranges.iter().any(|b| ranges(a, b)))
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
        for position in 0..=world.head.0 {
            world.as_of(Position(position));
        }
    }
}
