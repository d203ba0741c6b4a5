//! Roles and bindings, arranged by the subjects that they bind.
//!
//! Invariant: `users` and `groups` name exactly the bindings whose subjects are so called, so that a question looks at
//! no binding of anybody else.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde_json::Value;

use crate::{Ask, Rule, account_user};

type Map<K, V> = HashMap<K, V, RandomState>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleKind {
    Role,
    ClusterRole,
}

impl RoleKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
        }
    }
}

#[derive(Debug)]
struct Subject {
    /// `User`, `Group` or `ServiceAccount`.
    kind: String,
    /// The user's or the group's name; of a service account its user name.
    name: String,
    /// As reasons show it.
    shown: String,
}

#[derive(Debug)]
struct Binding {
    role_kind: RoleKind,
    role: String,
    subjects: Vec<Subject>,
}

/// Bindings of one namespace (or of the cluster), by subject.
#[derive(Debug, Default)]
struct Bindings {
    by_name: Map<Arc<str>, Binding>,
    users: Map<String, BTreeSet<Arc<str>>>,
    groups: Map<String, BTreeSet<Arc<str>>>,
}

impl Bindings {
    fn remove(&mut self, name: &str) {
        let Some((name, binding)) = self.by_name.remove_entry(name) else {
            return;
        };
        for subject in &binding.subjects {
            let of = self.of_kind(&subject.kind);
            if let Some(names) = of.get_mut(&subject.name) {
                names.remove(&name);
                if names.is_empty() {
                    of.remove(&subject.name);
                }
            }
        }
    }

    fn insert(&mut self, name: &str, binding: Binding) {
        self.remove(name);
        let name: Arc<str> = name.into();
        for subject in &binding.subjects {
            self.of_kind(&subject.kind)
                .entry(subject.name.clone())
                .or_default()
                .insert(Arc::clone(&name));
        }
        self.by_name.insert(name, binding);
    }

    fn of_kind(&mut self, kind: &str) -> &mut Map<String, BTreeSet<Arc<str>>> {
        if kind == "Group" {
            &mut self.groups
        } else {
            &mut self.users
        }
    }

    /// The bindings of a user and of its groups; one may come twice.
    fn of<'a>(
        &'a self,
        user: &str,
        groups: &'a [String],
    ) -> impl Iterator<Item = (&'a str, &'a Binding)> {
        let of_groups = groups.iter().filter_map(|group| self.groups.get(group));
        self.users
            .get(user)
            .into_iter()
            .chain(of_groups)
            .flatten()
            .filter_map(|name| self.by_name.get_key_value(name))
            .map(|(name, binding)| (&**name, binding))
    }
}

/// What the index says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Why, as upstream says it.
    Allowed(String),
    /// No rule allows it; what stood in the way (roles that are bound and missing), mostly empty.
    NoOpinion(String),
}

/// All rules of a subject in a namespace, and what could not be found out.
#[derive(Clone, Debug, Default)]
pub struct SubjectRules {
    pub rules: Vec<Rule>,
    pub problems: Vec<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Index {
    cluster_roles: Map<String, Arc<[Rule]>>,
    /// By namespace, then by name.
    roles: Map<String, Map<String, Arc<[Rule]>>>,
    cluster: Bindings,
    namespaces: Map<String, Bindings>,
}

impl Index {
    /// Takes in a role as it is now; `None`: it is gone. `namespace` is empty for cluster roles.
    pub fn set_role(&mut self, namespace: &str, name: &str, role: Option<&Value>) {
        let of = if namespace.is_empty() {
            &mut self.cluster_roles
        } else {
            self.roles.entry(namespace.to_owned()).or_default()
        };
        match role {
            Some(role) => {
                of.insert(name.to_owned(), Rule::all_of(role).into());
            }
            None => {
                of.remove(name);
                if self.roles.get(namespace).is_some_and(Map::is_empty) {
                    self.roles.remove(namespace);
                }
            }
        }
    }

    /// Takes in a binding as it is now; `None`: it is gone. `namespace` is empty for cluster role bindings.
    pub fn set_binding(&mut self, namespace: &str, name: &str, binding: Option<&Value>) {
        let of = if namespace.is_empty() {
            &mut self.cluster
        } else {
            self.namespaces.entry(namespace.to_owned()).or_default()
        };
        match binding {
            Some(value) => of.insert(name, read_binding(namespace, value)),
            None => {
                of.remove(name);
                if self
                    .namespaces
                    .get(namespace)
                    .is_some_and(|n| n.by_name.is_empty())
                {
                    self.namespaces.remove(namespace);
                }
            }
        }
    }

    /// Rules of a role that a binding in `namespace` means.
    pub fn role(&self, kind: RoleKind, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        match kind {
            RoleKind::ClusterRole => self.cluster_roles.get(name),
            RoleKind::Role => self.roles.get(namespace)?.get(name),
        }
    }

    pub fn answer(&self, user: &str, groups: &[String], ask: &Ask<'_>) -> Answer {
        let mut problems = Vec::new();
        for (namespace, name, binding, rules) in
            self.bound(user, groups, ask.namespace, &mut problems)
        {
            if rules.iter().any(|rule| rule.allows(ask)) {
                return Answer::Allowed(reason(namespace, name, binding, user, groups));
            }
        }
        if problems.is_empty() {
            return Answer::NoOpinion(String::new());
        }
        Answer::NoOpinion(format!("RBAC: {}", aggregate(problems)))
    }

    /// Everything that a subject may do in a namespace (empty: what it may do everywhere).
    pub fn rules_of(&self, user: &str, groups: &[String], namespace: &str) -> SubjectRules {
        let mut problems = Vec::new();
        let mut rules = Vec::new();
        for (.., of_role) in self.bound(user, groups, namespace, &mut problems) {
            for rule in of_role.iter() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        problems.dedup();
        SubjectRules { rules, problems }
    }

    /// The subject's bindings with the rules that they give: those of the cluster first.
    fn bound<'a>(
        &'a self,
        user: &str,
        groups: &'a [String],
        namespace: &'a str,
        problems: &mut Vec<String>,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a Binding, &'a Arc<[Rule]>)> {
        let here = self.namespaces.get(namespace).into_iter();
        let local = here.flat_map(move |of| of.of(user, groups));
        let cluster = self.cluster.of(user, groups).map(|(n, b)| ("", n, b));
        cluster
            .chain(local.map(move |(n, b)| (namespace, n, b)))
            .filter_map(move |(at, name, binding)| {
                let rules = self.role(binding.role_kind, at, &binding.role);
                if rules.is_none() {
                    problems.push(format!(
                        "{}.{} {:?} not found",
                        binding.role_kind.as_str().to_ascii_lowercase(),
                        crate::GROUP,
                        binding.role
                    ));
                }
                Some((at, name, binding, rules?))
            })
    }
}

/// Many errors as one, as upstream joins them.
fn aggregate(problems: Vec<String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for problem in problems {
        if !seen.contains(&problem) {
            seen.push(problem);
        }
    }
    if seen.len() == 1 {
        return seen.swap_remove(0);
    }
    format!("[{}]", seen.join(", "))
}

fn reason(namespace: &str, name: &str, binding: &Binding, user: &str, groups: &[String]) -> String {
    let subject = binding
        .subjects
        .iter()
        .find(|subject| {
            if subject.kind == "Group" {
                groups.contains(&subject.name)
            } else {
                subject.name == user
            }
        })
        .map_or("", |subject| &subject.shown);
    let mut text = String::with_capacity(128);
    let _ = if namespace.is_empty() {
        write!(text, "RBAC: allowed by ClusterRoleBinding {name:?}")
    } else {
        let at = format!("{name}/{namespace}");
        write!(text, "RBAC: allowed by RoleBinding {at:?}")
    };
    let (kind, role) = (binding.role_kind.as_str(), &binding.role);
    let _ = write!(text, " of {kind} {role:?} to {subject}");
    text
}

fn read_binding(namespace: &str, value: &Value) -> Binding {
    let text = |of: &Value, field: &str| {
        of.get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let role = value.get("roleRef").unwrap_or(&Value::Null);
    let subjects = value
        .get("subjects")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|subject| {
            let (kind, name) = (text(subject, "kind"), text(subject, "name"));
            match kind.as_str() {
                "User" | "Group" => {
                    let shown = format!("{kind} {name:?}");
                    Some(Subject { kind, name, shown })
                }
                "ServiceAccount" => {
                    let own = text(subject, "namespace");
                    let at = if own.is_empty() { namespace } else { &own };
                    let shown = format!("ServiceAccount {:?}", format!("{name}/{at}"));
                    let name = (!at.is_empty()).then(|| account_user(at, &name))?;
                    Some(Subject { kind, name, shown })
                }
                _ => None,
            }
        })
        .collect();
    Binding {
        role_kind: if text(role, "kind") == "Role" {
            RoleKind::Role
        } else {
            RoleKind::ClusterRole
        },
        role: text(role, "name"),
        subjects,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn get<'a>(namespace: &'a str, resource: &'a str) -> Ask<'a> {
        Ask {
            verb: "get",
            is_resource: true,
            resource,
            namespace,
            ..Ask::default()
        }
    }

    fn binding(kind: &str, role: &str, subjects: Value) -> Value {
        json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects})
    }

    #[test]
    fn bindings_come_and_go() {
        let mut index = Index::default();
        let reads =
            json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        let nobody: Vec<String> = Vec::new();
        index.set_role("a", "r", Some(&reads));
        let subjects = json!([{"kind": "User", "name": "x"}, {"kind": "ServiceAccount", "name": "s"}, {"kind": "Group", "name": "g"}]);
        index.set_binding("a", "b", Some(&binding("Role", "r", subjects)));
        let allowed = |index: &Index, user: &str, groups: &[String], namespace: &str| match index
            .answer(user, groups, &get(namespace, "pods"))
        {
            Answer::Allowed(why) => why,
            Answer::NoOpinion(why) => format!("no: {why}"),
        };
        assert_eq!(
            allowed(&index, "x", &nobody, "a"),
            r#"RBAC: allowed by RoleBinding "b/a" of Role "r" to User "x""#
        );
        assert_eq!(
            allowed(&index, "system:serviceaccount:a:s", &nobody, "a"),
            r#"RBAC: allowed by RoleBinding "b/a" of Role "r" to ServiceAccount "s/a""#
        );
        assert_eq!(
            allowed(&index, "y", &["g".to_owned()], "a"),
            r#"RBAC: allowed by RoleBinding "b/a" of Role "r" to Group "g""#
        );
        assert_eq!(allowed(&index, "x", &nobody, "b"), "no: ");
        assert_eq!(allowed(&index, "x", &nobody, ""), "no: ");
        index.set_role("a", "r", None);
        assert_eq!(
            allowed(&index, "x", &nobody, "a"),
            r#"no: RBAC: role.rbac.authorization.k8s.io "r" not found"#
        );
        index.set_role("", "c", Some(&reads));
        let subjects = json!([{"kind": "User", "name": "x"}]);
        index.set_binding("", "b", Some(&binding("ClusterRole", "c", subjects)));
        assert_eq!(
            allowed(&index, "x", &nobody, ""),
            r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "c" to User "x""#
        );
        index.set_binding("", "b", None);
        index.set_binding("a", "b", None);
        assert_eq!(allowed(&index, "x", &nobody, "a"), "no: ");
        assert!(index.namespaces.is_empty() && index.roles.is_empty());
        assert!(index.cluster.users.is_empty());
    }
}
