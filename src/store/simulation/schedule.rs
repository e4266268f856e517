//! What happens: steps drawn from a seed, as plain data.
//!
//! Numbers in a step are drawn before anything is known of the store; who carries it out takes them modulo what there is. So the
//! schedule of a seed is the same however its run goes on, and a run that is crashed earlier is the beginning of the same run.

use std::io::ErrorKind as IoKind;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::model::{Pair, Ranged};
use crate::env::sim::{Effect, Fault, Keep, Operation};

const PARTITIONS: [&[u8]; 3] = [b"auth", b"p", b"repo-x"];
const KEYS: [&[u8]; 5] = [b"users/a", b"users/ab", b"users/b", b"x", b"xy"];
const PREFIXES: [&[u8]; 4] = [b"users/a", b"users/", b"x", b""];

/// One thing after another.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Callers at the same time, in an order of this seed.
    Together(Vec<Call>, u64),
    /// What the store's own threads do.
    Upkeep,
    Tick,
    Maintain,
    /// A reader stays where the store is, until the process ends.
    Pin,
    /// The subscriber takes so many deliveries.
    Poll(usize),
    Trouble(Trouble),
    /// Whatever ails the disk is over.
    Heal,
    /// The clock jumps by microseconds, back too.
    Jump(i64),
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Write(Change),
    /// With an id: asked again when the answer was lost.
    Request(Change),
    /// Reads these and writes down what it saw.
    Chain {
        read: Pair,
        scanned: Ranged,
        written: Pair,
    },
    Undo(usize),
    Rewind(Ranged, usize),
    Redact(Pair),
    Trim(usize),
    Checkpoint,
    Sync,
    /// Everything, now or at an earlier position.
    Read(Option<usize>),
    Dump,
    Chores,
}

/// A transaction of several keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Change {
    pub sets: Vec<(Pair, Kind)>,
    pub deletes: Vec<Pair>,
    pub range: Option<Ranged>,
    /// Only when this key is there, or is not.
    pub condition: Option<(Pair, bool)>,
}

/// What a value is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub address: u8,
    pub bytes: usize,
}

/// What ails the disk, until it is healed.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    Faults(Vec<Fault>),
    Full,
    ReadOnly,
    /// One of the files of the log, and where in it.
    BadSector(usize, u64),
}

/// How the process ends; another one opens the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    Killed,
    PowerLoss(Keep),
    /// Closed, dumped, and restored into another directory.
    Move,
}

/// What becomes of the base between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BaseIs {
    Kept,
    Lost,
    /// As it was some time ago.
    Older,
}

pub(super) const CRASHES: [Ending; 6] = [
    Ending::Killed,
    Ending::PowerLoss(Keep::Nothing),
    Ending::PowerLoss(Keep::Everything),
    Ending::PowerLoss(Keep::Random),
    Ending::PowerLoss(Keep::SizesWithoutContent),
    Ending::PowerLoss(Keep::ContentWithoutSizes),
];

/// Every key that is ever written.
pub(super) fn pairs() -> impl Iterator<Item = Pair> {
    PARTITIONS.into_iter().flat_map(|partition| KEYS.map(|key| (partition.to_vec(), key.to_vec())))
}

/// Draws steps.
#[derive(Debug)]
pub(super) struct Schedule {
    random: StdRng,
    /// Whether the disk ever ails.
    troubled: bool,
}

impl Schedule {
    pub fn new(seed: u64, troubled: bool) -> Schedule {
        Schedule { random: StdRng::seed_from_u64(seed), troubled }
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub fn step(&mut self) -> Step {
        match self.below(if self.troubled { 40 } else { 32 }) {
            0..20 => {
                let calls = (0..self.random.random_range(1..6)).map(|_| self.call()).collect();
                Step::Together(calls, self.random.random())
            }
            20..22 => Step::Upkeep,
            22 => Step::Tick,
            23..25 => Step::Maintain,
            25..27 => Step::Pin,
            27..30 => Step::Poll(self.random.random_range(1..12)),
            30..32 => Step::Jump(self.random.random_range(-3_000_000..5_000_000)),
            32..37 => Step::Trouble(self.trouble()),
            _ => Step::Heal,
        }
    }

    fn call(&mut self) -> Call {
        match self.below(48) {
            0..18 => Call::Write(self.change()),
            18..21 => Call::Request(self.change()),
            21..26 => Call::Chain { read: self.pair(), scanned: self.range(), written: self.pair() },
            26..28 => Call::Undo(self.any()),
            28..30 => Call::Rewind(self.range(), self.any()),
            30 => Call::Redact(self.pair()),
            31..34 => Call::Trim(self.any()),
            34..37 => Call::Checkpoint,
            37..39 => Call::Sync,
            39..42 => Call::Read(None),
            42..46 => Call::Read(Some(self.any())),
            46 => Call::Dump,
            _ => Call::Chores,
        }
    }

    fn change(&mut self) -> Change {
        let mut change = Change::default();
        if self.below(6) == 0 {
            change.range = Some(self.range());
        }
        for _ in 0..self.random.random_range(1..5) {
            let pair = self.pair();
            let touched = change.sets.iter().any(|(set, _)| *set == pair) || change.deletes.contains(&pair);
            match self.below(6) {
                _ if touched => {}
                0 => change.deletes.push(pair),
                _ => {
                    // Some values span sectors, and some fill a segment soon.
                    let bytes = [0, 0, 0, 700, 2_100, 15_000][self.below(6)];
                    change.sets.push((pair, Kind { address: self.below(5) as u8, bytes }));
                }
            }
        }
        if self.below(4) == 0 {
            change.condition = Some((self.pair(), self.random.random()));
        }
        change
    }

    fn trouble(&mut self) -> Trouble {
        let fail = |kind| Effect::Fail(kind);
        let passed = self.random.random_range(0..12);
        let once = |operation, path: &str, effect| {
            Trouble::Faults(vec![Fault::on(operation).path(path).after(passed).effect(effect)])
        };
        // Every second such call, for a while.
        let often = |operation, effect| {
            let faults = (0..40).map(|at| Fault::on(operation).after(at * 2).effect(effect));
            Trouble::Faults(faults.collect())
        };
        match self.below(22) {
            0 => once(Operation::Sync, ".seg", fail(IoKind::Other)),
            1 => once(Operation::Sync, "manifest", fail(IoKind::Other)),
            2 => once(Operation::Sync, "", fail(IoKind::Other)),
            3 => once(Operation::SyncDir, "", fail(IoKind::Other)),
            4 => once(Operation::Write, ".seg", Effect::FailHalfway(IoKind::StorageFull)),
            5 => once(Operation::Write, "", fail(IoKind::Other)),
            6 => once(Operation::Write, "", Effect::Nothing),
            7 => once(Operation::Rename, "", fail(IoKind::Other)),
            8 => once(Operation::Create, "", fail(IoKind::QuotaExceeded)),
            9 => once(Operation::Open, "", fail(IoKind::Other)),
            10 => once(Operation::Remove, "", fail(IoKind::Other)),
            11 => once(Operation::Read, "", fail(IoKind::Other)),
            12 => once(Operation::SetLen, "", fail(IoKind::StorageFull)),
            13 => once(Operation::List, "", fail(IoKind::Other)),
            14 => often(Operation::Write, Effect::Short),
            15 => often(Operation::Write, fail(IoKind::Interrupted)),
            16 => often(Operation::Read, Effect::Short),
            17 => often(Operation::Read, fail(IoKind::Interrupted)),
            18 => Trouble::Full,
            19 => Trouble::ReadOnly,
            _ => Trouble::BadSector(self.any(), self.random.random_range(0..64 << 10)),
        }
    }

    /// How a life ends. Most of the deaths are sudden.
    pub fn ending(&mut self) -> Ending {
        match self.below(12) {
            0 | 1 => Ending::Close,
            2 => Ending::Move,
            other => CRASHES[other % CRASHES.len()],
        }
    }

    pub fn base(&mut self) -> BaseIs {
        match self.below(10) {
            0 => BaseIs::Lost,
            1 => BaseIs::Older,
            _ => BaseIs::Kept,
        }
    }

    pub fn steps(&mut self) -> usize {
        self.random.random_range(4..14)
    }

    /// So many changes of the disk until the next crash; none for a life that is lived to its end.
    pub fn crash(&mut self) -> Option<u64> {
        self.random.random_bool(0.5).then(|| self.random.random_range(0..160))
    }

    fn pair(&mut self) -> Pair {
        (PARTITIONS[self.below(PARTITIONS.len())].to_vec(), KEYS[self.below(KEYS.len())].to_vec())
    }

    fn range(&mut self) -> Ranged {
        Ranged {
            partition: PARTITIONS[self.below(PARTITIONS.len())].to_vec(),
            prefix: PREFIXES[self.below(PREFIXES.len())].to_vec(),
        }
    }

    fn any(&mut self) -> usize {
        self.random.random_range(0..1 << 30)
    }
}
