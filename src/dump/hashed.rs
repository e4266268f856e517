//! [`Hashed`]: SHA-256 of all bytes that pass, on the thread that reads or writes them.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::types::Digest;

/// What has passed so far, seen from another thread.
#[derive(Clone)]
pub(crate) struct Hasher(Arc<Mutex<Sha256>>);

impl Hasher {
    /// SHA-256 of what has passed.
    pub fn digest(&self) -> Digest {
        Digest(self.0.lock().clone().finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

/// An input or output whose bytes are hashed.
#[derive(Debug)]
pub(crate) struct Hashed<T> {
    inner: T,
    hasher: Hasher,
}

impl<T> Hashed<T> {
    pub fn new(inner: T) -> (Hashed<T>, Hasher) {
        let hasher = Hasher(Arc::new(Mutex::new(Sha256::new())));
        (Hashed { inner, hasher: hasher.clone() }, hasher)
    }

    pub fn inner(&self) -> &T {
        &self.inner
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.0.lock().update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.0.lock().update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
