//! Cursors: how far consumers of the log have got, kept in the store itself.

use std::str;

use super::context::Context;
use super::facade::{Committed, Store};
use super::reader::ScanOptions;
use super::subscribe::proven;
use super::transaction::Tx;
use crate::event::Event;
use crate::projection::CURSORS;
use crate::types::{Error, ErrorKind, Hash, Key, Limits, LogStamp, Position, Result};

/// A consumer's word on how far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The name of the cursor.
    pub name: String,
    /// The last place that was seen.
    pub stamp: LogStamp,
}

impl Store {
    /// How far the consumer of this name has got, as it said; `None` when it never did.
    pub async fn cursor(&self, name: &str) -> Result<Option<LogStamp>> {
        let found = self.shared().view.latest(&Key::new(CURSORS, name.as_bytes())).await?;
        found.map(|(_, value)| self.decode_cursor(&value)).transpose()
    }

    /// Notes how far a consumer has got, so that it can go on with
    /// [`SubscribeFrom::Cursor`](crate::SubscribeFrom::Cursor). A cursor of that name is replaced, also by an earlier place: that
    /// is the consumer's to say.
    ///
    /// The name has 1 byte to 1 KiB and no control characters. This is a transaction like any other, durable when it is
    /// answered, but no subscriber ever sees it. Under a weaker durability a crash may take it back to what it was before, and
    /// the consumer sees again what came since.
    ///
    /// # Errors
    /// `invalid` for such a name and for a stamp above the head, `conflict` for one of another log or history, `not_found`
    /// for one below the floor.
    pub async fn set_cursor(&self, context: Context, name: &str, stamp: LogStamp) -> Result<Committed<()>> {
        check_cursor_name(name)?;
        let LogStamp { position, chain, .. } = proven(self.shared(), stamp).await?;
        let name = name.to_owned();
        self.transact(context, move |tx: Tx| {
            tx.record(Event::CursorSet { name: name.clone(), position, chain });
            async { Ok(()) }
        })
        .await
    }

    /// Forgets a cursor.
    ///
    /// # Errors
    /// `not_found` when there is none of that name.
    pub async fn delete_cursor(&self, context: Context, name: &str) -> Result<Committed<()>> {
        let name = name.to_owned();
        self.transact(context, move |tx: Tx| {
            let name = name.clone();
            async move {
                let found = tx.read(&Key::new(CURSORS, name.as_bytes())).await?;
                found.ok_or_else(|| no_cursor(&name))?;
                tx.record(Event::CursorDeleted { name });
                Ok(())
            }
        })
        .await
    }

    /// All cursors, sorted by name.
    pub async fn cursors(&self) -> Result<Vec<Cursor>> {
        let mut entries = self.scan(ScanOptions::new(CURSORS))?;
        let mut cursors = Vec::new();
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let name = str::from_utf8(&entry.key()).map_err(|_| undecodable())?.to_owned();
            cursors.push(Cursor { name, stamp: self.decode_cursor(&entry.value)? });
        }
        Ok(cursors)
    }

    /// The value of a cursor's entry: position and chain hash.
    fn decode_cursor(&self, value: &[u8]) -> Result<LogStamp> {
        let (position, chain) = value.split_first_chunk::<8>().ok_or_else(undecodable)?;
        let chain = Hash(chain.try_into().map_err(|_| undecodable())?);
        Ok(LogStamp { log_id: self.log_id(), position: Position(u64::from_le_bytes(*position)), chain })
    }
}

fn check_cursor_name(name: &str) -> Result<()> {
    let (found, max) = (name.len(), Limits::NAME_BYTES_MAX);
    if found == 0 || found > max {
        let message = format!("the name of a cursor has a bad length, bytes=`{found}` range=`1..={max}`");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if name.chars().any(char::is_control) {
        let message = format!("the name of a cursor has control characters, name=`{}`", name.escape_debug());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

pub(super) fn no_cursor(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no such cursor, name=`{}`", name.escape_debug()))
}

fn undecodable() -> Error {
    Error::new(ErrorKind::Internal, "a cursor does not decode; run `lakelog verify`")
}
