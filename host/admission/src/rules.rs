//! Rules, compiled: which writes one covers, by operation, group, version and resource.

use oarlock_registry::{Operation, Target};
use oarlock_wasm::admission as wit;
use serde_json::{Value, json};

const ALL: &str = "*";
const OPERATIONS: [(Operation, u8); 4] = [
    (Operation::Create, 1),
    (Operation::Update, 2),
    (Operation::Delete, 4),
    (Operation::Connect, 8),
];
const EVERY_OPERATION: u8 = 15;

/// The operation's bit in a mask.
pub fn bit(operation: Operation) -> u8 {
    let found = OPERATIONS.iter().find(|(known, _)| *known == operation);
    found.map_or(0, |(_, bit)| *bit)
}

/// Names that count; `None`: all.
type Names = Option<Vec<String>>;

fn names(given: &[String]) -> Names {
    let all = given.is_empty() || given.iter().any(|name| name == ALL);
    (!all).then(|| given.to_vec())
}

fn has(names: &Names, name: &str) -> bool {
    names
        .as_ref()
        .is_none_or(|names| names.iter().any(|known| known == name))
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    operations: u8,
    groups: Names,
    versions: Names,
    /// Resource and subresource, each perhaps `*`.
    resources: Vec<(String, String)>,
}

impl Rule {
    /// Of texts as upstream's rules have them; empty lists mean `*`.
    pub fn new(
        operations: &[String],
        groups: &[String],
        versions: &[String],
        resources: &[String],
    ) -> Self {
        let named = |text: &String| match text.as_str() {
            ALL => EVERY_OPERATION,
            text => OPERATIONS
                .iter()
                .filter(|(known, _)| known.as_str() == text)
                .fold(0, |mask, (_, bit)| mask | bit),
        };
        let mask = operations.iter().map(named).fold(0, |all, one| all | one);
        let resources = resources.iter().map(|text| {
            let (resource, sub) = text.split_once('/').unwrap_or((text, ""));
            (resource.to_owned(), sub.to_owned())
        });
        let mut resources: Vec<_> = resources.collect();
        if resources.is_empty() {
            resources.push((ALL.to_owned(), String::new()));
        }
        Self {
            operations: if operations.is_empty() {
                EVERY_OPERATION
            } else {
                mask
            },
            groups: names(groups),
            versions: names(versions),
            resources,
        }
    }

    /// As a component describes it.
    pub fn described(rule: &wit::Rule) -> Self {
        let operations: Vec<_> = rule.operations.iter().map(operation_text).collect();
        Self::new(&operations, &rule.groups, &rule.versions, &rule.resources)
    }

    /// The operations that it covers at all.
    pub fn operations(&self) -> u8 {
        self.operations
    }

    /// Whether it covers such a write.
    pub fn covers(&self, target: &Target, operation: Operation) -> bool {
        let row = &target.row;
        self.operations & bit(operation) != 0
            && has(&self.groups, &row.group)
            && has(&self.versions, &row.version)
            && self.resources.iter().any(|(resource, sub)| {
                (resource == ALL || *resource == row.resource)
                    && (sub == ALL || *sub == target.subresource)
            })
    }
}

fn operation_text(operation: &wit::Operation) -> String {
    let operation = match operation {
        wit::Operation::Create => Operation::Create,
        wit::Operation::Update => Operation::Update,
        wit::Operation::Delete => Operation::Delete,
        wit::Operation::Connect => Operation::Connect,
    };
    operation.as_str().to_owned()
}

/// A component's rules as they are written into a status.
pub fn shown(rules: &[wit::Rule]) -> Value {
    let rule = |rule: &wit::Rule| {
        json!({
            "operations": rule.operations.iter().map(operation_text).collect::<Vec<_>>(),
            "apiGroups": rule.groups, "apiVersions": rule.versions, "resources": rule.resources,
        })
    };
    rules.iter().map(rule).collect()
}

/// Whether no policy may ever be asked about such a write: those that change what policies there are, and reviews.
pub fn is_exempt(target: &Target) -> bool {
    let row = &target.row;
    !row.stored
        || (row.group == "oarlock.dev"
            && ["admissionpolicies", "components", "componentchunks"]
                .contains(&row.resource.as_str()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oarlock_kinds::Kinds;

    use super::*;

    #[test]
    fn what_rules_cover() {
        let kinds = Kinds::builtin();
        let check = |rule: [&[&str]; 4], at: (&str, &str, &str), operation, expect: bool| {
            let texts = rule.map(|list| list.iter().map(|&t| t.to_owned()).collect::<Vec<_>>());
            let rule = Rule::new(&texts[0], &texts[1], &texts[2], &texts[3]);
            let row: Arc<_> = kinds.resource(at.0, "v1", at.1).unwrap();
            let target = Target::sub(&row, "default", "x", at.2);
            assert_eq!(rule.covers(&target, operation), expect, "{rule:?} {at:?}");
        };
        let (create, update) = (Operation::Create, Operation::Update);
        let pods = ("", "pods", "");
        let status = ("", "pods", "status");
        check([&[], &[], &[], &[]], pods, create, true);
        check([&[], &[], &[], &[]], status, update, false);
        check([&["CREATE"], &[""], &["v1"], &["pods"]], pods, create, true);
        check(
            [&["UPDATE"], &[""], &["v1"], &["pods"]],
            pods,
            create,
            false,
        );
        check([&["*"], &["apps"], &[], &["*"]], pods, create, false);
        check([&["*"], &["*"], &["v2"], &["*"]], pods, create, false);
        check([&[], &[], &[], &["pods/status"]], status, update, true);
        check([&[], &[], &[], &["pods/status"]], pods, update, false);
        check([&[], &[], &[], &["pods/*"]], status, update, true);
        check([&[], &[], &[], &["pods/*"]], pods, update, true);
        check([&[], &[], &[], &["*/status"]], status, update, true);
        check([&[], &[], &[], &["*/*"]], status, update, true);
        check([&["READ"], &[], &[], &["*/*"]], status, update, false);
        let scale = ("apps", "deployments", "scale");
        check([&[], &["apps"], &[], &["*/scale"]], scale, update, true);
    }
}
