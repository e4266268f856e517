//! `lakelog mark`: names for positions.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::diagnostics::{SigningKey, sign_head};
use crate::env::Env;
use crate::log::Head;
use crate::store::Mark;
use crate::types::{At, Position, Result};

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs, context};
use super::keys::signing_key;
use super::output::Ended;
use super::reading::{self, ArchiveArgs};
use super::text::shown;

/// Names a position, lists the names, or takes one away
#[derive(Args, Debug)]
pub struct MarkArgs {
    /// The name of the mark; one of that name is replaced
    #[arg(required_unless_present_any = ["list", "delete", "sign"], conflicts_with_all = ["list", "delete"])]
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
    /// Instead of naming the position, sign its chain hash with this ed25519 private key in PEM: who keeps the line that is
    /// printed can prove with `verify --key` that the history up to it was not rewritten
    #[arg(long, value_name = "KEYFILE", conflicts_with_all = ["name", "list", "delete", "actor", "reason", "request_id"])]
    sign: Option<PathBuf>,
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
    if let Some(key) = &args.sign {
        return sign(&signing_key(key)?, args.at.as_ref(), shell).await;
    }
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

/// A signed head: one line to keep, also as text; in JSON with its parts.
#[derive(Debug, Serialize)]
struct Signed {
    line: String,
    log_id: String,
    position: u64,
    time: String,
    chain: String,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// Only what is durable is signed, so the files say it all, beside a process that has the store open too; but for the names of marks.
async fn sign(key: &SigningKey, at: Option<&At>, shell: &mut Shell) -> Result<Ended> {
    let position = match at {
        None => None,
        Some(At::Position(position)) => Some(*position),
        Some(At::Time(time)) => Some(reading::open(shell, &ArchiveArgs::default())?.position_at(*time)?),
        Some(at @ At::Mark(_)) => Some(shell.with_store(async |store, _| store.resolve(at).await).await?),
    };
    let signed = sign_head(&Env::os(), &shell.dir, position, key)?;
    let Head { position, time, chain } = signed.head;
    shell.out.answer(&Signed {
        line: signed.to_string(),
        log_id: signed.log_id.to_string(),
        position: position.0,
        time: time.to_string(),
        chain: chain.to_string(),
    })?;
    Ok(Ended::Done)
}
