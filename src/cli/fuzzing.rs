//! The fuzz target of `apply`: hostile streams of lines.

use super::lines::{next_line, parse};
use super::operations::digest;
use super::write;
use crate::types::ErrorKind;

/// Longer lines are skipped: short enough for the fuzzer to write some.
const LINE_BYTES_MAX: usize = 1 << 10;

/// The input of `apply`.
pub fn applied(input: &[u8]) {
    let (mut rest, mut text) = (input, Vec::new());
    for lines in 0..=input.len() {
        assert!(lines <= input.len(), "each line takes at least a byte");
        match next_line(&mut rest, &mut text, LINE_BYTES_MAX) {
            Ok(false) => return,
            Ok(true) => assert!(text.len() <= LINE_BYTES_MAX),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid);
                continue;
            }
        }
        match parse(&text) {
            Ok(line) => {
                assert_eq!(digest(&line.ops), digest(&line.ops.clone()));
                let _batch = write::batch(line.ops);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
        }
    }
}

/// Inputs to begin with: every operation and condition, several lines, bytes that are no text.
pub fn seeds() -> Vec<Vec<u8>> {
    let all: &[u8] = br#"{"id":"r1","actor":"a","reason":"w","ops":[{"op":"set","partition":"p","key":"k","value":"dg==","if":{"absent":true}},
"#;
    let lines: &[u8] = br#"{"ops":[{"op":"set","partition":"p","key":{"base64":"/w=="},"value":"dg==","if":{"version":7}}]}
{"ops":[{"op":"delete","partition":"p","key":"k","if":{"value":"dg=="}},{"op":"check","partition":"p","key":"l","if":{"exists":true}}]}
{"id":"r1","actor":"a","reason":"w","ops":[{"op":"delete_range","partition":"p","prefix":"x"}]}
"#;
    vec![all.to_vec(), lines.to_vec(), b"{\"ops\":[]}\n\xff\n\n{}".to_vec()]
}
