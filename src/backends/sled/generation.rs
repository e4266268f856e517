//! [`Generation`]: an immutable, sorted run of rows, and [`GenerationWriter`], which makes one.
//!
//! Owns how blocks and index lie in the chunks of a tree, and that nothing is handed out whose
//! checksum does not fit. Knows nothing of other generations.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::block::{self, BLOCK_BYTES, ENCODED_BYTES_MAX, Row, RowAt};
use super::files::{corrupt, unavailable};
use super::filter;
use super::index::{BlockAt, Fences, Index, separator};
use super::read::Passed;
use super::record::GenerationRecord;
use super::tree::{CHUNK_BYTES_MAX, Chunk, ChunkTree};
use crate::backends::BackendError;
use crate::backends::ranges::Ranges;
use crate::env::Fs;
use crate::types::{Position, Slice};

/// Rows looked at one by one before a search is tried.
const STEPS_BEFORE_SEARCH: usize = 32;
/// Bytes written after which they are synced. Whatever else syncs on the same disk, the log first of all, waits behind these in the
/// disk's queue: a generation that is synced only at its end holds it up for tens of milliseconds.
const SYNCED_BYTES: usize = 4 << 20;
/// A thread keeps a buffer of at most this many bytes for point reads.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The directory of a generation within the base's.
pub(super) fn generation_dir(base: &Path, id: u64) -> PathBuf {
    base.join(format!("gen-{id}"))
}

/// One generation, opened when it is first read. Whoever holds it can read it, also after it was superseded.
pub(super) struct Generation {
    pub(super) record: GenerationRecord,
    dir: PathBuf,
    fs: Arc<dyn Fs>,
    cache_bytes: u64,
    opened: OnceLock<Opened>,
    /// Held while it is opened.
    opening: Mutex<()>,
    superseded: AtomicBool,
}

/// What of a generation is in memory.
pub(super) struct Opened {
    index: Index,
    tree: ChunkTree,
}

/// The stored form of a block, checked.
enum Stored {
    Whole(Chunk),
    Joined(Vec<u8>),
}

impl Deref for Stored {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Stored::Whole(chunk) => chunk,
            Stored::Joined(bytes) => bytes,
        }
    }
}

impl Generation {
    /// A generation that the record names, not open yet. One whose files are missing is `Corrupt`.
    pub(super) fn named(
        fs: &Arc<dyn Fs>,
        base: &Path,
        record: GenerationRecord,
        cache_bytes: u64,
    ) -> Result<Generation, BackendError> {
        let dir = generation_dir(base, record.id);
        ChunkTree::check_there(&**fs, &dir)?;
        let (opened, opening, superseded) = (OnceLock::new(), Mutex::default(), AtomicBool::new(false));
        Ok(Generation { record, dir, fs: fs.clone(), cache_bytes, opened, opening, superseded })
    }

    /// Opens it, if nobody has yet. Anything that does not fit the record is `Corrupt`.
    pub(super) fn opened(&self) -> Result<&Opened, BackendError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let _opening = self.opening.lock();
        match self.opened.get() {
            Some(opened) => Ok(opened),
            None => {
                let opened = self.open()?;
                Ok(self.opened.get_or_init(|| opened))
            }
        }
    }

    fn open(&self) -> Result<Opened, BackendError> {
        let tree = ChunkTree::open(&*self.fs, &self.dir, self.cache_bytes)?;
        let mut bytes = Vec::new();
        let mut chunk = self.record.index_chunk;
        // Grows with what is there, not with what the record says.
        while (bytes.len() as u64) < self.record.index_len {
            match tree.get(chunk)? {
                Some(part) if !part.is_empty() => bytes.extend_from_slice(&part),
                _ => return Err(corrupt(&self.dir, format!("index cut off at chunk {chunk}"))),
            }
            chunk = chunk.checked_add(1).ok_or_else(|| corrupt(&self.dir, "index too long"))?;
        }
        if Sha256::digest(&bytes)[..] != self.record.index_hash {
            return Err(corrupt(&self.dir, "index does not fit its hash"));
        }
        let index = Index::decode(&bytes).ok_or_else(|| corrupt(&self.dir, "index is damaged"))?;
        Ok(Opened { index, tree })
    }

    pub(super) fn ranges(&self) -> Result<&Ranges, BackendError> {
        Ok(&self.opened()?.index.ranges)
    }

    /// Bytes of memory beside the tree's cache.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.opened.get().map_or(0, |opened| opened.index.fences.memory_bytes())
    }

    /// The directory goes when the last holder lets go.
    pub(super) fn supersede(&self) {
        self.superseded.store(true, Atomic::Release);
    }

    /// The newest version of a key that is not above a position; no value is a delete.
    pub(super) fn get(&self, key: &[u8], at: Position) -> Result<Option<(Position, Option<Slice>)>, BackendError> {
        let fences = &self.opened()?.index.fences;
        let hash = filter::hash(key);
        let mut index = fences.seek(key);
        index = fences.seek_version(index, key, at);
        while !fences.begins_above(index, key) {
            if !fences.may_hold(index, hash) {
                index += 1;
                continue;
            }
            let stored = self.stored(index)?;
            let looked = SCRATCH.with_borrow_mut(|scratch| {
                let looked = block::decode_into(&stored, scratch).and_then(|raw| look(raw, key, at));
                if scratch.len() > SCRATCH_BYTES_MAX {
                    *scratch = Vec::new();
                }
                looked
            });
            match looked.ok_or_else(|| self.damaged(index))? {
                Look::Found(version, value) => return Ok(Some((version, value))),
                Look::Absent => return Ok(None),
                Look::Further => index += 1,
            }
        }
        Ok(None)
    }

    /// The raw bytes of a block; `None` behind the last.
    fn block(&self, index: usize) -> Result<Option<Slice>, BackendError> {
        if index >= self.opened()?.index.fences.len() {
            return Ok(None);
        }
        let stored = self.stored(index)?;
        block::decode(&stored).map(Some).ok_or_else(|| self.damaged(index))
    }

    fn stored(&self, index: usize) -> Result<Stored, BackendError> {
        let Opened { index: Index { fences, .. }, tree } = self.opened()?;
        let Some(BlockAt { chunk, encoded_len, checksum }) = fences.get(index) else {
            return Err(self.damaged(index));
        };
        let len = encoded_len as usize;
        let missing = || corrupt(&self.dir, format!("block {index} is missing"));
        let stored = if len <= CHUNK_BYTES_MAX {
            Stored::Whole(tree.get(chunk)?.ok_or_else(missing)?)
        } else {
            let mut bytes = Vec::with_capacity(len.min(ENCODED_BYTES_MAX));
            for part in 0..len.div_ceil(CHUNK_BYTES_MAX) as u32 {
                let part = chunk.checked_add(part).ok_or_else(missing)?;
                bytes.extend_from_slice(&tree.get(part)?.ok_or_else(missing)?);
            }
            Stored::Joined(bytes)
        };
        if stored.len() != len || block::checksum(self.record.tag, chunk, &stored) != checksum {
            return Err(self.damaged(index));
        }
        Ok(stored)
    }

    fn damaged(&self, index: usize) -> BackendError {
        corrupt(&self.dir, format!("block {index} does not fit its checksum"))
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if let Some(opened) = self.opened.get_mut() {
            opened.tree.close();
        }
        if self.superseded.load(Atomic::Acquire) {
            // What stays behind is removed at the next open: the record does not name it.
            let _ = self.fs.remove_dir_all(&self.dir);
        }
    }
}

enum Look {
    Found(Position, Option<Slice>),
    Absent,
    Further,
}

/// Looks for a key in raw block bytes; `None` when they are damaged.
fn look(raw: &[u8], key: &[u8], at: Position) -> Option<Look> {
    let mut offset = 0;
    while offset < raw.len() {
        let row = block::row_at(raw, offset)?;
        match raw.get(row.key)?.cmp(key) {
            Ordering::Equal if row.version <= at => {
                let value = match row.value {
                    Some(value) => Some(Slice::from(raw.get(value)?)),
                    None => None,
                };
                return Some(Look::Found(row.version, value));
            }
            Ordering::Greater => return Some(Look::Absent),
            Ordering::Less | Ordering::Equal => offset = row.end,
        }
    }
    Some(Look::Further)
}

/// Walks over the rows of a generation in order; holds one block.
pub(super) struct Cursor {
    pub(super) generation: Arc<Generation>,
    next_block: usize,
    block: Slice,
    head: Option<RowAt>,
    passed: u64,
}

impl Cursor {
    /// Stands at the first row whose key is not below `from`.
    pub(super) fn seek(generation: Arc<Generation>, from: &[u8]) -> Result<Cursor, BackendError> {
        let next_block = generation.opened()?.index.fences.seek(from);
        let mut cursor = Cursor { generation, next_block, block: Slice::from(&[][..]), head: None, passed: 0 };
        cursor.read_at(0)?;
        while cursor.key().is_some_and(|key| key < from) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// The row that it stands at; `None` behind the last.
    pub(super) fn head(&self) -> Option<&RowAt> {
        self.head.as_ref()
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        self.block.get(self.head.as_ref()?.key.clone())
    }

    /// Lets go of the block: until it wakes, nothing else may be asked of the cursor.
    pub(super) fn rest(&mut self) {
        self.block = Slice::from(&[][..]);
    }

    /// Takes the block again.
    pub(super) fn wake(&mut self) -> Result<(), BackendError> {
        if self.head.is_some() {
            let index = self.next_block.saturating_sub(1);
            self.block = self.generation.block(index)?.ok_or_else(|| self.generation.damaged(index))?;
        }
        Ok(())
    }

    /// The row, sharing the block's bytes.
    pub(super) fn row(&self) -> Option<Row> {
        let head = self.head.as_ref()?;
        let part = |range: &std::ops::Range<usize>| self.block.part(range.clone());
        Some(Row { key: part(&head.key), version: head.version, value: head.value.as_ref().map(part) })
    }

    pub(super) fn advance(&mut self) -> Result<(), BackendError> {
        let Some(head) = &self.head else { return Ok(()) };
        self.passed += 1;
        let end = head.end;
        self.read_at(end)
    }

    /// Goes on to the first row whose key is not below this one.
    pub(super) fn advance_to(&mut self, key: &[u8]) -> Result<(), BackendError> {
        for _ in 0..STEPS_BEFORE_SEARCH {
            if self.key().is_none_or(|own| own >= key) {
                return Ok(());
            }
            self.advance()?;
        }
        if self.key().is_some_and(|own| own < key) {
            *self = Cursor::seek(self.generation.clone(), key)?;
        }
        Ok(())
    }

    /// Goes to the first row above all of this key; it stands at one of them, or above already.
    pub(super) fn pass(&mut self, key: &[u8]) -> Result<(), BackendError> {
        for _ in 0..STEPS_BEFORE_SEARCH {
            if self.key() != Some(key) {
                return Ok(());
            }
            self.advance()?;
        }
        if self.key() == Some(key) {
            *self = Cursor::seek(self.generation.clone(), &[key, &[0]].concat())?;
        }
        Ok(())
    }

    /// Goes on to the first row, of whatever key, whose version is not above `at`; from `to` on (empty: no bound), and when enough
    /// was passed, to any row.
    pub(super) fn settle(&mut self, at: Position, to: &[u8], passed: &mut Passed<'_>) -> Result<(), BackendError> {
        let mut steps = 0;
        while let (Some(head), Some(key)) = (&self.head, self.key())
            && head.version > at
            && (to.is_empty() || key < to)
            && !passed.enough(key)
        {
            passed.bytes += head.end - head.key.start;
            steps += 1;
            self.step_down(steps, at)?;
        }
        Ok(())
    }

    /// Goes past the versions of this key that are not below `below`; it stands at one of the key, or above already.
    pub(super) fn pass_versions(&mut self, key: &[u8], below: Position) -> Result<(), BackendError> {
        let mut steps = 0;
        while self.key() == Some(key) && self.head.as_ref().is_some_and(|head| head.version >= below) {
            steps += 1;
            self.step_down(steps, below.previous())?;
        }
        Ok(())
    }

    /// One row on; from time to time a look whether whole blocks of newer versions of the key can be left out.
    fn step_down(&mut self, steps: usize, at: Position) -> Result<(), BackendError> {
        if steps.is_multiple_of(STEPS_BEFORE_SEARCH)
            && let Some(key) = self.key()
        {
            let fences = &self.generation.opened()?.index.fences;
            let block = fences.seek_version(fences.seek(key), key, at);
            if block >= self.next_block {
                self.next_block = block;
                return self.read_at(usize::MAX);
            }
        }
        self.advance()
    }

    /// Rows that it went past.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    fn read_at(&mut self, mut offset: usize) -> Result<(), BackendError> {
        while offset >= self.block.len() {
            let Some(block) = self.generation.block(self.next_block)? else {
                self.head = None;
                return Ok(());
            };
            self.block = block;
            self.next_block += 1;
            offset = 0;
        }
        let head = block::row_at(&self.block, offset);
        self.head = Some(head.ok_or_else(|| self.generation.damaged(self.next_block.saturating_sub(1)))?);
        Ok(())
    }
}

/// Makes a generation. Dropped unfinished, it leaves nothing behind.
pub(super) struct GenerationWriter {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    tree: Option<ChunkTree>,
    record: GenerationRecord,
    fences: Fences,
    ranges: Vec<(Slice, Position)>,
    raw: Vec<u8>,
    /// Of the keys in it.
    hashes: Vec<u32>,
    /// The first key of the block in the making. A copy, like the others: a key of a row shares the memory of a block, or of a value.
    first: Vec<u8>,
    first_version: Position,
    /// The last key of the block before it.
    before: Option<Vec<u8>>,
    last: Vec<u8>,
    next_chunk: u32,
    unsynced_bytes: usize,
    finished: bool,
}

impl GenerationWriter {
    /// Begins a generation in a fresh directory.
    pub(super) fn create(fs: &Arc<dyn Fs>, base: &Path, id: u64, tag: u64) -> Result<GenerationWriter, BackendError> {
        let dir = generation_dir(base, id);
        let tree = ChunkTree::create(&**fs, &dir)?;
        Ok(GenerationWriter {
            fs: fs.clone(),
            dir,
            tree: Some(tree),
            record: GenerationRecord {
                id,
                tag,
                oldest: Position::MAX,
                newest: Position::ZERO,
                rows: 0,
                raw_bytes: 0,
                disk_bytes: 0,
                index_chunk: 0,
                index_len: 0,
                index_hash: [0; 32],
            },
            fences: Fences::default(),
            ranges: Vec::new(),
            raw: Vec::with_capacity(2 * BLOCK_BYTES),
            hashes: Vec::new(),
            first: Vec::new(),
            first_version: Position::ZERO,
            before: None,
            last: Vec::new(),
            next_chunk: 0,
            unsynced_bytes: 0,
            finished: false,
        })
    }

    /// Puts in a range delete, by ascending version.
    pub(super) fn push_range(&mut self, prefix: Slice, version: Position) {
        self.saw(version);
        self.record.raw_bytes += prefix.len() as u64;
        self.ranges.push((prefix, version));
    }

    /// Puts in a row, by ascending key and descending version.
    pub(super) fn push(&mut self, row: &Row) -> Result<(), BackendError> {
        let bytes = block::row_bytes(row);
        if !self.raw.is_empty() && self.raw.len() + bytes > BLOCK_BYTES {
            self.close_block()?;
        }
        if self.raw.is_empty() {
            self.first.clear();
            self.first.extend_from_slice(&row.key);
            self.first_version = row.version;
        }
        block::push_row(&mut self.raw, row);
        self.hashes.push(filter::hash(&row.key));
        self.last.clear();
        self.last.extend_from_slice(&row.key);
        self.saw(row.version);
        self.record.rows += 1;
        self.record.raw_bytes += bytes as u64;
        Ok(())
    }

    /// Closes the generation and makes it durable, all but the name of its directory.
    pub(super) fn finish(mut self) -> Result<GenerationRecord, BackendError> {
        if !self.raw.is_empty() {
            self.close_block()?;
        }
        let ranges = Ranges::new(std::mem::take(&mut self.ranges));
        let index = Index { fences: std::mem::take(&mut self.fences), ranges }.encode();
        self.record.index_len = index.len() as u64;
        self.record.index_hash = Sha256::digest(&index).into();
        self.record.index_chunk = self.write_chunks(&index)?;
        let tree = self.tree.take().ok_or_else(|| unavailable(&self.dir, "closed"))?;
        self.record.disk_bytes = tree.finish(&*self.fs)?;
        self.finished = true;
        Ok(self.record.clone())
    }

    fn saw(&mut self, version: Position) {
        self.record.oldest = self.record.oldest.min(version);
        self.record.newest = self.record.newest.max(version);
    }

    fn close_block(&mut self) -> Result<(), BackendError> {
        let encoded = block::encode(&self.raw);
        let chunk = self.write_chunks(&encoded)?;
        let checksum = block::checksum(self.record.tag, chunk, &encoded);
        let at = BlockAt { chunk, encoded_len: encoded.len() as u32, checksum };
        let (key, continues) = match &self.before {
            None => (&b""[..], None),
            Some(before) if *before == self.first => (&self.first[..], Some(self.first_version)),
            Some(before) => (separator(before, &self.first), None),
        };
        self.fences.push(at, key, continues, &filter::build(&self.hashes));
        let before = self.before.get_or_insert_default();
        before.clear();
        before.extend_from_slice(&self.last);
        self.raw.clear();
        self.hashes.clear();
        Ok(())
    }

    /// Writes bytes as chunks of their own; gives the number of the first.
    fn write_chunks(&mut self, bytes: &[u8]) -> Result<u32, BackendError> {
        let first = self.next_chunk;
        let Some(tree) = &self.tree else { return Err(unavailable(&self.dir, "closed")) };
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            tree.insert(self.next_chunk, chunk)?;
            let next = self.next_chunk.checked_add(1);
            self.next_chunk = next.ok_or_else(|| unavailable(&self.dir, "a generation cannot hold more"))?;
        }
        self.unsynced_bytes += bytes.len();
        if self.unsynced_bytes >= SYNCED_BYTES {
            tree.sync_written(&*self.fs)?;
            self.unsynced_bytes = 0;
        }
        Ok(first)
    }
}

impl Drop for GenerationWriter {
    fn drop(&mut self) {
        if !self.finished {
            drop(self.tree.take());
            let _ = self.fs.remove_dir_all(&self.dir);
        }
    }
}
