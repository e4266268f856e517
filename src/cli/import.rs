//! `lakelog import`: a lakeFS key/value file into the store.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::migrate::{ImportOptions, ImportReport, RefusedRecord, import};
use crate::store::Context;
use crate::types::{ErrorKind, Result};

use super::command::Shell;
use super::context::ContextArgs;
use super::input::Input;
use super::output::{Ended, note};
use super::progress::Progress;
use super::text::{Name, member_name, shown};

/// Refused records that the text for people names; the JSON names more.
const SHOWN_MAX: usize = 20;

/// Takes in a lakeFS key/value file: a `kv dump` document or a newline-delimited export; plain, .zst or .gz
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The file; - is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Replace existing keys that have other values, instead of refusing those records
    #[arg(long)]
    overwrite: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    context: ContextArgs,
}

#[derive(Debug, Serialize)]
struct Answer {
    entries: u64,
    already: u64,
    transactions: u64,
    head: u64,
    partitions: BTreeMap<String, u64>,
    /// The first 10,000.
    refused: Vec<Refused>,
    refused_total: u64,
    #[serde(skip)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Refused {
    record: u64,
    partition: Option<Name>,
    key: Option<Name>,
    reason: String,
}

impl Answer {
    fn new(report: ImportReport, dry_run: bool) -> Answer {
        let partitions = report.partitions.iter().map(|(partition, count)| (member_name(partition), *count));
        Answer {
            entries: report.entries,
            already: report.already,
            transactions: report.transactions,
            head: report.head.0,
            partitions: partitions.collect(),
            refused: report.refusals.into_iter().map(Refused::from).collect(),
            refused_total: report.refused,
            dry_run,
        }
    }
}

impl From<RefusedRecord> for Refused {
    fn from(refused: RefusedRecord) -> Refused {
        let name = |bytes: bytes::Bytes| Name(bytes.to_vec());
        let RefusedRecord { record, partition, key, reason } = refused;
        Refused { record, partition: partition.map(name), key: key.map(name), reason }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "would import" } else { "imported" };
        write!(f, "{verb} {} records in {} transactions, head {}", self.entries, self.transactions, self.head)?;
        if self.already > 0 {
            write!(f, "; {} were there already", self.already)?;
        }
        if self.refused_total > 0 {
            write!(f, "; {} refused:", self.refused_total)?;
        }
        for Refused { record, partition, key, reason } in self.refused.iter().take(SHOWN_MAX) {
            let name = |name: &Option<Name>| name.as_ref().map_or("?".into(), |Name(bytes)| shown(bytes).into_owned());
            write!(f, "\n  record {record}  {}  {}  {reason}", name(partition), name(key))?;
        }
        match self.refused_total.saturating_sub(SHOWN_MAX as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more; --json names them"),
        }
    }
}

/// Ends `Partly` when records were refused.
pub async fn run(args: ImportArgs, shell: &mut Shell) -> Result<Ended> {
    let input = Input::open(&args.file)?;
    let (total, read) = (input.length(), input.bytes_read());
    let ImportArgs { overwrite, dry_run, context, .. } = args;
    let actor = context.actor();
    let mut context_of_all = Context::new(actor);
    if let Some(reason) = context.reason {
        context_of_all = context_of_all.reason(reason);
    }
    let mut progress = Progress::new("importing", "bytes", total);
    let mut handled = 0;
    let done = shell
        .with_store(async |store, _| {
            import(store, context_of_all, input, ImportOptions { overwrite, dry_run }, |records| {
                handled = records;
                progress.reach(read());
            })
            .await
        })
        .await;
    drop(progress);
    let report = done.inspect_err(|error| {
        if handled > 0 && !dry_run && !shell.out.is_json() && error.kind() != ErrorKind::Internal {
            note(format!("{handled} records were handled by then; the same import on the whole file completes it"));
        }
    })?;
    let answer = Answer::new(report, dry_run);
    shell.out.answer(&answer)?;
    Ok(if answer.refused_total == 0 { Ended::Done } else { Ended::Partly })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Position;

    fn report(refused: u64) -> ImportReport {
        let refusal = |record| RefusedRecord {
            record,
            partition: Some(b"p".as_slice().into()),
            key: (record > 1).then(|| b"\xff".as_slice().into()),
            reason: "why".into(),
        };
        ImportReport {
            entries: 2,
            already: 1,
            transactions: 1,
            head: Position(9),
            partitions: [(b"auth".to_vec(), 1), (vec![0xff], 1)].into(),
            refused,
            refusals: (1..=refused).map(refusal).collect(),
        }
    }

    #[test]
    fn json_is_as_fixed() {
        assert_eq!(
            serde_json::to_value(Answer::new(report(2), false)).unwrap(),
            json!({
                "entries": 2, "already": 1, "transactions": 1, "head": 9,
                "partitions": {"auth": 1, "base64:/w==": 1},
                "refused": [
                    {"record": 1, "partition": "p", "key": null, "reason": "why"},
                    {"record": 2, "partition": "p", "key": {"base64": "/w=="}, "reason": "why"},
                ],
                "refused_total": 2,
            })
        );
    }

    #[test]
    fn people_get_the_first_of_many() {
        let text = Answer::new(report(23), true).to_string();
        assert!(text.starts_with("would import 2 records in 1 transactions, head 9; 1 were there already; 23 refused:\n  record 1  p  ?  why\n"), "{text}");
        assert!(text.ends_with("  record 20  p  \\xff  why\n  and 3 more; --json names them"), "{text}");
    }
}
