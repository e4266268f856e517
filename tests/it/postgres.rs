//! Stores whose base is in Postgres: moving there and back, servers that die, what the command line says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lakelog::backends::{Backend as _, PostgresBackend, PostgresSettings};
use lakelog::{Batch, Context, ErrorKind, Position, ScanOptions, Settings, Store};
use serde_json::json;

use crate::cli::{Shell, lines};
use crate::postgres_server::Server;

fn me() -> Context {
    Context::new("test")
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings::new(url).unwrap()
}

async fn fill(store: &Store, from: u64, to: u64) {
    for number in from..to {
        let batch = Batch::new().set(b"p", format!("{number:06}").as_bytes(), &number.to_le_bytes());
        store.write(me(), batch).await.unwrap();
    }
}

/// Keys and versions of the partition.
async fn all(store: &Store) -> Vec<(Vec<u8>, Position)> {
    let mut entries = store.scan(ScanOptions::new(b"p")).unwrap();
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await {
        let entry = entry.unwrap();
        found.push((entry.key().to_vec(), entry.version));
    }
    found
}

fn rows(url: &str) -> u64 {
    let database = url.rsplit('/').next().unwrap();
    Server::shared().sql(database, "select count(*) from lakelog.live").parse().unwrap()
}

#[tokio::test]
async fn a_store_moves_to_postgres_and_back() {
    let url = Server::shared().database();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let embedded = Store::builder(&path).create().await.unwrap();
    fill(&embedded, 0, 50).await;
    embedded.checkpoint().await.unwrap();
    let expected = all(&embedded).await;
    embedded.close().await.unwrap();

    let moved = Store::builder(&path).with_postgres(settings(&url)).open().await.unwrap();
    assert_eq!(all(&moved).await, expected);
    moved.checkpoint().await.unwrap();
    assert!(rows(&url) >= 50);
    fill(&moved, 50, 60).await;
    moved.write(me(), Batch::new().delete_range(b"p", b"00001")).await.unwrap();
    let pinned = moved.reader();
    moved.checkpoint().await.unwrap();
    moved.write(me(), Batch::new().delete_range(b"p", b"")).await.unwrap();
    moved.checkpoint().await.unwrap();
    assert_eq!(all(&moved).await, []);
    assert_eq!(pinned.get(b"p", b"000020").await.unwrap().unwrap().version, Position(21));
    assert_eq!(pinned.get(b"p", b"000010").await.unwrap(), None);
    fill(&moved, 60, 70).await;
    moved.close().await.unwrap();

    // The base left behind is behind: the log brings it up to date.
    let back = Store::builder(&path).open().await.unwrap();
    assert_eq!(all(&back).await.len(), 10);
    assert_eq!(back.head(), Position(72));
    fill(&back, 70, 80).await;
    back.close().await.unwrap();
    let again = Store::builder(&path).with_postgres(settings(&url)).open().await.unwrap();
    assert_eq!(all(&again).await.len(), 20);
    again.close().await.unwrap();
}

#[tokio::test]
async fn stores_share_a_schema_and_none_touches_anothers_rows() {
    let url = Server::shared().database();
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        let builder = Store::builder(dir.path().join(name)).with_postgres(settings(&url));
        async { builder.open_or_create().await.unwrap() }
    };
    let (one, two) = (open("one").await, open("two").await);
    fill(&one, 0, 30).await;
    fill(&two, 0, 20).await;
    one.checkpoint().await.unwrap();
    two.checkpoint().await.unwrap();
    let id = one.log_id().to_string();
    one.close().await.unwrap();
    two.close().await.unwrap();
    assert!(rows(&url) >= 50);

    // Another log in the place of the first one: a base of its own.
    fs::remove_dir_all(dir.path().join("one")).unwrap();
    let fresh = open("one").await;
    assert_eq!(all(&fresh).await, []);
    fresh.close().await.unwrap();
    assert!(rows(&url) >= 50);

    // A base that is named by hand is not taken from its log either.
    let dir = dir.path().join("two");
    let named = PostgresBackend::connect(settings(&url), &id).await.unwrap();
    let refused = Store::builder(&dir).with_backend(std::sync::Arc::new(named)).open().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.message().contains(&id), "{refused}");
    let named = PostgresBackend::connect(settings(&url), &id).await.unwrap();
    assert_eq!(named.stamp().await.unwrap().unwrap().position, Position(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_outlives_its_server() {
    let server = Server::start(&[]);
    let url = server.database();
    let dir = tempfile::tempdir().unwrap();
    let builder = || {
        // No checkpoint but those asked for.
        let settings = Settings { checkpoint_log_bytes: u64::MAX, ..Settings::default() };
        Store::builder(dir.path().join("store")).settings(settings)
    };
    let store = builder().with_postgres(settings(&url)).create().await.unwrap();
    fill(&store, 0, 20).await;
    store.checkpoint().await.unwrap();
    fill(&store, 20, 30).await;
    server.kill();
    // The log needs no server: changes are durable, and what is in memory is read.
    fill(&store, 30, 40).await;
    assert!(store.get(b"p", b"000035").await.unwrap().is_some());
    assert_eq!(store.checkpoint().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.get(b"p", b"000005").await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.restart();
    assert_eq!(store.get(b"p", b"000005").await.unwrap().unwrap().version, Position(6));
    store.checkpoint().await.unwrap();
    assert_eq!(all(&store).await.len(), 40);

    // Ended in good order while the store is open.
    fill(&store, 40, 50).await;
    server.stop();
    let _ = store.close().await;
    drop(store);
    assert_eq!(
        builder().with_postgres(settings(&url)).open().await.unwrap_err().kind(),
        ErrorKind::Unavailable,
        "nothing is rebuilt because a server is not there"
    );
    server.restart();
    let store = builder().with_postgres(settings(&url)).open().await.unwrap();
    assert_eq!(all(&store).await.len(), 50);
    store.checkpoint().await.unwrap();
    store.close().await.unwrap();
}

#[test]
fn every_verb_takes_the_base_and_no_password_is_shown() {
    let server = Server::shared();
    let url = server.database();
    let database = url.rsplit('/').next().unwrap();
    let shell = Shell::new();
    let run = |args: &[&str], base: &str| shell.run(&[&["--json", "--base", base], args].concat());
    let ok = |args: &[&str]| {
        let output = run(args, &url);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        lines(&output.stdout)
    };
    // A server that is not there is found out before anything is made.
    let nowhere = run(&["init"], "postgres://user:s3cr3t@%2Fnowhere/db");
    let told = String::from_utf8(nowhere.stderr).unwrap();
    assert_eq!(nowhere.status.code(), Some(6), "{told}");
    assert!(told.contains("password on the command line") && !told.contains("s3cr3t"), "{told}");
    assert!(!shell.path("store/log").exists());

    ok(&["init"]);
    assert_eq!(ok(&["set", "p", "k", "v"]), [json!({"position": 1})]);
    ok(&["checkpoint"]);
    ok(&["set", "p", "l", "w"]);
    assert_eq!(ok(&["scan", "p"]).len(), 2);
    assert!(!shell.path("store/base").exists(), "the embedded base was made all the same");
    assert_eq!(rows(&url), 1);
    let verified = ok(&["verify"]);
    assert!(verified[0]["ok"] == json!(true) && verified[0]["skipped"] == json!([]), "{verified:?}");

    // Another role, whose password comes by each of the ways there are.
    server.sql("postgres", "create role keeper login password 'k33p3r' in role locked");
    server.sql("postgres", &format!("grant create on database {database} to keeper"));
    let role = url.replace("postgres@", "keeper@") + "?schema=kept";
    let refused = run(&["get", "p", "k"], &role);
    assert_eq!(refused.status.code(), Some(6), "{}", String::from_utf8_lossy(&refused.stderr));
    let by_variable =
        shell.command(&["get", "p", "k"]).env("LAKELOG_BASE", &role).env("PGPASSWORD", "k33p3r").output().unwrap();
    assert!(by_variable.status.success() && by_variable.stderr.is_empty(), "{by_variable:?}");
    let file = shell.path("pgpass");
    fs::write(&file, "*:*:*:keeper:k33p3r\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let by_file = shell.command(&["--base", &role, "get", "p", "k"]).env("PGPASSFILE", &file).output().unwrap();
    assert!(by_file.status.success() && by_file.stdout == b"v" && by_file.stderr.is_empty(), "{by_file:?}");
    let with_it = role.replace("keeper@", "keeper:k33p3r@");
    let on_the_line = shell.run(&["--base", &with_it, "get", "p", "k"]);
    let told = String::from_utf8(on_the_line.stderr).unwrap();
    assert!(on_the_line.status.success() && told.contains("PGPASSWORD") && !told.contains("k33p3r"), "{told}");
    let by_url = shell.command(&["get", "p", "k"]).env("LAKELOG_BASE", &with_it).output().unwrap();
    assert!(by_url.status.success() && by_url.stderr.is_empty(), "{by_url:?}");
    let wrong = shell.command(&["-vvv", "--base", &role, "get", "p", "k"]).env("PGPASSWORD", "wr0ng").output().unwrap();
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert!(wrong.status.code() == Some(6) && told.contains("login") && !told.contains("wr0ng"), "{told}");
    shell.fails(&["--base", "mysql://u:s3cr3t@h/d", "get", "p", "k"], 2, "invalid");
}
