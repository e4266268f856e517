//! The command: its global flags, its verbs, and the way from arguments to exit code.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgAction, Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::diagnostics::BaseAt;
use crate::store::{Builder, Store};
use crate::types::{At, Error, ErrorKind, Result};

use super::base::Base;
use super::output::{self, Ended, Output};
use super::{
    apply, bench, checkpoint, delete, delete_range, diff, dump, export, get, history, import, init, log, mark, redact,
    repair, restore, rewind, scan, set, show, stats, tail, trim, undo, verify,
};

/// An embeddable, event-sourced, log-structured metadata store.
#[derive(Debug, Parser)]
#[command(name = "lakelog", version, after_help = EXIT_CODES)]
struct Command {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 internal error, 2 invalid, 3 not found, 4 conflict, 5 corrupt, \
                          6 unavailable, closed or durability unknown, 7 done in part";

#[derive(Args, Debug)]
struct GlobalArgs {
    /// The store's directory
    #[arg(
        long,
        global = true,
        env = "LAKELOG_STORE",
        hide_env_values = true,
        default_value = "./lakelog-store",
        value_name = "DIR"
    )]
    store: PathBuf,
    /// Where checkpoints rest: postgres://[USER@]HOST[:PORT]/DATABASE[?schema=NAME] [default: in the store's directory].
    /// Better without a password: PGPASSWORD and the password file are honoured
    #[arg(long, global = true, env = "LAKELOG_BASE", hide_env_values = true, value_name = "URL")]
    base: Option<String>,
    /// Answers, and errors, as one JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// Partitions, keys and values on the command line are hexadecimal
    #[arg(long, global = true)]
    hex: bool,
    /// Logs to standard error; twice or three times for more. LAKELOG_LOG takes a filter instead
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::InitArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Get(get::GetArgs),
    Scan(scan::ScanArgs),
    Set(set::SetArgs),
    Delete(delete::DeleteArgs),
    DeleteRange(delete_range::DeleteRangeArgs),
    Apply(apply::ApplyArgs),
    Log(log::LogArgs),
    Show(show::ShowArgs),
    Tail(tail::TailArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Undo(undo::UndoArgs),
    Rewind(rewind::RewindArgs),
    Mark(mark::MarkArgs),
    Dump(dump::DumpArgs),
    Restore(restore::RestoreArgs),
    Verify(verify::VerifyArgs),
    Repair(repair::RepairArgs),
    Checkpoint(checkpoint::CheckpointArgs),
    Trim(trim::TrimArgs),
    Redact(redact::RedactArgs),
    Stats(stats::StatsArgs),
    Bench(bench::BenchArgs),
}

/// What every verb works with: where the store is, how bytes are written, where answers go.
pub struct Shell {
    /// The store's directory.
    pub dir: PathBuf,
    /// Where its checkpoints rest, unless in the directory.
    pub base: Option<Base>,
    /// Whether bytes in arguments are hexadecimal.
    pub hex: bool,
    /// Where answers go.
    pub out: Output,
}

impl Shell {
    /// What opens the store, with the base asked for.
    pub fn builder(&self) -> Builder {
        let builder = Store::builder(&self.dir);
        match &self.base {
            Some(base) => base.of(builder),
            None => builder,
        }
    }

    /// Where the store's checkpoints rest.
    pub fn base_at(&self) -> BaseAt {
        self.base.as_ref().map_or(BaseAt::Directory, |base| BaseAt::Postgres(Box::new(base.settings().clone())))
    }

    /// Opens the store, does something with it, and closes it whatever came of that. A close that fails is noted: what was done is
    /// done, and has been answered or will be.
    ///
    /// # Errors
    ///
    /// That of opening, else that of what was done.
    pub async fn with_store<T>(&mut self, work: impl AsyncFnOnce(&Store, &mut Shell) -> Result<T>) -> Result<T> {
        let store = self.open_store().await?;
        let done = work(&store, self).await;
        close(&store).await;
        done
    }

    /// Opens the store.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::open`].
    pub async fn open_store(&self) -> Result<Store> {
        self.builder().open().await
    }
}

/// Closes a store that is not needed any more.
pub async fn close(store: &Store) {
    if let Err(error) = store.close().await {
        output::note(format!("closing the store failed: {}", error.report()));
    }
}

/// `--at`, of every reading verb.
#[derive(Args, Clone, Debug, Default)]
pub struct AtArgs {
    /// As of a position, an RFC 3339 time (the last transaction not after it), or a mark [default: now]
    #[arg(long, value_name = "X")]
    pub at: Option<At>,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    let json = command.global.json;
    install_logging(command.global.verbose);
    outlive_file_size_limit();
    let ended = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(command.run());
            // Nothing that still blocks, on standard input for example, keeps the process.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Error::new(ErrorKind::Unavailable, "cannot start threads").with_source(error)),
    };
    match ended {
        Ok(ended) => ExitCode::from(ended.exit_code()),
        Err(error) if output::reader_went_away(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(output::error_line(&error, json));
            ExitCode::from(error.kind().exit_code())
        }
    }
}

impl Command {
    async fn run(self) -> Result<Ended> {
        let GlobalArgs { store: dir, base, json, hex, .. } = self.global;
        // The address is not repeated: it may hold a password.
        if dir.to_str().is_some_and(|dir| dir.starts_with("postgres://") || dir.starts_with("postgresql://")) {
            return Err(Error::new(ErrorKind::Invalid, "this version has no shared log; give a directory as --store"));
        }
        let base = base.as_deref().map(Base::new).transpose()?;
        let mut shell = Shell { dir, base, hex, out: Output::stdout(json) };
        let ended = self.verb.run(&mut shell).await;
        // Answers given before a failure are given.
        let flushed = shell.out.flush();
        ended.and_then(|ended| flushed.map(|()| ended))
    }
}

impl Verb {
    async fn run(self, shell: &mut Shell) -> Result<Ended> {
        match self {
            Verb::Init(args) => init::run(args, shell).await,
            Verb::Import(args) => import::run(args, shell).await,
            Verb::Export(args) => export::run(args, shell).await,
            Verb::Get(args) => get::run(args, shell).await,
            Verb::Scan(args) => scan::run(args, shell).await,
            Verb::Set(args) => set::run(args, shell).await,
            Verb::Delete(args) => delete::run(args, shell).await,
            Verb::DeleteRange(args) => delete_range::run(args, shell).await,
            Verb::Apply(args) => apply::run(args, shell).await,
            Verb::Log(args) => log::run(args, shell).await,
            Verb::Show(args) => show::run(args, shell).await,
            Verb::Tail(args) => tail::run(args, shell).await,
            Verb::History(args) => history::run(args, shell).await,
            Verb::Diff(args) => diff::run(args, shell).await,
            Verb::Undo(args) => undo::run(args, shell).await,
            Verb::Rewind(args) => rewind::run(args, shell).await,
            Verb::Mark(args) => mark::run(args, shell).await,
            Verb::Dump(args) => dump::run(args, shell).await,
            Verb::Restore(args) => restore::run(args, shell).await,
            Verb::Verify(args) => verify::run(args, shell).await,
            Verb::Repair(args) => repair::run(args, shell).await,
            Verb::Checkpoint(args) => checkpoint::run(args, shell).await,
            Verb::Trim(args) => trim::run(args, shell).await,
            Verb::Redact(args) => redact::run(args, shell).await,
            Verb::Stats(args) => stats::run(args, shell).await,
            Verb::Bench(args) => bench::run(args, shell).await,
        }
    }
}

/// Answers arguments that are no command: help and version on standard output, mistakes as `Invalid`.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // The flags were not parsed, so the wish for JSON has to be found by hand.
    if env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        output::note(output::error_line(&Error::new(ErrorKind::Invalid, message), true));
    } else {
        let _ = error.print();
    }
    ExitCode::from(ErrorKind::Invalid.exit_code())
}

/// A write beyond the limit of file sizes is an error like others, not the end of the process: the embedded base writes files of
/// its own.
fn outlive_file_size_limit() {
    // Any handler does. Without one the limit ends the process, as it does by default.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
}

fn install_logging(verbose: u8) {
    let filter = match (EnvFilter::try_from_env("LAKELOG_LOG"), verbose) {
        (Ok(filter), _) => filter,
        (Err(_), 0) => return,
        (Err(_), 1) => EnvFilter::new("lakelog=info"),
        (Err(_), 2) => EnvFilter::new("lakelog=debug"),
        (Err(_), _) => EnvFilter::new("lakelog=trace"),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Command::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Command::command().debug_assert();
    }

    #[test]
    fn verbs_and_flags_are_those_of_the_contract() {
        for line in [
            "lakelog init",
            "lakelog --json --hex --store x init",
            "lakelog init --json --store x",
            "lakelog init --base postgres://host/db",
            "lakelog import - --overwrite --dry-run --actor a --reason r",
            "lakelog export --format kv-dump -o x --internal",
            "lakelog export --format ndjson",
            "lakelog get p k",
            "lakelog get p k --at 1",
            "lakelog get p k --at 2026-01-01T00:00:00Z",
            "lakelog scan p --prefix a --from b --limit 1 --at before-upgrade",
            "lakelog export --at 7 -o x",
            "lakelog set p k - --if-absent --actor a --reason r --request-id i",
            "lakelog set p k v --if-version 3",
            "lakelog set p k v --if-value w",
            "lakelog delete p k --if-exists --request-id i",
            "lakelog delete-range p --prefix x --request-id i",
            "lakelog apply - --concurrency 64 --exit-on-error --actor a --reason r",
            "lakelog log --from 1 --to 2 --since 2026-01-01T00:00:00Z --until 2026-01-01T00:00:00Z --actor a \
             --partition p --prefix x --kind set --limit 1 --reverse --all",
            "lakelog show 1",
            "lakelog tail --from 1 --follow",
            "lakelog history p k --at m",
            "lakelog history p --prefix x",
            "lakelog diff 1 before-upgrade --partition p --prefix x",
            "lakelog undo 7 --to 9 --dry-run --actor a --reason r --request-id i",
            "lakelog rewind --to 2026-01-01T00:00:00Z --partition p --prefix x --dry-run --actor a --reason r --request-id i",
            "lakelog mark m --at 2026-01-01T00:00:00Z --actor a --reason r --request-id i",
            "lakelog mark --list",
            "lakelog mark --delete m --actor a --request-id i",
            "lakelog mark --sign key.pem --at 7",
            "lakelog verify --key pub.pem --signed -",
            "lakelog dump -o x --since 3 --at 7 --no-compress",
            "lakelog dump -o - --state-only --at m",
            "lakelog restore a b --as-clone",
            "lakelog restore -",
            "lakelog verify",
            "lakelog verify x",
            "lakelog repair --yes",
            "lakelog repair --from copy --yes",
            "lakelog repair --salvage new --yes",
            "lakelog checkpoint --dry-run",
            "lakelog trim --before 7 --archive d --dry-run --actor a --reason r",
            "lakelog trim --before release",
            "lakelog redact --partition p --key k --archive d --dry-run --actor a --reason r",
            "lakelog redact --position 7",
            "lakelog log --archive d",
            "lakelog show 1 --archive d",
            "lakelog tail --archive d",
            "lakelog dump -o x --archive d",
            "lakelog verify --archive d",
            "lakelog get p k --at 1 --archive d",
            "lakelog scan p --at 1 --archive d",
            "lakelog export --at 1 --archive d",
            "lakelog history p k --archive d",
            "lakelog diff 1 2 --archive d",
            "lakelog stats --json",
            "lakelog bench --quick --only set-64 --dir d --check f",
        ] {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(parse(&line).is_ok(), "{line}: {}", parse(&line).unwrap_err());
        }
    }

    #[test]
    fn mistakes_are_usage_errors() {
        for line in [
            "lakelog",
            "lakelog nonsense",
            "lakelog get p",
            "lakelog set p k v --if-absent --if-exists",
            "lakelog set p k v --if-version -1",
            "lakelog apply - --concurrency 0",
            "lakelog log --from x",
            "lakelog log --since yesterday",
            "lakelog log --prefix x",
            "lakelog log --kind nonsense",
            "lakelog import x --request-id i",
            "lakelog trim",
            "lakelog redact",
            "lakelog redact --key k",
            "lakelog redact --position 7 --partition p --key k",
            "lakelog trim --before 7 --request-id i",
            "lakelog mark",
            "lakelog mark m --list",
            "lakelog mark m --delete n",
            "lakelog mark --list --at 1",
            "lakelog mark m --at 99999999999999999999",
            "lakelog history p",
            "lakelog history p k --prefix x",
            "lakelog diff 1",
            "lakelog diff 1 2 --prefix x",
            "lakelog undo m",
            "lakelog rewind --to 3",
            "lakelog rewind --partition p",
            "lakelog dump",
            "lakelog dump -o x --state-only --since 3",
            "lakelog restore",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
