//! Users whose tokens others issue (OpenID Connect): an issuer's keys are fetched and kept, and what a token claims becomes
//! a user.
//!
//! Invariant: nothing of a token counts before its signature does. Cost of a use: within ten seconds of the last one a hash
//! look-up; else the signature's check (50 µs) and the mapping's expressions. Keys are fetched again for a key id that is not
//! known, at most once a second.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens>

mod claims;
mod config;
mod fetch;
mod jwt;
mod keys;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use jiff::Timestamp;
use oarlock_registry::User;
use parking_lot::Mutex;
use serde_json::Value;

use crate::accounts::ServiceAccounts;
use crate::auth::{Authenticated, TokenAuthenticator};

pub use config::{AuthenticationConfig, Jwt, OidcError, OidcFlags};

use fetch::Fetcher;
use jwt::Token;
use keys::KeySet;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Until the issuer has been found.
const DISCOVER_EVERY: Duration = Duration::from_secs(10);
const REFETCH_SECONDS: i64 = 1;
/// How long a token is known to be good.
const KNOWN_SECONDS: i64 = 10;
const MAX_KNOWN: usize = 4096;
/// Clocks may differ by this where a token is not good yet.
const LEEWAY_SECONDS: i64 = 60;

#[derive(Debug)]
struct Source {
    jwks_uri: String,
    keys: KeySet,
}

#[derive(Debug)]
struct Known {
    user: Arc<User>,
    until: i64,
}

/// One issuer. See the module.
#[derive(Debug)]
pub struct OidcIssuer {
    jwt: Jwt,
    fetcher: Fetcher,
    /// `None`: the issuer has not been found yet.
    source: ArcSwapOption<Source>,
    /// When keys were fetched last; held while they are.
    fetched: tokio::sync::Mutex<i64>,
    known: Mutex<HashMap<Box<str>, Known>>,
}

impl OidcIssuer {
    /// Looks for the issuer from now on, until it is found.
    pub fn start(jwt: Jwt) -> Result<Arc<Self>, OidcError> {
        let fetcher = Fetcher::new(jwt.ca_pem.as_deref()).map_err(OidcError::Authority)?;
        let issuer = Arc::new(Self {
            jwt,
            fetcher,
            source: ArcSwapOption::empty(),
            fetched: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        });
        tokio::spawn(find(Arc::downgrade(&issuer)));
        Ok(issuer)
    }

    /// Whether the issuer's keys are here.
    pub fn is_ready(&self) -> bool {
        self.source.load().is_some()
    }

    async fn discover(&self) -> Result<(), String> {
        let issuer = &self.jwt.url;
        let at = match &self.jwt.discovery_url {
            Some(url) => url.clone(),
            None => format!("{}{WELL_KNOWN}", issuer.strip_suffix('/').unwrap_or(issuer)),
        };
        let document = self.fetcher.get_json(&at).await?;
        let text = |field: &str| document[field].as_str().unwrap_or_default();
        if text("issuer") != issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {:?}",
                text("issuer")
            ));
        }
        let jwks_uri = text("jwks_uri").to_owned();
        let keys = KeySet::parse(&self.fetcher.get_json(&jwks_uri).await?);
        self.source.store(Some(Arc::new(Source { jwks_uri, keys })));
        Ok(())
    }

    /// Whether an issuer's key signed the token; asks the issuer if the key is not known.
    async fn verify(&self, token: &Token<'_>, now: Timestamp) -> Result<(), String> {
        const FAILED: &str = "failed to verify signature: failed to verify id token signature";
        let source = self.source.load_full();
        let source = source.ok_or("oidc: authenticator not initialized")?;
        if source.keys.verify(token) {
            return Ok(());
        }
        if source.keys.has(token.key_id()) {
            return Err(FAILED.to_owned());
        }
        let mut fetched = self.fetched.lock().await;
        // Somebody may have fetched them while this one waited.
        let newest = self.source.load_full().unwrap_or(source);
        if newest.keys.verify(token) {
            return Ok(());
        }
        let second = now.as_second();
        if second < *fetched + REFETCH_SECONDS {
            return Err(FAILED.to_owned());
        }
        let keys = self.fetcher.get_json(&newest.jwks_uri).await;
        // Edge: who waited meanwhile does not ask again, however long it took.
        *fetched = Timestamp::now().as_second();
        let keys =
            keys.map_err(|why| format!("failed to verify signature: fetching keys {why}"))?;
        let keys = KeySet::parse(&keys);
        let good = keys.verify(token);
        let jwks_uri = newest.jwks_uri.clone();
        self.source.store(Some(Arc::new(Source { jwks_uri, keys })));
        if good { Ok(()) } else { Err(FAILED.to_owned()) }
    }

    /// The claims of a token that is good for now.
    async fn claims(&self, token: &str, now: Timestamp) -> Result<Option<Value>, String> {
        let Some(token) = Token::parse(token) else {
            return Ok(None);
        };
        if token.issuer() != self.jwt.url {
            return Ok(None);
        }
        if !self.is_ready() {
            return Err("oidc: authenticator not initialized".to_owned());
        }
        let verified = async {
            token.check_audiences_of_one(&self.jwt.audiences)?;
            token.check_times(now, LEEWAY_SECONDS)?;
            token.check_algorithm(&self.jwt.algorithms)?;
            self.verify(&token, now).await?;
            token.check_audiences(&self.jwt.audiences)
        };
        verified
            .await
            .map_err(|why: String| format!("oidc: verify token: {why}"))?;
        Ok(Some(token.claims))
    }
}

async fn find(issuer: Weak<OidcIssuer>) {
    while let Some(issuer) = issuer.upgrade() {
        match issuer.discover().await {
            Ok(()) => return,
            Err(why) => {
                tracing::warn!(
                    issuer = issuer.jwt.url,
                    why,
                    "an issuer of tokens was not found"
                );
            }
        }
        drop(issuer);
        tokio::time::sleep(DISCOVER_EVERY).await;
    }
}

#[async_trait]
impl TokenAuthenticator for OidcIssuer {
    /// These tokens are good for this server's own audience, whatever they name.
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Authenticated>, String> {
        let own = ServiceAccounts::own_audience();
        if !audiences.is_empty() && !audiences.contains(&own) {
            return Ok(None);
        }
        let second = now.as_second();
        let known = self.known.lock().get(token).and_then(|known| {
            let good = (known.until > second).then_some(&known.user);
            good.map(Arc::clone)
        });
        let user = match known {
            Some(user) => user,
            None => {
                let Some(claims) = self.claims(token, now).await? else {
                    return Ok(None);
                };
                let user = Arc::new(claims::user(&self.jwt, &claims)?);
                let ends = claims["exp"].as_f64().map_or(i64::MAX, |exp| exp as i64);
                let until = ends.min(second + KNOWN_SECONDS);
                let mut known = self.known.lock();
                if known.len() >= MAX_KNOWN {
                    known.clear();
                }
                let user_known = Arc::clone(&user);
                known.insert(
                    token.into(),
                    Known {
                        user: user_known,
                        until,
                    },
                );
                user
            }
        };
        Ok(Some(Authenticated {
            user,
            audiences: vec![own],
        }))
    }
}
