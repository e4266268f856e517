//! What the operating system refuses a process, and what others do to its files: limits of file sizes and open files, a store that is
//! removed underneath, lock files that stay or go.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use lakelog::{Batch, Context, ErrorKind, Position, ScanOptions, Settings, Store};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::child;
use crate::cli::{Shell, lines};

/// A running `apply`, one line at a time.
struct Apply {
    child: Child,
    input: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Apply {
    fn new(mut child: Child) -> Apply {
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Apply { input: child.stdin.take(), child, answers }
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Value {
        let value = BASE64_STANDARD.encode(value);
        let line = format!(r#"{{"ops":[{{"op":"set","partition":"p","key":"{key}","value":"{value}"}}]}}"#);
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
        serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap()
    }

    /// The exit code at the end of the input.
    fn end(mut self) -> Option<i32> {
        drop(self.input.take());
        self.child.wait().unwrap().code()
    }
}

#[test]
fn fault_15_a_file_size_limit_is_an_error_and_no_death() {
    let shell = Shell::new();
    let limited = |bytes: u64, args: &[&str]| {
        child::under(&["prlimit", &format!("--fsize={bytes}")], &shell.command(&[&["--json"], args].concat()))
    };
    let refused = |bytes: u64, args: &[&str]| {
        let output = limited(bytes, args).output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(lines(&output.stderr)[0]["error"], "unavailable", "{args:?}");
    };
    refused(1 << 20, &["init"]);
    shell.ok(&["init"]);

    // The segment is there already, so what lies beyond the limit is found out by writing there.
    let mut apply = Apply::new(limited(4 << 20, &["apply", "-"]).spawn().unwrap());
    let value = vec![7; 1 << 20];
    let answers: Vec<Value> = (0..8).map(|number| apply.set(&number.to_string(), &value)).collect();
    let applied = answers.iter().take_while(|answer| answer["position"].is_number()).count();
    assert!((2..=4).contains(&applied), "{answers:?}");
    assert_eq!(answers[applied]["error"], "unknown", "{answers:?}");
    assert!(answers[applied + 1..].iter().all(|answer| answer["error"] == "closed"), "{answers:?}");
    assert_eq!(apply.end(), Some(7));
    let found = shell.json(&["scan", "p"]);
    assert!(found.len() == applied || found.len() == applied + 1, "{}", found.len());

    // The embedded base writes files of its own.
    refused(64 << 10, &["checkpoint"]);
    shell.ok(&["checkpoint"]);
    assert_eq!(shell.json(&["scan", "p"]), found);
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
}

#[test]
fn fault_15_too_few_open_files_are_an_error() {
    let shell = Shell::with_store();
    let mut expected = 0;
    let mut outcomes = BTreeMap::new();
    for limit in (6..24).chain([32, 64]) {
        let set = shell.command(&["--json", "set", "p", &limit.to_string(), "v"]);
        let output = child::under(&["prlimit", &format!("--nofile={limit}")], &set).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => expected += 1,
            Some(6) => {}
            code => panic!("{limit} open files: {code:?}: {told}"),
        }
        outcomes.insert(limit, output.status.code());
    }
    assert_eq!((outcomes[&6], outcomes[&64]), (Some(6), Some(0)), "{outcomes:?}");
    assert_eq!(shell.json(&["scan", "p"]).len(), expected);
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
}

/// A server that has run out of open files for a while: what needs another one is refused, and works again afterwards.
#[test]
fn fault_15_a_process_without_open_files_left_is_refused_and_goes_on() {
    const TEST: &str = "limits::fault_15_a_process_without_open_files_left_is_refused_and_goes_on";
    if child::role().is_none() {
        child::passes(child::again_under(&["prlimit", "--nofile=160"], TEST, "out of files"));
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("store");
    let settings =
        Settings { segment_bytes: 64 << 10, min_free_bytes: Some(0), scrub_bytes_per_second: 0, ..Settings::default() };
    Runtime::new().unwrap().block_on(async {
        let store = Store::builder(&dir).settings(settings.clone()).create().await.unwrap();
        let mut acknowledged: BTreeMap<u64, Position> = BTreeMap::new();
        let mut number = 0_u64;
        for round in 0..12 {
            let mut hogged = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                hogged.push(file);
            }
            let mut refused = None;
            while refused.is_none() {
                number += 1;
                let batch = Batch::new().set(b"p", &number.to_be_bytes(), &[9; 9000]);
                match store.write(Context::new("test"), batch).await {
                    Ok(done) => drop(acknowledged.insert(number, done.position)),
                    Err(error) => refused = Some(error),
                }
            }
            let refused = refused.unwrap();
            assert_eq!(refused.kind(), ErrorKind::Unavailable, "round {round}: {}", refused.report());
            drop(hogged);
            number += 1;
            let batch = Batch::new().set(b"p", &number.to_be_bytes(), &[9; 9000]);
            let done = store.write(Context::new("test"), batch).await.unwrap();
            acknowledged.insert(number, done.position);
        }
        store.close().await.unwrap();
        let store = Store::builder(&dir).settings(settings).open().await.unwrap();
        let mut found = BTreeMap::new();
        let mut entries = store.scan(ScanOptions::new(b"p")).unwrap();
        while let Some(entry) = entries.next().await {
            let entry = entry.unwrap();
            found.insert(u64::from_be_bytes(entry.key()[..].try_into().unwrap()), entry.version);
        }
        assert_eq!(found, acknowledged);
        store.close().await.unwrap();
    });
}

#[test]
fn fault_15_a_store_deleted_underneath_acknowledges_no_more() {
    let shell = Shell::with_store();
    let mut apply = Apply::new(shell.spawn(&["apply", "-"]));
    assert_eq!(apply.set("k", b"v")["position"], 1);
    let begun = Instant::now();
    // The store may make a file in it while it is emptied.
    while fs::remove_dir_all(shell.path("store")).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not removed");
    }
    let answer = loop {
        let answer = apply.set("k", b"v");
        if answer["error"].is_string() {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never noticed");
    };
    assert!(answer["error"] == "closed" && answer["message"].as_str().unwrap().contains("missing"), "{answer}");
    assert_eq!(apply.set("k", b"v")["error"], "closed");
    assert_eq!(apply.end(), Some(7));
    shell.fails(&["get", "p", "k"], 3, "not_found");
}

#[test]
fn fault_28_a_lock_file_that_was_left_or_removed() {
    let shell = Shell::with_store();
    let lock = shell.path("store/LOCK");
    for round in 0..3 {
        let mut apply = Apply::new(shell.spawn(&["apply", "-"]));
        assert!(apply.set("k", b"v")["position"].is_number());
        // Somebody takes it for stale.
        if round > 0 {
            fs::remove_file(&lock).unwrap();
        }
        shell.fails(&["set", "p", "k", "w"], 6, "unavailable");
        assert!(apply.set("k", b"v")["position"].is_number(), "the first goes on");
        apply.child.kill().unwrap();
        apply.child.wait().unwrap();
        // The file is there, whoever it names is not.
        assert!(lock.exists());
        shell.ok(&["set", "p", "k", "w"]);
    }
    assert_eq!(shell.json(&["log"]).len(), 9);
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
}

#[test]
fn fault_28_processes_that_start_at_once() {
    let shell = Shell::with_store();
    let mut expected = 0;
    for _ in 0..4 {
        let mut running: Vec<Child> = (0..3).map(|_| shell.spawn(&["apply", "-"])).collect();
        let line = r#"{"ops":[{"op":"set","partition":"p","key":"k","value":""}]}"#;
        for child in &mut running {
            // Those who lost do not read any more.
            let mut input = child.stdin.take().unwrap();
            let _ = (0..20).try_for_each(|_| writeln!(input, "{line}"));
        }
        let mut codes = Vec::new();
        for child in running {
            let output = child.wait_with_output().unwrap();
            let applied = output.stdout.lines().count();
            let code = output.status.code().unwrap();
            assert_eq!(applied, if code == 0 { 20 } else { 0 }, "exit code {code}");
            expected += applied;
            codes.push(code);
        }
        assert!(codes.iter().all(|code| matches!(code, 0 | 6)) && codes.contains(&0), "{codes:?}");
    }
    assert_eq!(shell.json(&["log"]).len(), expected);
}
