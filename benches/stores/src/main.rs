//! Durable sets from many clients: lakelog beside other embedded stores, in turn, in one process, on the same directory.
//!
//! The other stores get what serves them best for many clients: tasks send their writes through a bounded queue to one thread, which
//! puts whatever has come into the store as one batch, makes it durable, and wakes each client. So each of them
//! syncs once a batch, as lakelog does. A write is done when power loss cannot take it and a read would find it.
//!
//!     cargo run --release --manifest-path benches/stores/Cargo.toml -- DIR [CLIENTS [ROUNDS [MILLISECONDS]]]
//!
//! With `--features rocksdb` beside RocksDB, too: that wants a C++ compiler, libclang and some minutes.
//!
//! Prints a line of JSON for each store, in the form of `lakelog bench`.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lakelog::{Batch, Context, Settings, Store};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

const KEY_BYTES: usize = 34;
const VALUE_BYTES: usize = 200;
const QUEUE_WRITES: usize = 4096;

type Anyhow<T> = Result<T, Box<dyn Error + Send + Sync>>;
/// Makes a batch of entries durable and visible.
type Apply = Box<dyn FnMut(&[Write]) -> Anyhow<()> + Send>;

struct Write {
    key: Vec<u8>,
    value: Vec<u8>,
    done: oneshot::Sender<()>,
}

/// Another store behind a thread that batches for it.
struct Grouped {
    queue: mpsc::Sender<Write>,
    thread: JoinHandle<Anyhow<()>>,
}

impl Grouped {
    fn start(mut apply: Apply) -> Grouped {
        let (queue, mut writes) = mpsc::channel(QUEUE_WRITES);
        let thread = std::thread::spawn(move || {
            let mut batch = Vec::new();
            while writes.blocking_recv_many(&mut batch, QUEUE_WRITES) > 0 {
                apply(&batch)?;
                for write in batch.drain(..) {
                    // A client that went away does not matter.
                    let _ = write.done.send(());
                }
            }
            Ok(())
        });
        Grouped { queue, thread }
    }

    fn finish(self) -> Anyhow<()> {
        drop(self.queue);
        self.thread.join().map_err(|_| "a thread panicked")?
    }
}

/// sled's `flush` hands everything to the operating system; its file has to be synced beside it.
fn sled_store(dir: &Path) -> Anyhow<Apply> {
    let db = sled::Config::new()
        .path(dir)
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(1 << 30)
        .flush_every_ms(None)
        .open()?;
    let file = File::open(dir.join("db"))?;
    Ok(Box::new(move |batch| {
        for write in batch {
            db.insert(&write.key, &write.value[..])?;
        }
        db.flush()?;
        Ok(file.sync_data()?)
    }))
}

fn redb_store(dir: &Path) -> Anyhow<Apply> {
    const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("entries");
    std::fs::create_dir_all(dir)?;
    let db = redb::Database::create(dir.join("redb"))?;
    Ok(Box::new(move |batch| {
        let transaction = db.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for write in batch {
                table.insert(&write.key[..], &write.value[..])?;
            }
        }
        // Durable: what a transaction is unless told otherwise.
        Ok(transaction.commit()?)
    }))
}

fn fjall_store(dir: &Path) -> Anyhow<Apply> {
    let db = fjall::Database::builder(dir).open()?;
    let entries = db.keyspace("entries", fjall::KeyspaceCreateOptions::default)?;
    Ok(Box::new(move |batch| {
        let mut transaction = db.batch().durability(Some(fjall::PersistMode::SyncData));
        for write in batch {
            transaction.insert(&entries, &write.key[..], &write.value[..]);
        }
        Ok(transaction.commit()?)
    }))
}

#[cfg(feature = "rocksdb")]
fn rocksdb_store(dir: &Path) -> Anyhow<Apply> {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let db = rocksdb::DB::open(&options, dir)?;
    let mut durable = rocksdb::WriteOptions::default();
    durable.set_sync(true);
    Ok(Box::new(move |batch| {
        let mut writes = rocksdb::WriteBatch::default();
        for write in batch {
            writes.put(&write.key, &write.value);
        }
        Ok(db.write_opt(writes, &durable)?)
    }))
}

/// A number that looks random; each `i` gives another one (splitmix64).
fn scattered(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(i: u64) -> Vec<u8> {
    let mut key = format!("{:016x}branch{i:016x}", scattered(i)).into_bytes();
    key.truncate(KEY_BYTES);
    key
}

/// Values that do not compress.
fn value(noise: &[u8], i: u64) -> &[u8] {
    let start = scattered(i) as usize % (noise.len() - VALUE_BYTES);
    &noise[start..start + VALUE_BYTES]
}

/// Lets `clients` tasks repeat `operation` for `time`; gives how many ended a second.
async fn drive<F>(
    clients: usize,
    time: Duration,
    numbers: &Arc<AtomicU64>,
    operation: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Anyhow<f64>
where
    F: Future<Output = Anyhow<()>> + Send,
{
    let started = Instant::now();
    let mut tasks: JoinSet<Anyhow<u64>> = JoinSet::new();
    for _ in 0..clients {
        let (numbers, operation) = (numbers.clone(), operation.clone());
        tasks.spawn(async move {
            let mut done = 0;
            while done == 0 || started.elapsed() < time {
                operation(numbers.fetch_add(1, Ordering::Relaxed)).await?;
                done += 1;
            }
            Ok(done)
        });
    }
    let mut done = 0;
    while let Some(task) = tasks.join_next().await {
        done += task??;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() -> Anyhow<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parent = arguments.first().ok_or("say in which directory to work")?;
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (clients, rounds, time) = (number(1, 64)? as usize, number(2, 7)?, Duration::from_millis(number(3, 1000)?));
    let dir = Path::new(parent).join(format!("lakelog-stores-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let measured = measure(&dir, clients, rounds, time).await;
    std::fs::remove_dir_all(&dir)?;
    measured
}

async fn measure(dir: &Path, clients: usize, rounds: u64, time: Duration) -> Anyhow<()> {
    // The defaults, but no checkpoint: the others write no more than their logs in this time either.
    let settings = Settings {
        memtable_soft_bytes: usize::MAX / 2,
        memtable_hard_bytes: usize::MAX / 2,
        checkpoint_log_bytes: u64::MAX,
        ..Settings::default()
    };
    let own = Store::builder(dir.join("lakelog")).settings(settings).create().await?;
    let others = vec![
        ("sled", Grouped::start(sled_store(&dir.join("sled"))?)),
        ("redb", Grouped::start(redb_store(&dir.join("redb"))?)),
        ("fjall", Grouped::start(fjall_store(&dir.join("fjall"))?)),
        #[cfg(feature = "rocksdb")]
        ("rocksdb", Grouped::start(rocksdb_store(&dir.join("rocksdb"))?)),
    ];
    let noise: Arc<[u8]> = (0..1u64 << 17).flat_map(|i| scattered(!i).to_le_bytes()).collect();
    let numbers = Arc::new(AtomicU64::new(0));
    let mut own_rates = Vec::new();
    let mut rates = vec![Vec::new(); others.len()];
    for round in 0..=rounds {
        let (store, values) = (own.clone(), noise.clone());
        let set = move |i| {
            let (store, values) = (store.clone(), values.clone());
            async move {
                let batch = Batch::new().set(b"bench", &key(i), value(&values, i));
                store.write(Context::new("bench"), batch).await?;
                Ok(())
            }
        };
        let own_rate = drive(clients, time, &numbers, set).await?;
        for ((_, other), rates) in others.iter().zip(&mut rates) {
            let (queue, values) = (other.queue.clone(), noise.clone());
            let set = move |i| {
                let (queue, values) = (queue.clone(), values.clone());
                async move {
                    let (done, answer) = oneshot::channel();
                    let write = Write { key: key(i), value: value(&values, i).to_vec(), done };
                    queue.send(write).await.map_err(|_| "the store failed")?;
                    answer.await.map_err(|_| "the store failed")?;
                    Ok(())
                }
            };
            let rate = drive(clients, time, &numbers, set).await?;
            // The first round warms caches, files and threads.
            if round > 0 {
                rates.push(rate);
            }
        }
        if round > 0 {
            own_rates.push(own_rate);
        }
    }
    own.close().await?;
    for ((name, other), rates) in others.into_iter().zip(rates) {
        other.finish()?;
        let ratios = own_rates.iter().zip(&rates).map(|(own, other)| own / other).collect();
        let line = serde_json::json!({
            "name": format!("set-{clients}-vs-{name}"),
            "value": median(own_rates.clone()).round(),
            "unit": "writes/s",
            "reference": median(rates).round(),
            "ratio": (median(ratios) * 1000.0).round() / 1000.0,
            "target": 1.0,
        });
        println!("{line}");
    }
    Ok(())
}
