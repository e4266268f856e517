//! The whole suite in one call.

use super::{
    clearing, compare_with_model, failing_writes, limits, maintenance, range_deletes, scans, stamps, versions,
};
use crate::backends::Backend;

/// Runs everything. The backend is empty afterwards.
///
/// # Panics
///
/// When the backend breaks the contract.
pub async fn run_all(backend: &dyn Backend) {
    stamps(backend).await;
    failing_writes(backend).await;
    versions(backend).await;
    range_deletes(backend).await;
    scans(backend).await;
    limits(backend).await;
    maintenance(backend).await;
    clearing(backend).await;
    for seed in 0..4 {
        compare_with_model(backend, seed, 25).await;
    }
    backend.clear().await.expect("clear works");
}
