//! The fuzz target of transactions: hostile payloads decoded, and what decodes encoded again.

use bytes::Bytes;

use super::{Event, Request, Transaction};
use crate::types::{Digest, Timestamp};

/// The payload of a frame.
pub fn transactions(input: &[u8]) {
    let Ok(read) = Transaction::decode(Bytes::copy_from_slice(input)) else { return };
    let _unsupported = read.unsupported();
    let written = read.encode();
    // Kinds and versions come out as the current ones, so the bytes may differ; the meaning must not.
    let again = Transaction::decode(written.clone()).expect("what was encoded decodes");
    assert_eq!(again, read);
    assert_eq!(again.encode(), written);
}

/// Inputs to begin with: one of each kind of event, alone and together.
pub fn seeds() -> Vec<Vec<u8>> {
    let set = |key: &'static str| Event::Set { partition: "p".into(), key: key.into(), value: "value".into() };
    let events = vec![
        set("k"),
        Event::Delete { partition: "p".into(), key: "k".into() },
        Event::DeleteRange { partition: "p".into(), prefix: "".into() },
        Event::RequestsExpired { requests: vec![(Timestamp(300), "r".into()), (Timestamp(0), "".into())] },
    ];
    let request = Request { id: "r1".into(), digest: Digest([7; 32]), answer: Bytes::from_static(b"ok") };
    let whole = Transaction {
        actor: "cli:ada".into(),
        reason: Some("why".into()),
        request: Some(request),
        events: events.clone(),
    };
    let single = |event| Transaction { actor: "a".into(), events: vec![event], ..Transaction::default() };
    let mut seeds: Vec<Vec<u8>> = events.into_iter().map(|event| single(event).encode().to_vec()).collect();
    seeds.push(whole.encode().to_vec());
    seeds
}
