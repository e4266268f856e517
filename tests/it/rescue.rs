//! Damage and its repair through the command line: from another copy, into a new store, and the proof of a history by a signed line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cli::{Shell, lines};

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/signing.pem");
const PUBLIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/signing.pub.pem");
const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/other.pub.pem");

fn filled() -> Shell {
    let shell = Shell::with_store();
    let set = |number: u32| {
        let value = STANDARD.encode(format!("value-{number}"));
        json!({"ops": [{"op": "set", "partition": "p", "key": format!("k{number}"), "value": value}]}).to_string()
    };
    let input: Vec<String> = (0..10).map(set).collect();
    assert!(shell.run_with(&["apply", "-"], input.join("\n").as_bytes()).status.success());
    shell
}

/// The private key, as a careful operator keeps it.
fn key(shell: &Shell) -> String {
    let key = shell.path("signing.pem");
    fs::copy(KEY, &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    key.to_str().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn segment(shell: &Shell) -> PathBuf {
    shell.path("store/log/0000000000000001.seg")
}

fn damage(path: &Path, place: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(place.len()).position(|window| window == place).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// The answer of a command that ends with this code.
fn answer(shell: &Shell, args: &[&str], code: i32) -> Value {
    let output = shell.run(&[&["--json"], args].concat());
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    lines(&output.stdout).remove(0)
}

#[test]
fn a_damaged_segment_is_repaired_from_a_copy_and_only_with_yes() {
    let shell = filled();
    copy(&shell.path("store"), &shell.path("copy"));
    let log = shell.ok(&["--json", "log"]);
    damage(&segment(&shell), b"value-3");
    let damaged = fs::read(segment(&shell)).unwrap();
    shell.fails(&["get", "p", "k1"], 5, "corrupt");

    let from = shell.path("copy").to_str().unwrap().to_owned();
    let plan = answer(&shell, &["repair", "--from", &from], 0);
    assert_eq!(plan["done"], false);
    assert!(plan["plan"][0].as_str().unwrap().starts_with("take transactions 4..=4"), "{plan}");
    assert_eq!(fs::read(segment(&shell)).unwrap(), damaged);

    assert_eq!(answer(&shell, &["repair", "--from", &from, "--yes"], 0)["done"], true);
    let verified = answer(&shell, &["verify"], 0);
    assert_eq!(verified["ok"], true);
    assert!(verified["notes"][0].as_str().unwrap().contains("damaged-0000000000000001-"), "{verified}");
    assert_eq!(shell.ok(&["--json", "log"]), log);
    assert_eq!(shell.ok(&["get", "p", "k3"]), b"value-3");
    assert_eq!(answer(&shell, &["repair", "--from", &from, "--yes"], 0)["plan"], json!([]));

    shell.fails(&["repair", "--from", shell.path("nowhere").to_str().unwrap()], 3, "not_found");
    shell.fails(&["repair", "--from", PUBLIC], 2, "invalid");
    let other = filled();
    shell.fails(&["repair", "--from", other.path("store").to_str().unwrap()], 3, "not_found");
}

#[test]
fn a_dump_repairs_too_and_even_a_lost_manifest() {
    let shell = filled();
    let path = |name: &str| shell.path(name).to_str().unwrap().to_owned();
    shell.ok(&["dump", "-o", &path("full")]);
    shell.ok(&["dump", "-o", &path("part"), "--since", "5"]);
    shell.ok(&["dump", "-o", &path("state"), "--state-only"]);
    let log = shell.ok(&["--json", "log"]);

    // An incremental one has only what came after.
    damage(&segment(&shell), b"value-3");
    damage(&segment(&shell), b"value-7");
    let done = answer(&shell, &["repair", "--from", &path("part"), "--yes"], 5);
    assert!(done["plan"][0].as_str().unwrap().starts_with("take transactions 8..=8"), "{done}");
    assert_eq!(answer(&shell, &["verify"], 5)["problems"][0]["positions"], json!([4, 4]));
    assert_eq!(answer(&shell, &["repair", "--from", &path("full"), "--yes"], 0)["done"], true);
    assert_eq!(shell.ok(&["--json", "log"]), log);

    fs::remove_file(shell.path("store/log/manifest.0")).unwrap();
    fs::remove_file(shell.path("store/log/manifest.1")).unwrap();
    shell.fails(&["repair", "--from", &path("part")], 5, "corrupt");
    shell.fails(&["repair", "--from", &path("state")], 2, "invalid");
    let done = answer(&shell, &["repair", "--from", &path("full"), "--yes"], 0);
    assert!(done["plan"][0].as_str().unwrap().starts_with("write the manifest anew"), "{done}");
    assert_eq!(answer(&shell, &["verify"], 0)["ok"], true);

    // A damaged dump gives what lies before its damage; another log's gives nothing.
    let mut dump = fs::read(shell.path("full")).unwrap();
    dump.truncate(dump.len() - 20);
    fs::write(shell.path("cut"), dump).unwrap();
    damage(&segment(&shell), b"value-3");
    assert_eq!(answer(&shell, &["repair", "--from", &path("cut"), "--yes"], 0)["done"], true);
    assert_eq!(shell.ok(&["--json", "log"]), log);
    shell.fails(
        &["--store", filled().path("store").to_str().unwrap(), "repair", "--from", &path("full")],
        3,
        "not_found",
    );
}

#[test]
fn what_the_copy_does_not_prove_stays_and_is_named() {
    let shell = filled();
    copy(&shell.path("store"), &shell.path("copy"));
    damage(&shell.path("copy/log/0000000000000001.seg"), b"value-7");
    for place in [&b"value-3"[..], b"value-7"] {
        damage(&segment(&shell), place);
    }
    let from = shell.path("copy").to_str().unwrap().to_owned();
    let done = answer(&shell, &["repair", "--from", &from, "--yes"], 5);
    assert_eq!(done["done"], true);
    assert!(done["plan"].as_array().unwrap().last().unwrap().as_str().unwrap().starts_with("leave alone"), "{done}");
    assert_eq!(answer(&shell, &["verify"], 5)["problems"][0]["positions"], json!([8, 8]));
    assert_eq!(answer(&shell, &["repair", "--from", &from, "--yes"], 5)["done"], false);
}

#[test]
fn a_store_that_does_not_open_is_salvaged_into_a_new_one() {
    let shell = filled();
    let (log, entries) = (shell.json(&["log"]), shell.ok(&["--json", "scan", "p"]));
    let target = shell.path("new").to_str().unwrap().to_owned();
    damage(&segment(&shell), b"value-3");
    fs::remove_file(shell.path("store/log/manifest.0")).unwrap();
    fs::remove_file(shell.path("store/log/manifest.1")).unwrap();
    shell.fails(&["get", "p", "k1"], 5, "corrupt");

    let plan = answer(&shell, &["repair", "--salvage", &target], 5);
    assert_eq!((&plan["done"], &plan["salvage"]["log_id"]), (&json!(false), &Value::Null));
    assert!(!shell.path("new").exists());
    let done = answer(&shell, &["repair", "--salvage", &target, "--yes"], 7);
    assert_eq!(done["salvage"]["lost"][0]["old"], json!([4, 4]));
    assert_eq!(done["salvage"]["kept"][1], json!({"old": [5, 10], "new": [5, 10]}));

    let new = |args: &[&str]| shell.json(&[&["--store", &target], args].concat());
    let rescued = new(&["log"]);
    assert_eq!(rescued.len(), 10);
    assert_eq!(rescued[3]["actor"], "lakelog");
    assert!(rescued[3]["reason"].as_str().unwrap().starts_with("transactions 4..=4 of log "), "{}", rescued[3]);
    for (old, new) in log.iter().zip(&rescued).filter(|(old, _)| old["position"] != 4) {
        assert_eq!((&old["events"], &old["time"]), (&new["events"], &new["time"]));
    }
    let expect: Vec<Value> = lines(&entries).into_iter().filter(|entry| entry["key"] != "k3").collect();
    assert_eq!(new(&["scan", "p"]), expect);
    assert_eq!(new(&["verify"])[0]["ok"], true);
    shell.fails(&["repair", "--salvage", &target, "--yes"], 4, "conflict");
    shell.fails(&["repair", "--salvage", &target, "--from", "x"], 2, "invalid");
}

#[test]
fn a_kept_line_proves_the_history_before_it() {
    let shell = filled();
    let key = &key(&shell);
    let line = String::from_utf8(shell.ok(&["mark", "--sign", key, "--at", "7"])).unwrap();
    assert!(line.starts_with("lakelog-head v1 ") && line.lines().count() == 1, "{line}");
    let signed = shell.json(&["mark", "--sign", key]).remove(0);
    assert_eq!((&signed["position"], &signed["log_id"]), (&json!(10), &shell.json(&["stats"])[0]["log_id"]));
    shell.ok(&["mark", "audit", "--at", "5"]);
    assert_eq!(shell.json(&["mark", "--sign", key, "--at", "audit"])[0]["position"], 5);

    let lines_file = shell.path("heads");
    fs::write(&lines_file, format!("{line}\n{}\n", signed["line"].as_str().unwrap())).unwrap();
    let heads = lines_file.to_str().unwrap();
    let proven = shell.json(&["verify", "--key", PUBLIC, "--signed", heads]).remove(0);
    assert_eq!(proven["signed"][0]["position"], 7);
    assert!(proven["signed"].as_array().unwrap().iter().all(|head| head["proven"] == true), "{proven}");
    shell.ok(&["verify", "--key", PUBLIC, "--signed", line.trim()]);
    assert!(shell.run_with(&["verify", "--key", PUBLIC], line.as_bytes()).status.success());

    // A dump proves the same of the history in it, and one that begins later cannot.
    let dump = |name: &str, args: &[&str]| {
        let path = shell.path(name).to_str().unwrap().to_owned();
        shell.ok(&[&["dump", "-o", &path], args].concat());
        path
    };
    let (full, part) = (dump("full", &[]), dump("part", &["--since", "8"]));
    let proven = shell.json(&["verify", &full, "--key", PUBLIC, "--signed", heads]).remove(0);
    assert!(proven["signed"].as_array().unwrap().iter().all(|head| head["proven"] == true), "{proven}");
    let below = answer(&shell, &["verify", &part, "--key", PUBLIC, "--signed", line.trim()], 3);
    assert_eq!((&below["signed"][0]["proven"], &below["problems"][0]["kind"]), (&json!(false), &json!("signature")));
    answer(&shell, &["verify", &full, "--key", OTHER, "--signed", heads], 5);
    fs::write(shell.path("cut"), &fs::read(&full).unwrap()[..200]).unwrap();
    let cut = answer(&shell, &["verify", shell.path("cut").to_str().unwrap(), "--key", PUBLIC, "--signed", heads], 5);
    assert_eq!(cut["signed"][0]["proven"], false);

    let refused = answer(&shell, &["verify", "--key", OTHER, "--signed", heads], 5);
    assert_eq!(refused["problems"][0]["kind"], "signature");
    let other = filled();
    assert_eq!(answer(&other, &["verify", "--key", PUBLIC, "--signed", line.trim()], 5)["signed"][0]["proven"], false);

    for (args, code, kind) in [
        (&["verify", "--key", KEY, "--signed", heads][..], 2, "invalid"),
        (&["verify", "--key", PUBLIC, "--signed", KEY], 2, "invalid"),
        (&["verify", "--key", PUBLIC, "--signed", "/nowhere"], 3, "not_found"),
        (&["verify", "--key", PUBLIC], 2, "invalid"),
        (&["verify", "--signed", heads], 2, "invalid"),
        (&["mark", "--sign", PUBLIC], 2, "invalid"),
        (&["mark", "--sign", key, "--at", "99"], 2, "invalid"),
        (&["mark", "name", "--sign", key], 2, "invalid"),
    ] {
        shell.fails(args, code, kind);
    }
}

#[test]
fn a_private_key_that_others_can_read_is_warned_about_and_never_shown() {
    let shell = filled();
    let key = shell.path("key.pem");
    fs::copy(KEY, &key).unwrap();
    let secret = fs::read_to_string(KEY).unwrap().lines().nth(1).unwrap().to_owned();
    for (mode, warned) in [(0o600, false), (0o644, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let output = shell.run(&["mark", "--sign", key.to_str().unwrap(), "-vvv"]);
        assert!(output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.contains("others can read the private key"), warned, "{said}");
        assert!(!said.contains(&secret));
    }
}

#[test]
fn keys_and_lines_are_those_of_openssl() {
    // The operator's tool makes the key pair and can check the signature without us.
    let Ok(made) = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output() else {
        return;
    };
    let shell = filled();
    let (key, public) = (shell.path("fresh.pem"), shell.path("fresh.pub.pem"));
    fs::write(&key, made.stdout).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let openssl = |args: &[&str]| std::process::Command::new("openssl").args(args).output().unwrap();
    openssl(&["pkey", "-in", key.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
    let line = String::from_utf8(shell.ok(&["mark", "--sign", key.to_str().unwrap()])).unwrap();
    shell.ok(&["verify", "--key", public.to_str().unwrap(), "--signed", line.trim()]);

    let fields: Vec<&str> = line.trim().split(' ').collect();
    let unhex = |text: &str| hex::decode(text).unwrap();
    let position = fields[3].parse::<u64>().unwrap().to_le_bytes();
    let message = [b"lakelog signed head v1\0", &unhex(fields[2])[..], &position, &unhex(fields[4])].concat();
    let (message_file, signature_file) = (shell.path("message"), shell.path("signature"));
    fs::write(&message_file, message).unwrap();
    fs::write(&signature_file, unhex(fields[7])).unwrap();
    let args = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public.to_str().unwrap()];
    let files = ["-in", message_file.to_str().unwrap(), "-sigfile", signature_file.to_str().unwrap()];
    let checked = openssl(&[&args[..], &files].concat());
    assert!(String::from_utf8_lossy(&checked.stdout).contains("Signature Verified Successfully"), "{checked:?}");
}

#[test]
fn stats_show_what_the_scrub_found() {
    let shell = filled();
    let scrub = shell.json(&["stats"]).remove(0)["scrub"].clone();
    assert_eq!((&scrub["passes"], &scrub["ended"], &scrub["damage"]), (&json!(0), &Value::Null, &json!([])));
    // As the process that runs the scrub leaves it.
    let report = json!({"passes": 2, "began": 1_000_000, "ended": 2_000_000, "bytes": 10, "bytes_total": 10, "damage": [
        {"file": "x.seg", "pass": 1, "offset": 4096, "positions": [3, 4], "detail": "wrong checksum", "found": 1_500_000},
    ]});
    fs::write(shell.path("store/scrub.json"), report.to_string()).unwrap();
    let scrub = shell.json(&["stats"]).remove(0)["scrub"].clone();
    assert_eq!((&scrub["passes"], &scrub["running"]), (&json!(2), &json!(false)));
    assert_eq!(scrub["ended"], "1970-01-01T00:00:02.000000Z");
    assert_eq!(scrub["damage"][0]["positions"], json!([3, 4]));
    let text = String::from_utf8(shell.ok(&["stats"])).unwrap();
    assert!(text.contains("damaged: x.seg at 4096 positions 3..=4 wrong checksum"), "{text}");
}
