//! Backends behind a pointer are backends.

use std::sync::Arc;

use super::{Backend, BackendFuture, Changes, Usage};
use crate::types::{Page, Position, Slice, Stamp, VersionPage};

macro_rules! forward {
    ($pointer:ident) => {
        #[deny(clippy::missing_trait_methods)]
        impl<B: Backend + ?Sized> Backend for $pointer<B> {
            fn stamp(&self) -> BackendFuture<'_, Option<Stamp>> {
                (**self).stamp()
            }
            fn write<'a>(
                &'a self,
                stamp: &'a Stamp,
                keep: &'a [Position],
                changes: Changes<'a>,
            ) -> BackendFuture<'a, ()> {
                (**self).write(stamp, keep, changes)
            }
            fn get<'a>(&'a self, at: Position, key: &'a [u8]) -> BackendFuture<'a, Option<(Position, Slice)>> {
                (**self).get(at, key)
            }
            fn scan<'a>(&'a self, at: Position, from: &'a [u8], to: &'a [u8], limit: usize) -> BackendFuture<'a, Page> {
                (**self).scan(at, from, to, limit)
            }
            fn versions<'a>(
                &'a self,
                from: &'a [u8],
                below: Position,
                to: &'a [u8],
                limit: usize,
            ) -> BackendFuture<'a, VersionPage> {
                (**self).versions(from, below, to, limit)
            }
            fn maintain<'a>(&'a self, at: Position, keep: &'a [Position]) -> BackendFuture<'a, bool> {
                (**self).maintain(at, keep)
            }
            fn clear(&self) -> BackendFuture<'_, ()> {
                (**self).clear()
            }
            fn usage(&self) -> Usage {
                (**self).usage()
            }
        }
    };
}

forward!(Arc);
forward!(Box);
