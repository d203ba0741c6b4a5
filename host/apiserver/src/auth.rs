//! Who asks and whether they may. Certificates are read at the handshake (`tls`); tokens and further authorizers plug in
//! here.
//!
//! Invariant: nothing reaches the registry without having passed [`Authorizer::authorize`].

use std::fmt::{self, Debug, Write as _};
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use oarlock_model::{ApiError, Reason};
use oarlock_registry::User;

use crate::failure::Failure;
use crate::route::ResourcePath;
use crate::tls::Peer;

pub(crate) const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const MASTERS: &str = "system:masters";
/// A request may impersonate with no more values than this.
const MAX_IMPERSONATION_VALUES: usize = 256;

/// Turns a bearer token into a user.
pub trait TokenAuthenticator: Send + Sync + Debug {
    /// `None`: not a token of this kind, or not a valid one.
    fn authenticate(&self, token: &str, now: Timestamp) -> Option<Arc<User>>;
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// `get`, `list`, …; for paths outside the API, the method in lower case.
    pub verb: &'a str,
    pub path: &'a str,
    /// `None`: a path outside the API.
    pub resource: Option<ResourcePath<'a>>,
}

/// The first authorizer with an opinion decides; no opinion at all is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// The reason goes behind the refusal's text; may be empty.
    Deny(String),
    NoOpinion,
}

pub trait Authorizer: Send + Sync + Debug {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision;
}

/// Until there is RBAC: cluster administrators and the cluster's own components may do everything, whoever has logged in
/// may read what the API offers and ask what they may.
#[derive(Debug, Default)]
pub struct SystemAuthorizer;

impl Authorizer for SystemAuthorizer {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        if is_master(user) || is_component(user) {
            return Decision::Allow;
        }
        let discovery = attributes.resource.is_none()
            && matches!(attributes.verb, "get" | "head")
            && [
                "/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz", "/version",
            ]
            .iter()
            .any(|root| {
                attributes
                    .path
                    .strip_prefix(root)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
        let about_oneself = attributes.resource.is_some_and(|at| {
            attributes.verb == "create"
                && matches!(
                    (at.group, at.resource),
                    ("authentication.k8s.io", "selfsubjectreviews")
                        | (
                            "authorization.k8s.io",
                            "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
                        )
                )
        });
        if (discovery || about_oneself) && user.groups.iter().any(|g| g == AUTHENTICATED) {
            return Decision::Allow;
        }
        Decision::NoOpinion
    }
}

fn is_master(user: &User) -> bool {
    user.groups.iter().any(|g| g == MASTERS)
}

fn is_component(user: &User) -> bool {
    user.name
        .strip_prefix("system:")
        .is_some_and(|rest| rest != "anonymous" && !rest.starts_with("serviceaccount:"))
}

/// Seams and switches of authentication and authorization.
#[derive(Clone, Debug)]
pub struct Access {
    pub tokens: Vec<Arc<dyn TokenAuthenticator>>,
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Callers without credentials are `system:anonymous` (and mostly forbidden, 403); otherwise they get 401.
    pub anonymous: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            tokens: Vec::new(),
            authorizers: vec![Arc::new(SystemAuthorizer)],
            anonymous: false,
        }
    }
}

impl Access {
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
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
            return self
                .tokens
                .iter()
                .find_map(|t| t.authenticate(token, now))
                .ok_or_else(Failure::unauthorized);
        }
        match peer {
            Peer::None if self.anonymous => Ok(anonymous()),
            _ => Err(Failure::unauthorized()),
        }
    }

    pub(crate) fn authorize(
        &self,
        user: &User,
        attributes: &Attributes<'_>,
    ) -> Result<(), Failure> {
        let mut why = String::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(user, attributes) {
                Decision::Allow => return Ok(()),
                Decision::Deny(reason) => {
                    why = reason;
                    break;
                }
                Decision::NoOpinion => {}
            }
        }
        Err(forbidden(user, attributes, &why))
    }

    /// The user that the request is to be carried out as; `None`: nobody is impersonated.
    pub(crate) fn impersonate(
        &self,
        headers: &HeaderMap,
        user: &User,
        attributes: &Attributes<'_>,
    ) -> Result<Option<Arc<User>>, Failure> {
        let Some(wanted) = impersonated(headers)? else {
            return Ok(None);
        };
        if !is_master(user) {
            let verb = format!("impersonate-on:user-info:{}", attributes.verb);
            return Err(forbidden(
                user,
                &Attributes {
                    verb: &verb,
                    ..*attributes
                },
                "",
            ));
        }
        Ok(Some(Arc::new(wanted)))
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn anonymous() -> Arc<User> {
    Arc::new(User {
        name: "system:anonymous".to_owned(),
        groups: vec![UNAUTHENTICATED.to_owned()],
        ..User::default()
    })
}

/// Upstream's text: `pods "x" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "n"`.
fn forbidden(user: &User, attributes: &Attributes<'_>, why: &str) -> Failure {
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

fn impersonated(headers: &HeaderMap) -> Result<Option<User>, Failure> {
    const PREFIX: &str = "impersonate-";
    const EXTRA: &str = "impersonate-extra-";
    let mut user = User::default();
    let mut seen = 0;
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with(PREFIX) {
            continue;
        }
        seen += 1;
        if seen > MAX_IMPERSONATION_VALUES {
            return Err(Failure::bad_request("too many impersonation headers"));
        }
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match name {
            "impersonate-user" => user.name = value,
            "impersonate-uid" => user.uid = value,
            "impersonate-group" => user.groups.push(value),
            _ => {
                if let Some(key) = name.strip_prefix(EXTRA) {
                    let key = percent_encoding::percent_decode_str(key)
                        .decode_utf8_lossy()
                        .into_owned();
                    match user.extra.iter_mut().find(|(k, _)| *k == key) {
                        Some((_, values)) => values.push(value),
                        None => user.extra.push((key, vec![value])),
                    }
                }
            }
        }
    }
    if seen == 0 {
        return Ok(None);
    }
    if user.name.is_empty() {
        return Err(Failure::bad_request(format!(
            "requested {} without impersonating a user name",
            GoUser(&user)
        )));
    }
    if let Some(account) = user.name.strip_prefix("system:serviceaccount:")
        && user.groups.is_empty()
        && let Some((namespace, _)) = account.split_once(':')
    {
        user.groups.push("system:serviceaccounts".to_owned());
        user.groups
            .push(format!("system:serviceaccounts:{namespace}"));
    }
    let known = if user.name == "system:anonymous" {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !user.groups.iter().any(|g| g == known) {
        user.groups.push(known.to_owned());
    }
    Ok(Some(user))
}

/// A user as upstream's message prints it.
struct GoUser<'a>(&'a User);

impl fmt::Display for GoUser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[String]| {
            let mut text = String::from("[]string{");
            for (at, value) in values.iter().enumerate() {
                let _ = write!(text, "{}{value:?}", if at == 0 { "" } else { ", " });
            }
            text + "}"
        };
        let groups = if self.0.groups.is_empty() {
            "[]string(nil)".to_owned()
        } else {
            list(&self.0.groups)
        };
        let extra = if self.0.extra.is_empty() {
            "map[string][]string(nil)".to_owned()
        } else {
            let entries: Vec<String> = self
                .0
                .extra
                .iter()
                .map(|(k, v)| format!("{k:?}:{}", list(v)))
                .collect();
            format!("map[string][]string{{{}}}", entries.join(", "))
        };
        let User { name, uid, .. } = self.0;
        write!(
            f,
            "&user.DefaultInfo{{Name:{name:?}, UID:{uid:?}, Groups:{groups}, Extra:{extra}}}"
        )
    }
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
            };
            let failure = access
                .authorize(&user("x", &[AUTHENTICATED]), &attributes)
                .unwrap_err();
            assert_eq!(failure.body().unwrap()["message"], expect);
            assert_eq!(failure.code(), 403);
            assert!(
                access
                    .authorize(&user("admin", &[MASTERS]), &attributes)
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

    #[test]
    fn the_bare_system_prefix_is_not_enough_for_outsiders() {
        let attributes = Attributes {
            verb: "list",
            path: "/api/v1/pods",
            resource: resource_path("/api/v1/pods"),
        };
        let check = |name: &str, expect: Decision| {
            assert_eq!(
                SystemAuthorizer.authorize(&user(name, &[]), &attributes),
                expect,
                "{name}"
            );
        };
        check("system:kube-scheduler", Decision::Allow);
        check("system:anonymous", Decision::NoOpinion);
        check("system:serviceaccount:a:b", Decision::NoOpinion);
    }

    #[test]
    fn impersonation_without_a_name_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-extra-a", "x".parse().unwrap());
        assert_eq!(
            impersonated(&headers).unwrap_err().body().unwrap()["message"],
            r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string(nil), Extra:map[string][]string{"a":[]string{"x"}}} without impersonating a user name"#
        );
    }
}
