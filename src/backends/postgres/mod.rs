//! The base in Postgres: rows in a schema of their own, written in one transaction with the stamp.
//!
//! ```text
//!   bases        one row a base: name, stamp, what is readable          (base.rs)
//!   live         the newest entry of each key                           (read.rs, write.rs)
//!   superseded   older entries that some readable position still sees: from `version` on, below `until`
//!   cleared      numbers of bases whose rows are to be removed          (sweep.rs)
//! ```
//!
//! **Atomicity.** A write is one transaction on the connection that holds the base's advisory lock, stamp included. When the
//! answer to its commit is lost, the stamp is read back before anything else is said about the base.
//!
//! **Reading.** A read names a position; which ones are readable is known in memory. Its one statement also brings the
//! base's generation, which every change of what is readable raises: a read that meets another generation than the known
//! one is not believed, the base is made known anew, and the read is tried again. So what another process did is found
//! out by the first read after it, without a look ahead of each.
//!
//! **Cost.** A first write is a bare `COPY` into a table with its key; a later one moves the entries that it supersedes from one
//! table to the other (or drops them where nobody sees them), a few statements for each 16,384 keys. Reads at the
//! stamp touch `live` alone, so history costs them nothing.

mod backend;
mod base;
mod error;
mod key;
mod pool;
mod read;
mod reader;
mod rows;
mod schema;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;
mod write;

use std::future::Future;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

pub use backend::PostgresBackend;
pub(crate) use reader::PostgresReader;
pub use settings::PostgresSettings;

/// The number of an advisory lock. Locks are the database's, so the schema is part of the name.
fn lock_key(kind: &str, schema: &str, name: &str) -> i64 {
    let mut hash = Sha256::new();
    for part in ["lakelog", kind, schema, name] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut first = [0; 8];
    hash.finalize().iter().zip(&mut first).for_each(|(from, to)| *to = *from);
    i64::from_be_bytes(first)
}

/// Awaits an answer of the server, but not for ever: a network may lose it without a word.
async fn within<T, E: Into<error::PostgresError>>(
    timeout: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, error::PostgresError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(error::PostgresError::Late { timeout }),
    }
}
