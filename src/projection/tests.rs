//! The view against a naive model: at every pinned position, before and after freezes and
//! checkpoints, gets and scans show exactly what was written up to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::backends::{Backend, MemoryBackend};
use crate::types::{Hash, Key, KeyRange, LogId, Position, Stamp};

/// Memory backends never wait.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a memory backend had to wait"),
    }
}

type Model = BTreeMap<Vec<u8>, (Position, Vec<u8>)>;

#[derive(Clone, Debug)]
enum Op {
    Write { ranges: Vec<(u8, Vec<u8>)>, writes: Vec<(u8, Vec<u8>, Option<u8>)> },
    Pin,
    Unpin(usize),
    Freeze,
    Checkpoint,
    Check { page: usize, from: (u8, Vec<u8>) },
}

fn partition(number: u8) -> &'static [u8] {
    [&b"m"[..], b"ma", b"m\0"][usize::from(number % 3)]
}

fn op() -> impl Strategy<Value = Op> {
    let name = || prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0u8), Just(0xff)], 0..4);
    let key = || name().prop_map(|name| [&b"k"[..], &name].concat());
    prop_oneof![
        6 => (prop::collection::vec((0u8..3, name().prop_map(|n| n.iter().take(2).copied().collect())), 0..2),
              prop::collection::vec((0u8..3, key(), prop::option::of(any::<u8>())), 0..5))
            .prop_map(|(ranges, writes)| Op::Write { ranges, writes }),
        1 => Just(Op::Pin),
        1 => (0usize..8).prop_map(Op::Unpin),
        1 => Just(Op::Freeze),
        2 => Just(Op::Checkpoint),
        2 => (1usize..5, (0u8..3, key())).prop_map(|(page, from)| Op::Check { page, from }),
    ]
}

struct World {
    view: Arc<View>,
    backend: Arc<dyn Backend>,
    head: Position,
    model: Model,
    pins: Vec<(Pin, Model)>,
}

impl World {
    fn new() -> World {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        let view = Arc::new(View::new(backend.clone(), Position::ZERO, Arc::new(Pins::default())));
        World { view, backend, head: Position::ZERO, model: Model::new(), pins: Vec::new() }
    }

    fn write(&mut self, ranges: &[(u8, Vec<u8>)], writes: &[(u8, Vec<u8>, Option<u8>)]) {
        self.head = self.head.next();
        let mut set = WriteSet::default();
        for (number, prefix) in ranges {
            let range = KeyRange::new(partition(*number), prefix);
            self.model.retain(|key, _| !range.contains(key));
            set.ranges.push(range);
        }
        let unique: BTreeMap<_, _> = writes.iter().map(|(p, k, v)| (Key::new(partition(*p), k), *v)).collect();
        for (key, value) in unique {
            match value {
                Some(value) => self.model.insert(key.to_vec(), (self.head, vec![value])),
                None => self.model.remove(&key[..]),
            };
            set.put(key, value.as_ref().map(std::slice::from_ref));
        }
        self.view.layers().active().insert(self.head, &set);
        // Not published yet: a read must not see it.
        self.check_latest_hides(&set);
        self.view.pins().publish(self.head);
    }

    fn check_latest_hides(&self, set: &WriteSet) {
        for write in &set.writes {
            let found = now(self.view.latest(&write.key)).unwrap();
            assert!(found.is_none_or(|(version, _)| version < self.head));
        }
    }

    fn checkpoint(&self) {
        self.view.freeze(self.head);
        while let Some(table) = self.view.layers().frozen().last().cloned() {
            let layers = self.view.layers();
            let above = layers.frozen().len().checked_sub(2).and_then(|at| layers.frozen().get(at));
            let to = above.unwrap_or(layers.active()).floor();
            let keep = self.view.pins().pinned(to);
            let stamp = Stamp {
                log_id: LogId([1; 16]),
                format: Stamp::FORMAT,
                position: to,
                chain: Hash::default(),
                projections: vec![],
                history: None,
                redaction: Position::ZERO,
            };
            now(self.backend.write(&stamp, &keep, changes(table, Keep::Seen(keep.clone())))).unwrap();
            drop(layers);
            self.view.rest_on(to);
            now(self.backend.maintain(to, &self.view.pins().pinned(to))).unwrap();
        }
    }

    fn check(&self, page: usize, from: &[u8]) {
        let latest = self.view.pins().pin();
        let all = self.pins.iter().map(|(pin, model)| (pin, model)).chain([(&latest, &self.model)]);
        for (pin, model) in all {
            for key in self.pins.iter().flat_map(|(_, model)| model.keys()).chain(self.model.keys()) {
                let found = now(self.view.get(key, pin.position())).unwrap();
                assert_eq!(found.map(|(version, value)| (version, value.to_vec())), model.get(key).cloned());
            }
            let expected: Vec<_> = model.range(from.to_vec()..).map(|(k, (p, v))| (k.clone(), *p, v.clone())).collect();
            let mut scanner = Scanner::new(self.view.clone(), pin.clone(), from, Vec::new(), page);
            assert_eq!(drain(&mut scanner), expected, "scan at {}", pin.position());
            scanner.seek(&[]);
            assert_eq!(drain(&mut scanner).len(), model.len());
        }
    }
}

fn drain(scanner: &mut Scanner) -> Vec<(Vec<u8>, Position, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        let page = now(scanner.page()).unwrap();
        if page.is_empty() {
            return found;
        }
        found.extend(page.into_iter().map(|e| (e.encoded_key.to_vec(), e.version, e.value.to_vec())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_position_shows_what_was_written_up_to_it(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            match op {
                Op::Write { ranges, writes } => world.write(&ranges, &writes),
                Op::Pin => {
                    let pin = world.view.pins().pin();
                    world.pins.push((pin, world.model.clone()));
                }
                Op::Unpin(at) if at < world.pins.len() => {
                    world.pins.remove(at);
                }
                Op::Unpin(_) => {}
                Op::Freeze => world.view.freeze(world.head),
                Op::Checkpoint => world.checkpoint(),
                Op::Check { page, from: (number, key) } => world.check(page, &Key::encode(partition(number), &key)),
            }
        }
        world.check(3, &[]);
    }
}

/// A scan that is under way sees its position although checkpoints replace all layers between pages.
#[test]
fn a_scan_outlives_checkpoints() {
    let mut world = World::new();
    for key in 0..40u8 {
        world.write(&[], &[(0, vec![key], Some(key))]);
    }
    let pin = world.view.pins().pin();
    let mut scanner = Scanner::new(world.view.clone(), pin, &[], Vec::new(), 7);
    let mut seen = Vec::new();
    for key in 0.. {
        let page = now(scanner.page()).unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|entry| entry.value[0]));
        world.write(&[], &[(0, vec![39 - key], None), (0, vec![key, key], Some(0))]);
        world.checkpoint();
    }
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

#[test]
fn what_was_not_appended_is_taken_back() {
    let table = Memtable::new(Position::ZERO);
    let mut set = WriteSet::default();
    set.put(Key::new(b"p", b"k"), Some(b"1"));
    table.insert(Position(1), &set);
    let bytes = table.bytes();
    let mut lost = WriteSet { ranges: vec![KeyRange::new(b"p", b"")], writes: vec![] };
    lost.put(Key::new(b"p", b"k"), Some(b"2"));
    lost.put(Key::new(b"p", b"new"), None);
    table.insert(Position(2), &lost);
    table.insert(Position(3), &lost);
    table.retract(Position(1), &lost);
    table.retract(Position(1), &lost);
    // Else writes that a full disk refuses would fill the memory of a store that then never recovers.
    assert_eq!(table.bytes(), bytes);
    assert_eq!(table.get(&Key::new(b"p", b"k"), Position::MAX), Found::Value(Position(1), b"1"[..].into()));
    assert_eq!(table.get(&Key::new(b"p", b"new"), Position::MAX), Found::Nothing);
}

/// However many versions a key has, a look at them holds the lock for no more than so many.
#[test]
fn versions_are_handed_out_a_bounded_number_at_a_time() {
    let table = memtable::Memtable::new(Position::ZERO);
    let mut expected = Vec::new();
    for (key, count) in [(&b"a"[..], 1), (b"b", 100), (b"c", 7), (b"d", 8), (b"e", 1)] {
        let versions = (1..=count).map(|position| (Position(position * 2), position % 3 > 0));
        for (position, lives) in versions.clone() {
            let mut set = WriteSet::default();
            set.put(Key(key.into()), lives.then_some(&b"v"[..]));
            table.insert(position, &set);
        }
        expected.extend(versions.rev().map(|(position, lives)| (key.to_vec(), position, lives)));
    }
    for limit in [1, 2, 7, 8, 1_000] {
        for to in [&b""[..], b"a", b"b", b"c", b"cc", b"e"] {
            let (mut found, mut next) = (Vec::new(), Some((crate::types::Slice::from(&b""[..]), Position::MAX)));
            while let Some((from, below)) = next {
                let (versions, rest) = table.versions(&from, below, to, limit);
                assert!(versions.len() <= limit && (rest.is_none() || versions.len() == limit));
                let told = versions.into_iter().map(|(key, position, value)| (key.to_vec(), position, value.is_some()));
                found.extend(told);
                next = rest;
            }
            let expected: Vec<_> =
                expected.iter().filter(|(key, ..)| to.is_empty() || &key[..] < to).cloned().collect();
            assert_eq!(found, expected, "limit {limit} to {to:?}");
        }
    }
}
