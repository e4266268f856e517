//! [`Filter`]: which events a subscriber wants to see. A pure predicate.

use std::collections::BTreeSet;

use super::prepare::check_range;
use crate::event::Event;
use crate::types::{Error, ErrorKind, PartitionClass, Result};

/// Which events to deliver. By default everything in partitions of records: what a running server tells itself
/// ([`PartitionClass::Operational`]) and the store's own events are left out unless asked for.
///
/// An event that names a key meets the filter when the key does. One that names a range (`delete_range`,
/// `restore_range`) meets it when the range covers, or lies within, what the filter names. A `redacted` event meets it when one
/// of the keys whose values were erased does, so that who keeps copies learns of it. Writes of cursors never meet a filter.
///
/// ```
/// use lakelog::Filter;
///
/// // Users and groups, and whatever happens in one repository.
/// let filter = Filter::new().prefix(b"auth", b"users/").prefix(b"auth", b"groups/").partition(b"repo-demo");
/// // Only what was deleted there.
/// let deletions = filter.kind("delete").kind("delete_range");
/// # let _ = deletions;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Partition and prefix; none is every partition of the classes asked for.
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names of kinds; none is all.
    kinds: BTreeSet<String>,
    operational: bool,
    internal: bool,
}

impl Filter {
    /// Every event in partitions of records.
    pub fn new() -> Filter {
        Filter::default()
    }

    /// Events in this partition, whatever its class, and in others named like this.
    #[must_use]
    pub fn partition(self, partition: &[u8]) -> Filter {
        self.prefix(partition, b"")
    }

    /// Events at keys of this partition that begin with a prefix, and at others named like this.
    #[must_use]
    pub fn prefix(mut self, partition: &[u8], prefix: &[u8]) -> Filter {
        self.ranges.push((partition.to_vec(), prefix.to_vec()));
        self
    }

    /// Only events of this kind ([`Event::kind_name`]) and of others named like this. Naming one of the store's own kinds
    /// asks for it.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Filter {
        self.kinds.insert(kind.to_owned());
        self
    }

    /// Where no partition is named: also events in operational partitions.
    #[must_use]
    pub fn operational(mut self) -> Filter {
        self.operational = true;
        self
    }

    /// Also the store's own events: marks and expired requests.
    #[must_use]
    pub fn internal(mut self) -> Filter {
        self.internal = true;
        self
    }

    /// Refuses partitions and prefixes that nothing can be written to, and names of no kind.
    pub(crate) fn check(&self) -> Result<()> {
        self.ranges.iter().try_for_each(|(partition, prefix)| check_range(partition, prefix))?;
        match self.kinds.iter().find(|kind| !Event::KIND_NAMES.contains(&&kind[..])) {
            None => Ok(()),
            Some(kind) => {
                let message = format!("there is no such kind of event, kind=`{}`", kind.escape_debug());
                Err(Error::new(ErrorKind::Invalid, message))
            }
        }
    }

    /// Whether the event is to be delivered.
    pub(crate) fn meets(&self, event: &Event) -> bool {
        if is_cursor(event) || !(self.kinds.is_empty() || self.kinds.contains(event.kind_name())) {
            return false;
        }
        match event {
            Event::Set { partition, key, .. } | Event::Delete { partition, key } | Event::Erased { partition, key } => {
                self.meets_key(partition, key)
            }
            Event::DeleteRange { partition, prefix } | Event::RestoreRange { partition, prefix, .. } => {
                self.any(partition, |named| prefix.starts_with(named) || named.starts_with(prefix))
            }
            Event::Redacted { transactions } => {
                let mut keys = transactions.iter().flat_map(|left| &left.keys);
                self.internal || keys.any(|(partition, key)| self.meets_key(partition, key))
            }
            // Whoever named kinds has named this one.
            Event::MarkSet { .. } | Event::MarkDeleted { .. } | Event::RequestsExpired { .. } => {
                self.internal || !self.kinds.is_empty()
            }
            // Where it writes is not known: it is for those who want everything.
            Event::Unknown(_) => self.ranges.is_empty(),
            Event::CursorSet { .. } | Event::CursorDeleted { .. } => false,
        }
    }

    fn meets_key(&self, partition: &[u8], key: &[u8]) -> bool {
        self.any(partition, |named| key.starts_with(named))
    }

    /// Whether a prefix that is named in the partition has the property; without names, whether the class is asked for.
    fn any(&self, partition: &[u8], property: impl Fn(&[u8]) -> bool) -> bool {
        if self.ranges.is_empty() {
            return self.operational || PartitionClass::of(partition) == PartitionClass::Record;
        }
        self.ranges.iter().any(|(named, prefix)| named == partition && property(prefix))
    }
}

/// Whether the event says how far a consumer got.
pub(crate) fn is_cursor(event: &Event) -> bool {
    matches!(event, Event::CursorSet { .. } | Event::CursorDeleted { .. })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::{RedactedTransaction, UnknownEvent};
    use crate::types::{Digest, Hash, Position};

    const PARTITIONS: [&[u8]; 5] = [b"p", b"pq", b"q", b"usage", b"catalog"];

    fn bytes(text: &[u8]) -> Bytes {
        Bytes::copy_from_slice(text)
    }

    fn key_events(partition: &[u8], key: &[u8]) -> [Event; 3] {
        let (partition, key) = (bytes(partition), bytes(key));
        [
            Event::Set { partition: partition.clone(), key: key.clone(), value: Bytes::new() },
            Event::Delete { partition: partition.clone(), key: key.clone() },
            Event::Erased { partition, key },
        ]
    }

    fn range_events(partition: &[u8], prefix: &[u8]) -> [Event; 2] {
        let (partition, prefix) = (bytes(partition), bytes(prefix));
        [
            Event::DeleteRange { partition: partition.clone(), prefix: prefix.clone() },
            Event::RestoreRange { partition, prefix, as_of: Position(1) },
        ]
    }

    fn redacted(keys: &[(&[u8], &[u8])]) -> Event {
        let keys = keys.iter().map(|(partition, key)| (bytes(partition), bytes(key))).collect();
        Event::Redacted {
            transactions: vec![RedactedTransaction { position: Position(1), digest: Digest([0; 32]), keys }],
        }
    }

    fn own() -> [Event; 3] {
        [
            Event::MarkSet { name: "m".into(), position: Position(1) },
            Event::MarkDeleted { name: "m".into() },
            Event::RequestsExpired { requests: Vec::new() },
        ]
    }

    fn cursors() -> [Event; 2] {
        let name = String::from("c");
        [
            Event::CursorSet { name: name.clone(), position: Position(1), chain: Hash([0; 32]) },
            Event::CursorDeleted { name },
        ]
    }

    fn unknown() -> Event {
        Event::Unknown(UnknownEvent { kind: 99, version: 0, ignorable: true, minimum_reader: 0, body: Bytes::new() })
    }

    #[test]
    fn ranges_meet_what_they_cover_and_what_they_lie_within() {
        // The range of the event, the prefix that the filter names in `p`, whether they meet.
        let table = [
            (&b"p"[..], &b""[..], &b""[..], true),
            (b"p", b"", b"users/", true),
            (b"p", b"users/", b"", true),
            (b"p", b"users/", b"users/", true),
            (b"p", b"users/a", b"users/", true),
            (b"p", b"u", b"users/", true),
            (b"p", b"v", b"users/", false),
            (b"p", b"users0", b"users/", false),
            (b"p", b"groups/", b"users/", false),
            (b"pq", b"", b"", false),
            (b"q", b"users/", b"users/", false),
            (b"", b"", b"", false),
        ];
        for (partition, prefix, named, meets) in table {
            for event in range_events(partition, prefix) {
                assert_eq!(Filter::new().prefix(b"p", named).meets(&event), meets, "{event:?} {named:?}");
                // Another name that meets nothing changes nothing.
                let other = Filter::new().partition(b"z").prefix(b"p", named);
                assert_eq!(other.meets(&event), meets, "{event:?} {named:?}");
            }
        }
    }

    /// Of all keys of two letters: a range event meets exactly when a key of its range is one of the filter's.
    #[test]
    fn a_range_meets_when_there_can_be_a_key_that_does() {
        let texts: Vec<&[u8]> = vec![b"", b"a", b"b", b"aa", b"ab", b"ba", b"bb"];
        let keys: Vec<Vec<u8>> = (0..8).map(|n| (0..3).map(|bit| b"ab"[n >> bit & 1]).collect()).collect();
        for prefix in &texts {
            for named in &texts {
                let filter = Filter::new().prefix(b"p", named);
                let common = keys.iter().any(|key| {
                    key.starts_with(prefix) && key_events(b"p", key).iter().all(|event| filter.meets(event))
                });
                for event in range_events(b"p", prefix) {
                    assert_eq!(filter.meets(&event), common, "{prefix:?} {named:?}");
                }
            }
        }
    }

    #[test]
    fn classes_are_hidden_unless_asked_for() {
        let shown = |filter: &Filter| {
            let shown = PARTITIONS.map(|partition| {
                let events = key_events(partition, b"k").into_iter().chain(range_events(partition, b"k"));
                let met: BTreeSet<bool> = events.map(|event| filter.meets(&event)).collect();
                assert_eq!(met.len(), 1);
                met.contains(&true)
            });
            let own: Vec<bool> = own().iter().map(|event| filter.meets(event)).collect();
            assert!(own.iter().all(|met| *met == own[0]));
            (shown, own[0])
        };
        let records = [true, true, true, false, false];
        assert_eq!(shown(&Filter::new()), (records, false));
        assert_eq!(shown(&Filter::new().operational()), ([true; 5], false));
        assert_eq!(shown(&Filter::new().internal()), (records, true));
        assert_eq!(shown(&Filter::new().operational().internal()), ([true; 5], true));
        let usage = [false, false, false, true, false];
        assert_eq!(shown(&Filter::new().partition(b"usage")), (usage, false));
        assert_eq!(shown(&Filter::new().prefix(b"usage", b"k").internal()), (usage, true));
        assert_eq!(shown(&Filter::new().prefix(b"usage", b"kk").kind("nothing")), ([false; 5], false));
    }

    #[test]
    fn kinds_narrow_and_name_the_stores_own() {
        let events: Vec<Event> = key_events(b"p", b"k").into_iter().chain(range_events(b"p", b"")).collect();
        let events: Vec<Event> =
            events.into_iter().chain(own()).chain([redacted(&[(b"p", b"k")]), unknown()]).collect();
        for event in &events {
            let filter = Filter::new().kind(event.kind_name());
            let met = events.iter().filter(|other| filter.meets(other)).collect::<Vec<_>>();
            assert_eq!(met, [event]);
            assert!(filter.check().is_ok());
        }
        let both = Filter::new().partition(b"q").kind("set").kind("mark_set");
        let met: Vec<_> = events.iter().filter(|event| both.meets(event)).map(Event::kind_name).collect();
        assert_eq!(met, ["mark_set"]);
    }

    #[test]
    fn cursors_never_meet_a_filter() {
        let all = Filter::new().operational().internal();
        for filter in [all.clone(), all.clone().kind("cursor_set").kind("cursor_deleted"), all.partition(b"p")] {
            assert!(cursors().iter().all(|event| !filter.meets(event)), "{filter:?}");
        }
    }

    #[test]
    fn what_was_redacted_is_told_to_who_may_have_copies() {
        let event = redacted(&[(b"q", b"x"), (b"p", b"users/a")]);
        assert!(Filter::new().meets(&event));
        assert!(Filter::new().prefix(b"p", b"users/").meets(&event));
        assert!(!Filter::new().prefix(b"p", b"groups/").meets(&event));
        assert!(!Filter::new().meets(&redacted(&[(b"usage", b"x")])));
        assert!(Filter::new().internal().meets(&redacted(&[])));
    }

    #[test]
    fn what_is_not_understood_is_for_who_wants_everything() {
        assert!(Filter::new().meets(&unknown()));
        assert!(!Filter::new().partition(b"p").meets(&unknown()));
    }

    #[test]
    fn what_nothing_can_meet_is_refused() {
        let filters = [
            Filter::new().partition(b""),
            Filter::new().partition(b"\0marks"),
            Filter::new().partition(&[b'x'; 513]),
            Filter::new().prefix(b"p", &[b'x'; 2600]),
            Filter::new().kind("sets"),
        ];
        for filter in filters {
            assert_eq!(filter.check().unwrap_err().kind(), ErrorKind::Invalid, "{filter:?}");
        }
        assert!(Filter::new().partition(b"p").prefix(b"usage", b"x").kind("set").check().is_ok());
    }
}
