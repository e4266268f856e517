//! `lakelog history`: every version of a key, or of the keys with a prefix.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::store::Version;
use crate::types::{Error, ErrorKind, Result};

use super::command::{AtArgs, Shell};
use super::output::Ended;
use super::reading::ArchiveArgs;
use super::state::Needs;
use super::text::{self, Base64, Name, shown};

/// Lists every version of a key, oldest first, deletions too
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// The partition
    #[arg(value_name = "P")]
    partition: String,
    /// The key
    #[arg(value_name = "K", required_unless_present = "prefix", conflicts_with = "prefix")]
    key: Option<String>,
    /// All keys with this prefix, key by key
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// One version. Time and actor are unknown of what was there at the floor: its transaction is not kept any more.
#[derive(Debug, Serialize)]
struct Listed {
    position: u64,
    time: Option<String>,
    actor: Option<String>,
    deleted: bool,
    value: Option<Base64>,
    redacted: bool,
    reason: Option<String>,
    request_id: Option<String>,
    partition: Name,
    key: Name,
}

impl From<Version> for Listed {
    fn from(version: Version) -> Listed {
        let (partition, key) = (Name(version.partition()), Name(version.key().to_vec()));
        let origin = version.origin.as_ref();
        Listed {
            position: version.position.0,
            time: origin.map(|origin| origin.time.to_string()),
            actor: origin.map(|origin| origin.actor.clone()),
            deleted: version.value.is_none() && !version.redacted,
            redacted: version.redacted,
            value: version.value.map(|value| Base64(value.to_vec())),
            reason: origin.and_then(|origin| origin.reason.clone()),
            request_id: origin.and_then(|origin| origin.request_id.clone()),
            partition,
            key,
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, actor) = (self.time.as_deref().unwrap_or("before the floor"), self.actor.as_deref().unwrap_or("-"));
        write!(f, "{}  {time}  {}  {}  ", self.position, shown(actor.as_bytes()), shown(&self.key.0))?;
        match &self.value {
            Some(value) => write!(f, "= {}", shown(&value.0))?,
            None if self.redacted => f.write_str("redacted")?,
            None => f.write_str("deleted")?,
        }
        match &self.reason {
            Some(reason) => write!(f, "  ({})", shown(reason.as_bytes())),
            None => Ok(()),
        }
    }
}

/// Fails `NotFound` when there never was such a key.
pub async fn run(args: HistoryArgs, shell: &mut Shell) -> Result<Ended> {
    let partition = text::parse(&args.partition, shell.hex)?;
    let key = args.key.as_ref().map(|key| text::parse(key, shell.hex)).transpose()?;
    let prefix = args.prefix.as_ref().map_or(Ok(Vec::new()), |prefix| text::parse(prefix, shell.hex))?;
    let found = shell
        .with_past(&args.at, &args.archive, Needs::History, async |state, shell| {
            let mut versions = state.history(&partition, key.as_deref(), &prefix).await?;
            let mut found = false;
            while let Some(version) = versions.next().await {
                shell.out.answer(&Listed::from(version?))?;
                found = true;
            }
            Ok(found)
        })
        .await?;
    match key {
        Some(key) if !found => {
            let message = format!("no such key, partition=`{}` key=`{}`", shown(&partition), shown(&key));
            Err(Error::new(ErrorKind::NotFound, message))
        }
        _ => Ok(Ended::Done),
    }
}
