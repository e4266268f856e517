//! Request ids: remembered outcomes, and their expiry by event (law 10).

use bytes::Bytes;

use super::lane::Reads;
use super::prepare::{Prepared, room_bytes};
use super::submission::{Refusal, Submission};
use crate::event::Event;
use crate::projection::{Pin, REQUESTS, REQUESTS_BY_TIME, Remembered, Scanner, decode_request_time_key};
use crate::types::{Entry, Error, ErrorKind, Key, KeyRange, Position, Result, Timestamp};

use super::context::{Context, RequestId};
use super::engine::Shared;
use super::facade::Store;
use super::transaction::Tx;

/// Requests that one transaction forgets at most.
const EXPIRED_MAX: usize = 10_000;

/// What is remembered of a request, read as part of the transaction: the same id committed meanwhile
/// is a conflict, and the next attempt finds it here. Another digest is `invalid`.
pub(crate) async fn recall(tx: &Tx, request: &RequestId) -> Result<Option<(Position, Remembered)>> {
    let Some((position, bytes)) = tx.read(&Key::new(REQUESTS, request.id.as_bytes())).await? else {
        return Ok(None);
    };
    let Some(remembered) = Remembered::decode(&bytes) else {
        let message = format!("a remembered request does not decode, request_id=`{}`", request.id);
        return Err(Error::new(ErrorKind::Internal, message));
    };
    if remembered.digest != request.digest {
        let message =
            format!("the request id was used for another command, request_id=`{}` position=`{position}`", request.id);
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(Some((position, remembered)))
}

impl Store {
    /// Forgets requests whose retention has passed in recorded time. Returns how many. The store
    /// calls it by itself from time to time.
    pub async fn expire_requests(&self) -> Result<usize> {
        let shared = self.shared();
        let retention_us = i64::from(shared.settings.request_retention_hours) * 3_600_000_000;
        let before = Timestamp(shared.log.head().time.0.saturating_sub(retention_us));
        let mut forgotten = 0;
        loop {
            let pin = shared.view.pins().pin();
            let requests = expired(shared, &pin, before).await?;
            if requests.is_empty() {
                return Ok(forgotten);
            }
            let count = requests.len();
            // Read, not only chosen: an id that was forgotten and used again in between stays remembered.
            let keys = requests.iter().map(|(_, id)| Key::new(REQUESTS, id.as_bytes())).collect();
            let reads = Reads { keys, ranges: Vec::new() };
            let events = vec![Event::RequestsExpired { requests }];
            let room = shared.room(room_bytes(&events, &[])).await?;
            let prepared = Prepared::new(shared, &Context::new("lakelog"), Bytes::new(), &events, Vec::new())?;
            let (submission, fate) = Submission::new(pin.position(), reads, prepared, None);
            match self.submit(submission, fate, room).await {
                Ok(_) => forgotten += count,
                Err(Refusal::Conflict(_)) => {}
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
    }
}

async fn expired(shared: &Shared, pin: &Pin, before: Timestamp) -> Result<Vec<(Timestamp, String)>> {
    let range = KeyRange::new(REQUESTS_BY_TIME, b"");
    let mut scanner = Scanner::new(shared.view.clone(), pin.clone(), range.prefix(), range.end(), EXPIRED_MAX);
    let mut requests = Vec::new();
    while requests.len() < EXPIRED_MAX {
        let page: Vec<Entry> = scanner.page().await?;
        let decoded = page.iter().filter_map(|entry| decode_request_time_key(&entry.key()));
        let before: Vec<_> = decoded.take_while(|(time, _)| *time < before).collect();
        let ended = before.len() < page.len() || page.is_empty();
        requests.extend(before);
        if ended {
            break;
        }
    }
    requests.truncate(EXPIRED_MAX);
    Ok(requests)
}
