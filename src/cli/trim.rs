//! `lakelog trim`: gives up old history.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::store::{Context, TrimOptions};
use crate::types::{At, Result};

use super::command::Shell;
use super::context::ContextArgs;
use super::output::Ended;

/// Gives up the history before a transaction, to give back room. The state before it stays readable
#[derive(Args, Debug)]
pub struct TrimArgs {
    /// The oldest transaction to keep: a position, an RFC 3339 time, or a mark
    #[arg(long, value_name = "X")]
    before: At,
    /// Keep what is removed in this directory, where `--archive` of log, show, tail, dump and verify finds it
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    context: ContextArgs,
}

/// `{"floor","segments","bytes"}`: the oldest readable state, and what goes from the log's directory.
#[derive(Debug, Serialize)]
struct Answer {
    floor: u64,
    segments: u64,
    bytes: u64,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "floor {}; {} segments, {} bytes removed", self.floor, self.segments, self.bytes)
    }
}

/// Fails `NotFound` below the floor, `Invalid` above the head, `Conflict` for marks below the new floor and for the archive of another
/// log, `Unavailable` without room.
pub async fn run(args: TrimArgs, shell: &mut Shell) -> Result<Ended> {
    let mut context = Context::new(args.context.actor());
    if let Some(reason) = args.context.reason {
        context = context.reason(reason);
    }
    let options = TrimOptions { before: args.before, archive: args.archive, dry_run: args.dry_run };
    let trimmed = shell.with_store(async |store, _| store.trim(context, options).await).await?;
    shell.out.answer(&Answer { floor: trimmed.floor.0, segments: trimmed.segments, bytes: trimmed.bytes })?;
    Ok(Ended::Done)
}
