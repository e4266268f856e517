//! A Unix socket in a directory, whatever the length of the path: the one thing that processes of one machine ask each
//! other through. No part of a simulation.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Behind the name: the directory where a socket is made.
const MAKING: &str = ".new";

/// The file of a socket that is listened on.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    /// Listens on `name` in `dir`, in place of a socket that a killed process left there. Only the owner may connect, at any moment:
    /// the umask decides what a socket is made with, so it is made in a directory that nobody else enters, and has its name last.
    /// The caller is the only process that listens there.
    pub fn listen(dir: &Path, name: &str) -> io::Result<(SocketFile, UnixListener)> {
        let (path, making) = (dir.join(name), dir.join(format!("{name}{MAKING}")));
        absent(fs::remove_dir_all(&making))?;
        DirBuilder::new().mode(0o700).create(&making)?;
        let made = SocketFile::make(&making, name).and_then(|listener| {
            // In place of one that is there: who connects meets one or the other.
            fs::rename(making.join(name), &path)?;
            Ok((SocketFile(path), listener))
        });
        let removed = fs::remove_dir_all(&making);
        let (file, listener) = made?;
        removed?;
        Ok((file, listener))
    }

    fn make(dir: &Path, name: &str) -> io::Result<UnixListener> {
        // The path of a socket ends at 107 bytes: the directory is reached through a handle.
        let folder = fs::File::open(dir)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?;
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
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

/// What is not there needs no removing.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_made_where_nobody_else_enters_and_takes_the_place_of_what_was_left() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("a".repeat(120));
        fs::create_dir(&dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // What a kill leaves in the middle, under a mode that others may enter with, and a socket that nobody listens on.
        let making = dir.join("read.sock.new");
        fs::create_dir(&making).unwrap();
        fs::set_permissions(&making, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(making.join("read.sock"), b"").unwrap();
        drop(SocketFile::listen(&dir, "other.sock").unwrap());
        fs::rename(dir.join("other.sock"), dir.join("read.sock")).unwrap();
        assert!(SocketFile::connect(&dir, "read.sock").is_err());
        let (file, listener) = SocketFile::listen(&dir, "read.sock").unwrap();
        assert_eq!(mode(&dir.join("read.sock")), 0o600);
        assert!(!making.exists());
        SocketFile::connect(&dir, "read.sock").unwrap();
        listener.accept().unwrap();
        file.remove();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
}
