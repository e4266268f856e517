//! Import of a real store's records, repeated, beside batched sets of the same records.

use std::io::Cursor;
use std::time::Instant;

use bytes::Bytes;

use super::bed::{Bed, per_second, side};
use super::figure::Figure;
use super::load::{BATCH_ENTRIES, context};
use crate::migrate::{ExportHeader, Header, ImportOptions, Record, Writer, import, read};
use crate::store::Batch;
use crate::types::{Error, ErrorKind, Result};

/// What a lakeFS server held; the sample of the front page.
const SAMPLE: &[u8] = include_bytes!("../../../samples/kv-small.ndjson.gz");

/// Entries a second, each side into a new store every time.
pub(super) async fn measure(bed: &mut Bed<'_>) -> Result<()> {
    if !bed.wants("import") {
        return Ok(());
    }
    let records = &repeated_sample(bed.scale.entries)?;
    let file = &export(records)?;
    let bed_ref = &*bed;
    let batched = side(move || async move {
        let store = bed_ref.store("batched").await?;
        let started = Instant::now();
        for records in records.chunks(BATCH_ENTRIES) {
            let set = |batch: Batch, record: &Record| batch.set(&record.partition, &record.key, &record.value);
            store.write(context(), records.iter().fold(Batch::new(), set)).await?;
        }
        let rate = per_second(records.len() as u64, started.elapsed());
        bed_ref.finish(store, "batched").await?;
        Ok(rate)
    });
    let own = side(move || async move {
        let store = bed_ref.store("import").await?;
        let started = Instant::now();
        let report = import(&store, context(), Cursor::new(file.clone()), ImportOptions::default(), |_| {}).await?;
        let rate = per_second(report.entries, started.elapsed());
        bed_ref.finish(store, "import").await?;
        if report.entries != records.len() as u64 {
            return Err(Error::new(ErrorKind::Internal, "the import lost a record of the bench"));
        }
        Ok(rate)
    });
    let [batched, own] = bed.in_turn([batched, own]).await?;
    bed.figure(Figure::rate("import", &own, "entries/s", &batched, 0.8))
}

/// The sample's records again and again, each time with other keys.
fn repeated_sample(count: u64) -> Result<Vec<Record>> {
    let mut sample = Vec::new();
    read(SAMPLE, |record| {
        sample.extend(record);
        Ok::<(), Error>(())
    })?;
    let again = |(ordinal, record): (u64, &Record)| {
        let suffix = format!("-{ordinal}");
        let key = Bytes::from([&record.key[..], suffix.as_bytes()].concat());
        Record { ordinal, key, ..record.clone() }
    };
    Ok((1..=count).zip(sample.iter().cycle()).map(again).collect())
}

/// The records as a newline-delimited export.
fn export(records: &[Record]) -> Result<Bytes> {
    let header = ExportHeader {
        lakefs_version: "bench".to_owned(),
        package_name: "all".to_owned(),
        schema_version: 1,
        created_at: "2026-01-01T00:00:00Z".to_owned(),
    };
    let mut writer = Writer::new(Vec::new(), &Header::Export(header))?;
    for Record { partition, key, value, .. } in records {
        writer.record(partition, key, value)?;
    }
    Ok(writer.finish()?.into())
}
