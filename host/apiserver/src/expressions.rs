//! What `authorizer` answers in the expressions of admission policies: what the server itself answers requests by.

use oarlock_model::FieldSelector;
use oarlock_registry::{AuthorizationAttributes, AuthorizationDecision, Authorize, User};

use crate::auth::{Access, Attributes, Decision};
use crate::route::ResourcePath;

#[derive(Debug)]
pub struct ByAccess(pub Access);

impl Authorize for ByAccess {
    fn decide(&self, user: &User, asked: &AuthorizationAttributes) -> AuthorizationDecision {
        let resource = asked.path.is_empty().then(|| ResourcePath {
            group_version: "",
            group: &asked.group,
            version: "",
            namespace: &asked.namespace,
            resource: &asked.resource,
            name: &asked.name,
            subresource: &asked.subresource,
            watch_prefix: false,
        });
        let fields = FieldSelector::parse(&asked.field_selector).unwrap_or_default();
        let attributes = Attributes {
            verb: &asked.verb,
            path: &asked.path,
            resource,
            fields: Some(&fields),
        };
        let decision = self.0.decide(user, &attributes);
        let allowed = matches!(decision, Decision::Allow(_));
        let (Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason)) =
            decision;
        AuthorizationDecision {
            allowed,
            reason,
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_the_server_does() {
        let by = ByAccess(Access::default());
        let asked = AuthorizationAttributes {
            verb: "get".to_owned(),
            resource: "pods".to_owned(),
            ..AuthorizationAttributes::default()
        };
        let mut user = User {
            name: "someone".to_owned(),
            ..User::default()
        };
        assert!(!by.decide(&user, &asked).allowed);
        user.groups.push("system:masters".to_owned());
        assert!(by.decide(&user, &asked).allowed);
    }
}
