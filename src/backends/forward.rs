//! Backends behind a pointer are backends.

use std::sync::Arc;

use super::{Backend, BackendFuture, Changes, Usage};
use crate::types::{Page, Position, Slice, Stamp};

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
            fn retain(&self, positions: &[Position]) {
                (**self).retain(positions);
            }
            fn maintain(&self) -> BackendFuture<'_, bool> {
                (**self).maintain()
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
