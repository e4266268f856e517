//! `lakelog bench`: what the store does on this machine, each figure beside its reference.
//!
//! A reference is the least that anything with the same promise must do (write and sync, hash, insert
//! into a map), run in turn with the store's own work on the same directory in the same run. So the
//! ratio says what the store costs, whatever the machine does meanwhile. Data is seeded; a first round of each is
//! thrown away; of the others the median counts, of ratios that of the rounds.
//!
//! Beside the figures: latencies at fixed rates (`latency`), and how the figures move with the size of a store (`growth`).
//!
//! Uses the store as an embedder does. Owns nothing that a store needs; the directory that it works in is
//! made by it and removed at the end.

mod base;
mod bed;
mod checkpoint;
mod dumps;
mod feed;
mod figure;
mod group_commit;
mod growth;
mod import;
mod latency;
mod load;
mod open;
mod past;
mod postgres;
mod reads;
mod run;
mod sample;
mod scale;
#[cfg(test)]
mod tests;
mod trim;
mod undo;
mod writes;

pub use run::{BenchArgs, run};
