//! Strict serializability, checked from the outside: each transaction writes down what it read, and what it
//! wrote down must be the state before its position, whoever it raced.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::simulation::Stepped;
use super::{Committed, Context, ScanOptions, Settings, Tx};
use crate::backends::MemoryBackend;
use crate::env::sim::SimWorld;
use crate::event::{Event, Transaction};
use crate::types::{Position, Result};

const PARTITION: &[u8] = b"p";

/// What a transaction reads and writes.
#[derive(Clone, Debug)]
struct Plan {
    key: String,
    prefix: String,
    from: String,
    limit: usize,
    deletes: Option<String>,
    deletes_range: Option<String>,
    writes: Vec<String>,
}

impl Plan {
    fn new(random: &mut StdRng) -> Plan {
        let key = |random: &mut StdRng| {
            format!("{}{}", ["a", "b"][random.random_range(0..2)], ["", "a", "b", "c"][random.random_range(0..4)])
        };
        let prefix = |random: &mut StdRng| ["", "a", "b"][random.random_range(0..3)].to_owned();
        Plan {
            key: key(random),
            prefix: prefix(random),
            from: key(random),
            limit: random.random_range(1..5),
            deletes: random.random_bool(0.3).then(|| key(random)),
            deletes_range: random.random_bool(0.1).then(|| ["a", "b"][random.random_range(0..2)].to_owned()),
            writes: (0..random.random_range(1..3)).map(|_| key(random)).collect(),
        }
    }

    async fn run(self, tx: Tx) -> Result<()> {
        let found = tx.get(PARTITION, self.key.as_bytes()).await?;
        let mut saw = format!("{:?}", found.map(|entry| entry.version.0));
        let options = ScanOptions::new(PARTITION).prefix(self.prefix.as_bytes()).from(self.from.as_bytes());
        for entry in tx.scan(options.limit(self.limit)).await? {
            write!(saw, " {}@{}", entry.key().escape_ascii(), entry.version).unwrap();
        }
        if let Some(prefix) = &self.deletes_range {
            tx.delete_range(PARTITION, prefix.as_bytes()).await?;
        }
        if let Some(key) = &self.deletes {
            tx.delete(PARTITION, key.as_bytes())?;
        }
        for key in &self.writes {
            tx.set(PARTITION, key.as_bytes(), saw.as_bytes())?;
        }
        Ok(())
    }

    /// What it must have seen in a state: keys with the positions that wrote them.
    fn sees(&self, state: &BTreeMap<Vec<u8>, Position>) -> String {
        let mut saw = format!("{:?}", state.get(self.key.as_bytes()).map(|version| version.0));
        let range =
            state.iter().filter(|(key, _)| key.starts_with(self.prefix.as_bytes()) && &key[..] >= self.from.as_bytes());
        for (key, version) in range.take(self.limit) {
            write!(saw, " {}@{version}", key.escape_ascii()).unwrap();
        }
        saw
    }
}

fn apply(state: &mut BTreeMap<Vec<u8>, Position>, position: Position, events: &[Event]) {
    for event in events {
        if let Event::DeleteRange { prefix, .. } = event {
            state.retain(|key, _| !key.starts_with(prefix));
        }
    }
    for event in events {
        match event {
            Event::Set { key, .. } => drop(state.insert(key.to_vec(), position)),
            Event::Delete { key, .. } => drop(state.remove(&key[..])),
            _ => {}
        }
    }
}

#[test]
fn fault_25_every_transaction_saw_the_state_before_its_position() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
        let (world, base) = (SimWorld::new(seed), MemoryBackend::new());
        let mut stepped = Stepped::open(&world, &base, &settings).unwrap();
        let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
        for _ in 0..20 {
            let callers = (0..random.random_range(2..9)).map(|_| {
                let (actor, plan) = (format!("t{}", plans.len()), Plan::new(&mut random));
                plans.insert(actor.clone(), plan.clone());
                let store = stepped.store.clone();
                let caller = async move { store.transact(Context::new(actor), |tx| plan.clone().run(tx)).await };
                Box::pin(caller) as std::pin::Pin<Box<dyn Future<Output = Result<Committed<()>>>>>
            });
            let callers = callers.collect();
            for done in stepped.drive(callers) {
                done.unwrap();
            }
            if random.random_bool(0.2) {
                stepped.checkpoint().unwrap();
            }
        }
        let mut state = BTreeMap::new();
        let mut passed = 0;
        for frame in stepped.store.shared().log.read(Position(1)).unwrap() {
            let frame = frame.unwrap();
            let transaction = Transaction::decode(frame.payload).unwrap();
            let expected = plans[&transaction.actor].sees(&state);
            for event in &transaction.events {
                if let Event::Set { value, .. } = event {
                    assert_eq!(value.escape_ascii().to_string(), expected, "seed {seed} position {}", frame.position);
                }
            }
            apply(&mut state, frame.position, &transaction.events);
            passed += 1;
        }
        assert_eq!(passed, plans.len(), "each is there once");
    }
}
