//! [`run`]: the arguments, the groups in their order, the comparison with what was recorded.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::bed::{Bed, io};
use super::figure::{self, Figure};
use super::latency::{self, Latency};
use super::scale::Scale;
use super::{base, checkpoint, dumps, feed, growth, import, open, past, postgres, reads, trim, undo, writes};
use crate::cli::base::Base;
use crate::cli::command::Shell;
use crate::cli::output::{Ended, note};
use crate::types::{Error, ErrorKind, Result};

/// Measures the store beside bare loops on this machine
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Less of everything: a minute or two
    #[arg(long)]
    quick: bool,
    /// Only the figure of this name, or those whose names begin with these words: `set-64`, `set`
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Where to work; what is made there is removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Fail when a ratio fell more than 30 % below the one recorded in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["latency", "sizes"])]
    check: Option<PathBuf>,
    /// Instead of the figures: latencies of sets and gets while so many a second are asked for
    #[arg(long, conflicts_with = "sizes")]
    latency: bool,
    /// Each figure at several sizes, in entries, the smallest first: `10000,100000,1000000`
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1000..))]
    sizes: Vec<u64>,
    /// Fill the store in `--dir` to so many transactions, of which so many come after the last checkpoint, over so many keys, and wait to be
    /// killed
    #[arg(long, value_names = ["TRANSACTIONS", "UNSAVED", "ENTRIES"], hide = true)]
    fill_to: Vec<u64>,
}

/// Measures, and answers each figure as it comes.
///
/// # Errors
/// `invalid` when no figure has the name asked for or the recorded file is none; `conflict` when a ratio
/// fell too far below the recorded one; whatever the store or the disk says.
pub async fn run(args: BenchArgs, shell: &mut Shell) -> Result<Ended> {
    let scale = Scale::of(args.quick);
    if let [transactions, unsaved, entries] = args.fill_to[..] {
        open::fill(&args.dir, &Scale { unsaved, entries, ..scale }, transactions).await?;
        return Ok(Ended::Done);
    }
    // Before minutes of work: a file that is none.
    let recorded = args.check.as_ref().map(|path| {
        let text = fs::read_to_string(path).map_err(io("read the recorded figures", path))?;
        figure::recorded(&text)
    });
    let recorded = recorded.transpose()?;
    let base = shell.base.take();
    if args.latency {
        return latencies(&args, scale, shell).await;
    }
    if !args.sizes.is_empty() {
        return growth(&args, scale, base.as_ref(), shell).await;
    }
    let mut report = |figure: &Figure| {
        shell.out.answer(figure)?;
        shell.out.flush()
    };
    let figures = measure(Bed::new(&args.dir, scale, args.only.clone(), &mut report)?, base.as_ref()).await?;
    check_found(figures.is_empty(), args.only.as_deref())?;
    figure::check(&figures, recorded.as_deref().unwrap_or_default())?;
    Ok(Ended::Done)
}

async fn latencies(args: &BenchArgs, scale: Scale, shell: &mut Shell) -> Result<Ended> {
    let mut none = |_: &Figure| Ok(());
    let bed = Bed::new(&args.dir, scale, args.only.clone(), &mut none)?;
    let mut reported = 0;
    let mut report = |latency: &Latency| {
        reported += 1;
        shell.out.answer(latency)?;
        shell.out.flush()
    };
    latency::measure(&bed, &mut report).await?;
    check_found(reported == 0, args.only.as_deref())?;
    Ok(Ended::Done)
}

async fn growth(args: &BenchArgs, scale: Scale, base: Option<&Base>, shell: &mut Shell) -> Result<Ended> {
    let mut measured = Vec::new();
    for &size in &args.sizes {
        // The answer comes at the end, and the largest sizes take hours.
        let mut told = |figure: &Figure| {
            note(format_args!("{size}: {figure}"));
            Ok(())
        };
        measured.push(measure(Bed::new(&args.dir, scale.sized(size), args.only.clone(), &mut told)?, base).await?);
    }
    let lines = growth::joined(&measured);
    check_found(lines.is_empty(), args.only.as_deref())?;
    lines.iter().try_for_each(|line| shell.out.answer(line))?;
    Ok(Ended::Done)
}

fn check_found(nothing: bool, only: Option<&str>) -> Result<()> {
    match only.filter(|_| nothing) {
        Some(only) => Err(Error::new(ErrorKind::Invalid, format!("no figure has such a name, only=`{only}`"))),
        None => Ok(()),
    }
}

/// Every group. Memory comes first: later the allocator holds what others have freed.
pub(super) async fn measure(mut bed: Bed<'_>, base_outside: Option<&Base>) -> Result<Vec<Figure>> {
    reads::measure(&mut bed).await?;
    writes::measure(&mut bed).await?;
    open::measure(&mut bed).await?;
    base::measure(&mut bed).await?;
    past::measure(&mut bed).await?;
    postgres::measure(&mut bed, base_outside).await?;
    checkpoint::measure(&mut bed).await?;
    import::measure(&mut bed).await?;
    dumps::measure(&mut bed).await?;
    feed::measure(&mut bed).await?;
    undo::measure(&mut bed).await?;
    trim::measure(&mut bed).await?;
    Ok(bed.figures())
}
