//! [`RepairPlan`]: what can be put right without losing anything that was acknowledged, as a plan first.
//!
//! It is what an open would do, and one thing more: it drops a base that knows more than the log, which an open refuses. Damage at or
//! below what the log promised is named and left alone, unless there is another copy to take the frames from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::{self, BaseFault};
use super::copies;
use super::snapshots::SnapshotRepair;
use crate::backends::Backend;
use crate::env::Env;
use crate::event::{Event, Transaction};
use crate::log::{
    self, DirLock, FileLog, Frame, FrameRepair, FrameSource, LogCopy, LogError, LogFiles, LogSettings, Plan, Problem,
    Proof,
};
use crate::store::{BASE_DIR, LOG_DIR};
use crate::types::{Position, Result, Stamp};

/// What a repair would do. Holds the store's lock, so that the plan stays true until it is applied or dropped.
#[derive(Debug)]
pub struct RepairPlan {
    env: Env,
    log_dir: PathBuf,
    work: Work,
    /// Before anything else: without the snapshot of the floor there is no log.
    snapshots: SnapshotRepair,
    base_dir: PathBuf,
    base: Option<Arc<dyn Backend>>,
    fault: Option<BaseFault>,
    // Let go of after the base, which belongs to who has the lock.
    lock: DirLock,
}

/// What there is to do.
#[derive(Debug)]
enum Work {
    /// What an open would do.
    Recover(Box<Plan>),
    /// Damaged frames, which another copy may have; then what an open would do.
    Replace(Box<FrameRepair>, Box<dyn FrameSource>),
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
        let log = log::plan(env, &dir.join(LOG_DIR), None)?;
        let base = base::open(env, dir)?;
        RepairPlan::recover(env, dir, lock, log, SnapshotRepair::default(), base).await
    }

    async fn recover(
        env: &Env,
        dir: &Path,
        lock: DirLock,
        log: Plan,
        snapshots: SnapshotRepair,
        base: Option<Arc<dyn Backend>>,
    ) -> Result<RepairPlan> {
        let log_dir = dir.join(LOG_DIR);
        let fault = match &base {
            Some(base) => fault(env, &log_dir, &log, base.as_ref()).await?,
            None => None,
        };
        let work = Work::Recover(Box::new(log));
        Ok(RepairPlan { env: env.clone(), log_dir, work, snapshots, base_dir: dir.join(BASE_DIR), base, fault, lock })
    }

    /// The same with another copy of the store at hand: a store's directory or a copy of one, its `log` directory, a directory of
    /// archived segments, or a dump. Reads the whole log and its snapshots, and of the copy what is damaged here. Of a damaged snapshot a copy is
    /// one whose SHA-256 is that in the manifest; a dump with the state of the same position gives it too. A store that is not damaged is planned for as
    /// [`RepairPlan::new`] does.
    ///
    /// # Errors
    /// As [`RepairPlan::new`], for the copy too; `corrupt` when both manifest slots are gone and the copy does not prove what they said.
    pub async fn with_copy(env: &Env, dir: &Path, copy: &Path) -> Result<RepairPlan> {
        let lock = base::lock(env, dir)?;
        let log_dir = dir.join(LOG_DIR);
        let base = base::open(env, dir)?;
        // A base that cannot be read demands nothing.
        let stamp = match &base {
            Some(base) => base::stamp(base.as_ref()).await?.ok().flatten(),
            None => None,
        };
        let log_id = LogCopy::open(env, &log_dir, None)?.log_id();
        let unlisted = matches!(log::plan(env, &log_dir, None), Err(LogError::Corrupt { .. }));
        let snapshots = SnapshotRepair::look(env, &log_dir, copy)?;
        let mut source = match copies::open(env, &log_dir, copy, log_id, unlisted) {
            Ok(source) => source,
            // A copy of the snapshot alone.
            Err(_) if snapshots.takes() => {
                let log = log::plan(env, &log_dir, None)?;
                return RepairPlan::recover(env, dir, lock, log, snapshots, base).await;
            }
            Err(error) => return Err(error),
        };
        let stamp = stamp.filter(|stamp| stamp.log_id == log_id);
        let frames = prove(env, &log_dir, stamp.as_ref(), source.as_mut())?;
        if frames.steps().is_empty() && frames.left().iter().all(|problem| snapshots.concerns(problem)) {
            let log = log::plan(env, &log_dir, None)?;
            return RepairPlan::recover(env, dir, lock, log, snapshots, base).await;
        }
        let work = Work::Replace(Box::new(frames), source);
        let base_dir = dir.join(BASE_DIR);
        Ok(RepairPlan { env: env.clone(), log_dir, work, snapshots, base_dir, base, fault: None, lock })
    }

    /// The steps, one a line; empty when nothing needs to be done.
    pub fn steps(&self) -> Vec<String> {
        let leave = |problem: &Problem| format!("leave alone what cannot be repaired from here: {problem}");
        let mut left: Vec<String> = self.damage().into_iter().map(leave).collect();
        let log = match &self.work {
            Work::Recover(log) => log,
            Work::Replace(frames, _) => {
                let mut steps = self.snapshots.steps();
                steps.extend(frames.steps());
                if left.is_empty() {
                    steps.push("recover the log as an open does".to_owned());
                }
                steps.append(&mut left);
                return steps;
            }
        };
        let mut steps = self.snapshots.steps();
        if !left.is_empty() {
            // Nothing else is done either: what looks like a torn tail may be what is missing.
            steps.append(&mut left);
            return steps;
        }
        if let Some(fault) = &self.fault {
            let dir = self.base_dir.display();
            steps.push(format!("drop the base in {dir}, which the next open rebuilds from the log: {}", fault.detail));
        }
        steps.extend(log.steps());
        steps
    }

    /// Damage that cannot be repaired: from the store alone, or from the copy given.
    pub fn damage(&self) -> Vec<&Problem> {
        let log = match &self.work {
            Work::Recover(log) => log.problems(),
            Work::Replace(frames, _) => frames.left(),
        };
        log.iter().filter(|problem| !self.snapshots.concerns(problem)).chain(self.snapshots.left()).collect()
    }

    /// Whether [`RepairPlan::apply`] would do anything but refuse: nothing is damaged, or a copy proves some of what is.
    pub fn applicable(&self) -> bool {
        match &self.work {
            _ if self.snapshots.takes() => true,
            Work::Recover(_) => self.damage().is_empty(),
            Work::Replace(frames, _) => !frames.steps().is_empty(),
        }
    }

    /// Does what the plan says. Interrupted anywhere, it is planned again.
    ///
    /// # Errors
    /// `corrupt` for damage that cannot be repaired, with nothing changed; `unavailable` without room for a
    /// fresh segment or a repaired one, and where the disk fails.
    pub async fn apply(self) -> Result<()> {
        let damaged = self.damage().first().map(|problem| problem.to_error());
        if let Some(error) = damaged.filter(|_| !self.applicable()) {
            return Err(error.into());
        }
        let stays = !self.damage().is_empty();
        let RepairPlan { env, log_dir, work, snapshots, base, fault, lock, .. } = self;
        snapshots.apply(&env, &log_dir)?;
        if let (Some(base), Some(_), false) = (&base, &fault, stays) {
            base.clear().await?;
        }
        drop(base);
        let log = match work {
            Work::Recover(_) if stays => return Ok(()),
            Work::Recover(log) if !snapshots.takes() => *log,
            Work::Recover(_) => log::plan(&env, &log_dir, None)?,
            Work::Replace(frames, mut source) => {
                frames.apply(&env, source.as_mut())?;
                if stays {
                    return Ok(());
                }
                log::plan(&env, &log_dir, None)?
            }
        };
        if !log.steps().is_empty() {
            let log = FileLog::open_planned(env, lock, log, LogSettings::default())?;
            log::Log::close(&log)?;
        }
        Ok(())
    }
}

/// Finds all damage, and what the copy proves of it. A copy from before a redaction does not bring erased bytes back.
fn prove(env: &Env, log_dir: &Path, stamp: Option<&Stamp>, source: &mut dyn FrameSource) -> Result<FrameRepair> {
    let known = stamp.map(|stamp| (stamp.log_id, stamp.position));
    let demands: Vec<_> = stamp.map(|stamp| (stamp.position, stamp.chain)).into_iter().collect();
    let mut redacted = BTreeSet::new();
    loop {
        let witness = source.witness();
        let survey = log::survey(env, log_dir, known, witness, &mut |frame| note_redacted(&frame, &mut redacted))?;
        let refused = redacted.clone();
        let frames = survey.prove(source, &demands, &mut |frame| {
            note_redacted(frame, &mut redacted);
            match refused.contains(&frame.position) && matches!(frame.proof, Proof::Salted(_)) {
                true => Err(format!("the copy is from before bytes of transaction {} were erased", frame.position)),
                false => Ok(()),
            }
        })?;
        // A redaction that was itself among what is missing concerns what was accepted before it.
        if redacted == refused {
            return Ok(frames);
        }
    }
}

fn note_redacted(frame: &Frame, redacted: &mut BTreeSet<Position>) {
    for event in Transaction::decode(frame.payload.clone()).map(|transaction| transaction.events).unwrap_or_default() {
        if let Event::Redacted { transactions } = event {
            redacted.extend(transactions.iter().map(|transaction| transaction.position));
        }
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
