//! Subscriptions as an embedder sees them, and the races that threads would hit rarely, forced step by step.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::feed::PAGE_TRANSACTIONS;
use super::gate::trim;
use super::simulation::{Stepped, poll, ready};
use super::{Batch, Context, Delivery, Durability, Filter, Settings, Store, SubscribeFrom, Subscription};
use crate::backends::MemoryBackend;
use crate::env::sim::{Fault, Operation, SimWorld};
use crate::event::{Event, Transaction, UnknownEvent};
use crate::log::Draft;
use crate::types::{Digest, Error, ErrorKind, Hash, LogId, LogStamp, Position, Result, Salt};

struct World {
    world: SimWorld,
    base: MemoryBackend,
    settings: Settings,
}

impl World {
    fn new(durability: Durability) -> World {
        let settings = Settings { durability, segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        World { world: SimWorld::new(17), base: MemoryBackend::new(), settings }
    }

    fn stepped(&self) -> Stepped {
        Stepped::open(&self.world, &self.base, &self.settings).unwrap()
    }

    async fn open(&self) -> Store {
        let builder = Store::builder("/store").settings(self.settings.clone()).with_env(self.world.env());
        builder.with_backend(Arc::new(self.base.clone())).open_or_create().await.unwrap()
    }
}

fn me() -> Context {
    Context::new("test")
}

fn set(key: u64, bytes: usize) -> Batch {
    Batch::new().set(b"p", &key.to_be_bytes(), &vec![0; bytes])
}

fn follow(stepped: &Stepped, from: SubscribeFrom, filter: Filter) -> Subscription {
    ready(stepped.store.subscribe(from, filter)).unwrap()
}

/// One poll, without a runtime: files are read in place.
pub(super) fn look(subscription: &mut Subscription) -> Poll<Option<Result<Delivery>>> {
    poll(pin!(subscription.next()))
}

/// The same for a consumer that says how far it has got.
pub(super) fn set_cursor(stepped: &mut Stepped, name: &str, stamp: LogStamp) {
    let store = stepped.store.clone();
    let mut setting = pin!(store.set_cursor(me(), name, stamp));
    while poll(setting.as_mut()).map(Result::unwrap).is_pending() {
        stepped.committer.step_waiting();
    }
}

/// What is there at once: positions of transactions, and of progress with a minus.
fn available(subscription: &mut Subscription) -> Vec<i64> {
    let mut found = Vec::new();
    while found.len() < 10_000
        && let Poll::Ready(Some(next)) = look(subscription)
    {
        found.push(match next.unwrap() {
            Delivery::Transaction(delivered) => delivered.position().0 as i64,
            Delivery::Progress(stamp) => -(stamp.position.0 as i64),
        });
    }
    found
}

fn failure(subscription: &mut Subscription) -> Error {
    let Poll::Ready(Some(Err(error))) = look(subscription) else { panic!("it goes on") };
    assert!(matches!(look(subscription), Poll::Ready(None)), "it ends after an error");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_transaction_is_delivered_once_beside_writers_checkpoints_and_reconnects() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 150;
    let world = World::new(Durability::None);
    let store = world.open().await;
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..EACH {
                let partition: &[u8] = if n % 3 == 0 { b"other" } else { b"p" };
                let batch = Batch::new().set(partition, &n.to_be_bytes(), &vec![0; (n as usize * 37) % 3000]);
                store.write(Context::new(format!("{writer}")), batch).await.unwrap();
                match n % 50 {
                    10 => drop(store.checkpoint().await.unwrap()),
                    19 | 35 | 49 => drop(store.sync().await.unwrap()),
                    _ => {}
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let expected = (0..EACH).filter(|n| n % 3 != 0).count() * WRITERS as usize;
    let followers = (0..3).map(|seed| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            let filter = Filter::new().partition(b"p");
            let mut subscription = store.subscribe(SubscribeFrom::Oldest, filter.clone()).await.unwrap();
            let mut got: Vec<Position> = Vec::new();
            let mut stamps = vec![subscription.stamp()];
            let mut reconnects = 0;
            while got.len() < expected {
                let delivery = subscription.next().await.unwrap().unwrap();
                assert!(delivery.stamp().position <= store.synced());
                stamps.push(delivery.stamp());
                if let Delivery::Transaction(delivered) = delivery {
                    got.push(delivered.position());
                }
                if reconnects < 20 && random.random_range(0..40) == 0 {
                    reconnects += 1;
                    stamps.truncate(random.random_range(0..stamps.len()) + 1);
                    let stamp = *stamps.last().unwrap();
                    got.retain(|position| *position <= stamp.position);
                    subscription = store.subscribe(SubscribeFrom::Stamp(stamp), filter.clone()).await.unwrap();
                }
            }
            got
        })
    });
    let followers: Vec<_> = followers.collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let written = store.shared().log.read(Position(1)).unwrap().map(|frame| {
        let frame = frame.unwrap();
        let events = Transaction::decode(frame.payload).unwrap().events;
        matches!(&events[..], [Event::Set { partition, .. }] if partition == "p").then_some(frame.position)
    });
    let in_log: Vec<Position> = written.flatten().collect();
    for follower in followers {
        // The log as read above ended at what was synced then.
        let got = follower.await.unwrap();
        assert_eq!(got[..in_log.len()], in_log);
        assert!(got.is_sorted_by(|a, b| a < b));
        assert_eq!(got.len(), expected);
    }
    store.close().await.unwrap();
}

/// Whatever happens between two looks of a subscriber: there is one way to read, so there is no seam.
#[test]
fn nothing_is_lost_or_repeated_at_the_seam() {
    for looks in 0..16u32 {
        let world = World::new(Durability::None);
        let mut stepped = world.stepped();
        let look = |at: u32| looks >> at & 1 == 1;
        stepped.write("w", set(1, 40 << 10)).unwrap();
        let mut subscription = follow(&stepped, SubscribeFrom::Oldest, Filter::new());
        let mut got = Vec::new();
        if look(0) {
            // It waits, with nothing synced.
            got.extend(available(&mut subscription));
            assert_eq!(got, [] as [i64; 0]);
        }
        let sync = |stepped: &mut Stepped| {
            let store = stepped.store.clone();
            stepped.one(async move { store.sync().await }).unwrap();
        };
        sync(&mut stepped);
        // The next one begins a segment, and is not synced.
        stepped.write("w", set(2, 40 << 10)).unwrap();
        if look(1) {
            got.extend(available(&mut subscription));
            // The seal of the first segment was synced, and with it everything in that.
            assert_eq!(got, [1]);
        }
        stepped.write("w", set(3, 1)).unwrap();
        stepped.checkpoint().unwrap();
        stepped.write("w", set(4, 1)).unwrap();
        if look(2) {
            got.extend(available(&mut subscription));
            assert_eq!(got, [1, 2, 3]);
        }
        sync(&mut stepped);
        if look(3) {
            got.extend(available(&mut subscription));
        }
        stepped.write("w", set(5, 1)).unwrap();
        sync(&mut stepped);
        got.extend(available(&mut subscription));
        assert_eq!(got, [1, 2, 3, 4, 5], "{looks:04b}");
    }
}

#[test]
fn a_delivery_says_who_when_why_and_how_much_else() {
    let world = World::new(Durability::Sync);
    let mut stepped = world.stepped();
    let batch =
        Batch::new().set(b"p", b"a", b"1").set(b"p", b"b", b"2").set(b"q", b"a", b"3").set(b"usage", b"a", b"4");
    let store = stepped.store.clone();
    let request = super::RequestId { id: "r".into(), digest: Digest([1; 32]) };
    stepped.one(async move { store.write(me().reason("why").request(request), batch).await }).unwrap();
    let mut subscription =
        follow(&stepped, SubscribeFrom::Oldest, Filter::new().prefix(b"p", b"b").partition(b"usage"));
    let Poll::Ready(Some(Ok(Delivery::Transaction(delivered)))) = look(&mut subscription) else { panic!() };
    let head = stepped.store.shared().log.head();
    assert_eq!(delivered.stamp, LogStamp { log_id: stepped.store.log_id(), position: Position(1), chain: head.chain });
    assert_eq!(delivered.time, head.time);
    let said = (&delivered.actor[..], delivered.reason.as_deref(), delivered.request_id.as_deref(), delivered.others);
    assert_eq!(said, ("test", Some("why"), Some("r"), 2));
    let expected = [(&b"p"[..], &b"b"[..], &b"2"[..]), (b"usage", b"a", b"4")].map(|(partition, key, value)| {
        Event::Set { partition: partition.into(), key: key.into(), value: value.into() }
    });
    assert_eq!(delivered.events, expected);
}

#[test]
fn who_is_slow_holds_up_and_costs_nobody() {
    let world = World::new(Durability::Sync);
    let mut stepped = world.stepped();
    let mut idle = follow(&stepped, SubscribeFrom::Oldest, Filter::new());
    assert!(look(&mut idle).is_pending());
    // Ten pages' worth, by bytes and by number.
    for n in 0..160 {
        stepped.write("w", set(n, 64 << 10)).unwrap();
    }
    for n in 0..3 * PAGE_TRANSACTIONS {
        stepped.write("w", set(n, 0)).unwrap();
    }
    assert_eq!(idle.held(), 0, "nothing is kept for who does not ask");
    let (mut most, mut got) = (0, 0);
    while let Poll::Ready(Some(next)) = look(&mut idle) {
        got += u64::from(matches!(next.unwrap(), Delivery::Transaction(_)));
        most = most.max(idle.held());
        if got <= 160 {
            assert!(idle.held() <= 16, "a page ends with its bytes");
        }
    }
    assert_eq!(got, 160 + 3 * PAGE_TRANSACTIONS);
    assert_eq!(most as u64, PAGE_TRANSACTIONS - 1);
}

#[test]
fn a_quiet_filter_advances() {
    let world = World::new(Durability::Sync);
    let mut stepped = world.stepped();
    for n in 0..2 * PAGE_TRANSACTIONS + 10 {
        stepped.write("w", set(n, 0)).unwrap();
    }
    let quiet = Filter::new().partition(b"quiet");
    let mut subscription = follow(&stepped, SubscribeFrom::Oldest, quiet.clone());
    let page = PAGE_TRANSACTIONS as i64;
    assert_eq!(available(&mut subscription), [-page, -2 * page, -2 * page - 10]);
    assert_eq!(available(&mut subscription), [] as [i64; 0]);
    stepped.write("w", Batch::new().set(b"quiet", b"k", b"")).unwrap();
    stepped.write("w", set(0, 0)).unwrap();
    assert_eq!(available(&mut subscription), [2 * page + 11, -2 * page - 12]);
    let mut again = follow(&stepped, SubscribeFrom::Stamp(subscription.stamp()), quiet);
    assert_eq!(available(&mut again), [] as [i64; 0]);
}

/// A consumer that stores its cursor at every delivery, beside another one that does the same.
#[test]
fn cursors_wake_no_consumer() {
    let world = World::new(Durability::Sync);
    let mut stepped = world.stepped();
    let all = Filter::new().operational().internal();
    let mut one = follow(&stepped, SubscribeFrom::Oldest, all.clone());
    let mut other = follow(&stepped, SubscribeFrom::Oldest, Filter::new().partition(b"quiet"));
    stepped.write("w", set(1, 0)).unwrap();
    let mut store = |subscription: &mut Subscription, name: &'static str| {
        let mut stored = 0;
        while let Poll::Ready(Some(next)) = look(subscription) {
            set_cursor(&mut stepped, name, next.unwrap().stamp());
            stored += 1;
            assert!(stored < 10, "it wakes itself");
        }
        stored
    };
    assert_eq!((store(&mut one, "one"), store(&mut other, "other")), (1, 1));
    assert_eq!((store(&mut one, "one"), store(&mut other, "other")), (0, 0));
    // Very many are passed with a word after all, so that who comes back does not read them again.
    for _ in 0..PAGE_TRANSACTIONS {
        set_cursor(&mut stepped, "third", one.stamp());
    }
    assert_eq!(available(&mut one).len(), 1);
    let mut again = follow(&stepped, SubscribeFrom::Cursor("other".into()), all);
    assert_eq!(again.stamp().position, Position(2), "the cursor of the first was passed, too");
    assert_eq!(available(&mut again).iter().filter(|position| **position > 0).count(), 0);
}

#[tokio::test]
async fn cursors_are_kept_and_proven() {
    let world = World::new(Durability::Sync);
    let store = world.open().await;
    store.write(me(), set(1, 40 << 10)).await.unwrap();
    store.checkpoint().await.unwrap();
    store.write(me(), set(2, 40 << 10)).await.unwrap();
    let mut subscription = store.subscribe(SubscribeFrom::Oldest, Filter::new()).await.unwrap();
    let origin = subscription.stamp();
    let first = subscription.next().await.unwrap().unwrap().stamp();
    let second = subscription.next().await.unwrap().unwrap().stamp();
    assert_eq!(store.cursor("c").await.unwrap(), None);
    let missing = store.subscribe(SubscribeFrom::Cursor("c".into()), Filter::new()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    for stamp in [origin, second, first] {
        store.set_cursor(me(), "c", stamp).await.unwrap();
        assert_eq!(store.cursor("c").await.unwrap(), Some(stamp));
    }
    store.set_cursor(me(), "b", second).await.unwrap();
    let named = |cursors: Vec<super::Cursor>| cursors.into_iter().map(|c| (c.name, c.stamp)).collect::<Vec<_>>();
    let expected = [("b".to_owned(), second), ("c".to_owned(), first)];
    assert_eq!(named(store.cursors().await.unwrap()), expected);
    store.close().await.unwrap();
    let store = world.open().await;
    assert_eq!(named(store.cursors().await.unwrap()), expected);
    let mut again = store.subscribe(SubscribeFrom::Cursor("c".into()), Filter::new()).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap().stamp(), second);
    store.delete_cursor(me(), "c").await.unwrap();
    assert_eq!(store.delete_cursor(me(), "c").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(named(store.cursors().await.unwrap()), expected[..1]);
    let head = store.head();
    let set = async |name: &str, stamp| store.set_cursor(me(), name, stamp).await.unwrap_err().kind();
    for name in ["", "a\nb", &"x".repeat(1025)] {
        assert_eq!(set(name, second).await, ErrorKind::Invalid);
    }
    trim(&world.world, store.shared(), Position(1));
    assert_eq!(set("c", origin).await, ErrorKind::NotFound);
    assert_eq!(set("c", LogStamp { chain: Hash([1; 32]), ..second }).await, ErrorKind::Conflict);
    assert_eq!(set("c", LogStamp { log_id: LogId([1; 16]), ..second }).await, ErrorKind::Conflict);
    assert_eq!(set("c", LogStamp { position: Position(99), ..second }).await, ErrorKind::Invalid);
    assert_eq!(store.head(), head, "nothing was written");
}

#[tokio::test]
async fn a_stamp_that_the_log_does_not_hold_is_refused() {
    let world = World::new(Durability::Sync);
    let store = world.open().await;
    for n in 0..4 {
        store.write(me(), set(n, 40 << 10)).await.unwrap();
        store.checkpoint().await.unwrap();
    }
    trim(&world.world, store.shared(), Position(2));
    let begin = async |from| store.subscribe(from, Filter::new()).await;
    let ours = begin(SubscribeFrom::After(Position(3))).await.unwrap().stamp();
    assert_eq!(begin(SubscribeFrom::Stamp(ours)).await.unwrap().stamp(), ours);
    let refused = [
        (SubscribeFrom::Stamp(LogStamp { log_id: LogId([1; 16]), ..ours }), ErrorKind::Conflict, "another log"),
        (SubscribeFrom::Stamp(LogStamp { chain: Hash([1; 32]), ..ours }), ErrorKind::Conflict, "another way"),
        (SubscribeFrom::Stamp(LogStamp { position: Position(2), ..ours }), ErrorKind::Conflict, "another way"),
        (SubscribeFrom::Stamp(LogStamp { position: Position(1), ..ours }), ErrorKind::NotFound, "floor=`2`"),
        (SubscribeFrom::Stamp(LogStamp { position: Position(5), ..ours }), ErrorKind::Invalid, "head=`4`"),
        (SubscribeFrom::After(Position(1)), ErrorKind::NotFound, "floor=`2`"),
        (SubscribeFrom::After(Position(5)), ErrorKind::Invalid, "head=`4`"),
        (SubscribeFrom::Cursor("none".into()), ErrorKind::NotFound, "none"),
    ];
    for (from, kind, says) in refused {
        let error = begin(from.clone()).await.unwrap_err();
        assert!(error.kind() == kind && error.message().contains(says), "{from:?}: {error:?}");
    }
    assert_eq!(begin(SubscribeFrom::Oldest).await.unwrap().stamp().position, Position(2));
    let bad = store.subscribe(SubscribeFrom::Now, Filter::new().partition(b"")).await.unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::Invalid);
    store.close().await.unwrap();
    let closed = store.subscribe(SubscribeFrom::Now, Filter::new()).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
}

/// A fork: the same positions, written again after power was lost with what was not synced.
#[test]
fn a_stamp_of_a_lost_future_is_a_conflict() {
    let world = World::new(Durability::None);
    let mut stepped = world.stepped();
    stepped.write("w", set(1, 0)).unwrap();
    let stamp = LogStamp {
        log_id: stepped.store.log_id(),
        position: Position(1),
        chain: stepped.store.shared().log.head().chain,
    };
    drop(stepped);
    world.world.fs.crash(crate::env::sim::Keep::Nothing);
    let mut stepped = world.stepped();
    let begin = |stepped: &Stepped| ready(stepped.store.subscribe(SubscribeFrom::Stamp(stamp), Filter::new()));
    assert_eq!(begin(&stepped).unwrap_err().kind(), ErrorKind::Invalid);
    stepped.write("w", set(2, 0)).unwrap();
    stepped.checkpoint().unwrap();
    assert_eq!(begin(&stepped).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn fault_30_a_trim_that_overtakes_a_subscriber_names_the_floor() {
    let world = World::new(Durability::Sync);
    let mut stepped = world.stepped();
    let mut subscription = follow(&stepped, SubscribeFrom::Oldest, Filter::new());
    for n in 0..4 {
        stepped.write("w", set(n, 40 << 10)).unwrap();
    }
    stepped.checkpoint().unwrap();
    trim(&world.world, stepped.store.shared(), Position(3));
    let error = failure(&mut subscription);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("position=`1`") && error.message().contains("floor=`3`"), "{error}");
}

#[tokio::test]
async fn a_store_that_closes_ends_subscriptions_after_what_was_synced() {
    for durability in [Durability::Sync, Durability::None] {
        let world = World::new(durability);
        let store = world.open().await;
        let mut late = store.subscribe(SubscribeFrom::Oldest, Filter::new()).await.unwrap();
        let mut waiting = store.subscribe(SubscribeFrom::Now, Filter::new()).await.unwrap();
        let waiting = tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                match waiting.next().await.unwrap() {
                    Ok(delivery) => got.push(delivery.stamp().position),
                    Err(error) => return (got, error.kind(), waiting.next().await.is_none()),
                }
            }
        });
        for n in 0..3 {
            store.write(me(), set(n, 0)).await.unwrap();
        }
        store.close().await.unwrap();
        let all = vec![Position(1), Position(2), Position(3)];
        assert_eq!(waiting.await.unwrap(), (all.clone(), ErrorKind::Closed, true));
        // Also for who asks only now.
        for position in all {
            assert_eq!(late.next().await.unwrap().unwrap().stamp().position, position);
        }
        assert_eq!(late.next().await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert!(late.next().await.is_none());
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_ends_subscriptions_and_frees_the_directory() {
    let world = World::new(Durability::None);
    let store = world.open().await;
    let mut subscription = store.subscribe(SubscribeFrom::Oldest, Filter::new()).await.unwrap();
    store.write(me(), set(1, 0)).await.unwrap();
    drop(store);
    assert_eq!(subscription.next().await.unwrap().unwrap().stamp().position, Position(1));
    assert_eq!(subscription.next().await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    // It ended, so it holds nothing, though it is still there. The threads end in their time.
    for _ in 0..1000 {
        let builder = Store::builder("/store").settings(world.settings.clone()).with_env(world.world.env());
        match builder.with_backend(Arc::new(world.base.clone())).open().await {
            Ok(store) => return store.close().await.unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
    panic!("the directory is still locked");
}

#[test]
fn what_has_to_be_understood_and_is_not_ends_the_subscription() {
    let world = World::new(Durability::Sync);
    let mut stepped = world.stepped();
    stepped.write("w", set(1, 0)).unwrap();
    let log = stepped.store.shared().log.clone();
    let append = |ignorable| {
        let unknown = UnknownEvent { kind: 99, version: 0, ignorable, minimum_reader: 3_004_005, body: "x".into() };
        let events = vec![Event::Unknown(unknown)];
        let payload = Transaction { actor: "newer".into(), events, ..Transaction::default() }.encode();
        let salt = Salt([7; 16]);
        let draft = Draft { time: log.head().time, salt, digest: Digest::of(&salt, &payload), payload };
        log.append(log.head().position, &[draft]).unwrap();
        log.sync().unwrap();
    };
    append(true);
    append(false);
    append(true);
    // What comes before is delivered, and what may be passed over is passed on.
    let mut all = follow(&stepped, SubscribeFrom::Oldest, Filter::new());
    for position in [1, 2] {
        let Poll::Ready(Some(Ok(delivery))) = look(&mut all) else { panic!() };
        assert_eq!(delivery.stamp().position, Position(position));
    }
    let mut quiet = follow(&stepped, SubscribeFrom::Oldest, Filter::new().partition(b"quiet"));
    let Poll::Ready(Some(Ok(delivery))) = look(&mut quiet) else { panic!() };
    assert_eq!(delivery.stamp().position, Position(2), "so far it got");
    for mut subscription in [all, quiet] {
        let error = failure(&mut subscription);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("needed=`3.4.5`") && error.message().contains("position=`3`"), "{error}");
    }
}

#[test]
fn fault_13_a_disk_that_fails_ends_the_subscription_and_the_stamp_goes_on() {
    let world = World::new(Durability::Sync);
    let mut stepped = world.stepped();
    for n in 0..3 {
        stepped.write("w", set(n, 40 << 10)).unwrap();
    }
    let mut subscription = follow(&stepped, SubscribeFrom::Oldest, Filter::new());
    world.world.fs.inject(Fault::on(Operation::Read).path("0002.seg"));
    let mut got = Vec::new();
    let error = loop {
        match look(&mut subscription) {
            Poll::Ready(Some(Ok(delivery))) => got.push(delivery.stamp().position.0),
            Poll::Ready(Some(Err(error))) => break error,
            _ => panic!("it was not hit"),
        }
    };
    assert_eq!((got, error.kind()), (vec![1], ErrorKind::Unavailable), "{error:?}");
    world.world.fs.heal();
    let mut again = follow(&stepped, SubscribeFrom::Stamp(subscription.stamp()), Filter::new());
    assert_eq!(available(&mut again), [2, 3]);
}

#[tokio::test]
async fn what_is_acknowledged_and_not_synced_can_be_gone_on_after() {
    let world = World::new(Durability::None);
    let store = world.open().await;
    let done = store.write(me(), set(1, 0)).await.unwrap();
    assert_eq!(store.synced(), Position::ZERO);
    let mut subscription = store.subscribe(SubscribeFrom::After(done.position), Filter::new()).await.unwrap();
    assert_eq!(store.synced(), done.position);
    store.write(me(), set(2, 0)).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(subscription.next().await.unwrap().unwrap().stamp().position, Position(2));
    store.close().await.unwrap();
}
