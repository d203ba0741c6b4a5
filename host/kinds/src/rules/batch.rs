//! Jobs and cron jobs.

use oarlock_model::{Cause, LabelSelector, meta};
use serde_json::{Value, json};

use super::metadata::{label_selector, meta_of, shown_labels};
use super::path::{Causes, Path, flag, items, list, some, text};
use super::workload::{template, unchanged};

/// A job's pods are named after it.
const MAX_CRON_JOB_NAME: usize = 52;

pub fn job(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "batch", "Job");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    if old.is_none() {
        generated_selector(&mut out, new);
    }
    // Upstream checks an updated job twice, and so tells everything twice.
    for _ in 0..if old.is_some() { 2 } else { 1 } {
        job_spec(&mut out, spec, &at, old.map(|o| &o["spec"]));
        selector(&mut out, spec, &at);
    }
    if let Some(old) = old {
        update(&mut out, spec, &old["spec"], &at);
    }
    out
}

fn selector(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let selector = some(spec, "selector");
    match selector {
        None => at.field("selector").required(out, ""),
        Some(_) => label_selector(out, selector, &at.field("selector")),
    }
    let parsed = selector.map(LabelSelector::from_object);
    let matches = match parsed {
        None => false,
        Some(Ok(parsed)) => parsed.matches(meta::labels(&spec["template"])),
        Some(Err(_)) => true,
    };
    if !matches {
        let labels = shown_labels(&spec["template"]);
        let at = at.field("template");
        at.field("metadata").field("labels").invalid(
            out,
            &labels,
            "`selector` does not match template `labels`",
        );
    }
}

fn generated_selector(out: &mut Causes, new: &Value) {
    let spec = &new["spec"];
    if flag(spec, "manualSelector") {
        return;
    }
    let at = Path::new("spec");
    let labels_at = at.field("template");
    let labels_at = labels_at.field("metadata");
    let labels_at = labels_at.field("labels");
    let (uid, name) = (meta::uid(new), meta::name(new));
    let own = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    for (label, value) in own {
        match meta::label(&spec["template"], label) {
            Some(other) if other == value => {}
            Some(other) => {
                labels_at
                    .key(label)
                    .invalid_text(out, other, &format!("must be '{value}'"));
            }
            None => labels_at
                .key(label)
                .required(out, &format!("must be '{value}'")),
        }
    }
    let generated = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let old_style = json!({"matchLabels": {"controller-uid": uid}});
    if let Some(selector) = some(spec, "selector").filter(|s| **s != generated && **s != old_style)
    {
        at.field("selector")
            .invalid(out, selector, "`selector` not auto-generated");
    }
}

fn job_spec(out: &mut Causes, spec: &Value, at: &Path<'_>, old: Option<&Value>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ] {
        at.field(field).not_negative(out, spec.get(field));
    }
    let indexed = text(spec, "completionMode") == "Indexed";
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        at.field(field).not_negative(out, spec.get(field));
    }
    if let Some(mode) = some(spec, "completionMode").and_then(Value::as_str) {
        at.field("completionMode")
            .one_of(out, mode, &["Indexed", "NonIndexed"]);
        if mode == "Indexed" && some(spec, "completions").is_none() {
            let detail = format!("when completion mode is {mode}");
            at.field("completions").required(out, &detail);
        }
    }
    if !indexed {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = some(spec, field) {
                at.field(field)
                    .invalid(out, value, "requires indexed completion mode");
            }
        }
    }
    let template_at = at.field("template");
    let restart = text(&spec["template"]["spec"], "restartPolicy");
    if some(spec, "podFailurePolicy").is_some() {
        failure_policy(out, spec, &at.field("podFailurePolicy"));
    }
    if let Some(policy) = some(spec, "podReplacementPolicy").and_then(Value::as_str) {
        let supported: &[&str] = if some(spec, "podFailurePolicy").is_some() {
            &["Failed"]
        } else {
            &["Failed", "TerminatingOrFailed"]
        };
        at.field("podReplacementPolicy")
            .one_of(out, policy, supported);
    }
    template(
        out,
        &spec["template"],
        &template_at,
        old.map(|o| &o["template"]),
    );
    let policy_at = template_at.field("spec");
    let policy_at = policy_at.field("restartPolicy");
    match restart {
        "" | "Always" => policy_at.required(out, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" | "Never" => {}
        other => policy_at.unsupported(out, other, &["OnFailure", "Never"]),
    }
    if some(spec, "podFailurePolicy").is_some() && restart != "Never" {
        policy_at.invalid_text(
            out,
            restart,
            "only \"Never\" is supported when podFailurePolicy is specified",
        );
    }
}

fn failure_policy(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let rules_at = at.field("rules");
    for (i, rule) in items(&spec["podFailurePolicy"], "rules") {
        let at = rules_at.index(i);
        match text(rule, "action") {
            "" => at.field("action").required(
                out,
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            ),
            action => {
                at.field("action").one_of(
                    out,
                    action,
                    &["Count", "FailIndex", "FailJob", "Ignore"],
                );
            }
        }
        let codes = some(rule, "onExitCodes");
        let conditions = !list(rule, "onPodConditions").is_empty();
        match (codes.is_some(), conditions) {
            (true, true) => at.invalid(
                out,
                rule,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            ),
            (false, false) => at.invalid(
                out,
                rule,
                "specifying one of OnExitCodes and OnPodConditions is required",
            ),
            _ => {}
        }
        if let Some(codes) = codes {
            let at = at.field("onExitCodes");
            match text(codes, "operator") {
                "" => at
                    .field("operator")
                    .required(out, "valid values: [\"In\" \"NotIn\"]"),
                operator => {
                    at.field("operator").one_of(out, operator, &["In", "NotIn"]);
                }
            }
            if list(codes, "values").is_empty() {
                at.field("values")
                    .invalid(out, &json!([]), "at least one value is required");
            }
        }
    }
}

fn update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let completions_move = new.get("completions") == new.get("parallelism")
        && text(new, "completionMode") == "Indexed";
    if new.get("completions") != old.get("completions") && !completions_move {
        let value = new.get("completions").unwrap_or(&Value::Null);
        let detail = if text(new, "completionMode") == "Indexed" {
            "can only be modified in tandem with spec.parallelism"
        } else {
            "field is immutable"
        };
        at.field("completions").invalid(out, value, detail);
    }
    at.field("selector")
        .same(out, new.get("selector"), old.get("selector"));
    let may_move = flag(old, "suspend") && flag(new, "suspend");
    let pods = |spec: &Value| {
        // Labels are the selector's affair.
        let mut template = serde_json::json!({"spec": spec["template"]["spec"]});
        if may_move && let Some(map) = template.get_mut("spec").and_then(Value::as_object_mut) {
            for field in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
                map.remove(field);
            }
        }
        template
    };
    if pods(new) != pods(old) {
        at.field("template")
            .invalid(out, &new["template"], "field is immutable");
    }
    for field in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        at.field(field).same(out, new.get(field), old.get(field));
    }
}

pub fn cron_job(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "batch", "CronJob");
    let name = meta::name(new);
    if old.is_none() && name.len() > MAX_CRON_JOB_NAME {
        out.push(Cause::invalid(
            "metadata.name",
            &json!(name),
            &format!("must be no more than {MAX_CRON_JOB_NAME} characters"),
        ));
    }
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        at.field("schedule").required(&mut out, "");
    } else if let Err(text) = super::cron::parse(schedule) {
        at.field("schedule").invalid_text(&mut out, schedule, &text);
    }
    at.field("startingDeadlineSeconds")
        .not_negative(&mut out, spec.get("startingDeadlineSeconds"));
    match text(spec, "concurrencyPolicy") {
        "" => at.field("concurrencyPolicy").required(&mut out, ""),
        policy => {
            at.field("concurrencyPolicy")
                .one_of(&mut out, policy, &["Allow", "Forbid", "Replace"]);
        }
    }
    let job = &spec["jobTemplate"]["spec"];
    let job_at = at.field("jobTemplate");
    let job_at = job_at.field("spec");
    job_spec(
        &mut out,
        job,
        &job_at,
        old.map(|o| &o["spec"]["jobTemplate"]["spec"]),
    );
    if flag(job, "manualSelector") {
        job_at
            .field("manualSelector")
            .unsupported(&mut out, "true", &["nil", "false"]);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        at.field(field).not_negative(&mut out, spec.get(field));
    }
    out
}
