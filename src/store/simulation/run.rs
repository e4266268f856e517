//! A run: carries out the schedule of a seed, and knows what was asked and what was answered.
//!
//! What becomes known to be durable goes into the [`History`] in the order of positions; it never leaves it again, and must be
//! found by every process from then on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::base::SimBase;
use super::calls::{Answer, Observed, Place, caller, dumped, is_sane, observe};
use super::model::{Asked, History};
use super::schedule::{BaseIs, CRASHES, Call, Ending, Schedule, Step, Trouble};
use super::{Caller, Stepped, Stepping, ready};
use crate::dump::DumpSource;
use crate::env::Fs as _;
use crate::env::sim::SimWorld;
use crate::event::Transaction;
use crate::store::feed_tests::look;
use crate::store::submission::Command;
use crate::store::{Delivery, Durability, Filter, Reader, Settings, Store, SubscribeFrom, Subscription};
use crate::types::{Error, ErrorKind, LogStamp, Position, Result};

const ARCHIVE: &str = "/archive";
const LIVES: usize = 4;
/// Of what the store does by itself.
const OWN_ACTOR: &str = "lakelog";

/// What became of a transaction, as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged(Position),
    /// It is nowhere and never will be.
    Refused,
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub asked: Asked,
    pub fate: Fate,
    /// Whether it may be asked again under its id.
    repeatable: bool,
}

/// Where a subscriber stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// It began after this.
    start: Position,
    stamp: Option<LogStamp>,
    /// Who wrote what was delivered and is not compared yet.
    delivered: BTreeMap<Position, String>,
}

/// One run of a schedule, between two processes.
pub(super) struct Run {
    pub world: SimWorld,
    pub base: SimBase,
    /// A base of earlier.
    older: SimBase,
    pub settings: Settings,
    pub schedule: Schedule,
    pub dir: String,
    pub askings: BTreeMap<String, Asking>,
    pub history: History,
    /// What was redacted and has to be nowhere.
    pub erased: Vec<Bytes>,
    /// What readers saw, and the head when they had seen it: so far must be known what became of what they read.
    observed: Vec<(Position, Observed)>,
    seen: Vec<Observed>,
    heard: Heard,
    /// The highest synced position that was ever reported.
    synced: Position,
    /// Whether a power loss, or a failed sync, may have taken what a weaker durability acknowledged.
    lossy: bool,
    /// The last dump, and where it was to be restored if that was interrupted.
    pub dump: Option<Vec<u8>>,
    pub moving: Option<String>,
    /// The change of the disk at which the machine stops, counted from the beginning.
    crash_at: Option<u64>,
    troubled: bool,
    /// Whether it says what happens.
    pub told: bool,
    /// Has seen an answer after which the log takes nothing more.
    latched: bool,
}

/// A process.
struct Life {
    stepped: Stepped,
    pins: Vec<Reader>,
    subscription: Option<Subscription>,
}

impl Run {
    /// The run of a seed: on a sound disk, or on one that ails now and then.
    pub fn new(seed: u64, troubled: bool) -> Run {
        let durability = match seed % 8 {
            6 => Durability::Interval { ms: 1 },
            7 => Durability::None,
            _ => Durability::Sync,
        };
        let settings = Settings {
            durability,
            segment_bytes: 64 << 10,
            min_free_bytes: Some(0),
            memtable_soft_bytes: 16 << 10,
            archive: seed.is_multiple_of(3).then(|| ARCHIVE.into()),
            ..Settings::default()
        };
        Run {
            world: SimWorld::new(seed),
            base: SimBase::default(),
            older: SimBase::default(),
            settings,
            schedule: Schedule::new(seed, troubled),
            dir: super::DIR.to_owned(),
            askings: BTreeMap::new(),
            history: History::new(),
            erased: Vec::new(),
            observed: Vec::new(),
            seen: Vec::new(),
            heard: Heard::default(),
            synced: Position::ZERO,
            lossy: false,
            dump: None,
            moving: None,
            crash_at: None,
            troubled,
            told: false,
            latched: false,
        }
    }

    /// The same up to here, going its own way from now on, with other steps.
    pub fn fork(&self, seed: u64) -> Run {
        Run {
            world: self.world.fork(seed),
            base: self.base.fork(),
            older: self.older.fork(),
            settings: self.settings.clone(),
            schedule: Schedule::new(seed, self.troubled),
            dir: self.dir.clone(),
            askings: self.askings.clone(),
            history: self.history.clone(),
            erased: self.erased.clone(),
            observed: self.observed.clone(),
            seen: Vec::new(),
            heard: self.heard.clone(),
            dump: self.dump.clone(),
            moving: self.moving.clone(),
            ..*self
        }
    }

    pub fn crash_at(&mut self, operation: u64) {
        self.crash_at = Some(operation);
        self.arm();
    }

    /// A process that ends takes the moment of the crash with it.
    fn arm(&self) {
        if let Some(to_go) = self.crash_at.and_then(|at| at.checked_sub(self.world.fs.operations())) {
            self.world.fs.crash_at(to_go);
        }
    }

    /// Lives all lives of the schedule, or until the machine stops.
    pub fn work(&mut self) {
        for _ in 0..LIVES {
            let crash = self.schedule.crash().filter(|_| self.crash_at.is_none() && self.troubled);
            if let Some(count) = crash {
                self.world.fs.crash_at(count);
            }
            let ending = self.schedule.ending();
            let opened = self.live(ending);
            if self.crash_at.is_some() && self.world.fs.crashed() {
                return;
            }
            let ending = match ending {
                Ending::Close | Ending::Move if !opened => Ending::Killed,
                ending => ending,
            };
            self.end(ending);
            let base = self.schedule.base();
            self.replace_base(base);
            if self.troubled {
                self.crash_while_opening();
            }
        }
    }

    /// What happens, to whoever replays a case.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{} known {}: {}", self.world.fs.operations(), self.history.head(), what());
        }
    }

    /// From here on the disk may ail.
    pub fn expect_trouble(&mut self) {
        (self.troubled, self.lossy) = (true, true);
    }

    /// One process, which is not closed.
    pub fn one_life(&mut self) {
        self.live(Ending::Killed);
    }

    /// Opens and lets go again, if it can be opened.
    pub fn try_open(&self) {
        drop(Stepped::open_in(&self.dir, &self.world, Arc::new(self.base.clone()), &self.settings));
    }

    /// Notes what is about to be asked.
    pub fn ask(&mut self, actor: String, asked: Asked) {
        self.askings.insert(actor, Asking { asked, fate: Fate::Unknown, repeatable: false });
    }

    /// One process. Gives whether it was well at its end.
    fn live(&mut self, ending: Ending) -> bool {
        let Some(mut life) = self.open() else { return false };
        for _ in 0..self.schedule.steps() {
            let step = self.schedule.step();
            self.carry_out(&mut life, step);
            if self.world.fs.crashed() || self.latched {
                return false;
            }
        }
        if matches!(ending, Ending::Close | Ending::Move) {
            return self.leave(life, ending);
        }
        true
    }

    fn open(&mut self) -> Option<Life> {
        let mut stepped = match Stepped::open_in(&self.dir, &self.world, Arc::new(self.base.clone()), &self.settings) {
            Ok(stepped) => stepped,
            Err(error) => {
                self.tell(|| error.report());
                assert!(is_sane(&error), "{error:?}");
                assert!(self.troubled || self.world.fs.crashed(), "{error:?}");
                return None;
            }
        };
        // Who goes on here has given up going elsewhere.
        self.moving = None;
        self.settle(&stepped);
        self.repeat_requests(&mut stepped);
        Some(Life { stepped, pins: Vec::new(), subscription: None })
    }

    fn carry_out(&mut self, life: &mut Life, step: Step) {
        self.tell(|| format!("{step:?}"));
        match step {
            Step::Together(calls, seed) => self.together(&mut life.stepped, calls, seed),
            Step::Upkeep => drop(life.stepped.store.shared().log.upkeep()),
            Step::Tick => {
                life.stepped.store.shared().queue.tick();
                life.stepped.committer.step_waiting();
            }
            Step::Maintain => {
                let shared = life.stepped.store.shared().clone();
                drop(life.stepped.one(async move { super::checkpoint::maintain(&shared).await }));
            }
            Step::Pin => {
                life.pins.push(life.stepped.store.reader());
                // All that are held see what they saw.
                let pins = life.pins.clone();
                let seen = life.stepped.drive(pins.iter().map(|pin| Box::pin(observe(pin)) as Caller<'_, _>).collect());
                self.seen.extend(seen);
            }
            Step::Poll(times) => self.poll(life, times),
            Step::Trouble(trouble) => self.ail(trouble),
            Step::Heal => self.heal(),
            Step::Jump(micros) => self.world.clock.advance(micros),
        }
        self.synced = self.synced.max(life.stepped.store.synced());
        let head = life.stepped.store.head();
        self.observed.extend(self.seen.drain(..).map(|seen| (head, seen)));
        self.learn(&life.stepped);
    }

    fn together(&mut self, stepped: &mut Stepped, calls: Vec<Call>, seed: u64) {
        let place = self.place();
        let mut callers = Vec::new();
        for call in calls {
            if let Some((asked, call)) = self.resolve(&stepped.store, call) {
                let actor = format!("t{}", self.askings.len());
                let repeatable = matches!(call, Call::Request(_));
                self.askings.insert(actor.clone(), Asking { asked: asked.clone(), fate: Fate::Unknown, repeatable });
                callers.push(caller(&stepped.store, &place, actor, asked, call));
            }
        }
        self.world.clock.advance(seed as i64 % 200 - 50);
        for answer in stepped.drive_at_random(callers, &mut StdRng::seed_from_u64(seed)) {
            self.note(answer);
        }
    }

    /// What a call asks for, now that it is known what there is. None when there is nothing to ask for.
    fn resolve(&self, store: &Store, call: Call) -> Option<(Asked, Call)> {
        // A trim takes away only what was seen.
        let known = self.history.head().0 as usize + 1;
        let head = store.head().0 as usize + 1;
        let asked = match &call {
            Call::Write(change) | Call::Request(change) => Asked::Change(change.clone()),
            Call::Chain { read, scanned, written } => {
                Asked::Chain { read: read.clone(), scanned: scanned.clone(), written: written.clone() }
            }
            Call::Undo(which) => {
                let changes = self.history.changes();
                Asked::Undo(*changes.get(which.checked_rem(changes.len())?)?)
            }
            Call::Rewind(range, to) => Asked::Rewind(range.clone(), Position((to % known) as u64)),
            Call::Redact(pair) => Asked::Redact(pair.clone()),
            _ => Asked::Nothing,
        };
        let call = match call {
            Call::Trim(before) => Call::Trim(before % known),
            Call::Read(at) => Call::Read(at.map(|at| at % head)),
            call => call,
        };
        Some((asked, call))
    }

    /// Takes down an answer.
    pub fn note(&mut self, answer: Answer) {
        let error = match &answer {
            Answer::Committed(_, Err(error))
            | Answer::Done(Err(error))
            | Answer::Saw(Err(error))
            | Answer::Dumped(Err(error)) => Some(error),
            _ => None,
        };
        if let Some(error) = error {
            self.tell(|| error.report());
            assert!(is_sane(error), "{error:?}");
            self.latched |= matches!(error.kind(), ErrorKind::Unknown | ErrorKind::Closed);
        }
        match answer {
            Answer::Committed(actor, done) => {
                let asking = self.askings.get_mut(&actor).expect("it was asked");
                asking.fate = fate(&asking.asked, &done);
            }
            Answer::Done(_) | Answer::Saw(Err(_)) | Answer::Dumped(Err(_)) => {}
            Answer::Saw(Ok(observed)) => self.seen.push(observed),
            // What only the stamp of the base proves, files show to others with the next write.
            Answer::Dumped(Ok(bytes)) => self.dump = Some(bytes),
        }
    }

    /// Under its id a request is asked again until its answer is known, and is carried out once.
    fn repeat_requests(&mut self, stepped: &mut Stepped) {
        let place = self.place();
        let lost = self.askings.iter().filter(|(_, asking)| asking.repeatable && asking.fate == Fate::Refused);
        let lost: Vec<(String, Asked)> = lost.map(|(actor, asking)| (actor.clone(), asking.asked.clone())).collect();
        for (actor, asked) in lost {
            let Asked::Change(change) = asked.clone() else { continue };
            self.askings.entry(actor.clone()).and_modify(|asking| asking.fate = Fate::Unknown);
            let caller = caller(&stepped.store, &place, actor, asked, Call::Request(change));
            for answer in stepped.drive(vec![caller]) {
                self.note(answer);
            }
        }
        self.synced = self.synced.max(stepped.store.synced());
        self.learn(stepped);
    }

    fn poll(&mut self, life: &mut Life, times: usize) {
        if life.subscription.is_none() {
            life.subscription = self.subscribe(&life.stepped.store);
        }
        let Some(subscription) = &mut life.subscription else { return };
        let _stepping = Stepping::begin();
        for _ in 0..times {
            let Poll::Ready(next) = look(subscription) else { return };
            match next.expect("it ends with an error first") {
                Ok(delivery) => {
                    let stamp = delivery.stamp();
                    assert!(self.heard.stamp.is_none_or(|last| last.position < stamp.position), "it went back");
                    self.heard.stamp = Some(stamp);
                    if let Delivery::Transaction(delivered) = delivery {
                        self.heard.delivered.insert(stamp.position, delivered.actor);
                    }
                }
                Err(error) => {
                    assert!(is_sane(&error), "{error:?}");
                    life.subscription = None;
                    return;
                }
            }
        }
    }

    fn subscribe(&mut self, store: &Store) -> Option<Subscription> {
        let filter = || Filter::new().operational().internal();
        if let Some(stamp) = self.heard.stamp {
            match ready(store.subscribe(SubscribeFrom::Stamp(stamp), filter())) {
                Ok(subscription) => return Some(subscription),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    assert!(stamp.position < store.shared().log.floor(), "{error:?}");
                }
                Err(error) => {
                    assert!(is_sane(&error) && error.kind() != ErrorKind::Conflict, "{error:?}");
                    return None;
                }
            }
        }
        let subscription = ready(store.subscribe(SubscribeFrom::Oldest, filter())).ok()?;
        let stamp = subscription.stamp();
        self.heard = Heard { start: stamp.position, stamp: Some(stamp), delivered: BTreeMap::new() };
        Some(subscription)
    }

    fn ail(&mut self, trouble: Trouble) {
        let fs = &self.world.fs;
        self.lossy = true;
        match trouble {
            Trouble::Faults(faults) => faults.into_iter().for_each(|fault| fs.inject(fault)),
            Trouble::Full => {
                fs.set_capacity(fs.used());
                self.base.set_fails(true);
            }
            Trouble::ReadOnly => fs.set_read_only(true),
            Trouble::BadSector(file, at) => {
                let log = self.place().log;
                let names = fs.read_dir(&log).unwrap_or_default();
                if let Some(name) = file.checked_rem(names.len()).and_then(|at| names.get(at)) {
                    fs.fail_reads(&log.join(name), at..at + 512);
                }
            }
        }
    }

    pub fn heal(&self) {
        self.world.fs.heal();
        self.world.fs.set_capacity(1 << 40);
        self.world.fs.set_read_only(false);
        self.base.set_fails(false);
    }

    pub fn place(&self) -> Place {
        let log = PathBuf::from(&self.dir).join("log");
        Place { env: self.world.env(), log, archive: self.settings.archive.clone() }
    }

    /// Closes in order. Gives whether it went well.
    fn leave(&mut self, mut life: Life, ending: Ending) -> bool {
        (life.pins, life.subscription) = (Vec::new(), None);
        let shared = life.stepped.store.shared().clone();
        let asked = shared.clone();
        let done = life.stepped.one(async move { asked.ask(Command::Close).await.and_then(|done| done) });
        let closed = done.and_then(|()| Ok(shared.log.close()?));
        self.synced = self.synced.max(life.stepped.store.synced());
        self.learn(&life.stepped);
        drop(life);
        if let Err(error) = closed {
            assert!(is_sane(&error), "{error:?}");
            return false;
        }
        if ending != Ending::Move || self.world.fs.crashed() || self.history.head() == Position::ZERO {
            return true;
        }
        let Place { env, log, .. } = self.place();
        let moved = dumped(&env, &log).and_then(|dump| self.restore(dump, format!("/moved{}", self.askings.len())));
        self.tell(|| format!("{moved:?}"));
        assert!(moved.as_ref().err().is_none_or(is_sane), "{moved:?}");
        moved.is_ok()
    }

    /// Into a new directory, where the store goes on.
    pub fn restore(&mut self, dump: Vec<u8>, dir: String) -> Result<(), Error> {
        (self.dump, self.moving) = (Some(dump.clone()), Some(dir.clone()));
        let source = DumpSource::Stream { name: "dump".into(), input: Box::new(std::io::Cursor::new(dump)) };
        let builder = Store::builder(&dir).settings(self.settings.clone()).with_env(self.world.env());
        builder.restore(vec![source], false, &mut |_, _| {})?;
        // An archive goes on where its own log does.
        let archive = self.settings.archive.take();
        self.settings.archive = archive.map(|_| PathBuf::from(format!("{ARCHIVE}{dir}")));
        (self.dir, self.moving) = (dir, None);
        (self.base, self.older) = (SimBase::default(), SimBase::default());
        Ok(())
    }

    pub fn end(&mut self, ending: Ending) {
        self.tell(|| format!("{ending:?}"));
        match ending {
            Ending::PowerLoss(keep) => {
                self.lossy |= self.settings.durability != Durability::Sync;
                self.world.fs.crash(keep);
            }
            Ending::Close | Ending::Killed | Ending::Move => self.world.fs.kill(),
        }
        self.latched = false;
        self.arm();
    }

    fn replace_base(&mut self, base: BaseIs) {
        self.tell(|| format!("the base is {base:?}"));
        match base {
            BaseIs::Kept => self.older = self.base.fork(),
            BaseIs::Lost => self.base = SimBase::default(),
            BaseIs::Older => self.base = self.older.fork(),
        }
    }

    /// Recovery is interrupted again and again, a little later each time.
    fn crash_while_opening(&mut self) {
        for _ in 0..self.schedule.below(4) {
            self.world.fs.crash_at(self.schedule.below(24) as u64);
            self.try_open();
            let ending = CRASHES[self.schedule.below(CRASHES.len())];
            self.end(ending);
        }
        if self.schedule.below(3) > 0 {
            self.heal();
        }
    }

    /// What was asked and answered before, against what this process has found.
    pub fn settle(&mut self, stepped: &Stepped) {
        let (head, floor) = (stepped.store.head(), stepped.store.shared().log.floor());
        self.tell(|| {
            let log = &stepped.store.shared().log;
            let base = stepped.store.shared().view.layers().base_position();
            format!("opened, head {head}, of the log {}, floor {floor}, base {base}", log.head().position)
        });
        assert!(head >= self.history.head(), "known up to {}, found {head}", self.history.head());
        self.learn(stepped);
        if self.history.head() < head {
            // The disk could not be read.
            assert!(self.troubled);
            return;
        }
        for (actor, asking) in &mut self.askings {
            match asking.fate {
                Fate::Acknowledged(position) if position > head => {
                    let lost = self.lossy && self.settings.durability != Durability::Sync && position > self.synced;
                    assert!(lost, "{actor} was acknowledged at {position}, found {head}");
                    asking.fate = Fate::Refused;
                }
                Fate::Acknowledged(position) => {
                    let silent = || self.history.changes_nothing(position, &asking.asked);
                    assert!(
                        self.history.actor(position) == Some(actor) || silent(),
                        "{actor} was acknowledged at {position}"
                    );
                }
                Fate::Unknown => asking.fate = Fate::Refused,
                Fate::Refused => {}
            }
        }
        self.observed.retain(|(until, _)| *until <= head);
        assert!(self.heard.stamp.is_none_or(|stamp| stamp.position <= head), "what was delivered is gone");
        if let Ok(frames) = stepped.store.shared().log.read(floor.next()) {
            for frame in frames.flatten() {
                assert_eq!(self.history.chain(frame.position), Some(frame.chain), "{} is another", frame.position);
            }
        }
        self.lossy = self.troubled;
    }

    /// Reads what became durable, and compares what waited for it.
    pub fn learn(&mut self, stepped: &Stepped) {
        let log = &stepped.store.shared().log;
        let Ok(frames) = log.read(self.history.head().next()) else { return };
        for frame in frames {
            // What the disk does not give now it may give later.
            let Ok(frame) = frame else { break };
            let position = frame.position;
            let transaction = Transaction::decode(frame.payload).unwrap();
            let actor = transaction.actor;
            assert_eq!(position, self.history.head().next(), "positions are dense");
            if actor == OWN_ACTOR {
                self.history.push(&actor, &Asked::Nothing, frame.chain);
                continue;
            }
            let asking = self.askings.get_mut(&actor).unwrap_or_else(|| panic!("nobody asked for {actor}"));
            match asking.fate {
                Fate::Acknowledged(told) => assert_eq!(told, position, "{actor} is elsewhere, or twice"),
                Fate::Unknown => asking.fate = Fate::Acknowledged(position),
                Fate::Refused => panic!("{actor} was refused and is there at {position}"),
            }
            self.erased.extend(self.history.push(&actor, &asking.asked, frame.chain));
        }
        self.compare_waiting(log.floor());
    }

    fn compare_waiting(&mut self, floor: Position) {
        let known = self.history.head();
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.observed).into_iter().partition(|(until, _)| *until <= known);
        self.observed = later;
        now.iter().for_each(|(_, observed)| self.compare(observed, false, floor));
        let Some(stamp) = self.heard.stamp else { return };
        let passed = stamp.position.min(known);
        for position in (self.heard.start.0 + 1..=passed.0).map(Position) {
            let heard = self.heard.delivered.remove(&position);
            let written = self.history.actor(position);
            match heard {
                Some(actor) => assert_eq!(Some(&actor[..]), written, "a subscriber heard of another at {position}"),
                None => assert!(!self.history.is_heard(position), "a subscriber did not hear of {position}"),
            }
        }
        self.heard.start = passed.max(self.heard.start);
    }

    /// What a reader saw against the model. Strictly: after everything that was redacted.
    pub fn compare(&self, observed: &Observed, strict: bool, floor: Position) {
        let Observed { position, found } = observed;
        let state = self.history.at(*position);
        for (pair, found) in found {
            let expected = state.get(pair);
            let same = match (found, expected) {
                (Ok(Some((version, bytes))), Some(value)) => {
                    (!value.erased || !strict)
                        && *bytes == value.bytes
                        && value.version.is_none_or(|expected| expected == *version)
                }
                (Ok(None), None) => true,
                // A base that is made anew is unavailable for a while, a reader that a trim overtook and a redaction met ends.
                (Err(error), expected) => {
                    let erased = expected.is_some_and(|value| value.erased) && error.starts_with("NotFound");
                    erased || (!strict && (error.starts_with("Unavailable") || *position < floor))
                }
                _ => false,
            };
            assert!(same, "{pair:?} at {position}, floor {floor}: found {found:?}, expected {expected:?}");
        }
    }
}

fn fate(asked: &Asked, done: &Result<Position>) -> Fate {
    match done {
        Ok(position) => Fate::Acknowledged(*position),
        Err(error) if error.kind() == ErrorKind::Unknown => Fate::Unknown,
        // Decided, and not done yet.
        Err(error) if matches!(asked, Asked::Redact(_)) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::Conflict => Fate::Refused,
            _ => Fate::Unknown,
        },
        Err(_) => Fate::Refused,
    }
}
