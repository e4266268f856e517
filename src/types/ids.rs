//! Identifiers and positions: each its own type, each displayed as the command line prints it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The place of a transaction in the one order of a log.
///
/// Dense: the first transaction is 1 and every further one is its predecessor plus one. Zero is the
/// state before any transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The state before the first transaction.
    pub const ZERO: Position = Position(0);
    /// Above every position that a log can reach.
    pub const MAX: Position = Position(u64::MAX);

    /// The following position. Saturates: no log reaches 2^64 transactions.
    #[must_use]
    pub fn next(self) -> Position {
        Position(self.0.saturating_add(1))
    }

    /// The position before this one, [`Position::ZERO`] at the start.
    #[must_use]
    pub fn previous(self) -> Position {
        Position(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Microseconds since 1970-01-01T00:00:00Z. Displayed as RFC 3339 UTC with six fractional digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            // Outside the years that RFC 3339 can say (a damaged or hostile clock): still unambiguous.
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Timestamp(text.parse::<jiff::Timestamp>()?.as_microsecond()))
    }
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

bytes_id!(
    /// The identity of one log: 16 random bytes, made when the store is created.
    LogId, 16
);
bytes_id!(
    /// 16 secret random bytes hashed with a payload, so that an erased payload cannot be guessed
    /// from its digest.
    Salt, 16
);
bytes_id!(
    /// SHA-256 over a salt and a payload: what one transaction holds.
    Digest, 32
);
bytes_id!(
    /// The chain hash: SHA-256 over the former chain hash, position, time and digest, so it fixes
    /// the whole history up to a position.
    Hash, 32
);

impl Digest {
    /// `SHA-256(salt || payload)`.
    pub fn of(salt: &Salt, payload: &[u8]) -> Digest {
        let mut hasher = Sha256::new();
        hasher.update(salt.0);
        hasher.update(payload);
        Digest(hasher.finalize().into())
    }

    /// `SHA-256(bytes)`.
    pub fn of_bytes(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }
}

impl Hash {
    /// The chain hash before the first transaction: `SHA-256(log id || format)`, the format as
    /// 4 bytes little-endian.
    pub fn origin(log_id: LogId, format: u32) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(log_id.0);
        hasher.update(format.to_le_bytes());
        Hash(hasher.finalize().into())
    }

    /// `SHA-256(self || position || time || digest)`, the numbers as 8 bytes little-endian.
    #[must_use]
    pub fn extend(&self, position: Position, time: Timestamp, digest: &Digest) -> Hash {
        // In one piece: a hasher copies each part into its block by a call of its own.
        let mut link = [0; 32 + 8 + 8 + 32];
        link[..32].copy_from_slice(&self.0);
        link[32..40].copy_from_slice(&position.0.to_le_bytes());
        link[40..48].copy_from_slice(&time.0.to_le_bytes());
        link[48..].copy_from_slice(&digest.0);
        Hash(Sha256::digest(link).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_prints_and_parses_at_full_precision() {
        let time = Timestamp(1_795_000_000_000_001);
        assert_eq!(time.to_string(), "2026-11-18T11:06:40.000001Z");
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        assert_eq!("2026-11-18T13:06:40.000001+02:00".parse::<Timestamp>().unwrap(), time);
    }

    #[test]
    fn chain_depends_on_every_part() {
        let origin = Hash::origin(LogId([1; 16]), 1);
        let digest = Digest::of(&Salt([2; 16]), b"payload");
        let hash = origin.extend(Position(1), Timestamp(5), &digest);
        assert_ne!(hash, origin.extend(Position(2), Timestamp(5), &digest));
        assert_ne!(hash, origin.extend(Position(1), Timestamp(6), &digest));
        assert_ne!(hash, origin.extend(Position(1), Timestamp(5), &Digest::of(&Salt([3; 16]), b"payload")));
        assert_ne!(origin, Hash::origin(LogId([1; 16]), 2));
    }
}
