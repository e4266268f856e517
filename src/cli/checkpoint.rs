//! `lakelog checkpoint`: brings the base to the synced position now.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::types::Result;

use super::command::Shell;
use super::output::Ended;

/// Writes a checkpoint now, so that the next open replays nothing
#[derive(Args, Debug)]
pub struct CheckpointArgs {
    /// Only say what the checkpoint would cover
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Answer {
    checkpoint: u64,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checkpoint at {}", self.checkpoint)
    }
}

/// Answers the position that the base is (or would be) at.
pub async fn run(args: CheckpointArgs, shell: &mut Shell) -> Result<Ended> {
    let position = shell
        .with_store(
            async |store, _| {
                if args.dry_run { Ok(store.reader().position()) } else { store.checkpoint().await }
            },
        )
        .await?;
    shell.out.answer(&Answer { checkpoint: position.0 })?;
    Ok(Ended::Done)
}
