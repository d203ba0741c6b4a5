//! The flow schemas and priority levels of a new cluster.
//! <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults>

use serde_json::{Value, json};

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Who writes them, as upstream names it.
pub const FIELD_MANAGER: &str = "api-priority-and-fairness-config-producer-v1";

const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";

fn object(name: &str, spec: Value) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
        "spec": spec,
    })
}

pub fn priority_levels() -> Vec<Value> {
    let limited = |name: &str, shares: u32, lendable: u32, response: Value| {
        let limits = json!({
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
        });
        object(name, json!({"type": "Limited", "limited": limits}))
    };
    let queue = |queues: u32, hand: u32| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        json!({"type": "Queue", "queuing": queuing})
    };
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    vec![
        object("exempt", json!({"type": "Exempt", "exempt": exempt})),
        limited("catch-all", 5, 0, json!({"type": "Reject"})),
        limited("system", 30, 33, queue(64, 6)),
        limited("node-high", 40, 25, queue(64, 6)),
        limited("leader-election", 10, 0, queue(16, 4)),
        limited("workload-high", 40, 50, queue(128, 6)),
        limited("workload-low", 100, 90, queue(128, 6)),
        limited("global-default", 20, 50, queue(128, 6)),
    ]
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn system_account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

fn resources(verbs: &[&str], api_group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({
        "verbs": verbs, "apiGroups": [api_group], "resources": resources, "namespaces": ["*"],
    });
    if cluster_scope {
        rule["clusterScope"] = Value::Bool(true);
    }
    rule
}

/// Subjects and the resource rules for them.
fn some_resources(subjects: Vec<Value>, rules: Vec<Value>) -> Value {
    json!([{"subjects": subjects, "resourceRules": rules}])
}

/// Everything that these subjects do.
fn everything(subjects: Vec<Value>) -> Value {
    json!([{
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }])
}

pub fn flow_schemas() -> Vec<Value> {
    let schema = |name: &str, level: &str, precedence: u32, by: &str, rules: Value| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
        });
        if !by.is_empty() {
            spec["distinguisherMethod"] = json!({"type": by});
        }
        object(name, spec)
    };
    let (by_user, by_namespace) = ("ByUser", "ByNamespace");
    let leases = || {
        resources(
            &["get", "create", "update"],
            "coordination.k8s.io",
            &["leases"],
            false,
        )
    };
    let everybody = || EVERYBODY.map(group).to_vec();
    let probes = json!([{
        "subjects": everybody(),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    }]);
    let nodes = vec![
        resources(&["*"], "", &["nodes", "nodes/status"], true),
        resources(&["*"], "coordination.k8s.io", &["leases"], false),
    ];
    let endpoints = vec![
        user(CONTROLLER_MANAGER),
        system_account("endpoint-controller"),
        system_account("endpointslicemirroring-controller"),
    ];
    let endpoint_rules = vec![resources(
        &["get", "create", "update"],
        "",
        &["endpoints"],
        false,
    )];
    let leaders = vec![user(CONTROLLER_MANAGER), user(SCHEDULER)];
    vec![
        schema(
            "exempt",
            "exempt",
            1,
            "",
            everything(vec![group("system:masters")]),
        ),
        schema(
            "catch-all",
            "catch-all",
            10_000,
            by_user,
            everything(everybody()),
        ),
        schema("probes", "exempt", 2, "", probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            some_resources(leaders, vec![leases()]),
        ),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            by_user,
            some_resources(endpoints, endpoint_rules),
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            by_user,
            some_resources(vec![system_account("*")], vec![leases()]),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            by_user,
            some_resources(vec![group("system:nodes")], nodes),
        ),
        schema(
            "system-nodes",
            "system",
            500,
            by_user,
            everything(vec![group("system:nodes")]),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            everything(vec![user(CONTROLLER_MANAGER)]),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            everything(vec![user(SCHEDULER)]),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            everything(vec![system_account("*")]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            by_user,
            everything(vec![group("system:serviceaccounts")]),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            by_user,
            everything(everybody()),
        ),
    ]
}
