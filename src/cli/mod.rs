//! The command line: one file a verb, each with its `Args` and `run`.
//!
//! Owns parsing of arguments, the form of answers, exit codes, progress. Decides nothing that an embedder could
//! not decide: verbs call the store, the log's files or a migration and print what they get. Scripts hang on names, JSON
//! members and exit codes; text for people may change.

pub mod context;
pub mod drive;
pub mod lines;
pub mod operations;
pub mod output;
pub mod progress;
pub mod text;
pub mod transactions;
