//! What cannot work: each is told by its kind, says what to do, and never shows a password.

use super::server::Server;
use super::*;
use crate::types::{Error, ErrorKind};

const SECRET: &str = "s3cr3t-w0rd";

/// The kind and the whole text that a caller may print of a refusal.
async fn refusal(url: &str) -> (ErrorKind, String) {
    let settings = match PostgresSettings::new(url) {
        Ok(settings) => settings,
        Err(error) => return told(error),
    };
    let shown = format!("{settings:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    told(PostgresBackend::connect(settings, "test").await.unwrap_err())
}

fn told(error: BackendError) -> (ErrorKind, String) {
    let debug = format!("{error:?}");
    let error = Error::from(error);
    let text = format!("{debug} {error:?} {}", error.report());
    assert!(!text.contains(SECRET), "{text}");
    (error.kind(), text)
}

async fn refuses(url: &str, kind: ErrorKind, words: &str) {
    let (found, text) = refusal(url).await;
    assert!(found == kind && text.contains(words), "expected {kind} and {words:?}: {found} {text}");
}

#[tokio::test]
async fn settings_that_are_none() {
    for url in [
        "mysql://host/db",
        "postgres:/host/db",
        "postgres://user:s3cr3t-w0rd@host:port/db",
        "postgres://user:s3cr3t-w0rd@host:99999/db",
        "postgres://user:a/s3cr3t-w0rd@host/db",
        "postgres://user:a?s3cr3t-w0rd@host/db",
        "postgres://user:a?s3cr3t-w0rd=1@host/db",
        "postgres://user:a#s3cr3t-w0rd@host/db",
        "postgres://host/db?passwort=s3cr3t-w0rd",
        "postgres://host/db?password=s3cr3t-w0rd&sslmode=perhaps",
        "postgres://host/db?schema=",
        "postgres://host/db?schema=pg_own",
        "postgres://host/db?schema=Upper",
        "postgres://host/db?schema=9",
        "postgres://host/db?schema=a%22b",
        &format!("postgres://host/db?schema={}", "x".repeat(64)),
    ] {
        refuses(url, ErrorKind::Invalid, "unusable URL").await;
    }
    let url = Server::shared().database();
    for name in ["", "a\0b", &"n".repeat(201)] {
        let error = try_connect(&url, name).await.unwrap_err();
        assert_eq!(told(error).0, ErrorKind::Invalid);
    }
}

#[test]
fn a_password_in_the_url_is_noticed() {
    for (url, has) in [
        ("postgres://user:s3cr3t-w0rd@host/db", true),
        ("postgres://:s3cr3t-w0rd@host/db", true),
        ("postgres://host/db?password=s3cr3t-w0rd", true),
        ("postgres://user@host:5432/db?schema=x", false),
        ("postgresql://host/db", false),
        ("postgres:///db?host=/run", false),
    ] {
        let settings = PostgresSettings::new(url).unwrap();
        assert_eq!(settings.has_password(), has, "{url}");
        assert!(!format!("{settings:?} {}", settings.place()).contains(SECRET));
    }
}

#[tokio::test]
async fn logins_databases_and_servers_that_are_not_there() {
    let server = Server::shared();
    let url = server.database();
    server.sql("postgres", &format!("create role keeper login password '{SECRET}' in role locked"));
    server.sql("postgres", &format!("grant create on database {} to keeper", database_of(&url)));
    let locked = server.url("keeper", database_of(&url));
    refuses(&locked.replace("keeper@", "keeper:wrong@"), ErrorKind::Unavailable, "PGPASSWORD").await;
    let right = locked.replace("keeper@", &format!("keeper:{SECRET}@"));
    connect(&right, "test").await;
    refuses(&server.url("nobody", "postgres"), ErrorKind::Unavailable, "refused the login").await;
    let absent = server.url("postgres", "absent");
    refuses(&absent.replace("postgres@", &format!("postgres:{SECRET}@")), ErrorKind::Unavailable, "createdb").await;
    let nowhere = format!("postgres://user:{SECRET}@%2Fnowhere/db");
    refuses(&nowhere, ErrorKind::Unavailable, "no connection").await;
}

#[tokio::test]
async fn roles_that_may_not_write() {
    let server = Server::shared();
    let url = server.database();
    let database = database_of(&url);
    server.sql("postgres", "create role reader login");
    server.sql("postgres", "create role writer login");
    let (reader, writer) = (server.url("reader", database), server.url("writer", database));
    refuses(&reader, ErrorKind::Unavailable, "grant create on the database").await;

    drop(connect(&url, "test").await);
    refuses(&reader, ErrorKind::Unavailable, "lacks a privilege").await;
    server.sql(database, "grant usage on schema lakelog to reader, writer");
    server.sql(database, "grant select on all tables in schema lakelog to reader");
    refuses(&reader, ErrorKind::Unavailable, "grant select, insert, update, delete").await;
    // Rows are all that a role must be able to write once the schema is there.
    server.sql(database, "grant select, insert, update, delete on all tables in schema lakelog to writer");
    let backend = connect(&writer, "test").await;
    conformance::run_all(&backend).await;
    drop(backend);

    server.sql("postgres", "alter role writer set default_transaction_read_only = on");
    refuses(&writer, ErrorKind::Unavailable, "read-only").await;
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let server = Server::shared();
    let url = server.database();
    let backend = connect(&url, "test").await;
    write(&backend, &stamp(1), &[], [put("a", 1, "1")]).await.unwrap();
    drop(backend);
    server.sql(database_of(&url), "insert into lakelog.schema_versions values (99)");
    refuses(&url, ErrorKind::Unavailable, "found=`99` supported=`1`").await;
    server.sql(database_of(&url), "delete from lakelog.schema_versions where version = 99");
    assert_eq!(connect(&url, "test").await.stamp().await.unwrap(), Some(stamp(1)));
}

#[tokio::test]
async fn openers_at_once_make_one_schema() {
    let url = &Server::shared().database();
    let openers: Vec<_> = (0..8)
        .map(|number| {
            let url = url.clone();
            tokio::spawn(async move { try_connect(&url, &format!("base-{number}")).await.map(drop) })
        })
        .collect();
    for opener in openers {
        opener.await.unwrap().unwrap();
    }
    let versions = Server::shared().sql(database_of(url), "select count(*) from lakelog.schema_versions");
    assert_eq!(versions, "1");
}

#[tokio::test]
async fn a_schema_that_its_owner_made_beforehand_is_used() {
    let server = Server::shared();
    let url = server.database();
    server.sql("postgres", "create role tenant login");
    server.sql(database_of(&url), "create schema tenants authorization tenant");
    let url = server.url("tenant", database_of(&url)) + "?schema=tenants";
    let backend = connect(&url, "test").await;
    write(&backend, &stamp(1), &[], [put("a", 1, "1")]).await.unwrap();
    assert_eq!(dump(&backend, 1).await.unwrap().len(), 1);
}
