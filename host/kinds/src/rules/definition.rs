//! CustomResourceDefinitions: defaults, preparation and checks.
//!
//! Upstream checks an older form, in which what all versions have in common stands once, above the versions: so a schema that
//! all versions share is spoken of as `spec.validation`, and columns and subresources alike.
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/>

mod conversion;
mod defaults;
mod document;
mod openapi;
mod structural;

use oarlock_model::{Cause, meta};
use oarlock_schema::structural::Node;
use serde_json::{Map, Value, json};

use super::custom_meta;
use super::names::{dns_subdomain, dns1035_label};
use super::path::{Causes, flag, items, list, some, text};

const APPROVED: &str = "api-approved.kubernetes.io";
const MAX_SELECTABLE_FIELDS: usize = 8;
const MAX_WARNING_LETTERS: usize = 256;

/// Where the fields stand of which upstream makes one when all versions have the same.
const SHARED: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

pub fn default(object: &mut Value) {
    let map = meta::as_map_mut(object);
    let spec = meta::child_map_mut(map, "spec");
    let kind = spec
        .get("names")
        .map(|n| text(n, "kind").to_owned())
        .unwrap_or_default();
    let names = meta::child_map_mut(spec, "names");
    let empty = |names: &Map<String, Value>, field: &str| {
        names
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .is_empty()
    };
    if empty(names, "singular") && !kind.is_empty() {
        names.insert("singular".to_owned(), json!(kind.to_lowercase()));
    }
    if empty(names, "listKind") && !kind.is_empty() {
        names.insert("listKind".to_owned(), json!(format!("{kind}List")));
    }
    let conversion = spec.entry("conversion").or_insert(Value::Null);
    if conversion.is_null() {
        *conversion = json!({"strategy": "None"});
    }
    if let Some(Value::Object(service)) = conversion.pointer_mut("/webhook/clientConfig/service") {
        service.entry("port").or_insert_with(|| json!(443));
    }
}

fn storage_version(object: &Value) -> Option<String> {
    let version = list(&object["spec"], "versions")
        .iter()
        .find(|v| flag(v, "storage"))?;
    Some(text(version, "name").to_owned())
}

pub fn prepare_create(object: &mut Value) {
    let stored: Vec<String> = storage_version(object).into_iter().collect();
    let map = meta::as_map_mut(object);
    map.insert("status".to_owned(), json!({"storedVersions": stored}));
}

pub fn prepare_update(object: &mut Value, _old: &Value) {
    let Some(version) = storage_version(object) else {
        return;
    };
    let status = meta::child_map_mut(meta::as_map_mut(object), "status");
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Some(stored) = stored.as_array_mut()
        && !stored.iter().any(|v| *v == version.as_str())
    {
        stored.push(Value::String(version));
    }
}

/// What is known of an approval by the Kubernetes community, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    Missing(String),
    Invalid(String),
    Bypassed(String),
    Approved(String),
}

/// Groups that only the Kubernetes community may add kinds to.
pub fn is_community_group(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

pub fn approval(definition: &Value) -> Approval {
    let annotation = meta::annotation(definition, APPROVED).unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/')
    });
    if annotation.is_empty() {
        Approval::Missing(format!(
            "protected groups must have approval annotation {APPROVED:?}, {see}"
        ))
    } else if annotation.starts_with("unapproved") {
        Approval::Bypassed(format!("not approved: {annotation:?}"))
    } else if url {
        Approval::Approved(format!("approved in {annotation}"))
    } else {
        Approval::Invalid(format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {see}"
        ))
    }
}

pub fn validate(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut out = Causes::new();
    metadata(&mut out, new, old);
    let spec = &new["spec"];
    // A write of the status, or of metadata alone: what was accepted is not looked at again.
    let unchanged = old.is_some_and(|o| o["spec"] == *spec);
    if !unchanged {
        spec_faults(&mut out, spec);
        if let Some(old) = old {
            immutable(&mut out, spec, old);
        }
    }
    names(
        &mut out,
        &new["status"]["acceptedNames"],
        "status.acceptedNames",
    );
    if !unchanged {
        stored_versions(&mut out, new);
    }
    community(&mut out, new, old);
    if flag(spec, "preserveUnknownFields")
        && !old.is_some_and(|o| flag(&o["spec"], "preserveUnknownFields"))
    {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        out.push(Cause::invalid(
            "spec.preserveUnknownFields",
            &json!(true),
            why,
        ));
    }
    out
}

/// Formats that mean nothing to Kubernetes and were not there before.
pub fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let formats = |object: &Value| {
        let mut out = Vec::new();
        let spec = hoisted(&object["spec"]);
        let shared = document_of(&spec, "validation");
        let own = list(&spec, "versions")
            .iter()
            .filter_map(|v| document_of(v, "schema"));
        shared
            .into_iter()
            .chain(own)
            .for_each(|d| document::unknown_formats(d, &mut out));
        out
    };
    let before = old.map(formats).unwrap_or_default();
    let now = formats(new).into_iter().filter(|f| !before.contains(f));
    now.map(|format| format!("unrecognized format {format:?}"))
        .collect()
}

fn metadata(out: &mut Causes, new: &Value, old: Option<&Value>) {
    let mut found = Causes::new();
    custom_meta::object(&mut found, new, old);
    if old.is_some() {
        out.extend(found);
        return;
    }
    let required = format!(
        "{}.{}",
        text(&new["spec"]["names"], "plural"),
        text(&new["spec"], "group")
    );
    let why = "must be spec.names.plural+\".\"+spec.group";
    // Behind what else is wrong with the same field.
    let places = [
        ("metadata.generateName", meta::generate_name(new)),
        ("metadata.name", meta::name(new)),
    ];
    for (field, name) in places {
        let end = found.iter().rposition(|c| c.field == field).map_or_else(
            || {
                let before = found
                    .iter()
                    .take_while(|c| c.field == "metadata.generateName")
                    .count();
                if field == "metadata.name" { before } else { 0 }
            },
            |at| at + 1,
        );
        if !name.is_empty() && name != required {
            found.insert(end, Cause::invalid(field, &json!(name), why));
        }
    }
    out.extend(found);
}

fn joined(out: &mut Causes, field: String, value: &str, prefix: &str, faults: &[String]) {
    if !faults.is_empty() {
        out.push(Cause::invalid(
            field,
            &json!(value),
            &format!("{prefix}{}", faults.join(",")),
        ));
    }
}

/// The spec as upstream's older form has it: what all versions share is taken out of them.
pub(super) fn hoisted(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let versions = list(&spec, "versions").to_vec();
    for (field, above) in SHARED {
        let of = |version: &Value| version.get(field).filter(|v| !v.is_null()).cloned();
        let Some(first) = versions.first().and_then(of) else {
            continue;
        };
        if versions.iter().any(|v| of(v).as_ref() != Some(&first)) {
            continue;
        }
        for version in spec
            .get_mut("versions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            meta::as_map_mut(version).remove(field);
        }
        meta::as_map_mut(&mut spec).insert(above.to_owned(), first);
    }
    spec
}

fn spec_faults(out: &mut Causes, given: &Value) {
    let spec = &hoisted(given);
    let group = text(spec, "group");
    if group.is_empty() {
        out.push(Cause::required("spec.group", ""));
    } else {
        let faults = dns_subdomain(group);
        joined(out, "spec.group".to_owned(), group, "", &faults);
        if faults.is_empty() && !group.contains('.') {
            out.push(Cause::invalid(
                "spec.group",
                &json!(group),
                "should be a domain with at least one dot",
            ));
        }
    }
    one_of(
        out,
        "spec.scope",
        text(spec, "scope"),
        &["Cluster", "Namespaced"],
    );
    if document_of(spec, "validation").is_none() {
        for (at, version) in items(spec, "versions") {
            if document_of(version, "schema").is_none() {
                out.push(Cause::required(
                    format!("spec.versions[{at}].schema.openAPIV3Schema"),
                    "",
                ));
            }
        }
    }
    versions(out, spec);
    for (field, place) in [
        ("plural", "plural"),
        ("singular", "singular"),
        ("kind", "kind"),
        ("listKind", "listKind"),
    ] {
        if text(&spec["names"], field).is_empty() {
            out.push(Cause::required(format!("spec.names.{place}"), ""));
        }
    }
    names(out, &spec["names"], "spec.names");
    let all = list(spec, "versions");
    let any_status = has_status(spec) || all.iter().any(has_status);
    if let Some(document) = document_of(spec, "validation") {
        document::check(out, document, any_status, "spec.validation");
    }
    parts(out, spec, "spec", "validation");
    conversion::check(out, spec);
}

fn document_of<'a>(holder: &'a Value, field: &str) -> Option<&'a Value> {
    holder
        .get(field)?
        .get("openAPIV3Schema")
        .filter(|d| !d.is_null())
}

fn has_status(holder: &Value) -> bool {
    holder
        .pointer("/subresources/status")
        .is_some_and(|s| !s.is_null())
}

fn one_of(out: &mut Causes, field: &str, value: &str, accepted: &[&str]) {
    if value.is_empty() {
        out.push(Cause::required(field, ""));
    } else if !accepted.contains(&value) {
        out.push(Cause::not_supported(field, &json!(value), accepted));
    }
}

fn versions(out: &mut Causes, spec: &Value) {
    let all = list(spec, "versions");
    for (at, version) in all.iter().enumerate() {
        let field = format!("spec.versions[{at}]");
        let name = text(version, "name");
        joined(out, format!("{field}.name"), name, "", &dns1035_label(name));
        deprecation(out, version, &field);
        // Of subresources that all versions share, status is that of the whole.
        let status = if all.iter().any(|v| some(v, "subresources").is_some()) {
            has_status(version)
        } else {
            has_status(spec)
        };
        if let Some(document) = document_of(version, "schema") {
            document::check(out, document, status, &format!("{field}.schema"));
        }
        parts(out, version, &field, "schema");
    }
    let mut names: Vec<&str> = all.iter().map(|v| text(v, "name")).collect();
    names.sort_unstable();
    names.dedup();
    let mut whole = |why: &str| {
        let message = format!("Invalid value: {}: {why}", shown_versions(all));
        out.push(Cause::new("FieldValueInvalid", "spec.versions", message));
    };
    if names.len() != all.len() {
        whole("must contain unique version names");
    }
    if all.iter().filter(|v| flag(v, "storage")).count() != 1 {
        whole("must have exactly one version marked as storage version");
    }
}

fn deprecation(out: &mut Causes, version: &Value, field: &str) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
        return;
    };
    let mut tell = |why: &str| {
        out.push(Cause::invalid(
            format!("{field}.deprecationWarning"),
            &json!(warning),
            why,
        ));
    };
    if !flag(version, "deprecated") {
        tell("can only be set for deprecated versions");
        return;
    }
    if warning.len() > MAX_WARNING_LETTERS {
        tell("must be <= 256 characters long");
    }
    if warning.is_empty() {
        tell("must not be an empty string");
    }
    if let Some((at, _)) = warning
        .char_indices()
        .find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' '))
    {
        tell(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

/// Versions as the Go type prints them.
fn shown_versions(versions: &[Value]) -> String {
    let one = |version: &Value| {
        let warning = version
            .get("deprecationWarning")
            .filter(|w| w.is_string())
            .map_or("null".to_owned(), Value::to_string);
        let schema = match version.get("schema").filter(|s| !s.is_null()) {
            Some(schema) => format!(
                "{{\"OpenAPIV3Schema\":{}}}",
                document::shown(schema.get("openAPIV3Schema"))
            ),
            None => "null".to_owned(),
        };
        let columns: Vec<String> = list(version, "additionalPrinterColumns")
            .iter()
            .map(|c| {
                format!(
                    "{{\"Name\":{},\"Type\":{},\"Format\":{},\"Description\":{},\"Priority\":{},\"JSONPath\":{}}}",
                    json!(text(c, "name")), json!(text(c, "type")), json!(text(c, "format")), json!(text(c, "description")),
                    c.get("priority").and_then(Value::as_i64).unwrap_or(0), json!(text(c, "jsonPath"))
                )
            })
            .collect();
        let columns = if columns.is_empty() {
            "null".to_owned()
        } else {
            format!("[{}]", columns.join(","))
        };
        let fields: Vec<String> = list(version, "selectableFields")
            .iter()
            .map(|f| format!("{{\"JSONPath\":{}}}", json!(text(f, "jsonPath"))))
            .collect();
        let fields = if fields.is_empty() {
            "null".to_owned()
        } else {
            format!("[{}]", fields.join(","))
        };
        let subresources = match some(version, "subresources") {
            None => "null".to_owned(),
            Some(sub) => {
                let status = if some(sub, "status").is_some() {
                    "{}"
                } else {
                    "null"
                };
                let scale = some(sub, "scale").map_or("null".to_owned(), |s| {
                    let selector = s.get("labelSelectorPath").filter(|p| p.is_string()).map_or("null".to_owned(), Value::to_string);
                    format!(
                        "{{\"SpecReplicasPath\":{},\"StatusReplicasPath\":{},\"LabelSelectorPath\":{selector}}}",
                        json!(text(s, "specReplicasPath")), json!(text(s, "statusReplicasPath"))
                    )
                });
                format!("{{\"Status\":{status},\"Scale\":{scale}}}")
            }
        };
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{warning},\"Schema\":{schema},\"Subresources\":{subresources},\"AdditionalPrinterColumns\":{columns},\"SelectableFields\":{fields}}}",
            json!(text(version, "name")),
            flag(version, "served"),
            flag(version, "storage"),
            flag(version, "deprecated")
        )
    };
    format!(
        "[{}]",
        versions.iter().map(one).collect::<Vec<_>>().join(",")
    )
}

fn names(out: &mut Causes, names: &Value, at: &str) {
    let mixed = "may have mixed case, but should otherwise match: ";
    for (field, lower, prefix) in [
        ("plural", false, ""),
        ("singular", false, ""),
        ("kind", true, mixed),
        ("listKind", true, mixed),
    ] {
        let name = text(names, field);
        if name.is_empty() {
            continue;
        }
        let faults = if lower {
            dns1035_label(&name.to_lowercase())
        } else {
            dns1035_label(name)
        };
        joined(out, format!("{at}.{field}"), name, prefix, &faults);
    }
    let mut each = |field: &str| {
        for (i, name) in items(names, field) {
            let name = name.as_str().unwrap_or_default();
            joined(
                out,
                format!("{at}.{field}[{i}]"),
                name,
                "",
                &dns1035_label(name),
            );
        }
    };
    each("shortNames");
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        out.push(Cause::invalid(
            format!("{at}.listKind"),
            &json!(kind),
            "kind and listKind may not be the same",
        ));
    }
    let mut each = |field: &str| {
        for (i, name) in items(names, field) {
            let name = name.as_str().unwrap_or_default();
            joined(
                out,
                format!("{at}.{field}[{i}]"),
                name,
                "",
                &dns1035_label(name),
            );
        }
    };
    each("categories");
}

/// Subresources, columns and selectable fields of a version, or of all of them. `schema`: where their schema stands.
fn parts(out: &mut Causes, holder: &Value, at: &str, schema: &str) {
    if let Some(scale) = holder
        .pointer("/subresources/scale")
        .filter(|s| !s.is_null())
    {
        let at = format!("{at}.subresources.scale");
        for (field, below) in [
            ("specReplicasPath", ".spec."),
            ("statusReplicasPath", ".status."),
        ] {
            let path = text(scale, field);
            if path.is_empty() {
                out.push(Cause::required(format!("{at}.{field}"), ""));
            } else if simple_path(out, path, &format!("{at}.{field}")) && !path.starts_with(below) {
                let why = format!(
                    "should be a json path under {}",
                    below.trim_end_matches('.')
                );
                out.push(Cause::invalid(format!("{at}.{field}"), &json!(path), &why));
            }
        }
        let path = text(scale, "labelSelectorPath");
        let field = format!("{at}.labelSelectorPath");
        if !path.is_empty()
            && simple_path(out, path, &field)
            && !path.starts_with(".spec.")
            && !path.starts_with(".status.")
        {
            out.push(Cause::invalid(
                field,
                &json!(path),
                "should be a json path under either .spec or .status",
            ));
        }
    }
    for (i, column) in items(holder, "additionalPrinterColumns") {
        column_faults(out, column, &format!("{at}.additionalPrinterColumns[{i}]"));
    }
    let fields = list(holder, "selectableFields");
    if fields.is_empty() {
        return;
    }
    let at = format!("{at}.selectableFields");
    match document_of(holder, schema) {
        None if schema == "schema" => {
            let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
            out.push(Cause::invalid(at, &json!(""), why));
        }
        None => out.push(Cause::invalid(
            at,
            &json!(""),
            "may only be set when validations.schema is included",
        )),
        Some(document) => selectable(out, fields, &Node::parse(document), &at),
    }
}

fn simple_path(out: &mut Causes, path: &str, field: &str) -> bool {
    let fine = path.starts_with('.');
    if !fine {
        out.push(Cause::invalid(
            field,
            &json!(path),
            "must be a simple json path starting with .",
        ));
    }
    fine
}

fn column_faults(out: &mut Causes, column: &Value, at: &str) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = [
        "byte",
        "date",
        "date-time",
        "double",
        "float",
        "int32",
        "int64",
        "password",
    ];
    if text(column, "name").is_empty() {
        out.push(Cause::required(format!("{at}.name"), ""));
    }
    let ty = text(column, "type");
    let must = format!("must be one of {}", TYPES.join(","));
    if ty.is_empty() {
        out.push(Cause::required(format!("{at}.type"), &must));
    } else if !TYPES.contains(&ty) {
        out.push(Cause::invalid(format!("{at}.type"), &json!(ty), &must));
    }
    let format = text(column, "format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        let must = format!("must be one of {}", FORMATS.join(","));
        out.push(Cause::invalid(
            format!("{at}.format"),
            &json!(format),
            &must,
        ));
    }
    let path = text(column, "jsonPath");
    if path.is_empty() {
        out.push(Cause::required(format!("{at}.JSONPath"), ""));
    } else {
        simple_path(out, path, &format!("{at}.JSONPath"));
    }
}

fn selectable(out: &mut Causes, fields: &[Value], schema: &Node, at: &str) {
    let mut unique: Vec<&str> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let (place, path) = (format!("{at}[{i}].jsonPath"), text(field, "jsonPath"));
        if path.is_empty() {
            out.push(Cause::required(place, ""));
            continue;
        }
        let node = match field_path(schema, path, false) {
            Ok(node) => node,
            Err(why) => {
                out.push(Cause::invalid(
                    place,
                    &json!(path),
                    &format!("is an invalid path: {why}"),
                ));
                continue;
            }
        };
        if path.trim_start_matches('.').split('.').next() == Some("metadata") {
            out.push(Cause::invalid(
                &place,
                &json!(path),
                "must not point to fields in metadata",
            ));
        }
        if !matches!(node.ty.as_str(), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            out.push(Cause::invalid(&place, &json!(path), why));
        }
        if unique.contains(&path) {
            out.push(Cause::duplicate(place, &json!(path)));
        } else {
            unique.push(path);
        }
    }
    if unique.len() > MAX_SELECTABLE_FIELDS {
        out.push(Cause::too_many(at, unique.len(), MAX_SELECTABLE_FIELDS));
    }
}

/// The node that a path of fields (`.a.b`, with brackets also `.a['b']`) leads to.
pub(super) fn field_path<'a>(
    schema: &'a Node,
    path: &str,
    brackets: bool,
) -> Result<&'a Node, String> {
    let mut node = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let name;
        if let Some(behind) = rest.strip_prefix('.') {
            if behind.is_empty() {
                return Err("unexpected end of JSON path".to_owned());
            }
            let end = behind.find(['.', '[', ']']).unwrap_or(behind.len()).max(1);
            (name, rest) = (behind[..end].to_owned(), &behind[end..]);
        } else if let Some(behind) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".to_owned());
            }
            let Some((quoted, behind)) = behind.split_once(']') else {
                return Err("unexpected end of JSON path".to_owned());
            };
            let inner = quoted.strip_prefix('\'').and_then(|q| q.strip_suffix('\''));
            let Some(inner) = inner.filter(|_| quoted.len() > 1) else {
                return Err(format!("expected single quoted string but got {quoted}"));
            };
            (name, rest) = (inner.replace("\\'", "'"), behind);
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        }
        let below = if node.properties.is_empty() {
            node.field(&name)
        } else {
            node.properties.get(&name)
        };
        node = below.ok_or_else(|| "does not refer to a valid field".to_owned())?;
    }
    Ok(node)
}

fn immutable(out: &mut Causes, spec: &Value, old: &Value) {
    let before = &old["spec"];
    let mut same = |field: &str, new: &Value, old: &Value| {
        if new != old {
            out.push(Cause::invalid(field, new, "field is immutable"));
        }
    };
    if crate::custom::has_condition(old, "Established") {
        same("spec.scope", &spec["scope"], &before["scope"]);
        same(
            "spec.names.kind",
            &spec["names"]["kind"],
            &before["names"]["kind"],
        );
    }
    same("spec.group", &spec["group"], &before["group"]);
    same(
        "spec.names.plural",
        &spec["names"]["plural"],
        &before["names"]["plural"],
    );
}

fn stored_versions(out: &mut Causes, new: &Value) {
    const FIELD: &str = "status.storedVersions";
    let stored = list(&new["status"], "storedVersions");
    if stored.is_empty() {
        out.push(Cause::new(
            "FieldValueInvalid",
            FIELD,
            "Invalid value: null: must have at least one stored version",
        ));
        return;
    }
    let versions = list(&new["spec"], "versions");
    let shown = Value::Array(stored.to_vec());
    for version in versions.iter().filter(|v| flag(v, "storage")) {
        let name = text(version, "name");
        if !stored.iter().any(|s| s == name) {
            out.push(Cause::invalid(
                FIELD,
                &shown,
                &format!("must have the storage version {name}"),
            ));
        }
    }
    for (at, name) in stored.iter().enumerate() {
        let text_of = name.as_str().unwrap_or_default();
        if !versions.iter().any(|v| text(v, "name") == text_of) {
            let why = format!(
                "missing from spec.versions; {text_of} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {text_of} and removes {text_of} from status.storedVersions"
            );
            out.push(Cause::invalid(format!("{FIELD}[{at}]"), name, &why));
        }
    }
}

fn community(out: &mut Causes, new: &Value, old: Option<&Value>) {
    if !is_community_group(text(&new["spec"], "group")) {
        return;
    }
    let now = approval(new);
    if old
        .map(approval)
        .is_some_and(|before| std::mem::discriminant(&before) == std::mem::discriminant(&now))
    {
        return;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    match now {
        Approval::Missing(why) => out.push(Cause::required(field, &why)),
        Approval::Invalid(why) => {
            let value = json!(meta::annotation(new, APPROVED).unwrap_or_default());
            out.push(Cause::invalid(field, &value, &why));
        }
        Approval::Bypassed(_) | Approval::Approved(_) => {}
    }
}

#[cfg(test)]
mod tests;
