//! A failure or a crash at each call to the file system: the former state or the new one, whole.

use super::faulty_fs::FaultyFs;
use super::*;

const SETTINGS: SledSettings = SledSettings { cache_bytes: 1 << 20 };

fn rows(version: u64) -> Vec<Change> {
    (0..40).map(|key| put(format!("{key:03}"), version, format!("{version}").repeat(30))).collect()
}

/// A base at position 4, with the position 2 kept and four generations that want merging.
async fn four_generations(dir: &Path) {
    let backend = open(dir);
    for version in 1..=4 {
        write(&backend, version, &[2].into_iter().filter(|kept| *kept <= version).collect::<Vec<_>>(), rows(version))
            .await
            .unwrap();
    }
}

async fn expect(backend: &SledBackend, at: u64) {
    let entries = dump(backend, at).await.unwrap();
    assert_eq!(entries.len(), 40);
    assert!(
        entries.iter().all(|(_, version, value)| *version == at && value[..] == *format!("{at}").repeat(30).as_bytes())
    );
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Write,
    Merge,
    Clear,
}

async fn run(backend: &SledBackend, work: Work) -> Result<(), BackendError> {
    match work {
        Work::Write => write(backend, 5, &[2], rows(5)).await,
        Work::Merge => {
            while maintain(backend, &[2]).await? {}
            Ok(())
        }
        Work::Clear => backend.clear().await,
    }
}

/// Fails at call after call until the work gets through; gives how many calls it made.
async fn at_each_call(work: Work, crash: bool) -> i64 {
    for calls in 0.. {
        let dir = tempfile::tempdir().unwrap();
        four_generations(dir.path()).await;
        let fs = FaultyFs::new();
        let mut backend = SledBackend::open(fs.env(), dir.path(), SETTINGS).unwrap();
        backend.step_bytes = 1 << 10;
        // What was there before counts as synced.
        fs.fail_after(i64::MAX, false);
        for name in generations(dir.path()) {
            crate::backends::sled::files::sync_tree(&fs, &dir.path().join(name)).unwrap();
        }
        fs.fail_after(calls, crash);
        let done = run(&backend, work).await;
        if !crash {
            fs.fail_after(i64::MAX, false);
            after_a_failure(&backend, work, done.is_ok()).await;
        }
        drop(backend);
        fs.fail_after(i64::MAX, false);

        let backend = open(dir.path());
        after_reopening(&backend, work, done.is_ok(), !crash).await;
        drop(backend);
        assert!(generations(dir.path()).len() <= 6);
        if done.is_ok() {
            return calls;
        }
        assert!(matches!(done, Err(BackendError::Unavailable { .. })), "{work:?} {calls}: {done:?}");
    }
    unreachable!("the work gets through in the end")
}

/// In the same process a failed write or merge changed nothing, and the next one works.
async fn after_a_failure(backend: &SledBackend, work: Work, done: bool) {
    match work {
        Work::Write if done => expect(backend, 5).await,
        Work::Write => {
            expect(backend, 4).await;
            assert!(backend.get(Position(5), b"000").await.is_err());
            write(backend, 5, &[2], rows(5)).await.unwrap();
            expect(backend, 5).await;
        }
        Work::Merge => {
            expect(backend, 4).await;
            while maintain(backend, &[2]).await.unwrap() {}
            expect(backend, 4).await;
        }
        Work::Clear => backend.clear().await.unwrap(),
    }
    if work != Work::Clear {
        expect(backend, 2).await;
    }
}

async fn after_reopening(backend: &SledBackend, work: Work, done: bool, repeated: bool) {
    let at = backend.stamp().await.unwrap().map_or(0, |stamp| stamp.position.0);
    match work {
        Work::Write if done || repeated => assert_eq!(at, 5),
        Work::Write => assert!(at == 4 || at == 5, "{at}"),
        Work::Merge => assert_eq!(at, 4),
        Work::Clear if done || repeated => assert_eq!(at, 0),
        Work::Clear => assert!(at == 0 || at == 4, "{at}"),
    }
    if at > 0 {
        expect(backend, at).await;
        expect(backend, 2).await;
    }
    write(backend, 9, &[], rows(9)).await.unwrap();
    while maintain(backend, &[2]).await.unwrap() {}
    expect(backend, 9).await;
}

#[tokio::test]
async fn fault_07_a_crash_during_a_write() {
    assert!(at_each_call(Work::Write, true).await > 8);
}

#[tokio::test]
async fn fault_12_a_failure_during_a_write() {
    assert!(at_each_call(Work::Write, false).await > 8);
}

#[tokio::test]
async fn fault_07_a_crash_during_a_merge() {
    assert!(at_each_call(Work::Merge, true).await > 8);
}

#[tokio::test]
async fn fault_12_a_failure_during_a_merge() {
    assert!(at_each_call(Work::Merge, false).await > 8);
}

#[tokio::test]
async fn a_crash_while_clearing() {
    assert!(at_each_call(Work::Clear, true).await >= 3);
    assert!(at_each_call(Work::Clear, false).await >= 3);
}
