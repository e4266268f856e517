//! What a command says: answers on standard output, errors on standard error, and the exit code.
//!
//! Every answer is `Serialize` (its JSON, which only ever grows) and `Display` (its text for people, which may change).

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

use crate::types::{Error, ErrorKind, Result};

/// How a command ended that did not fail with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All was done.
    Done,
    /// Some of it was refused; the answers say which.
    Partly,
    /// The answers tell of a failure of this kind.
    Failed(ErrorKind),
}

impl Ended {
    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Ended::Done => 0,
            Ended::Partly => 7,
            Ended::Failed(kind) => kind.exit_code(),
        }
    }
}

/// Where answers go, and in which form.
pub struct Output {
    json: bool,
    sink: Box<dyn Write + Send>,
}

impl Output {
    /// Buffered standard output.
    pub fn stdout(json: bool) -> Output {
        Output::to(json, Box::new(io::BufWriter::new(io::stdout())))
    }

    /// Any other sink.
    pub fn to(json: bool, sink: Box<dyn Write + Send>) -> Output {
        Output { json, sink }
    }

    /// Whether answers are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Writes one answer as one line of JSON, or as its text and a line end.
    pub fn answer<T: Serialize + Display>(&mut self, answer: &T) -> Result<()> {
        if self.json { self.json(answer) } else { writeln!(self.sink, "{answer}").map_err(closed) }
    }

    /// Writes one answer as one line of JSON, whatever was asked for.
    pub fn json<T: Serialize>(&mut self, answer: &T) -> Result<()> {
        let mut line = serde_json::to_vec(answer)
            .map_err(|error| Error::new(ErrorKind::Internal, "an answer has no JSON").with_source(error))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(closed)
    }

    /// For who writes by himself what is not an answer.
    pub fn sink(&mut self) -> Sink<'_> {
        Sink { sink: self.sink.as_mut(), failure: None }
    }

    /// Hands everything written on to whoever reads it.
    pub fn flush(&mut self) -> Result<()> {
        self.sink.flush().map_err(closed)
    }
}

/// The sink of an [`Output`] as a writer; keeps what failed, for errors lose where they came from on the way.
pub struct Sink<'a> {
    sink: &'a mut (dyn Write + Send),
    failure: Option<io::Error>,
}

impl Sink<'_> {
    /// The failure of standard output, if there was one.
    pub fn failure(self) -> Option<Error> {
        self.failure.map(closed)
    }

    fn keep<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| {
            let kind = error.kind();
            // Whoever writes tries again after an interruption.
            if kind != io::ErrorKind::Interrupted {
                self.failure.get_or_insert(error);
            }
            kind.into()
        })
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.sink.write(bytes);
        self.keep(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.sink.flush();
        self.keep(done)
    }
}

/// Marks a failure of standard output, so that a reader who went away can be told from a failing disk.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SinkError(io::Error);

fn closed(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot write the answer").with_source(SinkError(error))
}

/// Whether the error only says that nobody reads standard output any more (`lakelog log | head`).
pub fn reader_went_away(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<SinkError>())
        .is_some_and(|SinkError(source)| source.kind() == io::ErrorKind::BrokenPipe)
}

/// The line on standard error that an error becomes.
pub fn error_line(error: &Error, json: bool) -> String {
    if json {
        json!({"error": error.kind().name(), "message": error.report()}).to_string()
    } else {
        format!("lakelog: {}", error.report())
    }
}

/// Writes a line to standard error. That nobody reads it is no reason to fail.
pub fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let codes = [Ended::Done, Ended::Partly, Ended::Failed(ErrorKind::Corrupt), Ended::Failed(ErrorKind::Closed)];
        assert_eq!(codes.map(Ended::exit_code), [0, 7, 5, 6]);
    }

    #[test]
    fn errors_are_one_line() {
        let error = Error::new(ErrorKind::NotFound, "no such key, key=`a\"b`").with_source(io::Error::other("why"));
        assert_eq!(error_line(&error, false), "lakelog: no such key, key=`a\"b`: why");
        let json: serde_json::Value = serde_json::from_str(&error_line(&error, true)).unwrap();
        assert_eq!(json, json!({"error": "not_found", "message": "no such key, key=`a\"b`: why"}));
    }

    #[test]
    fn only_a_closed_pipe_counts_as_nobody_reading() {
        let write = |kind| Output::to(true, Box::new(Failing(kind))).json(&1).unwrap_err();
        assert!(reader_went_away(&write(io::ErrorKind::BrokenPipe)));
        assert!(!reader_went_away(&write(io::ErrorKind::StorageFull)));
        let mut out = Output::to(true, Box::new(Failing(io::ErrorKind::BrokenPipe)));
        let mut sink = out.sink();
        assert!(sink.write(b"x").is_err());
        assert!(reader_went_away(&sink.failure().unwrap()));
        let elsewhere = Error::new(ErrorKind::Unavailable, "x").with_source(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!reader_went_away(&elsewhere));
    }
}
