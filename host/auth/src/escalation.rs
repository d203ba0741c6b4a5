//! Nobody grants what they do not hold: the refusals of writes to roles and bindings.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>

use crate::rule::{missing, quoted};
use crate::{Rule, SubjectRules};

/// Why a caller with `owned` may not grant `wanted`; `None`: it may.
pub fn refusal(
    user: &str,
    groups: &[String],
    owned: &SubjectRules,
    wanted: &[Rule],
) -> Option<String> {
    let missing = missing(&owned.rules, wanted);
    if missing.is_empty() {
        return None;
    }
    let mut text = format!(
        "user {user:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quoted(groups),
        missing.join("\n")
    );
    if !owned.problems.is_empty() {
        text.push_str(&format!(
            "; resolution errors: [{}]",
            owned.problems.join(", ")
        ));
    }
    Some(text)
}

/// All there is: who sets an aggregation rule must hold this.
pub fn full_authority() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule {
            groups: all(),
            resources: all(),
            verbs: all(),
            ..Rule::default()
        },
        Rule {
            urls: all(),
            verbs: all(),
            ..Rule::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals_read_as_upstream() {
        let wanted =
            Rule::from_value(&json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}));
        let text = refusal(
            "u",
            &["system:authenticated".to_owned()],
            &SubjectRules::default(),
            &[wanted],
        );
        assert_eq!(
            text.as_deref(),
            Some(
                "user \"u\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
                 {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"*\"]}"
            )
        );
        let owned = SubjectRules {
            rules: full_authority().to_vec(),
            problems: Vec::new(),
        };
        assert_eq!(refusal("u", &[], &owned, &full_authority()), None);
    }
}
