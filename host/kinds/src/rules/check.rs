//! Which kind is checked by what. Kinds without rules of their own have their metadata checked.

use super::metadata::{meta_of, whole_meta_of};
use super::path::Causes;
use super::{
    api_service, batch, certificates, config, csi, definition, devices, flow, limits, network,
    network_kinds, node, pod, policies, scale, service, slices, storage, webhooks, workload,
};
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
        ("", "LimitRange") => limits::limit_range,
        ("", "ResourceQuota") => limits::resource_quota,
        ("", "ServiceAccount") => |new, old| {
            let mut out = Causes::new();
            whole_meta_of(&mut out, new, old, "", "ServiceAccount");
            out
        },
        ("", "ConfigMap") => config::config_map,
        ("", "Secret") => config::secret,
        ("", "PersistentVolumeClaim") => storage::claim,
        ("", "PersistentVolume") => storage::volume,
        ("" | "events.k8s.io", "Event") => config::event,
        ("apps", "Deployment") => workload::deployment,
        ("apps", "ReplicaSet") => workload::replica_set,
        ("apps", "StatefulSet") => workload::stateful_set,
        ("apps", "DaemonSet") => workload::daemon_set,
        ("apps", "ControllerRevision") => workload::controller_revision,
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
        ("networking.k8s.io", "IPAddress") => network_kinds::ip_address,
        ("networking.k8s.io", "IngressClass") => network_kinds::ingress_class,
        ("networking.k8s.io", "ServiceCIDR") => network_kinds::service_cidr,
        ("node.k8s.io", "RuntimeClass") => network_kinds::runtime_class,
        ("storage.k8s.io", "CSIDriver") => csi::driver,
        ("storage.k8s.io", "CSINode") => csi::node,
        ("storage.k8s.io", "CSIStorageCapacity") => csi::capacity,
        ("storage.k8s.io", "VolumeAttachment") => csi::attachment,
        ("storage.k8s.io", "VolumeAttributesClass") => csi::attributes_class,
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::request,
        ("apiregistration.k8s.io", "APIService") => api_service::api_service,
        ("resource.k8s.io", "ResourceClaim") => devices::claim,
        ("resource.k8s.io", "ResourceClaimTemplate") => devices::claim_template,
        ("resource.k8s.io", "DeviceClass") => devices::device_class,
        ("resource.k8s.io", "ResourceSlice") => slices::slice,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow::flow_schema,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flow::priority_level,
        (webhooks::GROUP, "ValidatingWebhookConfiguration") => {
            |new, old| webhooks::configuration(new, old, "ValidatingWebhookConfiguration")
        }
        (webhooks::GROUP, "MutatingWebhookConfiguration") => {
            |new, old| webhooks::configuration(new, old, "MutatingWebhookConfiguration")
        }
        (webhooks::GROUP, "ValidatingAdmissionPolicy") => policies::validating_policy,
        (webhooks::GROUP, "ValidatingAdmissionPolicyBinding") => policies::validating_binding,
        (webhooks::GROUP, "MutatingAdmissionPolicy") => policies::mutating_policy,
        (webhooks::GROUP, "MutatingAdmissionPolicyBinding") => policies::mutating_binding,
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
        ("apiextensions.k8s.io", _) => {
            metadata_of!("apiextensions.k8s.io", "any")
        }
        _ => metadata_of!("", "any"),
    }
}
