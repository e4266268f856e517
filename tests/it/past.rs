//! The past over real data and the embedded base, and as a script sees it.

use std::collections::BTreeMap;
use std::path::Path;

use lakelog::migrate::{ImportOptions, import};
use lakelog::{Batch, Context, DiffOptions, Position, ScanOptions, Settings, Store};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::cli::Shell;

type Entries = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

/// Checkpoints and merges happen all the time.
fn settings() -> Settings {
    Settings { memtable_soft_bytes: 256 << 10, segment_bytes: 1 << 20, ..Settings::default() }
}

async fn open(dir: &Path) -> Store {
    Store::builder(dir.join("store")).settings(settings()).open_or_create().await.unwrap()
}

async fn entries(store: &Store, position: Position) -> Entries {
    let mut stream = store.at(position).await.unwrap().scan_all(false);
    let mut entries = Entries::new();
    while let Some(entry) = stream.next().await {
        let entry = entry.unwrap();
        entries.insert((entry.partition(), entry.key().to_vec()), entry.value.to_vec());
    }
    entries
}

/// A real lakeFS store, then thousands of edits of it: every state that was noted on the way is what it was, from memory, from the
/// base, after a reopen, and what differs between two of them is told from the changes alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_history_of_real_data_reads_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kv-small/full.ndjson.zst");
    let mut store = open(dir.path()).await;
    let file = std::fs::File::open(file).unwrap();
    let report = import(&store, Context::new("import"), file, ImportOptions::default(), |_| {}).await.unwrap();
    assert_eq!(report.entries, 2_076);
    let mut now = entries(&store, store.head()).await;
    let mut noted: BTreeMap<Position, Entries> = BTreeMap::from([(store.head(), now.clone())]);
    let mut rng = StdRng::seed_from_u64(4);
    for round in 0..3_000u32 {
        let keys: Vec<_> = now.keys().cloned().collect();
        let mut batch = Batch::new();
        if round % 211 == 210 {
            // What deleting a repository or a branch does: a range goes at once.
            let (partition, key) = &keys[rng.random_range(0..keys.len())];
            let prefix = key[..key.len() / 2].to_vec();
            now.retain(|(own, key), _| own != partition || !key.starts_with(&prefix));
            batch = batch.delete_range(partition, &prefix);
        }
        let mut touched = BTreeMap::new();
        for _ in 0..rng.random_range(1..6) {
            // A few keys change over and over, as branches do.
            let at = if rng.random_bool(0.5) { rng.random_range(0..20) } else { rng.random_range(0..keys.len()) };
            let (partition, mut key) = keys[at.min(keys.len() - 1)].clone();
            if rng.random_bool(0.2) {
                key.extend_from_slice(format!("-{round}").as_bytes());
            }
            let value = rng.random_bool(0.8).then(|| vec![round as u8; rng.random_range(0..300)]);
            touched.insert((partition, key), value);
        }
        for ((partition, key), value) in touched {
            batch = match &value {
                Some(value) => batch.set(&partition, &key, value),
                None => batch.delete(&partition, &key),
            };
            match value {
                Some(value) => drop(now.insert((partition, key), value)),
                None => drop(now.remove(&(partition, key))),
            }
        }
        let done = store.write(Context::new("edit"), batch).await.unwrap();
        if round % 150 == 0 {
            noted.insert(done.position, now.clone());
        }
        if round % 1_000 == 999 {
            store.close().await.unwrap();
            store = open(dir.path()).await;
        }
    }
    noted.insert(store.head(), now);
    for _ in 0..2 {
        for (position, expected) in &noted {
            assert!(entries(&store, *position).await == *expected, "as of {position}");
        }
        let positions: Vec<Position> = noted.keys().copied().collect();
        for pair in positions.windows(3) {
            let mut differences = store.diff(pair[0], pair[2], DiffOptions::new()).await.unwrap();
            let mut becomes = noted[&pair[0]].clone();
            while let Some(difference) = differences.next().await {
                let difference = difference.unwrap();
                let at = (difference.partition(), difference.key().to_vec());
                assert_eq!(becomes.get(&at), difference.old.map(|entry| entry.value.to_vec()).as_ref());
                match difference.new {
                    Some(entry) => drop(becomes.insert(at, entry.value.to_vec())),
                    None => drop(becomes.remove(&at)),
                }
            }
            assert!(becomes == noted[&pair[2]], "from {} to {}", pair[0], pair[2]);
        }
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
        store = open(dir.path()).await;
    }
    // Back to the beginning, all of it, and then that is undone.
    let (first, before) = (*noted.keys().next().unwrap(), store.head());
    let partitions: Vec<Vec<u8>> = noted[&first].keys().chain(noted[&before].keys()).map(|(p, _)| p.clone()).collect();
    let mut scope: Vec<(&[u8], &[u8])> = partitions.iter().map(|partition| (&partition[..], &b""[..])).collect();
    scope.sort_unstable();
    scope.dedup();
    let rewound = store.rewind(Context::new("operator"), &scope, first).await.unwrap();
    assert!(rewound.answer.restored > 0 && rewound.answer.removed > 0);
    assert!(entries(&store, rewound.position).await == noted[&first]);
    let undone = store.undo(Context::new("operator"), rewound.position, rewound.position).await;
    // Heartbeats and leases of a lakeFS are operational: they are not undone.
    let position = undone.unwrap().position;
    let record = |entries: &Entries| -> Entries {
        let operational = |partition: &[u8]| [&b"catalog"[..], b"mc-ownership", b"usage"].contains(&partition);
        entries.iter().filter(|((p, _), _)| !operational(p)).map(|(at, value)| (at.clone(), value.clone())).collect()
    };
    assert!(record(&entries(&store, position).await) == record(&noted[&before]));
    store.close().await.unwrap();
}

/// A reader of the past keeps its position while everything goes on, and a scan in it crosses checkpoints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_the_past_is_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let key = |number: u32| format!("{number:06}").into_bytes();
    for chunk in 0..10 {
        let numbers = chunk * 500..(chunk + 1) * 500;
        let batch = numbers.fold(Batch::new(), |batch, number| batch.set(b"p", &key(number), b"old"));
        store.write(Context::new("t"), batch).await.unwrap();
    }
    let then = store.at(store.head()).await.unwrap();
    let mut scan = then.scan(ScanOptions::new(b"p").batch(7)).unwrap();
    for number in 0..5_000 {
        if number % 100 == 0 {
            let numbers = number..number + 100;
            let batch = numbers.fold(Batch::new(), |batch, number| batch.set(b"p", &key(number), b"new"));
            store.write(Context::new("t"), batch.delete_range(b"p", &key(number)[..3])).await.unwrap();
        }
        if number % 900 == 0 {
            store.checkpoint().await.unwrap();
        }
        let entry = scan.next().await.unwrap().unwrap();
        assert_eq!((entry.key().to_vec(), &entry.value[..]), (key(number), &b"old"[..]));
        assert_eq!(then.get(b"p", &key(4_999 - number)).await.unwrap().unwrap().value[..], b"old"[..]);
    }
    assert!(scan.next().await.is_none());
    store.close().await.unwrap();
}

#[test]
fn scripts_read_the_past_and_bring_it_back() {
    let shell = Shell::with_store();
    shell.ok(&["set", "p", "a", "one", "--actor", "ann", "--reason", "first"]);
    shell.ok(&["set", "p", "b", "two", "--actor", "ann"]);
    shell.ok(&["mark", "good"]);
    shell.ok(&["set", "p", "a", "changed", "--actor", "bob"]);
    shell.ok(&["delete-range", "p", "--actor", "bob"]);
    assert_eq!(shell.ok(&["get", "p", "a", "--at", "1"]), b"one");
    assert_eq!(shell.ok(&["get", "p", "a", "--at", "4"]), b"changed");
    assert_eq!(shell.json(&["scan", "p", "--at", "good"]).len(), 2);
    shell.fails(&["get", "p", "b", "--at", "1"], 3, "not_found");
    shell.fails(&["get", "p", "a", "--at", "99"], 2, "invalid");
    shell.fails(&["get", "p", "a", "--at", "nosuchmark"], 3, "not_found");
    let history = shell.json(&["history", "p", "a"]);
    let told: Vec<_> = history.iter().map(|v| json!([v["position"], v["actor"], v["deleted"], v["value"]])).collect();
    let expected =
        [json!([1, "ann", false, "b25l"]), json!([4, "bob", false, "Y2hhbmdlZA=="]), json!([5, "bob", true, null])];
    assert_eq!(told, expected);
    assert_eq!(history[0]["reason"], "first");
    assert_eq!(shell.json(&["history", "p", "--prefix", "", "--at", "2"]).len(), 2);
    shell.fails(&["history", "p", "never"], 3, "not_found");
    let difference = |key: &str, change: &str, old: Option<&str>, new: Option<&str>| json!({"partition": "p", "key": key, "change": change, "old": old, "new": new});
    assert_eq!(
        shell.json(&["diff", "1", "4"]),
        [difference("a", "changed", Some("b25l"), Some("Y2hhbmdlZA==")), difference("b", "added", None, Some("dHdv")),]
    );
    assert_eq!(
        shell.json(&["diff", "good", "5", "--partition", "p", "--prefix", "b"]),
        [difference("b", "removed", Some("dHdv"), None)]
    );
    assert_eq!(shell.json(&["diff", "3", "2"]), [] as [serde_json::Value; 0]);
    // 4 cannot be undone alone: 5 deleted what it wrote.
    shell.fails(&["undo", "4"], 4, "conflict");
    let plan = shell.run(&["--json", "undo", "4", "--dry-run"]);
    assert_eq!(plan.status.code(), Some(4));
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["dependents"], json!([{"position": 5, "partition": "p", "key": ""}]));
    assert_eq!(shell.json(&["undo", "5"]), [json!({"position": 6})]);
    assert_eq!(shell.ok(&["get", "p", "a"]), b"changed");
    // Undone already.
    shell.fails(&["undo", "5"], 4, "conflict");
    assert_eq!(shell.json(&["undo", "6", "--reason", "no, after all"]), [json!({"position": 7})]);
    shell.fails(&["get", "p", "a"], 3, "not_found");
    let counted = shell.json(&["rewind", "--to", "good", "--partition", "p", "--dry-run"]);
    assert_eq!(counted, [json!({"position": null, "restored": 2, "removed": 0})]);
    let rewound = shell.json(&["rewind", "--to", "good", "--partition", "p"]);
    assert_eq!(rewound, [json!({"position": 8, "restored": 2, "removed": 0})]);
    assert_eq!(shell.ok(&["get", "p", "a"]), b"one");
    shell.fails(&["undo", "0"], 2, "invalid");
    shell.fails(&["undo", "99"], 2, "invalid");
    shell.fails(&["rewind", "--to", "99", "--partition", "p"], 2, "invalid");
    let export = |at: &str| shell.ok(&["export", "--at", at]).iter().filter(|byte| **byte == b'\n').count();
    assert!(export("4") > export("5"));
}
