//! What a controller said that it needs, and nothing more: checked on every call before the cluster is asked.

use oarlock_model::Gvr;
use oarlock_wasm::controller::{Failure, Permission};

#[derive(Clone, Debug, Default)]
pub struct Permissions {
    granted: Vec<Permission>,
    account: String,
}

impl Permissions {
    /// `account`: the service account that refusals name.
    pub fn new(granted: Vec<Permission>, account: String) -> Self {
        Self { granted, account }
    }

    /// `subresource` is empty for the object itself. `*` in a permission stands for anything.
    pub fn check(&self, verb: &str, kind: &Gvr, subresource: &str) -> Result<(), Failure> {
        let wanted = if subresource.is_empty() {
            kind.resource.clone()
        } else {
            format!("{}/{subresource}", kind.resource)
        };
        let is = |granted: &str, wanted: &str| granted == "*" || granted == wanted;
        let granted = self.granted.iter().any(|p| {
            is(&p.group, &kind.group)
                && is(&p.resource, &wanted)
                && p.verbs.iter().any(|v| is(v, verb))
        });
        if granted {
            return Ok(());
        }
        let message = format!(
            "{} is forbidden: User {:?} cannot {verb} resource {wanted:?} in API group {:?}",
            kind.qualified_resource(),
            self.account,
            kind.group
        );
        Err(Failure {
            code: 403,
            reason: "Forbidden".to_owned(),
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_declared() {
        let grant = |group: &str, resource: &str, verbs: &[&str]| Permission {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        };
        let permissions = Permissions::new(
            vec![
                grant("", "pods", &["get", "list"]),
                grant("apps", "*", &["*"]),
            ],
            "system:serviceaccount:kube-system:x".to_owned(),
        );
        let check = |verb: &str, group: &str, resource: &str, sub: &str, allowed: bool| {
            let verdict = permissions.check(verb, &Gvr::new(group, "v1", resource), sub);
            assert_eq!(verdict.is_ok(), allowed, "{verb} {group} {resource} {sub}");
        };
        check("get", "", "pods", "", true);
        check("delete", "", "pods", "", false);
        check("get", "", "pods", "status", false);
        check("get", "", "secrets", "", false);
        check("update", "apps", "deployments", "status", true);
        let refusal = permissions
            .check("delete", &Gvr::new("", "v1", "pods"), "")
            .unwrap_err();
        assert_eq!(refusal.code, 403);
        assert!(refusal.message.contains(
            r#"User "system:serviceaccount:kube-system:x" cannot delete resource "pods""#
        ));
    }
}
