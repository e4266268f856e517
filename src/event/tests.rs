//! Golden bytes, round trips, unknown events, old versions, hostile bytes.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::decode::decode;
use super::upcast::Reading;
use super::{DecodeError, Event, RedactedTransaction, Request, Transaction, UnknownEvent, generated as proto};
use crate::types::{Digest, ErrorKind, Hash, Limits, Position, Timestamp};

fn set(partition: &'static str, key: &'static str, value: &'static str) -> Event {
    Event::Set { partition: partition.into(), key: key.into(), value: value.into() }
}

fn unknown(kind: u32, version: u32, ignorable: bool) -> UnknownEvent {
    UnknownEvent { kind, version, ignorable, minimum_reader: 3_001, body: Bytes::from_static(b"\xff\x00?") }
}

fn of(events: Vec<Event>) -> Transaction {
    Transaction { actor: "a".into(), events, ..Transaction::default() }
}

fn check_golden(transaction: &Transaction, golden: &[u8]) {
    assert_eq!(transaction.encode().escape_ascii().to_string(), golden.escape_ascii().to_string());
    assert_eq!(&Transaction::decode(Bytes::copy_from_slice(golden)).unwrap(), transaction);
}

#[test]
fn golden_bytes_of_the_envelope() {
    check_golden(&Transaction::default(), b"");
    check_golden(
        &Transaction {
            actor: "cli:ada".into(),
            reason: Some(String::new()),
            request: Some(Request { id: "r1".into(), digest: Digest([7; 32]), answer: Bytes::from_static(b"ok") }),
            events: vec![],
        },
        b"\x0a\x07cli:ada\x12\x00\x1a\x2a\x0a\x02r1\x12\x20\
          \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
          \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x1a\x02ok",
    );
}

#[test]
fn golden_bytes_of_each_event() {
    check_golden(&of(vec![set("p", "k", "v")]), b"\x0a\x01a\x22\x0d\x08\x01\x2a\x09\x0a\x01p\x12\x01k\x1a\x01v");
    check_golden(&of(vec![set("p", "k", "")]), b"\x0a\x01a\x22\x0a\x08\x01\x2a\x06\x0a\x01p\x12\x01k");
    check_golden(
        &of(vec![Event::Delete { partition: "p".into(), key: "k".into() }]),
        b"\x0a\x01a\x22\x0a\x08\x02\x2a\x06\x0a\x01p\x12\x01k",
    );
    check_golden(
        &of(vec![Event::DeleteRange { partition: "p".into(), prefix: "".into() }]),
        b"\x0a\x01a\x22\x07\x08\x03\x2a\x03\x0a\x01p",
    );
    check_golden(
        &of(vec![Event::RequestsExpired { requests: vec![(Timestamp(300), "r".into()), (Timestamp(0), "".into())] }]),
        b"\x0a\x01a\x22\x0e\x08\x10\x2a\x0a\x0a\x06\x08\xac\x02\x12\x01r\x0a\x00",
    );
    check_golden(
        &of(vec![
            Event::RestoreRange { partition: "p".into(), prefix: "x".into(), as_of: Position(300) },
            Event::Erased { partition: "p".into(), key: "k".into() },
        ]),
        b"\x0a\x01a\x22\x0d\x08\x04\x2a\x09\x0a\x01p\x12\x01x\x18\xac\x02\
          \x22\x0a\x08\x05\x2a\x06\x0a\x01p\x12\x01k",
    );
    check_golden(
        &of(vec![
            Event::MarkSet { name: "m".into(), position: Position(5) },
            Event::MarkDeleted { name: "m".into() },
            Event::CursorDeleted { name: "c".into() },
        ]),
        b"\x0a\x01a\x22\x09\x08\x11\x2a\x05\x0a\x01m\x10\x05\x22\x07\x08\x12\x2a\x03\x0a\x01m\
          \x22\x07\x08\x14\x2a\x03\x0a\x01c",
    );
    let sevens = "\\x07".repeat(32);
    let cursor = Event::CursorSet { name: "c".into(), position: Position(5), chain: Hash([7; 32]) };
    let golden = format!(r#"\n\x01a\"+\x08\x13*\'\n\x01c\x10\x05\x1a {sevens}"#);
    assert_eq!(of(vec![cursor]).encode().escape_ascii().to_string(), golden);
    let transactions = vec![RedactedTransaction {
        position: Position(9),
        digest: Digest([7; 32]),
        keys: vec![("p".into(), "k".into())],
    }];
    let golden = format!(r#"\n\x01a\"2\x08\x15*.\n,\x08\t\x12 {sevens}\x1a\x06\n\x01p\x12\x01k"#);
    assert_eq!(of(vec![Event::Redacted { transactions }]).encode().escape_ascii().to_string(), golden);
    check_golden(
        &of(vec![Event::Unknown(unknown(200, 2, true))]),
        b"\x0a\x01a\x22\x0f\x08\xc8\x01\x10\x02\x18\x01\x20\xb9\x17\x2a\x03\xff\x00?",
    );
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,6}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (bytes(), bytes(), bytes()).prop_map(|(partition, key, value)| Event::Set { partition, key, value }),
        (bytes(), bytes()).prop_map(|(partition, key)| Event::Delete { partition, key }),
        (bytes(), bytes()).prop_map(|(partition, prefix)| Event::DeleteRange { partition, prefix }),
        prop::collection::vec((any::<i64>().prop_map(Timestamp), text()), 0..4)
            .prop_map(|requests| Event::RequestsExpired { requests }),
        (bytes(), bytes(), any::<u64>()).prop_map(|(partition, prefix, as_of)| {
            Event::RestoreRange { partition, prefix, as_of: Position(as_of) }
        }),
        (bytes(), bytes()).prop_map(|(partition, key)| Event::Erased { partition, key }),
        (text(), any::<u64>()).prop_map(|(name, position)| Event::MarkSet { name, position: Position(position) }),
        text().prop_map(|name| Event::MarkDeleted { name }),
        (text(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(name, position, chain)| {
            Event::CursorSet { name, position: Position(position), chain: Hash(chain) }
        }),
        text().prop_map(|name| Event::CursorDeleted { name }),
        prop::collection::vec(redacted(), 0..3).prop_map(|transactions| Event::Redacted { transactions }),
        (prop_oneof![Just(0), 6u32..16, 22u32..], any::<u32>(), any::<bool>(), any::<u32>(), bytes()).prop_map(
            |(kind, version, ignorable, minimum_reader, body)| {
                Event::Unknown(UnknownEvent { kind, version, ignorable, minimum_reader, body })
            }
        ),
        (1u32..4, 1u32.., bytes()).prop_map(|(kind, version, body)| {
            Event::Unknown(UnknownEvent { kind, version, ignorable: false, minimum_reader: 1_000_000, body })
        }),
    ]
}

fn redacted() -> impl Strategy<Value = RedactedTransaction> {
    let keys = prop::collection::vec((bytes(), bytes()), 0..3);
    (any::<u64>(), any::<[u8; 32]>(), keys).prop_map(|(position, digest, keys)| RedactedTransaction {
        position: Position(position),
        digest: Digest(digest),
        keys,
    })
}

fn request() -> impl Strategy<Value = Request> {
    (text(), any::<[u8; 32]>(), bytes()).prop_map(|(id, digest, answer)| Request { id, digest: Digest(digest), answer })
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let events = prop::collection::vec(event(), 0..6);
    (text(), prop::option::of(text()), prop::option::of(request()), events)
        .prop_map(|(actor, reason, request, events)| Transaction { actor, reason, request, events })
}

proptest! {
    #[test]
    fn transactions_come_back(transaction in transaction()) {
        let bytes = transaction.encode();
        prop_assert_eq!(&Transaction::decode(bytes.clone()).unwrap(), &transaction);
        prop_assert_eq!(transaction.clone().encode(), bytes);
    }

    /// The room of the queue is counted in these bytes before anything is encoded.
    #[test]
    fn an_event_counts_about_as_much_as_its_encoding(event in event()) {
        let counted = event.bytes();
        let encoded = Transaction { events: vec![event], ..Transaction::default() }.encode().len();
        prop_assert!(encoded <= 2 * counted + 64, "counted={counted} encoded={encoded}");
        prop_assert!(counted <= encoded + 64, "counted={counted} encoded={encoded}");
    }

    #[test]
    fn the_envelope_is_the_generated_message(transaction in transaction()) {
        let bytes = transaction.encode();
        let generated = proto::Transaction::decode(bytes.clone()).unwrap();
        prop_assert_eq!(generated.events.len(), transaction.events.len());
        for (generated, event) in generated.events.iter().zip(&transaction.events) {
            let body = match event {
                Event::Set { .. } => proto::Set::decode(generated.body.clone()).unwrap().encode_to_vec(),
                Event::Delete { .. } => proto::Delete::decode(generated.body.clone()).unwrap().encode_to_vec(),
                Event::DeleteRange { .. } => proto::DeleteRange::decode(generated.body.clone()).unwrap().encode_to_vec(),
                _ => continue,
            };
            prop_assert_eq!(&generated.body, &body);
        }
        prop_assert_eq!(generated.encode_to_vec(), bytes);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let ours = Transaction::decode(bytes.clone().into());
        if proto::Transaction::decode(&bytes[..]).is_err() {
            prop_assert!(ours.is_err());
        }
    }

    #[test]
    fn fault_17_damaged_bytes_decode_or_are_refused(
        transaction in transaction(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = transaction.encode().to_vec();
        for (at, byte) in flips {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
        }
        bytes.truncate(end.index(bytes.len() + 1));
        if let Ok(decoded) = Transaction::decode(bytes.into()) {
            prop_assert_eq!(&Transaction::decode(decoded.encode()).unwrap(), &decoded);
        }
    }
}

#[test]
fn byte_strings_are_slices_of_the_payload() {
    let payload = of(vec![set("partition", "key", "value")]).encode();
    let decoded = Transaction::decode(payload.clone()).unwrap();
    let Event::Set { partition, key, value } = &decoded.events[0] else { panic!() };
    for part in [partition, key, value] {
        assert!(payload.as_ptr_range().contains(&part.as_ptr()));
    }
}

#[test]
fn what_is_unsupported_is_the_first_critical_unknown_event() {
    let events = vec![
        Event::Unknown(unknown(200, 0, true)),
        set("p", "k", "v"),
        Event::Unknown(unknown(201, 0, false)),
        Event::Unknown(unknown(202, 0, false)),
    ];
    let decoded = Transaction::decode(of(events).encode()).unwrap();
    let unsupported = decoded.unsupported().unwrap();
    assert_eq!((unsupported.kind, unsupported.minimum_reader_version()), (201, "0.3.1".into()));
    assert_eq!(of(vec![Event::Unknown(unknown(200, 0, true))]).unsupported(), None);
    assert_eq!(of(vec![set("p", "k", "v")]).unsupported(), None);
}

#[test]
fn fault_32_a_newer_version_of_a_known_kind_is_unknown() {
    let newer = of(vec![Event::Unknown(unknown(1, 1, false))]);
    assert_eq!(Transaction::decode(newer.encode()).unwrap(), newer);
}

#[test]
fn fields_of_a_newer_envelope_are_passed_over() {
    let mut bytes = of(vec![set("p", "k", "v")]).encode().to_vec();
    bytes.extend_from_slice(b"\xfa\x01\x03new");
    assert_eq!(Transaction::decode(bytes.into()).unwrap(), of(vec![set("p", "k", "v")]));
}

#[test]
fn kinds_have_the_names_of_the_command_line() {
    let delete = Event::Delete { partition: "p".into(), key: "k".into() };
    let range = Event::DeleteRange { partition: "p".into(), prefix: "".into() };
    let expired = Event::RequestsExpired { requests: vec![] };
    let events = [set("p", "k", "v"), delete, range, expired, Event::Unknown(unknown(9, 0, true))];
    let names = events.map(|event| event.kind_name());
    assert_eq!(names, ["set", "delete", "delete_range", "requests_expired", "unknown"]);
}

#[test]
fn errors_name_the_event_and_are_corruption() {
    let bad = Event::Unknown(UnknownEvent { version: 0, minimum_reader: 0, ..unknown(2, 0, false) });
    let error = Transaction::decode(of(vec![set("p", "k", "v"), bad]).encode()).unwrap_err();
    assert!(matches!(error, DecodeError::Event { index: 1, kind: 2, version: 0, .. }), "{error:?}");
    let error = crate::types::Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().ends_with("event=`1` kind=`2` version=`0`"), "{error}");

    let short = proto::Transaction {
        request: Some(proto::Request { digest: Bytes::from_static(&[0; 31]), ..Default::default() }),
        ..Default::default()
    };
    let error = Transaction::decode(short.encode_to_vec().into()).unwrap_err();
    assert!(matches!(error, DecodeError::Digest { length: 31 }), "{error:?}");

    let error = Transaction::decode(Bytes::from_static(b"\x0a\x02\xff\xfe")).unwrap_err();
    assert!(matches!(error, DecodeError::Envelope(_)), "{error:?}");
}

#[test]
fn the_number_of_events_is_bounded() {
    let bytes = b"\x22\x00".repeat(Limits::TRANSACTION_OPERATIONS_MAX);
    let most = Transaction::decode(bytes.clone().into()).unwrap();
    assert_eq!(most.events.len(), Limits::TRANSACTION_OPERATIONS_MAX);
    let error = Transaction::decode([&bytes[..], b"\x22\x00"].concat().into()).unwrap_err();
    assert!(matches!(error, DecodeError::TooManyEvents { .. }), "{error:?}");
}

/// A kind whose version 0 was bare text, 1 the text in a message, and 2 has a default value too.
const MANY_VERSIONS: &[Reading] = &[Reading {
    kind: 99,
    steps: &[
        |text| Ok(proto::Delete { partition: text, key: Bytes::new() }.encode_to_vec().into()),
        |body| {
            let old = proto::Delete::decode(body)?;
            let value = Bytes::from_static(b"default");
            Ok(proto::Set { partition: old.partition, key: old.key, value }.encode_to_vec().into())
        },
    ],
    decode: |body| -> Result<Event, super::BodyError> {
        let proto::Set { partition, key, value } = proto::Set::decode(body)?;
        Ok(Event::Set { partition, key, value })
    },
}];

#[test]
fn fault_32_old_versions_become_the_current_one() {
    let written = |version, body: Vec<u8>| {
        let body = body.into();
        of(vec![Event::Unknown(UnknownEvent { body, ..unknown(99, version, false) })])
    };
    let read = |transaction: &Transaction| decode(MANY_VERSIONS, transaction.encode());

    assert_eq!(read(&written(0, b"p".to_vec())).unwrap(), of(vec![set("p", "", "default")]));
    let one = proto::Delete { partition: "p".into(), key: "k".into() }.encode_to_vec();
    assert_eq!(read(&written(1, one.clone())).unwrap(), of(vec![set("p", "k", "default")]));
    let two = proto::Set { partition: "p".into(), key: "k".into(), value: "v".into() }.encode_to_vec();
    assert_eq!(read(&written(2, two.clone())).unwrap(), of(vec![set("p", "k", "v")]));
    for newer in [3, u32::MAX] {
        let newer = written(newer, two.clone());
        assert_eq!(read(&newer).unwrap(), newer);
    }
    let error = read(&written(1, b"\xff".to_vec())).unwrap_err();
    assert!(matches!(error, DecodeError::Event { kind: 99, version: 1, .. }), "{error:?}");
}
