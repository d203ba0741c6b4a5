//! Which kind is checked by what. Kinds without rules of their own have their metadata checked.

use serde_json::Value;

use super::metadata::meta_of;
use super::path::{Causes, Path};
use super::{batch, config, definition, network, node, pod, scale, service, storage, workload};
use crate::ValidateFn;

/// Checks metadata alone.
macro_rules! metadata_of {
    ($group:literal, $kind:literal) => {
        |new, old| {
            let mut out = Causes::new();
            meta_of(&mut out, new, old, $group, $kind);
            out
        }
    };
}

pub fn of(group: &str, kind: &str) -> ValidateFn {
    match (group, kind) {
        ("", "Pod") => pod::pod,
        ("", "PodTemplate") => workload::pod_template,
        ("", "ReplicationController") => workload::replication_controller,
        ("", "Service") => service::service,
        ("", "Endpoints") => service::endpoints,
        ("", "Namespace") => node::namespace,
        ("", "Node") => node::node,
        ("", "ConfigMap") => config::config_map,
        ("", "Secret") => config::secret,
        ("", "PersistentVolumeClaim") => storage::claim,
        ("", "PersistentVolume") => storage::volume,
        ("" | "events.k8s.io", "Event") => config::event,
        ("apps", "Deployment") => workload::deployment,
        ("apps", "ReplicaSet") => workload::replica_set,
        ("apps", "StatefulSet") => workload::stateful_set,
        ("apps", "DaemonSet") => workload::daemon_set,
        ("batch", "Job") => batch::job,
        ("batch", "CronJob") => batch::cron_job,
        ("autoscaling", "HorizontalPodAutoscaler") => scale::autoscaler,
        ("policy", "PodDisruptionBudget") => config::disruption_budget,
        ("coordination.k8s.io", "Lease") => config::lease,
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice,
        ("scheduling.k8s.io", "PriorityClass") => config::priority_class,
        ("storage.k8s.io", "StorageClass") => storage::storage_class,
        ("networking.k8s.io", "Ingress") => network::ingress,
        ("networking.k8s.io", "NetworkPolicy") => network::network_policy,
        ("networking.k8s.io", "IPAddress") => metadata_of!("networking.k8s.io", "IPAddress"),
        ("rbac.authorization.k8s.io", "Role") => |new, old| config::role(new, old, "Role"),
        ("rbac.authorization.k8s.io", "ClusterRole") => {
            |new, old| config::role(new, old, "ClusterRole")
        }
        ("rbac.authorization.k8s.io", "RoleBinding") => {
            |new, old| config::role_binding(new, old, "RoleBinding")
        }
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            |new, old| config::role_binding(new, old, "ClusterRoleBinding")
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::validate,
        ("apiregistration.k8s.io" | "apiextensions.k8s.io", _) => {
            metadata_of!("apiextensions.k8s.io", "any")
        }
        _ => metadata_of!("", "any"),
    }
}

/// Texts for `Warning` headers.
pub fn warnings_of(group: &str, kind: &str) -> fn(&Value, Option<&Value>) -> Vec<String> {
    match (group, kind) {
        ("", "Pod") => |new, old| {
            if old.is_some_and(|old| old["spec"] == new["spec"]) {
                return Vec::new();
            }
            workload::pod_warnings(&new["spec"], &Path::new("spec"))
        },
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => |new, old| {
            if old.is_some_and(|old| old["spec"]["template"] == new["spec"]["template"]) {
                return Vec::new();
            }
            let at = Path::new("spec");
            let at = at.field("template");
            let mut texts: Vec<String> = match old {
                None => workload::name_warning(new).into_iter().collect(),
                Some(_) => Vec::new(),
            };
            texts.extend(workload::pod_warnings(
                &new["spec"]["template"]["spec"],
                &at.field("spec"),
            ));
            texts
        },
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::warnings,
        ("", "Service") => |new, _| {
            let external = new
                .pointer("/spec/externalIPs")
                .and_then(Value::as_array)
                .is_some_and(|ips| !ips.is_empty());
            let text =
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
            if external {
                vec![text.to_owned()]
            } else {
                Vec::new()
            }
        },
        _ => |_, _| Vec::new(),
    }
}
