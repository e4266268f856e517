//! Replay: from the transactions of a log to the view, as the committer made it.

use std::sync::Arc;

use super::decoded::Decoded;
use crate::backends::{Backend, BackendError};
use crate::event::Event;
use crate::log::Frame;
use crate::projection::{
    Found, IndexSet, Keep, Pins, Restored, Scanner, View, changes, project_events, project_request,
};
use crate::types::{Entry, Error, Hash, Key, KeyRange, LogId, Position, Result, Stamp};

/// Applies one transaction to the memtable, exactly as the committer would have.
pub(crate) async fn apply(view: &Arc<View>, indexes: &IndexSet, decoded: Decoded) -> Result<()> {
    let Decoded { position, time, transaction, set, .. } = decoded;
    let mut set = match set {
        Some(set) => set,
        None => project_events(&transaction.events, restored(view, &transaction.events).await?),
    };
    let covered: Vec<_> = set.writes.iter().filter(|write| indexes.covers(&write.key)).cloned().collect();
    for write in covered {
        let old = match view.layers().recent(&write.key, Position::MAX) {
            Found::Value(_, value) => Some(value),
            Found::Deleted(_) => None,
            Found::Nothing => view.latest(&write.key).await?.map(|(_, value)| value),
        };
        indexes.project(&write.key, old.as_deref(), write.value.as_deref(), &mut set);
    }
    if let Some(request) = &transaction.request {
        project_request(time, request, &mut set);
    }
    view.layers().active().insert(position, &set);
    Ok(())
}

/// What the range restores among the events bring: the base keeps the history while it is replayed.
async fn restored(view: &Arc<View>, events: &[Event]) -> Result<Vec<Restored>, BackendError> {
    let mut restored = Vec::new();
    for event in events {
        let Event::RestoreRange { partition, prefix, as_of } = event else { continue };
        let range = KeyRange::new(partition, prefix);
        let pin = view.pins().pin_at(*as_of);
        let mut scanner = Scanner::new(view.clone(), pin, range.prefix(), range.end(), 0);
        let mut entries = Restored::new();
        loop {
            let page = scanner.page().await?;
            if page.is_empty() {
                break;
            }
            let entry = |entry: Entry| (Key(Arc::from(&entry.encoded_key[..])), Arc::from(&entry.value[..]));
            entries.extend(page.into_iter().map(entry));
        }
        restored.push(entries);
    }
    Ok(restored)
}

/// A view in the making over a base that takes what does not fit into memory.
pub(crate) struct Rebuilding<'a> {
    view: Arc<View>,
    base: Arc<dyn Backend>,
    indexes: &'a IndexSet,
    /// What the base is stamped with next, when memory is written to it.
    stamp: Stamp,
    memory_bytes: usize,
}

impl<'a> Rebuilding<'a> {
    /// Over a base that holds the state that `stamp` tells of: all later stamps are like it but for position and chain hash.
    pub fn new(base: Arc<dyn Backend>, indexes: &'a IndexSet, stamp: Stamp, memory_bytes: usize) -> Rebuilding<'a> {
        let view = Arc::new(View::new(base.clone(), stamp.position, Arc::new(Pins::default())));
        view.pins().publish(stamp.position);
        Rebuilding { view, base, indexes, stamp, memory_bytes }
    }

    /// Applies the next transaction; `true` when memory should be written.
    pub async fn apply(&mut self, frame: Frame) -> Result<bool> {
        (self.stamp.position, self.stamp.chain) = (frame.position, frame.chain);
        apply(&self.view, self.indexes, Decoded::new(frame)?).await?;
        self.view.pins().publish(self.stamp.position);
        Ok(self.view.layers().active().bytes() >= self.memory_bytes)
    }

    /// Writes what is in memory to the base.
    pub async fn write(&mut self) -> Result<()> {
        self.view.freeze(self.stamp.position);
        let Some(table) = self.view.layers().frozen().last().cloned() else { return Ok(()) };
        self.base.write(&self.stamp, &[], changes(table, Keep::All)).await?;
        self.view.rest_on(self.stamp.position);
        Ok(())
    }
}

/// Rebuilds a view over a base that holds the state at `from` and takes what does not fit into
/// `memory_bytes`. `progress` is called with each position reached.
pub(crate) async fn rebuild<E: Into<Error>>(
    from: Position,
    frames: impl Iterator<Item = Result<Frame, E>>,
    log_id: LogId,
    indexes: &IndexSet,
    base: Arc<dyn Backend>,
    memory_bytes: usize,
    mut progress: impl FnMut(Position),
) -> Result<Arc<View>> {
    let stamp = Stamp {
        log_id,
        format: Stamp::FORMAT,
        position: from,
        chain: Hash::default(),
        projections: indexes.versions(),
        history: Some(from),
        redaction: Position::ZERO,
    };
    let mut rebuilding = Rebuilding::new(base.clone(), indexes, stamp, memory_bytes);
    for frame in frames {
        let frame = frame.map_err(Into::into)?;
        let position = frame.position;
        let is_full = rebuilding.apply(frame).await?;
        progress(position);
        if is_full {
            rebuilding.write().await?;
            while base.maintain(position, &[]).await? {}
        }
    }
    Ok(rebuilding.view)
}
