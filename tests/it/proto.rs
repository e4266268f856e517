//! Holds the generated protobuf code and the lock file of field numbers to `proto/`.
//!
//! With `LAKELOG_REGENERATE=1` in the environment the files are written instead of compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost_build::Config;

const SOURCES: [&str; 3] = ["lakelog/v1/transaction.proto", "lakelog/v1/kv.proto", "lakelog/v1/store.proto"];
const GENERATED: &str = "src/event/generated/lakelog.v1.rs";
const LOCK: &str = "proto/fields.lock";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn regenerate() -> bool {
    env::var_os("LAKELOG_REGENERATE").is_some_and(|value| value == "1")
}

fn hold(path: &str, expected: &str) {
    let file = root().join(path);
    if regenerate() {
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is not what proto/ says; renew it as proto/README.md describes");
}

#[test]
fn every_proto_file_is_generated_from() {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("proto/lakelog/v1")).unwrap() {
        found.push(format!("lakelog/v1/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
    found.sort();
    let mut sources = SOURCES.map(String::from);
    sources.sort();
    assert_eq!(found, sources);
}

#[test]
fn generated_code_is_current() {
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(SOURCES, [root().join("proto")]).unwrap();
    Config::new().bytes(["."]).btree_map(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();
    let name = Path::new(GENERATED).file_name().unwrap();
    hold(GENERATED, &fs::read_to_string(out.path().join(name)).unwrap());
}

/// Every field and enum value by its name, with its number and type, as lines of the lock file.
fn numbers() -> BTreeMap<String, String> {
    let mut numbers = BTreeMap::new();
    for file in protox::compile(SOURCES, [root().join("proto")]).unwrap().file {
        let package = file.package().to_owned();
        for message in &file.message_type {
            assert!(message.nested_type.is_empty(), "nested messages are not locked: {}", message.name());
            for field in &message.field {
                let name = format!("{package}.{}.{}", message.name(), field.name());
                let label = field.label().as_str_name().trim_start_matches("LABEL_").to_lowercase();
                let optional = if field.proto3_optional() { "explicit" } else { &label };
                let kind = match field.type_name() {
                    "" => field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase(),
                    message => message.trim_start_matches('.').to_owned(),
                };
                numbers.insert(name, format!("{} {optional} {kind}", field.number()));
            }
        }
        for kinds in &file.enum_type {
            for value in &kinds.value {
                numbers.insert(format!("{package}.{}.{}", kinds.name(), value.name()), value.number().to_string());
            }
        }
    }
    numbers
}

/// Numbers that a message or enum promises never to use again.
fn is_reserved(owner: &str, number: i32) -> bool {
    protox::compile(SOURCES, [root().join("proto")]).unwrap().file.iter().any(|file| {
        let named = |name: &str| format!("{}.{name}", file.package()) == owner;
        file.message_type
            .iter()
            .filter(|message| named(message.name()))
            .flat_map(|message| &message.reserved_range)
            .any(|range| (range.start()..range.end()).contains(&number))
            || file
                .enum_type
                .iter()
                .filter(|kinds| named(kinds.name()))
                .flat_map(|kinds| &kinds.reserved_range)
                .any(|range| (range.start()..=range.end()).contains(&number))
    })
}

/// The lines of the lock with those of `now` added; an error names the first number that changed.
fn merge(locked: &str, now: BTreeMap<String, String>, reserved: impl Fn(&str, i32) -> bool) -> Result<String, String> {
    let mut lines = now;
    for line in locked.lines() {
        let (name, meaning) = line.split_once(' ').ok_or_else(|| format!("not a line of the lock: {line}"))?;
        let (owner, _) = name.rsplit_once('.').ok_or_else(|| format!("not a name: {name}"))?;
        let number = meaning.split(' ').next().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| format!("no number: {line}"))?;
        match lines.get(name) {
            Some(now) if now == meaning => {}
            Some(now) => return Err(format!("{name} changed from `{meaning}` to `{now}`")),
            None if reserved(owner, number) => {
                lines.insert(name.to_owned(), meaning.to_owned());
            }
            None => return Err(format!("{name} is gone, its number is not reserved")),
        }
    }
    Ok(lines.into_iter().map(|(name, meaning)| format!("{name} {meaning}\n")).collect())
}

#[test]
fn field_numbers_keep_their_meaning() {
    let locked = fs::read_to_string(root().join(LOCK)).unwrap_or_default();
    hold(LOCK, &merge(&locked, numbers(), is_reserved).unwrap());
}

#[test]
fn the_lock_finds_changed_and_lost_numbers() {
    let now = |meaning: &str| BTreeMap::from([("p.M.f".to_owned(), meaning.to_owned())]);
    assert_eq!(merge("", now("1 optional bytes"), |_, _| false).unwrap(), "p.M.f 1 optional bytes\n");
    for changed in ["2 optional bytes", "1 optional string", "1 repeated bytes"] {
        merge("p.M.f 1 optional bytes\n", now(changed), |_, _| true).unwrap_err();
    }
    let lost = "p.M.f 1 optional bytes\np.M.old 7 optional bytes\n";
    merge(lost, now("1 optional bytes"), |_, _| false).unwrap_err();
    let kept = merge(lost, now("1 optional bytes"), |owner, number| owner == "p.M" && number == 7);
    assert_eq!(kept.unwrap(), lost);
}

#[test]
fn every_field_says_since_when() {
    const MESSAGE: i32 = 4;
    const ENUM: i32 = 5;
    const FIELD_OR_VALUE: i32 = 2;
    let mut seen = 0;
    for file in protox::compile(SOURCES, [root().join("proto")]).unwrap().file {
        for location in file.source_code_info.iter().flat_map(|info| &info.location) {
            if let [MESSAGE | ENUM, _, FIELD_OR_VALUE, _] = location.path[..] {
                let comment = location.leading_comments();
                assert!(comment.contains("Since "), "{}: {:?} {comment:?}", file.name(), location.span);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, numbers().len());
}
