//! The schema: its versions, and bringing an older one forward.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::error::PostgresError;
use super::lock_key;

/// Each version's statements. The first makes the tables; what is here never changes once it was released.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_bases.sql")];
/// The oldest server: it scans a table by ranges of row addresses (the sweep), and is the oldest still maintained.
const SERVER_OLDEST: i32 = 140_000;
/// How a connection is set up. The few statements are to use their indexes whatever the statistics say, which are
/// missing after a bulk write; a plan is made once a connection.
const SESSION: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; \
                       set enable_mergejoin = off; set plan_cache_mode = force_generic_plan; set jit = off; \
                       set client_min_messages = warning;";

/// Whether the session may write at all, and the role everything that is ever written.
const PRIVILEGES: &str = "
    select current_setting('transaction_read_only') = 'on', bool_and(has_table_privilege(name, privilege))
    from unnest(array['bases', 'cleared', 'live', 'superseded']) as name,
         unnest(array['select', 'insert', 'update', 'delete']) as privilege";

/// Whether the role may read what a look at a base reads.
const READING: &str = "
    select bool_and(has_table_privilege(name, 'select')) from unnest(array['bases', 'live', 'superseded']) as name";

/// Sets a new connection up.
pub(super) async fn prepare(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    let set_up = format!("{SESSION} set search_path = \"{schema}\"");
    sqlx::raw_sql(AssertSqlSafe(set_up)).execute(connection).await.map(drop)
}

/// Whether the schema is there, at this version.
pub(super) async fn is_there(connection: &mut PgConnection, schema: &str) -> Result<bool, PostgresError> {
    check_server(connection).await?;
    let supported = MIGRATIONS.len() as i64;
    Ok(version(connection, schema, supported).await? == supported)
}

async fn check_server(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let server: i32 =
        sqlx::query("select current_setting('server_version_num')::int").fetch_one(connection).await?.try_get(0)?;
    if server < SERVER_OLDEST {
        return Err(PostgresError::OldServer { found: server, needed: SERVER_OLDEST });
    }
    Ok(())
}

/// Brings the schema to this version. One process at a time; others wait.
pub(super) async fn migrate(connection: &mut PgConnection, schema: &str) -> Result<(), PostgresError> {
    check_server(connection).await?;
    let supported = MIGRATIONS.len() as i64;
    // A role that may only write rows must not need more when there is nothing to do.
    if version(connection, schema, supported).await? == supported {
        return Ok(());
    }
    // Taken before the transaction begins, which is when a session notices what others have made. An error ends the
    // session, and with it the lock.
    let lock = lock_key("schema", schema, "");
    sqlx::query("select pg_advisory_lock($1)").bind(lock).execute(&mut *connection).await?;
    sqlx::raw_sql("begin").execute(&mut *connection).await?;
    let migrated = forward(connection, schema, supported).await;
    let end = if migrated.is_ok() { "commit" } else { "rollback" };
    sqlx::raw_sql(end).execute(&mut *connection).await?;
    sqlx::query("select pg_advisory_unlock($1)").bind(lock).execute(&mut *connection).await?;
    migrated
}

async fn forward(connection: &mut PgConnection, schema: &str, supported: i64) -> Result<(), PostgresError> {
    let found = version(connection, schema, supported).await?;
    if found == 0 {
        let there: bool = sqlx::query("select to_regnamespace($1) is not null")
            .bind(schema)
            .fetch_one(&mut *connection)
            .await?
            .try_get(0)?;
        if !there {
            let create = format!("create schema \"{schema}\"");
            sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await.map_err(making)?;
        }
        let versions =
            "create table schema_versions (version bigint primary key, made timestamptz not null default now())";
        sqlx::raw_sql(versions).execute(&mut *connection).await.map_err(making)?;
    }
    for (number, statements) in (1..).zip(MIGRATIONS).skip(found as usize) {
        sqlx::raw_sql(statements).execute(&mut *connection).await.map_err(making)?;
        let insert = "insert into schema_versions (version) values ($1)";
        sqlx::query(insert).bind(number).execute(&mut *connection).await?;
        tracing::info!(schema, version = number, "schema of the base migrated");
    }
    Ok(())
}

/// The schema's version, 0 when it is not there.
async fn version(connection: &mut PgConnection, schema: &str, supported: i64) -> Result<i64, PostgresError> {
    let table = format!("\"{schema}\".schema_versions");
    let there: bool =
        sqlx::query("select to_regclass($1) is not null").bind(table).fetch_one(&mut *connection).await?.try_get(0)?;
    if !there {
        return Ok(0);
    }
    let newest = "select coalesce(max(version), 0) from schema_versions";
    let found: i64 = sqlx::query(newest).fetch_one(connection).await?.try_get(0)?;
    if found > supported {
        return Err(PostgresError::NewerSchema { found, supported });
    }
    Ok(found)
}

/// Sees that the role may do what will be done, so that it is told when connecting and not at the first checkpoint.
pub(super) async fn check_privileges(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let row = sqlx::query(PRIVILEGES).fetch_one(connection).await?;
    if row.try_get(0)? {
        return Err(PostgresError::ReadOnly);
    }
    if row.try_get(1)? {
        return Ok(());
    }
    let cure = "grant select, insert, update, delete on all tables in the schema";
    Err(PostgresError::Privilege { cure, detail: "the tables cannot be written".to_owned() })
}

/// Sees that the role may read what a look at a base reads.
pub(super) async fn check_reading(connection: &mut PgConnection) -> Result<(), PostgresError> {
    if sqlx::query(READING).fetch_one(connection).await?.try_get(0)? {
        return Ok(());
    }
    let cure = "grant select on all tables in the schema";
    Err(PostgresError::Privilege { cure, detail: "the tables cannot be read".to_owned() })
}

fn making(error: sqlx::Error) -> PostgresError {
    match PostgresError::from(error) {
        PostgresError::Privilege { detail, .. } => {
            let cure = "grant create on the database, or let its owner make the schema and grant all on it";
            PostgresError::Privilege { cure, detail }
        }
        other => other,
    }
}
