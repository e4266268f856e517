//! `import` and `export` as a script sees them: exit codes, JSON, files, and what a kill leaves.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::child;
use crate::cli::{Shell, lines};

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name).to_str().unwrap().to_owned()
}

/// A file of the newline-delimited format with these entries.
fn ndjson(entries: &[(&str, &str, &str)]) -> String {
    let mut file =
        r#"{"LakeFSVersion":"1","PackageName":"all","DBSchemaVersion":4,"CreatedAt":"2026-11-22T12:00:00Z"}"#
            .to_owned();
    for (partition, key, value) in entries {
        file += &format!("\n{{\"PartitionKey\":\"{partition}\",\"Key\":\"{key}\",\"Value\":\"{value}\"}}");
    }
    file
}

/// Records without the header, and without the blanks that lakeFS does not write.
fn records(file: &[u8]) -> Vec<u8> {
    let end = file.iter().position(|&byte| byte == b'\n').unwrap();
    String::from_utf8(file[end + 1..].to_vec()).unwrap().replace("\": \"", "\":\"").replace("\", \"", "\",\"").into()
}

fn exported(shell: &Shell) -> Vec<u8> {
    records(&shell.ok(&["export"]))
}

#[test]
fn a_real_store_goes_in_and_comes_out() {
    let shell = Shell::with_store();
    let file = fixture("kv-small/full.ndjson.zst");
    let dry = shell.json(&["import", &file, "--dry-run"]);
    assert_eq!((&dry[0]["entries"], &dry[0]["head"]), (&json!(2076), &json!(0)));
    assert_eq!(shell.json(&["log", "--all"]), [] as [Value; 0], "a dry run wrote");

    let report = shell.json(&["import", &file, "--actor", "ann", "--reason", "moving in"]).remove(0);
    let (entries, transactions) = (report["entries"].as_u64().unwrap(), report["transactions"].as_u64().unwrap());
    assert_eq!((entries, &report["already"], &report["refused"]), (2076, &json!(0), &json!([])));
    assert_eq!(report["head"], transactions);
    let in_partitions: u64 = report["partitions"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(in_partitions, entries);
    for transaction in shell.json(&["log"]) {
        assert_eq!((&transaction["actor"], &transaction["reason"]), (&json!("ann"), &json!("moving in")));
    }
    let again = shell.json(&["import", &file]).remove(0);
    assert_eq!((&again["entries"], &again["already"], &again["transactions"]), (&json!(0), &json!(2076), &json!(0)));
    assert_eq!(again["head"], report["head"]);

    let expected = zstd::decode_all(&fs::read(&file).unwrap()[..]).unwrap();
    assert_eq!(exported(&shell), records(&expected));
    let path = shell.path("export");
    let name = path.to_str().unwrap();
    shell.ok(&["export", "-o", name]);
    assert_eq!(records(&fs::read(&path).unwrap()), records(&expected));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    // The other format, through standard input, into another store: the same again.
    let dump = shell.ok(&["export", "--format", "kv-dump"]);
    let other = Shell::with_store();
    let output = other.run_with(&["--json", "import", "-"], &dump);
    assert_eq!((output.status.code(), &lines(&output.stdout)[0]["entries"]), (Some(0), &json!(2076)));
    assert_eq!(exported(&other), records(&expected));
    assert_eq!(shell.json(&["stats"])[0]["partitions"], report["partitions"]);
}

#[test]
fn records_that_are_refused_hold_up_nothing() {
    let shell = Shell::with_store();
    shell.ok(&["set", "p", "k", "mine"]);
    // p k, p l, the store's own partition, no key, no base64.
    let file = ndjson(&[
        ("cA==", "aw==", "dGhlaXJz"),
        ("cA==", "bA==", "dg=="),
        ("AHJlcXVlc3Rz", "aw==", "dg=="),
        ("cA==", "", "dg=="),
        ("cA==", "!", "dg=="),
        ("cA==", "/w==", "dg=="),
    ]);
    let output = shell.run_with(&["--json", "import", "-"], file.as_bytes());
    assert_eq!(output.status.code(), Some(7));
    let report = lines(&output.stdout).remove(0);
    assert_eq!((&report["entries"], &report["partitions"]), (&json!(2), &json!({"p": 2})));
    let refused = report["refused"].as_array().unwrap();
    let named = refused.iter().map(|refused| json!([refused["record"], refused["partition"], refused["key"]]));
    assert_eq!(
        named.collect::<Vec<_>>(),
        [json!([1, "p", "k"]), json!([3, "\0requests", "k"]), json!([4, "p", ""]), json!([5, "p", null])]
    );
    assert!(refused[0]["reason"].as_str().unwrap().contains("conflict"));
    assert_eq!(shell.ok(&["get", "p", "k"]), b"mine");

    let text = shell.run_with(&["import", "-", "--overwrite"], file.as_bytes());
    assert_eq!(text.status.code(), Some(7));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("imported 1 records in 1 transactions") && text.contains("3 refused"), "{text}");
    assert_eq!(shell.ok(&["get", "p", "k"]), b"theirs");

    // What is not UTF-8 does not fit into a `kv dump`.
    let output = shell.run(&["--json", "export", "--format", "kv-dump"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(lines(&output.stderr)[0]["key"], json!({"base64": "/w=="}));
    let dump: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(dump["entries"].as_array().unwrap().len(), 2);
    assert_eq!(shell.run(&["export"]).status.code(), Some(0));
}

#[test]
fn what_is_no_file_to_import_is_invalid() {
    let shell = Shell::with_store();
    shell.fails(&["import", "no such file"], 3, "not_found");
    let whole = ndjson(&[("cA==", "aw==", "dg=="), ("cA==", "bA==", "dg==")]);
    let damaged = &fs::read(fixture("kv-small/full.ndjson.zst")).unwrap()[..50_000];
    for input in [
        b"",
        &b"nonsense"[..],
        b"{}",
        b"[1, 2]",
        b"{\"version\":\"9.9\",\"timestamp\":\"x\",\"entries\":[]}",
        &whole.as_bytes()[whole.find('\n').unwrap()..],
        &whole.as_bytes()[..whole.len() - 5],
        b"\x1f\x8bnonsense",
        damaged,
    ] {
        let output = shell.run_with(&["--json", "import", "-"], input);
        let told = lines(&output.stderr);
        assert_eq!((output.status.code(), &told[0]["error"]), (Some(2), &json!("invalid")), "{input:?}: {told:?}");
        assert!(output.stdout.is_empty());
    }
    // The whole file completes what a cut one began.
    let whole = zstd::decode_all(&fs::read(fixture("kv-small/full.ndjson.zst")).unwrap()[..]).unwrap();
    let output = shell.run_with(&["import", "-"], &whole[..whole.len() - 5]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("record=`2076`") && message.contains("completes it"), "{message}");
    let output = shell.run_with(&["--json", "import", "-"], &whole);
    let report = lines(&output.stdout).remove(0);
    assert_eq!((&report["entries"], &report["already"]), (&json!(76), &json!(2000)));
    Shell::new().fails(&["import", &fixture("kv-small/kv-dump.json")], 3, "not_found");
    Shell::new().fails(&["export"], 3, "not_found");
}

#[test]
fn an_export_is_whole_or_not_there() {
    let shell = Shell::with_store();
    shell.ok(&["import", &fixture("kv-small/full.ndjson.zst")]);
    let nowhere = shell.path("no such folder/export");
    shell.fails(&["export", "-o", nowhere.to_str().unwrap()], 6, "unavailable");
    // A folder is not written over, and nothing is left beside it.
    let folder = shell.path("folder");
    fs::create_dir(&folder).unwrap();
    shell.fails(&["export", "-o", folder.to_str().unwrap()], 6, "unavailable");
    assert!(!shell.path("folder.unfinished").exists());
    let full = shell.run(&["export", "-o", "/dev/full"]);
    assert_eq!(full.status.code(), Some(6), "{}", String::from_utf8_lossy(&full.stderr));
    let mut child = shell.spawn(&["export"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "nobody reads");

    shell.ok(&["set", "p", "k", "v", "--request-id", "r"]);
    let count = |args: &[&str]| shell.ok(args).iter().filter(|&&byte| byte == b'\n').count();
    assert!(count(&["export", "--internal"]) > count(&["export"]) + 1, "requests are internal");
}

#[test]
fn an_import_that_was_killed_is_completed_by_the_next() {
    let whole = zstd::decode_all(&fs::read(fixture("kv-medium/full.ndjson.zst")).unwrap()[..]).unwrap();
    for (round, signal) in ["-KILL", "-INT", "-KILL"].into_iter().enumerate() {
        let shell = Shell::with_store();
        // Whoever started the tests in the background has SIGINT ignored, and with them their children.
        let mut import = child::under(&["env", "--default-signal=INT"], &shell.command(&["import", "-"]));
        let mut child = import.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let part = whole.len() * (2 + 2 * round) / 10;
        let bytes = whole[..part].to_vec();
        // Held open, so that it is the signal that ends the import.
        let feeder = thread::spawn(move || input.write_all(&bytes).map(|()| input));
        let some = rand::random_range(1..3 * (round + 1));
        for _ in 0..600 {
            if shell.json(&["log"]).len() >= some {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
        assert!(kill.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), None, "ended by the signal");
        drop(feeder.join().unwrap());

        let report = lines(&shell.run_with(&["--json", "import", "-"], &whole).stdout).remove(0);
        let (entries, already) = (report["entries"].as_u64().unwrap(), report["already"].as_u64().unwrap());
        assert_eq!(entries + already, 19_209);
        assert!(already > 0 && entries > 0, "round {round}: {entries} {already}");
        assert_eq!(exported(&shell), records(&whole));
        assert_eq!(shell.json(&["verify"])[0]["ok"], true);
    }
}
