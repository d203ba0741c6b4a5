//! Tokens that live in Secrets of type `kubernetes.io/service-account-token`: filled in for whoever makes such a Secret, good
//! while it lives, and gone with their account.
//!
//! Cost: two watches; a Secret of another type costs the look at its type. A use of a token reads its Secret.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#token-controller>

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Reason, meta};
use oarlock_registry::{Body, Context, DeleteOptions, Registry, Stored, Target, User, scan};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{ServiceAccounts, groups};
use crate::follow::{self, Follows};

pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
const TYPE: &str = "kubernetes.io/service-account-token";
const OF_ACCOUNT: &str = "kubernetes.io/service-account.name";
const OF_UID: &str = "kubernetes.io/service-account.uid";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Pause before Secrets that could not be written are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Namespace and name.
type Key = (String, String);

/// Secrets to look after; true: their token was used.
#[derive(Debug, Default)]
pub(super) struct Pending {
    secrets: Mutex<BTreeMap<Key, bool>>,
    wake: Notify,
}

impl Pending {
    fn add(&self, key: Key, used: bool) {
        *self.secrets.lock().entry(key).or_default() |= used;
        self.wake.notify_one();
    }
}

fn claim<'a>(claims: &'a Value, name: &str) -> &'a str {
    claims[format!("{ISSUER}/{name}")]
        .as_str()
        .unwrap_or_default()
}

fn date(now: Timestamp) -> String {
    now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

impl ServiceAccounts {
    /// Whom a token of a Secret stands for; its signature is good.
    pub(super) fn check_legacy(
        &self,
        token: &str,
        claims: &Value,
        now: Timestamp,
    ) -> Result<User, String> {
        let namespace = claim(claims, "namespace");
        let secret_name = claim(claims, "secret.name");
        let name = claim(claims, "service-account.name");
        let uid = claim(claims, "service-account.uid");
        let subject = claims["sub"].as_str().unwrap_or_default();
        for (value, what) in [
            (subject, "sub"),
            (namespace, "namespace"),
            (secret_name, "secretName"),
            (name, "serviceAccountName"),
            (uid, "serviceAccountUID"),
        ] {
            if value.is_empty() {
                return Err(format!("{what} claim is missing"));
            }
        }
        if oarlock_auth::service_account(subject) != Some((namespace, name)) {
            return Err("sub claim is invalid".to_owned());
        }
        let invalidated = || "Token has been invalidated".to_owned();
        let secret = self
            .look("secrets", namespace, secret_name)
            .ok_or_else(invalidated)?;
        let of_secret = |path: &[&str]| scan::text(&secret.json, path);
        if !of_secret(&["metadata", "deletionTimestamp"]).is_empty() {
            return Err(invalidated());
        }
        let stored = STANDARD.decode(of_secret(&["data", "token"]).as_bytes());
        if stored.ok().as_deref() != Some(token.as_bytes()) {
            return Err("Token does not match server's copy".to_owned());
        }
        let account = self
            .look("serviceaccounts", namespace, name)
            .ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
        let of_account = |field: &str| scan::text(&account.json, &["metadata", field]);
        if !of_account("deletionTimestamp").is_empty() {
            return Err(format!(
                "ServiceAccount {namespace}/{name} has been deleted"
            ));
        }
        if of_account("uid") != uid {
            return Err(format!(
                "ServiceAccount UID ({}) does not match claim ({uid})",
                of_account("uid")
            ));
        }
        if !of_secret(&["metadata", "labels", INVALID_SINCE]).is_empty() {
            return Err(format!(
                "the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            ));
        }
        if of_secret(&["metadata", "labels", LAST_USED]) != date(now) {
            let key = (namespace.to_owned(), secret_name.to_owned());
            self.pending.add(key, true);
        }
        Ok(User {
            name: oarlock_auth::account_user(namespace, name),
            uid: uid.to_owned(),
            groups: groups(namespace),
            ..User::default()
        })
    }

    /// Fills in Secrets of tokens, and removes those whose account is gone, until the tasks are aborted or the registry
    /// closes.
    pub async fn keep_secrets(self: &Arc<Self>, ca_pem: &str) -> ApiResult<Vec<JoinHandle<()>>> {
        let keeper = Arc::new(Keeper {
            accounts: Arc::clone(self),
            ca: STANDARD.encode(ca_pem),
            secrets: Mutex::default(),
        });
        let mut tasks = Vec::new();
        for resource in ["secrets", "serviceaccounts"] {
            tasks.extend(follow::start(&keeper, &self.registry, "", resource).await?);
        }
        tasks.push(tokio::spawn(async move { keeper.run().await }));
        Ok(tasks)
    }

    fn legacy_token(&self, secret: &Value, account: &str, uid: &str) -> Option<String> {
        let namespace = meta::namespace(secret);
        let mut claims = json!({
            "iss": ISSUER,
            "sub": oarlock_auth::account_user(namespace, account),
        });
        for (name, value) in [
            ("namespace", namespace),
            ("secret.name", meta::name(secret)),
            ("service-account.name", account),
            ("service-account.uid", uid),
        ] {
            claims[format!("{ISSUER}/{name}")] = json!(value);
        }
        self.sign(&claims)
    }

    /// Whether a stored token (base64) was signed with a key that is still known.
    fn signed_by_known_key(&self, stored: &str) -> bool {
        let token = STANDARD.decode(stored).unwrap_or_default();
        let header = token.split(|byte| *byte == b'.').next().unwrap_or_default();
        URL_SAFE_NO_PAD
            .decode(header)
            .ok()
            .and_then(|json| serde_json::from_slice::<Value>(&json).ok())
            .is_some_and(|header| self.keys.has(header["kid"].as_str().unwrap_or_default()))
    }
}

/// Knows which Secrets hold tokens of which account.
#[derive(Debug)]
struct Keeper {
    accounts: Arc<ServiceAccounts>,
    /// In base64, as Secrets hold it.
    ca: String,
    /// Names of Secrets, by namespace and name of the account.
    secrets: Mutex<HashMap<Key, BTreeSet<String>>>,
}

impl Follows for Keeper {
    fn take(&self, row: &Row, object: &Stored, there: bool) {
        let text = |path: &[&str]| scan::text(&object.json, path).into_owned();
        let namespace = text(&["metadata", "namespace"]);
        let name = text(&["metadata", "name"]);
        if row.resource == "serviceaccounts" {
            let secrets = self.secrets.lock();
            let of_account = secrets.get(&(namespace.clone(), name));
            for secret in of_account.into_iter().flatten().filter(|_| !there) {
                let key = (namespace.clone(), secret.clone());
                self.accounts.pending.add(key, false);
            }
            return;
        }
        if text(&["type"]) != TYPE {
            return;
        }
        let account = text(&["metadata", "annotations", OF_ACCOUNT]);
        let mut secrets = self.secrets.lock();
        let key = (namespace.clone(), account);
        if there {
            secrets.entry(key).or_default().insert(name.clone());
            self.accounts.pending.add((namespace, name), false);
        } else if let Some(of_account) = secrets.get_mut(&key) {
            of_account.remove(&name);
            if of_account.is_empty() {
                secrets.remove(&key);
            }
        }
    }

    fn forget(&self, row: &Row) {
        if row.resource == "secrets" {
            self.secrets.lock().clear();
        }
    }
}

impl Keeper {
    async fn run(&self) {
        loop {
            let pending = std::mem::take(&mut *self.accounts.pending.secrets.lock());
            let mut failed = false;
            for (key, used) in pending {
                let Err(error) = self.look_after(&key, used, Timestamp::now()).await else {
                    continue;
                };
                match error.reason {
                    Reason::ServiceUnavailable => return,
                    // Somebody else wrote or removed it, or nobody may write there: an event follows, or nothing helps.
                    Reason::NotFound | Reason::Forbidden => {}
                    _ => {
                        if error.reason != Reason::Conflict {
                            tracing::warn!(namespace = key.0, secret = key.1, %error, "cannot keep a token's secret");
                        }
                        self.accounts.pending.add(key, used);
                        failed = true;
                    }
                }
            }
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
            self.accounts.pending.wake.notified().await;
        }
    }

    async fn look_after(
        &self,
        (namespace, name): &Key,
        used: bool,
        now: Timestamp,
    ) -> ApiResult<()> {
        let registry: &Registry = &self.accounts.registry;
        let Some(row) = registry.kinds().resource("", "v1", "secrets") else {
            return Ok(());
        };
        let Some(found) = registry.peek(&row, namespace, name) else {
            return Ok(());
        };
        let secret = found.to_value().map_err(ApiError::internal)?;
        if secret["type"] != TYPE || meta::is_terminating(&secret) {
            return Ok(());
        }
        let target = Target::new(&row, namespace, name);
        let ctx = context(now);
        let account = meta::annotation(&secret, OF_ACCOUNT).unwrap_or_default();
        let wanted = meta::annotation(&secret, OF_UID).unwrap_or_default();
        let uid = self
            .accounts
            .look("serviceaccounts", namespace, account)
            .map(|account| scan::text(&account.json, &["metadata", "uid"]).into_owned())
            .filter(|uid| wanted.is_empty() || wanted == uid);
        let Some(uid) = uid else {
            let options = DeleteOptions {
                precondition_uid: Some(meta::uid(&secret).to_owned()),
                ..DeleteOptions::default()
            };
            return registry.delete(&ctx, &target, &options).await.map(drop);
        };
        let filled = self.filled(&secret, account, &uid, used.then(|| date(now)))?;
        if filled == secret {
            return Ok(());
        }
        registry
            .update(&ctx, &target, Body::Value(filled))
            .await
            .map(drop)
    }

    /// The Secret with all that belongs into it.
    fn filled(
        &self,
        secret: &Value,
        account: &str,
        uid: &str,
        used: Option<String>,
    ) -> ApiResult<Value> {
        let mut secret = secret.clone();
        let namespace = STANDARD.encode(meta::namespace(&secret));
        let token = secret["data"]["token"].as_str().unwrap_or_default();
        let token = if self.accounts.signed_by_known_key(token) {
            token.to_owned()
        } else {
            let made = self.accounts.legacy_token(&secret, account, uid);
            STANDARD.encode(made.ok_or_else(|| ApiError::internal("cannot sign a token"))?)
        };
        let data = meta::child_map_mut(meta::as_map_mut(&mut secret), "data");
        for (key, value) in [
            ("ca.crt", self.ca.clone()),
            ("namespace", namespace),
            ("token", token),
        ] {
            data.insert(key.to_owned(), json!(value));
        }
        let metadata = meta::metadata_mut(&mut secret);
        meta::child_map_mut(metadata, "annotations").insert(OF_UID.to_owned(), json!(uid));
        if let Some(date) = used {
            meta::child_map_mut(metadata, "labels").insert(LAST_USED.to_owned(), json!(date));
        }
        Ok(secret)
    }
}

/// Edge: the keeper's writes have a time.
fn context(now: Timestamp) -> Context {
    let user = User {
        name: "system:kube-controller-manager".to_owned(),
        groups: vec![oarlock_auth::MASTERS.to_owned()],
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), now);
    "kube-controller-manager".clone_into(&mut ctx.field_manager);
    ctx
}
