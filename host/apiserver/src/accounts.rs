//! Tokens of service accounts: made on request, signed with keys of our own, and looked at again at every use.
//!
//! Invariant: a token is good only while its service account, and the object that it is bound to, are there with the
//! uids that it names. Cost of a use: the signature's check once (100 µs), then a hash look-up and the objects' look-ups.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>

mod keys;
mod legacy;
mod request;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use oarlock_registry::{Registry, Stored, User, scan};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::auth::{AUTHENTICATED, Authenticated, TokenAuthenticator};

pub use keys::{KeyRing, KeyRingError};

const ISSUER: &str = "https://kubernetes.default.svc";
/// Clocks may differ by this; a bound object counts for as long after its deletion.
const LEEWAY_SECONDS: i64 = 60;
/// Tokens whose signature is known to be good.
const MAX_KNOWN: usize = 4096;
/// Longer texts are no tokens of ours.
const MAX_TOKEN_BYTES: usize = 8192;
const EXTRA: &str = "authentication.kubernetes.io/";

/// See the module.
#[derive(Debug)]
pub struct ServiceAccounts {
    registry: Arc<Registry>,
    keys: KeyRing,
    /// Claims by token.
    known: Mutex<HashMap<Box<str>, Arc<Value>>>,
    /// Secrets of tokens that somebody must look after.
    pending: legacy::Pending,
}

impl ServiceAccounts {
    pub fn new(registry: Arc<Registry>, keys: KeyRing) -> Arc<Self> {
        Arc::new(Self {
            registry,
            keys,
            known: Mutex::default(),
            pending: legacy::Pending::default(),
        })
    }

    /// What this server calls itself as an audience.
    pub(crate) fn own_audience() -> String {
        ISSUER.to_owned()
    }

    /// The documents by which others check our tokens, with their content types.
    pub(crate) fn document(&self, path: &str, address: &str) -> Option<(&'static str, Value)> {
        match path {
            "/.well-known/openid-configuration" => Some((
                "application/json",
                json!({
                    "issuer": ISSUER,
                    "jwks_uri": format!("https://{address}/openid/v1/jwks"),
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["ES256"],
                }),
            )),
            "/openid/v1/jwks" => Some(("application/jwk-set+json", self.keys.public())),
            _ => None,
        }
    }

    pub(crate) fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": "ES256", "kid": self.keys.current_id()});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.keys.sign(signed.as_bytes())?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token of ours with a good signature; `None`: it is not ours.
    fn claims(&self, token: &str) -> Result<Option<Arc<Value>>, String> {
        if let Some(claims) = self.known.lock().get(token) {
            return Ok(Some(Arc::clone(claims)));
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(None);
        }
        let Some((signed, signature)) = token.rsplit_once('.') else {
            return Ok(None);
        };
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let Some((header, claims)) = signed
            .split_once('.')
            .and_then(|(header, claims)| json(header).zip(json(claims)))
        else {
            return Ok(None);
        };
        if claims["iss"] != ISSUER && claims["iss"] != legacy::ISSUER {
            return Ok(None);
        }
        let good = header["alg"] == "ES256"
            && URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
                let id = header["kid"].as_str().unwrap_or_default();
                self.keys.verify(id, signed.as_bytes(), &signature)
            });
        if !good {
            return Err("go-jose/go-jose: error in cryptographic primitive".to_owned());
        }
        let claims = Arc::new(claims);
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(token.into(), Arc::clone(&claims));
        Ok(Some(claims))
    }

    fn look(&self, resource: &str, namespace: &str, name: &str) -> Option<Stored> {
        let row = self.registry.kinds().resource("", "v1", resource)?;
        self.registry.peek(&row, namespace, name)
    }

    /// Whether the object is there with this uid, and not long gone.
    fn lives(&self, resource: &str, namespace: &str, of: &Value, now: Timestamp) -> bool {
        let name = of["name"].as_str().unwrap_or_default();
        self.look(resource, namespace, name).is_some_and(|found| {
            let uid = scan::text(&found.json, &["metadata", "uid"]);
            let deleted = scan::text(&found.json, &["metadata", "deletionTimestamp"]);
            let gone = deleted
                .parse::<Timestamp>()
                .is_ok_and(|at| at.as_second() < now.as_second() - LEEWAY_SECONDS);
            *uid == *of["uid"].as_str().unwrap_or_default() && !gone
        })
    }

    fn check(&self, claims: &Value, now: Timestamp) -> Result<User, String> {
        let at = |field: &str| claims[field].as_i64().unwrap_or(0);
        if now.as_second() > at("exp").saturating_add(LEEWAY_SECONDS) {
            return Err("service account token has expired".to_owned());
        }
        if now.as_second() < at("nbf").saturating_sub(LEEWAY_SECONDS) {
            return Err("service account token is not valid yet".to_owned());
        }
        let own = &claims["kubernetes.io"];
        let namespace = own["namespace"].as_str().unwrap_or_default();
        let account = &own["serviceaccount"];
        let name = account["name"].as_str().unwrap_or_default();
        let invalidated = || "service account token has been invalidated".to_owned();
        if !self.lives("serviceaccounts", namespace, account, now) {
            return Err(invalidated());
        }
        let mut extra = vec![(
            format!("{EXTRA}credential-id"),
            vec![format!(
                "JTI={}",
                claims["jti"].as_str().unwrap_or_default()
            )],
        )];
        let mut tell = |key: &str, value: &Value| {
            if let Some(text) = value.as_str() {
                extra.push((format!("{EXTRA}{key}"), vec![text.to_owned()]));
            }
        };
        if own["secret"].is_object() && !self.lives("secrets", namespace, &own["secret"], now) {
            return Err(invalidated());
        }
        let (node, pod) = (&own["node"], &own["pod"]);
        if node.is_object() {
            // A pod's token outlives its node's object; one bound to the node alone does not.
            if !pod.is_object() && !self.lives("nodes", "", node, now) {
                return Err(invalidated());
            }
            tell("node-name", &node["name"]);
            tell("node-uid", &node["uid"]);
        }
        if pod.is_object() {
            if !self.lives("pods", namespace, pod, now) {
                return Err(invalidated());
            }
            tell("pod-name", &pod["name"]);
            tell("pod-uid", &pod["uid"]);
        }
        extra.sort();
        Ok(User {
            name: oarlock_auth::account_user(namespace, name),
            uid: account["uid"].as_str().unwrap_or_default().to_owned(),
            groups: groups(namespace),
            extra,
        })
    }
}

fn groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        AUTHENTICATED.to_owned(),
    ]
}

#[async_trait]
impl TokenAuthenticator for ServiceAccounts {
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Authenticated>, String> {
        let Some(claims) = self.claims(token)? else {
            return Ok(None);
        };
        let own = [Self::own_audience()];
        let wanted = if audiences.is_empty() {
            &own
        } else {
            audiences
        };
        let mut of_token: Vec<&str> = claims["aud"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        // Tokens of secrets name none.
        if of_token.is_empty() {
            of_token.push(ISSUER);
        }
        let both: Vec<String> = wanted
            .iter()
            .filter(|audience| of_token.contains(&audience.as_str()))
            .cloned()
            .collect();
        if both.is_empty() {
            let quoted: Vec<String> = of_token.iter().map(|a| format!("{a:?}")).collect();
            let of_wanted: Vec<String> = wanted.iter().map(|a| format!("{a:?}")).collect();
            return Err(format!(
                "token audiences [{}] is invalid for the target audiences [{}]",
                quoted.join(" "),
                of_wanted.join(" ")
            ));
        }
        let user = if claims["iss"] == legacy::ISSUER {
            self.check_legacy(token, &claims, now)?
        } else {
            self.check(&claims, now)?
        };
        Ok(Some(Authenticated {
            user: Arc::new(user),
            audiences: both,
        }))
    }
}
