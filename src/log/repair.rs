//! [`FrameRepair`]: damaged frames of a log replaced by frames of another copy whose chain proves them.
//!
//! A gap lies between two states that the log itself demands: the frame before it, and the frame behind it or the manifest's
//! entry. The copy's frames fill it only when the chain, computed anew over them, leads from the one to the other and they take exactly
//! the gap's bytes. Everything else of the segment is copied as it is.
//!
//! ```text
//! the damaged file to damaged-ID-CRC + sync | the whole segment to ID.seg.new + sync | read back | renamed over | directory synced
//! ```
//! Until the rename the damaged segment is in its place, afterwards the whole one.

use std::path::{Path, PathBuf};

use super::copy::FrameSource;
use super::error::IoAt;
use super::format::{
    DIGEST_BYTES, FRAMES_AT, FrameHeader, FrameKind, MARK_BYTES, SALT_BYTES, SEAL_BYTES, frame_bytes, seal_body,
};
use super::manifest;
use super::recovery::Problem;
use super::rotation::segment_header;
use super::segment::{self, corrupt};
use super::survey::{Survey, Surveyed};
use super::walk::{Damage, Found, SegmentWalk};
use super::window::SegmentReader;
use super::{Frame, Head, LogError, Proof};
use crate::env::{Env, File, FileExt as _, OpenMode};
use crate::types::{Hash, Position};

const COPY_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4096;

/// What a copy can put right. Displays nothing: the steps are for that.
#[derive(Debug)]
pub struct FrameRepair {
    dir: PathBuf,
    survey: Survey,
    segments: Vec<SegmentRepair>,
    left: Vec<Problem>,
}

/// A segment to be written anew, by its place in the survey.
#[derive(Debug)]
struct SegmentRepair {
    surveyed: usize,
    gaps: Vec<Gap>,
    /// Damaged stretches that stay.
    unfilled: usize,
    size: u64,
}

/// A stretch of frames that the copy proves.
#[derive(Clone, Debug)]
struct Gap {
    before: Head,
    /// Where they begin in the file.
    offset: u64,
    /// Where they end.
    end: u64,
    last: Position,
    /// Nothing in the segment lies behind them that counts.
    tail: bool,
    /// Whether a hash that the log or its base holds demands exactly them.
    demanded: bool,
}

impl Survey {
    /// Asks a copy for the frames that are missing, and keeps what it proves. `demands` are chain hashes that derived state was stamped
    /// with. `accept` may refuse a frame, in words; it sees each frame that would be used.
    ///
    /// Errors: `Io`.
    pub fn prove(
        self,
        source: &mut dyn FrameSource,
        demands: &[(Position, Hash)],
        accept: &mut dyn FnMut(&Frame) -> Result<(), String>,
    ) -> Result<FrameRepair, LogError> {
        let mut segments = Vec::new();
        let mut left = self.other.clone();
        for (index, surveyed) in self.segments.iter().enumerate() {
            let mut repair = SegmentRepair { surveyed: index, gaps: Vec::new(), unfilled: 0, size: surveyed.size };
            for damage in &surveyed.damages {
                let proven = match damage.gap {
                    true => surveyed.fill(damage, source, demands, accept)?,
                    false => Err("its frames are whole, and are left as they are".to_owned()),
                };
                match proven {
                    Ok(gap) => repair.gaps.push(gap),
                    Err(why) => {
                        repair.unfilled += 1;
                        let detail = format!("{}; {why}", damage.problem.detail);
                        left.push(Problem { detail, ..damage.problem.clone() });
                    }
                }
            }
            // A file that is gone is made whole or not at all, and a header alone is worth nothing.
            let whole_frames = !surveyed.missing && surveyed.damages.iter().all(|damage| damage.resume.is_some());
            let sound_header = surveyed.file.is_none();
            let useful = match sound_header {
                true => !repair.gaps.is_empty(),
                false => repair.unfilled == 0 || (whole_frames && !surveyed.missing),
            };
            if !useful {
                let named = |file: &&Problem| left.iter().all(|other| other.path != file.path);
                left.extend(surveyed.file.as_ref().filter(named).cloned());
                continue;
            }
            let end = repair.gaps.last().map_or(FRAMES_AT, |gap| gap.end) + SEAL_BYTES + MARK_BYTES;
            repair.size = repair.size.max(end.next_multiple_of(BLOCK_BYTES as u64));
            segments.push(repair);
        }
        Ok(FrameRepair { dir: self.dir.clone(), survey: self, segments, left })
    }
}

impl Surveyed {
    fn fill(
        &self,
        damage: &Damage,
        source: &mut dyn FrameSource,
        demands: &[(Position, Hash)],
        accept: &mut dyn FnMut(&Frame) -> Result<(), String>,
    ) -> Result<Result<Gap, String>, LogError> {
        let offset = damage.problem.offset;
        let (mut head, mut end) = (damage.before, offset);
        let mut demanded = false;
        let mut last = damage.problem.last;
        let mut take = |head: &mut Head, end: &mut u64| -> Result<Result<(), String>, LogError> {
            let position = head.position.next();
            let Some(frame) = source.follow(head)? else {
                return Ok(Err(format!("the copy has no transaction {position} that follows what is whole")));
            };
            if let Err(why) = accept(&frame) {
                return Ok(Err(why));
            }
            *end += frame_bytes(frame.proof.bytes() + frame.payload.len());
            *head = Head { position, time: frame.time, chain: frame.chain };
            if demands.iter().any(|(at, chain)| *at == position && *chain != frame.chain) {
                return Ok(Err(format!("the copy has another transaction {position}")));
            }
            demanded |= demands.iter().any(|(at, _)| *at == position);
            Ok(Ok(()))
        };
        while head.position < last {
            if let Err(why) = take(&mut head, &mut end)? {
                return Ok(Err(why));
            }
        }
        let mut expected = (self.entry.head(), self.entry.end);
        match (&damage.resume, &self.next) {
            (Some(next), _) => {
                if !next.clone().into_frame().follows(&head) {
                    // Its header may be right and its body not: then it is a part of the gap.
                    last = next.header.position;
                    if let Err(why) = take(&mut head, &mut end)? {
                        return Ok(Err(why));
                    }
                    expected = (next.head(), next.header.end());
                } else {
                    expected = (head, next.header.offset);
                }
            }
            (None, Some(_)) => {}
            (None, None) => {
                if self.marked.is_some_and(|marked| marked != head) {
                    return Ok(Err("the copy does not lead to what the log's last mark says".to_owned()));
                }
                expected = (head, end);
                demanded |= self.marked.is_some();
            }
        }
        if head != expected.0 {
            return Ok(Err("the copy does not lead to what follows in the log".to_owned()));
        }
        if end != expected.1 {
            return Ok(Err("the copy's frames have another length, since bytes were erased here or there".to_owned()));
        }
        let tail = damage.resume.is_none();
        let demanded = demanded || !tail || self.next.is_some();
        Ok(Ok(Gap { before: damage.before, offset, end, last, tail, demanded }))
    }
}

impl Proof {
    /// What stands before the payload.
    fn as_slice(&self) -> &[u8] {
        match self {
            Proof::Salted(salt) => &salt.0,
            Proof::Erased(digest) => &digest.0,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Proof::Salted(_) => SALT_BYTES,
            Proof::Erased(_) => DIGEST_BYTES,
        }
    }
}

impl FrameRepair {
    /// The steps, one a line; empty when the copy can put nothing right.
    pub fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        if self.survey.rebuilt {
            let count = self.survey.manifest.segments.len();
            steps.push(format!("write the manifest anew from the headers of {count} segments"));
        }
        for repair in &self.segments {
            let surveyed = self.surveyed(repair);
            let path = surveyed.entry.path(&self.dir);
            for gap in &repair.gaps {
                let proof = match gap.demanded {
                    true => "their chain leads to what the log demands",
                    false => "their chain follows what is whole, and nothing is left that could contradict it",
                };
                steps.push(format!(
                    "take transactions {}..={} for {} offset {} from the copy: {proof}",
                    gap.before.position.next(),
                    gap.last,
                    path.display(),
                    gap.offset
                ));
            }
            if let Some(file) = &surveyed.file {
                steps.push(format!("write the header of {} anew from the manifest: {}", path.display(), file.detail));
            }
            if !surveyed.missing {
                steps.push(format!("keep the damaged {} as damaged-{}-*", path.display(), surveyed.entry.id));
            }
        }
        steps
    }

    /// Damage that stays: the copy does not prove what was there.
    pub fn left(&self) -> &[Problem] {
        &self.left
    }

    /// Does what the steps say; the lock of the store is held. Interrupted anywhere, each segment is the damaged one or the whole one,
    /// and the same repair goes on.
    ///
    /// Errors: `NoSpace`, with the segment as it was; `Corrupt` when the copy changed meanwhile; `Io`.
    pub fn apply(&self, env: &Env, source: &mut dyn FrameSource) -> Result<(), LogError> {
        if self.survey.rebuilt {
            let mut manifest = self.survey.manifest.clone();
            manifest::store(env.fs.as_ref(), &self.dir, 1, &manifest)?;
            manifest.generation += 1;
            manifest::store(env.fs.as_ref(), &self.dir, 0, &manifest)?;
        }
        for repair in &self.segments {
            let path = self.surveyed(repair).entry.path(&self.dir);
            let making = path.with_extension("seg.new");
            let rebuilt = self.rebuild(env, source, repair, &path, &making);
            if let Err(error) = rebuilt {
                // Best effort: on a full disk the room is needed.
                let _ = env.fs.remove_file(&making);
                return Err(match error {
                    LogError::Io { source, .. } if segment::is_no_space(&source) => {
                        let free = env.fs.space(&self.dir).map_or(0, |space| space.free);
                        let needed = repair.size * 2;
                        LogError::NoSpace { path: self.dir.clone(), needed, free, kept_free: 0 }
                    }
                    error => error,
                });
            }
            tracing::warn!(segment = %path.display(), gaps = repair.gaps.len(), "damaged frames were replaced");
        }
        Ok(())
    }

    fn surveyed(&self, repair: &SegmentRepair) -> &Surveyed {
        &self.survey.segments[repair.surveyed]
    }

    fn rebuild(
        &self,
        env: &Env,
        source: &mut dyn FrameSource,
        repair: &SegmentRepair,
        path: &Path,
        making: &Path,
    ) -> Result<(), LogError> {
        let fs = env.fs.as_ref();
        let surveyed = self.surveyed(repair);
        let (entry, before) = (&surveyed.entry, surveyed.before);
        let damaged = match surveyed.missing {
            true => None,
            false => Some(fs.open(path, OpenMode::Read).at("open the segment", path)?),
        };
        if let Some(damaged) = &damaged {
            keep(env, &self.dir, damaged.as_ref(), path, entry.id)?;
        }
        match fs.remove_file(making) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).at("remove what an interrupted repair left", making);
            }
            _ => {}
        }
        let file = fs.open(making, OpenMode::CreateNew).at("create the segment", making)?;
        let copied = match &damaged {
            Some(damaged) => copy(damaged.as_ref(), path, |bytes, at| {
                // Written zeros, as a spare has them: a file with a hole could meet a full disk later.
                file.write_all_at(bytes, at).at("write the segment", making)
            })?,
            None => 0,
        };
        zero(file.as_ref(), making, copied, repair.size)?;
        let header = segment_header(self.survey.manifest.log_id, entry, before, repair.size);
        file.write_all_at(&header.encode(), 0).at("write the segment header", making)?;
        for gap in &repair.gaps {
            write_gap(file.as_ref(), making, surveyed, gap, repair.size, source)?;
        }
        file.sync_all().at("sync the segment", making)?;
        drop(file);
        self.read_back(env, repair, making)?;
        fs.rename(making, path).at("rename the segment", path)?;
        fs.sync_dir(&self.dir).at("sync the directory", &self.dir)
    }

    /// What was written is walked before it takes the damaged one's place: nothing may be wrong with it but what was to stay.
    fn read_back(&self, env: &Env, repair: &SegmentRepair, making: &Path) -> Result<(), LogError> {
        let surveyed = self.surveyed(repair);
        let opened = segment::open(env.fs.as_ref(), making, OpenMode::Read)?;
        let (file, _) = opened.map_err(|why| corrupt(making, 0, surveyed.entry.first, surveyed.last, why))?;
        let reader = SegmentReader::new(file, making.to_path_buf(), surveyed.entry.tag)?;
        let mut walk = SegmentWalk::new(reader, surveyed.before, surveyed.last, surveyed.next.map(|_| surveyed.entry));
        let mut damages = Vec::new();
        while let Some(step) = walk.next()? {
            if let Found::Damage(damage) = step {
                damages.push(damage.problem);
            }
        }
        match damages.get(repair.unfilled) {
            Some(problem) => Err(problem.to_error()),
            None => Ok(()),
        }
    }
}

/// The frames of a gap, and, where nothing follows them, the seal or mark that ends the segment.
fn write_gap(
    file: &dyn File,
    path: &Path,
    surveyed: &Surveyed,
    gap: &Gap,
    size: u64,
    source: &mut dyn FrameSource,
) -> Result<(), LogError> {
    let (mut head, mut at) = (gap.before, gap.offset);
    let mut buffer = Vec::new();
    let header = |kind, head: &Head, body_len: usize, erased, offset| FrameHeader {
        kind,
        erased,
        body_len: u32::try_from(body_len).unwrap_or(u32::MAX),
        position: head.position,
        time: head.time,
        // Everything that the segment must hold was synced once.
        promise: surveyed.last,
        offset,
        tag: surveyed.entry.tag,
        chain: head.chain,
    };
    while head.position < gap.last {
        let changed = || corrupt(path, at, head.position.next(), gap.last, "the copy changed since it was looked at");
        let frame = source.follow(&head)?.ok_or_else(changed)?;
        head = Head { position: frame.position, time: frame.time, chain: frame.chain };
        let (proof, erased) = (frame.proof.as_slice(), matches!(frame.proof, Proof::Erased(_)));
        buffer.clear();
        let frame_header = header(FrameKind::Transaction, &head, proof.len() + frame.payload.len(), erased, at);
        frame_header.encode(&[proof, &frame.payload], &mut buffer);
        file.write_all_at(&buffer, at).at("write the segment", path)?;
        at += buffer.len() as u64;
    }
    if at != gap.end {
        return Err(corrupt(path, at, head.position, gap.last, "the copy changed since it was looked at"));
    }
    if gap.tail {
        buffer.clear();
        match &surveyed.next {
            Some(next) => {
                let body = seal_body(next.id.0, next.tag);
                header(FrameKind::Seal, &head, body.len(), false, at).encode(&[&body], &mut buffer);
            }
            None => header(FrameKind::Mark, &head, 0, false, at).encode(&[], &mut buffer),
        }
        file.write_all_at(&buffer, at).at("write the segment", path)?;
        zero(file, path, at + buffer.len() as u64, size)?;
    }
    Ok(())
}

/// Keeps a damaged file under a name that says what is in it, so that a repeated repair writes the same one.
fn keep(env: &Env, dir: &Path, damaged: &dyn File, path: &Path, id: segment::SegmentId) -> Result<(), LogError> {
    let mut hasher = crc32fast::Hasher::new();
    copy(damaged, path, |bytes, _| {
        hasher.update(bytes);
        Ok(())
    })?;
    let side = dir.join(format!("damaged-{id}-{:08x}", hasher.finalize()));
    let file = match env.fs.open(&side, OpenMode::CreateNew) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => env.fs.open(&side, OpenMode::Write),
        created => created,
    };
    let file = file.at("create the side file", &side)?;
    copy(damaged, path, |bytes, at| file.write_all_at(bytes, at).at("write the side file", &side))?;
    file.sync_all().at("sync the side file", &side)?;
    env.fs.sync_dir(dir).at("sync the directory", dir)
}

/// Reads a file from end to end; blocks that cannot be read are zeros. Gives its length.
fn copy(file: &dyn File, path: &Path, mut to: impl FnMut(&[u8], u64) -> Result<(), LogError>) -> Result<u64, LogError> {
    let len = file.len().at("read the segment", path)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(usize::MAX).min(COPY_BYTES);
        let chunk = &mut buffer[..part];
        if file.read_exact_at(chunk, at).is_err() {
            for (block, offset) in chunk.chunks_mut(BLOCK_BYTES).zip((at..).step_by(BLOCK_BYTES)) {
                if file.read_exact_at(block, offset).is_err() {
                    block.fill(0);
                }
            }
        }
        to(chunk, at)?;
        at += part as u64;
    }
    Ok(len)
}

fn zero(file: &dyn File, path: &Path, from: u64, to: u64) -> Result<(), LogError> {
    let zeros = vec![0; COPY_BYTES];
    let mut at = from;
    while at < to {
        let part = usize::try_from(to - at).unwrap_or(usize::MAX).min(COPY_BYTES);
        file.write_all_at(&zeros[..part], at).at("write the segment", path)?;
        at += part as u64;
    }
    Ok(())
}
