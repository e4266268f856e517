//! Bases reached over TLS: servers that are who they say, others, and none.

use lakelog::{Backend as _, ErrorKind, PostgresBackend, PostgresSettings, Store};

use crate::postgres_server::Server;

/// A certificate of `tests/fixtures/tls`, as a parameter.
fn root(name: &str) -> String {
    format!("sslrootcert={}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

async fn connect(url: &str) -> lakelog::Result<PostgresBackend> {
    Ok(PostgresBackend::connect(PostgresSettings::new(url)?, "test").await?)
}

async fn refused(url: &str, words: &str) {
    let error = connect(url).await.unwrap_err();
    let text = error.report().to_string();
    assert!(error.kind() == ErrorKind::Unavailable && text.contains(words), "{url}: {text}");
}

#[tokio::test]
async fn a_server_is_trusted_as_far_as_the_url_says() {
    let server = Server::start_on_network(true);
    let database = server.database();
    let database = database.rsplit('/').next().unwrap();
    let encrypted = || {
        let sessions = "select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
                        where ssl and datname = current_database()";
        server.sql(database, sessions) != "0"
    };
    let url = |host: &str, parameters: &str| format!("{}?{parameters}", server.network_url(host, database));
    let (ca, other) = (root("ca.pem"), root("other-ca.pem"));
    for (host, parameters, over_tls) in [
        ("localhost", "sslmode=disable".to_owned(), false),
        ("localhost", "sslmode=prefer".to_owned(), true),
        // Encrypted, but whoever answers is believed.
        ("localhost", "sslmode=require".to_owned(), true),
        ("127.0.0.1", format!("sslmode=verify-ca&{ca}"), true),
        ("localhost", format!("sslmode=verify-full&{ca}"), true),
    ] {
        let backend = connect(&url(host, &parameters)).await.unwrap_or_else(|error| panic!("{parameters}: {error}"));
        assert_eq!(encrypted(), over_tls, "{parameters}");
        assert_eq!(backend.stamp().await.unwrap(), None);
    }
    for (host, parameters) in [
        ("localhost", "sslmode=verify-ca".to_owned()),
        ("localhost", "sslmode=verify-full".to_owned()),
        ("localhost", format!("sslmode=verify-ca&{other}")),
        ("localhost", format!("sslmode=verify-full&{other}")),
        // Signed by the right one, for another name.
        ("127.0.0.1", format!("sslmode=verify-full&{ca}")),
    ] {
        refused(&url(host, &parameters), "sslrootcert=FILE").await;
    }
    refused(&url("localhost", "sslmode=verify-full&sslrootcert=/nowhere/ca.pem"), "sslrootcert").await;

    // A whole store over it.
    let dir = tempfile::tempdir().unwrap();
    let settings = PostgresSettings::new(&url("localhost", &format!("sslmode=verify-full&{ca}&schema=store"))).unwrap();
    let store = Store::builder(dir.path().join("store")).with_postgres(settings).create().await.unwrap();
    store.write(lakelog::Context::new("test"), lakelog::Batch::new().set(b"p", b"k", b"v")).await.unwrap();
    store.checkpoint().await.unwrap();
    assert!(store.get(b"p", b"k").await.unwrap().is_some() && encrypted());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_in_the_clear() {
    let server = Server::start_on_network(false);
    let database = server.database();
    let url = server.network_url("localhost", database.rsplit('/').next().unwrap());
    for mode in ["require", "verify-ca", "verify-full"] {
        refused(&format!("{url}?sslmode={mode}&{}", root("ca.pem")), "ssl = on").await;
    }
    connect(&format!("{url}?sslmode=prefer")).await.unwrap();
}
