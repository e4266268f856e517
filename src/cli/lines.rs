//! The input of `apply`: lines of bounded length, each the JSON of one transaction.

use std::io::{self, BufRead, Read};

use serde::Deserialize;

use crate::types::{Error, ErrorKind, Limits, Result};

use super::operations::Operation;

/// The longest line that is read: the largest transaction with all its bytes in base64, and as much again for names.
pub const LINE_BYTES_MAX: usize = 3 * Limits::TRANSACTION_BYTES_MAX;

/// One transaction as a line says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The request id.
    pub id: Option<String>,
    /// Who; that of the command line when it is not said.
    pub actor: Option<String>,
    /// Why; that of the command line when it is not said.
    pub reason: Option<String>,
    /// What happens, all of it at one position or none of it.
    pub ops: Vec<Operation>,
}

/// The transaction that a line says.
///
/// # Errors
///
/// `Invalid` when it is not the JSON of one.
pub fn parse(line: &[u8]) -> Result<Line> {
    serde_json::from_slice(line).map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("not a transaction, column=`{}`", error.column())).with_source(error)
    })
}

/// Reads the next line into `line`, without its end; `false` at the end of the input. A last line without an end counts.
///
/// # Errors
///
/// `Invalid` when the line is longer than `bytes_max` (it is skipped, the next call goes on after it), `Unavailable` when the
/// input cannot be read.
pub fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>, bytes_max: usize) -> Result<bool> {
    line.clear();
    // One more than allowed, for the end of the line.
    let read = input.take(bytes_max as u64 + 1).read_until(b'\n', line).map_err(unreadable)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read > bytes_max {
        skip_line(input).map_err(unreadable)?;
        line.clear();
        return Err(Error::new(ErrorKind::Invalid, format!("the line is too long, bytes_max=`{bytes_max}`")));
    }
    Ok(read > 0)
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let skipped = end.map_or(buffer.len(), |end| end + 1);
        input.consume(skipped);
        if end.is_some() || skipped == 0 {
            return Ok(());
        }
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot read the input").with_source(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::text::Name;

    #[test]
    fn a_line_is_a_transaction() {
        let line =
            parse(br#"{"id":"r1","actor":"a","reason":"w","ops":[{"op":"delete_range","partition":"p"}]}"#).unwrap();
        let ops = vec![Operation::DeleteRange { partition: Name(b"p".to_vec()), prefix: Name::default() }];
        assert_eq!(line, Line { id: Some("r1".into()), actor: Some("a".into()), reason: Some("w".into()), ops });
        assert_eq!(
            parse(br#" {"ops":[],"id":null}"#).unwrap(),
            Line { id: None, actor: None, reason: None, ops: vec![] }
        );
    }

    #[test]
    fn bad_lines_are_invalid() {
        for wrong in [
            &b""[..],
            b" ",
            b"{}",
            b"[]",
            b"{\"ops\":[]} {\"ops\":[]}",
            b"{\"ops\":[],\"ops\":[]}",
            b"{\"ops\":[],\"request_id\":\"x\"}",
            b"{\"ops\":{}}",
            b"{\"ops\":[{\"op\":\"set\"}]}",
            b"{\"ops\":[",
            b"\xff{\"ops\":[]}",
            b"{\"ops\":[],\"actor\":\"\xff\"}",
        ] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{}", wrong.escape_ascii());
        }
        let deep = format!("{{\"ops\":{}", "[".repeat(100_000));
        assert_eq!(parse(deep.as_bytes()).unwrap_err().kind(), ErrorKind::Invalid);
    }

    fn all(mut input: &[u8], bytes_max: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        let mut line = Vec::new();
        loop {
            match next_line(&mut input, &mut line, bytes_max) {
                Ok(false) => return lines,
                Ok(true) => lines.push(Some(line.clone())),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Invalid);
                    lines.push(None);
                }
            }
        }
    }

    #[test]
    fn long_lines_are_refused_and_skipped() {
        let some = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(all(b"abc\nabcd\n\nab", 3), [some("abc"), None, some(""), some("ab")]);
        assert_eq!(all(b"abcd", 3), [None]);
        assert_eq!(all(b"abc", 3), [some("abc")]);
        assert_eq!(all(b"", 3), []);
        assert_eq!(all(b"\n", 0), [some("")]);
    }

    proptest! {
        #[test]
        fn lines_are_those_of_split(input in "[ab\n]{0,40}") {
            let mut expected: Vec<_> = input.split('\n').map(|line| Some(line.as_bytes().to_vec())).collect();
            if input.is_empty() || input.ends_with('\n') {
                expected.pop();
            }
            prop_assert_eq!(all(input.as_bytes(), 100), expected);
        }
    }
}
