//! Recorded histories of clients that race on threads of their own while the disk crashes under them, and the proof that each is
//! strictly serializable.
//!
//! The position in the log is the certificate: replayed in its order, every transaction must have read what it says it read, and
//! who had his answer before another one began must come first. That is checked here, in time linear in the history. With
//! `LAKELOG_HISTORIES=DIR` the histories of the key/value contract are written there too, without positions, for a checker that
//! knows nothing of this store (`scripts/linearizability`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lakelog::env::sim::{Keep, SimWorld};
use lakelog::event::{Event, Transaction};
use lakelog::log::{Check, LogFiles};
use lakelog::{
    At, Context, ErrorKind, KeyValue, Kv, KvError, KvPredicate, KvScan, MemoryBackend, Position, ScanOptions, Settings,
    Store, Tx,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};
use tokio_stream::StreamExt as _;

const CLIENTS: u64 = 8;
const LIVES: u64 = 5;
/// Calls of a client in one life of the store.
const CALLS: u64 = 40;
const DIR: &str = "/store";

/// A moment, as everybody agrees: later calls have greater ones.
type Stamp = u64;

/// A world in which a store lives several times.
struct World {
    sim: SimWorld,
    base: MemoryBackend,
    stamps: AtomicU64,
    runtime: Runtime,
}

/// A client's call, and what its client knows of it.
struct Call<P, O> {
    /// Names it in the log.
    actor: String,
    client: u64,
    invoked: Stamp,
    /// When it was answered. Without an answer: when the store that could have carried it out was gone.
    ended: Stamp,
    plan: P,
    outcome: O,
}

/// One transaction of the log.
struct Logged {
    actor: String,
    events: Vec<Event>,
}

/// Keys with values and the positions that wrote them.
type State = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

impl World {
    fn new(seed: u64) -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        World { sim: SimWorld::new(seed), base: MemoryBackend::new(), stamps: AtomicU64::new(0), runtime }
    }

    fn stamp(&self) -> Stamp {
        self.stamps.fetch_add(1, Ordering::SeqCst)
    }

    fn open(&self) -> Store {
        let settings = Settings {
            segment_bytes: 64 << 10,
            min_free_bytes: Some(0),
            memtable_soft_bytes: 8 << 10,
            scrub_bytes_per_second: 0,
            ..Settings::default()
        };
        let builder = Store::builder(DIR).settings(settings).with_env(self.sim.env());
        self.runtime.block_on(builder.with_backend(Arc::new(self.base.clone())).open_or_create()).unwrap()
    }

    /// Lets clients call a store that dies under them, again and again. Each client gets its number and its own randomness.
    fn record<P, O, F>(&self, seed: u64, crashes: bool, client: F) -> Vec<Call<P, O>>
    where
        P: Send,
        O: Send,
        F: Fn(&Handle, &Store, &mut StdRng, String) -> (P, O, bool) + Sync,
    {
        let history = Mutex::new(Vec::new());
        let mut random = StdRng::seed_from_u64(seed);
        for life in 0..LIVES {
            let store = self.open();
            if crashes {
                self.sim.fs.crash_at(random.random_range(20..250));
            }
            let of_life = Mutex::new(Vec::new());
            thread::scope(|scope| {
                for number in 0..CLIENTS {
                    let mut random = StdRng::seed_from_u64(seed << 32 | life << 8 | number);
                    let (store, client, of_life) = (&store, &client, &of_life);
                    scope.spawn(move || {
                        for call in 0..CALLS {
                            let actor = format!("{life}-{number}-{call}");
                            let invoked = self.stamp();
                            let (plan, outcome, answered) =
                                client(self.runtime.handle(), store, &mut random, actor.clone());
                            let ended = if answered { self.stamp() } else { Stamp::MAX };
                            let call = Call { actor, client: number, invoked, ended, plan, outcome };
                            of_life.lock().unwrap().push(call);
                        }
                    });
                }
                scope.spawn(|| {
                    for _ in 0..4 {
                        // Fails when the disk is gone.
                        let _ = self.runtime.block_on(store.checkpoint());
                    }
                });
            });
            // With a store that is gone nothing is carried out any more: its threads have ended.
            let _ = self.runtime.block_on(store.close());
            drop(store);
            if self.sim.fs.crashed() || random.random_bool(0.5) {
                self.sim.fs.crash(if random.random_bool(0.5) { Keep::Nothing } else { Keep::Random });
            } else {
                self.sim.fs.kill();
            }
            let gone = self.stamp();
            let mut calls = of_life.into_inner().unwrap();
            for call in &mut calls {
                call.ended = call.ended.min(gone);
            }
            history.lock().unwrap().append(&mut calls);
        }
        history.into_inner().unwrap()
    }

    /// What the log holds in the end, by position from 1 on.
    fn log(&self) -> Vec<Logged> {
        self.runtime.block_on(self.open().close()).unwrap();
        let files = LogFiles::open(&self.sim.env(), &Path::new(DIR).join("log")).unwrap();
        let mut log = Vec::new();
        for frame in files.frames(Position(1), Check::Chain).unwrap() {
            let frame = frame.unwrap();
            let Transaction { actor, events, .. } = Transaction::decode(frame.payload).unwrap();
            log.push(Logged { actor, events });
            assert_eq!(frame.position.0, log.len() as u64, "positions are dense");
        }
        log
    }
}

/// The states after each position, that of nothing first.
fn states(log: &[Logged]) -> Vec<State> {
    let mut states = vec![State::new()];
    for (at, logged) in log.iter().enumerate() {
        let mut state = states[at].clone();
        for event in &logged.events {
            if let Event::DeleteRange { prefix, .. } = event {
                state.retain(|key, _| !key.starts_with(prefix));
            }
        }
        for event in &logged.events {
            match event {
                Event::Set { key, value, .. } => {
                    drop(state.insert(key.to_vec(), (value.to_vec(), at as u64 + 1)));
                }
                Event::Delete { key, .. } => drop(state.remove(&key[..])),
                _ => {}
            }
        }
        states.push(state);
    }
    states
}

/// Where each transaction of the log stands; each is there once.
fn positions(log: &[Logged]) -> Result<BTreeMap<&str, u64>, String> {
    let mut positions = BTreeMap::new();
    for (at, logged) in log.iter().enumerate() {
        if let Some(before) = positions.insert(&logged.actor[..], at as u64 + 1) {
            return Err(format!("{} is at {before} and at {}", logged.actor, at + 1));
        }
    }
    Ok(positions)
}

/// Goes through a history in the order of time. `place` gives a call its place: a change stands at its position, a read after some
/// position, not below the last that was answered before it began. `None` is a call that had no effect and saw nothing.
fn in_real_time<P, O>(
    history: &[Call<P, O>],
    mut place: impl FnMut(&Call<P, O>, u64) -> Result<Option<u64>, String>,
) -> Result<(), String> {
    // Moments: a call begins, or one that has a place ends.
    let mut begins: BTreeMap<Stamp, &Call<P, O>> = history.iter().map(|call| (call.invoked, call)).collect();
    let mut ends: BTreeMap<Stamp, u64> = BTreeMap::new();
    let mut answered = 0;
    while let Some((invoked, call)) = begins.pop_first() {
        while let Some(entry) = ends.first_entry().filter(|entry| *entry.key() < invoked) {
            answered = answered.max(entry.remove());
        }
        if let Some(place) = place(call, answered)? {
            // Those of one life that got no answer end together.
            let last = ends.entry(call.ended).or_default();
            *last = (*last).max(place);
        }
    }
    Ok(())
}

/// What a transaction reads, and writes then: what it saw.
#[derive(Clone, Debug)]
struct Plan {
    key: String,
    prefix: String,
    from: String,
    limit: usize,
    deletes: Option<String>,
    deletes_range: Option<String>,
    writes: Vec<String>,
}

/// What became of a transaction.
#[derive(Debug)]
enum Fate {
    /// It is at this position (one that wrote nothing: read there), and had seen this.
    Committed(u64, String),
    /// It was not carried out.
    Refused,
    Unknown,
}

const PARTITION: &[u8] = b"p";

impl Plan {
    fn new(random: &mut StdRng) -> Plan {
        let key = |random: &mut StdRng| {
            format!("{}{}", ["a", "b"][random.random_range(0..2)], ["", "a", "b", "c"][random.random_range(0..4)])
        };
        let reads_only = random.random_bool(0.2);
        let writes = if reads_only { 0 } else { random.random_range(1..3) };
        Plan {
            key: key(random),
            prefix: ["", "a", "b"][random.random_range(0..3)].to_owned(),
            from: key(random),
            limit: random.random_range(1..5),
            deletes: (!reads_only && random.random_bool(0.3)).then(|| key(random)),
            deletes_range: (!reads_only && random.random_bool(0.1))
                .then(|| ["a", "b"][random.random_range(0..2)].to_owned()),
            writes: (0..writes).map(|_| key(random)).collect(),
        }
    }

    fn reads_only(&self) -> bool {
        self.writes.is_empty()
    }

    async fn run(self, tx: Tx) -> lakelog::Result<String> {
        let found = tx.get(PARTITION, self.key.as_bytes()).await?;
        let mut saw = format!("{:?}", found.map(|entry| entry.version.0));
        let options = ScanOptions::new(PARTITION).prefix(self.prefix.as_bytes()).from(self.from.as_bytes());
        for entry in tx.scan(options.limit(self.limit)).await? {
            write!(saw, " {}@{}", entry.key().escape_ascii(), entry.version).unwrap();
        }
        if let Some(prefix) = &self.deletes_range {
            tx.delete_range(PARTITION, prefix.as_bytes()).await?;
        }
        if let Some(key) = &self.deletes {
            tx.delete(PARTITION, key.as_bytes())?;
        }
        for key in &self.writes {
            tx.set(PARTITION, key.as_bytes(), saw.as_bytes())?;
        }
        Ok(saw)
    }

    /// What it must have seen in a state.
    fn sees(&self, state: &State) -> String {
        let mut saw = format!("{:?}", state.get(self.key.as_bytes()).map(|(_, version)| version));
        let range =
            state.iter().filter(|(key, _)| key.starts_with(self.prefix.as_bytes()) && &key[..] >= self.from.as_bytes());
        for (key, (_, version)) in range.take(self.limit) {
            write!(saw, " {}@{version}", key.escape_ascii()).unwrap();
        }
        saw
    }
}

fn fate(done: lakelog::Result<(u64, String)>) -> Fate {
    match done {
        Ok((position, saw)) => Fate::Committed(position, saw),
        Err(error) if error.kind() == ErrorKind::Unknown => Fate::Unknown,
        Err(error) if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unavailable) => Fate::Refused,
        Err(error) => panic!("{}", error.report()),
    }
}

/// The certificate of a history of transactions.
fn certify(history: &[Call<Plan, Fate>], log: &[Logged]) -> Result<(), String> {
    let (states, positions) = (states(log), positions(log)?);
    let known: BTreeMap<&str, &Call<Plan, Fate>> = history.iter().map(|call| (&call.actor[..], call)).collect();
    for (at, logged) in log.iter().enumerate() {
        let call = known.get(&logged.actor[..]).ok_or_else(|| format!("{} never called", logged.actor))?;
        if matches!(call.outcome, Fate::Refused) {
            return Err(format!("{} was refused and is at {}", logged.actor, at + 1));
        }
        // What it wrote down is what it saw, also where its caller never heard of it.
        let expected = call.plan.sees(&states[at]);
        for event in &logged.events {
            if let Event::Set { value, .. } = event
                && *value != expected.as_bytes()
            {
                return Err(format!("{} at {} saw {}, not {expected}", call.actor, at + 1, value.escape_ascii()));
            }
        }
    }
    in_real_time(history, |call, answered| {
        let found = positions.get(&call.actor[..]).copied();
        let place = match (&call.outcome, found) {
            (Fate::Committed(at, saw), None) if call.plan.reads_only() => {
                let expected = states.get(*at as usize).map(|state| call.plan.sees(state));
                if expected.as_ref() != Some(saw) {
                    return Err(format!("{} read at {at} and saw {saw}, not {expected:?}", call.actor));
                }
                // After what it read, before the next: it may share a position with what was answered before.
                return if *at >= answered { Ok(Some(*at)) } else { Err(late(call, *at, answered)) };
            }
            (Fate::Committed(at, _), Some(found)) if *at == found => found,
            (Fate::Committed(at, _), found) => return Err(format!("{} is at {found:?}, not at {at}", call.actor)),
            (Fate::Unknown, Some(found)) => found,
            (Fate::Unknown | Fate::Refused, _) => return Ok(None),
        };
        if place > answered { Ok(Some(place)) } else { Err(late(call, place, answered)) }
    })
}

fn late<P, O>(call: &Call<P, O>, place: u64, answered: u64) -> String {
    format!("{} stands at {place}, but began after {answered} was answered", call.actor)
}

/// Transactions of racing clients.
fn transactions(seed: u64) -> (Vec<Call<Plan, Fate>>, Vec<Logged>) {
    let world = World::new(seed);
    let history = world.record(seed, true, |runtime, store, random, actor| {
        let plan = Plan::new(random);
        let done = runtime.block_on(async {
            let done = store.transact(Context::new(actor), |tx| plan.clone().run(tx)).await?;
            Ok((done.position.0, done.answer))
        });
        let fate = fate(done);
        let answered = !matches!(fate, Fate::Unknown);
        (plan, fate, answered)
    });
    let log = world.log();
    (history, log)
}

#[test]
fn fault_25_racing_transactions_are_serializable_in_the_order_of_the_log() {
    let (mut committed, mut unknown) = (0, 0);
    for seed in 0..10 {
        let (history, log) = transactions(seed);
        certify(&history, &log).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        committed += log.len();
        unknown += history.iter().filter(|call| matches!(call.outcome, Fate::Unknown)).count();
    }
    assert!(committed > 1000 && unknown > 10, "committed {committed}, unknown {unknown}");
}

/// A certificate that nothing violates certifies nothing.
#[test]
fn a_history_that_was_tampered_with_has_no_certificate() {
    let (mut history, log) = transactions(77);
    certify(&history, &log).unwrap();
    let find = |history: &[Call<Plan, Fate>], reads_only: bool| {
        let fits = |call: &Call<Plan, Fate>| {
            call.plan.reads_only() == reads_only && matches!(call.outcome, Fate::Committed(at, _) if at > 40)
        };
        history.iter().position(fits).unwrap()
    };
    // A read that is older than it may be; an answer that was given before the call of what it follows; one that is lost.
    let read = find(&history, true);
    let Fate::Committed(at, saw) = &history[read].outcome else { unreachable!() };
    let (at, saw) = (*at, saw.clone());
    let older = states(&log)[..at as usize].iter().map(|state| history[read].plan.sees(state)).collect::<Vec<_>>();
    history[read].outcome = Fate::Committed(5, older[5].clone());
    assert!(certify(&history, &log).unwrap_err().contains("was answered"));
    history[read].outcome = Fate::Committed(at, format!("{saw} and more"));
    assert!(certify(&history, &log).unwrap_err().contains("saw"));
    history[read].outcome = Fate::Committed(at, saw);
    certify(&history, &log).unwrap();
    let wrote = find(&history, false);
    let (invoked, ended) = (history[wrote].invoked, history[wrote].ended);
    (history[wrote].invoked, history[wrote].ended) = (Stamp::MAX - 1, Stamp::MAX);
    assert!(certify(&history, &log).unwrap_err().contains("was answered"));
    (history[wrote].invoked, history[wrote].ended) = (invoked, ended);
    history[wrote].outcome = Fate::Refused;
    assert!(certify(&history, &log).unwrap_err().contains("was refused"));
}

/// One call of the key/value contract.
#[derive(Clone, Debug)]
enum KvPlan {
    Get { key: String },
    Set { key: String, value: String },
    SetIf { key: String, value: String, expected: Expected },
    Delete { key: String },
    Scan { from: String },
}

/// A predicate. Values are never written twice, so a token says the same as the value it came with.
#[derive(Clone, Debug)]
enum Expected {
    Absent,
    Exists,
    Value(String),
}

/// What became of it.
#[derive(Clone, Debug)]
enum KvFate {
    Found(Option<String>),
    Entries(Vec<(String, String)>),
    Done,
    PredicateFailed,
    Refused,
    Unknown,
}

/// How a client gets what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Sound,
    /// The bug that the checkers must find: a read of a while ago.
    Stale,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One client's call through the contract.
async fn call(store: &Store, random: &mut StdRng, actor: String, reads: Reads) -> (KvPlan, KvFate) {
    let kv = Kv::new(store.clone(), actor.clone());
    let key = ["a", "b", "c", "d"][random.random_range(0..4)].to_owned();
    let value = actor;
    match random.random_range(0..10) {
        0..3 => {
            let found = match reads {
                Reads::Sound => match kv.get(PARTITION, key.as_bytes()).await {
                    Ok(found) => Ok(Some(text(&found.value))),
                    Err(KvError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                },
                Reads::Stale => {
                    let past = store.at(At::Position(Position(store.head().0.saturating_sub(20)))).await.unwrap();
                    let found = past.get(PARTITION, key.as_bytes()).await.unwrap();
                    Ok(found.map(|entry| text(&entry.value)))
                }
            };
            (KvPlan::Get { key }, found.map_or_else(kv_fate, KvFate::Found))
        }
        3..5 => {
            let done = kv.set(PARTITION, key.as_bytes(), Some(value.as_bytes())).await;
            (KvPlan::Set { key, value }, done.map_or_else(kv_fate, |()| KvFate::Done))
        }
        5..8 => {
            let (expected, predicate) = match random.random_range(0..4) {
                0 => (Expected::Absent, KvPredicate::Absent),
                1 => (Expected::Exists, KvPredicate::Exists),
                chosen => match kv.get(PARTITION, key.as_bytes()).await {
                    Ok(found) if chosen == 2 => (Expected::Value(text(&found.value)), found.predicate),
                    Ok(found) => {
                        let value = text(&found.value);
                        (Expected::Value(value.clone()), KvPredicate::Value(value.into()))
                    }
                    Err(_) => (Expected::Absent, KvPredicate::Absent),
                },
            };
            let done = kv.set_if(PARTITION, key.as_bytes(), Some(value.as_bytes()), &predicate).await;
            (KvPlan::SetIf { key, value, expected }, done.map_or_else(kv_fate, |()| KvFate::Done))
        }
        8 => {
            let done = kv.delete(PARTITION, key.as_bytes()).await;
            (KvPlan::Delete { key }, done.map_or_else(kv_fate, |()| KvFate::Done))
        }
        _ => {
            let done = scan(&kv, &key).await;
            (KvPlan::Scan { from: key }, done.map_or_else(kv_fate, KvFate::Entries))
        }
    }
}

async fn scan(kv: &Kv, from: &str) -> Result<Vec<(String, String)>, KvError> {
    let mut entries = kv.scan(PARTITION, KvScan { key_start: from.as_bytes(), batch_size: 2 }).await?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        found.push((text(&entry.key()), text(&entry.value)));
    }
    Ok(found)
}

fn kv_fate(error: KvError) -> KvFate {
    match error {
        KvError::PredicateFailed { .. } => KvFate::PredicateFailed,
        error if error.kind() == ErrorKind::Unknown => KvFate::Unknown,
        error if matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unavailable) => KvFate::Refused,
        error => panic!("{error:?}"),
    }
}

type KvCall = Call<KvPlan, KvFate>;

impl KvPlan {
    /// Whether the answer is one that this state gives. A change that was done has a position, so it is not asked.
    fn fits(&self, fate: &KvFate, state: &State) -> bool {
        let value = |key: &str| state.get(key.as_bytes()).map(|(value, _)| &value[..]);
        match (self, fate) {
            (KvPlan::Get { key }, KvFate::Found(found)) => value(key) == found.as_ref().map(String::as_bytes),
            (KvPlan::SetIf { key, expected, .. }, KvFate::PredicateFailed) => !expected.holds(value(key)),
            (KvPlan::Scan { from }, KvFate::Entries(found)) => {
                let entries = state.range(from.as_bytes().to_vec()..).map(|(key, (value, _))| (&key[..], &value[..]));
                entries.eq(found.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())))
            }
            _ => false,
        }
    }
}

impl Expected {
    fn holds(&self, value: Option<&[u8]>) -> bool {
        match self {
            Expected::Absent => value.is_none(),
            Expected::Exists => value.is_some(),
            Expected::Value(expected) => value == Some(expected.as_bytes()),
        }
    }
}

/// The certificate of a history of the key/value contract: changes stand where the log has them, and each read stands at the first
/// place that real time allows and that gives its answer. If there is an order at all, this finds one: a read that stands as low
/// as it may is in nobody's way.
fn certify_kv(history: &[KvCall], log: &[Logged]) -> Result<(), String> {
    let (states, positions) = (states(log), positions(log)?);
    in_real_time(history, |call, answered| {
        match (&call.outcome, positions.get(&call.actor[..]).copied()) {
            (KvFate::Done | KvFate::Unknown, Some(found)) if found <= answered => Err(late(call, found, answered)),
            (KvFate::Done | KvFate::Unknown, Some(found)) => {
                // A change on a condition was right to be made.
                match &call.plan {
                    KvPlan::SetIf { key, expected, .. }
                        if !expected
                            .holds(states[found as usize - 1].get(key.as_bytes()).map(|(value, _)| &value[..])) =>
                    {
                        Err(format!("{} at {found}: {expected:?} did not hold", call.actor))
                    }
                    _ => Ok(Some(found)),
                }
            }
            (KvFate::Unknown | KvFate::Refused, None) => Ok(None),
            (KvFate::Done, None) => Err(format!("{} is not in the log", call.actor)),
            (fate, Some(found)) => Err(format!("{} ended as {fate:?} and is at {found}", call.actor)),
            (fate, None) => {
                let from = answered as usize;
                let fits = states[from..].iter().position(|state| call.plan.fits(fate, state));
                let place = fits.map(|above| answered + above as u64);
                place.map(Some).ok_or_else(|| {
                    format!("{} {:?} never had the answer {fate:?} from {answered} on", call.actor, call.plan)
                })
            }
        }
    })
}

/// Calls of racing clients through the key/value contract.
fn calls(seed: u64, reads: Reads) -> (Vec<KvCall>, Vec<Logged>) {
    let world = World::new(seed);
    let history = world.record(seed, reads == Reads::Sound, |runtime, store, random, actor| {
        let (plan, fate) = runtime.block_on(call(store, random, actor, reads));
        let answered = !matches!(fate, KvFate::Unknown);
        (plan, fate, answered)
    });
    let log = world.log();
    (history, log)
}

/// One line of a history, for a checker that knows the contract and nothing else.
fn told(call: &KvCall) -> Option<Value> {
    let (op, key, value, expected) = match &call.plan {
        KvPlan::Get { key } => ("get", key, None, Value::Null),
        KvPlan::Set { key, value } => ("set", key, Some(value), Value::Null),
        KvPlan::SetIf { key, value, expected } => {
            let expected = match expected {
                Expected::Absent => json!({"absent": true}),
                Expected::Exists => json!({"exists": true}),
                Expected::Value(value) => json!({"value": value}),
            };
            ("set_if", key, Some(value), expected)
        }
        KvPlan::Delete { key } => ("delete", key, None, Value::Null),
        KvPlan::Scan { from } => ("scan", from, None, Value::Null),
    };
    let (answer, found) = match &call.outcome {
        KvFate::Found(found) => ("found", json!(found)),
        KvFate::Entries(entries) => ("entries", json!(entries)),
        KvFate::Done => ("done", Value::Null),
        KvFate::PredicateFailed => ("predicate_failed", Value::Null),
        KvFate::Unknown => ("unknown", Value::Null),
        // It was said not to have happened: a checker sees by the others' answers whether it did.
        KvFate::Refused => return None,
    };
    Some(json!({
        "client": call.client, "call": call.invoked, "return": call.ended, "op": op, "key": key, "value": value,
        "if": expected, "answer": answer, "found": found,
    }))
}

fn export(name: &str, history: &[KvCall]) {
    let Some(dir) = std::env::var_os("LAKELOG_HISTORIES") else { return };
    let lines = history.iter().filter_map(told).fold(String::new(), |lines, line| format!("{lines}{line}\n"));
    fs::write(Path::new(&dir).join(format!("{name}.jsonl")), lines).unwrap();
}

#[test]
fn fault_25_racing_calls_of_the_contract_are_linearizable() {
    let (mut changed, mut failed, mut unknown) = (0, 0, 0);
    for seed in 100..110 {
        let (history, log) = calls(seed, Reads::Sound);
        export(&format!("sound-{seed}"), &history);
        certify_kv(&history, &log).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        changed += log.len();
        failed += history.iter().filter(|call| matches!(call.outcome, KvFate::PredicateFailed)).count();
        unknown += history.iter().filter(|call| matches!(call.outcome, KvFate::Unknown)).count();
    }
    assert!(changed > 500 && failed > 100 && unknown > 5, "changed {changed}, failed {failed}, unknown {unknown}");
}

#[test]
fn a_stale_read_is_found() {
    let (history, log) = calls(200, Reads::Stale);
    export("stale-200", &history);
    // Seen at the read itself, or at a change that this read would have to follow.
    let fault = certify_kv(&history, &log).unwrap_err();
    assert!(fault.contains("never had the answer") || fault.contains("was answered"), "{fault}");
}
