//! [`export`]: everything that a reader sees, into a file of either format.
//!
//! Sorted by partition, then key. Owns what the header says; the bytes are written by [`Writer`].

use std::io::{BufWriter, Write};

use super::{ExportHeader, Header, WriteError, Writer, rfc3339_seconds};
use crate::store::{BesideReader, BesideStream, EntryStream, Reader};
use crate::types::{Entry, Result, Slice, Timestamp};

const BUFFER_BYTES: usize = 256 << 10;
/// Entries between two calls of the progress.
const PROGRESS_ENTRIES: u64 = 1_000;
/// Refused entries that a report names.
const REFUSED_MAX: usize = 10_000;

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// The newline-delimited export of lakeFS 0.80: carries any bytes.
    Ndjson,
    /// The document of `lakefs kv dump` 1.84: partitions and keys must be UTF-8.
    KvDump,
}

/// What an export wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Entries written.
    pub entries: u64,
    /// Entries that the format cannot carry, in all.
    pub refused: u64,
    /// The first 10,000 of them.
    pub refusals: Vec<RefusedEntry>,
}

/// An entry that is not in the file; the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedEntry {
    /// Its partition.
    pub partition: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// Why.
    pub reason: String,
}

/// What can be exported: a state at one position, in this process or beside the one that has the store open.
pub trait ExportSource: Sync {
    /// The entry of a key.
    fn entry(&self, partition: &[u8], key: &[u8]) -> impl Future<Output = Result<Option<Entry>>> + Send;

    /// Every entry in order; of the store's own partitions only with `internal`.
    fn entries(&self, internal: bool) -> impl Future<Output = Result<ExportEntries>> + Send;
}

/// The entries of an [`ExportSource`].
#[derive(Debug)]
pub enum ExportEntries {
    /// Of a reader.
    Own(EntryStream),
    /// From another process.
    Beside(BesideStream<Entry>),
}

impl ExportEntries {
    async fn next(&mut self) -> Option<Result<Entry>> {
        match self {
            ExportEntries::Own(entries) => entries.next().await,
            ExportEntries::Beside(entries) => entries.next().await,
        }
    }
}

impl ExportSource for Reader {
    async fn entry(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        self.get(partition, key).await
    }

    async fn entries(&self, internal: bool) -> Result<ExportEntries> {
        Ok(ExportEntries::Own(self.scan_all(internal)))
    }
}

impl ExportSource for BesideReader {
    async fn entry(&self, partition: &[u8], key: &[u8]) -> Result<Option<Entry>> {
        self.get(partition, key).await
    }

    async fn entries(&self, internal: bool) -> Result<ExportEntries> {
        self.scan_all(internal).await.map(ExportEntries::Beside)
    }
}

/// Writes every entry that the reader sees; those of the store's own partitions only with `internal`.
///
/// `created` stands in the file as the time it was made. The header of a newline-delimited export
/// says what the entries themselves say: the version of lakeFS is
/// `installation_metadata/lakefs_version` of partition `auth` (empty without one), the version of
/// the schema `kv/schema/version` of `kv-internal-metadata` (0 without one), and the package `all`.
///
/// `out` is buffered here and blocks the task. `progress` is called from time to time with the entries looked at so far.
///
/// # Errors
/// `unavailable` when writing fails, those of [`Reader::scan_all`]. What was written by then is no whole file.
pub async fn export(
    reader: &impl ExportSource,
    out: impl Write + Send,
    format: ExportFormat,
    internal: bool,
    created: Timestamp,
    mut progress: impl FnMut(u64),
) -> Result<ExportReport> {
    let created_at = rfc3339_seconds(created);
    let header = match format {
        ExportFormat::KvDump => Header::Dump { timestamp: created_at },
        ExportFormat::Ndjson => Header::Export(ExportHeader {
            lakefs_version: text(reader, b"auth", b"installation_metadata/lakefs_version").await?.unwrap_or_default(),
            package_name: "all".to_owned(),
            schema_version: schema_version(reader).await?,
            created_at,
        }),
    };
    let mut writer = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, out), &header)?;
    let mut report = ExportReport::default();
    let mut entries = reader.entries(internal).await?;
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let (partition, key): (Vec<u8>, Slice) = (entry.partition(), entry.key());
        match writer.record(&partition, &key, &entry.value) {
            Ok(()) => report.entries += 1,
            Err(error @ WriteError::NotUtf8 { .. }) => {
                report.refused += 1;
                if report.refusals.len() < REFUSED_MAX {
                    let (key, reason) = (key.to_vec(), error.to_string());
                    report.refusals.push(RefusedEntry { partition, key, reason });
                }
            }
            Err(error) => return Err(error.into()),
        }
        let seen = report.entries + report.refused;
        if seen.is_multiple_of(PROGRESS_ENTRIES) {
            progress(seen);
        }
    }
    writer.finish()?;
    progress(report.entries + report.refused);
    Ok(report)
}

async fn text(reader: &impl ExportSource, partition: &[u8], key: &[u8]) -> Result<Option<String>> {
    let found = reader.entry(partition, key).await?;
    Ok(found.and_then(|entry| String::from_utf8(entry.value.to_vec()).ok()))
}

async fn schema_version(reader: &impl ExportSource) -> Result<i64> {
    let version = text(reader, b"kv-internal-metadata", b"kv/schema/version").await?;
    Ok(version.and_then(|version| version.trim().parse().ok()).unwrap_or_default())
}
