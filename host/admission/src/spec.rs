//! An AdmissionPolicy's spec, read strictly.

use oarlock_model::LabelSelector;
use oarlock_wasm::Limits;
use serde::Deserialize;
use serde_json::Value;

use crate::rules::Rule;

/// More failures than this (and a share of the calls, see `Version`) roll a new version back.
const DEFAULT_MAX_TRAPS: u64 = 3;

/// What becomes of a write when the policy cannot decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    Fail,
    Ignore,
}

/// What a policy's answers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    Monitor,
}

/// The host's own view of a spec.
#[derive(Clone, Debug)]
pub struct PolicySpec {
    pub component: String,
    /// `None`: whatever the component looks at.
    pub rules: Option<Vec<Rule>>,
    pub namespaces: LabelSelector,
    pub objects: LabelSelector,
    pub failure: FailurePolicy,
    pub mode: Mode,
    pub order: i64,
    /// JSON text.
    pub args: String,
    pub memory_mib: Option<usize>,
    pub deadline_ms: Option<u64>,
    pub max_traps: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Raw {
    component: String,
    r#match: Option<RawMatch>,
    failure_policy: Option<String>,
    mode: Option<String>,
    order: Option<i64>,
    args: Option<Value>,
    limits: Option<RawLimits>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMatch {
    rules: Option<Vec<RawRule>>,
    namespace_selector: Option<Value>,
    object_selector: Option<Value>,
}

/// A rule as it is written, in a spec and in a status.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRule {
    operations: Option<Vec<String>>,
    api_groups: Option<Vec<String>>,
    api_versions: Option<Vec<String>>,
    resources: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawLimits {
    #[serde(rename = "memoryMiB")]
    memory_mib: Option<usize>,
    deadline_milliseconds: Option<u64>,
    max_traps: Option<u64>,
}

fn selector(value: Option<&Value>) -> Result<LabelSelector, String> {
    match value {
        None | Some(Value::Null) => Ok(LabelSelector::everything()),
        Some(selector) => LabelSelector::from_object(selector).map_err(|e| e.0),
    }
}

fn rules(raw: Vec<RawRule>) -> Vec<Rule> {
    raw.iter()
        .map(|rule| {
            Rule::new(
                rule.operations.as_deref().unwrap_or_default(),
                rule.api_groups.as_deref().unwrap_or_default(),
                rule.api_versions.as_deref().unwrap_or_default(),
                rule.resources.as_deref().unwrap_or_default(),
            )
        })
        .collect()
}

/// The rules that the status of an earlier run says that the component has.
pub fn described_rules(object: &Value) -> Option<Vec<Rule>> {
    let raw = object.pointer("/status/policy/rules")?;
    Vec::<RawRule>::deserialize(raw).ok().map(rules)
}

impl PolicySpec {
    pub fn parse(spec: &Value) -> Result<Self, String> {
        let raw = Raw::deserialize(spec).map_err(|e| e.to_string())?;
        let matching = raw.r#match.unwrap_or_default();
        let limits = raw.limits.unwrap_or_default();
        let failure = match raw.failure_policy.as_deref() {
            None | Some("" | "Fail") => FailurePolicy::Fail,
            Some("Ignore") => FailurePolicy::Ignore,
            Some(other) => {
                return Err(format!(
                    "spec.failurePolicy: {other:?} is neither Fail nor Ignore"
                ));
            }
        };
        let mode = match raw.mode.as_deref() {
            None | Some("" | "Enforce") => Mode::Enforce,
            Some("Monitor") => Mode::Monitor,
            Some(other) => {
                return Err(format!(
                    "spec.mode: {other:?} is neither Enforce nor Monitor"
                ));
            }
        };
        Ok(Self {
            component: raw.component,
            rules: matching.rules.filter(|rules| !rules.is_empty()).map(rules),
            namespaces: selector(matching.namespace_selector.as_ref())
                .map_err(|e| format!("spec.match.namespaceSelector: {e}"))?,
            objects: selector(matching.object_selector.as_ref())
                .map_err(|e| format!("spec.match.objectSelector: {e}"))?,
            failure,
            mode,
            order: raw.order.unwrap_or(0),
            args: raw
                .args
                .filter(|args| !args.is_null())
                .map_or_else(|| "{}".to_owned(), |args| args.to_string()),
            memory_mib: limits.memory_mib,
            deadline_ms: limits.deadline_milliseconds,
            max_traps: limits.max_traps.unwrap_or(DEFAULT_MAX_TRAPS),
        })
    }

    /// The host's limits, and what the policy says of them.
    pub fn limits(&self, host: &Limits) -> Limits {
        Limits {
            memory_mib: self.memory_mib.unwrap_or(host.memory_mib),
            deadline_ms: self.deadline_ms.unwrap_or(host.deadline_ms),
            ..host.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_fields_have_their_defaults() {
        let spec = PolicySpec::parse(&json!({"component": "a", "match": {"rules": []}})).unwrap();
        assert_eq!(
            (spec.failure, spec.mode, spec.order, spec.args.as_str()),
            (FailurePolicy::Fail, Mode::Enforce, 0, "{}")
        );
        assert!(spec.rules.is_none() && spec.objects.is_everything());
        assert_eq!(spec.limits(&Limits::default()), Limits::default());
        let limits = json!({"memoryMiB": 3, "deadlineMilliseconds": 70});
        let spec = PolicySpec::parse(&json!({"component": "a", "limits": limits})).unwrap();
        let limits = spec.limits(&Limits::default());
        assert_eq!((limits.memory_mib, limits.deadline_ms), (3, 70));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |spec: Value, expect: &str| {
            let error = PolicySpec::parse(&spec).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check(json!({"failurePolicy": "Shrug"}), "spec.failurePolicy");
        check(json!({"mode": "Watch"}), "spec.mode");
        let selector = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        check(
            json!({"match": {"objectSelector": selector}}),
            "spec.match.objectSelector",
        );
    }
}
