//! The command line as a script sees it: the real binary, its exit codes, its JSON.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A store in a directory of its own, reached through the binary only.
pub struct Shell {
    dir: TempDir,
    store: String,
    /// Where checkpoints rest, if not in the store's directory.
    pub base: Option<String>,
}

impl Shell {
    /// A directory without a store.
    pub fn new() -> Shell {
        Shell { dir: tempfile::tempdir().unwrap(), store: "store".to_owned(), base: None }
    }

    /// The same in this directory.
    pub fn within(dir: TempDir) -> Shell {
        Shell { dir, store: "store".to_owned(), base: None }
    }

    /// A path beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory with an empty store.
    pub fn with_store() -> Shell {
        let shell = Shell::new();
        shell.ok(&["init"]);
        shell
    }

    /// Gives the store's directory another name.
    pub fn rename(&mut self, name: &str) {
        fs::rename(self.path(&self.store), self.path(name)).unwrap();
        self.store = name.to_owned();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lakelog"));
        command.args(args).env_remove("LAKELOG_LOG").env("LAKELOG_STORE", self.path(&self.store));
        if let Some(base) = &self.base {
            command.env("LAKELOG_BASE", base);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::piped()).spawn().unwrap()
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn(args);
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Standard output of a command that must succeed.
    pub fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The JSON lines of a command that must succeed.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        lines(&self.ok(&[&["--json"], args].concat()))
    }

    /// A command must fail so, in text and in JSON.
    pub fn fails(&self, args: &[&str], code: i32, kind: &str) {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{args:?}");
        let output = self.run(&[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?} with --json");
        let error = lines(&output.stderr);
        assert_eq!(error.len(), 1, "{args:?}: {error:?}");
        assert_eq!(error[0]["error"], kind, "{args:?}: {error:?}");
        assert!(error[0]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

pub fn lines(bytes: &[u8]) -> Vec<Value> {
    bytes.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

#[test]
fn a_store_is_made_once_and_never_by_accident() {
    let shell = Shell::new();
    for args in
        [&["get", "p", "k"][..], &["scan", "p"], &["set", "p", "k", "v"], &["checkpoint"], &["log"], &["show", "1"]]
    {
        shell.fails(args, 3, "not_found");
    }
    assert_eq!(fs::read_dir(shell.dir.path()).unwrap().count(), 0, "reading made something");
    let made = shell.json(&["init"]);
    assert_eq!(made[0]["log_id"].as_str().unwrap().len(), 32);
    shell.fails(&["init"], 4, "conflict");
}

#[test]
fn values_are_bytes_and_conditions_hold() {
    let shell = Shell::with_store();
    assert_eq!(shell.json(&["set", "p", "k", "v1", "--if-absent"]), [json!({"position": 1})]);
    shell.fails(&["set", "p", "k", "v2", "--if-absent"], 4, "conflict");
    shell.fails(&["set", "p", "other", "v", "--if-exists"], 4, "conflict");
    shell.fails(&["set", "p", "k", "v2", "--if-version", "7"], 4, "conflict");
    shell.fails(&["delete", "p", "k", "--if-value", "v2"], 4, "conflict");
    assert_eq!(shell.ok(&["get", "p", "k"]), b"v1");

    let value = b"\0\xff\n\r\n";
    let output = shell.run_with(&["--json", "set", "p", "k", "-", "--if-version", "1"], value);
    assert_eq!(lines(&output.stdout), [json!({"position": 2})]);
    assert_eq!(shell.ok(&["get", "p", "k"]), value);
    let found = json!({"partition": "p", "key": "k", "value": "AP8KDQo=", "version": 2});
    assert_eq!(shell.json(&["get", "p", "k"]), [found]);

    shell.ok(&["--hex", "set", "70", "ff00", "", "--if-absent"]);
    let empty = json!({"partition": "p", "key": {"base64": "/wA="}, "value": "", "version": 3});
    assert_eq!(shell.json(&["scan", "p", "--from", "l"]), [empty]);
    assert_eq!(shell.json(&["scan", "p", "--limit", "1"]).len(), 1);
    assert_eq!(shell.json(&["scan", "p", "--prefix", "k"]).len(), 1);
    assert_eq!(shell.json(&["scan", "nobody"]), [] as [Value; 0]);

    // Standard input is empty here.
    shell.fails(&["delete", "p", "k", "--if-value", "-"], 4, "conflict");
}

#[test]
fn bad_arguments_are_invalid_and_change_nothing() {
    let shell = Shell::with_store();
    let (long_partition, long_key) = ("p".repeat(513), "k".repeat(2600));
    for args in [
        &["nonsense"][..],
        &["set", "", "k", "v"],
        &["set", "p", "", "v"],
        &["set", &long_partition, "k", "v"],
        &["set", "p", &long_key, "v"],
        &["--hex", "set", "00aa", "6b", "76"],
        &["--hex", "delete-range", "00aa"],
        &["--hex", "get", "7", "6b"],
        &["set", "p", "k", "v", "--actor", ""],
        &["set", "p", "k", "v", "--request-id", ""],
        &["set", "p", "k", "-", "--if-value", "-"],
        &["show", "1"],
        &["show", "0"],
        &["log", "--from", "2"],
        &["log", "--since", "yesterday"],
        &["--store", "postgres://user:secret@host/db", "scan", "p"],
    ] {
        shell.fails(args, 2, "invalid");
    }
    let too_long = shell.run_with(&["set", "p", "k", "-"], &vec![0; (16 << 20) + 1]);
    assert_eq!(too_long.status.code(), Some(2));
    assert_eq!(shell.json(&["log", "--all"]), [] as [Value; 0]);
    let secret = shell.run(&["--store", "postgres://user:secret@host/db", "scan", "p"]);
    assert!(!String::from_utf8_lossy(&secret.stderr).contains("secret"));
}

#[test]
fn a_request_is_done_once() {
    let shell = Shell::with_store();
    let set = ["set", "p", "k", "v", "--request-id", "r1", "--actor", "ann"];
    assert_eq!(shell.json(&set), [json!({"position": 1})]);
    assert_eq!(shell.json(&set), [json!({"position": 1})]);
    shell.fails(&["set", "p", "k", "w", "--request-id", "r1"], 2, "invalid");
    assert_eq!(shell.json(&["log"]).len(), 1);
}

#[test]
fn the_log_tells_who_did_what() {
    let shell = Shell::with_store();
    shell.ok(&["set", "p", "a/1", "v", "--actor", "ann", "--reason", "first"]);
    shell.ok(&["set", "p", "b/1", "v"]);
    shell.ok(&["delete-range", "p", "--prefix", "a/", "--actor", "ann"]);
    let log = shell.json(&["log"]);
    assert_eq!(log.iter().map(|line| line["position"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&log[0]["actor"], &log[0]["reason"]), (&json!("ann"), &json!("first")));
    assert!(log[1]["actor"].as_str().unwrap().starts_with("cli:"));
    let writes =
        json!([{"kind": "delete_range", "writes": [{"op": "delete_range", "partition": "p", "prefix": "a/"}]}]);
    assert_eq!(log[2]["events"], writes);

    let positions = |args: &[&str]| -> Vec<u64> {
        shell.json(args).iter().map(|line| line["position"].as_u64().unwrap()).collect()
    };
    let (first, last) = (log[0]["time"].as_str().unwrap(), log[2]["time"].as_str().unwrap());
    assert_eq!(positions(&["log", "--reverse"]), [3, 2, 1]);
    assert_eq!(positions(&["log", "--reverse", "--limit", "2"]), [3, 2]);
    assert_eq!(positions(&["log", "--limit", "0"]), [] as [u64; 0]);
    assert_eq!(positions(&["log", "--from", "2", "--to", "2"]), [2]);
    assert_eq!(positions(&["log", "--from", "4"]), [] as [u64; 0]);
    assert_eq!(positions(&["log", "--until", first]), [1]);
    assert_eq!(positions(&["log", "--since", last]), [3]);
    assert_eq!(positions(&["log", "--reverse", "--until", first]), [1]);
    assert_eq!(positions(&["log", "--actor", "ann"]), [1, 3]);
    assert_eq!(positions(&["log", "--partition", "p", "--prefix", "a/1"]), [1, 3]);
    assert_eq!(positions(&["log", "--kind", "delete_range"]), [3]);
    assert_eq!(positions(&["show", "2"]), [2]);
    assert_eq!(positions(&["tail", "--from", "2"]), [2, 3]);
    assert_eq!(positions(&["tail"]), [1, 2, 3]);
}

#[test]
fn apply_answers_every_line() {
    let shell = Shell::with_store();
    let input = br#"{"ops":[{"op":"set","partition":"p","key":"a","value":"djE="},{"op":"set","partition":"q","key":"a","value":"djE="}]}
nonsense
{"ops":[{"op":"check","partition":"p","key":"a","if":{"absent":true}},{"op":"set","partition":"p","key":"b","value":""}]}
{"ops":[{"op":"set","partition":"p","key":"c","value":""},{"op":"delete","partition":"p","key":"c"}]}
{"id":"r","actor":"bob","reason":"why","ops":[{"op":"delete_range","partition":"p"},{"op":"set","partition":"p","key":"a","value":"djI=","if":{"version":1}}]}"#;
    let output = shell.run_with(&["apply", "-", "--actor", "ann"], input);
    assert_eq!(output.status.code(), Some(7));
    let answers = lines(&output.stdout);
    let short: Vec<Value> =
        answers.iter().map(|answer| json!([answer["line"], answer["position"], answer["error"]])).collect();
    assert_eq!(
        json!(short),
        json!([[1, 1, null], [2, null, "invalid"], [3, null, "conflict"], [4, null, "invalid"], [5, 2, null]])
    );
    let log = shell.json(&["log"]);
    assert_eq!((&log[0]["actor"], &log[1]["actor"]), (&json!("ann"), &json!("bob")));
    assert_eq!((&log[1]["reason"], &log[1]["request_id"]), (&json!("why"), &json!("r")));
    assert_eq!(shell.ok(&["get", "p", "a"]), b"v2");
    assert_eq!(shell.json(&["scan", "p"]).len(), 1);

    let output = shell.run_with(&["apply", "-", "--exit-on-error"], input);
    assert_eq!(output.status.code(), Some(2), "the code of line 2");
    assert_eq!(lines(&output.stdout).len(), 2);
    let output = shell.run_with(&["apply", "-"], b"");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    shell.fails(&["apply", "no such file"], 3, "not_found");
}

#[test]
fn one_process_writes_and_others_read_the_files() {
    let shell = Shell::with_store();
    let mut writer = shell.spawn(&["apply", "-"]);
    let mut input = writer.stdin.take().unwrap();
    let mut answers = BufReader::new(writer.stdout.take().unwrap()).lines();
    writeln!(input, r#"{{"ops":[{{"op":"set","partition":"p","key":"k","value":""}}]}}"#).unwrap();
    // Answered, so durable and readable by others, while input is still open.
    assert_eq!(answers.next().unwrap().unwrap(), r#"{"line":1,"position":1}"#);
    assert_eq!(shell.json(&["log"]).len(), 1);
    assert_eq!(shell.json(&["tail"]).len(), 1);
    assert_eq!(shell.json(&["show", "1"]).len(), 1);
    // What needs the views is asked from the writer; changing them is not.
    assert_eq!(shell.ok(&["get", "p", "k"]), b"");
    let refused = shell.run(&["set", "p", "k", "v"]);
    assert_eq!(refused.status.code(), Some(6));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains(&format!("pid {}", writer.id())), "{message}");
    shell.fails(&["set", "p", "k", "v"], 6, "unavailable");

    let mut follower = shell.spawn(&["--json", "tail", "--from", "1", "--follow"]);
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut position =
        || serde_json::from_str::<Value>(&followed.next().unwrap().unwrap()).unwrap()["position"].clone();
    assert_eq!(position(), 1);
    writeln!(input, r#"{{"ops":[{{"op":"delete","partition":"p","key":"k"}}]}}"#).unwrap();
    assert_eq!(position(), 2);
    follower.kill().unwrap();
    follower.wait().unwrap();

    drop(input);
    assert!(writer.wait().unwrap().success());
    assert_eq!(shell.json(&["scan", "p"]), [] as [Value; 0]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let shell = Shell::with_store();
    let big = "x".repeat(100_000);
    shell.ok(&["set", "p", "k", &big]);
    for args in [&["get", "p", "k"][..], &["scan", "p"], &["log"]] {
        let mut child = shell.spawn(args);
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{args:?}");
    }
}

#[test]
fn help_is_an_answer() {
    let shell = Shell::new();
    assert!(String::from_utf8(shell.ok(&["--help"])).unwrap().contains("Exit codes"));
    assert!(String::from_utf8(shell.ok(&["--version"])).unwrap().starts_with("lakelog "));
    assert_eq!(shell.run(&[]).status.code(), Some(2));
}

#[test]
fn marks_name_positions() {
    let shell = Shell::with_store();
    for value in ["1", "2", "3"] {
        shell.ok(&["set", "p", "k", value]);
    }
    let mark = |name: &str, position: u64| json!({"name": name, "position": position});
    assert_eq!(shell.json(&["mark", "now", "--actor", "ann", "--reason", "r"]), [mark("now", 3)]);
    assert_eq!(shell.json(&["mark", "first", "--at", "1"]), [mark("first", 1)]);
    assert_eq!(shell.json(&["mark", "again", "--at", "now"]), [mark("again", 3)]);
    let second = shell.json(&["show", "2"])[0]["time"].as_str().unwrap().to_owned();
    assert_eq!(shell.json(&["mark", "then", "--at", &second]), [mark("then", 2)]);
    let all = [mark("again", 3), mark("first", 1), mark("now", 3), mark("then", 2)];
    assert_eq!(shell.json(&["mark", "--list"]), all);
    for _ in 0..2 {
        assert_eq!(shell.json(&["mark", "--delete", "now", "--request-id", "r"]), [mark("now", 3)]);
    }
    assert_eq!(shell.json(&["mark", "--list"]).len(), 3);
    shell.fails(&["mark", "--delete", "now"], 3, "not_found");
    shell.fails(&["mark", "m", "--at", "now"], 3, "not_found");
    shell.fails(&["mark", "m", "--at", "99"], 2, "invalid");
    shell.fails(&["mark", "99"], 2, "invalid");
    let log = shell.json(&["log", "--all", "--kind", "mark_set", "--actor", "ann"]);
    assert_eq!(log[0]["events"], json!([{"kind": "mark_set", "writes": [], "name": "now", "at": 3}]));
}

#[test]
fn old_history_goes_when_asked() {
    let shell = Shell::with_store();
    for value in ["a", "b", "c", "d"] {
        shell.ok(&["set", "p", "k", value]);
    }
    shell.ok(&["mark", "keep", "--at", "2"]);
    shell.fails(&["trim", "--before", "9"], 2, "invalid");
    shell.fails(&["trim", "--before", "4"], 4, "conflict");
    shell.ok(&["mark", "--delete", "keep"]);
    let archive = shell.path("archive");
    let archive = archive.to_str().unwrap();
    let dry = &shell.json(&["trim", "--before", "4", "--dry-run"])[0];
    assert_eq!(dry["floor"], 3);
    assert_eq!(shell.json(&["stats"])[0]["floor"], 0);
    let done = &shell.json(&["trim", "--before", "4", "--archive", archive, "--actor", "ann"])[0];
    assert_eq!((&done["floor"], &done["segments"]), (&json!(3), &json!(0)));
    assert_eq!(shell.json(&["stats"])[0]["floor"], 3);
    let last = shell.json(&["log", "--reverse", "--limit", "1"]).remove(0);
    assert_eq!((&last["actor"], &last["reason"]), (&json!("ann"), &json!("trimmed")));
    shell.fails(&["show", "3"], 3, "not_found");
    shell.fails(&["trim", "--before", "2"], 3, "not_found");
    assert_eq!(shell.json(&["show", "4"])[0]["position"], 4);
    // The log and its archive are one log.
    assert_eq!(shell.json(&["show", "1", "--archive", archive])[0]["position"], 1);
    assert_eq!(shell.json(&["log", "--archive", archive]).len(), 7);
    shell.fails(&["log", "--archive", "nowhere"], 3, "not_found");
    assert_eq!(shell.json(&["verify", "--archive", archive])[0]["ok"], true);
    // So are their states.
    shell.fails(&["get", "p", "k", "--at", "1"], 3, "not_found");
    for (position, value) in [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d")] {
        assert_eq!(shell.ok(&["get", "p", "k", "--at", position, "--archive", archive]), value.as_bytes());
        let scanned = shell.json(&["scan", "p", "--at", position, "--archive", archive]);
        assert_eq!((scanned.len(), &scanned[0]["version"]), (1, &json!(position.parse::<u64>().unwrap())));
        let exported = shell.ok(&["export", "--at", position, "--archive", archive]);
        assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 2, "a header and a record");
    }
    shell.fails(&["get", "p", "k", "--at", "0", "--archive", archive], 3, "not_found");
    shell.fails(&["get", "p", "k", "--at", "99", "--archive", archive], 2, "invalid");
    shell.fails(&["get", "p", "k", "--at", "1", "--archive", "nowhere"], 3, "not_found");
    let versions = |arguments: &[&str]| -> Vec<_> {
        let told = shell.json(&[&["history", "p"], arguments, &["--archive", archive]].concat());
        told.into_iter().map(|version| (version["position"].as_u64().unwrap(), version["time"].is_string())).collect()
    };
    assert_eq!(versions(&["k"]), [1, 2, 3, 4].map(|position| (position, true)));
    assert_eq!(versions(&["--prefix", "", "--at", "2"]), [1, 2].map(|position| (position, true)));
    let told = shell.json(&["diff", "1", "4", "--archive", archive]);
    assert_eq!((told.len(), &told[0]["old"], &told[0]["new"]), (1, &json!("YQ=="), &json!("ZA==")));
    let second = shell.json(&["show", "2", "--archive", archive])[0]["time"].as_str().unwrap().to_owned();
    assert_eq!(shell.ok(&["get", "p", "k", "--at", &second, "--archive", archive]), b"b");
    shell.ok(&["mark", "m", "--at", "4"]);
    assert_eq!(shell.json(&["diff", &second, "m", "--archive", archive])[0]["change"], "changed");
    let state = shell.path("state.dump");
    let state = state.to_str().unwrap();
    shell.ok(&["dump", "--state-only", "--at", "2", "-o", state, "--archive", archive]);
    assert_eq!(shell.json(&["verify", state])[0]["head"], 2);
    // Nothing is left of what was made for it.
    let left = fs::read_dir(shell.path("store")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_str().unwrap().starts_with("past-")));
    // The state comes back from the snapshot.
    fs::remove_dir_all(shell.path("store").join("base")).unwrap();
    assert_eq!(shell.ok(&["get", "p", "k"]), b"d");
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
}

#[test]
fn values_are_erased_from_the_history() {
    let shell = Shell::with_store();
    for value in ["secret-one", "secret-two"] {
        shell.ok(&["set", "p", "k", value]);
        shell.ok(&["set", "p", "other", "stays"]);
    }
    shell.fails(&["redact", "--partition", "p", "--key", "none"], 3, "not_found");
    shell.fails(&["redact", "--position", "9"], 2, "invalid");
    assert_eq!(shell.json(&["redact", "--partition", "p", "--key", "k", "--dry-run"])[0]["redacted"], 2);
    let done = &shell.json(&["redact", "--partition", "p", "--key", "k", "--reason", "request 7"])[0];
    assert_eq!((&done["redacted"], &done["position"]), (&json!(2), &json!(5)));
    shell.fails(&["get", "p", "k", "--at", "3"], 3, "not_found");
    assert_eq!(shell.ok(&["get", "p", "other", "--at", "2"]), b"stays");
    let history = shell.json(&["history", "p", "k"]);
    let told: Vec<_> =
        history.iter().map(|version| (version["redacted"].clone(), version["deleted"].clone())).collect();
    assert_eq!(told, [(json!(true), json!(false)), (json!(true), json!(false)), (json!(false), json!(true))]);
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
    for entry in fs::read_dir(shell.path("store").join("log")).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        assert!(!content.windows(7).any(|window| window == b"secret-"));
    }
    let dump = shell.path("dump");
    shell.ok(&["dump", "-o", dump.to_str().unwrap()]);
    assert_eq!(shell.json(&["verify", dump.to_str().unwrap()])[0]["ok"], true);
}

/// With a process of its own, which the ordinary tests of the bench leave out.
#[test]
fn a_bench_of_an_open_after_a_kill_kills_a_process() {
    let shell = Shell::new();
    let dir = shell.path("bench");
    fs::create_dir(&dir).unwrap();
    let in_dir = ["--dir", dir.to_str().unwrap()];
    let measured = shell.json(&[&["bench", "--quick", "--sizes", "1000", "--only", "open"], &in_dir[..]].concat());
    let names: Vec<_> = measured.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["open-after-kill", "open-history"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "what it made is removed");
    shell.fails(&[&["bench", "--fill-to", "1000", "10"], &in_dir[..]].concat(), 2, "invalid");
}
