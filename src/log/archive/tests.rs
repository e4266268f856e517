//! Archives without faults, with foreign and damaged files in their place, and with a crash at every step.

use super::*;
use crate::env::sim::{Fault, Keep, Operation};
use crate::log::simulation::Machine;
use crate::log::{Log as _, LogFiles};
use crate::types::{Digest, ErrorKind, Hash};

const ARCHIVE: &str = "/elsewhere/archive";

fn archive() -> &'static Path {
    Path::new(ARCHIVE)
}

/// A log of so many transactions, some in a segment each.
fn filled(seed: u64, count: usize) -> (Machine, FileLog) {
    let mut machine = Machine::new(seed);
    let log = machine.create().unwrap();
    fill(&mut machine, &log, count);
    (machine, log)
}

fn fill(machine: &mut Machine, log: &FileLog, count: usize) {
    for _ in 0..count {
        machine.append(log, &[20_000]).unwrap();
        machine.sync(log).unwrap();
    }
}

/// As a trim of the store does it: archived first.
fn trim(machine: &mut Machine, log: &FileLog, floor: u64) -> Result<Removable, LogError> {
    let done = log.archive(archive(), Position(floor))?;
    machine.trim(log, Position(floor), Position(floor))?;
    Ok(done)
}

/// Everything from the first position on is there, as it was appended.
fn check_whole(machine: &Machine) {
    let files = LogFiles::open_with_archive(&machine.world.env(), &Machine::dir(), archive()).unwrap();
    assert_eq!((files.floor().position, files.snapshot()), (Position::ZERO, None));
    let mut next = 0;
    for frame in files.frames(Position(1), Check::Chain).unwrap() {
        assert_eq!(frame.unwrap().payload, machine.model.history[next].payload);
        next += 1;
    }
    assert!(next >= machine.model.acknowledged, "{next} of {}", machine.model.acknowledged);
}

#[test]
fn what_was_archived_is_read_with_the_log() {
    let (mut machine, log) = filled(1, 12);
    let before = machine.world.fs.used();
    let done = trim(&mut machine, &log, 5).unwrap();
    assert_eq!((done.segments, done.bytes), (1, 64 << 10));
    check_whole(&machine);
    // The second time the former snapshot goes along.
    let former = log.snapshot().unwrap();
    assert_eq!(trim(&mut machine, &log, 9).unwrap(), Removable { segments: 2, bytes: (128 << 10) + former.bytes });
    assert!(machine.world.fs.content(&former.path(archive())).is_some());
    assert!(machine.world.fs.content(&former.path(&Machine::dir())).is_none());
    assert!(machine.world.fs.used() < before + (64 << 10), "moved, not copied");
    check_whole(&machine);
    // Nothing left to do is no error.
    assert_eq!(log.archive(archive(), Position(9)).unwrap().segments, 0);

    let env = machine.world.env();
    let files = LogFiles::open_with_archive(&env, &Machine::dir(), archive()).unwrap();
    assert_eq!(files.head_at(Position(4)).unwrap().time, machine.model.history[3].time);
    let alone = LogFiles::open(&env, &Machine::dir()).unwrap();
    assert!(matches!(alone.frames(Position(4), Check::Order), Err(LogError::BelowFloor { .. })));
    // A reader follows the log over its next trim.
    fill(&mut machine, &log, 6);
    trim(&mut machine, &log, 15).unwrap();
    assert_eq!(files.refresh().unwrap(), Position(18));
    assert_eq!(files.frames(Position(2), Check::Chain).unwrap().filter_map(Result::ok).count(), 17);
    log.close().unwrap();
    drop(log);
    machine.open().unwrap();
    check_whole(&machine);
}

#[test]
fn fault_22_what_does_not_go_with_the_log_is_refused_and_stays_as_it_is() {
    let (mut machine, log) = filled(2, 12);
    trim(&mut machine, &log, 5).unwrap();
    let files = |machine: &Machine| machine.world.fs.read_dir(archive()).unwrap();
    let (listed, index) = (files(&machine), machine.world.fs.content(&archive().join(INDEX)).unwrap());
    let refused = |machine: &Machine, log: &FileLog, dir: &Path, keep: u64| {
        let error = log.archive(dir, Position(keep)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(files(machine), listed);
        error.to_string()
    };
    // A trim without the archive makes a gap.
    let snapshot = machine.snapshot(&log, Position(9)).unwrap();
    log.trim(snapshot, Position(9)).unwrap();
    fill(&mut machine, &log, 3);
    assert!(refused(&machine, &log, archive(), 12).contains("archive_end=`3` log_start=`9`"));
    let env = machine.world.env();
    let attached = LogFiles::open_with_archive(&env, &Machine::dir(), archive()).unwrap_err();
    assert!(matches!(attached, LogError::OtherArchive { .. }), "{attached}");
    let none = LogFiles::open_with_archive(&env, &Machine::dir(), Path::new("/nowhere")).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    assert!(refused(&machine, &log, &Machine::dir(), 12).contains("a log lies there"));
    // Another log's.
    let (other, strange) = filled(3, 12);
    for name in &listed {
        let path = archive().join(name);
        other.world.env().fs.create_dir_all(archive()).unwrap();
        other.world.fs.plant(&path, machine.world.fs.content(&path).unwrap());
    }
    assert!(refused(&other, &strange, archive(), 5).contains("of another log"));
    // Something of that name which nobody lists.
    let (lone, log) = filled(4, 12);
    let path = log.segments()[0].path(archive());
    lone.world.env().fs.create_dir_all(archive()).unwrap();
    lone.world.fs.plant(&path, b"a letter".to_vec());
    let error = log.archive(archive(), Position(5)).unwrap_err();
    assert!(error.to_string().contains("a file is in the way"), "{error}");
    assert_eq!(lone.world.fs.content(&path).unwrap(), b"a letter");
    assert_eq!(machine.world.fs.content(&archive().join(INDEX)).unwrap(), index);
}

#[test]
fn fault_08_nothing_leaves_the_log_that_was_not_proven_in_the_archive() {
    let (mut machine, log) = filled(5, 12);
    trim(&mut machine, &log, 5).unwrap();
    let index = machine.world.fs.content(&archive().join(INDEX)).unwrap();
    let segment = log.segments()[0].path(&Machine::dir());
    let sound = machine.world.fs.content(&segment).unwrap();
    let mut damaged = sound.clone();
    damaged[5000] ^= 1;
    machine.world.fs.plant(&segment, damaged);
    let error = log.archive(archive(), Position(9)).unwrap_err();
    assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == segment), "{error}");
    machine.world.fs.plant(&segment, sound);
    // Room, and a disk that fails while it is written to.
    let free = machine.world.fs.used() + (64 << 10);
    machine.world.fs.set_capacity(free);
    let error = log.archive(archive(), Position(9)).unwrap_err();
    assert!(matches!(error, LogError::NoSpace { needed, .. } if needed > 128 << 10), "{error}");
    machine.world.fs.set_capacity(1 << 40);
    for operation in [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        machine.world.fs.inject(Fault::on(operation).path("/elsewhere"));
        log.archive(archive(), Position(9)).unwrap_err();
        machine.world.fs.heal();
        assert_eq!(machine.world.fs.content(&archive().join(INDEX)).unwrap(), index, "{operation:?}");
        check_whole(&machine);
    }
    fill(&mut machine, &log, 1);
    trim(&mut machine, &log, 9).unwrap();
    check_whole(&machine);
}

#[test]
fn fault_08_a_crash_at_any_step_leaves_every_transaction_in_one_place_or_the_other() {
    let prepared = || {
        let (mut machine, log) = filled(6, 12);
        trim(&mut machine, &log, 5).unwrap();
        (machine, log)
    };
    let steps = {
        let (mut machine, log) = prepared();
        let before = machine.world.fs.operations();
        trim(&mut machine, &log, 9).unwrap();
        machine.world.fs.operations() - before
    };
    assert!(steps > 15, "{steps}");
    for step in 0..steps {
        for keep in [Keep::Nothing, Keep::Everything, Keep::Random] {
            let (mut machine, log) = prepared();
            machine.world.fs.crash_at(step);
            // Removing what the manifest does not list any more may fail unseen.
            let _ = trim(&mut machine, &log, 9);
            drop(log);
            machine.world.fs.crash(keep);
            let log = machine.open().unwrap();
            check_whole(&machine);
            assert!([5, 9].contains(&log.floor().0), "{step} {keep:?}");
            // The same again gets through.
            if log.floor() < Position(9) {
                // A file that the crash cut, and nobody lists yet.
                let head = log.head_at(Position(9)).unwrap();
                let content = format!("the state at {}", head.position).into_bytes();
                let snapshot = Snapshot { head, bytes: 0, digest: Digest::of_bytes(&content) };
                machine.world.fs.plant(&snapshot.path(&Machine::dir()), content);
            }
            let snapshot = machine.snapshot(&log, Position(9)).unwrap();
            log.archive(archive(), Position(9)).unwrap();
            log.trim(snapshot, Position(9)).unwrap();
            check_whole(&machine);
            let sealed = log.segments().len() - 1;
            assert!(log.segments()[0].last > Position(9) || sealed == 0, "{step} {keep:?}");
        }
    }
}

#[test]
fn an_archiving_leaves_nothing_of_an_interrupted_one_that_went_further() {
    let (machine, log) = filled(6, 12);
    machine.world.fs.inject(Fault::on(Operation::Rename).path("archive/archive").times(u64::MAX));
    log.archive(archive(), Position(11)).unwrap_err();
    machine.world.fs.heal();
    let copied = machine.world.fs.read_dir(archive()).unwrap();
    // Nothing of ours.
    machine.world.fs.plant(&archive().join("00000000000000ff.seg"), b"a letter".to_vec());
    log.archive(archive(), Position(5)).unwrap();
    let mut expected: Vec<String> = segments(machine.world.env().fs.as_ref(), archive())
        .unwrap()
        .iter()
        .map(|entry| format!("{}.seg", entry.id))
        .collect();
    assert!(copied.iter().filter(|name| name.ends_with(".seg")).count() > expected.len());
    expected.extend(["00000000000000ff.seg".to_owned(), INDEX.to_owned()]);
    assert_eq!(machine.world.fs.read_dir(archive()).unwrap(), expected);
}

fn sample() -> Index {
    let start = Head { position: Position(4), time: Timestamp(5), chain: Hash([6; 32]) };
    let mut sealed = SegmentEntry::empty(crate::log::SegmentId(2), 3, start);
    (sealed.last, sealed.end, sealed.last_time, sealed.chain) = (Position(9), 8192, Timestamp(8), Hash([7; 32]));
    let snapshots = vec![Snapshot { head: start, bytes: 10, digest: Digest([9; 32]) }];
    let redaction = Position(1);
    Index { log_id: LogId([1; 16]), created: Timestamp(2), start, redaction, snapshots, segments: vec![sealed] }
}

#[test]
fn golden_bytes_of_the_archive() {
    let bytes = sample().encode();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let words = |values: &[u64]| -> String {
        values.iter().flat_map(|value| value.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
    };
    let expect = format!(
        "4c414b454c4f474101000000{GOLDEN_CRC}{}{}{}{}{}{}{}{}{}{}",
        words(&[304]),
        "01".repeat(16),
        words(&[2, 4, 5]),
        "06".repeat(32),
        words(&[1, 1, 4, 5]),
        "06".repeat(32),
        words(&[10]),
        "09".repeat(32),
        words(&[1, 2, 0, 3, 5, 9, 8192, 5, 8]),
        "07".repeat(32),
    );
    assert_eq!(hex, expect);
    assert_eq!(Index::decode(&bytes), Ok(sample()));
}

const GOLDEN_CRC: &str = "c6b929ef";

#[test]
fn fault_16_every_flipped_bit_and_every_cut_of_the_archive_is_found() {
    let bytes = sample().encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(Index::decode(&flipped), Err(Unusable::Damaged(_))), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(Index::decode(&bytes[..len]).is_err(), "len {len}");
    }
}
