//! References: which entries an entry holds on to, as its key says.
//!
//! A pure function of keys, as indexes are one of keys and values. Declared for the keys of lakeFS's `auth`: whoever undoes the
//! creation of what is referred to would leave the reference dangling.

use crate::types::Key;

/// The encoded prefix of all keys in the partition `auth`.
const AUTH: &[u8] = b"auth\0\x01";

/// A relation of lakeFS's auth package: `<prefix><left><middle><right>` links `<left_kind><left>` and `<right_kind><right>`.
struct Relation {
    prefix: &'static [u8],
    left_kind: &'static [u8],
    middle: &'static [u8],
    /// None where the right side is no entry of its own.
    right_kind: Option<&'static [u8]>,
}

const RELATIONS: [Relation; 4] = [
    // Members of a group.
    Relation { prefix: b"gUsers/", left_kind: b"groups/", middle: b"/users/", right_kind: Some(b"users/") },
    // Policies of a group.
    Relation { prefix: b"gPolicies/", left_kind: b"groups/", middle: b"/policies/", right_kind: Some(b"policies/") },
    // Policies of a user.
    Relation { prefix: b"uPolicies/", left_kind: b"users/", middle: b"/policies/", right_kind: Some(b"policies/") },
    // Credentials of a user.
    Relation { prefix: b"uCredentials/", left_kind: b"users/", middle: b"/credentials/", right_kind: None },
];

/// The keys that the entry at an encoded key refers to. Where names hold what divides them, all that it may mean.
pub fn references(key: &[u8]) -> Vec<Key> {
    let Some(key) = key.strip_prefix(AUTH) else { return Vec::new() };
    let mut referred = Vec::new();
    for Relation { prefix, left_kind, middle, right_kind } in &RELATIONS {
        let Some(names) = key.strip_prefix(*prefix) else { continue };
        for (at, found) in names.windows(middle.len()).enumerate() {
            if found == *middle {
                let mut refer = |kind: &[u8], name: &[u8]| referred.push(Key::new(b"auth", &[kind, name].concat()));
                refer(left_kind, names.get(..at).unwrap_or_default());
                if let Some(kind) = right_kind {
                    refer(kind, names.get(at + middle.len()..).unwrap_or_default());
                }
            }
        }
    }
    referred
}

/// Whether an entry at an encoded key may be one that others refer to.
pub fn may_be_referred_to(key: &[u8]) -> bool {
    key.starts_with(AUTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_refer_to_both_sides() {
        let named = |key: &Key| may_be_referred_to(key);
        let of = |partition: &[u8], key: &[u8]| references(&Key::new(partition, key));
        let keys = |keys: &[&[u8]]| keys.iter().map(|key| Key::new(b"auth", key)).collect::<Vec<_>>();
        assert_eq!(of(b"auth", b"gUsers/Admins/users/ann"), keys(&[b"groups/Admins", b"users/ann"]));
        assert_eq!(of(b"auth", b"gPolicies/Admins/policies/All"), keys(&[b"groups/Admins", b"policies/All"]));
        assert_eq!(of(b"auth", b"uPolicies/ann/policies/All"), keys(&[b"users/ann", b"policies/All"]));
        assert_eq!(of(b"auth", b"uCredentials/ann/credentials/AKIA"), keys(&[b"users/ann"]));
        assert_eq!(
            of(b"auth", b"gUsers/a/users/b/users/c"),
            keys(&[b"groups/a", b"users/b/users/c", b"groups/a/users/b", b"users/c"])
        );
        assert!(of(b"auth", b"gUsers/a/users/b/users/c").iter().all(named));
        assert!(!may_be_referred_to(&Key::new(b"auths", b"users/ann")));
        for (partition, key) in
            [(&b"auth"[..], &b"users/ann"[..]), (b"auth", b"gUsers/Admins"), (b"other", b"gUsers/a/users/b")]
        {
            assert_eq!(of(partition, key), []);
        }
    }
}
