//! [`Subscription`]: the change feed. Where it begins, how it waits, how it ends.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio_stream::Stream;

use super::engine::{Shared, closed, on_blocking_thread};
use super::facade::Store;
use super::feed::{Delivery, Feed, Page};
use super::filter::Filter;
use crate::types::{Error, ErrorKind, LogId, LogStamp, Position, Result};

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// With the oldest transaction that was not trimmed.
    Oldest,
    /// With the first one that becomes durable from now on.
    Now,
    /// With the first one above this position. Nothing says whether the history up to it is the one that the caller knows: who
    /// comes back takes the stamp.
    After(Position),
    /// After what a delivery was stamped with, proven against the log.
    Stamp(LogStamp),
    /// After what the cursor of this name was set to, proven against the log.
    Cursor(String),
}

impl Store {
    /// Follows the log: every transaction with an event that meets the filter, once, in order, from the one asked for on, and
    /// then each one as it becomes durable.
    ///
    /// Whatever the durability setting, nothing is delivered that is not synced: what was delivered survives every crash.
    /// Signs of progress come in between, so that who sees nothing for long still has a stamp to come back with.
    /// The log is read when the subscription is polled, one page of about 1 MiB at a time, so who is slow holds up and costs
    /// nobody but himself; a trim that overtakes him ends the subscription. Needs a tokio runtime.
    ///
    /// # Errors
    /// `invalid` for a position above the head and for a filter that nothing can meet, `not_found` for a position below the
    /// floor (it is named) and for a cursor that there is not, `conflict` for a stamp of another log or of a history that this
    /// log does not have, `closed`.
    ///
    /// ```
    /// use lakelog::{Batch, Context, Delivery, Filter, Store, SubscribeFrom};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> lakelog::Result<()> {
    /// # let scratch = tempfile::tempdir().unwrap();
    /// # let store = Store::builder(scratch.path().join("metadata")).create().await?;
    /// let filter = Filter::new().prefix(b"auth", b"users/");
    /// let mut feed = store.subscribe(SubscribeFrom::Oldest, filter.clone()).await?;
    /// store.write(Context::new("alice"), Batch::new().set(b"auth", b"users/bob", b"...")).await?;
    /// let Some(delivery) = feed.next().await.transpose()? else { return Ok(()) };
    /// if let Delivery::Transaction(transaction) = &delivery {
    ///     assert_eq!((&transaction.actor[..], transaction.events.len(), transaction.others), ("alice", 1, 0));
    /// }
    /// // Later, perhaps in another process: exactly after what was seen.
    /// let feed = store.subscribe(SubscribeFrom::Stamp(delivery.stamp()), filter).await?;
    /// # drop(feed);
    /// # store.close().await
    /// # }
    /// ```
    pub async fn subscribe(&self, from: SubscribeFrom, filter: Filter) -> Result<Subscription> {
        filter.check()?;
        let shared = self.shared();
        if shared.closing.load(Ordering::Acquire) {
            return Err(closed());
        }
        let passed = match from {
            SubscribeFrom::Oldest => oldest(shared).await?,
            SubscribeFrom::Now => stamp_at(shared, self.synced()).await?,
            SubscribeFrom::After(position) => {
                // Acknowledged, but not durable yet.
                if position > self.synced() && position <= self.head() {
                    self.sync().await?;
                }
                stamp_at(shared, position).await?
            }
            SubscribeFrom::Stamp(stamp) => proven(shared, stamp).await?,
            SubscribeFrom::Cursor(name) => {
                let cursor = self.cursor(&name).await?.ok_or_else(|| super::cursors::no_cursor(&name))?;
                proven(shared, cursor).await?
            }
        };
        let feed = Feed::new(shared.log.clone(), filter, passed);
        let (synced, ended) = (shared.log.follow(), shared.ended.subscribe());
        let follower = Box::new(Follower { feed, synced, ended });
        Ok(Subscription { state: State::Idle(follower), ready: VecDeque::new(), failure: None, stamp: passed })
    }
}

/// The stamp of the floor, which a trim may raise at any moment.
async fn oldest(shared: &Arc<Shared>) -> Result<LogStamp> {
    loop {
        let floor = shared.log.floor();
        match stamp_at(shared, floor).await {
            Err(_) if shared.log.floor() > floor => {}
            found => return found,
        }
    }
}

/// The stamp of a position from the floor to the synced one.
///
/// Errors: `not_found` below the floor, `invalid` above the synced position, `corrupt`.
async fn stamp_at(shared: &Arc<Shared>, position: Position) -> Result<LogStamp> {
    let log = shared.log.clone();
    // It may read from the last known place before the position on.
    let head = on_blocking_thread(move || log.head_at(position)).await??;
    Ok(LogStamp { log_id: shared.log.id(), position, chain: head.chain })
}

/// The stamp, when this log holds it (law 8).
///
/// Errors: as [`stamp_at`]; `conflict` for another log and another history.
pub(super) async fn proven(shared: &Arc<Shared>, stamp: LogStamp) -> Result<LogStamp> {
    let LogStamp { log_id, position, .. } = stamp;
    let ours: LogId = shared.log.id();
    if log_id != ours {
        let message = format!("the stamp is of another log, position=`{position}` log=`{log_id}` expected=`{ours}`");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let found = stamp_at(shared, position).await?;
    if found != stamp {
        let (chain, expected) = (stamp.chain, found.chain);
        let message = format!(
            "the stamp is of a history that went another way, position=`{position}` chain=`{chain}` expected=`{expected}`"
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    Ok(found)
}

/// Transactions as they become durable, as a stream that does not end by itself.
///
/// After an error it ends: `closed` when the store was closed, after everything that was synced; `not_found` when a trim
/// overtook it, with the floor; `unavailable` at an event of a kind that this version has to understand and does not, with the
/// version that does; `corrupt` where the log is damaged. What comes before is delivered first.
///
/// It holds no more than a page (about 1 MiB of transactions, or one that is larger), and while it catches up the one after it. Like a [`Reader`](crate::Reader) it
/// keeps the directory in use until it ended or is dropped, when the store is dropped without [`Store::close`].
/// [`Subscription::next`] can be dropped at any time; nothing is lost by it.
#[must_use = "a subscription does nothing unless polled"]
pub struct Subscription {
    state: State,
    ready: VecDeque<Delivery>,
    /// What comes after `ready`.
    failure: Option<Error>,
    stamp: LogStamp,
}

/// A feed, and what to wait for at its end.
struct Follower {
    feed: Feed,
    synced: watch::Receiver<Position>,
    ended: watch::Receiver<bool>,
}

/// The follower is lost only with a failure.
type Fetched = (Option<Box<Follower>>, Page);

enum State {
    Idle(Box<Follower>),
    Fetching(Pin<Box<dyn Future<Output = Fetched> + Send>>),
    Fetched(Fetched),
    Done,
}

impl State {
    /// Begins to fetch, without waiting for it.
    fn ahead(mut fetch: Pin<Box<dyn Future<Output = Fetched> + Send>>, context: &mut Context<'_>) -> State {
        match fetch.as_mut().poll(context) {
            Poll::Pending => State::Fetching(fetch),
            Poll::Ready(fetched) => State::Fetched(fetched),
        }
    }
}

impl Follower {
    /// Whether there is a whole page to be read.
    fn is_behind(&self) -> bool {
        self.feed.is_behind(*self.synced.borrow())
    }

    /// The next page that has something in it; waits for it.
    async fn fetch(mut self: Box<Self>) -> Fetched {
        loop {
            // Asked first: once it has ended, what is synced is all that there will be.
            let ended = *self.ended.borrow() || self.ended.has_changed().is_err();
            let synced = *self.synced.borrow_and_update();
            if synced > self.feed.position() {
                let read = on_blocking_thread(move || {
                    let page = self.feed.page();
                    (self, page)
                });
                match read.await {
                    Ok((follower, page)) if page.is_empty() => self = follower,
                    Ok((follower, page)) => return (Some(follower), page),
                    Err(error) => return (None, Page::failed(error)),
                }
            } else if ended {
                return (None, Page::failed(closed()));
            } else {
                // Whatever woke it, it looks again. A sender that is gone counts as an end.
                tokio::select! {
                    _ = self.synced.changed() => {}
                    _ = self.ended.wait_for(|ended| *ended) => {}
                }
            }
        }
    }
}

impl Subscription {
    /// The next delivery; `None` after an error.
    pub async fn next(&mut self) -> Option<Result<Delivery>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Hands out a page from here on. Who catches up has the next one read meanwhile.
    fn take(&mut self, (follower, page): Fetched, context: &mut Context<'_>) {
        (self.ready, self.failure) = (page.deliveries, page.failure);
        self.state = match follower {
            None => State::Done,
            Some(follower) if self.failure.is_none() && follower.is_behind() => {
                State::ahead(Box::pin(follower.fetch()), context)
            }
            Some(follower) => State::Idle(follower),
        };
    }

    /// Deliveries that were read and not handed out.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.ready.len()
    }

    /// The stamp of the last delivery, or where it began: where to go on.
    pub fn stamp(&self) -> LogStamp {
        self.stamp
    }
}

impl Stream for Subscription {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                self.stamp = delivery.stamp();
                return Poll::Ready(Some(Ok(delivery)));
            }
            if let Some(error) = self.failure.take() {
                // The log is let go of.
                self.state = State::Done;
                return Poll::Ready(Some(Err(error)));
            }
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Poll::Ready(None),
                State::Idle(follower) => self.state = State::Fetching(Box::pin(follower.fetch())),
                State::Fetching(mut fetch) => match fetch.as_mut().poll(context) {
                    Poll::Pending => {
                        self.state = State::Fetching(fetch);
                        return Poll::Pending;
                    }
                    Poll::Ready(fetched) => self.take(fetched, context),
                },
                State::Fetched(fetched) => self.take(fetched, context),
            }
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.ready.len();
        f.debug_struct("Subscription").field("stamp", &self.stamp).field("ready", &ready).finish_non_exhaustive()
    }
}
