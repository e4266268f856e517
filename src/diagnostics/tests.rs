//! Sound stores, and stores damaged in every place that diagnostics can look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::backends::{Backend, Change};
use crate::env::Env;
use crate::event::{Event, RedactedTransaction, Transaction, UnknownEvent};
use crate::log::{Check, Draft, FileLog, Log, LogFiles, LogSettings};
use crate::store::{BASE_DIR, Batch, Context, LOG_DIR, Settings, Store, base_in};
use crate::types::{Digest, ErrorKind, Key, LogId, Position, Salt, Stamp, Timestamp};

pub(super) struct World {
    _tempdir: tempfile::TempDir,
    pub env: Env,
    pub dir: PathBuf,
}

impl World {
    pub fn new() -> World {
        let tempdir = tempfile::tempdir().unwrap();
        let dir = tempdir.path().join("store");
        World { _tempdir: tempdir, env: Env::os(), dir }
    }

    pub async fn open(&self) -> crate::types::Result<Store> {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        Store::builder(&self.dir).settings(settings).open_or_create().await
    }

    /// Some hundred transactions in several segments, two thirds of them in the base.
    pub async fn filled(self) -> World {
        let store = self.open().await.unwrap();
        write(&store, 0..100).await;
        store.checkpoint().await.unwrap();
        store.write(Context::new("test"), Batch::new().delete_range(b"p", b"00")).await.unwrap();
        write(&store, 100..200).await;
        store.checkpoint().await.unwrap();
        write(&store, 200..300).await;
        store.close().await.unwrap();
        self
    }

    pub async fn verify(&self) -> VerifyReport {
        verify(&self.env, &self.dir, &mut |_, done, total| assert!(done <= total)).await.unwrap()
    }

    async fn plan(&self) -> RepairPlan {
        RepairPlan::new(&self.env, &self.dir).await.unwrap()
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.join(LOG_DIR)
    }

    pub fn segment(&self, number: usize) -> PathBuf {
        LogFiles::open(&self.env, &self.log_dir()).unwrap().segments()[number].path(&self.log_dir())
    }

    fn base(&self) -> Arc<dyn Backend> {
        base_in(&self.env, &self.dir.join(BASE_DIR), 1 << 20).unwrap()
    }

    /// Opens, compares, closes.
    pub async fn holds(&self, count: usize) {
        let store = self.open().await.unwrap();
        assert_eq!(entries(&store).await, count);
        store.close().await.unwrap();
    }
}

async fn write(store: &Store, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let batch = Batch::new().set(b"p", format!("{number:04}").as_bytes(), &[number as u8; 1_000]).set(
            b"auth",
            format!("users/{number}").as_bytes(),
            b"{}",
        );
        store.write(Context::new("test"), batch).await.unwrap();
    }
}

pub(super) async fn entries(store: &Store) -> usize {
    let mut stream = store.reader().scan_all(false);
    let mut count = 0;
    while let Some(entry) = stream.next().await {
        entry.unwrap();
        count += 1;
    }
    count
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

pub(super) fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

fn kinds(report: &VerifyReport) -> Vec<&'static str> {
    report.problems.iter().map(|problem| problem.kind).collect()
}

/// Two hundred sets in `p` less one hundred deleted at 101, and three hundred in `auth`.
pub(super) const ENTRIES: usize = 500;
pub(super) const HEAD: Position = Position(301);

#[tokio::test]
async fn a_sound_store_has_nothing_wrong_with_it() {
    let world = World::new().filled().await;
    let report = world.verify().await;
    assert!(report.ok() && report.skipped.is_empty(), "{report:?}");
    assert_eq!(report.head, HEAD);
    let files = LogFiles::open(&world.env, &world.log_dir()).unwrap();
    assert_eq!((report.log_id, report.chain), (files.id(), files.head().unwrap().chain));
    let plan = world.plan().await;
    assert!(plan.steps().is_empty(), "{:?}", plan.steps());
    plan.apply().await.unwrap();
    assert!(!world.dir.join("verify.tmp").exists());
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn beside_an_open_store_the_log_is_verified_and_the_views_are_skipped() {
    let world = World::new().filled().await;
    let store = world.open().await.unwrap();
    let report = world.verify().await;
    assert!(report.ok(), "{report:?}");
    assert_eq!(report.skipped, ["views"]);
    assert_eq!(RepairPlan::new(&world.env, &world.dir).await.unwrap_err().kind(), ErrorKind::Unavailable);
    write(&store, 300..310).await;
    let stats = FileStats::read(&world.env, &world.dir).unwrap();
    assert_eq!((stats.synced, stats.floor, stats.log_id), (Position(311), Position::ZERO, store.log_id()));
    assert!(stats.segments > 3 && stats.log_bytes > 310 * 1_000 && stats.bytes_per_day.is_some(), "{stats:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_store_is_not_found() {
    let world = World::new();
    let found = verify(&world.env, &world.dir, &mut |_, _, _| {}).await;
    assert_eq!(found.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(RepairPlan::new(&world.env, &world.dir).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(FileStats::read(&world.env, &world.dir).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!world.dir.exists());
}

#[tokio::test]
async fn damage_inside_sealed_segments_is_named_and_the_rest_is_still_verified() {
    let world = World::new().filled().await;
    let (first, third) = (world.segment(0), world.segment(2));
    flip(&first, 20_000);
    flip(&third, 40_000);
    let report = world.verify().await;
    assert_eq!(kinds(&report), ["log", "log"], "{report:?}");
    for (problem, file) in report.problems.iter().zip([&first, &third]) {
        assert_eq!(problem.file, *file);
        let (first, last) = problem.positions.unwrap();
        assert!(first == last && problem.offset.is_some(), "{problem:?}");
    }
    assert_eq!((report.head, &report.skipped[..]), (HEAD, &["views"][..]));
}

#[tokio::test]
async fn a_missing_segment_is_named_and_a_repair_leaves_everything_alone() {
    let world = World::new().filled().await;
    let missing = world.segment(1);
    fs::rename(&missing, world.dir.join("kept")).unwrap();
    let report = world.verify().await;
    assert_eq!(kinds(&report), ["log"], "{report:?}");
    assert_eq!(report.problems[0].file, missing);
    let (first, last) = report.problems[0].positions.unwrap();
    assert!(first > Position(1) && last > first && last < HEAD);
    let plan = world.plan().await;
    assert_eq!(plan.damage().len(), 1);
    assert!(plan.steps()[0].starts_with("leave alone"), "{:?}", plan.steps());
    assert_eq!(plan.apply().await.unwrap_err().kind(), ErrorKind::Corrupt);
    fs::rename(world.dir.join("kept"), &missing).unwrap();
    assert!(world.verify().await.ok());
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn a_torn_tail_is_no_damage_and_a_repair_cuts_it() {
    let world = World::new().filled().await;
    let files = LogFiles::open(&world.env, &world.log_dir()).unwrap();
    let active = files.segments().last().unwrap().path(&world.log_dir());
    let mut bytes = fs::read(&active).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap().next_multiple_of(8);
    bytes[end + 88..end + 100].fill(7);
    fs::write(&active, bytes).unwrap();
    let report = world.verify().await;
    assert!(report.ok() && report.head == HEAD, "{report:?}");
    let plan = world.plan().await;
    assert!(plan.steps().iter().any(|step| step.starts_with("cut ")), "{:?}", plan.steps());
    plan.apply().await.unwrap();
    assert_eq!(world.plan().await.steps(), [""; 0]);
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn without_a_manifest_there_is_a_report_and_no_repair() {
    let world = World::new().filled().await;
    for slot in ["manifest.0", "manifest.1"] {
        assert!(world.log_dir().join(slot).exists(), "{slot}");
        flip(&world.log_dir().join(slot), 30);
    }
    let report = world.verify().await;
    assert_eq!((kinds(&report), report.log_id), (vec!["manifest"], LogId::default()));
    assert_eq!(RepairPlan::new(&world.env, &world.dir).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_damaged_manifest_slot_is_named_and_written_anew() {
    let world = World::new().filled().await;
    flip(&world.log_dir().join("manifest.0"), 30);
    let report = world.verify().await;
    assert_eq!(kinds(&report), ["manifest"]);
    assert!(report.skipped.is_empty());
    world.plan().await.apply().await.unwrap();
    assert!(world.verify().await.ok());
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn fault_23_a_damaged_base_is_named_and_dropped() {
    let world = World::new().filled().await;
    let mut damaged = 0;
    let mut folders = vec![world.dir.join(BASE_DIR)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            if let Some(at) = bytes.windows(7).position(|window| window == b"users/1") {
                flip(&entry.path(), at);
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let report = world.verify().await;
    assert_eq!(kinds(&report), ["base"], "{report:?}");
    let plan = world.plan().await;
    assert!(plan.steps()[0].starts_with("drop the base"), "{:?}", plan.steps());
    plan.apply().await.unwrap();
    assert!(world.verify().await.ok());
    world.holds(ENTRIES).await;
}

#[tokio::test]
async fn fault_07_a_base_that_knows_more_than_the_log_is_named_and_dropped() {
    let world = World::new().filled().await;
    let older = world.dir.join("older");
    copy_dir(&world.log_dir(), &older);
    let store = world.open().await.unwrap();
    write(&store, 300..320).await;
    store.checkpoint().await.unwrap();
    store.close().await.unwrap();
    fs::remove_dir_all(world.log_dir()).unwrap();
    fs::rename(older, world.log_dir()).unwrap();

    assert_eq!(world.open().await.unwrap_err().kind(), ErrorKind::Corrupt);
    let report = world.verify().await;
    assert_eq!(kinds(&report), ["base"]);
    assert_eq!(report.problems[0].positions, Some((HEAD.next(), Position(HEAD.0 + 20))));
    let plan = world.plan().await;
    assert!(plan.damage().is_empty() && plan.steps()[0].contains("positions=`302..=321`"), "{:?}", plan.steps());
    plan.apply().await.unwrap();
    world.holds(ENTRIES).await;
    assert!(world.verify().await.ok());
}

/// A crash between the new segments and the new base.
#[tokio::test]
async fn a_base_from_before_a_redaction_is_left_to_the_next_open() {
    let world = World::new().filled().await;
    let (partition, key, at) = (Bytes::from("p"), Bytes::from("0150"), Position(152));
    let files = LogFiles::open(&world.env, &world.log_dir()).unwrap();
    let frame = files.frames(at, Check::Order).unwrap().next().unwrap().unwrap();
    let mut left = Transaction::decode(frame.payload).unwrap();
    let erased = |event: &&mut Event| matches!(event, Event::Set { key: set, .. } if *set == key);
    let event = left.events.iter_mut().find(erased).expect("it was set there");
    *event = Event::Erased { partition: partition.clone(), key: key.clone() };
    let left = left.encode();
    let redacted = RedactedTransaction {
        position: at,
        digest: Digest::of_bytes(&left),
        keys: vec![(partition.clone(), key.clone())],
    };
    world.append(vec![vec![Event::Delete { partition, key }, Event::Redacted { transactions: vec![redacted] }]]);
    let redact = || {
        let lock = crate::log::DirLock::take(&world.env, &world.dir.join("LOCK")).unwrap();
        let log = FileLog::open(world.env.clone(), lock, &world.log_dir(), LogSettings::default(), None).unwrap();
        log.redact(&[at].into(), &|_, _| Ok(Some(left.clone())), &[]).unwrap();
        log.close().unwrap();
    };
    let concerned = files.segments().into_iter().find(|entry| entry.first <= at && at <= entry.last).unwrap();
    for done in [false, true] {
        if done {
            redact();
        }
        let report = world.verify().await;
        assert_eq!((kinds(&report), &report.skipped[..]), (vec![], &["views"][..]), "{done} {report:?}");
        let note = report.notes.iter().find(|note| note.contains("made anew")).expect("it is said why");
        assert!(note.contains("redaction=`302` base_redaction=`0`"), "{note}");
    }
    // A file that a crash kept from being removed holds the value.
    fs::write(concerned.path(&world.log_dir()), b"").unwrap();
    assert!(world.verify().await.notes.iter().any(|note| note.contains("before a redaction")));
    world.holds(499).await;
    let report = world.verify().await;
    assert_eq!((kinds(&report), report.skipped, report.notes), (vec![], vec![], vec![]));
}

#[tokio::test]
async fn fault_22_a_base_of_another_log_or_a_fork_is_named_and_dropped() {
    let world = World::new().filled().await;
    let fork = World::new();
    copy_dir(&world.dir, &fork.dir);
    for world in [&world, &fork] {
        let store = world.open().await.unwrap();
        write(&store, 300..310).await;
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
    }
    let other = World::new().filled().await;
    for (from, told) in [(&fork, "another history"), (&other, "another log")] {
        fs::remove_dir_all(world.dir.join(BASE_DIR)).unwrap();
        copy_dir(&from.dir.join(BASE_DIR), &world.dir.join(BASE_DIR));
        let report = world.verify().await;
        assert_eq!(kinds(&report), ["base"]);
        assert!(report.problems[0].detail.contains(told), "{report:?}");
        let plan = world.plan().await;
        assert!(plan.steps()[0].contains(told), "{:?}", plan.steps());
        drop(plan);
    }
    world.plan().await.apply().await.unwrap();
    world.holds(ENTRIES + 20).await;
}

#[tokio::test]
async fn fault_23_a_base_that_is_whole_but_wrong_is_found_out_entry_by_entry() {
    let world = World::new().filled().await;
    let stamp = world.base().stamp().await.unwrap().unwrap();
    let mut rows = Vec::new();
    let (base, mut from) = (world.base(), Vec::new());
    loop {
        let page = base.scan(stamp.position, &from, &[], 100).await.unwrap();
        rows.extend(page.entries);
        let Some(next) = page.next else { break };
        from = next.to_vec();
    }
    let put = |entry: &crate::types::Entry| Change::Put {
        key: entry.encoded_key.clone(),
        version: entry.version,
        value: entry.value.clone(),
    };
    let mut changes: Vec<Change> = rows.iter().map(put).collect();
    let lost = changes.remove(10);
    let Change::Put { value, .. } = &mut changes[20] else { panic!() };
    *value = b"other"[..].into();
    let Change::Put { version, .. } = &mut changes[30] else { panic!() };
    *version = Position(1);
    let key = Key::new(b"zzz", b"extra").into();
    changes.push(Change::Put { key, version: Position(3), value: b""[..].into() });
    base.clear().await.unwrap();
    base.write(&stamp, &[], Box::new(changes.into_iter().map(Ok))).await.unwrap();
    drop(base);
    let report = world.verify().await;
    assert_eq!(kinds(&report), ["views"; 4], "{report:?}");
    let details: Vec<&str> = report.problems.iter().map(|problem| problem.detail.as_str()).collect();
    let Change::Put { key, .. } = lost else { panic!() };
    let start = Key::key_start(&key).unwrap();
    assert!(
        details[0].contains("missing") && details[0].contains(&key[start..].escape_ascii().to_string()),
        "{details:?}"
    );
    assert!(details[1].contains("another") && details[2].contains("another"), "{details:?}");
    assert!(details[3].contains("key=`extra`"), "{details:?}");
}

#[tokio::test]
async fn a_base_with_other_indexes_is_compared_without_them() {
    let world = World::new().filled().await;
    let base = world.base();
    let stamp = base.stamp().await.unwrap().unwrap();
    base.clear().await.unwrap();
    let stamp = Stamp { projections: Vec::new(), ..stamp };
    base.write(&stamp, &[], Box::new(std::iter::empty())).await.unwrap();
    drop(base);
    let report = world.verify().await;
    assert_eq!(report.skipped, ["indexes"]);
    // Two hundred entries are missing from each of two partitions, less those of the range delete.
    assert_eq!(report.problems.len(), 101);
    assert!(report.problems[100].detail.contains("differences=`300`"), "{:?}", report.problems[100]);
}

#[tokio::test]
async fn transactions_that_do_not_decode_or_are_not_known_are_named() {
    let world = World::new().filled().await;
    let unknown =
        |ignorable| UnknownEvent { kind: 999, version: 0, ignorable, minimum_reader: 2_003_004, body: Bytes::new() };
    let transaction =
        |event| Transaction { actor: "test".into(), events: vec![event], ..Transaction::default() }.encode();
    let payloads = [
        Bytes::from_static(b"\xff\xff"),
        transaction(Event::Unknown(unknown(true))),
        transaction(Event::Unknown(unknown(false))),
    ];
    let lock = base::lock(&world.env, &world.dir).unwrap();
    let settings = LogSettings { segment_bytes: 64 << 10, min_free_bytes: Some(0) };
    let log = FileLog::open(world.env.clone(), lock, &world.log_dir(), settings, None).unwrap();
    let time = Timestamp(log.head().time.0 + 1);
    let draft =
        |payload: Bytes| Draft { time, salt: Salt::default(), digest: Digest::of(&Salt::default(), &payload), payload };
    log.append(HEAD, &payloads.map(draft)).unwrap();
    log.close().unwrap();
    drop(log);

    let report = world.verify().await;
    assert_eq!(kinds(&report), ["event", "unsupported"], "{report:?}");
    let at = |number: usize| report.problems[number].positions.unwrap().0;
    assert_eq!((at(0), at(1)), (Position(302), Position(304)));
    assert!(report.problems[1].detail.contains("needed=`2.3.4`"), "{report:?}");
    assert!(report.problems[1].file.exists());
    assert_eq!(report.skipped, ["views"]);
}
