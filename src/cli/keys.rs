//! Small text files that commands take: keys and signed heads. Their content is never shown.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::diagnostics::SigningKey;
use crate::types::{Error, ErrorKind, Result};

use super::output::note;

/// Larger files are something else.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// The text of a small file.
///
/// # Errors
///
/// `NotFound`, `Unavailable` when it cannot be read, `Invalid` when it is no text or too large.
pub fn text_of(path: &Path, what: &str) -> Result<String> {
    let file = File::open(path).map_err(|error| failed(what, path, error))?;
    read_text(file, what, path)
}

/// A private key; warns when others than its owner can read the file.
///
/// # Errors
///
/// As [`text_of`]; `Invalid` for what is no such key.
pub fn signing_key(path: &Path) -> Result<SigningKey> {
    let key = SigningKey::from_pem(&text_of(path, "the key")?)?;
    let mode = std::fs::metadata(path).map_err(|error| failed("the key", path, error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        note(format!(
            "warning: others can read the private key, path=`{}` mode=`{mode:o}`; make it 600",
            path.display()
        ));
    }
    Ok(key)
}

/// The text of a small stream.
///
/// # Errors
///
/// As [`text_of`].
pub fn read_text(from: impl Read, what: &str, path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(what, path, error))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        let message = format!("{what} cannot be so long, path=`{}` limit=`{TEXT_BYTES_MAX}`", path.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    // The bytes themselves are not repeated: they may be a key.
    String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::Invalid, format!("{what} is no text, path=`{}`", path.display())))
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot read {what}, path=`{}`", path.display())).with_source(error)
}
