//! Node selectors (nodeSelector, node affinity terms), compiled once for a pod and matched against many nodes.
//!
//! A term that is not well-formed (an operator with the wrong number of values, a bound that is no integer) matches nothing.

use std::collections::BTreeMap;

use oarlock_model::selector::{is_label_value, is_qualified_name};

use crate::mirror::{Labels, same};
use crate::objects::{Expression, NodeSelectorTerm};

const NAME_FIELD: &str = "metadata.name";

#[derive(Debug)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

#[derive(Debug)]
struct LabelRequirement {
    key: String,
    operator: Operator,
}

impl LabelRequirement {
    fn new(expression: &Expression) -> Option<Self> {
        let values = || expression.values.clone();
        let bound = || match expression.values.as_slice() {
            [one] => one.parse::<i64>().ok(),
            _ => None,
        };
        let is_empty = expression.values.is_empty();
        let operator = match expression.operator.as_str() {
            "In" if !is_empty => Operator::In(values()),
            "NotIn" if !is_empty => Operator::NotIn(values()),
            "Exists" if is_empty => Operator::Exists,
            "DoesNotExist" if is_empty => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan(bound()?),
            "Lt" => Operator::LessThan(bound()?),
            _ => return None,
        };
        let is_valid = is_qualified_name(&expression.key)
            && expression.values.iter().all(|v| is_label_value(v));
        is_valid.then(|| Self {
            key: expression.key.clone(),
            operator,
        })
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| same(x, v))),
            Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| !same(x, v))),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

/// `metadata.name` (or a field that no node has, which reads as empty) equal or not to one value.
#[derive(Debug)]
struct FieldRequirement {
    is_name: bool,
    value: String,
    equal: bool,
}

impl FieldRequirement {
    fn new(expression: &Expression) -> Option<Self> {
        let [value] = expression.values.as_slice() else {
            return None;
        };
        let equal = match expression.operator.as_str() {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        Some(Self {
            is_name: expression.key == NAME_FIELD,
            value: value.clone(),
            equal,
        })
    }

    fn matches(&self, name: &str) -> bool {
        let actual = if self.is_name { name } else { "" };
        same(actual, &self.value) == self.equal
    }
}

/// One well-formed, non-empty term.
#[derive(Debug)]
pub struct Term {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

impl Term {
    /// `None` if the term is empty or ill-formed: it matches nothing.
    pub fn new(term: &NodeSelectorTerm) -> Option<Self> {
        if is_empty(term) {
            return None;
        }
        Some(Self {
            labels: term
                .match_expressions
                .iter()
                .map(LabelRequirement::new)
                .collect::<Option<_>>()?,
            fields: term
                .match_fields
                .iter()
                .map(FieldRequirement::new)
                .collect::<Option<_>>()?,
        })
    }

    pub fn matches(&self, labels: &Labels, name: &str) -> bool {
        self.fields.iter().all(|r| r.matches(name)) && self.labels.iter().all(|r| r.matches(labels))
    }
}

pub fn is_empty(term: &NodeSelectorTerm) -> bool {
    term.match_expressions.is_empty() && term.match_fields.is_empty()
}

/// Terms of which one must match.
#[derive(Debug)]
pub struct AnyTerm(Vec<Term>);

impl AnyTerm {
    pub fn new(terms: &[NodeSelectorTerm]) -> Self {
        Self(terms.iter().filter_map(Term::new).collect())
    }

    pub fn matches(&self, labels: &Labels, name: &str) -> bool {
        self.0.iter().any(|term| term.matches(labels, name))
    }
}

/// Labels that must all be there with these values.
#[derive(Debug, Default)]
pub struct Exactly(Vec<(String, String)>);

impl Exactly {
    pub fn new(labels: &BTreeMap<String, String>) -> Self {
        Self(labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0
            .iter()
            .all(|(key, value)| labels.get(key).is_some_and(|v| same(v, value)))
    }
}

/// The node names that `terms` allow, if every term names some: the terms are ORed, a term's names ANDed.
pub fn names_of(terms: &[NodeSelectorTerm]) -> Option<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for term in terms {
        let mut of_term: Option<Vec<String>> = None;
        for field in term
            .match_fields
            .iter()
            .filter(|f| f.key == NAME_FIELD && f.operator == "In")
        {
            of_term = Some(match of_term {
                None => field.values.clone(),
                Some(names) => names
                    .into_iter()
                    .filter(|n| field.values.contains(n))
                    .collect(),
            });
        }
        all.extend(of_term?);
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}
