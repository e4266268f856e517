//! Damaged, missing and foreign files: each read is right or `Corrupt`, and `clear` starts over.

use super::*;
use crate::backends::sled::record::{FORMAT, RECORD};
use crate::backends::sled::tree::ChunkTree;
use crate::env::OsFs;

type Rows = Vec<(Slice, u64, Slice)>;

/// A base of three generations, one value in many chunks, one kept position; and what it shows.
async fn build(dir: &Path) -> [(u64, Rows); 2] {
    let backend = open(dir);
    let mut state = 7u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    let first: Vec<Change> = (0..200).map(|key| put(format!("{key:03}"), 1, noise(60))).collect();
    write(&backend, 1, &[], first).await.unwrap();
    write(&backend, 2, &[1], [put("050", 2, "new"), put("large", 2, noise(70_000))]).await.unwrap();
    let third = [Change::DeleteRange { prefix: b"1"[..].into(), version: Position(3) }, put("07", 3, noise(900))];
    write(&backend, 3, &[1], third).await.unwrap();
    [(1, dump(&backend, 1).await.unwrap()), (3, dump(&backend, 3).await.unwrap())]
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn files(dir: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path(), &format!("{name}/"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// Opens a damaged base and reads everything; `true` when the damage was noticed.
async fn examine(dir: &Path, expected: &[(u64, Rows)], what: &str) -> bool {
    let backend = open(dir);
    let is_corrupt =
        |error: &BackendError| matches!(error, BackendError::Corrupt { .. } | BackendError::OtherFormat { .. });
    let mut noticed = false;
    match backend.stamp().await {
        // A record that is gone is a base that was never written.
        Ok(None) => assert_eq!(dump(&backend, 0).await.unwrap(), []),
        Ok(Some(found)) => {
            assert_eq!(found, stamp(3), "{what}");
            for (at, rows) in expected {
                match dump(&backend, *at).await {
                    Ok(found) => assert!(found == *rows, "{what}: wrong rows"),
                    Err(error) => {
                        assert!(is_corrupt(&error), "{what}: {error}");
                        noticed = true;
                    }
                }
                for (key, version, value) in rows.iter().step_by(7) {
                    match backend.get(Position(*at), key).await {
                        Ok(found) => assert!(found == Some((Position(*version), value.clone())), "{what}: wrong row"),
                        Err(error) => {
                            assert!(is_corrupt(&error), "{what}: {error}");
                            noticed = true;
                        }
                    }
                }
            }
        }
        Err(error) => {
            assert!(is_corrupt(&error), "{what}: {error}");
            assert!(dump(&backend, 3).await.is_err() && dump(&backend, 0).await.is_err(), "{what}");
            assert!(write(&backend, 9, &[], []).await.is_err() && maintain(&backend, &[]).await.is_err(), "{what}");
            noticed = true;
        }
    }
    drop(backend);
    // The next open knows what a read met.
    let backend = open(dir);
    assert_eq!(backend.stamp().await.is_err(), noticed, "{what}");
    backend.clear().await.unwrap();
    write(&backend, 1, &[], [put("a", 1, "1")]).await.unwrap();
    assert_eq!(dump(&backend, 1).await.unwrap().len(), 1, "{what}");
    noticed
}

async fn damage_each(damage: impl Fn(&mut Vec<u8>, usize), cases_per_file: usize) -> (usize, usize) {
    let original = tempfile::tempdir().unwrap();
    let expected = build(original.path()).await;
    let (mut cases, mut noticed) = (0, 0);
    for name in files(original.path(), "") {
        for case in 0..cases_per_file {
            let dir = tempfile::tempdir().unwrap();
            copy(original.path(), dir.path());
            let path = dir.path().join(&name);
            let mut bytes = std::fs::read(&path).unwrap();
            // Preallocated zeros at the end of a file hold nothing.
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let offset = case * used.max(1) / cases_per_file;
            damage(&mut bytes, offset);
            std::fs::write(&path, bytes).unwrap();
            cases += 1;
            noticed += usize::from(examine(dir.path(), &expected, &format!("{name} at {offset}")).await);
        }
    }
    (cases, noticed)
}

#[tokio::test]
async fn fault_23_flipped_bytes() {
    let flip =
        |bytes: &mut Vec<u8>, offset: usize| bytes.iter_mut().skip(offset).take(1).for_each(|byte| *byte ^= 0x20);
    let (cases, noticed) = damage_each(flip, 8).await;
    assert!(noticed * 4 > cases, "{noticed} of {cases}");
}

#[tokio::test]
async fn fault_23_zeroed_ranges() {
    let zero = |bytes: &mut Vec<u8>, offset: usize| bytes.iter_mut().skip(offset).take(4096).for_each(|byte| *byte = 0);
    let (cases, noticed) = damage_each(zero, 3).await;
    assert!(noticed * 4 > cases, "{noticed} of {cases}");
}

#[tokio::test]
async fn fault_23_cut_off_files() {
    let (cases, noticed) = damage_each(|bytes, offset| bytes.truncate(offset), 3).await;
    assert!(noticed * 4 > cases, "{noticed} of {cases}");
}

#[tokio::test]
async fn fault_23_missing_files_and_directories() {
    let original = tempfile::tempdir().unwrap();
    let expected = build(original.path()).await;
    let mut names = files(original.path(), "");
    names.extend(generations(original.path()));
    for name in names {
        let dir = tempfile::tempdir().unwrap();
        copy(original.path(), dir.path());
        let path = dir.path().join(&name);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        let noticed = examine(dir.path(), &expected, &name).await;
        // Without its own recovery snapshot sled reads its file instead.
        assert_eq!(noticed, name != RECORD && !name.contains("snap."), "{name}");
    }
}

#[tokio::test]
async fn fault_23_generations_in_each_others_place() {
    let original = tempfile::tempdir().unwrap();
    let expected = build(original.path()).await;
    let names = generations(original.path());
    std::fs::rename(original.path().join(&names[0]), original.path().join("aside")).unwrap();
    std::fs::rename(original.path().join(&names[1]), original.path().join(&names[0])).unwrap();
    std::fs::rename(original.path().join("aside"), original.path().join(&names[1])).unwrap();
    assert!(examine(original.path(), &expected, "swapped").await);
}

/// What sled itself takes for sound: a chunk replaced by an older one, by one of another place, gone.
#[tokio::test]
async fn fault_23_chunks_that_sled_vouches_for() {
    let original = tempfile::tempdir().unwrap();
    let expected = build(original.path()).await;
    for case in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        copy(original.path(), dir.path());
        let open_tree = |name: &str| ChunkTree::open(&OsFs, &dir.path().join(name), 1 << 20).unwrap();
        let (first, second) = (open_tree("gen-1"), open_tree("gen-2"));
        let own: Vec<u8> = first.get(0).unwrap().unwrap().to_vec();
        match case {
            // A block of the same generation in another's place, both ways.
            0 => {
                let other = first.get(1).unwrap().unwrap().to_vec();
                first.insert(0, &other).unwrap();
                first.insert(1, &own).unwrap();
            }
            // The block of the same number of another generation.
            1 => first.insert(0, &second.get(0).unwrap().unwrap()).unwrap(),
            // A single byte, behind sled's back no more.
            2 => {
                let mut own = own;
                own[40] ^= 1;
                first.insert(0, &own).unwrap();
            }
            // A chunk in the middle of a large value, cut.
            _ => second.insert(3, &second.get(3).unwrap().unwrap()[..100]).unwrap(),
        }
        first.finish(&OsFs).unwrap();
        second.finish(&OsFs).unwrap();
        assert!(examine(dir.path(), &expected, &format!("case {case}")).await);
    }
}

#[tokio::test]
async fn leftovers_of_sleds_own_snapshots_do_not_matter() {
    for (name, content) in [("snap.0000000000000001.generating", "half"), ("snap.ffffffffffffff00", "")] {
        let dir = tempfile::tempdir().unwrap();
        let expected = build(dir.path()).await;
        for generation in generations(dir.path()) {
            std::fs::write(dir.path().join(generation).join(name), content).unwrap();
        }
        let backend = open(dir.path());
        for (at, rows) in expected {
            assert!(dump(&backend, at).await.unwrap() == rows, "{name}");
        }
    }
}

#[tokio::test]
async fn another_format_is_named() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path()).await;
    let path = dir.path().join(RECORD);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    std::fs::write(&path, bytes).unwrap();
    let backend = open(dir.path());
    let error = backend.stamp().await.unwrap_err();
    assert!(matches!(error, BackendError::OtherFormat { found: 9, supported: FORMAT, .. }), "{error}");
    assert_eq!(generations(dir.path()).len(), 3, "a newer version may still want them");
    backend.clear().await.unwrap();
    assert_eq!(generations(dir.path()).len(), 0);
}
