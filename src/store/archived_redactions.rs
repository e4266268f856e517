//! Redactions and archives: one that fails, is not there, is behind, ends too early or holds what nobody lists; and readers that
//! began before.

use std::path::{Path, PathBuf};

use super::redactions::{ARCHIVE, filled, me, of_key};
use super::sandbox::{LOG, Sandbox};
use super::*;
use crate::dump::snapshot_at;
use crate::env::Fs as _;
use crate::env::sim::{Fault, Keep, Operation};
use crate::log::{Check, LogFiles, archive_redaction, verify_archive};
use crate::types::{ErrorKind, Position};

fn into_archive(before: u64) -> TrimOptions {
    TrimOptions { archive: Some(ARCHIVE.into()), ..TrimOptions::before(Position(before)) }
}

fn with_archive() -> RedactOptions {
    RedactOptions { archive: Some(ARCHIVE.into()), ..of_key() }
}

/// Takes everything out of the archive, and gives it.
fn unmounted(world: &Sandbox) -> Vec<(PathBuf, Vec<u8>)> {
    let fs = &world.world.fs;
    let names = fs.read_dir(Path::new(ARCHIVE)).unwrap();
    let take = |name: String| {
        let path = Path::new(ARCHIVE).join(name);
        let content = fs.content(&path).unwrap();
        fs.take_away(&path);
        (path, content)
    };
    names.into_iter().map(take).collect()
}

fn mount(world: &Sandbox, files: Vec<(PathBuf, Vec<u8>)>) {
    files.into_iter().for_each(|(path, content)| world.world.fs.plant(&path, content));
}

fn archive_is_sound(world: &Sandbox) {
    let env = world.world.env();
    assert_eq!(verify_archive(&env, Path::new(LOG), Path::new(ARCHIVE)).unwrap(), []);
    let files = LogFiles::open_with_archive(&env, Path::new(LOG), Path::new(ARCHIVE)).unwrap();
    assert!(files.frames(Position(1), Check::Chain).unwrap().all(|frame| frame.is_ok()));
}

#[tokio::test]
async fn an_archive_that_failed_is_remembered_named_while_it_is_away_and_redacted_when_it_is_back() {
    let world = Sandbox::new(21);
    let store = filled(&world).await;
    store.trim(me(), into_archive(12)).await.unwrap();
    world.world.fs.inject(Fault::on(Operation::Write).path(ARCHIVE).times(u64::MAX));
    let error = store.redact(me(), with_archive()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains(ARCHIVE), "{error}");
    world.world.fs.heal();
    let done = store.shared().log.redaction();
    assert_eq!(done, store.synced(), "all the rest is done");
    assert!(world.in_segments());
    store.close().await.unwrap();
    let files = unmounted(&world);
    let store = world.open().await;
    let owed = owed::owed(store.shared()).unwrap();
    assert_eq!(owed, [PathBuf::from(ARCHIVE)]);
    let head = store.head();
    for what in [b"other", b"k2".as_slice()] {
        let what = Redact::Key { partition: b"p".to_vec(), key: what.to_vec() };
        let error = store.redact(me(), RedactOptions::new(what)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains(ARCHIVE), "{error}");
    }
    let error = store.finish_redactions().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("archives.owed"), "{error}");
    assert_eq!(store.head(), head);
    mount(&world, files);
    store.finish_redactions().await.unwrap();
    world.gone(&store).await;
    archive_is_sound(&world);
    assert_eq!(owed::owed(store.shared()).unwrap(), [] as [PathBuf; 0]);
    assert!(!world.world.fs.read_dir(Path::new("/store")).unwrap().iter().any(|name| name.contains("owed")));
}

#[tokio::test]
async fn the_archive_of_the_settings_is_never_passed_over() {
    let mut world = Sandbox::new(22);
    world.settings.archive = Some(ARCHIVE.into());
    let store = filled(&world).await;
    // Nothing has left the log: there need not be one.
    let other = Redact::Key { partition: b"q".to_vec(), key: b"k".to_vec() };
    store.redact(me(), RedactOptions::new(other)).await.unwrap();
    store.trim(me(), into_archive(12)).await.unwrap();
    let (files, head) = (unmounted(&world), store.head());
    let error = store.redact(me(), of_key()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains(ARCHIVE), "{error}");
    assert_eq!(store.head(), head, "before anything is done");
    mount(&world, files);
    store.redact(me(), of_key()).await.unwrap();
    world.gone(&store).await;
    archive_is_sound(&world);
}

/// What only the archive has was not found without it: that takes the same command again.
#[tokio::test]
async fn an_archive_that_was_not_given_is_redacted_when_it_is() {
    for trims in [false, true] {
        let world = Sandbox::new(23);
        let store = filled(&world).await;
        store.trim(me(), into_archive(12)).await.unwrap();
        let done = store.redact(me(), of_key()).await.unwrap();
        let behind = || archive_redaction(&world.world.env(), Path::new(LOG), Path::new(ARCHIVE)).unwrap();
        assert!(world.in_segments() && behind() < done.position);
        if trims {
            store.trim(me(), into_archive(14)).await.unwrap();
            assert_eq!(behind(), done.position);
        }
        let again = store.redact(me(), with_archive()).await.unwrap();
        assert_eq!(again.values, 2, "the third was in the log");
        world.gone(&store).await;
        assert_eq!(behind(), again.position);
        archive_is_sound(&world);
        assert_eq!(store.redact(me(), with_archive()).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// What an interrupted archiving copied and no index lists.
#[tokio::test]
async fn copies_that_nobody_lists_go() {
    for before in [None, Some(3)] {
        let world = Sandbox::new(25);
        let store = filled(&world).await;
        if let Some(before) = before {
            store.trim(me(), into_archive(before)).await.unwrap();
        }
        world.world.fs.inject(Fault::on(Operation::Rename).path("/elsewhere/archive").times(u64::MAX));
        store.trim(me(), into_archive(12)).await.unwrap_err();
        world.world.fs.heal();
        let copies = world.world.fs.read_dir(Path::new(ARCHIVE)).unwrap();
        assert!(copies.iter().any(|name| name.ends_with(".seg")), "{copies:?}");
        assert!(world.in_segments());
        store.redact(me(), with_archive()).await.unwrap();
        world.gone(&store).await;
        store.trim(me(), into_archive(12)).await.unwrap();
        archive_is_sound(&world);
    }
    // Without an index only what the log has too.
    let world = Sandbox::new(26);
    let store = filled(&world).await;
    store.trim(me(), into_archive(12)).await.unwrap();
    let index = Path::new(ARCHIVE).join("archive");
    world.world.fs.take_away(&index);
    let files = world.world.fs.read_dir(Path::new(ARCHIVE)).unwrap();
    let error = store.redact(me(), with_archive()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.message().contains("without an index"), "{error}");
    assert_eq!(world.world.fs.read_dir(Path::new(ARCHIVE)).unwrap(), files);
}

#[tokio::test]
async fn what_an_archive_has_is_redacted_and_what_it_lacks_is_named() {
    let world = Sandbox::new(27);
    let store = filled(&world).await;
    store.trim(me(), into_archive(6)).await.unwrap();
    store.trim(me(), TrimOptions::before(Position(14))).await.unwrap();
    store.trim(me(), TrimOptions::before(Position(17))).await.unwrap();
    let begins = store.shared().log.begins();
    assert!(world.in_segments());
    let done = store.redact(me(), with_archive()).await.unwrap();
    world.gone(&store).await;
    let [gap] = &done.gaps[..] else { panic!("{done:?}") };
    assert!(gap.archive == Path::new(ARCHIVE) && gap.first <= gap.last && gap.last == begins, "{gap:?}");
}

#[tokio::test]
async fn readers_that_began_before_a_redaction_go_on_in_archive_and_snapshot() {
    let world = Sandbox::new(28);
    let store = filled(&world).await;
    store.trim(me(), into_archive(12)).await.unwrap();
    let env = world.world.env();
    let archived = LogFiles::open_with_archive(&env, Path::new(LOG), Path::new(ARCHIVE)).unwrap();
    let alone = LogFiles::open(&env, Path::new(LOG)).unwrap();
    let (floor, before) = (alone.floor(), alone.snapshot().unwrap());
    store.redact(me(), with_archive()).await.unwrap();
    let positions = archived.frames(Position(1), Check::Chain).unwrap().map(|frame| frame.unwrap().position);
    assert!(positions.eq((1..=archived.synced().0).map(Position)));
    let mut snapshot = snapshot_at(&env, &alone, floor).unwrap().unwrap();
    while snapshot.entry().unwrap().is_some() {}
    assert_ne!(alone.snapshot(), Some(before));
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_log_and_archive_undecided_or_done_at_the_next_open() {
    let prepared = async |seed| {
        let world = Sandbox::new(seed);
        let store = filled(&world).await;
        store.trim(me(), into_archive(12)).await.unwrap();
        (world, store)
    };
    let (world, store) = prepared(29).await;
    let operations = world.world.fs.operations();
    let done = store.redact(me(), with_archive()).await.unwrap();
    let steps = world.world.fs.operations() - operations;
    let mut outcomes = [0, 0];
    for step in 0..steps {
        let keep = [Keep::Nothing, Keep::Random, Keep::Everything, Keep::SizesWithoutContent][step as usize % 4];
        let (world, store) = prepared(step).await;
        world.world.fs.crash_at(step);
        let answer = store.redact(me(), with_archive()).await;
        let _ = store.close().await;
        world.world.fs.crash(keep);
        let store = world.open().await;
        let decided = store.head() >= done.position;
        assert!(decided || answer.is_err(), "{step} {keep:?}");
        outcomes[usize::from(decided)] += 1;
        if !decided {
            store.redact(me(), with_archive()).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        assert_eq!(owed::owed(store.shared()).unwrap(), [] as [PathBuf; 0], "{step} {keep:?}");
        world.gone(&store).await;
        archive_is_sound(&world);
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 20, "{outcomes:?}");
}
