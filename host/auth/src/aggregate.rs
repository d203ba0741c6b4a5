//! Aggregated cluster roles: which rules one that has an `aggregationRule` must have.

use oarlock_model::{LabelSelector, meta};
use serde_json::Value;

/// The rules that `role` must have, given all cluster roles in order of their names; `None`: it aggregates nothing.
/// Rules of one selector come in order of the roles' names, each once.
pub fn rules<'a>(role: &Value, all: impl Iterator<Item = &'a Value> + Clone) -> Option<Vec<Value>> {
    let selectors = role
        .get("aggregationRule")?
        .get("clusterRoleSelectors")
        .and_then(Value::as_array)?;
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_object(selector) else {
            continue;
        };
        let chosen = all
            .clone()
            .filter(|other| meta::name(other) != meta::name(role))
            .filter(|other| selector.matches(meta::labels(other)));
        for other in chosen {
            for rule in other
                .get("rules")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_of_chosen_roles_come_once() {
        let one = json!({"metadata": {"name": "a", "labels": {"to": "x"}}, "rules": [{"verbs": ["get"]}]});
        let two = json!({"metadata": {"name": "b", "labels": {"to": "x"}}, "rules": [{"verbs": ["get"]}, {"verbs": ["list"]}]});
        let other = json!({"metadata": {"name": "c"}, "rules": [{"verbs": ["watch"]}]});
        let whole = json!({"metadata": {"name": "x"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "x"}}]}});
        let all = [one, two, other.clone(), whole.clone()];
        assert_eq!(
            rules(&whole, all.iter()),
            Some(vec![json!({"verbs": ["get"]}), json!({"verbs": ["list"]})])
        );
        assert_eq!(rules(&other, all.iter()), None);
    }
}
