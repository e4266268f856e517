//! The log under bytes in the wrong place: files of other moments, lengths that lie, blocks that went elsewhere, files gone while they are in use.
//!
//! As in `damage`: every acknowledged transaction, or a typed error that names file and positions, and never a wrong one.

use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::damage::{built, file, segment};
use super::format::{FRAMES_AT, FrameHeader, SegmentHeader};
use super::simulation::Machine;
use super::*;
use crate::env::Fs as _;
use crate::types::ErrorKind;

/// What an opener and a reader of everything find: nothing wrong, or an error.
fn examine(machine: &Machine, what: &str) -> Option<LogError> {
    let log = match machine.open_unknowing() {
        Ok(log) => log,
        Err(error) => return Some(error),
    };
    let mut count = 0;
    for (index, frame) in log.read_checked(Position(1), Check::Chain).unwrap().enumerate() {
        match frame {
            Ok(frame) => {
                let asked = &machine.model.history[index];
                assert_eq!((frame.position.0, &frame.payload), (index as u64 + 1, &asked.payload), "{what}");
                count += 1;
            }
            Err(error) => return Some(error),
        }
    }
    assert!(count >= machine.model.acknowledged, "{what}: {count} are left, and nobody was told");
    None
}

fn corrupt(machine: &Machine, what: &str) {
    let error = examine(machine, what);
    assert!(matches!(error, Some(LogError::Corrupt { .. })), "{what}: {error:?}");
}

/// The manifest reached the disk and the segment that it names did not: not at all, without content, or as it was before.
#[test]
fn fault_07_a_manifest_on_the_disk_before_its_segment() {
    let machine = built(50, 1500, true);
    let path = segment(3);
    let content = machine.world.fs.content(&path).unwrap();
    let begun = [&content[..FRAMES_AT as usize], &vec![0; content.len() - FRAMES_AT as usize]].concat();
    for (what, content) in [
        ("absent", None),
        ("empty", Some(Vec::new())),
        ("zeros", Some(vec![0; content.len()])),
        ("without frames", Some(begun)),
        ("another segment", machine.world.fs.content(&segment(2))),
    ] {
        let after = machine.fork(0);
        match content {
            Some(content) => after.world.fs.plant(&path, content),
            None => after.world.fs.take_away(&path),
        }
        let Some(LogError::Corrupt { path: named, first, last, .. }) = examine(&after, what) else {
            panic!("{what}: nothing was said");
        };
        assert!(named == path && first > Position(1) && last >= first, "{what}: {named:?} {first} {last}");
    }
}

/// The manifest names a snapshot that is not there, or not yet as large.
#[test]
fn fault_07_a_manifest_on_the_disk_before_its_snapshot() {
    let mut machine = built(30, 1500, false);
    let log = machine.open().unwrap();
    machine.trim(&log, Position(20), Position(20)).unwrap();
    drop(log);
    machine.world.fs.kill();
    let names = machine.world.fs.read_dir(&Machine::dir()).unwrap();
    let path = file(names.iter().find(|name| name.starts_with("snapshot-")).unwrap());
    for content in [None, Some(Vec::new()), Some(b"half".to_vec())] {
        let after = machine.fork(0);
        match content {
            Some(content) => after.world.fs.plant(&path, content),
            None => after.world.fs.take_away(&path),
        }
        let error = after.open_unknowing().unwrap_err();
        assert!(matches!(&error, LogError::Corrupt { path: named, .. } if *named == path), "{error}");
    }
}

/// Files that somebody deletes under a log that is in use: the log goes on as far as it holds them open, and says what is missing.
#[test]
fn fault_15_files_deleted_underneath() {
    for number in 1..=3 {
        let mut machine = built(50, 1500, false);
        let log = machine.open().unwrap();
        machine.world.fs.take_away(&segment(number));
        machine.append(&log, &[100]).unwrap();
        machine.sync(&log).unwrap();
        if number < 3 {
            let error = log.read(Position(1)).unwrap().find_map(Result::err).unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(&format!("{number}.seg")), "{error}");
        }
        drop(log);
        machine.world.fs.kill();
        let error = machine.open().unwrap_err();
        assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == segment(number)), "{error}");
    }
}

/// A few random bits anywhere in a log of several segments.
#[test]
fn fault_16_random_bits_of_a_large_log() {
    let machine = built(60, 1500, true);
    let mut random = StdRng::seed_from_u64(16);
    let names: Vec<PathBuf> =
        machine.world.fs.read_dir(&Machine::dir()).unwrap().iter().map(|name| file(name)).collect();
    let mut noticed = 0;
    for case in 0..400 {
        let after = machine.fork(case);
        let path = &names[random.random_range(0..names.len())];
        after.damage(path, |content| {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..content.len());
                content[at] ^= 1 << random.random_range(0..8);
            }
        });
        if let Some(error) = examine(&after, &format!("{path:?} case {case}")) {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{path:?}: {error}");
            noticed += 1;
        }
    }
    assert!(noticed > 150, "{noticed}");
}

/// Lengths that lie, with the old checksum and with a right one: never believed, and never a reason for a large buffer.
#[test]
fn fault_17_lengths_that_lie() {
    const BODY_LEN_AT: usize = 12;
    let machine = built(4, 40, true);
    let content = machine.world.fs.content(&segment(1)).unwrap();
    let frames: Vec<usize> = (FRAMES_AT as usize..content.len())
        .step_by(8)
        .filter(|&at| FrameHeader::parse(&content[at..]).is_ok_and(|header| header.body_len > 0))
        .collect();
    assert!(frames.len() >= 8);
    let header = FrameHeader::parse(&content[frames[0]..]).unwrap();
    let written = u32::from_le_bytes(content[frames[0] + BODY_LEN_AT..][..4].try_into().unwrap());
    assert_eq!(written, header.body_len, "the length is where this test changes it");
    let into_next = header.frame_bytes() as u32 + 8;
    for &at in &frames[..8] {
        for len in [
            0,
            1,
            15,
            16,
            header.body_len - 1,
            header.body_len + 1,
            into_next,
            60_000,
            1 << 20,
            1 << 28,
            i32::MAX as u32,
            1 << 31,
            u32::MAX,
        ] {
            for sealed in [false, true] {
                let after = machine.fork(0);
                after.damage(&segment(1), |content| {
                    content[at + BODY_LEN_AT..][..4].copy_from_slice(&len.to_le_bytes());
                    let end = (at + 88 + (len as usize).min(content.len())).next_multiple_of(8).min(content.len());
                    if sealed {
                        let crc = crc32fast::hash(&content[at + 8..end]);
                        content[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
                    }
                });
                corrupt(&after, &format!("length {len} at {at}, checksum made right {sealed}"));
                assert!(after.world.fs.longest_read() <= 1 << 20, "{} bytes for {len}", after.world.fs.longest_read());
            }
        }
    }
}

/// Blocks that were written elsewhere than they should have been: in the same segment and in another one.
#[test]
fn fault_21_blocks_of_one_segment_in_another() {
    let machine = built(50, 1500, true);
    let mut random = StdRng::seed_from_u64(21);
    let mut noticed = 0;
    for case in 0..200 {
        let block = [512, 4096][case % 2];
        let (from, to) = (segment(random.random_range(1..=3)), segment(random.random_range(1..=3)));
        let mut place = || random.random_range(0..(64 << 10) / block) * block;
        let (source, target) = (place(), place());
        let after = machine.fork(0);
        let bytes = after.world.fs.content(&from).unwrap()[source..source + block].to_vec();
        let mut changed = false;
        after.damage(&to, |content| {
            changed = content[target..target + block] != bytes;
            content[target..target + block].copy_from_slice(&bytes);
        });
        let what = format!("{source} of {from:?} at {target} of {to:?}");
        match examine(&after, &what) {
            Some(error) => {
                assert!(changed && error.kind() == ErrorKind::Corrupt, "{what}: {error}");
                noticed += 1;
            }
            // Behind the end of what was written nothing is lost.
            None => assert!(!changed || after.model.acknowledged == machine.model.acknowledged),
        }
    }
    assert!(noticed > 80, "{noticed}");
}

/// Whichever manifest slot is damaged or cannot be read: who reads the files beside sees all that was promised, and a dump is whole.
#[test]
fn fault_13_22_a_reader_beside_misses_nothing_when_the_newest_manifest_slot_is_damaged() {
    for slot in ["manifest.0", "manifest.1"] {
        // Killed, the older slot does not list the last segment.
        for (unreadable, closed) in [(false, false), (false, true), (true, false), (true, true)] {
            let after = built(50, 1500, closed);
            match unreadable {
                true => after.world.fs.fail_reads(&file(slot), 0..512),
                false => after.damage(&file(slot), |content| content[40] ^= 1),
            }
            let files = LogFiles::open(&after.world.env(), &Machine::dir()).unwrap();
            assert_eq!(files.synced(), Position(100), "{slot} {unreadable}");
            assert_eq!(files.frames(Position(1), Check::Chain).unwrap().filter_map(Result::ok).count(), 100);
            // With the log's end lost, too, a beginning is not taken for all of it.
            after.world.fs.take_away(&segment(3));
            let error = LogFiles::open(&after.world.env(), &Machine::dir()).unwrap_err();
            assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == segment(3)), "{slot}: {error}");
        }
    }
}

/// A log whose second segment holds one transaction, and whose manifest slots are from before that segment.
fn with_an_older_manifest(synced: bool) -> Machine {
    let mut machine = Machine::new(42);
    let log = machine.create().unwrap();
    let slots = ["manifest.0", "manifest.1"].map(|slot| (file(slot), machine.world.fs.content(&file(slot)).unwrap()));
    loop {
        machine.append(&log, &[1500]).unwrap();
        let last = log.segments().len() == 2;
        if synced || !last {
            machine.sync(&log).unwrap();
        }
        if last {
            break;
        }
    }
    drop(log);
    machine.world.fs.kill();
    slots.into_iter().for_each(|(path, content)| machine.world.fs.plant(&path, content));
    machine
}

#[test]
fn fault_22_a_segment_that_was_taken_over_is_missed_from_then_on() {
    let machine = with_an_older_manifest(true);
    assert_eq!(machine.open_unknowing().unwrap().segments().len(), 2);
    machine.world.fs.kill();
    machine.world.fs.take_away(&segment(2));
    let error = machine.open_unknowing().unwrap_err();
    assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == segment(2)), "{error}");
}

#[test]
fn fault_05_22_the_torn_beginning_of_a_segment_that_no_manifest_lists_is_kept() {
    let machine = with_an_older_manifest(false);
    machine.damage(&segment(2), |content| content[FRAMES_AT as usize + 200] ^= 1);
    assert!(examine(&machine, "torn").is_none());
    let names = machine.world.fs.read_dir(&Machine::dir()).unwrap();
    assert!(names.iter().any(|name| name.starts_with("cut-0000000000000002-")), "{names:?}");
}

/// What is not this log's is not overwritten, though nothing is in it.
#[test]
fn fault_22_an_empty_segment_of_another_log_or_place_is_left_alone() {
    let machine = built(3, 40, true);
    let head = machine.fork(0).open_unknowing().unwrap().head();
    let own = SegmentHeader::decode(&machine.world.fs.content(&segment(1)).unwrap()[..FRAMES_AT as usize]).unwrap();
    let next = SegmentHeader {
        sequence: 2,
        tag: own.tag ^ 1,
        first: head.position.next(),
        chain_before: head.chain,
        time_before: head.time,
        ..own
    };
    let plant = |header: &SegmentHeader| {
        let after = machine.fork(0);
        let mut content = header.encode();
        content.resize(64 << 10, 0);
        after.world.fs.plant(&segment(2), content.clone());
        (examine(&after, "an empty segment"), after.world.fs.content(&segment(2)) == Some(content))
    };
    assert!(matches!(plant(&next), (None, false)), "what an interrupted rotation left is made anew");
    let other = [SegmentHeader { log_id: LogId([7; 16]), ..next }, SegmentHeader { sequence: 3, ..next }];
    for foreign in other {
        let (error, untouched) = plant(&foreign);
        assert!(matches!(&error, Some(LogError::Corrupt { path, .. }) if *path == segment(2)), "{error:?}");
        assert!(untouched);
    }
}

#[test]
fn fault_22_a_sealed_segment_that_is_shorter_together_with_its_header() {
    let machine = built(50, 1500, true);
    machine.damage(&segment(1), |content| {
        let header = SegmentHeader::decode(&content[..FRAMES_AT as usize]).unwrap();
        let header = SegmentHeader { size: 8192, ..header };
        content.truncate(8192);
        content[..FRAMES_AT as usize].copy_from_slice(&header.encode());
    });
    let error = machine.open_unknowing().unwrap_err();
    assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == segment(1)), "{error}");
}

/// Whole frames of another log behind the end, each at its own offset: nothing that they promise counts.
#[test]
fn fault_21_frames_of_another_log_behind_the_end_promise_nothing() {
    let machine = built(2, 40, false);
    let mut other = Machine::new(7);
    let log = other.create().unwrap();
    for _ in 0..6 {
        other.append(&log, &[40, 40]).unwrap();
        other.sync(&log).unwrap();
    }
    let theirs = other.world.fs.content(&segment(1)).unwrap();
    machine.damage(&segment(1), |content| {
        let at: Vec<usize> = (FRAMES_AT as usize..theirs.len())
            .step_by(8)
            .filter(|&offset| FrameHeader::parse(&theirs[offset..]).is_ok())
            .collect();
        let behind = content.iter().rposition(|&byte| byte != 0).unwrap();
        let (from, to) = (*at.iter().find(|&&offset| offset > behind).unwrap(), at[at.len() - 1]);
        content[from..to].copy_from_slice(&theirs[from..to]);
    });
    assert!(examine(&machine, "frames of another log").is_none());
}
