//! Webhook configurations, and the rules and conditions of matching that admission policies share with them.

use oarlock_model::Cause;
use serde_json::Value;

use super::cel::{self, Purpose};
use super::metadata::{label_selector, object_meta};
use super::names::{dns_subdomain, dns1035_label, qualified_name};
use super::path::{Causes, Path, items, list, some, text};

pub const GROUP: &str = "admissionregistration.k8s.io";
pub const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const ANY_SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const MAX_MATCH_CONDITIONS: usize = 64;
const MAX_TIMEOUT_SECONDS: i64 = 30;

/// What an object that was stored under older rules may keep.
struct Strictness {
    side_effects: bool,
    versions: bool,
    names: bool,
}

pub fn configuration(new: &Value, old: Option<&Value>, kind: &str) -> Causes {
    let mut out = Causes::new();
    object_meta(&mut out, new, GROUP, kind);
    let strict = strictness(old);
    let same_conditions = old.is_some_and(|old| {
        let of = |object: &Value| -> Vec<Value> {
            list(object, "webhooks")
                .iter()
                .map(|hook| hook.get("matchConditions").cloned().unwrap_or_default())
                .collect()
        };
        of(new) == of(old)
    });
    let list_at = Path::new("webhooks");
    let mut seen: Vec<&str> = Vec::new();
    for (i, hook) in items(new, "webhooks") {
        let at = list_at.index(i);
        webhook(&mut out, hook, &at, &strict, same_conditions);
        review_versions(&mut out, hook, &at, &strict);
        let name = text(hook, "name");
        if strict.names && !name.is_empty() {
            if seen.contains(&name) {
                at.field("name").duplicate(&mut out, name);
            }
            seen.push(name);
        }
    }
    out
}

fn strictness(old: Option<&Value>) -> Strictness {
    let hooks = old.map_or(&[][..], |old| list(old, "webhooks"));
    let names: Vec<&str> = hooks.iter().map(|h| text(h, "name")).collect();
    Strictness {
        side_effects: hooks
            .iter()
            .all(|h| NO_SIDE_EFFECTS.contains(&text(h, "sideEffects"))),
        versions: hooks.iter().all(|h| {
            let versions = list(h, "admissionReviewVersions");
            versions.is_empty() || versions.iter().any(is_review_version)
        }),
        names: (1..names.len()).all(|i| !names[..i].contains(&names[i])),
    }
}

fn is_review_version(version: &Value) -> bool {
    version
        .as_str()
        .is_some_and(|v| REVIEW_VERSIONS.contains(&v))
}

fn webhook(
    out: &mut Causes,
    hook: &Value,
    at: &Path<'_>,
    strict: &Strictness,
    same_conditions: bool,
) {
    fully_qualified_name(out, text(hook, "name"), &at.field("name"));
    let list_at = at.field("rules");
    for (i, rule) in items(hook, "rules") {
        rule_with_operations(out, rule, &list_at.index(i));
    }
    optional_choice(out, hook, "failurePolicy", &FAILURE_POLICIES, at);
    optional_choice(out, hook, "matchPolicy", &MATCH_POLICIES, at);
    let allowed: &[&str] = if strict.side_effects {
        &NO_SIDE_EFFECTS
    } else {
        &ANY_SIDE_EFFECTS
    };
    if some(hook, "sideEffects").is_none() {
        at.field("sideEffects")
            .required(out, &format!("must specify one of {}", allowed.join(", ")));
    }
    optional_choice(out, hook, "sideEffects", allowed, at);
    let timeout = hook.get("timeoutSeconds").and_then(Value::as_i64);
    if let Some(seconds) = timeout.filter(|s| !(1..=MAX_TIMEOUT_SECONDS).contains(s)) {
        at.field("timeoutSeconds").invalid(
            out,
            &Value::from(seconds),
            "the timeout value must be between 1 and 30 seconds",
        );
    }
    for field in ["namespaceSelector", "objectSelector"] {
        label_selector(out, hook.get(field), &at.field(field));
    }
    optional_choice(out, hook, "reinvocationPolicy", &REINVOCATION_POLICIES, at);
    client_config(out, &hook["clientConfig"], &at.field("clientConfig"));
    if !same_conditions {
        match_conditions(out, hook, at, None);
    }
}

/// A field that is one of these if it is there.
pub fn optional_choice(
    out: &mut Causes,
    object: &Value,
    field: &str,
    choices: &[&str],
    at: &Path<'_>,
) {
    if some(object, field).is_some() {
        at.field(field).one_of(out, text(object, field), choices);
    }
}

fn fully_qualified_name(out: &mut Causes, name: &str, at: &Path<'_>) {
    if name.is_empty() {
        return at.required(out, "");
    }
    let bad = dns_subdomain(name);
    if !bad.is_empty() {
        at.invalid_text(out, name, &bad.join(","));
    } else if name.split('.').count() < 3 {
        at.invalid_text(
            out,
            name,
            "should be a domain with at least three segments separated by dots",
        );
    }
}

fn review_versions(out: &mut Causes, hook: &Value, at: &Path<'_>, strict: &Strictness) {
    let at = at.field("admissionReviewVersions");
    let versions = list(hook, "admissionReviewVersions");
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return at.required(out, &format!("must specify one of {known}"));
    }
    for (i, version) in versions.iter().enumerate() {
        let text = version.as_str().unwrap_or("");
        if versions[..i].contains(version) {
            at.index(i).invalid_text(out, text, "duplicate version");
            continue;
        }
        at.index(i).all_invalid(out, text, dns1035_label(text));
    }
    if strict.versions && !versions.iter().any(is_review_version) {
        at.invalid(
            out,
            &hook["admissionReviewVersions"],
            &format!("must include at least one of {known}"),
        );
    }
}

fn client_config(out: &mut Causes, config: &Value, at: &Path<'_>) {
    match (some(config, "url"), some(config, "service")) {
        (Some(url), None) => webhook_url(out, url.as_str().unwrap_or(""), &at.field("url")),
        (None, Some(service)) => webhook_service(out, service, &at.field("service")),
        _ => at.required(out, "exactly one of url or service is required"),
    }
}

/// The address of a webhook outside the cluster.
pub fn webhook_url(out: &mut Causes, url: &str, at: &Path<'_>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        at.invalid_text(
            out,
            scheme,
            &format!("'https' is the only allowed URL scheme{FORM}"),
        );
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = if scheme.is_empty() { "" } else { &rest[..end] };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        at.invalid_text(out, host, &format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        at.invalid_text(out, user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        at.invalid_text(out, fragment, "fragments are not permitted in the URL");
    }
    let before = rest.split('#').next().unwrap_or("");
    if let Some((_, query)) = before.split_once('?') {
        at.invalid_text(out, query, "query parameters are not permitted in the URL");
    }
}

/// The service in front of a webhook.
pub fn webhook_service(out: &mut Causes, service: &Value, at: &Path<'_>) {
    // Upstream takes each for the other.
    for (field, told) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, field).is_empty() {
            at.field(told).required(out, "");
        }
    }
    let port = service.get("port").and_then(Value::as_i64);
    if let Some(port) = port.filter(|p| !(1..=65535).contains(p)) {
        at.field("port").invalid(
            out,
            &Value::from(port),
            "port is not valid: must be between 1 and 65535, inclusive",
        );
    }
    let Some(path) = some(service, "path").and_then(Value::as_str) else {
        return;
    };
    let at = at.field("path");
    if path == "/" || path.is_empty() {
        return;
    }
    if path == "//" {
        return at.invalid_text(out, path, "segment[0] may not be empty");
    }
    if !path.starts_with('/') {
        at.invalid_text(out, path, "must start with a '/'");
    }
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for (i, segment) in inner.split('/').enumerate() {
        if segment.is_empty() {
            at.invalid_text(out, path, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for why in dns_subdomain(segment) {
            at.invalid_text(out, path, &format!("segment[{i}]: {why}"));
        }
    }
}

/// Conditions that a request must fulfil. `policy`: the spec of the policy that they are part of.
pub fn match_conditions(out: &mut Causes, owner: &Value, at: &Path<'_>, policy: Option<&Value>) {
    let list_at = at.field("matchConditions");
    let conditions = list(owner, "matchConditions");
    if conditions.len() > MAX_MATCH_CONDITIONS {
        out.push(Cause::too_many(
            list_at.to_string(),
            conditions.len(),
            MAX_MATCH_CONDITIONS,
        ));
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = list_at.index(i);
        let expression = text(condition, "expression").trim();
        if expression.is_empty() {
            at.field("expression").required(out, "");
        } else {
            let purpose = Purpose::MatchCondition { policy };
            cel::check(out, &at.field("expression"), expression, purpose, false);
        }
        let name = text(condition, "name");
        if name.is_empty() {
            at.field("name").required(out, "");
            continue;
        }
        at.field("name")
            .all_invalid(out, name, qualified_name(name));
        if seen.contains(&name) {
            at.field("name").duplicate(out, name);
        }
        seen.push(name);
    }
}

fn is_wildcard(value: &Value) -> bool {
    value == "*"
}

/// Which requests are meant.
pub fn rule_with_operations(out: &mut Causes, rule: &Value, at: &Path<'_>) {
    let operations = list(rule, "operations");
    let operations_at = at.field("operations");
    if operations.is_empty() {
        operations_at.required(out, "");
    }
    alone(out, rule, "operations", "operations", at);
    for (i, operation) in operations.iter().enumerate() {
        let operation = operation.as_str().unwrap_or("");
        operations_at.index(i).one_of(out, operation, &OPERATIONS);
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        if list(rule, field).is_empty() {
            at.field(field).required(out, "");
        }
        alone(out, rule, field, what, at);
    }
    let versions_at = at.field("apiVersions");
    for (i, version) in items(rule, "apiVersions") {
        if version == "" {
            versions_at.index(i).required(out, "");
        }
    }
    resources(out, rule, &at.field("resources"));
    optional_choice(out, rule, "scope", &SCOPES, at);
}

/// A wildcard stands alone.
fn alone(out: &mut Causes, rule: &Value, field: &str, what: &str, at: &Path<'_>) {
    let values = list(rule, field);
    if values.len() > 1 && values.iter().any(is_wildcard) {
        at.field(field).invalid(
            out,
            &rule[field],
            &format!("if '*' is present, must not specify other {what}"),
        );
    }
}

fn resources(out: &mut Causes, rule: &Value, at: &Path<'_>) {
    let resources = list(rule, "resources");
    if resources.is_empty() {
        at.required(out, "");
    }
    let (mut all_subresources, mut of_all_resources) = (Vec::new(), Vec::new());
    let (mut double, mut single, mut plain) = (false, false, false);
    for (i, resource) in resources.iter().enumerate() {
        let text = resource.as_str().unwrap_or("");
        if text.is_empty() {
            at.index(i).required(out, "");
            continue;
        }
        double |= text == "*/*";
        single |= text == "*";
        let Some((resource, sub)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_subresources.contains(&resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {text}");
            at.index(i).invalid_text(out, text, &detail);
        }
        if of_all_resources.contains(&sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {text}");
            at.index(i).invalid_text(out, text, &detail);
        }
        if sub == "*" {
            all_subresources.push(resource);
        }
        if resource == "*" {
            of_all_resources.push(sub);
        }
    }
    if resources.len() > 1 && double {
        at.invalid(
            out,
            &rule["resources"],
            "if '*/*' is present, must not specify other resources",
        );
    }
    if single && plain {
        at.invalid(
            out,
            &rule["resources"],
            "if '*' is present, must not specify other resources without subresources",
        );
    }
}
