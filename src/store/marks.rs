//! Marks: positions that people gave names to, and what [`At`] names.

use std::str;

use super::context::Context;
use super::engine::{Shared, on_blocking_thread};
use super::facade::{Committed, Store};
use super::reader::ScanOptions;
use super::transaction::{Answer, Tx};
use crate::event::Event;
use crate::log::LogError;
use crate::projection::MARKS;
use crate::types::{At, Error, ErrorKind, Key, Position, Result, Timestamp};

/// A position with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The name.
    pub name: String,
    /// The position that it names.
    pub position: Position,
}

impl Store {
    /// Gives a position a name, by default the head. A mark of that name is replaced.
    ///
    /// The name has 1 byte to 1 KiB, no control characters, and is neither decimal digits nor an RFC 3339 time, so that
    /// [`At`] can tell it from those. The answer is the position that is named now; a repeated request gives the one that
    /// was named first.
    ///
    /// # Errors
    /// `invalid` for such a name and for a position above the head, `not_found` for one below the floor.
    ///
    /// ```
    /// use lakelog::{At, Batch, Context, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> lakelog::Result<()> {
    /// # let scratch = tempfile::tempdir().unwrap();
    /// # let store = Store::builder(scratch.path().join("metadata")).create().await?;
    /// let done = store.write(Context::new("alice"), Batch::new().set(b"repos", b"demo", b"v1")).await?;
    /// store.mark(Context::new("alice").reason("release"), "v1", None).await?;
    /// assert_eq!(store.resolve(&At::Mark("v1".to_owned())).await?, done.position);
    /// # store.close().await
    /// # }
    /// ```
    pub async fn mark(&self, context: Context, name: &str, position: Option<Position>) -> Result<Committed<Position>> {
        At::check_mark_name(name)?;
        let (shared, name) = (self.shared().clone(), name.to_owned());
        // Between the check and the commit no trim may decide that nobody needs the position.
        let _kept = self.shared().floor_gate.read().await;
        self.transact(context, move |tx: Tx| {
            // What it reads at was published, and no write can change that: nothing to record.
            let named = position.unwrap_or(tx.position());
            let checked = check_readable_at(&shared, named, tx.position()).and_then(|()| shared.check_kept(named));
            tx.record(Event::MarkSet { name: name.clone(), position: named });
            async move { checked.map(|()| named) }
        })
        .await
    }

    /// All marks, sorted by name.
    pub async fn marks(&self) -> Result<Vec<Mark>> {
        let mut entries = self.scan(ScanOptions::new(MARKS))?;
        let mut marks = Vec::new();
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let name = str::from_utf8(&entry.key()).map(str::to_owned).ok();
            let mark = name.and_then(|name| Some(Mark { name, position: decode(&entry.value)? }));
            marks.push(mark.ok_or_else(undecodable)?);
        }
        Ok(marks)
    }

    /// Takes a mark away. The answer is the position that it named.
    ///
    /// # Errors
    /// `not_found` when there is none of that name.
    pub async fn delete_mark(&self, context: Context, name: &str) -> Result<Committed<Position>> {
        let name = name.to_owned();
        self.transact(context, move |tx: Tx| {
            let name = name.clone();
            async move {
                let found = tx.read(&Key::new(MARKS, name.as_bytes())).await?;
                let (_, value) = found.ok_or_else(|| no_mark(&name))?;
                let position = decode(&value).ok_or_else(undecodable)?;
                tx.record(Event::MarkDeleted { name });
                Ok(position)
            }
        })
        .await
    }

    /// The position that a mark names.
    ///
    /// # Errors
    /// `not_found` when there is none of that name.
    pub async fn resolve_mark(&self, name: &str) -> Result<Position> {
        let found = self.shared().view.latest(&Key::new(MARKS, name.as_bytes())).await?;
        let (_, value) = found.ok_or_else(|| no_mark(name))?;
        decode(&value).ok_or_else(undecodable)
    }

    /// The position that is meant, at which the store can be read: not below the floor, not above the head.
    ///
    /// Recorded times are those of the log; under a weaker durability what was not synced is synced first when its time may
    /// count.
    ///
    /// # Errors
    /// `not_found` for what lies below the floor and for a mark that there is not, `invalid` for a position above the
    /// head, `corrupt` when the frames that tell the time are damaged.
    pub async fn resolve(&self, at: &At) -> Result<Position> {
        let position = match at {
            At::Position(position) => *position,
            At::Time(time) => self.resolve_time(*time).await?,
            At::Mark(name) => self.resolve_mark(name).await?,
        };
        check_readable_at(self.shared(), position, self.head())?;
        Ok(position)
    }

    async fn resolve_time(&self, time: Timestamp) -> Result<Position> {
        let head = self.head();
        let found = self.position_at(time).await?;
        // The times of what is not synced are not known yet. A log that takes no more writes tells what it has.
        if found < self.synced() || head <= self.synced() || self.sync().await.is_err() {
            return Ok(found);
        }
        self.position_at(time).await
    }

    async fn position_at(&self, time: Timestamp) -> Result<Position> {
        let log = self.shared().log.clone();
        // It may read as much as a segment.
        Ok(on_blocking_thread(move || log.position_at(time)).await??)
    }
}

/// Whether the state at a position can be read, `head` being the last one.
pub(super) fn check_readable_at(shared: &Shared, position: Position, head: Position) -> Result<()> {
    let floor = shared.log.floor();
    if position < floor {
        return Err(LogError::BelowFloor { position, floor }.into());
    }
    if position > head {
        return Err(LogError::AboveHead { position, head }.into());
    }
    Ok(())
}

impl Answer for Position {
    fn encode(&self) -> Vec<u8> {
        self.0.encode()
    }

    fn decode(bytes: &[u8]) -> Option<Position> {
        u64::decode(bytes).map(Position)
    }
}

/// The value of a mark's entry.
fn decode(value: &[u8]) -> Option<Position> {
    Some(Position(u64::from_le_bytes(value.try_into().ok()?)))
}

fn no_mark(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no such mark, name=`{}`", name.escape_debug()))
}

fn undecodable() -> Error {
    Error::new(ErrorKind::Internal, "a mark does not decode; run `lakelog verify`")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backends::MemoryBackend;
    use crate::env::sim::SimWorld;
    use crate::store::gate::trim;
    use crate::store::{Batch, Durability, RequestId, Settings};
    use crate::types::{Digest, Limits};

    struct World {
        world: SimWorld,
        settings: Settings,
        base: MemoryBackend,
    }

    impl World {
        fn new() -> World {
            let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
            World { world: SimWorld::new(11), settings, base: MemoryBackend::new() }
        }

        async fn open(&self) -> Store {
            let builder = Store::builder("/store").settings(self.settings.clone()).with_env(self.world.env());
            builder.with_backend(Arc::new(self.base.clone())).open_or_create().await.unwrap()
        }

        /// A transaction so much later than the one before, in microseconds.
        async fn write(&self, store: &Store, later: i64, bytes: usize) -> Position {
            self.world.clock.advance(later);
            store.write(me(), Batch::new().set(b"p", b"k", &vec![0; bytes])).await.unwrap().position
        }
    }

    fn me() -> Context {
        Context::new("test")
    }

    fn mark(name: &str) -> At {
        At::Mark(name.to_owned())
    }

    #[tokio::test]
    async fn marks_name_positions_until_they_are_replaced_or_deleted() {
        let world = World::new();
        let store = world.open().await;
        assert_eq!(store.mark(me(), "start", None).await.unwrap().answer, Position::ZERO);
        world.write(&store, 1, 1).await;
        let named = store.mark(me(), "b", None).await.unwrap();
        assert_eq!((named.position, named.answer), (Position(3), Position(2)));
        store.mark(me(), "a", Some(Position(1))).await.unwrap();
        store.mark(me(), "b", Some(Position(3))).await.unwrap();
        let expected = [("a", 1), ("b", 3), ("start", 0)]
            .map(|(name, position)| Mark { name: name.to_owned(), position: Position(position) });
        assert_eq!(store.marks().await.unwrap(), expected);
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
        let store = world.open().await;
        assert_eq!(store.marks().await.unwrap(), expected);
        assert_eq!(store.delete_mark(me(), "a").await.unwrap().answer, Position(1));
        let head = store.head();
        assert_eq!(store.delete_mark(me(), "a").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.resolve(&mark("a")).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.resolve(&mark("b")).await.unwrap(), Position(3));
        assert_eq!(store.head(), head, "nothing was written");
    }

    #[tokio::test]
    async fn what_cannot_be_named_changes_nothing() {
        let world = World::new();
        let store = world.open().await;
        let long = "x".repeat(Limits::NAME_BYTES_MAX + 1);
        for name in ["", "7", "2026-11-18T11:06:40Z", "a\tb", &long] {
            assert_eq!(store.mark(me(), name, None).await.unwrap_err().kind(), ErrorKind::Invalid, "{name}");
        }
        assert_eq!(store.mark(me(), "m", Some(Position(1))).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(store.head(), Position::ZERO);
        // Two segments; the first is trimmed.
        world.write(&store, 1, 40 << 10).await;
        store.checkpoint().await.unwrap();
        world.write(&store, 1, 40 << 10).await;
        trim(&world.world, store.shared(), Position(1));
        let below = store.mark(me(), "m", Some(Position(0))).await.unwrap_err();
        assert_eq!(below.kind(), ErrorKind::NotFound);
        assert!(below.message().contains("floor=`1`"), "{below}");
        assert_eq!(store.head(), Position(2));
        assert_eq!(store.mark(me(), "m", Some(Position(1))).await.unwrap().answer, Position(1));
    }

    #[tokio::test]
    async fn a_repeated_request_names_what_it_named_first() {
        let world = World::new();
        let store = world.open().await;
        let request = |byte| me().request(RequestId { id: format!("r{byte}"), digest: Digest([byte; 32]) });
        let first = store.mark(request(1), "m", None).await.unwrap();
        world.write(&store, 1, 1).await;
        let again = store.mark(request(1), "m", None).await.unwrap();
        assert_eq!((again.repeated, again.answer, again.position), (true, first.answer, first.position));
        let deleted = store.delete_mark(request(2), "m").await.unwrap();
        let again = store.delete_mark(request(2), "m").await.unwrap();
        assert_eq!((again.repeated, again.answer), (true, deleted.answer));
        assert!(store.marks().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn fault_33_times_are_resolved_to_the_last_transaction_not_after_them() {
        for durability in [Durability::Sync, Durability::None] {
            let mut world = World::new();
            world.settings.durability = durability;
            let store = world.open().await;
            let mut times = Vec::new();
            for later in [10, 0, 5, 0, 1] {
                world.write(&store, later, 20 << 10).await;
                times.push(store.shared().log.head().time);
            }
            let at = |time: Timestamp| {
                let store = store.clone();
                async move { store.resolve(&At::Time(time)).await.unwrap() }
            };
            assert_eq!(at(Timestamp(times[0].0 - 1)).await, Position::ZERO);
            for (time, last) in [(times[0].0, 2), (times[0].0 + 4, 2), (times[2].0, 4), (times[4].0, 5), (i64::MAX, 5)]
            {
                assert_eq!(at(Timestamp(time)).await, Position(last), "{durability:?} {time}");
            }
            assert_eq!(store.resolve(&At::Position(Position(5))).await.unwrap(), Position(5));
            assert_eq!(store.resolve(&At::Position(Position(6))).await.unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[tokio::test]
    async fn fault_30_below_the_floor_there_is_nothing_to_resolve() {
        let world = World::new();
        let store = world.open().await;
        store.mark(me(), "old", None).await.unwrap();
        let before = store.shared().log.head().time;
        world.write(&store, 1, 40 << 10).await;
        store.checkpoint().await.unwrap();
        world.write(&store, 1, 40 << 10).await;
        trim(&world.world, store.shared(), Position(2));
        for at in [mark("old"), At::Position(Position(1)), At::Time(before)] {
            let error = store.resolve(&at).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{at}");
            assert!(error.message().contains("floor=`2`"), "{error}");
        }
        assert_eq!(store.resolve(&At::Position(Position(2))).await.unwrap(), Position(2));
    }
}
