//! What a job's status may say: its conditions, counts and times must go together.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::Value;

use super::path::{Causes, Path, flag, items, list, some, text};

fn number(status: &Value, field: &str) -> i64 {
    status.get(field).and_then(Value::as_i64).unwrap_or(0)
}

fn holds(job: &Value, condition: &str) -> bool {
    list(&job["status"], "conditions")
        .iter()
        .any(|c| text(c, "type") == condition && text(c, "status") == "True")
}

/// An error of the conditions: upstream tells no value.
fn refuse(out: &mut Causes, field: &str, detail: &str) {
    let at = Path::new("status");
    let message = format!("Invalid value: {detail}");
    out.push(Cause::new(
        "FieldValueInvalid",
        at.field(field).to_string(),
        message,
    ));
}

pub fn update(out: &mut Causes, new: &Value, old: &Value) {
    let at = Path::new("status");
    let status = &new["status"];
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        at.field(field).not_negative(out, status.get(field));
    }
    uncounted(out, status, &at.field("uncountedTerminatedPods"));
    conditions(out, new);
    indexes_of(out, new, &at);
    changes(out, new, old, &at);
}

fn uncounted(out: &mut Causes, status: &Value, at: &Path<'_>) {
    let mut seen = HashSet::new();
    for field in ["succeeded", "failed"] {
        let list_at = at.field(field);
        for (i, uid) in items(&status["uncountedTerminatedPods"], field) {
            let (uid, at) = (uid.as_str().unwrap_or(""), list_at.index(i));
            if uid.is_empty() {
                at.invalid_text(out, uid, "must not be empty");
            } else if !seen.insert(uid) {
                at.duplicate(out, uid);
            }
        }
    }
}

fn conditions(out: &mut Causes, job: &Value) {
    let (status, at) = (&job["status"], Path::new("status"));
    let (complete, failed) = (holds(job, "Complete"), holds(job, "Failed"));
    let (target, met) = (
        holds(job, "FailureTarget"),
        holds(job, "SuccessCriteriaMet"),
    );
    let finished = complete || failed;
    if complete && failed {
        refuse(
            out,
            "conditions",
            "cannot set Complete=True and Failed=true conditions",
        );
    }
    if complete && target {
        refuse(
            out,
            "conditions",
            "cannot set Complete=True and FailureTarget=true conditions",
        );
    }
    let (start, end) = (some(status, "startTime"), some(status, "completionTime"));
    let end_at = at.field("completionTime");
    if let Some(end) = end.filter(|_| !complete) {
        let detail = "cannot set completionTime when there is no Complete=True condition";
        end_at.invalid(out, end, detail);
    }
    if end.is_none() && complete {
        end_at.required(out, "completionTime is required for Complete jobs");
    }
    let time = |value: &Value| {
        value
            .as_str()
            .and_then(|t| t.parse::<jiff::Timestamp>().ok())
    };
    if let (Some(start), Some(end)) = (start, end)
        && time(end) < time(start)
    {
        end_at.invalid(out, end, "completionTime cannot be set before startTime");
    }
    if failed && !target {
        refuse(
            out,
            "conditions",
            "cannot set Failed=True condition without the FailureTarget=true condition",
        );
    }
    if complete && !met {
        refuse(
            out,
            "conditions",
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
    }
    let active = number(status, "active");
    if active > 0 && finished {
        at.field("active").invalid(
            out,
            &Value::from(active),
            "active>0 is invalid for finished job",
        );
    }
    if start.is_none() && finished {
        at.field("startTime")
            .required(out, "startTime is required for finished job");
    }
    let uncounted = &status["uncountedTerminatedPods"];
    if finished
        && !(list(uncounted, "succeeded").is_empty() && list(uncounted, "failed").is_empty())
    {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        at.field("uncountedTerminatedPods")
            .invalid(out, uncounted, detail);
    }
    let terminating = number(status, "terminating");
    if terminating > 0 && finished {
        at.field("terminating").invalid(
            out,
            &Value::from(terminating),
            "terminating>0 is invalid for finished job",
        );
    }
    let ready = number(status, "ready");
    if ready > active {
        at.field("ready").invalid(
            out,
            &Value::from(ready),
            "cannot set more ready pods than active",
        );
    }
    if met && failed {
        refuse(
            out,
            "conditions",
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        );
    }
    if met && target {
        refuse(
            out,
            "conditions",
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        );
    }
    if some(&job["spec"], "successPolicy").is_some() && !met && complete {
        refuse(
            out,
            "conditions",
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        );
    }
}

fn indexes_of(out: &mut Causes, job: &Value, at: &Path<'_>) {
    let (spec, status) = (&job["spec"], &job["status"]);
    let completions = some(spec, "completions").and_then(Value::as_i64);
    let completed = text(status, "completedIndexes");
    let failed = some(status, "failedIndexes").and_then(Value::as_str);
    let per_index = some(spec, "backoffLimitPerIndex").is_some();
    if let Some(completions) = completions {
        if let Err(why) = indexes(completed, completions) {
            let detail = format!("error parsing completedIndexes: {why}");
            at.field("completedIndexes")
                .invalid_text(out, completed, &detail);
        }
        if let Some(failed) = failed.filter(|_| per_index)
            && let Err(why) = indexes(failed, completions)
        {
            let detail = format!("error parsing failedIndexes: {why}");
            at.field("failedIndexes").invalid_text(out, failed, &detail);
        }
    }
    if !completed.is_empty() && text(spec, "completionMode") != "Indexed" {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        at.field("completedIndexes")
            .invalid_text(out, completed, detail);
    }
    let Some(failed) = failed else { return };
    if !per_index {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        at.field("failedIndexes").invalid_text(out, failed, detail);
    }
    if let Some(completions) = completions {
        let of = |text: &str| -> Vec<(i64, i64)> {
            text.split(',')
                .filter_map(|part| interval(part, completions).ok())
                .collect()
        };
        let done = of(completed);
        let overlap = of(failed)
            .into_iter()
            .flat_map(|(x, y)| done.iter().map(move |(a, b)| (x.max(*a), y.min(*b))))
            .find(|(x, y)| x <= y);
        if let Some((at_index, _)) = overlap {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {at_index}");
            at.field("failedIndexes").invalid_text(out, failed, &detail);
        }
    }
}

fn changes(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    for condition in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, condition) && !holds(new, condition) {
            let detail = format!("cannot disable the terminal {condition}=True condition");
            refuse(out, "conditions", &detail);
        }
    }
    let (status, before) = (&new["status"], &old["status"]);
    for field in ["failed", "succeeded"] {
        let now = number(status, field);
        if now < number(before, field) {
            let detail = format!("cannot decrease the {field} counter");
            at.field(field).invalid(out, &Value::from(now), &detail);
        }
    }
    if let (Some(now), Some(was)) = (
        some(status, "completionTime"),
        some(before, "completionTime"),
    ) && now != was
    {
        at.field("completionTime")
            .invalid(out, now, "completionTime cannot be mutated");
    }
    if some(before, "startTime").is_some()
        && some(before, "startTime") != some(status, "startTime")
        && !flag(&new["spec"], "suspend")
    {
        at.field("startTime")
            .required(out, "startTime cannot be removed for unsuspended job");
    }
    let met = |job: &Value| holds(job, "SuccessCriteriaMet");
    if met(old) && !met(new) {
        refuse(
            out,
            "conditions",
            "cannot disable the SuccessCriteriaMet=True condition",
        );
    }
    if holds(old, "Complete") && !met(old) && met(new) {
        refuse(
            out,
            "conditions",
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        );
    }
}

/// `1,3-5`: how many indexes these are, or what is wrong with them.
pub fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total): (Option<i64>, i64) = (None, 0);
    for part in text.split(',') {
        let (x, y) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= x) {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {x}"
            ));
        }
        total += y - x + 1;
        last = Some(y);
    }
    Ok(total)
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let ends: Vec<&str> = part.split('-').collect();
    if ends.len() > 2 {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let index = |text: &str| -> Result<i64, String> {
        let index: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if index >= completions {
            return Err(format!("too large index: {text:?}"));
        }
        Ok(index)
    };
    let x = index(ends[0])?;
    let Some(end) = ends.get(1) else {
        return Ok((x, x));
    };
    let y = index(end)?;
    if x >= y {
        return Err(format!("non-increasing order, previous: {x}, current: {y}"));
    }
    Ok((x, y))
}
