//! Undo of one transaction that others came after, beside a durable set by the same lonely writer.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::bed::{Bed, repeated, side};
use super::figure::Figure;
use super::load::{after, context, drive, fill_singly, set};
use crate::types::{Position, Result};

/// Transactions after the one that is undone.
const LATER: u64 = 1000;

/// Transactions undone a second, one at a time.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if !bed.wants("undo") {
        return Ok(());
    }
    let (noise, round) = (&bed.noise, bed.scale.round);
    let store = &bed.store("undo").await?;
    let later = LATER.min(bed.scale.replayed);
    fill_singly(store, noise, 0..2 * later, u64::MAX).await?;
    let numbers = &Arc::new(AtomicU64::new(2 * later));
    let sets = side(move || async move {
        let (store, noise) = (store.clone(), noise.clone());
        let operation = move |i| {
            let (store, noise) = (store.clone(), noise.clone());
            async move { set(&store, &noise, i).await }
        };
        Ok(drive(1, numbers, after(round), operation).await?.rate)
    });
    let undos = side(move || {
        repeated(round, async move || {
            // No key was written again since, but by an undo that is undone in its turn: there is always something to undo.
            let undone = Position(store.head().0 - later);
            store.undo(context(), undone, undone).await.map(|_| 1)
        })
    });
    let [sets, undos] = bed.in_turn([sets, undos]).await?;
    bed.figure(Figure::rate("undo", &undos, "transactions/s", &sets, 0.5))?;
    bed.finish(store.clone(), "undo").await
}
