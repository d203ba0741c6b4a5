//! Defaults and refusals as kube-apiserver recorded them, a few of each.

use serde_json::{Value, json};

use super::hooks;

fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    let hooks = hooks(group, kind);
    (hooks.default)(&mut object);
    let once = object.clone();
    (hooks.default)(&mut object);
    assert_eq!(object, once, "defaults of {kind} are idempotent");
    object
}

fn causes(group: &str, kind: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let causes = (hooks(group, kind).validate)(new, old);
    causes
        .iter()
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect()
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "i:1"}]})
}

fn deployment() -> Value {
    let labels = json!({"app": "a"});
    defaulted(
        "apps",
        "Deployment",
        json!({
            "metadata": {"name": "d", "namespace": "n"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod_spec()}},
        }),
    )
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    *object
        .pointer_mut(pointer)
        .expect("the pointer leads somewhere") = value;
    object
}

#[test]
fn defaults() {
    let deployment = deployment();
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    let spec = &deployment["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert!(
        spec.get("enableServiceLinks").is_none(),
        "templates leave open what pods decide"
    );

    let mut spec = pod_spec();
    spec["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
    spec["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": 80}});
    let pod = defaulted("", "Pod", json!({"spec": spec}));
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"],
        "1"
    );
    assert_eq!(
        pod["spec"]["containers"][0]["livenessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    );
    let secret = defaulted("", "Secret", json!({"stringData": {"a": "b"}}));
    assert_eq!(secret, json!({"data": {"a": "Yg=="}, "type": "Opaque", }));
    let service = defaulted("", "Service", json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        service["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])
    );
}

#[test]
fn refusals() {
    let check = |group: &str, kind: &str, new: Value, expect: &[&str]| {
        assert_eq!(causes(group, kind, &new, None), expect, "{kind}");
    };
    check("apps", "Deployment", deployment(), &[]);
    check(
        "apps",
        "Deployment",
        with(deployment(), "/spec/selector", json!({})),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    check(
        "apps",
        "Deployment",
        with(
            deployment(),
            "/spec/template/metadata/labels",
            json!({"app": "b"}),
        ),
        &[
            "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        "apps",
        "Deployment",
        with(deployment(), "/spec/template/spec/containers", json!([])),
        &["spec.template.spec.containers: Required value"],
    );
    check(
        "apps",
        "Deployment",
        with(
            deployment(),
            "/spec/template/spec/restartPolicy",
            json!("Never"),
        ),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ],
    );
    check(
        "",
        "ConfigMap",
        json!({"metadata": {"name": "a/b"}}),
        &[
            "metadata.name: Invalid value: \"a/b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check(
        "",
        "Secret",
        json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"}),
        &[
            "data[tls.crt]: Required value",
            "data[tls.key]: Required value",
        ],
    );
}

#[test]
fn updates() {
    let check =
        |group: &str, kind: &str, old: Value, pointer: &str, value: Value, expect: &[&str]| {
            let new = with(old.clone(), pointer, value);
            assert_eq!(causes(group, kind, &new, Some(&old)), expect, "{kind}");
        };
    let selector = json!({"matchLabels": {"app": "a", "x": "y"}});
    let labelled = with(
        deployment(),
        "/spec/template/metadata/labels",
        json!({"app": "a", "x": "y"}),
    );
    check(
        "apps",
        "Deployment",
        labelled,
        "/spec/selector",
        selector,
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"x\":\"y\"}}: field is immutable",
        ],
    );
    let map = json!({"metadata": {"name": "m"}, "immutable": true, "data": {"a": "1"}});
    check(
        "",
        "ConfigMap",
        map,
        "/data/a",
        json!("2"),
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );

    let pod = defaulted(
        "",
        "Pod",
        json!({"metadata": {"name": "p"}, "spec": pod_spec()}),
    );
    check(
        "",
        "Pod",
        pod.clone(),
        "/spec/containers/0/image",
        json!("i:2"),
        &[],
    );
    let refused = causes(
        "",
        "Pod",
        &with(pod.clone(), "/spec/dnsPolicy", json!("Default")),
        Some(&pod),
    );
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{refused:?}"
    );
}
