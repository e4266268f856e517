//! The figures of `docs/sizing.md`, printed as the tables that stand there:
//! `cargo test --release --all-features --test it -- sizing:: --ignored --nocapture`.

#![allow(clippy::print_stdout, reason = "its figures are what it is for")]

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use lakelog::diagnostics::FileStats;
use lakelog::dump::{DumpOptions, dump};
use lakelog::log::LogFiles;
use lakelog::migrate::{ImportOptions, import};
use lakelog::{Batch, Context, Durability, Env, PostgresSettings, Settings, Store};

use crate::postgres_server::Server;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kv-medium/full.ndjson.zst");

/// Changes after the import, each a transaction.
const CHANGES: u64 = 50_000;

/// What a store takes at one moment, in bytes.
struct Sizes {
    log: u64,
    base: u64,
    /// Of recent writes, before the checkpoint.
    memory: u64,
    /// Of recent writes and the base's caches, after it.
    memory_after: u64,
}

/// Bytes of the files below a folder, as the disk keeps them.
fn on_disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { on_disk(&entry.path()) } else { entry.metadata().unwrap().blocks() * 512 }
            },
        )
        .sum()
}

async fn measure(store: &Store, dir: &Path) -> Sizes {
    let memory = store.stats().await.unwrap().memory_bytes;
    store.checkpoint().await.unwrap();
    // The base merges in the background: what counts is where it comes to rest.
    let mut base = 0;
    while base != on_disk(&dir.join("base")) {
        base = on_disk(&dir.join("base"));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let log = FileStats::read(&Env::os(), dir).unwrap().log_bytes;
    Sizes { log, base, memory, memory_after: store.stats().await.unwrap().memory_bytes }
}

fn dump_bytes(dir: &Path, compress: bool) -> u64 {
    let files = LogFiles::open(&Env::os(), &dir.join("log")).unwrap();
    let options = DumpOptions { compress, ..DumpOptions::default() };
    dump(&Env::os(), &files, options, std::io::sink(), "dump", &mut |_, _| {}).unwrap().1.bytes
}

async fn state_bytes(store: &Store) -> u64 {
    store.dump_state(None, std::io::sink(), "state", true).await.unwrap().1.bytes
}

/// Partition, key and value.
type Filled = Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>;

fn settings(history: bool) -> Settings {
    Settings { history, durability: Durability::None, checkpoint_log_bytes: u64::MAX, ..Settings::default() }
}

/// Imports the fixture, and says what is in it.
async fn fill(store: &Store) -> Filled {
    let input = File::open(FIXTURE).unwrap();
    import(store, Context::new("sizing"), input, ImportOptions::default(), |_| {}).await.unwrap();
    let mut entries = Vec::new();
    let mut stream = store.reader().scan_all(false);
    while let Some(entry) = stream.next().await {
        let entry = entry.unwrap();
        entries.push((entry.partition().to_vec(), entry.key().to_vec(), entry.value.to_vec()));
    }
    entries
}

/// Gives random entries new values, each in a transaction; says how many bytes of key and value that were.
async fn change(store: &Store, entries: &mut Filled) -> u64 {
    // A xorshift: the same changes in every run. Each gives a random entry a new value of the same length.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut bytes = 0;
    for _ in 0..CHANGES {
        let index = (next() % entries.len() as u64) as usize;
        let (partition, key, value) = &mut entries[index];
        // An eighth of it differs, as in a record with another time and address.
        for _ in 0..value.len().div_ceil(8) {
            let at = next() as usize % value.len();
            value[at] = next() as u8;
        }
        bytes += (partition.len() + key.len() + value.len()) as u64;
        store.write(Context::new("sizing"), Batch::new().set(partition, key, value)).await.unwrap();
    }
    bytes
}

fn row(what: &str, bytes: u64, by: u64) {
    println!("| {what} | {bytes} | {:.0} |", bytes as f64 / by as f64);
}

/// Bytes of tables and of their indexes.
#[derive(Clone, Copy)]
struct Tables {
    live: [u64; 2],
    superseded: [u64; 2],
}

impl Tables {
    fn measure(database: &str) -> Tables {
        let sizes = |table: &str| {
            let sizes = format!("select pg_table_size('lakelog.{table}'), pg_indexes_size('lakelog.{table}')");
            let answer = Server::shared().sql(database, &sizes);
            let mut sizes = answer.split('|').map(|bytes| bytes.parse().unwrap());
            [sizes.next().unwrap(), sizes.next().unwrap()]
        };
        Tables { live: sizes("live"), superseded: sizes("superseded") }
    }

    fn print(&self, by: u64) {
        row("live, table", self.live[0], by);
        row("live, index", self.live[1], by);
        row("superseded, table", self.superseded[0], by);
        row("superseded, index", self.superseded[1], by);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; nothing to pass"]
async fn figures_of_postgres() {
    for history in [true, false] {
        let tempdir = tempfile::tempdir().unwrap();
        let url = Server::shared().database();
        let database = url.rsplit('/').next().unwrap();
        let builder = Store::builder(tempdir.path().join("store")).settings(settings(history));
        let store = builder.with_postgres(PostgresSettings::new(&url).unwrap()).create().await.unwrap();
        let mut entries = fill(&store).await;
        store.checkpoint().await.unwrap();
        let rows: u64 = Server::shared().sql(database, "select count(*) from lakelog.live").parse().unwrap();
        println!("\nhistory {history}: {} entries, {rows} rows; bytes, and an entry's", entries.len());
        Tables::measure(database).print(entries.len() as u64);
        for round in 1..=4 {
            change(&store, &mut entries).await;
            store.checkpoint().await.unwrap();
            println!("after {round} times {CHANGES} changes; bytes, and a change's");
            Tables::measure(database).print(CHANGES * round);
            // As the server does by itself, at times of its own.
            for table in ["live", "superseded"] {
                Server::shared().sql(database, &format!("vacuum lakelog.{table}"));
            }
        }
        for table in ["live", "superseded"] {
            Server::shared().sql(database, &format!("vacuum full lakelog.{table}"));
        }
        println!("after vacuum full");
        Tables::measure(database).print(CHANGES * 4);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; nothing to pass"]
async fn figures() {
    for history in [true, false] {
        let tempdir = tempfile::tempdir().unwrap();
        let dir = tempdir.path().join("store");
        let store = Store::builder(&dir).settings(settings(history)).create().await.unwrap();
        let mut entries = fill(&store).await;
        let keys: u64 = entries.iter().map(|(partition, key, _)| (partition.len() + key.len()) as u64).sum();
        let values: u64 = entries.iter().map(|(_, _, value)| value.len() as u64).sum();
        let count = entries.len() as u64;
        let imported = measure(&store, &dir).await;
        let (full, plain, state) = (dump_bytes(&dir, true), dump_bytes(&dir, false), state_bytes(&store).await);
        println!(
            "\nhistory {history}: {count} entries, {} B of key and {} B of value each",
            keys / count,
            values / count
        );
        println!("| imported | bytes | an entry |\n|---|---|---|");
        row("log", imported.log, count);
        row("base", imported.base, count);
        row("memory before the checkpoint", imported.memory, count);
        row("memory after it", imported.memory_after, count);
        row("full dump, not compressed", plain, count);
        row("full dump, zstd", full, count);
        row("state-only dump, zstd", state, count);

        let bytes = change(&store, &mut entries).await;
        let changed = measure(&store, &dir).await;
        println!("\n{CHANGES} changes of {} B of key and value each", bytes / CHANGES);
        println!("| changed | bytes | a change |\n|---|---|---|");
        row("log", changed.log - imported.log, CHANGES);
        row("base", changed.base.saturating_sub(imported.base), CHANGES);
        row("memory before the checkpoint", changed.memory.saturating_sub(imported.memory_after), CHANGES);
        row("full dump, not compressed", dump_bytes(&dir, false) - plain, CHANGES);
        row("full dump, zstd", dump_bytes(&dir, true) - full, CHANGES);
        println!("state-only dump, zstd: {state} bytes before, {} after", state_bytes(&store).await);
        store.close().await.unwrap();
    }
}
