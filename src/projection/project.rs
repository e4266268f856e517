//! What each event writes (law 5: a pure function of the event, its time and nothing else).
//!
//! Live and replay go through these functions alike: the committer computes a transaction's writes
//! with them before it appends, recovery when it reads the frame back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::write_set::{Write, WriteSet};
use crate::event::{Event, Request};
use crate::types::{Digest, Key, KeyRange, Position, Salt, Timestamp};

/// Remembered requests: request id -> [`Remembered`].
pub const REQUESTS: &[u8] = b"\0requests";
/// The same by time, for expiry: time as 8 bytes big-endian, request id -> empty.
pub const REQUESTS_BY_TIME: &[u8] = b"\0requests-by-time";
/// Marks: name -> position as 8 bytes little-endian.
pub const MARKS: &[u8] = b"\0marks";
/// Cursors of consumers: name -> position as 8 bytes little-endian, chain hash at it.
pub const CURSORS: &[u8] = b"\0cursors";
/// Erased values: [`redaction_key`] -> empty.
pub const REDACTIONS: &[u8] = b"\0redactions";

/// Positions to which a range was restored: 8 bytes big-endian -> empty, at the version of the last transaction that did.
pub const RESTORES: &[u8] = b"\0restores";

/// What is remembered of a request (law 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The recorded time of its transaction.
    pub time: Timestamp,
    /// Digest of the command.
    pub digest: Digest,
    /// The answer.
    pub answer: Bytes,
}

impl Remembered {
    /// Time (8 bytes little-endian), digest (32 bytes), answer (the rest).
    fn encode(time: Timestamp, request: &Request) -> Vec<u8> {
        let mut bytes = time.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&request.digest.0);
        bytes.extend_from_slice(&request.answer);
        bytes
    }

    /// The inverse; `None` for bytes that are no remembered request.
    pub fn decode(bytes: &[u8]) -> Option<Remembered> {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (digest, answer) = rest.split_first_chunk::<32>()?;
        Some(Remembered {
            time: Timestamp(i64::from_le_bytes(*time)),
            digest: Digest(*digest),
            answer: Bytes::copy_from_slice(answer),
        })
    }
}

/// The live entries of a restored range as of the position restored, encoded keys and values in order.
pub type Restored = Vec<(Key, Arc<[u8]>)>;

/// The writes of a transaction's events, in order. Events that this version does not know write nothing.
///
/// `restored` has, for each [`Event::RestoreRange`] in order, what its range held at the position restored: that never
/// changes, so this stays a pure function of the history before and the events.
pub fn project_events(events: &[Event], restored: Vec<Restored>) -> WriteSet {
    let mut set = WriteSet { ranges: Vec::new(), writes: Vec::with_capacity(events.len()) };
    let mut restored = restored.into_iter();
    // Range operations apply in order: a later one covers what an earlier one restored.
    let mut kept = BTreeMap::new();
    for event in events {
        match event {
            Event::RestoreRange { partition, prefix, as_of } => {
                set.put(Key::new(RESTORES, &as_of.0.to_be_bytes()), Some(b""));
                let range = KeyRange::new(partition, prefix);
                kept.retain(|key: &Key, _| !range.contains(key));
                kept.extend(restored.next().unwrap_or_default());
                set.ranges.push(range);
            }
            Event::DeleteRange { partition, prefix } => {
                let range = KeyRange::new(partition, prefix);
                kept.retain(|key, _| !range.contains(key));
                set.ranges.push(range);
            }
            // The bytes are gone; that they were erased is in [`REDACTIONS`], which readers of the past ask.
            Event::Erased { partition, key } => set.put(Key::new(partition, key), Some(b"")),
            Event::Set { partition, key, value } => set.put(Key::new(partition, key), Some(value)),
            Event::Delete { partition, key } => set.put(Key::new(partition, key), None),
            Event::RequestsExpired { requests } => {
                for (time, id) in requests {
                    set.put(Key::new(REQUESTS, id.as_bytes()), None);
                    set.put(request_time_key(*time, id), None);
                }
            }
            Event::MarkSet { name, position } => {
                set.put(Key::new(MARKS, name.as_bytes()), Some(&position.0.to_le_bytes()));
            }
            Event::MarkDeleted { name } => set.put(Key::new(MARKS, name.as_bytes()), None),
            Event::CursorSet { name, position, chain } => {
                let value = [&position.0.to_le_bytes()[..], &chain.0].concat();
                set.put(Key::new(CURSORS, name.as_bytes()), Some(&value));
            }
            Event::CursorDeleted { name } => set.put(Key::new(CURSORS, name.as_bytes()), None),
            Event::Redacted { transactions } => {
                for left in transactions {
                    for (partition, key) in &left.keys {
                        set.put(redaction_key(&Key::new(partition, key), left.position), Some(b""));
                    }
                }
            }
            Event::Unknown(_) => {}
        }
    }
    if !kept.is_empty() {
        // Key writes win over what a range restore brings.
        set.writes.iter().for_each(|write| drop(kept.remove(&write.key)));
        set.writes.extend(kept.into_iter().map(|(key, value)| Write { key, value: Some(value) }));
    }
    set
}

/// Where it is noted that the value which a key got at a position was erased: the position first, so that keys of any
/// length stay within the limits of a key.
pub fn redaction_key(key: &[u8], position: Position) -> Key {
    Key::new(REDACTIONS, &[&position.0.to_be_bytes()[..], &Digest::of(&Salt::default(), key).0].concat())
}

/// Adds the writes that remember a transaction's request.
pub fn project_request(time: Timestamp, request: &Request, set: &mut WriteSet) {
    let remembered = Remembered::encode(time, request);
    set.put(Key::new(REQUESTS, request.id.as_bytes()), Some(&remembered));
    set.writes.push(Write { key: request_time_key(time, &request.id), value: Some(Arc::from([])) });
}

fn request_time_key(time: Timestamp, id: &str) -> Key {
    // Recorded time is never negative in practice; as an unsigned number it sorts either way.
    let mut key = (time.0 as u64).to_be_bytes().to_vec();
    key.extend_from_slice(id.as_bytes());
    Key::new(REQUESTS_BY_TIME, &key)
}

/// Time and id of a key in [`REQUESTS_BY_TIME`].
pub fn decode_request_time_key(key: &[u8]) -> Option<(Timestamp, String)> {
    let (time, id) = key.split_first_chunk::<8>()?;
    Some((Timestamp(u64::from_be_bytes(*time) as i64), String::from_utf8(id.to_vec()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On disk in every checkpoint: see docs/format.md, "The store's own partitions".
    #[test]
    fn golden_bytes_of_a_remembered_request() {
        let request = Request { id: "r".into(), digest: Digest([0xab; 32]), answer: Bytes::from_static(b"ok") };
        let mut set = WriteSet::default();
        project_request(Timestamp(0x0102), &request, &mut set);
        let value = [&[2, 1, 0, 0, 0, 0, 0, 0][..], &[0xab; 32], b"ok"].concat();
        let by_id = Write { key: Key(b"\0\xffrequests\0\x01r"[..].into()), value: Some(value[..].into()) };
        let by_time = Write {
            key: Key(b"\0\xffrequests-by-time\0\x01\0\0\0\0\0\0\x01\x02r"[..].into()),
            value: Some(Arc::from([])),
        };
        assert_eq!(set.writes, [by_id, by_time]);
        let remembered = Remembered { time: Timestamp(0x0102), digest: request.digest, answer: request.answer };
        assert_eq!(Remembered::decode(&value), Some(remembered));
        assert_eq!(Remembered::decode(&value[..39]), None);
        assert_eq!(decode_request_time_key(b"\0\0\0\0\0\0\x01\x02r"), Some((Timestamp(0x0102), "r".into())));
    }
}
