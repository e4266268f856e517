//! `lakelog mark`: names for positions.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::store::Mark;
use crate::types::{At, Position, Result};

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs, context};
use super::output::Ended;
use super::text::shown;

/// Names a position, lists the names, or takes one away
#[derive(Args, Debug)]
pub struct MarkArgs {
    /// The name of the mark; one of that name is replaced
    #[arg(required_unless_present_any = ["list", "delete"], conflicts_with_all = ["list", "delete"])]
    name: Option<String>,
    /// What to name: a position, an RFC 3339 time, or another mark [default: the head]
    #[arg(long, value_name = "X", conflicts_with_all = ["list", "delete"])]
    at: Option<At>,
    /// List all marks by name
    #[arg(long, conflicts_with_all = ["delete", "actor", "reason", "request_id"])]
    list: bool,
    /// Take this mark away
    #[arg(long, value_name = "NAME")]
    delete: Option<String>,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    request: RequestArgs,
}

/// `{"name","position"}`: the position is the one that is, or was, named.
#[derive(Debug, Serialize)]
struct Answer {
    name: String,
    position: u64,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}", shown(self.name.as_bytes()), self.position)
    }
}

impl Answer {
    fn new(name: String, position: Position) -> Answer {
        Answer { name, position: position.0 }
    }
}

/// Fails `NotFound` below the floor and for a mark that there is not, `Invalid` above the head and for a bad name.
pub async fn run(args: MarkArgs, shell: &mut Shell) -> Result<Ended> {
    let at = args.at.as_ref().map(At::to_string).unwrap_or_default();
    let (name, delete) = (args.name.as_deref().unwrap_or_default(), args.delete.as_deref().unwrap_or_default());
    // The command as it was given: the head is another one when it comes again.
    let context = context(&args.context, &args.request, &[name, delete, &at]);
    match (args.name, args.delete) {
        (Some(name), _) => {
            let mark = shell.with_store(async |store, _| {
                let named = match &args.at {
                    Some(at) => Some(store.resolve(at).await?),
                    None => None,
                };
                store.mark(context, &name, named).await
            });
            let position = mark.await?.answer;
            shell.out.answer(&Answer::new(name, position))?;
        }
        (None, Some(name)) => {
            let deleted = shell.with_store(async |store, _| store.delete_mark(context, &name).await).await?;
            shell.out.answer(&Answer::new(name, deleted.answer))?;
        }
        (None, None) => {
            for Mark { name, position } in shell.with_store(async |store, _| store.marks().await).await? {
                shell.out.answer(&Answer::new(name, position))?;
            }
        }
    }
    Ok(Ended::Done)
}
