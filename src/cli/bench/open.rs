//! How soon a store is there: replay of the whole log, and an open after a kill.

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::bed::{Bed, io, per_second, side};
use super::figure::Figure;
use super::load::fill_singly;
use super::sample::Noise;
use super::scale::Scale;
use crate::backends::MemoryBackend;
use crate::env::Env;
use crate::event::{DecodeError, Transaction};
use crate::log::{Check, LogFiles};
use crate::store::{Settings, Store};
use crate::types::{Error, ErrorKind, Position, Result};

/// The log's directory in the store's.
pub(super) const LOG_DIR: &str = "log";
/// What the process says that is to be killed, once its store is filled.
const FILLED: &str = "filled";
/// How long a store that was dropped may take to give its lock back.
const UNLOCK_MAX: Duration = Duration::from_secs(30);

/// Replay and open.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if bed.wants("replay") {
        replay(bed).await?;
    }
    if bed.wants_any(&["open-after-kill", "open-history"]) {
        open_after_kill(bed).await?;
    }
    Ok(())
}

/// The whole log into an empty view, beside checksum and decoding of the same payloads, read before.
async fn replay(bed: &mut Bed<'_>) -> Result<()> {
    let (dir, settings, count) = (&bed.path("replay"), &bed.in_memory(), bed.scale.replayed);
    let store = bed.store("replay").await?;
    fill_singly(&store, &bed.noise, 0..count, u64::MAX).await?;
    store.close().await?;
    let log = LogFiles::open(&Env::os(), &dir.join(LOG_DIR))?;
    let payloads = log.frames(Position(1), Check::Order)?.map(|frame| Ok(frame?.payload));
    // In one block, as the bytes of a log lie in the page cache, and not in as many windows.
    let payloads: Vec<Bytes> = payloads.collect::<Result<_>>()?;
    let payloads = &payloads;
    let bare = side(move || async move {
        let started = Instant::now();
        for payload in payloads {
            let transaction = Transaction::decode(payload.clone()).map_err(undecodable)?;
            black_box((crc32fast::hash(payload), transaction));
        }
        Ok(per_second(payloads.len() as u64, started.elapsed()))
    });
    let own = side(move || async move {
        let builder = Store::builder(dir).settings(settings.clone()).with_backend(Arc::new(MemoryBackend::new()));
        let started = Instant::now();
        let store = builder.open().await?;
        let rate = per_second(store.head().0, started.elapsed());
        store.close().await?;
        Ok(rate)
    });
    let [bare, own] = bed.in_turn([bare, own]).await?;
    bed.figure(Figure::rate("replay", &own, "transactions/s", &bare, 0.35))
}

/// A transaction that the store itself has written.
pub(super) fn undecodable(error: DecodeError) -> Error {
    Error::new(ErrorKind::Internal, "the bench's own log does not decode").with_source(error)
}

/// An open with a long history and a checkpoint behind it, after the process that wrote it was killed: the slowest of all rounds;
/// and beside it the same with a quarter of the history.
async fn open_after_kill(bed: &mut Bed<'_>) -> Result<()> {
    let (history, dir) = (bed.scale.history, bed.path("open"));
    let mut opens = [const { Vec::new() }; 2];
    for (transactions, opens) in [history / 4, history].into_iter().zip(&mut opens) {
        match bed.scale.kills {
            Some(quick) => fill_and_kill(&dir, quick, &bed.scale, transactions)?,
            None => drop(filled(&dir, &bed.scale, transactions).await?),
        }
        for _ in 0..=bed.scale.rounds {
            let (store, time) = open_when_unlocked(&dir, &bed.settings()).await?;
            opens.push(time.as_secs_f64());
            if store.head().0 < transactions {
                return Err(Error::new(ErrorKind::Internal, "the store lost a transaction of the bench"));
            }
            drop(store);
        }
    }
    let (store, _) = open_when_unlocked(&dir, &bed.settings()).await?;
    bed.finish(store, "open").await?;
    let [quarter, whole] = &opens;
    let slowest = whole.iter().copied().fold(0.0, f64::max);
    let rates = |opens: &[f64]| -> Vec<f64> { opens.iter().map(|time| time.recip()).collect() };
    bed.figure(Figure::cost("open-after-kill", slowest, "s", 1.0))?;
    bed.figure(Figure::rate("open-history", &rates(whole), "opens/s", &rates(quarter), 0.8))
}

/// The store with that many transactions, the last of them after its last checkpoint.
async fn filled(dir: &Path, scale: &Scale, transactions: u64) -> Result<Store> {
    let settings = Settings { segment_bytes: scale.segment_bytes, ..Settings::default() };
    let (store, _) = open_when_unlocked(dir, &settings).await?;
    let (noise, saved) = (Noise::seeded(), transactions.saturating_sub(scale.unsaved));
    fill_singly(&store, &noise, store.head().0..saved, scale.entries).await?;
    store.checkpoint().await?;
    fill_singly(&store, &noise, saved..transactions, scale.entries).await?;
    Ok(store)
}

/// What the process does that is to be killed: fills the store, says so, and waits.
pub(super) async fn fill(dir: &Path, scale: &Scale, transactions: u64) -> Result<()> {
    let store = filled(dir, scale, transactions).await?;
    let said = writeln!(std::io::stdout(), "{FILLED}");
    said.map_err(io("say that the store is filled", dir))?;
    // Should the bench end without a kill, this ends too.
    let waited = std::io::stdin().read_line(&mut String::new());
    waited.map_err(io("wait for the kill", dir))?;
    drop(store);
    Ok(())
}

/// Fills the store in a process of its own and kills that (SIGKILL).
fn fill_and_kill(dir: &Path, quick: bool, scale: &Scale, transactions: u64) -> Result<()> {
    let program = std::env::current_exe().map_err(io("find the program", dir))?;
    let mut command = Command::new(&program);
    let fill_to = [transactions, scale.unsaved, scale.entries].map(|number| number.to_string());
    command.args(["bench", "--fill-to"]).args(fill_to).arg("--dir").arg(dir);
    if quick {
        command.arg("--quick");
    }
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut filling = started.map_err(io("start the process that is to be killed", &program))?;
    let mut said = String::new();
    let read = filling.stdout.take().map_or(Ok(0), |out| BufReader::new(out).read_line(&mut said));
    let killed = read.and_then(|_| filling.kill()).and_then(|()| filling.wait());
    killed.map_err(io("kill the process that fills the store", dir))?;
    match said.trim() == FILLED {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Internal, "the process that was to be killed did not fill its store")),
    }
}

/// The threads of a dropped store end by themselves; until then its directory is locked.
async fn open_when_unlocked(dir: &Path, settings: &Settings) -> Result<(Store, Duration)> {
    let given_up = Instant::now() + UNLOCK_MAX;
    loop {
        let started = Instant::now();
        match Store::builder(dir).settings(settings.clone()).open_or_create().await {
            Ok(store) => return Ok((store, started.elapsed())),
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < given_up => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
