//! Metadata of objects and templates, and label selectors.

use oarlock_model::{Cause, meta};
use serde_json::Value;

use super::names::{dns_label, dns_subdomain, label_value, path_segment, qualified_name};
use super::path::{Causes, Path, fields, flag, items, list, some, text};

/// All annotations of an object together.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;
pub(crate) const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

type NameCheck = fn(&str) -> Vec<String>;

/// What names of a kind must look like.
pub fn name_check(group: &str, kind: &str) -> NameCheck {
    match (group, kind) {
        ("", "Namespace" | "Service") | ("apps", "StatefulSet") => dns_label,
        ("rbac.authorization.k8s.io", _) => path_segment,
        ("networking.k8s.io", "IPAddress") => super::network_kinds::address_name,
        ("certificates.k8s.io", _) => |_| Vec::new(),
        ("apiregistration.k8s.io" | "apiextensions.k8s.io", _) => path_segment,
        _ => dns_subdomain,
    }
}

/// A prefix is checked as the name that it may become: a final hyphen is fine.
fn name_or_prefix(out: &mut Causes, at: Path<'_>, value: &str, check: NameCheck, prefix: bool) {
    let name = if prefix {
        as_prefix(value)
    } else {
        value.to_owned()
    };
    at.all_invalid(out, value, check(&name));
}

/// A prefix as a name that it may become.
pub fn as_prefix(prefix: &str) -> String {
    match prefix.strip_suffix('-').filter(|rest| !rest.is_empty()) {
        Some(rest) => {
            let mut name = rest.to_owned();
            name.pop();
            name.push('a');
            name
        }
        None => prefix.to_owned(),
    }
}

/// Metadata of a new object. Many kinds check an updated one in the same way once more.
pub fn object_meta(out: &mut Causes, object: &Value, group: &str, kind: &str) {
    let Some(metadata) = object.get("metadata") else {
        return;
    };
    let at = Path::new("metadata");
    let check = name_check(group, kind);
    let prefix = text(metadata, "generateName");
    if !prefix.is_empty() && kind != "Event" {
        name_or_prefix(out, at.field("generateName"), prefix, check, true);
    }
    let name = text(metadata, "name");
    if name.is_empty() {
        at.field("name")
            .required(out, "name or generateName is required");
    } else {
        name_or_prefix(out, at.field("name"), name, check, false);
    }
    at.field("generation")
        .not_negative(out, metadata.get("generation"));
    labels(out, metadata, &at.field("labels"));
    annotations(out, metadata, &at.field("annotations"));
    owners(out, metadata, &at.field("ownerReferences"));
    let at = at.field("finalizers");
    for (_, value) in items(metadata, "finalizers") {
        let value = value.as_str().unwrap_or("");
        at.all_invalid(out, value, qualified_name(value));
    }
    if !any_finalizer(group, kind) {
        standard_finalizers(out, metadata, &at);
    }
}

/// The metadata of a template: labels and annotations only.
pub fn template_meta(out: &mut Causes, template: &Value, at: &Path<'_>) {
    if let Some(metadata) = template.get("metadata") {
        labels(out, metadata, &at.field("labels"));
        annotations(out, metadata, &at.field("annotations"));
    }
}

pub fn labels(out: &mut Causes, metadata: &Value, at: &Path<'_>) {
    label_map(out, metadata.get("labels"), at);
}

/// A map of labels, wherever it stands.
pub fn label_map(out: &mut Causes, map: Option<&Value>, at: &Path<'_>) {
    for (key, value) in map.and_then(Value::as_object).into_iter().flatten() {
        at.all_invalid(out, key, qualified_name(key));
        let value = value.as_str().unwrap_or("");
        at.all_invalid(out, value, label_value(value));
    }
}

fn annotations(out: &mut Causes, metadata: &Value, at: &Path<'_>) {
    let mut size = 0;
    for (key, value) in fields(metadata, "annotations") {
        // Keys may be in upper case.
        if !oarlock_model::selector::is_qualified_name(key)
            || key.bytes().any(|b| b.is_ascii_uppercase())
        {
            at.all_invalid(out, key, qualified_name(&key.to_lowercase()));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATION_BYTES {
        out.push(Cause::too_long(at.to_string(), MAX_ANNOTATION_BYTES));
    }
}

fn owners(out: &mut Causes, metadata: &Value, at: &Path<'_>) {
    let mut controller: Option<String> = None;
    for owner in list(metadata, "ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            let value = text(owner, field);
            match (field, value) {
                ("apiVersion", "") => {
                    at.field(field)
                        .invalid_text(out, "", "version must not be empty");
                }
                (_, "") => at.field(field).invalid_text(out, "", "must not be empty"),
                _ => {}
            }
        }
        if text(owner, "kind") == "Event"
            && matches!(text(owner, "apiVersion"), "v1" | "events.k8s.io/v1")
        {
            at.invalid(out, owner, "is disallowed from being an owner");
        }
        if flag(owner, "controller") {
            let own = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            match &controller {
                Some(other) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {other} and {own}"
                    );
                    out.push(Cause::invalid(at.to_string(), &Value::Null, &detail));
                    if let Some(cause) = out.last_mut() {
                        cause.message =
                            format!("Invalid value: {}: {detail}", shown_owners(metadata));
                    }
                }
                None => controller = Some(own),
            }
        }
    }
}

/// Owner references in the order of fields that the Go type has.
fn shown_owners(metadata: &Value) -> String {
    let one = |owner: &Value| {
        let fields = [
            "apiVersion",
            "kind",
            "name",
            "uid",
            "controller",
            "blockOwnerDeletion",
        ];
        let texts: Vec<String> = fields
            .iter()
            .filter_map(|f| Some(format!("{f:?}:{}", some(owner, f)?)))
            .collect();
        format!("{{{}}}", texts.join(","))
    };
    format!(
        "[{}]",
        list(metadata, "ownerReferences")
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(",")
    )
}

/// Kinds whose metadata is checked by the generic rules, not by core's: their finalizers need no domain.
fn any_finalizer(group: &str, kind: &str) -> bool {
    matches!(
        group,
        "admissionregistration.k8s.io"
            | "apiregistration.k8s.io"
            | "coordination.k8s.io"
            | "node.k8s.io"
    ) || (group.is_empty() && kind == "Event")
}

/// A finalizer without a domain must be one of the few that upstream knows.
fn standard_finalizers(out: &mut Causes, metadata: &Value, at: &Path<'_>) {
    for (i, value) in items(metadata, "finalizers") {
        let value = value.as_str().unwrap_or("");
        if !value.contains('/') && !STANDARD_FINALIZERS.contains(&value) {
            at.index(i).invalid_text(
                out,
                value,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}

/// Metadata of an object inside an object, which is at `path`.
pub fn embedded_meta(out: &mut Causes, object: &Value, path: &str) {
    let mut found = Causes::new();
    object_meta(&mut found, object, "apiextensions.k8s.io", "");
    for mut cause in found {
        cause.field = format!("{path}.{}", cause.field);
        out.push(cause);
    }
}

/// What an update may not change of metadata. Upstream checks it before the kind does, and tells it then too.
pub fn object_meta_update(out: &mut Causes, new: &Value, old: &Value, times: usize) {
    let at = Path::new("metadata");
    let metadata = &new["metadata"];
    for _ in 0..times {
        for field in ["name", "namespace", "uid"] {
            let (now, before) = (&new["metadata"][field], &old["metadata"][field]);
            if now != before && !before.is_null() {
                at.field(field).invalid(out, now, "field is immutable");
            }
        }
        labels(out, metadata, &at.field("labels"));
        annotations(out, metadata, &at.field("annotations"));
        owners(out, metadata, &at.field("ownerReferences"));
    }
    if times > 1 {
        standard_finalizers(out, metadata, &at.field("finalizers"));
    }
}

/// Metadata of a create or an update.
pub fn meta_of(out: &mut Causes, new: &Value, old: Option<&Value>, group: &str, kind: &str) {
    match old {
        Some(old) if any_finalizer(group, kind) => {
            object_meta_update(out, new, old, 1);
            object_meta_update(out, new, old, 1);
        }
        Some(old) => object_meta_update(out, new, old, 2),
        None => object_meta(out, new, group, kind),
    }
}

/// Metadata of a kind whose updates are checked like creates, too.
pub fn whole_meta_of(out: &mut Causes, new: &Value, old: Option<&Value>, group: &str, kind: &str) {
    if let Some(old) = old {
        object_meta_update(out, new, old, 2);
    }
    object_meta(out, new, group, kind);
}

/// A label selector object (`matchLabels`, `matchExpressions`).
pub fn label_selector(out: &mut Causes, selector: Option<&Value>, at: &Path<'_>) {
    let Some(selector) = selector.filter(|s| s.is_object()) else {
        return;
    };
    label_map(out, selector.get("matchLabels"), &at.field("matchLabels"));
    let list_at = at.field("matchExpressions");
    for (i, requirement) in items(selector, "matchExpressions") {
        let at = list_at.index(i);
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    at.field("values")
                        .required(out, "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    at.field("values").forbidden(
                        out,
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    );
                }
            }
            other => at
                .field("operator")
                .invalid_text(out, other, "not a valid selector operator"),
        }
        let key = text(requirement, "key");
        at.field("key").all_invalid(out, key, qualified_name(key));
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            at.field("values")
                .index(j)
                .all_invalid(out, value, label_value(value));
        }
    }
}

/// True if a label selector object selects by nothing.
pub fn is_empty_selector(selector: &Value) -> bool {
    fields(selector, "matchLabels").next().is_none()
        && list(selector, "matchExpressions").is_empty()
}

/// Labels as errors print them.
pub fn shown_labels(object: &Value) -> Value {
    let labels = meta::labels(object).filter(|l| !l.is_empty());
    labels.map_or(Value::Null, |l| Value::Object(l.clone()))
}
