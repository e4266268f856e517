//! The four invariants, asserted of what a run has left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::Stepped;
use super::base::SimBase;
use super::calls::{Answer, Place, caller, chores, observe};
use super::model::{Asked, address, text};
use super::run::Run;
use super::schedule::{Call, Change, Kind, pairs};
use crate::dump::DumpSource;
use crate::env::Fs as _;
use crate::env::sim::SimWorld;
use crate::log::{Check, LogFiles, verify_archive};
use crate::store::{ScanOptions, Store};
use crate::types::{ErrorKind, Position, Result};

/// How many positions are read at when not all are.
const SAMPLE: usize = 6;

impl Run {
    /// Opens what is left on a sound disk and asserts the invariants: at every position, or at some of them.
    pub fn check(&mut self, all: bool) {
        self.heal();
        self.finish_move();
        let base = self.base.clone();
        let mut stepped = self.open_with(base);
        self.settle(&stepped);
        self.do_chores(&mut stepped);
        self.compare_states(&mut stepped, all);
        self.compare_index(&mut stepped);
        self.goes_on(&mut stepped);
        let live = everything(&mut stepped);
        self.compare_states(&mut stepped, false);
        drop(stepped);
        self.assert_erased();
        self.world.fs.kill();

        let mut rebuilt = self.open_with(SimBase::default());
        self.settle(&rebuilt);
        self.do_chores(&mut rebuilt);
        assert_eq!(everything(&mut rebuilt), live, "rebuilt from zero equals live");
        self.compare_states(&mut rebuilt, all);
        drop(rebuilt);
        self.world.fs.kill();
        self.check_archive();
        if all {
            self.check_dump();
        }
    }

    fn open_with(&self, base: SimBase) -> Stepped {
        let opened = Stepped::open_in(&self.dir, &self.world, Arc::new(base), &self.settings);
        opened.expect("nothing that happened is damage")
    }

    /// A restore that was interrupted is completed by the same again.
    fn finish_move(&mut self) {
        if let (Some(dir), Some(dump)) = (self.moving.clone(), self.dump.clone()) {
            self.restore(dump, dir).expect("the same again completes a restore");
            self.world.fs.kill();
        }
    }

    fn do_chores(&mut self, stepped: &mut Stepped) {
        let store = stepped.store.clone();
        stepped.one(async move { chores(&store).await }).unwrap();
        self.learn(stepped);
    }

    fn compare_states(&self, stepped: &mut Stepped, all: bool) {
        let (floor, head) = (stepped.store.shared().log.floor(), stepped.store.head());
        let mut positions: Vec<Position> = (floor.0..=head.0).map(Position).collect();
        if !all {
            positions.shuffle(&mut StdRng::seed_from_u64(head.0));
            positions.truncate(SAMPLE);
            positions.extend([floor, head]);
        }
        for position in positions {
            let store = stepped.store.clone();
            let observed = stepped.one(async move { observe(&store.at(position).await.unwrap()).await });
            self.compare(&observed, true, floor);
            self.compare_scan(stepped, position);
        }
        if floor > Position::ZERO {
            let store = stepped.store.clone();
            let below = stepped.one(async move { store.at(floor.previous()).await.map(drop) });
            assert_eq!(below.unwrap_err().kind(), ErrorKind::NotFound, "below the floor");
        }
    }

    /// A scan gives the same as the reads one by one, and ends where it meets what was redacted.
    fn compare_scan(&self, stepped: &mut Stepped, position: Position) {
        let state = self.history.at(position);
        let store = stepped.store.clone();
        let found: Result<Vec<(Vec<u8>, Bytes)>> = stepped.one(async move {
            let reader = store.at(position).await?;
            let mut entries = reader.scan(ScanOptions::new(b"auth"))?;
            let mut found = Vec::new();
            while let Some(entry) = entries.next().await {
                let entry = entry?;
                found.push((entry.key().to_vec(), Bytes::copy_from_slice(&entry.value)));
            }
            Ok(found)
        });
        let inside = || state.iter().filter(|((partition, _), _)| partition == b"auth");
        match found {
            Ok(found) => {
                let expected = inside().map(|((_, key), value)| (key.clone(), value.bytes.clone()));
                assert_eq!(found, expected.collect::<Vec<_>>(), "scan at {position}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "scan at {position}: {error}");
                assert!(inside().any(|(_, value)| value.erased), "scan at {position}: {error}");
            }
        }
    }

    fn compare_index(&self, stepped: &mut Stepped) {
        let head = stepped.store.head();
        for number in 0..5 {
            let store = stepped.store.clone();
            let found = stepped.one(async move { store.users_by_email(&address(number)).await });
            assert_eq!(found.unwrap(), self.history.users(head, number), "users with {number}");
        }
    }

    /// It goes on, and what it says next is true as well.
    fn goes_on(&mut self, stepped: &mut Stepped) {
        let head = stepped.store.head();
        let pair = pairs().nth(self.askings.len() % 15).expect("there are fifteen");
        let change = Change { sets: vec![(pair, Kind { address: 1, bytes: 0 })], ..Change::default() };
        let (actor, asked) = (format!("t{}", self.askings.len()), Asked::Change(change.clone()));
        self.ask(actor.clone(), asked.clone());
        let caller = caller(&stepped.store, &self.place(), actor, asked, Call::Write(change));
        for answer in stepped.drive(vec![caller]) {
            match &answer {
                Answer::Committed(_, done) => assert_eq!(done.as_ref().ok(), Some(&head.next()), "{done:?}"),
                _ => panic!("a write is answered as one"),
            }
            self.note(answer);
        }
        stepped.checkpoint().unwrap();
        self.learn(stepped);
        assert_eq!(self.history.head(), head.next());
    }

    /// What was redacted stands in no file any more.
    fn assert_erased(&self) {
        if self.erased.is_empty() {
            return;
        }
        let Place { log, archive, .. } = self.place();
        for dir in [Some(log), archive].into_iter().flatten() {
            let names = self.world.fs.read_dir(&dir).unwrap_or_default();
            // What recovery cut was never acknowledged, and is kept as evidence.
            for name in names.iter().filter(|name| !name.starts_with("cut-")) {
                let content = self.world.fs.content(&dir.join(name)).unwrap_or_default();
                let starts = content.iter().enumerate().filter(|(_, byte)| **byte == b'<').map(|(at, _)| at);
                for start in starts {
                    let found = self.erased.iter().find(|value| content[start..].starts_with(text(value)));
                    assert_eq!(found.map(|value| text(value).escape_ascii().to_string()), None, "in {name}");
                }
            }
        }
    }

    /// Archive and log have every transaction between them, or from where the archive begins.
    fn check_archive(&self) {
        let Place { env, log, archive } = self.place();
        let Some(archive) = archive.filter(|archive| self.world.env().fs.exists(archive).unwrap()) else { return };
        let moved = self.dir != super::DIR;
        match verify_archive(&env, &log, &archive) {
            Ok(problems) => assert_eq!(problems, [], "in the archive"),
            // Nothing was archived yet.
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
        if let Ok(files) = LogFiles::open_with_archive(&env, &log, &archive) {
            let frames = files.frames(files.floor().position.next(), Check::Chain).unwrap();
            for frame in frames {
                let frame = frame.unwrap();
                assert_eq!(self.history.chain(frame.position), Some(frame.chain), "moved {moved}");
            }
        }
    }

    /// The last dump that was taken, restored elsewhere, is what was there.
    fn check_dump(&self) {
        let Some(dump) = self.dump.clone() else { return };
        let world = SimWorld::new(1);
        let source = DumpSource::Stream { name: "dump".into(), input: Box::new(std::io::Cursor::new(dump)) };
        let builder = Store::builder(Path::new("/copy")).settings(self.settings.clone()).with_env(world.env());
        builder.restore(vec![source], false, &mut |_, _| {}).unwrap();
        let mut stepped = Stepped::open_in("/copy", &world, Arc::new(SimBase::default()), &self.settings).unwrap();
        let head = stepped.store.head();
        let store = stepped.store.clone();
        let observed = stepped.one(async move { observe(&store.at(head).await.unwrap()).await });
        // It may be older than a redaction.
        self.compare(&observed, false, stepped.store.shared().log.floor());
    }
}

/// All entries, the store's own too.
fn everything(stepped: &mut Stepped) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let store = stepped.store.clone();
    stepped.one(async move {
        let mut entries = store.reader().scan_all(true);
        let mut found = BTreeMap::new();
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            found.insert(entry.encoded_key.to_vec(), entry.value.to_vec());
        }
        found
    })
}
