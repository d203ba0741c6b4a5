//! Admission policies (validating, mutating) and their bindings.

use serde_json::Value;

use super::cel::{self, Purpose};
use super::conditions::conditions;
use super::metadata::{label_selector, meta_of, object_meta};
use super::names::{dns_subdomain, dns1035_label, path_segment, qualified_name};
use super::path::{Causes, Path, items, list, some, text};
use super::webhooks::{
    FAILURE_POLICIES, GROUP, MATCH_POLICIES, REINVOCATION_POLICIES, match_conditions,
    optional_choice, rule_with_operations,
};

const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const MAX_AUDIT_ANNOTATIONS: usize = 20;
const MAX_AUDIT_EXPRESSION_BYTES: usize = 5 * 1024;
const NO_CHECKS: &str = "validations or auditAnnotations must contain at least one item";

pub fn validating_policy(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    object_meta(out, new, GROUP, "ValidatingAdmissionPolicy");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    head(out, new, old, &at, None);
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        at.field("validations").required(out, NO_CHECKS);
        at.field("auditAnnotations").required(out, NO_CHECKS);
    }
    let list_at = at.field("validations");
    for (i, item) in validations.iter().enumerate() {
        validation(out, item, &list_at.index(i), spec, old);
    }
    let list_at = at.field("auditAnnotations");
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        list_at.invalid(
            out,
            &spec["auditAnnotations"],
            &format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations"),
        );
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let at = list_at.index(i);
        audit_annotation(out, new, annotation, &at, old);
        let key = text(annotation, "key");
        if seen.contains(&key) {
            at.field("key").duplicate(out, key);
        }
        seen.push(key);
    }
    policy_status(out, new);
    std::mem::take(out)
}

/// Is this text already an expression of the stored policy?
fn stored(old: Option<&Value>, list_name: &str, field: &str, expression: &str) -> bool {
    old.is_some_and(|old| {
        list(&old["spec"], list_name)
            .iter()
            .any(|item| text(item, field) == expression)
    })
}

/// What both kinds of policy begin with. `operations`: the only ones that the kind can watch.
fn head(
    out: &mut Causes,
    new: &Value,
    old: Option<&Value>,
    at: &Path<'_>,
    operations: Option<&[&str]>,
) {
    let spec = &new["spec"];
    if some(spec, "failurePolicy").is_none() {
        at.field("failurePolicy").required(out, "");
    }
    optional_choice(out, spec, "failurePolicy", &FAILURE_POLICIES, at);
    if let Some(kind) = some(spec, "paramKind") {
        param_kind(out, kind, &at.field("paramKind"));
    }
    let constraints_at = at.field("matchConstraints");
    match some(spec, "matchConstraints") {
        None => constraints_at.required(out, ""),
        Some(constraints) => {
            match_resources(out, constraints, &constraints_at);
            if list(constraints, "resourceRules").is_empty() {
                constraints_at.field("resourceRules").required(out, "");
            }
            if let Some(operations) = operations {
                only_operations(out, constraints, &constraints_at, operations);
            }
        }
    }
    let unchanged = old.is_some_and(|old| {
        ["paramKind", "matchConditions"]
            .iter()
            .all(|field| spec.get(*field) == old["spec"].get(*field))
    });
    if !unchanged {
        match_conditions(out, spec, at, Some(spec));
    }
    let list_at = at.field("variables");
    for (i, variable) in items(spec, "variables") {
        let at = list_at.index(i);
        let name = text(variable, "name");
        if name.trim().is_empty() {
            at.field("name").required(out, "name is not specified");
        } else if !cel::is_identifier(name) {
            at.field("name")
                .invalid_text(out, name, "must be a valid CEL identifier");
        }
        let expression = text(variable, "expression");
        if expression.trim().is_empty() {
            at.field("expression")
                .required(out, "expression is not specified");
        } else {
            let purpose = Purpose::Variable {
                policy: spec,
                index: i,
            };
            let known = stored(old, "variables", "expression", expression);
            cel::check(out, &at.field("expression"), expression, purpose, known);
        }
    }
}

fn only_operations(out: &mut Causes, matching: &Value, at: &Path<'_>, operations: &[&str]) {
    let rules_at = at.field("resourceRules");
    let at = rules_at.field("operations");
    for rule in list(matching, "resourceRules") {
        for operation in list(rule, "operations") {
            at.one_of(out, operation.as_str().unwrap_or(""), operations);
        }
    }
}

fn param_kind(out: &mut Causes, kind: &Value, at: &Path<'_>) {
    let version_at = at.field("apiVersion");
    let api_version = text(kind, "apiVersion");
    if api_version.is_empty() {
        version_at.required(out, "");
    } else if api_version.matches('/').count() > 1 {
        version_at.invalid_text(
            out,
            api_version,
            &format!("unexpected GroupVersion string: {api_version}"),
        );
    } else {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let bad = dns_subdomain(group);
        if !group.is_empty() && !bad.is_empty() {
            version_at.invalid_text(out, group, &bad.join(","));
        }
        let bad = dns1035_label(version);
        if version.is_empty() {
            version_at.invalid_text(out, api_version, "version must be specified");
        } else if !bad.is_empty() {
            version_at.invalid_text(out, version, &bad.join(","));
        }
    }
    let name = text(kind, "kind");
    let bad = dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        at.field("kind").required(out, "");
    } else if !bad.is_empty() {
        let detail = format!(
            "may have mixed case, but should otherwise match: {}",
            bad.join(",")
        );
        at.field("kind").invalid_text(out, name, &detail);
    }
}

fn match_resources(out: &mut Causes, matching: &Value, at: &Path<'_>) {
    if some(matching, "matchPolicy").is_none() {
        at.field("matchPolicy").required(out, "");
    }
    optional_choice(out, matching, "matchPolicy", &MATCH_POLICIES, at);
    for field in ["namespaceSelector", "objectSelector"] {
        match some(matching, field) {
            None => at.field(field).required(out, ""),
            selector => label_selector(out, selector, &at.field(field)),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        let list_at = at.field(field);
        for (i, rule) in items(matching, field) {
            let at = list_at.index(i);
            let names_at = at.field("resourceNames");
            let names = list(rule, "resourceNames");
            for (j, name) in names.iter().enumerate() {
                let text = name.as_str().unwrap_or("");
                names_at.index(j).all_invalid(out, text, path_segment(text));
                if names[..j].contains(name) {
                    names_at.index(j).duplicate(out, text);
                }
            }
            rule_with_operations(out, rule, &at);
        }
    }
}

fn validation(out: &mut Causes, item: &Value, at: &Path<'_>, spec: &Value, old: Option<&Value>) {
    let expression = text(item, "expression");
    if expression.trim().is_empty() {
        at.field("expression")
            .required(out, "expression is not specified");
    } else {
        let known = stored(old, "validations", "expression", expression);
        let purpose = Purpose::Validation { policy: spec };
        cel::check(out, &at.field("expression"), expression, purpose, known);
    }
    let message = text(item, "messageExpression");
    if !message.is_empty() {
        let at = at.field("messageExpression");
        if message.trim().is_empty() {
            at.invalid_text(out, message, "must be non-empty if specified");
        } else {
            let known = stored(old, "validations", "messageExpression", message);
            cel::check(out, &at, message, Purpose::Message { policy: spec }, known);
        }
    }
    let message = text(item, "message");
    if !message.is_empty() && message.trim().is_empty() {
        at.field("message")
            .invalid_text(out, message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        at.field("message")
            .invalid_text(out, message, "message must not contain line breaks");
    }
    optional_choice(
        out,
        item,
        "reason",
        &["Forbidden", "Invalid", "RequestEntityTooLarge"],
        at,
    );
}

fn audit_annotation(
    out: &mut Causes,
    policy: &Value,
    annotation: &Value,
    at: &Path<'_>,
    old: Option<&Value>,
) {
    let key = text(annotation, "key");
    let name = text(&policy["metadata"], "name");
    if name.is_empty() {
        at.field("key")
            .invalid_text(out, key, "requires metadata.name be non-empty");
    } else {
        let full = format!("{name}/{key}");
        at.field("key")
            .all_invalid(out, &full, qualified_name(&full));
    }
    let expression = text(annotation, "valueExpression");
    let at = at.field("valueExpression");
    if expression.trim().is_empty() {
        at.required(out, "valueExpression is not specified");
    } else if expression.trim().len() > MAX_AUDIT_EXPRESSION_BYTES {
        at.required(
            out,
            &format!("must not exceed {MAX_AUDIT_EXPRESSION_BYTES} bytes in length"),
        );
    } else {
        let known = stored(old, "auditAnnotations", "valueExpression", expression);
        let purpose = Purpose::AuditAnnotation {
            policy: &policy["spec"],
        };
        cel::check(out, &at, expression, purpose, known);
    }
}

fn policy_status(out: &mut Causes, policy: &Value) {
    let (status, at) = (&policy["status"], Path::new("status"));
    let checking_at = at.field("typeChecking");
    let list_at = checking_at.field("expressionWarnings");
    for (i, warning) in items(&status["typeChecking"], "expressionWarnings") {
        let at = list_at.index(i);
        for field in ["warning", "fieldRef"] {
            if text(warning, field).is_empty() {
                at.field(field).required(out, "");
            }
        }
    }
    conditions(out, status, &at);
}

pub fn mutating_policy(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    object_meta(&mut out, new, GROUP, "MutatingAdmissionPolicy");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    head(&mut out, new, old, &at, Some(&MUTATING_OPERATIONS));
    let list_at = at.field("mutations");
    if list(spec, "mutations").is_empty() {
        list_at.required(&mut out, "mutations must contain at least one item");
    }
    for (i, item) in items(spec, "mutations") {
        mutation(&mut out, item, &list_at.index(i), spec, old);
    }
    if text(spec, "reinvocationPolicy").is_empty() {
        at.field("reinvocationPolicy").required(&mut out, "");
    } else {
        optional_choice(
            &mut out,
            spec,
            "reinvocationPolicy",
            &REINVOCATION_POLICIES,
            &at,
        );
    }
    out
}

fn mutation(out: &mut Causes, item: &Value, at: &Path<'_>, spec: &Value, old: Option<&Value>) {
    let patch_type = text(item, "patchType");
    let (field, other) = match patch_type {
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "" => return at.field("patchType").required(out, ""),
        _ => {
            return at.field("patchType").unsupported(
                out,
                patch_type,
                &["ApplyConfiguration", "JSONPatch"],
            );
        }
    };
    if let Some(extra) = some(item, other) {
        at.field(other).invalid(
            out,
            extra,
            &format!("not allowed when patchType is {patch_type}"),
        );
    }
    let field_at = at.field(field);
    let Some(patch) = some(item, field) else {
        return field_at.required(
            out,
            &format!("must be specified when patchType is {patch_type}"),
        );
    };
    let expression = text(patch, "expression");
    let at = field_at.field("expression");
    if expression.trim().is_empty() {
        return at.required(out, "expression is not specified");
    }
    let known = old.is_some_and(|old| {
        list(&old["spec"], "mutations")
            .iter()
            .any(|m| text(&m[field], "expression") == expression)
    });
    let purpose = if field == "jsonPatch" {
        Purpose::JsonPatch { policy: spec }
    } else {
        Purpose::ApplyConfiguration { policy: spec }
    };
    cel::check(out, &at, expression, purpose, known);
}

pub fn validating_binding(new: &Value, _old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    object_meta(&mut out, new, GROUP, "ValidatingAdmissionPolicyBinding");
    let at = binding(&mut out, new);
    let spec = &new["spec"];
    let at = at.field("validationActions");
    let actions = list(spec, "validationActions");
    for (i, action) in actions.iter().enumerate() {
        let text = action.as_str().unwrap_or("");
        at.index(i)
            .one_of(&mut out, text, &["Audit", "Deny", "Warn"]);
        if actions[..i].contains(action) {
            at.index(i).duplicate(&mut out, text);
        }
    }
    let has = |action: &str| actions.iter().any(|a| a == action);
    if has("Deny") && has("Warn") {
        at.invalid(&mut out, &spec["validationActions"], "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
    if actions.is_empty() {
        at.required(&mut out, "at least one validation action is required");
    }
    out
}

pub fn mutating_binding(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    match old {
        Some(_) => meta_of(&mut out, new, old, GROUP, "MutatingAdmissionPolicyBinding"),
        None => object_meta(&mut out, new, GROUP, "MutatingAdmissionPolicyBinding"),
    }
    let at = binding(&mut out, new);
    let matching = &new["spec"]["matchResources"];
    only_operations(
        &mut out,
        matching,
        &at.field("matchResources"),
        &MUTATING_OPERATIONS,
    );
    out
}

/// What both kinds of binding say.
fn binding(out: &mut Causes, new: &Value) -> Path<'static> {
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let name = text(spec, "policyName");
    if name.is_empty() {
        at.field("policyName").required(out, "");
    } else {
        at.field("policyName")
            .all_invalid(out, name, dns_subdomain(name));
    }
    if let Some(reference) = some(spec, "paramRef") {
        param_ref(out, reference, &at.field("paramRef"));
    }
    if let Some(matching) = some(spec, "matchResources") {
        match_resources(out, matching, &at.field("matchResources"));
    }
    Path::new("spec")
}

fn param_ref(out: &mut Causes, reference: &Value, at: &Path<'_>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (text(reference, "name"), some(reference, "selector"));
    if !name.is_empty() {
        at.field("name").all_invalid(out, name, path_segment(name));
        if selector.is_some() {
            at.field("name").forbidden(out, EXCLUSIVE);
        }
    }
    if selector.is_some() {
        label_selector(out, selector, &at.field("selector"));
        if !name.is_empty() {
            at.field("selector").forbidden(out, EXCLUSIVE);
        }
    }
    if name.is_empty() && selector.is_none() {
        at.required(out, "one of name or selector must be specified");
    }
    match text(reference, "parameterNotFoundAction") {
        "" => at.field("parameterNotFoundAction").required(out, ""),
        action => {
            at.field("parameterNotFoundAction")
                .one_of(out, action, &["Deny", "Allow"]);
        }
    }
}
