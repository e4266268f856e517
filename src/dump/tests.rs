//! Dumps that come back whole, dumps that are damaged in every way, and restores interrupted everywhere.

use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::format::{BLOCK_BYTES, BLOCK_HEADER_BYTES, TRAILER_BYTES};
use super::*;
use crate::env::sim::{Effect, Fault, Keep, Operation, SimWorld};
use crate::env::{Env, Fs as _};
use crate::event::{Event, RedactedTransaction, Transaction};
use crate::log::{
    Check, DirLock, Draft, FileLog, Frame, Head, Log as _, LogError, LogFiles, LogSettings, Proof, Snapshot,
};
use crate::types::{Digest, ErrorKind, Hash, Key, LogId, Position, Salt, Timestamp};

const LOG: &str = "/store/log";

/// A sink that can be looked at while somebody else has it.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct World(SimWorld);

impl World {
    fn new(seed: u64) -> World {
        let world = SimWorld::new(seed);
        world.env().fs.create_dir_all(Path::new("/store")).unwrap();
        world.env().fs.sync_dir(Path::new("/")).unwrap();
        World(world)
    }

    fn fork(&self, seed: u64) -> World {
        World(self.0.fork(seed))
    }

    fn env(&self) -> Env {
        self.0.env()
    }

    fn lock(&self) -> DirLock {
        DirLock::take(&self.env(), Path::new("/store/LOCK")).unwrap()
    }

    fn settings() -> LogSettings {
        LogSettings { segment_bytes: 64 << 10, min_free_bytes: Some(0) }
    }

    fn create(&self) -> FileLog {
        FileLog::create(self.env(), self.lock(), Path::new(LOG), World::settings()).unwrap()
    }

    fn open(&self) -> Result<FileLog, LogError> {
        FileLog::open(self.env(), self.lock(), Path::new(LOG), World::settings(), None)
    }

    /// A log of `count` transactions.
    fn with(self, count: u64) -> World {
        let log = self.create();
        append(&log, count, 50);
        log.close().unwrap();
        self
    }

    fn files(&self) -> LogFiles {
        LogFiles::open(&self.env(), Path::new(LOG)).unwrap()
    }

    fn frames(&self) -> Vec<Frame> {
        let files = self.files();
        files.frames(files.floor().position.next(), Check::Chain).unwrap().map(Result::unwrap).collect()
    }

    fn dump_as(&self, options: DumpOptions) -> Result<(Vec<u8>, DumpSummary), DumpError> {
        let sink = Sink::default();
        let (sink, summary) = dump(&self.env(), &self.files(), options, sink, "out", &mut |done, total| {
            assert!(done <= total);
        })?;
        let bytes = sink.0.lock().clone();
        assert_eq!(summary.bytes, bytes.len() as u64);
        assert_eq!(check(&bytes).unwrap(), summary);
        Ok((bytes, summary))
    }

    fn dump(&self) -> Vec<u8> {
        self.dump_as(DumpOptions::default()).unwrap().0
    }

    fn part(&self, since: u64, at: Option<u64>) -> Vec<u8> {
        let options = DumpOptions { since: Some(Position(since)), at: at.map(Position), compress: false };
        self.dump_as(options).unwrap().0
    }

    fn plant(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = Path::new("/").join(name);
        self.0.fs.plant(&path, bytes.to_vec());
        path
    }

    fn restore_with(&self, sources: Vec<DumpSource>, as_clone: bool) -> Result<Restored, DumpError> {
        let options = RestoreOptions { as_clone, settings: World::settings() };
        restore(&self.env(), self.lock(), Path::new(LOG), sources, &options, &mut |_, _| {})
    }

    fn restore(&self, dumps: &[&[u8]]) -> Result<Restored, DumpError> {
        let plant = |(at, bytes): (usize, &&[u8])| DumpSource::File(self.plant(&format!("dump{at}"), bytes));
        self.restore_with(dumps.iter().enumerate().map(plant).collect(), false)
    }

    fn restore_stream(&self, dump: &[u8], as_clone: bool) -> Result<Restored, DumpError> {
        self.restore_with(vec![stream(dump)], as_clone)
    }

    /// Names in the store's directory.
    fn names(&self) -> Vec<String> {
        self.0.fs.read_dir(Path::new("/store")).unwrap()
    }
}

fn stream(dump: &[u8]) -> DumpSource {
    DumpSource::Stream { name: "-".to_owned(), input: Box::new(Cursor::new(dump.to_vec())) }
}

fn draft(time: i64, payload: &[u8]) -> Draft {
    let salt = Salt([time as u8; 16]);
    Draft { time: Timestamp(time), salt, digest: Digest::of(&salt, payload), payload: Bytes::copy_from_slice(payload) }
}

fn append(log: &FileLog, count: u64, size: usize) {
    for _ in 0..count {
        let head = log.head();
        let payload = [&head.position.0.to_le_bytes()[..], &vec![7; size]].concat();
        log.append(head.position, &[draft(head.position.0 as i64 / 2, &payload)]).unwrap();
    }
    log.sync().unwrap();
}

fn check(dump: &[u8]) -> Result<DumpSummary, DumpError> {
    verify(&mut DumpReader::new(Cursor::new(dump.to_vec()), "dump")?, &mut |done| assert!(done <= dump.len() as u64))
}

fn kind(done: Result<Restored, DumpError>) -> ErrorKind {
    done.unwrap_err().kind()
}

#[test]
fn fault_31_a_dump_of_a_restored_dump_is_the_same() {
    for compress in [false, true] {
        let world = World::new(1).with(300);
        let options = DumpOptions { compress, ..DumpOptions::default() };
        let (dump, summary) = world.dump_as(options).unwrap();
        assert_eq!((summary.transactions, summary.head.position), (300, Position(300)));
        for streamed in [false, true] {
            let other = World::new(2);
            let restored = if streamed { other.restore_stream(&dump, false) } else { other.restore(&[&dump]) }.unwrap();
            assert_eq!((restored.head, restored.appended), (summary.head, 300));
            assert_eq!((restored.log_id, other.files().id()), (world.files().id(), world.files().id()));
            assert_eq!(other.files().created(), world.files().created());
            assert_eq!(other.frames(), world.frames());
            assert_eq!(other.dump_as(options).unwrap().0, dump);
            assert_eq!(other.names(), ["LOCK", "log"]);
            // The same again finds everything there.
            let again = if streamed { other.restore_stream(&dump, false) } else { other.restore(&[&dump]) }.unwrap();
            assert_eq!((again.head, again.appended), (summary.head, 0));
            assert_eq!(other.names(), ["LOCK", "log"]);
        }
    }
}

#[test]
fn blocks_are_cut_by_content_alone() {
    let world = World::new(1);
    let log = world.create();
    append(&log, 40, 100_000);
    log.close().unwrap();
    drop(log);
    let (dump, _) = world.dump_as(DumpOptions { compress: false, ..DumpOptions::default() }).unwrap();
    let blocks = dump.windows(4).filter(|bytes| bytes == b"LLdb").count();
    assert_eq!(blocks, (40 * 100_048_usize).div_ceil(BLOCK_BYTES + 50_000) + 1);
    let other = World::new(2);
    let settings = LogSettings { segment_bytes: 1 << 20, min_free_bytes: Some(0) };
    let options = RestoreOptions { as_clone: false, settings };
    restore(&other.env(), other.lock(), Path::new(LOG), vec![stream(&dump)], &options, &mut |_, _| {}).unwrap();
    assert_ne!(other.files().segments().len(), world.files().segments().len());
    assert_eq!(other.dump_as(DumpOptions { compress: false, ..DumpOptions::default() }).unwrap().0, dump);
    assert!(world.dump().len() < dump.len() / 50);
    assert_eq!(other.dump(), world.dump());

    // Whole blocks in another order, missing, or twice.
    let at: Vec<usize> = (0..dump.len()).filter(|&at| dump[at..].starts_with(b"LLdb")).collect();
    let (header, first, second, rest) = (&dump[..at[0]], &dump[at[0]..at[1]], &dump[at[1]..at[2]], &dump[at[2]..]);
    for wrong in [[header, second, first, rest], [header, first, b"", rest], [header, first, first, rest]] {
        assert_eq!(check(&wrong.concat()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    // A trailer too early.
    let early = [&dump[..at[2]], &dump[dump.len() - TRAILER_BYTES - BLOCK_HEADER_BYTES..]].concat();
    assert_eq!(check(&early).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn fault_16_31_every_flipped_bit_and_every_cut_of_a_dump_is_found() {
    for compress in [false, true] {
        let world = World::new(1).with(5);
        let (dump, _) = world.dump_as(DumpOptions { compress, ..DumpOptions::default() }).unwrap();
        for bit in 0..dump.len() * 8 {
            let mut flipped = dump.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = check(&flipped).unwrap_err();
            let expect = if bit < 64 { ErrorKind::Invalid } else { ErrorKind::Corrupt };
            assert_eq!(error.kind(), expect, "bit {bit}: {error}");
        }
        for len in 0..dump.len() {
            let error = check(&dump[..len]).unwrap_err();
            let expect = if len == 0 { ErrorKind::Invalid } else { ErrorKind::Corrupt };
            assert_eq!(error.kind(), expect, "length {len}: {error}");
        }
        assert_eq!(check(&[&dump[..], b"x"].concat()).unwrap_err().kind(), ErrorKind::Corrupt);
        // Nothing of it becomes visible.
        for at in (0..dump.len()).step_by(13) {
            let mut flipped = dump.clone();
            flipped[at] ^= 4;
            for damaged in [&dump[..at], &flipped] {
                let other = World::new(2);
                other.restore(&[damaged]).unwrap_err();
                other.restore_stream(damaged, false).unwrap_err();
                assert!(matches!(other.open(), Err(LogError::NotFound { .. })), "{at}");
                other.restore(&[&dump]).unwrap();
                assert_eq!(other.frames(), world.frames());
            }
        }
    }
}

#[test]
fn fault_32_what_is_no_dump_or_a_newer_one_is_refused() {
    let world = World::new(1).with(3);
    let other = World::new(2);
    for foreign in [&b"{\"version\":1}"[..], b"LAKELOGS0123456789", b"", &[0; 300]] {
        assert!(matches!(other.restore(&[foreign]), Err(DumpError::NotADump { .. })));
    }
    let newer = |at: usize| {
        let mut dump = world.dump();
        dump[at] = 9;
        let length = dump[16] as usize;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&dump[..12]);
        hasher.update(&dump[16..length]);
        dump[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
        dump
    };
    for at in [8, 20] {
        let error = other.restore(&[&newer(at)]).unwrap_err();
        assert!(matches!(error, DumpError::NewerFormat { found: 9, supported: 1, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let missing = vec![DumpSource::File("/none".into())];
    assert_eq!(kind(other.restore_with(missing, false)), ErrorKind::NotFound);
    assert_eq!(kind(other.restore_with(Vec::new(), false)), ErrorKind::Invalid);
    assert_eq!(other.names(), ["LOCK"]);
}

#[test]
fn a_chain_of_incrementals_is_the_whole() {
    let world = World::new(1).with(100);
    let whole = world.dump();
    let full = world.dump_as(DumpOptions { at: Some(Position(40)), ..DumpOptions::default() }).unwrap().0;
    let (first, second) = (world.part(40, Some(70)), world.part(70, None));
    let overlapping = world.part(10, Some(70));
    for chain in [vec![&full, &first, &second], vec![&full, &overlapping, &second], vec![&full, &world.part(40, None)]]
    {
        let other = World::new(2);
        let chain: Vec<&[u8]> = chain.into_iter().map(Vec::as_slice).collect();
        let restored = other.restore(&chain).unwrap();
        assert_eq!(
            (restored.base.position, restored.head.position, restored.appended),
            (Position(0), Position(100), 100)
        );
        assert_eq!(other.dump(), whole);
        // One by one, as a standby is fed.
        let standby = World::new(3);
        for dump in &chain {
            standby.restore_stream(dump, false).unwrap();
        }
        assert_eq!(standby.dump(), whole);
        // What is older is there already.
        assert_eq!(standby.restore(&[&full]).unwrap().appended, 0);
        assert_eq!(standby.frames().len(), 100);
    }
    let empty = world.part(100, None);
    assert_eq!(check(&empty).unwrap().transactions, 0);
    let other = World::new(2);
    other.restore(&[&whole, &empty]).unwrap();
    assert_eq!(other.dump(), whole);
}

#[test]
fn fault_22_31_gaps_and_forks_are_conflicts_and_change_nothing() {
    let world = World::new(1).with(20);
    let fork = world.fork(7);
    let full = world.dump_as(DumpOptions { at: Some(Position(20)), ..DumpOptions::default() }).unwrap().0;
    for (which, world) in [&world, &fork].into_iter().enumerate() {
        let log = world.open().unwrap();
        append(&log, 1, 90 + which);
        append(&log, 19, 50);
        log.close().unwrap();
    }
    let (ours, theirs) = (world.part(20, None), fork.part(20, None));
    let (ours_late, theirs_late) = (world.part(30, None), fork.part(30, None));
    let other = World::new(2);
    let refused = |error: DumpError, message: &str| {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    };
    // Among the dumps, before anything is written.
    refused(other.restore(&[&full, &ours_late]).unwrap_err(), "begins after position 30, and what is there ends at 20");
    refused(other.restore(&[&ours]).unwrap_err(), "begins after position 20, and what is there ends at 0");
    refused(other.restore(&[&world.part(10, Some(30)), &theirs_late]).unwrap_err(), "position=`30`");
    assert_eq!(other.names(), ["LOCK"]);
    refused(other.restore(&[&full, &ours, &theirs]).unwrap_err(), "position=`40`");
    let strange = World::new(9).with(3).dump();
    assert!(matches!(other.restore(&[&full, &strange]), Err(DumpError::OtherLog { .. })));
    // Onto a store.
    let target = World::new(3);
    target.restore(&[&full, &ours]).unwrap();
    let before = target.dump();
    for wrong in [&theirs, &theirs_late, &fork.dump(), &fork.part(25, Some(35)), &strange] {
        assert_eq!(kind(target.restore(&[wrong])), ErrorKind::Conflict);
        assert_eq!(kind(target.restore_stream(wrong, false)), ErrorKind::Conflict);
        assert_eq!((target.dump(), target.names()), (before.clone(), vec!["LOCK".to_owned(), "log".to_owned()]));
    }
    assert_eq!(kind(target.restore(&[&ours, &full])), ErrorKind::Invalid);
    let state = state_dump(&world);
    assert_eq!(kind(target.restore(&[&state, &ours])), ErrorKind::Invalid);
    assert_eq!(target.dump(), before);
}

#[test]
fn positions_that_are_not_there_cannot_be_dumped() {
    let world = World::new(1).with(10);
    let part = |since: Option<u64>, at: Option<u64>| {
        let options = DumpOptions { since: since.map(Position), at: at.map(Position), compress: true };
        world.dump_as(options).map(|(_, summary)| summary.head.position).map_err(|error| error.kind())
    };
    assert_eq!(part(Some(11), None), Err(ErrorKind::Invalid));
    assert_eq!(part(None, Some(11)), Err(ErrorKind::Invalid));
    assert_eq!(part(Some(5), Some(4)), Err(ErrorKind::Invalid));
    assert_eq!(part(Some(5), Some(5)), Ok(Position(5)));
    assert_eq!(part(None, Some(0)), Ok(Position(0)));
    trim(&world, 6);
    assert_eq!(part(Some(5), None), Err(ErrorKind::NotFound));
    assert_eq!(part(None, Some(5)), Err(ErrorKind::NotFound));
    assert_eq!(part(Some(6), None), Ok(Position(10)));
}

/// A small state; what is in it has nothing to do with the log.
fn entries() -> Vec<(Key, Position, Vec<u8>)> {
    (0..200u64)
        .map(|n| (Key::new(b"p", &n.to_be_bytes()), Position(n % 5 + 1), vec![n as u8; n as usize % 50]))
        .collect()
}

fn state_dump(world: &World) -> Vec<u8> {
    let files = world.files();
    let header = DumpHeader {
        kind: DumpKind::State,
        compressed: true,
        log_id: files.id(),
        created: files.created(),
        base: files.head().unwrap(),
        indexes: vec![DumpedIndex { name: "users".to_owned(), version: 3 }],
    };
    let mut writer = DumpWriter::new(Sink::default(), "out", header).unwrap();
    for (key, version, value) in entries() {
        writer.entry(&key, version, &value).unwrap();
    }
    let (sink, _) = writer.finish().unwrap();
    sink.0.lock().clone()
}

fn state_of(world: &World) -> Vec<(Key, Position, Vec<u8>)> {
    let files = world.files();
    let snapshot = files.snapshot().unwrap();
    let mut reader = SnapshotReader::open(&world.env(), Path::new(LOG), files.id(), &snapshot).unwrap();
    assert_eq!(reader.indexes(), [DumpedIndex { name: "users".to_owned(), version: 3 }]);
    let mut state = Vec::new();
    while let Some(StateEntry { key, version, value }) = reader.entry().unwrap() {
        state.push((Key(key.to_vec().into()), version, value.to_vec()));
    }
    state
}

fn trim(world: &World, floor: u64) {
    let log = world.open().unwrap();
    let head = log.head_at(Position(floor)).unwrap();
    let path = Path::new(LOG).join("snapshot.new");
    let indexes = vec![DumpedIndex { name: "users".to_owned(), version: 3 }];
    let identity = (log.id(), log.created());
    let mut writer = SnapshotWriter::create(&world.env(), &path, identity, head, indexes).unwrap();
    for (key, version, value) in entries() {
        writer.entry(&key, version, &value).unwrap();
    }
    let (snapshot, _) = writer.finish().unwrap();
    world.env().fs.rename(&path, &snapshot.path(Path::new(LOG))).unwrap();
    log.trim(snapshot, Position(floor)).unwrap();
    log.close().unwrap();
}

#[test]
fn a_state_begins_a_log_of_its_own() {
    let world = World::new(1).with(20);
    let dump = state_dump(&world);
    let summary = check(&dump).unwrap();
    assert_eq!((summary.kind, summary.entries, summary.transactions), (DumpKind::State, 200, 0));
    for streamed in [false, true] {
        let other = World::new(2);
        let restored = if streamed { other.restore_stream(&dump, false) } else { other.restore(&[&dump]) }.unwrap();
        assert_ne!(restored.log_id, world.files().id());
        assert_eq!(restored.head.position, Position(20));
        let expect = Head::origin(restored.log_id).chain;
        assert_eq!(restored.head.chain, expect.extend(Position(20), restored.head.time, &summary.state));
        assert_eq!(state_of(&other), entries());
        assert_eq!(other.names(), ["LOCK", "log"]);
        // The same again is there already.
        assert_eq!(other.restore(&[&dump]).unwrap().head, restored.head);
        let log = other.open().unwrap();
        assert_eq!((log.head(), log.floor()), (restored.head, Position(20)));
        append(&log, 5, 50);
        log.close().unwrap();
        drop(log);
        assert_eq!(other.frames()[0].position, Position(21));
        // It has a full dump, too: the state and what came after it.
        let full = other.dump();
        let third = World::new(3);
        third.restore(&[&full]).unwrap();
        assert_eq!((third.dump(), state_of(&third)), (full.clone(), entries()));
        assert_eq!(third.files().snapshot(), other.files().snapshot());
        let fourth = World::new(4);
        let cloned = fourth.restore_stream(&full, true).unwrap();
        assert_ne!(cloned.log_id, restored.log_id);
        assert_eq!((fourth.frames().len(), state_of(&fourth)), (5, entries()));
        assert_eq!(fourth.restore_stream(&full, true).unwrap().appended, 0);
        assert_eq!(kind(fourth.restore(&[&full])), ErrorKind::Conflict);
    }
    // Not onto a store that holds anything.
    assert_eq!(kind(world.restore(&[&dump])), ErrorKind::Conflict);
    assert_eq!(kind(World::new(5).with(1).restore(&[&dump])), ErrorKind::Conflict);
    // An empty one is as good as none.
    let empty = World::new(6).with(0);
    empty.restore(&[&dump]).unwrap();
    assert_eq!((state_of(&empty), empty.names()), (entries(), vec!["LOCK".to_owned(), "log".to_owned()]));
    for bit in (0..dump.len() * 8).step_by(5) {
        let mut flipped = dump.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        check(&flipped).unwrap_err();
    }
}

#[test]
fn a_trimmed_log_is_dumped_with_its_state() {
    let world = World::new(1).with(1000);
    trim(&world, 700);
    let dump = world.dump();
    assert_eq!(check(&dump).unwrap().entries, 200);
    let other = World::new(2);
    other.restore_stream(&dump, false).unwrap();
    assert_eq!((other.frames(), state_of(&other)), (world.frames(), entries()));
    assert_eq!((other.files().id(), other.files().floor()), (world.files().id(), world.files().floor()));
    assert_eq!(other.dump(), dump);
    // What comes later goes on from it, and what is partly below the floor is compared from there on.
    let log = world.open().unwrap();
    append(&log, 50, 50);
    log.close().unwrap();
    drop(log);
    other.restore(&[&world.part(1000, None)]).unwrap();
    assert_eq!(other.frames(), world.frames());
    assert_eq!(other.restore(&[&world.dump()]).unwrap().appended, 0);
}

#[test]
fn a_clone_has_the_same_payloads_and_another_identity() {
    let world = World::new(1).with(100);
    let (full, later) = (
        world.dump_as(DumpOptions { at: Some(Position(60)), ..DumpOptions::default() }).unwrap().0,
        world.part(60, None),
    );
    let other = World::new(2);
    let cloned = other.restore_stream(&full, true).unwrap();
    assert_ne!(cloned.log_id, world.files().id());
    let same = |left: &Frame, right: &Frame| {
        (left.position, left.time, left.proof, &left.payload)
            == (right.position, right.time, right.proof, &right.payload)
            && left.chain != right.chain
    };
    assert!(other.frames().iter().zip(&world.frames()).all(|(left, right)| same(left, right)));
    let files = [("a", &full), ("b", &later)].map(|(name, dump)| DumpSource::File(other.plant(name, dump)));
    let grown = other.restore_with(files.into(), true).unwrap();
    assert_eq!((grown.log_id, grown.appended, other.frames().len()), (cloned.log_id, 40, 100));
    assert!(other.frames().iter().zip(&world.frames()).all(|(left, right)| same(left, right)));
    assert_eq!(kind(other.restore_stream(&later, true)), ErrorKind::Invalid);
    assert_eq!(kind(other.restore_stream(&full, false)), ErrorKind::Conflict);
    assert_eq!(kind(world.restore_stream(&full, true)), ErrorKind::Conflict);
    assert_eq!(kind(World::new(3).restore_stream(&later, true)), ErrorKind::Invalid);
}

/// Frames as a log holds them after a redaction of the second one.
fn redacted(recorded: &[u8]) -> Vec<Frame> {
    let left = Bytes::from_static(b"left");
    let vouching = Transaction {
        actor: "a".to_owned(),
        events: vec![Event::Redacted {
            transactions: vec![RedactedTransaction {
                position: Position(2),
                digest: Digest::of_bytes(recorded),
                keys: vec![(Bytes::from_static(b"p"), Bytes::from_static(b"k"))],
            }],
        }],
        ..Transaction::default()
    };
    let vouching = vouching.encode();
    let payloads = [Bytes::from_static(b"one"), left, Bytes::from_static(b"three"), vouching];
    let mut head = Head::origin(LogId([1; 16]));
    payloads
        .into_iter()
        .enumerate()
        .map(|(at, payload)| {
            let salt = Salt([at as u8; 16]);
            let proof = if at == 1 { Proof::Erased(Digest([5; 32])) } else { Proof::Salted(salt) };
            let position = head.position.next();
            let mut frame = Frame { position, time: Timestamp(1), chain: Hash::default(), proof, payload };
            frame.chain = head.chain.extend(position, frame.time, &frame.digest());
            head = Head { position, time: frame.time, chain: frame.chain };
            frame
        })
        .collect()
}

#[test]
fn erased_transactions_are_what_the_redaction_recorded() {
    let write = |frames: &[Frame]| {
        let origin = Head::origin(LogId([1; 16]));
        let header = DumpHeader {
            kind: DumpKind::Full,
            compressed: false,
            log_id: LogId([1; 16]),
            created: Timestamp(0),
            base: origin,
            indexes: Vec::new(),
        };
        let mut writer = DumpWriter::new(Sink::default(), "out", header).unwrap();
        frames.iter().for_each(|frame| writer.frame(frame).unwrap());
        writer.finish().map(|(sink, _)| sink.0.lock().clone())
    };
    let frames = redacted(b"left");
    let dump = write(&frames).unwrap();
    let world = World::new(1);
    world.restore_stream(&dump, false).unwrap();
    assert_eq!(world.frames(), frames);
    assert_eq!(world.dump_as(DumpOptions { compress: false, ..DumpOptions::default() }).unwrap().0, dump);
    // Before the redaction nothing vouches for what is left; nor when it recorded something else.
    let early = DumpOptions { at: Some(Position(3)), ..DumpOptions::default() };
    assert!(matches!(world.dump_as(early), Err(DumpError::RedactedLater { position: Position(2), .. })));
    assert!(matches!(write(&redacted(b"other")), Err(DumpError::RedactedLater { .. })));
    let mut forged = dump.clone();
    let at = forged.windows(4).position(|bytes| bytes == b"left").unwrap();
    forged[at] = b'L';
    reseal(&mut forged);
    let error = check(&forged).unwrap_err();
    assert!(error.to_string().contains("no redaction vouches for what is left, redacted=`2`"), "{error}");
}

/// Makes every checksum of an uncompressed dump of one block right again.
fn reseal(dump: &mut [u8]) {
    let length = dump[16] as usize;
    let trailer = dump.len() - TRAILER_BYTES - BLOCK_HEADER_BYTES;
    let seal = |block: &mut [u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&block[8..]);
        block[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    };
    seal(&mut dump[length..trailer]);
    let digest = Digest::of_bytes(&dump[..length]);
    let end = dump.len();
    dump[end - 32..].copy_from_slice(&digest.0);
    seal(&mut dump[trailer..]);
}

#[test]
fn a_changed_payload_with_right_checksums_breaks_the_chain() {
    let world = World::new(1).with(3);
    let mut dump = world.dump_as(DumpOptions { compress: false, ..DumpOptions::default() }).unwrap().0;
    reseal(&mut dump);
    check(&dump).unwrap();
    let at = dump.windows(8).position(|bytes| bytes == [7; 8]).unwrap();
    dump[at] = 8;
    reseal(&mut dump);
    assert!(check(&dump).unwrap_err().to_string().contains("chain hash"));
}

#[test]
fn a_header_that_its_own_checksum_does_not_give_away_is_not_the_one_in_the_trailer() {
    let mut dump = World::new(1).with(3).dump();
    let length = dump[16] as usize;
    // The time of creation, which no chain holds.
    dump[48] ^= 1;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&dump[..12]);
    hasher.update(&dump[16..length]);
    dump[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    assert!(check(&dump).unwrap_err().to_string().contains("the header is not the one in the trailer"));
}

#[test]
fn a_log_whose_chain_is_broken_under_right_checksums_is_not_dumped() {
    let world = World::new(1).with(30);
    let segment = world.files().segments()[0].path(Path::new(LOG));
    let mut content = world.0.fs.content(&segment).unwrap();
    let payload = [&9u64.to_le_bytes()[..], &[7; 8]].concat();
    let at = content.windows(16).position(|bytes| bytes == payload).unwrap();
    let begins = (0..at).rev().find(|&begins| content[begins..].starts_with(b"LLfr")).unwrap();
    let ends = (at..).find(|&ends| content[ends..].starts_with(b"LLfr")).unwrap();
    content[at + 9] = 8;
    let crc = crc32fast::hash(&content[begins + 8..ends]);
    content[begins + 4..begins + 8].copy_from_slice(&crc.to_le_bytes());
    world.0.fs.plant(&segment, content);
    for since in [None, Some(Position(5))] {
        let options = DumpOptions { since, ..DumpOptions::default() };
        match world.dump_as(options).unwrap_err() {
            DumpError::Log(LogError::Corrupt { path, offset, first, .. }) => {
                assert_eq!((path, offset, first), (segment.clone(), begins as u64, Position(10)));
            }
            error => panic!("{error}"),
        }
    }
    world.dump_as(DumpOptions { since: Some(Position(10)), ..DumpOptions::default() }).unwrap();
}

/// A restore into `before` is interrupted at every change of the disk, and then done again.
fn interrupted(before: &World, expect: &World, dumps: &[&[u8]]) {
    for keep in [None, Some(Keep::Nothing), Some(Keep::Everything), Some(Keep::Random)] {
        let mut moment = 0;
        loop {
            let world = before.fork(moment);
            let sources = || -> Vec<DumpSource> {
                let plant = |(at, bytes): (usize, &&[u8])| DumpSource::File(world.plant(&format!("dump{at}"), bytes));
                dumps.iter().enumerate().map(plant).collect()
            };
            let files = sources();
            world.0.fs.crash_at(moment);
            let done = match DirLock::take(&world.env(), Path::new("/store/LOCK")) {
                Ok(lock) => {
                    let options = RestoreOptions { as_clone: false, settings: World::settings() };
                    restore(&world.env(), lock, Path::new(LOG), files, &options, &mut |_, _| {}).map(drop)
                }
                Err(error) => Err(error.into()),
            };
            if !world.0.fs.crashed() {
                done.unwrap();
                break;
            }
            match keep {
                None => world.0.fs.kill(),
                Some(keep) => world.0.fs.crash(keep),
            }
            // What can be seen is a part of what is restored, or nothing.
            if let Ok(log) = world.open() {
                let frames: Vec<Frame> = log.read(log.floor().next()).unwrap().map(Result::unwrap).collect();
                let all = expect.frames();
                assert!(frames.iter().all(|frame| all.contains(frame)), "{keep:?} {moment}");
            }
            world.restore_with(sources(), false).unwrap_or_else(|error| panic!("{keep:?} {moment}: {error}"));
            assert_eq!(world.frames(), expect.frames(), "{keep:?} {moment}");
            assert_eq!(world.names(), ["LOCK", "log"], "{keep:?} {moment}");
            moment += 1;
        }
        assert!(moment > 20, "{moment}");
    }
}

#[test]
fn fault_31_a_restore_crashed_at_every_change_is_completed_by_the_same_again() {
    let world = World::new(1);
    let log = world.create();
    append(&log, 60, 4_000);
    log.close().unwrap();
    drop(log);
    let (full, part) = (
        world.dump_as(DumpOptions { at: Some(Position(30)), ..DumpOptions::default() }).unwrap().0,
        world.part(30, None),
    );
    interrupted(&World::new(2), &world, &[&full, &part]);
    interrupted(&World::new(3).with(0), &world, &[&full, &part]);
    let standby = World::new(4);
    standby.restore(&[&full]).unwrap();
    interrupted(&standby, &world, &[&part]);
    trim(&world, 40);
    interrupted(&World::new(5), &world, &[&world.dump()]);
}

#[test]
fn fault_31_a_killed_restore_goes_on_where_it_was() {
    let world = World::new(1);
    let log = world.create();
    append(&log, 200, 40_000);
    log.close().unwrap();
    drop(log);
    let dump = world.dump();
    let other = World::new(2);
    let path = other.plant("dump0", &dump);
    other.0.fs.inject(Fault::on(Operation::Rename).path("0005.seg"));
    let failed = other.restore_with(vec![DumpSource::File(path.clone())], false).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Unknown, "{failed}");
    assert!(other.names().contains(&"log.restoring".to_owned()));
    let restored = other.restore_with(vec![DumpSource::File(path)], false).unwrap();
    assert!(restored.appended > 0 && restored.appended < 150, "{restored:?}");
    assert_eq!((other.frames(), other.names()), (world.frames(), vec!["LOCK".to_owned(), "log".to_owned()]));
    // One of another dump, and one that went further, are begun anew.
    for (there, wanted) in [(dump.clone(), World::new(8).with(20).dump()), (dump.clone(), shorter(&world))] {
        let other = World::new(3);
        other.restore(&[&there]).unwrap();
        other.env().fs.rename(Path::new(LOG), Path::new("/store/log.restoring")).unwrap();
        other.restore(&[&wanted]).unwrap();
        assert_eq!(other.dump(), wanted);
    }
}

#[test]
fn a_killed_restore_of_a_stream_goes_on_when_it_is_given_again() {
    let filled = |seed| {
        let world = World::new(seed);
        let log = world.create();
        append(&log, 200, 40_000);
        log.close().unwrap();
        drop(log);
        world
    };
    let world = filled(1);
    trim(&world, 7);
    for (dump, as_clone) in [(world.dump(), false), (filled(4).dump(), true)] {
        let other = World::new(2);
        // What a kill of the first attempt leaves.
        let most = dump.len() * 3 / 4;
        assert_eq!(kind(other.restore_stream(&dump[..most], as_clone)), ErrorKind::Corrupt);
        assert!(other.names().contains(&"log.restoring".to_owned()) && !other.names().contains(&"log".to_owned()));
        let restored = other.restore_stream(&dump, as_clone).unwrap();
        assert!(restored.appended > 0 && restored.appended < restored.transactions, "{restored:?}");
        assert_eq!(other.names(), ["LOCK", "log"]);
        match as_clone {
            false => assert_eq!(other.frames(), world.frames()),
            true => assert_eq!(other.frames().len(), 200),
        }
    }
    // What is left of something else is not taken for a part of it, and gone when the stream is given again.
    let dump = world.dump();
    let other = World::new(3);
    other.restore(&[&dump]).unwrap();
    other.env().fs.rename(Path::new(LOG), Path::new("/store/log.restoring")).unwrap();
    let wanted = shorter(&world);
    let error = other.restore_stream(&wanted, false).unwrap_err();
    assert!(matches!(error, DumpError::LeftBehind { .. }), "{error}");
    other.restore_stream(&wanted, false).unwrap();
    assert_eq!(other.dump(), wanted);
}

/// Of many small transactions the frames around the payloads are most of what they take.
#[test]
fn the_room_that_a_restore_asks_for_counts_whole_frames() {
    let world = World::new(1);
    let log = world.create();
    append(&log, 20_000, 8);
    log.close().unwrap();
    drop(log);
    let (full, part) = (shorter(&world), world.part(30, None));
    let standby = World::new(2);
    standby.restore(&[&full]).unwrap();
    let (before, names) = (standby.dump(), standby.names());
    standby.plant("dump0", &part);
    // Ten times what the payloads take, and less than the frames do.
    standby.0.fs.set_capacity(standby.0.fs.used() + (1_600 << 10));
    let used = standby.0.fs.used();
    let error = standby.restore(&[&part]).unwrap_err();
    assert!(matches!(error, DumpError::Log(LogError::NoSpace { needed, .. }) if needed > 20_000 * 112), "{error}");
    // Refused before anything was written.
    assert_eq!((standby.dump(), standby.names(), standby.0.fs.used()), (before, names, used));
    standby.0.fs.set_capacity(1 << 30);
    standby.restore(&[&part]).unwrap();
    assert_eq!(standby.frames(), world.frames());
}

fn shorter(world: &World) -> Vec<u8> {
    world.dump_as(DumpOptions { at: Some(Position(30)), ..DumpOptions::default() }).unwrap().0
}

#[test]
fn fault_12_31_a_full_disk_ends_a_restore_and_room_lets_it_end() {
    let world = World::new(1);
    let log = world.create();
    append(&log, 200, 40_000);
    log.close().unwrap();
    drop(log);
    let (full, part) = (shorter(&world), world.part(30, None));
    // Onto a store: nothing is changed.
    let standby = World::new(2);
    standby.restore(&[&full]).unwrap();
    let before = standby.dump();
    standby.plant("dump0", &part);
    standby.0.fs.set_capacity(standby.0.fs.used() + (3 << 20));
    for _ in 0..2 {
        let error = standby.restore(&[&part]).unwrap_err();
        assert!(matches!(error, DumpError::Log(LogError::NoSpace { .. })), "{error}");
        assert_eq!(standby.dump(), before);
    }
    standby.0.fs.set_capacity(1 << 30);
    standby.restore(&[&part]).unwrap();
    assert_eq!(standby.dump(), world.dump());
    // Into nothing: nothing is visible, and the same again goes on.
    for room in [0, 10 << 10, 100 << 10, 3 << 20] {
        let other = World::new(3);
        let path = other.plant("dump0", &world.dump());
        other.0.fs.set_capacity(other.0.fs.used() + room);
        let sources = || vec![DumpSource::File(path.clone())];
        let lock = DirLock::take(&other.env(), Path::new("/store/LOCK"));
        if lock.is_ok() {
            drop(lock);
            assert_eq!(kind(other.restore_with(sources(), false)), ErrorKind::Unavailable, "{room}");
        }
        other.0.fs.set_capacity(1 << 30);
        assert!(matches!(other.open(), Err(LogError::NotFound { .. })));
        other.restore_with(sources(), false).unwrap();
        assert_eq!(other.frames(), world.frames());
    }
}

#[test]
fn fault_12_31_short_reads_and_a_failing_sink_are_told() {
    struct Slow(Cursor<Vec<u8>>);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(7);
            self.0.read(&mut buffer[..len])
        }
    }
    let world = World::new(1).with(50);
    let dump = world.dump();
    verify(&mut DumpReader::new(Slow(Cursor::new(dump.clone())), "slow").unwrap(), &mut |_| {}).unwrap();
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let done = super::dump(&world.env(), &world.files(), DumpOptions::default(), Full, "out", &mut |_, _| {});
    assert!(matches!(done, Err(DumpError::Io { .. })));
    // A disk that fails while it is read.
    let other = World::new(2);
    let path = other.plant("dump0", &dump);
    other.0.fs.inject(Fault::on(Operation::Read).path("dump0").after(3).effect(Effect::Fail(io::ErrorKind::Other)));
    assert_eq!(kind(other.restore_with(vec![DumpSource::File(path)], false)), ErrorKind::Unavailable);
    assert!(matches!(other.open(), Err(LogError::NotFound { .. })));
}

#[test]
fn fault_21_23_a_snapshot_that_is_not_the_one_is_refused() {
    let world = World::new(1).with(20);
    trim(&world, 10);
    let files = world.files();
    let snapshot = files.snapshot().unwrap();
    let read = |id: LogId, snapshot: Snapshot| -> Result<usize, DumpError> {
        let mut reader = SnapshotReader::open(&world.env(), Path::new(LOG), id, &snapshot)?;
        let mut count = 0;
        while reader.entry()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    assert_eq!(read(files.id(), snapshot).unwrap(), 200);
    let other = Head { time: Timestamp(99), ..snapshot.head };
    for wrong in [
        read(LogId([1; 16]), snapshot),
        read(files.id(), Snapshot { head: other, ..snapshot }),
        read(files.id(), Snapshot { bytes: 7, ..snapshot }),
    ] {
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let path = snapshot.path(Path::new(LOG));
    let content = world.0.fs.content(&path).unwrap();
    for at in (0..content.len()).step_by(11) {
        let mut damaged = content.clone();
        damaged[at] ^= 1;
        world.0.fs.plant(&path, damaged);
        assert_eq!(read(files.id(), snapshot).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
    }
}
