//! Diagnostics: what is true of a store's files, whether it opens or not.
//!
//! Owns verification, repair and the figures of the files. Reads the log beside the process that writes it, without its
//! lock; the base only when nobody has the store open, since it belongs to one process. Only
//! [`RepairPlan::apply`] changes anything that a store would miss, and never a whole frame.

mod base;
mod copies;
mod heads;
mod repair;
#[cfg(test)]
mod rescue;
mod salvage;
mod signed;
mod snapshots;
mod stats;
#[cfg(test)]
mod tests;
mod verify;
mod views;

pub use base::BaseAt;
pub use heads::{CheckedHead, HeadFault, verify_dump_signed};
pub use repair::{RepairOptions, RepairPlan};
pub use salvage::{KeptRange, LostRange, SalvageReport, salvage};
pub use signed::{PublicKey, SignedHead, SigningKey, sign_head};
pub use stats::FileStats;
pub use verify::{
    Stage, VerifyOptions, VerifyProblem, VerifyReport, archive_notes, verify, verify_archive, verify_with,
};
