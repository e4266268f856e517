//! Damaged stores brought back from another copy, or into a new store.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::tests::{ENTRIES, HEAD, World, copy_dir, entries, flip};
use super::*;
use crate::dump::{DumpOptions, dump};
use crate::event::{Event, RedactedTransaction, Transaction};
use crate::log::{Check, Draft, FileLog, Frame, Log, LogFiles, LogSettings, Snapshot};
use crate::store::{Context, LOG_DIR, Store, TrimOptions};
use crate::types::{Digest, ErrorKind, Hash, Position, Salt, Timestamp};

fn from(copy: &Path) -> RepairOptions {
    RepairOptions { copy: Some(copy.to_owned()), ..RepairOptions::default() }
}

fn signed_by<'a>(signed: &'a [SignedHead], key: &'a PublicKey) -> VerifyOptions<'a> {
    VerifyOptions { signed: Some((signed, key)), ..VerifyOptions::default() }
}

impl World {
    fn copied(&self) -> PathBuf {
        let copy = self.dir.with_file_name("copy");
        copy_dir(&self.dir, &copy);
        copy
    }

    async fn repair(&self, copy: &Path) -> RepairPlan {
        RepairPlan::with_options(&self.env, &self.dir, from(copy), &mut |_, _| {}).await.unwrap()
    }

    fn frames(&self, dir: &Path) -> Vec<Frame> {
        let files = LogFiles::open(&self.env, &dir.join(LOG_DIR)).unwrap();
        files.frames(Position(1), Check::Chain).unwrap().map(Result::unwrap).collect()
    }

    /// Appends transactions as they are.
    pub(super) fn append(&self, events: Vec<Vec<Event>>) {
        let lock = crate::log::DirLock::take(&self.env, &self.dir.join("LOCK")).unwrap();
        let log = FileLog::open(self.env.clone(), lock, &self.log_dir(), LogSettings::default(), None).unwrap();
        let time = log.head().time;
        for events in events {
            let payload = Transaction { actor: "test".into(), events, ..Transaction::default() }.encode();
            let salt = Salt([1; 16]);
            let draft = Draft { time, salt, digest: Digest::of(&salt, &payload), payload };
            log.append(log.head().position, &[draft]).unwrap();
        }
        log.close().unwrap();
    }

    /// Trims everything that is there and appends transactions behind the snapshot.
    async fn trimmed(&self, events: Vec<Vec<Event>>) -> Snapshot {
        let store = self.open().await.unwrap();
        let (state, _) = store.dump_state(None, Vec::new(), "state", true).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        self.append(events);
        let head = LogFiles::open(&self.env, &self.log_dir()).unwrap().head_at(HEAD).unwrap();
        let snapshot = Snapshot { head, bytes: state.len() as u64, digest: Digest::of_bytes(&state) };
        fs::write(snapshot.path(&self.log_dir()), &state).unwrap();
        let lock = crate::log::DirLock::take(&self.env, &self.dir.join("LOCK")).unwrap();
        let log = FileLog::open(self.env.clone(), lock, &self.log_dir(), LogSettings::default(), None).unwrap();
        log.trim(snapshot, HEAD).unwrap();
        log.close().unwrap();
        snapshot
    }

    fn salvaged(&self) -> PathBuf {
        self.dir.with_file_name("salvaged")
    }

    fn salvage(&self) -> SalvageReport {
        let dry = salvage(&self.env, &self.dir, None, &mut |_, _| {}).unwrap();
        let report = salvage(&self.env, &self.dir, Some(&self.salvaged()), &mut |done, total| assert!(done <= total));
        let report = report.unwrap();
        assert_eq!(SalvageReport { log_id: None, ..report.clone() }, dry);
        report
    }

    /// Every transaction of the new store is the one of the old, or stands for what was lost.
    async fn matches(&self, report: &SalvageReport, originals: &[Frame]) {
        let new = self.frames(&self.salvaged());
        assert_eq!(new.len() as u64, report.head.0);
        let mut seen = 0;
        for range in &report.kept {
            for old in range.old.0.0..=range.old.1.0 {
                let (old, new) = (&originals[old as usize - 1], &new[report.place(Position(old)).0 as usize - 1]);
                assert_eq!((&old.payload, &old.proof, old.time), (&new.payload, &new.proof, new.time));
                seen += 1;
            }
        }
        assert_eq!(seen, report.transactions);
        for lost in &report.lost {
            let frame = &new[lost.new.0 as usize - 1];
            let transaction = Transaction::decode(frame.payload.clone()).unwrap();
            assert_eq!((transaction.actor.as_str(), transaction.events.len()), ("lakelog", 0));
            let reason = transaction.reason.unwrap();
            assert!(reason.contains(&format!("{}..={}", lost.old.0, lost.old.1)), "{reason}");
        }
        assert!(verify(&self.env, &self.salvaged(), &mut |_, _, _| {}).await.unwrap().ok());
    }
}

#[tokio::test]
async fn a_copy_repairs_the_store_and_the_base_goes_on() {
    let world = World::new().filled().await;
    let copy = world.copied();
    let plan = world.repair(&copy).await;
    assert!(plan.steps().is_empty() && plan.damage().is_empty(), "{:?}", plan.steps());
    drop(plan);
    flip(&world.segment(0), 20_000);
    fs::remove_file(world.segment(1)).unwrap();
    for from in [&copy, &copy.join(LOG_DIR)] {
        let plan = world.repair(from).await;
        assert!(plan.applicable() && plan.damage().is_empty(), "{:?}", plan.damage());
        assert!(plan.steps().iter().filter(|step| step.starts_with("take transactions")).count() == 2);
    }
    world.repair(&copy).await.apply().await.unwrap();
    let report = world.verify().await;
    assert!(report.ok() && report.skipped.is_empty(), "{report:?}");
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert!(world.repair(&copy).await.steps().is_empty());
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn archived_segments_are_enough_and_what_they_lack_stays() {
    let world = World::new().filled().await;
    let archive = world.dir.with_file_name("archive");
    fs::create_dir(&archive).unwrap();
    let (first, third) = (world.segment(0), world.segment(2));
    fs::copy(&first, archive.join(first.file_name().unwrap())).unwrap();
    flip(&first, 20_000);
    flip(&third, 20_000);
    let plan = world.repair(&archive).await;
    assert!(plan.applicable());
    assert_eq!(plan.damage().len(), 1);
    assert_eq!(plan.damage()[0].path, third);
    plan.apply().await.unwrap();
    let report = world.verify().await;
    assert_eq!(report.problems.iter().map(|problem| problem.file.clone()).collect::<Vec<_>>(), [third]);
    let plan = world.repair(&archive).await;
    assert!(!plan.applicable());
    assert_eq!(plan.apply().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A trimmed store with two snapshots, a copy of it, and dumps with the state at its floor.
async fn trimmed() -> (World, PathBuf, PathBuf, PathBuf) {
    let world = World::new().filled().await;
    let store = world.open().await.unwrap();
    for before in [100, 200] {
        store.trim(Context::new("test"), TrimOptions::before(Position(before))).await.unwrap();
    }
    let (full, state) = (world.dir.with_file_name("full.dump"), world.dir.with_file_name("state.dump"));
    let out = fs::File::create(&state).unwrap();
    store.dump_state(Some(Position(199).into()), out, "state", false).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let files = LogFiles::open(&world.env, &world.log_dir()).unwrap();
    let out = fs::File::create(&full).unwrap();
    let options = DumpOptions { compress: false, ..DumpOptions::default() };
    dump(&world.env, &files, options, out, "full", &mut |_, _| {}).unwrap();
    let copy = world.copied();
    (world, copy, full, state)
}

#[tokio::test]
async fn a_damaged_snapshot_is_taken_from_a_copy_that_its_hash_proves() {
    let (world, copy, full, state) = trimmed().await;
    let listed = LogFiles::listed_snapshots(&world.env, &world.log_dir()).unwrap();
    let [current, former] = listed[..] else { panic!("{listed:?}") };
    let path = current.path(&world.log_dir());
    let original = fs::read(&path).unwrap();
    let alone = world.dir.with_file_name("alone");
    fs::create_dir(&alone).unwrap();
    fs::copy(&path, alone.join(current.file_name())).unwrap();
    let kept = world.log_dir().join(format!("damaged-{}", current.file_name()));
    for from in [&copy, &copy.join(LOG_DIR), &alone, &full, &state] {
        for damage in 0..3 {
            match damage {
                0 => flip(&path, original.len() / 2),
                1 => fs::write(&path, &original[..original.len() / 2]).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            fs::remove_dir_all(world.dir.join("base")).unwrap();
            assert_eq!(world.open().await.unwrap_err().kind(), ErrorKind::Corrupt);
            let plan = world.repair(from).await;
            assert!(plan.applicable() && plan.damage().is_empty(), "{from:?} {damage}: {:?}", plan.steps());
            assert!(plan.steps()[0].starts_with("take the snapshot"), "{:?}", plan.steps());
            assert!(fs::read(&path).map_or(true, |found| found != original), "a plan changes nothing");
            plan.apply().await.unwrap();
            assert!(fs::read(&path).unwrap() == original, "{from:?} {damage}");
            assert_eq!(kept.exists(), damage < 2);
            let _ = fs::remove_file(&kept);
            world.holds(ENTRIES).await;
        }
    }
    assert!(world.repair(&copy).await.steps().is_empty());
    // Frames and snapshots of the same copy.
    flip(&path, 200);
    flip(&world.segment(0), 20_000);
    flip(&former.path(&world.log_dir()), 200);
    let plan = world.repair(&full).await;
    // The dump has no state of the former one, and transactions from the floor on only.
    let stays: Vec<_> = plan.damage().into_iter().map(|problem| problem.path.clone()).collect();
    assert_eq!(stays, [world.segment(0), former.path(&world.log_dir())], "{:?}", plan.damage());
    plan.apply().await.unwrap();
    assert!(fs::read(&path).unwrap() == original);
    let plan = world.repair(&copy).await;
    assert!(plan.damage().is_empty(), "{:?}", plan.damage());
    plan.apply().await.unwrap();
    assert!(world.verify().await.ok());
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn a_copy_that_does_not_prove_a_snapshot_is_not_taken() {
    let (world, copy, full, _) = trimmed().await;
    let listed = LogFiles::listed_snapshots(&world.env, &world.log_dir()).unwrap();
    let path = listed[0].path(&world.log_dir());
    flip(&path, 200);
    flip(&copy.join(LOG_DIR).join(listed[0].file_name()), 300);
    let mut damaged = fs::read(&full).unwrap();
    let at = damaged.windows(100).position(|bytes| bytes == [150; 100]).unwrap();
    damaged[at] ^= 1;
    let (flipped, other) = (world.dir.with_file_name("flipped.dump"), World::new().filled().await);
    fs::write(&flipped, damaged).unwrap();
    let before = fs::read(&path).unwrap();
    for (from, why) in [(&copy, "damaged too"), (&flipped, "does not have it")] {
        let plan = world.repair(from).await;
        assert!(!plan.applicable() && plan.damage()[0].detail.contains(why), "{:?}", plan.damage());
        assert_eq!(plan.apply().await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(fs::read(&path).unwrap() == before);
    }
    let refused = RepairPlan::with_options(&world.env, &world.dir, from(&other.dir), &mut |_, _| {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
}

#[tokio::test]
async fn no_copy_and_a_copy_of_another_log_are_named() {
    let (world, other) = (World::new().filled().await, World::new().filled().await);
    for (copy, kind) in [
        (world.dir.clone(), ErrorKind::Invalid),
        (world.dir.join("nowhere"), ErrorKind::NotFound),
        (other.dir.clone(), ErrorKind::NotFound),
        (world.dir.join("LOCK"), ErrorKind::Invalid),
    ] {
        let refused = RepairPlan::with_options(&world.env, &world.dir, from(&copy), &mut |_, _| {}).await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{}: {refused}", copy.display());
    }
    assert!(world.verify().await.ok());
}

#[tokio::test]
async fn a_copy_from_before_a_redaction_brings_nothing_back() {
    let world = World::new().filled().await;
    let copy = world.copied();
    let left = RedactedTransaction { position: Position(12), digest: Digest::default(), keys: Vec::new() };
    world.append(vec![vec![Event::Redacted { transactions: vec![left] }]]);
    let files = LogFiles::open(&world.env, &world.log_dir()).unwrap();
    // The twelfth transaction is the one concerned, its neighbour is not.
    let original = fs::read(world.segment(0)).unwrap();
    let at = |value: u8| original.windows(900).position(|window| window == [value; 900]).unwrap();
    for (number, refused) in [(11, true), (12, false)] {
        fs::write(world.segment(0), &original).unwrap();
        flip(&world.segment(0), at(number));
        let plan = world.repair(&copy).await;
        assert_eq!(!plan.damage().is_empty(), refused, "{:?}", plan.steps());
        assert!(!refused || plan.damage()[0].detail.contains("erased"), "{:?}", plan.damage());
    }
    drop(files);
}

#[tokio::test]
async fn both_manifest_slots_come_back_from_a_whole_copy() {
    let world = World::new().filled().await;
    let copy = world.copied();
    fs::remove_file(world.log_dir().join("manifest.0")).unwrap();
    fs::write(world.log_dir().join("manifest.1"), b"").unwrap();
    flip(world.log_dir().join("0000000000000001.seg").as_path(), 20_000);
    // Its end cannot be found behind damage.
    let error = RepairPlan::with_options(&world.env, &world.dir, from(&copy), &mut |_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("does not lead to its successor"), "{error}");
    flip(world.log_dir().join("0000000000000001.seg").as_path(), 20_000);
    let plan = world.repair(&copy).await;
    assert!(plan.steps()[0].starts_with("write the manifest anew"), "{:?}", plan.steps());
    plan.apply().await.unwrap();
    assert!(world.verify().await.ok());
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn a_sound_store_is_salvaged_whole() {
    let world = World::new().filled().await;
    let originals = world.frames(&world.dir);
    let report = world.salvage();
    assert_eq!((report.transactions, report.head, report.lost.len(), report.kept.len()), (HEAD.0, HEAD, 0, 1));
    world.matches(&report, &originals).await;
    let store = Store::open(world.salvaged()).await.unwrap();
    assert_eq!(entries(&store).await, ENTRIES);
    assert!(store.log_id() == report.log_id.unwrap() && store.log_id() != report.source);
    store.close().await.unwrap();
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn what_is_readable_is_salvaged_and_gaps_show() {
    let world = World::new().filled().await;
    let originals = world.frames(&world.dir);
    let last = world.segment(LogFiles::open(&world.env, &world.log_dir()).unwrap().segments().len() - 1);
    flip(&world.segment(0), 20_000);
    fs::remove_file(world.segment(1)).unwrap();
    let mut headless = fs::read(world.segment(2)).unwrap();
    headless[..4096].fill(0);
    fs::write(world.segment(2), headless).unwrap();
    let len = fs::metadata(&last).unwrap().len();
    let cut = fs::read(&last).unwrap();
    let end = cut.iter().rposition(|&byte| byte != 0).unwrap();
    fs::write(&last, &cut[..end - 3_000]).unwrap();
    assert!(len > end as u64);
    for manifests in [true, false] {
        if !manifests {
            fs::remove_file(world.log_dir().join("manifest.0")).unwrap();
            fs::remove_file(world.log_dir().join("manifest.1")).unwrap();
            fs::remove_dir_all(world.dir.join("base")).unwrap();
            fs::remove_dir_all(world.salvaged()).unwrap();
        }
        let before = tree(&world.dir);
        let report = world.salvage();
        // One damaged frame, a missing segment, and the end that was cut. Without a manifest nobody knows what was at the end.
        assert_eq!(report.lost.len(), if manifests { 3 } else { 2 }, "{:?}", report.lost);
        assert_eq!(report.lost[0].old.0, report.lost[0].old.1);
        assert_eq!(report.lost.last().unwrap().old.1 == HEAD, manifests);
        world.matches(&report, &originals).await;
        assert!(tree(&world.dir) == before, "the source was touched");
    }
}

fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(tree(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn events_that_name_positions_name_the_new_ones() {
    let world = World::new().filled().await;
    let event = |range: std::ops::Range<u64>| {
        let left =
            range.map(|at| RedactedTransaction { position: Position(at), digest: Digest::default(), keys: Vec::new() });
        Event::Redacted { transactions: left.collect() }
    };
    let name = || "name".to_owned();
    let restore =
        |as_of| Event::RestoreRange { partition: Bytes::from("q"), prefix: Bytes::new(), as_of: Position(as_of) };
    world.append(vec![
        vec![Event::MarkSet { name: name(), position: Position(200) }],
        vec![Event::CursorSet { name: name(), position: Position(9), chain: Hash::default() }],
        vec![event(1..4), restore(150)],
    ]);
    // A transaction that does not decode is lost too: a store with it does not open.
    fs::remove_file(world.segment(1)).unwrap();
    let report = world.salvage();
    assert_eq!((report.lost.len(), report.cursors), (1, 1));
    let shift = report.lost[0].old.1.0 - report.lost[0].old.0.0;
    assert!(shift > 10 && report.lost[0].old.1 < Position(150));
    let frames = world.frames(&world.salvaged());
    let events: Vec<Event> = frames[frames.len() - 3..]
        .iter()
        .flat_map(|frame| Transaction::decode(frame.payload.clone()).unwrap().events)
        .collect();
    let expect = [Event::MarkSet { name: name(), position: Position(200 - shift) }, event(1..4), restore(150 - shift)];
    assert_eq!(events, expect);
}

#[tokio::test]
async fn the_state_that_a_trimmed_log_begins_at_is_taken_over() {
    let world = World::new().filled().await;
    let store = world.open().await.unwrap();
    let expected = {
        let mut found = Vec::new();
        let mut stream = store.reader().scan_all(false);
        while let Some(entry) = stream.next().await {
            let entry = entry.unwrap();
            found.push((entry.encoded_key.to_vec(), entry.value.to_vec()));
        }
        found
    };
    store.close().await.unwrap();
    drop(store);
    let events = vec![
        Event::MarkSet { name: "below".into(), position: Position(7) },
        Event::Set { partition: Bytes::from("later"), key: Bytes::from("k"), value: Bytes::from("v") },
    ];
    let snapshot = world.trimmed(vec![events]).await;

    let report = world.salvage();
    let kept = report.state.unwrap();
    assert_eq!((kept.at, kept.entries, report.lost.len(), report.transactions), (HEAD, 500, 0, 1), "{report:?}");
    assert_eq!(report.place(Position(7)), kept.new.1);
    let store = Store::open(world.salvaged()).await.unwrap();
    for (key, value) in &expected {
        let start = crate::types::Key::key_start(key).unwrap();
        let partition = crate::types::Key::partition_of(key).unwrap();
        assert_eq!(store.get(&partition, &key[start..]).await.unwrap().unwrap().value.to_vec(), *value);
    }
    assert_eq!(entries(&store).await, expected.len() + 1);
    assert_eq!(store.resolve_mark("below").await.unwrap(), kept.new.1);
    store.close().await.unwrap();

    // Without the snapshot what came after it is all there is.
    flip(&snapshot.path(&world.log_dir()), 200);
    fs::remove_dir_all(world.salvaged()).unwrap();
    let report = world.salvage();
    assert_eq!((report.state, report.lost.len()), (None, 1));
}

/// What a redaction left of a transaction below the floor is vouched for by nobody in the new log, also where its position stays.
#[tokio::test]
async fn a_redaction_of_what_became_a_state_loses_its_digest_where_the_position_stays() {
    let world = World::new().filled().await;
    let redacted = |digest| {
        let key = (Bytes::from("p"), Bytes::from("0150"));
        let left = RedactedTransaction { position: Position(1), digest, keys: vec![key] };
        vec![Event::Redacted { transactions: vec![left] }]
    };
    world.trimmed(vec![redacted(Digest([7; 32]))]).await;
    let report = world.salvage();
    assert_eq!(report.place(Position(1)), Position(1));
    let last = world.frames(&world.salvaged()).pop().unwrap();
    assert_eq!(Transaction::decode(last.payload).unwrap().events, redacted(Digest::default()));
}

#[tokio::test]
async fn a_salvage_goes_nowhere_but_into_an_empty_directory_and_begins_anew_after_a_kill() {
    let world = World::new().filled().await;
    let target = world.salvaged();
    fs::create_dir_all(target.join("log.salvage.new")).unwrap();
    fs::write(target.join("LOCK"), b"pid 1\n").unwrap();
    fs::create_dir_all(target.join("log.salvage")).unwrap();
    fs::write(target.join("log.salvage/0000000000000001.seg"), b"half").unwrap();
    assert_eq!(world.salvage().lost, []);
    for target in [&target, &world.dir] {
        let refused = salvage(&world.env, &world.dir, Some(target), &mut |_, _| {}).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    }
    let nothing = world.dir.with_file_name("nothing");
    for source in [&nothing, &world.dir.join("base")] {
        let refused = salvage(&world.env, source, Some(&nothing.join("to")), &mut |_, _| {}).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{refused}");
        assert!(!nothing.exists());
    }
}

const KEY: &str = include_str!("../../tests/fixtures/keys/signing.pem");
const PUBLIC: &str = include_str!("../../tests/fixtures/keys/signing.pub.pem");

#[tokio::test]
async fn signed_heads_prove_the_history_and_name_what_differs() {
    let world = World::new().filled().await;
    let (key, public) = (SigningKey::from_pem(KEY).unwrap(), PublicKey::from_pem(PUBLIC).unwrap());
    let sign = |at| sign_head(&world.env, &world.dir, at, &key).unwrap();
    let check = async |signed: &[SignedHead]| {
        let report = verify_with(&world.env, &world.dir, signed_by(signed, &public), &mut |_, _, _| {}).await.unwrap();
        let faults: Vec<_> = report.signed.iter().map(|checked| checked.fault).collect();
        let problems = report.problems.iter().filter(|problem| problem.kind == "signature").count();
        assert_eq!(problems, faults.iter().flatten().count());
        faults
    };
    let heads = [sign(Some(Position::ZERO)), sign(Some(Position(7))), sign(None)];
    assert_eq!(heads[2].head.position, HEAD);
    assert_eq!(check(&heads).await, [None; 3]);
    assert_eq!(sign_head(&world.env, &world.dir, Some(HEAD.next()), &key).unwrap_err().kind(), ErrorKind::Invalid);

    let head = heads[1].head;
    let resigned = |head| SignedHead::sign(heads[1].log_id, head, &key);
    let other_log = SignedHead::sign(crate::types::LogId([9; 16]), head, &key);
    let rewritten = resigned(crate::log::Head { chain: Hash([1; 32]), ..head });
    let other_time = resigned(crate::log::Head { time: Timestamp(5), ..head });
    let above = resigned(crate::log::Head { position: HEAD.next(), ..head });
    let forged: SignedHead = heads[1].to_string().replace(" 7 ", " 8 ").parse().unwrap();
    assert_eq!(
        check(&[other_log, rewritten, other_time, above, forged]).await,
        [HeadFault::Log, HeadFault::Chain, HeadFault::Time, HeadFault::AboveHead, HeadFault::Signature].map(Some)
    );

    flip(&world.segment(1), 20_000);
    assert_eq!(check(&heads).await, [None, None, Some(HeadFault::Damaged)]);
    flip(&world.segment(1), 20_000);
    // History rewritten with all checksums and hashes right, as only who has the files can.
    let originals = world.frames(&world.dir);
    fs::remove_dir_all(world.log_dir()).unwrap();
    fs::remove_dir_all(world.dir.join("base")).unwrap();
    let lock = crate::log::DirLock::take(&world.env, &world.dir.join("LOCK")).unwrap();
    let log = FileLog::create(world.env.clone(), lock, &world.log_dir(), LogSettings::default()).unwrap();
    for frame in originals.iter().take(20) {
        let salt = Salt([5; 16]);
        let draft =
            Draft { time: frame.time, salt, digest: Digest::of(&salt, &frame.payload), payload: frame.payload.clone() };
        log.append(log.head().position, &[draft]).unwrap();
    }
    log.close().unwrap();
    assert_eq!(check(&heads[1..2]).await, [Some(HeadFault::Log)]);
}

#[tokio::test]
async fn a_head_below_the_floor_cannot_be_proven_any_more() {
    let world = World::new().filled().await;
    let (key, public) = (SigningKey::from_pem(KEY).unwrap(), PublicKey::from_pem(PUBLIC).unwrap());
    let early = sign_head(&world.env, &world.dir, Some(Position(7)), &key).unwrap();
    let lock = crate::log::DirLock::take(&world.env, &world.dir.join("LOCK")).unwrap();
    let log = FileLog::open(world.env.clone(), lock, &world.log_dir(), LogSettings::default(), None).unwrap();
    let floor = Position(150);
    let snapshot = Snapshot { head: log.head_at(floor).unwrap(), bytes: 5, digest: Digest::of_bytes(b"state") };
    fs::write(snapshot.path(&world.log_dir()), b"state").unwrap();
    log.trim(snapshot, floor).unwrap();
    log.close().unwrap();
    drop(log);
    let at_floor = sign_head(&world.env, &world.dir, Some(floor), &key).unwrap();
    let report =
        verify_with(&world.env, &world.dir, signed_by(&[early, at_floor], &public), &mut |_, _, _| {}).await.unwrap();
    let faults: Vec<_> = report.signed.iter().map(|checked| checked.fault).collect();
    assert_eq!(faults, [Some(HeadFault::BelowFloor), None]);
    let refused = sign_head(&world.env, &world.dir, Some(Position(7)), &key).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}
