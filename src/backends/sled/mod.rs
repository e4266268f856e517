//! The embedded base: immutable generations of sorted blocks, each in a sled directory of its own.
//!
//! ```text
//!   <dir>/CURRENT    the record: stamp, retained positions, generations   (record.rs)
//!   <dir>/DAMAGED    present when a read met damage: the base is not trusted any more
//!   <dir>/gen-<id>/  one generation: sled tree of numbered chunks          (tree.rs)
//!                    row blocks | index: fences and range deletes          (block.rs, index.rs)
//! ```
//!
//! **Atomicity.** A write or a merge makes one new directory, syncs every file in it, and then
//! replaces the record (write, sync, rename, sync of the directory). The record alone decides: what
//! it does not name does not exist and is removed at the next open. sled's own `flush` does not sync
//! and its batches are slow, so neither is relied on.
//!
//! **Trust.** The record holds a hash of each generation's index, the index holds a checksum of each
//! block, and a block's checksum covers the generation's random tag and the block's number: bytes of
//! another place or another time never pass. A read of damaged bytes fails `Corrupt` and leaves the
//! file `DAMAGED`, so that the next open knows too; `clear` starts over.
//!
//! **Cost.** Generations are merged in tiers of factor four (tiers.rs): a base of `n` bytes fed by
//! checkpoints of `c` bytes rewrites each row about `1 + log4(n / max(c, 1 MiB))` times (five times
//! for 1 GiB fed by 4 MiB), holds at most 24 generations once maintenance has come to an end (typically
//! fewer than ten), and keeps superseded rows, at most about three times the live ones, until a merge
//! meets them. A get reads one block as a rule: filters exclude the others. Memory: the cache setting,
//! and about 90 bytes of index per 4 KiB of rows (2 %). Open reads the record and the indexes: 10 to
//! 30 ms per million rows of 240 bytes. A merge streams: its memory is a block of each generation, its time
//! grows with the bytes merged; writes and reads go on meanwhile.

mod backend;
mod block;
mod bytes;
mod files;
mod filter;
mod generation;
mod index;
mod merge;

mod read;
mod record;
#[cfg(test)]
mod tests;
mod tiers;
mod tree;

pub use backend::{SledBackend, SledSettings};
