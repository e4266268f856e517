//! Bases in Postgres that somebody changed by hand: what `verify` says of them, and what `repair` does.

use std::path::PathBuf;

use lakelog::diagnostics::{BaseAt, RepairOptions, RepairPlan, VerifyOptions, VerifyReport, verify_with};
use lakelog::{Batch, Context, Env, ErrorKind, PostgresSettings, Result, Settings, Store};
use serde_json::json;

use crate::cli::{Shell, lines};
use crate::postgres_server::Server;

/// A store with a base in a database of its own.
struct World {
    _tempdir: tempfile::TempDir,
    dir: PathBuf,
    url: String,
}

impl World {
    /// Sixty entries, twenty of them changed twice, ten gone, in two checkpoints and a rest.
    async fn filled() -> World {
        let tempdir = tempfile::tempdir().unwrap();
        let dir = tempdir.path().join("store");
        let world = World { _tempdir: tempdir, dir, url: Server::shared().database() };
        let settings = Settings { checkpoint_log_bytes: u64::MAX, ..Settings::default() };
        let builder = Store::builder(&world.dir).settings(settings).with_postgres(world.settings(&world.url));
        let store = builder.create().await.unwrap();
        let write = async |from: u32, to: u32, value: &str| {
            for number in from..to {
                let batch = Batch::new().set(b"p", format!("{number:03}").as_bytes(), value.as_bytes());
                store.write(Context::new("test"), batch).await.unwrap();
            }
        };
        write(0, 60, "first").await;
        store.checkpoint().await.unwrap();
        write(20, 40, "second").await;
        write(20, 40, "third").await;
        store.write(Context::new("test"), Batch::new().delete_range(b"p", b"01")).await.unwrap();
        store.checkpoint().await.unwrap();
        write(60, 70, "not in the base").await;
        store.close().await.unwrap();
        world
    }

    fn settings(&self, url: &str) -> PostgresSettings {
        PostgresSettings::new(url).unwrap()
    }

    fn at(&self, url: &str) -> BaseAt {
        BaseAt::Postgres(Box::new(self.settings(url)))
    }

    fn database(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    fn sql(&self, statements: &str) -> String {
        Server::shared().sql(self.database(), statements)
    }

    async fn verify_as(&self, url: &str) -> Result<VerifyReport> {
        let options = VerifyOptions { base: self.at(url), ..VerifyOptions::default() };
        verify_with(&Env::os(), &self.dir, options, &mut |_, done, total| assert!(done <= total)).await
    }

    async fn verify(&self) -> VerifyReport {
        self.verify_as(&self.url).await.unwrap()
    }

    async fn plan_as(&self, url: &str) -> Result<RepairPlan> {
        let options = RepairOptions { base: self.at(url), ..RepairOptions::default() };
        RepairPlan::with_options(&Env::os(), &self.dir, options, &mut |done, total| assert!(done <= total)).await
    }

    async fn plan(&self) -> RepairPlan {
        self.plan_as(&self.url).await.unwrap()
    }

    /// Opens the store, which fills a base that was dropped, and writes a checkpoint.
    async fn checkpoint(&self) {
        let store = Store::builder(&self.dir).with_postgres(self.settings(&self.url)).open().await.unwrap();
        store.write(Context::new("test"), Batch::new().set(b"q", b"k", b"v")).await.unwrap();
        store.checkpoint().await.unwrap();
        store.close().await.unwrap();
    }
}

/// The row of the key `025`, in either table.
const ROW: &str = "key = '\\x0001'::bytea || '025'::bytea and partition = 'p'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_by_hand_is_found_and_made_anew() {
    let world = World::filled().await;
    let report = world.verify().await;
    assert!(report.ok() && report.skipped.is_empty(), "{report:?}");
    assert_eq!(world.plan().await.steps(), [""; 0]);

    let of_row = |statement: &str| format!("{statement} where {ROW}");
    let damages = [
        (of_row("update lakelog.live set value = 'other'"), "views", "is another in the base"),
        (of_row("update lakelog.live set version = version - 1"), "views", "is another in the base"),
        (of_row("delete from lakelog.live"), "views", "is missing from the base"),
        (
            of_row("insert into lakelog.live select base, version, partition, key || 'x', value from lakelog.live"),
            "views",
            "the log gives none",
        ),
        (of_row("update lakelog.superseded set value = 'other'"), "views", "has another history"),
        (of_row("delete from lakelog.superseded"), "views", "has another history"),
        (of_row("update lakelog.live set version = -1"), "base", "makes no sense"),
        ("update lakelog.bases set chain = sha256('')".to_owned(), "base", "of another history"),
        ("update lakelog.bases set position = position + 1000".to_owned(), "base", "the log does not hold"),
        ("update lakelog.bases set log_id = decode(repeat('07', 16), 'hex')".to_owned(), "base", "of another log"),
        ("update lakelog.bases set stamp_format = 99".to_owned(), "base", "another format"),
        ("update lakelog.bases set position = -1".to_owned(), "base", "makes no sense"),
        ("update lakelog.bases set damaged = 'a bad page'".to_owned(), "base", "a bad page"),
    ];
    for (statement, kind, words) in damages {
        world.sql(&statement);
        let report = world.verify().await;
        let found: Vec<_> = report.problems.iter().map(|problem| (problem.kind, &problem.detail)).collect();
        assert!(
            !found.is_empty() && found.iter().all(|(found, detail)| *found == kind && detail.contains(words)),
            "{statement}: {found:?}"
        );
        let place = report.problems[0].file.display().to_string();
        assert!(place.starts_with("postgres://postgres@") && place.ends_with(" lakelog"), "{place}");

        let plan = world.plan().await;
        let steps = plan.steps();
        assert!(
            steps.len() == 1 && steps[0].starts_with("drop the base in postgres://") && steps[0].contains(words),
            "{statement}: {steps:?}"
        );
        plan.apply().await.unwrap();
        assert_eq!(world.sql("select count(*) from lakelog.bases where position is not null"), "0", "{statement}");
        world.checkpoint().await;
    }
    // The last one is made anew too.
    let report = world.verify().await;
    assert!(report.ok() && report.skipped.is_empty(), "{report:?}");
    assert_eq!(world.plan().await.steps(), [""; 0]);
    assert!(!world.dir.join("verify.tmp").exists() && !world.dir.join("base").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_only_read_verifies_and_plans() {
    let world = World::filled().await;
    let server = Server::shared();
    server.sql("postgres", "create role auditor login; alter role auditor set default_transaction_read_only = on");
    let auditor = server.url("auditor", world.database());
    let refused = |error: lakelog::Error, words: &str| {
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains(words), "{error}");
    };
    refused(world.verify_as(&auditor).await.unwrap_err(), "lacks a privilege");
    world.sql("grant usage on schema lakelog to auditor; grant select on lakelog.schema_versions to auditor");
    refused(world.verify_as(&auditor).await.unwrap_err(), "grant select on all tables in the schema");
    world.sql("grant select on all tables in schema lakelog to auditor");
    let report = world.verify_as(&auditor).await.unwrap();
    assert!(report.ok() && report.skipped.is_empty(), "{report:?}");

    world.sql(&format!("delete from lakelog.live where {ROW}"));
    let report = world.verify_as(&auditor).await.unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    let plan = world.plan_as(&auditor).await.unwrap();
    assert_eq!(plan.steps().len(), 1);
    refused(plan.apply().await.unwrap_err(), "read-only");
    assert_eq!(world.verify_as(&auditor).await.unwrap().problems, report.problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_base_that_is_not_there_makes_none() {
    let world = World::filled().await;
    let empty = Server::shared().database();
    let report = world.verify_as(&empty).await.unwrap();
    assert!(report.ok() && report.skipped.is_empty(), "{report:?}");
    assert_eq!(world.plan_as(&empty).await.unwrap().steps(), [""; 0]);
    let schemas = "select count(*) from pg_namespace where nspname = 'lakelog'";
    assert_eq!(Server::shared().sql(empty.rsplit('/').next().unwrap(), schemas), "0");
    // A schema without a base of this log.
    let name = world.sql("update lakelog.bases set name = 'moved' returning (select name from lakelog.bases)");
    assert!(world.verify().await.ok());
    assert_eq!(world.sql("select count(*) from lakelog.bases"), "1", "a look made a base");
    world.sql(&format!("update lakelog.bases set name = '{name}'"));

    let gone = world.url.replace(world.database(), "absent");
    assert_eq!(world.verify_as(&gone).await.unwrap_err().kind(), ErrorKind::Unavailable);
    // Beside a process that has the store open.
    let store = Store::builder(&world.dir).with_postgres(world.settings(&world.url)).open().await.unwrap();
    let report = world.verify().await;
    assert!(report.ok() && report.skipped == ["views"], "{report:?}");
    assert_eq!(world.plan_as(&world.url).await.unwrap_err().kind(), ErrorKind::Unavailable);
    store.close().await.unwrap();
}

#[test]
fn the_command_line_says_what_differs_and_repairs_it() {
    let url = Server::shared().database();
    let shell = Shell::new();
    let run = |args: &[&str]| shell.run(&[&["--json", "--base", &url], args].concat());
    let ok = |args: &[&str]| {
        let output = run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        lines(&output.stdout)
    };
    ok(&["init"]);
    ok(&["set", "p", "k", "v"]);
    ok(&["checkpoint"]);
    let database = url.rsplit('/').next().unwrap();
    Server::shared().sql(database, "update lakelog.live set value = 'w' where partition = 'p'");
    let damaged = run(&["verify"]);
    assert_eq!(damaged.status.code(), Some(5));
    let answer = lines(&damaged.stdout).remove(0);
    assert_eq!((&answer["ok"], &answer["problems"][0]["kind"]), (&json!(false), &json!("views")), "{answer}");
    let detail = answer["problems"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("partition=`p` key=`k`"), "{detail}");
    let plan = ok(&["repair"]).remove(0);
    assert!(plan["done"] == json!(false) && plan["plan"].as_array().unwrap().len() == 1, "{plan}");
    assert_eq!(ok(&["repair", "--yes"])[0]["done"], json!(true));
    assert_eq!(run(&["get", "p", "k"]).status.code(), Some(0));
    assert_eq!(ok(&["verify"])[0]["ok"], json!(true));
    assert_eq!(ok(&["repair"])[0]["plan"], json!([]));
}
