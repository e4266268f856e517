//! Stores that are held, read-only, newer, damaged or ahead of their log: what each verb says, and that nothing is made worse.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use bytes::Bytes;
use lakelog::env::Env;
use lakelog::event::{Event, Transaction, UnknownEvent};
use lakelog::log::{DirLock, Draft, FileLog, Log, LogFiles, LogSettings};
use lakelog::{Digest, Position, Salt, Timestamp};
use serde_json::{Value, json};

use crate::cli::{Shell, lines};

/// A store with ten entries, half of them in the base.
fn filled() -> Shell {
    let shell = Shell::with_store();
    let set = |number: u32| {
        shell.ok(&["set", "p", &format!("k{number}"), &format!("value {number}")]);
    };
    (0..5).for_each(set);
    shell.ok(&["checkpoint"]);
    (5..10).for_each(set);
    shell
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// The active segment, and where each of its transactions begins.
fn segment(shell: &Shell) -> PathBuf {
    let dir = shell.path("store/log");
    LogFiles::open(&Env::os(), &dir).unwrap().segments().last().unwrap().path(&dir)
}

/// Changes one byte of the first place where these bytes stand.
fn damage(path: &Path, place: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(place.len()).position(|window| window == place).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

const NEED_THE_STORE: [&[&str]; 7] = [
    &["set", "p", "k", "v"],
    &["delete", "p", "k"],
    &["delete-range", "p"],
    &["checkpoint"],
    &["get", "p", "k1"],
    &["scan", "p"],
    &["export"],
];
/// How many of them change the store; the others can be asked from the process that has it open.
const CHANGE_THE_STORE: usize = 4;

#[test]
fn a_store_that_is_held_is_read_from_its_files() {
    let shell = filled();
    let mut holder = shell.spawn(&["apply", "-"]);
    let mut input = holder.stdin.take().unwrap();
    let mut answers = BufReader::new(holder.stdout.take().unwrap()).lines();
    writeln!(input, r#"{{"ops":[{{"op":"set","partition":"p","key":"new","value":""}}]}}"#).unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), r#"{"line":1,"position":11}"#);

    for args in
        NEED_THE_STORE.into_iter().take(CHANGE_THE_STORE).chain([&["repair"][..], &["import", "LICENSE"], &["init"]])
    {
        let output = shell.run(args);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(6), "{args:?}: {message}");
        assert!(message.contains(&format!("pid {}", holder.id())), "{args:?}: {message}");
    }
    let stats = shell.json(&["stats"]).remove(0);
    assert_eq!((&stats["head"], &stats["synced"], &stats["floor"]), (&json!(11), &json!(11), &json!(0)));
    assert_eq!(stats["entries"], json!(11), "asked from who has it open: {stats}");
    for args in NEED_THE_STORE.iter().skip(CHANGE_THE_STORE) {
        assert!(shell.run(args).status.success(), "{args:?}");
    }
    let verified = shell.json(&["verify"]).remove(0);
    assert_eq!(
        (&verified["ok"], &verified["head"], &verified["skipped"]),
        (&json!(true), &json!(11), &json!(["views"]))
    );

    drop(input);
    assert!(holder.wait().unwrap().success());
    let stats = shell.json(&["stats"]).remove(0);
    assert_eq!((&stats["checkpoint"], &stats["entries"]), (&json!(5), &json!(11)));
    let verified = shell.json(&["verify"]).remove(0);
    assert_eq!((&verified["ok"], &verified["skipped"]), (&json!(true), &json!([])));
}

#[test]
fn fault_28_of_many_processes_one_wins() {
    let shell = Shell::with_store();
    thread::scope(|scope| {
        let attempts: Vec<_> = (0..8)
            .map(|number: u32| {
                let (shell, value) = (&shell, number.to_string());
                scope.spawn(move || shell.run(&["set", "p", "k", &value, "--if-absent"]).status.code().unwrap())
            })
            .collect();
        let codes: Vec<i32> = attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect();
        assert_eq!(codes.iter().filter(|&&code| code == 0).count(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| matches!(code, 0 | 4 | 6)), "{codes:?}");
    });
    assert_eq!(shell.json(&["log"]).len(), 1);
}

#[test]
fn fault_18_damage_at_a_promised_position_is_named_and_left_alone() {
    let shell = filled();
    let (segment, before) = (segment(&shell), files(&shell.path("store/log")));
    damage(&segment, b"value 7");
    let damaged = fs::read(&segment).unwrap();
    for args in NEED_THE_STORE {
        shell.fails(args, 5, "corrupt");
    }
    let message = shell.run(&["get", "p", "k1"]).stderr;
    let message = String::from_utf8(message).unwrap();
    assert!(message.contains(segment.to_str().unwrap()) && message.contains('8'), "{message}");

    for args in [&["verify"][..], &["repair"], &["repair", "--yes"]] {
        let output = shell.run(&[&["--json"], args].concat());
        assert_eq!(output.status.code(), Some(5), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let answer = lines(&output.stdout).remove(0);
        if args == ["verify"] {
            let problem = &answer["problems"][0];
            assert_eq!((&answer["ok"], &problem["kind"]), (&json!(false), &json!("log")));
            assert_eq!((&problem["positions"], &problem["file"]), (&json!([8, 8]), &json!(segment)));
        } else {
            assert_eq!((&answer["done"], answer["plan"].as_array().unwrap().len()), (&json!(false), 1), "{answer}");
        }
    }
    // What lies before it can be read.
    let output = shell.run(&["--json", "log"]);
    assert_eq!((output.status.code(), lines(&output.stdout).len()), (Some(5), 7));
    assert_eq!(shell.json(&["show", "7"]).len(), 1);
    assert_eq!(fs::read(&segment).unwrap(), damaged, "the evidence was changed");
    assert_eq!(files(&shell.path("store/log")).len(), before.len());
}

#[test]
fn fault_23_a_damaged_base_is_rebuilt_from_the_log() {
    let shell = filled();
    let current = shell.path("store/base/CURRENT");
    damage(&current, b"LKLGBASE");
    let output = shell.run(&["--json", "verify"]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(lines(&output.stdout)[0]["problems"][0]["kind"], "base");
    assert_eq!(shell.ok(&["get", "p", "k1"]), b"value 1");
    shell.ok(&["checkpoint"]);
    fs::remove_dir_all(shell.path("store/base")).unwrap();
    assert_eq!(shell.json(&["scan", "p"]).len(), 10);
    assert_eq!(shell.json(&["repair"]), [json!({"plan": [], "done": false})]);
    assert_eq!(shell.json(&["verify"])[0]["ok"], true);
}

#[test]
fn fault_07_a_base_ahead_of_its_log_is_dropped_only_when_told() {
    let shell = filled();
    let old = shell.path("old");
    copy(&shell.path("store/log"), &old);
    shell.ok(&["set", "p", "k10", "lost with the log"]);
    shell.ok(&["checkpoint"]);
    fs::remove_dir_all(shell.path("store/log")).unwrap();
    copy(&old, &shell.path("store/log"));

    shell.fails(&["scan", "p"], 5, "corrupt");
    let message = shell.run(&["scan", "p"]).stderr;
    assert!(String::from_utf8(message).unwrap().contains("11"), "the missing position is named");
    let plan = shell.json(&["repair"]).remove(0);
    assert_eq!((&plan["done"], plan["plan"].as_array().unwrap().len()), (&json!(false), 1), "{plan}");
    shell.fails(&["scan", "p"], 5, "corrupt");
    assert_eq!(shell.json(&["repair", "--yes"])[0]["done"], true);
    assert_eq!(shell.json(&["scan", "p"]).len(), 10);
}

#[test]
fn fault_32_a_newer_format_is_left_to_newer_versions() {
    let shell = filled();
    for slot in ["manifest.0", "manifest.1"] {
        let path = shell.path("store/log").join(slot);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let length = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) as usize;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..12]);
        crc.update(&bytes[16..length]);
        bytes[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
        fs::write(path, bytes).unwrap();
    }
    let before = files(&shell.path("store"));
    let others = [&["log"][..], &["show", "1"], &["tail"], &["verify"], &["repair", "--yes"], &["stats"]];
    for args in NEED_THE_STORE.into_iter().chain(others) {
        shell.fails(args, 6, "unavailable");
    }
    shell.fails(&["init"], 4, "conflict");
    let unlocked = |mut files: BTreeMap<PathBuf, Vec<u8>>| {
        files.retain(|path, _| !path.ends_with("LOCK"));
        files
    };
    assert_eq!(unlocked(files(&shell.path("store"))), unlocked(before));
}

#[test]
fn fault_32_an_unknown_critical_event_stops_what_needs_the_views() {
    let shell = filled();
    let append = |ignorable| {
        let unknown = UnknownEvent { kind: 999, version: 0, ignorable, minimum_reader: 2_003_004, body: Bytes::new() };
        let events = vec![Event::Unknown(unknown)];
        let payload = Transaction { actor: "later".into(), reason: None, request: None, events }.encode();
        let env = Env::os();
        let lock = DirLock::take(&env, &shell.path("store/LOCK")).unwrap();
        let log = FileLog::open(env, lock, &shell.path("store/log"), LogSettings::default(), None).unwrap();
        let (salt, head) = (Salt([7; 16]), log.head());
        let time = Timestamp(head.time.0 + 1);
        let draft = Draft { time, salt, digest: Digest::of(&salt, &payload), payload };
        log.append(head.position, &[draft]).unwrap();
        log.sync().unwrap();
        log.close().unwrap();
        head.position.next()
    };
    assert_eq!(append(true), Position(11));
    assert_eq!(shell.ok(&["get", "p", "k1"]), b"value 1");
    assert_eq!(append(false), Position(12));
    for args in NEED_THE_STORE {
        shell.fails(args, 6, "unavailable");
    }
    let message = String::from_utf8(shell.run(&["get", "p", "k1"]).stderr).unwrap();
    assert!(message.contains("2.3.4") && message.contains("999"), "{message}");
    let last = shell.json(&["log", "--reverse", "--limit", "1"]).remove(0);
    assert_eq!(last["events"], json!([{"kind": "unknown", "writes": [], "number": 999}]));
    let verified = lines(&shell.run(&["--json", "verify"]).stdout).remove(0);
    let problems: Vec<&Value> = verified["problems"].as_array().unwrap().iter().map(|found| &found["kind"]).collect();
    assert_eq!((&verified["head"], problems), (&json!(12), vec![&json!("unsupported")]));
}

/// Runs the binary as somebody who may write nowhere here: permissions bind everybody but root.
struct Unprivileged<'a> {
    shell: &'a Shell,
    binary: PathBuf,
    is_root: bool,
}

const NOBODY: u32 = 65_534;

impl Unprivileged<'_> {
    fn new(shell: &Shell) -> Unprivileged<'_> {
        // Where the tests were built, another user may not reach.
        let binary = shell.path("lakelog");
        fs::copy(env!("CARGO_BIN_EXE_lakelog"), &binary).unwrap();
        fs::set_permissions(shell.path("."), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let is_root = chown(&binary, Some(NOBODY), Some(NOBODY)).is_ok();
        Unprivileged { shell, binary, is_root }
    }

    /// Gives everything below to the user, with these permissions for folders and files.
    fn give(&self, path: &Path, folders: u32, files: u32) {
        if path.is_dir() {
            // Entered by its owner, who may not be able to afterwards.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
            for entry in fs::read_dir(path).unwrap() {
                self.give(&entry.unwrap().path(), folders, files);
            }
        }
        let mode = if path.is_dir() { folders } else { files };
        if self.is_root {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, Vec<Value>) {
        let mut command = Command::new(&self.binary);
        command.arg("--json").args(args).env("LAKELOG_STORE", self.shell.path("store")).env_remove("LAKELOG_LOG");
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().unwrap();
        let told = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
        (output.status.code(), lines(told))
    }
}

#[test]
fn fault_15_a_read_only_store_is_read_from_its_files() {
    let shell = filled();
    let user = Unprivileged::new(&shell);
    let store = shell.path("store");
    user.give(&store, 0o500, 0o400);
    for args in NEED_THE_STORE.into_iter().chain([&["repair"][..]]) {
        let (code, told) = user.run(args);
        assert_eq!((code, &told[0]["error"]), (Some(6), &json!("unavailable")), "{args:?}: {told:?}");
    }
    assert_eq!(user.run(&["log"]).1.len(), 10);
    let (code, stats) = user.run(&["stats"]);
    assert_eq!((code, &stats[0]["synced"], &stats[0]["entries"]), (Some(0), &json!(10), &Value::Null), "{stats:?}");
    let (code, verified) = user.run(&["verify"]);
    assert_eq!((code, &verified[0]["skipped"]), (Some(0), &json!(["views"])), "{verified:?}");
    // Nor is a store made where nothing may be.
    let (code, told) = user.run(&["--store", shell.path("other").to_str().unwrap(), "init"]);
    if user.is_root {
        assert_eq!((code, &told[0]["error"]), (Some(6), &json!("unavailable")), "{told:?}");
    }
    user.give(&store, 0o700, 0o600);
    assert_eq!(user.run(&["get", "p", "k9"]).0, Some(0));
}
