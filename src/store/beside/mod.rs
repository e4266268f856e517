//! Reading beside a writer: what needs the views is asked from the process that has the store open.
//!
//! A base belongs to one process, so another one never opens it. The opener listens on a Unix socket in the store's
//! directory, which only its owner can enter; a connection reads at one pinned position. Reading the log's files needs
//! none of this. Line by line in JSON, so that a person can ask too; what it says may change with each version.

mod client;
mod server;
mod wire;

pub use client::{BesideReader, BesideStream};
pub(super) use server::listen;
