//! lakelog: an embeddable, event-sourced, log-structured metadata store.
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod backends;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod diagnostics;
#[doc(hidden)]
pub mod env;
#[doc(hidden)]
pub mod event;
#[doc(hidden)]
pub mod log;
#[doc(hidden)]
pub mod migrate;
#[doc(hidden)]
pub mod projection;
mod store;
mod types;

pub use store::*;
pub use types::*;
