//! `dump`, `restore` and `verify DUMP` as a script sees them: beside writers, over pipes, chained, interrupted, refused.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Shell, lines};

/// A store with a real one in it.
fn imported() -> Shell {
    let shell = Shell::with_store();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kv-small/full.ndjson.zst");
    shell.ok(&["import", file]);
    shell
}

fn path(shell: &Shell, name: &str) -> String {
    shell.path(name).to_str().unwrap().to_owned()
}

/// Arguments for a store beside the one of the shell.
fn at<'a>(store: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["--store", store], args].concat()
}

fn everything(shell: &Shell, store: &str) -> (Vec<u8>, Vec<Value>) {
    let records = shell.ok(&at(store, &["export", "--internal"]));
    let records = records.splitn(2, |&byte| byte == b'\n').nth(1).unwrap_or_default().to_vec();
    (records, shell.json(&at(store, &["log", "--all"])))
}

#[test]
fn a_store_is_dumped_and_restored() {
    let shell = imported();
    let (store, other, dump) = (path(&shell, "store"), path(&shell, "other"), path(&shell, "dump"));
    let answer = shell.json(&["dump", "-o", &dump]).remove(0);
    let head = answer["to"].as_u64().unwrap();
    assert_eq!((&answer["from"], &answer["transactions"]), (&json!(1), &json!(head)));
    assert_eq!(answer["bytes"], fs::metadata(&dump).unwrap().len());
    assert_eq!(fs::metadata(&dump).unwrap().permissions().mode() & 0o777, 0o600);
    let verified = shell.json(&["verify", &dump]).remove(0);
    assert_eq!((&verified["ok"], &verified["head"]), (&json!(true), &json!(head)));
    assert_eq!(verified["chain"], answer["chain"]);

    let restored = shell.json(&at(&other, &["restore", &dump])).remove(0);
    for member in ["from", "to", "transactions", "bytes", "chain", "log_id"] {
        assert_eq!(restored[member], answer[member], "{member}");
    }
    assert_eq!(everything(&shell, &other), everything(&shell, &store));
    assert_eq!(shell.json(&at(&other, &["verify"]))[0]["ok"], true);
    let again = path(&shell, "again");
    shell.ok(&at(&other, &["dump", "-o", &again]));
    assert!(fs::read(&again).unwrap() == fs::read(&dump).unwrap(), "a dump of the restored dump is another");

    // Over pipes, and as a clone.
    let piped = shell.run(&["--json", "dump", "-o", "-", "--no-compress"]);
    assert_eq!(lines(&piped.stderr)[0]["transactions"], head);
    let (third, clone) = (path(&shell, "third"), path(&shell, "clone"));
    assert!(shell.run_with(&at(&third, &["restore", "-"]), &piped.stdout).status.success());
    assert_eq!(everything(&shell, &third), everything(&shell, &store));
    assert!(shell.run_with(&["verify", "-"], &piped.stdout).status.success());
    let cloned = shell.json(&at(&clone, &["restore", &dump, "--as-clone"])).remove(0);
    assert_ne!(cloned["log_id"], answer["log_id"]);
    assert_eq!(everything(&shell, &clone).0, everything(&shell, &store).0);
    shell.fails(&at(&clone, &["restore", &dump]), 4, "conflict");
}

#[test]
fn a_state_alone_begins_a_store() {
    let shell = imported();
    let (store, other, dump) = (path(&shell, "store"), path(&shell, "other"), path(&shell, "state"));
    let answer = shell.json(&["dump", "-o", &dump, "--state-only"]).remove(0);
    assert_eq!(
        (&answer["kind"], &answer["from"], &answer["transactions"]),
        (&json!("state"), &answer["to"], &json!(0))
    );
    shell.ok(&at(&other, &["restore", &dump]));
    assert_eq!(everything(&shell, &other).0, everything(&shell, &store).0);
    let next = answer["to"].as_u64().unwrap() + 1;
    assert_eq!(shell.json(&at(&other, &["set", "p", "k", "v"])), [json!({"position": next})]);
    assert_eq!(shell.json(&at(&other, &["stats"]))[0]["floor"], answer["to"]);
    fs::remove_dir_all(shell.path("other/base")).unwrap();
    assert_eq!(shell.ok(&at(&other, &["get", "p", "k"])), b"v");
    assert_eq!(shell.json(&at(&other, &["verify"]))[0]["ok"], true);
    shell.fails(&at(&other, &["show", "1"]), 3, "not_found");
    shell.fails(&at(&other, &["dump", "-o", &path(&shell, "x"), "--since", "1"]), 3, "not_found");
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_left() {
    let shell = imported();
    let (full, later, other) = (path(&shell, "full"), path(&shell, "later"), path(&shell, "other"));
    let head = shell.json(&["dump", "-o", &full]).remove(0)["to"].as_u64().unwrap().to_string();
    shell.ok(&["set", "p", "k", "v"]);
    shell.ok(&["dump", "-o", &later, "--since", &head]);
    shell.fails(&["dump", "-o", &path(&shell, "x"), "--since", "99999"], 2, "invalid");
    shell.fails(&["dump", "-o", &path(&shell, "x"), "--at", "99999"], 2, "invalid");
    shell.fails(&["dump", "-o", &path(&shell, "no/such/folder")], 6, "unavailable");
    shell.fails(&at(&other, &["restore", &path(&shell, "none")]), 3, "not_found");
    shell.fails(&at(&other, &["dump", "-o", &path(&shell, "x")]), 3, "not_found");
    shell.fails(&at(&other, &["restore", &later]), 4, "conflict");
    shell.fails(&at(&other, &["restore", &later, &full]), 2, "invalid");
    shell.fails(&at(&other, &["restore", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")]), 2, "invalid");
    shell.fails(&["verify", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")], 2, "invalid");
    let bytes = fs::read(&full).unwrap();
    let (cut, flipped) = (path(&shell, "cut"), path(&shell, "flipped"));
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::write(&flipped, [&bytes[..500], &[bytes[500] ^ 1], &bytes[501..]].concat()).unwrap();
    for damaged in [&cut, &flipped] {
        shell.fails(&at(&other, &["restore", damaged]), 5, "corrupt");
        let found = shell.run(&["--json", "verify", damaged]);
        assert_eq!(found.status.code(), Some(5));
        let report = lines(&found.stdout).remove(0);
        assert_eq!((&report["ok"], &report["problems"][0]["kind"]), (&json!(false), &json!("dump")), "{report}");
    }
    shell.fails(&at(&other, &["get", "p", "k"]), 3, "not_found");
    let left: Vec<_> = fs::read_dir(shell.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".unfinished") && name != "x"), "{left:?}");
    // Now it can be.
    shell.ok(&at(&other, &["restore", &full, &later]));
    assert_eq!(shell.ok(&at(&other, &["get", "p", "k"])), b"v");
    // It is its own history now.
    shell.ok(&at(&other, &["set", "p", "k", "w"]));
    shell.ok(&["set", "p", "k", "x"]);
    let fork = path(&shell, "fork");
    shell.ok(&["dump", "-o", &fork, "--since", &head]);
    shell.fails(&at(&other, &["restore", &fork]), 4, "conflict");
    assert_eq!(shell.ok(&at(&other, &["get", "p", "k"])), b"w");
}

#[test]
fn a_standby_is_fed_beside_writers() {
    let shell = Shell::with_store();
    let standby = path(&shell, "standby");
    let mut writer = shell.spawn(&["apply", "-", "--concurrency", "8"]);
    let mut input = writer.stdin.take().unwrap();
    let mut answers = BufReader::new(writer.stdout.take().unwrap());
    let mut since = 0;
    let mut answer = String::new();
    for round in 0..5u64 {
        for number in 0..200 {
            let line = json!({"ops": [{"op": "set", "partition": "p", "key": format!("{number}"), "value": format!("{round:08}")}]});
            writeln!(input, "{line}").unwrap();
        }
        // Some are acknowledged, others are on their way.
        for _ in 0..150 {
            answers.read_line(&mut answer).unwrap();
        }
        let dumped = shell.run(&["--json", "dump", "-o", "-", "--since", &since.to_string()]);
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        let told = lines(&dumped.stderr).remove(0);
        // At least what was acknowledged; the dump before may have had more already.
        assert!(told["to"].as_u64().unwrap() >= since.max((round + 1) * 150) && told["from"] == since + 1, "{told}");
        let restored = shell.run_with(&at(&standby, &["--json", "restore", "-"]), &dumped.stdout);
        match round {
            // There is nothing yet that it goes on from.
            0 if since == 0 && !restored.status.success() => {
                let full = shell.run(&["dump", "-o", "-", "--at", &told["to"].to_string()]).stdout;
                assert!(shell.run_with(&at(&standby, &["restore", "-"]), &full).status.success());
            }
            _ => assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr)),
        }
        since = told["to"].as_u64().unwrap();
    }
    drop(input);
    answers.read_line(&mut answer).unwrap();
    while answers.read_line(&mut answer).unwrap() > 0 {}
    assert!(writer.wait().unwrap().success());
    let rest = path(&shell, "rest");
    shell.ok(&["dump", "-o", &rest, "--since", &since.to_string()]);
    shell.ok(&at(&standby, &["restore", &rest]));
    assert_eq!(everything(&shell, &standby), everything(&shell, &path(&shell, "store")));
    assert_eq!(shell.json(&at(&standby, &["verify"]))[0]["ok"], true);
}

#[test]
fn fault_09_a_killed_restore_is_completed_by_the_same_again() {
    let shell = imported();
    let dump = path(&shell, "dump");
    shell.ok(&["dump", "-o", &dump, "--no-compress"]);
    let whole = everything(&shell, &path(&shell, "store"));
    for round in 0..6u64 {
        let other = path(&shell, &format!("other{round}"));
        let args = at(&other, &["restore", &dump]);
        let mut restoring = shell.command(&args).stdin(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(4 * round));
        let _ = restoring.kill();
        restoring.wait().unwrap();
        // Nothing is visible, or everything.
        let seen = shell.run(&at(&other, &["export"]));
        assert!(matches!(seen.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&seen.stderr));
        shell.ok(&args);
        assert_eq!(everything(&shell, &other), whole, "round {round}");
        assert!(!shell.path(&format!("other{round}/log.restoring")).exists());
    }
}
