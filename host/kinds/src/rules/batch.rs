//! Jobs and cron jobs.

use oarlock_model::{Cause, LabelSelector, meta};
use serde_json::{Value, json};

use super::metadata::{label_selector, meta_of, object_meta, object_meta_update, shown_labels};
use super::names::{dns_label, dns_subdomain, qualified_name};
use super::path::{Causes, Path, flag, list, some, text};
use super::workload::{template, unchanged};

/// A job's pods are named after it.
const MAX_CRON_JOB_NAME: usize = 52;

pub fn job(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let in_status = old.is_some_and(|old| old["spec"] == *spec && old["status"] != new["status"]);
    if let Some(old) = old {
        object_meta_update(&mut out, new, old, 1);
        if in_status {
            object_meta_update(&mut out, new, old, 1);
            super::job_status::update(&mut out, new, old);
            return out;
        }
    }
    object_meta(&mut out, new, "batch", "Job");
    generated_selector(&mut out, new);
    // Upstream checks an updated job twice, and so tells everything twice.
    for round in 0..if old.is_some() { 2 } else { 1 } {
        if round == 1
            && let Some(old) = old
        {
            object_meta_update(&mut out, new, old, 1);
        }
        job_spec(&mut out, spec, &at);
        selector(&mut out, spec, &at);
        if round == 0 {
            host_names(&mut out, new);
        }
    }
    if let Some(old) = old {
        update(&mut out, new, old, &at);
    }
    out
}

/// Pods of an indexed job are named after it and their index.
fn host_names(out: &mut Causes, job: &Value) {
    let spec = &job["spec"];
    let last = spec.get("completions").and_then(Value::as_i64).unwrap_or(0) - 1;
    if text(spec, "completionMode") != "Indexed" || last < 0 {
        return;
    }
    let name = meta::name(job);
    let host = format!("{name}-{last}");
    if !dns_label(&host).is_empty() {
        let at = Path::new("metadata");
        let detail = format!("will not able to create pod with invalid DNS label: {host}");
        at.field("name").invalid_text(out, name, &detail);
    }
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
    if some(spec, "selector").is_none() {
        return;
    }
    for (label, value) in own {
        let detail = format!("must be '{value}'");
        match meta::label(&spec["template"], label) {
            Some(other) if other == value => {}
            Some(_) => {
                let labels = shown_labels(&spec["template"]);
                labels_at.key(label).invalid(out, &labels, &detail);
            }
            None => labels_at.key(label).required(out, &detail),
        }
    }
    let labels: serde_json::Map<String, Value> = own
        .into_iter()
        .map(|(label, value)| (label.to_owned(), json!(value)))
        .collect();
    if let Some(selector) = some(spec, "selector")
        && LabelSelector::from_object(selector).is_ok_and(|s| !s.matches(Some(&labels)))
    {
        at.field("selector")
            .invalid(out, selector, "`selector` not auto-generated");
    }
}

const MAX_MANAGED_BY: usize = 63;
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
/// From here on, an indexed job with retries of its own per index is held to tighter limits.
const MANY_COMPLETIONS: i64 = 100_000;
const FEW: i64 = 10_000;

fn job_spec(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        at.field(field).not_negative(out, spec.get(field));
    }
    let per_index = some(spec, "backoffLimitPerIndex");
    if some(spec, "maxFailedIndexes").is_some() && per_index.is_none() {
        at.field("backoffLimitPerIndex")
            .required(out, "when maxFailedIndexes is specified");
    }
    if let Some(manager) = some(spec, "managedBy").and_then(Value::as_str) {
        let at = at.field("managedBy");
        domain_path(out, manager, &at);
        if manager.len() > MAX_MANAGED_BY {
            out.push(Cause::too_long(at.to_string(), MAX_MANAGED_BY));
        }
    }
    let mode = text(spec, "completionMode");
    if some(spec, "completionMode").is_some() {
        at.field("completionMode")
            .one_of(out, mode, &["Indexed", "NonIndexed"]);
    }
    match mode {
        "Indexed" => indexed(out, spec, at),
        "" | "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = some(spec, field) {
                    at.field(field)
                        .invalid(out, value, "requires indexed completion mode");
                }
            }
        }
        _ => {}
    }
    let fails = some(spec, "podFailurePolicy").is_some();
    if fails {
        failure_policy(out, spec, &at.field("podFailurePolicy"));
    }
    if let Some(policy) = some(spec, "successPolicy") {
        let at = at.field("successPolicy");
        if mode == "Indexed" {
            success_policy(out, spec, policy, &at);
        } else {
            let shown = super::face::show("SuccessPolicy", policy);
            let message = format!("Invalid value: {shown}: requires indexed completion mode");
            out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
        }
    }
    if let Some(policy) = some(spec, "podReplacementPolicy").and_then(Value::as_str) {
        let supported: &[&str] = if fails {
            &["Failed"]
        } else {
            &["Failed", "TerminatingOrFailed"]
        };
        at.field("podReplacementPolicy")
            .one_of(out, policy, supported);
    }
    let template_at = at.field("template");
    template(out, &spec["template"], &template_at, None);
    let policy_at = template_at.field("spec");
    let policy_at = policy_at.field("restartPolicy");
    match text(&spec["template"]["spec"], "restartPolicy") {
        "" | "Always" => policy_at.required(out, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if fails => policy_at.invalid_text(
            out,
            "OnFailure",
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        "OnFailure" | "Never" => {}
        other => policy_at.unsupported(out, other, &["OnFailure", "Never"]),
    }
}

/// `DOMAIN/PATH`
fn domain_path(out: &mut Causes, text: &str, at: &Path<'_>) {
    if text.is_empty() {
        at.required(out, "");
        return;
    }
    let Some((domain, path)) = text
        .split_once('/')
        .filter(|(d, p)| !d.is_empty() && !p.is_empty())
    else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        at.invalid_text(out, text, detail);
        return;
    };
    for error in dns_subdomain(domain) {
        at.invalid_text(out, domain, &error);
    }
    let fits = path
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:".contains(&b));
    if !fits {
        at.invalid_text(
            out,
            path,
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        );
    }
}

fn indexed(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let number = |field: &str| some(spec, field).and_then(Value::as_i64);
    let (completions, parallel) = (number("completions"), number("parallelism"));
    let (most, per_index) = (number("maxFailedIndexes"), number("backoffLimitPerIndex"));
    let refuse = |out: &mut Causes, field: &str, value: i64, detail: String| {
        at.field(field).invalid(out, &json!(value), &detail);
    };
    if completions.is_none() {
        at.field("completions")
            .required(out, "when completion mode is Indexed");
    }
    if let Some(parallel) = parallel.filter(|p| *p > MAX_INDEXED_PARALLELISM) {
        let detail = format!(
            "must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed"
        );
        refuse(out, "parallelism", parallel, detail);
    }
    if let (Some(most), Some(completions)) = (most, completions)
        && most > completions
    {
        let detail = "must be less than or equal to completions".to_owned();
        refuse(out, "maxFailedIndexes", most, detail);
    }
    if let Some(most) = most.filter(|m| *m > MAX_FAILED_INDEXES) {
        let detail = format!("must be less than or equal to {MAX_FAILED_INDEXES}");
        refuse(out, "maxFailedIndexes", most, detail);
    }
    if completions.is_none_or(|c| c <= MANY_COMPLETIONS) || per_index.is_none() {
        return;
    }
    if most.is_none() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        at.field("maxFailedIndexes").required(out, &detail);
    }
    for (field, value) in [("parallelism", parallel), ("maxFailedIndexes", most)] {
        if let Some(value) = value.filter(|v| *v > FEW) {
            let detail = format!(
                "must be less than or equal to {FEW} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
            );
            refuse(out, field, value, detail);
        }
    }
}

const MAX_SUCCESS_RULES: usize = 20;
const MAX_INDEXES_BYTES: usize = 64 * 1024;

fn success_policy(out: &mut Causes, spec: &Value, policy: &Value, at: &Path<'_>) {
    let rules = list(policy, "rules");
    let rules_at = at.field("rules");
    if rules.is_empty() {
        rules_at.required(
            out,
            "at least one rules must be specified when the successPolicy is specified",
        );
    }
    if rules.len() > MAX_SUCCESS_RULES {
        out.push(Cause::too_many(
            rules_at.to_string(),
            rules.len(),
            MAX_SUCCESS_RULES,
        ));
    }
    let completions = spec.get("completions").and_then(Value::as_i64).unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        let at = rules_at.index(i);
        let indexes = some(rule, "succeededIndexes").and_then(Value::as_str);
        let count = some(rule, "succeededCount").and_then(Value::as_i64);
        if indexes.is_none() && count.is_none() {
            at.required(
                out,
                "at least one of succeededCount or succeededIndexes must be specified",
            );
        }
        let mut total = 0;
        if let Some(indexes) = indexes {
            let at = at.field("succeededIndexes");
            if indexes.len() > MAX_INDEXES_BYTES {
                out.push(Cause::too_long(at.to_string(), MAX_INDEXES_BYTES));
            }
            match super::job_status::indexes(indexes, completions) {
                Ok(all) => total = all,
                Err(why) => {
                    let detail = format!("error parsing succeededIndexes: {why}");
                    at.invalid_text(out, indexes, &detail);
                }
            }
        }
        let Some(count) = count else { continue };
        let at = at.field("succeededCount");
        at.not_negative(out, Some(&json!(count)));
        if count > completions {
            let detail = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            at.invalid(out, &json!(count), &detail);
        }
        if indexes.is_some() && count > total {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            at.invalid(out, &json!(count), &detail);
        }
    }
}

const MAX_FAILURE_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;

fn failure_policy(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let rules_at = at.field("rules");
    let rules = list(&spec["podFailurePolicy"], "rules");
    if rules.len() > MAX_FAILURE_RULES {
        out.push(Cause::too_many(
            rules_at.to_string(),
            rules.len(),
            MAX_FAILURE_RULES,
        ));
    }
    for (i, rule) in rules.iter().enumerate() {
        failure_rule(out, spec, rule, &rules_at.index(i));
    }
}

fn failure_rule(out: &mut Causes, spec: &Value, rule: &Value, at: &Path<'_>) {
    let action_at = at.field("action");
    match text(rule, "action") {
        "" => action_at.required(
            out,
            "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
        ),
        "FailIndex" => {
            if some(spec, "backoffLimitPerIndex").is_none() {
                let detail = "requires the backoffLimitPerIndex to be set";
                action_at.invalid_text(out, "FailIndex", detail);
            }
        }
        action => {
            action_at.one_of(out, action, &["Count", "FailIndex", "FailJob", "Ignore"]);
        }
    }
    let codes = some(rule, "onExitCodes");
    if let Some(codes) = codes {
        exit_codes(out, spec, codes, &at.field("onExitCodes"));
    }
    let patterns = list(rule, "onPodConditions");
    let patterns_at = at.field("onPodConditions");
    if patterns.len() > MAX_PATTERNS {
        out.push(Cause::too_many(
            patterns_at.to_string(),
            patterns.len(),
            MAX_PATTERNS,
        ));
    }
    for (j, pattern) in patterns.iter().enumerate() {
        let at = patterns_at.index(j);
        let kind = text(pattern, "type");
        at.field("type")
            .all_invalid(out, kind, qualified_name(kind));
        match text(pattern, "status") {
            "" => at
                .field("status")
                .required(out, "valid values: [\"False\" \"True\" \"Unknown\"]"),
            status => {
                at.field("status")
                    .one_of(out, status, &["False", "True", "Unknown"]);
            }
        }
    }
    // Upstream tells no value here.
    let mut refuse = |detail: &str| {
        let message = format!("Invalid value: {detail}");
        out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
    };
    match (codes.is_some(), !patterns.is_empty()) {
        (true, true) => {
            refuse("specifying both OnExitCodes and OnPodConditions is not supported");
        }
        (false, false) => {
            refuse("specifying one of OnExitCodes and OnPodConditions is required");
        }
        _ => {}
    }
}

fn exit_codes(out: &mut Causes, spec: &Value, codes: &Value, at: &Path<'_>) {
    let operator = text(codes, "operator");
    if operator.is_empty() {
        at.field("operator")
            .required(out, "valid values: [\"In\" \"NotIn\"]");
    } else {
        at.field("operator").one_of(out, operator, &["In", "NotIn"]);
    }
    if let Some(name) = some(codes, "containerName").and_then(Value::as_str) {
        let pod = &spec["template"]["spec"];
        let known = ["containers", "initContainers"]
            .iter()
            .any(|l| list(pod, l).iter().any(|c| text(c, "name") == name));
        if !known {
            at.field("containerName").invalid_text(
                out,
                name,
                "must be one of the container or initContainer names in the pod template",
            );
        }
    }
    let values = list(codes, "values");
    let values_at = at.field("values");
    if values.is_empty() {
        let shown = codes.get("values").filter(|v| !v.is_null());
        values_at.invalid(
            out,
            shown.unwrap_or(&Value::Null),
            "at least one value is required",
        );
    } else if values.len() > MAX_EXIT_CODES {
        out.push(Cause::too_many(
            values_at.to_string(),
            values.len(),
            MAX_EXIT_CODES,
        ));
    }
    for (j, value) in values.iter().enumerate() {
        let at = values_at.index(j);
        if operator == "In" && value.as_i64() == Some(0) {
            at.invalid(out, value, "must not be 0 for the In operator");
        }
        if values[..j].contains(value) {
            out.push(Cause::duplicate(at.to_string(), value));
        }
    }
    let ordered = values.is_sorted_by_key(|v| v.as_i64().unwrap_or(0));
    if !ordered {
        values_at.invalid(out, &Value::Array(values.to_vec()), "must be ordered");
    }
}

fn update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let (job, before) = (new, old);
    let (new, old) = (&job["spec"], &before["spec"]);
    let completions = new.get("completions").unwrap_or(&Value::Null);
    if Some(completions) != old.get("completions").or(Some(&Value::Null)) {
        let at = at.field("completions");
        if text(new, "completionMode") != "Indexed" {
            at.invalid(out, completions, "field is immutable");
        } else if !completions.is_null() && Some(completions) != new.get("parallelism") {
            let detail = "can only be modified in tandem with spec.parallelism";
            at.invalid(out, completions, detail);
        }
    }
    at.field("selector")
        .same(out, new.get("selector"), old.get("selector"));
    template_update(out, job, before, at);
    for field in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        if new.get(field) == old.get(field) {
            continue;
        }
        let face = match field {
            "podFailurePolicy" => "PodFailurePolicy",
            "successPolicy" => "SuccessPolicy",
            _ => "",
        };
        let shown = match some(new, field) {
            None => "null".to_owned(),
            Some(value) => super::face::show(face, value),
        };
        let message = format!("Invalid value: {shown}: field is immutable");
        let at = at.field(field);
        out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
    }
}

/// The pods of a job stay as they are, but where they may run can change as long as none has.
fn template_update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let may_move = flag(&old["spec"], "suspend") && some(&old["status"], "startTime").is_none();
    let (now, before) = (&new["spec"]["template"], &old["spec"]["template"]);
    let at = at.field("template");
    let mut refuse = |at: &Path<'_>, shown: String| {
        let message = format!("Invalid value: {shown}: field is immutable");
        out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
    };
    if !may_move {
        if template_part(now) != template_part(before) {
            refuse(&at, super::face::show("PodTemplateSpec", now));
        }
        return;
    }
    let fixed = |template: &Value| {
        let mut spec = template["spec"].clone();
        if let Some(map) = spec.as_object_mut() {
            for field in ["nodeSelector", "tolerations", "schedulingGates"] {
                map.remove(field);
            }
            if let Some(affinity) = map.get_mut("affinity").and_then(Value::as_object_mut) {
                affinity.remove("nodeAffinity");
                if affinity.is_empty() {
                    map.remove("affinity");
                }
            }
            for list in ["containers", "initContainers"] {
                for container in map
                    .get_mut(list)
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object_mut)
                {
                    container.remove("resources");
                }
            }
        }
        spec
    };
    if fixed(now) != fixed(before) {
        refuse(
            &at.field("spec"),
            super::face::show("PodSpec", &now["spec"]),
        );
    }
}

/// What of a template counts: an absent map is an empty one.
fn template_part(template: &Value) -> (Value, Value, Value) {
    let of = |field: &str| {
        let map = template["metadata"].get(field);
        map.filter(|m| m.as_object().is_some_and(|m| !m.is_empty()))
            .cloned()
            .unwrap_or(Value::Null)
    };
    (of("labels"), of("annotations"), template["spec"].clone())
}

pub fn cron_job(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "batch", "CronJob");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        at.field("schedule").required(&mut out, "");
    } else {
        if let Err(text) = super::cron::parse(schedule) {
            at.field("schedule").invalid_text(&mut out, schedule, &text);
        }
        let had_zone = old.is_some_and(|old| text(&old["spec"], "schedule").contains("TZ"));
        if schedule.contains("TZ") && !had_zone {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            at.field("schedule")
                .invalid_text(&mut out, schedule, detail);
        } else if schedule.contains("TZ") && some(spec, "timeZone").is_some() {
            let detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            at.field("schedule")
                .invalid_text(&mut out, schedule, detail);
        }
    }
    at.field("startingDeadlineSeconds")
        .not_negative(&mut out, spec.get("startingDeadlineSeconds"));
    if old.is_none_or(|old| old["spec"].get("timeZone") != spec.get("timeZone")) {
        time_zone(&mut out, spec, &at.field("timeZone"));
    }
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
    job_spec(&mut out, job, &job_at);
    if let Some(selector) = some(job, "selector") {
        job_at
            .field("selector")
            .invalid(&mut out, selector, "`selector` will be auto-generated");
    }
    if flag(job, "manualSelector") {
        out.push(Cause::not_supported(
            job_at.field("manualSelector").to_string(),
            &Value::Bool(true),
            &["nil", "false"],
        ));
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        at.field(field).not_negative(&mut out, spec.get(field));
    }
    let name = meta::name(new);
    if old.is_none() && name.len() > MAX_CRON_JOB_NAME {
        let at = Path::new("metadata");
        let detail = format!("must be no more than {MAX_CRON_JOB_NAME} characters");
        at.field("name").invalid_text(&mut out, name, &detail);
    }
    out
}

/// A name of the IANA's time zone database.
fn time_zone(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let Some(zone) = some(spec, "timeZone").and_then(Value::as_str) else {
        return;
    };
    if zone.is_empty() {
        at.invalid_text(out, zone, "timeZone must be nil or non-empty string");
        return;
    }
    let unknown = format!("unknown time zone {zone}");
    let fits = |part: &str| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if !zone.split('/').all(fits) {
        at.invalid_text(out, zone, &unknown);
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let detail =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        at.invalid_text(out, zone, detail);
    }
    let known = zone == "UTC" || zone == "Local" || jiff::tz::TimeZone::get(zone).is_ok();
    if !known {
        at.invalid_text(out, zone, &unknown);
    }
}
