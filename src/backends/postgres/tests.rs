//! The base in Postgres against a real server: the contract, what two processes do, what a person sees.

#[path = "../../../tests/it/postgres_server.rs"]
mod server;

use proptest::prelude::*;
use sqlx::{Connection as _, Executor as _};

use super::*;
use crate::backends::conformance::{self, History};
use crate::backends::{Backend, BackendError, Change};
use crate::types::{Hash, LogId, Position, Slice, Stamp};
use server::Server;

fn stamp(position: u64, history: Option<u64>) -> Stamp {
    Stamp {
        log_id: LogId([7; 16]),
        format: Stamp::FORMAT,
        position: Position(position),
        chain: Hash([position as u8; 32]),
        projections: Vec::new(),
        history: history.map(Position),
    }
}

fn put(key: impl AsRef<[u8]>, version: u64, value: impl AsRef<[u8]>) -> Change {
    Change::Put { key: key.as_ref().into(), version: Position(version), value: value.as_ref().into() }
}

async fn write(
    backend: &PostgresBackend,
    stamp: &Stamp,
    keep: &[u64],
    changes: impl IntoIterator<Item = Change, IntoIter: Send>,
) -> Result<(), BackendError> {
    let keep: Vec<Position> = keep.iter().copied().map(Position).collect();
    backend.write(stamp, &keep, Box::new(changes.into_iter().map(Ok))).await
}

async fn get(backend: &PostgresBackend, at: u64, key: &str) -> Result<Option<(u64, Slice)>, BackendError> {
    let found = backend.get(Position(at), key.as_bytes()).await?;
    Ok(found.map(|(version, value)| (version.0, value)))
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings::new(url).unwrap()
}

async fn connect(url: &str, name: &str) -> PostgresBackend {
    PostgresBackend::connect(settings(url), name).await.unwrap()
}

#[tokio::test]
async fn conforms() {
    let url = Server::shared().database();
    conformance::run_all(&connect(&url, "test").await).await;
}

#[tokio::test]
async fn every_statement_is_one() {
    let url = Server::shared().database();
    let backend = connect(&url, "test").await;
    let statements = base::STATEMENTS.iter().chain(&read::STATEMENTS).chain(&sweep::STATEMENTS).chain(&write::STATEMENTS);
    let mut connection = sqlx::PgConnection::connect(&format!("{url}?options=-csearch_path%3Dlakelog")).await.unwrap();
    for statement in statements {
        connection.prepare(sqlx::SqlSafeStr::into_sql_str(*statement)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    drop(backend);
}
