//! [`Input`]: bytes of a file, decompressed, counted and bounded.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

/// The most bytes that one record, with the whitespace before it, may take: well above the base64
/// of the largest value.
pub(super) const RECORD_BYTES_MAX: u64 = 32 << 20;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER_BYTES: usize = 64 << 10;

/// How far an [`Input`] was read; shared with who parses it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Rc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    offset: Cell<u64>,
    record_start: Cell<u64>,
}

impl Progress {
    /// Bytes read so far, after decompression.
    pub(super) fn offset(&self) -> u64 {
        self.0.offset.get()
    }

    /// A record ends (or begins) here: the next one has all the room again.
    pub(super) fn record_ends(&self) {
        self.0.record_start.set(self.offset());
    }

    /// Whether the current record has taken all its room.
    pub(super) fn is_too_long(&self) -> bool {
        self.offset() - self.0.record_start.get() >= RECORD_BYTES_MAX
    }
}

/// A reader of decompressed bytes. Reading on in a record above [`RECORD_BYTES_MAX`] fails, so a
/// parser's buffers are bounded.
pub(super) struct Input<'a> {
    bytes: BufReader<Box<dyn Read + 'a>>,
    progress: Progress,
}

impl<'a> Input<'a> {
    /// Detects the compression by the first bytes.
    pub(super) fn new(mut raw: impl Read + 'a, progress: Progress) -> io::Result<Input<'a>> {
        let mut magic = Vec::with_capacity(ZSTD_MAGIC.len());
        raw.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut magic)?;
        let (zstd, gzip) = (magic.starts_with(&ZSTD_MAGIC), magic.starts_with(&GZIP_MAGIC));
        let whole = Cursor::new(magic).chain(raw);
        let bytes: Box<dyn Read + 'a> = if zstd {
            Box::new(zstd::Decoder::new(whole)?)
        } else if gzip {
            Box::new(MultiGzDecoder::new(whole))
        } else {
            Box::new(whole)
        };
        Ok(Input { bytes: BufReader::with_capacity(BUFFER_BYTES, bytes), progress })
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.progress.is_too_long() {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let read = self.bytes.read(buffer)?;
        self.progress.0.offset.set(self.progress.offset() + read as u64);
        Ok(read)
    }
}
