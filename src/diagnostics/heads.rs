//! Signed heads held against a history: that of a store, or of a dump.

use std::collections::BTreeMap;

use super::signed::{PublicKey, SignedHead};
use crate::dump::{DumpError, DumpItem, DumpReader, DumpSummary};
use crate::log::Head;
use crate::types::{LogId, Position};

/// A signed head and whether the history is still the one signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedHead {
    /// What was signed.
    pub signed: SignedHead,
    /// Why it is not proven; none when it is.
    pub fault: Option<HeadFault>,
}

/// Why a signed head is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Another key signed it, or nobody did.
    Signature,
    /// It is of another log.
    Log,
    /// The log has another chain hash there: its history was rewritten.
    Chain,
    /// The line names another recorded time than the log.
    Time,
    /// The log does not reach there: transactions are gone, or this is an older copy.
    AboveHead,
    /// What is there begins above it, so nothing here can prove it any more.
    BelowFloor,
    /// What is there is damaged at or below it.
    Damaged,
}

impl HeadFault {
    /// In words.
    pub fn detail(self) -> &'static str {
        match self {
            HeadFault::Signature => "the signature is not one of this key over this line",
            HeadFault::Log => "the signed head is of another log",
            HeadFault::Chain => "another chain hash is there: the history is not the one signed",
            HeadFault::Time => "the line names another time than the one recorded there",
            HeadFault::AboveHead => "the history ends before it: transactions are missing, or this is an older copy",
            HeadFault::BelowFloor => "the history begins above it: nothing here can prove it any more",
            HeadFault::Damaged => "the history is damaged at or below it, so it cannot be proven",
        }
    }
}

/// Signed heads, and what a history holds at their positions as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Heads<'a> {
    signed: &'a [SignedHead],
    key: Option<&'a PublicKey>,
    held: BTreeMap<Position, Option<Head>>,
}

impl<'a> Heads<'a> {
    pub fn new(signed: &'a [SignedHead], key: &'a PublicKey) -> Heads<'a> {
        let held = signed.iter().map(|signed| (signed.head.position, None)).collect();
        Heads { signed, key: Some(key), held }
    }

    /// A state that the history holds.
    pub fn note(&mut self, head: Head) {
        if let Some(held) = self.held.get_mut(&head.position) {
            *held = Some(head);
        }
    }

    /// Once all was noted. The history begins at `floor`; what lies at `damaged` or behind is not proven.
    pub fn judge(mut self, log_id: LogId, floor: Head, damaged: Option<Position>) -> Vec<CheckedHead> {
        self.note(floor);
        let judge = |signed: &SignedHead| {
            let Head { position, time, chain } = signed.head;
            match self.held.get(&position).copied().flatten() {
                _ if !self.key.is_some_and(|key| signed.is_signed_by(key)) => Some(HeadFault::Signature),
                _ if signed.log_id != log_id => Some(HeadFault::Log),
                _ if position < floor.position => Some(HeadFault::BelowFloor),
                _ if damaged.is_some_and(|first| first <= position) => Some(HeadFault::Damaged),
                None => Some(HeadFault::AboveHead),
                Some(held) if held.chain != chain => Some(HeadFault::Chain),
                Some(held) if held.time != time => Some(HeadFault::Time),
                Some(_) => None,
            }
        };
        self.signed.iter().map(|signed| CheckedHead { signed: *signed, fault: judge(signed) }).collect()
    }

    /// When nothing can be read at all.
    pub fn unproven(self) -> Vec<CheckedHead> {
        self.signed.iter().map(|signed| CheckedHead { signed: *signed, fault: Some(HeadFault::Damaged) }).collect()
    }
}

/// Reads a whole dump as [`crate::dump::verify()`] does, and holds signed heads against its history. `progress` is called with the bytes read.
pub fn verify_dump_signed(
    reader: &mut DumpReader,
    signed: &[SignedHead],
    key: &PublicKey,
    progress: &mut dyn FnMut(u64),
) -> (Result<DumpSummary, DumpError>, Vec<CheckedHead>) {
    let (log_id, base) = (reader.header().log_id, reader.header().base);
    let mut heads = Heads::new(signed, key);
    let summary = loop {
        match reader.next() {
            Ok(Some(DumpItem::Frame(frame, _))) => {
                heads.note(Head { position: frame.position, time: frame.time, chain: frame.chain });
                progress(reader.bytes_read());
            }
            Ok(Some(DumpItem::Entry(_))) => progress(reader.bytes_read()),
            Ok(None) => {
                if let Some(summary) = reader.summary() {
                    break Ok(summary);
                }
            }
            Err(error) => break Err(error),
        }
    };
    // A dump is proven by its trailer only: without it nothing is.
    let damaged = summary.is_err().then_some(Position::ZERO);
    let checked = heads.judge(log_id, base, damaged);
    (summary, checked)
}
