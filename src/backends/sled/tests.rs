//! The embedded base as a whole.

use super::*;
use crate::backends::conformance;
use crate::env::Env;

fn open(dir: &std::path::Path) -> SledBackend {
    SledBackend::open(Env::os(), dir, SledSettings::default()).unwrap()
}

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run_all(&open(dir.path())).await;
}
