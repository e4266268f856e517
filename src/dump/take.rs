//! Taking a dump of a log's files, at one position, beside the process that writes them or without one.

use std::io::Write;

use super::error::DumpError;
use super::format::{DumpHeader, DumpKind};
use super::snapshot::SnapshotReader;
use super::writer::{DumpSummary, DumpWriter};
use crate::env::Env;
use crate::log::{Check, Head, LogError, LogFiles};
use crate::types::Position;

/// What is dumped, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpOptions {
    /// Only transactions after this position; everything when not given.
    pub since: Option<Position>,
    /// Up to this position; the last durable one when not given.
    pub at: Option<Position>,
    /// Whether blocks are compressed.
    pub compress: bool,
}

impl Default for DumpOptions {
    fn default() -> DumpOptions {
        DumpOptions { since: None, at: None, compress: true }
    }
}

/// Writes a dump of the transactions in a log's files, each proven by the chain on the way. Takes no lock, and changes nothing. Where
/// the log was trimmed, a full dump has the state at the floor before the transactions above it.
///
/// `progress` is called with the positions done and those in all. Blocks the thread on files.
///
/// # Errors
/// `Log` with `AboveHead` or `BelowFloor`, and with `Corrupt` where the log is damaged; `RedactedLater`, `Invalid`, `Io`. Whatever was
/// written by then is no dump.
pub fn dump<W: Write + Send + 'static>(
    env: &Env,
    files: &LogFiles,
    options: DumpOptions,
    out: W,
    name: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(W, DumpSummary), DumpError> {
    let promised = files.refresh()?;
    let to = options.at.unwrap_or(promised);
    if to > promised {
        return Err(LogError::AboveHead { position: to, head: promised }.into());
    }
    let floor = files.floor();
    let (kind, base) = match options.since {
        None => (DumpKind::Full, floor),
        Some(since) => (DumpKind::Incremental, files.head_at(since)?),
    };
    if to < floor.position {
        return Err(LogError::BelowFloor { position: to, floor: floor.position }.into());
    }
    if to < base.position {
        let detail = format!("a dump begins before it ends, since=`{}` at=`{to}`", base.position);
        return Err(DumpError::Invalid { detail });
    }
    let snapshot = match kind {
        DumpKind::Full => snapshot_at(env, files, floor)?,
        _ => None,
    };
    if snapshot.is_none() && kind == DumpKind::Full && base.position > Position::ZERO {
        let detail = format!(
            "the state that the archive begins at is not in it, position=`{}`; dump since there",
            base.position
        );
        return Err(DumpError::Invalid { detail });
    }
    let indexes = snapshot.as_ref().map(|snapshot| snapshot.indexes().to_vec()).unwrap_or_default();
    let (log_id, created, compressed) = (files.id(), files.created(), options.compress);
    let header = DumpHeader { kind, compressed, log_id, created, base, indexes };
    let mut writer = DumpWriter::new(out, name, header)?;
    if let Some(mut snapshot) = snapshot {
        while let Some(entry) = snapshot.entry()? {
            writer.entry(&entry.key, entry.version, &entry.value)?;
        }
    }
    let total = to.0 - base.position.0;
    let written = (|| {
        if total > 0 {
            // Their chain is proven by the writer, on a thread of its own.
            for frame in files.frames(base.position.next(), Check::Order)? {
                let frame = frame?;
                writer.frame(&frame)?;
                let done = frame.position.0 - base.position.0;
                if done.is_multiple_of(1024) {
                    progress(done, total);
                }
                if frame.position >= to {
                    break;
                }
            }
        }
        writer.finish()
    })();
    let (out, summary) = written.map_err(|error| name_damage(files, error))?;
    if summary.head.position != to {
        return Err(LogError::AboveHead { position: to, head: summary.head.position }.into());
    }
    progress(total, total);
    Ok((out, summary))
}

/// The snapshot of the state at the floor. A redaction may replace it, and a trim remove it, since the floor was asked for.
pub(crate) fn snapshot_at(env: &Env, files: &LogFiles, floor: Head) -> Result<Option<SnapshotReader>, DumpError> {
    loop {
        let Some(snapshot) = files.snapshot() else { return Ok(None) };
        let failed = match SnapshotReader::open(env, files.floor_dir(), files.id(), &snapshot) {
            Ok(reader) => return Ok(Some(reader)),
            Err(error) => error,
        };
        files.refresh()?;
        if files.floor() != floor {
            return Err(LogError::BelowFloor { position: floor.position, floor: files.floor().position }.into());
        }
        if files.snapshot() == Some(snapshot) {
            return Err(failed);
        }
    }
}

/// Of a broken chain the log itself says where it is.
fn name_damage(files: &LogFiles, error: DumpError) -> DumpError {
    let DumpError::BrokenChain { position } = error else { return error };
    let found = files.frames(position, Check::Chain).and_then(|mut frames| frames.next().transpose());
    found.err().map_or(error, DumpError::Log)
}
