//! `lakelog redact`: takes values out of the history.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::store::{ArchiveGap, Context, Redact, RedactOptions, Redacted};
use crate::types::{Position, Result};

use super::command::Shell;
use super::context::ContextArgs;
use super::output::Ended;
use super::text;

/// Erases every value that a key ever had, or those that a transaction wrote, from log, archive, snapshots and base
///
/// Keys, times and actors stay, and the chain still proves all that is left. Dumps and other copies made before are yours to erase: see
/// docs/privacy.md.
#[derive(Args, Debug)]
pub struct RedactArgs {
    /// The partition of the key
    #[arg(long, value_name = "P", requires = "key")]
    partition: Option<String>,
    /// The key
    #[arg(long, value_name = "K", requires = "partition", required_unless_present = "position")]
    key: Option<String>,
    /// The transaction, instead of a key: its values and its reason
    #[arg(long, value_name = "N", conflicts_with_all = ["partition", "key"])]
    position: Option<u64>,
    /// An archive that `trim --archive` filled, to erase from too
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Only count what would be erased
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    context: ContextArgs,
}

/// `{"redacted","position","gaps":[{"archive","first","last"}]}`: how many values, the transaction that says so, and which transactions
/// are neither in the log nor in an archive.
#[derive(Debug, Serialize)]
struct Answer {
    redacted: u64,
    position: u64,
    gaps: Vec<Gap>,
}

#[derive(Debug, Serialize)]
struct Gap {
    archive: String,
    first: u64,
    last: u64,
}

impl From<Redacted> for Answer {
    fn from(Redacted { position, values, gaps, .. }: Redacted) -> Answer {
        let gaps = gaps.into_iter().map(|ArchiveGap { archive, first, last }| Gap {
            archive: archive.display().to_string(),
            first: first.0,
            last: last.0,
        });
        Answer { redacted: values, position: position.0, gaps: gaps.collect() }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values redacted at {}", self.redacted, self.position)?;
        self.gaps.iter().try_for_each(|Gap { archive, first, last }| {
            write!(f, "\n  not looked into: positions {first}..={last}, trimmed and not in the archive {archive}")
        })
    }
}

/// Fails `NotFound` when there is nothing to erase, and below the floor.
pub async fn run(args: RedactArgs, shell: &mut Shell) -> Result<Ended> {
    let what = match (args.position, args.partition, args.key) {
        (Some(position), ..) => Redact::Position(Position(position)),
        (None, partition, key) => Redact::Key {
            partition: text::parse(&partition.unwrap_or_default(), shell.hex)?,
            key: text::parse(&key.unwrap_or_default(), shell.hex)?,
        },
    };
    let mut context = Context::new(args.context.actor());
    if let Some(reason) = args.context.reason {
        context = context.reason(reason);
    }
    let options = RedactOptions { what, archive: args.archive, dry_run: args.dry_run };
    let redacted = shell.with_store(async |store, _| store.redact(context, options).await).await?;
    shell.out.answer(&Answer::from(redacted))?;
    Ok(Ended::Done)
}
