//! The secondary iterator.

use super::fixture::{NO_MESSAGE, Sample, assert_fails, sample, set, set_sample, unique};
use crate::kv::{KeyValue, KvError, SecondaryIndex, SecondaryIterator, StartAt, set_message};

const WORDS: [(&str, &str); 5] = [("one", "a"), ("two", "b"), ("three", "c"), ("four", "d"), ("five", "e")];

async fn refer(store: &dyn KeyValue, partition: &[u8], word: &str, primary: &str) {
    let (key, primary_key) = (format!("just_a_string/{word}"), primary.as_bytes().to_vec());
    set_message(store, partition, key.as_bytes(), &SecondaryIndex { primary_key }).await.expect("the entry is set");
}

/// Primaries `name/a` to `name/e`, each with a word that refers to it.
async fn words(store: &dyn KeyValue) -> Vec<u8> {
    let partition = unique("secondary").into_bytes();
    for (word, letter) in WORDS {
        let primary = format!("name/{letter}");
        set_sample(store, &partition, &primary).await;
        refer(store, &partition, word, &primary).await;
    }
    partition
}

async fn open<'a>(
    store: &'a dyn KeyValue,
    partition: &[u8],
    prefix: &str,
    start: StartAt<'_>,
) -> SecondaryIterator<'a, Sample> {
    SecondaryIterator::open(store, partition, prefix.as_bytes(), start).await.expect("the scan opens")
}

/// `word(letter)` for each entry.
async fn listing(store: &dyn KeyValue, partition: &[u8], prefix: &str, start: StartAt<'_>) -> String {
    let mut entries = open(store, partition, prefix, start).await;
    let mut found = Vec::new();
    while let Some(entry) = entries.next().await.expect("the scan reads") {
        let key = String::from_utf8_lossy(&entry.key).into_owned();
        let word = key.strip_prefix("just_a_string/").expect("the key of an entry is the secondary key");
        let letter = entry.message.name.strip_prefix("name/").expect("the message is the primary's");
        found.push(format!("{word}({letter})"));
    }
    found.join(" ")
}

/// The order and the keys are the index's, the messages the primaries'.
pub async fn secondary_order(store: &dyn KeyValue) {
    let partition = words(store).await;
    let all = listing(store, &partition, "just_a_string/", StartAt::First).await;
    assert_eq!(all, "five(e) four(d) one(a) three(c) two(b)");
}

/// A prefix of the secondary keys.
pub async fn secondary_prefix(store: &dyn KeyValue) {
    let partition = words(store).await;
    assert_eq!(listing(store, &partition, "just_a_string/f", StartAt::First).await, "five(e) four(d)");
}

/// Behind a secondary key.
pub async fn secondary_after(store: &dyn KeyValue) {
    let partition = words(store).await;
    let after = listing(store, &partition, "just_a_string/", StartAt::After(b"just_a_string/four")).await;
    assert_eq!(after, "one(a) three(c) two(b)");
}

/// An index entry that names no primary is `MissingKey`, and the iterator stays so.
pub async fn secondary_empty_primary_key(store: &dyn KeyValue) {
    let partition = words(store).await;
    refer(store, &partition, "gap", "").await;
    let mut entries = open(store, &partition, "just_a_string/g", StartAt::First).await;
    assert_fails!(entries.next().await, KvError::MissingKey);
    assert_fails!(entries.next().await, KvError::MissingKey);
    entries.close();
    assert_fails!(entries.next().await, KvError::ClosedEntries);
}

/// An index entry whose primary is missing is skipped.
pub async fn secondary_dangling_primary(store: &dyn KeyValue) {
    let partition = words(store).await;
    refer(store, &partition, "gap", "name/nobody").await;
    assert_eq!(listing(store, &partition, "just_a_string/g", StartAt::First).await, "");
    let all = listing(store, &partition, "just_a_string/", StartAt::First).await;
    assert_eq!(all, "five(e) four(d) one(a) three(c) two(b)");
}

/// A primary, or an index entry, that does not decode stops the iterator.
pub async fn secondary_undecodable_primary(store: &dyn KeyValue) {
    let partition = words(store).await;
    set(store, &partition, b"name/a", NO_MESSAGE).await;
    let mut entries = open(store, &partition, "just_a_string/four", StartAt::First).await;
    assert_eq!(entries.next().await.expect("it decodes").expect("there is an entry").message, sample("name/d"));
    let mut entries = open(store, &partition, "just_a_string/o", StartAt::First).await;
    assert_fails!(entries.next().await, KvError::Decode { .. });
    assert_fails!(entries.next().await, KvError::Decode { .. });
    set(store, &partition, b"just_a_string/x", NO_MESSAGE).await;
    let mut entries = open(store, &partition, "just_a_string/x", StartAt::First).await;
    assert_fails!(entries.next().await, KvError::Decode { .. });
}
