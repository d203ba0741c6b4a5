//! Keys for signing tokens: the newest signs, all verify. A new one is made once the newest is old, and one that has
//! outlived every token that it may have signed is forgotten.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::pki::{PkiError, files};

const DAY_SECONDS: i64 = 86_400;
/// How long a key signs.
const SIGNS_DAYS: i64 = 90;
/// How long it verifies, from its making.
const VERIFIES_DAYS: i64 = SIGNS_DAYS + 400;
/// Files are called PREFIX, the second of their making, SUFFIX.
const PREFIX: &str = "sa-";
const SUFFIX: &str = ".key";
/// What stands before a P-256 point in its DER form.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    #[error(transparent)]
    Files(#[from] PkiError),
    #[error("cannot make a key: {0}")]
    Make(#[from] rcgen::Error),
    #[error("a signing key is not readable: {0}")]
    Read(ring::error::KeyRejected),
}

struct Key {
    id: String,
    made: i64,
    pair: EcdsaKeyPair,
}

/// See the module. Never empty.
pub struct KeyRing {
    /// Newest first.
    keys: Vec<Key>,
    random: SystemRandom,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| &*key.id).collect();
        f.debug_struct("KeyRing").field("keys", &ids).finish()
    }
}

impl KeyRing {
    /// Loads the keys below a data directory; makes one if there is none or the newest is old.
    pub fn ensure(dir: &Path, now: Timestamp) -> Result<Self, KeyRingError> {
        let dir = dir.join("pki");
        files::make_private_dir(&dir)?;
        let random = SystemRandom::new();
        let mut keys = Vec::new();
        for name in files::names(&dir)? {
            let made = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.strip_suffix(SUFFIX))
                .and_then(|rest| rest.parse::<i64>().ok());
            let Some(made) = made else {
                continue;
            };
            let path = dir.join(&name);
            if now.as_second() - made > VERIFIES_DAYS * DAY_SECONDS {
                files::remove(&path)?;
                continue;
            }
            let pem = files::read(&path)?.unwrap_or_default();
            keys.push(Key::new(&KeyPair::from_pem(&pem)?, made, &random)?);
        }
        keys.sort_by_key(|key| std::cmp::Reverse(key.made));
        let old = |key: &Key| now.as_second() - key.made > SIGNS_DAYS * DAY_SECONDS;
        if keys.first().is_none_or(old) {
            let pair = KeyPair::generate()?;
            let made = now.as_second();
            let path = dir.join(format!("{PREFIX}{made}{SUFFIX}"));
            files::write_private(&path, pair.serialize_pem().as_bytes())?;
            keys.insert(0, Key::new(&pair, made, &random)?);
        }
        Ok(Self { keys, random })
    }

    pub(super) fn current_id(&self) -> &str {
        self.keys.first().map_or("", |key| &key.id)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let signature = key.pair.sign(&self.random, message).ok()?;
        Some(signature.as_ref().to_vec())
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    pub(super) fn verify(&self, id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.keys.iter().filter(|key| key.id == id).any(|key| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref())
                .verify(message, signature)
                .is_ok()
        })
    }

    /// The JSON Web Key Set.
    pub(super) fn public(&self) -> Value {
        let keys: Vec<Value> = self.keys.iter().map(Key::public).collect();
        json!({"keys": keys})
    }
}

impl Key {
    fn new(pair: &KeyPair, made: i64, random: &SystemRandom) -> Result<Self, KeyRingError> {
        let der = pair.serialize_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, random)
            .map_err(KeyRingError::Read)?;
        let mut hash = Sha256::new();
        hash.update(SPKI_P256);
        hash.update(pair.public_key().as_ref());
        Ok(Self {
            id: URL_SAFE_NO_PAD.encode(hash.finalize()),
            made,
            pair,
        })
    }

    fn public(&self) -> Value {
        // 4, and then both coordinates.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point
            .get(1..)
            .unwrap_or_default()
            .split_at((point.len() - 1) / 2);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_replaced_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let at = |text: &str| KeyRing::ensure(dir.path(), text.parse().unwrap()).unwrap();
        let first = at("2026-01-01T00:00:00Z");
        let signature = first.sign(b"text").unwrap();
        let again = at("2026-02-01T00:00:00Z");
        assert_eq!(first.current_id(), again.current_id());
        let later = at("2026-06-01T00:00:00Z");
        assert_ne!(first.current_id(), later.current_id());
        assert!(later.verify(first.current_id(), b"text", &signature));
        assert!(!later.verify(first.current_id(), b"other", &signature));
        assert!(!later.verify(later.current_id(), b"text", &signature));
        assert_eq!(later.public()["keys"].as_array().unwrap().len(), 2);
        let much_later = at("2027-06-01T00:00:00Z");
        assert!(!much_later.verify(first.current_id(), b"text", &signature));
    }
}
