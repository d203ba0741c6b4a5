//! Which families of addresses a Service has: what it asks for, what it had, and what this cluster serves (IPv4 alone).
//! Runs before addresses are handed out; what is wrong here hides everything else that may be wrong with the Service.

use oarlock_kinds::service_addresses;
use oarlock_model::{Cause, meta};
use serde_json::{Map, Value, json};

const SERVED: &str = "IPv4";
const SINGLE: &str = "SingleStack";

type Spec = Map<String, Value>;

fn text<'a>(spec: &'a Spec, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts<'a>(spec: &'a Spec, field: &str) -> Vec<&'a str> {
    let list = spec.get(field).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn policy_cause(spec: &Spec, detail: &str) -> Cause {
    let policy = spec.get("ipFamilyPolicy").unwrap_or(&Value::Null);
    Cause::invalid("spec.ipFamilyPolicy", policy, detail)
}

/// The policy that holds if the caller names none.
fn default_policy(old: Option<&Spec>, headless: bool) -> Value {
    if let Some(before) = old.and_then(|o| o.get("ipFamilyPolicy")) {
        return before.clone();
    }
    json!(if headless { "RequireDualStack" } else { SINGLE })
}

/// Cuts a list that the update left alone, or says that it may not be cut.
fn release_second(spec: &mut Spec, old: &Spec, causes: &mut Vec<Cause>) {
    let single = text(spec, "ipFamilyPolicy") == SINGLE;
    for (field, noun) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (now, before) = (texts(spec, field).len(), texts(old, field).len());
        if single {
            if spec.get(field) == old.get(field)
                && let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut)
            {
                list.truncate(1);
            }
        } else if before == 2 && now == 1 && texts(spec, field)[0] == texts(old, field)[0] {
            let detail = format!("must be 'SingleStack' to release the secondary {noun}");
            causes.push(policy_cause(spec, &detail));
        }
    }
}

/// A Service that wants both families where they can be had, and whose lists are as they were, stays as it is.
fn keeps_what_it_has(spec: &Spec, old: Option<&Spec>) -> bool {
    let Some(old) = old else { return false };
    let prefers = |spec: &Spec| text(spec, "ipFamilyPolicy") == "PreferDualStack";
    prefers(spec)
        && prefers(old)
        && ["clusterIPs", "ipFamilies"]
            .iter()
            .all(|field| spec.get(*field) == old.get(*field))
}

/// Fills in `ipFamilyPolicy` and `ipFamilies`.
pub fn fill_in(object: &mut Value, old: Option<&Value>) -> Result<(), Vec<Cause>> {
    let old = old.and_then(|o| o.get("spec")).and_then(Value::as_object);
    let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
    if text(spec, "type") == "ExternalName" || keeps_what_it_has(spec, old) {
        return Ok(());
    }
    let no_selector = spec
        .get("selector")
        .and_then(Value::as_object)
        .is_none_or(Map::is_empty);
    let open = text(spec, "clusterIP") == "None" && no_selector;
    if spec.get("ipFamilyPolicy").is_none_or(Value::is_null) {
        let policy = default_policy(old, open);
        spec.insert("ipFamilyPolicy".to_owned(), policy);
    }
    let mut causes = service_addresses(&Value::Object(spec.clone()));
    if !causes.is_empty() {
        return Err(causes);
    }
    if let Some(old) = old {
        release_second(spec, old, &mut causes);
    }
    if text(spec, "ipFamilyPolicy") == SINGLE {
        for (field, noun) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if texts(spec, field).len() == 2 {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {noun} are specified"
                );
                causes.push(policy_cause(spec, &detail));
            }
        }
    }
    let mut families: Vec<String> = texts(spec, "ipFamilies")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let addresses = spec.get("clusterIPs").cloned().unwrap_or(Value::Null);
    for (i, ip) in texts(spec, "clusterIPs").into_iter().enumerate() {
        if ip == "None" {
            break;
        }
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        if i >= families.len() {
            if family == SERVED {
                families.push(family.to_owned());
            } else {
                causes.push(Cause::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    &addresses,
                    &format!("{family} is not configured on this cluster"),
                ));
            }
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    if open {
        if families.is_empty() {
            families.push(SERVED.to_owned());
        }
        if families.len() < 2 && text(spec, "ipFamilyPolicy") != SINGLE {
            let other = if families[0] == "IPv4" {
                "IPv6"
            } else {
                "IPv4"
            };
            families.push(other.to_owned());
        }
        spec.insert("ipFamilies".to_owned(), json!(families));
        return Ok(());
    }
    if text(spec, "ipFamilyPolicy") == "RequireDualStack" {
        causes.push(policy_cause(
            spec,
            "this cluster is not configured for dual-stack services",
        ));
    }
    for (i, family) in families.iter().enumerate().filter(|(_, f)| *f != SERVED) {
        causes.push(Cause::invalid(
            format!("spec.ipFamilies[{i}]"),
            &json!(family),
            "not configured on this cluster",
        ));
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    if families.is_empty() {
        families.push(SERVED.to_owned());
    }
    spec.insert("ipFamilies".to_owned(), json!(families));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(spec: Value) -> Result<Value, String> {
        let mut object = json!({ "spec": spec });
        fill_in(&mut object, None)
            .map(|()| object["spec"].take())
            .map_err(|causes| format!("{}: {}", causes[0].field, causes[0].message))
    }

    #[test]
    fn families_follow_from_what_is_asked() {
        let spec = filled(json!({"type": "ClusterIP"})).expect("fine");
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(spec["ipFamilyPolicy"], SINGLE);
        let headless = json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]});
        let spec = filled(headless).expect("fine");
        assert_eq!(spec["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(
            filled(json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]})),
            Err(
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
                    .to_owned()
            )
        );
        assert_eq!(
            filled(json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"})),
            Err("spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services".to_owned())
        );
    }
}
