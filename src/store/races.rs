//! Races that threads would hit rarely, forced step by step: what the committer, a checkpoint and a chore
//! do between each other's steps.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use super::gate::{Gate, trim};
use super::open::{Existing, open_stepped};
use super::simulation::{Stepped, poll, ready};
use super::submission::Command;
use super::tests::ByFirstByte;
use super::threads::Threads;
use super::{
    Batch, Context, Durability, Predicate, Redact, RedactOptions, RequestId, ScanOptions, Settings, Store, Tx,
    checkpoint, indexing,
};
use crate::backends::MemoryBackend;
use crate::env::sim::{Fault, Operation, SimWorld};
use crate::types::{Digest, ErrorKind, Position, Result};

struct World {
    world: SimWorld,
    base: Arc<Gate>,
    settings: Settings,
}

impl World {
    fn new() -> World {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        let base = Gate::new(MemoryBackend::new());
        World { world: SimWorld::new(3), base: Arc::new(base), settings }
    }

    fn open(&self, indexed: bool) -> Stepped {
        let mut builder = Store::builder("/store").settings(self.settings.clone());
        if indexed {
            builder = builder.with_index(Arc::new(ByFirstByte));
        }
        let builder = builder.with_env(self.world.env()).with_backend(self.base.clone());
        let opened = ready(open_stepped(builder, Existing::Allowed)).unwrap();
        let store = Store::new(opened.shared.clone(), Threads::none(&opened.shared));
        Stepped { store, committer: opened.committer }
    }

    /// Ends the process, with everything that was handed to the operating system kept.
    fn kill(&self, stepped: Stepped) {
        drop(stepped);
        self.world.fs.kill();
    }
}

fn set(stepped: &mut Stepped, key: &[u8], value: &[u8]) {
    stepped.write("test", Batch::new().set(b"p", key, value)).unwrap();
}

fn index(stepped: &Stepped) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    ready(async {
        let mut entries = stepped.store.scan(ScanOptions::new(ByFirstByte::PARTITION)).unwrap();
        while let Some(entry) = entries.next().await {
            found.push(entry.unwrap().key().to_vec());
        }
    });
    found
}

fn build(stepped: &mut Stepped) -> Result<()> {
    let store = stepped.store.clone();
    stepped.one(async move { store.build_indexes().await })
}

/// A build that has read a page of the base, and waits.
fn begun_build(world: &World, stepped: &Stepped) -> Pin<Box<dyn Future<Output = Result<()>>>> {
    let store = stepped.store.clone();
    let mut building = Box::pin(async move { store.build_indexes().await });
    world.base.waits.store(true, Ordering::Relaxed);
    assert!(poll(building.as_mut()).is_pending());
    building
}

#[test]
fn an_index_that_is_built_does_not_bring_back_what_was_deleted_meanwhile() {
    let world = World::new();
    let mut stepped = world.open(false);
    set(&mut stepped, b"gone", b"x");
    set(&mut stepped, b"moved", b"y");
    set(&mut stepped, b"same", b"z1");
    stepped.checkpoint().unwrap();
    world.kill(stepped);
    let mut stepped = world.open(true);
    let building = begun_build(&world, &stepped);
    // The build has read them; now they change, and a checkpoint takes the changes out of memory.
    stepped.write("test", Batch::new().delete(b"p", b"gone")).unwrap();
    set(&mut stepped, b"moved", b"w");
    set(&mut stepped, b"same", b"z2");
    stepped.checkpoint().unwrap();
    stepped.one(building).unwrap();
    let expected = [b"wmoved".to_vec(), b"zsame".to_vec()];
    assert_eq!(index(&stepped), expected);
    world.kill(stepped);
    assert_eq!(index(&world.open(true)), expected);
}

#[test]
fn an_index_counts_as_whole_only_when_all_of_it_is_in_the_base() {
    let world = World::new();
    let mut stepped = world.open(false);
    for n in 0..20u8 {
        set(&mut stepped, &[n], &[n]);
    }
    stepped.checkpoint().unwrap();
    world.kill(stepped);
    let mut stepped = world.open(true);
    set(&mut stepped, b"new", b"\xff");
    // A checkpoint has frozen this and gets as far as writing it, but not what the build adds.
    let shared = stepped.store.shared().clone();
    stepped.one(async move { shared.ask(Command::Freeze).await }).unwrap().unwrap();
    world.base.writes_left.store(1, Ordering::Relaxed);
    assert_eq!(build(&mut stepped).unwrap_err().kind(), ErrorKind::Unavailable);
    world.kill(stepped);
    world.base.writes_left.store(usize::MAX, Ordering::Relaxed);
    let mut stepped = world.open(true);
    build(&mut stepped).unwrap();
    assert!(indexing::check_built(stepped.store.shared(), "by-first-byte", stepped.store.head()).is_ok());
    assert_eq!(index(&stepped).len(), 21);
    world.kill(stepped);
    let stepped = world.open(true);
    assert!(indexing::check_built(stepped.store.shared(), "by-first-byte", stepped.store.head()).is_ok());
    assert_eq!(index(&stepped).len(), 21);
}

#[test]
fn an_index_that_is_built_while_a_redaction_makes_the_base_anew_is_built_again() {
    let world = World::new();
    let mut stepped = world.open(false);
    set(&mut stepped, b"erased", b"x");
    set(&mut stepped, b"kept", b"y");
    stepped.checkpoint().unwrap();
    world.kill(stepped);
    let mut stepped = world.open(true);
    let building = begun_build(&world, &stepped);
    let (redacting, what) = (stepped.store.clone(), Redact::Key { partition: b"p".to_vec(), key: b"erased".to_vec() });
    let redacted =
        async move { redacting.redact_in_parts(Context::new("test"), RedactOptions::new(what), 1 << 20).await };
    stepped.one(redacted).unwrap();
    let error = stepped.one(building).unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("built again"), "{error}");
    build(&mut stepped).unwrap();
    assert!(indexing::check_built(stepped.store.shared(), "by-first-byte", stepped.store.head()).is_ok());
    assert_eq!(index(&stepped), [b"ykept".to_vec()]);
}

/// Without a history a checkpoint keeps what it found pinned; who pins a position behind that is told so, not let in to fail later.
#[test]
fn a_position_that_a_checkpoint_is_giving_up_is_unavailable_and_one_pinned_before_stays() {
    let mut world = World::new();
    world.settings.history = false;
    let mut stepped = world.open(false);
    for value in 1..=4u8 {
        set(&mut stepped, b"k", &[value]);
    }
    let store = stepped.store.clone();
    let before = ready(store.at(Position(2))).unwrap();
    let shared = store.shared().clone();
    world.base.write_waits.store(true, Ordering::Relaxed);
    let mut checkpoint = Box::pin(checkpoint::run(&shared));
    assert!(poll(checkpoint.as_mut()).is_pending());
    stepped.committer.step_waiting();
    assert!(poll(checkpoint.as_mut()).is_pending(), "it waits in the write");
    let late = ready(store.at(Position(3)));
    ready(checkpoint).unwrap();
    if let Ok(late) = &late {
        panic!("{:?}", ready(late.get(b"p", b"k")));
    }
    let error = late.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("kept_from=`4`"), "{error}");
    assert_eq!(&ready(before.get(b"p", b"k")).unwrap().unwrap().value[..], [2]);
    assert_eq!(ready(store.at(Position(3))).unwrap_err().kind(), ErrorKind::Unavailable);
    let now = ready(store.at(Position(4))).unwrap();
    assert_eq!(&ready(now.get(b"p", b"k")).unwrap().unwrap().value[..], [4]);
}

/// A list of pinned positions that is older than a checkpoint would let go of what its readers see.
#[test]
fn maintenance_lets_go_of_nothing_during_a_checkpoint() {
    let world = World::new();
    let mut stepped = world.open(false);
    set(&mut stepped, b"k", b"v");
    let shared = stepped.store.shared().clone();
    let checkpointing = shared.checkpointing.try_lock().unwrap();
    let mut maintenance = Box::pin(checkpoint::maintain(&shared));
    assert!(poll(maintenance.as_mut()).is_pending());
    drop(checkpointing);
    assert!(!ready(maintenance).unwrap());
}

#[test]
fn a_request_that_was_made_again_is_not_forgotten_by_an_old_expiry() {
    let mut world = World::new();
    world.settings.request_retention_hours = 0;
    let mut stepped = world.open(false);
    let submit = |stepped: &mut Stepped| {
        let store = stepped.store.clone();
        let context = Context::new("test").request(RequestId { id: "r".into(), digest: Digest([1; 32]) });
        stepped.one(async move { store.transact(context, |_: Tx| async { Ok(()) }).await }).unwrap().repeated
    };
    let expire = |store: Store| async move { store.expire_requests().await };
    assert!(!submit(&mut stepped));
    world.world.clock.advance(1_000);
    set(&mut stepped, b"k", b"v");
    stepped.checkpoint().unwrap();
    let mut late = Box::pin(expire(stepped.store.clone()));
    world.base.waits.store(true, Ordering::Relaxed);
    assert!(poll(late.as_mut()).is_pending());
    let store = stepped.store.clone();
    assert_eq!(stepped.one(expire(store)).unwrap(), 1);
    assert!(!submit(&mut stepped), "it was forgotten");
    // Chosen before, this must not take away what was remembered since.
    assert_eq!(stepped.one(late).unwrap(), 0);
    assert!(submit(&mut stepped), "it is remembered");
}

/// What a predicate read was written by somebody in between: it is asked again, and decides by what is there then.
#[test]
fn a_predicate_that_lost_a_race_is_asked_again() {
    let world = World::new();
    let mut stepped = world.open(false);
    for (between, holds) in [(&b"1"[..], true), (b"2", false)] {
        set(&mut stepped, b"k", b"1");
        let (store, other) = (stepped.store.clone(), stepped.store.clone());
        let write = async move { other.write(Context::new("test"), Batch::new().set(b"p", b"k", between)).await };
        let decide = async move {
            let batch = Batch::new().set_if(b"p", b"k", b"3", Predicate::Value(b"1"[..].into()));
            store.write(Context::new("test"), batch).await
        };
        let (mut write, mut decide) = (Box::pin(write), Box::pin(decide));
        // Both wait for the committer, the one that reads behind the one that writes.
        assert!(poll(write.as_mut()).is_pending() && poll(decide.as_mut()).is_pending());
        stepped.one(write).unwrap();
        let decided = stepped.one(decide);
        let found = ready(stepped.store.get(b"p", b"k")).unwrap().unwrap();
        match holds {
            true => assert_eq!((decided.unwrap().position, &found.value[..]), (found.version, &b"3"[..])),
            false => {
                assert_eq!((decided.unwrap_err().kind(), &found.value[..]), (ErrorKind::Conflict, &b"2"[..]));
            }
        }
    }
}

#[test]
fn an_interval_ends_without_a_tick() {
    let mut world = World::new();
    world.settings.durability = Durability::Interval { ms: 5 };
    let mut stepped = world.open(false);
    set(&mut stepped, b"a", b"1");
    assert_eq!(stepped.store.synced(), Position::ZERO);
    world.world.clock.advance(6_000);
    set(&mut stepped, b"b", b"2");
    assert_eq!(stepped.store.synced(), Position(2));
}

/// A million entries take half a second to free: not the committer's, which may be the last to look at them.
#[test]
fn a_memtable_is_not_freed_by_whoever_looks_at_it_last() {
    let world = World::new();
    let mut stepped = world.open(false);
    set(&mut stepped, b"k", b"v");
    let shared = stepped.store.shared().clone();
    let looked_at = shared.view.layers();
    let table = Arc::downgrade(looked_at.active());
    stepped.checkpoint().unwrap();
    drop(looked_at);
    assert!(table.upgrade().is_some());
    assert!(checkpoint::free_retired(&shared));
    assert!(table.upgrade().is_none());
}

#[test]
fn a_base_that_stands_at_the_floor_is_sound() {
    let world = World::new();
    let mut stepped = world.open(false);
    // One segment for each.
    set(&mut stepped, b"a", &[1; 40 << 10]);
    stepped.checkpoint().unwrap();
    set(&mut stepped, b"b", &[2; 40 << 10]);
    trim(&world.world, stepped.store.shared(), Position(1));
    let before = stepped.entries();
    world.kill(stepped);
    assert_eq!(world.open(false).entries(), before);
}

#[tokio::test]
async fn close_waits_for_the_checkpoint_that_runs() {
    let world = World::new();
    let builder = Store::builder("/store").settings(world.settings.clone());
    let store = builder.with_env(world.world.env()).with_backend(world.base.clone()).create().await.unwrap();
    let shared = store.shared().clone();
    let checkpointing = shared.checkpointing.lock().await;
    // Until then another process must not get the directory of the base.
    let closed = tokio::time::timeout(std::time::Duration::from_millis(200), store.close()).await;
    assert!(closed.is_err());
    drop(checkpointing);
    store.close().await.unwrap();
}

/// One attempt of a transaction that reads `hot`, and a write that makes it lose.
fn lose(stepped: &mut Stepped, mut slow: Pin<&mut impl Future>) {
    assert!(poll(slow.as_mut()).is_pending());
    set(stepped, b"hot", b"x");
    assert!(poll(slow).is_pending());
    stepped.committer.step_waiting();
}

#[test]
fn a_lane_that_was_lost_to_time_is_taken_again() {
    let world = World::new();
    let mut stepped = world.open(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let store = stepped.store.clone();
    let read_hot = |tx: Tx| async move {
        tx.get(b"p", b"hot").await?;
        // Each attempt takes long enough for others to get in between.
        let mut waited = false;
        poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        tx.set(b"p", b"cold", b"")
    };
    let mut slow = Box::pin(store.transact(Context::new("slow"), read_hot));
    for lane in 0..2 {
        (0..3).for_each(|_| lose(&mut stepped, slow.as_mut()));
        // It asks for the lane and gets it.
        assert!(poll(slow.as_mut()).is_pending());
        stepped.committer.step_waiting();
        if lane == 0 {
            (0..30).for_each(|_| stepped.store.shared().queue.command(Command::Tick).unwrap());
            stepped.committer.step_waiting();
        }
    }
    assert!(poll(slow.as_mut()).is_pending());
    let mut rival = Box::pin(store.write(Context::new("rival"), Batch::new().set(b"p", b"hot", b"y")));
    for _ in 0..2 {
        assert!(poll(rival.as_mut()).is_pending(), "it has to wait");
        stepped.committer.step_waiting();
    }
    assert!(poll(slow.as_mut()).is_pending());
    stepped.committer.step_waiting();
    assert!(matches!(poll(slow.as_mut()), Poll::Ready(Ok(_))));
    assert!(matches!(poll(rival.as_mut()), Poll::Ready(Ok(_))));
}

/// However much is written beside what the holder of the lane reads, and whatever a checkpoint takes away meanwhile.
#[test]
fn the_holder_of_the_lane_loses_to_nothing_unrelated() {
    let world = World::new();
    let mut stepped = world.open(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let store = stepped.store.clone();
    let scan_hot = |tx: Tx| async move {
        let hot = tx.scan(ScanOptions::new(b"p").prefix(b"hot")).await?.len() as u64;
        let mut waited = false;
        poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }).await;
        tx.set(b"p", b"cold", b"")?;
        Ok(hot)
    };
    let mut slow = Box::pin(store.transact(Context::new("slow"), scan_hot));
    (0..3).for_each(|_| lose(&mut stepped, slow.as_mut()));
    assert!(poll(slow.as_mut()).is_pending());
    stepped.committer.step_waiting();
    // It has the lane, and reads.
    assert!(poll(slow.as_mut()).is_pending());
    for batch in 0..70u32 {
        let keys = (0..1000u32).map(|n| [batch.to_be_bytes(), n.to_be_bytes()].concat());
        let others = keys.fold(Batch::new(), |others, key| others.set(b"others", &key, b""));
        stepped.write("others", others).unwrap();
    }
    stepped.checkpoint().unwrap();
    assert!(poll(slow.as_mut()).is_pending());
    stepped.committer.step_waiting();
    assert!(matches!(poll(slow.as_mut()), Poll::Ready(Ok(done)) if done.answer == 1));
}

#[test]
fn closing_a_latched_log_gives_the_directory_back() {
    let world = World::new();
    let mut stepped = world.open(false);
    set(&mut stepped, b"a", b"1");
    world.world.fs.inject(Fault::on(Operation::Sync).path(".seg"));
    let failed = stepped.write("test", Batch::new().set(b"p", b"b", b"2")).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unknown);
    world.world.fs.heal();
    assert_eq!(stepped.store.shared().log.close().unwrap_err().kind(), ErrorKind::Closed);
    // The old handle still reads; another one opens and writes.
    let mut again = world.open(false);
    set(&mut again, b"c", b"3");
    assert_eq!(ready(stepped.store.get(b"p", b"a")).unwrap().unwrap().version, Position(1));
}
