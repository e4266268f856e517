//! The store in a simulated world: crashes at every I/O boundary of a workload, several endings each.
//!
//! No threads: the harness polls the callers, steps the committer and runs checkpoints, so a seed
//! repeats a run. The base survives every crash with its last whole write, as its contract says.
//! After each ending the four invariants of the fault catalogue are asserted: what was acknowledged
//! is there, in order, unchanged (I1); no transaction is there in part (I2); none is there twice or
//! elsewhere (I3); views rebuilt from zero equal the live ones (I4).
//!
//! A failure names the seed, the operation and the ending: `LAKELOG_SIMULATE=seed:operation:ending
//! cargo test --lib store::simulation` runs that one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::committer::Committer;
use super::open::{Existing, open_stepped};
use super::threads::Threads;
use super::{Batch, Committed, Context, Durability, Predicate, Settings, Store, checkpoint};
use crate::backends::MemoryBackend;
use crate::env::sim::{Fault, Keep, Operation, SimWorld};
use crate::event::{Event, Transaction};
use crate::types::{Error, ErrorKind, Position, Result};

const DIR: &str = "/store";

/// What waits for an answer of the store.
type Caller<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// How the world goes on after the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The process alone dies.
    Killed,
    /// The power fails.
    PowerLoss(Keep),
}

const ENDINGS: [Ending; 6] = [
    Ending::Killed,
    Ending::PowerLoss(Keep::Nothing),
    Ending::PowerLoss(Keep::Everything),
    Ending::PowerLoss(Keep::Random),
    Ending::PowerLoss(Keep::SizesWithoutContent),
    Ending::PowerLoss(Keep::ContentWithoutSizes),
];

/// A store without threads.
pub(super) struct Stepped {
    pub store: Store,
    pub committer: Committer,
}

impl Stepped {
    pub fn open(world: &SimWorld, base: &MemoryBackend, settings: &Settings) -> Result<Stepped> {
        let builder = Store::builder(DIR).settings(settings.clone());
        let builder = builder.with_env(world.env()).with_backend(Arc::new(base.clone()));
        let opened = ready(open_stepped(builder, Existing::Allowed))?;
        let store = Store::new(opened.shared.clone(), Threads::none(&opened.shared));
        Ok(Stepped { store, committer: opened.committer })
    }

    /// Polls the callers in turn and steps the committer until all are answered.
    pub fn drive<T>(&mut self, callers: Vec<Caller<'_, T>>) -> Vec<T> {
        let mut callers: Vec<_> = callers.into_iter().map(Some).collect();
        let mut answers: Vec<Option<T>> = callers.iter().map(|_| None).collect();
        // Nothing ever gets to wait for its timer, but timers need a runtime to be made.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _entered = runtime.enter();
        // Reads of the log go on beside on a thread for what blocks.
        for _ in 0..10_000_000 {
            for (caller, answer) in callers.iter_mut().zip(&mut answers) {
                if let Some(Poll::Ready(done)) = caller.as_mut().map(|caller| poll(caller.as_mut())) {
                    *caller = None;
                    *answer = Some(done);
                }
            }
            if callers.iter().all(Option::is_none) {
                return answers.into_iter().flatten().collect();
            }
            if self.committer.step_waiting() == 0 {
                std::thread::yield_now();
            }
        }
        panic!("a caller was never answered");
    }

    pub fn one<T>(&mut self, caller: impl Future<Output = T> + 'static) -> T {
        self.drive(vec![Box::pin(caller)]).remove(0)
    }

    pub fn write(&mut self, actor: &str, batch: Batch) -> Result<Committed<()>> {
        let (store, context) = (self.store.clone(), Context::new(actor));
        self.one(async move { store.write(context, batch).await })
    }

    pub fn checkpoint(&mut self) -> Result<Position> {
        let shared = self.store.shared().clone();
        self.one(async move { checkpoint::run(&shared).await })
    }

    /// Everything in the view, the store's own partitions included.
    pub fn entries(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        ready(async {
            let mut entries = self.store.reader().scan_all(true);
            let mut found = BTreeMap::new();
            while let Some(entry) = entries.next().await {
                let entry = entry.unwrap();
                found.insert(entry.encoded_key.to_vec(), entry.value.to_vec());
            }
            found
        })
    }

    /// Who wrote each transaction, in order.
    fn actors(&self) -> Vec<(Position, String, Vec<Event>)> {
        let frames = self.store.shared().log.read(Position(1)).unwrap();
        let decoded = frames.map(|frame| {
            let frame = frame.unwrap();
            let transaction = Transaction::decode(frame.payload).unwrap();
            (frame.position, transaction.actor, transaction.events)
        });
        decoded.collect()
    }
}

pub(super) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// Runs what never waits: files of the simulation and a memory base answer at once.
pub(super) fn ready<F: Future>(future: F) -> F::Output {
    match poll(pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("something waited that never should"),
    }
}

/// What became of a transaction, as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged(Position),
    Refused,
    Unknown,
}

/// One run of a workload.
struct Run {
    world: SimWorld,
    base: MemoryBackend,
    settings: Settings,
    random: StdRng,
    fates: BTreeMap<String, Fate>,
    /// The highest synced position that was ever reported.
    synced: Position,
}

impl Run {
    fn new(seed: u64, durability: Durability) -> Run {
        let settings = Settings {
            durability,
            segment_bytes: 64 << 10,
            min_free_bytes: Some(0),
            memtable_soft_bytes: 16 << 10,
            ..Settings::default()
        };
        let (world, random) = (SimWorld::new(seed), StdRng::seed_from_u64(seed));
        let (base, fates) = (MemoryBackend::new(), BTreeMap::new());
        Run { world, base, settings, random, fates, synced: Position::ZERO }
    }

    /// Does the whole workload, or as much as the world lets happen.
    fn work(&mut self) {
        for round in 0..4 {
            let Ok(mut stepped) = Stepped::open(&self.world, &self.base, &self.settings) else { return };
            for _ in 0..8 {
                self.group(&mut stepped);
                match self.random.random_range(0..6) {
                    0 => drop(stepped.checkpoint()),
                    1 => drop(stepped.store.shared().log.upkeep()),
                    2 => drop(stepped.one(stepped_sync(&stepped.store))),
                    _ => {}
                }
                self.synced = self.synced.max(stepped.store.synced());
                if self.world.fs.crashed() {
                    return;
                }
            }
            if round % 2 == 0 {
                let (store, log) = (stepped.store.clone(), stepped.store.shared().log.clone());
                drop(stepped.one(async move { store.sync().await }));
                drop(log.close());
            }
            drop(stepped);
            self.world.fs.kill();
        }
    }

    /// A few callers at once, so batches form.
    fn group(&mut self, stepped: &mut Stepped) {
        let mut callers: Vec<Caller<'_, (String, Result<Committed<()>>)>> = Vec::new();
        for _ in 0..self.random.random_range(1..5) {
            let actor = format!("t{}", self.fates.len());
            self.fates.insert(actor.clone(), Fate::Unknown);
            let (store, batch) = (stepped.store.clone(), self.batch());
            callers.push(Box::pin(async move {
                let done = store.write(Context::new(actor.clone()), batch).await;
                (actor, done)
            }));
        }
        self.world.clock.advance(self.random.random_range(-50..200));
        for (actor, done) in stepped.drive(callers) {
            self.fates.insert(actor, fate(&done));
        }
    }

    fn batch(&mut self) -> Batch {
        let partitions: [&[u8]; 3] = [b"p", b"auth", b"repo-x"];
        let mut batch = Batch::new();
        if self.random.random_range(0..6) == 0 {
            let partition = partitions[self.random.random_range(0..3)];
            batch = batch.delete_range(partition, [&b"users/a"[..], b""][self.random.random_range(0..2)]);
        }
        let mut used = BTreeSet::new();
        for _ in 0..self.random.random_range(1..4) {
            let key = format!("users/{}", ["a", "ab", "b", "c"][self.random.random_range(0..4)]);
            let partition = partitions[self.random.random_range(0..3)];
            if !used.insert((partition, key.clone())) {
                continue;
            }
            // Field 4 of a user: an address, so the index takes part. Some values span sectors.
            let address = format!("{}@x", self.random.random_range(0..5));
            let mut value = vec![0x22, address.len() as u8];
            value.extend_from_slice(address.as_bytes());
            if self.random.random_range(0..4) == 0 {
                value.extend_from_slice(&[0x2a, 0x80, 0x10]);
                value.resize(value.len() + 2048, 7);
            }
            batch = match self.random.random_range(0..8) {
                0 => batch.delete(partition, key.as_bytes()),
                1 => batch.set_if(partition, key.as_bytes(), &value, Predicate::Absent),
                2 => batch.set_if(partition, key.as_bytes(), &value, Predicate::Exists),
                _ => batch.set(partition, key.as_bytes(), &value),
            };
        }
        batch
    }

    /// Opens what is left and asserts the four invariants. Returns the operations that this took.
    fn check(&mut self) {
        let mut stepped = Stepped::open(&self.world, &self.base, &self.settings).expect("a crash is no damage");
        let log = stepped.actors();
        let times: Vec<_> = stepped.store.shared().log.read(Position(1)).unwrap().map(|f| f.unwrap().time).collect();
        assert!(times.is_sorted(), "recorded time went back");
        let mut seen = BTreeSet::new();
        for (index, (position, actor, _)) in log.iter().enumerate() {
            assert_eq!(position.0, index as u64 + 1, "positions are dense");
            assert!(seen.insert(actor.clone()), "{actor} is there twice");
            let fate = self.fates.get(actor).expect("nobody else wrote");
            assert!(*fate != Fate::Refused, "{actor} was refused and is there");
        }
        for (actor, fate) in &self.fates {
            let Fate::Acknowledged(position) = fate else { continue };
            if self.settings.durability == Durability::Sync || *position <= self.synced {
                let found = log.get(position.0 as usize - 1).map(|(_, actor, _)| actor);
                assert_eq!(found, Some(actor), "acknowledged at {position}");
            }
        }
        let live = stepped.entries();
        let expected = model(&log);
        let own = |key: &Vec<u8>| key.first() == Some(&0);
        let outside: BTreeMap<_, _> = live.iter().filter(|(key, _)| !own(key)).collect();
        assert_eq!(outside, expected.iter().collect(), "each transaction is there as a whole");
        // It goes on, and what it says next is true as well.
        let tag = format!("after{}", self.fates.len());
        let done = stepped.write(&tag, Batch::new().set(b"p", b"after", tag.as_bytes()));
        self.fates.insert(tag, fate(&done));
        let position = done.unwrap().position;
        assert_eq!(position.0, log.len() as u64 + 1);
        let live = stepped.entries();
        drop(stepped);
        self.world.fs.kill();
        let rebuilt = Stepped::open(&self.world, &MemoryBackend::new(), &self.settings).unwrap();
        assert_eq!(rebuilt.entries(), live, "rebuilt from zero equals live");
        drop(rebuilt);
        self.world.fs.kill();
    }

    fn end(&self, ending: Ending) {
        match ending {
            Ending::Killed => self.world.fs.kill(),
            Ending::PowerLoss(keep) => self.world.fs.crash(keep),
        }
    }
}

fn stepped_sync(store: &Store) -> impl Future<Output = Result<Position>> + use<> {
    let store = store.clone();
    async move { store.sync().await }
}

fn fate(done: &Result<Committed<()>, Error>) -> Fate {
    match done {
        Ok(committed) => Fate::Acknowledged(committed.position),
        Err(error) if error.kind() == ErrorKind::Unknown => Fate::Unknown,
        Err(_) => Fate::Refused,
    }
}

/// What the transactions of a log come to, worked out without the code under test.
fn model(log: &[(Position, String, Vec<Event>)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    let encode = |partition: &[u8], key: &[u8]| [partition, &[0, 1], key].concat();
    for (_, _, events) in log {
        for event in events {
            if let Event::DeleteRange { partition, prefix } = event {
                let prefix = encode(partition, prefix);
                state.retain(|key: &Vec<u8>, _| !key.starts_with(&prefix));
            }
        }
        for event in events {
            match event {
                Event::Set { partition, key, value } => drop(state.insert(encode(partition, key), value.to_vec())),
                Event::Delete { partition, key } => drop(state.remove(&encode(partition, key))),
                _ => {}
            }
        }
    }
    state
}

/// The operations that a workload takes when nothing fails.
fn operations(seed: u64, durability: Durability) -> u64 {
    let mut run = Run::new(seed, durability);
    run.work();
    let operations = run.world.fs.operations();
    run.check();
    operations
}

fn crash(seed: u64, durability: Durability, operation: u64, ending: Ending) {
    let mut run = Run::new(seed, durability);
    run.world.fs.crash_at(operation);
    let name = format!("seed={seed} durability={durability:?} operation={operation} ending={ending:?}");
    let guarded = std::panic::AssertUnwindSafe(|| {
        run.work();
        run.end(ending);
        run.check();
    });
    if let Err(panic) = std::panic::catch_unwind(guarded) {
        let ending = ENDINGS.iter().position(|known| *known == ending).unwrap_or(0);
        eprintln!("{name}: replay with LAKELOG_SIMULATE={seed}:{operation}:{ending}");
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn fault_01_crash_at_every_io_boundary() {
    if let Ok(replay) = std::env::var("LAKELOG_SIMULATE") {
        let parts: Vec<u64> = replay.split(':').map(|part| part.parse().unwrap()).collect();
        return crash(parts[0], Durability::Sync, parts[1], ENDINGS[parts[2] as usize]);
    }
    for seed in [1, 2] {
        for operation in 0..operations(seed, Durability::Sync) {
            for ending in ENDINGS {
                crash(seed, Durability::Sync, operation, ending);
            }
        }
    }
}

#[test]
fn weaker_durability_loses_only_the_unsynced_end() {
    for durability in [Durability::None, Durability::Interval { ms: 1 }] {
        for operation in 0..operations(3, durability) {
            for ending in [Ending::PowerLoss(Keep::Nothing), Ending::PowerLoss(Keep::Random)] {
                crash(3, durability, operation, ending);
            }
        }
    }
}

#[test]
fn fault_04_crash_during_recovery_repeatedly() {
    let total = operations(5, Durability::Sync);
    for operation in (0..total).step_by(7) {
        let mut run = Run::new(5, Durability::Sync);
        run.world.fs.crash_at(operation);
        run.work();
        run.end(Ending::PowerLoss(Keep::Random));
        // Each attempt gets a little further before the power fails again.
        for attempt in 0..12 {
            run.world.fs.crash_at(attempt);
            drop(Stepped::open(&run.world, &run.base, &run.settings));
            run.end(Ending::PowerLoss(Keep::Random));
        }
        run.check();
    }
}

#[test]
fn fault_10_a_failed_sync_acknowledges_nothing_more() {
    for passed in 0..12 {
        let mut run = Run::new(9, Durability::Sync);
        let mut stepped = Stepped::open(&run.world, &run.base, &run.settings).unwrap();
        for _ in 0..3 {
            run.group(&mut stepped);
        }
        run.world.fs.inject(Fault::on(Operation::Sync).path(".seg").after(passed));
        for _ in 0..16 {
            run.group(&mut stepped);
        }
        let before = stepped.entries();
        let head = stepped.store.head();
        let refused = stepped.write("late", Batch::new().set(b"p", b"late", b"x")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Closed, "{refused:?}");
        run.fates.insert("late".into(), Fate::Refused);
        // Reads go on at the last durable position.
        assert_eq!((stepped.store.head(), stepped.entries()), (head, before));
        drop(stepped);
        run.end(Ending::Killed);
        run.check();
        run.end(Ending::PowerLoss(Keep::Nothing));
        run.check();
    }
}

/// The disk fills up in the middle of batches and gets room again: what was refused is nowhere, what is
/// written next takes the positions that were free.
#[test]
fn fault_12_a_full_disk_refuses_and_resumes() {
    for seed in 20..26 {
        let mut run = Run::new(seed, Durability::Sync);
        let mut stepped = Stepped::open(&run.world, &run.base, &run.settings).unwrap();
        for round in 0..40 {
            if round % 8 == 3 {
                run.world.fs.set_capacity(run.world.fs.used());
            }
            if round % 8 == 7 {
                run.world.fs.set_capacity(1 << 40);
            }
            let before = (stepped.store.head(), stepped.entries());
            run.group(&mut stepped);
            assert!(stepped.store.head() > before.0 || stepped.entries() == before.1);
            // Bytes that fill a segment soon.
            let done = stepped.write(&format!("big{round}"), Batch::new().set(b"p", b"big", &vec![round; 30_000]));
            if let Err(error) = &done {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            }
            run.fates.insert(format!("big{round}"), fate(&done));
        }
        assert!(run.fates.values().any(|fate| *fate == Fate::Refused), "the disk was never full");
        drop(stepped);
        run.end(Ending::PowerLoss(Keep::Nothing));
        run.check();
    }
}
