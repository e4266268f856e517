//! `lakelog dump`: the log, a part of it, or the state, as one file that proves itself.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::dump::{DumpKind, DumpOptions, DumpSummary, dump};
use crate::env::Env;
use crate::types::{At, Position, Result};

use super::command::{AtArgs, Shell};
use super::output::{Ended, note};
use super::progress::Progress;
use super::reading::{self, ArchiveArgs};
use super::state::{Needs, State};
use super::unfinished::Unfinished;

/// Writes the log into a file that proves itself and can be restored; also beside a process that has the store open
///
/// With --state-only only the state is written, without its history; where another process has the store open it is asked.
#[derive(Args, Debug)]
pub struct DumpArgs {
    /// Where to write; - is standard output
    #[arg(short, value_name = "FILE|-")]
    output: PathBuf,
    /// Only transactions after this position
    #[arg(long, value_name = "POSITION", conflicts_with = "state_only")]
    since: Option<u64>,
    /// Only the state, without its history; restored under a new log id
    #[arg(long)]
    state_only: bool,
    /// Up to this position, RFC 3339 time or mark, not the last one
    #[arg(long, value_name = "X")]
    at: Option<At>,
    /// Do not compress
    #[arg(long)]
    no_compress: bool,
    #[command(flatten)]
    archive: ArchiveArgs,
}

/// What `dump` and `restore` say of a dump.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub kind: &'static str,
    pub log_id: String,
    /// The first position in it; of a state its position.
    pub from: u64,
    pub to: u64,
    pub transactions: u64,
    pub entries: u64,
    pub bytes: u64,
    pub chain: String,
}

impl Answer {
    /// The first position that a dump speaks of.
    pub fn first(kind: DumpKind, base: Position) -> u64 {
        match kind {
            DumpKind::State => base.0,
            _ => base.next().0,
        }
    }
}

impl From<DumpSummary> for Answer {
    fn from(summary: DumpSummary) -> Answer {
        let DumpSummary { kind, log_id, base, head, transactions, entries, bytes, .. } = summary;
        Answer {
            kind: kind.name(),
            log_id: log_id.to_string(),
            from: Answer::first(kind, base.position),
            to: head.position.0,
            transactions,
            entries,
            bytes,
            chain: head.chain.to_string(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { kind, from, to, transactions, entries, bytes, chain, .. } = self;
        write!(f, "{kind}: positions {from}..={to}, {transactions} transactions, ")?;
        if *entries > 0 {
            write!(f, "{entries} entries, ")?;
        }
        write!(f, "{bytes} bytes, chain {chain}")
    }
}

/// The answer goes to standard error when the dump goes to standard output.
pub async fn run(args: DumpArgs, shell: &mut Shell) -> Result<Ended> {
    if args.output == Path::new("-") {
        let answer = Answer::from(write(&args, shell, io::stdout(), "-").await?);
        match shell.out.is_json() {
            true => note(serde_json::to_string(&answer).unwrap_or_default()),
            false => note(answer),
        }
        return Ok(Ended::Done);
    }
    let file = Unfinished::create(&args.output)?;
    let writer = file.writer()?;
    let done = write(&args, shell, writer, &args.output.display().to_string()).await;
    let answer = Answer::from(file.finish(done)?);
    shell.out.answer(&answer)?;
    Ok(Ended::Done)
}

async fn write(
    args: &DumpArgs,
    shell: &mut Shell,
    out: impl Write + Send + 'static,
    name: &str,
) -> Result<DumpSummary> {
    let compress = !args.no_compress;
    if args.state_only {
        let at = AtArgs { at: args.at.clone() };
        let archive = &args.archive;
        let dumped = shell.with_past(&at, archive, Needs::State, async |state, shell| match state {
            State::Own(store, reader) => store.dump_state(Some(reader.position().into()), out, name, compress).await,
            State::Beside(reader) => reader.dump_state(&reading::open(shell, archive)?, out, name, compress).await,
            State::Archived(past, reader) => past.dump_state(reader.position(), out, name, compress).await,
        });
        return dumped.await.map(|(_, summary)| summary);
    }
    let files = reading::open(shell, &args.archive)?;
    let at = match &args.at {
        None => None,
        Some(At::Position(position)) => Some(*position),
        Some(At::Time(time)) => Some(files.position_at(*time)?),
        Some(mark @ At::Mark(_)) => {
            let at = AtArgs { at: Some(mark.clone()) };
            Some(shell.with_state(&at, async |state, _| Ok(state.position())).await?)
        }
    };
    let options = DumpOptions { since: args.since.map(Position), at, compress };
    let from = options.since.unwrap_or(files.floor().position);
    let total = options.at.unwrap_or(files.synced()).0.saturating_sub(from.0);
    let mut bar = Progress::new("dumping", "transactions", Some(total));
    let (_, summary) = dump(&Env::os(), &files, options, out, name, &mut |done, _| bar.reach(done))?;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::log::Head;
    use crate::types::{Digest, Hash, LogId, Timestamp};

    #[test]
    fn json_is_as_fixed() {
        let at = |position| Head { position: Position(position), time: Timestamp(0), chain: Hash([0xab; 32]) };
        let summary = DumpSummary {
            kind: DumpKind::Incremental,
            log_id: LogId([1; 16]),
            base: at(4),
            head: at(9),
            transactions: 5,
            entries: 0,
            bytes: 700,
            state: Digest::default(),
        };
        let answer = Answer::from(summary);
        assert_eq!(
            serde_json::to_value(&answer).unwrap(),
            json!({
                "kind": "incremental", "log_id": "01".repeat(16), "from": 5, "to": 9, "transactions": 5, "entries": 0,
                "bytes": 700, "chain": "ab".repeat(32),
            })
        );
        assert_eq!(
            answer.to_string(),
            format!("incremental: positions 5..=9, 5 transactions, 700 bytes, chain {}", "ab".repeat(32))
        );
        let state = DumpSummary { kind: DumpKind::State, base: at(9), entries: 3, ..summary };
        assert_eq!((Answer::from(state).from, Answer::from(state).to), (9, 9));
    }
}
