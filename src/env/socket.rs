//! A Unix socket in a directory, whatever the length of the path: the one thing that processes of one machine ask each
//! other through. No part of a simulation.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The file of a socket that is listened on.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    /// Listens on `name` in `dir`, in place of a socket that a killed process left there. Only the owner may connect.
    pub fn listen(dir: &Path, name: &str) -> io::Result<(SocketFile, UnixListener)> {
        let path = dir.join(name);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        // The path of a socket ends at 107 bytes: the directory is reached through a handle.
        let folder = fs::File::open(dir)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok((SocketFile(path), listener))
    }

    /// Connects to `name` in `dir`.
    pub fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
        let folder = fs::File::open(dir)?;
        let stream = UnixStream::connect(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Removes the file: who asks from now on finds out that nobody answers. Failing to has the same effect, later.
    pub fn remove(self) {
        let _ = fs::remove_file(self.0);
    }
}
