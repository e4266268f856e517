//! The log under damage: whatever bytes, files or machines do, an opener gets every acknowledged transaction or a
//! typed error that names file and positions, and never wrong ones.

use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::format::{FRAME_HEADER_BYTES, FRAMES_AT, FrameHeader, FrameKind, SegmentHeader};
use super::simulation::Machine;
use super::tests::{draft, small};
use super::*;
use crate::env::sim::{Fault, Keep, Operation};
use crate::env::{FileExt as _, Fs as _};
use crate::types::ErrorKind;

pub(super) fn file(name: &str) -> PathBuf {
    Machine::dir().join(name)
}

pub(super) fn segment(number: u64) -> PathBuf {
    SegmentId(number).path(0, &Machine::dir())
}

/// A log of `rounds` batches of two transactions of `size` bytes, all acknowledged; closed or killed.
pub(super) fn built(rounds: usize, size: usize, closed: bool) -> Machine {
    let mut machine = Machine::new(42);
    let log = machine.create().unwrap();
    for _ in 0..rounds {
        machine.append(&log, &[size, size]).unwrap();
        machine.sync(&log).unwrap();
    }
    if closed {
        log.close().unwrap();
    }
    drop(log);
    machine.world.fs.kill();
    machine
}

impl Machine {
    pub(super) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.world.fs.content(path).unwrap();
        change(&mut content);
        self.world.fs.plant(path, content);
    }

    /// Opens and compares, or gives the error.
    fn outcome(&self) -> Result<(), LogError> {
        let log = self.open_unknowing()?;
        self.compare(&log);
        Ok(())
    }

    fn corrupt(&self) -> (PathBuf, Position, Position) {
        match self.outcome() {
            Err(LogError::Corrupt { path, first, last, .. }) => (path, first, last),
            other => panic!("{other:?}"),
        }
    }

    fn verification(&self) -> Verification {
        verify(&self.world.env(), &Machine::dir(), None, &mut |_| {}, &mut |done, total| assert!(done <= total))
            .unwrap()
    }

    fn end_of_frames(&self) -> usize {
        let content = self.world.fs.content(&segment(1)).unwrap();
        content.iter().rposition(|&byte| byte != 0).unwrap() + 1
    }
}

#[test]
fn fault_16_every_flipped_bit_of_a_small_log() {
    let machine = built(3, 40, true);
    let (mut corrupt, mut whole) = (0, 0);
    let last = machine.end_of_frames() + 8;
    // Every bit of the header's fields and of all frames; the header's zeros are tried for one bit a byte.
    let header = (0..104 * 8).chain((104..FRAMES_AT as usize).map(|byte| byte * 8 + byte % 8));
    for bit in header.chain(FRAMES_AT as usize * 8..last * 8) {
        let after = machine.fork(0);
        after.damage(&segment(1), |content| content[bit / 8] ^= 1 << (bit % 8));
        match after.outcome() {
            Ok(()) => whole += 1,
            Err(LogError::Corrupt { path, .. }) => {
                assert_eq!(path, segment(1));
                corrupt += 1;
            }
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
    // A damaged mark or zero tail is harmless only because the mark's frames promise their predecessors.
    assert!(corrupt > 8000 && whole > 0, "corrupt {corrupt}, whole {whole}");
}

#[test]
fn fault_16_every_damaged_manifest_slot_leaves_the_other() {
    let machine = built(40, 2000, true);
    for slot in ["manifest.0", "manifest.1"] {
        let content = machine.world.fs.content(&file(slot)).unwrap();
        let len = u64::from_le_bytes(content[16..24].try_into().unwrap()) as usize;
        for byte in 0..len {
            let after = machine.fork(0);
            after.damage(&file(slot), |content| content[byte] ^= 0x10);
            after.outcome().unwrap();
            after.world.fs.crash(Keep::Nothing);
            assert!(after.verification().problems.is_empty(), "the slot was written anew");
        }
    }
    machine.damage(&file("manifest.0"), |content| content[20] ^= 1);
    machine.damage(&file("manifest.1"), |content| content[20] ^= 1);
    assert_eq!(machine.outcome().unwrap_err().kind(), ErrorKind::Corrupt);
    machine.world.fs.take_away(&file("manifest.0"));
    machine.world.fs.take_away(&file("manifest.1"));
    assert_eq!(machine.outcome().unwrap_err().kind(), ErrorKind::Corrupt, "never 'no log'");
}

#[test]
fn fault_05_18_a_segment_cut_at_every_length() {
    let machine = built(3, 40, true);
    let end = machine.end_of_frames();
    for len in (0..FRAMES_AT as usize).step_by(64).chain(FRAMES_AT as usize..end + 200).chain([(64 << 10) - 1]) {
        let after = machine.fork(0);
        after.damage(&segment(1), |content| content.truncate(len));
        assert_eq!(after.corrupt().0, segment(1), "length {len}");
    }
}

#[test]
fn fault_05_06_18_a_torn_batch_at_every_length_keeps_what_was_acknowledged() {
    let mut machine = built(2, 40, false);
    let log = machine.open().unwrap();
    let before = machine.world.fs.content(&segment(1)).unwrap();
    machine.append(&log, &[300, 0, 700]).unwrap();
    drop(log);
    machine.world.fs.kill();
    let after = machine.world.fs.content(&segment(1)).unwrap();
    let start = before.iter().zip(&after).position(|(old, new)| old != new).unwrap();
    let end = machine.end_of_frames();
    let mut lengths = std::collections::BTreeSet::new();
    for tear in (start..=end).step_by(3).chain([end]) {
        for forwards in [true, false] {
            let mut torn = machine.fork(0);
            let (first, second) = if forwards { (&after, &before) } else { (&before, &after) };
            torn.world.fs.plant(&segment(1), [&first[..tear], &second[tear..]].concat());
            let plan = plan(&torn.world.env(), &Machine::dir(), None).unwrap();
            assert!(plan.problems().is_empty(), "tear {tear}: {plan}");
            lengths.insert(torn.check());
            let cut = torn.world.fs.read_dir(&Machine::dir()).unwrap();
            let kept = cut.iter().find(|name| name.starts_with("cut-"));
            assert_eq!(kept.is_some(), plan.to_string().contains("cut "), "tear {tear} {forwards}: {plan}");
        }
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [4, 5, 6, 7]);
}

#[test]
fn fault_18_damage_below_a_promise_is_an_error_and_above_it_is_cut() {
    let mut machine = built(2, 40, false);
    let log = machine.open().unwrap();
    machine.append(&log, &[40, 40]).unwrap();
    drop(log);
    machine.world.fs.kill();
    let at = machine.world.fs.content(&segment(1)).unwrap();
    let frames: Vec<usize> =
        (FRAMES_AT as usize..at.len()).step_by(8).filter(|&offset| FrameHeader::parse(&at[offset..]).is_ok()).collect();
    assert_eq!(frames.len(), 6);
    for (index, &offset) in frames.iter().enumerate() {
        let mut after = machine.fork(0);
        after.damage(&segment(1), |content| content[offset + 100] ^= 1);
        if index < 4 {
            let (path, first, last) = after.corrupt();
            assert_eq!((path, first, last), (segment(1), Position(index as u64 + 1), Position(4)));
        } else {
            assert_eq!(after.check(), index);
        }
    }
    // What a stamp promises counts even when nothing in the log says so any more.
    machine.model.acknowledged = 6;
    machine.damage(&segment(1), |content| content[frames[5] + 100] ^= 1);
    assert!(matches!(machine.open(), Err(LogError::Corrupt { first: Position(6), last: Position(6), .. })));
    machine.model.acknowledged = 9;
    let error = machine.open().unwrap_err();
    assert!(matches!(error, LogError::Corrupt { first: Position(6), last: Position(9), .. }), "{error}");
}

#[test]
fn fault_19_zeroed_blocks_are_found_everywhere() {
    let machine = built(50, 1500, true);
    assert!(machine.world.fs.content(&segment(3)).is_some());
    for number in 1..=3 {
        for block in 0..16 {
            let after = machine.fork(0);
            let mut changed = false;
            after.damage(&segment(number), |content| {
                let block = &mut content[block * 4096..(block + 1) * 4096];
                changed = block.iter().any(|&byte| byte != 0);
                block.fill(0);
            });
            let verification = after.verification();
            assert_eq!(verification.problems.is_empty(), !changed, "{number} {block}");
            // A sealed segment's content is judged when it is read.
            match after.open_unknowing() {
                Err(LogError::Corrupt { path, .. }) => assert_eq!(path, segment(number)),
                Err(error) => panic!("{error}"),
                Ok(log) => {
                    let error = log.read(Position(1)).unwrap().find_map(Result::err);
                    assert_eq!(error.map(|error| error.kind()), changed.then_some(ErrorKind::Corrupt));
                }
            }
        }
    }
}

#[test]
fn fault_13_unreadable_sectors_are_errors_that_name_the_file() {
    let machine = built(50, 1500, true);
    for (number, offset) in [(1, 0), (1, 20_000), (3, 5_000)] {
        let after = machine.fork(0);
        after.world.fs.fail_reads(&segment(number), offset..offset + 512);
        let error = match after.open_unknowing() {
            Ok(log) => log.read(Position(1)).unwrap().find_map(Result::err).unwrap(),
            Err(error) => error,
        };
        assert!(matches!(&error, LogError::Io { path, .. } if *path == segment(number)), "{error}");
    }
    let after = machine.fork(0);
    after.world.fs.fail_reads(&segment(1), 20_000..20_512);
    let verification = after.verification();
    assert_eq!(verification.problems.len(), 1, "{:?}", verification.problems);
    let problem = &verification.problems[0];
    assert!(problem.first > Position(1) && problem.last < Position(40), "{problem}");
    let lost = problem.last.0 - problem.first.0 + 1;
    assert_eq!(verification.sound + lost + 1, 100, "one more frame begins a new stretch of the chain");
}

#[test]
fn fault_20_21_stale_and_misdirected_bytes_never_pass() {
    let machine = built(50, 1500, true);
    // A frame at the place of another one of equal size, in its own and in another segment; and whole files swapped.
    let step = super::format::frame_bytes(16 + 1500) as usize;
    for (from, to) in [(1, 1), (1, 2), (2, 1)] {
        let after = machine.fork(0);
        let source = after.world.fs.content(&segment(from)).unwrap();
        after.damage(&segment(to), |content| {
            let at = FRAMES_AT as usize;
            content[at + 2 * step..at + 3 * step].copy_from_slice(&source[at + step..at + 2 * step]);
        });
        let log = after.open_unknowing().unwrap();
        assert!(log.read(Position(1)).unwrap().any(|frame| frame.is_err()));
        assert_eq!(after.verification().problems.len(), 1);
    }
    let (first, second) =
        (machine.world.fs.content(&segment(1)).unwrap(), machine.world.fs.content(&segment(2)).unwrap());
    machine.world.fs.plant(&segment(1), second);
    machine.world.fs.plant(&segment(2), first);
    assert_eq!(machine.corrupt().0, segment(1));
    assert_eq!(machine.verification().problems.len(), 2);
}

#[test]
fn fault_20_an_old_copy_of_a_sector_below_the_promise_is_damage() {
    let mut machine = built(2, 40, false);
    let old = machine.world.fs.content(&segment(1)).unwrap();
    let log = machine.open().unwrap();
    machine.append(&log, &[400, 400]).unwrap();
    machine.sync(&log).unwrap();
    drop(log);
    machine.world.fs.kill();
    let sector = FRAMES_AT as usize + 512;
    machine.damage(&segment(1), |content| content[sector..sector + 512].copy_from_slice(&old[sector..sector + 512]));
    assert_eq!(machine.corrupt().2, Position(6));
}

#[test]
fn fault_22_missing_truncated_extra_and_copied_segments() {
    let machine = built(50, 1500, true);
    for number in 1..=3 {
        let after = machine.fork(0);
        after.world.fs.take_away(&segment(number));
        let (path, first, _) = after.corrupt();
        assert_eq!(path, segment(number));
        assert!(first >= Position(1));
        let after = machine.fork(0);
        after.damage(&segment(number), |content| content.truncate(8192));
        assert_eq!(after.corrupt().0, segment(number));
    }
    // A file that nobody listed, in the place of the next segment: never overwritten, never taken for one.
    for content in [machine.world.fs.content(&segment(1)).unwrap(), vec![0; 64 << 10], b"notes".to_vec()] {
        let after = machine.fork(0);
        after.world.fs.plant(&segment(4), content.clone());
        assert_eq!(after.corrupt().0, segment(4));
        assert_eq!(after.world.fs.content(&segment(4)), Some(content));
    }
    let after = machine.fork(0);
    after.world.fs.plant(&segment(6), machine.world.fs.content(&segment(3)).unwrap());
    assert_eq!(after.corrupt().0, segment(4), "the missing one is named");
    // Files that are no segments are none of the log's business.
    machine.world.fs.plant(&file("notes.txt"), b"notes".to_vec());
    machine.outcome().unwrap();
}

#[test]
fn fault_22_a_manifest_one_or_two_generations_old() {
    // Keep the manifest slots as they were after each round and put them back over the finished log.
    let mut machine = Machine::new(42);
    let log = machine.create().unwrap();
    let mut manifests = Vec::new();
    for _ in 0..50 {
        manifests.push([0, 1].map(|slot| machine.world.fs.content(&file(&format!("manifest.{slot}"))).unwrap()));
        machine.append(&log, &[1500, 1500]).unwrap();
        machine.sync(&log).unwrap();
    }
    drop(log);
    machine.world.fs.kill();
    manifests.dedup();
    assert_eq!(manifests.len(), 3);
    for slots in &manifests {
        let after = machine.fork(0);
        for (slot, content) in slots.iter().enumerate() {
            after.world.fs.plant(&file(&format!("manifest.{slot}")), content.clone());
        }
        after.outcome().unwrap();
        assert!(after.verification().problems.is_empty());
        // The same with the log's end lost, too: the seal and the damaged slot prove that there was one.
        let after = machine.fork(0);
        after.world.fs.take_away(&segment(3));
        after.damage(&file("manifest.0"), |content| content[16] ^= 1);
        assert_eq!(after.corrupt().0, segment(3));
    }
}

#[test]
fn fault_22_forked_copies_do_not_mix() {
    let machine = built(20, 1500, false);
    let mut forks = [machine.fork(1), machine.fork(2)];
    for (which, fork) in forks.iter_mut().enumerate() {
        let log = fork.open().unwrap();
        for size in 0..30 {
            fork.append(&log, &[1500 + size, 1500 + which]).unwrap();
            fork.sync(&log).unwrap();
        }
        log.close().unwrap();
        drop(log);
        fork.world.fs.kill();
    }
    let [one, two] = forks;
    assert!(one.world.fs.content(&segment(2)).is_some());
    for name in one.world.fs.read_dir(&Machine::dir()).unwrap() {
        if name == "spare.seg" || name == "manifest.0" || name == "manifest.1" {
            continue;
        }
        let foreign = two.world.fs.content(&file(&name)).unwrap();
        if one.world.fs.content(&file(&name)).as_ref() == Some(&foreign) {
            continue;
        }
        let mixed = one.fork(0);
        mixed.world.fs.plant(&file(&name), foreign);
        let found = mixed.open_unknowing().and_then(|log| log.read(Position(1))?.collect::<Result<Vec<_>, _>>());
        assert!(matches!(found, Err(LogError::Corrupt { .. })) || !mixed.verification().problems.is_empty(), "{name}");
    }
}

#[test]
fn fault_22_a_segment_that_begins_below_a_promise_is_not_taken_over() {
    let mut machine = built(1, 40, false);
    let log = machine.open().unwrap();
    machine.append(&log, &[40, 40]).unwrap();
    // One copy dies here, so its recovery begins a segment at position 3; the other one acknowledges 3 and 4.
    let mut dead = machine.fork(1);
    machine.sync(&log).unwrap();
    drop(log);
    machine.world.fs.kill();
    dead.world.fs.kill();
    let log = dead.open().unwrap();
    dead.append(&log, &[50, 50]).unwrap();
    dead.sync(&log).unwrap();
    machine.world.fs.plant(&segment(2), dead.world.fs.content(&segment(2)).unwrap());
    assert_eq!(machine.corrupt(), (segment(2), Position(3), Position(4)));
}

#[test]
fn fault_22_an_older_copy_of_a_segment_before_a_newer_one() {
    let (old, new) = (built(2, 1500, false), built(50, 1500, false));
    let first = SegmentHeader::decode(&new.world.fs.content(&segment(2)).unwrap()[..FRAMES_AT as usize]).unwrap().first;
    old.world.fs.plant(&segment(2), new.world.fs.content(&segment(2)).unwrap());
    assert_eq!(old.corrupt(), (segment(2), Position(5), first.previous()));
}

#[test]
fn fault_22_a_leftover_that_contradicts_is_not_made_anew() {
    let machine = built(1, 40, false);
    let mut copies = [machine.fork(1), machine.fork(2)];
    for (copy, sizes) in copies.iter_mut().zip([&[40, 40][..], &[50]]) {
        let log = copy.open().unwrap();
        copy.append(&log, sizes).unwrap();
        drop(log);
        copy.world.fs.kill();
    }
    let [one, two] = copies;
    // Its recovery writes transaction 3 into a fresh segment, and nothing more.
    drop(two.open().unwrap());
    one.world.fs.plant(&segment(2), two.world.fs.content(&segment(2)).unwrap());
    assert_eq!(one.corrupt(), (segment(2), Position(3), Position(3)));
}

#[test]
fn fault_22_an_empty_segment_that_does_not_follow_is_left_alone() {
    let machine = built(3, 40, false);
    let header = SegmentHeader::decode(&machine.world.fs.content(&segment(1)).unwrap()[..FRAMES_AT as usize]).unwrap();
    let foreign = SegmentHeader { sequence: 2, first: Position(7), chain_before: Hash([7; 32]), ..header };
    let mut content = foreign.encode();
    content.resize(64 << 10, 0);
    machine.world.fs.plant(&segment(2), content);
    assert_eq!(machine.corrupt(), (segment(2), Position(7), Position(7)));
}

#[test]
fn fault_04_what_an_interrupted_recovery_left_is_replaced_even_when_a_stamp_made_it_needless() {
    let mut machine = built(1, 40, false);
    let log = machine.open().unwrap();
    machine.append(&log, &[40, 40]).unwrap();
    machine.sync(&log).unwrap();
    drop(log);
    // The mark was not synced, so the log alone does not promise what the stamp does.
    machine.world.fs.crash(Keep::Nothing);
    let interrupted = (0..).map(|step| {
        let copy = machine.fork(step);
        copy.world.fs.crash_at(step);
        drop(copy.open_unknowing());
        copy.world.fs.kill();
        copy
    });
    let mut interrupted = interrupted.skip_while(|copy| copy.world.fs.content(&segment(2)).is_none());
    let mut copy = interrupted.next().unwrap();
    assert_eq!(copy.open().unwrap().segments().len(), 2);
    copy.check();
}

#[test]
fn fault_11_a_manifest_that_failed_to_sync_is_written_again_before_the_other_slot() {
    for seed in 0..6 {
        let mut machine = Machine::new(seed);
        let log = machine.create().unwrap();
        for _ in 0..8 {
            machine.append(&log, &[40_000]).unwrap();
            machine.sync(&log).unwrap();
        }
        machine.world.fs.inject(Fault::on(Operation::Sync).path("manifest"));
        assert_eq!(machine.append(&log, &[40_000]).unwrap_err().kind(), ErrorKind::Unknown);
        drop(log);
        machine.world.fs.kill();
        for step in 0..24 {
            let mut copy = machine.fork(step);
            copy.world.fs.crash_at(step);
            if let Ok(log) = copy.open() {
                while copy.append(&log, &[40_000]).is_ok() && copy.sync(&log).is_ok() {}
            }
            copy.world.fs.crash(Keep::Random);
            copy.check();
        }
    }
}

#[test]
fn fault_08_nothing_is_appended_behind_a_seal() {
    let mut machine = built(1, 10_000, false);
    let log = machine.open().unwrap();
    machine.world.fs.inject(Fault::on(Operation::Rename));
    assert_eq!(machine.append(&log, &[50_000]).unwrap_err().kind(), ErrorKind::Unknown);
    drop(log);
    machine.world.fs.kill();
    machine.check();
}

#[test]
fn fault_06_bytes_changed_together_with_their_checksum_break_the_chain() {
    let machine = built(3, 40, true);
    let at = FRAMES_AT as usize + 2 * super::format::frame_bytes(16 + 40) as usize;
    machine.damage(&segment(1), |content| {
        content[at + 120] ^= 1;
        let end = at + FrameHeader::parse(&content[at..]).unwrap().frame_bytes() as usize;
        let crc = crc32fast::hash(&content[at + 8..end]);
        content[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(machine.corrupt(), (segment(1), Position(3), Position(6)));
    let problems = machine.verification().problems;
    assert_eq!((problems.len(), problems[0].first, problems[0].last), (1, Position(3), Position(3)));
    let files = LogFiles::open(&machine.world.env(), &Machine::dir()).unwrap();
    assert_eq!(files.frames(Position(1), Check::Chain).unwrap().filter_map(Result::ok).count(), 2);
}

#[test]
fn fault_24_payloads_that_look_like_frames() {
    let mut machine = Machine::new(3);
    let log = machine.create().unwrap();
    machine.append(&log, &[64]).unwrap();
    machine.sync(&log).unwrap();
    // Whole frames of this very segment, with the greatest promise, at every alignment, inside payloads.
    let stolen = machine.world.fs.content(&segment(1)).unwrap();
    let real = FrameHeader::parse(&stolen[FRAMES_AT as usize..]).unwrap();
    let mut payload = stolen[FRAMES_AT as usize..FRAMES_AT as usize + 512].to_vec();
    for offset in (FRAMES_AT..FRAMES_AT + 2048).step_by(8) {
        let lie = FrameHeader {
            kind: FrameKind::Mark,
            body_len: 0,
            position: Position(1000),
            promise: Position(1000),
            offset,
            tag: real.tag ^ 1,
            ..real
        };
        lie.encode(&[], &mut payload);
    }
    for _ in 0..2 {
        let draft = draft(0, &payload);
        machine.model.history.push(draft.clone());
        log.append(log.head().position, &[draft]).unwrap();
    }
    drop(log);
    for seed in 0..20 {
        let mut after = machine.fork(seed);
        after.world.fs.crash(Keep::Random);
        after.check();
    }
}

#[test]
fn fault_12_a_full_disk_and_its_end() {
    let mut machine = Machine::new(1);
    let log = machine.create().unwrap();
    log.prepare_spare().unwrap();
    machine.world.fs.set_capacity(machine.world.fs.used() + 1000);
    let mut appended = 0;
    let error = loop {
        match machine.append(&log, &[3000]) {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::NoSpace { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(appended > 30, "the spare took small writes on the full disk: {appended}");
    assert_eq!(log.head().position, Position(appended));
    machine.sync(&log).unwrap();
    assert!(matches!(log.prepare_spare(), Err(LogError::NoSpace { .. })));
    assert!(matches!(machine.append(&log, &[3000]), Err(LogError::NoSpace { .. })), "and it stays so");
    machine.world.fs.set_capacity(1 << 30);
    machine.append(&log, &[3000]).unwrap();
    machine.sync(&log).unwrap();
    machine.compare(&log);
    drop(log);
    // A full disk does not keep a closed log from opening.
    machine.world.fs.kill();
    machine.world.fs.set_capacity(machine.world.fs.used());
    machine.outcome().unwrap();
}

#[test]
fn min_free_keeps_room_from_ordinary_writes() {
    let machine = Machine::new(1);
    machine.world.fs.set_capacity(1 << 20);
    let lock = DirLock::take(&machine.world.env(), Path::new("/store/LOCK")).unwrap();
    let settings = LogSettings { min_free_bytes: Some(900 << 10), ..small() };
    let log = FileLog::create(machine.world.env(), lock, &Machine::dir(), settings).unwrap();
    let error = log.prepare_spare().unwrap_err();
    assert!(matches!(error, LogError::NoSpace { kept_free: 921_600, needed: 65_536, .. }), "{error}");
    machine.world.fs.set_capacity(2 << 20);
    log.prepare_spare().unwrap();
}

#[test]
fn fault_15_a_file_system_that_turns_read_only() {
    let mut machine = built(2, 40, true);
    machine.world.fs.set_read_only(true);
    let error = machine.open().unwrap_err();
    assert!(matches!(error, LogError::Io { .. }) && error.kind() == ErrorKind::Unavailable, "{error}");
    let files = LogFiles::open(&machine.world.env(), &Machine::dir()).unwrap();
    assert_eq!(files.frames(Position(1), Check::Chain).unwrap().filter_map(Result::ok).count(), 4);
    machine.world.fs.set_read_only(false);
    let log = machine.open().unwrap();
    machine.world.fs.set_read_only(true);
    let error = machine.append(&log, &[10]).unwrap_err();
    assert!(matches!(error, LogError::DurabilityUnknown { first: Position(5), last: Position(5), .. }), "{error:?}");
    machine.compare(&log);
}

#[test]
fn fault_28_without_locks_nothing_opens() {
    let machine = built(1, 1, true);
    machine.world.fs.set_locks_supported(false);
    assert!(matches!(machine.open(), Err(LogError::LocksUnsupported { .. })));
    machine.world.fs.set_locks_supported(true);
    let _log = machine.open().unwrap();
    assert!(matches!(machine.open(), Err(LogError::Locked { .. })));
}

#[test]
fn fault_32_a_newer_format_is_refused_and_left_alone() {
    for name in ["manifest.1", "0000000000000001.seg"] {
        let machine = built(1, 1, true);
        machine.damage(&file(name), |content| {
            let len = if name.ends_with("seg") {
                4096
            } else {
                u64::from_le_bytes(content[16..24].try_into().unwrap()) as usize
            };
            content[8] = 9;
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&content[..12]);
            hasher.update(&content[16..len]);
            content[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
        });
        let before = machine.world.fs.content(&file(name));
        let error = machine.outcome().unwrap_err();
        assert!(matches!(error, LogError::NewerFormat { found: 9, supported: 1, .. }), "{error}");
        assert_eq!(machine.world.fs.content(&file(name)), before);
    }
}

#[test]
fn fault_12_a_spare_that_cannot_be_made_latches_nothing() {
    let mut machine = Machine::new(1);
    let log = machine.create().unwrap();
    machine.world.fs.inject(Fault::on(Operation::Write).path("spare").times(2));
    machine.world.fs.inject(Fault::on(Operation::Sync).path("spare"));
    let mut failed = 0;
    for _ in 0..60 {
        match machine.append(&log, &[3000]) {
            Ok(()) => machine.sync(&log).unwrap(),
            Err(error) => {
                assert!(matches!(error, LogError::Io { .. }), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 3);
    machine.compare(&log);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn fault_17_any_bytes_over_the_frames_never_give_a_wrong_one(
        at in 0usize..2000,
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        number in 1u64..3,
    ) {
        let machine = built(14, 3000, true);
        machine.damage(&segment(number), |content| content[4000 + at * 8..][..bytes.len()].copy_from_slice(&bytes));
        if let Ok(log) = machine.open_unknowing() {
            for (index, frame) in log.read(Position(1)).unwrap().enumerate() {
                match frame {
                    Ok(frame) => prop_assert_eq!(&frame.payload, &machine.model.history[index].payload),
                    Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
                }
            }
        }
    }
}

#[test]
fn a_side_file_holds_the_bytes_that_were_cut() {
    let machine = built(2, 40, true);
    let end = machine.end_of_frames() - FRAME_HEADER_BYTES;
    machine.damage(&segment(1), |content| content[end + 1000..end + 1005].copy_from_slice(b"torn!"));
    machine.outcome().unwrap();
    let names = machine.world.fs.read_dir(&Machine::dir()).unwrap();
    let cut: Vec<&String> = names.iter().filter(|name| name.starts_with("cut-0000000000000001-")).collect();
    assert_eq!(cut.len(), 1, "{names:?}");
    let content = machine.world.fs.content(&file(cut[0])).unwrap();
    assert!(content.ends_with(b"torn!") && content.len() == 1005);
    machine.world.fs.crash(Keep::Nothing);
    assert_eq!(machine.world.fs.content(&file(cut[0])), Some(content), "it survives what comes after");
    let reopened = machine.open_unknowing();
    assert!(matches!(reopened, Ok(log) if log.segments().len() == 2));
}

#[test]
fn the_simulated_disk_reads_what_was_planted() {
    let machine = built(1, 1, true);
    let path = segment(1);
    let file = machine.world.env().fs.open(&path, crate::env::OpenMode::Read).unwrap();
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).unwrap();
    assert_eq!(&magic, b"LAKELOGS");
    assert_eq!(file.read_exact_at(&mut magic, 1 << 40).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn fault_12_the_manifest_has_room_for_many_rotations_on_a_full_disk() {
    let mut machine = Machine::new(1);
    let log = machine.create().unwrap();
    let mut refused = 0;
    for rotation in 0..80 {
        // Room for nothing but the spare, which is filled anew each time.
        machine.world.fs.set_capacity(machine.world.fs.used() + (64 << 10) + 8);
        if let Err(error) = log.prepare_spare() {
            panic!("rotation {rotation}: {error}");
        }
        machine.world.fs.set_capacity(machine.world.fs.used());
        if let Err(error) = machine.append(&log, &[40_000]) {
            assert!(matches!(error, LogError::NoSpace { .. }), "rotation {rotation}: {error}");
            refused += 1;
            machine.world.fs.set_capacity(machine.world.fs.used() + (64 << 10));
            machine.append(&log, &[40_000]).unwrap();
        }
        machine.sync(&log).unwrap();
    }
    assert_eq!(refused, 2, "each slot had to grow once, when 42 segments had filled its first block");
    machine.compare(&log);
}
