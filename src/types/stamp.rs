//! [`Stamp`]: what derived state says of itself (law 8).

use super::{Hash, LogId, Position};

/// Which history a piece of derived state was made from, written in the same atomic write as the
/// state. The state is valid only if the log `log_id` holds `chain` at `position`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The log that the state was projected from.
    pub log_id: LogId,
    /// The format of the derived state, [`Stamp::FORMAT`] when written by this version.
    pub format: u32,
    /// The last position applied.
    pub position: Position,
    /// The chain hash at that position.
    pub chain: Hash,
    /// The index projections whose entries the state holds, sorted by name.
    pub projections: Vec<ProjectionVersion>,
    /// From here on every position up to this one is readable; `None` when no history is kept.
    pub history: Option<Position>,
    /// The last redaction of which nothing erased is in the state.
    pub redaction: Position,
}

impl Stamp {
    /// The format of derived state that this version writes. Another one is rebuilt.
    pub const FORMAT: u32 = 1;
}

/// One index projection and the version of its rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProjectionVersion {
    /// Unique name, for example `users-by-email`.
    pub name: String,
    /// Raised whenever the same writes give other entries than before.
    pub version: u32,
    /// Below this position the index is not whole: it was built when the store had come this far.
    pub since: Position,
}
