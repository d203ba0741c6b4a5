//! Claims of devices, their templates, and classes of devices.

use oarlock_model::Cause;
use serde_json::Value;

use super::affinity::node_selector;
use super::cel::{self, Purpose};
use super::go_value::{self, Field, Go};
use super::metadata::{meta_of, template_meta};
use super::names::{dns_label, dns_subdomain, driver_name, is_c_identifier};
use super::path::{Causes, Path, items, list, some, text};

const GROUP: &str = "resource.k8s.io";
const MAX_REQUESTS: usize = 32;
const MAX_SUB_REQUESTS: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MAX_CONFIGS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION_BYTES: usize = 10 * 1024;
const MAX_PARAMETERS_BYTES: usize = 10 * 1024;
const MAX_ID_BYTES: usize = 32;
const MAX_RESERVED: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_POOL_NAME_BYTES: usize = 253;
const BAD_REFERENCE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

const SELECTOR: &[Field] = &[(
    "CEL",
    "cel",
    Go::Pointer(&[("Expression", "expression", Go::Zero("\"\""))]),
)];
const EXACTLY: &[Field] = &[
    ("DeviceClassName", "deviceClassName", Go::Zero("\"\"")),
    ("Selectors", "selectors", Go::List(SELECTOR)),
    ("AllocationMode", "allocationMode", Go::Zero("\"\"")),
    ("Count", "count", Go::Zero("0")),
    ("AdminAccess", "adminAccess", Go::Nil),
    ("Tolerations", "tolerations", Go::List(TOLERATION)),
    (
        "Capacity",
        "capacity",
        Go::Pointer(&[("Requests", "requests", Go::Nil)]),
    ),
];
const SUB_REQUEST: &[Field] = &[
    ("Name", "name", Go::Zero("\"\"")),
    ("DeviceClassName", "deviceClassName", Go::Zero("\"\"")),
    ("Selectors", "selectors", Go::List(SELECTOR)),
    ("AllocationMode", "allocationMode", Go::Zero("\"\"")),
    ("Count", "count", Go::Zero("0")),
    ("Tolerations", "tolerations", Go::List(TOLERATION)),
    (
        "Capacity",
        "capacity",
        Go::Pointer(&[("Requests", "requests", Go::Nil)]),
    ),
];
const TOLERATION: &[Field] = &[
    ("Key", "key", Go::Zero("\"\"")),
    ("Operator", "operator", Go::Zero("\"\"")),
    ("Value", "value", Go::Zero("\"\"")),
    ("Effect", "effect", Go::Zero("\"\"")),
    ("TolerationSeconds", "tolerationSeconds", Go::Nil),
];
const OPAQUE: &[Field] = &[
    ("Driver", "driver", Go::Zero("\"\"")),
    ("Parameters", "parameters", Go::Nil),
];
const CLAIM_SPEC: &[Field] = &[(
    "Devices",
    "devices",
    Go::Struct(&[
        (
            "Requests",
            "requests",
            Go::List(&[
                ("Name", "name", Go::Zero("\"\"")),
                ("Exactly", "exactly", Go::Pointer(EXACTLY)),
                ("FirstAvailable", "firstAvailable", Go::List(SUB_REQUEST)),
            ]),
        ),
        (
            "Constraints",
            "constraints",
            Go::List(&[
                ("Requests", "requests", Go::Nil),
                ("MatchAttribute", "matchAttribute", Go::Nil),
                ("DistinctAttribute", "distinctAttribute", Go::Nil),
            ]),
        ),
        (
            "Config",
            "config",
            Go::List(&[
                ("Requests", "requests", Go::Nil),
                ("Opaque", "opaque", Go::Pointer(OPAQUE)),
            ]),
        ),
    ]),
)];
const TEMPLATE_SPEC: &[Field] = &[
    (
        "",
        "metadata",
        Go::Inline(&[
            ("labels", "labels", Go::Nil),
            ("annotations", "annotations", Go::Nil),
        ]),
    ),
    ("Spec", "spec", Go::Struct(CLAIM_SPEC)),
];

pub fn claim(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, GROUP, "ResourceClaim");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    match old {
        None => claim_spec(out, spec, &at, false),
        Some(old) => {
            immutable_spec(out, new, old, CLAIM_SPEC, |_| {});
            claim_status(out, new, old);
        }
    }
    std::mem::take(out)
}

/// What a changed immutable spec is told: what `check` finds wrong with it, and that it has changed.
fn immutable_spec(
    out: &mut Causes,
    new: &Value,
    old: &Value,
    fields: &[Field],
    check: impl FnOnce(&mut Causes),
) {
    if new["spec"] == old["spec"] {
        return;
    }
    check(out);
    out.push(Cause::new(
        "FieldValueInvalid",
        "spec",
        format!(
            "Invalid value: {}: field is immutable",
            go_value::show(&new["spec"], fields)
        ),
    ));
}

pub fn claim_template(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, GROUP, "ResourceClaimTemplate");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let check = |out: &mut Causes, stored| {
        template_meta(out, spec, &at.field("metadata"));
        claim_spec(out, &spec["spec"], &at.field("spec"), stored);
    };
    match old {
        None => check(&mut out, false),
        Some(old) => {
            immutable_spec(&mut out, new, old, TEMPLATE_SPEC, |out| check(out, true));
        }
    }
    out
}

pub fn device_class(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, GROUP, "DeviceClass");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let same = |field: &str| old.is_some_and(|old| old["spec"].get(field) == spec.get(field));
    selectors(&mut out, spec, &at, same("selectors"));
    let list_at = at.field("config");
    if too_many(&mut out, spec, "config", MAX_CONFIGS, &at) {
        return out;
    }
    for (i, config) in items(spec, "config") {
        configuration(&mut out, config, &list_at.index(i), same("config"));
    }
    let name = text(spec, "extendedResourceName");
    if some(spec, "extendedResourceName").is_some() && !is_extended_resource(name) {
        at.field("extendedResourceName").invalid_text(
            &mut out,
            name,
            "must be a valid extended resource name",
        );
    }
    out
}

fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/')
        || name
            .split('/')
            .next()
            .is_some_and(|d| d.ends_with("kubernetes.io"));
    !native
        && !name.starts_with("requests.")
        && super::names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn too_many(out: &mut Causes, object: &Value, field: &str, most: usize, at: &Path<'_>) -> bool {
    let found = list(object, field).len();
    if found > most {
        out.push(Cause::too_many(at.field(field).to_string(), found, most));
    }
    found > most
}

fn claim_spec(out: &mut Causes, spec: &Value, at: &Path<'_>, stored: bool) {
    let (devices, at) = (&spec["devices"], at.field("devices"));
    let list_at = at.field("requests");
    if !too_many(out, devices, "requests", MAX_REQUESTS, &at) {
        for (i, item) in items(devices, "requests") {
            request(out, item, &list_at.index(i), stored);
        }
        unique_names(out, devices, "requests", &list_at);
    }
    let list_at = at.field("constraints");
    if !too_many(out, devices, "constraints", MAX_CONSTRAINTS, &at) {
        for (i, item) in items(devices, "constraints") {
            let at = list_at.index(i);
            request_references(out, item, &at, devices);
            let field = ["matchAttribute", "distinctAttribute"]
                .into_iter()
                .find(|f| some(item, f).is_some());
            match field {
                Some(field) => fully_qualified(out, text(item, field), &at.field(field)),
                None => at.required(out, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set"),
            }
        }
    }
    let list_at = at.field("config");
    if !too_many(out, devices, "config", MAX_CONFIGS, &at) {
        for (i, item) in items(devices, "config") {
            let at = list_at.index(i);
            request_references(out, item, &at, devices);
            configuration(out, item, &at, stored);
        }
    }
}

fn unique_names(out: &mut Causes, owner: &Value, field: &str, list_at: &Path<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, item) in items(owner, field) {
        let name = text(item, "name");
        if seen.contains(&name) {
            list_at.index(i).duplicate(out, name);
        }
        seen.push(name);
    }
}

fn request(out: &mut Causes, request: &Value, at: &Path<'_>, stored: bool) {
    let name = text(request, "name");
    at.field("name").all_invalid(out, name, dns_label(name));
    let alternatives = list(request, "firstAvailable");
    match (some(request, "exactly"), alternatives.is_empty()) {
        (None, true) => at.required(
            out,
            "exactly one of `exactly` or `firstAvailable` is required",
        ),
        (Some(_), false) => at.invalid(
            out,
            &Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (Some(exactly), true) => wanted(out, exactly, &at.field("exactly"), stored),
        (None, false) => {
            let list_at = at.field("firstAvailable");
            if too_many(out, request, "firstAvailable", MAX_SUB_REQUESTS, at) {
                return;
            }
            for (i, item) in alternatives.iter().enumerate() {
                let at = list_at.index(i);
                let name = text(item, "name");
                at.field("name").all_invalid(out, name, dns_label(name));
                wanted(out, item, &at, stored);
            }
            unique_names(out, request, "firstAvailable", &list_at);
        }
    }
}

/// What a request and a subrequest have in common.
fn wanted(out: &mut Causes, request: &Value, at: &Path<'_>, stored: bool) {
    let class = text(request, "deviceClassName");
    if class.is_empty() {
        at.field("deviceClassName").required(out, "");
    } else {
        at.field("deviceClassName")
            .all_invalid(out, class, dns_subdomain(class));
    }
    selectors(out, request, at, stored);
    let count = request.get("count").and_then(Value::as_i64).unwrap_or(0);
    match text(request, "allocationMode") {
        "All" => {
            if count != 0 {
                at.field("count").invalid(
                    out,
                    &Value::from(count),
                    "must not be specified when allocationMode is 'All'",
                );
            }
        }
        "ExactCount" => {
            if count <= 0 {
                at.field("count")
                    .invalid(out, &Value::from(count), "must be greater than zero");
            }
        }
        other => at
            .field("allocationMode")
            .unsupported(out, other, &["All", "ExactCount"]),
    }
    let list_at = at.field("tolerations");
    for (i, item) in items(request, "tolerations") {
        toleration(out, item, &list_at.index(i));
    }
}

fn toleration(out: &mut Causes, toleration: &Value, at: &Path<'_>) {
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    if !key.is_empty() {
        at.field("key")
            .all_invalid(out, key, super::names::qualified_name(key));
    }
    match operator {
        "Exists" => {
            if !text(toleration, "value").is_empty() {
                at.field("value").invalid_text(
                    out,
                    text(toleration, "value"),
                    "must be empty for operator `Exists`",
                );
            }
        }
        "Equal" => {
            let value = text(toleration, "value");
            at.field("value")
                .all_invalid(out, value, super::names::label_value(value));
            if key.is_empty() {
                at.field("key")
                    .required(out, "key is required if operator is `Equal`");
            }
        }
        "" => at.field("operator").required(out, ""),
        other => at
            .field("operator")
            .unsupported(out, other, &["Equal", "Exists"]),
    }
    let effect = text(toleration, "effect");
    if !effect.is_empty() {
        at.field("effect")
            .one_of(out, effect, &["NoExecute", "NoSchedule", "None"]);
    }
}

fn selectors(out: &mut Causes, owner: &Value, at: &Path<'_>, stored: bool) {
    if too_many(out, owner, "selectors", MAX_SELECTORS, at) {
        return;
    }
    let list_at = at.field("selectors");
    for (i, selector) in items(owner, "selectors") {
        let at = list_at.index(i);
        let at = at.field("cel");
        let Some(program) = some(selector, "cel") else {
            at.required(out, "");
            continue;
        };
        let expression = text(program, "expression");
        if stored {
            continue;
        }
        if expression.len() > MAX_EXPRESSION_BYTES {
            out.push(Cause::too_long(
                at.field("expression").to_string(),
                MAX_EXPRESSION_BYTES,
            ));
        } else {
            cel::check(
                out,
                &at.field("expression"),
                expression,
                Purpose::Device,
                false,
            );
        }
    }
}

fn request_references(out: &mut Causes, owner: &Value, at: &Path<'_>, devices: &Value) {
    if too_many(out, owner, "requests", MAX_REQUESTS, at) {
        return;
    }
    let list_at = at.field("requests");
    let names = list(owner, "requests");
    for (i, name) in names.iter().enumerate() {
        request_reference(out, name.as_str().unwrap_or(""), &list_at.index(i), devices);
    }
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            list_at.index(i).duplicate(out, name.as_str().unwrap_or(""));
        }
    }
}

/// `REQUEST` or `REQUEST/SUBREQUEST`.
fn request_reference(out: &mut Causes, name: &str, at: &Path<'_>, devices: &Value) {
    let segments: Vec<&str> = name.split('/').collect();
    if segments.len() > 2 {
        return at.invalid_text(out, name, BAD_REFERENCE);
    }
    for segment in &segments {
        at.all_invalid(out, segment, dns_label(segment));
    }
    let known = list(devices, "requests").iter().any(|request| {
        text(request, "name") == segments[0]
            && segments.get(1).is_none_or(|sub| {
                list(request, "firstAvailable")
                    .iter()
                    .any(|s| text(s, "name") == *sub)
            })
    });
    if !known {
        at.invalid_text(out, name, BAD_REFERENCE);
    }
}

fn configuration(out: &mut Causes, config: &Value, at: &Path<'_>, stored: bool) {
    let at = at.field("opaque");
    let Some(opaque) = some(config, "opaque") else {
        return at.required(out, "");
    };
    driver_name(out, text(opaque, "driver"), &at.field("driver"));
    raw_object(
        out,
        opaque.get("parameters"),
        &at.field("parameters"),
        stored,
    );
}

/// Any JSON object, of limited size.
fn raw_object(out: &mut Causes, value: Option<&Value>, at: &Path<'_>, stored: bool) {
    match value {
        None | Some(Value::Null) => at.required(out, ""),
        Some(object) => {
            let size = object.to_string().len();
            if !stored && size > MAX_PARAMETERS_BYTES {
                out.push(Cause::too_long(at.to_string(), MAX_PARAMETERS_BYTES));
            } else if !object.is_object() {
                at.invalid_text(out, "<value omitted>", "must be a valid JSON object");
            }
        }
    }
}

/// The name of an attribute or a capacity: an identifier, maybe after a domain.
pub fn qualified(out: &mut Causes, name: &str, at: &Path<'_>) {
    let identifier = |out: &mut Causes, id: &str| {
        if id.len() > MAX_ID_BYTES {
            out.push(Cause::too_long(at.to_string(), MAX_ID_BYTES));
        }
        if !is_c_identifier(id) {
            at.invalid_text(out, id, super::names::BAD_C_IDENTIFIER);
        }
    };
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [id] => identifier(out, id),
        [domain, id] => {
            if domain.is_empty() {
                at.invalid_text(out, "", "the domain must not be empty");
            } else {
                driver_name(out, domain, at);
            }
            if id.is_empty() {
                at.invalid_text(out, "", "the name must not be empty");
            } else {
                identifier(out, id);
            }
        }
        _ => {}
    }
}

pub fn fully_qualified(out: &mut Causes, name: &str, at: &Path<'_>) {
    qualified(out, name, at);
    if !name.contains('/') {
        at.invalid_text(
            out,
            name,
            "a fully qualified name must be a domain and a name separated by a slash",
        );
    }
}

/// Labels of domains, separated by slashes.
pub fn pool_name(out: &mut Causes, name: &str, at: &Path<'_>) {
    if name.is_empty() {
        return at.required(out, "");
    }
    if name.len() > MAX_POOL_NAME_BYTES {
        out.push(Cause::too_long(at.to_string(), MAX_POOL_NAME_BYTES));
    }
    for part in name.split('/') {
        at.all_invalid(out, part, dns_subdomain(part));
    }
}

fn claim_status(out: &mut Causes, new: &Value, old: &Value) {
    let (status, before) = (&new["status"], &old["status"]);
    if status == before {
        return;
    }
    let at = Path::new("status");
    let devices = &new["spec"]["devices"];
    let list_at = at.field("reservedFor");
    let reserved = list(status, "reservedFor");
    if !too_many(out, status, "reservedFor", MAX_RESERVED, &at) {
        for (i, user) in reserved.iter().enumerate() {
            for field in ["resource", "name", "uid"] {
                if text(user, field).is_empty() {
                    list_at.index(i).field(field).required(out, "");
                }
            }
        }
        for (i, user) in reserved.iter().enumerate() {
            let uid = text(user, "uid");
            if reserved[..i].iter().any(|u| text(u, "uid") == uid) {
                list_at.index(i).duplicate(out, uid);
            }
        }
    }
    allocated_devices(out, status, &at);
    if !reserved.is_empty() {
        if some(status, "allocation").is_none() {
            list_at.forbidden(out, "may not be specified when `allocated` is not set");
        } else if oarlock_model::meta::is_terminating(new)
            && reserved
                .iter()
                .any(|u| !list(before, "reservedFor").contains(u))
        {
            list_at.forbidden(out, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
        }
    }
    match (some(before, "allocation"), some(status, "allocation")) {
        (Some(was), Some(is)) if was != is => {
            at.field("allocation")
                .invalid(out, is, "field is immutable");
        }
        (None, Some(allocation)) => {
            allocation_result(out, allocation, &at.field("allocation"), devices);
        }
        _ => {}
    }
}

fn allocation_result(out: &mut Causes, allocation: &Value, at: &Path<'_>, devices: &Value) {
    let (result, result_at) = (&allocation["devices"], at.field("devices"));
    let list_at = result_at.field("results");
    if !too_many(out, result, "results", MAX_RESULTS, &result_at) {
        for (i, item) in items(result, "results") {
            let at = list_at.index(i);
            request_reference(out, text(item, "request"), &at.field("request"), devices);
            driver_name(out, text(item, "driver"), &at.field("driver"));
            pool_name(out, text(item, "pool"), &at.field("pool"));
            let device = text(item, "device");
            at.field("device")
                .all_invalid(out, device, dns_label(device));
        }
    }
    let list_at = result_at.field("config");
    if !too_many(out, result, "config", 2 * MAX_CONFIGS, &result_at) {
        for (i, item) in items(result, "config") {
            let at = list_at.index(i);
            match text(item, "source") {
                "" => at.field("source").required(out, ""),
                source => {
                    at.field("source")
                        .one_of(out, source, &["FromClaim", "FromClass"]);
                }
            }
            request_references(out, item, &at, devices);
            configuration(out, item, &at, false);
        }
    }
    if let Some(selector) = some(allocation, "nodeSelector") {
        node_selector(out, selector, &at.field("nodeSelector"));
    }
}

fn allocated_devices(out: &mut Causes, status: &Value, at: &Path<'_>) {
    let id = |device: &Value| {
        let of = |field| text(device, field).to_owned();
        (of("driver"), of("pool"), of("device"), of("shareID"))
    };
    let results = list(&status["allocation"]["devices"], "results");
    let list_at = at.field("devices");
    let devices = list(status, "devices");
    for (i, device) in devices.iter().enumerate() {
        let at = list_at.index(i);
        driver_name(out, text(device, "driver"), &at.field("driver"));
        pool_name(out, text(device, "pool"), &at.field("pool"));
        let name = text(device, "device");
        at.field("device").all_invalid(out, name, dns_label(name));
        if !results.iter().any(|r| id(r) == id(device)) {
            let (driver, pool, device, _) = id(device);
            at.invalid_text(
                out,
                &format!("{driver}/{pool}/{device}"),
                "must be an allocated device in the claim",
            );
        }
        super::conditions::conditions(out, device, &at);
        if some(device, "data").is_some() {
            raw_object(out, device.get("data"), &at.field("data"), false);
        }
    }
    for (i, device) in devices.iter().enumerate() {
        if devices[..i].iter().any(|d| id(d) == id(device)) {
            let (driver, pool, device, _) = id(device);
            list_at
                .index(i)
                .duplicate(out, &format!("{driver}/{pool}/{device}"));
        }
    }
}
