//! [`Builder`]: settings and components of a store, then open or create.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facade::Store;
use super::open::{self, Existing};
use super::settings::Settings;
use crate::backends::Backend;
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
    /// which replays the whole log at every open.
    #[must_use]
    pub fn with_backend(mut self, backend: Arc<dyn Backend>) -> Builder {
        self.backend = Some(backend);
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
