//! The official Python client: list, watch and patch.

use oarlock_tests::{Oarlock, Options};

const SCRIPT: &str = r#"
from kubernetes import client, config, watch
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()
labels = {"app": "web"}
pod = client.V1PodTemplateSpec(
    metadata=client.V1ObjectMeta(labels=labels),
    spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="nginx")]))
apps.create_namespaced_deployment("default", client.V1Deployment(
    metadata=client.V1ObjectMeta(name="web"),
    spec=client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=pod)))
ready = set()
for event in watch.Watch().stream(core.list_namespaced_pod, "default", label_selector="app=web", timeout_seconds=60):
    pod = event["object"]
    if pod.status.phase == "Running":
        ready.add(pod.metadata.name)
    if len(ready) == 2:
        break
assert len(ready) == 2, ready
apps.patch_namespaced_deployment("web", "default", {"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}})
got = apps.read_namespaced_deployment("web", "default")
assert got.spec.replicas == 1 and got.metadata.labels == {"a": "b"}, got
page = core.list_pod_for_all_namespaces(limit=1)
assert len(page.items) == 1
for i in range(5):
    core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="m-"), data={"i": str(i)}))
names, token = [], None
while True:
    page = core.list_namespaced_config_map("default", limit=2, _continue=token)
    names += [item.metadata.name for item in page.items]
    token = page.metadata._continue
    if not token:
        break
assert len([n for n in names if n.startswith("m-")]) == 5, names
try:
    core.read_namespaced_pod("none", "default")
    raise SystemExit("a missing pod was read")
except client.ApiException as e:
    assert e.status == 404, e
print("fine")
"#;

#[test]
fn list_watch_patch() {
    let cluster = Oarlock::start(Options::default());
    assert!(cluster.python(SCRIPT).contains("fine"));
}
