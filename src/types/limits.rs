//! The limits of section 4 of the design: checked before append, the same for every backend.

/// Hard limits of the store. They are part of the format: raising one is a format change.
#[derive(Clone, Copy, Debug)]
pub struct Limits;

impl Limits {
    /// A partition, in bytes.
    pub const PARTITION_BYTES_MAX: usize = 512;
    /// A partition and a key together, in bytes: a Postgres index row ends at 2,704.
    pub const PARTITION_AND_KEY_BYTES_MAX: usize = 2_600;
    /// A value, in bytes.
    pub const VALUE_BYTES_MAX: usize = 16 << 20;
    /// The encoded payload of one transaction, in bytes.
    pub const TRANSACTION_BYTES_MAX: usize = 64 << 20;
    /// Operations in one transaction.
    pub const TRANSACTION_OPERATIONS_MAX: usize = 1_000_000;
    /// The answer remembered for a request id, in bytes.
    pub const ANSWER_BYTES_MAX: usize = 4 << 10;
    /// An actor, a request id, in bytes.
    pub const NAME_BYTES_MAX: usize = 1 << 10;
    /// A reason, in bytes.
    pub const REASON_BYTES_MAX: usize = 16 << 10;
}
