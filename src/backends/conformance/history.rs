//! [`History`]: random checkpoints, compared with the [`Model`] after each step.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Model;
use super::fixture::{clear, collect, is_unreadable, stamp};
use crate::backends::{Backend, Change};
use crate::types::{KeyVersion, Position, Slice, Stamp};

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
    /// Where the history begins that is kept beside, for every second seed.
    begins: Option<Position>,
}

impl History {
    /// A history for an empty backend.
    pub fn new(seed: u64) -> History {
        let rng = StdRng::seed_from_u64(seed);
        let begins = seed.is_multiple_of(2).then_some(Position::ZERO);
        History { seed, rng, model: Model::default(), current: 0, retained: BTreeSet::new(), begins }
    }

    /// One random step, and a look at a few keys and one page afterwards.
    ///
    /// # Panics
    ///
    /// When the backend breaks the contract.
    pub async fn step(&mut self, backend: &dyn Backend) {
        match self.rng.random_range(0..10) {
            0..6 => self.write(backend).await,
            6 => self.let_go(backend).await,
            _ => self.maintain(backend).await,
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
        if self.begins.is_some() {
            // What is named besides was readable all along; what the history gives up now stays readable if named.
            let begun = self.begins;
            if self.rng.random_bool(0.3) {
                self.begins = begun.map(|begun| Position(self.rng.random_range(begun.0..=self.current)));
            }
            let in_history = |position: &&Position| begun.is_some_and(|begun| **position >= begun);
            self.retained.extend(named.iter().filter(in_history));
        } else if self.rng.random_bool(0.5) {
            // A checkpoint may leave out what no readable position will see.
            keys.values_mut().for_each(|versions| self.leave_out_unseen(versions, &kept));
        }
        let changes: Vec<Change> = ranges.into_iter().chain(keys.into_values().flatten()).collect();
        let written = backend.write(&self.stamp(), &named, Box::new(changes.into_iter().map(Ok))).await;
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

    fn stamp(&self) -> Stamp {
        Stamp { history: self.begins, ..stamp(self.current) }
    }

    async fn let_go(&mut self, backend: &dyn Backend) {
        let mut kept = self.readable();
        kept.retain(|_| self.rng.random_bool(0.6));
        self.retained = kept;
        self.maintain(backend).await;
    }

    async fn maintain(&self, backend: &dyn Backend) {
        let named: Vec<Position> = self.retained.iter().copied().collect();
        backend.maintain(Position(self.current), &named).await.expect("maintenance works");
    }

    fn readable(&self) -> BTreeSet<Position> {
        let history = self.begins.map_or(self.current..self.current, |begins| begins.0..self.current).map(Position);
        self.retained.iter().copied().chain([Position(self.current)]).chain(history).collect()
    }

    /// Every version that the history sees, as the model has it.
    async fn check_versions(&self, backend: &dyn Backend, from: &Slice, to: &Slice, limit: usize) {
        let Some(begins) = self.begins.filter(|_| self.current > 0) else {
            return assert!(is_unreadable(backend.versions(from, Position::MAX, to, limit).await));
        };
        let mut found: Vec<KeyVersion> = Vec::new();
        let (mut next, mut below) = (from.clone(), Position::MAX);
        loop {
            let page = backend.versions(&next, below, to, limit).await.expect("the history is readable");
            assert!(page.versions.len() <= limit, "a page above its limit");
            found.extend(page.versions);
            let Some(go_on) = page.next else { break };
            (next, below) = go_on;
        }
        let order = |version: &KeyVersion| (version.encoded_key.clone(), std::cmp::Reverse(version.version));
        assert!(
            found.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])),
            "seed {}: versions in order",
            self.seed
        );
        let inside = |key: &Slice| key >= from && (to.is_empty() || key < to);
        let keys: BTreeSet<Slice> = found.iter().map(|version| version.encoded_key.clone()).collect();
        assert!(keys.iter().all(inside), "seed {}", self.seed);
        for key in self.model.keys().into_iter().filter(|key| inside(key)) {
            let own = found.iter().filter(|version| version.encoded_key == key);
            let mut own: BTreeMap<Position, Option<Slice>> =
                own.map(|version| (version.version, version.value.clone())).collect();
            for at in (begins.0..=self.current).map(Position) {
                let seen = own.range(..=at).next_back().and_then(|(version, value)| Some((*version, value.clone()?)));
                assert_eq!(seen, self.model.get(at, &key), "seed {} at {at} key {key:?} of {own:?}", self.seed);
            }
            // Nothing that never was: what the model does not have as a version is a delete by range.
            own.retain(|version, value| value.is_some() && self.model.get(*version, &key).is_none());
            assert!(own.is_empty(), "seed {} key {key:?}: {own:?}", self.seed);
        }
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
        self.check_versions(backend, &from, &to, limit).await;
    }

    /// Goes on with a backend that was closed and opened: everything is there, and what is retained is
    /// said again, as a store does that opens.
    ///
    /// # Panics
    ///
    /// When the backend breaks the contract.
    pub async fn reopened(&self, backend: &dyn Backend) {
        self.maintain(backend).await;
        self.check_all(backend).await;
    }

    /// Compares everything at every readable position.
    ///
    /// # Panics
    ///
    /// When the backend breaks the contract.
    pub async fn check_all(&self, backend: &dyn Backend) {
        if self.current > 0 {
            assert_eq!(backend.stamp().await.expect("sound"), Some(self.stamp()), "seed {}", self.seed);
        }
        for at in self.readable() {
            let found = collect(backend, at.0, b"", b"", 100).await;
            assert_eq!(found, self.model.live(at), "seed {} at {at}", self.seed);
        }
        self.check_versions(backend, &Slice::from(&b""[..]), &Slice::from(&b""[..]), 50).await;
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
