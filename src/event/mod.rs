//! Events: what happened, as plain data, and their protobuf encoding.
//!
//! Owns the envelope (who, why, which request), every kind of event and its versions. Generated
//! protobuf types never leave this folder. Knows no file, clock or view: applying events is the
//! business of `projection`.

mod decode;
mod encode;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod generated;
#[cfg(test)]
mod tests;
mod transaction;
mod upcast;

pub use encode::encode;
pub use error::{BodyError, DecodeError};
pub use transaction::{Event, RedactedTransaction, Request, Transaction, UnknownEvent};
