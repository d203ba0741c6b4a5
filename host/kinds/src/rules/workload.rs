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
    annotations_of_pod(out, template, &at.field("annotations"));
    pod_spec(out, &template["spec"], None, &at.field("spec"));
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

fn always_restarts(out: &mut Causes, spec: &Value, at: &Path<'_>, kind: &str) {
    let at = at.field("template");
    let at = at.field("spec");
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    if policy != "Always" {
        at.field("restartPolicy")
            .unsupported(out, policy, &["Always"]);
    }
    if some(&spec["template"]["spec"], "activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        at.field("activeDeadlineSeconds").forbidden(out, &detail);
    }
}

/// What all kinds with `selector` and `template` have in common.
fn pods_of(out: &mut Causes, spec: &Value, at: &Path<'_>, old: Option<&Value>, kind: &str) {
    match some(spec, "selector").map(LabelSelector::from_object) {
        Some(Err(_)) => {
            let detail = if kind == "StatefulSet" {
                ""
            } else {
                "invalid label selector"
            };
            if kind != "DaemonSet" {
                at.field("selector").invalid(out, &spec["selector"], detail);
                return;
            }
        }
        _ => selector_matches(out, spec, at),
    }
    template(
        out,
        &spec["template"],
        &at.field("template"),
        old.map(|o| &o["spec"]["template"]),
    );
    always_restarts(out, spec, at, kind);
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
    status_counts(
        &mut out,
        new,
        old,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
    );
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    at.field("replicas")
        .not_negative(&mut out, spec.get("replicas"));
    selector(&mut out, spec, &at, "deployment");
    pods_of(&mut out, spec, &at, old, "ReplicaSet");
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

/// What the system itself writes on pods is checked in templates, too.
fn annotations_of_pod(out: &mut Causes, template: &Value, at: &Path<'_>) {
    super::pod::annotations(out, template, at);
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
        _ => {
            let shown = super::face::show("DeploymentStrategy", strategy);
            let message = format!(
                "Unsupported value: {shown}: supported values: \"Recreate\", \"RollingUpdate\""
            );
            out.push(Cause::new(
                "FieldValueNotSupported",
                at.to_string(),
                message,
            ));
        }
    }
}

pub fn replica_set(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "apps", "ReplicaSet");
    status_counts(
        &mut out,
        new,
        old,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
    );
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    at.field("replicas")
        .not_negative(&mut out, spec.get("replicas"));
    at.field("minReadySeconds")
        .not_negative(&mut out, spec.get("minReadySeconds"));
    selector(&mut out, spec, &at, "deployment");
    pods_of(&mut out, spec, &at, old, "ReplicaSet");
    same_selector(&mut out, new, old);
    out
}

pub fn replication_controller(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "ReplicationController");
    status_counts(
        &mut out,
        new,
        old,
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
    );
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
            always_restarts(&mut out, spec, &at, "ReplicationController");
        }
    }
    out
}

pub fn daemon_set(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "apps", "DaemonSet");
    status_counts(
        &mut out,
        new,
        old,
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
        &[],
        "",
    );
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
    pods_of(&mut out, spec, &at, old, "DaemonSet");
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
                for field in ["maxUnavailable", "maxSurge"] {
                    at_most_all(&mut out, rolling.get(field), &at.field(field));
                }
                match (down != 0, up != 0) {
                    (false, false) => at
                        .field("maxUnavailable")
                        .required(&mut out, "cannot be 0 when maxSurge is 0"),
                    (true, true) => {
                        let value = rolling.get("maxSurge").unwrap_or(&Value::Null);
                        at.field("maxSurge").invalid(
                            &mut out,
                            value,
                            "may not be set when maxUnavailable is non-zero",
                        );
                    }
                    _ => {}
                }
            }
        },
        _ => {
            let shown = super::face::show("DeploymentStrategy", strategy);
            let message = format!(
                "Unsupported value: {shown}: supported values: \"OnDelete\", \"RollingUpdate\""
            );
            out.push(Cause::new(
                "FieldValueNotSupported",
                strategy_at.to_string(),
                message,
            ));
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
    status_counts(
        &mut out,
        new,
        old,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &[
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ],
        "status.readyReplicas",
    );
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
                let shown =
                    super::face::show("StatefulSetRollingUpdate", rolling.unwrap_or(&Value::Null));
                out.push(Cause::new(
                    "FieldValueInvalid",
                    strategy_at.field("rollingUpdate").to_string(),
                    format!(
                        "Invalid value: {shown}: only allowed for updateStrategy 'RollingUpdate'"
                    ),
                ));
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                let at = strategy_at.field("rollingUpdate");
                at.field("partition")
                    .not_negative(&mut out, rolling.get("partition"));
                if let Some(most) = some(rolling, "maxUnavailable") {
                    let at = at.field("maxUnavailable");
                    if int_or_percent(&mut out, Some(most), &at) == 0 {
                        at.invalid(&mut out, most, "cannot be 0");
                    }
                    at_most_all(&mut out, Some(most), &at);
                }
            }
        }
        _ => {
            let shown = super::face::show("StatefulSetUpdateStrategy", strategy);
            out.push(Cause::new(
                "FieldValueInvalid",
                strategy_at.to_string(),
                format!("Invalid value: {shown}: must be 'RollingUpdate' or 'OnDelete'"),
            ));
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
    pods_of(&mut out, &with_claims, &at, None, "StatefulSet");
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

/// Numbers of a status: none negative, none more than there are.
fn status_counts(
    out: &mut Causes,
    new: &Value,
    old: Option<&Value>,
    counts: &[&str],
    parts: &[&str],
    ready: &str,
) {
    if old.is_none_or(|old| old["status"] == new["status"]) {
        return;
    }
    let (status, at) = (&new["status"], Path::new("status"));
    let number = |status: &Value, field: &str| status.get(field).and_then(Value::as_i64);
    for field in counts {
        at.field(field).not_negative(out, status.get(*field));
    }
    let all = number(status, "replicas").unwrap_or(0);
    for field in parts {
        let part = number(status, field).unwrap_or(0);
        if part > all {
            let detail = "cannot be greater than status.replicas";
            at.field(field).invalid(out, &Value::from(part), detail);
        }
    }
    let available = number(status, "availableReplicas").unwrap_or(0);
    if !ready.is_empty() && available > number(status, "readyReplicas").unwrap_or(0) {
        let detail = format!("cannot be greater than {ready}");
        at.field("availableReplicas")
            .invalid(out, &Value::from(available), &detail);
    }
    let before = old.and_then(|old| number(&old["status"], "collisionCount"));
    let now = number(status, "collisionCount");
    if before.is_some_and(|before| now.is_none_or(|now| now < before)) {
        let shown = Value::from(now.unwrap_or(0));
        at.field("collisionCount")
            .invalid(out, &shown, "cannot be decremented");
    }
}

pub fn pod_template(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "PodTemplate");
    let at = Path::new("template");
    template(&mut out, &new["template"], &at, old.map(|o| &o["template"]));
    out
}

/// A revision keeps what it recorded.
pub fn controller_revision(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    super::metadata::whole_meta_of(&mut out, new, old, "apps", "ControllerRevision");
    if some(new, "data").is_none() {
        Path::new("data").required(&mut out, "data is mandatory");
    }
    Path::new("revision").not_negative(&mut out, new.get("revision"));
    if let Some(old) = old {
        Path::new("data").same(&mut out, new.get("data"), old.get("data"));
    }
    out
}
