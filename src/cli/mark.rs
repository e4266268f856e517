//! `lakelog mark`: names for positions.

use std::fmt;

use clap::Args;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::store::{Context, Mark, RequestId};
use crate::types::{At, Digest, Position, Result};

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs};
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
    let context = args.context();
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

impl MarkArgs {
    fn context(&self) -> Context {
        let mut context = Context::new(self.context.actor());
        if let Some(reason) = &self.context.reason {
            context = context.reason(reason.clone());
        }
        if let Some(id) = self.request.request_id.clone() {
            context = context.request(RequestId { id, digest: self.digest() });
        }
        context
    }

    /// Of the command as it was given: the head is another one when it comes again.
    fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        for part in [self.name.as_deref(), self.delete.as_deref(), self.at.as_ref().map(At::to_string).as_deref()] {
            let part = part.unwrap_or_default();
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Digest(hasher.finalize().into())
    }
}
