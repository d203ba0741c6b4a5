//! Ingress classes, addresses and address ranges of services, and runtime classes.

use std::net::IpAddr;

use serde_json::Value;

use super::go_value::{self, Field, Go};
use super::metadata::{label_map, meta_of, object_meta};
use super::names::{
    BAD_CIDR, BAD_IP, dns_label, dns_subdomain, domain_prefixed_path, is_cidr, path_segment,
};
use super::path::{Causes, Path, fields, list, some, text};
use super::pod_spec;

const GROUP: &str = "networking.k8s.io";
const MAX_CONTROLLER_BYTES: usize = 250;

pub fn ingress_class(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, GROUP, "IngressClass");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let controller_at = at.field("controller");
    if let Some(old) = old {
        controller_at.same(out, spec.get("controller"), old["spec"].get("controller"));
        object_meta(out, new, GROUP, "IngressClass");
    }
    let controller = text(spec, "controller");
    if controller.is_empty() {
        controller_at.required(out, "");
    } else {
        if controller.len() > MAX_CONTROLLER_BYTES {
            out.push(oarlock_model::Cause::too_long(
                controller_at.to_string(),
                MAX_CONTROLLER_BYTES,
            ));
        }
        domain_prefixed_path(out, controller, &controller_at);
    }
    if let Some(parameters) = some(spec, "parameters") {
        class_parameters(out, parameters, &at.field("parameters"));
    }
    std::mem::take(out)
}

fn class_parameters(out: &mut Causes, parameters: &Value, at: &Path<'_>) {
    if let Some(group) = some(parameters, "apiGroup").and_then(Value::as_str) {
        at.field("apiGroup")
            .all_invalid(out, group, dns_subdomain(group));
    }
    for field in ["kind", "name"] {
        segment(out, parameters, field, at);
    }
    let namespace_at = at.field("namespace");
    let namespace = some(parameters, "namespace").and_then(Value::as_str);
    match some(parameters, "scope").and_then(Value::as_str) {
        None => at.field("scope").required(out, ""),
        Some("Namespace") => match namespace {
            None => namespace_at.required(out, "`parameters.scope` is set to 'Namespace'"),
            Some(name) => namespace_at.all_invalid(out, name, dns_label(name)),
        },
        Some("Cluster") => {
            if namespace.is_some() {
                namespace_at.forbidden(out, "`parameters.scope` is set to 'Cluster'");
            }
        }
        Some(other) => at
            .field("scope")
            .unsupported(out, other, &["Cluster", "Namespace"]),
    }
}

/// A text that becomes part of a URL, and must be there.
fn segment(out: &mut Causes, object: &Value, field: &str, at: &Path<'_>) {
    let value = text(object, field);
    if value.is_empty() {
        at.field(field).required(out, "");
    } else {
        at.field(field).all_invalid(out, value, path_segment(value));
    }
}

const PARENT: &[Field] = &[
    ("Group", "group", Go::Zero("\"\"")),
    ("Resource", "resource", Go::Zero("\"\"")),
    ("Namespace", "namespace", Go::Zero("\"\"")),
    ("Name", "name", Go::Zero("\"\"")),
];

pub fn ip_address(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, GROUP, "IPAddress");
    let at = Path::new("spec");
    let at = at.field("parentRef");
    let parent = some(&new["spec"], "parentRef");
    if let Some(old) = old {
        if parent != some(&old["spec"], "parentRef") {
            let shown = parent.map_or("null".to_owned(), |p| go_value::show(p, PARENT));
            out.push(oarlock_model::Cause::new(
                "FieldValueInvalid",
                at.to_string(),
                format!("Invalid value: {shown}: field is immutable"),
            ));
        }
        return out;
    }
    let Some(parent) = parent else {
        at.required(&mut out, "");
        return out;
    };
    let group = text(parent, "group");
    if !group.is_empty() {
        at.field("group")
            .all_invalid(&mut out, group, dns_subdomain(group));
    }
    for field in ["resource", "name"] {
        segment(&mut out, parent, field, &at);
    }
    let namespace = text(parent, "namespace");
    at.field("namespace")
        .all_invalid(&mut out, namespace, path_segment(namespace));
    out
}

/// Names of addresses are addresses, in their one canonical form.
pub fn address_name(name: &str) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Err(_) => vec![BAD_IP.to_owned()],
        Ok(ip) if ip.to_string() != name => {
            vec![format!("must be in canonical form ({:?})", ip.to_string())]
        }
        Ok(_) => Vec::new(),
    }
}

pub fn service_cidr(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, GROUP, "ServiceCIDR");
    let at = Path::new("spec");
    let at = at.field("cidrs");
    let now = list(&new["spec"], "cidrs");
    let Some(old) = old else {
        ranges(&mut out, &new["spec"], &at);
        return out;
    };
    let before = list(&old["spec"], "cidrs");
    let changed = |out: &mut Causes, i: usize| {
        let range = now[i].as_str().unwrap_or("");
        at.index(i).invalid_text(out, range, "field is immutable");
    };
    match (before.len(), now.len()) {
        (1, 2) => {
            if now[0] != before[0] {
                changed(&mut out, 0);
            }
            ranges(&mut out, &new["spec"], &at);
        }
        (a, b) if a == b => {
            for i in (0..a).filter(|i| now[*i] != before[*i]) {
                changed(&mut out, i);
            }
        }
        _ => at.invalid(
            &mut out,
            new["spec"].get("cidrs").unwrap_or(&Value::Null),
            "field is immutable",
        ),
    }
    out
}

fn ranges(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let ranges = list(spec, "cidrs");
    if ranges.is_empty() {
        return at.required(out, "at least one CIDR required");
    }
    if ranges.len() > 2 {
        out.push(oarlock_model::Cause::new(
            "FieldValueInvalid",
            at.to_string(),
            format!(
                "Invalid value: {{\"CIDRs\":{}}}: may only hold up to 2 values",
                spec["cidrs"]
            ),
        ));
        return;
    }
    for (i, range) in ranges.iter().enumerate() {
        let text = range.as_str().unwrap_or("");
        if !is_cidr(text) {
            at.index(i).invalid_text(out, text, BAD_CIDR);
        } else if let Some(canonical) = masked(text).filter(|c| c != text) {
            at.index(i).invalid_text(
                out,
                text,
                &format!("must not have bits set beyond the prefix length, or must be in canonical form ({canonical:?})"),
            );
        }
    }
    let family = |range: &Value| range.as_str().map(|r| r.contains(':'));
    if let [first, second] = ranges
        && family(first) == family(second)
        && [first, second]
            .iter()
            .all(|r| r.as_str().is_some_and(is_cidr))
    {
        at.invalid(
            out,
            &spec["cidrs"],
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        );
    }
}

/// A range with nothing beyond its prefix, as it is written canonically.
fn masked(range: &str) -> Option<String> {
    let (ip, bits) = range.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let ip = match ip.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0);
            IpAddr::from((ip.to_bits() & mask).to_be_bytes())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128_u32.checked_sub(bits)?)
                .unwrap_or(0);
            IpAddr::from((ip.to_bits() & mask).to_be_bytes())
        }
    };
    Some(format!("{ip}/{bits}"))
}

pub fn runtime_class(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "node.k8s.io", "RuntimeClass");
    let handler = text(new, "handler");
    let at = Path::new("handler");
    if let Some(old) = old {
        at.same(out, new.get("handler"), old.get("handler"));
    } else if handler.is_empty() {
        at.required(out, "");
    } else {
        at.all_invalid(out, handler, dns_label(handler));
    }
    let at = Path::new("overhead");
    let at = at.field("podFixed");
    for (resource, amount) in fields(&new["overhead"], "podFixed") {
        super::resources::quantity(out, resource, amount, &at.key(resource));
    }
    if let Some(scheduling) = some(new, "scheduling") {
        let at = Path::new("scheduling");
        label_map(
            out,
            scheduling.get("nodeSelector"),
            &at.field("nodeSelector"),
        );
        pod_spec::tolerations(out, scheduling, &at.field("tolerations"));
    }
    std::mem::take(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_masked() {
        let check = |range: &str, expect: &str| assert_eq!(masked(range).as_deref(), Some(expect));
        check("10.0.0.1/24", "10.0.0.0/24");
        check("10.0.0.0/0", "0.0.0.0/0");
        check("2001:db8::1/64", "2001:db8::/64");
        check("10.1.2.3/32", "10.1.2.3/32");
    }

    #[test]
    fn names_of_addresses_are_canonical() {
        assert_eq!(address_name("10.0.0.1"), Vec::<String>::new());
        assert_eq!(address_name("x"), [BAD_IP]);
        assert_eq!(
            address_name("2001:DB8::1"),
            ["must be in canonical form (\"2001:db8::1\")"]
        );
    }
}
