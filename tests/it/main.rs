//! The integration tests: one binary, linked once, one module a topic.

// Helpers of tests are tests too; Clippy only knows functions marked `#[test]`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod cli;
mod kill;
mod migrate;
mod moving;
mod proto;
mod tidy;
mod trouble;
