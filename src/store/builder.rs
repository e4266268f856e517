//! [`Builder`]: settings and components of a store, then open or create.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facade::Store;
use super::open::{self, Existing};
use super::settings::Settings;
use crate::backends::Backend;
#[cfg(feature = "postgres")]
use crate::backends::PostgresSettings;
use crate::env::Env;
use crate::projection::{Index, IndexSet};
use crate::types::Result;

/// How to open a store. Every part has a default.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) dir: PathBuf,
    pub(super) settings: Settings,
    pub(super) env: Env,
    pub(super) backend: Option<Arc<dyn Backend>>,
    #[cfg(feature = "postgres")]
    pub(super) postgres: Option<PostgresSettings>,
    pub(super) indexes: IndexSet,
    pub(super) serves_readers: bool,
}

impl Builder {
    pub(super) fn new(dir: &Path) -> Builder {
        Builder {
            dir: dir.to_owned(),
            settings: Settings::default(),
            env: Env::os(),
            backend: None,
            #[cfg(feature = "postgres")]
            postgres: None,
            indexes: IndexSet::built_in(),
            serves_readers: true,
        }
    }

    /// Replaces the settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Builder {
        self.settings = settings;
        self
    }

    /// Where checkpoints rest. Default: sled in the store's directory (feature `sled`), else memory,
    /// which replays the whole log at every open. A base that was made from another log is not touched: opening
    /// is a `conflict` then.
    #[must_use]
    pub fn with_backend(mut self, backend: Arc<dyn Backend>) -> Builder {
        self.backend = Some(backend);
        self
    }

    /// Lets checkpoints rest in Postgres, in a base named by the id of this store's log: any number of stores may give
    /// the same settings. Nothing of it is remembered on disk: a store moves between bases by being opened with
    /// another one, which is brought up to date from the log.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn with_postgres(mut self, settings: PostgresSettings) -> Builder {
        self.postgres = Some(settings);
        self
    }

    /// The files, clock and randomness to use. Default: the operating system's.
    #[must_use]
    pub fn with_env(mut self, env: Env) -> Builder {
        self.env = env;
        // Files that are elsewhere have no place for a socket.
        self.serves_readers = false;
        self
    }

    /// Whether other processes may read through a socket in the store's directory while this one has it open
    /// ([`BesideReader`](super::BesideReader)). Default true; false once [`Builder::with_env`] was called.
    #[must_use]
    pub fn serve_readers(mut self, serve: bool) -> Builder {
        self.serves_readers = serve;
        self
    }

    /// Adds an index to the built-in ones. On a store that does not have it yet it is built in
    /// the background while the others serve.
    #[must_use]
    pub fn with_index(mut self, index: Arc<dyn Index>) -> Builder {
        self.indexes = self.indexes.with(index);
        self
    }

    /// Opens an existing store; `not_found` when there is none.
    pub async fn open(self) -> Result<Store> {
        open::open(self, Existing::Required).await
    }

    /// Creates a store in an absent or empty directory; `conflict` when there is one.
    pub async fn create(self) -> Result<Store> {
        open::open(self, Existing::Forbidden).await
    }

    /// Opens the store, or creates it when the directory holds none.
    pub async fn open_or_create(self) -> Result<Store> {
        open::open(self, Existing::Allowed).await
    }
}
