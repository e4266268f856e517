//! The JSON of the two formats, as serde visitors that hand records out while they parse.
//!
//! Members may stand in any order and unknown ones are passed over, as lakeFS does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::read::Reading;
use super::{ExportHeader, Header, ReadError, Record, Refusal, RefusalReason};

const DUMP_VERSION: &str = "1.0";
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The first document of a file: a whole dump, whose records go to the sink on the way, or the
/// header of an export.
pub(super) struct First<'r, 's, E>(pub(super) &'r mut Reading<'s, E>);

/// The members of the first document, as far as they were seen.
#[derive(Default)]
struct Members {
    version: Option<String>,
    timestamp: Option<String>,
    entries: bool,
    export: Option<ExportHeader>,
    export_entry: bool,
}

impl<'de, E: From<ReadError>> DeserializeSeed<'de> for First<'_, '_, E> {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, E: From<ReadError>> Visitor<'de> for First<'_, '_, E> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a `kv dump` document or the header of an export")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let reading = self.0;
        reading.begun = true;
        let mut members = Members::default();
        while let Some(name) = map.next_key::<String>()? {
            let export = &mut members.export;
            let mut known = true;
            match name.as_str() {
                "version" => {
                    let version = map.next_value::<Option<String>>()?.unwrap_or_default();
                    if version != DUMP_VERSION {
                        return reading.stop(ReadError::Version { found: version });
                    }
                    members.version = Some(version);
                }
                "timestamp" => members.timestamp = map.next_value()?,
                "entries" => {
                    if members.entries {
                        return Err(A::Error::duplicate_field("entries"));
                    }
                    members.entries = true;
                    reading.recognised = true;
                    map.next_value_seed(Entries(reading))?;
                }
                "LakeFSVersion" => export.get_or_insert_default().lakefs_version = text(&mut map)?,
                "PackageName" => export.get_or_insert_default().package_name = text(&mut map)?,
                "CreatedAt" => export.get_or_insert_default().created_at = text(&mut map)?,
                "DBSchemaVersion" => {
                    export.get_or_insert_default().schema_version = map.next_value::<Option<_>>()?.unwrap_or_default();
                }
                name => {
                    known = EXPORT_ENTRY.members.contains(&name);
                    members.export_entry |= known;
                    map.next_value::<IgnoredAny>()?;
                }
            }
            reading.recognised |= known;
        }
        members.header().or_else(|error| reading.stop(error))
    }
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<String, A::Error> {
    Ok(map.next_value::<Option<String>>()?.unwrap_or_default())
}

impl<E: From<ReadError>> Reading<'_, E> {
    /// Ends the parse from inside a visitor.
    fn stop<T, S: serde::de::Error>(&mut self, error: impl Into<E>) -> Result<T, S> {
        self.stopped = Some(error.into());
        Err(S::custom("stopped"))
    }
}

impl Members {
    fn header(self) -> Result<Header, ReadError> {
        let is_dump = self.entries || self.version.is_some() && self.timestamp.is_some();
        match (self.version, self.export) {
            (None, _) if is_dump => Err(ReadError::Version { found: String::new() }),
            (Some(_), _) if is_dump => Ok(Header::Dump { timestamp: self.timestamp.unwrap_or_default() }),
            (_, Some(header)) => {
                let created = !matches!(header.created_at.as_str(), "" | ZERO_TIME);
                let named = !header.lakefs_version.is_empty() || !header.package_name.is_empty();
                if created || named || header.schema_version != 0 {
                    Ok(Header::Export(header))
                } else {
                    Err(ReadError::HeaderMissing)
                }
            }
            _ if self.export_entry => Err(ReadError::HeaderMissing),
            _ => Err(ReadError::NotADump { detail: "members that either must have are missing" }),
        }
    }
}

/// The entries of a dump, each handed out as soon as it is parsed.
struct Entries<'r, 's, E>(&'r mut Reading<'s, E>);

impl<'de, E: From<ReadError>> DeserializeSeed<'de> for Entries<'_, '_, E> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, E: From<ReadError>> Visitor<'de> for Entries<'_, '_, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of entries")
    }

    fn visit_unit<S>(self) -> Result<(), S> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let reading = self.0;
        loop {
            reading.begin_record();
            let Some(entry) = entries.next_element_seed(EntrySeed(&DUMP_ENTRY))? else { break };
            if let Err(error) = (reading.sink)(entry.check(&DUMP_ENTRY, reading.record)) {
                return reading.stop(error);
            }
        }
        Ok(())
    }
}

/// How a format writes an entry.
pub(super) struct EntryShape {
    /// Partition, key and value.
    members: [&'static str; 3],
    /// Whether each is base64, or the bytes as text.
    base64: [bool; 3],
}

/// An entry of a `kv dump` document.
static DUMP_ENTRY: EntryShape = EntryShape { members: ["partition", "key", "value"], base64: [false, false, true] };

/// An entry of a newline-delimited export.
pub(super) static EXPORT_ENTRY: EntryShape =
    EntryShape { members: ["PartitionKey", "Key", "Value"], base64: [true; 3] };

/// Parses one entry.
pub(super) struct EntrySeed(pub(super) &'static EntryShape);

/// The members of an entry, in the order of [`EntryShape::members`]; null and absent are `None`.
#[derive(Default)]
pub(super) struct Entry([Option<Result<Bytes, base64::DecodeError>>; 3]);

impl Entry {
    /// The record that the entry is, or why it is none.
    pub(super) fn check(self, shape: &EntryShape, ordinal: u64) -> Result<Record, Refusal> {
        let [partition, key, value] = self.0;
        let good = |member: &Option<Result<Bytes, _>>| member.as_ref().and_then(|bytes| bytes.as_ref().ok()).cloned();
        let known = (good(&partition), good(&key));
        let bytes = |member: Option<Result<Bytes, _>>, at: usize, none| match member {
            None => Err(none),
            Some(Err(source)) => Err(RefusalReason::Base64 { member: shape.members[at], source }),
            Some(Ok(bytes)) if bytes.is_empty() && none != RefusalReason::NoValue => Err(none),
            Some(Ok(bytes)) => Ok(bytes),
        };
        let record = bytes(partition, 0, RefusalReason::NoPartition).and_then(|partition| {
            let key = bytes(key, 1, RefusalReason::NoKey)?;
            let value = bytes(value, 2, RefusalReason::NoValue)?;
            Ok(Record { ordinal, partition, key, value })
        });
        record.map_err(|reason| Refusal { record: ordinal, partition: known.0, key: known.1, reason })
    }
}

impl<'de> DeserializeSeed<'de> for EntrySeed {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut entry = Entry::default();
        while let Some(name) = map.next_key_seed(MemberName(self.0))? {
            let known = self.0.members.iter().zip(self.0.base64).zip(&mut entry.0);
            match name.and_then(|at| known.into_iter().nth(at)) {
                Some(((member, _), Some(_))) => return Err(A::Error::duplicate_field(member)),
                Some(((_, base64), bytes)) => *bytes = map.next_value_seed(Member { base64 })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(entry)
    }
}

/// Parses the name of a member: which of the shape's it is, if any.
struct MemberName(&'static EntryShape);

impl<'de> DeserializeSeed<'de> for MemberName {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberName {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<S>(self, name: &str) -> Result<Option<usize>, S> {
        Ok(self.0.members.iter().position(|member| *member == name))
    }
}

/// Parses one member of an entry. Bad base64 is kept: it is the record that is refused for it, not
/// the file.
struct Member {
    base64: bool,
}

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Option<Result<Bytes, base64::DecodeError>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member {
    type Value = Option<Result<Bytes, base64::DecodeError>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or null")
    }

    fn visit_unit<S>(self) -> Result<Self::Value, S> {
        Ok(None)
    }

    fn visit_str<S>(self, text: &str) -> Result<Self::Value, S> {
        Ok(Some(match self.base64 {
            true => STANDARD.decode(text).map(Bytes::from),
            false => Ok(Bytes::copy_from_slice(text.as_bytes())),
        }))
    }
}
