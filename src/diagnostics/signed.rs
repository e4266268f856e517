//! [`SignedHead`]: one line that proves a history to whoever kept it.
//!
//! Ed25519 over the log's identity, a position and the chain hash at it. The chain hash fixes every transaction up to the position with its
//! time, so a log that holds it there was not rewritten below. Keys are PEM files as `openssl genpkey -algorithm ed25519` and `openssl pkey
//! -pubout` write them. Reads no file: whoever has a key brings its text.
//!
//! ```text
//! lakelog-head v1 LOG_ID POSITION CHAIN TIME PUBLIC_KEY SIGNATURE
//! ```

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};

use crate::env::Env;
use crate::log::{Head, LogFiles};
use crate::store::LOG_DIR;
use crate::types::{Error, ErrorKind, Hash, LogId, Position, Result, Timestamp};

const WORD: &str = "lakelog-head";
const VERSION: &str = "v1";
/// Keeps a signature from meaning anything else, wherever the key is used.
const DOMAIN: &[u8] = b"lakelog signed head v1\0";

/// A private key. Never shown; wiped from memory when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// From an unencrypted PKCS#8 PEM file.
    ///
    /// # Errors
    /// `invalid` for anything else.
    pub fn from_pem(text: &str) -> Result<SigningKey> {
        // What the library says may name bytes of the key.
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(text.trim());
        key.map(SigningKey).map_err(|_| invalid("not an unencrypted ed25519 private key in PEM"))
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public_key())
    }
}

/// A public key. Displayed as lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From a PEM file of the public key.
    ///
    /// # Errors
    /// `invalid` for anything else.
    pub fn from_pem(text: &str) -> Result<PublicKey> {
        let key = VerifyingKey::from_public_key_pem(text.trim());
        key.map(PublicKey).map_err(|_| invalid("not an ed25519 public key in PEM"))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, self.0.as_bytes())
    }
}

/// A place in a log's history, signed. Displays and parses as the one line that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// The log's identity.
    pub log_id: LogId,
    /// The position, with its recorded time (which the chain hash covers) and its chain hash.
    pub head: Head,
    /// Of whoever signed, as the line says.
    pub public_key: [u8; 32],
    signature: [u8; 64],
}

impl SignedHead {
    /// Signs a state of a log. It has to be a synced one: what may still be lost is not to be vouched for.
    pub fn sign(log_id: LogId, head: Head, key: &SigningKey) -> SignedHead {
        let signature = key.0.sign(&message(log_id, &head)).to_bytes();
        SignedHead { log_id, head, public_key: key.public_key().0.to_bytes(), signature }
    }

    /// Whether the key made this signature over log, position and chain hash. That a log holds them is another question:
    /// [`super::verify_with()`].
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        self.public_key == *key.0.as_bytes()
            && key.0.verify_strict(&message(self.log_id, &self.head), &signature).is_ok()
    }
}

/// Signs the state at a position of the store in `dir`, or at its last durable one, beside the process that has it open or without one.
///
/// # Errors
/// `invalid` above the durable head, `not_found` below the floor and without a store, `corrupt`, `unavailable`.
pub fn sign_head(env: &Env, dir: &Path, at: Option<Position>, key: &SigningKey) -> Result<SignedHead> {
    let files = LogFiles::open(env, &dir.join(LOG_DIR))?;
    let head = match at {
        Some(position) => files.head_at(position)?,
        None => files.head()?,
    };
    Ok(SignedHead::sign(files.id(), head, key))
}

fn message(log_id: LogId, head: &Head) -> Vec<u8> {
    [DOMAIN, &log_id.0, &head.position.0.to_le_bytes(), &head.chain.0].concat()
}

impl fmt::Display for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { position, time, chain } = self.head;
        write!(f, "{WORD} {VERSION} {} {position} {chain} {time} ", self.log_id)?;
        hex(f, &self.public_key)?;
        f.write_str(" ")?;
        hex(f, &self.signature)
    }
}

impl FromStr for SignedHead {
    type Err = Error;

    /// `invalid` for anything but exactly such a line, `unavailable` for one of a newer version.
    fn from_str(line: &str) -> Result<SignedHead> {
        let fields: Vec<&str> = line.trim().split(' ').collect();
        match fields[..] {
            [WORD, version, ..] if version != VERSION => {
                let message = format!("the signed head is of another version, found=`{version}` supported=`{VERSION}`");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            [WORD, _, log_id, position, chain, time, public_key, signature] => {
                let bad = |what: &'static str| move || invalid(&format!("no signed head, its {what} does not parse"));
                let at = position.parse().ok().filter(|at: &u64| at.to_string() == position);
                let at = Position(at.ok_or_else(bad("position"))?);
                let recorded: Timestamp = time.parse().map_err(|_| bad("time")())?;
                let chain = Hash(unhex(chain).ok_or_else(bad("chain hash"))?);
                Ok(SignedHead {
                    log_id: LogId(unhex(log_id).ok_or_else(bad("log id"))?),
                    head: Head { position: at, time: recorded, chain },
                    public_key: unhex(public_key).ok_or_else(bad("public key"))?,
                    signature: unhex(signature).ok_or_else(bad("signature"))?,
                })
            }
            _ => Err(invalid("no signed head, a line `lakelog-head v1 ...` was expected")),
        }
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Exactly so many bytes in lower-case hex.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../tests/fixtures/keys/signing.pem");
    const PUBLIC: &str = include_str!("../../tests/fixtures/keys/signing.pub.pem");
    const OTHER: &str = include_str!("../../tests/fixtures/keys/other.pub.pem");

    fn signed() -> SignedHead {
        let head = Head { position: Position(12), time: Timestamp(1_795_000_000_000_001), chain: Hash([0xab; 32]) };
        SignedHead::sign(LogId([7; 16]), head, &SigningKey::from_pem(KEY).unwrap())
    }

    #[test]
    fn keys_of_openssl_are_read_and_others_are_not() {
        let key = SigningKey::from_pem(KEY).unwrap();
        assert_eq!(key.public_key(), PublicKey::from_pem(PUBLIC).unwrap());
        assert!(!format!("{key:?}").contains(&format!("{:?}", key.0.to_bytes())));
        assert_eq!(format!("{key:?}"), format!("SigningKey(of {})", key.public_key()));
        for no_private_key in [
            PUBLIC,
            "",
            "nonsense",
            include_str!("../../tests/fixtures/keys/x25519.pem"),
            include_str!("../../tests/fixtures/keys/encrypted.pem"),
            &KEY[..KEY.len() / 2],
        ] {
            let error = SigningKey::from_pem(no_private_key).unwrap_err();
            assert_eq!(error.report(), "not an unencrypted ed25519 private key in PEM");
        }
        for no_public_key in [KEY, "", include_str!("../../tests/fixtures/keys/x25519.pub.pem")] {
            assert_eq!(PublicKey::from_pem(no_public_key).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn the_line_is_as_documented_and_comes_back() {
        let signed = signed();
        let line = signed.to_string();
        // Ed25519 has no randomness: this line stays the same for ever.
        let expect = format!(
            "lakelog-head v1 {} 12 {} 2026-11-18T11:06:40.000001Z {} {}",
            "07".repeat(16),
            "ab".repeat(32),
            PublicKey::from_pem(PUBLIC).unwrap(),
            GOLDEN_SIGNATURE
        );
        assert_eq!(line, expect);
        assert_eq!(format!(" {line}\n").parse::<SignedHead>().unwrap(), signed);
        assert!(signed.is_signed_by(&PublicKey::from_pem(PUBLIC).unwrap()));
        assert!(!signed.is_signed_by(&PublicKey::from_pem(OTHER).unwrap()));
    }

    //  says the same of it.
    const GOLDEN_SIGNATURE: &str = "d9555a726dcff3f524137da51810aa5a938b7f30561eb2c7e23f4bd14897cfd09c9f36ea9608a7090bcd6d329b794db75d194b1cd93decd7fb7d348abf355e00";

    #[test]
    fn fault_16_no_changed_character_passes() {
        let (line, key) = (signed().to_string(), PublicKey::from_pem(PUBLIC).unwrap());
        let time = line.find("2026").unwrap()..line.find('Z').unwrap() + 1;
        for at in 0..line.len() {
            for to in [b'0', b'1', b'f', b'F', b' ', b'x'] {
                let mut changed = line.clone().into_bytes();
                if std::mem::replace(&mut changed[at], to) == to {
                    continue;
                }
                let parsed = String::from_utf8(changed).unwrap().parse::<SignedHead>();
                // The time is proven by the log, which the chain hash fixes, not by the signature.
                assert!(time.contains(&at) || parsed.is_err() || !parsed.unwrap().is_signed_by(&key), "{at}");
            }
            assert!(line[..at].parse::<SignedHead>().is_err(), "cut at {at}");
        }
        let newer = line.replace(" v1 ", " v2 ").parse::<SignedHead>().unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Unavailable);
        for no_line in ["", "lakelog-head", "lakelog-head v1", "something else entirely", &format!("{line} more")] {
            assert_eq!(no_line.parse::<SignedHead>().unwrap_err().kind(), ErrorKind::Invalid, "{no_line}");
        }
    }
}
