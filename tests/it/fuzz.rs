//! The corpora of the fuzz targets, replayed: what a fuzzer found once stays tested without one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lakelog::fuzzing::TARGETS;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The inputs to begin with, as files: for a fuzzer, and so that no later change of them loses one.
fn plant_seeds() {
    for target in TARGETS {
        let corpus = folder().join("corpus").join(target.name);
        fs::create_dir_all(&corpus).unwrap();
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}

/// What a fuzzer found once, and what it found worth keeping, stays tested without one.
#[test]
fn corpora_replay() {
    if std::env::var_os("LAKELOG_REGENERATE").is_some() {
        plant_seeds();
    }
    let expected: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&folder().join("fuzz_targets")), expected);
    assert_eq!(names(&folder().join("corpus")), expected);
    for target in TARGETS {
        let inputs: Vec<PathBuf> = fs::read_dir(folder().join("corpus").join(target.name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(inputs.len() >= (target.seeds)().len(), "the corpus of {} lacks its seeds", target.name);
        for input in inputs {
            eprintln!("{}", input.display());
            (target.run)(&fs::read(&input).unwrap());
        }
    }
}
