//! Redactions: what was erased is nowhere any more, and everything else is what it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::sandbox::{LOG, Sandbox};
use super::*;
use crate::backends::Backend as _;
use crate::dump::{DumpOptions, DumpSource, SnapshotReader, dump};
use crate::env::Fs as _;
use crate::env::sim::Keep;
use crate::log::{Check, LogFiles, Proof};
use crate::types::{Entry, ErrorKind, Key, Position, Result};

pub(super) const ARCHIVE: &str = "/elsewhere";
const SECRET: &[u8] = b"the secret that must go";

impl Sandbox {
    /// Whether the secret stands in a segment, as it is or in a file that nobody lists.
    pub fn in_segments(&self) -> bool {
        [LOG, ARCHIVE].iter().any(|dir| {
            let names = self.world.fs.read_dir(Path::new(dir)).unwrap_or_default();
            names.iter().any(|name| {
                let content = self.world.fs.content(&Path::new(dir).join(name)).unwrap_or_default();
                content.windows(SECRET.len()).any(|window| window == SECRET)
            })
        })
    }

    fn in_snapshots(&self, store: &Store) -> bool {
        let log = &store.shared().log;
        let own = log.snapshot().into_iter().chain(log.former()).map(|snapshot| (LOG, snapshot));
        let archived = log.archived(Path::new(ARCHIVE)).map_or(Vec::new(), |archived| archived.snapshots);
        let archived = archived.into_iter().map(|snapshot| (ARCHIVE, snapshot));
        own.chain(archived).any(|(dir, snapshot)| {
            let mut reader = SnapshotReader::open(&self.world.env(), Path::new(dir), log.id(), &snapshot).unwrap();
            let mut found = false;
            while let Some(entry) = reader.entry().unwrap() {
                found |= entry.value.starts_with(SECRET);
            }
            found
        })
    }

    async fn in_base(&self, store: &Store) -> bool {
        let stamp = self.base.stamp().await.unwrap().unwrap();
        for at in store.shared().log.floor().0..=stamp.position.0 {
            for key in keys() {
                let found = self.base.get(Position(at), &Key::new(&key.0, &key.1)).await.unwrap();
                if found.is_some_and(|(_, value)| value.starts_with(SECRET)) {
                    return true;
                }
            }
        }
        false
    }

    pub async fn gone(&self, store: &Store) {
        assert!(!self.in_segments() && !self.in_snapshots(store) && !self.in_base(store).await);
    }
}

pub(super) fn me() -> Context {
    Context::new("test")
}

fn secret(n: u8) -> Vec<u8> {
    [SECRET, &[n], &[7; 9000]].concat()
}

pub(super) fn of_key() -> RedactOptions {
    RedactOptions::new(Redact::Key { partition: b"p".to_vec(), key: b"k".to_vec() })
}

/// Every pair that the tests write.
fn keys() -> Vec<(Vec<u8>, Vec<u8>)> {
    let of = |partition: &[u8], keys: &[&[u8]]| -> Vec<(Vec<u8>, Vec<u8>)> {
        keys.iter().map(|key| (partition.to_vec(), key.to_vec())).collect()
    };
    [of(b"p", &[b"k", b"other", b"k2", b"empty"]), of(b"q", &[b"k"])].concat()
}

/// A history in which the key `k` of `p` has the secret often, alone and with others, deleted and restored.
pub(super) async fn filled(world: &Sandbox) -> Store {
    let store = world.open().await;
    let plain = [1; 9000];
    for n in 0..3 {
        store.write(me(), Batch::new().set(b"p", b"k", &secret(n)).set(b"p", b"other", &plain)).await.unwrap();
        store.write(me(), Batch::new().set(b"q", b"k", &plain)).await.unwrap();
    }
    store.write(me(), Batch::new().delete_range(b"p", b"k")).await.unwrap();
    store.write(me(), Batch::new().set(b"p", b"k2", b"v").set(b"p", b"empty", b"")).await.unwrap();
    // Position 9: as it was at 5.
    let restored = store.transact(me(), |tx: Tx| async move { tx.restore_range(b"p", b"k", Position(5)).await });
    assert_eq!(restored.await.unwrap().position, Position(9));
    for _ in 0..8 {
        store.write(me(), Batch::new().set(b"p", b"other", &plain)).await.unwrap();
    }
    store
}

type States = BTreeMap<Position, Vec<(Vec<u8>, Vec<u8>)>>;

/// What is not the secret, at every position.
async fn others(store: &Store, to: Position) -> States {
    let mut states = States::new();
    for at in store.shared().log.floor().0..=to.0 {
        let reader = store.at(Position(at)).await.unwrap();
        let mut state = Vec::new();
        for (partition, key) in keys() {
            match reader.get(&partition, &key).await {
                Ok(Some(Entry { value, .. })) if !value.starts_with(SECRET) => state.push((key, value.to_vec())),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
        states.insert(Position(at), state);
    }
    states
}

async fn get(store: &Store, at: u64) -> Result<Option<Entry>> {
    store.at(Position(at)).await.unwrap().get(b"p", b"k").await
}

async fn check(world: &Sandbox, store: &Store, expected: &States, redaction: Position) {
    world.gone(store).await;
    let floor = store.shared().log.floor();
    let head = *expected.last_key_value().unwrap().0;
    let found = others(store, head).await;
    for (at, state) in &found {
        assert_eq!(expected[at], *state, "{at}");
    }
    for at in floor.0.max(1)..redaction.0 {
        match at {
            // Deleted in between.
            7 | 8 => assert_eq!(get(store, at).await.unwrap(), None),
            _ => {
                let error = get(store, at).await.unwrap_err();
                assert!(error.kind() == ErrorKind::NotFound && error.message().contains("redacted"), "{at}: {error}");
            }
        }
    }
    assert_eq!(get(store, redaction.0).await.unwrap(), None);
    // An empty value that nobody redacted is one.
    assert!(store.reader().get(b"p", b"empty").await.unwrap().is_some());
    assert_eq!(store.shared().log.redaction(), redaction);
    // All of it is still proven.
    let files = LogFiles::open(&world.world.env(), Path::new(LOG)).unwrap();
    let erased = files.frames(floor.next(), Check::Chain).unwrap().map(Result::unwrap);
    assert_eq!(erased.filter(|frame| matches!(frame.proof, Proof::Erased(_))).count() > 0, floor < Position(5));
    let options = DumpOptions::default();
    dump(&world.world.env(), &files, options, std::io::sink(), "x", &mut |_, _| {}).unwrap();
}

#[tokio::test]
async fn a_key_is_erased_from_everything_and_nothing_else_is() {
    let mut world = Sandbox::new(1);
    let store = filled(&world).await;
    store.checkpoint().await.unwrap();
    let expected = others(&store, store.head()).await;
    let dry = store.redact(me(), RedactOptions { dry_run: true, ..of_key() }).await.unwrap();
    assert_eq!((dry.values, dry.position, get(&store, 17).await.unwrap().is_some()), (3, Position(17), true));
    assert!(world.in_segments() && world.in_base(&store).await);
    let done = store.redact(me().reason("asked for"), of_key()).await.unwrap();
    assert_eq!((done.values, done.position), (3, Position(18)));
    check(&world, &store, &expected, Position(18)).await;
    // A scan and a diff that meet it say so; the history shows that there was something.
    let reader = store.at(Position(17)).await.unwrap();
    let mut scan = reader.scan(ScanOptions::new(b"p")).unwrap();
    assert!(scan.next().await.unwrap().unwrap_err().message().contains("redacted"));
    let mut scan = reader.scan(ScanOptions::new(b"p").from(b"k2")).unwrap();
    assert_eq!(&scan.next().await.unwrap().unwrap().key()[..], b"other");
    let mut diff = store.diff(Position(17), Position(18), DiffOptions::new()).await.unwrap();
    assert_eq!(diff.next().await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    let mut history = store.reader().history(b"p", b"k").unwrap();
    let mut versions = Vec::new();
    while let Some(version) = history.next().await {
        let version = version.unwrap();
        versions.push((version.position.0, version.redacted, version.value.is_some()));
    }
    let expected_versions = [1, 3, 5].map(|at| (at, true, false));
    assert_eq!(versions[..3], expected_versions);
    assert_eq!(versions[3..], [(7, false, false), (9, true, false), (18, false, false)]);
    // What is gone cannot be restored, and nothing restores an empty value instead.
    assert_eq!(store.rewind(me(), &[(b"p", b"")], Position(17)).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.undo(me(), Position(18), Position(18)).await.unwrap_err().kind(), ErrorKind::NotFound);
    let again = store.redact(me(), of_key()).await.unwrap_err();
    assert_eq!((again.kind(), store.head()), (ErrorKind::NotFound, Position(18)));
    // The key lives on.
    store.write(me(), Batch::new().set(b"p", b"k", b"new")).await.unwrap();
    assert_eq!(&get(&store, 19).await.unwrap().unwrap().value[..], b"new");
    store.close().await.unwrap();
    let store = world.open().await;
    check(&world, &store, &expected, Position(18)).await;
    store.close().await.unwrap();
    let store = world.open_without_base().await;
    store.checkpoint().await.unwrap();
    check(&world, &store, &expected, Position(18)).await;
}

#[tokio::test]
async fn snapshots_and_archives_lose_it_too() {
    for archive in [false, true] {
        let mut world = Sandbox::new(2);
        let store = filled(&world).await;
        let options = |before: u64| TrimOptions {
            archive: archive.then(|| ARCHIVE.into()),
            ..TrimOptions::before(Position(before))
        };
        store.trim(me(), options(7)).await.unwrap();
        store.trim(me(), options(12)).await.unwrap();
        let expected = others(&store, store.head()).await;
        assert!(world.in_snapshots(&store));
        assert!(world.in_segments() || !archive);
        let options = RedactOptions { archive: archive.then(|| ARCHIVE.into()), ..of_key() };
        let done = store.redact(me(), options).await.unwrap();
        assert!(done.values >= 1, "{done:?}");
        check(&world, &store, &expected, done.position).await;
        if archive {
            let (env, log, archive) = (world.world.env(), Path::new(LOG), Path::new(ARCHIVE));
            assert_eq!(crate::log::verify_archive(&env, log, archive).unwrap(), []);
            let files = LogFiles::open_with_archive(&env, log, archive).unwrap();
            assert!(files.frames(Position(1), Check::Chain).unwrap().all(|frame| frame.is_ok()));
        }
        store.close().await.unwrap();
        let store = world.open_without_base().await;
        store.checkpoint().await.unwrap();
        check(&world, &store, &expected, done.position).await;
    }
}

#[tokio::test]
async fn a_transaction_loses_its_values_and_its_reason() {
    let mut world = Sandbox::new(3);
    let store = world.open().await;
    store.write(me(), Batch::new().set(b"p", b"k", b"old")).await.unwrap();
    let reason = String::from_utf8(SECRET.to_vec()).unwrap();
    let batch = Batch::new().set(b"p", b"k", &secret(0)).set(b"p", b"other", &secret(1)).delete(b"q", b"k");
    store.write(me().reason(reason), batch).await.unwrap();
    store.write(me(), Batch::new().set(b"p", b"other", b"since")).await.unwrap();
    let of = |position| RedactOptions::new(Redact::Position(Position(position)));
    assert_eq!(store.redact(me(), of(9)).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.redact(me(), of(0)).await.unwrap_err().kind(), ErrorKind::NotFound);
    let own = RedactOptions::new(Redact::Key { partition: b"\0marks".to_vec(), key: b"m".to_vec() });
    assert_eq!(store.redact(me(), own).await.unwrap_err().kind(), ErrorKind::Invalid);
    let done = store.redact(me(), of(2)).await.unwrap();
    assert_eq!((done.values, done.position), (2, Position(4)));
    world.gone(&store).await;
    // What was written since stays, what was live goes.
    assert_eq!(store.get(b"p", b"k").await.unwrap(), None);
    assert_eq!(&store.get(b"p", b"other").await.unwrap().unwrap().value[..], b"since");
    assert_eq!(&get(&store, 1).await.unwrap().unwrap().value[..], b"old");
    assert!(get(&store, 3).await.unwrap_err().message().contains("redacted"));
    store.close().await.unwrap();
    let store = world.open_without_base().await;
    assert!(get(&store, 3).await.unwrap_err().message().contains("redacted"));
    assert_eq!(&get(&store, 1).await.unwrap().unwrap().value[..], b"old");
}

#[tokio::test]
async fn fault_08_a_crash_at_any_step_leaves_it_undecided_or_done_at_the_next_open() {
    let prepared = async |seed| {
        let world = Sandbox::new(seed);
        let store = filled(&world).await;
        store.trim(me(), TrimOptions::before(Position(4))).await.unwrap();
        let expected = others(&store, store.head()).await;
        (world, store, expected)
    };
    let (world, store, _) = prepared(4).await;
    let operations = world.world.fs.operations();
    let done = store.redact(me(), of_key()).await.unwrap();
    let steps = world.world.fs.operations() - operations;
    assert!(steps > 20, "{steps}");
    let mut outcomes = [0, 0];
    for step in 0..steps {
        let keep = [Keep::Nothing, Keep::Random, Keep::Everything, Keep::SizesWithoutContent][step as usize % 4];
        let (mut world, store, expected) = prepared(step).await;
        world.world.fs.crash_at(step);
        let answer = store.redact(me(), of_key()).await;
        let _ = store.close().await;
        world.world.fs.crash(keep);
        let store = if step % 3 == 0 { world.open_without_base().await } else { world.open().await };
        store.checkpoint().await.unwrap();
        let decided = store.head() >= done.position;
        assert!(decided || answer.is_err(), "{step} {keep:?}");
        outcomes[usize::from(decided)] += 1;
        if decided {
            // Files tell others only what a later write promises, whatever the base has proven to the open.
            store.write(me(), Batch::new().set(b"x", b"x", b"x")).await.unwrap();
            check(&world, &store, &expected, done.position).await;
        } else {
            let states = others(&store, store.head()).await;
            assert!(states.iter().all(|(at, state)| expected[at] == *state));
            assert!(get(&store, 17).await.unwrap().is_some());
            assert_eq!(store.redact(me(), of_key()).await.unwrap().position, done.position);
            check(&world, &store, &expected, done.position).await;
        }
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 10, "{outcomes:?}");
}

#[tokio::test]
async fn fault_12_a_disk_that_fails_in_the_middle_is_finished_later() {
    use crate::env::sim::{Fault, Operation};
    for (operation, path) in [
        (Operation::Create, "-00000001.seg"),
        (Operation::Write, "-00000001.seg"),
        (Operation::Sync, "-00000001.seg"),
        (Operation::Remove, ".seg"),
    ] {
        let world = Sandbox::new(5);
        let store = filled(&world).await;
        let expected = others(&store, store.head()).await;
        world.world.fs.inject(Fault::on(operation).path(path).times(u64::MAX));
        let error = store.redact(me(), of_key()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{operation:?} {error}");
        assert_eq!(store.shared().log.redaction(), Position::ZERO);
        // Decided all the same: nobody is told that it is done before it is.
        assert_eq!(store.head(), Position(18));
        world.world.fs.heal();
        store.finish_redactions().await.unwrap();
        check(&world, &store, &expected, Position(18)).await;
    }
}

fn take(world: &Sandbox, since: Option<Position>) -> Vec<u8> {
    let files = LogFiles::open(&world.world.env(), Path::new(LOG)).unwrap();
    let options = DumpOptions { since, compress: false, ..DumpOptions::default() };
    dump(&world.world.env(), &files, options, Vec::new(), "x", &mut |_, _| {}).unwrap().0
}

/// The store that a full dump and an incremental one restore.
async fn restored(seed: u64, full: Vec<u8>, since: Vec<u8>) -> (Sandbox, Store) {
    let elsewhere = Sandbox::new(seed);
    elsewhere.world.fs.plant(Path::new("/full"), full);
    elsewhere.world.fs.plant(Path::new("/since"), since);
    let dumps = ["/full", "/since"].map(|path| DumpSource::File(path.into()));
    let builder = Store::builder("/store").settings(elsewhere.settings.clone()).with_env(elsewhere.world.env());
    builder.restore(dumps.into(), false, &mut |_, _| {}).unwrap();
    let store = elsewhere.open().await;
    store.finish_redactions().await.unwrap();
    store.checkpoint().await.unwrap();
    (elsewhere, store)
}

#[tokio::test]
async fn an_older_dump_and_an_incremental_with_the_redaction_are_redacted_when_they_are_opened() {
    let world = Sandbox::new(6);
    let store = filled(&world).await;
    let expected = others(&store, store.head()).await;
    let full = take(&world, None);
    let before = store.head();
    let done = store.redact(me(), of_key()).await.unwrap();
    let since = take(&world, Some(before));
    assert!(full.windows(SECRET.len()).any(|window| window == SECRET));
    let (elsewhere, restored) = restored(7, full, since).await;
    check(&elsewhere, &restored, &expected, done.position).await;
}

#[tokio::test]
async fn every_durability_is_redacted() {
    for durability in [Durability::None, Durability::Interval { ms: 1_000_000 }] {
        let mut world = Sandbox::new(9);
        world.settings.durability = durability;
        world.settings.memtable_soft_bytes = 32 << 10;
        let store = filled(&world).await;
        let expected = others(&store, store.head()).await;
        let done = store.redact(me(), of_key()).await.unwrap();
        assert_eq!(done.position, Position(18));
        check(&world, &store, &expected, done.position).await;
    }
}

#[tokio::test]
async fn what_was_read_before_a_redaction_is_not_restored_behind_it() {
    let world = Sandbox::new(8);
    let store = filled(&world).await;
    store.write(me(), Batch::new().delete(b"p", b"k")).await.unwrap();
    // The first attempt has read the secret when the redaction comes; the second finds it redacted.
    let (redacting, attempts) = (store.clone(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let counted = attempts.clone();
    let restored = store
        .transact(me(), move |tx: Tx| {
            let (store, attempts) = (redacting.clone(), counted.clone());
            async move {
                tx.restore_range(b"p", b"k", Position(5)).await?;
                if attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                    store.redact(me(), of_key()).await?;
                }
                Ok(())
            }
        })
        .await;
    assert_eq!(restored.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(attempts.load(std::sync::atomic::Ordering::Relaxed), 1);
    world.gone(&store).await;
    assert_eq!(store.get(b"p", b"k").await.unwrap(), None);
}

/// The same for single values, as an undo and a rewind write them.
#[tokio::test]
async fn what_was_read_before_a_redaction_is_not_written_singly_behind_it() {
    let world = Sandbox::new(10);
    let store = world.open().await;
    store.write(me(), Batch::new().set(b"p", b"k", &secret(1))).await.unwrap();
    store.write(me(), Batch::new().delete(b"p", b"k")).await.unwrap();
    let (redacting, attempts) = (store.clone(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let written = store
        .transact(me(), move |tx: Tx| {
            let (store, attempts) = (redacting.clone(), attempts.clone());
            async move {
                let found = store.at(Position(1)).await?.get(b"p", b"k").await?.unwrap();
                tx.note_erasable(&found.encoded_key, found.version);
                tx.set(b"p", b"k", &found.value)?;
                if attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                    store.redact(me(), of_key()).await?;
                }
                Ok(())
            }
        })
        .await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::NotFound);
    world.gone(&store).await;
    assert_eq!(store.get(b"p", b"k").await.unwrap(), None);
}

/// Nothing of what was below the floor could be vouched for when it was redacted; an older dump brings it back.
#[tokio::test]
async fn what_was_redacted_below_the_floor_is_erased_where_an_older_dump_brings_it_back() {
    let world = Sandbox::new(11);
    let store = world.open().await;
    store.write(me(), Batch::new().set(b"p", b"k", &secret(1))).await.unwrap();
    for _ in 0..20 {
        store.write(me(), Batch::new().set(b"p", b"other", &[1; 9000])).await.unwrap();
    }
    let full = take(&world, None);
    let before = store.head();
    store.write(me(), Batch::new().set(b"p", b"other", &[2; 9000])).await.unwrap();
    store.trim(me(), TrimOptions::before(before)).await.unwrap();
    store.redact(me(), of_key()).await.unwrap();
    let since = take(&world, Some(before));
    let (elsewhere, restored) = restored(12, full, since).await;
    elsewhere.gone(&restored).await;
    restored.trim(me(), TrimOptions::before(Position(10))).await.unwrap();
}

/// A base that was cleared and could not be filled is no base: what is written next must not make it look whole.
#[tokio::test]
async fn a_base_that_was_cleared_is_never_taken_for_whole() {
    use crate::env::sim::{Fault, Operation};
    let world = Sandbox::new(13);
    let store = filled(&world).await;
    let mut expected = others(&store, store.head()).await;
    expected.insert(Position(18), expected[&Position(17)].clone());
    world.world.fs.inject(Fault::on(Operation::Write).path("-00000001.seg").times(u64::MAX));
    store.redact(me(), of_key()).await.unwrap_err();
    world.world.fs.heal();
    world.base.clear().await.unwrap();
    store.write(me(), Batch::new().set(b"x", b"new", b"1")).await.unwrap();
    assert_eq!(store.checkpoint().await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.finish_redactions().await.unwrap();
    store.checkpoint().await.unwrap();
    check(&world, &store, &expected, Position(18)).await;
    assert_eq!(&store.get(b"x", b"new").await.unwrap().unwrap().value[..], b"1");
}

#[tokio::test]
async fn what_one_transaction_cannot_record_several_do() {
    let mut world = Sandbox::new(14);
    let store = filled(&world).await;
    for n in 10..30 {
        store.write(me(), Batch::new().set(b"p", b"k", &secret(n))).await.unwrap();
    }
    let expected = others(&store, Position(17)).await;
    let done = store.redact_in_parts(me(), of_key(), 500).await.unwrap();
    assert_eq!((done.values, store.get(b"p", b"k").await.unwrap()), (23, None));
    world.gone(&store).await;
    let files = LogFiles::open(&world.world.env(), Path::new(LOG)).unwrap();
    let recorded = files.frames(Position(38), Check::Chain).unwrap().map(Result::unwrap);
    let parts = recorded.take_while(|frame| frame.position <= done.position).count();
    assert!(parts > 3, "{parts}");
    assert_eq!(store.shared().log.redaction(), done.position);
    store.close().await.unwrap();
    let store = world.open_without_base().await;
    store.checkpoint().await.unwrap();
    world.gone(&store).await;
    assert_eq!(others(&store, Position(17)).await, expected);
}

/// Whoever writes the key all the time makes the redaction decide again, but not read again.
#[tokio::test]
async fn a_redaction_that_decides_again_reads_only_what_is_new() {
    use crate::env::sim::{Fault, Operation};
    use crate::store::findings::{Findings, look};
    let world = Sandbox::new(15);
    let store = filled(&world).await;
    let findings = Arc::new(parking_lot::Mutex::new(Findings::new(of_key().what)));
    look(store.shared(), &findings, &[], store.head()).await.unwrap();
    let first = LogFiles::open(&world.world.env(), Path::new(LOG)).unwrap().segments()[0].path(Path::new(LOG));
    world.world.fs.inject(Fault::on(Operation::Read).path(first.to_str().unwrap()).times(u64::MAX));
    store.write(me(), Batch::new().set(b"p", b"k", &secret(9))).await.unwrap();
    look(store.shared(), &findings, &[], store.head()).await.unwrap();
    assert_eq!(findings.lock().values(), 4);
    assert_eq!(findings.lock().part(Position::ZERO, 1 << 20).unwrap(), [1, 3, 5, 9, 18].map(Position));
}

#[tokio::test]
async fn without_a_history_old_range_restores_are_found_all_the_same() {
    for what in [of_key(), RedactOptions::new(Redact::Position(Position(5)))] {
        let mut world = Sandbox::new(16);
        filled(&world).await.close().await.unwrap();
        world.settings.history = false;
        let store = world.open().await;
        store.write(me(), Batch::new().set(b"x", b"x", b"x")).await.unwrap();
        store.checkpoint().await.unwrap();
        assert_eq!(store.at(Position(5)).await.unwrap_err().kind(), ErrorKind::Unavailable);
        let whole = what == of_key();
        let done = store.redact(me(), what).await.unwrap();
        assert_eq!((done.values, store.get(b"p", b"k").await.unwrap()), (if whole { 3 } else { 2 }, None));
        store.close().await.unwrap();
        world.settings.history = true;
        let store = world.open_without_base().await;
        assert!(get(&store, 10).await.unwrap_err().message().contains("redacted"));
        assert_eq!(get(&store, 3).await.is_err(), whole);
    }
}

/// Recovery writes anew what no promise covers; the old file still has it behind its end.
#[tokio::test]
async fn fault_08_a_recovered_segment_keeps_no_copy_of_what_is_redacted() {
    let mut world = Sandbox::new(17);
    let store = world.open().await;
    store.write(me(), Batch::new().set(b"p", b"other", b"first")).await.unwrap();
    store.write(me(), Batch::new().set(b"p", b"k", &secret(1))).await.unwrap();
    // The mark behind it was not synced.
    world.world.fs.crash(Keep::Nothing);
    let _ = store.close().await;
    let store = world.open().await;
    assert!(
        world.world.fs.content(Path::new(LOG).join("0000000000000002.seg").as_path()).is_some(),
        "nothing was written anew"
    );
    store.redact(me(), of_key()).await.unwrap();
    world.gone(&store).await;
    store.close().await.unwrap();
    let store = world.open_without_base().await;
    store.checkpoint().await.unwrap();
    world.gone(&store).await;
    assert_eq!(&store.get(b"p", b"other").await.unwrap().unwrap().value[..], b"first");
}

/// Another process opens while the disk still fails: the value is nobody's any more, and nothing makes a new version of it.
#[tokio::test]
async fn fault_12_what_is_decided_and_not_done_is_neither_read_nor_restored() {
    use crate::env::sim::{Fault, Operation};
    let world = Sandbox::new(18);
    let store = filled(&world).await;
    store.checkpoint().await.unwrap();
    let failing = || Fault::on(Operation::Create).path("-00000001.seg").times(u64::MAX);
    world.world.fs.inject(failing());
    store.redact(me(), of_key()).await.unwrap_err();
    let _ = store.close().await;
    world.world.fs.kill();
    world.world.fs.inject(failing());
    let store = world.open().await;
    assert!(world.in_segments(), "it is not done");
    assert_eq!(get(&store, 17).await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = store.rewind(me(), &[(b"p", b"")], Position(17)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    world.world.fs.heal();
    store.finish_redactions().await.unwrap();
    world.gone(&store).await;
    assert_eq!(store.get(b"p", b"k").await.unwrap(), None);
}

/// Whatever the order in which the two get on: what is erased is not live behind it.
#[test]
fn fault_30_a_rewind_beside_a_redaction_brings_nothing_back() {
    use rand::SeedableRng as _;

    use super::simulation::{Caller, Stepped};
    for seed in 0..80 {
        let world = Sandbox::new(seed);
        let mut stepped = Stepped::open(&world.world, &world.base, &world.settings).unwrap();
        stepped.write("test", Batch::new().set(b"p", b"k", &secret(1))).unwrap();
        stepped.write("test", Batch::new().delete(b"p", b"k")).unwrap();
        let store = stepped.store.clone();
        let redacts = async { store.redact(me(), of_key()).await.map(drop) };
        let rewinds = async { store.rewind(me(), &[(b"p", b"")], Position(1)).await.map(drop) };
        let callers: Vec<Caller<'_, Result<()>>> = vec![Box::pin(redacts), Box::pin(rewinds)];
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let done = stepped.drive_at_random(callers, &mut random);
        assert!(done[0].is_ok(), "{done:?}");
        assert!(done[1].as_ref().err().is_none_or(|error| error.kind() == ErrorKind::NotFound), "{done:?}");
        assert!(!stepped.entries().values().any(|value| value.starts_with(SECRET)), "seed {seed}: {done:?}");
    }
}
