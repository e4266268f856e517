//! How sled is held: what it writes, and when.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::backends::sled::tree::{CHUNK_BYTES_MAX, ChunkTree};
use crate::env::OsFs;

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn fault_12_a_finished_tree_that_was_opened_is_read_and_opened_again_without_a_write() {
    let dir = tempfile::tempdir().unwrap();
    for chunks in (1..150).step_by(4) {
        let tree = ChunkTree::create(&OsFs, dir.path()).unwrap();
        (0..chunks).for_each(|number| tree.insert(number, &[7; CHUNK_BYTES_MAX]).unwrap());
        tree.finish(&OsFs).unwrap();
        let read = || {
            let tree = ChunkTree::open(&OsFs, dir.path(), 1 << 20).unwrap();
            let opened = files(dir.path());
            (0..chunks).for_each(|number| assert!(tree.get(number).unwrap().is_some()));
            drop(tree);
            (opened, files(dir.path()))
        };
        let (opened, closed) = read();
        assert!(opened == closed, "{chunks} chunks: written by a read");
        assert!((opened, closed) == read(), "{chunks} chunks: written by the second open");
    }
}
