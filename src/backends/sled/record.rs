//! [`Record`]: the file `CURRENT`, which says what the base is. `docs/format.md` has the tables.

use std::path::Path;

use super::bytes::{take, take_bytes, take_u32, take_u64};
use super::files::{corrupt, from_io};
use crate::backends::BackendError;
use crate::env::{FileExt as _, Fs, OpenMode};
use crate::types::{Hash, LogId, Position, ProjectionVersion, Stamp};

/// The name of the record within the base's directory.
pub(super) const RECORD: &str = "CURRENT";
/// The name of a record that is not published yet.
pub(super) const RECORD_TMP: &str = "CURRENT.tmp";
const MAGIC: [u8; 8] = *b"LKLGBASE";
/// The format of this version: of the record and of the generations that it names.
pub(super) const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 20;
/// Far above what thousands of generations and retained positions take.
const RECORD_BYTES_MAX: u64 = 64 << 20;

/// What a base consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stamp: Stamp,
    /// Readable besides the stamp, ascending.
    pub(super) retained: Vec<Position>,
    /// Above the id of every generation ever named.
    pub(super) next_id: u64,
    /// What is current, oldest first.
    pub(super) generations: Vec<GenerationRecord>,
    /// What was superseded and somebody may still see.
    pub(super) past: Vec<GenerationRecord>,
    /// The beginning of the history when all of `past` was last merged into one.
    pub(super) swept: Position,
}

/// What the record says of one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GenerationRecord {
    /// Its directory is `gen-<id>`.
    pub(super) id: u64,
    /// Random; part of every block's checksum.
    pub(super) tag: u64,
    /// The oldest version that it holds.
    pub(super) oldest: Position,
    /// The newest version that it holds.
    pub(super) newest: Position,
    /// Versions of keys, deletes included.
    pub(super) rows: u64,
    /// Their size uncompressed, in bytes.
    pub(super) raw_bytes: u64,
    /// What the directory takes, in bytes.
    pub(super) disk_bytes: u64,
    /// The number of the index's first chunk: blocks lie before it.
    pub(super) index_chunk: u32,
    /// The length of the index, in bytes.
    pub(super) index_len: u64,
    /// SHA-256 of the index, which holds the checksums of all blocks.
    pub(super) index_hash: [u8; 32],
}

impl Record {
    /// The bytes of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.stamp.log_id.0);
        body.extend_from_slice(&self.stamp.format.to_le_bytes());
        body.extend_from_slice(&self.stamp.position.0.to_le_bytes());
        body.extend_from_slice(&self.stamp.chain.0);
        put_count(&mut body, self.stamp.projections.len());
        for projection in &self.stamp.projections {
            put_count(&mut body, projection.name.len());
            body.extend_from_slice(projection.name.as_bytes());
            body.extend_from_slice(&projection.version.to_le_bytes());
            body.extend_from_slice(&projection.since.0.to_le_bytes());
        }
        body.push(u8::from(self.stamp.history.is_some()));
        body.extend_from_slice(&self.stamp.history.unwrap_or_default().0.to_le_bytes());
        body.extend_from_slice(&self.stamp.redaction.0.to_le_bytes());
        put_count(&mut body, self.retained.len());
        self.retained.iter().for_each(|position| body.extend_from_slice(&position.0.to_le_bytes()));
        body.extend_from_slice(&self.next_id.to_le_bytes());
        put_generations(&mut body, &self.generations);
        put_generations(&mut body, &self.past);
        body.extend_from_slice(&self.swept.0.to_le_bytes());
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        put_count(&mut bytes, body.len());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes);
        hasher.update(&body);
        bytes.extend_from_slice(&hasher.finalize().to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads the bytes of the file at `place`. `OtherFormat` for another format number, `Corrupt`
    /// for anything else that is not what [`Record::encode`] writes.
    pub(super) fn decode(bytes: &[u8], place: &Path) -> Result<Record, BackendError> {
        let damaged = || corrupt(place, "not a record");
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(damaged)?;
        let mut rest = &header[..];
        if take::<8>(&mut rest) != Some(MAGIC) {
            return Err(damaged());
        }
        let format = take_u32(&mut rest).ok_or_else(damaged)?;
        if format != FORMAT {
            let place = place.display().to_string();
            return Err(BackendError::OtherFormat { place, found: format, supported: FORMAT });
        }
        let len = take_u32(&mut rest).ok_or_else(damaged)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header[..16]);
        hasher.update(body);
        if len as usize != body.len() || take_u32(&mut rest) != Some(hasher.finalize()) {
            return Err(corrupt(place, "wrong length or checksum"));
        }
        Self::decode_body(body).ok_or_else(damaged)
    }

    fn decode_body(mut body: &[u8]) -> Option<Record> {
        let body = &mut body;
        let log_id = LogId(take(body)?);
        let format = take_u32(body)?;
        let position = Position(take_u64(body)?);
        let chain = Hash(take(body)?);
        let mut projections = Vec::new();
        for _ in 0..take_u32(body)? {
            let len = take_u32(body)? as usize;
            let name = String::from_utf8(take_bytes(body, len)?.to_vec()).ok()?;
            projections.push(ProjectionVersion { name, version: take_u32(body)?, since: Position(take_u64(body)?) });
        }
        let history = match (take(body)?, Position(take_u64(body)?)) {
            ([0], Position::ZERO) => None,
            ([1], from) => Some(from),
            _ => return None,
        };
        let redaction = Position(take_u64(body)?);
        let mut retained = Vec::new();
        for _ in 0..take_u32(body)? {
            retained.push(Position(take_u64(body)?));
        }
        let next_id = take_u64(body)?;
        let (generations, past) = (take_generations(body)?, take_generations(body)?);
        let swept = Position(take_u64(body)?);
        let stamp = Stamp { log_id, format, position, chain, projections, history, redaction };
        body.is_empty().then_some(Record { stamp, retained, next_id, generations, past, swept })
    }

    /// The published record; `None` when there is none.
    pub(super) fn load(fs: &dyn Fs, dir: &Path) -> Result<Option<Record>, BackendError> {
        let place = dir.join(RECORD);
        if !fs.exists(&place).map_err(from_io(&place))? {
            return Ok(None);
        }
        let file = fs.open(&place, OpenMode::Read).map_err(from_io(&place))?;
        let len = file.len().map_err(from_io(&place))?;
        if len > RECORD_BYTES_MAX {
            return Err(corrupt(&place, "too long for a record"));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(from_io(&place))?;
        Record::decode(&bytes, &place).map(Some)
    }

    /// Writes the record beside the published one, durably. Nothing is changed by it.
    pub(super) fn stage(&self, fs: &dyn Fs, dir: &Path) -> Result<(), BackendError> {
        let tmp = dir.join(RECORD_TMP);
        let write = || {
            if fs.exists(&tmp)? {
                fs.remove_file(&tmp)?;
            }
            let file = fs.open(&tmp, OpenMode::CreateNew)?;
            file.write_all_at(&self.encode(), 0)?;
            file.sync_all()?;
            // The generations' directories must be found wherever the record is.
            fs.sync_dir(dir)
        };
        write().map_err(from_io(&tmp))
    }

    /// Makes the staged record the published one, durably. After an error either may be found: what
    /// the former and this one name must be kept.
    pub(super) fn switch(fs: &dyn Fs, dir: &Path) -> Result<(), BackendError> {
        let place = dir.join(RECORD);
        fs.rename(&dir.join(RECORD_TMP), &place).and_then(|()| fs.sync_dir(dir)).map_err(from_io(&place))
    }
}

fn put_generations(body: &mut Vec<u8>, generations: &[GenerationRecord]) {
    put_count(body, generations.len());
    for generation in generations {
        let GenerationRecord { id, tag, oldest, newest, rows, raw_bytes, disk_bytes, .. } = generation;
        for number in [*id, *tag, oldest.0, newest.0, *rows, *raw_bytes, *disk_bytes] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&generation.index_chunk.to_le_bytes());
        body.extend_from_slice(&generation.index_len.to_le_bytes());
        body.extend_from_slice(&generation.index_hash);
    }
}

fn take_generations(body: &mut &[u8]) -> Option<Vec<GenerationRecord>> {
    let mut generations = Vec::new();
    for _ in 0..take_u32(body)? {
        generations.push(GenerationRecord {
            id: take_u64(body)?,
            tag: take_u64(body)?,
            oldest: Position(take_u64(body)?),
            newest: Position(take_u64(body)?),
            rows: take_u64(body)?,
            raw_bytes: take_u64(body)?,
            disk_bytes: take_u64(body)?,
            index_chunk: take_u32(body)?,
            index_len: take_u64(body)?,
            index_hash: take(body)?,
        });
    }
    Some(generations)
}

// Counts are far below 2^32: a record is limited to 64 MiB when it is read.
fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&(count as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            stamp: Stamp {
                log_id: LogId([1; 16]),
                format: 2,
                position: Position(0x0304),
                chain: Hash([5; 32]),
                projections: vec![ProjectionVersion { name: "by-email".into(), version: 6, since: Position(20) }],
                history: Some(Position(21)),
                redaction: Position(23),
            },
            retained: vec![Position(7)],
            next_id: 10,
            generations: vec![GenerationRecord {
                id: 9,
                tag: 11,
                oldest: Position(12),
                newest: Position(13),
                rows: 14,
                raw_bytes: 15,
                disk_bytes: 16,
                index_chunk: 17,
                index_len: 18,
                index_hash: [19; 32],
            }],
            past: vec![],
            swept: Position(22),
        }
    }

    #[test]
    fn golden_bytes() {
        let body = [
            &[1; 16][..],
            b"\x02\0\0\0",
            b"\x04\x03\0\0\0\0\0\0",
            &[5; 32],
            b"\x01\0\0\0\x08\0\0\0by-email\x06\0\0\0\x14\0\0\0\0\0\0\0",
            b"\x01\x15\0\0\0\0\0\0\0",
            b"\x17\0\0\0\0\0\0\0",
            b"\x01\0\0\0\x07\0\0\0\0\0\0\0",
            b"\x0a\0\0\0\0\0\0\0",
            b"\x01\0\0\0",
            b"\x09\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0\x0d\0\0\0\0\0\0\0",
            b"\x0e\0\0\0\0\0\0\0\x0f\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0",
            b"\x11\0\0\0\x12\0\0\0\0\0\0\0",
            &[19; 32],
            b"\0\0\0\0",
            b"\x16\0\0\0\0\0\0\0",
        ]
        .concat();
        let expected = [&b"LKLGBASE\x01\0\0\0\xf1\0\0\0\0\0\0\0"[..], &body].concat();
        let encoded = record().encode();
        assert_eq!(encoded[..16], expected[..16]);
        assert_eq!(encoded[20..], expected[20..]);
        assert_eq!(encoded[16..20], 0x13d4_1b9e_u32.to_le_bytes());
        assert_eq!(Record::decode(&encoded, Path::new("x")).unwrap(), record());
    }

    #[test]
    fn every_flip_and_every_cut_is_found() {
        let encoded = record().encode();
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = Record::decode(&damaged, Path::new("x")).unwrap_err();
            let format = (8..12).contains(&(bit / 8));
            assert_eq!(matches!(error, BackendError::OtherFormat { .. }), format, "bit {bit}: {error}");
        }
        for len in 0..encoded.len() {
            assert!(matches!(Record::decode(&encoded[..len], Path::new("x")), Err(BackendError::Corrupt { .. })));
        }
    }
}
