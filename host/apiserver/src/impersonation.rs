//! Impersonation: a request carried out as another user, and who may ask for that.
//!
//! Upstream tries its constrained modes first (`impersonate:MODE` on the user, `impersonate-on:MODE:VERB` on what is
//! asked for) and then the old one (`impersonate`); a refusal is the first mode's.
//! Source: <https://github.com/kubernetes/enhancements/tree/master/keps/sig-auth/5284-constrained-impersonation>

use std::fmt::{self, Write as _};
use std::sync::Arc;

use http::HeaderMap;
use oarlock_auth::{MASTERS, node_name, service_account};
use oarlock_registry::User;

use crate::auth::{AUTHENTICATED, Access, Attributes, UNAUTHENTICATED, forbidden};
use crate::failure::Failure;
use crate::route::ResourcePath;

/// A request may impersonate with no more values than this.
const MAX_VALUES: usize = 256;
/// From so many on, permission for all of them is asked for first.
const MANY: usize = 4;
const AUTHENTICATION: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODES: &str = "system:nodes";

/// A way of impersonating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    /// As it was before the constrained modes.
    Legacy,
}

const MODES: [Mode; 5] = [
    Mode::AssociatedNode,
    Mode::ArbitraryNode,
    Mode::ServiceAccount,
    Mode::UserInfo,
    Mode::Legacy,
];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Self::Legacy => "impersonate".to_owned(),
            _ => format!("impersonate:{}", self.name()),
        }
    }

    /// Whether this is the way to become `wanted`.
    fn fits(self, wanted: &User, requestor: &User) -> bool {
        let bare = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_name(&wanted.name);
        let account = service_account(&wanted.name).is_some();
        match self {
            Self::AssociatedNode => {
                bare && node.is_some()
                    && service_account(&requestor.name).is_some()
                    && node == own_node(requestor)
            }
            Self::ArbitraryNode => bare && node.is_some(),
            Self::ServiceAccount => bare && account,
            Self::UserInfo => node.is_none() && !account,
            Self::Legacy => true,
        }
    }
}

/// The node that a service account's token is bound to.
fn own_node(user: &User) -> Option<&str> {
    let (_, values) = user.extra.iter().find(|(key, _)| key == NODE_NAME)?;
    match values.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

impl Access {
    /// The user that the request is to be carried out as, and by which of the constrained modes (the old one: empty); `None`:
    /// nobody is impersonated.
    pub(crate) fn impersonate(
        &self,
        headers: &HeaderMap,
        user: &User,
        attributes: &Attributes<'_>,
    ) -> Result<Option<(Arc<User>, String)>, Failure> {
        let Some(wanted) = impersonated(headers)? else {
            return Ok(None);
        };
        let mut first = None;
        for mode in MODES.into_iter().filter(|mode| mode.fits(&wanted, user)) {
            match self.become_by(mode, user, &wanted, attributes) {
                Ok(user) => {
                    let constraint = match mode {
                        Mode::Legacy => String::new(),
                        _ => mode.verb(),
                    };
                    return Ok(Some((Arc::new(user), constraint)));
                }
                Err(failure) => {
                    first.get_or_insert(failure);
                }
            }
        }
        Err(first.unwrap_or_else(Failure::unauthorized))
    }

    fn become_by(
        &self,
        mode: Mode,
        user: &User,
        wanted: &User,
        attributes: &Attributes<'_>,
    ) -> Result<User, Failure> {
        let seen = match mode {
            // A decision holds for all nodes of the account, so its own values must not matter.
            Mode::AssociatedNode => &without_values(user),
            _ => user,
        };
        if mode != Mode::Legacy {
            let verb = format!("impersonate-on:{}:{}", mode.name(), attributes.verb);
            self.authorize(
                seen,
                &Attributes {
                    verb: &verb,
                    ..*attributes
                },
            )?;
        }
        let check = Check {
            access: self,
            user: seen,
            verb: &mode.verb(),
        };
        let mut actual = wanted.clone();
        check.name(mode, wanted, &mut actual)?;
        if !wanted.uid.is_empty() {
            check.value(AUTHENTICATION, "uids", "", &wanted.uid)?;
        }
        check.groups(mode, &wanted.groups)?;
        check.extra(mode, &wanted.extra)?;
        if actual.name == "system:anonymous" {
            join(&mut actual, UNAUTHENTICATED);
        } else if !actual.groups.iter().any(|g| g == UNAUTHENTICATED) {
            join(&mut actual, AUTHENTICATED);
        }
        Ok(actual)
    }
}

fn without_values(user: &User) -> User {
    let mut keys: Vec<String> = user.extra.iter().map(|(key, _)| key.clone()).collect();
    keys.sort();
    User {
        extra: vec![(
            "authentication.kubernetes.io/associated-node-keys".to_owned(),
            keys,
        )],
        ..user.clone()
    }
}

fn join(user: &mut User, group: &str) {
    if !user.groups.iter().any(|g| g == group) {
        user.groups.push(group.to_owned());
    }
}

/// The questions whether the caller may take over the parts of another user.
struct Check<'a> {
    access: &'a Access,
    user: &'a User,
    verb: &'a str,
}

impl Check<'_> {
    fn attributes<'b>(
        &'b self,
        group: &'b str,
        resource: &'b str,
        subresource: &'b str,
        name: &'b str,
    ) -> Attributes<'b> {
        Attributes {
            verb: self.verb,
            path: "",
            resource: Some(ResourcePath {
                group,
                version: "v1",
                resource,
                subresource,
                name,
                ..ResourcePath::default()
            }),
            ..Attributes::default()
        }
    }

    fn value(
        &self,
        group: &str,
        resource: &str,
        subresource: &str,
        name: &str,
    ) -> Result<(), Failure> {
        let attributes = self.attributes(group, resource, subresource, name);
        self.access.authorize(self.user, &attributes)
    }

    fn name(&self, mode: Mode, wanted: &User, actual: &mut User) -> Result<(), Failure> {
        let group = home(mode);
        if let Some((namespace, name)) = service_account(&wanted.name) {
            if wanted.groups.is_empty() {
                actual.groups = vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
            }
            let mut attributes = self.attributes(group, "serviceaccounts", "", name);
            attributes.resource = attributes
                .resource
                .map(|at| ResourcePath { namespace, ..at });
            return self.access.authorize(self.user, &attributes);
        }
        match node_name(&wanted.name) {
            Some(node) if mode != Mode::Legacy => {
                actual.groups = vec![NODES.to_owned()];
                let any = mode == Mode::AssociatedNode;
                self.value(group, "nodes", "", if any { "*" } else { node })
            }
            _ => self.value(group, "users", "", &wanted.name),
        }
    }

    fn groups(&self, mode: Mode, groups: &[String]) -> Result<(), Failure> {
        if groups.is_empty() {
            return Ok(());
        }
        let group = home(mode);
        if mode != Mode::Legacy {
            let refuse = |name: &str, why: &str| {
                let attributes = self.attributes(group, "groups", "", name);
                Err(forbidden(self.user, &attributes, why))
            };
            if groups.iter().any(String::is_empty) {
                return refuse("", "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|g| g == MASTERS) {
                return refuse(
                    MASTERS,
                    "impersonating the system:masters group is not allowed",
                );
            }
            if groups.len() >= MANY && self.value(group, "groups", "", "*").is_ok() {
                return Ok(());
            }
        }
        groups
            .iter()
            .try_for_each(|name| self.value(group, "groups", "", name))
    }

    fn extra(&self, mode: Mode, extra: &[(String, Vec<String>)]) -> Result<(), Failure> {
        const EXTRAS: &str = "userextras";
        if extra.is_empty() {
            return Ok(());
        }
        if mode != Mode::Legacy {
            if let Some(why) = extra_problem(extra) {
                let attributes = self.attributes(AUTHENTICATION, EXTRAS, "", "");
                return Err(forbidden(self.user, &attributes, why));
            }
            let values: usize = extra.iter().map(|(_, values)| values.len()).sum();
            let many = extra.len() >= MANY || values >= MANY;
            if many && self.value(AUTHENTICATION, EXTRAS, "*", "*").is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.value(AUTHENTICATION, EXTRAS, key, value)?;
            }
        }
        Ok(())
    }
}

/// The API group of users and groups.
fn home(mode: Mode) -> &'static str {
    match mode {
        Mode::Legacy => "",
        _ => AUTHENTICATION,
    }
}

fn extra_problem(extra: &[(String, Vec<String>)]) -> Option<&'static str> {
    for (key, values) in extra {
        if key.is_empty() {
            return Some("impersonating the empty string key in extra is not allowed");
        }
        if values.is_empty() {
            return Some("impersonating empty values in extra is not allowed");
        }
        if values.iter().any(String::is_empty) {
            return Some("impersonating the empty string value in extra is not allowed");
        }
    }
    None
}

/// The user that the headers name, as they name it.
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
        if seen > MAX_VALUES {
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
    if seen == 0 || user == User::default() {
        return Ok(None);
    }
    if user.name.is_empty() {
        return Err(Failure::bad_request(format!(
            "requested {} without impersonating a user name",
            GoUser(&user)
        )));
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
    use crate::auth::{Authorizer, Decision};
    use crate::route::resource_path;

    #[test]
    fn impersonation_without_a_name_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-extra-a", "x".parse().unwrap());
        assert_eq!(
            impersonated(&headers).unwrap_err().body().unwrap()["message"],
            r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string(nil), Extra:map[string][]string{"a":[]string{"x"}}} without impersonating a user name"#
        );
    }

    /// Allows what is on its list: `verb group resource/sub name`.
    #[derive(Debug)]
    struct Listed(Vec<&'static str>);

    impl Authorizer for Listed {
        fn authorize(&self, _: &User, attributes: &Attributes<'_>) -> Decision {
            let at = attributes.resource.unwrap_or_default();
            let resource = if at.subresource.is_empty() {
                at.resource.to_owned()
            } else {
                format!("{}/{}", at.resource, at.subresource)
            };
            let text = format!("{} {} {resource} {}", attributes.verb, at.group, at.name);
            if self.0.contains(&text.as_str()) {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(String::new())
            }
        }
    }

    #[test]
    fn modes_ask_what_upstream_asks() {
        let path = "/api/v1/namespaces/d/pods";
        let attributes = Attributes {
            verb: "list",
            path,
            resource: resource_path(path),
            ..Attributes::default()
        };
        let requestor = User {
            name: "me".to_owned(),
            ..User::default()
        };
        let check = |listed: &[&'static str], header: (&'static str, &str), expect: &str| {
            let access = Access {
                authorizers: vec![Arc::new(Listed(listed.to_vec()))],
                ..Access::default()
            };
            let mut headers = HeaderMap::new();
            headers.insert("impersonate-user", "you".parse().unwrap());
            headers.insert(header.0, header.1.parse().unwrap());
            let got = match access.impersonate(&headers, &requestor, &attributes) {
                Ok(user) => user.unwrap().0.groups.join(" "),
                Err(failure) => failure.body().unwrap()["message"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
            };
            assert_eq!(got, expect, "{listed:?} {header:?}");
        };
        let you = ("impersonate-user", "you");
        check(&["impersonate  users you"], you, "system:authenticated");
        check(
            &[],
            you,
            r#"pods is forbidden: User "me" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "d""#,
        );
        let on = "impersonate-on:user-info:list  pods ";
        check(
            &[on],
            you,
            r#"users.authentication.k8s.io "you" is forbidden: User "me" cannot impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope"#,
        );
        let may = "impersonate:user-info authentication.k8s.io users you";
        check(&[on, may], you, "system:authenticated");
        let group = ("impersonate-group", "system:masters");
        check(
            &[on, may],
            group,
            r#"groups.authentication.k8s.io "system:masters" is forbidden: User "me" cannot impersonate:user-info resource "groups" in API group "authentication.k8s.io" at the cluster scope: impersonating the system:masters group is not allowed"#,
        );
        check(
            &[
                "impersonate  users you",
                "impersonate  groups system:masters",
            ],
            group,
            "system:masters system:authenticated",
        );
        check(
            &["impersonate  serviceaccounts s"],
            ("impersonate-user", "system:serviceaccount:n:s"),
            "system:serviceaccounts system:serviceaccounts:n system:authenticated",
        );
        check(
            &[
                "impersonate-on:arbitrary-node:list  pods ",
                "impersonate:arbitrary-node authentication.k8s.io nodes n1",
            ],
            ("impersonate-user", "system:node:n1"),
            "system:nodes system:authenticated",
        );
    }
}
