//! The real kubectl against the real binary: the verbs that people use every day.

use oarlock_tests::{Oarlock, Options, eventually, eventually_ok};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

#[test]
fn everyday_verbs() {
    let cluster = Oarlock::start(Options::default());
    let k = |args: &[&str]| cluster.kubectl(args);

    let nodes = k(&["get", "nodes"]);
    assert_eq!(nodes.matches(" Ready ").count(), 3, "{nodes}");
    assert!(nodes.contains("simulated"), "{nodes}");

    k(&[
        "create",
        "deployment",
        "web",
        "--image=nginx:1.27",
        "--replicas=3",
    ]);
    let rollout = k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(rollout.contains("successfully rolled out"), "{rollout}");
    let pods = k(&["get", "pods", "-o", "wide", "-l", "app=web"]);
    assert_eq!(pods.matches("Running").count(), 3, "{pods}");
    assert!(pods.contains("READINESS GATES"), "{pods}");
    let yaml = k(&["get", "deployment", "web", "-o", "yaml"]);
    assert!(
        yaml.contains("deployment.kubernetes.io/revision: \"1\""),
        "{yaml}"
    );

    k(&["scale", "deployment/web", "--replicas=5"]);
    k(&[
        "wait",
        "--for=jsonpath={.status.readyReplicas}=5",
        "deployment/web",
        "--timeout=60s",
    ]);
    k(&["set", "image", "deployment/web", "nginx=nginx:1.28"]);
    k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    k(&["rollout", "undo", "deployment/web"]);
    k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let history = k(&["rollout", "history", "deployment/web"]);
    assert!(
        history.contains('3') && !history.contains("\n1 "),
        "{history}"
    );
    let image = k(&[
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].image}",
    ]);
    assert_eq!(image, "nginx:1.27");

    k(&["label", "deployment", "web", "tier=front"]);
    k(&["annotate", "deployment", "web", "note=hello"]);
    assert!(
        k(&["get", "deploy", "-l", "tier=front", "-o", "name"]).contains("deployment.apps/web")
    );
    assert_eq!(
        k(&[
            "get",
            "deploy",
            "web",
            "-o",
            "jsonpath={.metadata.annotations.note}"
        ]),
        "hello"
    );
    let described = k(&["describe", "deployment", "web"]);
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    let pod = k(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ]);
    eventually("the pod's Scheduled event", 10, || {
        k(&["describe", "pod", &pod]).contains("Successfully assigned default/")
    });

    k(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"template":{"metadata":{"labels":{"extra":"1"}}}}}"#,
    ]);
    k(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    k(&["rollout", "restart", "deployment/web"]);
    k(&["rollout", "status", "deployment/web", "--timeout=60s"]);

    k(&["delete", "deployment", "web", "--timeout=60s"]);
    eventually("the pods to go with their deployment", 60, || {
        k(&["get", "pods", "-o", "name"]).trim().is_empty()
    });

    assert!(k(&["explain", "deployment.spec.strategy"]).contains("rollingUpdate"));
    assert!(k(&["explain", "pod.spec", "--recursive"]).contains("terminationGracePeriodSeconds"));
    let resources = k(&["api-resources"]);
    for line in [
        "deployments",
        "po ",
        "schedulerprofiles",
        "horizontalpodautoscalers",
    ] {
        assert!(resources.contains(line), "{line}: {resources}");
    }
    assert!(k(&["version"]).contains("Server Version: v1.37"));
    assert!(k(&["cluster-info"]).contains("is running at"));
    assert!(k(&["get", "all", "-A"]).contains("service/kubernetes"));
    assert!(k(&["get", "cm,sa", "-n", "default"]).contains("kube-root-ca.crt"));
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {colour: blue}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "nginx:1.27", ports: [{containerPort: 8080}]}]}
"#;

#[test]
fn apply_and_watch_and_delete() {
    let cluster = Oarlock::start(Options::default());
    let applied = cluster.kubectl_with(&["apply", "-f", "-"], MANIFEST);
    assert_eq!(applied.matches("created").count(), 4, "{applied}");
    let again = cluster.kubectl_with(&["apply", "-f", "-"], MANIFEST);
    assert_eq!(again.matches("unchanged").count(), 4, "{again}");
    let changed = cluster.kubectl_with(&["apply", "-f", "-"], &MANIFEST.replace("blue", "green"));
    assert_eq!(changed.matches("configured").count(), 1, "{changed}");
    assert_eq!(
        cluster.kubectl(&[
            "get",
            "cm",
            "settings",
            "-n",
            "shop",
            "-o",
            "jsonpath={.data.colour}"
        ]),
        "green"
    );
    let server_side = cluster.kubectl_with(
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        MANIFEST,
    );
    assert_eq!(
        server_side.matches("serverside-applied").count(),
        4,
        "{server_side}"
    );
    let diff = cluster.kubectl_output(
        &["diff", "-f", "-"],
        &MANIFEST.replace("replicas: 2", "replicas: 4"),
    );
    assert_eq!(
        diff.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&diff.stderr)
    );
    assert!(String::from_utf8_lossy(&diff.stdout).contains("+  replicas: 4"));
    cluster.kubectl(&[
        "rollout",
        "status",
        "deployment/web",
        "-n",
        "shop",
        "--timeout=60s",
    ]);

    let service = json(&cluster.kubectl(&["get", "service", "web", "-n", "shop", "-o", "json"]));
    assert!(
        service["spec"]["clusterIP"]
            .as_str()
            .is_some_and(|ip| ip.starts_with("10.0.")),
        "{service}"
    );
    eventually("the service's endpoints", 20, || {
        let slices = cluster.kubectl(&["get", "endpointslices", "-n", "shop", "-o", "json"]);
        json(&slices)["items"][0]["endpoints"]
            .as_array()
            .is_some_and(|e| e.len() == 2)
    });

    let watched = cluster.kubectl_output(
        &["get", "pods", "-n", "shop", "-w", "--request-timeout=3s"],
        "",
    );
    assert!(
        String::from_utf8_lossy(&watched.stdout).contains("web-"),
        "a watch prints what is there"
    );

    cluster.kubectl(&["delete", "namespace", "shop", "--timeout=60s"]);
    let gone = cluster.kubectl_fails(&["get", "namespace", "shop"], "");
    assert!(gone.contains(r#"namespaces "shop" not found"#), "{gone}");
    assert!(
        !cluster
            .kubectl(&["get", "pods,deploy,rs,cm,svc", "-A"])
            .contains("shop")
    );
}

#[test]
fn refusals_are_in_kubernetes_form() {
    let cluster = Oarlock::start(Options {
        disable: vec!["scheduler", "nodes"],
        ..Options::default()
    });
    let check = |args: &[&str], stdin: &str, expect: &str| {
        let text = cluster.kubectl_fails(args, stdin);
        assert!(text.contains(expect), "kubectl {args:?} says {text}");
    };
    check(
        &["get", "pod", "none"],
        "",
        r#"Error from server (NotFound): pods "none" not found"#,
    );
    check(
        &["get", "nonsense"],
        "",
        r#"the server doesn't have a resource type "nonsense""#,
    );
    check(
        &["create", "-f", "-"],
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Bad_Name"}}"#,
        r#"metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of"#,
    );
    check(
        &["create", "-f", "-"],
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"nowhere"}}"#,
        r#"namespaces "nowhere" not found"#,
    );
    check(
        &["create", "--validate=strict", "-f", "-"],
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"replicaz":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
        r#"strict decoding error: unknown field "spec.replicaz""#,
    );
    check(
        &["create", "-f", "-", "--validate=false"],
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{"replicas":"many"}}"#,
        "cannot be handled as a Deployment",
    );
    cluster.kubectl(&["create", "configmap", "one", "--from-literal=a=b"]);
    check(
        &["create", "configmap", "one"],
        "",
        r#"configmaps "one" already exists"#,
    );
    let stale = cluster.kubectl(&["get", "configmap", "one", "-o", "json"]);
    cluster.kubectl(&["annotate", "configmap", "one", "x=y"]);
    check(
        &["replace", "-f", "-"],
        &stale,
        "the object has been modified; please apply your changes to the latest version",
    );
    let anonymous = std::process::Command::new("curl")
        .args(["-sk", &format!("{}/api/v1/pods", server(&cluster))])
        .output()
        .expect("curl runs");
    let status = json(&String::from_utf8_lossy(&anonymous.stdout));
    assert_eq!(
        (status["code"].as_u64(), status["reason"].as_str()),
        (Some(401), Some("Unauthorized")),
        "{status}"
    );
}

fn server(cluster: &Oarlock) -> String {
    cluster.kubectl(&[
        "config",
        "view",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ])
}

#[test]
fn a_thousand_pods_up_and_down() {
    let cluster = Oarlock::start(Options {
        nodes: Some(20),
        ..Options::default()
    });
    cluster.kubectl(&[
        "create",
        "deployment",
        "many",
        "--image=app:1",
        "--replicas=0",
    ]);
    cluster.kubectl(&["scale", "deployment/many", "--replicas=1000"]);
    cluster.kubectl(&[
        "wait",
        "--for=jsonpath={.status.readyReplicas}=1000",
        "deployment/many",
        "--timeout=120s",
    ]);
    cluster.kubectl(&["scale", "deployment/many", "--replicas=0"]);
    eventually("all pods to be gone", 120, || {
        cluster
            .kubectl(&["get", "pods", "-o", "name"])
            .trim()
            .is_empty()
    });
}

#[test]
fn a_node_that_stops_beating_loses_its_pods() {
    let cluster = Oarlock::start(Options::default());
    let manifest = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":6,
        "selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{
        "containers":[{"name":"web","image":"nginx"}],
        "tolerations":[{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":1},
                       {"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":1}]}}}}"#;
    cluster.kubectl_with(&["create", "-f", "-"], manifest);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    let victim = nodes
        .split_whitespace()
        .next()
        .expect("there are nodes")
        .to_owned();
    cluster.kubectl(&["annotate", "node", &victim, "sim.oarlock.dev/heartbeat=off"]);
    eventually("the node to be NotReady", 90, || {
        cluster
            .kubectl(&["get", "node", &victim, "--no-headers"])
            .contains("NotReady")
    });
    eventually_ok("six ready pods elsewhere", 90, || {
        let pods = json(&cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "json"]));
        let ready = pods["items"].as_array().into_iter().flatten().filter(|p| {
            p["spec"]["nodeName"] != victim.as_str()
                && p["metadata"]["deletionTimestamp"].is_null()
                && p["status"]["phase"] == "Running"
        });
        let count = ready.count();
        if count == 6 {
            Ok(())
        } else {
            Err(format!("{count} of 6"))
        }
    });
}

#[test]
fn a_restart_in_the_middle_of_a_rollout() {
    let mut cluster = Oarlock::start(Options::default());
    cluster.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image=nginx:1",
        "--replicas=40",
    ]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(&["set", "image", "deployment/web", "nginx=nginx:2"]);
    cluster.crash_and_restart();
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    let template = "jsonpath={range .items[*]}{.spec.containers[0].image}{\"\\n\"}{end}";
    eventually("forty pods of the new image", 60, || {
        let images = cluster.kubectl(&["get", "pods", "-o", template]);
        images.lines().count() == 40 && images.lines().all(|image| image == "nginx:2")
    });
    assert!(cluster.stop(), "SIGTERM ends it cleanly");
    cluster.restart();
    assert_eq!(
        cluster.kubectl(&[
            "get",
            "deploy",
            "web",
            "-o",
            "jsonpath={.status.readyReplicas}"
        ]),
        "40"
    );
}
