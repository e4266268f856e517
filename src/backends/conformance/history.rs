//! [`History`]: random checkpoints, compared with the [`Model`] after each step.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Model;
use super::fixture::{clear, collect, is_unreadable, stamp};
use crate::backends::{Backend, Change};
use crate::types::{Position, Slice};

/// Steps of a random history from a seed, compared with the model in every step.
///
/// # Panics
///
/// When the backend breaks the contract; the message names the seed.
pub async fn compare_with_model(backend: &dyn Backend, seed: u64, steps: usize) {
    clear(backend).await;
    let mut history = History::new(seed);
    for _ in 0..steps {
        history.step(backend).await;
    }
    history.check_all(backend).await;
}

/// A seeded history of writes with kept positions, range deletes, retention and maintenance, over
/// few keys with common prefixes so that everything meets everything.
#[derive(Debug)]
pub struct History {
    seed: u64,
    rng: StdRng,
    model: Model,
    current: u64,
    retained: BTreeSet<Position>,
}

impl History {
    /// A history for an empty backend.
    pub fn new(seed: u64) -> History {
        let rng = StdRng::seed_from_u64(seed);
        History { seed, rng, model: Model::default(), current: 0, retained: BTreeSet::new() }
    }

    /// One random step, and a look at a few keys and one page afterwards.
    ///
    /// # Panics
    ///
    /// When the backend breaks the contract.
    pub async fn step(&mut self, backend: &dyn Backend) {
        match self.rng.random_range(0..10) {
            0..6 => self.write(backend).await,
            6 => self.retain(backend),
            _ => {
                backend.maintain().await.expect("maintenance works");
            }
        }
        self.check_some(backend).await;
    }

    async fn write(&mut self, backend: &dyn Backend) {
        let former = self.current;
        self.current += self.rng.random_range(1..8);
        let mut ranges = Vec::new();
        let mut keys: BTreeMap<Slice, Vec<Change>> = BTreeMap::new();
        for version in (former + 1..=self.current).map(Position) {
            if self.rng.random_bool(0.15) {
                ranges.push(Change::DeleteRange { prefix: self.prefix(), version });
            }
            let count = self.rng.random_range(0..12);
            let written: BTreeSet<Slice> = (0..count).map(|_| self.key()).collect();
            for key in written {
                let value = Slice::from(vec![version.0 as u8; self.rng.random_range(0..40)]);
                let change = match self.rng.random_bool(0.3) {
                    true => Change::Delete { key: key.clone(), version },
                    false => Change::Put { key: key.clone(), version, value },
                };
                // Descending versions of one key.
                keys.entry(key).or_default().insert(0, change);
            }
        }
        ranges.iter().chain(keys.values().flatten()).for_each(|change| self.model.add(change.clone()));

        let named: Vec<Position> = (0..=self.current).map(Position).filter(|_| self.rng.random_bool(0.1)).collect();
        let (former, current) = (Position(former), Position(self.current));
        let retained = &self.retained;
        let kept = named.iter().filter(|position| **position >= former || retained.contains(position)).copied();
        let kept: Vec<Position> = kept.collect();
        if self.rng.random_bool(0.5) {
            // A checkpoint may leave out what no readable position will see.
            keys.values_mut().for_each(|versions| self.leave_out_unseen(versions, &kept));
        }
        let changes: Vec<Change> = ranges.into_iter().chain(keys.into_values().flatten()).collect();
        let written = backend.write(&stamp(self.current), &named, Box::new(changes.into_iter().map(Ok))).await;
        written.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        self.retained.extend(kept);
        self.retained.remove(&current);
        if named.contains(&current) {
            self.retained.insert(current);
        }
    }

    fn leave_out_unseen(&self, versions: &mut Vec<Change>, kept: &[Position]) {
        let mut newer = Position::MAX;
        versions.retain(|change| {
            let (Change::Put { key, version, .. } | Change::Delete { key, version }) = change else { return true };
            let hidden = self.model.covering(key).filter(|range| range > version).min().unwrap_or(Position::MAX);
            let until = newer.min(hidden);
            newer = *version;
            kept.iter().chain([&Position(self.current)]).any(|at| version <= at && *at < until)
        });
    }

    fn retain(&mut self, backend: &dyn Backend) {
        let mut kept = self.readable();
        kept.retain(|_| self.rng.random_bool(0.6));
        let named: Vec<Position> = kept.iter().copied().collect();
        backend.retain(&named);
        self.retained = kept;
    }

    fn readable(&self) -> BTreeSet<Position> {
        self.retained.iter().copied().chain([Position(self.current)]).collect()
    }

    async fn check_some(&mut self, backend: &dyn Backend) {
        let readable: Vec<Position> = self.readable().into_iter().collect();
        let at = readable[self.rng.random_range(0..readable.len())];
        for _ in 0..6 {
            let key = self.key();
            let found = backend.get(at, &key).await.expect("a readable position");
            assert_eq!(found, self.model.get(at, &key), "seed {} at {at} key {key:?}", self.seed);
        }
        let (from, to) = (self.key(), if self.rng.random_bool(0.5) { self.key() } else { Slice::from(&b""[..]) });
        let limit = self.rng.random_range(1..20);
        let found = collect(backend, at.0, &from, &to, limit).await;
        let inside = |key: &Slice| *key >= from && (to.is_empty() || *key < to);
        let expected: Vec<_> = self.model.live(at).into_iter().filter(|entry| inside(&entry.encoded_key)).collect();
        assert_eq!(found, expected, "seed {} at {at} from {from:?} to {to:?}", self.seed);
        assert!(is_unreadable(backend.get(Position(self.current + 1), b"a").await));
    }

    /// Goes on with a backend that was closed and opened: everything is there, and what is retained is
    /// said again, as a store does that opens.
    ///
    /// # Panics
    ///
    /// When the backend breaks the contract.
    pub async fn reopened(&self, backend: &dyn Backend) {
        backend.retain(&self.retained.iter().copied().collect::<Vec<_>>());
        self.check_all(backend).await;
    }

    /// Compares everything at every readable position.
    ///
    /// # Panics
    ///
    /// When the backend breaks the contract.
    pub async fn check_all(&self, backend: &dyn Backend) {
        if self.current > 0 {
            assert_eq!(backend.stamp().await.expect("sound"), Some(stamp(self.current)), "seed {}", self.seed);
        }
        for at in self.readable() {
            let found = collect(backend, at.0, b"", b"", 100).await;
            assert_eq!(found, self.model.live(at), "seed {} at {at}", self.seed);
        }
    }

    fn key(&mut self) -> Slice {
        self.word(1, 4)
    }

    fn prefix(&mut self) -> Slice {
        self.word(0, 3)
    }

    fn word(&mut self, min: usize, max: usize) -> Slice {
        let len = self.rng.random_range(min..=max);
        let letters = [0x00, b'a', b'b', 0xff];
        Slice::from((0..len).map(|_| letters[self.rng.random_range(0..letters.len())]).collect::<Vec<u8>>())
    }
}
