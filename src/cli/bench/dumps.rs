//! Dumps and restores beside a copy of the same bytes: megabytes of the log a second, from files that were just written.
//!
//! The log is one of small transactions, whose values are noise: the most work a byte, and nothing to gain by compression but
//! in the keys.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::bed::{Bed, Side, io, per_second, side};
use super::figure::Figure;
use super::load::fill_singly;
use super::open::LOG_DIR;
use super::reads::lost;
use crate::dump::{DumpOptions, DumpSource, dump};
use crate::env::{Env, Streamed};
use crate::log::{LogFiles, SegmentEntry};
use crate::store::Store;
use crate::types::Result;

const DUMPS: [&str; 3] = ["dump", "dump-zstd", "dump-read"];
const RESTORES: [&str; 2] = ["restore", "restore-zstd"];
const UNIT: &str = "MB/s";
const BUFFER_BYTES: usize = 1 << 20;

/// Dumps and restores, as they are and compressed.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if !bed.wants_any(&DUMPS) && !bed.wants_any(&RESTORES) {
        return Ok(());
    }
    let store = bed.store("dumped").await?;
    fill_singly(&store, &bed.noise, 0..bed.scale.dumped, u64::MAX).await?;
    store.close().await?;
    let files = LogFiles::open(&Env::os(), &bed.path("dumped").join(LOG_DIR))?;
    let log = &Dumped { parts: parts(&files), bytes: files.bytes(), files };
    let [plain, packed, copied] = &["plain.dump", "packed.dump", "copy"].map(|name| bed.path(name));
    if bed.wants_any(&DUMPS) {
        let read = side(move || async move {
            log.rate(|| {
                pour(&log.parts, |bytes| {
                    black_box(bytes);
                    Ok(())
                })
            })
        });
        let sides = [
            log.copies(copied),
            read,
            log.dumps(Some(plain), false),
            log.dumps(Some(packed), true),
            log.dumps(None, false),
        ];
        let [copy, read, own, own_packed, own_read] = bed.in_turn(sides).await?;
        bed.figure(Figure::rate(DUMPS[0], &own, UNIT, &copy, 0.7).with_goal(500.0))?;
        bed.figure(Figure::rate(DUMPS[1], &own_packed, UNIT, &copy, 0.3).with_goal(200.0))?;
        bed.figure(Figure::rate(DUMPS[2], &own_read, UNIT, &read, 0.1))?;
    }
    if bed.wants_any(&RESTORES) {
        let restored = &bed.path("restored");
        for (path, compress) in [(plain, false), (packed, true)] {
            log.dump(Some(path), compress)?;
        }
        let sides = [log.copies(copied), restores(bed, log, plain, restored), restores(bed, log, packed, restored)];
        let [copy, own, own_packed] = bed.in_turn(sides).await?;
        bed.figure(Figure::rate(RESTORES[0], &own, UNIT, &copy, 0.7).with_goal(500.0))?;
        bed.figure(Figure::rate(RESTORES[1], &own_packed, UNIT, &copy, 0.3).with_goal(200.0))?;
    }
    for path in [plain, packed, copied] {
        remove(path)?;
    }
    let dir = bed.path("dumped");
    fs::remove_dir_all(&dir).map_err(io("remove a store", &dir))
}

/// The log that is dumped.
struct Dumped {
    files: LogFiles,
    /// Its segments, and how much of each is written.
    parts: Vec<(PathBuf, u64)>,
    bytes: u64,
}

impl Dumped {
    /// Megabytes of the log that `work` gets through a second.
    fn rate(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let started = Instant::now();
        work()?;
        Ok(per_second(self.bytes, started.elapsed()) / 1e6)
    }

    fn copies<'a>(&'a self, to: &'a Path) -> Side<'a> {
        side(move || async move {
            remove(to)?;
            self.rate(|| {
                let failed = || io("copy the log", to);
                let mut copy = File::create(to).map_err(failed())?;
                pour(&self.parts, |bytes| copy.write_all(bytes))?;
                copy.sync_all().map_err(failed())
            })
        })
    }

    fn dumps<'a>(&'a self, to: Option<&'a Path>, compress: bool) -> Side<'a> {
        side(move || async move {
            to.map_or(Ok(()), remove)?;
            self.rate(|| self.dump(to, compress))
        })
    }

    /// Into a synced file, or nowhere.
    fn dump(&self, to: Option<&Path>, compress: bool) -> Result<()> {
        let (env, options) = (Env::os(), DumpOptions { compress, ..DumpOptions::default() });
        let Some(to) = to else {
            dump(&env, &self.files, options, io::sink(), "bench", &mut |_, _| {})?;
            return Ok(());
        };
        let failed = || io("write a dump", to);
        let file = File::create(to).map_err(failed())?;
        let (out, _) = dump(&env, &self.files, options, Streamed::new(file), "bench", &mut |_, _| {})?;
        out.file().sync_all().map_err(failed())
    }
}

/// Into a directory that is not there, and goes again.
fn restores<'a>(bed: &Bed<'_>, log: &'a Dumped, from: &'a Path, to: &'a Path) -> Side<'a> {
    let (settings, expected) = (bed.settings(), log.files.synced());
    side(move || {
        let settings = settings.clone();
        async move {
            let rate = log.rate(|| {
                let sources = vec![DumpSource::File(from.to_owned())];
                let restored = Store::builder(to).settings(settings).restore(sources, false, &mut |_, _| {})?;
                if restored.head.position == expected { Ok(()) } else { Err(lost()) }
            });
            fs::remove_dir_all(to).map_err(io("remove a store", to))?;
            rate
        }
    })
}

/// The segments, and how much of each is written.
fn parts(files: &LogFiles) -> Vec<(PathBuf, u64)> {
    let mut left = files.bytes();
    let segments = files.segments();
    let active = segments.len().saturating_sub(1);
    let part = |(index, segment): (usize, &SegmentEntry)| {
        // How far the active one is written the manifest does not say.
        let bytes = if index < active { segment.end } else { left };
        left = left.saturating_sub(bytes);
        (segment.path(files.dir()), bytes)
    };
    segments.iter().enumerate().map(part).collect()
}

/// Reads files in order, piece by piece.
fn pour(parts: &[(PathBuf, u64)], mut piece: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    for (path, bytes) in parts {
        let mut all = || {
            let mut file = File::open(path)?.take(*bytes);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => piece(&buffer[..read])?,
                }
            }
        };
        all().map_err(io("read the log", path))?;
    }
    Ok(())
}

/// Removes a file, if there is one.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove a file", path)(error)),
        _ => Ok(()),
    }
}
