//! Two copies of one store that went their own ways: files of both, mixed in every way there is, are one of the two or refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lakelog::env::Env;
use lakelog::log::{Check, LogError, LogFiles};
use lakelog::{Batch, Context, ErrorKind, Hash, Position, ScanOptions, Settings, Store};
use tokio::runtime::Runtime;

type State = (Position, BTreeMap<Vec<u8>, (Vec<u8>, Position)>);

fn settings() -> Settings {
    Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), scrub_bytes_per_second: 0, ..Settings::default() }
}

async fn open(dir: &Path) -> lakelog::Result<Store> {
    Store::builder(dir).settings(settings()).serve_readers(false).open().await
}

/// Writes a few segments full, in the name of one of the copies.
async fn work(store: &Store, who: &str, from: u32, to: u32) {
    for number in from..to {
        let value = format!("{who} {number}").repeat(400);
        let batch = Batch::new().set(b"p", format!("{}", number % 12).as_bytes(), value.as_bytes());
        store.write(Context::new(who), batch).await.unwrap();
    }
}

async fn state(store: &Store) -> State {
    let mut found = BTreeMap::new();
    let mut entries = store.scan(ScanOptions::new(b"p")).unwrap();
    while let Some(entry) = entries.next().await {
        let entry = entry.unwrap();
        found.insert(entry.key().to_vec(), (entry.value.to_vec(), entry.version));
    }
    (store.head(), found)
}

/// The chain hash at each position of a log, read as a store reads it.
fn chain(dir: &Path) -> Result<Vec<Hash>, LogError> {
    let files = LogFiles::open(&Env::os(), &dir.join("log"))?;
    files.frames(Position(1), Check::Order)?.map(|frame| Ok(frame?.chain)).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(fs::copy(&path, &target).is_ok()),
        }
    }
}

/// What can be taken from either copy: each file of the log, and the base as a whole.
fn parts(a: &Path, b: &Path) -> Vec<PathBuf> {
    let mut names = BTreeSet::new();
    for dir in [a, b] {
        for entry in fs::read_dir(dir.join("log")).unwrap() {
            names.insert(Path::new("log").join(entry.unwrap().file_name()));
        }
    }
    let differs = |name: &PathBuf| fs::read(a.join(name)).ok() != fs::read(b.join(name)).ok();
    // Never a part of the log.
    let spare = |name: &PathBuf| name.ends_with("spare.seg");
    names.into_iter().filter(|name| differs(name) && !spare(name)).chain(["base".into()]).collect()
}

#[test]
fn fault_22_mixed_files_of_two_forks_are_one_of_them_or_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (a, b, mixed) = (scratch.path().join("a"), scratch.path().join("b"), scratch.path().join("mixed"));
    Runtime::new().unwrap().block_on(async {
        let store = Store::builder(&a).settings(settings()).serve_readers(false).create().await.unwrap();
        work(&store, "both", 0, 30).await;
        store.checkpoint().await.unwrap();
        work(&store, "both", 30, 40).await;
        store.close().await.unwrap();
        copy(&a, &b);
        let mut states = Vec::new();
        for (dir, to) in [(&a, 70), (&b, 80)] {
            let store = open(dir).await.unwrap();
            work(&store, dir.file_name().unwrap().to_str().unwrap(), 40, to).await;
            store.checkpoint().await.unwrap();
            work(&store, dir.file_name().unwrap().to_str().unwrap(), to, to + 3).await;
            states.push(state(&store).await);
            store.close().await.unwrap();
        }
        let chains = [chain(&a).unwrap(), chain(&b).unwrap()];
        let parts = parts(&a, &b);
        assert!((5..9).contains(&parts.len()), "{parts:?}");
        let (mut opened, mut whole) = (0, 0);
        for mask in 0..1_u32 << parts.len() {
            let _ = fs::remove_dir_all(&mixed);
            copy(&a, &mixed);
            let taken: Vec<&PathBuf> =
                parts.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1).map(|(_, p)| p).collect();
            for part in &taken {
                let (from, to) = (b.join(part), mixed.join(part));
                if to.is_dir() {
                    fs::remove_dir_all(&to).unwrap();
                    copy(&from, &to);
                } else if from.exists() {
                    fs::copy(&from, &to).unwrap();
                } else {
                    fs::remove_file(&to).unwrap();
                }
            }
            match open(&mixed).await {
                Ok(store) => {
                    let found = state(&store).await;
                    store.close().await.unwrap();
                    let which = states.iter().position(|state| *state == found);
                    let which = which.unwrap_or_else(|| panic!("a third history came of {taken:?} of the other"));
                    // An open reads only the end of the log: the rest is found out when it is read.
                    match chain(&mixed) {
                        Ok(found) => {
                            assert!(found == chains[which], "a third log came of {taken:?} of the other");
                            whole += 1;
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{taken:?}: {error}"),
                    }
                    opened += 1;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{taken:?}: {}", error.report()),
            }
        }
        // Each of them with the base of either.
        assert!(whole >= 4 && opened < 1 << (parts.len() - 1), "whole {whole}, opened {opened}");
    });
}

#[test]
fn fault_22_each_fork_goes_on_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
    Runtime::new().unwrap().block_on(async {
        let store = Store::builder(&a).settings(settings()).serve_readers(false).create().await.unwrap();
        work(&store, "both", 0, 10).await;
        // Copied while it is open: what was synced by then is in the copy.
        copy(&a, &b);
        let before = state(&store).await;
        work(&store, "a", 10, 20).await;
        let other = open(&b).await.unwrap();
        assert!(state(&other).await == before);
        work(&other, "b", 10, 25).await;
        let (of_a, of_b) = (state(&store).await, state(&other).await);
        store.close().await.unwrap();
        other.close().await.unwrap();
        for (dir, expected) in [(&a, of_a), (&b, of_b)] {
            let store = open(dir).await.unwrap();
            assert!(state(&store).await == expected);
            store.close().await.unwrap();
        }
    });
}
