//! Other copies of a log, as a repair asks them for frames: directories of segments, and dumps.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dump::{DumpError, DumpHeader, DumpItem, DumpKind, DumpReader, verify};
use crate::env::{Env, Fs, OpenMode, Sequential};
use crate::log::{Frame, FrameSource, Head, LogCopy, LogError, Witness};
use crate::store::LOG_DIR;
use crate::types::{Error, ErrorKind, LogId, Position, Result};

/// Opens a copy of the log `log_id`: a store's directory, its `log`, archived segments, or a dump. `whole` asks a dump to say what it knows of the
/// log as a whole, which reads all of it.
pub(super) fn open(env: &Env, log_dir: &Path, copy: &Path, log_id: LogId, whole: bool) -> Result<Box<dyn FrameSource>> {
    let inner = copy.join(LOG_DIR);
    let dir = match env.fs.exists(&inner) {
        Ok(true) => inner,
        Ok(false) => copy.to_path_buf(),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return open_dump(env, copy, log_id, whole),
        Err(source) => {
            return Err(LogError::Io { action: "look for the copy", path: copy.to_path_buf(), source }.into());
        }
    };
    if dir == log_dir {
        return Err(Error::new(ErrorKind::Invalid, "the copy is the store itself; give another one"));
    }
    match LogCopy::open(env, &dir, Some(log_id)) {
        Ok(copy) => Ok(Box::new(copy)),
        Err(LogError::NotFound { .. }) => Err(not_found(copy, log_id)),
        Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
            open_dump(env, copy, log_id, whole)
        }
        Err(error) => Err(error.into()),
    }
}

fn not_found(copy: &Path, log_id: LogId) -> Error {
    let message = format!("no copy of this log found, path=`{}` log=`{log_id}`", copy.display());
    Error::new(ErrorKind::NotFound, message)
}

fn open_dump(env: &Env, path: &Path, log_id: LogId, whole: bool) -> Result<Box<dyn FrameSource>> {
    let mut copy = DumpCopy { fs: env.fs.clone(), path: path.to_path_buf(), state: None, witness: None };
    let mut reader = copy.reader().map_err(Error::from)?;
    let header = reader.header().clone();
    if header.log_id != log_id {
        return Err(not_found(path, log_id));
    }
    if header.kind == DumpKind::State {
        return Err(Error::new(ErrorKind::Invalid, "a dump of the state alone has no transactions to repair with"));
    }
    if whole {
        copy.witness = witness(&header, &mut reader)?;
    }
    Ok(Box::new(copy))
}

/// Only a dump from the first transaction on, and a sound one, speaks for the whole log.
fn witness(header: &DumpHeader, reader: &mut DumpReader) -> Result<Option<Witness>> {
    if header.base != Head::origin(header.log_id) {
        return Ok(None);
    }
    match verify(reader, &mut |_| {}) {
        Ok(summary) => Ok(Some(Witness {
            created: header.created,
            floor: header.base,
            start: header.base,
            snapshot: None,
            promise: summary.head.position,
        })),
        Err(DumpError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A dump in a file. Read from its beginning whenever what is asked for lies behind.
struct DumpCopy {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    /// The reader, and a transaction that it handed out and nobody took.
    state: Option<(DumpReader, Option<Frame>)>,
    witness: Option<Witness>,
}

impl fmt::Debug for DumpCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DumpCopy").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DumpCopy {
    fn reader(&self) -> Result<DumpReader, DumpError> {
        let name = self.path.display().to_string();
        let opened = self.fs.open(&self.path, OpenMode::Read);
        let file = opened.map_err(|source| DumpError::Io { action: "open the dump", name: name.clone(), source })?;
        DumpReader::new(Sequential::new(Arc::from(file)), &name)
    }

    /// The transaction at a position; none where the dump does not hold it, or is damaged before it.
    fn at(&mut self, position: Position) -> Result<Option<Frame>, DumpError> {
        let passed = |(reader, waiting): &(DumpReader, Option<Frame>)| match waiting {
            Some(frame) => frame.position > position,
            None => reader.head().position >= position,
        };
        if self.state.as_ref().is_none_or(passed) {
            self.state = Some((self.reader()?, None));
        }
        let Some((reader, waiting)) = &mut self.state else { return Ok(None) };
        loop {
            let frame = match waiting.take() {
                Some(frame) => frame,
                None => match reader.next() {
                    Ok(Some(DumpItem::Frame(frame, _))) => frame,
                    Ok(Some(DumpItem::Entry(_))) => continue,
                    Ok(None) | Err(DumpError::Corrupt { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                },
            };
            if frame.position >= position {
                let found = (frame.position == position).then(|| frame.clone());
                *waiting = Some(frame);
                return Ok(found);
            }
        }
    }
}

impl FrameSource for DumpCopy {
    fn follow(&mut self, before: &Head) -> Result<Option<Frame>, LogError> {
        let found = self.at(before.position.next()).map_err(|error| match error {
            DumpError::Io { action, source, .. } => LogError::Io { action, path: self.path.clone(), source },
            error => LogError::Io { action: "read the dump", path: self.path.clone(), source: io::Error::other(error) },
        })?;
        Ok(found.filter(|frame| frame.follows(before)))
    }

    fn witness(&self) -> Option<Witness> {
        self.witness
    }
}
