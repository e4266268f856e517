//! Catching up with the whole log through a subscription, beside reading and decoding the same frames.

use std::hint::black_box;
use std::time::Instant;

use super::bed::{Bed, per_second, side};
use super::figure::Figure;
use super::load::fill_singly;
use super::open::{LOG_DIR, undecodable};
use super::reads::lost;
use crate::env::Env;
use crate::event::Transaction;
use crate::log::{Check, LogFiles};
use crate::store::{Delivery, Filter, SubscribeFrom};
use crate::types::{Position, Result};

/// Transactions a second from the first to the last one.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if !bed.wants("subscribe") {
        return Ok(());
    }
    let store = &bed.store("subscribe").await?;
    fill_singly(store, &bed.noise, 0..bed.scale.replayed, u64::MAX).await?;
    let (head, written) = (store.head(), bed.scale.replayed);
    let log = &LogFiles::open(&Env::os(), &bed.path("subscribe").join(LOG_DIR))?;
    let bare = side(move || async move {
        let started = Instant::now();
        let mut passed = Position::ZERO;
        for frame in log.frames(Position(1), Check::Order)? {
            let frame = frame?;
            passed = frame.position;
            black_box(Transaction::decode(frame.payload).map_err(undecodable)?);
        }
        if passed == head { Ok(per_second(head.0, started.elapsed())) } else { Err(lost()) }
    });
    let own = side(move || async move {
        let started = Instant::now();
        let mut feed = store.subscribe(SubscribeFrom::Oldest, Filter::new()).await?;
        let mut delivered = 0;
        while feed.stamp().position < head {
            match feed.next().await.transpose()? {
                Some(Delivery::Transaction(transaction)) => {
                    black_box(transaction.events.len());
                    delivered += 1;
                }
                Some(Delivery::Progress(_)) => {}
                None => return Err(lost()),
            }
        }
        if delivered == written { Ok(per_second(head.0, started.elapsed())) } else { Err(lost()) }
    });
    let [bare, own] = bed.in_turn([bare, own]).await?;
    bed.figure(Figure::rate("subscribe", &own, "transactions/s", &bare, 0.5))?;
    bed.finish(store.clone(), "subscribe").await
}
