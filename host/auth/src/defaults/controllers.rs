//! What each controller may do. Role and binding are called `system:controller:NAME`; the subject is the service account
//! NAME of kube-system.

use super::cluster::EVENTS;
use super::notation::Grant::{self, Named, On};

const ADMISSION: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

pub(super) const ROLES: &[(&str, &[Grant])] = &[
    (
        "attachdetach-controller",
        &[
            On(
                "list watch",
                "core",
                "persistentvolumes persistentvolumeclaims",
            ),
            On("READ", "core", "nodes"),
            On("patch update", "core", "nodes/status"),
            On("list watch", "core", "pods"),
            EVENTS,
            On("READ create delete", STORAGE, "volumeattachments"),
            On("READ", STORAGE, "csidrivers"),
            On("READ", STORAGE, "csinodes"),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[On(
            "escalate READ update patch",
            crate::GROUP,
            "clusterroles",
        )],
    ),
    (
        "cronjob-controller",
        &[
            On("READ update", "batch", "cronjobs"),
            On("READ create update delete patch", "batch", "jobs"),
            On("update", "batch", "cronjobs/status"),
            On("update", "batch", "cronjobs/finalizers"),
            On("list watch delete", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            On("READ", "extensions apps", "daemonsets"),
            On("update", "extensions apps", "daemonsets/status"),
            On("update", "extensions apps", "daemonsets/finalizers"),
            On("list watch", "core", "nodes"),
            On("list watch create delete patch", "core", "pods"),
            On("create", "core", "pods/binding"),
            On(
                "READ create delete update patch",
                "apps",
                "controllerrevisions",
            ),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            On("READ update", "extensions apps", "deployments"),
            On("update", "extensions apps", "deployments/status"),
            On("update", "extensions apps", "deployments/finalizers"),
            On(
                "READ create update patch delete",
                "apps extensions",
                "replicasets",
            ),
            On("READ update", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            On("READ", "extensions apps", "deployments"),
            On("READ", "apps extensions", "replicasets"),
            On("READ", "core", "replicationcontrollers"),
            On("READ", "policy", "poddisruptionbudgets"),
            On("READ", "apps", "statefulsets"),
            On("update", "policy", "poddisruptionbudgets/status"),
            On("patch update", "core", "pods/status"),
            On("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            On("READ", "core", "services pods"),
            On("READ create update delete", "core", "endpoints"),
            On("create", "core", "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            On("READ", "core", "services pods nodes"),
            On("update", "core", "services/finalizers"),
            On("READ create update delete", DISCOVERY, "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            On("READ", "core", "services endpoints"),
            On("update", "core", "services/finalizers"),
            On("update", "core", "endpoints/finalizers"),
            On("READ create update delete", DISCOVERY, "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            On("READ update patch", "core", "persistentvolumes"),
            On("update patch", "core", "persistentvolumeclaims/status"),
            On("READ", "core", "persistentvolumeclaims"),
            EVENTS,
            On("get", "core", "services"),
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            On("READ", "core", "pods"),
            On("update", "core", "pods/finalizers"),
            On("READ create", "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            On("READ", "core", "pods"),
            On("update", "core", "pods/finalizers"),
            On("READ create delete", RESOURCE, "resourceclaims"),
            On(
                "update patch",
                RESOURCE,
                "resourceclaims resourceclaims/status",
            ),
            On("update patch", "core", "pods/status"),
            EVENTS,
        ],
    ),
    (
        "generic-garbage-collector",
        &[On("READ patch update delete", "*", "*"), EVENTS],
    ),
    (
        "horizontal-pod-autoscaler",
        &[
            On("READ", "autoscaling", "horizontalpodautoscalers"),
            On("update", "autoscaling", "horizontalpodautoscalers/status"),
            On("get update", "*", "*/scale"),
            On("list watch", "core", "pods"),
            On("list watch", "metrics.k8s.io", "pods"),
            On("READ", "custom.metrics.k8s.io", "*"),
            On("READ", "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            On("READ update patch", "batch", "jobs"),
            On("update", "batch", "jobs/status"),
            On("update", "batch", "jobs/finalizers"),
            On("list watch create delete patch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            On("READ delete", "core", "namespaces"),
            On("update", "core", "namespaces/finalize namespaces/status"),
            On("READ delete deletecollection", "*", "*"),
        ],
    ),
    (
        "node-controller",
        &[
            On("READ update delete patch", "core", "nodes"),
            On("patch update", "core", "nodes/status"),
            On("patch update", "core", "pods/status"),
            On("READ delete", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            On("READ update create delete", "core", "persistentvolumes"),
            On("update", "core", "persistentvolumes/status"),
            On("READ update", "core", "persistentvolumeclaims"),
            On("update", "core", "persistentvolumeclaims/status"),
            On("READ create delete", "core", "pods"),
            On("READ", STORAGE, "storageclasses"),
            On("list watch", "core", "nodes"),
            EVENTS,
            On("watch", "core", "events"),
            On("get", "core", "services"),
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            On("list watch delete", "core", "pods"),
            On("READ", "core", "nodes"),
            On("patch", "core", "pods/status"),
        ],
    ),
    (
        "replicaset-controller",
        &[
            On("READ update", "apps extensions", "replicasets"),
            On("update", "apps extensions", "replicasets/status"),
            On("update", "apps extensions", "replicasets/finalizers"),
            On("list watch patch create delete", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            On("READ update", "core", "replicationcontrollers"),
            On("update", "core", "replicationcontrollers/status"),
            On("update", "core", "replicationcontrollers/finalizers"),
            On("list watch patch create delete", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "resourcequota-controller",
        &[
            On("list watch", "*", "*"),
            On("update", "core", "resourcequotas/status"),
            EVENTS,
        ],
    ),
    (
        "route-controller",
        &[
            On("list watch", "core", "nodes"),
            On("patch", "core", "nodes/status"),
            EVENTS,
        ],
    ),
    (
        "service-account-controller",
        &[On("create", "core", "serviceaccounts"), EVENTS],
    ),
    (
        "service-controller",
        &[
            On("READ", "core", "services"),
            On("patch update", "core", "services/status"),
            On("list watch", "core", "nodes"),
            EVENTS,
        ],
    ),
    (
        "service-cidrs-controller",
        &[
            On("READ patch update", NETWORKING, "servicecidrs"),
            On("patch update", NETWORKING, "servicecidrs/finalizers"),
            On("patch update", NETWORKING, "servicecidrs/status"),
            On("READ", NETWORKING, "ipaddresses"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            On("list watch", "core", "pods"),
            On("READ", "apps", "statefulsets"),
            On("update", "apps", "statefulsets/status"),
            On("update", "apps", "statefulsets/finalizers"),
            On("get create delete update patch", "core", "pods"),
            On(
                "READ create delete update patch",
                "apps",
                "controllerrevisions",
            ),
            On("READ create", "core", "persistentvolumeclaims"),
            On("update delete", "core", "persistentvolumeclaims"),
            On("update", "core", "pods/finalizers"),
            EVENTS,
        ],
    ),
    (
        "ttl-controller",
        &[On("update patch list watch", "core", "nodes"), EVENTS],
    ),
    (
        "certificate-controller",
        &[
            On("READ delete", CERTIFICATES, "certificatesigningrequests"),
            On(
                "update",
                CERTIFICATES,
                "certificatesigningrequests/status certificatesigningrequests/approval",
            ),
            Named(
                "approve",
                CERTIFICATES,
                "signers",
                "kubernetes.io/kube-apiserver-client-kubelet",
            ),
            Named(
                "sign",
                CERTIFICATES,
                "signers",
                "kubernetes.io/legacy-unknown kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving",
            ),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        &[
            On("READ update", "core", "persistentvolumeclaims"),
            On("READ", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "pv-protection-controller",
        &[On("READ update", "core", "persistentvolumes"), EVENTS],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            On("READ", "core", "persistentvolumeclaims"),
            On("READ", "core", "persistentvolumes"),
            On("READ update", STORAGE, "volumeattributesclasses"),
            EVENTS,
        ],
    ),
    (
        "ttl-after-finished-controller",
        &[On("READ delete", "batch", "jobs"), EVENTS],
    ),
    (
        "root-ca-cert-publisher",
        &[On("create update", "core", "configmaps"), EVENTS],
    ),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            On("READ", ADMISSION, "validatingadmissionpolicies"),
            On(
                "get patch update",
                ADMISSION,
                "validatingadmissionpolicies/status",
            ),
            EVENTS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            Named(
                "get",
                "core",
                "configmaps",
                "kube-apiserver-legacy-service-account-token-tracking",
            ),
            On("patch delete", "core", "secrets"),
        ],
    ),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            On("READ", "core", "persistentvolumes"),
            On("READ", "core", "persistentvolumeclaims"),
            On("READ", "core", "pods"),
            On("READ", STORAGE, "csidrivers"),
        ],
    ),
];
