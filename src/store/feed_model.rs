//! Subscribers against a model: whatever happens between their polls, what was delivered to each is the log as its filter sees
//! it, each transaction once; and nothing that was delivered is gone after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};
use std::pin::Pin;
use std::task::Poll;

use proptest::prelude::*;

use super::feed::PAGE_TRANSACTIONS;
use super::feed_tests::{look, set_cursor};
use super::gate::trim;
use super::simulation::{Stepped, ready};
use super::submission::Command;
use super::{Batch, Context, Delivered, Delivery, Durability, Filter, Settings, SubscribeFrom, Subscription, Tx};
use crate::backends::MemoryBackend;
use crate::env::sim::{Keep, SimWorld};
use crate::event::{Event, Transaction};
use crate::types::{Error, ErrorKind, LogStamp, Position, Result};

const PARTITIONS: [&[u8]; 3] = [b"p", b"pq", b"usage"];
const KEYS: [&[u8]; 6] = [b"a", b"b", b"aa", b"ab", b"ba", b"bb"];
const PREFIXES: [&[u8]; 4] = [b"", b"a", b"b", b"ab"];
const KEEPS: [Keep; 5] =
    [Keep::Nothing, Keep::Everything, Keep::Random, Keep::SizesWithoutContent, Keep::ContentWithoutSizes];
const FILTERS: usize = 6;

fn filter(number: usize) -> Filter {
    match number {
        0 => Filter::new(),
        1 => Filter::new().prefix(b"p", b"a"),
        2 => Filter::new().partition(b"pq").kind("set"),
        3 => Filter::new().operational().internal(),
        4 => Filter::new().prefix(b"p", b"ab").partition(b"usage"),
        _ => Filter::new().partition(b"quiet"),
    }
}

/// Whether the filter of that number sees the event, said without the code under test.
fn sees(number: usize, event: &Event) -> bool {
    let own = matches!(event, Event::MarkSet { .. } | Event::MarkDeleted { .. } | Event::RequestsExpired { .. });
    let keys: Vec<(Vec<u8>, Vec<u8>)> = match event {
        Event::Set { partition, key, .. } | Event::Delete { partition, key } => {
            vec![(partition.to_vec(), key.to_vec())]
        }
        Event::DeleteRange { partition, prefix } | Event::RestoreRange { partition, prefix, .. } => {
            let covered = KEYS.iter().filter(|key| key.starts_with(prefix));
            covered.map(|key| (partition.to_vec(), key.to_vec())).collect()
        }
        _ => Vec::new(),
    };
    keys.iter().any(|(partition, key)| match number {
        0 => partition != b"usage",
        1 => partition == b"p" && key.starts_with(b"a"),
        2 => partition == b"pq" && matches!(event, Event::Set { .. }),
        3 => true,
        4 => partition == b"usage" || (partition == b"p" && key.starts_with(b"ab")),
        _ => false,
    }) || (own && number == 3)
}

#[derive(Clone, Debug)]
enum Op {
    /// Transactions of callers at the same time.
    Write(Vec<Write>),
    /// Partition, prefix, how far back.
    Restore(usize, usize, u64),
    Mark,
    SetCursor(usize),
    Poll(usize, usize),
    Reconnect(usize, Back, usize),
    Sync,
    Checkpoint,
    Trim,
    Tick(i64),
    Close,
    Kill,
    Crash(usize),
}

#[derive(Clone, Debug)]
struct Write {
    sets: Vec<(usize, usize)>,
    range: Option<(usize, usize)>,
    large: bool,
}

#[derive(Clone, Copy, Debug)]
enum Back {
    Stamp,
    Position,
    Cursor,
    Now,
}

fn write() -> impl Strategy<Value = Write> {
    let sets = prop::collection::vec((0..PARTITIONS.len(), 0..KEYS.len()), 0..4);
    let range = prop::option::weighted(0.3, (0..PARTITIONS.len(), 0..PREFIXES.len()));
    (sets, range, prop::bool::weighted(0.2)).prop_map(|(sets, range, large)| Write { sets, range, large })
}

fn op() -> impl Strategy<Value = Op> {
    use Back::*;
    let from = prop::sample::select(vec![Stamp, Stamp, Stamp, Position, Cursor, Now]);
    prop_oneof![
        8 => prop::collection::vec(write(), 1..4).prop_map(Op::Write),
        1 => (0..PARTITIONS.len(), 0..PREFIXES.len(), 0u64..20).prop_map(|(p, prefix, back)| Op::Restore(p, prefix, back)),
        1 => Just(Op::Mark),
        2 => (0..FILTERS).prop_map(Op::SetCursor),
        8 => (0..FILTERS, 1usize..6).prop_map(|(subscriber, times)| Op::Poll(subscriber, times)),
        3 => (0..FILTERS, from, any::<usize>()).prop_map(|(subscriber, from, at)| Op::Reconnect(subscriber, from, at)),
        2 => Just(Op::Sync),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Trim),
        2 => (1i64..2000).prop_map(Op::Tick),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        2 => (0..KEEPS.len()).prop_map(Op::Crash),
    ]
}

struct Subscriber {
    /// Everything up to here is no business of this subscriber: it began, or was overtaken by a trim.
    start: Position,
    subscription: Option<Subscription>,
    /// Where it may come back to, the last one last.
    stamps: Vec<LogStamp>,
    got: Vec<Delivered>,
}

struct World {
    world: SimWorld,
    base: MemoryBackend,
    settings: Settings,
    stepped: Option<Stepped>,
    /// Everything that was ever synced, by position.
    history: BTreeMap<Position, (LogStamp, Transaction)>,
    subscribers: Vec<Subscriber>,
    cursors: BTreeMap<String, LogStamp>,
    written: u64,
}

impl World {
    fn new(durability: Durability) -> World {
        let settings = Settings { durability, segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        let mut world = World {
            world: SimWorld::new(13),
            base: MemoryBackend::new(),
            settings,
            stepped: None,
            history: BTreeMap::new(),
            subscribers: Vec::new(),
            cursors: BTreeMap::new(),
            written: 0,
        };
        world.open();
        for number in 0..FILTERS {
            let subscription = world.subscribe(SubscribeFrom::Oldest, number).unwrap();
            let stamps = vec![subscription.stamp()];
            let subscription = Some(subscription);
            world.subscribers.push(Subscriber { start: Position::ZERO, subscription, stamps, got: Vec::new() });
        }
        world
    }

    fn open(&mut self) {
        self.stepped = Some(Stepped::open(&self.world, &self.base, &self.settings).unwrap());
    }

    fn store(&mut self) -> &mut Stepped {
        self.stepped.as_mut().unwrap()
    }

    fn subscribe(&mut self, from: SubscribeFrom, number: usize) -> Result<Subscription> {
        ready(self.store().store.subscribe(from, filter(number)))
    }

    /// Reads what was synced since, and that nothing of before has changed.
    fn note_history(&mut self) {
        let log = self.store().store.shared().log.clone();
        for frame in log.read(log.floor().next()).unwrap() {
            let frame = frame.unwrap();
            let stamp = LogStamp { log_id: log.id(), position: frame.position, chain: frame.chain };
            let transaction = Transaction::decode(frame.payload).unwrap();
            let noted = self.history.entry(frame.position).or_insert_with(|| (stamp, transaction.clone()));
            assert_eq!(*noted, (stamp, transaction), "what was synced is gone");
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Write(writes) => self.write(writes),
            Op::Restore(partition, prefix, back) => {
                let (floor, head) = (self.store().store.shared().log.floor(), self.store().store.head());
                let as_of = Position(head.0.saturating_sub(back)).max(floor);
                let restore =
                    move |tx: Tx| async move { tx.restore_range(PARTITIONS[partition], PREFIXES[prefix], as_of).await };
                let store = self.store().store.clone();
                self.store().one(async move { store.transact(Context::new("restorer"), restore).await }).unwrap();
            }
            Op::Mark => {
                let store = self.store().store.clone();
                self.store().one(async move { store.mark(Context::new("m"), "m", None).await }).unwrap();
            }
            Op::SetCursor(number) => {
                let stamp = *self.subscribers[number].stamps.last().unwrap();
                let store = self.store().store.clone();
                if stamp.position < store.shared().log.floor() {
                    return;
                }
                let name = format!("c{number}");
                set_cursor(self.store(), &name, stamp);
                self.cursors.insert(name, stamp);
            }
            Op::Poll(number, times) => (0..times).for_each(|_| drop(self.poll(number))),
            Op::Reconnect(number, from, at) => self.reconnect(number, from, at),
            Op::Sync => {
                let store = self.store().store.clone();
                self.store().one(async move { store.sync().await }).unwrap();
            }
            Op::Checkpoint => drop(self.store().checkpoint().unwrap()),
            Op::Trim => {
                let position = self.store().checkpoint().unwrap();
                self.note_history();
                if position > Position::ZERO {
                    trim(&self.world, self.stepped.as_ref().unwrap().store.shared(), position);
                }
            }
            Op::Tick(later) => {
                self.world.clock.advance(later);
                let stepped = self.store();
                stepped.store.shared().queue.command(Command::Tick).unwrap();
                stepped.committer.step_waiting();
            }
            Op::Close => self.close(),
            Op::Kill => self.end(|world| world.fs.kill()),
            Op::Crash(keep) => self.end(|world| world.fs.crash(KEEPS[keep])),
        }
        self.note_history();
    }

    fn write(&mut self, writes: Vec<Write>) {
        let mut callers: Vec<Pin<Box<dyn Future<Output = Result<_>>>>> = Vec::new();
        for Write { sets, range, large } in writes {
            self.written += 1;
            let mut value = self.written.to_string().into_bytes();
            value.resize(if large { 20 << 10 } else { value.len() }, b' ');
            let keys: BTreeSet<_> = sets.into_iter().collect();
            let mut batch = Batch::new();
            for (at, (partition, key)) in keys.into_iter().enumerate() {
                let (partition, key) = (PARTITIONS[partition], KEYS[key]);
                batch = if at % 3 == 2 { batch.delete(partition, key) } else { batch.set(partition, key, &value) };
            }
            if let Some((partition, prefix)) = range {
                batch = batch.delete_range(PARTITIONS[partition], PREFIXES[prefix]);
            }
            let (store, context) =
                (self.store().store.clone(), Context::new("writer").reason(self.written.to_string()));
            callers.push(Box::pin(async move { store.write(context, batch).await }));
        }
        self.world.clock.advance(10);
        for done in self.store().drive(callers) {
            done.unwrap();
        }
    }

    /// One delivery to a subscriber, or how it ended. `None` while there is nothing.
    fn poll(&mut self, number: usize) -> Option<Result<Delivery, Error>> {
        let floor = self.store().store.shared().log.floor();
        let subscriber = &mut self.subscribers[number];
        let subscription = subscriber.subscription.as_mut()?;
        let Poll::Ready(next) = look(subscription) else { return None };
        let next = next.expect("it ends with an error first");
        match &next {
            Ok(delivery) => {
                let stamp = delivery.stamp();
                assert_eq!(subscription.stamp(), stamp);
                assert!(stamp.position > subscriber.stamps.last().unwrap().position, "it went back");
                subscriber.stamps.push(stamp);
                if let Delivery::Transaction(delivered) = delivery {
                    subscriber.got.push(delivered.clone());
                }
            }
            Err(error) => {
                assert!(look(subscription).map(|none| none.is_none()) == Poll::Ready(true));
                subscriber.subscription = None;
                if error.kind() == ErrorKind::NotFound {
                    let last = subscriber.stamps.last().unwrap().position;
                    assert!(last < floor && error.message().contains(&format!("floor=`{floor}`")), "{error}");
                }
            }
        }
        self.check(number);
        if next.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            self.begin_at_floor(number);
        }
        Some(next)
    }

    /// A subscriber that a trim overtook begins anew with what there is.
    fn begin_at_floor(&mut self, number: usize) {
        let subscription = self.subscribe(SubscribeFrom::Oldest, number).unwrap();
        let stamp = subscription.stamp();
        let subscription = Some(subscription);
        self.subscribers[number] =
            Subscriber { start: stamp.position, subscription, stamps: vec![stamp], got: Vec::new() };
    }

    fn reconnect(&mut self, number: usize, from: Back, at: usize) {
        let floor = self.store().store.shared().log.floor();
        let stamps = &self.subscribers[number].stamps;
        let mut stamp = stamps[at % stamps.len()];
        let from = match from {
            Back::Stamp => SubscribeFrom::Stamp(stamp),
            Back::Position => SubscribeFrom::After(stamp.position),
            Back::Cursor => {
                let name = format!("c{number}");
                let subscriber = &self.subscribers[number];
                // Set by this subscriber, and not before it began anew or went back.
                match self.cursors.get(&name) {
                    Some(cursor) if subscriber.stamps.contains(cursor) => stamp = *cursor,
                    _ => return,
                }
                SubscribeFrom::Cursor(name)
            }
            Back::Now => {
                let subscription = self.subscribe(SubscribeFrom::Now, number).unwrap();
                let stamp = subscription.stamp();
                let subscription = Some(subscription);
                assert_eq!(stamp.position, self.store().store.synced());
                self.subscribers[number] =
                    Subscriber { start: stamp.position, subscription, stamps: vec![stamp], got: Vec::new() };
                return;
            }
        };
        match self.subscribe(from, number) {
            Ok(subscription) => {
                assert!(stamp.position >= floor);
                assert_eq!(subscription.stamp(), stamp);
                let subscriber = &mut self.subscribers[number];
                subscriber.subscription = Some(subscription);
                subscriber.stamps.retain(|seen| seen.position < stamp.position);
                subscriber.stamps.push(stamp);
                subscriber.got.retain(|delivered| delivered.position() <= stamp.position);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
                assert!(stamp.position < floor);
                self.begin_at_floor(number);
            }
        }
    }

    /// What a subscriber got is what the model says, up to where it stands.
    fn check(&mut self, number: usize) {
        self.note_history();
        let subscriber = &self.subscribers[number];
        let last = subscriber.stamps.last().unwrap().position;
        let expected = self.history.range((Excluded(subscriber.start), Included(last)));
        let expected = expected.filter_map(|(_, (stamp, transaction))| {
            let seen: Vec<Event> = transaction.events.iter().filter(|event| sees(number, event)).cloned().collect();
            let others = (transaction.events.len() - seen.len()) as u64;
            (!seen.is_empty()).then(|| (*stamp, transaction.actor.clone(), transaction.reason.clone(), seen, others))
        });
        let got = subscriber.got.iter().map(|delivered| {
            let Delivered { stamp, actor, reason, events, others, .. } = delivered.clone();
            (stamp, actor, reason, events, others)
        });
        assert_eq!(got.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "filter {number} up to {last}");
    }

    /// Everything that there is, to every subscriber.
    fn drain(&mut self) -> Vec<Option<ErrorKind>> {
        let numbers = 0..FILTERS;
        let ends = numbers.map(|number| {
            if self.subscribers[number].subscription.is_none() {
                self.begin_at_floor(number);
            }
            let end = loop {
                match self.poll(number) {
                    Some(Ok(_)) => {}
                    // It was overtaken and begins again.
                    Some(Err(error)) if error.kind() == ErrorKind::NotFound => {}
                    Some(Err(error)) => break Some(error.kind()),
                    None => break None,
                }
            };
            let (last, synced) =
                (self.subscribers[number].stamps.last().unwrap().position, self.store().store.synced());
            let silent = self.history.range((Excluded(last), Included(synced)));
            let cursors = silent.filter(|(_, (_, transaction))| {
                let cursor = |event: &Event| matches!(event, Event::CursorSet { .. });
                !transaction.events.is_empty() && transaction.events.iter().all(cursor)
            });
            let silent = synced.0 - last.0;
            assert_eq!(cursors.count() as u64, silent, "a quiet filter advances");
            assert!(silent < PAGE_TRANSACTIONS);
            end
        });
        ends.collect()
    }

    /// An orderly end: everybody gets what was synced, then hears of it.
    fn close(&mut self) {
        // Those that had ended come back before it is too late.
        self.drain();
        self.write(vec![Write { sets: vec![(0, 2), (1, 0)], range: None, large: false }]);
        let shared = self.store().store.shared().clone();
        self.store().one(async move { shared.ask(Command::Close).await }).unwrap().unwrap();
        let head = self.store().store.head();
        assert_eq!(self.store().store.synced(), head);
        assert_eq!(self.drain(), [Some(ErrorKind::Closed); FILTERS]);
        self.store().store.shared().log.close().unwrap();
        self.end(|world| world.fs.kill());
    }

    /// The process ends, and another one begins. What was delivered is there.
    fn end(&mut self, how: impl FnOnce(&SimWorld)) {
        self.note_history();
        self.subscribers.iter_mut().for_each(|subscriber| subscriber.subscription = None);
        self.stepped = None;
        how(&self.world);
        self.world.fs.kill();
        self.open();
        let cursors = ready(self.store().store.cursors()).unwrap();
        let cursors: BTreeMap<_, _> = cursors.into_iter().map(|cursor| (cursor.name, cursor.stamp)).collect();
        assert!(self.settings.durability != Durability::Sync || cursors == self.cursors);
        self.cursors = cursors;
        for number in 0..FILTERS {
            let last = self.subscribers[number].stamps.len() - 1;
            self.reconnect(number, Back::Stamp, last);
        }
    }
}

fn durability() -> impl Strategy<Value = Durability> {
    prop::sample::select(vec![Durability::Sync, Durability::None, Durability::Interval { ms: 1 }])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_is_delivered_is_the_log_as_the_filter_sees_it(
        durability in durability(),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(durability);
        for op in ops {
            world.apply(op);
        }
        prop_assert_eq!(world.drain(), [None; FILTERS]);
        world.apply(Op::Crash(0));
        world.apply(Op::Close);
    }
}
