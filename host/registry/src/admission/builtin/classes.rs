//! Classes: the default one where none is named, and what a runtime class does to its pods.

use async_trait::async_trait;
use oarlock_model::{ApiResult, meta};
use serde_json::{Value, json};

use super::{all, creates, forbidden, list, members, one, spec_mut, spec_text};
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::{Registry, Target, strategy};

/// Of the classes that are marked as default the newest; of several of one age the first by name.
fn default_class(classes: Vec<Value>, marks: &[&str]) -> Option<String> {
    let mut defaults: Vec<Value> = classes
        .into_iter()
        .filter(|class| {
            marks
                .iter()
                .any(|mark| meta::annotation(class, mark) == Some("true"))
        })
        .collect();
    let created = |class: &Value| class["metadata"]["creationTimestamp"].to_string();
    defaults.sort_by(|a, b| {
        created(b)
            .cmp(&created(a))
            .then_with(|| meta::name(a).cmp(meta::name(b)))
    });
    defaults.first().map(|class| meta::name(class).to_owned())
}

#[derive(Debug)]
pub(super) struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        creates(target, operation, "PersistentVolumeClaim")
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let Some(claim) = request.object.as_deref_mut() else {
            return Ok(());
        };
        // An empty name asks for no class, and is a name.
        let named = claim.pointer("/spec/storageClassName").is_some()
            || meta::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
        if named {
            return Ok(());
        }
        const MARKS: [&str; 2] = [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ];
        let classes = all(registry, "storage.k8s.io", "storageclasses", "");
        if let Some(name) = default_class(classes, &MARKS) {
            spec_mut(claim).insert("storageClassName".to_owned(), json!(name));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(super) struct DefaultIngressClass;

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        operation == Operation::Create
            && target.subresource.is_empty()
            && strategy::is(&target.row, "networking.k8s.io", "Ingress")
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let Some(ingress) = request.object.as_deref_mut() else {
            return Ok(());
        };
        let named = ingress.pointer("/spec/ingressClassName").is_some()
            || meta::annotation(ingress, "kubernetes.io/ingress.class").is_some();
        if named {
            return Ok(());
        }
        let classes = all(registry, "networking.k8s.io", "ingressclasses", "");
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(name) = default_class(classes, &marks) {
            spec_mut(ingress).insert("ingressClassName".to_owned(), json!(name));
        }
        Ok(())
    }
}

/// A pod takes on the overhead, the node selector and the tolerations of its runtime class.
#[derive(Debug)]
pub(super) struct RuntimeClass;

fn class_of(registry: &Registry, target: &Target, pod: &Value) -> ApiResult<Option<Value>> {
    let name = spec_text(pod, "runtimeClassName");
    if name.is_empty() {
        return Ok(None);
    }
    match one(registry, "node.k8s.io", "runtimeclasses", "", name) {
        Some(class) => Ok(Some(class)),
        None => {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            Err(forbidden(target, pod, &why))
        }
    }
}

const OTHER_OVERHEAD: &str =
    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const FOREIGN_OVERHEAD: &str =
    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        creates(target, operation, "Pod")
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let target = request.target;
        let Some(pod) = request.object.as_deref_mut() else {
            return Ok(());
        };
        let Some(class) = class_of(registry, target, pod)? else {
            return Ok(());
        };
        if let Some(overhead) = class.pointer("/overhead/podFixed") {
            if pod.pointer("/spec/overhead").is_some_and(|o| o != overhead) {
                return Err(forbidden(target, pod, OTHER_OVERHEAD));
            }
            spec_mut(pod).insert("overhead".to_owned(), overhead.clone());
        }
        for (key, value) in members(&class, "/scheduling/nodeSelector") {
            let own = pod
                .get("spec")
                .and_then(|spec| spec.get("nodeSelector"))
                .and_then(|selector| selector.get(key));
            if let Some(own) = own.filter(|own| *own != value) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (theirs, own) = (text(value), text(own));
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {theirs}; pod.spec.nodeSelector[{key}] = {own}"
                );
                return Err(forbidden(target, pod, &why));
            }
            meta::child_map_mut(spec_mut(pod), "nodeSelector")
                .insert(key.to_owned(), value.clone());
        }
        let more = list(&class, "/scheduling/tolerations");
        if !more.is_empty() {
            let merged = merge_tolerations(list(pod, "/spec/tolerations"), more);
            spec_mut(pod).insert("tolerations".to_owned(), Value::Array(merged));
        }
        Ok(())
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let Some(pod) = request.object.as_deref() else {
            return Ok(());
        };
        let overhead = pod.pointer("/spec/overhead");
        if overhead.is_none() && spec_text(pod, "runtimeClassName").is_empty() {
            return Ok(());
        }
        let class = class_of(registry, request.target, pod)?;
        let of_class = class.as_ref().and_then(|c| c.pointer("/overhead/podFixed"));
        let refuse = |why| Err(forbidden(request.target, pod, why));
        match of_class {
            Some(of_class) if overhead != Some(of_class) => refuse(OTHER_OVERHEAD),
            None if overhead.is_some() => refuse(FOREIGN_OVERHEAD),
            _ => Ok(()),
        }
    }
}

/// Both lists, without what another one of them covers.
fn merge_tolerations(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        let by_earlier = merged.iter().any(|other| covers(other, toleration));
        let by_later = all[at + 1..]
            .iter()
            .any(|other| other != toleration && covers(other, toleration));
        if !by_earlier && !by_later {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether `wide` tolerates whatever `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let text =
        |toleration: &Value, field: &str| toleration[field].as_str().unwrap_or_default().to_owned();
    let of_all = text(wide, "key").is_empty() && text(wide, "operator") == "Exists";
    if text(wide, "key") != text(narrow, "key") && !of_all {
        return false;
    }
    let effect = text(wide, "effect");
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"]
            .as_i64()
            .is_none_or(|s| s > most)
    {
        return false;
    }
    match text(wide, "operator").as_str() {
        "Exists" => true,
        "" | "Equal" => {
            matches!(text(narrow, "operator").as_str(), "" | "Equal")
                && text(wide, "value") == text(narrow, "value")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_toleration_takes_the_place_of_a_narrower_one() {
        let narrow = json!({"key": "a", "value": "b", "effect": "NoSchedule"});
        let wide = json!({"key": "a", "operator": "Exists"});
        let other = json!({"key": "c", "operator": "Exists"});
        let merged = merge_tolerations(
            &[narrow.clone(), other.clone()],
            &[wide.clone(), other.clone()],
        );
        assert_eq!(merged, [other, wide.clone()]);
        assert!(covers(&wide, &narrow) && !covers(&narrow, &wide));
    }

    #[test]
    fn the_newest_default_class_counts() {
        let class = |name: &str, at: &str, mark: &str| json!({"metadata": {"name": name, "creationTimestamp": at, "annotations": {"d": mark}}});
        let classes = vec![
            class("a", "2026-01-01T00:00:00Z", "true"),
            class("c", "2026-01-02T00:00:00Z", "true"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("n", "2026-01-03T00:00:00Z", "false"),
        ];
        assert_eq!(default_class(classes, &["d"]).as_deref(), Some("b"));
        assert_eq!(default_class(Vec::new(), &["d"]), None);
    }
}
