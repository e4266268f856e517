//! What each event writes (law 5: a pure function of the event, its time and nothing else).
//!
//! Live and replay go through these functions alike: the committer computes a transaction's writes
//! with them before it appends, recovery when it reads the frame back.

use std::sync::Arc;

use bytes::Bytes;

use super::write_set::{Write, WriteSet};
use crate::event::{Event, Request};
use crate::types::{Digest, Key, KeyRange, Timestamp};

/// Remembered requests: request id -> [`Remembered`].
pub const REQUESTS: &[u8] = b"\0requests";
/// The same by time, for expiry: time as 8 bytes big-endian, request id -> empty.
pub const REQUESTS_BY_TIME: &[u8] = b"\0requests-by-time";

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

/// The writes of a transaction's events, in order. Events that this version does not know write nothing.
pub fn project_events(events: &[Event]) -> WriteSet {
    let mut set = WriteSet { ranges: Vec::new(), writes: Vec::with_capacity(events.len()) };
    for event in events {
        match event {
            Event::Set { partition, key, value } => set.put(Key::new(partition, key), Some(value)),
            Event::Delete { partition, key } => set.put(Key::new(partition, key), None),
            Event::DeleteRange { partition, prefix } => set.ranges.push(KeyRange::new(partition, prefix)),
            Event::RequestsExpired { requests } => {
                for (time, id) in requests {
                    set.put(Key::new(REQUESTS, id.as_bytes()), None);
                    set.put(request_time_key(*time, id), None);
                }
            }
            Event::Unknown(_) => {}
        }
    }
    set
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
