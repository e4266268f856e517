//! The command line: one file a verb, each with its `Args` and `run`.
//!
//! Owns parsing of arguments, the form of answers, exit codes, progress. Decides nothing that an embedder could
//! not decide: verbs call the store, the log's files or a migration and print what they get. Scripts hang on names, JSON
//! members and exit codes; text for people may change.

mod apply;
mod bench;
mod checkpoint;
mod command;
mod context;
mod delete;
mod delete_range;
mod drive;
mod get;
mod init;
mod lines;
mod log;
mod operations;
mod output;
pub mod progress;
mod reading;
mod scan;
mod set;
mod show;
mod tail;
pub mod text;
mod transactions;
mod write;

pub use command::main;
