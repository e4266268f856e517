//! Indexes: entries that follow from key/value writes, whichever event made them.
//!
//! An index is a pure function of (key, value). Its entries are ordinary entries in a partition of
//! the store's own, written at the same position as what they index, so at every position they agree.

use std::fmt::Debug;
use std::sync::Arc;

use prost::Message;

use super::write_set::WriteSet;
use crate::types::{Key, KeyRange, Position, ProjectionVersion};

/// Where the encoded keys of every index's entries begin: in partitions `00` `index/` and a name.
pub const INDEX_PARTITIONS: &[u8] = b"\0\xffindex/";

/// A secondary index.
pub trait Index: Debug + Send + Sync {
    /// Unique name, for example `users-by-email`.
    fn name(&self) -> &'static str;

    /// Raised whenever the same writes give other entries; the index is then rebuilt.
    fn version(&self) -> u32;

    /// Whether writes of this encoded key may have entries.
    fn covers(&self, key: &[u8]) -> bool;

    /// Whether the range holds keys that may have entries. A range delete over it is carried out as
    /// single deletes, so that the entries go too.
    fn meets(&self, range: &KeyRange) -> bool;

    /// The entries of a covered key with this value. A value that does not decode has none: imported
    /// and raw bytes are never refused.
    fn entries(&self, key: &[u8], value: &[u8]) -> Vec<IndexEntry>;
}

/// One entry of an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// Where it stands: an encoded pair in a partition `00` `index/` and a name.
    pub key: Key,
    /// The key within its partition of what it points to.
    pub value: Vec<u8>,
}

/// The indexes of a store.
#[derive(Clone, Debug)]
pub struct IndexSet {
    indexes: Vec<Arc<dyn Index>>,
}

impl IndexSet {
    /// The given indexes.
    pub fn new(indexes: Vec<Arc<dyn Index>>) -> IndexSet {
        IndexSet { indexes }
    }

    /// What every store has.
    pub fn built_in() -> IndexSet {
        IndexSet::new(vec![Arc::new(UsersByEmail)])
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, index: Arc<dyn Index>) -> IndexSet {
        self.indexes.push(index);
        self
    }

    /// Those whose name passes.
    #[must_use]
    pub fn only(&self, passes: impl Fn(&str) -> bool) -> IndexSet {
        IndexSet { indexes: self.indexes.iter().filter(|index| passes(index.name())).cloned().collect() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Names and versions, sorted by name.
    pub fn versions(&self) -> Vec<ProjectionVersion> {
        let mut versions: Vec<_> = self
            .indexes
            .iter()
            .map(|index| ProjectionVersion {
                name: index.name().to_owned(),
                version: index.version(),
                since: Position::ZERO,
            })
            .collect();
        versions.sort();
        versions
    }

    /// Whether some index covers the encoded key: its old value is then needed to write it.
    pub fn covers(&self, key: &[u8]) -> bool {
        self.indexes.iter().any(|index| index.covers(key))
    }

    /// Whether a range delete must be carried out as single deletes.
    pub fn meets(&self, range: &KeyRange) -> bool {
        self.indexes.iter().any(|index| index.meets(range))
    }

    /// Adds what the indexes write when a covered key goes from `old` to `new`.
    pub fn project(&self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>, set: &mut WriteSet) {
        for index in self.indexes.iter().filter(|index| index.covers(key)) {
            let entries = |value: Option<&[u8]>| value.map_or_else(Vec::new, |value| index.entries(key, value));
            let (before, after) = (entries(old), entries(new));
            for entry in before.iter().filter(|entry| !after.iter().any(|kept| kept.key == entry.key)) {
                set.put(entry.key.clone(), None);
            }
            for entry in after.iter().filter(|entry| !before.contains(entry)) {
                set.put(entry.key.clone(), Some(&entry.value));
            }
        }
    }
}

/// Users by e-mail address, case-folded: lakeFS itself scans all users to find one.
///
/// Source: `users/<name>` in partition `auth` (message `UserData`, field 4). Entry: folded address,
/// `00`, user name -> the user's key.
#[derive(Clone, Copy, Debug)]
pub struct UsersByEmail;

const USERS: &[u8] = b"users/";
/// The encoded prefix of all users: partition `auth`, keys that begin with `users/`. Every write is compared with it.
const SOURCE: &[u8] = b"auth\0\x01users/";

/// The one field of lakeFS's `UserData` that the index needs.
#[derive(Clone, PartialEq, Message)]
struct UserEmail {
    #[prost(string, tag = "4")]
    email: String,
}

impl UsersByEmail {
    /// The index's own partition.
    pub const PARTITION: &'static [u8] = b"\0index/users-by-email";

    /// The range of entries for an address.
    pub fn lookup(email: &str) -> KeyRange {
        let mut prefix = email.to_lowercase().into_bytes();
        prefix.push(0);
        KeyRange::new(Self::PARTITION, &prefix)
    }
}

impl Index for UsersByEmail {
    fn name(&self) -> &'static str {
        "users-by-email"
    }

    fn version(&self) -> u32 {
        1
    }

    fn covers(&self, key: &[u8]) -> bool {
        key.starts_with(SOURCE)
    }

    fn meets(&self, range: &KeyRange) -> bool {
        range.contains(SOURCE) || range.prefix().starts_with(SOURCE)
    }

    fn entries(&self, key: &[u8], value: &[u8]) -> Vec<IndexEntry> {
        let Ok(user) = UserEmail::decode(value) else { return Vec::new() };
        let Some(primary) = Key::key_start(key).and_then(|start| key.get(start..)) else { return Vec::new() };
        let Some(name) = primary.strip_prefix(USERS) else { return Vec::new() };
        if user.email.is_empty() {
            return Vec::new();
        }
        let mut index_key = user.email.to_lowercase().into_bytes();
        index_key.push(0);
        index_key.extend_from_slice(name);
        vec![IndexEntry { key: Key::new(Self::PARTITION, &index_key), value: primary.to_vec() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(email: &str) -> Vec<u8> {
        UserEmail { email: email.to_owned() }.encode_to_vec()
    }

    fn written(old: Option<&[u8]>, new: Option<&[u8]>) -> Vec<(String, bool)> {
        let mut set = WriteSet::default();
        IndexSet::built_in().project(&Key::new(b"auth", b"users/ann"), old, new, &mut set);
        set.writes.iter().map(|w| (w.key.escape_ascii().to_string(), w.value.is_some())).collect()
    }

    #[test]
    fn entries_follow_the_value() {
        let (old, new) = (user("Ann@Example.org"), user("ann@new.org"));
        let old_key = r"\x00\xffindex/users-by-email\x00\x01ann@example.org\x00ann".to_owned();
        let new_key = r"\x00\xffindex/users-by-email\x00\x01ann@new.org\x00ann".to_owned();
        assert_eq!(written(None, Some(&old)), [(old_key.clone(), true)]);
        assert_eq!(written(Some(&old), Some(&new)), [(old_key.clone(), false), (new_key, true)]);
        assert_eq!(written(Some(&old), Some(&old)), []);
        assert_eq!(written(Some(&old), None), [(old_key, false)]);
        assert_eq!(written(None, Some(b"\xff\xff not protobuf")), []);
    }

    #[test]
    fn the_source_is_the_users() {
        assert_eq!(KeyRange::new(b"auth", USERS).prefix(), SOURCE);
    }

    #[test]
    fn only_ranges_over_users_are_met() {
        let set = IndexSet::built_in();
        assert!(set.meets(&KeyRange::new(b"auth", b"")));
        assert!(set.meets(&KeyRange::new(b"auth", b"users/an")));
        assert!(!set.meets(&KeyRange::new(b"auth", b"groups/")));
        assert!(!set.meets(&KeyRange::new(b"graveler", b"")));
    }
}
