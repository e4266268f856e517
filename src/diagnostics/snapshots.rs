//! Damaged snapshots replaced by a copy. The manifest has the SHA-256 of each, so a copy is proven by its bytes alone.
//!
//! A directory has the file itself. A dump that holds the state of the same position gives equal bytes when it is written as a
//! snapshot, since equal content does.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dump::{DumpError, DumpHeader, DumpItem, DumpKind, DumpReader, DumpWriter, Hashed};
use crate::env::{Env, File, FileExt as _, Fs, OpenMode, Sequential};
use crate::log::{LogError, LogFiles, Problem, Snapshot};
use crate::store::LOG_DIR;
use crate::types::{Digest, Result};

const COPY_BYTES: usize = 1 << 20;
/// In front of the name of a damaged snapshot that is kept.
const DAMAGED: &str = "damaged-";

/// What a copy can put right of the snapshots, and what it cannot.
#[derive(Debug, Default)]
pub(super) struct SnapshotRepair {
    taken: Vec<Taken>,
    left: Vec<Problem>,
}

/// A snapshot that a copy proves.
#[derive(Debug)]
struct Taken {
    snapshot: Snapshot,
    /// Whether there is a damaged file to be kept.
    damaged: Option<PathBuf>,
    path: PathBuf,
    from: Copy,
}

#[derive(Debug)]
enum Copy {
    File(PathBuf),
    Dump(PathBuf),
}

impl SnapshotRepair {
    /// Reads the snapshots of the log in `log_dir`, and for those that are damaged the copy. A log without a manifest lists none.
    ///
    /// Errors: `Io`, of the log's files.
    pub fn look(env: &Env, log_dir: &Path, copy: &Path) -> Result<SnapshotRepair> {
        let mut repair = SnapshotRepair::default();
        let listed = match LogFiles::listed_snapshots(env, log_dir) {
            Ok(listed) => listed,
            Err(LogError::Corrupt { .. }) => return Ok(repair),
            Err(error) => return Err(error.into()),
        };
        for snapshot in listed {
            let path = snapshot.path(log_dir);
            let problem = match snapshot.verify(env.fs.as_ref(), log_dir).map_err(Problem::from_error) {
                Ok(()) => continue,
                Err(Ok(problem)) => problem,
                // A sector that cannot be read.
                Err(Err(LogError::Io { source, .. })) => Problem {
                    path: path.clone(),
                    offset: 0,
                    first: snapshot.head.position,
                    last: snapshot.head.position,
                    detail: format!("the snapshot cannot be read: {source}"),
                },
                Err(Err(error)) => return Err(error.into()),
            };
            match find(env, &snapshot, copy) {
                Ok(from) => {
                    let failed = |source| LogError::Io { action: "look for the snapshot", path: path.clone(), source };
                    let exists = env.fs.exists(&path).map_err(failed)?;
                    let damaged = exists.then(|| log_dir.join(format!("{DAMAGED}{}", snapshot.file_name())));
                    repair.taken.push(Taken { snapshot, damaged, path, from });
                }
                Err(why) => repair.left.push(Problem { detail: format!("{}; {why}", problem.detail), ..problem }),
            }
        }
        Ok(repair)
    }

    /// Whether there is anything that the copy puts right.
    pub fn takes(&self) -> bool {
        !self.taken.is_empty()
    }

    /// Damaged snapshots that stay.
    pub fn left(&self) -> &[Problem] {
        &self.left
    }

    /// Whether a problem is that of a snapshot that was looked at here.
    pub fn concerns(&self, problem: &Problem) -> bool {
        let taken = self.taken.iter().map(|taken| &taken.path);
        taken.chain(self.left.iter().map(|left| &left.path)).any(|path| *path == problem.path)
    }

    /// One a line.
    pub fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        for Taken { damaged, path, from, .. } in &self.taken {
            let copy = match from {
                Copy::File(file) => format!("{}: its SHA-256 is that in the manifest", file.display()),
                Copy::Dump(dump) => {
                    format!("the state in {}: written as a snapshot it has the SHA-256 in the manifest", dump.display())
                }
            };
            steps.push(format!("take the snapshot {} from {copy}", path.display()));
            if let Some(damaged) = damaged {
                steps.push(format!("keep the damaged {} as {}", path.display(), damaged.display()));
            }
        }
        steps
    }

    /// Puts the copies where the damaged ones are, which are kept beside them. Interrupted anywhere, it is planned again.
    ///
    /// Errors: `Io`; `Corrupt` when the copy is another one now.
    pub fn apply(&self, env: &Env, log_dir: &Path) -> Result<()> {
        let fs = env.fs.as_ref();
        for Taken { snapshot, damaged, path, from } in &self.taken {
            let made = Snapshot::unfinished(log_dir);
            let failed = |action: &'static str, path: &Path| {
                let path = path.to_path_buf();
                move |source| LogError::Io { action, path, source }
            };
            match fs.remove_file(&made) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove what is left of a snapshot", &made)(error).into());
                }
                _ => {}
            }
            let file: Arc<dyn File> =
                Arc::from(fs.open(&made, OpenMode::CreateNew).map_err(failed("create the snapshot", &made))?);
            match from {
                Copy::File(copy) => copy_file(fs, copy, &*file).map_err(failed("copy the snapshot", copy))?,
                Copy::Dump(dump) => {
                    write_state(env, dump, snapshot, Sequential::new(file.clone()))?;
                }
            }
            file.sync_all().map_err(failed("sync the snapshot", &made))?;
            if let Some(damaged) = damaged {
                fs.rename(path, damaged).map_err(failed("keep the damaged snapshot", path))?;
            }
            fs.rename(&made, path).map_err(failed("rename the snapshot", path))?;
            fs.sync_dir(log_dir).map_err(failed("sync the directory", log_dir))?;
            snapshot.verify(fs, log_dir)?;
        }
        Ok(())
    }
}

/// Where the copy has the snapshot; `Err` says why it has not.
fn find(env: &Env, snapshot: &Snapshot, copy: &Path) -> Result<Copy, String> {
    let fs = env.fs.as_ref();
    for dir in [copy.join(LOG_DIR), copy.to_path_buf()] {
        let file = snapshot.path(&dir);
        match fs.exists(&file) {
            Ok(true) => {
                return match snapshot.verify(fs, &dir) {
                    Ok(()) => Ok(Copy::File(file)),
                    Err(error) => Err(format!("that of the copy is damaged too: {error}")),
                };
            }
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return match write_state(env, copy, snapshot, io::sink()) {
                    Ok(written) if written == snapshot.digest => Ok(Copy::Dump(copy.to_path_buf())),
                    Ok(_) => Err("the state in the copy is another one".to_owned()),
                    Err(error) => Err(format!("the copy does not have it: {error}")),
                };
            }
            Err(error) => return Err(format!("the copy cannot be read: {error}")),
        }
    }
    Err("the copy does not have it".to_owned())
}

/// Writes the state that a dump holds as the snapshot of it; gives the SHA-256 of what was written.
fn write_state<W: Write + Send + 'static>(
    env: &Env,
    dump: &Path,
    snapshot: &Snapshot,
    out: W,
) -> Result<Digest, DumpError> {
    let name = dump.display().to_string();
    let opened = env.fs.open(dump, OpenMode::Read);
    let file = opened.map_err(|source| DumpError::Io { action: "open the dump", name: name.clone(), source })?;
    let mut reader = DumpReader::new(Sequential::new(Arc::from(file)), &name)?;
    let header = reader.header().clone();
    if header.kind == DumpKind::Incremental || header.base != snapshot.head {
        let detail = format!(
            "it does not hold the state of the snapshot, position=`{}` snapshot=`{}`",
            header.base.position, snapshot.head.position
        );
        return Err(DumpError::Invalid { detail });
    }
    let header = DumpHeader { kind: DumpKind::State, compressed: true, ..header };
    let (out, hasher) = Hashed::new(out);
    let mut writer = DumpWriter::new(out, &name, header)?;
    while let Some(DumpItem::Entry(entry)) = reader.next()? {
        writer.entry(&entry.key, entry.version, &entry.value)?;
    }
    writer.finish()?;
    Ok(hasher.digest())
}

fn copy_file(fs: &dyn Fs, from: &Path, to: &dyn File) -> io::Result<()> {
    let source = fs.open(from, OpenMode::Read)?;
    let (len, mut buffer, mut at) = (source.len()?, vec![0; COPY_BYTES], 0);
    while at < len {
        let chunk = COPY_BYTES.min(usize::try_from(len - at).unwrap_or(COPY_BYTES));
        let Some(chunk) = buffer.get_mut(..chunk) else { break };
        source.read_exact_at(chunk, at)?;
        to.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}
