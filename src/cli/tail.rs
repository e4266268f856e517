//! `lakelog tail`: the end of the log, and what comes after it.

use std::time::Duration;

use clap::Args;

use crate::types::{Position, Result};

use super::command::Shell;
use super::output::Ended;
use super::reading::{self, ArchiveArgs};
use super::transactions::Filter;

/// Shown when no position is given.
const LAST: u64 = 10;
/// How often the files are looked at for more.
const INTERVAL: Duration = Duration::from_millis(100);

/// Lists the last transactions. Works beside a process that has the store open
#[derive(Args, Debug)]
pub struct TailArgs {
    /// The first position [default: that of the tenth last transaction]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// Go on as transactions become durable, until interrupted
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// Reads the files only.
pub async fn run(args: TailArgs, shell: &mut Shell) -> Result<Ended> {
    let files = reading::open(shell, &args.archive)?;
    let last = Position(files.synced().0.saturating_sub(LAST - 1)).max(files.floor().position.next());
    let mut next = args.from.map_or(last, |from| Position(from.max(1)));
    loop {
        next = reading::forwards(&files, &Filter::from(next), |listed| {
            shell.out.answer(&listed)?;
            Ok(true)
        })?;
        if !args.follow {
            return Ok(Ended::Done);
        }
        shell.out.flush()?;
        while files.refresh()? < next {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
