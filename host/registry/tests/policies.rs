//! Admission policies against the memory store: what they refuse, tell and change, and from when on.

#![expect(clippy::unwrap_used, reason = "a test may fail here")]

mod house;

use oarlock_registry::{Body, Deleted};
use serde_json::{Value, json};

use house::*;

const GROUP: &str = "admissionregistration.k8s.io";

/// A policy about config maps and its binding, both named `p`.
async fn policy(house: &House, kind: &str, of: Value, binding: Value) {
    let (policies, name) = match kind {
        "validating" => (
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ),
        _ => (
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ),
    };
    // A mutating policy has nothing to change of what goes.
    let operations = match kind {
        "validating" => json!(["CREATE", "UPDATE", "DELETE"]),
        _ => json!(["CREATE", "UPDATE"]),
    };
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["configmaps"],
        }]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
    });
    let mut bound = json!({"policyName": "p"});
    for (into, from) in [(&mut spec, of), (&mut bound, binding)] {
        for (field, value) in from.as_object().unwrap() {
            into[field] = value.clone();
        }
    }
    let object = |spec: Value| json!({"metadata": {"name": "p"}, "spec": spec});
    house.create(GROUP, policies, object(spec)).await.unwrap();
    house.create(GROUP, name, object(bound)).await.unwrap();
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_policy_holds_for_the_next_write_and_goes_with_its_binding() {
    let house = House::new().await;
    let create =
        async |name: &str, data| house.create("", "configmaps", config_map(name, data)).await;
    create("before", json!({"a": "aaaaaaaa"})).await.unwrap();
    let rule = json!({"validations": [{"expression": "request.operation == 'DELETE' || object.data.a.size() < 5"}]});
    policy(
        &house,
        "validating",
        rule,
        json!({"validationActions": ["Deny"]}),
    )
    .await;
    let error = create("bad", json!({"a": "aaaaaaaa"})).await.unwrap_err();
    assert_eq!(error.code(), 422);
    assert!(error.message.ends_with(
        "denied request: failed expression: request.operation == 'DELETE' || object.data.a.size() < 5"
    ));
    create("good", json!({"a": "a"})).await.unwrap();
    let error = house
        .merge("configmaps", "good", json!({"data": {"a": "aaaaaaaa"}}))
        .await
        .unwrap_err();
    assert_eq!(error.code(), 422);
    assert!(matches!(
        house.delete("configmaps", "before").await,
        Ok(Deleted::Gone(_))
    ));
    let binding = house.target(GROUP, "validatingadmissionpolicybindings", "p");
    let options = oarlock_registry::DeleteOptions::default();
    house
        .registry
        .delete(&ctx(), &binding, &options)
        .await
        .unwrap();
    create("late", json!({"a": "aaaaaaaa"})).await.unwrap();
}

#[tokio::test]
async fn a_deletion_is_judged_by_what_goes() {
    let house = House::new().await;
    let rule = json!({"validations": [{"expression": "object != null || oldObject.data.keep != 'yes'", "message": "kept"}]});
    policy(
        &house,
        "validating",
        rule,
        json!({"validationActions": ["Deny"]}),
    )
    .await;
    house
        .create("", "configmaps", config_map("kept", json!({"keep": "yes"})))
        .await
        .unwrap();
    let error = house.delete("configmaps", "kept").await.unwrap_err();
    assert!(
        error.message.ends_with("denied request: kept"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn warnings_let_pass() {
    let house = House::new().await;
    policy(
        &house,
        "validating",
        json!({"variables": [{"name": "n", "expression": "object.metadata.name"}],
            "validations": [{"expression": "variables.n == 'x'", "messageExpression": "'not ' + variables.n"}]}),
        json!({"validationActions": ["Warn", "Audit"]}),
    )
    .await;
    let (ctx, target) = (ctx(), house.target("", "configmaps", ""));
    let body = Body::Value(config_map("a", json!({})));
    house.registry.create(&ctx, &target, body).await.unwrap();
    assert_eq!(
        *ctx.warnings.lock(),
        ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': not a",]
    );
}

#[tokio::test]
async fn what_cannot_be_evaluated_may_be_ignored() {
    let house = House::new().await;
    policy(
        &house,
        "validating",
        json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.nope == 'x'"}]}),
        json!({"validationActions": ["Deny"]}),
    )
    .await;
    house
        .create("", "configmaps", config_map("a", json!({"b": "c"})))
        .await
        .unwrap();
}

#[tokio::test]
async fn mutations_follow_one_another() {
    let house = House::new().await;
    policy(
        &house,
        "mutating",
        json!({
            "matchConditions": [{"name": "a", "expression": "request.operation == 'CREATE'"}],
            "variables": [{"name": "n", "expression": "object.metadata.name + '-x'"}],
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                    "Object{metadata: Object.metadata{labels: {'name': variables.n}}, data: {'one': '1'}}"}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression":
                    "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('two'), value: object.data.one + '2'}]"}},
            ],
        }),
        json!({}),
    )
    .await;
    let made = house
        .create("", "configmaps", config_map("m", json!({"a": "b"})))
        .await
        .unwrap();
    assert_eq!(made["data"], json!({"a": "b", "one": "1", "two": "12"}));
    assert_eq!(made["metadata"]["labels"], json!({"name": "m-x"}));
    let changed = house
        .merge("configmaps", "m", json!({"data": {"two": "3"}}))
        .await
        .unwrap();
    assert_eq!(changed["data"]["two"], "3");
}

#[tokio::test]
async fn a_mutation_that_does_not_fit_refuses() {
    let house = House::new().await;
    policy(
        &house,
        "mutating",
        json!({"mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{data: 1}"}},
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{data: {'a': object.data.nope}}"}},
        ]}),
        json!({}),
    )
    .await;
    let error = house
        .create("", "configmaps", config_map("m", json!({"a": "b"})))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.reason.as_str(), error.causes.len()),
        (403, "Invalid", 2)
    );
    assert!(
        error
            .message
            .starts_with("policy 'p' with binding 'p' denied request: error applying patch: ")
    );
    assert_eq!(
        error.causes[1].message,
        "policy 'p' with binding 'p' denied request: expression 'Object{data: {'a': object.data.nope}}' resulted in error: no such key: nope"
    );
}

/// Creates a config map and gives what the audit would be told.
async fn noted(house: &House, data: Value) -> std::collections::BTreeMap<String, String> {
    let mut ctx = ctx();
    let trail = std::sync::Arc::new(oarlock_registry::Trail::default());
    ctx.trail = Some(std::sync::Arc::clone(&trail));
    let target = house.target("", "configmaps", "");
    let body = Body::Value(json!({"metadata": {"generateName": "m-"}, "data": data}));
    house.registry.create(&ctx, &target, body).await.unwrap();
    trail.notes()
}

#[tokio::test]
async fn the_audit_is_told_of_failures_and_annotations() {
    let house = House::new().await;
    policy(
        &house,
        "validating",
        json!({
            "validations": [{"expression": "true"}, {"expression": "object.data.a == 'b'", "message": "not b"}],
            "auditAnnotations": [
                {"key": "a", "valueExpression": "object.data.a == 'b' ? ' ' : ' ' + object.data.a + ' '"},
                {"key": "empty", "valueExpression": "''"},
            ],
        }),
        json!({"validationActions": ["Warn", "Audit"]}),
    )
    .await;
    let notes = noted(&house, json!({"a": "c"})).await;
    assert_eq!(notes["p/a"], "c");
    assert_eq!(
        notes["validation.policy.admission.k8s.io/validation_failure"],
        r#"[{"message":"not b","policy":"p","binding":"p","expressionIndex":1,"validationActions":["Warn","Audit"]}]"#
    );
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(noted(&house, json!({"a": "b"})).await.is_empty());
    // What an annotation cannot be made of is refused.
    let error = house
        .create("", "configmaps", config_map("x", json!({})))
        .await
        .unwrap_err();
    assert!(
        error
            .message
            .contains("denied request: expression 'object.data.a == 'b' ? ' '"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn parameters_of_an_unknown_kind_are_refused() {
    let house = House::new().await;
    policy(
        &house,
        "validating",
        json!({"validations": [{"expression": "params != null"}], "paramKind": {"apiVersion": "sea.example.com/v1", "kind": "Tide"}}),
        json!({"validationActions": ["Deny"], "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"}}),
    )
    .await;
    let error = house
        .create("", "configmaps", config_map("x", json!({})))
        .await
        .unwrap_err();
    assert!(
        error.message.ends_with(
            "ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find resource referenced by \
             paramKind: 'sea.example.com/v1, Kind=Tide'"
        ),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn equivalent_versions_are_judged_as_the_version_that_the_rules_name() {
    let house = House::new().await;
    let check = async |match_policy: &str, name: &str| {
        let rules = json!({"matchPolicy": match_policy, "resourceRules": [{
            "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["horizontalpodautoscalers"],
        }]});
        let object = json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": rules,
            "validations": [{"expression": "object.apiVersion == 'autoscaling/v1' && request.kind.version == 'v1' && \
                request.requestKind.version == 'v2' && object.spec.targetCPUUtilizationPercentage == 10"}],
        }});
        house
            .create(GROUP, "validatingadmissionpolicies", object)
            .await
            .unwrap();
        let bound = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        house
            .create(GROUP, "validatingadmissionpolicybindings", bound)
            .await
            .unwrap();
    };
    let scaler = |name: &str, percent: u32| {
        json!({"metadata": {"name": name}, "spec": {
            "maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}],
        }})
    };
    let row = house
        .registry
        .kinds()
        .resource("autoscaling", "v2", "horizontalpodautoscalers")
        .unwrap();
    let target = oarlock_registry::Target::new(&row, "default", "");
    let create = async |object: Value| {
        house
            .registry
            .create(&ctx(), &target, Body::Value(object))
            .await
    };
    check("Exact", "exact").await;
    create(scaler("a", 20)).await.unwrap();
    check("Equivalent", "equivalent").await;
    create(scaler("b", 10)).await.unwrap();
    let error = create(scaler("c", 20)).await.unwrap_err();
    assert!(error.message.contains("'equivalent'"), "{}", error.message);
}

#[tokio::test]
async fn a_mutation_of_another_version_comes_back_in_the_caller_s() {
    let house = House::new().await;
    let rules = json!({"matchPolicy": "Equivalent", "resourceRules": [{
        "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["horizontalpodautoscalers"],
    }]});
    let mutation = "Object{spec: Object.spec{targetCPUUtilizationPercentage: object.spec.targetCPUUtilizationPercentage + 5}}";
    let object = json!({"metadata": {"name": "m"}, "spec": {
        "matchConstraints": rules, "reinvocationPolicy": "Never", "failurePolicy": "Fail",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": mutation}}],
    }});
    house
        .create(GROUP, "mutatingadmissionpolicies", object)
        .await
        .unwrap();
    let bound = json!({"metadata": {"name": "m"}, "spec": {"policyName": "m"}});
    house
        .create(GROUP, "mutatingadmissionpolicybindings", bound)
        .await
        .unwrap();
    let row = house
        .registry
        .kinds()
        .resource("autoscaling", "v2", "horizontalpodautoscalers")
        .unwrap();
    let target = oarlock_registry::Target::new(&row, "default", "");
    let body = json!({"metadata": {"name": "a"}, "spec": {
        "maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 10}}}],
    }});
    let made = house
        .registry
        .create(&ctx(), &target, Body::Value(body))
        .await
        .unwrap();
    let made = made.to_value().unwrap();
    assert_eq!(made["apiVersion"], "autoscaling/v2");
    assert_eq!(
        made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        15
    );
}
