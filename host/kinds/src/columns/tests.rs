//! Rows as kubectl shows them, from recorded and composed objects.

use super::*;

fn row(group: &str, kind: &str, object: Value) -> Vec<Value> {
    let now = "2026-11-23T12:00:00Z".parse().unwrap();
    let columns = columns(group, kind);
    let cells = (columns.cells)(&object, now);
    assert_eq!(cells.len(), columns.columns.len(), "{kind}");
    cells
}

#[test]
fn every_kind_prints_a_cell_a_column_whatever_the_object() {
    let kinds = [
        ("", "Pod"),
        ("", "PodTemplate"),
        ("", "Node"),
        ("", "Namespace"),
        ("", "ServiceAccount"),
        ("", "ConfigMap"),
        ("", "Secret"),
        ("", "Service"),
        ("", "Endpoints"),
        ("", "Event"),
        ("", "ResourceQuota"),
        ("", "LimitRange"),
        ("", "ReplicationController"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("apps", "ControllerRevision"),
        ("batch", "Job"),
        ("batch", "CronJob"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("policy", "PodDisruptionBudget"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "IngressClass"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("networking.k8s.io", "IPAddress"),
        ("networking.k8s.io", "ServiceCIDR"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
        ("coordination.k8s.io", "Lease"),
        ("events.k8s.io", "Event"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("node.k8s.io", "RuntimeClass"),
        ("storage.k8s.io", "StorageClass"),
        ("storage.k8s.io", "CSINode"),
        ("storage.k8s.io", "CSIDriver"),
        ("storage.k8s.io", "VolumeAttachment"),
        ("storage.k8s.io", "VolumeAttributesClass"),
        ("certificates.k8s.io", "CertificateSigningRequest"),
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration",
        ),
        ("x.example", "Unknown"),
    ];
    let odd = json!({"metadata": 1, "spec": [1], "status": {"conditions": {"a": 1}, "addresses": "x"}, "data": []});
    for (group, kind) in kinds {
        row(group, kind, json!({}));
        row(group, kind, odd.clone());
    }
}

#[test]
fn pods_say_what_they_do() {
    let check = |spec: Value, status: Value, deleted: bool, expect: [&str; 3]| {
        let mut object = json!({"metadata": {"name": "p", "creationTimestamp": "2026-11-23T11:59:55Z"}, "spec": spec, "status": status});
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-23T12:00:30Z");
        }
        let cells = row("", "Pod", object);
        assert_eq!(cells[1..4], expect.map(|e| json!(e)));
        assert_eq!(cells[4], "5s");
    };
    let two = || json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let running = |name: &str| json!({"name": name, "ready": true, "restartCount": 0, "state": {"running": {}}});
    check(
        two(),
        json!({"phase": "Pending"}),
        false,
        ["0/2", "Pending", "0"],
    );
    check(
        two(),
        json!({"phase": "Running", "containerStatuses": [running("a"), running("b")]}),
        false,
        ["2/2", "Running", "0"],
    );
    check(
        two(),
        json!({"phase": "Running", "containerStatuses": [running("a"), running("b")]}),
        true,
        ["2/2", "Terminating", "0"],
    );
    check(
        two(),
        json!({"phase": "Succeeded"}),
        true,
        ["0/2", "Succeeded", "0"],
    );
    check(
        two(),
        json!({"phase": "Running", "containerStatuses": [running("a"), {"name": "b", "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-11-23T11:57:00Z"}}}]}),
        false,
        ["1/2", "CrashLoopBackOff", "3 (3m ago)"],
    );
    check(
        two(),
        json!({"phase": "Failed", "reason": "Evicted"}),
        false,
        ["0/2", "Evicted", "0"],
    );
    check(
        two(),
        json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 2}}}]}),
        false,
        ["0/2", "ExitCode:2", "0"],
    );
    let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
    check(two(), gated, false, ["0/2", "SchedulingGated", "0"]);
    let init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
    check(
        init.clone(),
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
        false,
        ["0/2", "Init:0/2", "0"],
    );
    check(
        init,
        json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "started": true, "ready": true, "state": {"running": {}}}], "containerStatuses": [running("a")]}),
        false,
        ["2/2", "Running", "0"],
    );
}

#[test]
fn rows_read_as_recorded() {
    let check = |group: &str, kind: &str, object: Value, expect: Value| {
        assert_eq!(Value::Array(row(group, kind, object)), expect);
    };
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i:1"}], "nodeSelector": {"disk": "iris"}}});
    check(
        "apps",
        "Deployment",
        json!({"metadata": {"name": "d"}, "spec": {"replicas": 4, "selector": {"matchLabels": {"b": "1", "a": "2"}}, "template": template}}),
        json!(["d", "0/4", 0, 0, "<unknown>", "c", "i:1", "a=2,b=1"]),
    );
    check(
        "apps",
        "DaemonSet",
        json!({"metadata": {"name": "d"}, "spec": {"template": template, "selector": {"matchExpressions": [{"key": "x", "operator": "In", "values": ["b", "a"]}]}}, "status": {"desiredNumberScheduled": 3}}),
        json!([
            "d",
            3,
            0,
            0,
            0,
            0,
            "disk=iris",
            "<unknown>",
            "c",
            "i:1",
            "x in (a,b)"
        ]),
    );
    check(
        "batch",
        "CronJob",
        json!({"metadata": {"name": "c"}, "spec": {"schedule": "@daily", "suspend": true, "jobTemplate": {"spec": {"template": template}}}}),
        json!([
            "c",
            "@daily",
            "<none>",
            "True",
            0,
            "<none>",
            "<unknown>",
            "c",
            "i:1",
            "<none>"
        ]),
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 8080}, {"port": 81}], "endpoints": [{"addresses": ["192.0.2.48"]}, {"addresses": ["192.0.2.100"]}]}),
        json!([
            "e",
            "IPv4",
            "8080,81",
            "192.0.2.48,192.0.2.100",
            "<unknown>"
        ]),
    );
    check(
        "policy",
        "PodDisruptionBudget",
        json!({"metadata": {"name": "p"}, "spec": {"maxUnavailable": 2}}),
        json!(["p", "N/A", "2", 0, "<unknown>"]),
    );
    check(
        "",
        "Service",
        json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]}}),
        json!([
            "s",
            "NodePort",
            "10.0.0.1",
            "<none>",
            "80:30000/TCP",
            "<unknown>",
            "<none>"
        ]),
    );
    check(
        "",
        "Node",
        json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}}}),
        json!([
            "n",
            "Ready,SchedulingDisabled",
            "control-plane",
            "<unknown>",
            "v1",
            "<none>",
            "<none>",
            "<unknown>",
            "<unknown>",
            "<unknown>"
        ]),
    );
}
