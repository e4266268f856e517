//! [`Pool`]: connections for reads, a bounded number of them.
//!
//! sqlx has a pool too; it asks the server after each use whether the connection is still there, which costs a read as much
//! again, and waits out a server that is gone. Here a connection that was lost shows itself at its next use.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::postgres::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, Sleep};

use super::error::PostgresError;
use super::settings::PostgresSettings;
use super::within;

/// Idle connections, and how many more there may be.
pub(super) struct Pool {
    settings: PostgresSettings,
    idle: Mutex<Vec<(PgConnection, Deadline)>>,
    permits: Semaphore,
}

/// A timer that reads of one connection use again and again: moving it on costs nothing, while a new one for each read wakes the thread
/// that waits for the next timer.
pub(super) struct Deadline {
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(timeout: Duration) -> Deadline {
        Deadline { timeout, timer: Box::pin(tokio::time::sleep(timeout)) }
    }

    /// Awaits an answer of the server, but not for ever.
    pub(super) async fn within<T>(
        &mut self,
        call: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        self.timer.as_mut().reset(Instant::now() + self.timeout);
        tokio::select! {
            biased;
            done = call => done,
            () = &mut self.timer => Err(PostgresError::Late { timeout: self.timeout }),
        }
    }
}

/// A connection in use. Dropped, it is closed: whoever is done with it in good order gives it back.
pub(super) struct Pooled<'a> {
    pub(super) connection: PgConnection,
    pub(super) deadline: Deadline,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(settings: PostgresSettings) -> Pool {
        let permits = Semaphore::new(settings.connections_max as usize);
        Pool { settings, idle: Mutex::default(), permits }
    }

    /// A connection that nobody uses, or a new one, as soon as there may be one.
    pub(super) async fn take(&self) -> Result<Pooled<'_>, PostgresError> {
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => within(self.settings.timeout, self.permits.acquire()).await?,
        };
        let idle = self.idle.lock().pop();
        let (connection, deadline) = match idle {
            Some(idle) => idle,
            None => (self.settings.connect().await?, Deadline::new(self.settings.timeout)),
        };
        Ok(Pooled { connection, deadline, _permit: permit })
    }

    pub(super) fn give(&self, pooled: Pooled<'_>) {
        self.idle.lock().push((pooled.connection, pooled.deadline));
    }

    /// Closes those that nobody uses; whether there were any.
    pub(super) fn forget(&self) -> bool {
        !std::mem::take(&mut *self.idle.lock()).is_empty()
    }
}
