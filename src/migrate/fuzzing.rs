//! The fuzz target of imports: hostile files of both formats, plain and compressed.

use super::{ReadError, Record, Refusal, read};
use crate::types::Limits;

/// A file to import.
pub fn imports(input: &[u8]) {
    let mut last = 0;
    let read = read(input, |record: Result<Record, Refusal>| {
        if let Ok(record) = record {
            assert!(record.ordinal > last, "records are counted in order");
            last = record.ordinal;
            assert!(!record.partition.is_empty() && !record.key.is_empty());
            assert!(record.value.len() <= Limits::VALUE_BYTES_MAX);
        }
        // A short file can hold many records once it is unpacked; a few of them say enough.
        if last < 10_000 { Ok(()) } else { Err(ReadError::HeaderMissing) }
    });
    let _typed: Result<_, ReadError> = read;
}

/// Inputs to begin with: a file of each format, plain and compressed.
pub fn seeds() -> Vec<Vec<u8>> {
    let dump: &[u8] = br#"{"version":"1.0","timestamp":"2024-01-02T03:04:05Z","entries":[
        {"partition":"auth","key":"dXNlcnMvYQ==","value":"AAEC"},{"partition":"kv-internal-metadata","key":"eA==","value":""}]}"#;
    let export: &[u8] =
        br#"{"lakefs_version":"0.80.0","package_name":"all","schema_version":1,"created_at":"2024-01-02T03:04:05Z"}
{"partition_key":"YXV0aA==","key":"dXNlcnMvYQ==","value":"AAEC"}
"#;
    let mut seeds = vec![dump.to_vec(), export.to_vec()];
    for plain in [dump, export] {
        seeds.extend(zstd::bulk::compress(plain, 1));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        seeds.extend(std::io::Write::write_all(&mut gzip, plain).and_then(|()| gzip.finish()));
    }
    seeds
}
