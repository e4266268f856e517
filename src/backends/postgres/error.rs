//! [`PostgresError`]: what the server or the way to it can answer, told apart by what an operator does about it.

use std::time::Duration;

use thiserror::Error;

use crate::backends::BackendError;

/// An error of the Postgres base. No text of it holds a password: the server's messages do not, and addresses
/// are never repeated from a URL.
#[derive(Debug, Error)]
pub(super) enum PostgresError {
    #[error("no connection, detail=`{detail}`")]
    Lost { detail: String },
    #[error("no connection or no answer in time, timeout=`{timeout:?}`")]
    Late { timeout: Duration },
    #[error("no TLS as the settings ask for; {cure}, detail=`{detail}`")]
    Tls { cure: &'static str, detail: String },
    #[error("the server refused the login; check user, PGPASSWORD and the password file, detail=`{detail}`")]
    Login { detail: String },
    #[error("there is no such database; make it with createdb, detail=`{detail}`")]
    NoDatabase { detail: String },
    #[error("the role lacks a privilege; {cure}, detail=`{detail}`")]
    Privilege { cure: &'static str, detail: String },
    #[error("the server or the role is read-only; give the address of the primary server, or a role that may write")]
    ReadOnly,
    #[error("the base is in use by another process, base=`{base}`")]
    InUse { base: String },
    #[error("the schema is newer than this version of lakelog reads, found=`{found}` supported=`{supported}`")]
    NewerSchema { found: i64, supported: i64 },
    #[error("the server is too old, found=`{found}` needed=`{needed}`")]
    OldServer { found: i32, needed: i32 },
    #[error("what is stored makes no sense, detail=`{detail}`")]
    Nonsense { detail: String },
    #[error("the server found damage, code=`{code}` detail=`{detail}`")]
    Damaged { code: String, detail: String },
    #[error("a key is longer than an index of the server takes, detail=`{detail}`")]
    LongKey { detail: String },
    #[error("the server refused, code=`{code}` detail=`{detail}`")]
    Server { code: String, detail: String },
    #[error("the base was changed by somebody else while it was written")]
    Meddled,
    #[error("the base was changed by somebody else while it was read; try again once nobody has the store open")]
    Moved,
}

impl PostgresError {
    /// What the trait answers, with the place that it is about.
    pub(super) fn at(self, place: &str) -> BackendError {
        let (place, detail) = (place.to_owned(), self.to_string());
        match self {
            PostgresError::Damaged { .. } | PostgresError::Nonsense { .. } => BackendError::Corrupt { place, detail },
            PostgresError::LongKey { .. } => BackendError::Invalid { detail },
            _ => BackendError::Unavailable { place, detail },
        }
    }

    fn tls(detail: String) -> PostgresError {
        let cure = if detail.contains("does not support TLS") {
            "switch it on in the server (ssl = on), or do without (sslmode=prefer, sslmode=disable)"
        } else {
            "give the certificate that signed the server's as sslrootcert=FILE, and for sslmode=verify-full the host by the name that is in it"
        };
        PostgresError::Tls { cure, detail }
    }

    /// Whether the connection is of no more use, but another one may be.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, PostgresError::Lost { .. })
    }
}

/// A handshake that failed comes as an error of the stream below it.
fn is_handshake(error: &std::io::Error) -> bool {
    let text = error.to_string();
    ["invalid peer certificate", "received fatal alert", "peer "].iter().any(|words| text.starts_with(words))
}

impl From<tokio::sync::AcquireError> for PostgresError {
    fn from(error: tokio::sync::AcquireError) -> PostgresError {
        PostgresError::Lost { detail: error.to_string() }
    }
}

impl From<sqlx::Error> for PostgresError {
    fn from(error: sqlx::Error) -> PostgresError {
        let detail = error.to_string();
        let sqlx::Error::Database(answer) = &error else {
            return match error {
                sqlx::Error::Tls(_) => PostgresError::tls(detail),
                sqlx::Error::Io(ref error) if is_handshake(error) => PostgresError::tls(detail),
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                    PostgresError::Nonsense { detail }
                }
                _ => PostgresError::Lost { detail },
            };
        };
        let detail = answer.message().to_owned();
        let code = answer.code().unwrap_or_default().into_owned();
        match &code[..] {
            "28000" | "28P01" => PostgresError::Login { detail },
            "3D000" => PostgresError::NoDatabase { detail },
            "42501" => PostgresError::Privilege { cure: "let its owner grant it, or use the owner", detail },
            "25006" => PostgresError::ReadOnly,
            "54000" => PostgresError::LongKey { detail },
            "XX001" | "XX002" => PostgresError::Damaged { code, detail },
            // Shutdown, start-up, a terminated session, and what the protocol calls a lost connection.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => PostgresError::Lost { detail },
            code if code.starts_with("08") => PostgresError::Lost { detail },
            _ => PostgresError::Server { code, detail },
        }
    }
}
