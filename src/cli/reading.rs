//! Reading the log's files, beside a process that has the store open or without one: what `log`, `show` and `tail` share.

use std::path::PathBuf;

use clap::Args;

use crate::env::Env;
use crate::event::Transaction;
use crate::log::{Check, Frame, LogFiles};
use crate::store::LOG_DIR;
use crate::types::{Position, Result, Timestamp};

use super::command::Shell;
use super::transactions::{Filter, Listed};

/// Transactions held at once when listing backwards.
const CHUNK: u64 = 1024;

/// `--archive`, for verbs that read the log's files or what was.
#[derive(Args, Clone, Debug, Default)]
pub struct ArchiveArgs {
    /// Read positions below the floor from the directory that `trim --archive` filled
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,
}

/// The log's files of a store, with its archive if one is given.
///
/// # Errors
///
/// As [`LogFiles::open_with_archive`].
pub fn open(shell: &Shell, archive: &ArchiveArgs) -> Result<LogFiles> {
    let (env, dir) = (Env::os(), shell.dir.join(LOG_DIR));
    Ok(match &archive.archive {
        Some(archive) => LogFiles::open_with_archive(&env, &dir, archive)?,
        None => LogFiles::open(&env, &dir)?,
    })
}

/// Hands the transactions that the filter accepts to `found`, in order, until it says that it has enough. Returns the position
/// after the last one looked at.
///
/// # Errors
///
/// `NotFound` below the floor, `Invalid` above the head, `Corrupt`, and those of `found`.
pub fn forwards(files: &LogFiles, filter: &Filter, mut found: impl FnMut(Listed) -> Result<bool>) -> Result<Position> {
    let mut next = start(files, filter)?;
    for frame in files.frames(next, Check::Order)? {
        let frame = frame?;
        if filter.is_past(frame.position, frame.time) {
            break;
        }
        next = frame.position.next();
        if let Some(listed) = accepted(frame, filter)?
            && !found(listed)?
        {
            break;
        }
    }
    Ok(next)
}

/// The same from the last transaction to the first, in bounded memory.
///
/// # Errors
///
/// As [`forwards`].
pub fn backwards(files: &LogFiles, filter: &Filter, mut found: impl FnMut(Listed) -> Result<bool>) -> Result<()> {
    let first = start(files, filter)?;
    let mut end = files.synced().min(filter.to);
    if let Some(until) = filter.until {
        end = end.min(files.position_at(until)?);
    }
    while end >= first {
        let from = Position(end.0.saturating_sub(CHUNK - 1)).max(first);
        let mut chunk = Vec::new();
        for frame in files.frames(from, Check::Order)?.take((end.0 - from.0 + 1) as usize) {
            chunk.extend(accepted(frame?, filter)?);
        }
        for listed in chunk.into_iter().rev() {
            if !found(listed)? {
                return Ok(());
            }
        }
        end = from.previous();
    }
    Ok(())
}

/// Where the first transaction lies that the filter may accept.
fn start(files: &LogFiles, filter: &Filter) -> Result<Position> {
    let oldest = files.floor().position.next();
    // What was asked for and is not there is an error, not another answer.
    let from = filter.from.unwrap_or(oldest);
    let before_since = filter.since.map(|since| files.position_at(Timestamp(since.0.saturating_sub(1)))).transpose()?;
    Ok(from.max(before_since.map_or(from, Position::next)))
}

fn accepted(frame: Frame, filter: &Filter) -> Result<Option<Listed>> {
    let (position, time, chain) = (frame.position, frame.time, frame.chain);
    let transaction = Transaction::decode(frame.payload)?;
    Ok(filter.accepts(position, time, &transaction).then(|| Listed::new(position, time, &chain, &transaction)))
}
