//! [`Bed`]: the directory, the sizes and the list of figures of one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::figure::Figure;
use super::sample::Noise;
use super::scale::Scale;
use crate::store::{Settings, Store};
use crate::types::{Error, ErrorKind, Result};

/// What every group of figures works with.
pub(super) struct Bed<'a> {
    /// Removed when the run ends.
    dir: PathBuf,
    pub scale: Scale,
    pub noise: Noise,
    only: Option<String>,
    report: &'a mut dyn FnMut(&Figure) -> Result<()>,
    figures: Vec<Figure>,
}

impl<'a> Bed<'a> {
    /// Makes a directory of its own in `parent`.
    pub fn new(
        parent: &Path,
        scale: Scale,
        only: Option<String>,
        report: &'a mut dyn FnMut(&Figure) -> Result<()>,
    ) -> Result<Bed<'a>> {
        let dir = parent.join(format!("lakelog-bench-{}", std::process::id()));
        fs::create_dir_all(parent).and_then(|()| fs::create_dir(&dir)).map_err(io("make a directory", &dir))?;
        Ok(Bed { dir, scale, noise: Noise::seeded(), only, report, figures: Vec::new() })
    }

    /// Whether the figure of this name is asked for: by its name, or by the first words of it.
    pub fn wants(&self, name: &str) -> bool {
        self.only
            .as_deref()
            .is_none_or(|only| name.strip_prefix(only).is_some_and(|rest| rest.is_empty() || rest.starts_with("-")))
    }

    /// Whether only figures with this word in their names are asked for.
    pub fn asks_for(&self, word: &str) -> bool {
        self.only.as_deref().is_some_and(|only| only.split('-').any(|part| part == word))
    }

    /// Whether one of these figures is asked for.
    pub fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Keeps a figure that is asked for, and reports it.
    pub fn figure(&mut self, figure: Figure) -> Result<()> {
        if self.wants(&figure.name) {
            (self.report)(&figure)?;
            self.figures.push(figure);
        }
        Ok(())
    }

    /// All figures so far.
    pub fn figures(mut self) -> Vec<Figure> {
        std::mem::take(&mut self.figures)
    }

    /// A place in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new store, with everything in memory and no checkpoint but those asked for.
    pub async fn store(&self, name: &str) -> Result<Store> {
        Store::builder(self.path(name)).settings(self.in_memory()).create().await
    }

    /// Settings that keep everything in memory.
    pub fn in_memory(&self) -> Settings {
        Settings {
            memtable_soft_bytes: usize::MAX / 2,
            memtable_hard_bytes: usize::MAX / 2,
            checkpoint_log_bytes: u64::MAX,
            ..self.settings()
        }
    }

    /// The defaults, at this scale.
    pub fn settings(&self) -> Settings {
        Settings { segment_bytes: self.scale.segment_bytes, ..Settings::default() }
    }

    /// Closes a store and removes it.
    pub async fn finish(&self, store: Store, name: &str) -> Result<()> {
        store.close().await?;
        let dir = self.path(name);
        fs::remove_dir_all(&dir).map_err(io("remove a store", &dir))
    }

    /// Runs the sides in turn, round after round, and gives what each measured in each round.
    pub async fn in_turn<const N: usize>(&self, sides: [Side<'_>; N]) -> Result<[Rounds; N]> {
        let mut measured = [const { Vec::new() }; N];
        for round in 0..=self.scale.rounds {
            for (side, measured) in sides.iter().zip(&mut measured) {
                let value = side().await?;
                // The first round warms caches, files and threads.
                if round > 0 {
                    measured.push(value);
                }
            }
        }
        Ok(measured)
    }
}

/// What one side measured, round by round.
pub(super) type Rounds = Vec<f64>;

/// One of the things that are measured in turn.
pub(super) type Side<'a> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<f64>> + 'a>> + 'a>;

/// A side from what it does.
pub(super) fn side<'a, F: Future<Output = Result<f64>> + 'a>(work: impl Fn() -> F + 'a) -> Side<'a> {
    Box::new(move || Box::pin(work()))
}

impl Drop for Bed<'_> {
    fn drop(&mut self) {
        // What cannot be removed is left to be seen; no figure is wrong because of it.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// How many a second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

/// Repeats `work`, which says how much it did, for `time`; gives how much was done a second.
pub(super) async fn repeated(time: Duration, mut work: impl AsyncFnMut() -> Result<u64>) -> Result<f64> {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < time || done == 0 {
        done += work().await?;
    }
    Ok(per_second(done, started.elapsed()))
}

/// A failed access to a file of the bench itself.
pub(super) fn io(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let message = format!("cannot {action}, path=`{}`", path.display());
    move |error| Error::new(ErrorKind::Unavailable, message).with_source(error)
}

/// A thread or task of the bench panicked.
pub(super) fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "a part of the bench panicked")
}
