//! `lakelog set`: gives a key a value.

use clap::Args;

use crate::types::{Error, ErrorKind, Result};

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs};
use super::operations::{ConditionArgs, Operation};
use super::output::Ended;
use super::text::{self, Base64, Name};
use super::write;

/// Gives a key a value
#[derive(Args, Debug)]
pub struct SetArgs {
    /// The partition
    #[arg(value_name = "P")]
    partition: String,
    /// The key
    #[arg(value_name = "K")]
    key: String,
    /// The value; - reads it from standard input, as it is
    #[arg(value_name = "V")]
    value: String,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    request: RequestArgs,
}

/// Fails `Conflict` when the condition does not hold.
pub async fn run(args: SetArgs, shell: &mut Shell) -> Result<Ended> {
    if args.value == "-" && args.condition.if_value.as_deref() == Some("-") {
        return Err(Error::new(ErrorKind::Invalid, "standard input is one value, not two"));
    }
    let operation = Operation::Set {
        partition: Name(text::parse(&args.partition, shell.hex)?),
        key: Name(text::parse(&args.key, shell.hex)?),
        value: Base64(text::parse_value(&args.value, shell.hex)?),
        condition: args.condition.condition(shell.hex)?,
    };
    write::one(operation, args.context, args.request, shell).await
}
