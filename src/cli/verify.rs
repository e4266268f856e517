//! `lakelog verify`: everything that can be checked of a store, without changing it.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::diagnostics::{Stage, VerifyProblem, VerifyReport, verify, verify_archive};
use crate::dump::{DumpError, DumpReader, verify as verify_dump};
use crate::env::Env;
use crate::types::{ErrorKind, Position, Result};

use super::command::Shell;
use super::input::Input;
use super::output::Ended;
use super::progress::Progress;

/// Checks checksums, order, chain, manifest, snapshots, and the views against the log; or a dump. Works on a store that does not open
///
/// Beside a process that has the store open the views are skipped. Changes nothing but a scratch directory of its own.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// A dump to check without restoring it, instead of the store; - is standard input
    #[arg(value_name = "DUMP|-")]
    dump: Option<PathBuf>,
    /// Check what `trim --archive` kept in this directory too
    #[arg(long, value_name = "DIR", conflicts_with = "dump")]
    archive: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    head: u64,
    chain: String,
    skipped: Vec<&'static str>,
    problems: Vec<ListedProblem>,
}

#[derive(Debug, Serialize)]
struct ListedProblem {
    kind: &'static str,
    file: Option<String>,
    offset: Option<u64>,
    /// The first and the last.
    positions: Option<[u64; 2]>,
    detail: String,
}

impl From<VerifyReport> for Answer {
    fn from(report: VerifyReport) -> Answer {
        Answer {
            ok: report.ok(),
            head: report.head.0,
            chain: report.chain.to_string(),
            skipped: report.skipped,
            problems: report.problems.into_iter().map(ListedProblem::from).collect(),
        }
    }
}

impl From<VerifyProblem> for ListedProblem {
    fn from(problem: VerifyProblem) -> ListedProblem {
        let VerifyProblem { kind, file, offset, positions, detail } = problem;
        let file = (!file.as_os_str().is_empty()).then(|| file.display().to_string());
        ListedProblem { kind, file, offset, positions: positions.map(|(first, last)| [first.0, last.0]), detail }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            0 => write!(f, "sound up to {}, chain {}", self.head, self.chain)?,
            many => write!(f, "{many} problems, head {}", self.head)?,
        }
        if !self.skipped.is_empty() {
            write!(f, "; not checked: {}", self.skipped.join(", "))?;
        }
        for ListedProblem { kind, file, offset, positions, detail } in &self.problems {
            write!(f, "\n  {kind}")?;
            if let Some([first, last]) = positions {
                write!(f, "  positions {first}..={last}")?;
            }
            if let Some(file) = file {
                write!(f, "  {file}")?;
            }
            if let Some(offset) = offset {
                write!(f, " at {offset}")?;
            }
            write!(f, "  {detail}")?;
        }
        Ok(())
    }
}

/// Ends as `Corrupt` when anything is wrong.
pub async fn run(args: VerifyArgs, shell: &mut Shell) -> Result<Ended> {
    let answer = match &args.dump {
        Some(path) => of_dump(path)?,
        None => of_store(shell, args.archive.as_deref()).await?,
    };
    shell.out.answer(&answer)?;
    Ok(if answer.ok { Ended::Done } else { Ended::Failed(ErrorKind::Corrupt) })
}

/// What is no dump at all, or a newer one, is an error.
fn of_dump(path: &Path) -> Result<Answer> {
    let input = Input::open(path)?;
    let (name, total) = (path.display().to_string(), input.length());
    let mut bar = Progress::new("verifying the dump", "bytes", total);
    let mut reader = match DumpReader::new(input, &name) {
        Err(error @ DumpError::Corrupt { .. }) => return damaged(error, Position::ZERO, String::new()),
        reader => reader?,
    };
    match verify_dump(&mut reader, &mut |done| bar.reach(done)) {
        Ok(summary) => Ok(Answer {
            ok: true,
            head: summary.head.position.0,
            chain: summary.head.chain.to_string(),
            skipped: Vec::new(),
            problems: Vec::new(),
        }),
        Err(error) => damaged(error, reader.head().position, reader.head().chain.to_string()),
    }
}

fn damaged(error: DumpError, head: Position, chain: String) -> Result<Answer> {
    let DumpError::Corrupt { name, offset, position, detail } = error else { return Err(error.into()) };
    let positions = Some([position.next().0; 2]);
    let problem = ListedProblem { kind: "dump", file: Some(name), offset: Some(offset), positions, detail };
    Ok(Answer { ok: false, head: head.0, chain, skipped: Vec::new(), problems: vec![problem] })
}

async fn of_store(shell: &Shell, archive: Option<&Path>) -> Result<Answer> {
    let mut bar: Option<(Stage, Progress)> = None;
    let report = verify(&Env::os(), &shell.dir, &mut |stage, done, total| {
        if bar.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            let (what, unit) = match stage {
                Stage::Log => ("verifying the log", "bytes"),
                Stage::Views => ("rebuilding the views", "transactions"),
            };
            bar = Some((stage, Progress::new(what, unit, Some(total))));
        }
        if let Some((_, progress)) = &mut bar {
            progress.reach(done);
        }
    })
    .await;
    drop(bar);
    let mut report = report?;
    if let Some(archive) = archive {
        report.problems.extend(verify_archive(&Env::os(), &shell.dir, archive)?);
    }
    Ok(Answer::from(report))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::{Hash, LogId, Position};

    #[test]
    fn json_is_as_fixed() {
        let problem = |file: &str, positions| VerifyProblem {
            kind: "log",
            file: file.into(),
            offset: positions,
            positions: positions.map(|_| (Position(3), Position(4))),
            detail: "why".into(),
        };
        let problems = vec![problem("log/x.seg", Some(4096)), problem("", None)];
        let (head, chain, skipped) = (Position(9), Hash([0xab; 32]), vec!["views"]);
        let answer = Answer::from(VerifyReport { log_id: LogId::default(), head, chain, skipped, problems });
        assert_eq!(
            serde_json::to_value(&answer).unwrap(),
            json!({
                "ok": false, "head": 9, "chain": "ab".repeat(32), "skipped": ["views"],
                "problems": [
                    {"kind": "log", "file": "log/x.seg", "offset": 4096, "positions": [3, 4], "detail": "why"},
                    {"kind": "log", "file": null, "offset": null, "positions": null, "detail": "why"},
                ],
            })
        );
        let text = answer.to_string();
        assert!(
            text.starts_with("2 problems, head 9; not checked: views\n  log  positions 3..=4  log/x.seg at 4096  why"),
            "{text}"
        );
    }
}
