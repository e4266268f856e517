//! The figures of `docs/sizing.md`, printed as the table that stands there:
//! `cargo test --release --all-features --test it -- sizing:: --ignored --nocapture`.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use lakelog::diagnostics::FileStats;
use lakelog::dump::{DumpOptions, dump};
use lakelog::log::LogFiles;
use lakelog::migrate::{ImportOptions, import};
use lakelog::{Batch, Context, Durability, Env, Settings, Store};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; nothing to pass"]
async fn figures() {
    for history in [true, false] {
        let tempdir = tempfile::tempdir().unwrap();
        let dir = tempdir.path().join("store");
        let settings =
            Settings { history, durability: Durability::None, checkpoint_log_bytes: u64::MAX, ..Settings::default() };
        let store = Store::builder(&dir).settings(settings).create().await.unwrap();
        let input = File::open(FIXTURE).unwrap();
        import(&store, Context::new("sizing"), input, ImportOptions::default(), |_| {}).await.unwrap();
        let mut entries = Vec::new();
        let (mut keys, mut values) = (0, 0);
        let mut stream = store.reader().scan_all(false);
        while let Some(entry) = stream.next().await {
            let entry = entry.unwrap();
            keys += (entry.partition().len() + entry.key().len()) as u64;
            values += entry.value.len() as u64;
            entries.push((entry.partition(), entry.key().to_vec(), entry.value.to_vec()));
        }
        drop(stream);
        let count = entries.len() as u64;
        let imported = measure(&store, &dir).await;
        let (full, plain, state) = (dump_bytes(&dir, true), dump_bytes(&dir, false), state_bytes(&store).await);
        println!(
            "\nhistory {history}: {count} entries, {} B of key and {} B of value each",
            keys / count,
            values / count
        );
        let row = |what: &str, bytes: u64, by: u64| println!("| {what} | {bytes} | {:.0} |", bytes as f64 / by as f64);
        println!("| imported | bytes | an entry |\n|---|---|---|");
        row("log", imported.log, count);
        row("base", imported.base, count);
        row("memory before the checkpoint", imported.memory, count);
        row("memory after it", imported.memory_after, count);
        row("full dump, not compressed", plain, count);
        row("full dump, zstd", full, count);
        row("state-only dump, zstd", state, count);

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
            let index = (next() % count) as usize;
            let (partition, key, value) = &mut entries[index];
            // An eighth of it differs, as in a record with another time and address.
            for _ in 0..value.len().div_ceil(8) {
                let at = next() as usize % value.len();
                value[at] = next() as u8;
            }
            bytes += (partition.len() + key.len() + value.len()) as u64;
            store.write(Context::new("sizing"), Batch::new().set(partition, key, value)).await.unwrap();
        }
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
