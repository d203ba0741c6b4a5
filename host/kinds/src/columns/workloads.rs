//! What makes pods, and what limits or scales what makes pods.

use jiff::Timestamp;
use oarlock_model::time::{human_duration, parse_time};
use oarlock_model::{GroupVersion, meta};
use serde_json::{Value, json};

use super::cells::{
    NONE, UNKNOWN, UNSET, age, condition, containers, flag, int, int_or_text, list, name, or,
    selector, since, text,
};
use super::{AGE, Cells, NAME, col, wide};
use crate::Column;

const CONTAINERS: Column = wide(
    "Containers",
    "string",
    "Names of each container in the template.",
);
const IMAGES: Column = wide(
    "Images",
    "string",
    "Images referenced by each container in the template.",
);
const SELECTOR: Column = wide("Selector", "string", "Which pods belong to it.");

const DEPLOYMENT: &[Column] = &[
    NAME,
    col("Ready", "string", "Number of the pod with ready state"),
    col("Up-to-date", "string", ""),
    col("Available", "string", ""),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const REPLICAS: &[Column] = &[
    NAME,
    col("Desired", "integer", ""),
    col("Current", "integer", ""),
    col("Ready", "integer", ""),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const STATEFUL_SET: &[Column] = &[
    NAME,
    col("Ready", "string", "Number of the pod with ready state"),
    AGE,
    CONTAINERS,
    IMAGES,
];
const DAEMON_SET: &[Column] = &[
    NAME,
    col("Desired", "integer", ""),
    col("Current", "integer", ""),
    col("Ready", "integer", ""),
    col("Up-to-date", "integer", ""),
    col("Available", "integer", ""),
    col("Node Selector", "string", ""),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const JOB: &[Column] = &[
    NAME,
    col("Status", "string", "Status of the job."),
    col("Completions", "string", ""),
    col("Duration", "string", "Time required to complete the job."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const CRON_JOB: &[Column] = &[
    NAME,
    col("Schedule", "string", ""),
    col("Timezone", "string", ""),
    col("Suspend", "boolean", ""),
    col("Active", "integer", ""),
    col("Last Schedule", "string", ""),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
const CONTROLLER_REVISION: &[Column] = &[
    NAME,
    col("Controller", "string", "Controller of the object"),
    col("Revision", "string", ""),
    AGE,
];
const HPA: &[Column] = &[
    NAME,
    col("Reference", "string", ""),
    col("Targets", "string", ""),
    col("MinPods", "string", ""),
    col("MaxPods", "string", ""),
    col("Replicas", "string", ""),
    AGE,
];
const PDB: &[Column] = &[
    NAME,
    col(
        "Min Available",
        "string",
        "The minimum number of pods that must be available.",
    ),
    col(
        "Max Unavailable",
        "string",
        "The maximum number of pods that may be unavailable.",
    ),
    col(
        "Allowed Disruptions",
        "integer",
        "Calculated number of pods that may be disrupted at this time.",
    ),
    AGE,
];

pub fn find(group: &str, kind: &str) -> Option<(&'static [Column], Cells)> {
    Some(match (group, kind) {
        ("apps", "Deployment") => (DEPLOYMENT, deployment),
        ("apps", "ReplicaSet") => (REPLICAS, |o, now| {
            replicas(o, now, selector(o.pointer("/spec/selector")))
        }),
        ("", "ReplicationController") => (REPLICAS, |o, now| {
            replicas(
                o,
                now,
                super::cells::labels(o.pointer("/spec/selector").and_then(Value::as_object)),
            )
        }),
        ("apps", "StatefulSet") => (STATEFUL_SET, |o, now| {
            let [names, images] = containers(o.pointer("/spec/template/spec"));
            let ready = format!(
                "{}/{}",
                int(o, "/status/readyReplicas"),
                int(o, "/spec/replicas")
            );
            vec![name(o), json!(ready), age(o, now), names, images]
        }),
        ("apps", "DaemonSet") => (DAEMON_SET, daemon_set),
        ("apps", "ControllerRevision") => (CONTROLLER_REVISION, |o, now| {
            vec![
                name(o),
                json!(controller(o)),
                json!(int(o, "/revision")),
                age(o, now),
            ]
        }),
        ("batch", "Job") => (JOB, job),
        ("batch", "CronJob") => (CRON_JOB, cron_job),
        ("autoscaling", "HorizontalPodAutoscaler") => (HPA, hpa),
        ("policy", "PodDisruptionBudget") => (PDB, |o, now| {
            vec![
                name(o),
                int_or_text(o.pointer("/spec/minAvailable"), "N/A"),
                int_or_text(o.pointer("/spec/maxUnavailable"), "N/A"),
                json!(int(o, "/status/disruptionsAllowed")),
                age(o, now),
            ]
        }),
        _ => return None,
    })
}

fn deployment(o: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(o.pointer("/spec/template/spec"));
    vec![
        name(o),
        json!(format!(
            "{}/{}",
            int(o, "/status/readyReplicas"),
            int(o, "/spec/replicas")
        )),
        json!(int(o, "/status/updatedReplicas")),
        json!(int(o, "/status/availableReplicas")),
        age(o, now),
        names,
        images,
        json!(selector(o.pointer("/spec/selector"))),
    ]
}

fn replicas(o: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let [names, images] = containers(o.pointer("/spec/template/spec"));
    vec![
        name(o),
        json!(int(o, "/spec/replicas")),
        json!(int(o, "/status/replicas")),
        json!(int(o, "/status/readyReplicas")),
        age(o, now),
        names,
        images,
        json!(selector),
    ]
}

fn daemon_set(o: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = containers(o.pointer("/spec/template/spec"));
    let nodes = o
        .pointer("/spec/template/spec/nodeSelector")
        .and_then(Value::as_object);
    vec![
        name(o),
        json!(int(o, "/status/desiredNumberScheduled")),
        json!(int(o, "/status/currentNumberScheduled")),
        json!(int(o, "/status/numberReady")),
        json!(int(o, "/status/updatedNumberScheduled")),
        json!(int(o, "/status/numberAvailable")),
        json!(super::cells::labels(nodes)),
        age(o, now),
        names,
        images,
        json!(selector(o.pointer("/spec/selector"))),
    ]
}

/// `deployment.apps/NAME` of the controlling owner.
fn controller(o: &Value) -> String {
    let Some(owner) = meta::controller_of(o) else {
        return NONE.to_owned();
    };
    let group = GroupVersion::parse(&owner.api_version)
        .map(|gv| gv.group)
        .unwrap_or_default();
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", owner.kind.to_lowercase(), owner.name)
}

fn job(o: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = int(o, "/status/succeeded");
    let parallelism = int(o, "/spec/parallelism");
    let completions = match o.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let status = match o {
        o if condition(o, "Complete") => "Complete",
        o if condition(o, "Failed") => "Failed",
        o if meta::is_terminating(o) => "Terminating",
        o if condition(o, "Suspended") => "Suspended",
        o if condition(o, "FailureTarget") => "FailureTarget",
        o if condition(o, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        _ => "Running",
    };
    let duration = match parse_time(text(o, "/status/startTime")) {
        Some(start) => {
            let end = parse_time(text(o, "/status/completionTime")).unwrap_or(now);
            human_duration(end.as_second() - start.as_second())
        }
        None => String::new(),
    };
    let [names, images] = containers(o.pointer("/spec/template/spec"));
    vec![
        name(o),
        json!(status),
        json!(completions),
        json!(duration),
        age(o, now),
        names,
        images,
        json!(selector(o.pointer("/spec/selector"))),
    ]
}

fn cron_job(o: &Value, now: Timestamp) -> Vec<Value> {
    let last = text(o, "/status/lastScheduleTime");
    let template = "/spec/jobTemplate/spec";
    let [names, images] = containers(o.pointer(&format!("{template}/template/spec")));
    let suspend = match o.pointer("/spec/suspend") {
        Some(_) if flag(o, "/spec/suspend") => "True",
        Some(_) => "False",
        None => UNSET,
    };
    vec![
        name(o),
        json!(text(o, "/spec/schedule")),
        json!(or(text(o, "/spec/timeZone"), NONE)),
        json!(suspend),
        json!(list(o, "/status/active").len()),
        json!(if last.is_empty() {
            NONE.to_owned()
        } else {
            since(last, now)
        }),
        age(o, now),
        names,
        images,
        json!(selector(o.pointer(&format!("{template}/selector")))),
    ]
}

/// Metrics shown of an autoscaler.
const MAX_METRICS: usize = 2;

fn hpa(o: &Value, now: Timestamp) -> Vec<Value> {
    let percent = |v: Option<&Value>| v.and_then(Value::as_i64).map(|p| format!("{p}%"));
    let mut texts = Vec::new();
    // autoscaling/v1 knows of one metric only.
    if let Some(target) = percent(o.pointer("/spec/targetCPUUtilizationPercentage")) {
        let current = percent(o.pointer("/status/currentCPUUtilizationPercentage"));
        texts.push(format!(
            "cpu: {}/{target}",
            current.as_deref().unwrap_or(UNKNOWN)
        ));
    }
    for (at, metric) in list(o, "/spec/metrics").iter().enumerate() {
        texts.push(hpa_metric(
            metric,
            list(o, "/status/currentMetrics").get(at),
        ));
    }
    let targets = match texts.len() {
        0 => NONE.to_owned(),
        n if n > MAX_METRICS => format!(
            "{} + {} more...",
            texts[..MAX_METRICS].join(", "),
            n - MAX_METRICS
        ),
        _ => texts.join(", "),
    };
    let number = |pointer: &str| int(o, pointer).to_string();
    vec![
        name(o),
        json!(format!(
            "{}/{}",
            text(o, "/spec/scaleTargetRef/kind"),
            text(o, "/spec/scaleTargetRef/name")
        )),
        json!(targets),
        int_or_text(o.pointer("/spec/minReplicas"), UNSET),
        json!(number("/spec/maxReplicas")),
        json!(number("/status/currentReplicas")),
        age(o, now),
    ]
}

fn hpa_metric(metric: &Value, status: Option<&Value>) -> String {
    let kind = text(metric, "/type");
    let field = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let target = &metric[field]["target"];
    let current = status.map(|s| &s[field]["current"]);
    let shown = |value: Option<&Value>| match value {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let now =
        |what: &str| shown(current.and_then(|c| c.get(what))).unwrap_or_else(|| UNKNOWN.to_owned());
    match (
        field,
        shown(target.get("averageValue")),
        shown(target.get("value")),
    ) {
        ("resource" | "containerResource", Some(wanted), _) => {
            format!(
                "{}: {}/{wanted}",
                text(&metric[field], "/name"),
                now("averageValue")
            )
        }
        ("resource" | "containerResource", None, _) => {
            let percent = |value: Option<&Value>| shown(value).map(|p| format!("{p}%"));
            let wanted =
                percent(target.get("averageUtilization")).unwrap_or_else(|| "<auto>".to_owned());
            let current = percent(current.and_then(|c| c.get("averageUtilization")));
            let current = current.unwrap_or_else(|| UNKNOWN.to_owned());
            format!("{}: {current}/{wanted}", text(&metric[field], "/name"))
        }
        ("pods", Some(wanted), _) => format!("{}/{wanted}", now("averageValue")),
        (_, Some(wanted), _) => format!("{}/{wanted} (avg)", now("averageValue")),
        (_, None, Some(wanted)) => format!("{}/{wanted}", now("value")),
        _ => UNKNOWN.to_owned(),
    }
}
