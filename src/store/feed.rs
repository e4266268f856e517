//! [`Feed`]: pages of the log as a subscriber is to see them.
//!
//! There is one way to read for catching up and for following: everything above what was passed, up to the synced position. So
//! there is no seam between the two. Nothing is kept between pages but the place; waiting and threads are the business of
//! `subscribe`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::decoded::decode;
use super::filter::{Filter, is_cursor};
use crate::event::{Event, Transaction};
use crate::log::{Frame, Log};
use crate::types::{Error, LogStamp, Position, Result, Timestamp};

/// Payload after which a page ends, in bytes; it ends with the transaction that reaches it.
const PAGE_BYTES: usize = 1 << 20;
/// Transactions in one page at most, and so passed without a word.
pub(crate) const PAGE_TRANSACTIONS: u64 = if cfg!(test) { 1024 } else { 4096 };
/// Payloads up to this are copied: else one event that somebody keeps would keep the window it was read through.
const COPIED_BYTES_MAX: usize = 64 << 10;
/// Small payloads are copied together until they are so many bytes: that is what an event that somebody keeps may keep.
const COPIED_TOGETHER_BYTES: usize = 4 << 10;

/// What a subscription gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A transaction with an event that meets the filter.
    Transaction(Delivered),
    /// Everything up to here was passed, and nothing since the last delivery met the filter.
    Progress(LogStamp),
}

impl Delivery {
    /// Where to go on after this delivery: resuming by it gives what comes next.
    pub fn stamp(&self) -> LogStamp {
        match self {
            Delivery::Transaction(delivered) => delivered.stamp,
            Delivery::Progress(stamp) => *stamp,
        }
    }
}

/// A transaction as a subscriber sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its position and the chain hash at it.
    pub stamp: LogStamp,
    /// Recorded time.
    pub time: Timestamp,
    /// Who did it.
    pub actor: String,
    /// Why, when it was said.
    pub reason: Option<String>,
    /// The request that it answers, when the caller gave an id.
    pub request_id: Option<String>,
    /// The events that meet the filter, in order; never none.
    pub events: Vec<Event>,
    /// How many events it has besides.
    pub others: u64,
}

impl Delivered {
    /// Its position.
    pub fn position(&self) -> Position {
        self.stamp.position
    }
}

/// A bounded piece of what is to be delivered. After a failure there is no other page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub deliveries: VecDeque<Delivery>,
    /// What ends the subscription after them.
    pub failure: Option<Error>,
}

impl Page {
    pub fn failed(error: Error) -> Page {
        Page { deliveries: VecDeque::new(), failure: Some(error) }
    }

    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.failure.is_none()
    }
}

/// Transactions whose payloads are copied together.
#[derive(Debug, Default)]
struct Small {
    frames: Vec<Frame>,
    bytes: usize,
}

/// The place of a subscriber in the log.
#[derive(Debug)]
pub(crate) struct Feed {
    log: Arc<dyn Log>,
    filter: Filter,
    /// Everything up to here was passed.
    passed: LogStamp,
    /// Transactions passed since the last delivery.
    silent: u64,
    /// Whether one of them was anything else than a write of cursors.
    notable: bool,
}

impl Feed {
    /// Everything above `passed`, which is of this log.
    pub fn new(log: Arc<dyn Log>, filter: Filter, passed: LogStamp) -> Feed {
        Feed { log, filter, passed, silent: 0, notable: false }
    }

    /// The last position passed.
    pub fn position(&self) -> Position {
        self.passed.position
    }

    /// Reads on, to the synced position at most. Reads files.
    ///
    /// Errors, in the page: `not_found` below the floor, `corrupt`, `unavailable` for an event that this version has to
    /// understand and does not.
    pub fn page(&mut self) -> Page {
        let mut deliveries = VecDeque::new();
        let failure = self.fill(&mut deliveries).err();
        // Who stores a cursor with every sign of progress must not be woken by that again and again.
        if self.silent > 0 && (self.notable || self.silent >= PAGE_TRANSACTIONS) {
            deliveries.push_back(Delivery::Progress(self.passed));
            (self.silent, self.notable) = (0, false);
        }
        Page { deliveries, failure }
    }

    /// Whether there is a whole page up to `synced` at least.
    pub fn is_behind(&self, synced: Position) -> bool {
        synced.0.saturating_sub(self.passed.position.0) >= PAGE_TRANSACTIONS
    }

    fn fill(&mut self, deliveries: &mut VecDeque<Delivery>) -> Result<()> {
        let log = self.log.clone();
        let (mut bytes, mut transactions) = (0, 0);
        let mut small = Small::default();
        for frame in log.read(self.passed.position.next())? {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.pass_small(&mut small, deliveries)?;
                    return Err(error.into());
                }
            };
            bytes += frame.payload.len();
            transactions += 1;
            if frame.payload.len() < COPIED_TOGETHER_BYTES {
                small.bytes += frame.payload.len();
                small.frames.push(frame);
            } else {
                self.pass_small(&mut small, deliveries)?;
                let copied = frame.payload.len() <= COPIED_BYTES_MAX;
                let payload = if copied { Bytes::copy_from_slice(&frame.payload) } else { frame.payload.clone() };
                self.pass(&frame, payload, deliveries)?;
            }
            if small.bytes >= COPIED_TOGETHER_BYTES {
                self.pass_small(&mut small, deliveries)?;
            }
            if bytes >= PAGE_BYTES || transactions == PAGE_TRANSACTIONS {
                break;
            }
        }
        self.pass_small(&mut small, deliveries)
    }

    /// Copies the payloads side by side: one allocation instead of two for each of them.
    fn pass_small(&mut self, small: &mut Small, deliveries: &mut VecDeque<Delivery>) -> Result<()> {
        let mut copied = BytesMut::with_capacity(std::mem::take(&mut small.bytes));
        small.frames.iter().for_each(|frame| copied.extend_from_slice(&frame.payload));
        let mut copied = copied.freeze();
        for frame in small.frames.drain(..) {
            let payload = copied.split_to(frame.payload.len());
            self.pass(&frame, payload, deliveries)?;
        }
        Ok(())
    }

    fn pass(&mut self, frame: &Frame, payload: Bytes, deliveries: &mut VecDeque<Delivery>) -> Result<()> {
        let Frame { position, time, chain, .. } = *frame;
        let Transaction { actor, reason, request, mut events } = decode(position, payload)?;
        self.passed = LogStamp { position, chain, ..self.passed };
        let count = events.len();
        let cursors_only = count > 0 && events.iter().all(is_cursor);
        events.retain(|event| self.filter.meets(event));
        if events.is_empty() {
            self.silent += 1;
            self.notable |= !cursors_only;
            return Ok(());
        }
        events.shrink_to_fit();
        (self.silent, self.notable) = (0, false);
        deliveries.push_back(Delivery::Transaction(Delivered {
            stamp: self.passed,
            time,
            actor,
            reason,
            request_id: request.map(|request| request.id),
            others: (count - events.len()) as u64,
            events,
        }));
        Ok(())
    }
}
