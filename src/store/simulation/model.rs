//! What must come of what was asked: a naive map for every position, worked out without the code under test.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use super::schedule::{Change, Kind};
use crate::types::{Digest, Hash, Position};

/// Partition and key.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// The keys of a partition with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranged {
    pub partition: Vec<u8>,
    pub prefix: Vec<u8>,
}

impl Ranged {
    pub fn covers(&self, (partition, key): &Pair) -> bool {
        *partition == self.partition && key.starts_with(&self.prefix)
    }

    /// Whether users may be in it, which an index covers.
    fn meets_users(&self) -> bool {
        self.partition == b"auth" && (self.prefix.is_empty() || self.prefix.starts_with(b"users/"))
    }
}

/// A value as it stands at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub bytes: Bytes,
    /// The position that wrote it, where the model says it.
    pub version: Option<Position>,
    pub erased: bool,
    /// Of what kind it was made.
    pub address: u8,
}

pub(super) type State = BTreeMap<Pair, Value>;

/// What a transaction is to do, as its caller asked.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Change(Change),
    Chain {
        read: Pair,
        scanned: Ranged,
        written: Pair,
    },
    Undo(Position),
    Rewind(Ranged, Position),
    Redact(Pair),
    /// An entry in the audit, and nothing else.
    Nothing,
}

/// The bytes of a value that `tag` says of a key: a user with an address, something that is found again in a file, and padding.
pub(super) fn value(tag: &str, pair: &Pair, kind: Kind) -> Bytes {
    let address = address(kind.address);
    let mut bytes = vec![0x22, address.len() as u8];
    bytes.extend_from_slice(address.as_bytes());
    let text = format!("<{tag} {} {}>", pair.0.escape_ascii(), pair.1.escape_ascii());
    let len = text.len() + kind.bytes;
    // Field 5, with a length of two bytes or three.
    bytes.extend_from_slice(&[0x2a, (len & 0x7f) as u8 | 0x80, (len >> 7 & 0x7f) as u8 | 0x80, (len >> 14) as u8]);
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(bytes.len() + kind.bytes, 7);
    bytes.into()
}

/// What is found again of it: in no other value.
pub(super) fn text(value: &[u8]) -> &[u8] {
    let (start, end) = (value.iter().position(|&byte| byte == b'<'), value.iter().position(|&byte| byte == b'>'));
    start.zip(end).map_or(&[][..], |(start, end)| &value[start..=end])
}

pub(super) fn address(number: u8) -> String {
    format!("{number}@x")
}

/// What a transaction says that has read this: a digest, so that it stays short.
pub(super) fn saw(read: Option<&[u8]>, scanned: impl Iterator<Item = (Vec<u8>, Digest)>) -> String {
    let mut said = format!("{:?}", read.map(Digest::of_bytes));
    for (key, value) in scanned {
        write!(said, " {}={value:?}", key.escape_ascii()).unwrap();
    }
    let Digest(digest) = Digest::of_bytes(said.as_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One transaction of the history.
#[derive(Clone, Debug)]
struct Known {
    actor: String,
    asked: Asked,
    chain: Hash,
}

/// Everything that is known to be durable, by position.
#[derive(Clone, Debug)]
pub(super) struct History {
    transactions: Vec<Known>,
    /// One more: the empty one comes first.
    states: Vec<State>,
}

impl History {
    pub fn new() -> History {
        History { transactions: Vec::new(), states: vec![State::new()] }
    }

    pub fn head(&self) -> Position {
        Position(self.transactions.len() as u64)
    }

    pub fn at(&self, position: Position) -> &State {
        &self.states[position.0 as usize]
    }

    fn known(&self, position: Position) -> Option<&Known> {
        self.transactions.get((position.0 as usize).checked_sub(1)?)
    }

    pub fn actor(&self, position: Position) -> Option<&str> {
        self.known(position).map(|known| &known.actor[..])
    }

    pub fn chain(&self, position: Position) -> Option<Hash> {
        self.known(position).map(|known| known.chain)
    }

    /// Whether a subscriber hears of it for certain.
    pub fn is_heard(&self, position: Position) -> bool {
        matches!(self.known(position), Some(Known { asked: Asked::Change(_) | Asked::Chain { .. }, .. }))
    }

    /// The positions of plain changes: what can be undone.
    pub fn changes(&self) -> Vec<Position> {
        let plain = self.transactions.iter().zip(1..);
        plain.filter(|(known, _)| matches!(known.asked, Asked::Change(_))).map(|(_, at)| Position(at)).collect()
    }

    /// The next transaction of the order is this one; gives what each value said that it erased.
    pub fn push(&mut self, actor: &str, asked: &Asked, chain: Hash) -> Vec<Bytes> {
        let position = self.head().next();
        let mut state = self.states[self.states.len() - 1].clone();
        let mut erased = Vec::new();
        let set = |bytes, address| Value { bytes, version: Some(position), erased: false, address };
        match asked {
            Asked::Nothing => {}
            Asked::Change(change) => {
                if let Some((pair, there)) = &change.condition {
                    assert_eq!(
                        state.contains_key(pair),
                        *there,
                        "{actor} at {position} was committed against its condition"
                    );
                }
                if let Some(range) = &change.range {
                    state.retain(|pair, _| !range.covers(pair));
                }
                for (pair, kind) in &change.sets {
                    state.insert(pair.clone(), set(value(actor, pair, *kind), kind.address));
                }
                change.deletes.iter().for_each(|pair| drop(state.remove(pair)));
            }
            Asked::Chain { read, scanned, written } => {
                let inside = state.iter().filter(|(pair, _)| scanned.covers(pair));
                let inside = inside.map(|((_, key), value)| (key.clone(), Digest::of_bytes(&value.bytes)));
                let saw = saw(state.get(read).map(|value| &value.bytes[..]), inside);
                let kind = Kind { address: 0, bytes: 0 };
                state.insert(written.clone(), set(value(&format!("{actor} saw {saw}"), written, kind), 0));
            }
            Asked::Undo(undone) => self.undo(&mut state, *undone, position),
            Asked::Rewind(range, to) => {
                let then = self.at(*to);
                state.retain(|pair, _| !range.covers(pair));
                state.extend(then.iter().filter(|(pair, _)| range.covers(pair)).map(|(pair, then)| {
                    // Key by key or as a whole: the store may choose.
                    (pair.clone(), Value { version: None, ..then.clone() })
                }));
            }
            Asked::Redact(pair) => {
                for earlier in &mut self.states {
                    if let Some(value) = earlier.get_mut(pair) {
                        value.erased = true;
                        erased.push(value.bytes.clone());
                    }
                }
                state.remove(pair);
            }
        }
        assert!(state.values().all(|value| !value.erased), "{actor} at {position} brought back what was redacted");
        self.transactions.push(Known { actor: actor.to_owned(), asked: asked.clone(), chain });
        self.states.push(state);
        erased
    }

    fn undo(&self, state: &mut State, undone: Position, position: Position) {
        let Some(Known { asked: Asked::Change(change), .. }) = self.known(undone) else {
            panic!("{undone} is no change, and was undone at {position}");
        };
        let then = self.at(undone.previous());
        let keys = change.sets.iter().map(|(pair, _)| pair).chain(&change.deletes);
        let covered: Vec<&Pair> = match &change.range {
            None => Vec::new(),
            // Where an index covers it, a range is deleted key by key: of those that were there.
            Some(range) if range.meets_users() => then.keys().filter(|pair| range.covers(pair)).collect(),
            Some(range) => state.keys().chain(then.keys()).filter(|pair| range.covers(pair)).collect(),
        };
        let touched: Vec<Pair> = keys.chain(covered).cloned().collect();
        for pair in touched {
            if let Some(version) = state.get(&pair).and_then(|value| value.version) {
                assert!(version <= undone, "{version} depends on {undone}, which was undone at {position}");
            }
            match then.get(&pair) {
                Some(value) => drop(state.insert(pair, Value { version: None, ..value.clone() })),
                None => drop(state.remove(&pair)),
            }
        }
    }

    /// Whether a transaction that stands after `position` has no effect, and so none of its own.
    pub fn changes_nothing(&self, position: Position, asked: &Asked) -> bool {
        let now = self.at(position);
        match asked {
            Asked::Rewind(range, to) => {
                let inside = |state: &State| -> Vec<(Pair, Bytes)> {
                    let inside = state.iter().filter(|(pair, _)| range.covers(pair));
                    inside.map(|(pair, value)| (pair.clone(), value.bytes.clone())).collect()
                };
                inside(now) == inside(self.at(*to))
            }
            Asked::Undo(undone) => {
                let mut undone_state = now.clone();
                self.undo(&mut undone_state, *undone, position.next());
                let bytes = |state: &State| -> Vec<(Pair, Bytes)> {
                    state.iter().map(|(pair, value)| (pair.clone(), value.bytes.clone())).collect()
                };
                bytes(&undone_state) == bytes(now)
            }
            // With nothing to erase, what an archive was owed by an earlier redaction was done, and the answer names that one.
            Asked::Redact(pair) => {
                let states = self.states.iter().take(position.0 as usize + 1);
                matches!(self.known(position), Some(Known { asked: Asked::Redact(_), .. }))
                    && states.filter_map(|state| state.get(pair)).all(|value| value.erased)
            }
            _ => false,
        }
    }

    /// The users with an address, in order.
    pub fn users(&self, position: Position, number: u8) -> Vec<Vec<u8>> {
        let users = self.at(position).iter().filter(|((partition, key), value)| {
            partition == b"auth" && key.starts_with(b"users/") && value.address == number
        });
        users.map(|((_, key), _)| key.clone()).collect()
    }
}
