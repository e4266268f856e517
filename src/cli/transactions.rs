//! Transactions as `log`, `show` and `tail` list them: their JSON, their text, and which of them were asked for.

use std::fmt;

use clap::Args;
use serde::Serialize;

use crate::event::{Event, Transaction};
use crate::types::{Hash, PartitionClass, Position, Result, Timestamp};

use super::text::{self, Name, shown};

/// One transaction of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its place in the order.
    pub position: u64,
    /// Recorded time, RFC 3339.
    pub time: String,
    /// Who.
    pub actor: String,
    /// Why, when it was said.
    pub reason: Option<String>,
    /// The request that it answers.
    pub request_id: Option<String>,
    /// The chain hash at it.
    pub chain: String,
    /// What happened, in order.
    pub events: Vec<ListedEvent>,
}

/// One event of a listed transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListedEvent {
    /// The name of its kind.
    pub kind: &'static str,
    /// What it writes.
    pub writes: Vec<ListedWrite>,
    /// The number of remembered requests that end with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// The mark or cursor that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The position that is named, seen or restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// The positions of the transactions whose values were erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redacted: Option<Vec<u64>>,
    /// The number of a kind that this version does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

/// One write of a listed event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedWrite {
    /// `set`, `delete`, `delete_range`, `restore_range` or `erased`.
    pub op: &'static str,
    /// The partition.
    pub partition: Name,
    /// The key written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Name>,
    /// The prefix of the keys written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Name>,
}

impl Listed {
    /// Lists a transaction.
    pub fn new(position: Position, time: Timestamp, chain: &Hash, transaction: &Transaction) -> Listed {
        Listed {
            position: position.0,
            time: time.to_string(),
            actor: transaction.actor.clone(),
            reason: transaction.reason.clone(),
            request_id: transaction.request.as_ref().map(|request| request.id.clone()),
            chain: chain.to_string(),
            events: transaction.events.iter().map(ListedEvent::new).collect(),
        }
    }
}

impl ListedEvent {
    fn new(event: &Event) -> ListedEvent {
        let writes = write(event).map(ListedWrite::new).into_iter().collect();
        let mut listed = ListedEvent { kind: event.kind_name(), writes, ..ListedEvent::default() };
        match event {
            Event::RequestsExpired { requests } => listed.requests = Some(requests.len() as u64),
            Event::RestoreRange { as_of, .. } => listed.at = Some(as_of.0),
            Event::MarkSet { name, position } | Event::CursorSet { name, position, .. } => {
                (listed.name, listed.at) = (Some(name.clone()), Some(position.0));
            }
            Event::MarkDeleted { name } | Event::CursorDeleted { name } => listed.name = Some(name.clone()),
            Event::Redacted { transactions } => {
                listed.redacted = Some(transactions.iter().map(|left| left.position.0).collect());
            }
            Event::Unknown(unknown) => listed.number = Some(unknown.kind),
            Event::Set { .. } | Event::Delete { .. } | Event::DeleteRange { .. } | Event::Erased { .. } => {}
        }
        listed
    }
}

impl ListedWrite {
    fn new(write: Write<'_>) -> ListedWrite {
        let name = Name(write.key.to_vec());
        let (key, prefix) = if write.is_range { (None, Some(name)) } else { (Some(name), None) };
        ListedWrite { op: write.op, partition: Name(write.partition.to_vec()), key, prefix }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}  {}", self.position, self.time, shown(self.actor.as_bytes()))?;
        if let Some(id) = &self.request_id {
            write!(f, "  request {}", shown(id.as_bytes()))?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "  ({})", shown(reason.as_bytes()))?;
        }
        for event in &self.events {
            write!(f, "{event}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ListedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListedEvent { requests: Some(requests), .. } => write!(f, "\n    {} {requests}", self.kind)?,
            ListedEvent { number: Some(number), .. } => write!(f, "\n    {} kind {number}", self.kind)?,
            ListedEvent { redacted: Some(positions), .. } => write!(f, "\n    {} {positions:?}", self.kind)?,
            ListedEvent { name: Some(name), at, .. } => {
                write!(f, "\n    {} {}", self.kind, shown(name.as_bytes()))?;
                at.iter().try_for_each(|at| write!(f, " {at}"))?;
            }
            _ => {}
        }
        for write in &self.writes {
            write!(f, "\n    {} {} ", write.op, shown(&write.partition.0))?;
            match (&write.key, &write.prefix) {
                (Some(key), _) => write!(f, "{}", shown(&key.0))?,
                (_, Some(prefix)) => write!(f, "{}*", shown(&prefix.0))?,
                _ => {}
            }
            if let (Some(at), None) = (self.at, &self.name) {
                write!(f, " as of {at}")?;
            }
        }
        Ok(())
    }
}

/// What an event writes, seen alike for all kinds.
struct Write<'a> {
    op: &'static str,
    partition: &'a [u8],
    key: &'a [u8],
    is_range: bool,
}

fn write(event: &Event) -> Option<Write<'_>> {
    let (partition, key, is_range) = match event {
        Event::Set { partition, key, .. } | Event::Delete { partition, key } => (partition, key, false),
        Event::DeleteRange { partition, prefix } => (partition, prefix, true),
        Event::RestoreRange { partition, prefix, .. } => (partition, prefix, true),
        Event::Erased { partition, key } => (partition, key, false),
        _ => return None,
    };
    Some(Write { op: event.kind_name(), partition, key, is_range })
}

/// Which transactions to list. Bounds are inclusive.
#[derive(Args, Clone, Debug, Default)]
pub struct FilterArgs {
    /// The first position
    #[arg(long, value_name = "POSITION")]
    pub from: Option<u64>,
    /// The last position
    #[arg(long, value_name = "POSITION")]
    pub to: Option<u64>,
    /// Not before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub since: Option<Timestamp>,
    /// Not after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
    /// Only by this actor
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only what writes to this partition
    #[arg(long, value_name = "P")]
    pub partition: Option<String>,
    /// Only what writes to keys with this prefix (of the partition given)
    #[arg(long, value_name = "PREFIX", requires = "partition")]
    pub prefix: Option<String>,
    /// Only with an event of this kind
    #[arg(long, value_name = "KIND", value_parser = Event::KIND_NAMES)]
    pub kind: Option<String>,
    /// Also transactions that write operational partitions only (heartbeats, leases, counters, the store's own)
    #[arg(long)]
    pub all: bool,
}

impl FilterArgs {
    /// The filter with partition and prefix as bytes.
    ///
    /// # Errors
    ///
    /// `Invalid` when they are not what `--hex` says they are.
    pub fn filter(self, hex: bool) -> Result<Filter> {
        let parse = |text: Option<String>| text.map(|text| text::parse(&text, hex)).transpose();
        Ok(Filter {
            from: self.from.map(|from| Position(from.max(1))),
            to: self.to.map_or(Position::MAX, Position),
            since: self.since,
            until: self.until,
            actor: self.actor,
            partition: parse(self.partition)?,
            prefix: parse(self.prefix)?.unwrap_or_default(),
            kind: self.kind,
            all: self.all,
        })
    }
}

/// Which transactions to list: a pure predicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The first position, at least 1; else the oldest that is there.
    pub from: Option<Position>,
    /// The last position.
    pub to: Position,
    /// The earliest recorded time.
    pub since: Option<Timestamp>,
    /// The latest recorded time.
    pub until: Option<Timestamp>,
    /// The actor.
    pub actor: Option<String>,
    /// A partition that is written to.
    pub partition: Option<Vec<u8>>,
    /// With the partition: a prefix of the keys written.
    pub prefix: Vec<u8>,
    /// The kind of an event.
    pub kind: Option<String>,
    /// Also what writes operational partitions only ([`PartitionClass`]).
    pub all: bool,
}

impl Filter {
    /// Every transaction from a position on, but for those in operational partitions only.
    pub fn from(position: Position) -> Filter {
        Filter {
            from: Some(position),
            to: Position::MAX,
            since: None,
            until: None,
            actor: None,
            partition: None,
            prefix: Vec::new(),
            kind: None,
            all: false,
        }
    }

    /// The transaction at a position, whatever it is.
    pub fn at(position: Position) -> Filter {
        Filter { to: position, all: true, ..Filter::from(position) }
    }

    /// Whether nothing from here on can be listed: positions and recorded times only grow.
    pub fn is_past(&self, position: Position, time: Timestamp) -> bool {
        position > self.to || self.until.is_some_and(|until| time > until)
    }

    /// Whether the transaction is to be listed.
    pub fn accepts(&self, position: Position, time: Timestamp, transaction: &Transaction) -> bool {
        self.from.is_none_or(|from| position >= from)
            && !self.is_past(position, time)
            && self.since.is_none_or(|since| time >= since)
            && self.actor.as_ref().is_none_or(|actor| *actor == transaction.actor)
            && self
                .kind
                .as_ref()
                .is_none_or(|wanted| transaction.events.iter().any(|event| event.kind_name() == wanted))
            && self.partition.as_ref().is_none_or(|partition| {
                transaction.events.iter().filter_map(write).any(|write| self.meets(partition, &write))
            })
            && (self.all || self.partition.is_some() || !is_operational(transaction))
    }

    fn meets(&self, partition: &[u8], write: &Write<'_>) -> bool {
        // A range meets a prefix when either lies within the other.
        write.partition == partition
            && (write.key.starts_with(&self.prefix) || (write.is_range && self.prefix.starts_with(write.key)))
    }
}

/// Whether a transaction changes nothing but operational partitions.
fn is_operational(transaction: &Transaction) -> bool {
    !transaction.events.is_empty()
        && transaction.events.iter().all(|event| match event {
            Event::RequestsExpired { .. } | Event::CursorSet { .. } | Event::CursorDeleted { .. } => true,
            Event::MarkSet { .. } | Event::MarkDeleted { .. } | Event::Redacted { .. } | Event::Unknown(_) => false,
            event => {
                write(event).is_some_and(|write| PartitionClass::of(write.partition) == PartitionClass::Operational)
            }
        })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::event::{RedactedTransaction, Request, UnknownEvent};
    use crate::types::Digest;

    fn set(partition: &'static str, key: &'static str) -> Event {
        Event::Set { partition: partition.into(), key: key.into(), value: Bytes::new() }
    }

    fn by(actor: &str, events: Vec<Event>) -> Transaction {
        Transaction { actor: actor.into(), reason: None, request: None, events }
    }

    #[test]
    fn json_is_as_fixed() {
        let transaction = Transaction {
            actor: "cli:ann".into(),
            reason: Some("why".into()),
            request: Some(Request { id: "r1".into(), digest: Digest([0; 32]), answer: Bytes::new() }),
            events: vec![
                set("auth", "users/a"),
                Event::Delete { partition: "auth".into(), key: Bytes::from_static(b"\xff") },
                Event::DeleteRange { partition: "p".into(), prefix: Bytes::new() },
                Event::RestoreRange { partition: "p".into(), prefix: "x".into(), as_of: Position(3) },
                Event::Erased { partition: "p".into(), key: "k".into() },
                Event::RequestsExpired { requests: vec![(Timestamp(1), "x".into())] },
                Event::MarkSet { name: "m".into(), position: Position(4) },
                Event::MarkDeleted { name: "m".into() },
                Event::CursorSet { name: "c".into(), position: Position(5), chain: Hash([0; 32]) },
                Event::CursorDeleted { name: "c".into() },
                Event::Redacted {
                    transactions: vec![RedactedTransaction {
                        position: Position(2),
                        digest: Digest([0; 32]),
                        keys: vec![("p".into(), "k".into())],
                    }],
                },
                Event::Unknown(UnknownEvent {
                    kind: 77,
                    version: 1,
                    ignorable: true,
                    minimum_reader: 0,
                    body: Bytes::new(),
                }),
            ],
        };
        let listed = Listed::new(Position(7), Timestamp(1_795_000_000_000_001), &Hash([0xab; 32]), &transaction);
        assert_eq!(
            serde_json::to_value(&listed).unwrap(),
            json!({
                "position": 7, "time": "2026-11-18T11:06:40.000001Z", "actor": "cli:ann", "reason": "why",
                "request_id": "r1", "chain": "ab".repeat(32),
                "events": [
                    {"kind": "set", "writes": [{"op": "set", "partition": "auth", "key": "users/a"}]},
                    {"kind": "delete", "writes": [{"op": "delete", "partition": "auth", "key": {"base64": "/w=="}}]},
                    {"kind": "delete_range", "writes": [{"op": "delete_range", "partition": "p", "prefix": ""}]},
                    {"kind": "restore_range", "writes": [{"op": "restore_range", "partition": "p", "prefix": "x"}], "at": 3},
                    {"kind": "erased", "writes": [{"op": "erased", "partition": "p", "key": "k"}]},
                    {"kind": "requests_expired", "writes": [], "requests": 1},
                    {"kind": "mark_set", "writes": [], "name": "m", "at": 4},
                    {"kind": "mark_deleted", "writes": [], "name": "m"},
                    {"kind": "cursor_set", "writes": [], "name": "c", "at": 5},
                    {"kind": "cursor_deleted", "writes": [], "name": "c"},
                    {"kind": "redacted", "writes": [], "redacted": [2]},
                    {"kind": "unknown", "writes": [], "number": 77},
                ],
            })
        );
        assert_eq!(listed.events.iter().map(|event| event.kind).collect::<Vec<_>>(), Event::KIND_NAMES);
        let text = listed.to_string();
        assert!(text.starts_with("7  2026-11-18T11:06:40.000001Z  cli:ann  request r1  (why)\n"), "{text}");
        assert!(text.contains("\n    delete_range p *"), "{text}");
        assert!(text.contains("\n    restore_range p x* as of 3\n"), "{text}");
        assert!(text.contains("\n    mark_set m 4\n"), "{text}");
        let plain = Listed::new(Position(1), Timestamp(0), &Hash([0; 32]), &by("a", vec![]));
        let json = serde_json::to_value(&plain).unwrap();
        assert_eq!((&json["reason"], &json["request_id"]), (&json!(null), &json!(null)));
    }

    #[test]
    fn nobody_writes_control_characters_to_a_terminal() {
        let listed = Listed::new(Position(1), Timestamp(0), &Hash([0; 32]), &by("\x1b[2J", vec![]));
        assert!(!listed.to_string().contains('\x1b'));
    }

    fn accepts(change: impl FnOnce(&mut FilterArgs), position: u64, time: i64, transaction: &Transaction) -> bool {
        let mut args = FilterArgs::default();
        change(&mut args);
        args.filter(false).unwrap().accepts(Position(position), Timestamp(time), transaction)
    }

    #[test]
    fn bounds_are_inclusive() {
        let transaction = by("a", vec![set("p", "k")]);
        for (position, expected) in [(4, false), (5, true), (6, true), (7, true), (8, false)] {
            let bounds = |args: &mut FilterArgs| (args.from, args.to) = (Some(5), Some(7));
            assert_eq!(accepts(bounds, position, 0, &transaction), expected, "position {position}");
            let times = |args: &mut FilterArgs| (args.since, args.until) = (Some(Timestamp(5)), Some(Timestamp(7)));
            assert_eq!(accepts(times, 1, position as i64, &transaction), expected, "time {position}");
        }
        let filter =
            FilterArgs { to: Some(7), until: Some(Timestamp(9)), ..FilterArgs::default() }.filter(false).unwrap();
        assert!(!filter.is_past(Position(7), Timestamp(9)));
        assert!(filter.is_past(Position(8), Timestamp(9)) && filter.is_past(Position(7), Timestamp(10)));
    }

    #[test]
    fn actor_and_kind_are_exact() {
        let transaction =
            by("cli:ann", vec![set("p", "k"), Event::DeleteRange { partition: "q".into(), prefix: "x".into() }]);
        for (actor, expected) in [("cli:ann", true), ("cli:an", false), ("", false)] {
            assert_eq!(accepts(|args| args.actor = Some(actor.into()), 1, 0, &transaction), expected, "{actor}");
        }
        for (kind, expected) in [("set", true), ("delete_range", true), ("delete", false)] {
            assert_eq!(accepts(|args| args.kind = Some(kind.into()), 1, 0, &transaction), expected, "{kind}");
        }
    }

    #[test]
    fn partition_and_prefix_meet_keys_and_ranges() {
        let check = |event: Event, partition: &str, prefix: Option<&str>, expected: bool| {
            let filter = |args: &mut FilterArgs| {
                (args.partition, args.prefix) = (Some(partition.into()), prefix.map(str::to_owned));
            };
            let transaction = by("a", vec![set("other", "x"), event.clone()]);
            assert_eq!(accepts(filter, 1, 0, &transaction), expected, "{event:?} {partition} {prefix:?}");
        };
        let range = |prefix: &'static str| Event::DeleteRange { partition: "p".into(), prefix: prefix.into() };
        check(set("p", "a/b"), "p", None, true);
        check(set("p", "a/b"), "pp", None, false);
        check(set("p", "a/b"), "p", Some("a/"), true);
        check(set("p", "a/b"), "p", Some("a/b"), true);
        check(set("p", "a/b"), "p", Some("a/bc"), false);
        check(range("a/"), "p", Some("a/b"), true);
        check(range("a/b"), "p", Some("a/"), true);
        check(range("a/c"), "p", Some("a/b"), false);
        check(range(""), "p", Some("z"), true);
        check(Event::Delete { partition: "p".into(), key: "a".into() }, "p", Some("a"), true);
        check(Event::RequestsExpired { requests: vec![] }, "p", None, false);
    }

    #[test]
    fn operational_partitions_are_listed_only_when_asked_for() {
        let expired = Event::RequestsExpired { requests: vec![] };
        for (events, shown) in [
            (vec![expired.clone()], false),
            (vec![set("\0requests", "x")], false),
            (vec![set("usage", "2026/11"), set("mc-ownership", "b")], false),
            (vec![set("usage", "2026/11"), set("graveler", "repos/r")], true),
            (vec![expired, set("p", "k")], true),
            (vec![], true),
        ] {
            let transaction = by("a", events);
            assert_eq!(accepts(|_| {}, 1, 0, &transaction), shown, "{transaction:?}");
            assert!(accepts(|args| args.all = true, 1, 0, &transaction));
        }
    }

    #[test]
    fn filters_of_bytes_honour_hex() {
        let args = FilterArgs { partition: Some("70".into()), prefix: Some("ff".into()), ..FilterArgs::default() };
        let filter = args.clone().filter(true).unwrap();
        assert_eq!((filter.partition, filter.prefix), (Some(b"p".to_vec()), vec![255]));
        assert!(FilterArgs { prefix: Some("x".into()), ..args }.filter(true).is_err());
    }
}
