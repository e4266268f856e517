//! [`RepairPlan`]: what can be put right without losing anything that was acknowledged, as a plan first.
//!
//! It is what an open would do, and one thing more: it drops a base that knows more than the log, which an open refuses. Damage at or
//! below what the log promised is named and left alone: the frames have to come from somewhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::{self, BaseFault};
use crate::backends::Backend;
use crate::env::Env;
use crate::log::{self, DirLock, FileLog, LogFiles, LogSettings, Plan, Problem};
use crate::store::{BASE_DIR, LOG_DIR};
use crate::types::{Position, Result};

/// What a repair would do. Holds the store's lock, so that the plan stays true until it is applied or dropped.
#[derive(Debug)]
pub struct RepairPlan {
    env: Env,
    log: Plan,
    base_dir: PathBuf,
    base: Option<Arc<dyn Backend>>,
    fault: Option<BaseFault>,
    // Let go of after the base, which belongs to who has the lock.
    lock: DirLock,
}

impl RepairPlan {
    /// Looks at everything, and changes nothing. Reads the whole base and what recovery reads of the log; damage in sealed segments
    /// is found by [`super::verify()`].
    ///
    /// # Errors
    /// `not_found` without a store; `unavailable` when a process has it open, for a newer format, and where
    /// the disk fails; `corrupt` when no manifest is left to plan from.
    pub async fn new(env: &Env, dir: &Path) -> Result<RepairPlan> {
        let lock = base::lock(env, dir)?;
        let log_dir = dir.join(LOG_DIR);
        let log = log::plan(env, &log_dir, None)?;
        let base = base::open(env, dir)?;
        let fault = match &base {
            Some(base) => fault(env, &log_dir, &log, base.as_ref()).await?,
            None => None,
        };
        Ok(RepairPlan { env: env.clone(), log, base_dir: dir.join(BASE_DIR), base, fault, lock })
    }

    /// The steps, one a line; empty when nothing needs to be done.
    pub fn steps(&self) -> Vec<String> {
        let mut steps: Vec<String> = self
            .damage()
            .iter()
            .map(|problem| format!("leave alone what cannot be repaired from here: {problem}"))
            .collect();
        if let Some(fault) = &self.fault {
            let dir = self.base_dir.display();
            steps.push(format!("drop the base in {dir}, which the next open rebuilds from the log: {}", fault.detail));
        }
        // The first ones say what is damaged.
        steps.extend(self.log.steps().into_iter().skip(self.damage().len()));
        steps
    }

    /// Damage that cannot be repaired from the store alone. While there is any, [`RepairPlan::apply`] refuses.
    pub fn damage(&self) -> &[Problem] {
        self.log.problems()
    }

    /// Does what the plan says. Interrupted anywhere, it is planned again.
    ///
    /// # Errors
    /// `corrupt` for damage that cannot be repaired, with nothing changed; `unavailable` without room for a
    /// fresh segment and where the disk fails.
    pub async fn apply(self) -> Result<()> {
        if let Some(problem) = self.damage().first() {
            return Err(problem.to_error().into());
        }
        let RepairPlan { env, log, base, fault, lock, .. } = self;
        if let (Some(base), Some(_)) = (&base, &fault) {
            base.clear().await?;
        }
        drop(base);
        if !log.steps().is_empty() {
            let log = FileLog::open_planned(env, lock, log, LogSettings::default())?;
            log::Log::close(&log)?;
        }
        Ok(())
    }
}

/// Why the base has to go.
async fn fault(env: &Env, log_dir: &Path, log: &Plan, base: &dyn Backend) -> Result<Option<BaseFault>> {
    let stamp = match base::stamp(base).await? {
        Ok(Some(stamp)) => stamp,
        Ok(None) => return Ok(None),
        Err(fault) => return Ok(Some(fault)),
    };
    let fault = base::judge(&stamp, log.log_id(), log.head().position, None);
    // What a damaged log lacks is not the base's fault.
    if fault.as_ref().is_some_and(|fault| fault.missing.is_some()) && !log.problems().is_empty() {
        return Ok(None);
    }
    if fault.is_some() {
        return Ok(fault);
    }
    if log.problems().is_empty() && stamp.position <= log.promised() && stamp.position > Position::ZERO {
        let chain = LogFiles::open(env, log_dir)?.head_at(stamp.position);
        // What was trimmed or is damaged inside a sealed segment proves nothing against the base.
        if let Ok(head) = chain
            && let fault @ Some(_) = base::judge(&stamp, log.log_id(), head.position, Some(head.chain))
        {
            return Ok(fault);
        }
    }
    base::read_all(base, stamp.position).await
}
