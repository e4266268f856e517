//! The log under simulated crashes: whatever falls between two steps, every acknowledged transaction is
//! there afterwards, unchanged, in order, once (I1 to I3 of the fault list).
//!
//! A failing case prints seed, moment and policy; `replay` with these runs it alone.

use std::io;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::tests::{draft, small};
use super::*;
use crate::env::sim::{Effect, Fault, Keep, Operation, SimWorld};
use crate::env::{FileExt as _, Fs as _, OpenMode};
use crate::types::ErrorKind;

/// What the outside world knows: what it asked for, and what it was told.
#[derive(Clone, Default)]
pub(super) struct Model {
    /// Every transaction at its position, the last batch perhaps never answered.
    pub history: Vec<Draft>,
    /// So many were acknowledged.
    pub acknowledged: usize,
    pub floor: Position,
    /// A trim to here was asked for.
    pub floor_asked: Position,
}

pub(super) struct Machine {
    pub world: SimWorld,
    pub model: Model,
}

impl Machine {
    pub fn new(seed: u64) -> Machine {
        let world = SimWorld::new(seed);
        world.env().fs.create_dir_all(Path::new("/store")).unwrap();
        world.env().fs.sync_dir(Path::new("/")).unwrap();
        Machine { world, model: Model::default() }
    }

    pub fn dir() -> PathBuf {
        PathBuf::from("/store/log")
    }

    fn lock(&self) -> Result<DirLock, LogError> {
        DirLock::take(&self.world.env(), Path::new("/store/LOCK"))
    }

    pub fn create(&self) -> Result<FileLog, LogError> {
        FileLog::create(self.world.env(), self.lock()?, &Machine::dir(), small())
    }

    /// What a checkpoint of everything acknowledged would be stamped with.
    fn known(&self) -> Option<(LogId, Position)> {
        let loaded = manifest::load(&self.world.fs, &Machine::dir()).ok()?;
        Some((loaded.manifest.log_id, Position(self.model.acknowledged as u64)))
    }

    pub fn open(&self) -> Result<FileLog, LogError> {
        FileLog::open(self.world.env(), self.lock()?, &Machine::dir(), small(), self.known())
    }

    pub fn open_unknowing(&self) -> Result<FileLog, LogError> {
        FileLog::open(self.world.env(), self.lock()?, &Machine::dir(), small(), None)
    }

    pub fn fork(&self, seed: u64) -> Machine {
        Machine { world: self.world.fork(seed), model: self.model.clone() }
    }

    pub fn append(&mut self, log: &FileLog, sizes: &[usize]) -> Result<(), LogError> {
        let head = log.head().position;
        self.model.history.truncate(head.0 as usize);
        let batch: Vec<Draft> = sizes
            .iter()
            .enumerate()
            .map(|(at, &size)| {
                let mut payload =
                    format!("{}.{at}.{}", self.model.history.len(), self.world.fs.operations()).into_bytes();
                payload.resize(size.max(payload.len()), size as u8 | 1);
                draft(self.model.history.len() as i64 / 3, &payload)
            })
            .collect();
        self.model.history.extend(batch.iter().cloned());
        log.append(head, &batch).map(drop)
    }

    pub fn sync(&mut self, log: &FileLog) -> Result<(), LogError> {
        self.model.acknowledged = log.sync()?.0 as usize;
        Ok(())
    }

    /// Puts the file of a snapshot where the log looks for it.
    pub fn snapshot(&self, log: &FileLog, position: Position) -> Result<Snapshot, LogError> {
        let content = format!("the state at {position}").into_bytes();
        let digest = Digest::of_bytes(&content);
        let snapshot = Snapshot { head: log.head_at(position)?, bytes: content.len() as u64, digest };
        let path = snapshot.path(&Machine::dir());
        let failed = |source| LogError::Io { action: "write the snapshot", path: path.clone(), source };
        if !self.world.fs.exists(&path).map_err(failed)? {
            let file = self.world.fs.open(&path, OpenMode::CreateNew).map_err(failed)?;
            file.write_all_at(&content, 0).and_then(|()| file.sync_all()).map_err(failed)?;
            self.world.fs.sync_dir(&Machine::dir()).map_err(failed)?;
        }
        Ok(snapshot)
    }

    pub fn trim(&mut self, log: &FileLog, floor: Position, keep: Position) -> Result<(), LogError> {
        if floor <= self.model.floor {
            return Ok(());
        }
        let snapshot = self.snapshot(log, floor)?;
        self.model.floor_asked = self.model.floor_asked.max(floor);
        log.trim(snapshot, keep)?;
        self.model.floor = floor;
        Ok(())
    }

    /// The seeded workload: appends, syncs, rotations, spares, closes, trims. Ends at the first error.
    fn run(&mut self, seed: u64, steps: usize) -> Result<(), LogError> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut log = self.create()?;
        for _ in 0..steps {
            match random.random_range(0..20) {
                0..9 => {
                    let count = random.random_range(1..4);
                    let sizes: Vec<usize> = (0..count)
                        .map(|_| match random.random_range(0..8) {
                            0 => random.random_range(10_000..30_000),
                            1 => 0,
                            _ => random.random_range(0..2_000),
                        })
                        .collect();
                    self.append(&log, &sizes)?;
                }
                9..15 => self.sync(&log)?,
                15..17 => log.prepare_spare()?,
                17 => {
                    let head = log.head().position.0;
                    log.close()?;
                    self.model.acknowledged = head as usize;
                    drop(log);
                    log = self.open()?;
                }
                18 => {
                    drop(log);
                    log = self.open()?;
                    self.model.history.truncate(log.head().position.0 as usize);
                }
                _ => {
                    let synced = self.model.acknowledged as u64;
                    let keep = Position(random.random_range(0..=synced));
                    self.trim(&log, Position(synced / 2), keep)?;
                }
            }
        }
        Ok(())
    }

    /// Opens, compares with the model, goes on for a while, and opens again. Gives the number of frames found.
    pub fn check(&mut self) -> usize {
        let log = match self.open() {
            Err(LogError::NotFound { .. }) if self.model.acknowledged == 0 && self.model.history.is_empty() => {
                self.create().expect("what an interrupted creation left is no obstacle")
            }
            opened => opened.expect("a log without damage opens"),
        };
        self.compare(&log);
        let found = log.head();
        self.model.history.truncate(found.position.0 as usize);
        drop(log);
        let plan = plan(&self.world.env(), &Machine::dir(), self.known()).unwrap();
        assert!(plan.steps().is_empty(), "a recovered log needs no recovery: {plan}");
        let log = self.open().unwrap();
        assert_eq!(log.head(), found, "a second opening finds the same");
        self.model.acknowledged = found.position.0 as usize;
        // Something small first, which fits behind whatever the segment ends with.
        for sizes in [&[1][..], &[100, 25_000], &[25_000, 100], &[25_000]] {
            self.append(&log, sizes).unwrap();
            self.sync(&log).unwrap();
        }
        drop(log);
        self.world.fs.crash(Keep::Nothing);
        let log = self.open().unwrap();
        self.compare(&log);
        found.position.0 as usize
    }

    pub fn compare(&self, log: &FileLog) {
        let model = &self.model;
        let head = log.head().position.0 as usize;
        assert!(head >= model.acknowledged, "acknowledged {}, found {head}", model.acknowledged);
        assert!(head <= model.history.len(), "asked for {}, found {head}", model.history.len());
        let floor = log.floor();
        if let Some(snapshot) = log.snapshot() {
            snapshot.verify(&self.world.fs, &Machine::dir()).unwrap();
        }
        assert!(floor >= model.floor && floor <= model.floor_asked.max(model.floor), "floor {floor}");
        let frames: Vec<Frame> =
            log.read_checked(floor.next(), Check::Chain).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(frames.len() as u64, head as u64 - floor.0);
        for frame in frames {
            let asked = &model.history[frame.position.0 as usize - 1];
            assert_eq!((frame.time, &frame.payload), (asked.time, &asked.payload), "position {}", frame.position);
            assert_eq!(frame.proof, Proof::Salted(asked.salt));
        }
    }
}

const KEEPS: [Keep; 7] = [
    Keep::Nothing,
    Keep::Everything,
    Keep::SizesWithoutContent,
    Keep::ContentWithoutSizes,
    Keep::Random,
    Keep::Random,
    Keep::Random,
];

/// One case: the workload of `seed`, crashed at its `moment`-th change. `false` when it ended before.
fn crashed(seed: u64, moment: u64, steps: usize) -> Option<Machine> {
    let mut machine = Machine::new(seed);
    machine.world.fs.crash_at(moment);
    let ended = machine.run(seed, steps);
    if !machine.world.fs.crashed() {
        ended.unwrap();
        return None;
    }
    Some(machine)
}

/// Runs a case with its name at hand when it fails.
fn replay(name: &str, case: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(case)).is_err() {
        panic!("failed: {name}");
    }
}

#[test]
fn fault_01_02_03_crash_at_every_change_with_every_policy() {
    for seed in 0..2 {
        let mut moment = 0;
        while let Some(machine) = crashed(seed, moment, 60) {
            for (case, keep) in KEEPS.into_iter().enumerate() {
                replay(&format!("seed {seed} moment {moment} case {case} {keep:?}"), || {
                    let mut after = machine.fork(case as u64);
                    after.world.fs.crash(keep);
                    after.check();
                });
            }
            replay(&format!("seed {seed} moment {moment} killed"), || {
                let mut after = machine.fork(0);
                after.world.fs.kill();
                after.check();
            });
            moment += 1;
        }
        assert!(moment > 80, "the workload has only {moment} changes");
    }
}

#[test]
fn fault_04_crash_at_every_change_of_recovery_repeatedly() {
    let seed = 7;
    let mut moment = 0;
    while let Some(machine) = crashed(seed, moment, 40) {
        for killed in [false, true] {
            let torn = machine.fork(moment);
            if killed {
                torn.world.fs.kill()
            } else {
                torn.world.fs.crash(Keep::Random)
            }
            let mut step = 0;
            loop {
                let mut again = torn.fork(step);
                again.world.fs.crash_at(step);
                let opened = again.open();
                if !again.world.fs.crashed() {
                    break;
                }
                drop(opened);
                replay(&format!("seed {seed} moment {moment} killed {killed} step {step}"), || {
                    // The next recovery begins from what this one left, and is interrupted one step later.
                    for (round, keep) in [Keep::Random, Keep::Nothing, Keep::Random].into_iter().enumerate() {
                        again.world.fs.crash(keep);
                        again.world.fs.crash_at(step + round as u64);
                        drop(again.open());
                    }
                    again.world.fs.kill();
                    again.check();
                });
                step += 1;
            }
        }
        moment += 3;
    }
}

/// Injects a failure of the `count`-th such operation into the workload; afterwards the log must be latched,
/// and reopening it in the same page cache, or after a power loss, must find everything acknowledged.
fn failing(operation: Operation, effect: Effect) {
    for count in 0.. {
        let mut machine = Machine::new(count);
        machine.world.fs.inject(Fault::on(operation).after(count).effect(effect));
        let Err(error) = machine.run(11, 60) else {
            assert!(count > 1, "only {count} operations were met");
            break;
        };
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::Unknown | ErrorKind::Unavailable), "{count}: {error}");
        for keep in [None, Some(Keep::Nothing), Some(Keep::Everything), Some(Keep::Random)] {
            replay(&format!("{operation:?} {count} then {keep:?}"), || {
                let mut after = machine.fork(count);
                after.world.fs.kill();
                if let Some(keep) = keep {
                    after.world.fs.crash(keep);
                }
                after.check();
            });
        }
    }
}

#[test]
fn fault_10_11_every_sync_fails_once() {
    failing(Operation::Sync, Effect::Fail(io::ErrorKind::Other));
    failing(Operation::SyncDir, Effect::Fail(io::ErrorKind::Other));
}

#[test]
fn fault_12_every_write_or_rename_fails_once() {
    failing(Operation::Write, Effect::FailHalfway(io::ErrorKind::StorageFull));
    failing(Operation::Write, Effect::Fail(io::ErrorKind::Other));
    failing(Operation::Rename, Effect::Fail(io::ErrorKind::Other));
    failing(Operation::Create, Effect::Fail(io::ErrorKind::QuotaExceeded));
}

#[test]
fn fault_12_short_and_interrupted_calls_go_on() {
    for effect in [Effect::Short, Effect::Fail(io::ErrorKind::Interrupted)] {
        let mut machine = Machine::new(5);
        for operation in [Operation::Write, Operation::Read] {
            for after in 0..200 {
                machine.world.fs.inject(Fault::on(operation).after(after * 2).effect(effect));
            }
        }
        machine.run(5, 60).unwrap();
        machine.world.fs.heal();
        machine.world.fs.kill();
        machine.check();
    }
}

#[test]
fn fault_10_a_failed_sync_latches_and_reads_go_on() {
    let mut machine = Machine::new(1);
    let log = machine.create().unwrap();
    machine.append(&log, &[10, 10]).unwrap();
    machine.sync(&log).unwrap();
    machine.append(&log, &[10, 10]).unwrap();
    machine.world.fs.inject(Fault::on(Operation::Sync));
    let error = machine.sync(&log).unwrap_err();
    assert!(matches!(error, LogError::DurabilityUnknown { first: Position(3), last: Position(4), .. }), "{error:?}");
    let error = log.append(Position(4), &[draft(9, b"more")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(matches!(machine.sync(&log), Err(LogError::Latched { .. })));
    let snapshot = machine.snapshot(&log, Position(1)).unwrap();
    assert!(matches!(log.trim(snapshot, Position(1)), Err(LogError::Latched { .. })));
    assert_eq!(*log.follow().borrow(), Position(2));
    assert_eq!(log.read(Position(1)).unwrap().count(), 2);
}

/// A reader beside the store, which a dump of its files is, would otherwise be shown less than was acknowledged.
#[test]
fn what_only_a_checkpoint_proves_is_shown_to_readers_beside_the_log() {
    let mut machine = Machine::new(7);
    let log = machine.create().unwrap();
    machine.append(&log, &[40, 40]).unwrap();
    machine.sync(&log).unwrap();
    // The mark that says what was synced is lost with the power.
    machine.world.fs.kill();
    drop(log);
    machine.world.fs.crash(Keep::Nothing);
    let env = machine.world.env();
    let beside = || LogFiles::open(&env, &Machine::dir()).unwrap().synced();
    assert_eq!(beside(), Position::ZERO);
    let log = machine.open().unwrap();
    assert_eq!((beside(), log.head().position), (Position(2), Position(2)));
    machine.world.fs.kill();
    drop(log);
    assert_eq!(plan(&env, &Machine::dir(), machine.known()).unwrap().steps(), Vec::<String>::new());
}

/// Each frame says what was synced before it, so that only what came after is written anew; the stamp of another log says nothing.
#[test]
fn what_is_promised_is_said_by_frames_and_not_by_stamps_of_other_logs() {
    let mut machine = Machine::new(8);
    let log = machine.create().unwrap();
    for _ in 0..3 {
        machine.append(&log, &[40]).unwrap();
        machine.sync(&log).unwrap();
    }
    machine.world.fs.kill();
    drop(log);
    machine.world.fs.crash(Keep::Nothing);
    for known in [None, Some((LogId([9; 16]), Position(99)))] {
        let plan = plan(&machine.world.env(), &Machine::dir(), known).unwrap();
        assert_eq!((plan.problems(), plan.head().position, plan.promised()), (&[][..], Position(3), Position(2)));
    }
}
