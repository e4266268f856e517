//! [`SimFs`]: the simulated disk behind [`Fs`], with its failures.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::disk::{Disk, Keep, Node};
use super::faults::{Effect, Fault, Operation};
use crate::env::{File, Fs, Lock, OpenMode, Space};

/// A file system in memory. Clones share it; see the folder's documentation.
#[derive(Clone, Debug)]
pub struct SimFs(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    disk: Disk,
    random: StdRng,
    /// Raised by crash and kill: handles of an earlier one fail.
    incarnation: u64,
    locks: BTreeSet<PathBuf>,
    locks_supported: bool,
    operations: u64,
    crash_at: Option<u64>,
    faults: Vec<Fault>,
    bad_reads: Vec<(PathBuf, Range<u64>)>,
    capacity: u64,
    read_only: bool,
    /// The longest buffer that was read into.
    longest_read: usize,
    stalls: Vec<Stalled>,
    /// Rung when a stall ends.
    moved: Arc<Condvar>,
}

/// Operations that wait, and how many do.
#[derive(Debug)]
struct Stalled {
    id: u64,
    operation: Operation,
    path: String,
    waiting: usize,
}

/// A disk that does not come back from chosen operations, until this is dropped.
#[derive(Debug)]
pub struct Stall {
    state: Arc<Mutex<State>>,
    id: u64,
}

impl Stall {
    /// How many operations wait for the end of it.
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.stalls.iter().find(|stalled| stalled.id == self.id).map_or(0, |stalled| stalled.waiting)
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.stalls.retain(|stalled| stalled.id != self.id);
        state.moved.notify_all();
    }
}

impl SimFs {
    /// An empty disk of 1 TiB with the root directory `/`.
    pub fn new(seed: u64) -> SimFs {
        SimFs(Arc::new(Mutex::new(State {
            disk: Disk::default(),
            random: StdRng::seed_from_u64(seed),
            incarnation: 0,
            locks: BTreeSet::new(),
            locks_supported: true,
            operations: 0,
            crash_at: None,
            faults: Vec::new(),
            bad_reads: Vec::new(),
            capacity: 1 << 40,
            read_only: false,
            longest_read: 0,
            stalls: Vec::new(),
            moved: Arc::default(),
        })))
    }

    /// A copy that shares nothing with this one, with other randomness. Handles stay with the original.
    #[must_use]
    pub fn fork(&self, seed: u64) -> SimFs {
        let state = self.0.lock();
        SimFs(Arc::new(Mutex::new(State {
            disk: state.disk.clone(),
            random: StdRng::seed_from_u64(seed),
            locks: state.locks.clone(),
            faults: state.faults.clone(),
            bad_reads: state.bad_reads.clone(),
            stalls: Vec::new(),
            moved: Arc::default(),
            ..*state
        })))
    }

    /// The power fails and comes back: unsynced content is lost as `keep` says, locks are released, a pending
    /// [`SimFs::crash_at`] and injected faults are forgotten.
    pub fn crash(&self, keep: Keep) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.disk.lose(keep, &mut state.random);
        state.end_process();
    }

    /// The process ends: everything written stays, synced or not; the rest as in [`SimFs::crash`].
    pub fn kill(&self) {
        self.0.lock().end_process();
    }

    /// The operation `count` (0 is the next one) among those that change the disk, and every access after it, fail.
    pub fn crash_at(&self, count: u64) {
        let mut state = self.0.lock();
        state.crash_at = Some(state.operations + count);
    }

    /// Whether the moment of [`SimFs::crash_at`] has come.
    pub fn crashed(&self) -> bool {
        let state = self.0.lock();
        state.crash_at.is_some_and(|at| state.operations > at)
    }

    /// How many operations have changed the disk or made changes durable.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Adds a failure to come.
    pub fn inject(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    /// Forgets injected failures and bad ranges.
    pub fn heal(&self) {
        let mut state = self.0.lock();
        state.faults.clear();
        state.bad_reads.clear();
    }

    /// Every read that touches the range of the file fails.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) {
        self.0.lock().bad_reads.push((path.to_path_buf(), range));
    }

    /// Reads, writes or syncs of open files whose path contains this do not come back until the stall is dropped.
    pub fn stall(&self, operation: Operation, path: &str) -> Stall {
        let mut state = self.0.lock();
        let id = state.stalls.last().map_or(0, |stalled| stalled.id + 1);
        state.stalls.push(Stalled { id, operation, path: path.to_owned(), waiting: 0 });
        Stall { state: self.0.clone(), id }
    }

    /// The length of the longest buffer that a file was ever read into.
    pub fn longest_read(&self) -> usize {
        self.0.lock().longest_read
    }

    /// The size of the disk in bytes. Writes that need more fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.0.lock().disk.used()
    }

    /// Whether every change fails with `ReadOnlyFilesystem`.
    pub fn set_read_only(&self, read_only: bool) {
        self.0.lock().read_only = read_only;
    }

    /// Whether the file system has locks at all.
    pub fn set_locks_supported(&self, supported: bool) {
        self.0.lock().locks_supported = supported;
    }

    /// The visible content of a file; `None` when there is none.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        match state.disk.node(path)? {
            Node::File(inode) => Some(state.disk.inodes[inode].visible.clone()),
            Node::Dir => None,
        }
    }

    /// Puts content into a file, visible and durable, past all faults: damage, or a file from elsewhere.
    pub fn plant(&self, path: &Path, content: Vec<u8>) {
        self.0.lock().disk.plant(path, Some(content));
    }

    /// Takes a file away, durably, past all faults.
    pub fn take_away(&self, path: &Path) {
        self.0.lock().disk.plant(path, None);
    }
}

impl State {
    fn end_process(&mut self) {
        self.incarnation += 1;
        self.locks.clear();
        self.crash_at = None;
        self.faults.clear();
    }

    /// Every access comes through here. `Ok(Some(_))` is an effect for the operation itself to show.
    fn pass(&mut self, operation: Operation, path: &Path) -> io::Result<Option<Effect>> {
        if self.crash_at.is_some_and(|at| self.operations > at) {
            return Err(crash_error());
        }
        if operation.changes() {
            self.operations += 1;
            if self.crash_at.is_some_and(|at| self.operations > at) {
                return Err(crash_error());
            }
            if self.read_only && !matches!(operation, Operation::Sync | Operation::SyncDir) {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
        }
        let effect = self.faults.iter_mut().find_map(|fault| fault.strike(operation, path));
        match effect {
            Some(Effect::Fail(kind)) if operation != Operation::Sync => Err(injected(kind)),
            effect => Ok(effect),
        }
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        match path.parent().map(|parent| self.disk.node(parent)) {
            Some(Some(Node::Dir)) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn crash_error() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

fn injected(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "injected fault")
}

impl Fs for SimFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| state.disk.node(dir).is_none()).collect();
        for dir in missing.into_iter().rev() {
            state.pass(Operation::Create, dir)?;
            state.disk.create_dir(dir);
        }
        match state.disk.node(path) {
            Some(Node::Dir) => Ok(()),
            _ => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.pass(Operation::List, path)?;
        match state.disk.node(path) {
            Some(Node::Dir) => Ok(state.disk.names_in(path)),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut state = self.0.lock();
        state.pass(Operation::Open, path)?;
        let inode = match (state.disk.node(path), mode) {
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Node::File(_)), OpenMode::Write) if state.read_only => {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            (Some(Node::File(inode)), _) => inode,
            (None, OpenMode::CreateNew) => {
                state.parent_exists(path)?;
                state.pass(Operation::Create, path)?;
                state.disk.create_file(path)
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let incarnation = state.incarnation;
        let writable = mode != OpenMode::Read;
        Ok(Box::new(SimFile { state: self.0.clone(), path: path.to_path_buf(), inode, incarnation, writable }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().disk.node(path).is_some())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.disk.node(from).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.parent_exists(to)?;
        if state.disk.node(to) == Some(Node::Dir) && !state.disk.names_in(to).is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.pass(Operation::Rename, to)?;
        state.disk.rename(from, to);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        match state.disk.node(path) {
            Some(Node::File(_)) => {}
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        state.pass(Operation::Remove, path)?;
        state.disk.remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.disk.node(path).is_some() {
            state.pass(Operation::Remove, path)?;
            state.disk.remove(path);
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.pass(Operation::SyncDir, path)?;
        state.disk.sync_dir(path);
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.0.lock();
        Ok(Space { free: state.capacity.saturating_sub(state.disk.used()), total: state.capacity })
    }

    fn lock(&self, path: &Path, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        let mut state = self.0.lock();
        if !state.locks_supported {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if state.locks.contains(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.pass(Operation::Lock, path)?;
        let inode = match state.disk.node(path) {
            Some(Node::File(inode)) => inode,
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            None => {
                state.parent_exists(path)?;
                state.disk.create_file(path)
            }
        };
        state.disk.inodes[inode].set_len(0);
        state.disk.inodes[inode].write(content, 0);
        state.locks.insert(path.to_path_buf());
        let incarnation = state.incarnation;
        Ok(Box::new(SimLock { state: self.0.clone(), path: path.to_path_buf(), incarnation }))
    }
}

/// Waits, with the disk free for others, while operations of this kind on the path stall.
fn wait_for_stalls(state: &mut MutexGuard<'_, State>, operation: Operation, path: &Path) {
    let matches = |stalled: &Stalled| stalled.operation == operation && path.to_string_lossy().contains(&stalled.path);
    let mut counted = None;
    while let Some(stalled) = state.stalls.iter_mut().find(|stalled| matches(stalled)) {
        if counted.replace(stalled.id) != Some(stalled.id) {
            stalled.waiting += 1;
        }
        let moved = state.moved.clone();
        moved.wait(state);
    }
}

#[derive(Debug)]
struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    incarnation: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.incarnation == self.incarnation {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    inode: usize,
    incarnation: u64,
    writable: bool,
}

impl SimFile {
    fn access<T>(
        &self,
        operation: Operation,
        run: impl FnOnce(&mut State, Option<Effect>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        wait_for_stalls(&mut state, operation, &self.path);
        if state.incarnation != self.incarnation {
            return Err(io::Error::other("a handle of an earlier life of the simulated machine"));
        }
        if !self.writable && matches!(operation, Operation::Write | Operation::SetLen) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let effect = state.pass(operation, &self.path)?;
        run(&mut state, effect)
    }

    fn sync(&self) -> io::Result<()> {
        self.access(Operation::Sync, |state, effect| {
            let inode = &mut state.disk.inodes[self.inode];
            match effect {
                Some(Effect::Fail(kind) | Effect::FailHalfway(kind)) => {
                    inode.fail_sync(&mut state.random);
                    Err(injected(kind))
                }
                _ => {
                    inode.sync();
                    Ok(())
                }
            }
        })
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.access(Operation::Read, |state, effect| {
            state.longest_read = state.longest_read.max(buffer.len());
            let visible = &state.disk.inodes[self.inode].visible;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(visible.len());
            let mut len = buffer.len().min(visible.len() - start);
            if effect.is_some() {
                len = len.div_ceil(2);
            }
            for (path, bad) in &state.bad_reads {
                if *path == self.path && offset < bad.end && bad.start < offset + len as u64 {
                    // What lies before the bad range is still read, as the kernel does.
                    len = usize::try_from(bad.start.saturating_sub(offset)).unwrap_or(0);
                    if len == 0 {
                        return Err(io::Error::other("injected bad sector"));
                    }
                }
            }
            buffer[..len].copy_from_slice(&visible[start..start + len]);
            Ok(len)
        })
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.access(Operation::Write, |state, effect| {
            let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let len = match effect {
                None => buffer.len(),
                Some(Effect::Nothing) => 0,
                Some(_) => buffer.len() / 2,
            };
            let grows = (offset + len).saturating_sub(state.disk.inodes[self.inode].visible.len()) as u64;
            if grows > state.capacity.saturating_sub(state.disk.used()) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.disk.inodes[self.inode].write(&buffer[..len], offset);
            match effect {
                Some(Effect::FailHalfway(kind)) => Err(injected(kind)),
                _ => Ok(len),
            }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.disk.inodes[self.inode].visible.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.access(Operation::SetLen, |state, _| {
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
            let grows = len.saturating_sub(state.disk.inodes[self.inode].visible.len()) as u64;
            if grows > state.capacity.saturating_sub(state.disk.used()) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.disk.inodes[self.inode].set_len(len);
            Ok(())
        })
    }
}
