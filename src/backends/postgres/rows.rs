//! [`Copied`]: rows in the binary format of `COPY`, made in memory and sent at once.

use sqlx::postgres::PgConnection;

use super::error::PostgresError;
use super::key::Columns;

/// `PGCOPY`, its signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Where a count of fields would stand: the end.
const TRAILER: &[u8] = &[0xff, 0xff];

/// The statement that takes rows with [`Copied::push_live`].
pub(super) const COPY_LIVE: &str = "copy live (base, version, partition, key, value) from stdin binary";
/// The statement that takes rows with [`Copied::push_superseded`].
pub(super) const COPY_SUPERSEDED: &str =
    "copy superseded (base, version, until, partition, key, value) from stdin binary";

/// Rows of one table.
#[derive(Debug)]
pub(super) struct Copied {
    statement: &'static str,
    bytes: Vec<u8>,
    rows: usize,
}

impl Copied {
    pub(super) fn new(statement: &'static str) -> Copied {
        Copied { statement, bytes: Vec::new(), rows: 0 }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push_live(&mut self, base: i64, version: i64, key: &Columns, value: &[u8]) {
        self.begin_row(5);
        self.push_numbers(&[base, version]);
        self.push_bytes(&[&key.partition, &key.key, value]);
    }

    pub(super) fn push_superseded(&mut self, base: i64, version: i64, until: i64, key: &Columns, value: &[u8]) {
        self.begin_row(6);
        self.push_numbers(&[base, version, until]);
        self.push_bytes(&[&key.partition, &key.key, value]);
    }

    fn begin_row(&mut self, fields: u16) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(HEADER);
        }
        self.rows += 1;
        self.bytes.extend_from_slice(&fields.to_be_bytes());
    }

    fn push_numbers(&mut self, numbers: &[i64]) {
        for number in numbers {
            self.bytes.extend_from_slice(&8u32.to_be_bytes());
            self.bytes.extend_from_slice(&number.to_be_bytes());
        }
    }

    fn push_bytes(&mut self, fields: &[&[u8]]) {
        for field in fields {
            // Keys and values were checked against limits far below 4 GiB.
            self.bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
            self.bytes.extend_from_slice(field);
        }
    }

    /// Sends what there is and begins anew; returns how many rows went.
    pub(super) async fn send(&mut self, connection: &mut PgConnection) -> Result<usize, PostgresError> {
        let rows = std::mem::take(&mut self.rows);
        if rows > 0 {
            self.bytes.extend_from_slice(TRAILER);
            let mut copy = connection.copy_in_raw(self.statement).await?;
            copy.send(&self.bytes[..]).await?;
            copy.finish().await?;
            self.bytes.clear();
        }
        Ok(rows)
    }
}
