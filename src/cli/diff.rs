//! `lakelog diff`: what differs between two positions.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::store::{DiffOptions, Difference};
use crate::types::{At, Result};

use super::command::{AtArgs, Shell};
use super::output::Ended;
use super::reading::ArchiveArgs;
use super::state::Needs;
use super::text::{self, Base64, Name, shown};

/// Lists what differs between two positions, times or marks, in key order
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The one position, time or mark
    #[arg(value_name = "A")]
    a: At,
    /// The other
    #[arg(value_name = "B")]
    b: At,
    /// Only this partition
    #[arg(long, value_name = "P")]
    partition: Option<String>,
    /// Only keys with this prefix (of the partition given)
    #[arg(long, value_name = "PREFIX", requires = "partition")]
    prefix: Option<String>,
    #[command(flatten)]
    archive: ArchiveArgs,
}

#[derive(Debug, Serialize)]
struct Listed {
    partition: Name,
    key: Name,
    change: &'static str,
    old: Option<Base64>,
    new: Option<Base64>,
}

impl From<Difference> for Listed {
    fn from(difference: Difference) -> Listed {
        Listed {
            partition: Name(difference.partition()),
            key: Name(difference.key().to_vec()),
            change: match (&difference.old, &difference.new) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            },
            old: difference.old.map(|entry| Base64(entry.value.to_vec())),
            new: difference.new.map(|entry| Base64(entry.value.to_vec())),
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.change, shown(&self.partition.0), shown(&self.key.0))?;
        self.old.iter().try_for_each(|old| write!(f, "\n    - {}", shown(&old.0)))?;
        self.new.iter().try_for_each(|new| write!(f, "\n    + {}", shown(&new.0)))
    }
}

/// Ends 0 whether something differs or not.
pub async fn run(args: DiffArgs, shell: &mut Shell) -> Result<Ended> {
    let parse = |text: &Option<String>| text.as_ref().map(|text| text::parse(text, shell.hex)).transpose();
    let (partition, prefix) = (parse(&args.partition)?, parse(&args.prefix)?.unwrap_or_default());
    let (a, b) = (shell.resolve(&args.archive, args.a).await?, shell.resolve(&args.archive, args.b).await?);
    let between = Needs::Between(a.clone(), b.clone());
    shell
        .with_past(&AtArgs::default(), &args.archive, between, async |state, shell| {
            let options = match &partition {
                Some(partition) => DiffOptions::new().prefix(partition, &prefix),
                None => DiffOptions::new(),
            };
            let mut differences = state.diff(a, b, options).await?;
            while let Some(difference) = differences.next().await {
                shell.out.answer(&Listed::from(difference?))?;
            }
            Ok(Ended::Done)
        })
        .await
}
