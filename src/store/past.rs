//! The past: a reader at any position from the floor to the head.

use std::sync::Arc;

use super::engine::Shared;
use super::facade::Store;
use super::marks::check_readable_at;
use super::reader::Reader;
use crate::types::{At, Error, ErrorKind, Position, Result};

impl Store {
    /// A reader of the state at a position, a time, or a mark: the same as the live one, with the same queries. It reads the
    /// history that every checkpoint keeps, never the log, and costs about what a live read from the base costs.
    ///
    /// A trim does not take away what an open reader reads.
    ///
    /// ```
    /// use lakelog::{At, Batch, Context, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> lakelog::Result<()> {
    /// # let scratch = tempfile::tempdir().unwrap();
    /// # let store = Store::builder(scratch.path().join("metadata")).create().await?;
    /// let first = store.write(Context::new("alice"), Batch::new().set(b"repos", b"demo", b"v1")).await?;
    /// store.write(Context::new("alice"), Batch::new().set(b"repos", b"demo", b"v2")).await?;
    /// let then = store.at(first.position).await?;
    /// assert_eq!(&then.get(b"repos", b"demo").await?.unwrap().value[..], b"v1");
    /// # store.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Store::resolve`]: `not_found` below the floor and for a mark that there is not, `invalid` above the head;
    /// `unavailable` for what the base has given up, when no history is kept ([`Settings::history`](crate::Settings)).
    pub async fn at(&self, at: impl Into<At>) -> Result<Reader> {
        let position = self.resolve(&at.into()).await?;
        Reader::at(self.shared(), position)
    }
}

impl Reader {
    /// As [`Store::at`], of a position.
    pub(super) fn at(shared: &Arc<Shared>, position: Position) -> Result<Reader> {
        let pin = shared.view.pins().pin_at(position);
        // Seen once it is pinned: a trim that comes later keeps it.
        check_readable_at(shared, position, shared.view.pins().published())?;
        // A checkpoint that is being written may not know of the pin, though readers do not rest on it yet.
        let kept_from = shared.view.layers().base_position().max(shared.view.pins().kept_from());
        if !shared.settings.history && position < kept_from {
            let message = format!(
                "the state is not kept, position=`{position}` kept_from=`{kept_from}`; open the store with history"
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(Reader::pinned(shared.clone(), pin))
    }
}
