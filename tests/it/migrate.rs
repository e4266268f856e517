//! Real lakeFS stores into a store and out again, byte for byte, also after an import that was cut off.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lakelog::backends::MemoryBackend;
use lakelog::migrate::{
    ExportFormat, ExportReport, Header, ImportOptions, ImportReport, ReadError, Record, Writer, export, import, read,
};
use lakelog::{Batch, Context, Digest, ErrorKind, Position, RequestId, Settings, Store, Timestamp};

const CREATED: Timestamp = Timestamp(1_795_305_600_000_000);
const ALL: [(&str, usize); 8] = [
    ("kv-small/full.ndjson.zst", 2_076),
    ("kv-small/kv-dump.json", 25),
    ("kv-small/kv-dump-repo.json", 64),
    ("kv-medium/full.ndjson.zst", 19_209),
    ("kv-medium/kv-dump.json", 31),
    ("kv-medium/kv-dump-repo.json", 247),
    ("legacy-small/kv-0.80.2.ndjson.zst", 2_215),
    ("legacy-medium/kv-0.80.2.ndjson.zst", 19_681),
];
const SMALL: &str = "kv-small/full.ndjson.zst";
const MEDIUM: &str = "kv-medium/full.ndjson.zst";

type Entries = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn plain(name: &str) -> Vec<u8> {
    let file = fixture(name);
    if name.ends_with(".zst") { zstd::decode_all(&file[..]).unwrap() } else { file }
}

fn records(file: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    read::<ReadError>(file, |item| {
        records.push(item.unwrap());
        Ok(())
    })
    .unwrap();
    records
}

fn entries_of(file: &[u8]) -> Entries {
    let pairs = records(file).into_iter();
    pairs.map(|record| ((record.partition.to_vec(), record.key.to_vec()), record.value.to_vec())).collect()
}

/// A store on real files that can be left and opened again. Its memory is small, so checkpoints happen on the way.
struct World {
    _dir: tempfile::TempDir,
    path: PathBuf,
    backend: MemoryBackend,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        World { _dir: dir, path, backend: MemoryBackend::new() }
    }

    async fn open(&self) -> Store {
        let settings = Settings {
            segment_bytes: 1 << 20,
            min_free_bytes: Some(0),
            memtable_soft_bytes: 256 << 10,
            memtable_hard_bytes: 4 << 20,
            ..Settings::default()
        };
        let backend = Arc::new(self.backend.clone());
        let builder = Store::builder(&self.path).settings(settings).with_backend(backend);
        // A store that was dropped gives its lock back a moment later.
        loop {
            match builder.clone().open_or_create().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                opened => return opened.unwrap(),
            }
        }
    }
}

fn me() -> Context {
    Context::new("test")
}

async fn bring(store: &Store, file: Vec<u8>, options: ImportOptions) -> lakelog::Result<ImportReport> {
    import(store, me(), Cursor::new(file), options, |_| {}).await
}

async fn import_all(store: &Store, file: Vec<u8>) -> ImportReport {
    bring(store, file, ImportOptions::default()).await.unwrap()
}

async fn taken_out(store: &Store, format: ExportFormat) -> (Vec<u8>, ExportReport) {
    let mut out = Vec::new();
    let report = export(&store.reader(), &mut out, format, false, CREATED, |_| {}).await.unwrap();
    (out, report)
}

async fn entries(store: &Store) -> Entries {
    let mut found = Entries::new();
    let mut stream = store.reader().scan_all(false);
    while let Some(entry) = stream.next().await {
        let entry = entry.unwrap();
        found.insert((entry.partition(), entry.key().to_vec()), entry.value.to_vec());
    }
    found
}

fn after_header(file: &[u8]) -> &[u8] {
    let end = file.iter().position(|&byte| byte == b'\n').unwrap();
    &file[end + 1..]
}

fn ndjson(records: &[(&str, &str, &str)]) -> Vec<u8> {
    let header = Header::Export(lakelog::migrate::ExportHeader { package_name: "all".into(), ..Default::default() });
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    for (partition, key, value) in records {
        writer.record(partition.as_bytes(), key.as_bytes(), value.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

#[tokio::test]
async fn every_real_file_goes_in_and_comes_out_byte_for_byte() {
    for (name, count) in ALL {
        let world = World::new();
        let store = world.open().await;
        let report = import_all(&store, fixture(name)).await;
        assert_eq!((report.entries, report.already, report.refused), (count as u64, 0, 0), "{name}");
        assert_eq!(report.partitions.values().sum::<u64>(), count as u64, "{name}");
        assert_eq!(report.head, store.head(), "{name}");
        let file = plain(name);
        let expected = entries_of(&file);
        assert!(entries(&store).await == expected, "{name}");
        // The pieces that `kv dump` prints are parts of the complete export.
        if !name.starts_with("legacy") {
            let full = entries_of(&plain(&name.replace(name.rsplit('/').next().unwrap(), "full.ndjson.zst")));
            assert!(expected.iter().all(|(key, value)| full.get(key) == Some(value)), "{name}");
        }
        store.close().await.unwrap();
        drop(store);

        let store = world.open().await;
        let (out, report) = taken_out(&store, ExportFormat::Ndjson).await;
        assert_eq!((report.entries, report.refused), (count as u64, 0), "{name}");
        if name.ends_with(".zst") {
            assert!(after_header(&out) == after_header(&file), "{name}");
        }
        assert!(entries_of(&out) == expected, "{name}");
        let (out, report) = taken_out(&store, ExportFormat::KvDump).await;
        assert_eq!((report.entries, report.refused), (count as u64, 0), "{name}");
        let second = World::new();
        let copy = second.open().await;
        import_all(&copy, out).await;
        assert!(entries(&copy).await == expected, "{name}");
    }
}

#[tokio::test]
async fn the_header_says_what_the_entries_say() {
    let world = World::new();
    let store = world.open().await;
    let head = |out: &[u8]| String::from_utf8(out[..out.len() - after_header(out).len()].to_vec()).unwrap();
    let (out, _) = taken_out(&store, ExportFormat::Ndjson).await;
    let empty =
        r#"{"LakeFSVersion": "", "PackageName": "all", "DBSchemaVersion": 0, "CreatedAt": "2026-11-22T00:00:00Z"}"#;
    assert_eq!(head(&out).trim_end(), empty);
    // It is a file that an import takes.
    assert_eq!(import_all(&store, out).await, ImportReport::default());
    import_all(&store, fixture(SMALL)).await;
    let (out, _) = taken_out(&store, ExportFormat::Ndjson).await;
    let full =
        r#"{"LakeFSVersion": "dev", "PackageName": "all", "DBSchemaVersion": 4, "CreatedAt": "2026-11-22T00:00:00Z"}"#;
    assert_eq!(head(&out).trim_end(), full);
}

#[tokio::test]
async fn a_second_import_changes_nothing() {
    let world = World::new();
    let store = world.open().await;
    let first = import_all(&store, fixture(SMALL)).await;
    assert_eq!(first.transactions, 3);
    let again = import_all(&store, fixture(SMALL)).await;
    assert_eq!((again.entries, again.already, again.transactions), (0, 2_076, 0));
    assert_eq!((again.head, again.partitions.len()), (first.head, 0));
    assert_eq!(store.head(), first.head);
}

#[tokio::test]
async fn an_import_that_was_cut_off_is_completed_by_another() {
    let expected = entries_of(&plain(MEDIUM));
    for transactions in [1, 5, 12] {
        let world = World::new();
        let store = world.open().await;
        let (enough, cut) = tokio::sync::oneshot::channel();
        let (mut seen, mut enough) = (0, Some(enough));
        let progress = |_| {
            seen += 1;
            if seen == transactions
                && let Some(enough) = enough.take()
            {
                enough.send(()).unwrap();
            }
        };
        let running = import(&store, me(), Cursor::new(fixture(MEDIUM)), ImportOptions::default(), progress);
        tokio::select! {
            biased;
            _ = cut => {}
            done = running => panic!("the import ended before it was cut off: {done:?}"),
        }
        // Neither the import is waited for nor the store closed.
        drop(store);
        let store = world.open().await;
        let before = entries(&store).await;
        assert!(before.len() >= transactions * 1_000 && before.len() < expected.len());
        assert!(before.iter().all(|(key, value)| expected.get(key) == Some(value)));
        let report = import_all(&store, fixture(MEDIUM)).await;
        assert_eq!(report.already as usize, before.len());
        assert_eq!(report.entries as usize, expected.len() - before.len());
        assert!(entries(&store).await == expected);
        let (out, _) = taken_out(&store, ExportFormat::Ndjson).await;
        assert!(after_header(&out) == after_header(&plain(MEDIUM)));
    }
}

#[tokio::test]
async fn other_bytes_are_a_conflict_unless_overwritten() {
    let world = World::new();
    let store = world.open().await;
    store.write(me(), Batch::new().set(b"p", b"same", b"v").set(b"p", b"other", b"mine")).await.unwrap();
    let file = ndjson(&[("p", "new", "v"), ("p", "other", "theirs"), ("p", "same", "v")]);
    let report = import_all(&store, file.clone()).await;
    assert_eq!((report.entries, report.already, report.refused, report.transactions), (1, 1, 1, 1));
    let refused = &report.refusals[0];
    assert_eq!((refused.record, refused.key.as_deref()), (2, Some(&b"other"[..])));
    assert!(refused.reason.starts_with("conflict"), "{refused:?}");
    assert_eq!(&store.get(b"p", b"other").await.unwrap().unwrap().value[..], b"mine");
    let overwrite = ImportOptions { overwrite: true, ..ImportOptions::default() };
    let report = bring(&store, file, overwrite).await.unwrap();
    assert_eq!((report.entries, report.already, report.refused), (1, 2, 0));
    assert_eq!(&store.get(b"p", b"other").await.unwrap().unwrap().value[..], b"theirs");
}

/// Keys that come twice, near together and batches apart.
fn with_duplicates() -> Vec<u8> {
    let names: Vec<String> = (0..5_000).map(|n| format!("k{:05}", n % 1_900)).collect();
    let values: Vec<String> =
        (0..5_000).map(|n| if n % 3 == 0 { n.to_string() } else { (n % 1_900).to_string() }).collect();
    let records: Vec<_> = names.iter().zip(&values).map(|(name, value)| ("p", name.as_str(), value.as_str())).collect();
    ndjson(&records)
}

#[tokio::test]
async fn of_two_records_for_one_key_the_first_wins_and_with_overwrite_the_last() {
    let file = with_duplicates();
    let (mut first, mut last, mut refused) = (Entries::new(), Entries::new(), Vec::new());
    for record in records(&file) {
        let key = (record.partition.to_vec(), record.key.to_vec());
        if first.entry(key.clone()).or_insert(record.value.to_vec())[..] != record.value[..] {
            refused.push(record.ordinal);
        }
        last.insert(key, record.value.to_vec());
    }
    for overwrite in [false, true] {
        let world = World::new();
        let store = world.open().await;
        let dry_run = ImportOptions { overwrite, dry_run: true };
        let foretold = bring(&store, file.clone(), dry_run).await.unwrap();
        assert_eq!(store.head(), Position::ZERO);
        let report = bring(&store, file.clone(), ImportOptions { overwrite, dry_run: false }).await.unwrap();
        assert_eq!(foretold, ImportReport { head: Position::ZERO, ..report.clone() });
        assert!(entries(&store).await == if overwrite { last.clone() } else { first.clone() });
        let named: Vec<u64> = report.refusals.iter().map(|refused| refused.record).collect();
        assert_eq!(named, if overwrite { Vec::new() } else { refused.clone() });
        assert_eq!(report.entries + report.already + report.refused, 5_000);
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_by_name_and_holds_up_nothing() {
    let world = World::new();
    let store = world.open().await;
    let long = "k".repeat(2_600);
    let mut file = ndjson(&[("p", "a", "v"), ("\0own", "k", "v"), ("p", &long, "v")]);
    file.extend_from_slice(b"{\"PartitionKey\": \"cA==\", \"Key\": \"!\", \"Value\": \"\"}\n");
    file.extend_from_slice(b"{\"PartitionKey\": \"cA==\", \"Key\": \"Yg==\", \"Value\": \"\"}\n");
    let report = import_all(&store, file).await;
    assert_eq!((report.entries, report.refused), (2, 3));
    let named: Vec<_> = report.refusals.iter().map(|refused| (refused.record, refused.reason.as_str())).collect();
    assert_eq!(named.iter().map(|(record, _)| *record).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(named[0].1.contains("belongs to the store itself"), "{named:?}");
    assert!(named[1].1.contains("too long"), "{named:?}");
    assert!(named[2].1.contains("base64"), "{named:?}");
    assert_eq!(entries(&store).await.len(), 2);
}

#[tokio::test]
async fn bad_files_are_invalid_and_what_was_whole_stays() {
    let world = World::new();
    let store = world.open().await;
    for file in [&b""[..], b"[1]", b"{\"a\":1}", b"hello"] {
        let error = bring(&store, file.to_vec(), ImportOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
    assert_eq!(store.head(), Position::ZERO);
    let whole = plain(MEDIUM);
    let cut = whole[..whole.len() - 100].to_vec();
    let error = bring(&store, cut, ImportOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("record=`19209`"), "{error:?}");
    let report = import_all(&store, whole.clone()).await;
    assert!(report.already >= 18_000, "{report:?}");
    assert!(entries(&store).await == entries_of(&whole));
    let request = RequestId { id: "r".into(), digest: Digest([0; 32]) };
    let requested = import(&store, me().request(request), io::empty(), ImportOptions::default(), |_| {}).await;
    assert_eq!(requested.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Gives an error of the operating system after some bytes.
struct Failing(Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::from_raw_os_error(5)),
            read => Ok(read),
        }
    }
}

#[tokio::test]
async fn failed_reads_and_writes_are_named() {
    let world = World::new();
    let store = world.open().await;
    let half = plain(SMALL)[..100_000].to_vec();
    let failed = import(&store, me(), Failing(Cursor::new(half)), ImportOptions::default(), |_| {}).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
    import_all(&store, fixture(SMALL)).await;
    let mut short = [0; 1_000];
    let failed = export(&store.reader(), &mut short[..], ExportFormat::Ndjson, false, CREATED, |_| {}).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_kv_dump_leaves_out_what_is_no_text_and_names_it() {
    let world = World::new();
    let store = world.open().await;
    store
        .write(me(), Batch::new().set(b"p", b"\xff", b"v").set(b"p", b"text", b"\xff").set(b"\xfe", b"k", b""))
        .await
        .unwrap();
    let (out, report) = taken_out(&store, ExportFormat::KvDump).await;
    assert_eq!((report.entries, report.refused), (1, 2));
    assert_eq!((&report.refusals[0].key[..], &report.refusals[1].partition[..]), (&b"\xff"[..], &b"\xfe"[..]));
    assert_eq!(records(&out).len(), 1);
    let (out, report) = taken_out(&store, ExportFormat::Ndjson).await;
    assert_eq!((report.entries, report.refused), (3, 0));
    assert!(entries_of(&out) == entries(&store).await);
}

#[tokio::test]
async fn others_write_meanwhile_and_nothing_of_theirs_is_lost() {
    let world = World::new();
    let store = world.open().await;
    let expected = entries_of(&plain(SMALL));
    let contested: Vec<_> = expected.keys().step_by(20).cloned().collect();
    let writer = {
        let (store, contested) = (store.clone(), contested.clone());
        tokio::spawn(async move {
            for (partition, key) in contested {
                store.write(me(), Batch::new().set(&partition, &key, b"mine")).await.unwrap();
            }
        })
    };
    let report = import_all(&store, fixture(SMALL)).await;
    writer.await.unwrap();
    assert_eq!(report.entries + report.refused, 2_076);
    let found = entries(&store).await;
    for (key, value) in &expected {
        let mine = contested.contains(key);
        assert_eq!(found[key] == b"mine", mine, "{key:?}");
        assert!(mine || found[key] == *value, "{key:?}");
    }
}
