//! Restoring: a dump, or a chain of them, into a log that is absent, empty, or a part of the same history.
//!
//! Nothing becomes visible that is not proven to its trailer. An absent log is made under a hidden name beside its place and
//! renamed when all of it is there, so the dump is read once. Onto a log that is there, it is read twice: to prove it,
//! and to append what is missing. What is there already is compared and passed over, so the same command again
//! completes what was interrupted.

use std::path::{Path, PathBuf};

use super::error::{DumpError, IoOn};
use super::format::{DumpHeader, DumpKind};
use super::pass::{Pass, internal, joins};
use super::source::{DumpFile, DumpSource, DumpStream, remove};
use crate::env::Env;
use crate::log::{DirLock, FileLog, Head, Log as _, LogError, LogSettings};
use crate::types::{LogId, Position};

/// How to restore.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Under a new log id, so that the two never pass for one; the chain is computed anew.
    pub as_clone: bool,
    /// Of the log that is written.
    pub settings: LogSettings,
}

/// What a restore did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The identity of the log restored into.
    pub log_id: LogId,
    /// What the first dump holds.
    pub kind: DumpKind,
    /// The state before the first transaction of the dumps, in the history of the log restored into.
    pub base: Head,
    /// The state that they lead to.
    pub head: Head,
    /// Transactions in the dumps.
    pub transactions: u64,
    /// Those of them that were not there before.
    pub appended: u64,
    /// Entries of a state in them.
    pub entries: u64,
    /// Bytes of the dumps.
    pub bytes: u64,
}

/// Restores dumps into the log in `dir`, whose lock is held, in the order in which they follow. `progress` is called with bytes read and
/// bytes to read, where that is known. Blocks the thread on files.
///
/// # Errors
/// With nothing changed: `NotADump`, `NewerFormat`, `Corrupt`, `Gap`, `Fork`, `OtherLog`, `SameLog`, `Invalid`. `Log` with `NoSpace` and others
/// when the disk or the log fails: what is visible then is as before, or a longer part of the dump's history, and the
/// same call completes it.
pub fn restore(
    env: &Env,
    lock: DirLock,
    dir: &Path,
    sources: Vec<DumpSource>,
    options: &RestoreOptions,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Restored, DumpError> {
    let beside = |suffix: &str| {
        let mut name = dir.file_name().unwrap_or_default().to_os_string();
        name.push(suffix);
        dir.with_file_name(name)
    };
    let place = Place {
        env,
        lock,
        dir,
        making: beside(".restoring"),
        replaced: beside(".replaced"),
        snapshot: dir.with_file_name("restore.snapshot"),
        spool: dir.with_file_name("restore.spool"),
        options,
    };
    let restored = place.restore(sources, progress);
    // Scratch only: what a resumption needs is in the log that is being made.
    let removed = remove(env.fs.as_ref(), &place.spool).and_then(|()| remove(env.fs.as_ref(), &place.snapshot));
    let restored = restored?;
    removed?;
    for scratch in [&place.replaced, &place.making] {
        env.fs.remove_dir_all(scratch).on("remove what is no longer needed", &scratch.display().to_string())?;
    }
    Ok(restored)
}

/// Where a restore goes, and what it leaves beside that while it runs.
pub(super) struct Place<'a> {
    pub env: &'a Env,
    pub lock: DirLock,
    dir: &'a Path,
    /// The log that is made.
    pub making: PathBuf,
    replaced: PathBuf,
    /// The snapshot that it will begin at.
    pub snapshot: PathBuf,
    spool: PathBuf,
    pub options: &'a RestoreOptions,
}

enum Inputs {
    Files(Vec<DumpFile>),
    Stream(DumpStream),
}

impl Inputs {
    fn open(env: &Env, mut sources: Vec<DumpSource>) -> Result<Inputs, DumpError> {
        let invalid = |detail: &str| Err(DumpError::Invalid { detail: detail.to_owned() });
        if sources.len() == 1
            && let Some(DumpSource::Stream { name, input }) =
                sources.pop_if(|one| matches!(one, DumpSource::Stream { .. }))
        {
            return DumpStream::open(name, input).map(Inputs::Stream);
        }
        let mut files: Vec<DumpFile> = Vec::new();
        for source in sources {
            let DumpSource::File(path) = source else { return invalid("a stream is restored alone") };
            files.push(DumpFile::open(env.fs.as_ref(), &path)?);
        }
        if files.is_empty() {
            return invalid("no dump was given");
        }
        files.windows(2).try_for_each(|pair| match pair {
            [first, second] => follows(first, second),
            _ => Ok(()),
        })?;
        Ok(Inputs::Files(files))
    }

    fn header(&self) -> Result<&DumpHeader, DumpError> {
        match self {
            Inputs::Stream(stream) => Ok(&stream.header),
            Inputs::Files(files) => match files.first() {
                Some(file) => Ok(&file.header),
                None => Err(DumpError::Invalid { detail: "no dump was given".to_owned() }),
            },
        }
    }

    fn name(&self) -> &str {
        match self {
            Inputs::Stream(stream) => &stream.name,
            Inputs::Files(files) => files.first().map_or("", |file| &file.name),
        }
    }
}

/// Whether a dump goes on where another one ends, as far as their ends say.
fn follows(first: &DumpFile, second: &DumpFile) -> Result<(), DumpError> {
    let name = second.name.clone();
    if first.header.kind == DumpKind::State || second.header.kind == DumpKind::State {
        let detail = format!("a dump of a state alone begins a history of its own, file=`{name}`; restore it alone");
        return Err(DumpError::Invalid { detail });
    }
    if first.header.log_id != second.header.log_id {
        return Err(DumpError::OtherLog { name, dump: second.header.log_id, there: first.header.log_id });
    }
    let (end, base) = (first.trailer.head, second.header.base);
    if second.trailer.head.position < end.position {
        let detail = format!(
            "the dumps are not in order: one ends before the one in front of it, file=`{name}` end=`{}` end_before=`{}`",
            second.trailer.head.position, end.position
        );
        return Err(DumpError::Invalid { detail });
    }
    joins(&name, base, end)
}

impl Place<'_> {
    fn restore(
        &self,
        sources: Vec<DumpSource>,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Restored, DumpError> {
        let inputs = Inputs::open(self.env, sources)?;
        let header = inputs.header()?.clone();
        let clone = self.options.as_clone || header.kind == DumpKind::State;
        let there = self.there()?;
        let replace = there.as_ref().is_some_and(|log| {
            let empty = log.head().position == Position::ZERO;
            empty && (header.has_state() || (!clone && log.id() != header.log_id))
        });
        match there {
            Some(log) if !replace => self.onto(log, inputs, &header, clone, progress),
            _ => {
                drop(there);
                self.make(inputs, &header, clone, progress)
            }
        }
    }

    /// The log that is there, if any.
    fn there(&self) -> Result<Option<FileLog>, DumpError> {
        let (fs, name) = (&self.env.fs, self.dir.display().to_string());
        if fs.exists(self.dir).on("look for the log", &name)?
            && fs.read_dir(self.dir).on("list the directory", &name)?.is_empty()
        {
            fs.remove_dir_all(self.dir).on("remove an empty directory", &name)?;
        }
        match FileLog::open(self.env.clone(), self.lock.clone(), self.dir, self.options.settings.clone(), None) {
            Ok(log) => Ok(Some(log)),
            Err(LogError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn files(&self, inputs: Inputs) -> Result<Vec<DumpFile>, DumpError> {
        match inputs {
            Inputs::Files(files) => Ok(files),
            Inputs::Stream(stream) => Ok(vec![stream.spool(self.env.fs.as_ref(), &self.spool)?]),
        }
    }

    /// Proves the whole first, then appends what is not there.
    fn onto(
        &self,
        log: FileLog,
        inputs: Inputs,
        header: &DumpHeader,
        clone: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Restored, DumpError> {
        match clone {
            true if log.id() == header.log_id => return Err(DumpError::SameLog { log_id: header.log_id }),
            true if header.kind == DumpKind::Incremental => return Err(clone_of_a_part()),
            false if log.id() != header.log_id => {
                let name = inputs.name().to_owned();
                return Err(DumpError::OtherLog { name, dump: header.log_id, there: log.id() });
            }
            _ => {}
        }
        let clone = clone.then(|| log.id());
        // Before a stream is copied in vain.
        if clone.is_none() && header.base.position > log.head().position {
            return Err(DumpError::Gap { name: inputs.name().to_owned(), begins: header.base, found: log.head() });
        }
        let files = self.files(inputs)?;
        let total: u64 = files.iter().map(|file| file.length).sum();
        let mut pass = Pass::new(self, Some(log), clone, false);
        pass.files(&files, &mut |done| progress(done, Some(2 * total)))?;
        let Some(log) = pass.log.take() else { return Err(internal()) };
        log.check_room(pass.room)?;
        let mut pass = Pass::new(self, Some(log), clone, true);
        let restored = pass.files(&files, &mut |done| progress(total + done, Some(2 * total)))?;
        pass.close()?;
        Ok(restored)
    }

    /// Makes a log beside its place, and puts it there.
    fn make(
        &self,
        inputs: Inputs,
        header: &DumpHeader,
        clone: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Restored, DumpError> {
        if header.kind == DumpKind::Incremental {
            let (name, found) = (inputs.name().to_owned(), Head::origin(header.log_id));
            return Err(match clone {
                true => clone_of_a_part(),
                false => DumpError::Gap { name, begins: header.base, found },
            });
        }
        let restored = match inputs {
            // The chain of a clone begins with the digest of the state, which is at the end of the dump.
            Inputs::Stream(stream) if !(clone && header.has_state()) => {
                self.make_from_stream(stream, header, clone, progress)?
            }
            inputs => self.make_from_files(&self.files(inputs)?, header, clone, progress)?,
        };
        self.publish()?;
        Ok(restored)
    }

    /// What an interrupted restore of the same stream left is compared and passed over. A stream cannot be begun anew when that
    /// turns out to be something else.
    fn make_from_stream(
        &self,
        stream: DumpStream,
        header: &DumpHeader,
        clone: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Restored, DumpError> {
        let name = stream.name.clone();
        let left = self.interrupted(header, clone);
        let reached = left.as_ref().map(|log| log.head().position);
        let id = left.as_ref().map(|log| log.id());
        let mut pass = Pass::new(self, left, clone.then(|| id.unwrap_or_else(|| self.new_id())), true);
        match pass.dump(stream.reader()?, None, &mut |done| progress(done, None)) {
            Ok(restored) if reached.is_none_or(|reached| restored.head.position >= reached) => {
                pass.close()?;
                Ok(restored)
            }
            Ok(_) | Err(DumpError::Fork { .. } | DumpError::Gap { .. }) if reached.is_some() => {
                drop(pass);
                let making = self.making.display().to_string();
                self.env.fs.remove_dir_all(&self.making).on("remove an earlier restore", &making)?;
                Err(DumpError::LeftBehind { name })
            }
            Ok(_) => Err(internal()),
            Err(error) => Err(error),
        }
    }

    fn make_from_files(
        &self,
        files: &[DumpFile],
        header: &DumpHeader,
        clone: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Restored, DumpError> {
        let total = Some(files.iter().map(|file| file.length).sum());
        if let Some(log) = self.interrupted(header, clone) {
            tracing::info!(head = %log.head().position, "an interrupted restore goes on");
            let (reached, clone) = (log.head().position, clone.then(|| log.id()));
            let mut pass = Pass::new(self, Some(log), clone, true);
            match pass.files(files, &mut |done| progress(done, total)) {
                // One that went further than this dump was another restore.
                Ok(restored) if restored.head.position >= reached => {
                    pass.close()?;
                    return Ok(restored);
                }
                Ok(_) | Err(DumpError::Fork { .. } | DumpError::Gap { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let mut pass = Pass::new(self, None, clone.then(|| self.new_id()), true);
        let restored = pass.files(files, &mut |done| progress(done, total))?;
        pass.close()?;
        Ok(restored)
    }

    /// What an interrupted restore of the same dump left, as far as its beginning says.
    fn interrupted(&self, header: &DumpHeader, clone: bool) -> Option<FileLog> {
        let settings = self.options.settings.clone();
        let log = FileLog::open(self.env.clone(), self.lock.clone(), &self.making, settings, None).ok()?;
        let floor = if header.has_state() { header.base.position } else { Position::ZERO };
        let same = (log.id() != header.log_id) == clone && log.created() == header.created && log.floor() == floor;
        same.then_some(log)
    }

    fn new_id(&self) -> LogId {
        let mut id = LogId::default();
        self.env.entropy.fill(&mut id.0);
        id
    }

    /// Gives the log that was made its name. A log that stands there is empty.
    fn publish(&self) -> Result<(), DumpError> {
        let (fs, name) = (&self.env.fs, self.dir.display().to_string());
        let parent = self.dir.parent().unwrap_or(Path::new("."));
        let publish = || {
            if fs.exists(self.dir)? {
                fs.remove_dir_all(&self.replaced)?;
                fs.rename(self.dir, &self.replaced)?;
                fs.sync_dir(parent)?;
            }
            fs.rename(&self.making, self.dir)?;
            fs.sync_dir(parent)
        };
        publish().on("rename the restored log", &name)
    }
}

fn clone_of_a_part() -> DumpError {
    DumpError::Invalid { detail: "a clone begins with a full dump or that of a state".to_owned() }
}
