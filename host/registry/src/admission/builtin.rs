//! The plugins that every cluster runs, in upstream's order.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/>

mod classes;
mod limits;
mod node_restriction;
mod pod_security;
mod quota;
mod storage;

use std::sync::Arc;

use async_trait::async_trait;
use oarlock_model::{ApiError, ApiResult, Cause, meta};
use oarlock_store::RangeQuery;
use serde_json::{Value, json};

use super::{Admission, AdmissionRequest, Operation};
use crate::codec::stored_record;
use crate::{Registry, Target, keys, metadata, scan, strategy};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const DEFAULT_TOLERATION_SECONDS: i64 = 300;
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a bit: a token is renewed before it is needed.
const TOKEN_SECONDS: i64 = 3607;
/// On a pod that shows a file of its node.
const MIRROR: &str = "kubernetes.io/config.mirror";
const PREEMPT: &str = "PreemptLowerPriority";

pub fn plugins() -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(limits::LimitRanger),
        Arc::new(ServiceAccount),
        Arc::new(node_restriction::NodeRestriction),
        Arc::new(TaintNodesByCondition),
        Arc::new(pod_security::PodSecurity),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(classes::DefaultStorageClass),
        Arc::new(storage::InUseProtection),
        Arc::new(storage::ClaimResize),
        Arc::new(classes::RuntimeClass),
        Arc::new(classes::DefaultIngressClass),
    ]
}

/// What comes after everybody else has had a say: nothing may change an object that has been counted.
pub fn last() -> Arc<dyn Admission> {
    Arc::new(quota::ResourceQuota)
}

/// All objects of a kind in a namespace (empty: of a cluster-scoped kind), as trees, by name. Costs one descent of the store
/// when there are none.
fn all(registry: &Registry, group: &str, resource: &str, namespace: &str) -> Vec<Value> {
    let Some(row) = registry.row(group, resource) else {
        return Vec::new();
    };
    let query = RangeQuery {
        prefix: keys::prefix(&row, namespace),
        ..RangeQuery::default()
    };
    let Ok(page) = registry.store().range(&query) else {
        return Vec::new();
    };
    page.records
        .iter()
        .filter_map(|record| serde_json::from_slice(&stored_record(record).json).ok())
        .collect()
}

/// One object, as a tree.
fn one(
    registry: &Registry,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Option<Value> {
    let row = registry.row(group, resource)?;
    let record = registry.store().get(&keys::key(&row, namespace, name))?;
    serde_json::from_slice(&stored_record(&record).json).ok()
}

/// The items of a list at a pointer; none if there is no list.
fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
}

/// The members of a map at a pointer, in the order of their names.
fn members<'a>(object: &'a Value, pointer: &str) -> Vec<(&'a str, &'a Value)> {
    let mut all: Vec<(&str, &Value)> = object
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}

/// Several errors as one text: `a`, or `[a, b]`.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

fn creates(target: &Target, operation: Operation, kind: &str) -> bool {
    operation == Operation::Create
        && target.subresource.is_empty()
        && strategy::is(&target.row, "", kind)
}

fn forbidden(target: &Target, object: &Value, why: &str) -> ApiError {
    ApiError::forbidden(
        &target.row.group,
        &target.row.resource,
        meta::name(object),
        why,
    )
}

fn spec_text<'a>(pod: &'a Value, field: &str) -> &'a str {
    pod.get("spec")
        .and_then(|spec| spec.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn spec_mut(pod: &mut Value) -> &mut serde_json::Map<String, Value> {
    meta::child_map_mut(meta::as_map_mut(pod), "spec")
}

/// Nothing is made in a namespace that is not there or on its way out.
#[derive(Debug)]
struct NamespaceLifecycle;

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        operation == Operation::Create && target.row.namespaced && target.row.stored
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let (target, namespace) = (request.target, request.target.namespace.as_str());
        let missing = || ApiError::not_found("", "namespaces", namespace);
        let row = registry.row("", "namespaces").ok_or_else(missing)?;
        let record = registry
            .store()
            .get(&keys::key(&row, "", namespace))
            .ok_or_else(missing)?;
        if scan::text(&stored_record(&record).json, &["status", "phase"]) != "Terminating" {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut error =
            ApiError::forbidden(&target.row.group, &target.row.resource, &target.name, &why);
        error.causes.push(Cause::new(
            "NamespaceTerminating",
            "metadata.namespace",
            format!("namespace {namespace} is being terminated"),
        ));
        Err(error)
    }
}

/// A pod runs as a service account that is there, and finds its token mounted.
#[derive(Debug)]
struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
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
        if meta::annotation(pod, MIRROR).is_some() {
            return match node_restriction::credentials_of_mirror(pod) {
                None => Ok(()),
                Some(why) => Err(forbidden(target, pod, why)),
            };
        }
        let mut account = spec_text(pod, "serviceAccountName").to_owned();
        if account.is_empty() {
            "default".clone_into(&mut account);
        }
        let namespace = &target.namespace;
        let record = registry
            .row("", "serviceaccounts")
            .and_then(|row| registry.store().get(&keys::key(&row, namespace, &account)))
            .ok_or_else(|| {
                let why = format!(
                    "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
                );
                forbidden(target, pod, &why)
            })?;
        let json = stored_record(&record).json;
        let spec = spec_mut(pod);
        spec.insert("serviceAccountName".to_owned(), json!(account));
        spec.insert("serviceAccount".to_owned(), json!(account));
        let own_secrets = spec
            .get("imagePullSecrets")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty());
        if let (false, Some(secrets)) = (own_secrets, scan::at(&json, &["imagePullSecrets"]))
            && let Ok(secrets) = serde_json::from_slice::<Value>(secrets)
        {
            spec.insert("imagePullSecrets".to_owned(), secrets);
        }
        let of_account = scan::text(&json, &["automountServiceAccountToken"]) != "false";
        if spec
            .get("automountServiceAccountToken")
            .and_then(Value::as_bool)
            .unwrap_or(of_account)
        {
            mount_token(spec);
        }
        Ok(())
    }
}

fn mount_token(spec: &mut serde_json::Map<String, Value>) {
    let name = format!("kube-api-access-{}", metadata::random_suffix());
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        for container in spec
            .get_mut(field)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let mounts = meta::as_map_mut(container)
                .entry("volumeMounts")
                .or_insert_with(|| json!([]));
            let Value::Array(mounts) = mounts else {
                continue;
            };
            if mounts
                .iter()
                .any(|m| m.get("mountPath").and_then(Value::as_str) == Some(TOKEN_PATH))
            {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            mounted = true;
        }
    }
    if !mounted {
        return;
    }
    let volume = json!({"name": name, "projected": {"sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ], "defaultMode": 420}});
    if let Value::Array(volumes) = spec.entry("volumes").or_insert_with(|| json!([])) {
        volumes.push(volume);
    }
}

/// A new node takes no pods until something has seen it ready.
#[derive(Debug)]
struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        creates(target, operation, "Node")
    }

    async fn mutate(
        &self,
        _registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let Some(node) = request.object.as_deref_mut() else {
            return Ok(());
        };
        if let Value::Array(taints) = spec_mut(node).entry("taints").or_insert_with(|| json!([])) {
            let there = taints.iter().any(|t| {
                t.get("key").and_then(Value::as_str) == Some(NOT_READY)
                    && t.get("effect").and_then(Value::as_str) == Some("NoSchedule")
            });
            if !there {
                taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(())
    }
}

/// `priorityClassName` into `priority` and `preemptionPolicy`.
#[derive(Debug)]
struct Priority;

struct Class {
    name: String,
    value: i64,
    policy: String,
}

impl Priority {
    fn class(json: &[u8], name: &str) -> Class {
        let policy = scan::text(json, &["preemptionPolicy"]);
        Class {
            name: name.to_owned(),
            value: scan::text(json, &["value"]).parse().unwrap_or(0),
            policy: if policy.is_empty() {
                PREEMPT.to_owned()
            } else {
                policy.into_owned()
            },
        }
    }

    fn named(registry: &Registry, name: &str) -> Option<Class> {
        let row = registry.row("scheduling.k8s.io", "priorityclasses")?;
        let record = registry.store().get(&keys::key(&row, "", name))?;
        Some(Self::class(&stored_record(&record).json, name))
    }

    /// Of the classes that are global defaults, the lowest.
    fn default(registry: &Registry) -> Class {
        let none = || Class {
            name: String::new(),
            value: 0,
            policy: PREEMPT.to_owned(),
        };
        let Some(row) = registry.row("scheduling.k8s.io", "priorityclasses") else {
            return none();
        };
        let query = RangeQuery {
            prefix: keys::prefix(&row, ""),
            ..RangeQuery::default()
        };
        let Ok(page) = registry.store().range(&query) else {
            return none();
        };
        page.records
            .iter()
            .map(|record| {
                (
                    keys::split(&row, &record.key).1.to_owned(),
                    stored_record(record).json,
                )
            })
            .filter(|(_, json)| scan::text(json, &["globalDefault"]) == "true")
            .map(|(name, json)| Self::class(&json, &name))
            .min_by_key(|class| class.value)
            .unwrap_or_else(none)
    }
}

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
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
        let name = spec_text(pod, "priorityClassName").to_owned();
        let class = if name.is_empty() {
            Self::default(registry)
        } else {
            Self::named(registry, &name).ok_or_else(|| {
                forbidden(
                    target,
                    pod,
                    &format!("no PriorityClass with name {name} was found"),
                )
            })?
        };
        let given = pod.pointer("/spec/priority").and_then(Value::as_i64);
        if let Some(given) = given.filter(|given| *given != class.value) {
            let computed = class.value;
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {computed} from the given PriorityClass name"
            );
            return Err(forbidden(target, pod, &why));
        }
        let policy = spec_text(pod, "preemptionPolicy");
        if !policy.is_empty() && policy != class.policy {
            let why = format!(
                "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission \
                 controller computed {} from the given PriorityClass name",
                class.policy
            );
            return Err(forbidden(target, pod, &why));
        }
        let spec = spec_mut(pod);
        if !class.name.is_empty() {
            spec.insert("priorityClassName".to_owned(), json!(class.name));
        }
        spec.insert("priority".to_owned(), json!(class.value));
        spec.insert("preemptionPolicy".to_owned(), json!(class.policy));
        Ok(())
    }
}

/// Pods stay on a node that is lost for five minutes, unless they say otherwise.
#[derive(Debug)]
struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && target.subresource.is_empty()
            && strategy::is(&target.row, "", "Pod")
    }

    async fn mutate(
        &self,
        _registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let Some(pod) = request.object.as_deref_mut() else {
            return Ok(());
        };
        let Value::Array(tolerations) = spec_mut(pod)
            .entry("tolerations")
            .or_insert_with(|| json!([]))
        else {
            return Ok(());
        };
        let text = |toleration: &Value, field: &str| {
            toleration
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        for taint in [NOT_READY, UNREACHABLE] {
            let tolerated = tolerations.iter().any(|toleration| {
                let (key, effect) = (text(toleration, "key"), text(toleration, "effect"));
                (key == taint || key.is_empty()) && matches!(effect.as_str(), "" | "NoExecute")
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": DEFAULT_TOLERATION_SECONDS,
                }));
            }
        }
        Ok(())
    }
}
