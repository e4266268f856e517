//! [`MemoryBackend`] on its own: what it drops, and that clones share.

use proptest::prelude::*;

use super::*;
use crate::backends::conformance::{
    self,
    fixture::{delete, delete_range, put, stamp, write},
};

#[tokio::test]
async fn conforms() {
    conformance::run_all(&MemoryBackend::new()).await;
}

#[tokio::test]
async fn conforms_behind_an_arc_and_a_box() {
    let shared: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    conformance::run_all(&shared).await;
    let boxed: Box<dyn Backend> = Box::new(MemoryBackend::new());
    conformance::run_all(&boxed).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn equals_the_model(seed: u64, steps in 1usize..40) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(conformance::compare_with_model(&MemoryBackend::new(), seed, steps));
    }
}

#[tokio::test]
async fn clones_share_one_state() {
    let backend = MemoryBackend::new();
    let survivor = backend.clone();
    write(&backend, 3, &[], [put("a", 2, "x")]).await;
    drop(backend);
    assert_eq!(survivor.stamp().await.unwrap(), Some(stamp(3)));
    assert_eq!(survivor.get(Position(3), b"a").await.unwrap(), Some((Position(2), b"x"[..].into())));
}

#[tokio::test]
async fn superseded_versions_go_when_nobody_sees_them() {
    let backend = MemoryBackend::new();
    write(&backend, 1, &[], [put("a", 1, "1"), put("b", 1, "1")]).await;
    let one = backend.usage().memory_bytes;
    write(&backend, 2, &[1], [delete_range("", 2), put("a", 2, "2")]).await;
    assert_eq!(backend.get(Position(1), b"b").await.unwrap().unwrap().0, Position(1));
    assert_eq!(backend.get(Position(2), b"b").await.unwrap(), None);
    assert!(backend.usage().memory_bytes > one);
    while backend.maintain(Position(2), &[]).await.unwrap() {}
    assert_eq!(backend.usage().memory_bytes, one / 2, "one version of one key is left");
    write(&backend, 3, &[], [delete("a", 3)]).await;
    assert_eq!(backend.usage().memory_bytes, 0, "a delete with nothing below it is not kept");
}

#[tokio::test]
async fn a_page_passes_over_a_bounded_number_of_dead_keys() {
    let backend = MemoryBackend::new();
    let puts: Vec<Change> = (0..STEP_KEYS as u64 + 10).map(|key| put(format!("{key:08}"), 1, "")).collect();
    write(&backend, 1, &[], puts).await;
    write(&backend, 2, &[1], [delete_range("", 2), put("zz", 2, "last")]).await;
    let first = backend.scan(Position(2), b"", b"", 5).await.unwrap();
    assert!(first.entries.is_empty());
    let second = backend.scan(Position(2), &first.next.unwrap(), b"", 5).await.unwrap();
    assert_eq!(second.entries.len(), 1);
    assert_eq!(second.next, None);
}
