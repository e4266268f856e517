//! [`Output`]: the last step of writing a dump: compresses blocks, gives them their headers, and writes them.

use std::io::Write;

use zstd::bulk::Compressor;

use super::error::{DumpError, IoOn};
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind};

/// Faster than the disk, and the better part of what higher levels gain.
const LEVEL: i32 = 1;
/// Where that gains little: twice as fast and more, and a few hundredths larger.
const LEVEL_FAST: i32 = -1;
/// Little is gained from a block that keeps more than so many tenths of its size.
const GAINED_LITTLE_TENTHS: usize = 7;

/// Where blocks go.
pub(super) struct Output<W> {
    pub out: W,
    name: String,
    compressor: Option<Compressor<'static>>,
    /// Of the next block: as what was gained from the one before says, so equal content gives equal bytes.
    level: i32,
    compressed: Vec<u8>,
    pub bytes: u64,
    sequence: u64,
}

impl<W> std::fmt::Debug for Output<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("name", &self.name).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<W: Write> Output<W> {
    pub fn new(out: W, name: &str, compressed: bool) -> Result<Output<W>, DumpError> {
        let compressor = compressed.then(|| Compressor::new(LEVEL)).transpose().on("begin to compress", name)?;
        let (name, compressed) = (name.to_owned(), Vec::new());
        Ok(Output { out, name, compressor, level: LEVEL, compressed, bytes: 0, sequence: 0 })
    }

    pub fn put(&mut self, bytes: &[u8]) -> Result<(), DumpError> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).on("write the dump", &self.name)
    }

    pub fn block(&mut self, kind: BlockKind, content: &[u8]) -> Result<(), DumpError> {
        let mut stored = std::mem::take(&mut self.compressed);
        let gained = kind != BlockKind::Trailer && self.compress(content, &mut stored)?;
        let bytes = if gained { &stored[..] } else { content };
        let header = BlockHeader {
            kind,
            compressed: gained,
            stored: bytes.len(),
            content: content.len(),
            content_crc: if gained { crc32fast::hash(content) } else { 0 },
            sequence: self.sequence,
        };
        self.sequence += 1;
        let header: [u8; BLOCK_HEADER_BYTES] = header.encode(bytes);
        self.put(&header)?;
        self.put(bytes)?;
        self.compressed = stored;
        Ok(())
    }

    /// `true` when the content is smaller now.
    fn compress(&mut self, content: &[u8], stored: &mut Vec<u8>) -> Result<bool, DumpError> {
        let Some(compressor) = &mut self.compressor else { return Ok(false) };
        stored.clear();
        stored.reserve(zstd::zstd_safe::compress_bound(content.len()));
        let bytes = compressor.compress_to_buffer(content, stored).on("compress the dump", &self.name)?;
        let level = if bytes * 10 > content.len() * GAINED_LITTLE_TENTHS { LEVEL_FAST } else { LEVEL };
        if level != self.level {
            compressor.set_compression_level(level).on("compress the dump", &self.name)?;
            self.level = level;
        }
        Ok(bytes < content.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_gains_little_makes_the_next_one_fast() {
        let mut noise = 1_u64;
        let mut noisy = || {
            noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (noise >> 56) as u8
        };
        let noise: Vec<u8> = (0..100_000).map(|_| noisy()).collect();
        let text = b"users/ann ".repeat(10_000);
        let mut output = Output::new(Vec::new(), "a dump", true).unwrap();
        let levels = [&noise, &noise, &text, &text].map(|content| {
            output.block(BlockKind::Entries, content).unwrap();
            output.level
        });
        assert_eq!(levels, [LEVEL_FAST, LEVEL_FAST, LEVEL, LEVEL]);
        // Noise stays as it is.
        assert!(output.out.len() < 200_000 + 4 * BLOCK_HEADER_BYTES + 10_000, "{}", output.out.len());
    }
}
