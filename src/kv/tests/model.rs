//! The contract against an ordered map: random steps, every predicate, checkpoints between.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tokio_stream::StreamExt;

use super::memory;
use crate::kv::*;

/// One step of the model test; keys and values are drawn from a few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8),
    SetIf(u8, u8, Condition),
    Delete(u8),
    Scan(u8),
    Checkpoint,
}

#[derive(Clone, Debug)]
enum Condition {
    Absent,
    Exists,
    Value(u8),
    /// The token that a key had this many tokens ago.
    Token(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let condition = prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Exists),
        (0u8..3).prop_map(Condition::Value),
        (0usize..3).prop_map(Condition::Token),
    ];
    prop_oneof![
        3 => (0u8..12, 0u8..3).prop_map(|(key, value)| Step::Set(key, value)),
        6 => (0u8..12, 0u8..3, condition).prop_map(|(key, value, condition)| Step::SetIf(key, value, condition)),
        3 => (0u8..12).prop_map(Step::Delete),
        2 => (0u8..12).prop_map(Step::Scan),
        1 => Just(Step::Checkpoint),
    ]
}

/// A key's value with a number that no other write has, and the tokens that its former entries had.
#[derive(Default)]
struct Model {
    live: BTreeMap<u8, (u8, usize)>,
    tokens: BTreeMap<u8, Vec<(KvPredicate, usize)>>,
    writes: usize,
}

impl Model {
    fn holds(&self, key: u8, condition: &Condition) -> (KvPredicate, bool) {
        let live = self.live.get(&key);
        match condition {
            Condition::Absent => (KvPredicate::Absent, live.is_none()),
            Condition::Exists => (KvPredicate::Exists, live.is_some()),
            Condition::Value(value) => {
                let bytes = Bytes::copy_from_slice(&vec![*value; usize::from(*value)]);
                (KvPredicate::Value(bytes), live.is_some_and(|(found, _)| found == value))
            }
            Condition::Token(ago) => match self.tokens.get(&key).and_then(|tokens| tokens.iter().rev().nth(*ago)) {
                Some((token, write)) => (token.clone(), live.is_some_and(|(_, found)| found == write)),
                None => (KvPredicate::Absent, live.is_none()),
            },
        }
    }

    async fn written(&mut self, kv: &Kv, key: u8, value: u8) {
        self.writes += 1;
        self.live.insert(key, (value, self.writes));
        let token = kv.get(b"p", &[key]).await.unwrap().predicate;
        self.tokens.entry(key).or_default().push((token, self.writes));
    }

    async fn step(&mut self, kv: &Kv, step: &Step) {
        // The value 0 is the empty one.
        let bytes = |value: u8| vec![value; usize::from(value)];
        match step {
            Step::Set(key, value) => {
                kv.set(b"p", &[*key], Some(&bytes(*value))).await.unwrap();
                self.written(kv, *key, *value).await;
            }
            Step::SetIf(key, value, condition) => {
                let (predicate, holds) = self.holds(*key, condition);
                match kv.set_if(b"p", &[*key], Some(&bytes(*value)), &predicate).await {
                    Ok(()) => {
                        assert!(holds, "{step:?} passed");
                        self.written(kv, *key, *value).await;
                    }
                    Err(KvError::PredicateFailed { .. }) => assert!(!holds, "{step:?} failed"),
                    Err(error) => panic!("{step:?}: {error:?}"),
                }
            }
            Step::Delete(key) => {
                kv.delete(b"p", &[*key]).await.unwrap();
                self.live.remove(key);
            }
            Step::Scan(from) => {
                let mut entries = kv.scan(b"p", KvScan { key_start: &[*from], batch_size: 2 }).await.unwrap();
                for (key, (value, _)) in self.live.range(from..) {
                    let entry = entries.next().await.unwrap().unwrap();
                    assert_eq!((entry.key().to_vec(), entry.value.to_vec()), (vec![*key], bytes(*value)));
                }
                assert!(entries.next().await.is_none());
            }
            Step::Checkpoint => {
                kv.store().checkpoint().await.unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_contract_equals_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, kv) = memory().await;
            let mut model = Model::default();
            for step in &steps {
                model.step(&kv, step).await;
            }
            model.step(&kv, &Step::Scan(0)).await;
        });
    }
}
