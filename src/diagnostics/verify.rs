//! [`verify`]: everything that can be checked of a store, named as far as it is wrong.
//!
//! Goes on after damage, and changes nothing but scratch files of its own.

use std::path::{Path, PathBuf};

use super::base::{self, BaseAt};
use super::heads::{CheckedHead, Heads};
use super::signed::{PublicKey, SignedHead};
use super::views;
use crate::dump::SnapshotReader;
use crate::env::Env;
use crate::event::{Event, Transaction};
use crate::log::{self, Frame, Head, LogError, LogFiles, Problem, SegmentEntry, SegmentId, Snapshot, Verification};
use crate::store::{LOG_DIR, owed_in};
use crate::types::{ErrorKind, Hash, LogId, Position, Result, Stamp};

/// Problems of one kind that are named at most.
const PROBLEMS_MAX: usize = 1_000;

/// What a verification found.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The log's identity; zeros when no manifest says.
    pub log_id: LogId,
    /// The last promised transaction; of the last sound frame where the end is damaged.
    pub head: Position,
    /// The chain hash at it.
    pub chain: Hash,
    /// What could not be checked: `views` beside a process that has the store open, where the log is
    /// damaged, or for a base that the next open makes anew (it is from below the floor, or from before a redaction); `indexes`
    /// when the base has other ones than this version.
    pub skipped: Vec<&'static str>,
    /// What is wrong, of the log in the order of positions.
    pub problems: Vec<VerifyProblem>,
    /// What became of the signed heads, in the order given.
    pub signed: Vec<CheckedHead>,
    /// What is there and is no problem: side files of repairs and recoveries, what an interrupted one left.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyProblem {
    /// `manifest`, `snapshot` (the state that the log begins at), `log` (frames, order, chain), `event` (a transaction that does not decode),
    /// `unsupported` (an event that this version must know and does not), `base` (the checkpoint cannot be trusted),
    /// `views` (an entry of the base is not what the log gives), or `signature` (a signed head is not proven).
    pub kind: &'static str,
    /// The file or directory concerned; of a base in Postgres, server, database and schema.
    pub file: PathBuf,
    /// Where in the file, in bytes, where that is known.
    pub offset: Option<u64>,
    /// The first and last position concerned.
    pub positions: Option<(Position, Position)>,
    /// What is wrong.
    pub detail: String,
}

impl VerifyProblem {
    pub(super) fn new(kind: &'static str, detail: String) -> VerifyProblem {
        VerifyProblem { kind, file: PathBuf::new(), offset: None, positions: None, detail }
    }

    fn of_log(problem: Problem) -> VerifyProblem {
        let Problem { path, offset, first, last, detail } = problem;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = match &*name {
            name if name.starts_with("manifest") => "manifest",
            name if Snapshot::is_file_name(name) => "snapshot",
            _ => "log",
        };
        VerifyProblem {
            kind,
            file: path.clone(),
            offset: Some(offset),
            positions: (last > Position::ZERO).then_some((first, last)),
            detail,
        }
    }
}

/// What a verification is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the log; in bytes.
    Log,
    /// Rebuilding the views; in transactions.
    Views,
}

/// Verifies the archive of the log of the store in `dir`: that it goes with the log, checksums, place, order and chain of every frame in
/// it, and its snapshots. Works beside a process that has the store open, and on one that does not open. Gives what is wrong.
///
/// # Errors
/// `not_found` without a store or an archive, `conflict` for one that does not go with the log; others as [`verify`].
pub fn verify_archive(env: &Env, dir: &Path, archive: &Path) -> Result<Vec<VerifyProblem>> {
    let problems = log::verify_archive(env, &dir.join(LOG_DIR), archive)?;
    Ok(problems.into_iter().map(VerifyProblem::of_log).collect())
}

/// What the archive of a store is owed: a note when a redaction has not been through it.
///
/// # Errors
/// As [`verify_archive`].
pub fn archive_notes(env: &Env, dir: &Path, archive: &Path) -> Result<Vec<String>> {
    let log_dir = dir.join(LOG_DIR);
    let there = log::archive_redaction(env, &log_dir, archive)?;
    let done = LogFiles::open(env, &log_dir)?.redaction();
    let note = format!(
        "{}: was not there for redactions, redaction=`{done}` archive_redaction=`{there}`; redact the same again with that archive",
        archive.display()
    );
    Ok((there < done).then_some(note).into_iter().collect())
}

/// Verifies a store in its directory: manifest, checksums, place, order and chain of every frame, that each transaction decodes,
/// the base's stamp, and every entry of the base against views rebuilt from the log.
///
/// Works beside a process that has the store open; what needs the base is then skipped. Otherwise it holds the store's
/// lock and writes the rebuilt views into a directory `verify.tmp` in the store's, as large as the base. Blocks the task on files.
/// `progress` is called with what is done and what there is.
///
/// # Errors
/// Damage is in the report. `not_found` without a store, `unavailable` for a newer format and where the disk
/// fails.
pub async fn verify(env: &Env, dir: &Path, progress: &mut dyn FnMut(Stage, u64, u64)) -> Result<VerifyReport> {
    verify_with(env, dir, VerifyOptions::default(), progress).await
}

/// What else there is to verify of a store.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions<'a> {
    /// Where its base rests.
    pub base: BaseAt,
    /// Proves that the history up to each of these heads is the one that was signed with the key: the whole chain below is
    /// computed anew. What is not proven is a problem of kind `signature`.
    pub signed: Option<(&'a [SignedHead], &'a PublicKey)>,
}

/// As [`verify()`], with more said of the store. A base in Postgres is read a page at a time, by any role that may read it.
///
/// # Errors
/// As [`verify()`]; `unavailable` for a server that is not there or refuses, and for a base that somebody writes meanwhile.
pub async fn verify_with(
    env: &Env,
    dir: &Path,
    options: VerifyOptions<'_>,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<VerifyReport> {
    let lock = match base::lock(env, dir) {
        Ok(lock) => Some(lock),
        Err(error @ LogError::NotFound { .. }) => return Err(error.into()),
        // Held, or not to be had here (a read-only disk): the log can be read all the same.
        Err(_) => None,
    };
    let log_dir = dir.join(LOG_DIR);
    let base = match (&lock, LogFiles::identify(env, &log_dir)) {
        (Some(_), Ok(log_id)) => base::open(env, dir, &options.base, log_id).await?,
        // Without the manifest nothing can be compared: it is among the problems.
        (None, _) | (_, Err(_)) => None,
    };
    let stamp = match &base {
        Some(base) => base::stamp(base.as_ref()).await?,
        None => Ok(None),
    };
    let mut events: Events<'_> = Events { stamp: stamp.as_ref().ok().cloned().flatten(), ..Events::default() };
    if let Some((signed, key)) = options.signed {
        events.heads = Heads::new(signed, key);
    }
    let verified = log::verify(env, &log_dir, None, &mut |frame| events.check(frame), &mut |done, total| {
        progress(Stage::Log, done, total);
    });
    let log = match verified {
        Ok(log) => log,
        Err(LogError::Corrupt { path, offset, first, last, detail }) => {
            let problem = Problem { path, offset, first, last, detail };
            let mut report = VerifyReport {
                log_id: LogId::default(),
                head: Position::ZERO,
                chain: Hash::default(),
                skipped: vec!["views"],
                problems: vec![VerifyProblem::of_log(problem)],
                signed: Vec::new(),
                notes: notes(env, &log_dir, &[])?,
            };
            report.name_unproven(events.heads.unproven());
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    let Verification { log_id, floor, head, problems, .. } = log;
    let files = LogFiles::open(env, &log_dir);
    let segments = files.as_ref().map(LogFiles::segments).unwrap_or_default();
    let mut problems: Vec<VerifyProblem> = problems.into_iter().map(VerifyProblem::of_log).collect();
    if problems.iter().all(|problem| problem.kind != "snapshot")
        && let Ok(files) = &files
    {
        problems.extend(read_snapshot(env, files)?);
    }
    let intact = problems.iter().all(|problem| problem.kind == "manifest") && events.problems.is_empty();
    problems.extend(events.problems.into_iter().map(|problem| placed(problem, &log_dir, &segments)));
    let mut report = VerifyReport {
        log_id,
        head: head.position,
        chain: head.chain,
        skipped: Vec::new(),
        problems,
        signed: Vec::new(),
        notes: notes(env, &log_dir, &segments)?,
    };
    report.notes.extend(owed(env, dir)?);
    let damaged = report.problems.iter().filter(|problem| problem.kind == "log");
    let damaged = damaged.filter_map(|problem| problem.positions).map(|(first, _)| first).min();
    events.heads.note(head);
    report.name_unproven(events.heads.judge(log_id, floor, damaged));
    let unsound = match &stamp {
        Err(fault) => Some(fault.clone()),
        Ok(None) => None,
        Ok(Some(stamp)) => base::judge(stamp, log_id, head.position, events.chain),
    };
    let done = files.as_ref().map_or(Position::ZERO, LogFiles::redaction);
    let redaction = done.max(events.redaction);
    if done < redaction {
        report.notes.push(format!("a redaction is not finished, redaction=`{redaction}`; the next open does it"));
    }
    let place = options.base.place(dir);
    let outdated = |stamp: &Stamp| stamp.position < floor.position || stamp.redaction < redaction;
    if let (Some(_), Ok(Some(stamp))) = (&base, &stamp)
        && stamp.redaction < redaction
    {
        report.notes.push(format!(
            "{}: not compared with the log, since it is to be made anew after a redaction, redaction=`{redaction}` base_redaction=`{}`; the next open does it",
            place.display(),
            stamp.redaction
        ));
    }
    match (&base, stamp, unsound) {
        (_, _, Some(fault)) => report.problems.push(VerifyProblem {
            file: place,
            positions: fault.missing,
            ..VerifyProblem::new("base", fault.detail)
        }),
        (Some(base), Ok(Some(stamp)), None) if intact && !outdated(&stamp) => {
            let mut progress = |done, total| progress(Stage::Views, done, total);
            let compared = views::compare(env, dir, &files?, base, &stamp, &mut progress).await?;
            let placed = |problem| VerifyProblem { file: place.clone(), ..problem };
            report.problems.extend(compared.problems.into_iter().map(placed));
            report.skipped.extend(compared.without_indexes.then_some("indexes"));
        }
        (Some(base), Ok(Some(stamp)), None) => {
            report.skipped.push("views");
            let damaged = base::read_all(base.as_ref(), stamp.position).await?;
            report
                .problems
                .extend(damaged.map(|fault| VerifyProblem { file: place, ..VerifyProblem::new("base", fault.detail) }));
        }
        // A store without a checkpoint has no views but those made anew at each open.
        (_, _, None) if lock.is_some() => {}
        _ => report.skipped.push("views"),
    }
    Ok(report)
}

impl VerifyReport {
    fn name_unproven(&mut self, signed: Vec<CheckedHead>) {
        self.problems.extend(signed.iter().filter_map(|CheckedHead { signed, fault }| {
            let position = signed.head.position;
            let problem = VerifyProblem::new("signature", (*fault)?.detail().to_owned());
            Some(VerifyProblem { positions: Some((position, position)), ..problem })
        }));
        self.signed = signed;
    }
}

/// The archives that redactions still owe something.
fn owed(env: &Env, dir: &Path) -> Result<Vec<String>> {
    let owed = match owed_in(env, dir) {
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(vec![error.to_string()]),
        owed => owed?,
    };
    let note = |archive: PathBuf| {
        format!("{}: still holds what was redacted; it is redacted as soon as it is there", archive.display())
    };
    Ok(owed.into_iter().map(note).collect())
}

/// Files in the log's directory that are there for a reason, and no part of the log.
fn notes(env: &Env, log_dir: &Path, segments: &[SegmentEntry]) -> Result<Vec<String>> {
    let failed = |source| LogError::Io { action: "list the directory", path: log_dir.to_path_buf(), source };
    let first = segments.first().map(|entry| entry.id);
    let replaced = |name: &str| {
        SegmentId::and_revision_of(name)
            .is_some_and(|(id, revision)| segments.iter().any(|entry| entry.id == id && entry.revision != revision))
    };
    let describe = |name: &String| {
        let what = if name.starts_with("cut-") {
            "bytes that a recovery cut and kept"
        } else if name.starts_with("damaged-") {
            "a damaged segment that a repair kept"
        } else if name.ends_with(".new") {
            "left by an interrupted repair, of no use"
        } else if SegmentId::of_file_name(name).is_some_and(|id| first.is_some_and(|first| id < first)) {
            "a segment that was trimmed"
        } else if replaced(name) {
            "a segment as it was before a redaction, or half of what takes its place; the next open finishes that"
        } else {
            return None;
        };
        Some(format!("{}: {what}", log_dir.join(name).display()))
    };
    Ok(env.fs.read_dir(log_dir).map_err(failed)?.iter().filter_map(describe).collect())
}

/// Whether the snapshot that the log begins at can be read: that its bytes are those that were written is known.
fn read_snapshot(env: &Env, files: &LogFiles) -> Result<Option<VerifyProblem>> {
    let Some(snapshot) = files.snapshot() else { return Ok(None) };
    let read = SnapshotReader::open(env, files.dir(), files.id(), &snapshot).and_then(|mut reader| {
        while reader.entry()?.is_some() {}
        Ok(())
    });
    match read {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some(VerifyProblem {
            file: snapshot.path(files.dir()),
            positions: Some((Position(1), snapshot.head.position)),
            ..VerifyProblem::new("snapshot", error.to_string())
        })),
        Err(error) => Err(error.into()),
    }
}

/// What the transactions hold, looked at as they pass.
#[derive(Default)]
struct Events<'a> {
    stamp: Option<Stamp>,
    /// The log's chain hash at the stamp's position.
    chain: Option<Hash>,
    heads: Heads<'a>,
    /// The last transaction that records a redaction.
    redaction: Position,
    problems: Vec<VerifyProblem>,
}

impl Events<'_> {
    fn check(&mut self, frame: Frame) {
        let Frame { position, time, chain, payload, .. } = frame;
        self.heads.note(Head { position, time, chain });
        if self.stamp.as_ref().is_some_and(|stamp| stamp.position == position) {
            self.chain = Some(chain);
        }
        let (kind, detail) = match Transaction::decode(payload) {
            Err(error) => ("event", error.to_string()),
            Ok(transaction) => match transaction.unsupported() {
                None => {
                    if transaction.events.iter().any(|event| matches!(event, Event::Redacted { .. })) {
                        self.redaction = position;
                    }
                    return;
                }
                Some(event) => {
                    let needed = event.minimum_reader_version();
                    let detail = format!(
                        "an event of a kind that this version does not know, kind=`{}` needed=`{needed}`",
                        event.kind
                    );
                    ("unsupported", detail)
                }
            },
        };
        if self.problems.len() < PROBLEMS_MAX {
            self.problems
                .push(VerifyProblem { positions: Some((position, position)), ..VerifyProblem::new(kind, detail) });
        }
    }
}

/// With the segment that holds its position.
fn placed(problem: VerifyProblem, log_dir: &Path, segments: &[SegmentEntry]) -> VerifyProblem {
    let position = problem.positions.map_or(Position::ZERO, |(first, _)| first);
    let index = segments.partition_point(|entry| entry.first <= position);
    let segment = index.checked_sub(1).and_then(|index| segments.get(index));
    VerifyProblem { file: segment.map_or_else(|| log_dir.to_path_buf(), |entry| entry.path(log_dir)), ..problem }
}
