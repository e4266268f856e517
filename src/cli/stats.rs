//! `lakelog stats`: how much there is and where it stands.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::diagnostics::FileStats;
use crate::env::Env;
use crate::store::{ScrubReport, Stats};
use crate::types::{ErrorKind, Result, Timestamp};

use super::command::{AtArgs, Shell};
use super::output::{Ended, note};
use super::text::{member_name, shown};

/// Partitions that the text for people names.
const SHOWN_MAX: usize = 12;

/// Counts what is in the store. Beside a process that has it open, what only that process knows is left out
#[derive(Args, Debug)]
pub struct StatsArgs {}

#[derive(Debug, Serialize)]
struct Answer {
    log_id: String,
    format: u32,
    head: u64,
    synced: u64,
    floor: u64,
    checkpoint: Option<u64>,
    segments: u64,
    log_bytes: u64,
    bytes_per_day: Option<u64>,
    entries: Option<u64>,
    partitions: Option<BTreeMap<String, u64>>,
    memory_bytes: Option<u64>,
    scrub: Scrub,
}

/// What the background scrub did and found.
#[derive(Debug, Serialize)]
struct Scrub {
    passes: u64,
    began: Option<String>,
    ended: Option<String>,
    running: bool,
    bytes: u64,
    bytes_total: u64,
    damage: Vec<Damage>,
}

#[derive(Debug, Serialize)]
struct Damage {
    file: String,
    offset: u64,
    positions: [u64; 2],
    detail: String,
    found: String,
}

impl From<&ScrubReport> for Scrub {
    fn from(report: &ScrubReport) -> Scrub {
        let time = |micros: i64| Timestamp(micros).to_string();
        let damage = report.damage.iter().map(|damage| Damage {
            file: damage.file.clone(),
            offset: damage.offset,
            positions: [damage.positions.0, damage.positions.1],
            detail: damage.detail.clone(),
            found: time(damage.found),
        });
        Scrub {
            passes: report.passes,
            began: report.began.map(time),
            ended: report.ended.map(time),
            running: report.next_segment.is_some(),
            bytes: report.bytes,
            bytes_total: report.bytes_total,
            damage: damage.collect(),
        }
    }
}

impl fmt::Display for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.ended, self.running) {
            (_, true) => write!(f, "reading, {} of {} bytes", self.bytes, self.bytes_total)?,
            (Some(ended), false) => write!(f, "ended {ended}")?,
            (None, false) => f.write_str("never ran")?,
        }
        self.damage.iter().try_for_each(|Damage { file, offset, positions: [first, last], detail, .. }| {
            write!(f, "\n               damaged: {file} at {offset} positions {first}..={last} {detail}")
        })
    }
}

impl Answer {
    fn new(files: &FileStats, view: Option<&Stats>) -> Answer {
        let partitions = view.map(|view| &view.partitions);
        Answer {
            log_id: files.log_id.to_string(),
            format: files.format,
            head: view.map_or(files.synced, |view| view.head.max(files.synced)).0,
            synced: files.synced.0,
            floor: files.floor.0,
            checkpoint: view.map(|view| view.checkpoint.0),
            segments: files.segments,
            log_bytes: files.log_bytes,
            bytes_per_day: files.bytes_per_day,
            entries: partitions.map(|partitions| partitions.values().sum()),
            partitions: partitions
                .map(|partitions| partitions.iter().map(|(name, count)| (member_name(name), *count)).collect()),
            memory_bytes: view.map(|view| view.memory_bytes),
            scrub: Scrub::from(&files.scrub),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |figure: Option<u64>| figure.map_or("unknown".to_owned(), |figure| figure.to_string());
        writeln!(f, "log id         {}", self.log_id)?;
        writeln!(f, "format         {}", self.format)?;
        writeln!(f, "head           {}", self.head)?;
        writeln!(f, "synced         {}", self.synced)?;
        writeln!(f, "floor          {}", self.floor)?;
        writeln!(f, "checkpoint     {}", known(self.checkpoint))?;
        writeln!(f, "segments       {}", self.segments)?;
        writeln!(f, "log bytes      {}", self.log_bytes)?;
        // Within the first day it is an extrapolation that would only puzzle.
        if let Some(bytes) = self.bytes_per_day.filter(|bytes| *bytes <= self.log_bytes) {
            writeln!(f, "bytes per day  {bytes}")?;
        }
        writeln!(f, "memory bytes   {}", known(self.memory_bytes))?;
        writeln!(f, "scrub          {}", self.scrub)?;
        write!(f, "entries        {}", known(self.entries))?;
        let mut partitions: Vec<_> = self.partitions.iter().flatten().collect();
        partitions.sort_by_key(|(_, count)| Reverse(**count));
        for (partition, count) in partitions.iter().take(SHOWN_MAX) {
            write!(f, "\n{count:>14} {}", shown(partition.as_bytes()))?;
        }
        match partitions.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n               and {more} smaller partitions; --json names them"),
        }
    }
}

/// Needs the views for some figures; where the store does not open, the files give the others.
pub async fn run(_: StatsArgs, shell: &mut Shell) -> Result<Ended> {
    let view = shell.with_state(&AtArgs::default(), async |state, _| state.stats().await).await;
    let (view, why) = match view {
        Ok(stats) => (Some(stats), None),
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let files = FileStats::read(&Env::os(), &shell.dir)?;
    if let Some(error) = why {
        note(format!("without the figures that need the store open: {}", error.report()));
    }
    shell.out.answer(&Answer::new(&files, view.as_ref()))?;
    Ok(Ended::Done)
}
