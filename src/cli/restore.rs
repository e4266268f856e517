//! `lakelog restore`: dumps into a store.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::dump::{DumpSource, Restored};
use crate::store::Store;
use crate::types::{Error, ErrorKind, Result};

use super::command::Shell;
use super::dump::Answer;
use super::output::Ended;
use super::progress::Progress;

/// Restores a dump, or a chain of them, into an absent or empty store or onto one that it goes on from
///
/// Everything is verified before it becomes visible. The same command again completes an interrupted one.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// The dumps, in the order in which they follow; - is standard input
    #[arg(value_name = "FILE|-", required = true)]
    files: Vec<PathBuf>,
    /// Under a new log id
    #[arg(long)]
    as_clone: bool,
}

#[derive(Debug, Serialize)]
struct RestoreAnswer {
    #[serde(flatten)]
    dump: Answer,
    /// Transactions that were not there before.
    appended: u64,
}

impl From<Restored> for RestoreAnswer {
    fn from(restored: Restored) -> RestoreAnswer {
        let Restored { log_id, kind, base, head, transactions, appended, entries, bytes } = restored;
        let dump = Answer {
            kind: kind.name(),
            log_id: log_id.to_string(),
            from: Answer::first(kind, base.position),
            to: head.position.0,
            transactions,
            entries,
            bytes,
            chain: head.chain.to_string(),
        };
        RestoreAnswer { dump, appended }
    }
}

impl fmt::Display for RestoreAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} of the transactions were not there before", self.dump, self.appended)
    }
}

/// As the contract says.
pub async fn run(args: RestoreArgs, shell: &mut Shell) -> Result<Ended> {
    let sources: Vec<DumpSource> = args.files.iter().map(|path| source(path)).collect::<Result<_>>()?;
    let mut bar: Option<Progress> = None;
    let restored = Store::builder(&shell.dir).restore(sources, args.as_clone, &mut |done, total| {
        bar.get_or_insert_with(|| Progress::new("restoring", "bytes", total)).reach(done);
    });
    drop(bar);
    shell.out.answer(&RestoreAnswer::from(restored?))?;
    Ok(Ended::Done)
}

/// What is no regular file can be read once only.
pub fn source(path: &Path) -> Result<DumpSource> {
    if path == Path::new("-") {
        return Ok(DumpSource::Stream { name: "-".to_owned(), input: Box::new(io::stdin()) });
    }
    let failed = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let kind = if missing { ErrorKind::NotFound } else { ErrorKind::Unavailable };
        Error::new(kind, format!("cannot open the file, path=`{}`", path.display())).with_source(error)
    };
    if fs::metadata(path).map_err(failed)?.is_file() {
        return Ok(DumpSource::File(path.to_owned()));
    }
    let input = Box::new(fs::File::open(path).map_err(failed)?);
    Ok(DumpSource::Stream { name: path.display().to_string(), input })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::DumpKind;
    use crate::log::Head;
    use crate::types::{LogId, Position};

    #[test]
    fn json_has_what_dump_says_and_what_was_missing() {
        let base = Head::origin(LogId([1; 16]));
        let head = Head { position: Position(7), ..base };
        let kind = DumpKind::Full;
        let restored =
            Restored { log_id: LogId([1; 16]), kind, base, head, transactions: 7, appended: 2, entries: 0, bytes: 9 };
        let json = serde_json::to_value(RestoreAnswer::from(restored)).unwrap();
        for (member, value) in [("from", 1), ("to", 7), ("transactions", 7), ("appended", 2), ("bytes", 9)] {
            assert_eq!(json[member], value, "{member}");
        }
        assert_eq!(json["chain"], base.chain.to_string());
    }
}
