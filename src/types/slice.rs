//! [`Slice`]: a cheap, shared view of immutable bytes.
//!
//! Exists beside `bytes::Bytes` because the views hold millions of small values: a `Slice` is 24
//! bytes, its clone is one counter, and many slices share one block without further allocations.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Immutable bytes shared by reference count; a part of a larger buffer or all of it.
#[derive(Clone)]
pub struct Slice {
    buffer: Arc<[u8]>,
    start: u32,
    end: u32,
}

impl Slice {
    /// The whole buffer. Buffers above 4 GiB cannot be held: the limits stop values long before.
    pub fn new(buffer: Arc<[u8]>) -> Slice {
        let end = u32::try_from(buffer.len()).expect("values and blocks are limited far below 4 GiB");
        Slice { buffer, start: 0, end }
    }

    /// Another reference, of bytes that are not in the cache and will be read next. Bytes and counter are loaded side by
    /// side; raising the counter first would wait for it before anything else is loaded.
    pub(crate) fn fetched(&self) -> Slice {
        std::hint::black_box((Arc::strong_count(&self.buffer), self.first()));
        self.clone()
    }

    /// A part of this slice, sharing its buffer. The range is clamped to the slice.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Slice {
        let len = self.len();
        let start = range.start.min(len);
        let end = range.end.clamp(start, len);
        // Both sums stay within the buffer, whose length fits u32.
        Slice { buffer: self.buffer.clone(), start: self.start + start as u32, end: self.start + end as u32 }
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buffer[self.start as usize..self.end as usize]
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Slice {
        Slice::new(bytes.into())
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        Slice::new(bytes.into())
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Vec<u8> {
        slice.to_vec()
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Slice) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Slice) -> std::cmp::Ordering {
        self[..].cmp(&other[..])
    }
}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_and_clamp() {
        let whole = Slice::from(&b"partition/key"[..]);
        assert_eq!(&whole.part(10..13)[..], b"key");
        assert_eq!(&whole.part(10..99)[..], b"key");
        assert_eq!(&whole.part(10..13).part(1..2)[..], b"e");
        assert!(whole.part(99..100).is_empty());
    }
}
