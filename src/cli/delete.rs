//! `lakelog delete`: takes a key's value away.

use clap::Args;

use crate::types::Result;

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs};
use super::operations::{ConditionArgs, Operation};
use super::output::Ended;
use super::text::{self, Name};
use super::write;

/// Deletes a key, whether or not it has a value
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// The partition
    #[arg(value_name = "P")]
    partition: String,
    /// The key
    #[arg(value_name = "K")]
    key: String,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    request: RequestArgs,
}

/// Fails `Conflict` when the condition does not hold.
pub async fn run(args: DeleteArgs, shell: &mut Shell) -> Result<Ended> {
    let operation = Operation::Delete {
        partition: Name(text::parse(&args.partition, shell.hex)?),
        key: Name(text::parse(&args.key, shell.hex)?),
        condition: args.condition.condition(shell.hex)?,
    };
    write::one(operation, args.context, args.request, shell).await
}
