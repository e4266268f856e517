//! `lakelog delete-range`: takes away a partition, or the keys of it with a prefix.

use clap::Args;

use crate::types::Result;

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs};
use super::operations::Operation;
use super::output::Ended;
use super::text::{self, Name};
use super::write;

/// Deletes all keys of a partition, or those with a prefix
#[derive(Args, Debug)]
pub struct DeleteRangeArgs {
    /// The partition
    #[arg(value_name = "P")]
    partition: String,
    /// Only keys with this prefix
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    request: RequestArgs,
}

/// An empty range is deleted like any other.
pub async fn run(args: DeleteRangeArgs, shell: &mut Shell) -> Result<Ended> {
    let operation = Operation::DeleteRange {
        partition: Name(text::parse(&args.partition, shell.hex)?),
        prefix: Name(args.prefix.map(|prefix| text::parse(&prefix, shell.hex)).transpose()?.unwrap_or_default()),
    };
    write::one(operation, args.context, args.request, shell).await
}
