//! [`View`]: memtables over a base, read at one position.
//!
//! Invariant: a read at a position sees the same bytes whether what it sees lies in a memtable or,
//! after a checkpoint, in the base. Layers are replaced as a whole; a reader holds them for one lookup or
//! one page and pins a position, never a memtable.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::memtable::{Found, Memtable};
use super::pins::{Pin, Pins};
use super::write_set::WriteSet;
use crate::backends::{Backend, BackendError, MemoryBackend};
use crate::types::{Position, Slice};

/// The live view: layers that are swapped as a whole, and the published position.
#[derive(Debug)]
pub struct View {
    layers: ArcSwap<Layers>,
    /// Held while layers are replaced: the committer freezes, the checkpoint rests.
    replacing: Mutex<()>,
    pins: Arc<Pins>,
}

/// One arrangement of memtables over a base.
#[derive(Debug)]
pub struct Layers {
    /// Tells one arrangement from another without holding on to it.
    generation: u64,
    /// Newest first. The first takes writes; the others wait for their checkpoint.
    tables: Vec<Arc<Memtable>>,
    base: Arc<dyn Backend>,
    /// The position of the base's stamp; [`Position::ZERO`] when it is empty and never read.
    base_position: Position,
    /// Whether there is nothing to read any more.
    closed: bool,
    /// Keeps the base readable at that position as long as somebody reads through these layers.
    _base_pin: Pin,
}

impl View {
    /// A view over a base that holds the state at `base_position`, with one empty memtable.
    pub fn new(base: Arc<dyn Backend>, base_position: Position, pins: Arc<Pins>) -> View {
        let tables = vec![Arc::new(Memtable::new(base_position))];
        let base_pin = pins.pin_base(base_position);
        let layers = Layers { generation: 0, tables, base, base_position, closed: false, _base_pin: base_pin };
        View { layers: ArcSwap::from_pointee(layers), replacing: Mutex::new(()), pins }
    }

    /// The layers as they are now.
    pub fn layers(&self) -> Guard<Arc<Layers>> {
        self.layers.load()
    }

    /// The positions being read.
    pub fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// Puts a new memtable on top for the writes above `head`. Called by the committer between two
    /// batches, so the one below is complete.
    pub fn freeze(&self, head: Position) {
        let _replacing = self.replacing.lock();
        let layers = self.layers.load();
        if layers.active().floor() == head {
            // Nothing was written since the last freeze, so there is no position to stamp with.
            return;
        }
        let mut tables = layers.tables.clone();
        tables.insert(0, Arc::new(Memtable::new(head)));
        self.swap(&layers, tables, layers.base_position);
    }

    /// Inserts entries at a position that was published long ago, those of an index that is being
    /// built, unless the layers have been replaced since `generation`: `false` then, and nothing is inserted.
    ///
    /// So the caller has looked at every layer below the active memtable, where a newer change would not be
    /// found any more behind what is inserted; within the active one positions decide. Never races a
    /// freeze, so the entries are in a memtable that a checkpoint will still write.
    pub fn insert_late(&self, generation: u64, position: Position, set: &WriteSet) -> bool {
        let _replacing = self.replacing.lock();
        let layers = self.layers.load();
        let unchanged = layers.generation == generation;
        if unchanged {
            layers.active().insert(position, set);
        }
        unchanged
    }

    /// Drops the memtables that a checkpoint has brought into the base, which now stands at
    /// `position`.
    pub fn rest_on(&self, position: Position) {
        let _replacing = self.replacing.lock();
        let layers = self.layers.load();
        // A memtable whose successor starts at or below the position is in the base as a whole.
        let keep = layers.tables.iter().position(|table| table.floor() <= position).map_or(0, |at| at + 1);
        self.swap(&layers, layers.tables[..keep].to_vec(), position);
    }

    /// Lets go of memory and base; reads are `Closed` from now on.
    pub fn close(&self) {
        let _replacing = self.replacing.lock();
        let layers = self.layers.load();
        self.layers.store(Arc::new(Layers {
            generation: layers.generation + 1,
            tables: vec![Arc::new(Memtable::new(layers.base_position))],
            base: Arc::new(MemoryBackend::new()),
            base_position: layers.base_position,
            closed: true,
            _base_pin: self.pins.pin_base(layers.base_position),
        }));
    }

    fn swap(&self, layers: &Layers, tables: Vec<Arc<Memtable>>, base_position: Position) {
        let base_pin = self.pins.pin_base(base_position);
        let (generation, base) = (layers.generation + 1, layers.base.clone());
        let layers = Layers { generation, tables, base, base_position, closed: layers.closed, _base_pin: base_pin };
        self.layers.store(Arc::new(layers));
    }

    /// The newest value of a key, and the position that wrote it.
    pub async fn latest(&self, key: &[u8]) -> Result<Option<(Position, Slice)>, BackendError> {
        // Layers first: the published position is then not below their base, so it is readable.
        let layers = self.layers.load();
        let at = self.pins.published();
        read(layers, key, at).await
    }

    /// The newest value of a key not above `at`, a pinned position, and the position that wrote it.
    pub async fn get(&self, key: &[u8], at: Position) -> Result<Option<(Position, Slice)>, BackendError> {
        read(self.layers.load(), key, at).await
    }
}

async fn read(layers: Guard<Arc<Layers>>, key: &[u8], at: Position) -> Result<Option<(Position, Slice)>, BackendError> {
    if layers.closed {
        return Err(BackendError::Closed);
    }
    match layers.recent(key, at) {
        Found::Value(version, value) => return Ok(Some((version, value))),
        Found::Deleted(_) => return Ok(None),
        Found::Nothing => {}
    }
    let base_at = layers.base_at(at);
    if base_at == Position::ZERO {
        return Ok(None);
    }
    // The guard is cheap to take but not to hold across an await: others wait for its slot.
    let layers = Guard::into_inner(layers);
    layers.base.get(base_at, key).await
}

impl Layers {
    /// Tells one arrangement of layers from another.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether there is nothing to read any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The memtable that takes writes.
    pub fn active(&self) -> &Arc<Memtable> {
        // There is always one: `View::new` makes it and no swap removes the first.
        &self.tables[0]
    }

    /// The memtables that wait for their checkpoint, newest first.
    pub fn frozen(&self) -> &[Arc<Memtable>] {
        self.tables.get(1..).unwrap_or_default()
    }

    /// All memtables, newest first.
    pub(super) fn tables(&self) -> &[Arc<Memtable>] {
        &self.tables
    }

    /// The base.
    pub fn base(&self) -> &Arc<dyn Backend> {
        &self.base
    }

    /// The position of the base's stamp.
    pub fn base_position(&self) -> Position {
        self.base_position
    }

    /// Where a read at `at` reads the base: at its stamp, or at an older position that it kept.
    pub(super) fn base_at(&self, at: Position) -> Position {
        at.min(self.base_position)
    }

    /// The position above which the memtables hold every write.
    pub fn floor(&self) -> Position {
        self.tables.last().map_or(self.base_position, |table| table.floor())
    }

    /// Memory held by all memtables, in bytes.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.bytes()).sum()
    }

    /// What the memtables know of a key at a position.
    pub fn recent(&self, key: &[u8], at: Position) -> Found {
        for table in &self.tables {
            match table.get(key, at) {
                Found::Nothing => {}
                found => return found,
            }
        }
        Found::Nothing
    }

    /// Whether a write of a key in the memtables, published or not, is above `since`. The caller
    /// has checked that `since` is not below [`Layers::floor`].
    pub fn written_since(&self, key: &[u8], since: Position) -> bool {
        self.tables_since(since).any(|table| table.written_since(key, since))
    }

    /// The same of what may be, cheaper, and of writes that are only announced, too.
    pub fn may_be_written_since(&self, key: &[u8], since: Position) -> bool {
        self.tables_since(since).any(|table| table.may_be_written_since(key, since))
    }

    /// The memtables that may hold writes above a position: what lies below one that was begun at or below it is older.
    fn tables_since(&self, since: Position) -> impl Iterator<Item = &Arc<Memtable>> {
        let count = self.tables.iter().position(|table| table.floor() <= since).map_or(self.tables.len(), |at| at + 1);
        self.tables.iter().take(count)
    }

    /// The newest range delete not above `at` that covers the key.
    pub(super) fn covering(&self, key: &[u8], at: Position) -> Option<(Position, Slice)> {
        self.tables.iter().filter(|table| table.has_ranges()).filter_map(|table| table.covering(key, at)).max()
    }
}
