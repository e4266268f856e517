//! Checking a dump without restoring it.

use super::error::DumpError;
use super::reader::DumpReader;
use super::writer::DumpSummary;

/// Reads a whole dump and proves it: checksums, order, chain, counts, redactions. Where it is damaged, [`DumpReader::head`] is the last
/// state that follows from what was sound. `progress` is called with the bytes read.
///
/// # Errors
/// `Corrupt` with the last position that was sound, `Io`.
pub fn verify(reader: &mut DumpReader, progress: &mut dyn FnMut(u64)) -> Result<DumpSummary, DumpError> {
    let mut seen = 0;
    loop {
        let item = reader.next()?;
        if let (None, Some(summary)) = (item, reader.summary()) {
            return Ok(summary);
        }
        if reader.bytes_read() != seen {
            seen = reader.bytes_read();
            progress(seen);
        }
    }
}
