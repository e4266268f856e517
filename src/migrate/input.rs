//! [`Input`]: bytes of a file, decompressed, counted and bounded; one by one for a parser, or line by line.

use std::cell::Cell;
use std::io::{self, BufRead as _, BufReader, Cursor, Read};
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
        self.room() == 0
    }

    /// Bytes that the current record may still take.
    fn room(&self) -> u64 {
        RECORD_BYTES_MAX.saturating_sub(self.offset() - self.0.record_start.get())
    }
}

/// A reader of decompressed bytes. Reading on in a record above [`RECORD_BYTES_MAX`] fails, so a
/// parser's buffers are bounded.
pub(super) struct Input<'a> {
    bytes: BufReader<Box<dyn Read + 'a>>,
    progress: Progress,
    /// Lines that ended so far.
    lines: u64,
    /// What was read of a line that was not passed.
    line: Vec<u8>,
    /// To be handed out before anything else: so many line ends that count as nothing, what was given back, the error behind it.
    ends: u64,
    given_back: Cursor<Vec<u8>>,
    failed: Option<io::Error>,
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
        Ok(Input {
            bytes: BufReader::with_capacity(BUFFER_BYTES, bytes),
            progress,
            lines: 0,
            line: Vec::new(),
            ends: 0,
            given_back: Cursor::default(),
            failed: None,
        })
    }

    /// The next line with its end, nothing at the end of the file; `None` where it is not to be had whole. It counts as read once
    /// [`Input::pass_line`] says so, and until then nothing else may be read but [`Input::give_back`].
    pub(super) fn next_line(&mut self) -> Option<&[u8]> {
        self.line.clear();
        let room = self.progress.room();
        match self.bytes.by_ref().take(room).read_until(b'\n', &mut self.line) {
            Ok(read) if read as u64 == room && self.line.last() != Some(&b'\n') => None,
            Ok(_) => Some(&self.line),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    /// Counts the last line as read.
    pub(super) fn pass_line(&mut self) {
        self.count(self.line.len());
        self.lines += u64::from(self.line.last() == Some(&b'\n'));
    }

    /// Hands the last line out again to whoever reads, and before it the ends of all lines before: a parser that begins here
    /// counts lines as if it had read them.
    pub(super) fn give_back(&mut self) {
        self.ends = self.lines;
        self.given_back = Cursor::new(std::mem::take(&mut self.line));
    }

    fn count(&self, read: usize) {
        self.progress.0.offset.set(self.progress.offset() + read as u64);
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ends > 0 {
            let ends = buffer.len().min(usize::try_from(self.ends).unwrap_or(usize::MAX));
            buffer[..ends].fill(b'\n');
            self.ends -= ends as u64;
            return Ok(ends);
        }
        if self.progress.is_too_long() {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let mut read = self.given_back.read(buffer)?;
        if read == 0 {
            read = match self.failed.take() {
                Some(error) => return Err(error),
                None => self.bytes.read(buffer)?,
            };
        }
        self.count(read);
        // A parser takes one byte at a time.
        self.lines += match &buffer[..read] {
            [byte] => u64::from(*byte == b'\n'),
            bytes => bytes.iter().filter(|&&byte| byte == b'\n').count() as u64,
        };
        Ok(read)
    }
}
