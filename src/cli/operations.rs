//! What a changing verb or a line of `apply` asks for, as plain data: operations, conditions, their JSON and digest.

use std::fmt;

use clap::Args;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use sha2::{Digest as _, Sha256};

use crate::types::{Digest, Position, Result};

use super::text::{self, Base64, Name};

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// A key gets a value.
    Set {
        /// The partition.
        partition: Name,
        /// The key.
        key: Name,
        /// The new value.
        value: Base64,
        /// What must hold before.
        #[serde(rename = "if")]
        condition: Option<Condition>,
    },
    /// A key is deleted.
    Delete {
        /// The partition.
        partition: Name,
        /// The key.
        key: Name,
        /// What must hold before.
        #[serde(rename = "if")]
        condition: Option<Condition>,
    },
    /// Every key that begins with a prefix is deleted.
    DeleteRange {
        /// The partition.
        partition: Name,
        /// The prefix; empty is the whole partition.
        #[serde(default)]
        prefix: Name,
    },
    /// Nothing changes, but something must hold.
    Check {
        /// The partition.
        partition: Name,
        /// The key.
        key: Name,
        /// What must hold.
        #[serde(rename = "if")]
        condition: Condition,
    },
}

/// What must hold of a key for a transaction to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key has no value.
    Absent,
    /// The key has a value.
    Exists,
    /// The key's value was written at this position.
    Version(Position),
    /// The key has this value.
    Value(Vec<u8>),
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConditionVisitor)
    }
}

struct ConditionVisitor;

const CONDITIONS: &[&str] = &["absent", "exists", "version", "value"];

impl<'de> Visitor<'de> for ConditionVisitor {
    type Value = Condition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of {\"absent\":true}, {\"exists\":true}, {\"version\":N}, {\"value\":V}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Condition, A::Error> {
        let Some(name) = map.next_key::<String>()? else {
            return Err(de::Error::invalid_length(0, &self));
        };
        let condition = match name.as_str() {
            "version" => Condition::Version(Position(map.next_value()?)),
            "value" => Condition::Value(map.next_value::<Base64>()?.0),
            "absent" | "exists" => {
                if !map.next_value::<bool>()? {
                    return Err(de::Error::invalid_value(de::Unexpected::Bool(false), &self));
                }
                if name == "absent" { Condition::Absent } else { Condition::Exists }
            }
            other => return Err(de::Error::unknown_field(other, CONDITIONS)),
        };
        match map.next_key::<String>()? {
            None => Ok(condition),
            Some(_) => Err(de::Error::invalid_length(2, &self)),
        }
    }
}

/// `--if-absent`, `--if-exists`, `--if-version`, `--if-value`: at most one of them.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub struct ConditionArgs {
    /// Only if the key has no value
    #[arg(long)]
    pub if_absent: bool,
    /// Only if the key has a value
    #[arg(long)]
    pub if_exists: bool,
    /// Only if the key's value was written at this position
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Only if the key has this value
    #[arg(long, value_name = "V")]
    pub if_value: Option<String>,
}

impl ConditionArgs {
    /// The condition asked for, if any. An `--if-value` of `-` reads standard input.
    ///
    /// # Errors
    ///
    /// As [`text::parse_value`].
    pub fn condition(&self, hex: bool) -> Result<Option<Condition>> {
        Ok(if self.if_absent {
            Some(Condition::Absent)
        } else if self.if_exists {
            Some(Condition::Exists)
        } else if let Some(version) = self.if_version {
            Some(Condition::Version(Position(version)))
        } else if let Some(value) = &self.if_value {
            Some(Condition::Value(text::parse_value(value, hex)?))
        } else {
            None
        })
    }
}

/// The digest of a command, by which a request id tells a repetition from another command: over the operations in
/// order, every part tagged and with its length. Actor and reason are not part of it. It is stored, so it never changes.
pub fn digest(operations: &[Operation]) -> Digest {
    let mut hasher = Sha256::new();
    for operation in operations {
        let (tag, partition, rest, condition) = match operation {
            Operation::Set { partition, key, value, condition } => {
                (1, partition, [&key.0, &value.0], condition.as_ref())
            }
            Operation::Delete { partition, key, condition } => (2, partition, [&key.0, EMPTY], condition.as_ref()),
            Operation::DeleteRange { partition, prefix } => (3, partition, [&prefix.0, EMPTY], None),
            Operation::Check { partition, key, condition } => (4, partition, [&key.0, EMPTY], Some(condition)),
        };
        hasher.update([tag]);
        for part in [&partition.0, rest[0], rest[1]] {
            add(&mut hasher, part);
        }
        match condition {
            None => hasher.update([0]),
            Some(Condition::Absent) => hasher.update([1]),
            Some(Condition::Exists) => hasher.update([2]),
            Some(Condition::Version(version)) => {
                hasher.update([3]);
                hasher.update(version.0.to_le_bytes());
            }
            Some(Condition::Value(value)) => {
                hasher.update([4]);
                add(&mut hasher, value);
            }
        }
    }
    Digest(hasher.finalize().into())
}

const EMPTY: &Vec<u8> = &Vec::new();

fn add(hasher: &mut Sha256, part: &[u8]) {
    hasher.update((part.len() as u64).to_le_bytes());
    hasher.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(json: &str) -> Result<Operation, serde_json::Error> {
        serde_json::from_str(json)
    }

    fn name(text: &str) -> Name {
        Name(text.into())
    }

    #[test]
    fn operations_are_read() {
        let check = |json: &str, expected: Operation| assert_eq!(operation(json).unwrap(), expected, "{json}");
        check(
            r#"{"op":"set","partition":"p","key":{"base64":"/w=="},"value":"dg=="}"#,
            Operation::Set {
                partition: name("p"),
                key: Name(vec![255]),
                value: Base64(b"v".to_vec()),
                condition: None,
            },
        );
        check(
            r#"{"key":"k","if":{"version":18446744073709551615},"op":"delete","partition":"p"}"#,
            Operation::Delete {
                partition: name("p"),
                key: name("k"),
                condition: Some(Condition::Version(Position::MAX)),
            },
        );
        check(
            r#"{"op":"delete_range","partition":"p"}"#,
            Operation::DeleteRange { partition: name("p"), prefix: name("") },
        );
        check(
            r#"{"op":"check","partition":"p","key":"k","if":{"value":"dg=="}}"#,
            Operation::Check { partition: name("p"), key: name("k"), condition: Condition::Value(b"v".to_vec()) },
        );
    }

    #[test]
    fn wrong_operations_are_refused() {
        for wrong in [
            r#"{}"#,
            r#"{"op":"get","partition":"p","key":"k"}"#,
            r#"{"op":"set","partition":"p","key":"k"}"#,
            r#"{"op":"set","partition":"p","key":"k","value":"no base64"}"#,
            r#"{"op":"set","partition":"p","key":"k","value":"dg==","prefix":"x"}"#,
            r#"{"op":"check","partition":"p","key":"k"}"#,
            r#"{"op":"delete","partition":"p","key":"k","if":{}}"#,
            r#"{"op":"delete","partition":"p","key":"k","if":{"absent":false}}"#,
            r#"{"op":"delete","partition":"p","key":"k","if":{"absent":true,"exists":true}}"#,
            r#"{"op":"delete","partition":"p","key":"k","if":{"version":-1}}"#,
            r#"{"op":"delete","partition":"p","key":"k","if":{"version":1.5}}"#,
            r#"{"op":"delete","partition":"p","key":"k","if":{"other":1}}"#,
            r#"{"op":"delete","partition":"p","key":"k","if":true}"#,
            r#"{"op":"delete_range","partition":"p","if":{"exists":true}}"#,
        ] {
            assert!(operation(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_digest_tells_commands_apart_and_never_changes() {
        let set = |partition: &str, key: &str, value: &[u8], condition| Operation::Set {
            partition: name(partition),
            key: name(key),
            value: Base64(value.to_vec()),
            condition,
        };
        let commands = [
            vec![],
            vec![set("p", "k", b"v", None)],
            vec![set("pk", "", b"v", None)],
            vec![set("p", "kv", b"", None)],
            vec![set("p", "k", b"v", None), set("p", "l", b"v", None)],
            vec![set("p", "l", b"v", None), set("p", "k", b"v", None)],
            vec![set("p", "k", b"v", Some(Condition::Absent))],
            vec![set("p", "k", b"v", Some(Condition::Exists))],
            vec![set("p", "k", b"v", Some(Condition::Version(Position(0))))],
            vec![set("p", "k", b"v", Some(Condition::Value(vec![])))],
            vec![Operation::Delete { partition: name("p"), key: name("k"), condition: None }],
            vec![Operation::DeleteRange { partition: name("p"), prefix: name("k") }],
            vec![Operation::Check { partition: name("p"), key: name("k"), condition: Condition::Absent }],
        ];
        let mut digests: Vec<Digest> = commands.iter().map(|command| digest(command)).collect();
        assert_eq!(digests[1].to_string(), "35556de22a7a65fd963df2c0f72c2c9c1c73c48a7ba3dac94e6f1c5ecc361976");
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), commands.len());
    }
}
