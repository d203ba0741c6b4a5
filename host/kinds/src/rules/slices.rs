//! What drivers offer: slices of pools of devices.

use oarlock_model::{Cause, Quantity};
use serde_json::Value;

use super::affinity::node_selector;
use super::devices::{pool_name, qualified};
use super::metadata::meta_of;
use super::names::{dns_label, dns_subdomain, driver_name, label_value, qualified_name};
use super::path::{Causes, Path, fields, list, some, text};

const MAX_DEVICES: usize = 128;
const MAX_DEVICES_ADVANCED: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_ATTRIBUTES: usize = 32;
const MAX_TAINTS: usize = 16;
const MAX_VALUE_BYTES: usize = 64;
const MAX_BINDING_CONDITIONS: usize = 4;
const ONE_PLACE: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
const ONE_PLACE_OF_DEVICE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
const NO_PLACE_OF_DEVICE: &str = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

pub fn slice(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "resource.k8s.io", "ResourceSlice");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    driver_name(out, text(spec, "driver"), &at.field("driver"));
    pool(out, &spec["pool"], &at.field("pool"));
    if let Some(old) = old {
        let before = &old["spec"];
        let pool_at = at.field("pool");
        pool_at
            .field("name")
            .same(out, spec["pool"].get("name"), before["pool"].get("name"));
        for field in ["driver", "nodeName"] {
            at.field(field)
                .same(out, spec.get(field), before.get(field));
        }
    }
    places(out, spec, &at);
    let devices = list(spec, "devices");
    if some(spec, "sharedCounters").is_some() && some(spec, "devices").is_some() {
        at.invalid_text(
            out,
            "",
            "only one of `sharedCounters` or `devices` is allowed",
        );
    }
    let advanced = devices
        .iter()
        .any(|d| !list(d, "taints").is_empty() || !list(d, "consumesCounters").is_empty());
    let most = if advanced {
        MAX_DEVICES_ADVANCED
    } else {
        MAX_DEVICES
    };
    let list_at = at.field("devices");
    if devices.len() > most {
        out.push(Cause::too_many(list_at.to_string(), devices.len(), most));
    } else {
        let per_device = spec["perDeviceNodeSelection"] == true;
        for (i, item) in devices.iter().enumerate() {
            let before = old.and_then(|old| {
                list(&old["spec"], "devices")
                    .iter()
                    .find(|d| d["name"] == item["name"])
            });
            device(out, item, before, &list_at.index(i), per_device);
        }
        duplicates(out, devices, "name", &list_at);
    }
    let list_at = at.field("sharedCounters");
    let sets = list(spec, "sharedCounters");
    if sets.len() > MAX_COUNTER_SETS {
        out.push(Cause::too_many(
            list_at.to_string(),
            sets.len(),
            MAX_COUNTER_SETS,
        ));
    } else {
        for (i, set) in sets.iter().enumerate() {
            counters(out, set, "name", &list_at.index(i));
        }
        duplicates(out, sets, "name", &list_at);
    }
    std::mem::take(out)
}

fn duplicates(out: &mut Causes, list: &[Value], field: &str, at: &Path<'_>) {
    for (i, item) in list.iter().enumerate() {
        let key = text(item, field);
        if list[..i].iter().any(|other| text(other, field) == key) {
            at.index(i).duplicate(out, key);
        }
    }
}

fn pool(out: &mut Causes, pool: &Value, at: &Path<'_>) {
    pool_name(out, text(pool, "name"), &at.field("name"));
    let of = |field: &str| pool.get(field).and_then(Value::as_i64).unwrap_or(0);
    if of("resourceSliceCount") <= 0 {
        at.field("resourceSliceCount").invalid(
            out,
            &Value::from(of("resourceSliceCount")),
            "must be greater than zero",
        );
    }
    if of("generation") < 0 {
        at.field("generation").invalid(
            out,
            &Value::from(of("generation")),
            "must be greater than or equal to zero",
        );
    }
}

/// Where the devices of a slice are.
fn places(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let mut given = Vec::new();
    if let Some(name) = some(spec, "nodeName").and_then(Value::as_str) {
        if name.is_empty() {
            at.field("nodeName").invalid_text(
                out,
                name,
                "must be either unset or set to a non-empty string",
            );
        } else {
            given.push("`nodeName`");
            at.field("nodeName")
                .all_invalid(out, name, dns_subdomain(name));
        }
    }
    if let Some(selector) = some(spec, "nodeSelector") {
        given.push("`nodeSelector`");
        let at = at.field("nodeSelector");
        node_selector(out, selector, &at);
        if list(selector, "nodeSelectorTerms").len() != 1 {
            at.field("nodeSelectorTerms").invalid(
                out,
                &selector["nodeSelectorTerms"],
                "must have exactly one node selector term",
            );
        }
    }
    for (field, shown) in [
        ("allNodes", "`allNodes`"),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`"),
    ] {
        match some(spec, field) {
            Some(Value::Bool(true)) => given.push(shown),
            Some(value) => {
                at.field(field)
                    .invalid(out, value, "must be either unset or set to true");
            }
            None => {}
        }
    }
    match given.len() {
        0 => at.required(out, ONE_PLACE),
        1 => {}
        _ => at.invalid_text(
            out,
            &format!("{{{}}}", given.join(", ")),
            &format!("{ONE_PLACE}, but multiple fields are set"),
        ),
    }
}

fn device(
    out: &mut Causes,
    device: &Value,
    before: Option<&Value>,
    at: &Path<'_>,
    per_device: bool,
) {
    let name = text(device, "name");
    at.field("name").all_invalid(out, name, dns_label(name));
    let size = fields(device, "attributes").count() + fields(device, "capacity").count();
    if size > MAX_ATTRIBUTES {
        at.invalid(
            out,
            &Value::from(size),
            &format!(
                "the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}"
            ),
        );
    }
    let map_at = at.field("attributes");
    for (key, value) in fields(device, "attributes") {
        qualified(out, key, &map_at.key(key));
        attribute(out, value, &map_at.key(key));
    }
    let same = |field: &str| before.is_some_and(|b| b.get(field) == device.get(field));
    if !same("capacity") {
        let shared = device["allowMultipleAllocations"] == true;
        let map_at = at.field("capacity");
        for (key, value) in fields(device, "capacity") {
            qualified(out, key, &map_at.key(key));
            capacity(out, value, &map_at.key(key), shared);
        }
    }
    if !same("taints") {
        let list_at = at.field("taints");
        let taints = list(device, "taints");
        if taints.len() > MAX_TAINTS {
            out.push(Cause::too_many(
                list_at.to_string(),
                taints.len(),
                MAX_TAINTS,
            ));
        } else {
            for (i, item) in taints.iter().enumerate() {
                taint(out, item, &list_at.index(i));
            }
        }
    }
    let list_at = at.field("consumesCounters");
    let consumed = list(device, "consumesCounters");
    if consumed.len() > MAX_CONSUMPTIONS {
        out.push(Cause::too_many(
            list_at.to_string(),
            consumed.len(),
            MAX_CONSUMPTIONS,
        ));
    } else {
        for (i, set) in consumed.iter().enumerate() {
            counters(out, set, "counterSet", &list_at.index(i));
        }
        duplicates(out, consumed, "counterSet", &list_at);
    }
    device_place(out, device, at, per_device);
    binding(out, device, at);
}

fn device_place(out: &mut Causes, device: &Value, at: &Path<'_>, per_device: bool) {
    let stated = ["nodeName", "nodeSelector", "allNodes"]
        .iter()
        .any(|field| some(device, field).is_some());
    if !per_device {
        if stated {
            at.invalid(out, &Value::Null, NO_PLACE_OF_DEVICE);
        }
        return;
    }
    let mut given = Vec::new();
    if let Some(name) = some(device, "nodeName").and_then(Value::as_str) {
        if name.is_empty() {
            at.field("nodeName")
                .invalid_text(out, name, "must not be empty");
        } else {
            given.push("`nodeName`");
            at.field("nodeName")
                .all_invalid(out, name, dns_subdomain(name));
        }
    }
    if let Some(selector) = some(device, "nodeSelector") {
        given.push("`nodeSelector`");
        node_selector(out, selector, &at.field("nodeSelector"));
    }
    match some(device, "allNodes") {
        Some(Value::Bool(true)) => given.push("`allNodes`"),
        Some(value) => {
            at.field("allNodes")
                .invalid(out, value, "must be either unset or set to true");
        }
        None => {}
    }
    match given.len() {
        0 => at.required(out, ONE_PLACE_OF_DEVICE),
        1 => {}
        _ => at.invalid_text(
            out,
            &format!("{{{}}}", given.join(", ")),
            ONE_PLACE_OF_DEVICE,
        ),
    }
}

fn binding(out: &mut Causes, device: &Value, at: &Path<'_>) {
    let (conditions, failures) = (
        list(device, "bindingConditions"),
        list(device, "bindingFailureConditions"),
    );
    for (field, given) in [
        ("bindingConditions", conditions),
        ("bindingFailureConditions", failures),
    ] {
        let list_at = at.field(field);
        if given.len() > MAX_BINDING_CONDITIONS {
            out.push(Cause::too_many(
                list_at.to_string(),
                given.len(),
                MAX_BINDING_CONDITIONS,
            ));
            continue;
        }
        for (i, name) in given.iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            list_at
                .index(i)
                .all_invalid(out, name, qualified_name(name));
        }
    }
    if conditions.is_empty() != failures.is_empty() {
        let (missing, other) = if conditions.is_empty() {
            ("bindingConditions", "bindingFailureConditions")
        } else {
            ("bindingFailureConditions", "bindingConditions")
        };
        at.field(missing)
            .required(out, &format!("{missing} are required to use {other}"));
    }
}

/// A set of counters that is offered, or taken from.
fn counters(out: &mut Causes, set: &Value, name_field: &str, at: &Path<'_>) {
    let name = text(set, name_field);
    if name.is_empty() {
        at.field(name_field).required(out, "");
    } else {
        at.field(name_field).all_invalid(out, name, dns_label(name));
    }
    let map_at = at.field("counters");
    let count = fields(set, "counters").count();
    if count == 0 {
        map_at.required(out, "");
    } else if count > MAX_COUNTERS {
        out.push(Cause::too_many(map_at.to_string(), count, MAX_COUNTERS));
    }
    for (key, _) in fields(set, "counters") {
        map_at.all_invalid(out, key, dns_label(key));
    }
}

fn attribute(out: &mut Causes, attribute: &Value, at: &Path<'_>) {
    let mut given = 0;
    for field in ["bool", "int", "string", "version"] {
        let Some(value) = some(attribute, field) else {
            continue;
        };
        given += 1;
        let text = value.as_str().unwrap_or("");
        let at = at.field(field);
        if field == "version" && !is_semantic_version(text) {
            at.invalid_text(
                out,
                text,
                "must be a string compatible with semver.org spec 2.0.0",
            );
        }
        if text.len() > MAX_VALUE_BYTES {
            out.push(Cause::too_long(at.to_string(), MAX_VALUE_BYTES));
        }
    }
    match given {
        0 => at.invalid_text(out, "", "exactly one value must be specified"),
        1 => {}
        _ => at.invalid(out, attribute, "exactly one value must be specified"),
    }
}

/// `MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]`
fn is_semantic_version(text: &str) -> bool {
    let number = |t: &str| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()) && (t == "0" || !t.starts_with('0'))
    };
    let word = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let prerelease = |t: &str| word(t) && (number(t) || !t.bytes().all(|b| b.is_ascii_digit()));
    let (rest, build) = text
        .split_once('+')
        .map_or((text, None), |(r, b)| (r, Some(b)));
    let (core, pre) = rest
        .split_once('-')
        .map_or((rest, None), |(c, p)| (c, Some(p)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(prerelease))
        && build.is_none_or(|b| b.split('.').all(word))
}

fn taint(out: &mut Causes, taint: &Value, at: &Path<'_>) {
    let (key, value) = (text(taint, "key"), text(taint, "value"));
    at.field("key").all_invalid(out, key, qualified_name(key));
    if !value.is_empty() {
        at.field("value")
            .all_invalid(out, value, label_value(value));
    }
    match text(taint, "effect") {
        "" => at.field("effect").required(out, ""),
        effect => {
            at.field("effect")
                .one_of(out, effect, &["NoExecute", "NoSchedule", "None"]);
        }
    }
}

fn capacity(out: &mut Causes, capacity: &Value, at: &Path<'_>, shared: bool) {
    let Some(policy) = some(capacity, "requestPolicy") else {
        return;
    };
    let at = at.field("requestPolicy");
    if !shared {
        return at.forbidden(out, "allowMultipleAllocations must be true");
    }
    let most = &capacity["value"];
    let values = list(policy, "validValues");
    match (values.is_empty(), some(policy, "validRange")) {
        (false, Some(_)) => at.forbidden(out, "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time"),
        (false, None) => match some(policy, "default") {
            None => at
                .field("default")
                .required(out, "required when validValues is defined"),
            Some(default) => valid_values(out, values, default, most, &at.field("validValues")),
        },
        (true, Some(range)) => match some(policy, "default") {
            None => at
                .field("default")
                .required(out, "required when validRange is defined"),
            Some(default) => valid_range(out, range, default, most, &at.field("validRange")),
        },
        (true, None) => {}
    }
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::from_json(value).ok()
}

fn less(a: &Value, b: &Value) -> bool {
    matches!((amount(a), amount(b)), (Some(a), Some(b)) if a < b)
}

fn shown(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn valid_values(out: &mut Causes, values: &[Value], default: &Value, most: &Value, at: &Path<'_>) {
    for (i, pair) in values.windows(2).enumerate() {
        if less(&pair[1], &pair[0]) {
            at.index(i + 1).invalid_text(
                out,
                shown(&pair[1]),
                "values must be sorted in ascending order",
            );
        }
    }
    for (i, value) in values.iter().enumerate() {
        if less(most, value) {
            let detail = format!("option is larger than capacity value: {}", shown(most));
            at.index(i).invalid_text(out, shown(value), &detail);
        }
    }
    if !values.iter().any(|v| amount(v) == amount(default)) {
        at.invalid_text(
            out,
            shown(default),
            "default value is not valid according to the requestPolicy",
        );
    }
}

fn valid_range(out: &mut Causes, range: &Value, default: &Value, most: &Value, at: &Path<'_>) {
    let Some(min) = some(range, "min") else {
        return at
            .field("min")
            .required(out, "required when validRange is defined");
    };
    let mut bad = |field: &str, value: &Value, why: String| {
        at.field(field).invalid_text(out, shown(value), &why);
    };
    if less(most, min) {
        bad(
            "min",
            min,
            format!("min is larger than capacity value: {}", shown(most)),
        );
    }
    if less(default, min) {
        bad(
            "default",
            default,
            format!("default is less than min: {}", shown(min)),
        );
    }
    if let Some(max) = some(range, "max") {
        if less(max, min) {
            bad(
                "max",
                min,
                format!("min is larger than max: {}", shown(max)),
            );
        }
        if less(most, max) {
            bad(
                "max",
                max,
                format!("max is larger than capacity value: {}", shown(most)),
            );
        }
        if less(max, default) {
            bad(
                "default",
                default,
                format!("default is more than max: {}", shown(max)),
            );
        }
    }
    if let Some(step) = some(range, "step")
        && let (Some(size), Some(from)) = (amount(step), amount(min))
    {
        if size.is_zero() || size.is_negative() {
            bad("step", step, "must be greater than zero".to_owned());
            return;
        }
        let (size, from) = (size.value(), from.value());
        for value in [Some(default), some(range, "max")].into_iter().flatten() {
            let reached = amount(value).map_or(0, Quantity::value) - from;
            if size != 0 && reached % size != 0 {
                let why = format!(
                    "value is not a multiple of a given step ({}) from ({})",
                    shown(step),
                    shown(min)
                );
                bad("step", value, why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_semantic_version;

    #[test]
    fn semantic_versions() {
        for good in [
            "1.2.3",
            "0.0.0",
            "1.2.3-alpha.1",
            "1.2.3-0a+build.01",
            "1.0.0+x",
        ] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "v1.2.3", "1.1.0x",
        ] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }
}
