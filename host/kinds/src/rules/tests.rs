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

/// A pod whose spec has these fields besides a container.
fn pod_with(fields: Value) -> Value {
    let mut spec = pod_spec();
    for (field, value) in fields.as_object().expect("fields") {
        spec[field] = value.clone();
    }
    defaulted(
        "",
        "Pod",
        json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}),
    )
}

#[test]
fn pods_in_depth() {
    let container = |fields: Value| {
        let mut one = json!({"name": "c", "image": "i:1"});
        for (field, value) in fields.as_object().expect("fields") {
            one[field] = value.clone();
        }
        json!({"containers": [one]})
    };
    let cases = [
        (
            container(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}})),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (
            container(json!({"resources": {"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}})),
            "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
        ),
        (
            container(json!({"securityContext": {"procMount": "Unmasked"}})),
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "downwardAPI": {"items": []}}]}),
            "spec.volumes[0].downwarAPI: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"os": {"name": "windows"}, "hostPID": true}),
            "spec.hostPID: Forbidden: cannot be set for a windows pod",
        ),
        (
            json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}, "containers": [
                {"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "200m"}}}]}),
            "spec.resources.requests[cpu]: Invalid value: \"100m\": must be greater than or equal to aggregate container requests of 200m",
        ),
        (
            json!({"ephemeralContainers": [{"name": "e", "image": "i:1"}]}),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ];
    for (fields, want) in cases {
        let pod = pod_with(fields);
        // What is limited is requested too, and may be told twice.
        let got = causes("", "Pod", &pod, None);
        assert_eq!(got.first().map(String::as_str), Some(want));
    }
    let whole = pod_with(
        json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "containers": [
        {"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "200m"}}}]}),
    );
    assert_eq!(
        whole["spec"]["resources"]["requests"],
        json!({"cpu": "200m", "memory": "1Gi"})
    );
}

#[test]
fn limits_and_jobs() {
    let range = json!({"metadata": {"name": "l", "namespace": "n"}, "spec": {"limits": [
        {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "500m"}}]}});
    assert_eq!(
        causes("", "LimitRange", &range, None),
        [
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"
        ]
    );
    let quota = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": {"hard": {"services": "1"}, "scopes": ["BestEffort"]}});
    assert_eq!(
        causes("", "ResourceQuota", &quota, None),
        ["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"]
    );
    assert_eq!(super::job_status::indexes("0-2,4", 5), Ok(4));
    assert_eq!(
        super::job_status::indexes("3,1", 5),
        Err("non-increasing order, previous: 3, current: 1".to_owned())
    );
}
