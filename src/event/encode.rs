//! [`Transaction::encode`]: plain data to the bytes of a frame's payload.
//!
//! Deterministic: equal transactions have equal bytes. Checks no limits; the committer does. What is written by nearly every
//! transaction goes from borrowed slices straight into one buffer: every writer pays for this, and each allocation that the
//! commit thread has to free costs twice. The tests hold the bytes to those of the generated types.

use bytes::Bytes;
use prost::{Message, encode_length_delimiter, length_delimiter_len};

use super::generated as proto;
use super::{Event, Request, Transaction};

/// Field numbers of `Transaction` and `Event`, as in `proto/`.
const ACTOR: u8 = 1;
const REASON: u8 = 2;
const REQUEST: u8 = 3;
const EVENTS: u8 = 4;
const KIND: u8 = 1;
const BODY: u8 = 5;

impl Transaction {
    /// The payload of the transaction's frame, as `docs/format.md` describes it. Events are written
    /// in the current version of their kind, unknown ones as they were read.
    pub fn encode(&self) -> Bytes {
        encode(&self.actor, self.reason.as_deref(), self.request.as_ref(), &self.events)
    }
}

/// [`Transaction::encode`] without a transaction: nothing has to be owned to be written.
pub fn encode(actor: &str, reason: Option<&str>, request: Option<&Request>, events: &[Event]) -> Bytes {
    let request = request.map(encode_request);
    let (one, many);
    // Most transactions have one, which needs no list.
    let events: &[Encoded<'_>] = match events {
        [event] => {
            one = [Encoded::new(event)];
            &one
        }
        _ => {
            many = events.iter().map(Encoded::new).collect::<Vec<_>>();
            &many
        }
    };
    let len = bytes_len(actor.as_bytes())
        + reason.map_or(0, |reason| delimited_len(reason.len()))
        + request.as_ref().map_or(0, |request| delimited_len(request.len()))
        + events.iter().map(|event| delimited_len(event.len())).sum::<usize>();
    let mut out = Vec::with_capacity(len);
    put_bytes(ACTOR, actor.as_bytes(), &mut out);
    if let Some(reason) = reason {
        // Empty and none differ here, so it is written also when empty.
        put_delimited(REASON, reason.len(), &mut out);
        out.extend_from_slice(reason.as_bytes());
    }
    if let Some(request) = &request {
        put_delimited(REQUEST, request.len(), &mut out);
        out.extend_from_slice(request);
    }
    for event in events {
        put_delimited(EVENTS, event.len(), &mut out);
        event.put(&mut out);
    }
    debug_assert_eq!(out.len(), len);
    out.into()
}

/// An event on its way into the buffer.
enum Encoded<'a> {
    /// A kind that every lakelog so far must and can read, its body being fields of bytes 1, 2, .. The other numbers
    /// of the envelope are then the defaults, which take no bytes.
    Fields { kind: u8, fields: [&'a [u8]; 3] },
    /// The message `Event`, encoded by the generated types.
    Message(Vec<u8>),
}

impl Encoded<'_> {
    fn new(event: &Event) -> Encoded<'_> {
        let fields = |kind: proto::Kind, fields| Encoded::Fields { kind: kind as u8, fields };
        match event {
            Event::Set { partition, key, value } => fields(proto::Kind::Set, [partition, key, value]),
            Event::Delete { partition, key } => fields(proto::Kind::Delete, [partition, key, b""]),
            Event::DeleteRange { partition, prefix } => fields(proto::Kind::DeleteRange, [partition, prefix, b""]),
            Event::Erased { partition, key } => fields(proto::Kind::Erased, [partition, key, b""]),
            Event::Unknown(unknown) => Encoded::Message(
                proto::Event {
                    kind: unknown.kind,
                    version: unknown.version,
                    ignorable: unknown.ignorable,
                    minimum_reader: unknown.minimum_reader,
                    body: unknown.body.clone(),
                }
                .encode_to_vec(),
            ),
            rare => Encoded::Message(encode_rare(rare)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Encoded::Message(message) => message.len(),
            // The kind takes a byte for its field and one for its number, which is small.
            Encoded::Fields { fields, .. } => {
                let body = body_len(fields);
                2 + if body == 0 { 0 } else { delimited_len(body) }
            }
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Encoded::Message(message) => out.extend_from_slice(message),
            Encoded::Fields { kind, fields } => {
                out.extend_from_slice(&[KIND << 3, *kind]);
                let body = body_len(fields);
                if body > 0 {
                    put_delimited(BODY, body, out);
                    (1..).zip(fields).for_each(|(field, bytes)| put_bytes(field, bytes, out));
                }
            }
        }
    }
}

/// The events that few transactions have, encoded by the generated types; nothing for the others.
fn encode_rare(event: &Event) -> Vec<u8> {
    let (kind, body) = match event {
        Event::RestoreRange { partition, prefix, as_of } => {
            let (partition, prefix, as_of) = (partition.clone(), prefix.clone(), as_of.0);
            (proto::Kind::RestoreRange, proto::RestoreRange { partition, prefix, as_of }.encode_to_vec())
        }
        Event::RequestsExpired { requests } => {
            let requests = requests.iter().map(|(time, id)| proto::ExpiredRequest { time: time.0, id: id.clone() });
            (proto::Kind::RequestsExpired, proto::RequestsExpired { requests: requests.collect() }.encode_to_vec())
        }
        Event::MarkSet { name, position } => {
            (proto::Kind::MarkSet, proto::MarkSet { name: name.clone(), position: position.0 }.encode_to_vec())
        }
        Event::MarkDeleted { name } => {
            (proto::Kind::MarkDeleted, proto::MarkDeleted { name: name.clone() }.encode_to_vec())
        }
        Event::CursorSet { name, position, chain } => {
            let chain = Bytes::copy_from_slice(&chain.0);
            let cursor = proto::CursorSet { name: name.clone(), position: position.0, chain };
            (proto::Kind::CursorSet, cursor.encode_to_vec())
        }
        Event::CursorDeleted { name } => {
            (proto::Kind::CursorDeleted, proto::CursorDeleted { name: name.clone() }.encode_to_vec())
        }
        Event::Redacted { transactions } => {
            let key = |(partition, key): &(Bytes, Bytes)| proto::RedactedKey {
                partition: partition.clone(),
                key: key.clone(),
            };
            let transactions = transactions.iter().map(|left| proto::RedactedTransaction {
                position: left.position.0,
                digest: Bytes::copy_from_slice(&left.digest.0),
                keys: left.keys.iter().map(key).collect(),
            });
            (proto::Kind::Redacted, proto::Redacted { transactions: transactions.collect() }.encode_to_vec())
        }
        Event::Set { .. }
        | Event::Delete { .. }
        | Event::DeleteRange { .. }
        | Event::Erased { .. }
        | Event::Unknown(_) => {
            return Vec::new();
        }
    };
    proto::Event { kind: kind as u32, body: body.into(), ..Default::default() }.encode_to_vec()
}

fn encode_request(request: &Request) -> Vec<u8> {
    proto::Request {
        id: request.id.clone(),
        digest: Bytes::copy_from_slice(&request.digest.0),
        answer: request.answer.clone(),
    }
    .encode_to_vec()
}

fn body_len(fields: &[&[u8]; 3]) -> usize {
    fields.iter().map(|bytes| bytes_len(bytes)).sum()
}

/// The length of a field of bytes; an empty one is not written.
fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { delimited_len(bytes.len()) }
}

/// The length of a field whose content is so long.
fn delimited_len(len: usize) -> usize {
    1 + length_delimiter_len(len) + len
}

fn put_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_delimited(field, bytes.len(), out);
        out.extend_from_slice(bytes);
    }
}

/// The start of a field whose content, so long, follows.
fn put_delimited(field: u8, len: usize, out: &mut Vec<u8>) {
    const LENGTH_DELIMITED: u8 = 2;
    out.push(field << 3 | LENGTH_DELIMITED);
    encode_length_delimiter(len, out).expect("a vector grows as it has to");
}
