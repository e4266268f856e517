//! [`PageStream`]: a stream over something that is fetched page by page.
//!
//! Owns the state machine between a page that is being fetched and the items that are ready; what a page is belongs to
//! who implements [`Pages`].

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;

use crate::types::Result;

/// Something that gives its items page by page.
pub(crate) trait Pages: Send + Sized + 'static {
    /// What it gives.
    type Item: Send + Unpin;

    /// The next items; none at the end.
    fn page(&mut self) -> impl Future<Output = Result<Vec<Self::Item>>> + Send;
}

/// The items of all pages in order. After an error it ends.
pub(crate) struct PageStream<P: Pages> {
    state: State<P>,
    ready: VecDeque<P::Item>,
}

type Fetched<P> = (Box<P>, Result<Vec<<P as Pages>::Item>>);

enum State<P: Pages> {
    Idle(Box<P>),
    Fetching(Pin<Box<dyn Future<Output = Fetched<P>> + Send>>),
    Done,
}

impl<P: Pages> PageStream<P> {
    pub fn new(pages: P) -> PageStream<P> {
        PageStream { state: State::Idle(Box::new(pages)), ready: VecDeque::new() }
    }

    /// Begins anew with the same pages, changed.
    pub async fn reset(&mut self, change: impl FnOnce(&mut P)) {
        self.ready.clear();
        let mut pages = match std::mem::replace(&mut self.state, State::Done) {
            State::Idle(pages) => pages,
            State::Fetching(fetch) => fetch.await.0,
            State::Done => return,
        };
        change(&mut pages);
        self.state = State::Idle(pages);
    }

    /// The next item; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<P::Item>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<P: Pages> Stream for PageStream<P> {
    type Item = Result<P::Item>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Poll::Ready(None),
                State::Idle(mut pages) => {
                    self.state = State::Fetching(Box::pin(async move {
                        let page = pages.page().await;
                        (pages, page)
                    }));
                }
                State::Fetching(mut fetch) => match fetch.as_mut().poll(context) {
                    Poll::Pending => {
                        self.state = State::Fetching(fetch);
                        return Poll::Pending;
                    }
                    Poll::Ready((pages, Ok(page))) => {
                        // Idle also at the end: it may begin anew.
                        self.state = State::Idle(pages);
                        if page.is_empty() {
                            return Poll::Ready(None);
                        }
                        self.ready = page.into();
                    }
                    Poll::Ready((_, Err(error))) => return Poll::Ready(Some(Err(error))),
                },
            }
        }
    }
}

impl<P: Pages> fmt::Debug for PageStream<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStream").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

/// Gives a public stream over pages its methods.
macro_rules! page_stream {
    ($stream:ident, $item:ty) => {
        impl $stream {
            /// The next one; `None` at the end.
            pub async fn next(&mut self) -> Option<crate::types::Result<$item>> {
                self.pages.next().await
            }
        }

        impl tokio_stream::Stream for $stream {
            type Item = crate::types::Result<$item>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                context: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                std::pin::Pin::new(&mut self.pages).poll_next(context)
            }
        }
    };
}

pub(crate) use page_stream;
