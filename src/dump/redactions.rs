//! [`Redactions`]: what is left of an erased transaction is what the redacting transaction recorded.

use std::collections::BTreeMap;

use crate::event::{Event, Transaction};
use crate::log::{Frame, Proof};
use crate::types::{Digest, Position};

/// Erased transactions that passed, and whether a later transaction has vouched for what is left of them.
///
/// Memory: some 50 bytes for each of them.
#[derive(Debug, Default)]
pub(super) struct Redactions(BTreeMap<Position, (Digest, bool)>);

impl Redactions {
    /// Notes an erased transaction, and what a redacting one says of those before it.
    pub fn pass(&mut self, frame: &Frame) {
        if let Proof::Erased(_) = frame.proof {
            self.0.insert(frame.position, (Digest::of_bytes(&frame.payload), false));
        }
        if self.0.is_empty() {
            return;
        }
        // What does not decode vouches for nothing; that it does not is found by whoever applies it.
        let Ok(transaction) = Transaction::decode(frame.payload.clone()) else { return };
        for event in transaction.events {
            let Event::Redacted { transactions } = event else { continue };
            for redacted in transactions {
                if let Some((digest, vouched)) = self.0.get_mut(&redacted.position) {
                    // Of several redactions of one transaction the last one saw it as it is. None was seen of one below the floor.
                    *vouched = *digest == redacted.digest || redacted.digest == Digest::default();
                }
            }
        }
    }

    /// The first erased transaction that nothing vouches for.
    pub fn unproven(&self) -> Option<Position> {
        self.0.iter().find(|(_, (_, vouched))| !vouched).map(|(position, _)| *position)
    }
}
