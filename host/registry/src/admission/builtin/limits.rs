//! LimitRanger: resources that containers leave open are filled in from the namespace's limit ranges, and what goes beyond them
//! is refused. Source: <https://kubernetes.io/docs/concepts/policy/limit-range/>

use std::collections::BTreeMap;

use async_trait::async_trait;
use oarlock_model::{ApiResult, Quantity, meta};
use serde_json::{Map, Value, json};

use super::{aggregate, all, forbidden, list, members, spec_mut};
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::{Registry, Target, strategy};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// From here on quantities are compared in units, below in thousandths.
const MAX_MILLI: i64 = i64::MAX / 1000;

pub(super) type Amounts = BTreeMap<String, Quantity>;

#[derive(Debug)]
pub(super) struct LimitRanger;

fn is_pod(target: &Target) -> bool {
    strategy::is(&target.row, "", "Pod")
}

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        let claim = || strategy::is(&target.row, "", "PersistentVolumeClaim");
        target.subresource.is_empty()
            && match operation {
                Operation::Create => is_pod(target) || claim(),
                // A pod's containers stay what they are.
                Operation::Update => claim(),
                _ => false,
            }
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let Some(pod) = request
            .object
            .as_deref_mut()
            .filter(|_| is_pod(request.target))
        else {
            return Ok(());
        };
        for range in ranges(registry, request.target) {
            fill(pod, &range);
        }
        Ok(())
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let Some(object) = request.object.as_deref() else {
            return Ok(());
        };
        if meta::is_terminating(object) {
            return Ok(());
        }
        for range in ranges(registry, request.target) {
            let errors = if is_pod(request.target) {
                of_pod(object, &range)
            } else {
                of_claim(object, &range)
            };
            if !errors.is_empty() {
                return Err(forbidden(request.target, object, &aggregate(&errors)));
            }
        }
        Ok(())
    }
}

fn ranges(registry: &Registry, target: &Target) -> Vec<Value> {
    all(registry, "", "limitranges", &target.namespace)
}

fn items<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    list(range, "/spec/limits")
        .iter()
        .filter(move |item| item["type"] == kind)
}

/// Defaults of one limit range into a pod's containers, and a note of what was filled in.
fn fill(pod: &mut Value, range: &Value) {
    let (mut limits, mut requests) = (Map::new(), Map::new());
    for item in items(range, "Container") {
        for (into, field) in [(&mut limits, "default"), (&mut requests, "defaultRequest")] {
            for (name, amount) in item[field].as_object().into_iter().flatten() {
                into.insert(name.clone(), amount.clone());
            }
        }
    }
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (field, what) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        let containers = spec_mut(pod).get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            let resources = meta::child_map_mut(meta::as_map_mut(container), "resources");
            for (defaults, part, word) in [
                (&requests, "requests", "request"),
                (&limits, "limits", "limit"),
            ] {
                let own = resources.get(part).and_then(Value::as_object);
                let mut missing: Vec<&String> = defaults
                    .keys()
                    .filter(|key| own.is_none_or(|own| !own.contains_key(*key)))
                    .collect();
                if missing.is_empty() {
                    continue;
                }
                missing.sort_unstable();
                let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
                notes.push(format!("{} {word} for {what} {name}", names.join(", ")));
                let into = meta::child_map_mut(resources, part);
                for key in missing {
                    into.insert(key.clone(), defaults[key].clone());
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        meta::child_map_mut(meta::metadata_mut(pod), "annotations")
            .insert(ANNOTATION.to_owned(), json!(text));
    }
}

pub(super) fn amounts(resources: &Value, pointer: &str) -> Amounts {
    members(resources, pointer)
        .into_iter()
        .filter_map(|(name, amount)| Some((name.to_owned(), Quantity::from_json(amount).ok()?)))
        .collect()
}

/// Sums of all containers; of init containers that end the greatest, where that is more.
pub(super) fn of_whole_pod(pod: &Value, part: &str) -> Amounts {
    let pointer = format!("/resources/{part}");
    let mut sum = Amounts::new();
    let add = |sum: &mut Amounts, more: &Amounts| {
        for (name, amount) in more {
            let total = sum.get(name).map_or(*amount, |before| before.plus(*amount));
            sum.insert(name.clone(), total);
        }
    };
    for container in list(pod, "/spec/containers") {
        add(&mut sum, &amounts(container, &pointer));
    }
    let (mut sidecars, mut greatest) = (Amounts::new(), Amounts::new());
    for container in list(pod, "/spec/initContainers") {
        let own = amounts(container, &pointer);
        let mut here = sidecars.clone();
        add(&mut here, &own);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &own);
            sidecars.clone_from(&here);
        }
        for (name, amount) in here {
            let most = greatest.get(&name).copied().unwrap_or(amount).max(amount);
            greatest.insert(name, most);
        }
    }
    for (name, amount) in greatest {
        let most = sum.get(&name).copied().unwrap_or(amount).max(amount);
        sum.insert(name, most);
    }
    // What the pod says of itself as a whole goes before what its containers add up to.
    sum.extend(amounts(pod, &format!("/spec/resources/{part}")));
    if part == "requests" || !sum.is_empty() {
        for (name, amount) in amounts(pod, "/spec/overhead") {
            match sum.get(&name) {
                Some(before) => {
                    let total = before.plus(amount);
                    sum.insert(name, total);
                }
                None if part == "requests" => {
                    sum.insert(name, amount);
                }
                None => {}
            }
        }
    }
    sum
}

fn of_pod(pod: &Value, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for item in list(range, "/spec/limits") {
        match item["type"].as_str() {
            Some("Container") => {
                let containers = list(pod, "/spec/containers")
                    .iter()
                    .chain(list(pod, "/spec/initContainers"));
                for container in containers {
                    let requests = amounts(container, "/resources/requests");
                    let limits = amounts(container, "/resources/limits");
                    constrain(&mut errors, "Container", item, &requests, &limits);
                }
            }
            Some("Pod") => {
                let (requests, limits) =
                    (of_whole_pod(pod, "requests"), of_whole_pod(pod, "limits"));
                constrain(&mut errors, "Pod", item, &requests, &limits);
            }
            _ => {}
        }
    }
    errors
}

fn constrain(
    errors: &mut Vec<String>,
    kind: &str,
    item: &Value,
    requests: &Amounts,
    limits: &Amounts,
) {
    let both = |name: &str| (requests.get(name).copied(), limits.get(name).copied());
    for (name, bound) in amounts(item, "/min") {
        let (request, limit) = both(&name);
        let unit = Unit::of(&[request, limit, Some(bound)]);
        let head = format!("minimum {name} usage per {kind} is {bound}");
        match (request, limit) {
            (None, _) => errors.push(format!("{head}.  No request is specified")),
            (Some(r), _) if unit.value(r) < unit.value(bound) => {
                errors.push(format!("{head}, but request is {r}"));
            }
            (_, Some(l)) if unit.value(l) < unit.value(bound) => {
                errors.push(format!("{head}, but limit is {l}"));
            }
            _ => {}
        }
    }
    for (name, bound) in amounts(item, "/max") {
        let (request, limit) = both(&name);
        let unit = Unit::of(&[request, limit, Some(bound)]);
        let head = format!("maximum {name} usage per {kind} is {bound}");
        match (limit, request) {
            (None, _) => errors.push(format!("{head}.  No limit is specified")),
            (Some(l), _) if unit.value(l) > unit.value(bound) => {
                errors.push(format!("{head}, but limit is {l}"));
            }
            (_, Some(r)) if unit.value(r) > unit.value(bound) => {
                errors.push(format!("{head}, but request is {r}"));
            }
            _ => {}
        }
    }
    for (name, bound) in amounts(item, "/maxLimitRequestRatio") {
        let (request, limit) = both(&name);
        let unit = Unit::of(&[request, limit, Some(bound)]);
        let head = format!("{name} max limit to request ratio per {kind} is {bound}");
        let value = |amount: Option<Quantity>| amount.map_or(0, |a| unit.value(a));
        match (value(request), value(limit)) {
            (0, _) => errors.push(format!(
                "{head}, but no request is specified or request is 0"
            )),
            (_, 0) => errors.push(format!("{head}, but no limit is specified or limit is 0")),
            (r, l) => {
                #[expect(clippy::cast_precision_loss, reason = "a ratio, told with six digits")]
                let (ratio, most) = (l as f64 / r as f64, bound.milli_value() as f64 / 1000.0);
                if ratio > most {
                    errors.push(format!("{head}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

/// What quantities are compared in: thousandths, unless one of them is too great for that.
#[derive(Clone, Copy)]
enum Unit {
    Milli,
    One,
}

impl Unit {
    fn of(all: &[Option<Quantity>]) -> Self {
        if all.iter().flatten().all(|q| q.value() <= MAX_MILLI) {
            Self::Milli
        } else {
            Self::One
        }
    }

    fn value(self, quantity: Quantity) -> i64 {
        match self {
            Self::Milli => quantity.milli_value(),
            Self::One => quantity.value(),
        }
    }
}

fn of_claim(claim: &Value, range: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = amounts(claim, "/spec/resources/requests");
    let mut errors = Vec::new();
    for item in items(range, KIND) {
        for (field, word, beyond) in [
            ("/min", "minimum", std::cmp::Ordering::Less),
            ("/max", "maximum", std::cmp::Ordering::Greater),
        ] {
            for (name, bound) in amounts(item, field) {
                let head = format!("{word} {name} usage per {KIND} is {bound}");
                match requests.get(&name) {
                    None => errors.push(format!("{head}.  No request is specified")),
                    Some(request) if request.cmp(&bound) == beyond => {
                        errors.push(format!("{head}, but request is {request}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limits: Value) -> Value {
        json!({"spec": {"limits": limits}})
    }

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn what_is_filled_in_is_noted() {
        let mut object = pod(json!({"limits": {"cpu": "1"}}));
        let range = range(
            json!([{"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "1m"}}]),
        );
        fill(&mut object, &range);
        assert_eq!(
            object["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}})
        );
        assert_eq!(
            meta::annotation(&object, ANNOTATION),
            Some(
                "LimitRanger plugin set: cpu request for container c; memory limit for container c"
            )
        );
    }

    #[test]
    fn what_goes_beyond_is_told() {
        let told = |limits: Value, resources: Value| of_pod(&pod(resources), &range(limits));
        assert_eq!(
            told(
                json!([{"type": "Container", "min": {"memory": "100Mi"}}]),
                json!({"requests": {"memory": "20Mi"}})
            ),
            ["minimum memory usage per Container is 100Mi, but request is 20Mi"]
        );
        assert_eq!(
            told(
                json!([{"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "50m"}}]),
                json!({})
            ),
            [
                "minimum cpu usage per Pod is 50m.  No request is specified",
                "maximum cpu usage per Pod is 2.  No limit is specified",
            ]
        );
        assert_eq!(
            told(
                json!([{"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}]),
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "900m"}})
            ),
            ["cpu max limit to request ratio per Container is 2, but provided ratio is 9.000000"]
        );
    }

    #[test]
    fn init_containers_count_by_the_greatest() {
        let pod = json!({"spec": {
            "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "2"}}}],
            "initContainers": [
                {"resources": {"requests": {"cpu": "1"}}, "restartPolicy": "Always"},
                {"resources": {"requests": {"cpu": "7", "memory": "1"}}}],
        }});
        let sum = of_whole_pod(&pod, "requests");
        assert_eq!((sum["cpu"].value(), sum["memory"].value()), (8, 1));
    }
}
