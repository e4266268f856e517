//! [`Stamp`]: what derived state says of itself, and [`LogStamp`]: the part of it that a consumer of the log carries (law 8).

use std::fmt;
use std::str::FromStr;

use super::{Error, ErrorKind, Hash, LogId, Position};

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

/// A place in the history of one log: what a consumer keeps to go on from there, and what tells a fork.
///
/// It holds for a log with this id and this chain hash at this position; the chain hash fixes everything up to it. Printed
/// and parsed as `LOG_ID:POSITION:CHAIN`, the hashes in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogStamp {
    /// The log.
    pub log_id: LogId,
    /// The last position seen; [`Position::ZERO`] before the first transaction.
    pub position: Position,
    /// The chain hash at it.
    pub chain: Hash,
}

impl fmt::Display for LogStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.log_id, self.position, self.chain)
    }
}

impl FromStr for LogStamp {
    type Err = Error;

    /// # Errors
    /// `invalid` for a text that no stamp prints.
    fn from_str(text: &str) -> Result<LogStamp, Error> {
        let parse = || {
            let (log_id, rest) = text.split_once(':')?;
            let (position, chain) = rest.split_once(':')?;
            let stamp = LogStamp {
                log_id: LogId(bytes_of(log_id)?),
                position: Position(position.parse().ok()?),
                chain: Hash(bytes_of(chain)?),
            };
            // One stamp, one text: no upper case, no sign, no leading zeros.
            (stamp.to_string() == text).then_some(stamp)
        };
        parse().ok_or_else(|| {
            // A text of any length is not repeated.
            Error::new(ErrorKind::Invalid, "not a stamp; it is written as `LOG_ID:POSITION:CHAIN`")
        })
    }
}

/// Bytes from two hexadecimal digits each.
fn bytes_of<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_a_log_is_parsed_as_it_prints() {
        let stamp = LogStamp { log_id: LogId([0xa1; 16]), position: Position(42), chain: Hash([0x0b; 32]) };
        let text = format!("{}:42:{}", "a1".repeat(16), "0b".repeat(32));
        assert_eq!(stamp.to_string(), text);
        assert_eq!(text.parse::<LogStamp>().unwrap(), stamp);
        // Every cut, and every byte replaced.
        for at in 0..text.len() {
            assert_eq!(text[..at].parse::<LogStamp>().unwrap_err().kind(), ErrorKind::Invalid);
            for byte in ["A", "+", "g", ":", " ", "\u{e9}"] {
                let wrong = [&text[..at], byte, &text[at + 1..]].concat();
                assert!(wrong == text || wrong.parse::<LogStamp>().is_err(), "{wrong}");
            }
        }
        for wrong in [text.replace(":42:", ":042:"), text.replace(":42:", ":18446744073709551616:"), text + "0"] {
            assert!(wrong.parse::<LogStamp>().is_err(), "{wrong}");
        }
    }
}
