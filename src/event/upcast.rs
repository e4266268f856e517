//! From an event's body as it was written, in whatever version, to the [`Event`] of today.
//!
//! A kind's versions are counted from 0. The body of an old version goes through one step after the
//! other until it is in the current one; only that is decoded. So a version needs one step, written
//! once, and decoding knows one encoding per kind.

use bytes::Bytes;
use prost::{DecodeError, Message};

use super::generated as proto;
use super::{BodyError, Event, RedactedTransaction, UnknownEvent};
use crate::types::{Digest, Hash, Position, Timestamp};

/// Turns a body of one version into one of the next.
pub(super) type Step = fn(Bytes) -> Result<Bytes, DecodeError>;

/// How to read one kind of event.
pub(super) struct Reading {
    /// The number of the kind.
    pub(super) kind: u32,
    /// `steps[n]` goes from version n to n + 1; so the current version is their number.
    pub(super) steps: &'static [Step],
    /// Decodes the current version.
    pub(super) decode: fn(Bytes) -> Result<Event, BodyError>,
}

/// The kinds that this version knows. The first is by far the commonest.
pub(super) const READINGS: &[Reading] = &[
    Reading { kind: proto::Kind::Set as u32, steps: &[], decode: set },
    Reading { kind: proto::Kind::Delete as u32, steps: &[], decode: delete },
    Reading { kind: proto::Kind::DeleteRange as u32, steps: &[], decode: delete_range },
    Reading { kind: proto::Kind::RestoreRange as u32, steps: &[], decode: restore_range },
    Reading { kind: proto::Kind::Erased as u32, steps: &[], decode: erased },
    Reading { kind: proto::Kind::RequestsExpired as u32, steps: &[], decode: requests_expired },
    Reading { kind: proto::Kind::MarkSet as u32, steps: &[], decode: mark_set },
    Reading { kind: proto::Kind::MarkDeleted as u32, steps: &[], decode: mark_deleted },
    Reading { kind: proto::Kind::CursorSet as u32, steps: &[], decode: cursor_set },
    Reading { kind: proto::Kind::CursorDeleted as u32, steps: &[], decode: cursor_deleted },
    Reading { kind: proto::Kind::Redacted as u32, steps: &[], decode: redacted },
];

/// The event of today that an encoded one stands for; one of an unknown kind, or of a version above
/// the current one of its kind, stays as it is.
pub(super) fn read(readings: &[Reading], event: proto::Event) -> Result<Event, BodyError> {
    let known = readings.iter().find(|reading| reading.kind == event.kind);
    let steps = known.and_then(|reading| reading.steps.get(usize::try_from(event.version).ok()?..));
    let (Some(reading), Some(steps)) = (known, steps) else {
        return Ok(Event::Unknown(UnknownEvent {
            kind: event.kind,
            version: event.version,
            ignorable: event.ignorable,
            minimum_reader: event.minimum_reader,
            body: event.body,
        }));
    };
    let mut body = event.body;
    for step in steps {
        body = step(body)?;
    }
    (reading.decode)(body)
}

fn set(body: Bytes) -> Result<Event, BodyError> {
    let proto::Set { partition, key, value } = Message::decode(body)?;
    Ok(Event::Set { partition, key, value })
}

fn delete(body: Bytes) -> Result<Event, BodyError> {
    let proto::Delete { partition, key } = Message::decode(body)?;
    Ok(Event::Delete { partition, key })
}

fn delete_range(body: Bytes) -> Result<Event, BodyError> {
    let proto::DeleteRange { partition, prefix } = Message::decode(body)?;
    Ok(Event::DeleteRange { partition, prefix })
}

fn requests_expired(body: Bytes) -> Result<Event, BodyError> {
    let proto::RequestsExpired { requests } = Message::decode(body)?;
    let requests = requests.into_iter().map(|request| (Timestamp(request.time), request.id)).collect();
    Ok(Event::RequestsExpired { requests })
}

fn restore_range(body: Bytes) -> Result<Event, BodyError> {
    let proto::RestoreRange { partition, prefix, as_of } = Message::decode(body)?;
    Ok(Event::RestoreRange { partition, prefix, as_of: Position(as_of) })
}

fn erased(body: Bytes) -> Result<Event, BodyError> {
    let proto::Erased { partition, key } = Message::decode(body)?;
    Ok(Event::Erased { partition, key })
}

fn mark_set(body: Bytes) -> Result<Event, BodyError> {
    let proto::MarkSet { name, position } = Message::decode(body)?;
    Ok(Event::MarkSet { name, position: Position(position) })
}

fn mark_deleted(body: Bytes) -> Result<Event, BodyError> {
    let proto::MarkDeleted { name } = Message::decode(body)?;
    Ok(Event::MarkDeleted { name })
}

fn cursor_set(body: Bytes) -> Result<Event, BodyError> {
    let proto::CursorSet { name, position, chain } = Message::decode(body)?;
    Ok(Event::CursorSet { name, position: Position(position), chain: Hash(hash(&chain)?) })
}

fn cursor_deleted(body: Bytes) -> Result<Event, BodyError> {
    let proto::CursorDeleted { name } = Message::decode(body)?;
    Ok(Event::CursorDeleted { name })
}

fn redacted(body: Bytes) -> Result<Event, BodyError> {
    let proto::Redacted { transactions } = Message::decode(body)?;
    let left = |left: proto::RedactedTransaction| {
        let keys = left.keys.into_iter().map(|key| (key.partition, key.key)).collect();
        Ok(RedactedTransaction { position: Position(left.position), digest: Digest(hash(&left.digest)?), keys })
    };
    Ok(Event::Redacted { transactions: transactions.into_iter().map(left).collect::<Result<_, BodyError>>()? })
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], BodyError> {
    bytes.try_into().map_err(|_| BodyError::Hash { length: bytes.len() })
}
