//! [`RepairPlan`]: what can be put right without losing anything that was acknowledged, as a plan first.
//!
//! It is what an open would do, and one thing more: it drops a base that knows more than the log, which an open refuses. Damage at or
//! below what the log promised is named and left alone, unless there is another copy to take the frames from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::base::{self, BaseAt, BaseFault};
use super::snapshots::SnapshotRepair;
use super::{copies, views};
use crate::backends::Backend;
use crate::env::Env;
use crate::event::{Event, Transaction};
use crate::log::{
    self, DirLock, FileLog, Frame, FrameRepair, FrameSource, LogCopy, LogError, LogFiles, LogSettings, Plan, Problem,
    Proof,
};
use crate::store::LOG_DIR;
use crate::types::{Error, ErrorKind, LogId, Position, Result, Stamp};

/// What a repair would do. Holds the store's lock, so that the plan stays true until it is applied or dropped.
#[derive(Debug)]
pub struct RepairPlan {
    env: Env,
    dir: PathBuf,
    work: Work,
    /// Before anything else: without the snapshot of the floor there is no log.
    snapshots: SnapshotRepair,
    log_id: LogId,
    base_at: BaseAt,
    base: Looked,
    lock: DirLock,
}

/// What the plan says besides the log's directory.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// Where the base rests. Dropping one in Postgres takes a role that may write there.
    pub base: BaseAt,
    /// Another copy of the store to take damaged frames from: a store's directory or a copy of one, its `log` directory, a directory of
    /// archived segments, or a dump. Of a damaged snapshot a copy is one whose SHA-256 is that in the manifest; a dump with the state of the
    /// same position gives it too.
    pub copy: Option<PathBuf>,
}

/// What a look at the base gave.
#[derive(Debug, Default)]
struct Looked {
    /// Why it has to go.
    fault: Option<BaseFault>,
    /// Why its entries were not compared with the log.
    not_compared: Option<Error>,
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
    /// Looks at everything, and changes nothing but a scratch directory `verify.tmp`. Reads the whole base, compares it with views rebuilt from
    /// the log, and reads what recovery reads of the log; damage in sealed segments is found by [`super::verify()`].
    ///
    /// # Errors
    /// `not_found` without a store; `unavailable` when a process has it open, for a newer format, and where
    /// the disk fails; `corrupt` when no manifest is left to plan from.
    pub async fn new(env: &Env, dir: &Path) -> Result<RepairPlan> {
        RepairPlan::with_options(env, dir, RepairOptions::default(), &mut |_, _| {}).await
    }

    /// The same with more said of the store. With a copy at hand reads the whole log, and of the copy what is damaged here; a store whose log is
    /// not damaged is planned for as without one. `progress` is called with the transactions that the views were rebuilt from, and all there are.
    ///
    /// # Errors
    /// As [`RepairPlan::new`], for the copy and the server of the base too; `corrupt` when both manifest slots are gone and the copy does not prove
    /// what they said.
    pub async fn with_options(
        env: &Env,
        dir: &Path,
        options: RepairOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RepairPlan> {
        let lock = base::lock(env, dir)?;
        let RepairOptions { base, copy } = options;
        match copy {
            None => {
                let log = log::plan(env, &dir.join(LOG_DIR), None)?;
                RepairPlan::recover(env, dir, lock, log, SnapshotRepair::default(), base, progress).await
            }
            Some(copy) => RepairPlan::replace(env, dir, lock, &copy, base, progress).await,
        }
    }

    async fn recover(
        env: &Env,
        dir: &Path,
        lock: DirLock,
        log: Plan,
        snapshots: SnapshotRepair,
        base_at: BaseAt,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RepairPlan> {
        let log_id = log.log_id();
        let base = match base::open(env, dir, &base_at, log_id).await? {
            Some(base) => look(env, dir, &log, &base, progress).await?,
            None => Looked::default(),
        };
        let work = Work::Recover(Box::new(log));
        Ok(RepairPlan { env: env.clone(), dir: dir.to_owned(), work, snapshots, log_id, base_at, base, lock })
    }

    async fn replace(
        env: &Env,
        dir: &Path,
        lock: DirLock,
        copy: &Path,
        base_at: BaseAt,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<RepairPlan> {
        let log_dir = dir.join(LOG_DIR);
        let log_id = LogCopy::open(env, &log_dir, None)?.log_id();
        // A base that cannot be read demands nothing.
        let stamp = match base::open(env, dir, &base_at, log_id).await? {
            Some(base) => base::stamp(base.as_ref()).await?.ok().flatten(),
            None => None,
        };
        let unlisted = matches!(log::plan(env, &log_dir, None), Err(LogError::Corrupt { .. }));
        let snapshots = SnapshotRepair::look(env, &log_dir, copy)?;
        let mut source = match copies::open(env, &log_dir, copy, log_id, unlisted) {
            Ok(source) => source,
            // A copy of the snapshot alone.
            Err(_) if snapshots.takes() => {
                let log = log::plan(env, &log_dir, None)?;
                return RepairPlan::recover(env, dir, lock, log, snapshots, base_at, progress).await;
            }
            Err(error) => return Err(error),
        };
        let stamp = stamp.filter(|stamp| stamp.log_id == log_id);
        let frames = prove(env, &log_dir, stamp.as_ref(), source.as_mut())?;
        if frames.steps().is_empty() && frames.left().iter().all(|problem| snapshots.concerns(problem)) {
            let log = log::plan(env, &log_dir, None)?;
            return RepairPlan::recover(env, dir, lock, log, snapshots, base_at, progress).await;
        }
        let work = Work::Replace(Box::new(frames), source);
        let base = Looked::default();
        Ok(RepairPlan { env: env.clone(), dir: dir.to_owned(), work, snapshots, log_id, base_at, base, lock })
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
        if let Some(fault) = &self.base.fault {
            let place = self.base_at.place(&self.dir);
            let (place, detail) = (place.display(), &fault.detail);
            steps.push(format!("drop the base in {place}, which the next open rebuilds from the log: {detail}"));
        }
        steps.extend(log.steps());
        steps
    }

    /// Why the entries of the base were not compared with the log, unless they were or there was nothing to compare: the log cannot be
    /// read to the base's stamp, it holds what this version does not know, or there is no room for views made anew.
    pub fn not_compared(&self) -> Option<&Error> {
        self.base.not_compared.as_ref()
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
        let RepairPlan { env, dir, work, snapshots, log_id, base_at, base, lock } = self;
        let log_dir = dir.join(LOG_DIR);
        snapshots.apply(&env, &log_dir)?;
        if base.fault.is_some() && !stays {
            base::clear(&env, &dir, &base_at, log_id).await?;
        }
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

/// Whether the base has to go.
async fn look(
    env: &Env,
    dir: &Path,
    log: &Plan,
    base: &Arc<dyn Backend>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Looked> {
    let (fault, sound) = fault(env, &dir.join(LOG_DIR), log, base.as_ref()).await?;
    let mut looked = Looked { fault, not_compared: None };
    let Some(stamp) = sound else { return Ok(looked) };
    let files = LogFiles::open(env, &dir.join(LOG_DIR))?;
    // A base from below the floor is dropped by every open.
    if stamp.position < files.floor().position {
        return Ok(looked);
    }
    match views::compare(env, dir, &files, base, &stamp, progress).await {
        Ok(compared) => looked.fault = compared.fault(),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unavailable | ErrorKind::NotFound) => {
            looked.not_compared = Some(error);
        }
        Err(error) => return Err(error),
    }
    Ok(looked)
}

/// Why the base has to go, as far as it tells itself; else its stamp, where the log could be compared with it.
async fn fault(
    env: &Env,
    log_dir: &Path,
    log: &Plan,
    base: &dyn Backend,
) -> Result<(Option<BaseFault>, Option<Stamp>)> {
    let stamp = match base::stamp(base).await? {
        Ok(Some(stamp)) => stamp,
        Ok(None) => return Ok((None, None)),
        Err(fault) => return Ok((Some(fault), None)),
    };
    let fault = base::judge(&stamp, log.log_id(), log.head().position, None);
    // What a damaged log lacks is not the base's fault.
    if fault.as_ref().is_some_and(|fault| fault.missing.is_some()) && !log.problems().is_empty() {
        return Ok((None, None));
    }
    if fault.is_some() {
        return Ok((fault, None));
    }
    let mut sound = None;
    if log.problems().is_empty() && stamp.position <= log.promised() && stamp.position > Position::ZERO {
        let chain = LogFiles::open(env, log_dir)?.head_at(stamp.position);
        // What was trimmed or is damaged inside a sealed segment proves nothing against the base.
        if let Ok(head) = chain
            && let fault @ Some(_) = base::judge(&stamp, log.log_id(), head.position, Some(head.chain))
        {
            return Ok((fault, None));
        }
        sound = Some(stamp.clone());
    }
    let fault = base::read_all(base, stamp.position).await?;
    Ok((fault.clone(), sound.filter(|_| fault.is_none())))
}
