//! `lakelog verify`: everything that can be checked of a store, without changing it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::diagnostics::{
    CheckedHead, HeadFault, PublicKey, SignedHead, Stage, VerifyOptions, VerifyProblem, VerifyReport, archive_notes,
    verify_archive, verify_dump_signed, verify_with,
};
use crate::dump::{DumpError, DumpReader, verify as verify_dump};
use crate::env::Env;
use crate::log::Head;
use crate::types::{Error, ErrorKind, Result};

use super::command::Shell;
use super::input::Input;
use super::keys::{read_text, text_of};
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
    /// Prove signed heads too: the public key in PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The lines that `mark --sign` gave: a file, `-` for standard input, or the line itself [default: -]
    #[arg(long, value_name = "FILE|LINE", requires = "key")]
    signed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    head: u64,
    chain: String,
    skipped: Vec<&'static str>,
    problems: Vec<ListedProblem>,
    signed: Vec<ListedHead>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ListedHead {
    position: u64,
    time: String,
    chain: String,
    proven: bool,
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
            signed: report.signed.iter().map(ListedHead::from).collect(),
            notes: report.notes,
        }
    }
}

impl From<&CheckedHead> for ListedHead {
    fn from(checked: &CheckedHead) -> ListedHead {
        let Head { position, time, chain } = checked.signed.head;
        let proven = checked.fault.is_none();
        ListedHead { position: position.0, time: time.to_string(), chain: chain.to_string(), proven }
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
        for ListedHead { position, time, chain, .. } in self.signed.iter().filter(|head| head.proven) {
            write!(f, "\n  proven: the history up to {position} ({time}) is the one signed, chain {chain}")?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  note  {note}"))
    }
}

/// Ends as `Corrupt` when anything is wrong; as `NotFound` when that is only signed heads below the floor.
pub async fn run(args: VerifyArgs, shell: &mut Shell) -> Result<Ended> {
    let signed = match &args.key {
        Some(key) => Some((PublicKey::from_pem(&text_of(key, "the key")?)?, signed_heads(args.signed.as_deref())?)),
        None => None,
    };
    if let Some(path) = &args.dump {
        let (answer, only_trimmed) = of_dump(path, signed.as_ref())?;
        return end(answer, only_trimmed, shell);
    }
    let mut bar: Option<(Stage, Progress)> = None;
    let mut show = |stage, done, total| {
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
    };
    let signed = signed.as_ref().map(|(key, heads)| (&heads[..], key));
    let options = VerifyOptions { base: shell.base_at(), signed };
    let report = verify_with(&Env::os(), &shell.dir, options, &mut show).await;
    drop(bar);
    let mut report = report?;
    if let Some(archive) = &args.archive {
        report.problems.extend(verify_archive(&Env::os(), &shell.dir, archive)?);
        report.notes.extend(archive_notes(&Env::os(), &shell.dir, archive)?);
    }
    let only_trimmed = report.problems.len() == trimmed(&report.signed);
    end(Answer::from(report), only_trimmed, shell)
}

fn end(answer: Answer, only_trimmed: bool, shell: &mut Shell) -> Result<Ended> {
    shell.out.answer(&answer)?;
    Ok(match (answer.ok, only_trimmed) {
        (true, _) => Ended::Done,
        (false, true) => Ended::Failed(ErrorKind::NotFound),
        (false, false) => Ended::Failed(ErrorKind::Corrupt),
    })
}

/// How many heads lie below what is there.
fn trimmed(signed: &[CheckedHead]) -> usize {
    signed.iter().filter(|checked| checked.fault == Some(HeadFault::BelowFloor)).count()
}

/// What is no dump at all, or a newer one, is an error.
fn of_dump(path: &Path, signed: Option<&(PublicKey, Vec<SignedHead>)>) -> Result<(Answer, bool)> {
    let input = Input::open(path)?;
    let (name, total) = (path.display().to_string(), input.length());
    let mut bar = Progress::new("verifying the dump", "bytes", total);
    let mut answer = Answer {
        ok: false,
        head: 0,
        chain: String::new(),
        skipped: Vec::new(),
        problems: Vec::new(),
        signed: Vec::new(),
        notes: Vec::new(),
    };
    let mut reader = match DumpReader::new(input, &name) {
        Err(error @ DumpError::Corrupt { .. }) => {
            answer.problems.push(damage(error)?);
            return Ok((answer, false));
        }
        reader => reader?,
    };
    let mut progress = |done| bar.reach(done);
    let (verified, checked) = match signed {
        Some((key, heads)) => verify_dump_signed(&mut reader, heads, key, &mut progress),
        None => (verify_dump(&mut reader, &mut progress), Vec::new()),
    };
    let head = match verified {
        Ok(summary) => summary.head,
        Err(error) => {
            answer.problems.push(damage(error)?);
            reader.head()
        }
    };
    (answer.head, answer.chain) = (head.position.0, head.chain.to_string());
    answer.problems.extend(checked.iter().filter_map(|CheckedHead { signed, fault }| {
        let positions = Some([signed.head.position.0; 2]);
        let (file, detail) = (Some(name.clone()), (*fault)?.detail().to_owned());
        Some(ListedProblem { kind: "signature", file, offset: None, positions, detail })
    }));
    answer.signed = checked.iter().map(ListedHead::from).collect();
    answer.ok = answer.problems.is_empty();
    let only_trimmed = answer.problems.len() == trimmed(&checked);
    Ok((answer, only_trimmed))
}

fn damage(error: DumpError) -> Result<ListedProblem> {
    let DumpError::Corrupt { name, offset, position, detail } = error else { return Err(error.into()) };
    let positions = Some([position.next().0; 2]);
    Ok(ListedProblem { kind: "dump", file: Some(name), offset: Some(offset), positions, detail })
}

/// The signed heads of a file, of standard input, or of the argument itself.
fn signed_heads(from: Option<&str>) -> Result<Vec<SignedHead>> {
    let text = match from {
        Some(line) if line.starts_with("lakelog-head ") => line.to_owned(),
        None | Some("-") => read_text(io::stdin().lock(), "the signed heads", Path::new("-"))?,
        Some(path) => text_of(Path::new(path), "the signed heads")?,
    };
    let heads = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::parse);
    let heads: Vec<SignedHead> = heads.collect::<Result<_>>()?;
    match heads.is_empty() {
        true => Err(Error::new(ErrorKind::Invalid, "there is no signed head to prove")),
        false => Ok(heads),
    }
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
        let answer = Answer::from(VerifyReport {
            log_id: LogId::default(),
            head,
            chain,
            skipped,
            problems,
            signed: Vec::new(),
            notes: vec!["kept".into()],
        });
        assert_eq!(
            serde_json::to_value(&answer).unwrap(),
            json!({
                "ok": false, "head": 9, "chain": "ab".repeat(32), "skipped": ["views"],
                "problems": [
                    {"kind": "log", "file": "log/x.seg", "offset": 4096, "positions": [3, 4], "detail": "why"},
                    {"kind": "log", "file": null, "offset": null, "positions": null, "detail": "why"},
                ],
                "signed": [], "notes": ["kept"],
            })
        );
        let text = answer.to_string();
        assert!(
            text.starts_with("2 problems, head 9; not checked: views\n  log  positions 3..=4  log/x.seg at 4096  why"),
            "{text}"
        );
    }
}
