//! [`Pass`]: one reading of all dumps of a restore, compared with the log that is there and, when asked to, appended to it.

use super::blocks::corrupt;
use super::error::{DumpError, IoOn};
use super::format::DumpHeader;
use super::reader::{DumpItem, DumpReader};
use super::restore::{Place, Restored};
use super::snapshot::SnapshotWriter;
use super::source::DumpFile;
use crate::env::Env;
use crate::log::{Birth, FileLog, Frame, Head, Log as _, frame_room};
use crate::types::{Digest, LogId, Position};

/// Transactions are appended in batches of so many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Whether what begins after `base` can go on from `end`. What overlaps is compared when it is read.
pub(super) fn joins(name: &str, base: Head, end: Head) -> Result<(), DumpError> {
    let name = name.to_owned();
    if base.position > end.position {
        return Err(DumpError::Gap { name, begins: base, found: end });
    }
    if base.position == end.position && base != end {
        return Err(DumpError::Fork { name, dump: base, there: end });
    }
    Ok(())
}

pub(super) fn internal() -> DumpError {
    DumpError::Invalid { detail: "the dump was read without a log".to_owned() }
}

/// One pass over all dumps.
pub(super) struct Pass<'a> {
    place: &'a Place<'a>,
    /// None until the first dump has said how it begins.
    pub log: Option<FileLog>,
    /// The identity of the log when it is not that of the dumps.
    clone: Option<LogId>,
    /// Whether anything is written.
    apply: bool,
    /// How the log ended before this run.
    there: Head,
    /// The last state, in the history of the dumps and in that of the log.
    source: Option<Head>,
    own: Head,
    base: Head,
    snapshot: Option<SnapshotWriter>,
    batch: Vec<Frame>,
    batch_bytes: usize,
    /// Bytes that what is missing takes in segments.
    pub room: u64,
    appended: u64,
    read: u64,
}

impl<'a> Pass<'a> {
    pub fn new(place: &'a Place<'a>, log: Option<FileLog>, clone: Option<LogId>, apply: bool) -> Pass<'a> {
        let there = log.as_ref().map_or(Head::origin(LogId::default()), |log| log.head());
        Pass {
            place,
            log,
            clone,
            apply,
            there,
            source: None,
            own: there,
            base: there,
            snapshot: None,
            batch: Vec::new(),
            batch_bytes: 0,
            room: 0,
            appended: 0,
            read: 0,
        }
    }

    pub fn files(&mut self, files: &[DumpFile], progress: &mut dyn FnMut(u64)) -> Result<Restored, DumpError> {
        let mut all: Option<Restored> = None;
        for file in files {
            let before = self.read;
            let one = self.dump(file.reader()?, Some(file.trailer.state), &mut |done| progress(before + done))?;
            self.read += one.bytes;
            all = Some(match all {
                None => one,
                Some(all) => Restored {
                    head: one.head,
                    appended: one.appended,
                    transactions: all.transactions + one.transactions,
                    entries: all.entries + one.entries,
                    bytes: all.bytes + one.bytes,
                    ..all
                },
            });
        }
        all.ok_or_else(internal)
    }

    /// Reads one dump to its end. `state` is the digest of its state where that is known before.
    pub fn dump(
        &mut self,
        mut reader: DumpReader,
        state: Option<Digest>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Restored, DumpError> {
        let header = reader.header().clone();
        let name = reader.name().to_owned();
        match self.source {
            None => self.begin(&header, state, &name)?,
            Some(source) => joins(&name, header.base, source)?,
        }
        let mut seen = 0;
        let summary = loop {
            match reader.next()? {
                Some(DumpItem::Entry(entry)) => {
                    if let Some(snapshot) = &mut self.snapshot {
                        snapshot.entry(&entry.key, entry.version, &entry.value)?;
                    }
                }
                Some(DumpItem::Frame(frame, digest)) => {
                    self.state_ends(&header, state, &name)?;
                    self.frame(frame, &digest, &name)?;
                }
                None => match reader.summary() {
                    Some(summary) => break summary,
                    None => return Err(internal()),
                },
            }
            if reader.bytes_read() != seen {
                seen = reader.bytes_read();
                progress(seen);
            }
        };
        self.state_ends(&header, state, &name)?;
        self.flush()?;
        self.compare_end(&name)?;
        let log_id = self.log.as_ref().map_or(header.log_id, |log| log.id());
        Ok(Restored {
            log_id,
            kind: header.kind,
            base: self.base,
            head: self.own,
            transactions: summary.transactions,
            appended: self.appended,
            entries: summary.entries,
            bytes: summary.bytes,
        })
    }

    /// Compares the beginning of the first dump with the log, or makes the log.
    fn begin(&mut self, header: &DumpHeader, state: Option<Digest>, name: &str) -> Result<(), DumpError> {
        self.own = match self.clone {
            None => header.base,
            Some(id) if header.base.position == Position::ZERO => Head::origin(id),
            Some(id) => {
                let Head { position, time, .. } = header.base;
                let chain = Head::origin(id).chain.extend(position, time, &state.unwrap_or_default());
                Head { position, time, chain }
            }
        };
        self.base = self.own;
        self.source = Some(header.base);
        if let Some(log) = &self.log {
            joins(name, self.own, self.there)?;
            // What lies below the floor cannot be compared; what comes after it is.
            if self.own.position >= log.floor() {
                let there = log.head_at(self.own.position)?;
                joins(name, self.own, there)?;
            }
            return Ok(());
        }
        let place = self.place;
        let making = &place.making;
        place.env.fs.remove_dir_all(making).on("remove an earlier restore", &making.display().to_string())?;
        let id = self.clone.unwrap_or(header.log_id);
        if header.has_state() {
            let identity = (id, header.created);
            let indexes = header.indexes.clone();
            let writer = SnapshotWriter::create(place.env, &place.snapshot, identity, self.own, indexes)?;
            self.snapshot = Some(writer);
            return Ok(());
        }
        self.create(Birth { id, created: header.created, start: self.own, snapshot: None })
    }

    fn create(&mut self, birth: Birth) -> Result<(), DumpError> {
        let Place { env, lock, making, options, .. } = self.place;
        let log = FileLog::create_unseen(Env::clone(env), lock.clone(), making, options.settings.clone(), birth)?;
        self.there = log.head();
        self.log = Some(log);
        Ok(())
    }

    /// All entries of the state were read: the log can be made with them.
    fn state_ends(&mut self, header: &DumpHeader, state: Option<Digest>, name: &str) -> Result<(), DumpError> {
        let Some(snapshot) = self.snapshot.take() else { return Ok(()) };
        let (snapshot, summary) = snapshot.finish()?;
        if self.clone.is_some() && Some(summary.state) != state {
            return Err(corrupt(name, 0, header.base.position, "the state is not the one in the trailer"));
        }
        let snapshot = Some((snapshot, self.place.snapshot.clone()));
        let id = self.clone.unwrap_or(header.log_id);
        self.create(Birth { id, created: header.created, start: self.own, snapshot })
    }

    fn frame(&mut self, mut frame: Frame, digest: &Digest, name: &str) -> Result<(), DumpError> {
        let head = Head { position: frame.position, time: frame.time, chain: frame.chain };
        match self.source {
            // Where two dumps overlap.
            Some(source) if head.position <= source.position => {
                return match head.position == source.position && head != source {
                    true => Err(DumpError::Fork { name: name.to_owned(), dump: head, there: source }),
                    false => Ok(()),
                };
            }
            _ => self.source = Some(head),
        }
        if self.clone.is_some() {
            frame.chain = self.own.chain.extend(frame.position, frame.time, digest);
        }
        self.own = Head { chain: frame.chain, ..head };
        if frame.position > self.there.position {
            self.room += frame_room(frame.payload.len());
            self.appended += 1;
            if self.apply {
                self.batch_bytes += frame.payload.len() + size_of::<Frame>();
                self.batch.push(frame);
                if self.batch_bytes >= BATCH_BYTES {
                    self.flush()?;
                }
            }
        } else if frame.position == self.there.position && self.own != self.there {
            return Err(DumpError::Fork { name: name.to_owned(), dump: self.own, there: self.there });
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DumpError> {
        if let (Some(log), Some(first)) = (&self.log, self.batch.first()) {
            log.append_frames(first.position.previous(), &self.batch)?;
            self.batch.clear();
            self.batch_bytes = 0;
        }
        Ok(())
    }

    /// A dump that ends below the end of the log is a part of it, or it is not.
    fn compare_end(&self, name: &str) -> Result<(), DumpError> {
        let Some(log) = self.log.as_ref().filter(|_| self.own.position < self.there.position) else { return Ok(()) };
        let there = log.head_at(self.own.position)?;
        match there == self.own {
            true => Ok(()),
            false => Err(DumpError::Fork { name: name.to_owned(), dump: self.own, there }),
        }
    }

    /// Makes everything durable, and closes the log.
    pub fn close(self) -> Result<(), DumpError> {
        let Some(log) = self.log else { return Err(internal()) };
        log.close()?;
        Ok(())
    }
}
