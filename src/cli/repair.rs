//! `lakelog repair`: what can be put right without losing anything acknowledged; a plan first.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::diagnostics::RepairPlan;
use crate::env::Env;
use crate::types::{ErrorKind, Result};

use super::command::Shell;
use super::output::Ended;

/// Prints what a repair would do, and does it with --yes
#[derive(Args, Debug)]
pub struct RepairArgs {
    /// Do what the plan says
    #[arg(long)]
    yes: bool,
    /// Take damaged frames from another copy: a store's directory, or one of archived segments
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Answer {
    plan: Vec<String>,
    done: bool,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { plan, done } = self;
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
    let plan = match &args.from {
        Some(copy) => RepairPlan::with_copy(&env, &shell.dir, copy).await?,
        None => RepairPlan::new(&env, &shell.dir).await?,
    };
    let (steps, damaged) = (plan.steps(), !plan.damage().is_empty());
    let done = args.yes && plan.applicable();
    if done {
        plan.apply().await?;
    }
    shell.out.answer(&Answer { plan: steps, done })?;
    Ok(if damaged { Ended::Failed(ErrorKind::Corrupt) } else { Ended::Done })
}
