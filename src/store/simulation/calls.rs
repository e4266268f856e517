//! Callers: what a call of the schedule asks of the store, and what it is told.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Caller;
use super::base::pause;
use super::model::{Asked, Pair, Ranged, saw, value};
use super::schedule::{Call, Change, Kind, pairs};
use crate::dump::{DumpOptions, dump};
use crate::env::Env;
use crate::log::LogFiles;
use crate::store::{
    Batch, Context, Predicate, Reader, Redact, RedactOptions, RequestId, ScanOptions, Store, TrimOptions, Tx,
};
use crate::types::{Digest, Error, Position, Result};

/// What a caller was told.
pub(super) enum Answer {
    /// The transaction of this actor is there.
    Committed(String, Result<Position>),
    /// Something was done, and perhaps a transaction says so.
    Done(Result<()>),
    Saw(Result<Observed>),
    Dumped(Result<Vec<u8>>),
}

/// What a read of one key gave: version and value, nothing, or why not.
pub(super) type Read = Result<Option<(Position, Bytes)>, String>;

/// What a reader found under every key.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub position: Position,
    pub found: Vec<(Pair, Read)>,
}

pub(super) fn batch(actor: &str, change: &Change) -> Batch {
    let mut batch = Batch::new();
    if let Some(Ranged { partition, prefix }) = &change.range {
        batch = batch.delete_range(partition, prefix);
    }
    for (pair, kind) in &change.sets {
        batch = batch.set(&pair.0, &pair.1, &value(actor, pair, *kind));
    }
    for (partition, key) in &change.deletes {
        batch = batch.delete(partition, key);
    }
    if let Some(((partition, key), there)) = &change.condition {
        batch = batch.check(partition, key, if *there { Predicate::Exists } else { Predicate::Absent });
    }
    batch
}

pub(super) fn request(actor: &str) -> Context {
    let id = RequestId { id: actor.to_owned(), digest: Digest::of_bytes(actor.as_bytes()) };
    Context::new(actor).request(id)
}

/// Everything that a reader sees, with pauses in which others do something.
pub(super) async fn observe(reader: &Reader) -> Observed {
    let mut found = Vec::new();
    for pair in pairs() {
        let entry = reader.get(&pair.0, &pair.1).await;
        let entry = entry.map(|entry| entry.map(|entry| (entry.version, Bytes::copy_from_slice(&entry.value))));
        found.push((pair, entry.map_err(|error| format!("{:?}: {error}", error.kind()))));
        if found.len() % 4 == 0 {
            pause().await;
        }
    }
    Observed { position: reader.position(), found }
}

/// Where a store is, for those who go by its files.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub env: Env,
    pub log: PathBuf,
    pub archive: Option<PathBuf>,
}

/// The caller of one call. What it asks for is known before: positions are resolved.
pub(super) fn caller(store: &Store, place: &Place, actor: String, asked: Asked, call: Call) -> Caller<'static, Answer> {
    let (store, context, archive) = (store.clone(), Context::new(actor.clone()), place.archive.clone());
    match (call, asked) {
        (Call::Write(change), _) => Box::pin(async move {
            let done = store.write(context, batch(&actor, &change)).await;
            Answer::Committed(actor, done.map(|done| done.position))
        }),
        (Call::Request(change), _) => Box::pin(async move {
            let done = store.write(request(&actor), batch(&actor, &change)).await;
            Answer::Committed(actor, done.map(|done| done.position))
        }),
        (Call::Chain { read, scanned, written }, _) => Box::pin(async move {
            let done = store.transact(context, |tx: Tx| chain(tx, &actor, &read, &scanned, &written)).await;
            Answer::Committed(actor.clone(), done.map(|done| done.position))
        }),
        (_, Asked::Undo(position)) => Box::pin(async move {
            let done = store.undo(context, position, position).await;
            Answer::Committed(actor, done.map(|done| done.position))
        }),
        (_, Asked::Rewind(Ranged { partition, prefix }, to)) => Box::pin(async move {
            let done = store.rewind(context, &[(&partition, &prefix)], to).await;
            Answer::Committed(actor, done.map(|done| done.position))
        }),
        (_, Asked::Redact((partition, key))) => Box::pin(async move {
            let what = Redact::Key { partition, key };
            let done = store.redact(context, RedactOptions { archive, ..RedactOptions::new(what) }).await;
            Answer::Committed(actor, done.map(|done| done.position))
        }),
        (Call::Trim(before), _) => Box::pin(async move {
            let options = TrimOptions { archive, ..TrimOptions::before(Position(before as u64)) };
            let done = store.trim(context, options).await;
            Answer::Done(done.map(drop))
        }),
        (Call::Checkpoint, _) => Box::pin(async move { Answer::Done(store.checkpoint().await.map(drop)) }),
        (Call::Chores, _) => Box::pin(async move { Answer::Done(chores(&store).await) }),
        (Call::Read(at), _) => Box::pin(async move {
            let reader = match at {
                None => Ok(store.reader()),
                Some(at) => store.at(Position(at as u64)).await,
            };
            match reader {
                Ok(reader) => Answer::Saw(Ok(observe(&reader).await)),
                Err(error) => Answer::Saw(Err(error)),
            }
        }),
        (Call::Dump, _) => {
            let (env, log) = (place.env.clone(), place.log.clone());
            Box::pin(async move { Answer::Dumped(dumped(&env, &log)) })
        }
        (Call::Sync | Call::Undo(_) | Call::Rewind(..) | Call::Redact(_), _) => {
            Box::pin(async move { Answer::Done(store.sync().await.map(drop)) })
        }
    }
}

async fn chain(tx: Tx, actor: &str, read: &Pair, scanned: &Ranged, written: &Pair) -> Result<()> {
    let found = tx.get(&read.0, &read.1).await?;
    pause().await;
    let entries = tx.scan(ScanOptions::new(&scanned.partition).prefix(&scanned.prefix)).await?;
    let scanned = entries.iter().map(|entry| (entry.key().to_vec(), Digest::of_bytes(&entry.value)));
    let saw = saw(found.as_ref().map(|entry| &entry.value[..]), scanned);
    pause().await;
    let kind = Kind { address: 0, bytes: 0 };
    tx.set(&written.0, &written.1, &value(&format!("{actor} saw {saw}"), written, kind))
}

/// What an open store does by itself now and then.
pub(super) async fn chores(store: &Store) -> Result<()> {
    store.finish_redactions().await?;
    store.build_indexes().await?;
    store.expire_requests().await.map(drop)
}

/// A whole dump of the log's files.
pub(super) fn dumped(env: &Env, log: &Path) -> Result<Vec<u8>> {
    let files = LogFiles::open(env, log)?;
    let (bytes, _) = dump(env, &files, DumpOptions::default(), Vec::new(), "dump", &mut |_, _| {})?;
    Ok(bytes)
}

/// Nothing that may happen to a disk is damage to a sound store, and no call asks for what is invalid.
pub(super) fn is_sane(error: &Error) -> bool {
    use crate::types::ErrorKind::*;
    !matches!(error.kind(), Corrupt | Internal | Invalid)
}
