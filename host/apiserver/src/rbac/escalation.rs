//! Admission that lets nobody grant what they do not hold, unless they were given the verbs `escalate` or `bind`.

use std::sync::Arc;

use async_trait::async_trait;
use oarlock_auth::{Answer, Ask, GROUP, Rule, escalation};
use oarlock_model::{ApiError, ApiResult, Reason, meta};
use oarlock_registry::{Admission, AdmissionRequest, Operation, Registry, Target, User};
use serde_json::Value;

use super::Rbac;
use crate::auth::is_master;

#[derive(Debug)]
pub(super) struct Escalation(pub Arc<Rbac>);

#[async_trait]
impl Admission for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        target.row.group == GROUP && matches!(operation, Operation::Create | Operation::Update)
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let (user, target) = (&*request.context.user, request.target);
        let Some(object) = request.object.as_deref() else {
            return Ok(());
        };
        if is_master(user)
            || request
                .old
                .is_some_and(|old| only_for_collection(object, old))
        {
            return Ok(());
        }
        if target.row.resource.ends_with("bindings") {
            self.binding(registry, user, target, object).await
        } else {
            self.role(user, target, object, request.old)
        }
    }
}

impl Escalation {
    fn role(
        &self,
        user: &User,
        target: &Target,
        role: &Value,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        let escalate = Ask {
            verb: "escalate",
            is_resource: true,
            group: GROUP,
            resource: &target.row.resource,
            namespace: &target.namespace,
            // A create names nothing in its path.
            name: if old.is_some() { &target.name } else { "" },
            ..Ask::default()
        };
        if self.allowed(user, &escalate) {
            return Ok(());
        }
        self.confirm(user, target, role, &Rule::all_of(role))?;
        let aggregates = |role: &Value| {
            role.get("aggregationRule")
                .is_some_and(|rule| !rule.is_null())
        };
        let owned = self.0.rules_of(user, &target.namespace);
        if (aggregates(role) || old.is_some_and(aggregates))
            && escalation::refusal(
                &user.name,
                &user.groups,
                &owned,
                &escalation::full_authority(),
            )
            .is_some()
        {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(refused(target, role, why));
        }
        Ok(())
    }

    async fn binding(
        &self,
        registry: &Registry,
        user: &User,
        target: &Target,
        binding: &Value,
    ) -> ApiResult<()> {
        let text = |field: &str| {
            binding
                .get("roleRef")
                .and_then(|role| role.get(field))
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (resource, namespace) = match text("kind") {
            "Role" => ("roles", target.namespace.as_str()),
            "ClusterRole" => ("clusterroles", ""),
            // Validation refuses it.
            _ => return Ok(()),
        };
        let bind = Ask {
            verb: "bind",
            is_resource: true,
            group: text("apiGroup"),
            resource,
            namespace: &target.namespace,
            name: text("name"),
            ..Ask::default()
        };
        if self.allowed(user, &bind) {
            return Ok(());
        }
        let name = text("name");
        let row = &target.row;
        let missing = || ApiError::not_found(&row.group, &row.resource, name);
        let of_role = registry
            .kinds()
            .resource(GROUP, "v1", resource)
            .ok_or_else(missing)?;
        let ctx = super::context(user.name.clone(), "");
        // Read from the store: the role may be younger than what the index has seen.
        let role = registry
            .get(&ctx, &Target::new(&of_role, namespace, name), "")
            .await
            .map_err(|error| {
                if error.reason == Reason::NotFound {
                    missing()
                } else {
                    error
                }
            })?
            .to_value()
            .map_err(ApiError::internal)?;
        self.confirm(user, target, binding, &Rule::all_of(&role))
    }

    fn allowed(&self, user: &User, ask: &Ask<'_>) -> bool {
        matches!(self.0.answer(user, ask), Answer::Allowed(_))
    }

    fn confirm(
        &self,
        user: &User,
        target: &Target,
        object: &Value,
        wanted: &[Rule],
    ) -> ApiResult<()> {
        let owned = self.0.rules_of(user, &target.namespace);
        match escalation::refusal(&user.name, &user.groups, &owned, wanted) {
            None => Ok(()),
            Some(why) => Err(refused(target, object, &why)),
        }
    }
}

fn refused(target: &Target, object: &Value, why: &str) -> ApiError {
    let row = &target.row;
    ApiError::forbidden(&row.group, &row.resource, meta::name(object), why)
}

/// Whether an update changes no more than what the garbage collector must.
fn only_for_collection(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        let metadata = meta::metadata_mut(&mut object);
        for field in [
            "ownerReferences",
            "finalizers",
            "managedFields",
            "resourceVersion",
            "selfLink",
        ] {
            metadata.remove(field);
        }
        object
    };
    rest(new) == rest(old)
}
