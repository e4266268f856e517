//! The fuzz target of dumps: hostile bytes verified and restored. Blocks come with checksums made good, unless the input
//! asks for them as they are; hashes of the whole never are, so what gets that far is refused at the trailer at the latest.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, PREFIX_BYTES};
use super::{DumpOptions, DumpReader, DumpSource, RestoreOptions, dump, restore, verify};
use crate::env::sim::SimWorld;
use crate::log::{DirLock, Draft, FileLog, Log as _, LogError, LogFiles, LogSettings};
use crate::types::{Digest, Position, Salt, Timestamp};

const DIR: &str = "/store/log";
const LOCK: &str = "/store/LOCK";
const SETTINGS: LogSettings = LogSettings { segment_bytes: 64 << 10, min_free_bytes: Some(0) };

/// Checksums stay as they are in the input.
const AS_IS: u8 = 1;

/// A dump; the first byte says how it is meant.
pub fn dumps(input: &[u8]) {
    let Some((&flags, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if flags & AS_IS == 0 {
        seal(&mut bytes);
    }
    let proven = DumpReader::new(io::Cursor::new(bytes.clone()), "fuzzed")
        .and_then(|mut reader| verify(&mut reader, &mut |_| {}));
    let world = SimWorld::new(1);
    let env = world.env();
    env.fs.create_dir_all(Path::new("/store")).expect("the simulated disk has no faults");
    let lock = DirLock::take(&env, Path::new(LOCK)).expect("nobody else is there");
    let sources = vec![DumpSource::Stream { name: "fuzzed".to_owned(), input: Box::new(io::Cursor::new(bytes)) }];
    let options = RestoreOptions { as_clone: false, settings: SETTINGS };
    let restored = restore(&env, lock, Path::new(DIR), sources, &options, &mut |_, _| {});
    match (proven, restored) {
        (Ok(proven), Ok(restored)) => assert_eq!(proven.head, restored.head),
        (proven, Ok(_)) => assert!(proven.is_ok(), "what is not proven was restored"),
        (_, Err(_)) => {
            let visible = LogFiles::open(&env, Path::new(DIR)).is_ok();
            assert!(!visible, "a restore that failed into nothing left something visible");
        }
    }
}

/// Puts good checksums into the header and into whatever begins like a block, up to what does not.
fn seal(bytes: &mut [u8]) {
    let Some(Ok(mut at)) = bytes.get(..PREFIX_BYTES).map(format::header_bytes) else { return };
    let Some(header) = bytes.get_mut(..at) else { return };
    format::seal_header(header);
    while let Some(prefix) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK_HEADER_BYTES>()) {
        let Ok(mut header) = BlockHeader::parse(prefix) else { return };
        let start = at + BLOCK_HEADER_BYTES;
        let Some(stored) = bytes.get(start..start + header.stored) else { return };
        if header.compressed
            && let Ok(content) = zstd::bulk::decompress(stored, header.content)
        {
            header.content_crc = crc32fast::hash(&content);
        }
        let sealed = header.encode(stored);
        bytes[at..start].copy_from_slice(&sealed);
        at = start + header.stored;
    }
}

/// Inputs to begin with: dumps of a small log, whole and in part, plain and compressed.
pub fn seeds() -> Vec<Vec<u8>> {
    make_seeds().expect("the simulated disk has no faults")
}

fn make_seeds() -> Result<Vec<Vec<u8>>, LogError> {
    let world = SimWorld::new(1);
    let env = world.env();
    env.fs.create_dir_all(Path::new("/store")).expect("the simulated disk has no faults");
    let log = FileLog::create(env.clone(), DirLock::take(&env, Path::new(LOCK))?, Path::new(DIR), SETTINGS)?;
    for count in 0..6u8 {
        let (salt, payload) = (Salt([count; 16]), vec![count; 20]);
        let digest = Digest::of(&salt, &payload);
        let time = Timestamp(i64::from(count));
        log.append(log.head().position, &[Draft { time, salt, digest, payload: Bytes::from(payload) }])?;
    }
    log.sync()?;
    let files = LogFiles::open(&env, Path::new(DIR))?;
    let mut seeds = Vec::new();
    for (since, compress) in [(None, false), (None, true), (Some(Position(3)), false)] {
        let options = DumpOptions { since, at: None, compress };
        let taken = dump(&env, &files, options, Vec::new(), "seed", &mut |_, _| {});
        let (bytes, _) = taken.expect("the simulated disk has no faults");
        seeds.extend([AS_IS, 0].map(|flags| [&[flags], &bytes[..]].concat()));
    }
    Ok(seeds)
}
