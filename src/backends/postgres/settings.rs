//! [`PostgresSettings`]: where the server is and what to use of it. Never shows a password.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::error::PostgresError;
use super::{schema, within};
use crate::backends::BackendError;

/// The longest name that Postgres gives a schema, in bytes.
const SCHEMA_BYTES_MAX: usize = 63;
/// What a URL may say besides user, password, host, port and database. Others are refused: a misspelt one may matter.
const PARAMETERS: [&str; 15] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "user",
];

/// Where a base in Postgres rests.
#[derive(Clone)]
pub struct PostgresSettings {
    pub(super) options: PgConnectOptions,
    pub(super) schema: String,
    pub(super) connections_max: u32,
    pub(super) timeout: Duration,
    /// How long to wait for another process that just ended: its connection may outlive it a little.
    pub(super) lock_wait: Duration,
    has_password: bool,
}

impl PostgresSettings {
    /// Reads `postgres://[user[:password]@]host[:port]/database[?parameters]`. What it leaves out comes from the variables
    /// of Postgres's own clients (`PGHOST`, `PGUSER`, `PGPASSWORD`, `PGSSLMODE` ...) and the password file (`PGPASSFILE`,
    /// `~/.pgpass`). Parameters are those of such clients (`sslmode`, `sslrootcert`, `host` for a socket's directory ...)
    /// and `schema`. Connects to nothing.
    ///
    /// # Errors
    ///
    /// `Unusable` when it is no such URL or has a parameter that is not known. The message never repeats the URL.
    pub fn new(url: &str) -> Result<PostgresSettings, BackendError> {
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(unusable("it does not begin with postgres://"));
        }
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let mut schema = None;
        let mut parameters = Vec::new();
        let mut has_password = address.rsplit_once('@').is_some_and(|(user, _)| user.matches(':').count() > 1);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            has_password |= name == "password";
            match name {
                "schema" => schema = Some(value),
                _ if PARAMETERS.contains(&name) => parameters.push(parameter),
                // A name may be the rest of a password that was not escaped.
                _ => return Err(unusable(&format!("a parameter is none of {}, schema", PARAMETERS.join(", ")))),
            }
        }
        let url = format!("{address}?{}", parameters.join("&"));
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| unusable(&error.to_string()))?;
        let application = options.get_application_name().unwrap_or("lakelog").to_owned();
        let settings = PostgresSettings {
            options: options.application_name(&application).disable_statement_logging(),
            schema: "lakelog".to_owned(),
            connections_max: 8,
            timeout: Duration::from_secs(30),
            lock_wait: Duration::from_secs(3),
            has_password,
        };
        schema.map_or(Ok(settings.clone()), |schema| settings.schema(schema))
    }

    /// The schema that holds the tables, made when absent. Default `lakelog`. Several stores may share one.
    ///
    /// # Errors
    ///
    /// `Unusable` unless it is at most 63 lower-case letters, digits and `_`, no digit first, not beginning with `pg_`.
    pub fn schema(mut self, name: &str) -> Result<PostgresSettings, BackendError> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let first = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !first || !name.bytes().all(legal) || name.len() > SCHEMA_BYTES_MAX || name.starts_with("pg_") {
            return Err(unusable(
                "a schema is named by at most 63 of a to z, 0 to 9 and _, no digit first, not pg_...",
            ));
        }
        self.schema = name.to_owned();
        Ok(self)
    }

    /// The most connections that reads use at once; one more belongs to writes. Default 8, at least 1.
    #[must_use]
    pub fn connections_max(mut self, connections: u32) -> PostgresSettings {
        self.connections_max = connections.max(1);
        self
    }

    /// How long a read, or making a connection, may take before it is `Unavailable`. Default 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> PostgresSettings {
        self.timeout = timeout;
        self
    }

    /// Whether the URL itself held a password, which others may see where URLs are seen.
    pub fn has_password(&self) -> bool {
        self.has_password
    }

    /// Connects and brings the schema to this version, as [`PostgresBackend::connect`](super::PostgresBackend::connect) does,
    /// without taking a base.
    pub(crate) async fn try_out(&self) -> Result<(), BackendError> {
        self.session().await.map(drop).map_err(|error| error.at(&self.place()))
    }

    /// A connection that is set up.
    pub(super) async fn connect(&self) -> Result<PgConnection, PostgresError> {
        let connecting =
            async { PgConnection::connect_with(&self.options).await.map_err(|error| self.connecting(error)) };
        let mut connection = within(self.timeout, connecting).await?;
        within(self.timeout, schema::prepare(&mut connection, &self.schema)).await?;
        Ok(connection)
    }

    /// On a network nothing is looked for by name but the files of certificates and keys.
    fn connecting(&self, error: sqlx::Error) -> PostgresError {
        match error {
            sqlx::Error::Io(ref io)
                if matches!(io.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
                    && self.options.get_socket().is_none() =>
            {
                let cure = "a file that sslrootcert, sslcert or sslkey names cannot be read";
                PostgresError::Tls { cure, detail: io.to_string() }
            }
            error => error.into(),
        }
    }

    /// A connection that is set up, to a schema of this version that may be written.
    pub(super) async fn session(&self) -> Result<PgConnection, PostgresError> {
        let mut connection = self.connect().await?;
        schema::migrate(&mut connection, &self.schema).await?;
        within(self.timeout, schema::check_privileges(&mut connection)).await?;
        Ok(connection)
    }

    /// The server, the database and the schema, for messages.
    pub(crate) fn place(&self) -> String {
        let options = &self.options;
        let socket = options.get_socket().map(|socket| socket.display().to_string());
        let host = socket.unwrap_or_else(|| options.get_host().to_owned());
        // Without a database the server takes the one named as the user.
        let (user, port) = (options.get_username(), options.get_port());
        format!("postgres://{user}@{host}:{port}/{} {}", options.get_database().unwrap_or(user), self.schema)
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("place", &self.place())
            .field("connections_max", &self.connections_max)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn unusable(detail: &str) -> BackendError {
    BackendError::Unusable { what: "URL of a Postgres base", detail: detail.to_owned() }
}
