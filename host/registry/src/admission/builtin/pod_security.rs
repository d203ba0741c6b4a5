//! PodSecurity: pods are held to the level that their namespace's labels name; workloads are warned of what their pods will meet.
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-admission/>

mod checks;

use std::fmt;

use async_trait::async_trait;
use oarlock_model::{ApiError, ApiResult, Cause, meta};
use serde_json::{Value, json};

use super::{all, forbidden, one};
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::{Registry, Target, strategy};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The minor version that `latest` stands for.
const LATEST: u32 = 36;
/// Pods looked at when a namespace's level rises.
const MAX_PODS: usize = 3000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a version; `None`: the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    level: Level,
    minor: Option<u32>,
}

impl Rule {
    fn minor(self) -> u32 {
        self.minor.unwrap_or(LATEST).min(LATEST)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.minor {
            None => f.write_str(":latest"),
            Some(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

/// What a namespace's labels ask for. What they say wrongly counts as restricted, so that a slip opens nothing.
struct Policy {
    enforce: Rule,
    audit: Rule,
    warn: Rule,
    faults: Vec<Cause>,
}

impl Policy {
    fn of(namespace: &Value) -> Self {
        let mut faults = Vec::new();
        let mut rule = |mode: &str| {
            let (mut level, mut minor) = (Level::Privileged, None);
            let mut fault = |key: &str, text: &str, detail| {
                let field = format!("metadata.labels[{key}]");
                faults.push(Cause::invalid(field, &json!(text), detail));
            };
            let key = format!("{PREFIX}{mode}");
            match meta::label(namespace, &key) {
                None | Some("privileged") => {}
                Some("baseline") => level = Level::Baseline,
                Some("restricted") => level = Level::Restricted,
                Some(other) => {
                    fault(
                        &key,
                        other,
                        "must be one of privileged, baseline, restricted",
                    );
                    level = Level::Restricted;
                }
            }
            let key = format!("{key}-version");
            match meta::label(namespace, &key) {
                None | Some("latest") => {}
                Some(text) => match version(text) {
                    Some(number) => minor = Some(number),
                    None => fault(&key, text, "must be \"latest\" or \"v1.x\""),
                },
            }
            Rule { level, minor }
        };
        let enforce = rule("enforce");
        let audit = rule("audit");
        let mut warn = rule("warn");
        // Who asks for no warnings gets those of what is enforced.
        if meta::label(namespace, &format!("{PREFIX}warn")).is_none() {
            warn = Rule {
                level: enforce.level,
                minor: warn.minor.or(enforce.minor),
            };
        }
        Self {
            enforce,
            audit,
            warn,
            faults,
        }
    }
}

/// `v1.28`
fn version(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("v1.")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let short = digits == "0" || !digits.starts_with('0');
    if plain && short {
        digits.parse().ok()
    } else {
        None
    }
}

/// The pod, or the pod template, of a kind that has one.
fn template(target: &Target) -> Option<&'static str> {
    Some(
        match (target.row.group.as_str(), target.row.kind.as_str()) {
            ("", "Pod") => "",
            ("", "PodTemplate") => "/template",
            ("", "ReplicationController")
            | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
            | ("batch", "Job") => "/spec/template",
            ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
            _ => return None,
        },
    )
}

#[derive(Debug)]
pub(in crate::admission::builtin) struct PodSecurity;

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        let sub = target.subresource.as_str();
        matches!(operation, Operation::Create | Operation::Update)
            && (sub.is_empty() || sub == "ephemeralcontainers" || sub == "resize")
            && (template(target).is_some() || strategy::is(&target.row, "", "Namespace"))
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let (target, Some(object)) = (request.target, request.object.as_deref()) else {
            return Ok(());
        };
        let Some(at) = template(target) else {
            return of_namespace(registry, request, object);
        };
        let Some(pod) = object.pointer(at) else {
            return Ok(());
        };
        let is_pod = at.is_empty();
        if is_pod && request.old.is_some_and(|old| !matters(object, old)) {
            return Ok(());
        }
        let tell = |key: &str, told: &dyn Fn() -> String| {
            request.context.annotate(&format!("{PREFIX}{key}"), told);
        };
        let Some(namespace) = labelled(registry, &target.namespace) else {
            if is_pod {
                tell("enforce-policy", &|| "privileged:latest".to_owned());
            }
            return Ok(());
        };
        let policy = Policy::of(&namespace);
        if is_pod {
            tell("enforce-policy", &|| policy.enforce.to_string());
        }
        if request.context.trail.is_some() {
            if !policy.faults.is_empty() {
                let told: Vec<String> = policy
                    .faults
                    .iter()
                    .map(|fault| format!("{}: {}", fault.field, fault.message))
                    .collect();
                tell("error", &|| {
                    format!("Failed to parse policy: {}", super::aggregate(&told))
                });
            }
            if let Some(detail) = broken(policy.audit, pod) {
                tell("audit-violations", &|| {
                    format!("would violate PodSecurity \"{}\": {detail}", policy.audit)
                });
            }
        }
        if is_pod && let Some(detail) = broken(policy.enforce, pod) {
            let why = format!("violates PodSecurity \"{}\": {detail}", policy.enforce);
            return Err(forbidden(target, object, &why));
        }
        if let Some(detail) = broken(policy.warn, pod) {
            let text = format!("would violate PodSecurity \"{}\": {detail}", policy.warn);
            request.context.warn(text);
        }
        Ok(())
    }
}

/// The namespace, if it has anything to say about pods; most have not, and cost no tree.
fn labelled(registry: &Registry, name: &str) -> Option<Value> {
    let row = registry.row("", "namespaces")?;
    let record = registry.store().get(&crate::keys::key(&row, "", name))?;
    memchr::memmem::find(&record.value, PREFIX.as_bytes())?;
    one(registry, "", "namespaces", "", name)
}

fn broken(rule: Rule, pod: &Value) -> Option<String> {
    let told = checks::run(rule.level, rule.minor(), pod);
    (!told.is_empty()).then(|| told.join(", "))
}

/// Whether an update changed anything that the checks look at. Labels and tolerations they do not.
fn matters(new: &Value, old: &Value) -> bool {
    let parts = |pod: &Value| {
        let of = |field: &str| -> Vec<Value> {
            super::list(pod, &format!("/spec/{field}"))
                .iter()
                .map(|c| json!([c["name"], c["image"], c["securityContext"]]))
                .collect()
        };
        let lists = ["containers", "initContainers", "ephemeralContainers"].map(of);
        let annotations: Vec<(String, Value)> = meta::annotations(pod)
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.contains("apparmor") || key.contains("seccomp"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        (lists, pod["spec"]["securityContext"].clone(), annotations)
    };
    parts(new) != parts(old)
}

/// Labels must be right when they are set; pods that are there and break a level that has risen are told of.
fn of_namespace(
    registry: &Registry,
    request: &AdmissionRequest<'_>,
    namespace: &Value,
) -> ApiResult<()> {
    if !request.target.subresource.is_empty() {
        return Ok(());
    }
    let policy = Policy::of(namespace);
    let before = request.old.map(Policy::of);
    let name = meta::name(namespace);
    if !policy.faults.is_empty() {
        let known = before.as_ref().is_some_and(|b| b.faults == policy.faults);
        if !known {
            return Err(ApiError::invalid("", "Namespace", name, policy.faults));
        }
        return Ok(());
    }
    let Some(before) = before else {
        return Ok(());
    };
    let (rule, was) = (policy.enforce, before.enforce);
    if rule == was || rule.level == Level::Privileged {
        return Ok(());
    }
    if rule.minor == was.minor && rule.level < was.level {
        return Ok(());
    }
    let mut told: Vec<(String, Vec<String>)> = Vec::new();
    for pod in all(registry, "", "pods", name).iter().take(MAX_PODS) {
        let reasons = checks::reasons(rule.level, rule.minor(), pod);
        if reasons.is_empty() {
            continue;
        }
        let text = reasons.join(", ");
        let pod = meta::name(pod).to_owned();
        match told.iter_mut().find(|(reason, _)| *reason == text) {
            Some((_, pods)) => pods.push(pod),
            None => told.push((text, vec![pod])),
        }
    }
    if told.is_empty() {
        return Ok(());
    }
    request.context.warn(format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{rule}\""
    ));
    let mut lines: Vec<String> = told
        .into_iter()
        .map(|(reason, pods)| match pods.as_slice() {
            [one] => format!("{one}: {reason}"),
            [first, _] => format!("{first} (and 1 other pod): {reason}"),
            all => format!("{} (and {} other pods): {reason}", all[0], all.len() - 1),
        })
        .collect();
    lines.sort_unstable();
    for line in lines {
        request.context.warn(line);
    }
    Ok(())
}
