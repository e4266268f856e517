//! `lakelog rewind`: brings a partition, or keys with a prefix, back to what they were.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::store::Rewound;
use crate::types::{At, Position, Result};

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs, context};
use super::output::Ended;
use super::text;

/// Restores the keys of a partition to what they were, as one transaction
///
/// What it brings back is held in memory, up to 256 MiB. More is refused and changes nothing: rewind narrower prefixes one after the other.
#[derive(Args, Debug)]
pub struct RewindArgs {
    /// As of a position, an RFC 3339 time, or a mark
    #[arg(long, value_name = "X")]
    to: At,
    /// The partition
    #[arg(long, value_name = "P")]
    partition: String,
    /// Only keys with this prefix
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Only count what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    request: RequestArgs,
}

#[derive(Debug, Serialize)]
struct Answer {
    /// None after a dry run.
    position: Option<u64>,
    restored: u64,
    removed: u64,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "done at {position}: ")?,
            None => f.write_str("would be done: ")?,
        }
        write!(f, "{} keys restored, {} removed", self.restored, self.removed)
    }
}

impl Answer {
    fn new(position: Option<Position>, Rewound { restored, removed }: Rewound) -> Answer {
        Answer { position: position.map(|position| position.0), restored, removed }
    }
}

/// Fails `NotFound` below the floor and for a mark that there is not, `Invalid` above the head.
pub async fn run(args: RewindArgs, shell: &mut Shell) -> Result<Ended> {
    let partition = text::parse(&args.partition, shell.hex)?;
    let prefix = args.prefix.as_ref().map_or(Ok(Vec::new()), |prefix| text::parse(prefix, shell.hex))?;
    let scope = [(&partition[..], &prefix[..])];
    let command = ["rewind", &args.to.to_string(), &args.partition, args.prefix.as_deref().unwrap_or_default()];
    let context = context(&args.context, &args.request, &command);
    let answer = shell
        .with_store(async |store, _| match args.dry_run {
            true => Ok(Answer::new(None, store.plan_rewind(&scope, args.to).await?)),
            false => {
                let done = store.rewind(context, &scope, args.to).await?;
                Ok(Answer::new(Some(done.position), done.answer))
            }
        })
        .await?;
    shell.out.answer(&answer)?;
    Ok(Ended::Done)
}
