//! Whether a flow schema's rules take in a request.

use oarlock_registry::User;
use serde_json::Value;

use crate::route::ResourcePath;

/// A request, as rules see it.
pub(super) struct Request<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub path: &'a str,
    pub at: Option<ResourcePath<'a>>,
}

/// A schema's rules, read once.
#[derive(Debug)]
pub(super) struct Matcher(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    Any,
    User(String),
    Group(String),
    /// What the user's name begins with.
    AccountsOf(String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster_scope: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Names,
    paths: Names,
}

#[derive(Debug)]
enum Names {
    All,
    Some(Vec<String>),
}

impl Names {
    fn of(list: &Value) -> Self {
        let names: Vec<String> = items(list)
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if names.iter().any(|n| n == "*") {
            Self::All
        } else {
            Self::Some(names)
        }
    }

    fn any(&self, test: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.iter().any(|n| test(n)),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.any(|n| n == name)
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

impl Subject {
    fn of(subject: &Value) -> Option<Self> {
        let name = |part: &str| subject[part]["name"].as_str();
        Some(match subject["kind"].as_str()? {
            "User" => match name("user")? {
                "*" => Self::Any,
                name => Self::User(name.to_owned()),
            },
            "Group" => match name("group")? {
                "*" => Self::Any,
                name => Self::Group(name.to_owned()),
            },
            "ServiceAccount" => {
                let namespace = subject["serviceAccount"]["namespace"].as_str()?;
                match name("serviceAccount")? {
                    "*" => Self::AccountsOf(oarlock_auth::account_user(namespace, "")),
                    name => Self::User(oarlock_auth::account_user(namespace, name)),
                }
            }
            _ => return None,
        })
    }

    fn matches(&self, user: &User) -> bool {
        match self {
            Self::Any => true,
            Self::User(name) => *name == user.name,
            Self::Group(name) => user.groups.contains(name),
            Self::AccountsOf(prefix) => user.name.starts_with(prefix.as_str()),
        }
    }
}

impl Matcher {
    pub fn of(rules: &Value) -> Self {
        let rule = |rule: &Value| Rule {
            subjects: items(&rule["subjects"]).filter_map(Subject::of).collect(),
            resources: items(&rule["resourceRules"])
                .map(|r| ResourceRule {
                    verbs: Names::of(&r["verbs"]),
                    groups: Names::of(&r["apiGroups"]),
                    resources: Names::of(&r["resources"]),
                    namespaces: Names::of(&r["namespaces"]),
                    cluster_scope: r["clusterScope"].as_bool().unwrap_or(false),
                })
                .collect(),
            paths: items(&rule["nonResourceRules"])
                .map(|r| PathRule {
                    verbs: Names::of(&r["verbs"]),
                    paths: Names::of(&r["nonResourceURLs"]),
                })
                .collect(),
        };
        Self(items(rules).map(rule).collect())
    }

    pub fn matches(&self, request: &Request<'_>) -> bool {
        self.0.iter().any(|rule| rule.matches(request))
    }
}

impl Rule {
    fn matches(&self, request: &Request<'_>) -> bool {
        self.subjects.iter().any(|s| s.matches(request.user))
            && match &request.at {
                Some(at) => self.resources.iter().any(|r| r.matches(request.verb, at)),
                None => self
                    .paths
                    .iter()
                    .any(|r| r.matches(request.verb, request.path)),
            }
    }
}

impl ResourceRule {
    fn matches(&self, verb: &str, at: &ResourcePath<'_>) -> bool {
        let sub = at.first_subresource();
        let same = |name: &str| match name.split_once('/') {
            Some((resource, of)) => resource == at.resource && of == sub,
            None => name == at.resource && sub.is_empty(),
        };
        let place = if at.namespace.is_empty() {
            self.cluster_scope
        } else {
            self.namespaces.has(at.namespace)
        };
        place && self.verbs.has(verb) && self.groups.has(at.group) && self.resources.any(same)
    }
}

impl PathRule {
    fn matches(&self, verb: &str, path: &str) -> bool {
        let same = |known: &str| match known.strip_suffix("/*") {
            Some(above) => path
                .strip_prefix(above)
                .is_some_and(|rest| rest.starts_with('/')),
            None => known == path,
        };
        self.verbs.has(verb) && self.paths.any(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::resource_path;
    use serde_json::json;

    #[test]
    fn rules_match_as_written() {
        let matcher = Matcher::of(&json!([{
            "subjects": [
                {"kind": "Group", "group": {"name": "tide"}},
                {"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "*"}},
            ],
            "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "clusterScope": true},
                {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["*"], "namespaces": ["b"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/readyz", "/debug/*"]}],
        }]));
        for (user, groups, verb, path, expect) in [
            ("x", "tide", "get", "/api/v1/nodes/n", true),
            ("x", "tide", "get", "/api/v1/nodes/n/status", true),
            ("x", "tide", "get", "/api/v1/nodes/n/proxy", false),
            ("x", "tide", "list", "/api/v1/nodes", false),
            ("x", "reef", "get", "/api/v1/nodes/n", false),
            (
                "system:serviceaccount:a:s",
                "",
                "get",
                "/api/v1/nodes/n",
                true,
            ),
            (
                "system:serviceaccount:ab:s",
                "",
                "get",
                "/api/v1/nodes/n",
                false,
            ),
            (
                "x",
                "tide",
                "update",
                "/apis/coordination.k8s.io/v1/namespaces/b/leases/l",
                true,
            ),
            (
                "x",
                "tide",
                "update",
                "/apis/coordination.k8s.io/v1/namespaces/c/leases/l",
                false,
            ),
            ("x", "tide", "get", "/readyz", true),
            ("x", "tide", "get", "/debug/pprof", true),
            ("x", "tide", "get", "/debugger", false),
        ] {
            let user = User {
                name: user.to_owned(),
                groups: vec![groups.to_owned()],
                ..User::default()
            };
            let request = Request {
                user: &user,
                verb,
                path,
                at: resource_path(path),
            };
            assert_eq!(
                matcher.matches(&request),
                expect,
                "{} {verb} {path}",
                user.name
            );
        }
    }
}
