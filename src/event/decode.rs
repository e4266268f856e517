//! [`Transaction::decode`]: the bytes of a frame's payload to plain data.
//!
//! The envelope is read field by field rather than through its generated message: events then go
//! straight into their final form, and their number is bounded before they take memory. A test
//! holds it to the generated message.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{self, DecodeContext};

use super::generated as proto;
use super::upcast::{READINGS, Reading, read};
use super::{DecodeError, Request, Transaction};
use crate::types::{Digest, Limits};

impl Transaction {
    /// Reads the payload of a transaction frame. Byte strings are slices of `payload`, which they
    /// keep alive as a whole; nothing of it is copied but texts.
    ///
    /// Fields that are absent are empty: what is left of a payload after an erasure is read as far
    /// as it goes. Limits other than the number of events are not checked, memory is bounded by
    /// that number and by a small multiple of the payload's length.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a transaction. Unknown events are no error: see
    /// [`Transaction::unsupported`].
    pub fn decode(payload: Bytes) -> Result<Transaction, DecodeError> {
        decode(READINGS, payload)
    }
}

pub(super) fn decode(readings: &[Reading], mut payload: Bytes) -> Result<Transaction, DecodeError> {
    let mut transaction = Transaction::default();
    let mut encoded_request = None::<proto::Request>;
    while !payload.is_empty() {
        let context = DecodeContext::default();
        let (number, wire) = encoding::decode_key(&mut payload)?;
        match number {
            1 => encoding::string::merge(wire, &mut transaction.actor, &mut payload, context)?,
            2 => encoding::string::merge(wire, transaction.reason.get_or_insert_default(), &mut payload, context)?,
            3 => {
                let encoded = encoded_request.get_or_insert_default();
                encoding::message::merge(wire, encoded, &mut payload, context)?;
            }
            4 => {
                let index = transaction.events.len();
                if index == Limits::TRANSACTION_OPERATIONS_MAX {
                    return Err(DecodeError::TooManyEvents { limit: index });
                }
                let mut encoded = Bytes::new();
                encoding::bytes::merge(wire, &mut encoded, &mut payload, context)?;
                let encoded = <proto::Event as Message>::decode(encoded)?;
                let (kind, version) = (encoded.kind, encoded.version);
                let event =
                    read(readings, encoded).map_err(|source| DecodeError::Event { index, kind, version, source })?;
                transaction.events.push(event);
            }
            _ => encoding::skip_field(wire, number, &mut payload, context)?,
        }
    }
    transaction.request = encoded_request.map(request).transpose()?;
    Ok(transaction)
}

fn request(encoded: proto::Request) -> Result<Request, DecodeError> {
    let proto::Request { id, digest, answer } = encoded;
    let digest = <[u8; 32]>::try_from(&digest[..]).map_err(|_| DecodeError::Digest { length: digest.len() })?;
    Ok(Request { id, digest: Digest(digest), answer })
}
