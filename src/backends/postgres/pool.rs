//! [`Pool`]: connections for reads, a bounded number of them.
//!
//! sqlx has a pool too; it asks the server after each use whether the connection is still there, which costs a read as much
//! again, and waits out a server that is gone. Here a connection that was lost shows itself at its next use.

use parking_lot::Mutex;
use sqlx::postgres::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::PostgresError;
use super::settings::PostgresSettings;
use super::within;

/// Idle connections, and how many more there may be.
pub(super) struct Pool {
    settings: PostgresSettings,
    idle: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
}

/// A connection in use. Dropped, it is closed: whoever is done with it in good order gives it back.
pub(super) struct Pooled<'a> {
    pub(super) connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(settings: PostgresSettings) -> Pool {
        let permits = Semaphore::new(settings.connections_max as usize);
        Pool { settings, idle: Mutex::default(), permits }
    }

    /// A connection that nobody uses, or a new one, as soon as there may be one.
    pub(super) async fn take(&self) -> Result<Pooled<'_>, PostgresError> {
        let permit = within(self.settings.timeout, self.permits.acquire()).await?;
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.settings.connect().await?,
        };
        Ok(Pooled { connection, _permit: permit })
    }

    pub(super) fn give(&self, pooled: Pooled<'_>) {
        self.idle.lock().push(pooled.connection);
    }

    /// Closes those that nobody uses; whether there were any.
    pub(super) fn forget(&self) -> bool {
        !std::mem::take(&mut *self.idle.lock()).is_empty()
    }
}
