//! `lakelog export`: the whole store as a lakeFS key/value file.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::env::Env;
use crate::migrate::{ExportFormat, ExportReport, RefusedEntry, export};
use crate::types::Result;

use super::command::{AtArgs, Shell};
use super::output::{Ended, note};
use super::progress::Progress;
use super::reading::ArchiveArgs;
use super::state::{Needs, State};
use super::text::{Name, shown};
use super::unfinished::Unfinished;

/// Writes every record as a lakeFS key/value file, sorted by partition, then key
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The newline-delimited export of lakeFS 0.80, or the document of lakeFS 1.84's `kv dump`
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Where to write; - is standard output
    #[arg(short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Also what the store keeps for itself
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Ndjson,
    KvDump,
}

impl From<Format> for ExportFormat {
    fn from(format: Format) -> ExportFormat {
        match format {
            Format::Ndjson => ExportFormat::Ndjson,
            Format::KvDump => ExportFormat::KvDump,
        }
    }
}

/// A record that the format cannot carry.
#[derive(Serialize)]
struct Refused {
    partition: Name,
    key: Name,
    reason: String,
}

/// Ends `Partly` when the format cannot carry some records; they are named on standard error.
pub async fn run(args: ExportArgs, shell: &mut Shell) -> Result<Ended> {
    let (format, internal) = (args.format.into(), args.internal);
    let report = shell
        .with_past(&args.at, &args.archive, Needs::State, async |state, shell| match &*args.output {
            path if path == Path::new("-") => {
                let mut sink = shell.out.sink();
                let done = write(state, &mut sink, format, internal).await;
                sink.failure().map_or(done, Err)
            }
            path => {
                let file = Unfinished::create(path)?;
                let done = write(state, file.writer()?, format, internal).await;
                file.finish(done)
            }
        })
        .await?;
    let refused = report.refused;
    for RefusedEntry { partition, key, reason } in report.refusals {
        match shell.out.is_json() {
            false => note(format!("refused: {}  {}  {reason}", shown(&partition), shown(&key))),
            true => {
                let refused = Refused { partition: Name(partition), key: Name(key), reason };
                note(serde_json::to_string(&refused).unwrap_or_default());
            }
        }
    }
    if !shell.out.is_json() {
        note(format!("exported {} records, {refused} refused", report.entries));
    }
    Ok(if refused == 0 { Ended::Done } else { Ended::Partly })
}

async fn write(state: &State, out: impl Write + Send, format: ExportFormat, internal: bool) -> Result<ExportReport> {
    let mut progress = Progress::new("exporting", "records", None);
    export(state, out, format, internal, Env::os().clock.now(), |entries| progress.reach(entries)).await
}
