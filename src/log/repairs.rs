//! Repair from another copy under damage and crashes: what the copy proves comes back byte for byte, nothing whole is
//! changed, and what is not proven is named and stays.

use std::path::{Path, PathBuf};

use super::format::{FRAMES_AT, FrameHeader, frame_checksum_holds};
use super::simulation::Machine;
use super::tests::{draft, small};
use super::*;
use crate::env::Fs as _;
use crate::env::sim::Keep;
use crate::types::ErrorKind;

const COPY: &str = "/copy";

fn segment(number: u64) -> PathBuf {
    SegmentId(number).path(0, &Machine::dir())
}

/// Three segments and more, all acknowledged, and a copy beside them.
fn built() -> Machine {
    let mut machine = Machine::new(3);
    let log = machine.create().unwrap();
    for round in 0..50 {
        machine.append(&log, &[1_500, 40 + round]).unwrap();
        machine.sync(&log).unwrap();
    }
    log.close().unwrap();
    drop(log);
    machine.world.fs.kill();
    machine.copy_to(Path::new(COPY));
    assert!(machine.world.fs.content(&segment(2)).is_some() && machine.world.fs.content(&segment(3)).is_none());
    machine
}

impl Machine {
    fn copy_to(&self, to: &Path) {
        let fs = &self.world.fs;
        fs.create_dir_all(to).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        for name in fs.read_dir(&Machine::dir()).unwrap() {
            fs.plant(&to.join(&name), fs.content(&Machine::dir().join(&name)).unwrap());
        }
    }

    fn spoil(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.world.fs.content(path).unwrap();
        change(&mut content);
        self.world.fs.plant(path, content);
    }

    /// Damages the fourth frame of a segment.
    fn hit(&self, number: u64) {
        self.spoil(&segment(number), |content| {
            let at = offsets(content)[3] + 100;
            content[at] ^= 1;
        });
    }

    fn source(&self) -> LogCopy {
        LogCopy::open(&self.world.env(), Path::new(COPY), None).unwrap()
    }

    fn plan_repair(&self) -> Result<FrameRepair, LogError> {
        let mut source = self.source();
        let witness = source.witness();
        survey(&self.world.env(), &Machine::dir(), None, witness, &mut |_| {})?.prove(&mut source, &[], &mut |_| Ok(()))
    }

    fn repair(&self) -> Result<FrameRepair, LogError> {
        let repair = self.plan_repair()?;
        repair.apply(&self.world.env(), &mut self.source())?;
        Ok(repair)
    }

    /// The content of every segment but what lies behind its frames.
    fn frames(&self) -> Vec<Vec<u8>> {
        let files = LogFiles::open(&self.world.env(), &Machine::dir()).unwrap();
        let content = |entry: &SegmentEntry| {
            let mut content = self.world.fs.content(&entry.path(&Machine::dir())).unwrap();
            if entry.last >= entry.first {
                content.truncate(entry.end as usize);
            }
            content
        };
        files.segments().iter().map(content).collect()
    }

    fn sound(&self) -> bool {
        let found = verify(&self.world.env(), &Machine::dir(), None, &mut |_| {}, &mut |_, _| {});
        // A slot of the manifest is written by the recovery that follows.
        let slot = |problem: &Problem| problem.path.to_string_lossy().contains("manifest.");
        found.is_ok_and(|found| found.problems.iter().all(slot) && found.head.position == Position(100))
    }

    /// Repairs; then everything is as it was.
    fn comes_back(&self, what: &str) {
        assert!(!self.sound(), "{what}: not damaged");
        let repair = self.repair().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(repair.left().is_empty(), "{what}: {:?}", repair.left());
        assert!(!repair.steps().is_empty(), "{what}");
        assert!(self.sound(), "{what}");
        let again = self.plan_repair().unwrap();
        assert!(again.steps().is_empty() && again.left().is_empty(), "{what}: {:?}", again.steps());
        self.world.fs.crash(Keep::Nothing);
        let log = self.open_unknowing().unwrap();
        assert_eq!(log.head().position, Position(100), "{what}");
        self.compare(&log);
    }

    fn side_files(&self) -> Vec<String> {
        let names = self.world.fs.read_dir(&Machine::dir()).unwrap();
        names.into_iter().filter(|name| name.starts_with("damaged-") || name.ends_with(".new")).collect()
    }
}

/// Where transactions begin in a segment.
fn offsets(content: &[u8]) -> Vec<usize> {
    let frames = (FRAMES_AT as usize..content.len()).step_by(8);
    let whole = |offset: &usize| FrameHeader::parse(&content[*offset..]).is_ok_and(|header| header.body_len > 16);
    frames.filter(whole).collect()
}

#[test]
fn nothing_is_done_to_a_sound_log() {
    let machine = built();
    let operations = machine.world.fs.operations();
    let repair = machine.repair().unwrap();
    assert!(repair.steps().is_empty() && repair.left().is_empty());
    assert_eq!(machine.world.fs.operations(), operations);
}

#[test]
fn fault_18_19_every_frame_comes_back_byte_for_byte() {
    let machine = built();
    let before = machine.frames();
    for number in [1, 2] {
        let offsets = offsets(&machine.world.fs.content(&segment(number)).unwrap());
        for (index, &offset) in offsets.iter().enumerate() {
            for (what, from, len) in [("header", 20, 1), ("body", 100, 1), ("sector", 0, 512), ("run", 0, 4_000)] {
                let after = machine.fork(0);
                after.spoil(&segment(number), |content| {
                    let end = (offset + from + len).min(content.len());
                    content[offset + from..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
                });
                after.comes_back(&format!("segment {number} frame {index} {what}"));
                let found = after.frames();
                let (found, before) = (&found[number as usize - 1], &before[number as usize - 1]);
                assert_eq!(found.len(), before.len());
                for at in (0..found.len()).filter(|&at| found[at] != before[at]) {
                    // A frame from the copy says what is promised now, and its checksum covers that.
                    let start = offsets[offsets.partition_point(|&offset| offset <= at) - 1];
                    assert!((4..8).contains(&(at - start)) || (32..40).contains(&(at - start)), "{number} {at}");
                    assert!(start < offset + from + len && start + 1_700 > offset, "a whole frame was changed");
                }
                assert_eq!(after.side_files().len(), 1);
            }
        }
    }
}

#[test]
fn fault_13_22_files_and_headers_come_back() {
    let machine = built();
    let content = |number| machine.world.fs.content(&segment(number)).unwrap();
    for number in [1, 2] {
        let after = machine.fork(0);
        after.world.fs.take_away(&segment(number));
        after.comes_back(&format!("segment {number} missing"));
        assert!(after.side_files().is_empty());
        for (from, to) in [(0, 4096), (40, 41), (0, 20_000), (FRAMES_AT as usize, 64 << 10), (0, 64 << 10)] {
            let after = machine.fork(0);
            after.spoil(&segment(number), |content| content[from..to].fill(0xee));
            after.comes_back(&format!("segment {number} overwritten {from}..{to}"));
        }
        for len in [0, 100, 4096, 30_000] {
            let after = machine.fork(0);
            after.spoil(&segment(number), |content| content.truncate(len));
            after.comes_back(&format!("segment {number} cut at {len}"));
        }
        for range in [0..512, 8_192..8_704, 4_096..40_000] {
            let after = machine.fork(0);
            after.world.fs.fail_reads(&segment(number), range.clone());
            let repair = after.plan_repair().unwrap();
            assert!(repair.left().is_empty(), "{range:?}: {:?}", repair.left());
            repair.apply(&after.world.env(), &mut after.source()).unwrap();
            after.world.fs.heal();
            assert!(after.sound(), "{range:?}");
        }
    }
    let after = machine.fork(0);
    after.world.fs.plant(&segment(1), content(2));
    after.world.fs.plant(&segment(2), content(1));
    after.comes_back("two segments swapped");
}

#[test]
fn two_damaged_frames_of_which_only_one_shows_come_back() {
    // Checksums that hold over other bytes: somebody wrote them.
    let machine = built();
    for count in 1..4 {
        let after = machine.fork(0);
        after.spoil(&segment(1), |content| {
            for offset in offsets(content).into_iter().skip(5).take(count) {
                let header = FrameHeader::parse(&content[offset..]).unwrap();
                let body = offset + 88..offset + 88 + header.body_len as usize;
                content[body.start + 20] ^= 1;
                let mut written = Vec::new();
                header.encode(&[&content[body]], &mut written);
                content[offset..offset + written.len()].copy_from_slice(&written);
            }
        });
        let mut rounds = 0;
        while !after.plan_repair().unwrap().steps().is_empty() {
            after.repair().unwrap();
            rounds += 1;
            assert!(rounds < 4);
        }
        assert!(after.sound(), "{count}");
        after.compare(&after.open_unknowing().unwrap());
    }
}

#[test]
fn a_manifest_comes_back_when_a_whole_copy_proves_it() {
    let machine = built();
    let lose = |machine: &Machine| {
        machine.world.fs.take_away(&Machine::dir().join("manifest.0"));
        machine.spoil(&Machine::dir().join("manifest.1"), |content| content[20] ^= 1);
    };
    let after = machine.fork(0);
    lose(&after);
    after.comes_back("both slots");
    // What was lost at the end is known to the copy alone.
    let after = machine.fork(0);
    lose(&after);
    after.spoil(&segment(2), |content| content[FRAMES_AT as usize..].fill(0));
    after.comes_back("both slots and the end");

    // That there was a second segment is known to the copy alone: its frames go behind those of the first.
    let after = machine.fork(0);
    lose(&after);
    after.world.fs.take_away(&segment(2));
    after.comes_back("both slots and the last segment");

    let after = machine.fork(0);
    lose(&after);
    after.world.fs.take_away(&segment(1));
    assert_eq!(after.plan_repair().unwrap_err().kind(), ErrorKind::Corrupt);
    let after = machine.fork(0);
    lose(&after);
    after.world.fs.take_away(Path::new("/copy/manifest.0"));
    after.world.fs.take_away(Path::new("/copy/manifest.1"));
    let error = after.plan_repair().unwrap_err();
    assert!(error.to_string().contains("a copy that has a manifest of its own"), "{error}");
}

#[test]
fn a_partial_copy_gives_what_it_has_and_the_rest_is_named() {
    let machine = built();
    machine.world.fs.take_away(&Path::new(COPY).join("0000000000000002.seg"));
    for number in [1, 2] {
        machine.hit(number);
    }
    let repair = machine.repair().unwrap();
    assert_eq!(repair.left().len(), 1);
    assert_eq!(repair.left()[0].path, segment(2));
    assert!(repair.left()[0].detail.contains("the copy has no transaction"), "{}", repair.left()[0]);
    let found = verify(&machine.world.env(), &Machine::dir(), None, &mut |_| {}, &mut |_, _| {}).unwrap();
    assert_eq!(found.problems.len(), 1);
    let again = machine.repair().unwrap();
    assert!(again.steps().is_empty() && again.left().len() == 1);
}

#[test]
fn a_copy_gone_its_own_way_proves_nothing() {
    for shared in 3..=5_usize {
        let mut machine = Machine::new(5);
        let log = machine.create().unwrap();
        machine.append(&log, &vec![200; shared]).unwrap();
        log.close().unwrap();
        drop(log);
        machine.copy_to(Path::new(COPY));
        let log = machine.open().unwrap();
        machine.append(&log, &vec![200; 6 - shared]).unwrap();
        log.close().unwrap();
        drop(log);
        // The copy goes on by itself, with frames that would fit.
        let lock = DirLock::take(&machine.world.env(), Path::new("/LOCK")).unwrap();
        let other = FileLog::open(machine.world.env(), lock, Path::new(COPY), small(), None).unwrap();
        for position in shared..6 {
            other.append(Position(position as u64), &[draft(9, &[position as u8; 200])]).unwrap();
        }
        other.close().unwrap();
        let content = machine.world.fs.content(&segment(1)).unwrap();
        for (index, &offset) in offsets(&content).iter().enumerate() {
            let after = machine.fork(0);
            after.spoil(&segment(1), |content| content[offset + 100] ^= 1);
            let before = after.world.fs.content(&segment(1)).unwrap();
            let repair = after.repair().unwrap();
            assert_eq!(repair.left().is_empty(), index < shared, "{shared} {index}: {:?}", repair.left());
            if index >= shared {
                assert_eq!(after.world.fs.content(&segment(1)).unwrap(), before, "nothing was touched");
            }
        }
    }
}

#[test]
fn at_the_very_end_a_stamp_demands_what_no_mark_does_any_more() {
    let mut machine = Machine::new(6);
    let log = machine.create().unwrap();
    machine.append(&log, &[200; 5]).unwrap();
    log.close().unwrap();
    drop(log);
    machine.copy_to(Path::new(COPY));
    let log = machine.open().unwrap();
    machine.append(&log, &[200]).unwrap();
    let head = log.head();
    log.close().unwrap();
    drop(log);
    let lock = DirLock::take(&machine.world.env(), Path::new("/LOCK")).unwrap();
    let other = FileLog::open(machine.world.env(), lock, Path::new(COPY), small(), None).unwrap();
    other.append(Position(5), &[draft(9, &[7; 200])]).unwrap();
    other.close().unwrap();
    // The last frame is gone, and the mark behind it.
    machine.spoil(&segment(1), |content| {
        let last = offsets(content)[5];
        content[last..].fill(0);
    });
    let prove = |demands: &[(Position, Hash)]| {
        let found = survey(&machine.world.env(), &Machine::dir(), None, None, &mut |_| {}).unwrap();
        found.prove(&mut machine.source(), demands, &mut |_| Ok(())).unwrap()
    };
    let undemanded = prove(&[]);
    assert!(undemanded.left().is_empty());
    assert!(undemanded.steps()[0].contains("nothing is left that could contradict it"), "{:?}", undemanded.steps());
    let refused = prove(&[(head.position, head.chain)]);
    assert_eq!((refused.left().len(), refused.steps().len()), (1, 0), "{:?}", refused.steps());
    assert!(refused.left()[0].detail.contains("another transaction 6"), "{}", refused.left()[0]);
}

#[test]
fn fault_04_08_a_crash_at_every_change_leaves_the_damaged_or_the_whole_segment() {
    let machine = built();
    machine.hit(1);
    machine.spoil(&segment(2), |content| content[FRAMES_AT as usize + 3000..30_000].fill(0));
    machine.world.fs.take_away(&Machine::dir().join("manifest.0"));
    machine.world.fs.take_away(&Machine::dir().join("manifest.1"));
    // With both slots gone the first segment has to be whole.
    let intact = machine.world.fs.content(&Path::new(COPY).join("0000000000000001.seg")).unwrap();
    for lost_manifest in [false, true] {
        let damaged = machine.fork(0);
        match lost_manifest {
            true => damaged.world.fs.plant(&segment(1), intact.clone()),
            false => {
                for name in ["manifest.0", "manifest.1"] {
                    let content = damaged.world.fs.content(&Path::new(COPY).join(name)).unwrap();
                    damaged.world.fs.plant(&Machine::dir().join(name), content);
                }
            }
        }
        let mut moment = 0;
        loop {
            let again = damaged.fork(moment);
            again.world.fs.crash_at(moment);
            let ended = again.repair();
            if !again.world.fs.crashed() {
                ended.unwrap();
                break;
            }
            for keep in [Keep::Nothing, Keep::Everything, Keep::Random, Keep::SizesWithoutContent] {
                let after = again.fork(moment);
                after.world.fs.crash(keep);
                for number in [1, 2] {
                    let found = after.world.fs.content(&segment(number)).unwrap();
                    let was = damaged.world.fs.content(&segment(number)).unwrap();
                    assert!(found == was || whole(&found), "moment {moment} {keep:?} segment {number}");
                }
                if !after.sound() {
                    after.comes_back(&format!("moment {moment} {keep:?} lost manifest {lost_manifest}"));
                }
            }
            moment += 1;
        }
        assert!(moment > 15, "{moment}");
    }
}

/// Whether a segment's frames are unbroken up to its seal or mark.
fn whole(content: &[u8]) -> bool {
    let mut offset = FRAMES_AT as usize;
    while let Ok(header) = FrameHeader::parse(&content[offset..]) {
        let end = header.end() as usize;
        if header.offset != offset as u64 || !frame_checksum_holds(&content[offset..end]) {
            return false;
        }
        if header.body_len <= 16 {
            return true;
        }
        offset = end;
    }
    false
}

#[test]
fn a_full_disk_refuses_and_leaves_everything_as_it_was() {
    let machine = built();
    machine.hit(1);
    let before = machine.world.fs.content(&segment(1)).unwrap();
    for room in [0, 1_000, 64 << 10, 100_000] {
        let after = machine.fork(0);
        after.world.fs.set_capacity(after.world.fs.used() + room);
        let error = after.repair().unwrap_err();
        assert!(matches!(error, LogError::NoSpace { .. }), "{error}");
        assert_eq!(after.world.fs.content(&segment(1)).unwrap(), before);
        after.world.fs.set_capacity(1 << 40);
        after.comes_back("room again");
    }
}
