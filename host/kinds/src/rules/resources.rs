//! Resource names and amounts: what may be asked for, by whom, and in which units.

use std::collections::{BTreeMap, HashSet};

use oarlock_model::{Cause, Quantity};
use serde_json::Value;

use super::names::{dns_label, qualified_name};
use super::path::{Causes, Path, fields, items, list, some, text};

const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

const COMPUTED: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.storage",
];

pub fn is_huge_pages(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

/// True for resources of the cluster itself.
fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

fn is_extended(resource: &str) -> bool {
    !is_native(resource)
        && !resource.starts_with("requests.")
        && qualified_name(&format!("requests.{resource}")).is_empty()
}

pub fn is_overcommittable(resource: &str) -> bool {
    is_native(resource) && !is_huge_pages(resource)
}

/// True for the names that a quota may limit without a prefix.
pub fn is_standard_quota(resource: &str) -> bool {
    COUNTED.contains(&resource)
        || COMPUTED.contains(&resource)
        || is_huge_pages(resource)
        || resource.starts_with("requests.hugepages-")
}

/// A name of any resource.
pub fn resource_name(out: &mut Causes, resource: &str, at: &Path<'_>) {
    let errors = qualified_name(resource);
    if !errors.is_empty() {
        at.all_invalid(out, resource, errors);
    } else if !resource.contains('/') && !is_standard_quota(resource) && resource != "storage" {
        at.invalid_text(
            out,
            resource,
            "must be a standard resource type or fully qualified",
        );
    }
}

/// A name of what a container may ask for.
pub fn container_resource_name(out: &mut Causes, resource: &str, at: &Path<'_>) {
    resource_name(out, resource, at);
    let standard =
        matches!(resource, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(resource);
    if !resource.contains('/') {
        if !standard {
            at.invalid_text(out, resource, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        at.invalid_text(
            out,
            resource,
            "doesn't follow extended resource name standard",
        );
    }
}

fn pod_resource_name(out: &mut Causes, resource: &str, at: &Path<'_>) {
    let before = out.len();
    resource_name(out, resource, at);
    if out.len() == before && !matches!(resource, "cpu" | "memory") && !is_huge_pages(resource) {
        at.unsupported(out, resource, &["cpu", "memory"]);
    }
}

/// An amount: not negative, and whole if the resource is counted.
pub fn quantity(out: &mut Causes, resource: &str, value: &Value, at: &Path<'_>) {
    let Ok(amount) = Quantity::from_json(value) else {
        return;
    };
    if amount.is_negative() {
        at.invalid(out, value, "must be greater than or equal to 0");
    }
    if (COUNTED.contains(&resource) || is_extended(resource)) && !amount.is_integer() {
        at.invalid(out, value, "must be an integer");
    }
}

/// Why an amount of huge pages is none, if so.
fn huge_pages_detail(resource: &str, amount: Quantity) -> Option<String> {
    let size = resource.strip_prefix("hugepages-")?;
    let size = Quantity::from_json(&Value::String(size.to_owned())).ok();
    let fits = size.is_some_and(|size| {
        size.is_integer() && size.value() > 0 && amount.value() % size.value() == 0
    });
    (!fits).then(|| format!("{amount} is not positive integer multiple of {resource}"))
}

/// Whose resources these are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Container,
    Pod,
}

/// `limits`, `requests` and `claims`.
pub fn requirements(
    out: &mut Causes,
    pod_spec: &Value,
    resources: &Value,
    owner: Owner,
    at: &Path<'_>,
) {
    let amount = |list: &str, resource: &str| {
        resources
            .get(list)?
            .get(resource)
            .and_then(|v| Quantity::from_json(v).ok())
    };
    let (mut huge, mut basic) = (false, false);
    for list in ["limits", "requests"] {
        let list_at = at.field(list);
        for (resource, value) in fields(resources, list) {
            let item = list_at.key(resource);
            match owner {
                Owner::Container => container_resource_name(out, resource, &item),
                Owner::Pod => pod_resource_name(out, resource, &item),
            }
            quantity(out, resource, value, &item);
            huge |= is_huge_pages(resource);
            basic |= matches!(resource.as_str(), "cpu" | "memory");
            if list == "requests"
                && let Some(request) = amount("requests", resource)
            {
                let exact = !is_overcommittable(resource);
                match amount("limits", resource) {
                    Some(limit) if exact && request != limit => {
                        let detail = format!("must be equal to {resource} limit of {limit}");
                        list_at.invalid_text(out, &request.to_string(), &detail);
                    }
                    Some(limit) if request > limit => {
                        let detail =
                            format!("must be less than or equal to {resource} limit of {limit}");
                        list_at.invalid_text(out, &request.to_string(), &detail);
                    }
                    None if exact => at
                        .field("limits")
                        .required(out, "Limit must be set for non overcommitable resources"),
                    _ => {}
                }
            }
            if let Some(amount) = amount(list, resource)
                && let Some(detail) = huge_pages_detail(resource, amount)
            {
                item.invalid_text(out, &amount.to_string(), &detail);
            }
        }
    }
    if huge && !basic {
        at.forbidden(out, "HugePages require cpu or memory");
    }
    claims(out, pod_spec, resources, &at.field("claims"));
}

/// Names of the pod's claims that a container refers to.
fn claims(out: &mut Causes, pod_spec: &Value, resources: &Value, at: &Path<'_>) {
    let mut known: Vec<&str> = list(pod_spec, "resourceClaims")
        .iter()
        .map(|c| text(c, "name"))
        .filter(|n| !n.is_empty())
        .collect();
    known.sort_unstable();
    known.dedup();
    let mut seen: HashSet<String> = HashSet::new();
    for (i, claim) in items(resources, "claims") {
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        let at = at.index(i);
        if name.is_empty() {
            at.required(out, "");
            continue;
        }
        if seen.contains(name) {
            at.duplicate(out, name);
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                at.field("request")
                    .all_invalid(out, request, dns_label(request));
                key = format!("{name}/{request}");
            }
            let overlaps = request.is_empty()
                && seen
                    .iter()
                    .any(|k| k.split_once('/').is_some_and(|(of, _)| of == name));
            if seen.contains(&key) || overlaps {
                at.duplicate(out, &key);
            }
            seen.insert(key);
        }
        if !known.contains(&name) {
            let rest = if known.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", known.join(", "))
            };
            let message = format!(
                "Not found: {name:?}: must be one of the names in pod.spec.resourceClaims{rest}"
            );
            out.push(Cause::new("FieldValueNotFound", at.to_string(), message));
        }
    }
}

fn requests(container: &Value) -> impl Iterator<Item = (&String, Quantity)> {
    fields(&container["resources"], "requests")
        .filter_map(|(name, value)| Some((name, Quantity::from_json(value).ok()?)))
}

/// What all containers together request: those that run side by side are added up, and each step of starting must fit.
pub fn aggregate_requests(pod_spec: &Value) -> BTreeMap<String, Quantity> {
    fn add(sum: &mut BTreeMap<String, Quantity>, container: &Value) {
        for (name, amount) in requests(container) {
            let total = sum.get(name).map_or(amount, |before| before.plus(amount));
            sum.insert(name.clone(), total);
        }
    }
    let mut sum = BTreeMap::new();
    for container in list(pod_spec, "containers") {
        add(&mut sum, container);
    }
    let (mut sidecars, mut starting) = (BTreeMap::new(), BTreeMap::new());
    for container in list(pod_spec, "initContainers") {
        let mut step: BTreeMap<String, Quantity> = sidecars.clone();
        add(&mut step, container);
        if text(container, "restartPolicy") == "Always" {
            add(&mut sum, container);
            sidecars = step.clone();
        }
        for (name, amount) in step {
            let most: &mut Quantity = starting.entry(name).or_insert(amount);
            *most = (*most).max(amount);
        }
    }
    for (name, amount) in starting {
        let most: &mut Quantity = sum.entry(name).or_insert(amount);
        *most = (*most).max(amount);
    }
    sum
}

/// Resources of the pod as a whole: the containers' must fit into them.
pub fn pod_level(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let Some(resources) = some(spec, "resources") else {
        return;
    };
    if some(resources, "claims").is_some() {
        at.field("claims")
            .forbidden(out, "claims cannot be set for Resources at pod-level");
    }
    requirements(out, spec, resources, Owner::Pod, at);
    let requests_at = at.field("requests");
    let of = |list: &str, name: &str| {
        resources
            .get(list)
            .and_then(|l| l.get(name))
            .and_then(|v| Quantity::from_json(v).ok())
    };
    let supported = |name: &str| matches!(name, "cpu" | "memory") || is_huge_pages(name);
    for (name, sum) in aggregate_requests(spec) {
        if !supported(&name) {
            continue;
        }
        let whole = of("requests", &name).unwrap_or_else(|| Quantity::from_units(0));
        if sum > whole {
            let detail =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            requests_at
                .key(&name)
                .invalid_text(out, &whole.to_string(), &detail);
        }
    }
    for (i, container) in items(spec, "containers") {
        for (name, value) in fields(&container["resources"], "limits") {
            let (Ok(limit), Some(whole)) = (Quantity::from_json(value), of("limits", name)) else {
                continue;
            };
            if limit > whole {
                let at = at.field("containers");
                let at = at.index(i);
                let at = at.key(name);
                let detail = format!("must be less than or equal to pod limits of {whole}");
                at.field("limits")
                    .invalid_text(out, &limit.to_string(), &detail);
            }
        }
    }
}
