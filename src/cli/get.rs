//! `lakelog get`: one value.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::types::{Entry, Error, ErrorKind, Result};

use super::command::{AtArgs, Shell};
use super::output::Ended;
use super::reading::ArchiveArgs;
use super::state::Needs;
use super::text::{self, Base64, Name, shown};

/// Writes a value as the raw bytes that it is
#[derive(Args, Debug)]
pub struct GetArgs {
    /// The partition
    #[arg(value_name = "P")]
    partition: String,
    /// The key
    #[arg(value_name = "K")]
    key: String,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// An entry as `get` and `scan` answer it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    partition: Name,
    key: Name,
    value: Base64,
    version: u64,
}

impl From<&Entry> for Found {
    fn from(entry: &Entry) -> Found {
        Found {
            partition: Name(entry.partition()),
            key: Name(entry.key().to_vec()),
            value: Base64(entry.value.to_vec()),
            version: entry.version.0,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}\t{}", shown(&self.key.0), self.version, shown(&self.value.0))
    }
}

/// Fails `NotFound` when the key has no value.
pub async fn run(args: GetArgs, shell: &mut Shell) -> Result<Ended> {
    let partition = text::parse(&args.partition, shell.hex)?;
    let key = text::parse(&args.key, shell.hex)?;
    let entry = shell
        .with_past(&args.at, &args.archive, Needs::State, async |state, _| state.get(&partition, &key).await)
        .await?;
    let entry = entry.ok_or_else(|| {
        let message = format!("no such key, partition=`{}` key=`{}`", shown(&partition), shown(&key));
        Error::new(ErrorKind::NotFound, message)
    })?;
    if shell.out.is_json() {
        shell.out.json(&Found::from(&entry))?
    } else {
        shell.out.bytes(&entry.value)?
    }
    Ok(Ended::Done)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::{Key, Position};

    #[test]
    fn json_is_as_fixed() {
        let entry = Entry {
            encoded_key: Key::new(b"a\0b", b"\xff").into(),
            version: Position(7),
            value: b"v\n".as_slice().into(),
        };
        let found = Found::from(&entry);
        assert_eq!(
            serde_json::to_value(&found).unwrap(),
            json!({"partition": "a\0b", "key": {"base64": "/w=="}, "value": "dgo=", "version": 7})
        );
        assert_eq!(found.to_string(), "\\xff\t7\tv\\n");
    }
}
