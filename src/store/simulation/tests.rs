//! Which seeds are gone through, and how: bounded here, without a bound in `scripts/simulate`.

use std::io::ErrorKind as IoKind;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::run::Run;
use super::schedule::{CRASHES, Ending};
use crate::env::sim::{Effect, Fault, Keep, Operation};

/// Which cases to run instead of those that the tests name: `seed` for a troubled run to its end, `seed:operation:ending` for one
/// crash, `from..to` for everything that there is of these seeds.
const REPLAY: &str = "LAKELOG_SIMULATE";

/// The beginning of a run, which tells what happens when it is replayed.
fn start(seed: u64, troubled: bool) -> Run {
    let mut run = Run::new(seed, troubled);
    run.told = std::env::var(REPLAY).is_ok_and(|case| !case.contains(".."));
    run
}

/// Runs a case, and says how to run it again when it fails.
fn named(case: &str, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("replay with: {REPLAY}={case} cargo test --all-features --lib -- store::simulation::tests::replay");
        resume_unwind(panic);
    }
}

/// The changes of the disk that a run makes when nothing fails. It is right at its end.
fn operations(seed: u64) -> u64 {
    let mut run = start(seed, false);
    run.work();
    let operations = run.world.fs.operations();
    run.check(true);
    operations
}

/// The run of a seed until this change of the disk, with these endings.
fn crash(seed: u64, operation: u64, endings: impl IntoIterator<Item = usize>) {
    let mut run = start(seed, false);
    run.crash_at(operation);
    named(&format!("{seed}:{operation}:0"), || run.work());
    for ending in endings {
        named(&format!("{seed}:{operation}:{ending}"), || {
            let mut after = run.fork(ending as u64);
            after.end(CRASHES[ending]);
            after.check(false);
        });
    }
}

/// The run of a seed on a disk that ails, through several lives, crashes and recoveries that are crashed.
fn troubled(seed: u64) {
    named(&seed.to_string(), || {
        let mut run = start(seed, true);
        run.work();
        run.end(Ending::Killed);
        run.check(true);
        // What a process has recovered survives the power loss that comes next.
        run.end(Ending::PowerLoss(Keep::Nothing));
        run.check(true);
    });
}

/// Everything of a seed. Every `stride`-th change of the disk is one to crash at.
fn everything(seed: u64, stride: usize) {
    troubled(seed);
    let mut total = 0;
    named(&seed.to_string(), || total = operations(seed));
    for operation in (seed % stride as u64..total).step_by(stride) {
        crash(seed, operation, 0..CRASHES.len());
    }
}

#[test]
fn replay() {
    let Ok(case) = std::env::var(REPLAY) else { return };
    if let Some((from, to)) = case.split_once("..") {
        return (from.parse().unwrap()..to.parse().unwrap()).for_each(|seed| everything(seed, 7));
    }
    let parts: Vec<u64> = case.split(':').map(|part| part.parse().unwrap()).collect();
    match parts[..] {
        [seed] => {
            troubled(seed);
            operations(seed);
        }
        [seed, operation, ending] => crash(seed, operation, [ending as usize]),
        _ => panic!("{REPLAY} is no case"),
    }
}

/// Each change with two of the endings, all of them in turn.
#[test]
fn fault_01_02_03_a_crash_at_every_change_of_the_disk() {
    for seed in [0, 1, 2] {
        let total = operations(seed);
        assert!(total > 100, "{total}");
        for operation in 0..total {
            let first = operation as usize % CRASHES.len();
            crash(seed, operation, [first, (first + 1 + seed as usize) % CRASHES.len()]);
        }
    }
}

#[test]
fn fault_01_weaker_durability_loses_only_the_unsynced_end() {
    for seed in [6, 7] {
        for operation in (0..operations(seed)).step_by(3) {
            crash(seed, operation, [operation as usize % CRASHES.len()]);
        }
    }
}

/// Failed, short and interrupted calls, full and read-only disks, bad sectors, crashes of the process and of the machine, and
/// crashes of the recovery from those.
#[test]
fn fault_04_10_11_12_13_15_30_many_lives_on_a_disk_that_ails() {
    (1000..1300).for_each(troubled);
}

#[test]
fn fault_30_33_34_many_lives_on_a_sound_disk() {
    for seed in 2000..2120 {
        named(&seed.to_string(), || assert!(operations(seed) > 0));
    }
}

/// Power goes while what the last crash left is recovered, each time a little further on.
#[test]
fn fault_04_crash_during_recovery_repeatedly() {
    let total = operations(5);
    for operation in (0..total).step_by(17) {
        let mut run = Run::new(5, false);
        run.crash_at(operation);
        run.work();
        run.end(Ending::PowerLoss(Keep::Random));
        for attempt in 0..12 {
            run.world.fs.crash_at(attempt);
            run.try_open();
            run.end(Ending::PowerLoss(Keep::Random));
        }
        named(&format!("5:{operation}:3"), || run.check(false));
    }
}

/// A sync fails, the process ends with what the page cache shows, another one recovers, and then the power fails.
#[test]
fn fault_10_a_failed_sync_then_a_kill_then_a_power_loss() {
    for (path, operation) in
        [(".seg", Operation::Sync), ("manifest", Operation::Sync), ("/store/log", Operation::SyncDir)]
    {
        for passed in 0..24 {
            let mut run = Run::new(3, false);
            run.expect_trouble();
            run.world.fs.inject(Fault::on(operation).path(path).after(passed).effect(Effect::Fail(IoKind::Other)));
            run.one_life();
            run.end(Ending::Killed);
            run.check(false);
            run.end(Ending::PowerLoss(Keep::Nothing));
            run.check(false);
        }
    }
}
