//! Flow schemas and priority levels.

use serde_json::Value;

use super::metadata::object_meta;
use super::names::{dns_label, dns_subdomain};
use super::path::{Causes, Path, flag, items, list, some, text};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];
const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
const MAX_HASH_BITS: i64 = 60;

fn number(object: &Value, field: &str) -> i64 {
    object.get(field).and_then(Value::as_i64).unwrap_or(0)
}

pub fn flow_schema(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    object_meta(out, new, GROUP, "FlowSchema");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let precedence = number(spec, "matchingPrecedence");
    let name = text(&new["metadata"], "name");
    let precedence_at = at.field("matchingPrecedence");
    if precedence <= 0 {
        precedence_at.invalid(out, &Value::from(precedence), "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        precedence_at.invalid(
            out,
            &Value::from(precedence),
            &format!("must not be greater than {MAX_PRECEDENCE}"),
        );
    }
    if precedence == 1 && name != "exempt" {
        precedence_at.invalid(
            out,
            &Value::from(1),
            "only the schema named 'exempt' may have matchingPrecedence 1",
        );
    }
    if let Some(method) = some(spec, "distinguisherMethod") {
        let kind = text(method, "type");
        if !matches!(kind, "ByNamespace" | "ByUser") {
            let method_at = at.field("distinguisherMethod");
            out.push(oarlock_model::Cause::new(
                "FieldValueNotSupported",
                method_at.field("type").to_string(),
                format!("Unsupported value: {{\"Type\":{kind:?}}}: supported values: \"ByNamespace\", \"ByUser\""),
            ));
        }
    }
    let level = text(&spec["priorityLevelConfiguration"], "name");
    let level_at = at.field("priorityLevelConfiguration");
    if level.is_empty() {
        level_at
            .field("name")
            .required(out, "must reference a priority level");
    } else {
        level_at
            .field("name")
            .all_invalid(out, level, dns_subdomain(level));
    }
    let list_at = at.field("rules");
    for (i, rule) in items(spec, "rules") {
        policy_rules(out, rule, &list_at.index(i));
    }
    fixed(out, new, old);
    status(out, new);
    std::mem::take(out)
}

/// The objects that flow control cannot do without keep their specs.
fn fixed(out: &mut Causes, new: &Value, old: Option<&Value>) {
    let name = text(&new["metadata"], "name");
    let Some(old) = old.filter(|_| matches!(name, "exempt" | "catch-all")) else {
        return;
    };
    let same = if name == "exempt" && text(&new["spec"], "type") == "Exempt" {
        // Its shares may be set.
        true
    } else {
        old["spec"] == new["spec"]
    };
    if !same {
        Path::new("spec").invalid(
            out,
            &new["spec"],
            &format!("spec of '{name}' must equal the fixed value"),
        );
    }
}

fn status(out: &mut Causes, new: &Value) {
    let at = Path::new("status");
    let list_at = at.field("conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in items(&new["status"], "conditions") {
        let at = list_at.index(i);
        let kind = text(condition, "type");
        if seen.contains(&kind) {
            at.field("type").duplicate(out, kind);
        }
        seen.push(kind);
        if kind.is_empty() {
            at.field("type").required(out, "must not be empty");
        }
    }
}

fn policy_rules(out: &mut Causes, rule: &Value, at: &Path<'_>) {
    let subjects_at = at.field("subjects");
    if list(rule, "subjects").is_empty() {
        subjects_at.required(out, "subjects must contain at least one value");
    }
    for (i, item) in items(rule, "subjects") {
        subject(out, item, &subjects_at.index(i));
    }
    if list(rule, "resourceRules").is_empty() && list(rule, "nonResourceRules").is_empty() {
        at.required(
            out,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    let list_at = at.field("resourceRules");
    for (i, item) in items(rule, "resourceRules") {
        resource_rule(out, item, &list_at.index(i));
    }
    let list_at = at.field("nonResourceRules");
    for (i, item) in items(rule, "nonResourceRules") {
        non_resource_rule(out, item, &list_at.index(i));
    }
}

fn subject(out: &mut Causes, subject: &Value, at: &Path<'_>) {
    let kinds = [
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ];
    let kind = text(subject, "kind");
    let Some((_, field)) = kinds.iter().find(|(name, _)| *name == kind) else {
        return at
            .field("kind")
            .unsupported(out, kind, &["Group", "ServiceAccount", "User"]);
    };
    let own_at = at.field(field);
    match some(subject, field) {
        None => own_at.required(
            out,
            &format!("{field} is required when subject kind is '{kind}'"),
        ),
        Some(own) => {
            let name = text(own, "name");
            if name.is_empty() {
                own_at.field("name").required(out, "");
            } else if kind == "ServiceAccount" && name != "*" {
                own_at
                    .field("name")
                    .all_invalid(out, name, dns_subdomain(name));
            }
            if kind == "ServiceAccount" {
                let namespace = text(own, "namespace");
                let at = own_at.field("namespace");
                if namespace.is_empty() {
                    at.required(out, "must specify namespace for service account");
                } else {
                    at.all_invalid(out, namespace, dns_label(namespace));
                }
            }
        }
    }
    // Users before groups, service accounts before both.
    for (other, field) in kinds.iter().filter(|(name, _)| *name != kind) {
        if some(subject, field).is_some() {
            at.field(field).forbidden(
                out,
                &format!("{field} is forbidden when subject kind is not '{other}'"),
            );
        }
    }
}

fn has_wildcard(values: &[Value]) -> bool {
    values.iter().any(|v| v == "*")
}

fn verbs(out: &mut Causes, rule: &Value, at: &Path<'_>) {
    let verbs = list(rule, "verbs");
    let at = at.field("verbs");
    if verbs.is_empty() {
        at.required(out, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        if verbs.len() > 1 {
            at.invalid(
                out,
                &rule["verbs"],
                "if '*' is present, must not specify other verbs",
            );
        }
    } else if !verbs
        .iter()
        .all(|v| v.as_str().is_some_and(|v| VERBS.contains(&v)))
    {
        out.push(oarlock_model::Cause::not_supported(
            at.to_string(),
            &rule["verbs"],
            &VERBS,
        ));
    }
}

fn resource_rule(out: &mut Causes, rule: &Value, at: &Path<'_>) {
    verbs(out, rule, at);
    for (field, one, other) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        let values = list(rule, field);
        if values.is_empty() {
            at.field(field).required(
                out,
                &format!("resource rules must supply at least one {one}"),
            );
        } else if values.len() > 1 && has_wildcard(values) {
            at.field(field).invalid(
                out,
                &rule[field],
                &format!("if '*' is present, must not specify other {other}"),
            );
        }
    }
    let namespaces = list(rule, "namespaces");
    let at = at.field("namespaces");
    if namespaces.is_empty() && !flag(rule, "clusterScope") {
        at.required(
            out,
            "resource rules that are not cluster scoped must supply at least one namespace",
        );
    } else if has_wildcard(namespaces) {
        if namespaces.len() > 1 {
            at.invalid(
                out,
                &rule["namespaces"],
                "if '*' is present, must not specify other namespaces",
            );
        }
    } else {
        for (i, namespace) in namespaces.iter().enumerate() {
            let namespace = namespace.as_str().unwrap_or("");
            for why in dns_label(namespace) {
                at.index(i).invalid_text(
                    out,
                    namespace,
                    &format!("each member of this list must be '*' or a DNS-1123 label; {why}"),
                );
            }
        }
    }
}

fn non_resource_rule(out: &mut Causes, rule: &Value, at: &Path<'_>) {
    verbs(out, rule, at);
    let urls = list(rule, "nonResourceURLs");
    let at = at.field("nonResourceURLs");
    if urls.is_empty() {
        at.required(out, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(urls) {
        if urls.len() > 1 {
            at.invalid(
                out,
                &rule["nonResourceURLs"],
                "if '*' is present, must not specify other non-resource URLs",
            );
        }
    } else {
        for (i, url) in urls.iter().enumerate() {
            let url = url.as_str().unwrap_or("");
            if let Some(why) = bad_url_path(url) {
                at.index(i).invalid_text(out, url, why);
            }
        }
    }
}

fn bad_url_path(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    if path.is_empty() {
        Some("must not be empty")
    } else if path == "/" {
        None
    } else if !path.starts_with('/') {
        Some("must start with slash")
    } else if path.contains(' ') {
        Some("must not contain white-space")
    } else if path.contains("//") {
        Some("must not contain double slash")
    } else if stars > 1 || (stars == 1 && !path.ends_with("/*")) {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}

pub fn priority_level(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    object_meta(out, new, GROUP, "PriorityLevelConfiguration");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let (kind, name) = (text(spec, "type"), text(&new["metadata"], "name"));
    if (name == "exempt") != (kind == "Exempt") {
        at.field("type").invalid_text(
            out,
            kind,
            "type must be 'Exempt' if and only if name is 'exempt'",
        );
    }
    match kind {
        "Exempt" => {
            if some(spec, "limited").is_some() {
                at.field("limited")
                    .forbidden(out, "must be nil if the type is not Limited");
            }
            if let Some(exempt) = some(spec, "exempt") {
                let at = at.field("exempt");
                if number(exempt, "nominalConcurrencyShares") < 0 {
                    at.field("nominalConcurrencyShares").invalid(
                        out,
                        &exempt["nominalConcurrencyShares"],
                        "must be a non-negative integer",
                    );
                }
                percent(out, exempt, "lendablePercent", &at);
            }
        }
        "Limited" => {
            if some(spec, "exempt").is_some() {
                at.field("exempt")
                    .forbidden(out, "must be nil if the type is Limited");
            }
            match some(spec, "limited") {
                None => at
                    .field("limited")
                    .required(out, "must not be empty when type is Limited"),
                Some(limits) => limited(out, limits, &at.field("limited")),
            }
        }
        _ => at
            .field("type")
            .unsupported(out, kind, &["Exempt", "Limited"]),
    }
    fixed(out, new, old);
    status(out, new);
    std::mem::take(out)
}

fn percent(out: &mut Causes, object: &Value, field: &str, at: &Path<'_>) {
    let value = number(object, field);
    if !(0..=100).contains(&value) {
        at.field(field).invalid(
            out,
            &Value::from(value),
            "must be between 0 and 100, inclusive",
        );
    }
}

fn limited(out: &mut Causes, limits: &Value, at: &Path<'_>) {
    let shares = number(limits, "nominalConcurrencyShares");
    if shares < 0 {
        at.field("nominalConcurrencyShares").invalid(
            out,
            &Value::from(shares),
            "must be a non-negative integer",
        );
    }
    let response = &limits["limitResponse"];
    let response_at = at.field("limitResponse");
    let queuing_at = response_at.field("queuing");
    match (text(response, "type"), some(response, "queuing")) {
        ("Reject", Some(_)) => queuing_at.forbidden(
            out,
            "must be nil if limited.limitResponse.type is not Limited",
        ),
        ("Queue", None) => queuing_at.required(
            out,
            "must not be empty if limited.limitResponse.type is Limited",
        ),
        ("Queue", Some(config)) => queuing(out, config, &queuing_at),
        ("Reject", None) => {}
        (other, _) => {
            response_at
                .field("type")
                .unsupported(out, other, &["Queue", "Reject"]);
        }
    }
    percent(out, limits, "lendablePercent", at);
    let borrowing = limits.get("borrowingLimitPercent").and_then(Value::as_i64);
    if let Some(value) = borrowing.filter(|v| *v < 0) {
        at.field("borrowingLimitPercent").invalid(
            out,
            &Value::from(value),
            "if specified, must be a non-negative integer",
        );
    }
}

fn queuing(out: &mut Causes, config: &Value, at: &Path<'_>) {
    let of = |field| number(config, field);
    let (limit, queues, hand) = (of("queueLengthLimit"), of("queues"), of("handSize"));
    let mut bad = |field: &str, value: i64, why: &str| {
        at.field(field).invalid(out, &Value::from(value), why);
    };
    if limit <= 0 {
        bad("queueLengthLimit", limit, "must be positive");
    }
    if queues <= 0 {
        bad("queues", queues, "must be positive");
    } else if queues > MAX_QUEUES {
        bad(
            "queues",
            queues,
            &format!("must not be greater than {MAX_QUEUES}"),
        );
    }
    if hand <= 0 {
        bad("handSize", hand, "must be positive");
    } else if hand > queues {
        bad(
            "handSize",
            hand,
            &format!("should not be greater than queues ({queues})"),
        );
    } else if entropy_bits(queues, hand) > MAX_HASH_BITS {
        bad(
            "handSize",
            hand,
            &format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
            ),
        );
    }
}

/// Bits that are needed to deal a hand out of a deck: log2 of the number of ways, rounded up.
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a deck has at most ten million cards, and the sum ends as soon as it is too large"
    )]
    {
        let mut bits = 0.0_f64;
        for i in 0..hand {
            bits += ((deck - i) as f64).log2();
            if bits > 1000.0 {
                break;
            }
        }
        bits.ceil() as i64
    }
}
