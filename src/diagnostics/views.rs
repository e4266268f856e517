//! Views rebuilt from the log, compared with the base, entry by entry.
//!
//! The rebuilt ones rest in a base of their own beside the other, so memory does not depend on how much there is.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::base::{BaseFault, PAGE_ENTRIES, fault};
use super::verify::VerifyProblem;
use crate::backends::{Backend, BackendError};
use crate::env::Env;
use crate::log::{Check, LogError, LogFiles};
use crate::projection::{IndexSet, Pins, Scanner, Timeline, Timelines, View, redactions};
use crate::store::{base_in, rebuild, seed};
use crate::types::{Entry, Key, OWN_PARTITION_BYTE, Position, ProjectionVersion, Result, Stamp};

/// Where the rebuilt views rest meanwhile, in the store's directory.
const SCRATCH_DIR: &str = "verify.tmp";
const SCRATCH_CACHE_BYTES: u64 = 16 << 20;
const MEMTABLE_BYTES: usize = 32 << 20;
/// Differences named.
const DIFFERENCES_MAX: usize = 100;

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Without the place of the base.
    pub problems: Vec<VerifyProblem>,
    /// Whether entries of indexes were left out, because the base has other ones than this version.
    pub without_indexes: bool,
}

/// Rebuilds everything up to the stamp of a sound base and compares. The store's lock is held.
pub(super) async fn compare(
    env: &Env,
    dir: &Path,
    files: &LogFiles,
    base: &Arc<dyn Backend>,
    stamp: &Stamp,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Comparison> {
    let scratch = dir.join(SCRATCH_DIR);
    remove(env, &scratch)?;
    let compared = compare_over(env, &scratch, files, base, stamp, progress).await;
    remove(env, &scratch)?;
    compared
}

impl Comparison {
    /// What differs, as a reason to drop the base.
    pub fn fault(&self) -> Option<BaseFault> {
        let first = self.problems.first()?;
        Some(BaseFault::new(match self.problems.len() {
            1 => first.detail.clone(),
            many => format!("{}; and {} more like this", first.detail, many - 1),
        }))
    }
}

async fn compare_over(
    env: &Env,
    scratch: &Path,
    files: &LogFiles,
    base: &Arc<dyn Backend>,
    stamp: &Stamp,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Comparison> {
    let indexes = IndexSet::built_in();
    let rebuilding = base_in(env, scratch, SCRATCH_CACHE_BYTES)?;
    let mut without_indexes = rules(&stamp.projections) != rules(&indexes.versions());
    if let Some(snapshot) = files.snapshot() {
        let held =
            seed(env, files.dir(), stamp.log_id, &snapshot, &indexes, rebuilding.as_ref(), Position::ZERO).await?;
        without_indexes |= rules(&held) != rules(&indexes.versions());
    }
    let floor = files.floor().position;
    let rebuilt = rebuild(
        floor,
        files.frames(floor.next(), Check::Order)?.take_while(|frame| match frame {
            Ok(frame) => frame.position <= stamp.position,
            Err(_) => true,
        }),
        stamp.log_id,
        &indexes,
        rebuilding,
        MEMTABLE_BYTES,
        |position| progress(position.0 - floor.0, stamp.position.0 - floor.0),
    )
    .await?;
    let mut comparison = Comparison { without_indexes, ..Comparison::default() };
    let mut differences = 0;
    let from = if without_indexes { vec![OWN_PARTITION_BYTE + 1] } else { Vec::new() };
    let pin = rebuilt.pins().pin();
    let mut expected =
        Expected { scanner: Scanner::new(rebuilt.clone(), pin, &from, Vec::new(), 0), ready: VecDeque::new() };
    let mut found = Found { base: base.as_ref(), at: stamp.position, next: Some(from), ready: VecDeque::new() };
    let mut pair = (expected.next().await?, found.next().await);
    loop {
        let (left, right) = match pair {
            (left, Ok(right)) => (left, right),
            (_, Err(error)) => {
                let fault = fault(error)?;
                comparison.problems.push(VerifyProblem::new("base", fault.detail));
                break;
            }
        };
        let (wrong, take_left, take_right) = match (&left, &right) {
            (None, None) => break,
            (Some(left), Some(right)) if left.encoded_key == right.encoded_key => {
                let same = left == right;
                ((!same).then(|| difference(left, "is another in the base than the log gives")), true, true)
            }
            (Some(entry), Some(other)) if entry.encoded_key[..] < other.encoded_key[..] => {
                (Some(difference(entry, "is missing from the base")), true, false)
            }
            (Some(entry), None) => (Some(difference(entry, "is missing from the base")), true, false),
            (_, Some(entry)) => (Some(difference(entry, "is in the base, but the log gives none")), false, true),
        };
        if let Some(wrong) = wrong {
            differences += 1;
            if differences <= DIFFERENCES_MAX {
                comparison.problems.push(wrong);
            }
        }
        let left = if take_left { expected.next().await? } else { left };
        let right = if take_right { found.next().await } else { Ok(right) };
        pair = (left, right);
    }
    if differences > DIFFERENCES_MAX {
        let detail = format!("more entries differ, differences=`{differences}` named=`{DIFFERENCES_MAX}`");
        comparison.problems.push(VerifyProblem::new("views", detail));
    }
    // A base that cannot be read to its end has no history to compare, and one that is wrong now is rebuilt anyway.
    // Nor one that still has what a redaction takes out of the log, which the next open does away with.
    let erases = redactions(&rebuilt).await?.last().is_some_and(|last| *last > stamp.redaction);
    if stamp.history.is_some_and(|begins| begins <= floor) && comparison.problems.is_empty() && !erases {
        let view = Arc::new(View::new(base.clone(), stamp.position, Arc::new(Pins::default())));
        view.pins().publish(stamp.position);
        let from = if without_indexes { &[OWN_PARTITION_BYTE + 1][..] } else { &[] };
        comparison.problems.extend(compare_histories(&rebuilt, &view, floor, from).await?);
    }
    Ok(comparison)
}

/// When each key got which value or went, as the log gives it and as the base has it. Names the first difference.
async fn compare_histories(
    rebuilt: &Arc<View>,
    base: &Arc<View>,
    floor: Position,
    from: &[u8],
) -> Result<Option<VerifyProblem>> {
    let timelines = |view: &Arc<View>| Timelines::new(view.clone(), view.pins().pin(), floor, from, Vec::new());
    let (mut expected, mut found) = (timelines(rebuilt), timelines(base));
    let (mut left, mut right) = (VecDeque::new(), VecDeque::new());
    loop {
        if left.is_empty() {
            left = expected.page().await?.into();
        }
        if right.is_empty() {
            right = match found.page().await {
                Ok(page) => page.into(),
                Err(error) => return Ok(Some(VerifyProblem::new("base", fault(error)?.detail))),
            };
        }
        match (left.pop_front(), right.pop_front()) {
            (None, None) => return Ok(None),
            (left, right) if left == right => {}
            (left, right) => return Ok(left.or(right).map(|timeline| other_history(&timeline))),
        }
    }
}

fn other_history(timeline: &Timeline) -> VerifyProblem {
    let partition = Key::partition_of(&timeline.key).unwrap_or_default();
    let key = &timeline.key[Key::key_start(&timeline.key).unwrap_or(0)..];
    let detail = format!(
        "a key has another history in the base than the log gives, partition=`{}` key=`{}`",
        partition.escape_ascii(),
        key.escape_ascii()
    );
    let positions = timeline.changes.first().zip(timeline.changes.last()).map(|(first, last)| (first.0, last.0));
    VerifyProblem { positions, ..VerifyProblem::new("views", detail) }
}

/// Indexes by what they hold, whenever they were built.
fn rules(indexes: &[ProjectionVersion]) -> Vec<(&str, u32)> {
    indexes.iter().map(|index| (&index.name[..], index.version)).collect()
}

fn difference(entry: &Entry, what: &str) -> VerifyProblem {
    let (partition, key) = (entry.partition(), entry.key());
    let detail = format!("an entry {what}, partition=`{}` key=`{}`", partition.escape_ascii(), key.escape_ascii());
    VerifyProblem { positions: Some((entry.version, entry.version)), ..VerifyProblem::new("views", detail) }
}

fn remove(env: &Env, scratch: &Path) -> Result<()> {
    let removed = env.fs.remove_dir_all(scratch);
    Ok(removed.map_err(|source| LogError::Io { action: "remove a directory", path: scratch.to_path_buf(), source })?)
}

/// Entries as the log gives them.
struct Expected {
    scanner: Scanner,
    ready: VecDeque<Entry>,
}

impl Expected {
    async fn next(&mut self) -> Result<Option<Entry>> {
        if self.ready.is_empty() {
            self.ready = self.scanner.page().await?.into();
        }
        Ok(self.ready.pop_front())
    }
}

/// Entries as the base has them.
struct Found<'a> {
    base: &'a dyn Backend,
    at: Position,
    next: Option<Vec<u8>>,
    ready: VecDeque<Entry>,
}

impl Found<'_> {
    async fn next(&mut self) -> Result<Option<Entry>, BackendError> {
        while self.ready.is_empty()
            && let Some(from) = self.next.take()
        {
            let page = self.base.scan(self.at, &from, &[], PAGE_ENTRIES).await?;
            self.next = page.next.map(|next| next.to_vec());
            self.ready = page.entries.into();
        }
        Ok(self.ready.pop_front())
    }
}
