//! The scrub: sealed segments and snapshots read again in the background, so that damage is found while there are still copies to repair from.
//!
//! Steps of [`PIECE_BYTES`] with pauses between; a thread of its own calls them, or a simulation. Never touches what a commit waits for,
//! and damage stops nothing: it is logged, counted and reported. How far it came and what it found is kept in a small file beside the log,
//! so that neither restarts nor short lives of the process begin it anew; that file is worth nothing else, and any doubt about it is an
//! empty one.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};

use super::engine::Shared;
use crate::env::{Env, FileExt as _, OpenMode};
use crate::log::{LogError, Problem, Scrubbed, Scrubber, SegmentId};
use crate::types::Timestamp;

/// The report's file in the store's directory.
const REPORT_FILE: &str = "scrub.json";
const REPORT_BYTES_MAX: u64 = 1 << 20;
/// Damaged segments that are named.
const DAMAGE_MAX: usize = 100;
/// Read at once.
const PIECE_BYTES: u64 = 256 << 10;
/// After an open: whoever only wants to write something is not to be disturbed.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(60);
/// The longest time until the clock is looked at again, and the wait after a failure.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What the scrub did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubReport {
    /// Passes that came to their end.
    pub passes: u64,
    /// When the pass under way, or the last one, began; microseconds since 1970.
    pub began: Option<i64>,
    /// When the last pass ended; microseconds since 1970.
    pub ended: Option<i64>,
    /// Bytes read in the pass under way, or the last one.
    pub bytes: u64,
    /// Bytes of that pass in all.
    pub bytes_total: u64,
    /// The segment where the pass under way goes on; none between passes.
    pub next_segment: Option<u64>,
    /// Files that were damaged when they were last read, at most 100 of them.
    pub damage: Vec<ScrubDamage>,
}

/// A damaged segment or snapshot. What else is wrong with it, `lakelog verify` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubDamage {
    /// The file.
    pub file: String,
    /// The pass that found it, counted from 0.
    pub pass: u64,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The first and last position concerned, as far as known.
    pub positions: (u64, u64),
    /// What is wrong.
    pub detail: String,
    /// When it was found; microseconds since 1970.
    pub found: i64,
}

impl ScrubReport {
    /// The report of the store in `dir`; an empty one when there is none or it cannot be read.
    pub(crate) fn load(env: &Env, dir: &Path) -> ScrubReport {
        let read = || -> io::Result<Vec<u8>> {
            let file = env.fs.open(&dir.join(REPORT_FILE), OpenMode::Read)?;
            let mut bytes = vec![0; file.len()?.min(REPORT_BYTES_MAX) as usize];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        read().ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn store(&self, env: &Env, dir: &Path) -> io::Result<()> {
        let (path, making) = (dir.join(REPORT_FILE), dir.join(format!("{REPORT_FILE}.new")));
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        match env.fs.remove_file(&making) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        env.fs.open(&making, OpenMode::CreateNew)?.write_all_at(&bytes, 0)?;
        env.fs.rename(&making, &path)
    }

    fn judge(&mut self, file: &Path, damage: Option<Problem>, now: Timestamp) {
        let name = file.display().to_string();
        self.damage.retain(|known| known.file != name);
        if let Some(Problem { path, offset, first, last, detail }) = damage
            && self.damage.len() < DAMAGE_MAX
        {
            let (file, positions) = (path.display().to_string(), (first.0, last.0));
            let pass = self.passes;
            self.damage.push(ScrubDamage { file, pass, offset, positions, detail, found: now.0 });
        }
    }
}

/// The scrub of an open store.
pub(crate) struct Scrub {
    shared: Arc<Shared>,
    pass: Option<Scrubber>,
}

impl Scrub {
    pub fn new(shared: Arc<Shared>) -> Scrub {
        Scrub { shared, pass: None }
    }

    /// Does a piece, and says how long to wait before the next one.
    pub fn step(&mut self) -> Duration {
        let done = match &mut self.pass {
            Some(_) => self.read(),
            None => self.begin(),
        };
        done.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the scrub failed; it is tried again");
            self.pass = None;
            WAIT_MAX
        })
    }

    /// Begins a pass when one is due, or goes on with one that a former process began.
    fn begin(&mut self) -> Result<Duration, LogError> {
        let shared = &self.shared;
        let now = shared.env.clock.now();
        let mut report = shared.scrub.lock();
        let interval = Duration::from_secs(u64::from(shared.settings.scrub_interval_hours) * 3600);
        if report.next_segment.is_none()
            && let Some(ended) = report.ended
            // A clock that went back must not put it off for ever.
            && let Ok(since) = u64::try_from(now.0.saturating_sub(ended))
            && let Some(wait) = interval.checked_sub(Duration::from_micros(since)).filter(|wait| !wait.is_zero())
        {
            return Ok(wait.min(WAIT_MAX));
        }
        let from = report.next_segment.unwrap_or(0);
        let pass = Scrubber::begin(&shared.env, &shared.log_dir, SegmentId(from))?;
        if report.next_segment.is_none() {
            (report.began, report.bytes) = (Some(now.0), 0);
        }
        report.bytes_total = report.bytes + pass.bytes();
        report.next_segment = Some(from);
        drop(report);
        tracing::debug!(bytes = pass.bytes(), from, "scrub begun");
        self.pass = Some(pass);
        Ok(Duration::ZERO)
    }

    fn read(&mut self) -> Result<Duration, LogError> {
        let Some(pass) = &mut self.pass else { return Ok(Duration::ZERO) };
        let shared = &self.shared;
        let now = shared.env.clock.now();
        let bytes = match pass.step(PIECE_BYTES)? {
            Scrubbed::Part(bytes) => {
                shared.scrub.lock().bytes += bytes;
                bytes
            }
            Scrubbed::File { id, path, bytes, damage } => {
                if let Some(problem) = &damage {
                    tracing::error!(%problem, file = %path.display(), "the scrub found damage; run `lakelog verify`");
                    counter!("lakelog_scrub_damage_total").increment(1);
                }
                let report = {
                    let mut report = shared.scrub.lock();
                    report.bytes += bytes;
                    if let Some(id) = id {
                        report.next_segment = Some(id.next().0);
                    }
                    report.judge(&path, damage, now);
                    report.clone()
                };
                self.keep(&report);
                bytes
            }
            Scrubbed::Ended => {
                self.pass = None;
                let report = {
                    let mut report = shared.scrub.lock();
                    // What was not read in this pass is not there any more.
                    let pass = report.passes;
                    report.damage.retain(|known| known.pass == pass);
                    report.passes += 1;
                    (report.ended, report.next_segment) = (Some(now.0), None);
                    report.clone()
                };
                counter!("lakelog_scrub_passes_total").increment(1);
                tracing::info!(bytes = report.bytes, damaged = report.damage.len(), "scrub ended");
                self.keep(&report);
                return Ok(Duration::ZERO);
            }
        };
        counter!("lakelog_scrub_bytes_total").increment(bytes);
        let rate = shared.settings.scrub_bytes_per_second.max(1);
        Ok(Duration::from_micros(bytes.saturating_mul(1_000_000) / rate))
    }

    /// Losing the file costs reading some segments twice.
    fn keep(&self, report: &ScrubReport) {
        gauge!("lakelog_scrub_damaged_segments").set(report.damage.len() as f64);
        let shared = &self.shared;
        let Some(dir) = shared.log_dir.parent() else { return };
        if let Err(error) = report.store(&shared.env, dir) {
            tracing::debug!(error = &error as &dyn std::error::Error, "the scrub's report could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::backends::MemoryBackend;
    use crate::env::sim::SimWorld;
    use crate::log::Snapshot;
    use crate::store::simulation::Stepped;
    use crate::store::{Batch, Settings};
    use crate::types::{Digest, Position};

    const HOUR: i64 = 3_600_000_000;

    struct World {
        world: SimWorld,
        base: MemoryBackend,
    }

    impl World {
        /// Some sealed segments.
        fn filled() -> World {
            let world = World { world: SimWorld::new(1), base: MemoryBackend::new() };
            world.world.clock.set(Timestamp(1_000 * HOUR));
            let mut store = world.open();
            for number in 0..20_u8 {
                store.write("a", Batch::new().set(b"p", &[number + 1], &[number; 15_000])).unwrap();
            }
            world
        }

        fn open(&self) -> Stepped {
            let settings = Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), ..Settings::default() };
            Stepped::open(&self.world, &self.base, &settings).unwrap()
        }

        fn segment(&self, number: u64) -> PathBuf {
            SegmentId(number).path(0, Path::new("/store/log"))
        }

        fn flip(&self, number: u64) {
            let path = self.segment(number);
            let mut content = self.world.fs.content(&path).unwrap();
            content[20_000] ^= 1;
            self.world.fs.plant(&path, content);
        }
    }

    /// Steps until the scrub wants to wait for the next pass.
    fn pass(scrub: &mut Scrub) -> ScrubReport {
        for _ in 0..1_000 {
            if scrub.step() >= WAIT_MAX {
                return scrub.shared.scrub.lock().clone();
            }
        }
        panic!("a pass without end");
    }

    #[test]
    fn passes_read_all_sealed_segments_and_come_again_after_the_interval() {
        let world = World::filled();
        let store = world.open();
        let mut scrub = Scrub::new(store.store.shared().clone());
        let report = pass(&mut scrub);
        assert_eq!((report.passes, report.damage.len(), report.next_segment), (1, 0, None));
        // All but the active segment; headers are not counted as frames, but stand before them.
        assert!(report.bytes > 200_000 && report.bytes_total > report.bytes, "{report:?}");
        world.world.clock.advance(167 * HOUR);
        assert_eq!(pass(&mut scrub).passes, 1);
        world.world.clock.advance(HOUR);
        assert_eq!(pass(&mut scrub).passes, 2);
        // A clock that went back is no reason to wait longer.
        world.world.clock.advance(-900 * HOUR);
        assert_eq!(pass(&mut scrub).passes, 3);
    }

    #[test]
    fn the_rate_is_kept_in_small_pieces() {
        let world = World::filled();
        let store = world.open();
        let mut scrub = Scrub::new(store.store.shared().clone());
        let (mut waited, mut longest) = (Duration::ZERO, Duration::ZERO);
        loop {
            let wait = scrub.step();
            if wait >= WAIT_MAX {
                break;
            }
            (waited, longest) = (waited + wait, longest.max(wait));
        }
        let report = scrub.shared.scrub.lock().clone();
        let due = Duration::from_micros(report.bytes * 1_000_000 / (8 << 20));
        assert!(waited <= due && waited + Duration::from_micros(50) > due, "{waited:?} {due:?}");
        assert!(longest < Duration::from_millis(40), "{longest:?}");
    }

    #[test]
    fn fault_13_18_damage_is_reported_kept_and_forgotten_once_it_is_repaired() {
        let world = World::filled();
        let sound = world.world.fs.content(&world.segment(2)).unwrap();
        let mut store = world.open();
        world.flip(2);
        world.world.fs.take_away(&world.segment(4));
        let mut scrub = Scrub::new(store.store.shared().clone());
        let report = pass(&mut scrub);
        let files: Vec<&str> = report.damage.iter().map(|damage| damage.file.as_str()).collect();
        let (second, fourth) = (world.segment(2), world.segment(4));
        assert_eq!(files, [second.to_str().unwrap(), fourth.to_str().unwrap()], "{report:?}");
        assert!(report.damage[0].offset < 20_000 && report.damage[0].positions.0 > 1, "{report:?}");
        // The store goes on serving, and the next process knows.
        store.write("a", Batch::new().set(b"p", b"more", b"")).unwrap();
        drop((store, scrub));
        world.world.fs.plant(&world.segment(2), sound.clone());
        world.world.fs.plant(&world.segment(4), sound);
        assert_eq!(ScrubReport::load(&world.world.env(), Path::new("/store")), report);
        world.world.fs.kill();
        world.world.fs.plant(Path::new("/store/scrub.json"), b"{ nonsense".to_vec());
        assert_eq!(ScrubReport::load(&world.world.env(), Path::new("/store")), ScrubReport::default());
    }

    #[test]
    fn a_pass_goes_on_where_the_last_process_left_it() {
        let world = World::filled();
        let store = world.open();
        let mut scrub = Scrub::new(store.store.shared().clone());
        while scrub.shared.scrub.lock().next_segment.is_none_or(|next| next < 3) {
            scrub.step();
        }
        let before = scrub.shared.scrub.lock().clone();
        drop((store, scrub));
        world.world.fs.kill();
        // What was read before is not read again: it is damaged meanwhile, and nobody notices in this pass.
        let store = world.open();
        world.flip(1);
        let mut scrub = Scrub::new(store.store.shared().clone());
        let report = pass(&mut scrub);
        assert_eq!((report.passes, report.damage.len(), report.began), (1, 0, before.began));
        world.world.clock.advance(169 * HOUR);
        assert_eq!(pass(&mut scrub).damage.len(), 1);
    }

    #[test]
    fn a_segment_that_is_trimmed_under_the_scrub_is_no_damage() {
        let world = World::filled();
        let store = world.open();
        let mut scrub = Scrub::new(store.store.shared().clone());
        scrub.step();
        let log = &store.store.shared().log;
        let (head, digest) = (log.head_at(Position(12)).unwrap(), Digest::of_bytes(b"state"));
        let snapshot = Snapshot { head, bytes: 5, digest };
        world.world.fs.plant(&snapshot.path(Path::new("/store/log")), b"state".to_vec());
        log.trim(snapshot, Position(12)).unwrap();
        let report = pass(&mut scrub);
        assert_eq!((report.passes, report.damage.len()), (1, 0), "{report:?}");
        // The next pass reads the snapshot too, and finds damage in it.
        world.world.clock.advance(169 * HOUR);
        assert_eq!(pass(&mut scrub).damage.len(), 0);
        world.world.fs.plant(&snapshot.path(Path::new("/store/log")), b"stale".to_vec());
        world.world.clock.advance(169 * HOUR);
        let report = pass(&mut scrub);
        assert_eq!((report.passes, report.damage.len()), (3, 1), "{report:?}");
        assert!(report.damage[0].detail.contains("SHA-256"), "{report:?}");
        world.world.fs.take_away(&snapshot.path(Path::new("/store/log")));
        world.world.clock.advance(169 * HOUR);
        assert!(pass(&mut scrub).damage[0].detail.contains("missing"));
    }

    #[test]
    fn what_fails_is_tried_again() {
        let world = World::filled();
        let store = world.open();
        let mut scrub = Scrub::new(store.store.shared().clone());
        let manifests = ["manifest.0", "manifest.1"].map(|name| {
            let path = Path::new("/store/log").join(name);
            (world.world.fs.content(&path).unwrap(), path)
        });
        manifests.iter().for_each(|(_, path)| world.world.fs.take_away(path));
        assert_eq!(scrub.step(), WAIT_MAX);
        manifests.into_iter().for_each(|(content, path)| world.world.fs.plant(&path, content));
        assert_eq!(pass(&mut scrub).passes, 1);
    }
}
