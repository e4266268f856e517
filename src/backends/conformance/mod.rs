//! What every [`Backend`](super::Backend) must do, as functions that panic when it does not.
//!
//! For authors of backends: call [`run_all`] (or its parts) from an async test. Each function calls
//! `clear` first and asserts kinds of errors as well as results. [`History`] goes on for as long as
//! it is stepped, so that a durable backend can be reopened between the steps.

pub(in crate::backends) mod fixture;
mod history;
mod limits;
mod maintenance;
mod model;
mod ranges;
mod run;
mod scans;
mod stamps;
mod versions;
mod writes;

pub use history::{History, compare_with_model};
pub use limits::limits;
pub use maintenance::{clearing, maintenance};
pub use model::Model;
pub use ranges::range_deletes;
pub use run::run_all;
pub use scans::scans;
pub use stamps::stamps;
pub use versions::versions;
pub use writes::failing_writes;
