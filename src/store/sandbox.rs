//! [`Sandbox`]: a store of small segments in a simulated world, over a base in memory that outlives its process.

use std::path::Path;
use std::sync::Arc;

use super::{Settings, Store};
use crate::backends::MemoryBackend;
use crate::env::Fs as _;
use crate::env::sim::SimWorld;
use crate::types::Result;

/// The log's directory.
pub(super) const LOG: &str = "/store/log";

pub(super) struct Sandbox {
    pub world: SimWorld,
    pub settings: Settings,
    pub base: MemoryBackend,
}

impl Sandbox {
    pub fn new(seed: u64) -> Sandbox {
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        Sandbox { world: SimWorld::new(seed), settings, base: MemoryBackend::new() }
    }

    pub async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    pub async fn try_open(&self) -> Result<Store> {
        let builder = Store::builder("/store").settings(self.settings.clone()).with_env(self.world.env());
        builder.with_backend(Arc::new(self.base.clone())).open_or_create().await
    }

    /// As after the base was lost.
    pub async fn open_without_base(&mut self) -> Store {
        self.base = MemoryBackend::new();
        self.open().await
    }

    pub fn files(&self) -> Vec<String> {
        self.world.fs.read_dir(Path::new(LOG)).unwrap()
    }

    pub fn snapshots(&self) -> usize {
        self.files().iter().filter(|name| name.starts_with("snapshot-")).count()
    }
}
