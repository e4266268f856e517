//! `lakelog apply`: a stream of transactions, one a line, each answered when it is durable or has failed.

use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::types::{Error, ErrorKind, Position, Result};

use super::command::Shell;
use super::context::ContextArgs;
use super::drive::{Numbered, drive};
use super::input::Input;
use super::lines::{LINE_BYTES_MAX, Line, next_line, parse};
use super::output::Ended;
use super::write;

/// Applies a stream of transactions, one JSON object a line, and answers each with a line of JSON
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// The stream; - is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// How many transactions may be under way at once; answers come in the order in which they end
    #[arg(long, value_name = "N", default_value = "1")]
    concurrency: NonZeroUsize,
    /// Stop at the first line that fails, with its exit code
    #[arg(long)]
    exit_on_error: bool,
    #[command(flatten)]
    context: ContextArgs,
}

/// `{"line","position"}`.
#[derive(Serialize)]
struct Applied {
    line: u64,
    position: u64,
}

/// `{"line","error","message"}`.
#[derive(Serialize)]
struct Refused {
    line: u64,
    error: &'static str,
    message: String,
}

/// Ends `Partly` when lines failed; with `--exit-on-error`, as that line.
pub async fn run(args: ApplyArgs, shell: &mut Shell) -> Result<Ended> {
    let input = BufReader::new(Input::open(&args.file)?);
    let (actor, reason) = (args.context.actor(), args.context.reason);
    let outcome = shell
        .with_store(async |store, shell| {
            let lines = read_lines(input, args.concurrency);
            let submit = |line: Line| {
                let store = store.clone();
                let actor = line.actor.unwrap_or_else(|| actor.clone());
                let context = write::context(actor, line.reason.or_else(|| reason.clone()), line.id, &line.ops);
                async move { Ok(store.write(context, write::batch(line.ops)).await?.position) }
            };
            drive(lines, args.concurrency, args.exit_on_error, submit, |answer| respond(answer, shell)).await
        })
        .await?;
    Ok(match outcome.first_failure {
        None => Ended::Done,
        Some(kind) if args.exit_on_error => Ended::Failed(kind),
        Some(_) => Ended::Partly,
    })
}

fn respond((line, result): Numbered<Position>, shell: &mut Shell) -> Result<()> {
    match result {
        Ok(position) => shell.out.json(&Applied { line, position: position.0 }),
        Err(error) => shell.out.json(&Refused { line, error: error.kind().name(), message: error.report() }),
    }
    // Whoever waits for the answer waits for nothing else: it must not rest in a buffer.
    .and_then(|()| shell.out.flush())
    // A reader who went away here is no success: transactions are left undone.
    .map_err(|error| Error::new(error.kind(), error.report()))
}

/// Reads and parses on a thread of its own: input blocks, and a thread that blocks on it does not keep the process.
fn read_lines(mut input: impl BufRead + Send + 'static, ahead: NonZeroUsize) -> mpsc::Receiver<Numbered<Line>> {
    let (sender, receiver) = mpsc::channel(ahead.get().min(LINES_AHEAD_MAX));
    std::thread::spawn(move || {
        let mut text = Vec::new();
        for number in 1.. {
            let (line, ends) = match next_line(&mut input, &mut text, LINE_BYTES_MAX) {
                Ok(false) => return,
                Ok(true) => (parse(&text), false),
                // A line that is too long was skipped; input that cannot be read does not get better.
                Err(error) => {
                    let ends = error.kind() != ErrorKind::Invalid;
                    (Err(error), ends)
                }
            };
            if sender.blocking_send((number, line)).is_err() || ends {
                return;
            }
        }
    });
    receiver
}

/// Lines are read ahead of the transactions under way, but memory is bounded.
const LINES_AHEAD_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_bad_ones_do_not_end_the_stream() {
        let input = b"{\"ops\":[]}\nnonsense\n\n{\"ops\":[]}";
        let mut lines = read_lines(&input[..], NonZeroUsize::MIN);
        let mut seen = Vec::new();
        while let Some((number, line)) = lines.blocking_recv() {
            seen.push((number, line.map_err(|error| error.kind()).is_ok()));
        }
        assert_eq!(seen, [(1, true), (2, false), (3, false), (4, true)]);
    }

    #[test]
    fn answers_are_as_fixed() {
        let applied = serde_json::to_string(&Applied { line: 3, position: 9 }).unwrap();
        assert_eq!(applied, r#"{"line":3,"position":9}"#);
        let refused = Refused { line: 1, error: "conflict", message: "m".into() };
        assert_eq!(serde_json::to_string(&refused).unwrap(), r#"{"line":1,"error":"conflict","message":"m"}"#);
    }
}
