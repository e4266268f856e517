//! Fuzz targets of the log: hostile bytes in its last segment and in its manifest.
//!
//! Both open, verify, append to and read a small log in the simulated file system. Bytes come with checksums made good,
//! unless the input asks for them as they are: what a checksum stops is not worth much fuzzing.

use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;

use super::format::{self, DIGEST_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameKind, SALT_BYTES};
use super::manifest::{self, Manifest};
use super::{Check, DirLock, Draft, FileLog, Frame, Head, Log as _, LogError, LogFiles, LogSettings, verify};
use crate::env::Env;
use crate::env::sim::SimWorld;
use crate::types::{Digest, Position, Salt, Timestamp};

const DIR: &str = "/store/log";
const LOCK: &str = "/store/LOCK";
const SETTINGS: LogSettings = LogSettings { segment_bytes: 64 << 10, min_free_bytes: Some(0) };

/// Checksums stay as they are in the input.
const AS_IS: u8 = 1;
/// Chain hashes follow from what the frames hold.
const CHAINED: u8 = 2;
/// There is no second manifest slot.
const ALONE: u8 = 4;

fn lock(env: &Env) -> Result<DirLock, LogError> {
    DirLock::take(env, Path::new(LOCK))
}

fn draft(payload: &[u8]) -> Draft {
    let salt = Salt([payload.len() as u8; 16]);
    let digest = Digest::of(&salt, payload);
    Draft { time: Timestamp(payload.len() as i64), salt, digest, payload: Bytes::copy_from_slice(payload) }
}

/// A log of two segments, made once.
fn sample() -> SimWorld {
    static SAMPLE: OnceLock<SimWorld> = OnceLock::new();
    SAMPLE.get_or_init(|| make_sample().expect("the simulated disk has no faults")).fork(1)
}

fn make_sample() -> Result<SimWorld, LogError> {
    let world = SimWorld::new(1);
    let env = world.env();
    env.fs.create_dir_all(Path::new("/store")).expect("the simulated disk has no faults");
    let log = FileLog::create(env.clone(), lock(&env)?, Path::new(DIR), SETTINGS)?;
    for bytes in [0, 30_000, 30_001, 30_002] {
        log.append(log.head().position, &[draft(&vec![b'x'; bytes])])?;
    }
    for bytes in 30_010..30_020 {
        log.append(log.head().position, &[draft(&vec![b'y'; bytes - 30_000]).later(bytes)])?;
        log.sync()?;
    }
    drop(log);
    world.fs.kill();
    Ok(world)
}

impl Draft {
    fn later(mut self, time: usize) -> Draft {
        self.time = Timestamp(time as i64);
        self
    }
}

/// The frames of the last segment; the first byte says how they are meant.
pub fn frames(input: &[u8]) {
    let Some((&flags, frames)) = input.split_first() else { return };
    let world = sample();
    let loaded = manifest::load(&world.fs, Path::new(DIR)).expect("the sample is sound");
    let active = *loaded.manifest.active();
    let path = active.path(Path::new(DIR));
    let mut content = world.fs.content(&path).expect("the sample has its segments");
    let size = content.len();
    content.truncate(format::SEGMENT_HEADER_BYTES);
    content.extend_from_slice(frames);
    content.resize(size, 0);
    if flags & AS_IS == 0 {
        let before = loaded.manifest.before(loaded.manifest.segments.len() - 1);
        seal_frames(&mut content, active.tag, (flags & CHAINED != 0).then_some(before));
    }
    world.fs.plant(&path, content);
    exercise(&world, true);
}

/// The first manifest slot; the first byte says how it is meant.
pub fn manifest(input: &[u8]) {
    let Some((&flags, slot)) = input.split_first() else { return };
    let world = sample();
    let dir = Path::new(DIR);
    let mut slot = slot.to_vec();
    if flags & AS_IS == 0 {
        slot.resize(slot.len().max(format::FIELDS_AT + 8), 0);
        let length = slot.len() as u64;
        slot[format::FIELDS_AT..format::FIELDS_AT + 8].copy_from_slice(&length.to_le_bytes());
        format::close_block(manifest::MAGIC, &mut slot);
    }
    if let Ok(manifest) = Manifest::decode(&slot) {
        assert_eq!(
            Manifest::decode(&manifest.encode()).ok().as_ref(),
            Some(&manifest),
            "what was written reads the same"
        );
    }
    if flags & ALONE != 0 {
        world.fs.take_away(&manifest::slot_path(dir, 1));
    }
    world.fs.plant(&manifest::slot_path(dir, 0), slot);
    exercise(&world, false);
}

/// Puts the segment's tag, the frame's place and a checksum into whatever begins like a frame, up to what does not.
fn seal_frames(content: &mut [u8], tag: u64, mut chain_from: Option<Head>) {
    let mut at = format::SEGMENT_HEADER_BYTES;
    while let Some(Ok(mut header)) = content.get(at..).map(FrameHeader::parse) {
        let body = at + FRAME_HEADER_BYTES..at + FRAME_HEADER_BYTES + header.body_len as usize;
        let end = at + header.frame_bytes() as usize;
        let Some(body) = content.get(body).filter(|_| end <= content.len()).map(<[u8]>::to_vec) else { return };
        (header.tag, header.offset) = (tag, at as u64);
        if let Some(head) = chain_from.as_mut() {
            if header.kind == FrameKind::Transaction {
                let digest = match header.erased {
                    true => Digest(body[..DIGEST_BYTES].try_into().expect("parsed with room for it")),
                    false => {
                        let salt = Salt(body[..SALT_BYTES].try_into().expect("parsed with room for it"));
                        Digest::of(&salt, &body[SALT_BYTES..])
                    }
                };
                let chain = head.chain.extend(header.position, header.time, &digest);
                *head = Head { position: header.position, time: header.time, chain };
            }
            header.chain = head.chain;
        }
        let mut frame = Vec::new();
        header.encode(&[&body], &mut frame);
        content[at..end].copy_from_slice(&frame);
        at = end;
    }
}

/// Whatever the bytes are: verification, opening, reading and appending end in values and typed errors, and what
/// was opened once stays whole.
fn exercise(world: &SimWorld, sealed_are_sound: bool) {
    let env = world.env();
    let dir = Path::new(DIR);
    let _problems = verify(&env, dir, None, &mut |_| {}, &mut |_, _| {});
    if let Ok(files) = LogFiles::open(&env, dir) {
        let _frames = files.frames(files.floor().position.next(), Check::Chain).map(|frames| frames.count());
    }
    let open = || FileLog::open(env.clone(), lock(&env)?, dir, SETTINGS, None);
    let Ok(log) = open() else { return };
    let before = log.head();
    let written = Draft { time: before.time, ..draft(b"after") };
    if log.append(before.position, &[written]).is_err() || log.sync().is_err() {
        return;
    }
    let head = log.head();
    drop(log);
    world.fs.kill();
    let log = open().expect("a log that was opened and written to opens again");
    assert_eq!(log.head(), head, "an acknowledged transaction is there");
    if sealed_are_sound {
        let frames = log.read_checked(log.floor().next(), Check::Chain).expect("the floor is readable");
        let frames: Vec<Frame> = frames.map(|frame| frame.expect("all that a log opened with is sound")).collect();
        let positions: Vec<Position> = frames.iter().map(|frame| frame.position).collect();
        assert!(positions.iter().copied().eq((1..=head.position.0).map(Position)), "positions are dense");
        assert_eq!(frames.last().map(|frame| frame.chain), Some(head.chain));
    }
}

/// Inputs to begin with: the sample as it is.
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let world = sample();
    let loaded = manifest::load(&world.fs, Path::new(DIR)).expect("the sample is sound");
    let path = loaded.manifest.active().path(Path::new(DIR));
    let content = world.fs.content(&path).expect("the sample has its segments");
    let frames = &content[format::SEGMENT_HEADER_BYTES..];
    let end = frames.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let seed = |flags: u8, end: usize| [&[flags], &frames[..end]].concat();
    vec![seed(AS_IS, end), seed(CHAINED, end), seed(0, end / 2)]
}

/// Inputs to begin with: both slots of the sample.
pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let world = sample();
    let slot = |slot| world.fs.content(&manifest::slot_path(Path::new(DIR), slot)).expect("the sample has both slots");
    let end = manifest::load(&world.fs, Path::new(DIR)).expect("the sample is sound").manifest.encode().len();
    let seed = |flags: u8, which| {
        let mut bytes = slot(which);
        bytes.truncate(end);
        bytes.insert(0, flags);
        bytes
    };
    vec![seed(AS_IS, 0), seed(0, 1), seed(ALONE, 0), seed(ALONE, 1)]
}
