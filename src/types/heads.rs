//! [`Heads`]: finds a place among sorted keys without looking at the keys.
//!
//! Sorted neighbours begin alike and lie anywhere in memory. The few bytes behind their common beginning tell nearly all of
//! them apart, and lie side by side here.

/// Of some sorted keys between two bounds the 4 bytes of each behind those that all begin with, as numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads {
    shared: usize,
    heads: Vec<u32>,
}

impl Heads {
    /// Of keys in order, which lie, as all that are looked for, between `from` and `to` (both inclusive; `None`: no end).
    pub fn new<'a>(from: &[u8], to: Option<&[u8]>, keys: impl Iterator<Item = &'a [u8]>) -> Heads {
        let common = |to: &[u8]| from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let mut heads = Heads { shared: to.map_or(0, common), heads: Vec::with_capacity(keys.size_hint().0) };
        keys.for_each(|key| heads.heads.push(heads.head(key)));
        heads
    }

    /// Adds the head of a key that comes in at `at`.
    pub fn insert(&mut self, at: usize, key: &[u8]) {
        self.heads.insert(at, self.head(key));
    }

    /// Removes the head at `at`.
    pub fn remove(&mut self, at: usize) {
        self.heads.remove(at);
    }

    /// Where the first key is that is not below `key`; behind the last, when all are. `key_at` gives the keys, and is asked for
    /// the few whose heads are the same.
    #[cfg(feature = "sled")]
    pub fn first_not_below<'a>(&self, key: &[u8], key_at: impl Fn(usize) -> &'a [u8]) -> usize {
        self.place(key, key_at).0
    }

    /// Where the key is, or where it would be. Where no key has its head, none is looked at.
    pub fn find<'a>(&self, key: &[u8], key_at: impl Fn(usize) -> &'a [u8]) -> Result<usize, usize> {
        let (at, end) = self.place(key, &key_at);
        match at < end && key_at(at) == key {
            true => Ok(at),
            false => Err(at),
        }
    }

    /// Where the first key is that is not below `key`, and where those end that have its head.
    fn place<'a>(&self, key: &[u8], key_at: impl Fn(usize) -> &'a [u8]) -> (usize, usize) {
        let head = self.head(key);
        // All of them, without a branch and without a load that waits for another.
        let mut low = self.heads.iter().map(|&other| u32::from(other < head)).sum::<u32>() as usize;
        let same = self.heads.iter().skip(low).take_while(|&&other| other == head).count();
        let end = low + same;
        let mut high = end;
        while low < high {
            let middle = low.midpoint(high);
            match key_at(middle) < key {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        (low, end)
    }

    /// Bytes of memory.
    #[cfg(feature = "sled")]
    pub fn memory_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<u32>()
    }

    /// Zeros stand for what a short key does not have: the order is kept, and keys with the same head are looked at.
    fn head(&self, key: &[u8]) -> u32 {
        let rest = key.get(self.shared..).unwrap_or_default();
        if let Some(head) = rest.first_chunk() {
            return u32::from_be_bytes(*head);
        }
        let mut head = [0; 4];
        head[..rest.len()].copy_from_slice(rest);
        u32::from_be_bytes(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_search_of_the_keys_finds(
            beginning in prop::collection::vec(any::<u8>(), 0..9),
            tails in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..7), 2..40),
            open in any::<bool>(),
        ) {
            let mut keys: Vec<Vec<u8>> = tails.iter().map(|tail| [&beginning[..], tail].concat()).collect();
            keys.sort();
            let (Some(from), Some(to)) = (keys.first(), keys.last()) else { return Ok(()) };
            // Those that are looked for lie between the bounds, too.
            let (held, sought) = (keys.iter().step_by(2), &keys);
            let held: Vec<&[u8]> = held.map(|key| &key[..]).collect();
            let to = (!open).then_some(&to[..]);
            let heads = Heads::new(from, to, held.iter().copied());
            let mut grown = Heads::new(from, to, [].into_iter());
            held.iter().rev().for_each(|key| grown.insert(0, key));
            grown.insert(held.len() / 2, from);
            grown.remove(held.len() / 2);
            for key in sought {
                let expected = held.partition_point(|other| *other < &key[..]);
                let found = held.get(expected).is_some_and(|other| *other == &key[..]);
                let expected = if found { Ok(expected) } else { Err(expected) };
                prop_assert_eq!(heads.find(key, |at| held[at]), expected);
                prop_assert_eq!(grown.find(key, |at| held[at]), expected);
                prop_assert_eq!(heads.place(key, |at| held[at]).0, expected.unwrap_or_else(|at| at));
            }
        }
    }
}
