//! The manifest: which segments and snapshots make up the log, and what was promised when it was written.
//!
//! Two slots, each a file of its own. The older one is written in place and synced, so at every
//! moment one slot is whole; the newest valid one counts. Absence of a segment is proven against
//! the manifest, never by looking into the directory.

use std::path::{Path, PathBuf};

use super::error::IoAt;
use super::format::{self, FIELDS_AT, FRAMES_AT, Fields, Unusable};
use super::segment::{self, SegmentId};
use super::snapshot::Snapshot;
use super::{Head, LOG_FORMAT, LogError};
use crate::env::{File, FileExt as _, Fs, OpenMode};
use crate::types::{Digest, Hash, LogId, Position, Timestamp};

pub(super) const MAGIC: [u8; 8] = *b"LAKELOGM";
pub(super) const HEAD_BYTES: usize = 8 + 8 + 32;
pub(super) const SNAPSHOT_BYTES: usize = HEAD_BYTES + 8 + 32;
/// Length, generation, log id, creation time, promise, floor, start, snapshots, redaction, number of segments.
const FIXED_BYTES: usize = FIELDS_AT + 8 + 8 + 16 + 8 + 8 + 2 * HEAD_BYTES + 2 * SNAPSHOT_BYTES + 8 + 8;
pub(super) const ENTRY_BYTES: usize = 8 * 8 + 32;
/// Files of slots grow in such steps, before the room is needed for so many segments more.
const RESERVE_BYTES: u64 = 4096;
const RESERVED_AHEAD: usize = 16;
/// Larger slots are refused: room for three million segments.
const SLOT_BYTES_MAX: u64 = 256 << 20;

/// One segment as the manifest lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its number, and with it its file.
    pub id: SegmentId,
    /// How many redactions have replaced its file.
    pub revision: u32,
    /// The random identity in every frame of it.
    pub(super) tag: u64,
    /// The first position in it.
    pub first: Position,
    /// The last position in it; `first - 1` when it holds none, and for the active segment.
    pub last: Position,
    /// Where its frames end in the file, in bytes; the size of the header for the active segment.
    pub end: u64,
    /// Recorded time of the first transaction in it, or before it when there is none.
    pub first_time: Timestamp,
    /// Recorded time at `last`.
    pub last_time: Timestamp,
    /// The chain hash at `last`.
    pub chain: Hash,
}

impl SegmentEntry {
    /// The entry of a segment that begins after `before`.
    pub(super) fn empty(id: SegmentId, tag: u64, before: Head) -> SegmentEntry {
        SegmentEntry {
            id,
            revision: 0,
            tag,
            first: before.position.next(),
            last: before.position,
            end: FRAMES_AT,
            first_time: before.time,
            last_time: before.time,
            chain: before.chain,
        }
    }

    /// Its file in the directory of the log.
    pub fn path(&self, dir: &Path) -> PathBuf {
        self.id.path(self.revision, dir)
    }

    /// The state at its end.
    pub(super) fn head(&self) -> Head {
        Head { position: self.last, time: self.last_time, chain: self.chain }
    }
}

/// The content of a manifest slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Raised by one with every write.
    pub generation: u64,
    pub log_id: LogId,
    pub created: Timestamp,
    /// Synced when this was written.
    pub promise: Position,
    /// The oldest readable state.
    pub floor: Head,
    /// The state before the first segment listed: the floor, or one below it.
    pub start: Head,
    /// The state at the floor, unless that is the beginning of everything.
    pub snapshot: Option<Snapshot>,
    /// The one before it, as long as it is kept.
    pub former: Option<Snapshot>,
    /// The last redaction of which everything is done.
    pub redaction: Position,
    /// Never empty; the last one is active, the others are sealed.
    pub segments: Vec<SegmentEntry>,
}

impl Manifest {
    /// The state before the segment at `index`.
    pub fn before(&self, index: usize) -> Head {
        match index.checked_sub(1).and_then(|index| self.segments.get(index)) {
            Some(entry) => entry.head(),
            None => self.start,
        }
    }

    /// The segment that is written to.
    pub fn active(&self) -> &SegmentEntry {
        self.segments.last().expect("decoding and every change keep at least one segment")
    }

    pub fn encode(&self) -> Vec<u8> {
        let length = FIXED_BYTES + self.segments.len() * ENTRY_BYTES;
        let mut bytes = vec![0; FIELDS_AT];
        bytes.reserve(length);
        let mut put = |field: &[u8]| bytes.extend_from_slice(field);
        put(&(length as u64).to_le_bytes());
        put(&self.generation.to_le_bytes());
        put(&self.log_id.0);
        put(&self.created.0.to_le_bytes());
        put(&self.promise.0.to_le_bytes());
        put(&head_bytes(&self.floor));
        put(&head_bytes(&self.start));
        for snapshot in [&self.snapshot, &self.former] {
            put(&snapshot.as_ref().map_or([0; SNAPSHOT_BYTES], snapshot_bytes));
        }
        put(&self.redaction.0.to_le_bytes());
        put(&(self.segments.len() as u64).to_le_bytes());
        self.segments.iter().for_each(|entry| put(&entry_bytes(entry)));
        format::close_block(MAGIC, &mut bytes);
        bytes
    }

    /// Reads a slot; bytes behind its length are left over from a longer one and ignored.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, Unusable> {
        let mut length = Fields(bytes.get(FIELDS_AT..).unwrap_or_default());
        let bytes = length
            .u64()
            .and_then(|length| usize::try_from(length).ok())
            .and_then(|length| bytes.get(..length))
            .ok_or(Unusable::Damaged("the file is shorter than the manifest in it"))?;
        format::check_block(MAGIC, bytes)?;
        let manifest = Fields(bytes.get(FIELDS_AT + 8..).unwrap_or_default())
            .manifest()
            .ok_or(Unusable::Damaged("the manifest's length and content differ"))?;
        manifest.check().map_err(Unusable::Damaged)?;
        Ok(manifest)
    }

    /// What every manifest keeps true, whoever wrote it.
    fn check(&self) -> Result<(), &'static str> {
        self.check_floor()?;
        check_segments(&self.start, &self.segments)?;
        if self.segments.is_empty() {
            return Err("no segments");
        }
        Ok(())
    }

    fn check_floor(&self) -> Result<(), &'static str> {
        let (floor, start) = (&self.floor, &self.start);
        if start.position > floor.position || start.time > floor.time {
            return Err("the segments begin above the floor");
        }
        if start.position == floor.position && start != floor {
            return Err("the segments do not begin at the floor");
        }
        if self.promise < floor.position {
            return Err("the floor lies above the promise");
        }
        match &self.snapshot {
            None if floor.position > Position::ZERO => return Err("no snapshot of the state at the floor"),
            Some(snapshot) if snapshot.head != *floor => return Err("the snapshot is not of the state at the floor"),
            _ => {}
        }
        match &self.former {
            Some(former) if former.head.position >= floor.position || former.head.position < start.position => {
                Err("the former snapshot does not lie between the segments and the floor")
            }
            _ => Ok(()),
        }
    }
}

/// What segments that follow each other keep true.
pub(super) fn check_segments(start: &Head, segments: &[SegmentEntry]) -> Result<(), &'static str> {
    let mut before = *start;
    let mut id = None;
    for entry in segments {
        if id.is_some_and(|id: SegmentId| id.next() != entry.id) {
            return Err("segment numbers have a gap");
        }
        id = Some(entry.id);
        if entry.first != before.position.next() || entry.last.next() < entry.first {
            return Err("positions of segments have a gap");
        }
        if entry.first_time < before.time || entry.last_time < entry.first_time {
            return Err("times of segments go back");
        }
        if entry.end < FRAMES_AT || entry.tag == 0 {
            return Err("a segment without place or tag");
        }
        before = entry.head();
    }
    Ok(())
}

pub(super) fn entry_bytes(entry: &SegmentEntry) -> [u8; ENTRY_BYTES] {
    let numbers = [
        entry.id.0,
        u64::from(entry.revision),
        entry.tag,
        entry.first.0,
        entry.last.0,
        entry.end,
        entry.first_time.0 as u64,
        entry.last_time.0 as u64,
    ];
    let mut bytes = [0; ENTRY_BYTES];
    let (fields, chain) = bytes.split_at_mut(ENTRY_BYTES - 32);
    fields.chunks_exact_mut(8).zip(numbers).for_each(|(field, number)| field.copy_from_slice(&number.to_le_bytes()));
    chain.copy_from_slice(&entry.chain.0);
    bytes
}

pub(super) fn snapshot_bytes(snapshot: &Snapshot) -> [u8; SNAPSHOT_BYTES] {
    let mut bytes = [0; SNAPSHOT_BYTES];
    bytes[..HEAD_BYTES].copy_from_slice(&head_bytes(&snapshot.head));
    bytes[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&snapshot.bytes.to_le_bytes());
    bytes[HEAD_BYTES + 8..].copy_from_slice(&snapshot.digest.0);
    bytes
}

pub(super) fn head_bytes(head: &Head) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(&head.position.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&head.time.0.to_le_bytes());
    bytes[16..].copy_from_slice(&head.chain.0);
    bytes
}

impl Fields<'_> {
    pub fn head(&mut self) -> Option<Head> {
        Some(Head { position: self.position()?, time: self.time()?, chain: self.hash()? })
    }

    /// The inner one is `None` where zeros stand for no snapshot.
    pub fn snapshot(&mut self) -> Option<Option<Snapshot>> {
        let (bytes, _) = self.0.split_first_chunk::<SNAPSHOT_BYTES>()?;
        let none = bytes.iter().all(|&byte| byte == 0);
        let snapshot = Snapshot { head: self.head()?, bytes: self.u64()?, digest: Digest(self.bytes()?) };
        Some((!none).then_some(snapshot))
    }

    pub fn entry(&mut self) -> Option<SegmentEntry> {
        Some(SegmentEntry {
            id: SegmentId(self.u64()?),
            revision: self.u64()?.try_into().ok()?,
            tag: self.u64()?,
            first: self.position()?,
            last: self.position()?,
            end: self.u64()?,
            first_time: self.time()?,
            last_time: self.time()?,
            chain: self.hash()?,
        })
    }

    fn manifest(&mut self) -> Option<Manifest> {
        let generation = self.u64()?;
        let log_id = LogId(self.bytes()?);
        let created = self.time()?;
        let promise = self.position()?;
        let (floor, start) = (self.head()?, self.head()?);
        let (snapshot, former) = (self.snapshot()?, self.snapshot()?);
        let redaction = self.position()?;
        let count = usize::try_from(self.u64()?).ok()?;
        if count.checked_mul(ENTRY_BYTES)? != self.0.len() {
            return None;
        }
        let segments = (0..count).map(|_| self.entry()).collect::<Option<Vec<_>>>()?;
        Some(Manifest { generation, log_id, created, promise, floor, start, snapshot, former, redaction, segments })
    }
}

/// The file of a slot.
pub(super) fn slot_path(dir: &Path, slot: usize) -> PathBuf {
    dir.join(format!("manifest.{slot}"))
}

/// The newest valid manifest, and what is known of the other slot.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub manifest: Manifest,
    /// The slot that holds it: 0 or 1.
    pub slot: usize,
    /// The other slot holds the generation before this one, as it always does unless a write of it
    /// was interrupted or it was damaged since.
    pub other_sound: bool,
}

/// Reads both slots.
///
/// Errors: `NotFound` without a directory, `NewerFormat`, `Corrupt` when neither slot is valid
/// (never `NotFound`: a log whose manifest is gone is damaged), `Io`.
pub(super) fn load(fs: &dyn Fs, dir: &Path) -> Result<Loaded, LogError> {
    if !fs.exists(dir).at("look for the log", dir)? {
        return Err(LogError::NotFound { path: dir.to_path_buf() });
    }
    let slots = [read_slot(fs, dir, 0)?, read_slot(fs, dir, 1)?];
    for (slot, state) in slots.iter().enumerate() {
        if let Err(Unusable::Newer(found)) = state {
            return Err(LogError::NewerFormat { path: slot_path(dir, slot), found: *found, supported: LOG_FORMAT });
        }
    }
    let generation = |slot: usize| slots[slot].as_ref().ok().map(|manifest| manifest.generation);
    let slot = usize::from(generation(1) > generation(0));
    let other_sound = generation(1 - slot).is_some_and(|other| Some(other + 1) == generation(slot));
    let [first, second] = slots;
    let newest = if slot == 0 { &first } else { &second };
    match newest {
        Ok(manifest) => Ok(Loaded { manifest: manifest.clone(), slot, other_sound }),
        Err(_) => Err(LogError::Corrupt {
            path: slot_path(dir, 0),
            offset: 0,
            first: Position(1),
            last: Position::MAX,
            detail: format!("neither manifest slot is valid: {}, {}", why(&first), why(&second)),
        }),
    }
}

fn why(slot: &Result<Manifest, Unusable>) -> &'static str {
    match slot {
        Err(Unusable::Damaged(why)) => why,
        _ => "newer",
    }
}

fn read_slot(fs: &dyn Fs, dir: &Path, slot: usize) -> Result<Result<Manifest, Unusable>, LogError> {
    let path = slot_path(dir, slot);
    let file = match fs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Err(Unusable::Damaged("missing"))),
        Err(error) => return Err(error).at("open the manifest", &path),
    };
    let len = file.len().at("read the manifest", &path)?;
    if len > SLOT_BYTES_MAX {
        return Ok(Err(Unusable::Damaged("too large")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    // A sector that cannot be read is a damaged slot: the other one is there for that.
    Ok(match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Manifest::decode(&bytes),
        Err(_) => Err(Unusable::Damaged("cannot be read")),
    })
}

/// Writes a manifest into a slot in place and syncs it. After an error the slot's content is unknown.
pub(super) fn store(fs: &dyn Fs, dir: &Path, slot: usize, manifest: &Manifest) -> Result<(), LogError> {
    debug_assert_eq!(manifest.check(), Ok(()));
    let path = slot_path(dir, slot);
    let (file, created) = match fs.open(&path, OpenMode::Write) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            (fs.open(&path, OpenMode::CreateNew).at("create the manifest", &path)?, true)
        }
        opened => (opened.at("open the manifest", &path)?, false),
    };
    file.write_all_at(&manifest.encode(), 0).at("write the manifest", &path)?;
    file.sync_all().at("sync the manifest", &path)?;
    if created {
        fs.sync_dir(dir).at("sync the directory", dir)?;
    }
    Ok(())
}

/// The slot's file, to be given to [`reserve`]. Where it cannot be opened, as when the process has no handle left, nothing has
/// been touched.
pub(super) fn open_slot(fs: &dyn Fs, dir: &Path, slot: usize) -> Result<Box<dyn File>, LogError> {
    let path = slot_path(dir, slot);
    fs.open(&path, OpenMode::Write).at("open the manifest", &path)
}

/// Makes sure that a manifest of so many segments fits into the slot's file without growing it, so that a rotation on
/// a full disk does not fail half way. Reserves ahead; want of room is an error only when it is needed now.
///
/// Errors: `NoSpace` with the slot as it was; `Io`, after which its file must not be trusted.
pub(super) fn reserve(fs: &dyn Fs, dir: &Path, file: &dyn File, slot: usize, segments: usize) -> Result<(), LogError> {
    let bytes = |segments: usize| (FIXED_BYTES + segments * ENTRY_BYTES) as u64;
    let path = slot_path(dir, slot);
    let len = file.len().at("read the manifest", &path)?;
    if len >= bytes(segments + RESERVED_AHEAD) {
        return Ok(());
    }
    let zeros = vec![0; (bytes(segments + RESERVED_AHEAD).next_multiple_of(RESERVE_BYTES) - len) as usize];
    match file.write_all_at(&zeros, len) {
        Err(error) if segment::is_no_space(&error) && len >= bytes(segments) => Ok(()),
        Err(error) if segment::is_no_space(&error) => {
            let free = fs.space(dir).map_or(0, |space| space.free);
            Err(LogError::NoSpace { path: dir.to_path_buf(), needed: zeros.len() as u64, free, kept_free: 0 })
        }
        written => written.and_then(|()| file.sync_all()).at("reserve room in the manifest", &path),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Manifest {
        let start = Head { position: Position(4), time: Timestamp(5), chain: Hash([6; 32]) };
        let floor = Head { position: Position(7), time: Timestamp(6), chain: Hash([8; 32]) };
        let mut sealed = SegmentEntry::empty(SegmentId(2), 3, start);
        (sealed.last, sealed.end, sealed.last_time) = (Position(9), 8192, Timestamp(8));
        sealed.revision = 5;
        sealed.chain = Hash([7; 32]);
        let active = SegmentEntry::empty(SegmentId(3), 4, sealed.head());
        Manifest {
            generation: 2,
            log_id: LogId([1; 16]),
            created: Timestamp(1),
            promise: Position(9),
            floor,
            start,
            snapshot: Some(Snapshot { head: floor, bytes: 10, digest: Digest([9; 32]) }),
            former: None,
            redaction: Position(8),
            segments: vec![sealed, active],
        }
    }

    #[test]
    fn golden_bytes_of_the_manifest() {
        let manifest = sample();
        let bytes = manifest.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let word = |value: u64| -> String { value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect() };
        let words = |values: &[u64]| -> String { values.iter().map(|&value| word(value)).collect() };
        let expect = format!(
            "4c414b454c4f474d01000000{GOLDEN_CRC}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}{}",
            words(&[544, 2]),
            "01".repeat(16),
            words(&[1, 9, 7, 6]),
            "08".repeat(32),
            words(&[4, 5]),
            "06".repeat(32),
            words(&[7, 6]),
            "08".repeat(32),
            word(10),
            "09".repeat(32),
            "00".repeat(88),
            words(&[8, 2]),
            words(&[2, 5, 3, 5, 9, 8192, 5, 8]),
            "07".repeat(32),
            words(&[3, 0, 4, 10, 9, 4096, 8, 8]),
            "07".repeat(32),
        );
        assert_eq!(hex, expect);
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    }

    const GOLDEN_CRC: &str = "0bae83fa";

    #[test]
    fn fault_16_every_flipped_bit_and_every_cut_is_found() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Manifest::decode(&flipped), Err(Unusable::Damaged(_))), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "len {len}");
        }
    }

    #[test]
    fn floors_without_what_they_rest_on_are_refused() {
        let refuse = |change: fn(&mut Manifest)| {
            let mut manifest = sample();
            change(&mut manifest);
            assert!(matches!(Manifest::decode(&manifest.encode()), Err(Unusable::Damaged(_))), "{manifest:?}");
        };
        refuse(|manifest| manifest.snapshot = None);
        refuse(|manifest| manifest.floor.chain = Hash([1; 32]));
        refuse(|manifest| manifest.promise = Position(6));
        refuse(|manifest| manifest.start.position = Position(8));
        refuse(|manifest| manifest.former = manifest.snapshot);
        refuse(|manifest| {
            manifest.former = manifest.snapshot;
            manifest.former.as_mut().unwrap().head.position = Position(3);
        });
        let mut manifest = sample();
        manifest.former = manifest.snapshot;
        manifest.former.as_mut().unwrap().head.position = Position(4);
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn what_is_left_of_a_longer_manifest_is_ignored() {
        let mut bytes = sample().encode();
        bytes.extend_from_slice(&[7; 88]);
        assert_eq!(Manifest::decode(&bytes), Ok(sample()));
    }

    proptest! {
        #[test]
        fn fault_17_any_bytes_give_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..544) {
            prop_assert!(Manifest::decode(&bytes).is_err());
            let mut near = sample().encode();
            let at = at.min(near.len());
            near.splice(at.., bytes);
            // Equal only when the splice put back what was there.
            prop_assert!(Manifest::decode(&near).map_or(true, |manifest| manifest == sample()));
        }
    }
}
