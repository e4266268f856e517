//! [`Retention`]: how much history a store keeps by itself.

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::facade::Store;
use super::trim::{Marks, Trimmed};
use crate::log::LogError;
use crate::types::{Result, Timestamp};

/// Between two times that a store looks whether there is something to trim, in microseconds of its clock.
const INTERVAL: i64 = 3_600_000_000;
const DAY: i64 = 86_400_000_000;

/// How much history is kept. What is older is trimmed in the background, about once an hour and when that frees at least a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// All of it: only who asks for it trims.
    #[default]
    Never,
    /// Every state of so many days.
    Days(u32),
    /// So many bytes of transactions, and what a segment holds beyond.
    Bytes(u64),
}

impl Store {
    /// Trims as the settings say, at most once an hour; where a mark is, only so far. Gives what was trimmed, if anything.
    pub(crate) async fn retain(&self) -> Result<Option<Trimmed>> {
        let shared = self.shared();
        let retention = shared.settings.retention;
        let now = shared.env.clock.now();
        if retention == Retention::Never {
            return Ok(None);
        }
        {
            let mut last = shared.retained_at.lock();
            // A clock that jumped back counts as an hour that has passed.
            if last.is_some_and(|last| now >= last && now.0 - last.0 < INTERVAL) {
                return Ok(None);
            }
            *last = Some(now);
        }
        let (log, floor) = (&shared.log, shared.log.floor());
        let wanted = match retention {
            Retention::Never => return Ok(None),
            Retention::Days(days) => {
                let oldest = Timestamp(now.0.saturating_sub(DAY.saturating_mul(i64::from(days))));
                match log.position_at(oldest) {
                    Err(LogError::BelowFloor { .. }) => floor,
                    found => found?,
                }
            }
            Retention::Bytes(bytes) => log.floor_above(bytes),
        };
        // The last transaction stays: something has to be there for the next floor to stand before.
        let wanted = wanted.min(self.synced().previous());
        if wanted <= floor || log.removable(wanted)?.segments <= log.removable(floor)?.segments {
            return Ok(None);
        }
        let context = Context::new("lakelog").reason("trimmed, as the retention asks");
        let archive = shared.settings.archive.clone();
        let trimmed = self.raise_floor(context, wanted, Marks::Respect, archive, false).await?;
        Ok((trimmed.floor > floor).then_some(trimmed))
    }
}
