//! `lakelog log`: the transactions of the log, filtered.

use clap::Args;

use crate::types::Result;

use super::command::Shell;
use super::output::Ended;
use super::reading::{self, ArchiveArgs};
use super::transactions::FilterArgs;

/// Lists transactions: who changed what, when and why. Works beside a process that has the store open
#[derive(Args, Debug)]
pub struct LogArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many transactions
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// The newest first
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// Reads the files only.
pub async fn run(args: LogArgs, shell: &mut Shell) -> Result<Ended> {
    let filter = args.filter.filter(shell.hex)?;
    let files = reading::open(shell, &args.archive)?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(Ended::Done);
    }
    let found = |listed| {
        shell.out.answer(&listed)?;
        left -= 1;
        Ok(left > 0)
    };
    if args.reverse {
        reading::backwards(&files, &filter, found)?;
    } else {
        reading::forwards(&files, &filter, found)?;
    }
    Ok(Ended::Done)
}
