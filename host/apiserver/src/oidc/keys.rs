//! An issuer's public keys (a JSON Web Key Set), and whether one of them signed a token. What `ring` cannot check (ES512) is
//! never good.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature as sig;
use serde_json::Value;

use super::jwt::Token;

/// More keys than this are not looked at.
const MAX_KEYS: usize = 64;

#[derive(Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

#[derive(Debug)]
struct Key {
    id: String,
    material: Material,
}

#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    ids: HashSet<String>,
}

impl KeySet {
    /// Keys of other kinds, and keys that do not sign, are passed over.
    pub fn parse(document: &Value) -> Self {
        let all = document["keys"].as_array().into_iter().flatten();
        let keys: Vec<Key> = all.filter_map(Key::parse).take(MAX_KEYS).collect();
        let ids = keys.iter().map(|key| key.id.clone()).collect();
        Self { keys, ids }
    }

    pub fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// A token that names no key is tried with all.
    pub fn verify(&self, token: &Token<'_>) -> bool {
        let id = token.key_id();
        self.keys
            .iter()
            .filter(|key| id.is_empty() || key.id == id)
            .any(|key| key.verify(token))
    }
}

impl Key {
    fn parse(value: &Value) -> Option<Self> {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let bytes = |field: &str| {
            URL_SAFE_NO_PAD
                .decode(text(field).trim_end_matches('='))
                .ok()
        };
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let point = |size: usize| -> Option<Vec<u8>> {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let material = match (text("kty"), text("crv")) {
            ("RSA", _) => Material::Rsa {
                n: bytes("n")?,
                e: bytes("e")?,
            },
            ("EC", "P-256") => Material::P256(point(32)?),
            ("EC", "P-384") => Material::P384(point(48)?),
            _ => return None,
        };
        Some(Self {
            id: text("kid").to_owned(),
            material,
        })
    }

    fn verify(&self, token: &Token<'_>) -> bool {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let good = match (&self.material, token.algorithm()) {
            (Material::Rsa { n, e }, algorithm) => {
                let how = match algorithm {
                    "RS256" => &sig::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &sig::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &sig::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &sig::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &sig::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &sig::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                sig::RsaPublicKeyComponents { n, e }.verify(how, message, signature)
            }
            (Material::P256(point), "ES256") => {
                sig::UnparsedPublicKey::new(&sig::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
            }
            (Material::P384(point), "ES384") => {
                sig::UnparsedPublicKey::new(&sig::ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, signature)
            }
            _ => return false,
        };
        good.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    #[test]
    fn only_the_keys_own_signature_is_good() {
        let random = SystemRandom::new();
        let how = &sig::ECDSA_P384_SHA384_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(how, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut document = json!({"keys": [
            {"kty": "oct", "k": "AA"},
            {"kty": "EC", "crv": "P-384", "kid": "k", "x": part(&point[1..49]), "y": part(&point[49..])},
        ]});
        let keys = KeySet::parse(&document);
        let token = |kid: &str, algorithm: &str| {
            let header = part(json!({"alg": algorithm, "kid": kid}).to_string().as_bytes());
            let signed = format!("{header}.{}", part(b"{}"));
            let signature = pair.sign(&random, signed.as_bytes()).unwrap();
            format!("{signed}.{}", part(signature.as_ref()))
        };
        let good = |text: &str| keys.verify(&Token::parse(text).unwrap());
        assert!(good(&token("k", "ES384")) && good(&token("", "ES384")));
        assert!(!good(&token("other", "ES384")) && !good(&token("k", "ES256")));
        let mut forged = token("k", "ES384");
        let end = forged.len() - 8;
        forged.replace_range(end..end + 4, "AAAA");
        assert!(!good(&forged));
        document["keys"][1]["use"] = json!("enc");
        assert!(!KeySet::parse(&document).has("k"));
    }
}
