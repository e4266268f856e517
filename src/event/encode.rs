//! [`Transaction::encode`]: plain data to the bytes of a frame's payload.
//!
//! Deterministic: equal transactions have equal bytes. Checks no limits; the committer does.

use bytes::Bytes;
use prost::Message;

use super::generated as proto;
use super::{Event, Request, Transaction};

impl Transaction {
    /// The payload of the transaction's frame, as `docs/format.md` describes it. Events are written
    /// in the current version of their kind, unknown ones as they were read.
    pub fn encode(&self) -> Bytes {
        let transaction = proto::Transaction {
            actor: self.actor.clone(),
            reason: self.reason.clone(),
            request: self.request.as_ref().map(request),
            events: self.events.iter().map(event).collect(),
        };
        transaction.encode_to_vec().into()
    }
}

fn request(request: &Request) -> proto::Request {
    proto::Request {
        id: request.id.clone(),
        digest: Bytes::copy_from_slice(&request.digest.0),
        answer: request.answer.clone(),
    }
}

fn event(event: &Event) -> proto::Event {
    match event {
        Event::Set { partition, key, value } => known(
            proto::Kind::Set,
            &proto::Set { partition: partition.clone(), key: key.clone(), value: value.clone() },
        ),
        Event::Delete { partition, key } => {
            known(proto::Kind::Delete, &proto::Delete { partition: partition.clone(), key: key.clone() })
        }
        Event::DeleteRange { partition, prefix } => known(
            proto::Kind::DeleteRange,
            &proto::DeleteRange { partition: partition.clone(), prefix: prefix.clone() },
        ),
        Event::RequestsExpired { requests } => {
            let requests =
                requests.iter().map(|(time, id)| proto::ExpiredRequest { time: time.0, id: id.clone() }).collect();
            known(proto::Kind::RequestsExpired, &proto::RequestsExpired { requests })
        }
        Event::Unknown(unknown) => proto::Event {
            kind: unknown.kind,
            version: unknown.version,
            ignorable: unknown.ignorable,
            minimum_reader: unknown.minimum_reader,
            body: unknown.body.clone(),
        },
    }
}

/// The envelope of an event that every lakelog so far must and can read: its four numbers are then
/// the defaults, which take no bytes.
fn known(kind: proto::Kind, body: &impl Message) -> proto::Event {
    proto::Event {
        kind: u32::try_from(i32::from(kind)).expect("kinds are not negative"),
        body: body.encode_to_vec().into(),
        ..Default::default()
    }
}
