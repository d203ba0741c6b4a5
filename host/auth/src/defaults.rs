//! The roles and bindings that every cluster has, as objects, and how ones that are there are brought up to them.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings>

mod cluster;
mod controllers;
mod notation;

use serde_json::{Map, Value, json};

use crate::{GROUP, Rule};

use notation::Grant;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// What stands before the name of a controller's role.
const CONTROLLER: &str = "system:controller:";
const KUBE_SYSTEM: &str = "kube-system";

/// One default object.
#[derive(Clone, Debug)]
pub struct Default {
    /// `clusterroles`, `clusterrolebindings`, `roles` or `rolebindings`.
    pub resource: &'static str,
    /// Empty for the cluster's.
    pub namespace: &'static str,
    pub object: Value,
}

/// All of them, in upstream's order: cluster roles, cluster role bindings, roles, role bindings.
pub fn all() -> Vec<Default> {
    let mut all = Vec::new();
    let mut add = |resource, namespace, object| {
        all.push(Default {
            resource,
            namespace,
            object,
        });
    };
    for role in cluster::ROLES {
        let mut object = role_object(role.name, role.grants);
        if let Some(label) = role.aggregated_to {
            object["metadata"]["labels"][aggregate_label(label)] = json!("true");
        }
        if let Some(label) = role.aggregates {
            let labels = Map::from_iter([(aggregate_label(label), json!("true"))]);
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            meta_map(&mut object).remove("rules");
        }
        add("clusterroles", "", object);
    }
    for (name, grants) in controllers::ROLES {
        let object = role_object(&format!("{CONTROLLER}{name}"), grants);
        add("clusterroles", "", object);
    }
    for (role, subjects) in cluster::BINDINGS {
        let object = binding_object(role, "ClusterRole", role, subjects);
        add("clusterrolebindings", "", object);
    }
    for (name, _) in controllers::ROLES {
        let role = format!("{CONTROLLER}{name}");
        let object = binding_object(&role, "ClusterRole", &role, &[("ServiceAccount", name)]);
        add("clusterrolebindings", "", object);
    }
    for (namespace, name, grants) in cluster::NAMESPACE_ROLES {
        add("roles", namespace, role_object(name, grants));
    }
    for (namespace, name, role, subjects) in cluster::NAMESPACE_BINDINGS {
        let object = binding_object(name, "Role", role, subjects);
        add("rolebindings", namespace, object);
    }
    all
}

/// What the node authorizer lets all nodes do.
pub(crate) fn node_rules() -> Vec<Rule> {
    cluster::NODE.iter().map(Grant::rule).collect()
}

fn aggregate_label(name: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{name}")
}

fn meta_map(object: &mut Value) -> &mut Map<String, Value> {
    oarlock_model::meta::as_map_mut(object)
}

fn metadata(name: &str) -> Value {
    let (label, value) = BOOTSTRAPPING;
    json!({"name": name, "labels": {label: value}, "annotations": {AUTOUPDATE: "true"}})
}

fn role_object(name: &str, grants: &[Grant]) -> Value {
    let rules: Vec<Value> = grants.iter().map(|grant| grant.rule().to_value()).collect();
    json!({"metadata": metadata(name), "rules": rules})
}

fn binding_object(name: &str, kind: &str, role: &str, subjects: &[(&str, &str)]) -> Value {
    let subjects: Vec<Value> = subjects
        .iter()
        .map(|(kind, name)| match *kind {
            "ServiceAccount" => json!({"kind": kind, "name": name, "namespace": KUBE_SYSTEM}),
            _ => json!({"kind": kind, "apiGroup": GROUP, "name": name}),
        })
        .collect();
    let mut object = json!({
        "metadata": metadata(name),
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
    });
    if !subjects.is_empty() {
        object["subjects"] = json!(subjects);
    }
    object
}

/// `found` with what a default has and it has not: labels and annotations, permissions, subjects. Nothing is taken away.
/// `None`: nothing is missing, or its owner said that it is to be left alone.
pub fn completed(found: &Value, default: &Value) -> Option<Value> {
    if oarlock_model::meta::annotation(found, AUTOUPDATE).is_some_and(|v| v == "false") {
        return None;
    }
    let mut object = found.clone();
    for field in ["labels", "annotations"] {
        let wanted = default["metadata"][field].as_object();
        for (key, value) in wanted.into_iter().flatten() {
            let of = oarlock_model::meta::metadata_mut(&mut object);
            let of = oarlock_model::meta::child_map_mut(of, field);
            // What its owner set stays.
            of.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if default.get("aggregationRule").is_some() {
        let same = object.get("aggregationRule") == default.get("aggregationRule");
        if !same && object.get("aggregationRule").is_none() {
            object["aggregationRule"] = default["aggregationRule"].clone();
        }
    } else if default.get("rules").is_some() {
        let mut have = Rule::all_of(&object);
        let missing: Vec<Rule> = Rule::all_of(default)
            .into_iter()
            .filter(|rule| !crate::rule::missing(&have, std::slice::from_ref(rule)).is_empty())
            .collect();
        if !missing.is_empty() {
            have.extend(missing);
            object["rules"] = have.iter().map(Rule::to_value).collect();
        }
    }
    if let Some(wanted) = default.get("subjects").and_then(Value::as_array) {
        let mut have = object["subjects"].as_array().cloned().unwrap_or_default();
        let before = have.len();
        have.extend(wanted.iter().filter(|s| !object_has(&object, s)).cloned());
        if have.len() > before {
            object["subjects"] = Value::Array(have);
        }
    }
    (object != *found).then_some(object)
}

fn object_has(binding: &Value, subject: &Value) -> bool {
    binding["subjects"]
        .as_array()
        .is_some_and(|have| have.contains(subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(resource: &str, name: &str) -> Value {
        all()
            .into_iter()
            .find(|d| d.resource == resource && d.object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("no {resource} {name}"))
            .object
    }

    #[test]
    fn defaults_read_as_upstream() {
        let discovery = find("clusterroles", "system:discovery");
        assert_eq!(
            discovery["rules"][0],
            json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]})
        );
        let view = find("clusterroles", "view");
        assert!(view.get("rules").is_none() && view.get("aggregationRule").is_some());
        assert_eq!(
            view["metadata"]["labels"],
            json!({"kubernetes.io/bootstrapping": "rbac-defaults", "rbac.authorization.k8s.io/aggregate-to-edit": "true"})
        );
        let account = find("clusterrolebindings", "system:controller:job-controller");
        assert_eq!(
            account["subjects"],
            json!([{"kind": "ServiceAccount", "name": "job-controller", "namespace": "kube-system"}])
        );
        for default in all() {
            let name = &default.object["metadata"]["name"];
            for rule in Rule::all_of(&default.object) {
                assert!(
                    !rule.verbs.is_empty() && (rule.resources.is_empty() != rule.urls.is_empty()),
                    "{name}: {rule:?}"
                );
            }
        }
    }

    #[test]
    fn every_binding_means_a_role_that_is_there() {
        let all = all();
        for binding in all.iter().filter(|d| d.resource.ends_with("bindings")) {
            let role = &binding.object["roleRef"];
            let resource = if role["kind"] == "Role" {
                "roles"
            } else {
                "clusterroles"
            };
            assert!(
                all.iter().any(|d| d.resource == resource
                    && (resource == "clusterroles" || d.namespace == binding.namespace)
                    && d.object["metadata"]["name"] == role["name"]),
                "{role}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_taken_away() {
        let default = find("clusterroles", "system:kube-scheduler");
        assert_eq!(completed(&default, &default), None);
        let mut less = default.clone();
        less["rules"] = json!([{"verbs": ["get"], "apiGroups": ["mine"], "resources": ["things"]}]);
        let fixed = completed(&less, &default).unwrap();
        assert_eq!(fixed["rules"][0], less["rules"][0]);
        assert_eq!(completed(&fixed, &default), None);
        less["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        assert_eq!(completed(&less, &default), None);
    }
}
