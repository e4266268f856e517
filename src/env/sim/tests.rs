//! What the simulated disk keeps and loses.

use std::io;
use std::path::Path;

use super::*;
use crate::env::{File, FileExt as _, Fs as _, OpenMode};

fn file(fs: &SimFs, path: &str) -> Box<dyn File> {
    let path = Path::new(path);
    let file = fs.open(path, OpenMode::CreateNew).unwrap();
    fs.sync_dir(path.parent().unwrap()).unwrap();
    file
}

#[test]
fn unsynced_sectors_are_lost_or_kept_one_by_one() {
    let fs = SimFs::new(3);
    let file = file(&fs, "/a");
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 4096], 0).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let fs = fs.fork(seed);
        fs.crash(Keep::Random);
        let content = fs.content(Path::new("/a")).unwrap();
        assert_eq!(content.len(), 4096);
        for sector in content.chunks(512) {
            assert!(sector.iter().all(|&byte| byte == sector[0]) && (1..=2).contains(&sector[0]));
        }
        seen.insert(content);
    }
    assert!(seen.len() > 10);
    let kept = fs.fork(0);
    kept.crash(Keep::Everything);
    assert_eq!(kept.content(Path::new("/a")).unwrap(), vec![2; 4096]);
    assert!(file.write_all_at(b"x", 0).is_ok(), "the original lives on");
    fs.kill();
    assert!(file.write_all_at(b"x", 0).is_err(), "a handle of the killed process");
    assert_eq!(fs.content(Path::new("/a")).unwrap()[1], 2, "what a killed process wrote stays");
}

#[test]
fn size_and_content_may_part() {
    for (keep, expect) in [(Keep::SizesWithoutContent, vec![0; 700]), (Keep::ContentWithoutSizes, vec![])] {
        let fs = SimFs::new(1);
        let file = file(&fs, "/a");
        file.write_all_at(&[7; 700], 0).unwrap();
        fs.crash(keep);
        assert_eq!(fs.content(Path::new("/a")).unwrap(), expect);
    }
}

#[test]
fn entries_need_a_sync_of_their_directory() {
    let fs = SimFs::new(1);
    fs.create_dir_all(Path::new("/d/e")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    file(&fs, "/d/e/old").write_all_at(b"old", 0).unwrap();
    fs.open(Path::new("/d/e/new"), OpenMode::CreateNew).unwrap().sync_all().unwrap();
    fs.rename(Path::new("/d/e/old"), Path::new("/d/e/older")).unwrap();
    assert_eq!(fs.read_dir(Path::new("/d/e")).unwrap(), ["new", "older"]);
    let lost = fs.fork(1);
    lost.crash(Keep::Nothing);
    assert_eq!(lost.read_dir(Path::new("/d/e")).unwrap(), ["old"]);
    fs.sync_dir(Path::new("/d/e")).unwrap();
    fs.rename(Path::new("/d/e"), Path::new("/d/f")).unwrap();
    fs.sync_dir(Path::new("/d")).unwrap();
    fs.crash(Keep::Nothing);
    assert_eq!(fs.read_dir(Path::new("/d/f")).unwrap(), ["new", "older"]);
    assert!(fs.read_dir(Path::new("/d/e")).is_err());
}

#[test]
fn fault_10_after_a_failed_sync_pages_look_clean_and_are_gone() {
    let fs = SimFs::new(1);
    let file = file(&fs, "/a");
    fs.inject(Fault::on(Operation::Sync));
    file.write_all_at(&[9; 64 << 10], 0).unwrap();
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok());
    assert_eq!(fs.content(Path::new("/a")).unwrap(), vec![9; 64 << 10]);
    fs.crash(Keep::Everything);
    assert_ne!(fs.content(Path::new("/a")).unwrap(), vec![9; 64 << 10]);
}

#[test]
fn faults_strike_what_they_name() {
    let fs = SimFs::new(1);
    let (a, b) = (file(&fs, "/a"), file(&fs, "/b"));
    fs.inject(Fault::on(Operation::Write).path("a").after(1).effect(Effect::Short));
    fs.inject(Fault::on(Operation::Write).path("b").effect(Effect::Fail(io::ErrorKind::Interrupted)));
    assert_eq!(a.write_at(b"four", 0).unwrap(), 4);
    assert_eq!(a.write_at(b"four", 0).unwrap(), 2);
    b.write_all_at(b"four", 0).unwrap();
    fs.fail_reads(Path::new("/a"), 2..3);
    let mut buffer = [0; 4];
    assert_eq!(a.read_at(&mut buffer, 0).unwrap(), 2);
    assert!(a.read_at(&mut buffer, 2).is_err());
    fs.set_capacity(fs.used() + 10);
    assert_eq!(a.write_at(&[0; 100], 4).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let count = fs.operations();
    fs.crash_at(1);
    a.sync_data().unwrap();
    assert!(!fs.crashed());
    assert!(a.sync_data().is_err() && fs.crashed());
    assert!(b.read_at(&mut buffer, 0).is_err(), "nothing works after the crash");
    assert_eq!(fs.operations(), count + 2);
}

#[test]
fn a_lock_has_one_holder_and_ends_with_the_process() {
    let fs = SimFs::new(1);
    let path = Path::new("/LOCK");
    let held = fs.lock(path, b"pid 1").unwrap();
    assert_eq!(fs.lock(path, b"pid 2").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    fs.kill();
    let second = fs.lock(path, b"pid 2").unwrap();
    drop(held);
    assert!(fs.lock(path, b"pid 3").is_err(), "the lock of the dead process is not the one held now");
    drop(second);
    assert!(fs.lock(path, b"pid 3").is_ok());
}
