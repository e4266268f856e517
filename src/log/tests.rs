//! The log on a real file system: the life of a log without faults, and what a reader beside it sees.

use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::env::Env;
use crate::types::ErrorKind;

pub(super) fn draft(time: i64, payload: &[u8]) -> Draft {
    let salt = Salt([time as u8; 16]);
    Draft { time: Timestamp(time), salt, digest: Digest::of(&salt, payload), payload: Bytes::copy_from_slice(payload) }
}

pub(super) fn small() -> LogSettings {
    LogSettings { segment_bytes: 64 << 10, min_free_bytes: Some(0) }
}

struct OnDisk {
    _tempdir: tempfile::TempDir,
    env: Env,
    lock: PathBuf,
    dir: PathBuf,
}

impl OnDisk {
    fn new() -> OnDisk {
        let tempdir = tempfile::tempdir().unwrap();
        let (lock, dir) = (tempdir.path().join("LOCK"), tempdir.path().join("log"));
        OnDisk { _tempdir: tempdir, env: Env::os(), lock, dir }
    }

    fn lock(&self) -> DirLock {
        DirLock::take(&self.env, &self.lock).unwrap()
    }

    fn create(&self) -> FileLog {
        FileLog::create(self.env.clone(), self.lock(), &self.dir, small()).unwrap()
    }

    fn open(&self) -> Result<FileLog, LogError> {
        FileLog::open(self.env.clone(), self.lock(), &self.dir, small(), None)
    }

    fn snapshot(&self, log: &FileLog, position: u64, content: &[u8]) -> Snapshot {
        let head = log.head_at(Position(position)).unwrap();
        let snapshot = Snapshot { head, bytes: content.len() as u64, digest: Digest::of_bytes(content) };
        std::fs::write(snapshot.path(&self.dir), content).unwrap();
        snapshot
    }

    fn trim(&self, log: &FileLog, floor: u64, keep: u64) -> Position {
        let snapshot = self.snapshot(log, floor, &floor.to_le_bytes());
        log.trim(snapshot, Position(keep)).unwrap();
        assert_eq!((log.floor(), log.snapshot()), (Position(floor), Some(snapshot)));
        Position(floor)
    }
}

fn payloads(frames: impl Iterator<Item = Result<Frame, LogError>>) -> Vec<Bytes> {
    frames.map(|frame| frame.unwrap().payload).collect()
}

#[test]
fn what_is_appended_is_read_in_order_across_segments_and_openings() {
    let disk = OnDisk::new();
    let mut log = disk.create();
    let mut expect = Vec::new();
    let mut position = Position::ZERO;
    for round in 0..40i64 {
        let batch: Vec<Draft> = (0..5).map(|at| draft(round, &vec![round as u8; 100 * at + 1000])).collect();
        expect.extend(batch.iter().map(|draft| draft.payload.clone()));
        let head = log.append(position, &batch).unwrap();
        position = head.position;
        assert_eq!(log.head(), head);
        assert_eq!(log.sync().unwrap(), position);
        match round % 10 {
            3 => log.prepare_spare().unwrap(),
            6 => {
                log.close().unwrap();
                assert!(matches!(log.sync(), Err(LogError::Closed)));
                drop(log);
                log = disk.open().unwrap();
            }
            9 => {
                drop(log);
                log = disk.open().unwrap();
            }
            _ => {}
        }
        assert_eq!(log.head(), head);
    }
    assert!(log.segments().len() > 3, "{:?}", log.segments());
    assert_eq!(payloads(log.read(Position(1)).unwrap()), expect);
    assert_eq!(payloads(log.read_checked(Position(1), Check::Chain).unwrap()), expect);
    for from in [2, 7, 100, 199, 200, 201] {
        assert_eq!(payloads(log.read(Position(from)).unwrap()), expect[from as usize - 1..], "from {from}");
    }
    assert!(matches!(log.read(Position(202)), Err(LogError::AboveHead { .. })));
    assert_eq!(log.position_at(Timestamp(7)).unwrap(), Position(40));
    assert_eq!(log.position_at(Timestamp(-1)).unwrap(), Position(0));
    assert_eq!(log.position_at(Timestamp(99)).unwrap(), Position(200));

    let files = LogFiles::open(&disk.env, &disk.dir).unwrap();
    assert_eq!(files.head().unwrap(), log.head());
    assert_eq!(payloads(files.frames(Position(1), Check::Chain).unwrap()), expect);

    let floor = disk.trim(&log, 90, 90);
    assert!(matches!(log.read(floor), Err(LogError::BelowFloor { .. })));
    assert_eq!(payloads(log.read(floor.next()).unwrap()), expect[floor.0 as usize..]);
    drop(log);
    let log = disk.open().unwrap();
    assert_eq!((log.floor(), log.head().position), (floor, Position(200)));
    assert_eq!(payloads(log.read(floor.next()).unwrap()), expect[floor.0 as usize..]);
}

#[test]
fn a_reader_beside_the_writer_sees_what_is_promised() {
    let disk = OnDisk::new();
    let log = disk.create();
    let files = LogFiles::open(&disk.env, &disk.dir).unwrap();
    let mut position = Position::ZERO;
    for time in 0..100 {
        position = log.append(position, &[draft(time, &[1; 3000])]).unwrap().position;
        assert_eq!(files.refresh().unwrap(), position.previous());
        log.sync().unwrap();
        assert_eq!(files.refresh().unwrap(), position);
        assert_eq!(files.head().unwrap(), log.head());
        assert_eq!(files.frames(position, Check::Order).unwrap().count(), 1);
    }
    assert!(files.segments().len() > 3);
}

#[test]
fn fault_28_a_second_opener_is_told_who_holds_the_lock() {
    let disk = OnDisk::new();
    let _log = disk.create();
    let error = DirLock::take(&disk.env, &disk.lock).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("holder=`pid {}`", std::process::id())), "{error}");
}

#[test]
fn what_cannot_be_appended_changes_nothing() {
    let disk = OnDisk::new();
    let lock = disk.lock();
    let log = FileLog::create(disk.env.clone(), lock.clone(), &disk.dir, small()).unwrap();
    log.append(Position::ZERO, &[draft(5, b"one")]).unwrap();
    let head = log.head();
    assert!(matches!(log.append(Position::ZERO, &[draft(5, b"two")]), Err(LogError::HeadMoved { .. })));
    assert!(matches!(log.append(Position(1), &[draft(4, b"two")]), Err(LogError::InvalidDraft { .. })));
    assert_eq!(log.append(Position(1), &[]).unwrap(), head);
    assert_eq!(log.head(), head);
    assert!(matches!(FileLog::create(disk.env.clone(), lock, &disk.dir, small()), Err(LogError::Exists { .. })));
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let disk = OnDisk::new();
    let log = disk.create();
    log.append(Position::ZERO, &[draft(1, b"small")]).unwrap();
    log.prepare_spare().unwrap();
    log.append(Position(1), &[draft(1, &[2; 300 << 10]), draft(1, b"with it")]).unwrap();
    log.append(Position(3), &[draft(1, b"after it")]).unwrap();
    log.sync().unwrap();
    drop(log);
    let log = disk.open().unwrap();
    assert_eq!(payloads(log.read(Position(2)).unwrap())[0].len(), 300 << 10);
    assert_eq!(log.head().position, Position(4));
}

#[test]
fn fault_30_a_reader_that_trim_overtakes_is_told_the_floor() {
    let disk = OnDisk::new();
    let log = disk.create();
    let mut position = Position::ZERO;
    for time in 0..100 {
        position = log.append(position, &[draft(time, &[1; 3000])]).unwrap().position;
    }
    log.sync().unwrap();
    let files = LogFiles::open(&disk.env, &disk.dir).unwrap();
    let mut beside = files.frames(Position(1), Check::Order).unwrap();
    let mut within = log.read(Position(1)).unwrap();
    assert!(beside.next().unwrap().is_ok() && within.next().unwrap().is_ok());
    let floor = disk.trim(&log, 90, 90);
    // What is open is read to its end.
    for error in [beside.find_map(Result::err).unwrap(), within.find_map(Result::err).unwrap()] {
        assert!(matches!(error, LogError::BelowFloor { floor: at, .. } if at == floor), "{error}");
    }
    files.refresh().unwrap();
    assert_eq!(files.floor().position, floor);
    assert_eq!(files.frames(floor.next(), Check::Chain).unwrap().filter_map(Result::ok).count() as u64, 100 - floor.0);
}

#[test]
fn a_spare_prepared_at_any_moment_harms_no_rotation() {
    let disk = OnDisk::new();
    let log = disk.create();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Bounded, so that a failure of the other thread ends the test.
            for _ in 0..1_000_000 {
                log.prepare_spare().unwrap();
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut position = Position::ZERO;
        for time in 0..60 {
            position = log.append(position, &[draft(time, &[1; 40_000])]).unwrap().position;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        log.sync().unwrap();
    });
    assert_eq!(log.read_checked(Position(1), Check::Chain).unwrap().filter_map(Result::ok).count(), 60);
    let found = verify(&disk.env, &disk.dir, None, &mut |_| {}, &mut |_, _| {}).unwrap();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
}

/// A reader that finds the newest slot half written or damaged falls back to the other one, but never behind what it saw.
#[test]
fn a_reader_does_not_go_back_to_an_older_manifest() {
    let disk = OnDisk::new();
    let log = disk.create();
    for n in 1..=4 {
        log.append(Position(n - 1), &[draft(n as i64, &[n as u8; 40 << 10])]).unwrap();
        log.sync().unwrap();
    }
    let files = LogFiles::open(&disk.env, &disk.dir).unwrap();
    let (head, segments) = (files.head().unwrap(), files.segments());
    assert_eq!((head.position, segments.len()), (Position(4), 4));
    let newest = manifest::load(disk.env.fs.as_ref(), &disk.dir).unwrap().slot;
    std::fs::write(manifest::slot_path(&disk.dir, newest), b"torn").unwrap();
    assert_eq!(files.refresh().unwrap(), Position(4));
    assert_eq!((files.head().unwrap(), files.segments()), (head, segments));
    assert_eq!(payloads(files.frames(Position(1), Check::Chain).unwrap()).len(), 4);
}

#[test]
fn a_trimmed_log_shows_nothing_below_its_floor_and_keeps_what_it_was_told_to() {
    let disk = OnDisk::new();
    let log = disk.create();
    let mut position = Position::ZERO;
    for time in 0..100 {
        position = log.append(position, &[draft(time, &[1; 3000])]).unwrap().position;
    }
    log.sync().unwrap();
    let files = || -> Vec<String> {
        let names = disk.env.fs.read_dir(&disk.dir).unwrap();
        names.into_iter().filter(|name| name.starts_with("snapshot-")).collect()
    };
    let first = log.segments()[0].id;
    disk.trim(&log, 30, 0);
    assert_eq!(log.segments()[0].id, first, "nothing is removed");
    disk.trim(&log, 50, 30);
    assert!(log.segments()[0].id > first && log.segments()[0].first <= Position(31));
    assert_eq!(files().len(), 2, "{:?}", files());
    for below in [1, 30, 31, 50] {
        assert!(matches!(log.read(Position(below)), Err(LogError::BelowFloor { floor: Position(50), .. })), "{below}");
    }
    let below = log.segments()[0].last;
    assert!(below < Position(50) && matches!(log.head_at(below), Err(LogError::BelowFloor { .. })));
    assert!(matches!(log.position_at(Timestamp(48)), Err(LogError::BelowFloor { .. })));
    assert_eq!(log.position_at(Timestamp(49)).unwrap(), Position(50));
    assert_eq!(log.position_at(Timestamp(60)).unwrap(), Position(61));
    // One of the same position takes its place, and what no one lists goes.
    let other = disk.snapshot(&log, 50, b"another");
    log.trim(other, Position(50)).unwrap();
    assert_eq!(files(), [other.file_name()]);
    let refused = |snapshot: Snapshot| log.trim(snapshot, Position(60)).unwrap_err();
    let ahead = disk.snapshot(&log, 60, b"ahead");
    let strange = Snapshot { head: Head { time: Timestamp(1), ..ahead.head }, ..ahead };
    assert!(matches!(refused(strange), LogError::InvalidSnapshot { .. }));
    assert!(matches!(refused(Snapshot { bytes: 6, ..ahead }), LogError::InvalidSnapshot { .. }));
    std::fs::remove_file(ahead.path(&disk.dir)).unwrap();
    assert!(matches!(refused(ahead), LogError::InvalidSnapshot { .. }));
    assert_eq!(log.floor(), Position(50));
    drop(log);

    let beside = LogFiles::open(&disk.env, &disk.dir).unwrap();
    assert_eq!((beside.floor(), beside.snapshot()), (other.head, Some(other)));
    assert_eq!(payloads(beside.frames(Position(51), Check::Chain).unwrap()).len(), 50);
    let found = || verify(&disk.env, &disk.dir, None, &mut |_| {}, &mut |done, total| assert!(done <= total)).unwrap();
    assert_eq!(found().problems, []);
    for damaged in [&b"anothe!"[..], b"anothe"] {
        std::fs::write(other.path(&disk.dir), damaged).unwrap();
        let problems = found().problems;
        assert_eq!((problems.len(), &problems[0].path), (1, &other.path(&disk.dir)));
        // A snapshot of the right size is read when it is needed.
        assert_eq!(disk.open().is_ok(), damaged.len() == 7);
    }
    std::fs::remove_file(other.path(&disk.dir)).unwrap();
    assert_eq!(disk.open().unwrap_err().kind(), ErrorKind::Corrupt, "never dropped");
}

#[test]
fn a_log_begins_at_a_snapshot() {
    let disk = OnDisk::new();
    let start = Head { position: Position(7), time: Timestamp(5), chain: Hash([9; 32]) };
    let snapshot = Snapshot { head: start, bytes: 5, digest: Digest::of_bytes(b"state") };
    let file = disk.dir.with_file_name("made");
    let birth = Birth { id: LogId([3; 16]), created: Timestamp(2), start, snapshot: Some((snapshot, file.clone())) };
    let create = |birth: &Birth| FileLog::create_from(disk.env.clone(), disk.lock(), &disk.dir, small(), birth.clone());
    assert!(matches!(create(&Birth { snapshot: None, ..birth.clone() }), Err(LogError::InvalidSnapshot { .. })));
    std::fs::write(&file, b"state").unwrap();
    let log = create(&birth).unwrap();
    assert_eq!((log.id(), log.created(), log.head(), log.floor()), (birth.id, birth.created, start, Position(7)));
    assert_eq!(log.append(Position(7), &[draft(5, b"eight")]).unwrap().position, Position(8));
    log.close().unwrap();
    drop(log);
    let log = disk.open().unwrap();
    assert_eq!(payloads(log.read(Position(8)).unwrap()), [&b"eight"[..]]);
    assert!(matches!(log.read(Position(7)), Err(LogError::BelowFloor { .. })));
    assert_eq!((log.head_at(Position(7)).unwrap(), log.snapshot()), (start, Some(snapshot)));
    assert_eq!(verify(&disk.env, &disk.dir, None, &mut |_| {}, &mut |_, _| {}).unwrap().problems, []);
}

#[test]
fn a_log_that_was_made_unseen_goes_on_like_any_other() {
    let disk = OnDisk::new();
    let id = LogId([3; 16]);
    let birth = Birth { id, created: Timestamp(2), start: Head::origin(id), snapshot: None };
    let settings = LogSettings { segment_bytes: 8 << 20, min_free_bytes: Some(0) };
    let log = FileLog::create_unseen(disk.env.clone(), disk.lock(), &disk.dir, settings.clone(), birth).unwrap();
    let payload = vec![7; 1 << 20];
    for position in 0..20 {
        log.append(Position(position), &[draft(5, &payload)]).unwrap();
    }
    log.close().unwrap();
    drop(log);
    let sizes: Vec<u64> = LogFiles::open(&disk.env, &disk.dir)
        .unwrap()
        .segments()
        .iter()
        .map(|segment| std::fs::metadata(segment.path(&disk.dir)).unwrap().len())
        .collect();
    // Seven fit into each of the first two.
    let [8_388_608, 8_388_608, last] = sizes[..] else { panic!("{sizes:?}") };
    assert!((7 << 20..8 << 20).contains(&last), "{last}");
    let sound = || verify(&disk.env, &disk.dir, None, &mut |_| {}, &mut |_, _| {}).unwrap();
    assert_eq!((sound().problems, sound().head.position), (Vec::new(), Position(20)));
    let log = FileLog::open(disk.env.clone(), disk.lock(), &disk.dir, settings, None).unwrap();
    for position in 20..30 {
        log.append(Position(position), &[draft(5, &payload)]).unwrap();
    }
    log.close().unwrap();
    assert_eq!((sound().problems, sound().head.position), (Vec::new(), Position(30)));
    assert_eq!(payloads(log.read(Position(1)).unwrap()).len(), 30);
}
