//! Real files there and back, files cut at every byte, records and files that are wrong.

use std::error::Error as _;
use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::input::RECORD_BYTES_MAX;
use super::*;
use crate::types::{Error, ErrorKind, Timestamp};

type Item = Result<Record, Refusal>;

/// What was handed out, and how it ended.
fn read_all(input: impl Read) -> (Vec<Item>, Result<Header, ReadError>) {
    let mut items = Vec::new();
    let end = read::<ReadError>(input, |item| {
        items.push(item);
        Ok(())
    });
    (items, end)
}

fn read_good(input: impl Read) -> (Vec<Record>, Header) {
    let (items, end) = read_all(input);
    (items.into_iter().map(|item| item.unwrap()).collect(), end.unwrap())
}

fn written(header: &Header, records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for record in records {
        writer.record(&record.partition, &record.key, &record.value).unwrap();
    }
    writer.finish().unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn real_files_come_back_byte_for_byte() {
    for (name, count) in [
        ("kv-small/full.ndjson.zst", 2_076),
        ("kv-small/kv-dump.json", 25),
        ("kv-small/kv-dump-repo.json", 64),
        ("kv-medium/full.ndjson.zst", 19_209),
        ("kv-medium/kv-dump.json", 31),
        ("kv-medium/kv-dump-repo.json", 247),
        ("legacy-small/kv-0.80.2.ndjson.zst", 2_215),
        ("legacy-medium/kv-0.80.2.ndjson.zst", 19_681),
    ] {
        let file = fixture(name);
        let plain = if name.ends_with(".zst") { zstd::decode_all(&file[..]).unwrap() } else { file.clone() };
        let (records, header) = read_good(&file[..]);
        assert_eq!(records.len(), count, "{name}");
        assert_eq!(records.last().unwrap().ordinal, count as u64, "{name}");
        assert!(written(&header, &records) == plain, "{name}");
    }
}

#[test]
fn the_dump_holds_the_bytes_of_the_complete_export() {
    let (full, _) = read_good(&fixture("kv-small/full.ndjson.zst")[..]);
    let (dump, header) = read_good(&fixture("kv-small/kv-dump.json")[..]);
    assert_eq!(header, Header::Dump { timestamp: "2026-11-22T09:41:47Z".into() });
    for record in dump {
        let same = |other: &&Record| (&other.partition, &other.key) == (&record.partition, &record.key);
        assert_eq!(full.iter().find(same).unwrap().value, record.value);
    }
}

const SMALL_EXPORT: &str = concat!(
    r#"{"LakeFSVersion": "1.84.0", "PackageName": "all", "DBSchemaVersion": 4, "CreatedAt": "2026-11-22T00:00:00Z"}"#,
    "\n",
    r#"{"PartitionKey": "cA==", "Key": "aw==", "Value": ""}"#,
    "\n",
    r#"{"PartitionKey": "cA==", "Key": "/wA=", "Value": "djI="}"#,
    "\n",
    r#"{"PartitionKey": "cQ==", "Key": "aw==", "Value": "djM="}"#,
    "\n",
);

const SMALL_DUMP: &str = concat!(
    r#"{"version":"1.0","timestamp":"2026-11-22T09:41:47Z","entries":["#,
    r#"{"partition":"p","key":"a\u003cb\u0026\u2028ü","value":"djE="},"#,
    r#"{"partition":"p","key":"\u0001\b\f\n\"\\","value":""}]}"#,
    "\n"
);

/// Reads every beginning of a file: what is handed out is a beginning of the records, and only
/// the beginnings that `complete` names end without an error.
fn check_cut(file: &[u8], complete: impl Fn(usize) -> bool) {
    let (whole, _) = read_good(file);
    for length in 0..file.len() {
        let (items, end) = read_all(&file[..length]);
        let records: Vec<_> = items.into_iter().map(|item| item.unwrap()).collect();
        assert!(whole.starts_with(&records), "length {length}");
        assert_eq!(end.is_ok(), complete(length), "length {length}: {end:?}");
        if let Err(error) = end {
            // Too little even to tell the compression by.
            let nothing = length < 4 && matches!(error, ReadError::NotADump { .. });
            let named = nothing || matches!(error, ReadError::Truncated { .. });
            assert!(named, "length {length}: {error:?}");
        }
    }
}

#[test]
fn a_cut_export_is_shorter_or_an_error() {
    let at_a_line = |length: usize| {
        let rest = &SMALL_EXPORT[length..];
        rest.starts_with('\n') || SMALL_EXPORT[..length].ends_with('\n')
    };
    check_cut(SMALL_EXPORT.as_bytes(), at_a_line);
    let (items, end) = read_all(&SMALL_EXPORT.as_bytes()[..SMALL_EXPORT.len() - 5]);
    assert_eq!(items.len(), 2);
    assert!(matches!(end.unwrap_err(), ReadError::Truncated { record: 3, .. }));
}

#[test]
fn a_cut_dump_is_an_error() {
    check_cut(SMALL_DUMP.as_bytes(), |length| length == SMALL_DUMP.len() - 1);
}

#[test]
fn a_cut_compressed_file_is_an_error() {
    for text in [SMALL_EXPORT, SMALL_DUMP] {
        check_cut(&zstd(text.as_bytes()), |_| false);
        check_cut(&gzip(text.as_bytes()), |_| false);
    }
    let large = fixture("kv-small/full.ndjson.zst");
    for length in [large.len() / 2, large.len() - 1] {
        let (_, end) = read_all(&large[..length]);
        assert!(matches!(end.unwrap_err(), ReadError::Truncated { .. }));
    }
}

#[test]
fn compression_is_told_by_content() {
    for text in [SMALL_EXPORT, SMALL_DUMP] {
        let plain = read_good(text.as_bytes());
        assert_eq!(written(&plain.1, &plain.0), text.as_bytes());
        assert_eq!(read_good(&zstd(text.as_bytes())[..]), plain);
        assert_eq!(read_good(&gzip(text.as_bytes())[..]), plain);
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        assert_eq!(read_good(&[zstd(first), zstd(second)].concat()[..]), plain);
        assert_eq!(read_good(&[gzip(first), gzip(second)].concat()[..]), plain);
    }
}

#[test]
fn damaged_compressed_files_say_so() {
    let mut file = gzip(SMALL_EXPORT.as_bytes());
    let checksum = file.len() - 8;
    file[checksum] ^= 1;
    let (items, end) = read_all(&file[..]);
    assert_eq!(items.len(), 3);
    assert!(matches!(end.unwrap_err(), ReadError::Damaged { record: 3, .. }));
    let mut file = fixture("kv-small/full.ndjson.zst");
    let middle = file.len() / 2;
    file[middle..].fill(0xa5);
    let error = read_all(&file[..]).1.unwrap_err();
    assert!(matches!(error, ReadError::Damaged { .. }), "{error:?}");
    let trailing = [zstd(SMALL_EXPORT.as_bytes()), b"rubbish".to_vec()].concat();
    assert!(matches!(read_all(&trailing[..]).1.unwrap_err(), ReadError::Damaged { record: 3, .. }));
}

#[test]
fn any_white_space_and_order_of_members_will_do() {
    let pressed = SMALL_EXPORT.replace('\n', "");
    let spread = SMALL_EXPORT.replace(", ", "\r\n\t,\n").replace('\n', "\n \n");
    for text in [pressed, spread] {
        assert_eq!(read_good(text.as_bytes()), read_good(SMALL_EXPORT.as_bytes()));
    }
    let (entries, rest) = (SMALL_DUMP.find(r#""entries""#).unwrap(), SMALL_DUMP.find(r#""version""#).unwrap());
    let turned = format!("{{{},{}}}", &SMALL_DUMP[entries..].trim_end().trim_end_matches('}'), {
        &SMALL_DUMP[rest..entries - 1]
    });
    assert_eq!(read_good(turned.as_bytes()), read_good(SMALL_DUMP.as_bytes()));
    let others = r#"{"more":{"a":[1]},"version":"1.0","entries":[{"key":"k","x":[{}],"value":"","partition":"p"}]}"#;
    assert_eq!(read_good(others.as_bytes()).0.len(), 1);
}

/// Whatever follows the lines that hold a record each, and wherever it begins, is read as if all had been read byte by byte.
#[test]
fn what_is_not_one_record_a_line_reads_the_same() {
    let lines: Vec<_> = SMALL_EXPORT.lines().collect();
    let (header, records) = (lines[0], &lines[1..]);
    let expected: Vec<_> = read_good(SMALL_EXPORT.as_bytes()).0;
    for split in 0..=records.len() {
        let (first, rest) = (records[..split].join("\n"), records[split..].concat());
        for between in ["\n", "\r\n \n\n", " "] {
            let file = format!("{header}{between}{first}{between}{rest}");
            assert_eq!(read_good(file.as_bytes()).0, expected, "{split} {between:?}");
            let (items, end) = read_all(format!("{file}{between}[").as_bytes());
            assert_eq!(items.len(), expected.len(), "{split} {between:?}");
            let (message, line) = (Error::from(end.unwrap_err()).report(), 1 + file.matches('\n').count());
            let line = line + between.matches('\n').count();
            assert!(message.contains(&format!("record=`{}`", expected.len() + 1)), "{message}");
            assert!(message.contains(&format!("at line {line} column")), "{split} {between:?}: {message}");
        }
        let cut = format!("{header}\n{first}\n{rest}{{\"Key\": \"");
        let (record, offset) = (expected.len() as u64 + 1, cut.len() as u64);
        assert!(
            matches!(read_all(cut.as_bytes()).1, Err(ReadError::Truncated { record: r, offset: o }) if (r, o) == (record, offset))
        );
    }
}

#[test]
fn a_dump_without_entries_is_empty() {
    let header = Header::Dump { timestamp: "t".into() };
    let empty = written(&header, &[]);
    assert_eq!(empty, b"{\"version\":\"1.0\",\"timestamp\":\"t\"}\n");
    for file in [
        &empty[..],
        br#"{"version":"1.0","timestamp":"t","entries":null}"#,
        br#"{"version":"1.0","timestamp":"t","entries":[]}"#,
    ] {
        assert_eq!(read_good(file), (vec![], header.clone()));
    }
}

/// The error that a file ends with, as people see it.
fn message(file: &[u8]) -> String {
    let error = Error::from(read_all(file).1.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.report()
}

#[test]
fn files_that_are_no_dump_are_refused() {
    for (file, expected) in [
        (&b""[..], "does not begin with a JSON object"),
        (b" \n ", "does not begin with a JSON object"),
        (b"hello", "does not begin with a JSON object"),
        (b"\xff\xfe", "does not begin with a JSON object"),
        (b"[1]", "does not begin with a JSON object"),
        (b"\"{}\"", "does not begin with a JSON object"),
        (b"{\"a\":1,}", "no member of either"),
        (b"{}", "members that either must have are missing"),
        (b"{\"a\":1}", "members that either must have are missing"),
        (br#"{"version":"1.0"}"#, "members that either must have are missing"),
        (br#"{"PartitionKey":"cA==","Key":"aw==","Value":""}"#, "the header is missing or empty"),
        (
            br#"{"LakeFSVersion":"","DBSchemaVersion":0,"CreatedAt":"0001-01-01T00:00:00Z"}"#,
            "header is missing or empty",
        ),
        (br#"{"LakeFSVersion":null,"DBSchemaVersion":null}"#, "the header is missing or empty"),
        (br#"{"version":"2.0","timestamp":"t"}"#, "not supported, found=`2.0`"),
        (br#"{"version":null,"timestamp":"t","entries":[]}"#, "not supported, found=``"),
        (br#"{"timestamp":"t","entries":[]}"#, "not supported, found=``"),
        (br#"{"version":1.0,"timestamp":"t","entries":[]}"#, "no member of either"),
        (br#"{"LakeFSVersion":"1","DBSchemaVersion":"4"}"#, "record=`0`: invalid type"),
    ] {
        let message = message(file);
        assert!(message.contains(expected), "{}: {message}", file.escape_ascii());
    }
}

#[test]
fn errors_name_the_record_and_the_line() {
    let lines: Vec<_> = SMALL_EXPORT.lines().collect();
    for (second, expected) in [
        ("[\"cA==\",\"aw==\",\"\"]", "record=`2`: invalid type: sequence, expected an entry at line 3"),
        ("{\"PartitionKey\": 5}", "record=`2`: invalid type: integer `5`, expected a string or null at line 3"),
        ("{\"Key\": \"\", \"Key\": \"\"}", "record=`2`: duplicate field `Key` at line 3"),
        ("{\"Key\" \"\"}", "record=`2`: expected `:` at line 3"),
        (",", "record=`2`: expected value at line 3"),
        ("{\"Key\": \"\\ud800\"}", "record=`2`: unexpected end of hex escape at line 3"),
    ] {
        let file = [lines[0], lines[1], second, lines[2]].join("\n");
        let message = message(file.as_bytes());
        assert!(message.contains(expected), "{second}: {message}");
        assert_eq!(read_all(file.as_bytes()).0.len(), 1);
    }
    let not_utf8 = SMALL_DUMP.as_bytes().iter().map(|&byte| if byte == 0xc3 { 0xff } else { byte });
    assert!(message(&not_utf8.collect::<Vec<_>>()).contains("record=`1`: invalid unicode code point at line 1"));
    assert!(message(format!("{SMALL_DUMP}{{}}").as_bytes()).contains("trailing characters at line 2"));
    let twice = SMALL_DUMP.trim_end().replace("]}", r#"],"entries":[]}"#);
    assert!(message(twice.as_bytes()).contains("duplicate field `entries`"));
    let late = br#"{"entries":[{"partition":"p","key":"k","value":""}],"version":"1.1"}"#;
    assert!(message(late).contains("found=`1.1`"));
}

#[test]
fn a_bad_record_is_refused_and_the_rest_goes_on() {
    let header = SMALL_EXPORT.lines().next().unwrap();
    let (p, k) = (Some(Bytes::from("p")), Some(Bytes::from("k")));
    for (entry, partition, key, reason) in [
        (r#"{"Key":"aw==","Value":""}"#, None, k.clone(), "the partition is missing or empty"),
        (
            r#"{"PartitionKey":"","Key":"aw==","Value":""}"#,
            Some("".into()),
            k.clone(),
            "the partition is missing or empty",
        ),
        (r#"{"PartitionKey":"cA==","Key":null,"Value":""}"#, p.clone(), None, "the key is missing or empty"),
        (r#"{"PartitionKey":"cA==","Key":"","Value":""}"#, p.clone(), Some("".into()), "the key is missing or empty"),
        (r#"{"PartitionKey":"cA==","Key":"aw==","Value":null}"#, p.clone(), k.clone(), "the value is missing or null"),
        (r#"{"PartitionKey":"cA==","Key":"aw=="}"#, p.clone(), k.clone(), "the value is missing or null"),
        (r#"{"PartitionKey":"cA==","Key":"aw==","Value":"a"}"#, p.clone(), k.clone(), "not base64, member=`Value`"),
        (r#"{"PartitionKey":"cA","Key":"aw==","Value":""}"#, None, k.clone(), "not base64, member=`PartitionKey`"),
        (r#"{"PartitionKey":"cA==","Key":"-_==","Value":""}"#, p.clone(), None, "not base64, member=`Key`"),
    ] {
        let file = format!("{header}\n{entry}\n{{\"PartitionKey\":\"cA==\",\"Key\":\"aw==\",\"Value\":\"djI=\"}}\n");
        let (items, end) = read_all(file.as_bytes());
        end.unwrap();
        let refused = items[0].clone().unwrap_err();
        assert_eq!((refused.record, refused.partition, refused.key), (1, partition, key), "{entry}");
        assert_eq!(refused.reason.to_string(), reason, "{entry}");
        assert_eq!(refused.reason.source().is_some(), reason.starts_with("not base64"));
        assert_eq!(items[1].clone().unwrap().ordinal, 2);
    }
    let dump = br#"{"version":"1.0","entries":[{"partition":"p","key":"k"},{"partition":"p","key":"k","value":"!"}]}"#;
    let (items, _) = read_all(&dump[..]);
    let reasons: Vec<_> = items.into_iter().map(|item| item.unwrap_err().reason.to_string()).collect();
    assert_eq!(reasons, ["the value is missing or null", "not base64, member=`value`"]);
}

#[test]
fn an_endless_record_is_given_up() {
    let header = SMALL_EXPORT.lines().next().unwrap();
    for start in [r#"{"version":""#, &format!(r#"{header}{{"Key":""#), &format!("{header} "), "", r#"{"a":["#] {
        let filler = if start.ends_with('"') { b'A' } else { b' ' };
        let endless = Cursor::new(start.to_owned()).chain(io::repeat(filler));
        let error = read_all(endless).1.unwrap_err();
        assert!(matches!(error, ReadError::TooLong { limit: RECORD_BYTES_MAX, .. }), "{start}: {error:?}");
    }
    let long = format!(r#"{{"PartitionKey":"cA==","Key":"aw==","Value":"{}"}}"#, "A".repeat(24 << 20));
    assert_eq!(read_good(format!("{header}{long}{long}").as_bytes()).0[1].value.len(), 18 << 20);
}

#[test]
fn a_failed_read_is_no_fault_of_the_file() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    for start in [0, 3, 150, SMALL_EXPORT.len()] {
        let (_, end) = read_all(SMALL_EXPORT.as_bytes()[..start].chain(Broken));
        let error = end.unwrap_err();
        assert!(matches!(error, ReadError::Io { .. }), "{error:?}");
        assert_eq!(Error::from(error).kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn the_receiver_can_stop() {
    #[derive(Debug)]
    struct Stop(Option<u64>);
    impl From<ReadError> for Stop {
        fn from(_: ReadError) -> Stop {
            Stop(None)
        }
    }
    for text in [SMALL_EXPORT, SMALL_DUMP] {
        let end = read(text.as_bytes(), |item| match item.unwrap().ordinal {
            1 => Ok(()),
            ordinal => Err(Stop(Some(ordinal))),
        });
        assert_eq!(end.unwrap_err().0, Some(2));
    }
}

#[test]
fn what_a_dump_cannot_carry_is_refused_and_the_rest_goes_on() {
    let mut writer = Writer::new(Vec::new(), &Header::Dump { timestamp: "t".into() }).unwrap();
    for (partition, key, member) in [(&b"\xff"[..], &b"k"[..], "partition"), (b"p", b"\xc3", "key")] {
        let error = writer.record(partition, key, b"").unwrap_err();
        assert!(matches!(error, WriteError::NotUtf8 { member: found } if found == member));
    }
    writer.record(b"p", b"</a>", b"\xff").unwrap();
    let expected =
        r#"{"version":"1.0","timestamp":"t","entries":[{"partition":"p","key":"\u003c/a\u003e","value":"/w=="}]}"#;
    assert_eq!(String::from_utf8(writer.finish().unwrap()).unwrap(), format!("{expected}\n"));
}

#[test]
fn times_have_whole_seconds() {
    assert_eq!(rfc3339_seconds(Timestamp(1_795_340_507_999_999)), "2026-11-22T09:41:47Z");
    assert_eq!(rfc3339_seconds(Timestamp(0)), "1970-01-01T00:00:00Z");
}

fn part() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        "[\\PC\u{0}-\u{1f}<>&\u{2028}\u{2029}\"\\\\]{1,8}".prop_map(Bytes::from),
        prop::collection::vec(any::<u8>(), 1..8).prop_map(Bytes::from),
    ]
}

proptest! {
    #[test]
    fn records_come_back(
        parts in prop::collection::vec((part(), part(), prop::collection::vec(any::<u8>(), 0..8)), 0..6),
        name in "\\PC{1,4}",
        schema_version in any::<i64>(),
    ) {
        let export = ExportHeader { lakefs_version: name.clone(), schema_version, ..ExportHeader::default() };
        for header in [Header::Export(export), Header::Dump { timestamp: name.clone() }] {
            let mut writer = Writer::new(Vec::new(), &header).unwrap();
            let mut records = Vec::new();
            for (partition, key, value) in &parts {
                if writer.record(partition, key, value).is_ok() {
                    let (ordinal, value) = (records.len() as u64 + 1, value.clone().into());
                    records.push(Record { ordinal, partition: partition.clone(), key: key.clone(), value });
                }
            }
            let bytes = writer.finish().unwrap();
            prop_assert_eq!(read_good(&bytes[..]), (records, header));
        }
    }

    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        packing in 0..3,
    ) {
        for text in [SMALL_EXPORT, SMALL_DUMP] {
            let mut file = match packing {
                0 => text.as_bytes().to_vec(),
                1 => zstd(text.as_bytes()),
                _ => gzip(text.as_bytes()),
            };
            for (at, byte) in &changes {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            read_all(&file[..]).1.ok();
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        read_all(&bytes[..]).1.ok();
    }
}
