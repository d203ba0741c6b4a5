//! Who asks and whether they may. Certificates are read at the handshake (`tls`); tokens and further authorizers plug in
//! here.
//!
//! Invariant: nothing reaches the registry without having passed [`Authorizer::authorize`].

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use oarlock_auth::{Ask, SubjectRules};
use oarlock_model::{ApiError, FieldSelector, Reason};
use oarlock_registry::User;

use crate::accounts::ServiceAccounts;
use crate::failure::Failure;
use crate::route::{ResourcePath, name_problem};
use crate::tls::Peer;

pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Whom a token stands for, and for which of the wanted audiences it is good (none: it knows no audiences).
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub user: Arc<User>,
    pub audiences: Vec<String>,
}

/// Turns a bearer token into a user.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + Debug {
    /// For one of `audiences`; empty: for this server. `Ok(None)`: not a token of this kind. An error says why the token
    /// is not good.
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Authenticated>, String>;
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// `get`, `list`, …; for paths outside the API, the method in lower case.
    pub verb: &'a str,
    pub path: &'a str,
    /// `None`: a path outside the API.
    pub resource: Option<ResourcePath<'a>>,
    /// What a list, a watch or the deletion of a collection is limited to.
    pub fields: Option<&'a FieldSelector>,
}

impl<'a> Attributes<'a> {
    /// The same in the words of rules.
    pub(crate) fn ask(&self) -> Ask<'a> {
        let Some(at) = self.resource else {
            return Ask {
                verb: self.verb,
                path: self.path,
                ..Ask::default()
            };
        };
        Ask {
            verb: self.verb,
            is_resource: true,
            group: at.group,
            resource: at.resource,
            subresource: at.subresource.split('/').next().unwrap_or(""),
            namespace: at.namespace,
            name: at.name,
            path: "",
        }
    }

    /// A list or watch of the one object of a name is asked for by that name.
    pub(crate) fn limited_to(mut self, fields: &'a FieldSelector) -> Self {
        self.fields = Some(fields);
        if let Some(at) = &mut self.resource
            && at.name.is_empty()
            && matches!(self.verb, "list" | "watch")
            && let Some(name) = fields.exact("metadata.name")
            && name_problem(name).is_none()
        {
            at.name = name;
        }
        self
    }
}

/// The first authorizer with an opinion decides; no opinion at all is a refusal. The texts are reasons, and may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

impl Decision {
    pub(crate) fn carry_out(
        &self,
        user: &User,
        attributes: &Attributes<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::Allow(_) => Ok(()),
            Self::Deny(why) | Self::NoOpinion(why) => Err(forbidden(user, attributes, why)),
        }
    }
}

pub trait Authorizer: Send + Sync + Debug {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision;

    /// All rules of a user in a namespace. `None`: this authorizer does not work by rules.
    fn rules(&self, _user: &User, _namespace: &str) -> Option<SubjectRules> {
        None
    }
}

/// Cluster administrators may do everything.
#[derive(Debug, Default)]
pub struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, user: &User, _: &Attributes<'_>) -> Decision {
        if is_master(user) {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

/// `--authorization-mode AlwaysAllow`.
#[derive(Debug, Default)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &User, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
}

pub(crate) fn is_master(user: &User) -> bool {
    user.groups.iter().any(|g| g == oarlock_auth::MASTERS)
}

/// Seams and switches of authentication and authorization.
#[derive(Clone, Debug)]
pub struct Access {
    pub tokens: Vec<Arc<dyn TokenAuthenticator>>,
    /// Makes tokens of service accounts. `None`: there are none.
    pub accounts: Option<Arc<ServiceAccounts>>,
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Callers without credentials are `system:anonymous` (and mostly forbidden, 403); otherwise they get 401.
    pub anonymous: bool,
    /// The only paths that they may ask for; none: all.
    pub anonymous_paths: Vec<String>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            accounts: None,
            authorizers: vec![Arc::new(Masters)],
            anonymous: false,
            anonymous_paths: Vec::new(),
        }
    }
}

impl Access {
    /// Makes and takes tokens of service accounts.
    pub fn with_accounts(&mut self, accounts: Arc<ServiceAccounts>) {
        self.tokens
            .push(Arc::clone(&accounts) as Arc<dyn TokenAuthenticator>);
        self.accounts = Some(accounts);
    }

    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        path: &str,
        now: Timestamp,
    ) -> Result<Arc<User>, Failure> {
        if let Peer::User(user) = peer {
            return Ok(Arc::clone(user));
        }
        if let Some(value) = headers.get(AUTHORIZATION) {
            let token = value
                .to_str()
                .ok()
                .and_then(bearer)
                .ok_or_else(Failure::unauthorized)?;
            return match self.review(token, &[], now).await {
                Ok(found) => Ok(found.user),
                Err(_) => Err(Failure::unauthorized()),
            };
        }
        match peer {
            Peer::None if self.lets_in(path) => Ok(anonymous()),
            _ => Err(Failure::unauthorized()),
        }
    }

    /// Whether callers without credentials may come to a path.
    fn lets_in(&self, path: &str) -> bool {
        let paths = &self.anonymous_paths;
        self.anonymous && (paths.is_empty() || paths.iter().any(|allowed| allowed == path))
    }

    /// Whom a token stands for, or what a TokenReview says of one that is not good.
    pub(crate) async fn review(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Authenticated, String> {
        const INVALID: &str = "invalid bearer token";
        let mut problems = vec![INVALID.to_owned()];
        for tokens in &self.tokens {
            match tokens.authenticate(token, audiences, now).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(why) => problems.push(why),
            }
        }
        if problems.len() == 1 {
            return Err(problems.swap_remove(0));
        }
        Err(format!("[{}]", problems.join(", ")))
    }

    pub(crate) fn authorize(
        &self,
        user: &User,
        attributes: &Attributes<'_>,
    ) -> Result<(), Failure> {
        self.decide(user, attributes).carry_out(user, attributes)
    }

    /// What all authorizers together say.
    pub(crate) fn decide(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(user, attributes) {
                Decision::NoOpinion(why) if why.is_empty() => {}
                Decision::NoOpinion(why) => reasons.push(why),
                Decision::Deny(why) => {
                    reasons.extend((!why.is_empty()).then_some(why));
                    return Decision::Deny(reasons.join("\n"));
                }
                allowed @ Decision::Allow(_) => return allowed,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

pub(crate) fn anonymous() -> Arc<User> {
    Arc::new(User {
        name: "system:anonymous".to_owned(),
        groups: vec![UNAUTHENTICATED.to_owned()],
        ..User::default()
    })
}

/// Upstream's text: `pods "x" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "n"`.
pub(crate) fn forbidden(user: &User, attributes: &Attributes<'_>, why: &str) -> Failure {
    let tail = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    let Some(at) = attributes.resource else {
        let text = format!(
            "forbidden: User {:?} cannot {} path {:?}{tail}",
            user.name, attributes.verb, attributes.path
        );
        return Failure::Generic(Reason::Forbidden, text);
    };
    let place = if at.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", at.namespace)
    };
    let text = format!(
        "User {:?} cannot {} resource {:?} in API group {:?} {place}{tail}",
        user.name,
        attributes.verb,
        at.resource_text(),
        at.group,
    );
    ApiError::forbidden(at.group, at.resource, at.name, &text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::resource_path;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|&g| g.to_owned()).collect(),
            ..User::default()
        }
    }

    #[test]
    fn refusals_read_as_upstream() {
        let access = Access::default();
        let check = |verb: &str, path: &str, expect: &str| {
            let attributes = Attributes {
                verb,
                path,
                resource: resource_path(path),
                ..Attributes::default()
            };
            let failure = access
                .authorize(&user("x", &[AUTHENTICATED]), &attributes)
                .unwrap_err();
            assert_eq!(failure.body().unwrap()["message"], expect);
            assert_eq!(failure.code(), 403);
            assert!(
                access
                    .authorize(&user("admin", &["system:masters"]), &attributes)
                    .is_ok()
            );
        };
        check(
            "list",
            "/api/v1/namespaces/y/pods",
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#,
        );
        check(
            "update",
            "/api/v1/namespaces/y/pods/p/status",
            r#"pods "p" is forbidden: User "x" cannot update resource "pods/status" in API group "" in the namespace "y""#,
        );
        check(
            "list",
            "/apis/apps/v1/deployments",
            r#"deployments.apps is forbidden: User "x" cannot list resource "deployments" in API group "apps" at the cluster scope"#,
        );
        check(
            "get",
            "/metrics",
            r#"forbidden: User "x" cannot get path "/metrics""#,
        );
    }
}
