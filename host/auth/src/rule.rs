//! One rule of a role: what it allows, and whether others cover it.

use serde_json::{Map, Value, json};

const ALL: &str = "*";

/// A question: may this be done? `path` counts where `resource` is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask<'a> {
    pub verb: &'a str,
    /// False: `path` is asked for.
    pub is_resource: bool,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty: cluster-scoped, or all namespaces.
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
}

/// A PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub urls: Vec<String>,
    pub names: Vec<String>,
    pub verbs: Vec<String>,
}

impl Rule {
    pub fn from_value(value: &Value) -> Self {
        let list = |field: &str| {
            value
                .get(field)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        Self {
            groups: list("apiGroups"),
            resources: list("resources"),
            urls: list("nonResourceURLs"),
            names: list("resourceNames"),
            verbs: list("verbs"),
        }
    }

    /// All rules of a role.
    pub fn all_of(role: &Value) -> Vec<Self> {
        role.get("rules")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(Self::from_value)
            .collect()
    }

    /// Without empty lists, but for the verbs.
    pub fn to_value(&self) -> Value {
        let mut object = Map::new();
        object.insert("verbs".to_owned(), json!(self.verbs));
        for (field, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !list.is_empty() {
                object.insert(field.to_owned(), json!(list));
            }
        }
        Value::Object(object)
    }

    pub fn allows(&self, ask: &Ask<'_>) -> bool {
        if !any_or(&self.verbs, ask.verb) {
            return false;
        }
        if !ask.is_resource {
            return self.urls.iter().any(|url| url_covers(url, ask.path));
        }
        any_or(&self.groups, ask.group)
            && self.resources.iter().any(|r| resource_fits(r, ask))
            && (self.names.is_empty() || self.names.iter().any(|n| n == ask.name))
    }

    /// The single permissions that the rule is made of: one verb on one resource (of one name) or one path.
    fn parts(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut parts = Vec::new();
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part = Self {
                        groups: one(group),
                        resources: one(resource),
                        verbs: one(verb),
                        ..Self::default()
                    };
                    if self.names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    parts.extend(self.names.iter().map(|name| Self {
                        names: one(name),
                        ..part.clone()
                    }));
                }
            }
        }
        for url in &self.urls {
            parts.extend(self.verbs.iter().map(|verb| Self {
                urls: one(url),
                verbs: one(verb),
                ..Self::default()
            }));
        }
        parts
    }

    /// Whether all that `part` (one of [`Self::parts`]) allows is allowed by this rule.
    fn covers(&self, part: &Self) -> bool {
        let within = |have: &[String], want: &[String]| want.iter().all(|w| any_or(have, w));
        let names = self.names.is_empty()
            || (!part.names.is_empty() && part.names.iter().all(|n| self.names.contains(n)));
        within(&self.verbs, &part.verbs)
            && within(&self.groups, &part.groups)
            && part.resources.iter().all(|r| self.covers_resource(r))
            && part
                .urls
                .iter()
                .all(|u| self.urls.iter().any(|own| url_covers(own, u)))
            && names
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        any_or(&self.resources, wanted)
            || wanted.split_once('/').is_some_and(|(_, sub)| {
                self.resources
                    .iter()
                    .any(|own| own.strip_prefix("*/") == Some(sub))
            })
    }

    /// Go's rendering in refusals: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
    fn compact(&self) -> String {
        let parts: Vec<String> = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ]
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quoted(list)))
        .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// Go's `%q` of a list.
pub(crate) fn quoted(list: &[String]) -> String {
    let all: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", all.join(" "))
}

fn any_or(list: &[String], wanted: &str) -> bool {
    list.iter().any(|have| have == ALL || have == wanted)
}

fn url_covers(rule: &str, path: &str) -> bool {
    rule == ALL
        || rule == path
        || rule
            .strip_suffix('*')
            .is_some_and(|start| path.starts_with(start.trim_end_matches('*')))
}

fn resource_fits(rule: &str, ask: &Ask<'_>) -> bool {
    if rule == ALL {
        return true;
    }
    if ask.subresource.is_empty() {
        return rule == ask.resource;
    }
    rule.split_once('/').is_some_and(|(resource, sub)| {
        sub == ask.subresource && (resource == ALL || resource == ask.resource)
    })
}

/// What of `wanted` nobody of `owned` allows: compacted as upstream shows it, sorted.
pub fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let lacking = wanted
        .iter()
        .flat_map(Rule::parts)
        .filter(|part| !owned.iter().any(|own| own.covers(part)));
    // Parts that differ in their verb alone are told as one.
    let mut merged: Vec<Rule> = Vec::new();
    for part in lacking {
        let same = merged.iter_mut().find(|rule| {
            part.urls.is_empty()
                && (&rule.groups, &rule.resources, &rule.names, &rule.urls)
                    == (&part.groups, &part.resources, &part.names, &part.urls)
        });
        match same {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => merged.push(part),
        }
    }
    let mut texts: Vec<String> = merged.iter().map(Rule::compact).collect();
    texts.sort();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(value: Value) -> Rule {
        Rule::from_value(&value)
    }

    fn ask<'a>(verb: &'a str, group: &'a str, resource: &'a str) -> Ask<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Ask {
            verb,
            is_resource: true,
            group,
            resource,
            subresource,
            ..Ask::default()
        }
    }

    #[test]
    fn rules_allow() {
        let check = |value: Value, ask: Ask<'_>, expect: bool| {
            assert_eq!(rule(value.clone()).allows(&ask), expect, "{value} {ask:?}");
        };
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        check(pods.clone(), ask("get", "", "pods"), true);
        check(pods.clone(), ask("list", "", "pods"), false);
        check(pods.clone(), ask("get", "apps", "pods"), false);
        check(pods, ask("get", "", "pods/log"), false);
        let scales = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]});
        check(
            scales.clone(),
            ask("get", "apps", "deployments/scale"),
            true,
        );
        check(scales, ask("get", "apps", "deployments"), false);
        let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]});
        check(named.clone(), ask("get", "", "pods"), false);
        let of_a = Ask {
            name: "a",
            ..ask("get", "", "pods")
        };
        check(named, of_a, true);
        let path = |path| Ask {
            verb: "get",
            path,
            ..Ask::default()
        };
        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/api/*", "/version"]});
        check(urls.clone(), path("/api/v1"), true);
        check(urls.clone(), path("/version"), true);
        check(urls, path("/api"), false);
    }

    #[test]
    fn what_is_missing_is_told_as_upstream() {
        let owned = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]})),
            rule(json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]})),
        ];
        let check = |wanted: Value, expect: &[&str]| {
            assert_eq!(missing(&owned, &[rule(wanted)]), expect);
        };
        check(
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}),
            &[],
        );
        check(
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]}),
            &[],
        );
        check(
            json!({"verbs": ["update"], "apiGroups": ["apps"], "resources": ["deployments/scale"]}),
            &[],
        );
        check(
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/etcd"]}),
            &[],
        );
        check(
            json!({"verbs": ["get", "watch", "delete"], "apiGroups": [""], "resources": ["pods", "secrets"]}),
            &[
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "watch" "delete"]}"#,
            ],
        );
        check(
            json!({"verbs": ["get", "post"], "nonResourceURLs": ["/x"]}),
            &[
                r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#,
                r#"{NonResourceURLs:["/x"], Verbs:["post"]}"#,
            ],
        );
    }
}
