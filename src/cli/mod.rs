//! The command line: one file a verb, each with its `Args` and `run`.
//!
//! Owns parsing of arguments, the form of answers, exit codes, progress. Decides nothing that an embedder could
//! not decide: verbs call the store, the log's files, a migration or diagnostics and print what they get. Scripts hang on names, JSON
//! members and exit codes; text for people may change.

mod apply;
mod base;
mod bench;
mod checkpoint;
mod command;
mod context;
mod delete;
mod delete_range;
mod diff;
mod drive;
mod dump;
mod export;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod get;
mod history;
mod import;
mod init;
mod input;
mod keys;
mod lines;
mod log;
mod mark;
mod operations;
mod output;
mod progress;
mod reading;
mod redact;
mod repair;
mod restore;
mod rewind;
mod scan;
mod set;
mod show;
mod state;
mod stats;
mod tail;
mod text;
mod transactions;
mod trim;
mod undo;
mod unfinished;
mod verify;
mod write;

pub use command::main;
