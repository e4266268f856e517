//! `lakelog repair`: what can be put right without losing anything acknowledged; a plan first.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::diagnostics::{RepairOptions, RepairPlan, SalvageReport, salvage};
use crate::env::Env;
use crate::types::{ErrorKind, Position, Result};

use super::command::Shell;
use super::output::{Ended, note};
use super::progress::Progress;

/// Prints what a repair would do, and does it with --yes
#[derive(Args, Debug)]
pub struct RepairArgs {
    /// Do what the plan says
    #[arg(long)]
    yes: bool,
    /// Take damaged frames and snapshots from another copy: a dump, a store's directory, or one of archived segments
    #[arg(long, value_name = "DUMP|DIR")]
    from: Option<PathBuf>,
    /// Write all that can be read into a new store in this directory instead, and leave this one as it is
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    salvage: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Answer {
    plan: Vec<String>,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    salvage: Option<Salvaged>,
}

/// What a salvage gives, or would give.
#[derive(Debug, Serialize)]
struct Salvaged {
    source: String,
    log_id: Option<String>,
    transactions: u64,
    head: u64,
    cursors: u64,
    state: Option<State>,
    kept: Vec<Kept>,
    lost: Vec<Lost>,
}

/// The state that a trimmed log begins at: its position in the damaged log, and first and last position in the new one.
#[derive(Debug, Serialize)]
struct State {
    old: u64,
    new: [u64; 2],
    entries: u64,
}

/// First and last positions, in the damaged log and in the new one.
#[derive(Debug, Serialize)]
struct Kept {
    old: [u64; 2],
    new: [u64; 2],
}

/// First and last position in the damaged log, and that of what stands for them in the new one.
#[derive(Debug, Serialize)]
struct Lost {
    old: [u64; 2],
    new: u64,
    why: String,
}

impl From<SalvageReport> for Salvaged {
    fn from(report: SalvageReport) -> Salvaged {
        let pair = |(first, last): (Position, Position)| [first.0, last.0];
        let kept = report.kept.iter().map(|range| Kept { old: pair(range.old), new: pair(range.new) }).collect();
        let lost = report.lost.into_iter();
        Salvaged {
            source: report.source.to_string(),
            log_id: report.log_id.map(|id| id.to_string()),
            transactions: report.transactions,
            head: report.head.0,
            cursors: report.cursors,
            state: report.state.map(|state| State { old: state.at.0, new: pair(state.new), entries: state.entries }),
            kept,
            lost: lost.map(|range| Lost { old: pair(range.old), new: range.new.0, why: range.why }).collect(),
        }
    }
}

impl Salvaged {
    fn steps(&self, to: &Path) -> Vec<String> {
        let state = self.state.iter().map(|State { old, new, entries }| {
            format!(
                "write the {entries} entries of the state at {old} as {}..={} into {}",
                new[0],
                new[1],
                to.display()
            )
        });
        let kept = self.kept.iter().map(|Kept { old, new }| {
            format!("write transactions {}..={} as {}..={} into {}", old[0], old[1], new[0], new[1], to.display())
        });
        let mut steps: Vec<String> = state.chain(kept).collect();
        steps.extend(self.lost.iter().map(|Lost { old, new, why }| {
            format!("note at {new} that transactions {}..={} are lost: {why}", old[0], old[1])
        }));
        if self.cursors > 0 {
            steps.push(format!("leave out {} events of cursors: their consumers begin anew", self.cursors));
        }
        steps
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { plan, done, .. } = self;
        match (plan.is_empty(), done) {
            (true, _) => return f.write_str("nothing to repair"),
            (false, true) => f.write_str("done:")?,
            (false, false) => f.write_str("the plan:")?,
        }
        plan.iter().try_for_each(|step| write!(f, "\n  {step}"))
    }
}

/// Ends as `Corrupt` when damage stays: with nothing changed when it cannot be repaired from the store alone, with done what could be proven
/// when there is a copy.
pub async fn run(args: RepairArgs, shell: &mut Shell) -> Result<Ended> {
    let env = Env::os();
    if let Some(to) = &args.salvage {
        return salvaged(&env, to, args.yes, shell);
    }
    let options = RepairOptions { base: shell.base_at(), copy: args.from };
    let mut bar: Option<Progress> = None;
    let mut show = |done, total| {
        bar.get_or_insert_with(|| Progress::new("rebuilding the views", "transactions", Some(total))).reach(done);
    };
    let plan = RepairPlan::with_options(&env, &shell.dir, options, &mut show).await?;
    drop(bar);
    if let Some(error) = plan.not_compared() {
        note(format_args!("the base was not compared with the log: {error}"));
    }
    let (steps, damaged) = (plan.steps(), !plan.damage().is_empty());
    let done = args.yes && plan.applicable();
    if done {
        plan.apply().await?;
    }
    shell.out.answer(&Answer { plan: steps, done, salvage: None })?;
    Ok(if damaged { Ended::Failed(ErrorKind::Corrupt) } else { Ended::Done })
}

/// Ends as `Partly` when something was lost, and as `Corrupt` when it would be.
fn salvaged(env: &Env, to: &Path, yes: bool, shell: &mut Shell) -> Result<Ended> {
    let mut bar: Option<Progress> = None;
    let report = salvage(env, &shell.dir, yes.then_some(to), &mut |done, total| {
        bar.get_or_insert_with(|| Progress::new("reading the log", "segments", Some(total))).reach(done);
    });
    drop(bar);
    let salvaged = Salvaged::from(report?);
    let lost = !salvaged.lost.is_empty();
    shell.out.answer(&Answer { plan: salvaged.steps(to), done: yes, salvage: Some(salvaged) })?;
    Ok(match (lost, yes) {
        (false, _) => Ended::Done,
        (true, true) => Ended::Partly,
        (true, false) => Ended::Failed(ErrorKind::Corrupt),
    })
}
