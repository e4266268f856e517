//! Bytes on the command line and in JSON: partitions, keys and values are bytes, arguments and JSON are text.
//!
//! Arguments are UTF-8 or, with `--hex`, hexadecimal. In JSON a name is a string when its bytes are UTF-8, else
//! `{"base64": "..."}`; a value is always base64. Nothing here is lossy.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::types::{Error, ErrorKind, Limits, Result};

/// What begins the member name of a partition that cannot stand for itself.
const MEMBER_PREFIX: &str = "base64:";

/// The bytes that an argument names.
///
/// # Errors
///
/// `Invalid` when it should be hexadecimal and is not.
pub fn parse(text: &str, hex: bool) -> Result<Vec<u8>> {
    if !hex {
        return Ok(text.as_bytes().to_vec());
    }
    hex::decode(text).map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("not hexadecimal, argument=`{text}`")).with_source(error)
    })
}

/// The bytes of a value: as [`parse`], and `-` reads standard input as it is, up to the limit of a value.
///
/// # Errors
///
/// `Invalid` as [`parse`] and when the input is longer than a value may be; `Unavailable` when it cannot be read.
pub fn parse_value(text: &str, hex: bool) -> Result<Vec<u8>> {
    if text == "-" { read_value(io::stdin().lock()) } else { parse(text, hex) }
}

fn read_value(input: impl Read) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    input
        .take(Limits::VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Error::new(ErrorKind::Unavailable, "cannot read standard input").with_source(error))?;
    if value.len() > Limits::VALUE_BYTES_MAX {
        let message = format!("the value is too long, bytes_max=`{}`", Limits::VALUE_BYTES_MAX);
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(value)
}

/// Bytes as people read them: UTF-8 as it is, control characters and other bytes escaped.
pub fn shown(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => Cow::Borrowed(text),
        Ok(text) => Cow::Owned(text.escape_debug().to_string()),
        Err(_) => Cow::Owned(bytes.escape_ascii().to_string()),
    }
}

/// A partition as the name of a JSON member.
pub fn member_name(partition: &[u8]) -> String {
    match std::str::from_utf8(partition) {
        Ok(text) if !text.starts_with(MEMBER_PREFIX) => text.to_owned(),
        _ => format!("{MEMBER_PREFIX}{}", STANDARD.encode(partition)),
    }
}

/// A partition, key or prefix in JSON: a string, or `{"base64": "..."}` when it is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\": \"...\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
        Ok(Name(text.as_bytes().to_vec()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Name, A::Error> {
        let Some("base64") = map.next_key::<String>()?.as_deref() else {
            return Err(de::Error::custom("a name that is not a string must be {\"base64\": \"...\"}"));
        };
        let Base64(bytes) = map.next_value()?;
        match map.next_key::<String>()? {
            None => Ok(Name(bytes)),
            Some(other) => Err(de::Error::unknown_field(&other, &["base64"])),
        }
    }
}

/// A value in JSON: a string of standard base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Base64).map_err(|error| de::Error::custom(format!("not base64: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_text_or_hexadecimal() {
        assert_eq!(parse("grün", false).unwrap(), "grün".as_bytes());
        assert_eq!(parse("00fF", true).unwrap(), [0, 255]);
        assert_eq!(parse("", true).unwrap(), b"");
        for wrong in ["0", "0g", "grün", " 00"] {
            assert_eq!(parse(wrong, true).unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn a_value_from_standard_input_is_bounded() {
        let at_limit = io::repeat(7).take(Limits::VALUE_BYTES_MAX as u64);
        assert_eq!(read_value(at_limit).unwrap().len(), Limits::VALUE_BYTES_MAX);
        assert_eq!(read_value(io::repeat(7)).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn names_in_json() {
        let check = |bytes: &[u8], json: serde_json::Value, member: &str| {
            assert_eq!(serde_json::to_value(Name(bytes.to_vec())).unwrap(), json);
            assert_eq!(serde_json::from_value::<Name>(json).unwrap().0, bytes);
            assert_eq!(member_name(bytes), member);
        };
        check(b"auth", json!("auth"), "auth");
        check(b"", json!(""), "");
        check(b"a\0b", json!("a\0b"), "a\0b");
        check(b"\xff\x00", json!({"base64": "/wA="}), "base64:/wA=");
        check(b"base64:x", json!("base64:x"), "base64:YmFzZTY0Ong=");
    }

    #[test]
    fn wrong_json_is_refused() {
        for wrong in [
            r#"{"base64": "/wA"}"#,
            r#"{"base64": "/wA=", "x": 1}"#,
            r#"{"hex": "00"}"#,
            r#"{"base64": 1}"#,
            "{}",
            "[]",
            "1",
            "null",
            r#""\ud800""#,
        ] {
            assert!(serde_json::from_str::<Name>(wrong).is_err(), "{wrong}");
        }
        for wrong in [r#""YQ""#, r#""YQ==\n""#, r#"" YQ==""#, r#""Y-==""#, "null", r#"{"base64": "YQ=="}"#] {
            assert!(serde_json::from_str::<Base64>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn people_see_no_control_characters() {
        assert_eq!(shown("grün/x".as_bytes()), "grün/x");
        assert_eq!(shown(b"a\n\x1b[31m"), "a\\n\\u{1b}[31m");
        assert_eq!(shown(b"\xff\0"), "\\xff\\x00");
    }

    proptest! {
        #[test]
        fn all_bytes_survive_json(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let name = serde_json::to_string(&Name(bytes.clone())).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Name>(&name).unwrap().0, &bytes);
            let value = serde_json::to_string(&Base64(bytes.clone())).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Base64>(&value).unwrap().0, &bytes);
        }
    }
}
