//! `lakelog undo`: takes back what transactions changed.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::store::{Dependent, Undo};
use crate::types::{ErrorKind, Key, Position, Result};

use super::command::Shell;
use super::context::{ContextArgs, RequestArgs, context};
use super::output::Ended;
use super::text::{Base64, Name, shown};
use super::write::Written;

/// Restores what a transaction changed, as a new one; refused when later changes depend on it
///
/// One undo takes back at most 1 M keys and ranges and 64 MiB of keys and values; what ranges bring back is held in memory, up to 256 MiB.
/// More is refused and changes nothing: undo fewer transactions at a time, the latest first.
#[derive(Args, Debug)]
pub struct UndoArgs {
    /// The transaction
    #[arg(value_name = "POSITION")]
    position: u64,
    /// The last transaction of a range that is undone together
    #[arg(long, value_name = "POSITION")]
    to: Option<u64>,
    /// Only show what would change, and what stands against it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    request: RequestArgs,
}

#[derive(Debug, Serialize)]
struct Planned {
    from: u64,
    to: u64,
    keys: Vec<PlannedKey>,
    ranges: Vec<PlannedRange>,
    dependents: Vec<Depends>,
}

/// A key, and the value that it gets back; none where it goes.
#[derive(Debug, Serialize)]
struct PlannedKey {
    partition: Name,
    key: Name,
    value: Option<Base64>,
}

/// A range that becomes what it was.
#[derive(Debug, Serialize)]
struct PlannedRange {
    partition: Name,
    prefix: Name,
}

/// A later transaction, and a key or the prefix of a range that it wrote.
#[derive(Debug, Serialize)]
struct Depends {
    position: u64,
    partition: Name,
    key: Name,
}

impl From<Undo> for Planned {
    fn from(undo: Undo) -> Planned {
        let depends = |Dependent { position, key }| {
            let (partition, key) = names(&key);
            Depends { position: position.0, partition, key }
        };
        Planned {
            from: undo.undone.start().0,
            to: undo.undone.end().0,
            keys: undo
                .keys
                .into_iter()
                .map(|(key, value)| {
                    let (partition, key) = names(&key);
                    PlannedKey { partition, key, value: value.map(Base64) }
                })
                .collect(),
            ranges: undo
                .ranges
                .iter()
                .map(|range| {
                    let (partition, prefix) = names(range.prefix());
                    PlannedRange { partition, prefix }
                })
                .collect(),
            dependents: undo.dependents.into_iter().map(depends).collect(),
        }
    }
}

/// Partition and key of an encoded pair.
fn names(encoded: &[u8]) -> (Name, Name) {
    let start = Key::key_start(encoded).unwrap_or(0);
    let key = encoded.get(start..).unwrap_or_default().to_vec();
    (Name(Key::partition_of(encoded).unwrap_or_default()), Name(key))
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "undo of {}..={}", self.from, self.to)?;
        for PlannedKey { partition, key, value } in &self.keys {
            let verb = if value.is_some() { "restore" } else { "delete" };
            write!(f, "\n    {verb} {} {}", shown(&partition.0), shown(&key.0))?;
        }
        for PlannedRange { partition, prefix } in &self.ranges {
            write!(f, "\n    restore {} {}*", shown(&partition.0), shown(&prefix.0))?;
        }
        for Depends { position, partition, key } in &self.dependents {
            write!(f, "\n    refused: {position} wrote {} {}", shown(&partition.0), shown(&key.0))?;
        }
        Ok(())
    }
}

/// Fails `Conflict`, naming them, when later changes depend on what is to be undone. A dry run ends with its code.
pub async fn run(args: UndoArgs, shell: &mut Shell) -> Result<Ended> {
    let (first, last) = (Position(args.position), Position(args.to.unwrap_or(args.position)));
    if args.dry_run {
        let plan = shell.with_store(async |store, _| store.plan_undo(first, last).await).await?;
        let refused = !plan.dependents.is_empty();
        shell.out.answer(&Planned::from(plan))?;
        return Ok(if refused { Ended::Failed(ErrorKind::Conflict) } else { Ended::Done });
    }
    let context = context(&args.context, &args.request, &["undo", &first.to_string(), &last.to_string()]);
    let done = shell.with_store(async |store, _| store.undo(context, first, last).await).await?;
    shell.out.answer(&Written::from(done.position))?;
    Ok(Ended::Done)
}
