//! `lakelog export`: the whole store as a lakeFS key/value file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::env::Env;
use crate::migrate::{ExportFormat, ExportReport, RefusedEntry, export};
use crate::store::Reader;
use crate::types::{Error, ErrorKind, Result};

use super::command::{AtArgs, Shell};
use super::output::{Ended, note};
use super::progress::Progress;
use super::text::{Name, shown};

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
        .with_reader(&args.at, async |reader, shell| match &*args.output {
            path if path == Path::new("-") => {
                let mut sink = shell.out.sink();
                let done = write(&reader, &mut sink, format, internal).await;
                sink.failure().map_or(done, Err)
            }
            path => write_file(&reader, path, format, internal).await,
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

async fn write(reader: &Reader, out: impl Write + Send, format: ExportFormat, internal: bool) -> Result<ExportReport> {
    let mut progress = Progress::new("exporting", "records", None);
    export(reader, out, format, internal, Env::os().clock.now(), |entries| progress.reach(entries)).await
}

/// Under another name first, so that a file with the name asked for is a whole one. Readable by its owner only: it
/// holds what the store holds. What is no regular file, such as a pipe, is written in place.
async fn write_file(reader: &Reader, path: &Path, format: ExportFormat, internal: bool) -> Result<ExportReport> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Unavailable, format!("cannot write the file, path=`{}`", path.display()))
            .with_source(error)
    };
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
        return write(reader, file, format, internal).await;
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    let file = file.map_err(failed)?;
    let done = write(reader, &file, format, internal).await;
    let published = done.and_then(|report| publish(&file, &unfinished, path).map(|()| report).map_err(failed));
    if published.is_err() {
        // It is named for what it is; failing to remove it says nothing new.
        let _ = fs::remove_file(&unfinished);
    }
    published
}

fn publish(file: &File, unfinished: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
