//! Deployments, replica sets, stateful sets, daemon sets, replication controllers, pod templates.

use oarlock_model::{Cause, LabelSelector, meta};
use serde_json::Value;

use super::metadata::{is_empty_selector, label_selector, meta_of, shown_labels, template_meta};
use super::names::{BAD_PERCENT, percent};
use super::path::{Causes, Path, items, some, text};
use super::pod_spec::pod_spec;
use super::storage::claim_spec;

/// A template's metadata and pod spec. An update that left the template alone does not pay for it again.
pub fn template(out: &mut Causes, template: &Value, at: &Path<'_>, old: Option<&Value>) {
    if old.is_some_and(|old| old == template) {
        return;
    }
    template_meta(out, template, at);
    pod_spec(out, &template["spec"], &at.field("spec"));
    if !super::path::list(&template["spec"], "ephemeralContainers").is_empty() {
        at.field("spec")
            .field("ephemeralContainers")
            .forbidden(out, "ephemeral containers not allowed in pod template");
    }
}

/// The selector must be there, well-formed, not empty, and match the template.
fn selector(out: &mut Causes, spec: &Value, at: &Path<'_>, noun: &str) {
    let selector_at = at.field("selector");
    match some(spec, "selector") {
        None => selector_at.required(out, ""),
        Some(selector) => {
            label_selector(out, Some(selector), &selector_at);
            if is_empty_selector(selector) {
                selector_at.invalid(
                    out,
                    selector,
                    &format!("empty selector is invalid for {noun}"),
                );
            }
        }
    }
}

fn selector_matches(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let Some(selector) = some(spec, "selector").filter(|s| !is_empty_selector(s)) else {
        return;
    };
    if let Ok(parsed) = LabelSelector::from_object(selector)
        && !parsed.matches(meta::labels(&spec["template"]))
    {
        let labels = shown_labels(&spec["template"]);
        let at = at.field("template");
        at.field("metadata").field("labels").invalid(
            out,
            &labels,
            "`selector` does not match template `labels`",
        );
    }
}

fn always_restarts(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let at = at.field("template");
    let at = at.field("spec");
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    if policy != "Always" && !policy.is_empty() {
        at.field("restartPolicy")
            .unsupported(out, policy, &["Always"]);
    }
    if some(&spec["template"]["spec"], "activeDeadlineSeconds").is_some() {
        at.field("activeDeadlineSeconds").forbidden(
            out,
            "activeDeadlineSeconds in pod template is not supported",
        );
    }
}

/// What all kinds with `selector` and `template` have in common.
fn pods_of(out: &mut Causes, spec: &Value, at: &Path<'_>, old: Option<&Value>) {
    selector_matches(out, spec, at);
    template(
        out,
        &spec["template"],
        &at.field("template"),
        old.map(|o| &o["spec"]["template"]),
    );
    always_restarts(out, spec, at);
}

fn same_selector(out: &mut Causes, new: &Value, old: Option<&Value>) {
    if let Some(old) = old {
        let at = Path::new("spec");
        at.field("selector").same(
            out,
            new["spec"].get("selector"),
            old["spec"].get("selector"),
        );
    }
}

/// A number or percentage that is not negative. Returns its value (percentages count as such).
fn int_or_percent(out: &mut Causes, value: Option<&Value>, at: &Path<'_>) -> i64 {
    match value {
        Some(Value::String(text)) => match percent(text) {
            Some(percent) => percent,
            None => {
                at.invalid_text(out, text, BAD_PERCENT);
                1
            }
        },
        Some(number) => {
            at.not_negative(out, Some(number));
            number.as_i64().unwrap_or(0)
        }
        None => 0,
    }
}

fn at_most_all(out: &mut Causes, value: Option<&Value>, at: &Path<'_>) {
    if let Some(Value::String(text)) = value
        && percent(text).is_some_and(|p| p > 100)
    {
        at.invalid_text(out, text, "must not be greater than 100%");
    }
}

pub fn deployment(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "apps", "Deployment");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    at.field("replicas")
        .not_negative(&mut out, spec.get("replicas"));
    selector(&mut out, spec, &at, "deployment");
    pods_of(&mut out, spec, &at, old);
    strategy(&mut out, &spec["strategy"], &at.field("strategy"));
    at.field("minReadySeconds")
        .not_negative(&mut out, spec.get("minReadySeconds"));
    at.field("revisionHistoryLimit")
        .not_negative(&mut out, spec.get("revisionHistoryLimit"));
    if let Some(seconds) = some(spec, "progressDeadlineSeconds") {
        let at = at.field("progressDeadlineSeconds");
        at.not_negative(&mut out, Some(seconds));
        let least = spec
            .get("minReadySeconds")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if seconds.as_i64().is_some_and(|s| s <= least) {
            at.invalid(&mut out, seconds, "must be greater than minReadySeconds");
        }
    }
    same_selector(&mut out, new, old);
    out
}

/// True if an update left the spec alone: it was checked when it was made.
pub fn unchanged(new: &Value, old: Option<&Value>) -> bool {
    old.is_some_and(|old| old.get("spec") == new.get("spec"))
}

fn strategy(out: &mut Causes, strategy: &Value, at: &Path<'_>) {
    let rolling_at = at.field("rollingUpdate");
    let rolling = some(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "Recreate" => {
            if rolling.is_some() {
                rolling_at.forbidden(
                    out,
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        "RollingUpdate" => match rolling {
            None => rolling_at.required(out, "this should be defaulted and never be nil"),
            Some(rolling) => {
                let down_at = rolling_at.field("maxUnavailable");
                let down = int_or_percent(out, rolling.get("maxUnavailable"), &down_at);
                let up =
                    int_or_percent(out, rolling.get("maxSurge"), &rolling_at.field("maxSurge"));
                if down == 0 && up == 0 {
                    let value = rolling.get("maxUnavailable").unwrap_or(&Value::Null);
                    down_at.invalid(out, value, "may not be 0 when `maxSurge` is 0");
                }
                at_most_all(out, rolling.get("maxUnavailable"), &down_at);
            }
        },
        "" => at.field("type").required(out, ""),
        other => at
            .field("type")
            .unsupported(out, other, &["Recreate", "RollingUpdate"]),
    }
}

pub fn replica_set(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "apps", "ReplicaSet");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    at.field("replicas")
        .not_negative(&mut out, spec.get("replicas"));
    at.field("minReadySeconds")
        .not_negative(&mut out, spec.get("minReadySeconds"));
    selector(&mut out, spec, &at, "deployment");
    pods_of(&mut out, spec, &at, old);
    same_selector(&mut out, new, old);
    out
}

pub fn replication_controller(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "ReplicationController");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    at.field("minReadySeconds")
        .not_negative(&mut out, spec.get("minReadySeconds"));
    let wanted = spec
        .get("selector")
        .and_then(Value::as_object)
        .filter(|s| !s.is_empty());
    match wanted {
        None => at.field("selector").required(&mut out, ""),
        Some(wanted) => {
            let labels = meta::labels(&spec["template"]);
            if !wanted
                .iter()
                .all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
            {
                let labels = shown_labels(&spec["template"]);
                let at = at.field("template");
                at.field("metadata").field("labels").invalid(
                    &mut out,
                    &labels,
                    "`selector` does not match template `labels`",
                );
            }
        }
    }
    at.field("replicas")
        .not_negative(&mut out, spec.get("replicas"));
    match some(spec, "template") {
        None => at.field("template").required(&mut out, ""),
        Some(value) => {
            template(
                &mut out,
                value,
                &at.field("template"),
                old.map(|o| &o["spec"]["template"]),
            );
            always_restarts(&mut out, spec, &at);
        }
    }
    out
}

pub fn daemon_set(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "apps", "DaemonSet");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    label_selector(&mut out, spec.get("selector"), &at.field("selector"));
    if let Some(value) = some(spec, "selector").filter(|s| is_empty_selector(s)) {
        at.field("selector")
            .invalid(&mut out, value, "empty selector is invalid for daemonset");
    } else if some(spec, "selector").is_none() {
        let labels = shown_labels(&spec["template"]);
        let at = at.field("template");
        at.field("metadata").field("labels").invalid(
            &mut out,
            &labels,
            "`selector` does not match template `labels`",
        );
    }
    pods_of(&mut out, spec, &at, old);
    at.field("minReadySeconds")
        .not_negative(&mut out, spec.get("minReadySeconds"));
    let strategy = &spec["updateStrategy"];
    let strategy_at = at.field("updateStrategy");
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => match some(strategy, "rollingUpdate") {
            None => strategy_at.field("rollingUpdate").required(&mut out, ""),
            Some(rolling) => {
                let at = strategy_at.field("rollingUpdate");
                let down = int_or_percent(
                    &mut out,
                    rolling.get("maxUnavailable"),
                    &at.field("maxUnavailable"),
                );
                let up = int_or_percent(&mut out, rolling.get("maxSurge"), &at.field("maxSurge"));
                match (down, up) {
                    (0, 0) => at
                        .field("maxUnavailable")
                        .required(&mut out, "cannot be 0 when maxSurge is 0"),
                    (1.., 1..) => {
                        let value = rolling.get("maxSurge").unwrap_or(&Value::Null);
                        at.field("maxSurge").invalid(
                            &mut out,
                            value,
                            "may not be set when maxUnavailable is non-zero",
                        );
                    }
                    _ => {}
                }
                at_most_all(
                    &mut out,
                    rolling.get("maxUnavailable"),
                    &at.field("maxUnavailable"),
                );
            }
        },
        "" => strategy_at.field("type").required(&mut out, ""),
        other => {
            strategy_at
                .field("type")
                .unsupported(&mut out, other, &["OnDelete", "RollingUpdate"]);
        }
    }
    at.field("revisionHistoryLimit")
        .not_negative(&mut out, spec.get("revisionHistoryLimit"));
    same_selector(&mut out, new, old);
    out
}

const STATEFUL_SET_FIELDS: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub fn stateful_set(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "apps", "StatefulSet");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    match text(spec, "podManagementPolicy") {
        "" => at.field("podManagementPolicy").required(&mut out, ""),
        "OrderedReady" | "Parallel" => {}
        other => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            at.field("podManagementPolicy")
                .invalid_text(&mut out, other, detail);
        }
    }
    let strategy = &spec["updateStrategy"];
    let strategy_at = at.field("updateStrategy");
    let rolling = some(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "" => strategy_at.required(&mut out, ""),
        "OnDelete" => {
            if rolling.is_some() {
                strategy_at.field("rollingUpdate").invalid(
                    &mut out,
                    rolling.unwrap_or(&Value::Null),
                    "only allowed for updateStrategy 'RollingUpdate'",
                );
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                let at = strategy_at.field("rollingUpdate");
                at.field("partition")
                    .not_negative(&mut out, rolling.get("partition"));
            }
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            strategy_at.invalid(&mut out, strategy, detail);
        }
    }
    let retention_at = at.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = text(&spec["persistentVolumeClaimRetentionPolicy"], field);
        if !matches!(policy, "" | "Retain" | "Delete") {
            retention_at
                .field(field)
                .unsupported(&mut out, policy, &["Retain", "Delete"]);
        }
    }
    at.field("replicas")
        .not_negative(&mut out, spec.get("replicas"));
    at.field("minReadySeconds")
        .not_negative(&mut out, spec.get("minReadySeconds"));
    let ordinals_at = at.field("ordinals");
    ordinals_at
        .field("start")
        .not_negative(&mut out, spec["ordinals"].get("start"));
    selector(&mut out, spec, &at, "statefulset");
    let with_claims = with_claim_volumes(spec);
    pods_of(&mut out, &with_claims, &at, None);
    let claims_at = at.field("volumeClaimTemplates");
    for (i, claim) in items(spec, "volumeClaimTemplates") {
        if old.is_none() {
            claim_template(&mut out, claim, &claims_at.index(i));
        }
    }
    let service = text(spec, "serviceName");
    if !service.is_empty() {
        at.field("serviceName")
            .all_invalid(&mut out, service, super::names::dns_label(service));
    }
    if let Some(old) = old {
        let differs = |field: &str| spec.get(field) != old["spec"].get(field);
        let fields = |v: &Value| {
            v.as_object()
                .map(|m| m.keys().cloned().collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let mut names = fields(spec);
        names.extend(fields(&old["spec"]));
        if names
            .iter()
            .any(|n| !STATEFUL_SET_FIELDS.contains(&n.as_str()) && differs(n))
        {
            out.push(Cause::forbidden(
                "spec",
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ));
        }
    }
    out
}

/// The spec with the claim templates' volumes among the pods' volumes, as the pods will have them.
fn with_claim_volumes(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims = super::path::list(&spec, "volumeClaimTemplates");
    let name = |o: &Value| text(&o["metadata"], "name").to_owned();
    let names: Vec<String> = claims.iter().map(name).collect();
    if names.is_empty() {
        return spec;
    }
    let mut volumes: Vec<Value> = names
        .iter()
        .map(|n| serde_json::json!({"name": n, "persistentVolumeClaim": {"claimName": n}}))
        .collect();
    let own = super::path::list(&spec["template"]["spec"], "volumes");
    volumes.extend(
        own.iter()
            .filter(|v| !names.iter().any(|n| n == text(v, "name")))
            .cloned(),
    );
    if let Some(pod) = spec
        .pointer_mut("/template/spec")
        .and_then(Value::as_object_mut)
    {
        pod.insert("volumes".to_owned(), Value::Array(volumes));
    }
    spec
}

fn claim_template(out: &mut Causes, claim: &Value, at: &Path<'_>) {
    claim_spec(out, &claim["spec"], &at.field("spec"));
}

pub fn pod_template(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "PodTemplate");
    let at = Path::new("template");
    template(&mut out, &new["template"], &at, old.map(|o| &o["template"]));
    out
}

/// Warnings that every pod spec may give.
pub fn pod_warnings(spec: &Value, at: &Path<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    let grace = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    if grace.is_some_and(|seconds| seconds < 0) {
        let field = at.field("terminationGracePeriodSeconds");
        texts.push(format!(
            "{field}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    let list_at = at.field("imagePullSecrets");
    let secrets: Vec<&str> = super::path::list(spec, "imagePullSecrets")
        .iter()
        .map(|s| text(s, "name"))
        .collect();
    for (i, name) in secrets
        .iter()
        .enumerate()
        .filter(|(i, name)| !name.is_empty() && secrets[..*i].contains(name))
    {
        let at = list_at.index(i);
        texts.push(format!("{}: duplicate name {name:?}", at.field("name")));
    }
    for (i, _) in secrets
        .iter()
        .enumerate()
        .filter(|(_, name)| name.is_empty())
    {
        let at = list_at.index(i);
        texts.push(format!("{}: invalid empty name \"\"", at.field("name")));
    }
    let list_at = at.field("topologySpreadConstraints");
    for (i, constraint) in items(spec, "topologySpreadConstraints") {
        if some(constraint, "labelSelector").is_none() {
            let at = list_at.index(i);
            texts.push(format!(
                "{}: a null labelSelector results in matching no pod",
                at.field("labelSelector")
            ));
        }
    }
    texts
}

/// Names that pods and their hosts will have should be labels.
pub fn name_warning(object: &Value) -> Option<String> {
    let dotted = meta::name(object).contains('.');
    dotted.then(|| {
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]".to_owned()
    })
}
