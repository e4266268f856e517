//! [`At`]: which state of the past is meant, as people write it.

use std::fmt;
use std::str::FromStr;

use super::{Error, ErrorKind, Limits, Position, Timestamp};

/// A place in the order of a log, as a caller names it.
///
/// Parsed from text as the command line takes it: decimal digits are a position, a time is an RFC 3339 time with its
/// offset, anything else is the name of a mark.
///
/// ```
/// use lakelog::{At, Position};
///
/// assert_eq!("17".parse::<At>()?, At::Position(Position(17)));
/// assert!(matches!("2026-11-28T03:12:08Z".parse::<At>()?, At::Time(_)));
/// assert_eq!("before-upgrade".parse::<At>()?, At::Mark("before-upgrade".to_owned()));
/// # Ok::<(), lakelog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The state at this position.
    Position(Position),
    /// The state after the last transaction whose recorded time is not after this.
    Time(Timestamp),
    /// The position that a mark names.
    Mark(String),
}

impl At {
    /// Checks the name of a mark: 1 byte to 1 KiB, no control characters, neither decimal digits nor a time, so that it
    /// can be told from a position and a time.
    ///
    /// # Errors
    /// `invalid`.
    pub fn check_mark_name(name: &str) -> Result<(), Error> {
        match name.parse::<At>()? {
            At::Mark(_) => Ok(()),
            At::Position(_) | At::Time(_) => {
                let message = format!("a mark cannot be named like a position or a time, name=`{name}`");
                Err(Error::new(ErrorKind::Invalid, message))
            }
        }
    }
}

impl From<Position> for At {
    fn from(position: Position) -> At {
        At::Position(position)
    }
}

impl From<Timestamp> for At {
    fn from(time: Timestamp) -> At {
        At::Time(time)
    }
}

impl FromStr for At {
    type Err = Error;

    /// # Errors
    /// `invalid`: digits above every position, or what cannot be the name of a mark.
    fn from_str(text: &str) -> Result<At, Error> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                Ok(position) => Ok(At::Position(Position(position))),
                Err(_) => invalid(format!("the position is too large, position=`{text}`")),
            };
        }
        if let Ok(time) = text.parse() {
            return Ok(At::Time(time));
        }
        let (found, max) = (text.len(), Limits::NAME_BYTES_MAX);
        if found == 0 || found > max {
            return invalid(format!("the name of a mark has a bad length, bytes=`{found}` range=`1..={max}`"));
        }
        if text.chars().any(char::is_control) {
            return invalid(format!("the name of a mark has control characters, name=`{}`", text.escape_debug()));
        }
        Ok(At::Mark(text.to_owned()))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Position(position) => position.fmt(f),
            At::Time(time) => time.fmt(f),
            At::Mark(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> At {
        text.parse().unwrap()
    }

    #[test]
    fn digits_are_a_position_and_rfc_3339_is_a_time() {
        assert_eq!(parse("0"), At::Position(Position(0)));
        assert_eq!(parse("007"), At::Position(Position(7)));
        assert_eq!(parse("18446744073709551615"), At::Position(Position::MAX));
        for time in ["2026-11-18T11:06:40.000001Z", "2026-11-18T13:06:40.000001+02:00", "2026-11-18 11:06:40.000001z"] {
            assert_eq!(parse(time), At::Time(Timestamp(1_795_000_000_000_001)), "{time}");
        }
        let longest = "x".repeat(Limits::NAME_BYTES_MAX);
        for name in ["v1.0", "+5", "-5", "5 ", " ", "0x10", "1e3", "yesterday", "2026-11-18", "ünï", &longest] {
            assert_eq!(parse(name), At::Mark(name.to_owned()));
            assert!(At::check_mark_name(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_names_nothing_is_invalid() {
        let too_long = "x".repeat(Limits::NAME_BYTES_MAX + 1);
        for text in ["", "18446744073709551616", "a\nb", "\0", "\u{7f}", "\u{85}", &too_long] {
            assert_eq!(text.parse::<At>().unwrap_err().kind(), ErrorKind::Invalid, "{text:?}");
            assert_eq!(At::check_mark_name(text).unwrap_err().kind(), ErrorKind::Invalid, "{text:?}");
        }
        for text in ["0", "17", "2026-11-18T11:06:40Z"] {
            assert_eq!(At::check_mark_name(text).unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
    }

    #[test]
    fn it_prints_as_it_parses() {
        for text in ["17", "2026-11-18T11:06:40.000001Z", "before-upgrade"] {
            assert_eq!(parse(text).to_string(), text);
        }
    }
}
