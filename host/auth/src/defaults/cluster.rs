//! Default roles that belong to no controller, and who is bound to them.

use super::notation::Grant::{self, Named, On, Urls};

pub(super) struct Role {
    pub name: &'static str,
    /// Its rules become part of this role.
    pub aggregated_to: Option<&'static str>,
    /// Its rules are those of the roles that are aggregated to this.
    pub aggregates: Option<&'static str>,
    pub grants: &'static [Grant],
}

const fn role(name: &'static str, grants: &'static [Grant]) -> Role {
    Role {
        name,
        aggregated_to: None,
        aggregates: None,
        grants,
    }
}

const fn part(name: &'static str, to: &'static str, grants: &'static [Grant]) -> Role {
    Role {
        aggregated_to: Some(to),
        ..role(name, grants)
    }
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// Whoever reports what it does.
pub(super) const EVENTS: Grant = On("create update patch", "core events.k8s.io", "events");

pub(super) const ROLES: &[Role] = &[
    role("cluster-admin", &[On("*", "*", "*"), Urls("*", "*")]),
    role(
        "system:discovery",
        &[Urls(
            "get",
            "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*",
        )],
    ),
    role(
        "system:monitoring",
        &[Urls(
            "get",
            "/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*",
        )],
    ),
    role(
        "system:basic-user",
        &[
            On(
                "create",
                AUTHORIZATION,
                "selfsubjectaccessreviews selfsubjectrulesreviews",
            ),
            On("create", AUTHENTICATION, "selfsubjectreviews"),
        ],
    ),
    role(
        "system:public-info-viewer",
        &[Urls("get", "/livez /readyz /healthz /version /version/")],
    ),
    Role {
        aggregates: Some("admin"),
        ..role("admin", &[])
    },
    Role {
        aggregates: Some("edit"),
        ..part("edit", "admin", &[])
    },
    Role {
        aggregates: Some("view"),
        ..part("view", "edit", &[])
    },
    part(
        "system:aggregate-to-admin",
        "admin",
        &[
            On("create", AUTHORIZATION, "localsubjectaccessreviews"),
            On("READ WRITE", crate::GROUP, "roles rolebindings"),
        ],
    ),
    part(
        "system:aggregate-to-edit",
        "edit",
        &[
            On(
                "READ",
                "core",
                "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy",
            ),
            On("impersonate", "core", "serviceaccounts"),
            On(
                "WRITE",
                "core",
                "pods pods/attach pods/proxy pods/exec pods/portforward",
            ),
            On("create", "core", "pods/eviction"),
            On(
                "WRITE",
                "core",
                "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy persistentvolumeclaims configmaps secrets events",
            ),
            On("create", "core", "serviceaccounts/token"),
            On(
                "WRITE",
                "apps",
                "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets replicasets/scale",
            ),
            On("WRITE", "autoscaling", "horizontalpodautoscalers"),
            On("WRITE", "batch", "jobs cronjobs"),
            On(
                "WRITE",
                "extensions",
                "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale replicationcontrollers/scale networkpolicies",
            ),
            On("WRITE", "policy", "poddisruptionbudgets"),
            On("WRITE", NETWORKING, "networkpolicies ingresses"),
            On("READ WRITE", COORDINATION, "leases"),
            On("WRITE", RESOURCE, "resourceclaims resourceclaimtemplates"),
        ],
    ),
    part(
        "system:aggregate-to-view",
        "view",
        &[
            On(
                "READ",
                "core",
                "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps",
            ),
            On(
                "READ",
                "core",
                "limitranges resourcequotas bindings events pods/status resourcequotas/status namespaces/status replicationcontrollers/status pods/log",
            ),
            On("READ", "core", "namespaces"),
            On("READ", DISCOVERY, "endpointslices"),
            On(
                "READ",
                "apps",
                "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale",
            ),
            On(
                "READ",
                "autoscaling",
                "horizontalpodautoscalers horizontalpodautoscalers/status",
            ),
            On("READ", "batch", "jobs cronjobs cronjobs/status jobs/status"),
            On(
                "READ",
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies",
            ),
            On(
                "READ",
                "policy",
                "poddisruptionbudgets poddisruptionbudgets/status",
            ),
            On(
                "READ",
                NETWORKING,
                "networkpolicies ingresses ingresses/status",
            ),
            On(
                "READ",
                RESOURCE,
                "resourceclaims resourceclaims/status resourceclaimtemplates",
            ),
        ],
    ),
    role(
        "system:heapster",
        &[
            On("READ", "core", "events pods nodes namespaces"),
            On("READ", "extensions", "deployments"),
        ],
    ),
    role("system:node", NODE),
    role(
        "system:node-problem-detector",
        &[
            On("get", "core", "nodes"),
            On("patch", "core", "nodes/status"),
            EVENTS,
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            On("READ", "core", "nodes"),
            On("proxy", "core", "nodes"),
            On(
                "*",
                "core",
                "nodes/proxy nodes/metrics nodes/stats nodes/log nodes/spec nodes/configz nodes/healthz nodes/pods",
            ),
        ],
    ),
    role(
        "system:node-bootstrapper",
        &[On(
            "create get list watch",
            CERTIFICATES,
            "certificatesigningrequests",
        )],
    ),
    role(
        "system:auth-delegator",
        &[
            On("create", AUTHENTICATION, "tokenreviews"),
            On("create", AUTHORIZATION, "subjectaccessreviews"),
        ],
    ),
    role(
        "system:kube-aggregator",
        &[On("READ", "core", "services endpoints")],
    ),
    role(
        "system:kube-controller-manager",
        &[
            EVENTS,
            On("create", COORDINATION, "leases"),
            Named(
                "get list update watch",
                COORDINATION,
                "leases",
                "kube-controller-manager",
            ),
            On("READ WRITE", COORDINATION, "leasecandidates"),
            On("create", "core", "secrets serviceaccounts"),
            On("delete", "core", "secrets"),
            On(
                "get",
                "core",
                "namespaces secrets serviceaccounts configmaps",
            ),
            On("update", "core", "secrets serviceaccounts"),
            On("create", AUTHENTICATION, "tokenreviews"),
            On("create", AUTHORIZATION, "subjectaccessreviews"),
            On("list watch", "*", "*"),
            On("create", "core", "serviceaccounts/token"),
        ],
    ),
    role(
        "system:kube-dns",
        &[On("list watch", "core", "endpoints services")],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            On("READ create delete", "core", "persistentvolumes"),
            On("READ update", "core", "persistentvolumeclaims"),
            On("READ", STORAGE, "storageclasses"),
            On("watch", "core", "events"),
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[On(
            "create",
            CERTIFICATES,
            "certificatesigningrequests/nodeclient",
        )],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[On(
            "create",
            CERTIFICATES,
            "certificatesigningrequests/selfnodeclient",
        )],
    ),
    role(
        "system:volume-scheduler",
        &[
            On("READ update patch", "core", "persistentvolumes"),
            On("READ", STORAGE, "storageclasses"),
            On("READ update patch", "core", "persistentvolumeclaims"),
        ],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[Named(
            "approve",
            CERTIFICATES,
            "signers",
            "kubernetes.io/legacy-unknown",
        )],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[Named(
            "approve",
            CERTIFICATES,
            "signers",
            "kubernetes.io/kubelet-serving",
        )],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[Named(
            "approve",
            CERTIFICATES,
            "signers",
            "kubernetes.io/kube-apiserver-client",
        )],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[Named(
            "approve",
            CERTIFICATES,
            "signers",
            "kubernetes.io/kube-apiserver-client-kubelet",
        )],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[Urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role(
        "system:node-proxier",
        &[
            On("list watch", "core", "services endpoints"),
            On("READ", "core", "nodes"),
            EVENTS,
            On("list watch", NETWORKING, "servicecidrs"),
            On("list watch", DISCOVERY, "endpointslices"),
        ],
    ),
    role(
        "system:kube-scheduler",
        &[
            EVENTS,
            On("create", COORDINATION, "leases"),
            Named("READ update", COORDINATION, "leases", "kube-scheduler"),
            On("READ WRITE", COORDINATION, "leasecandidates"),
            On("READ", "core", "nodes"),
            On("READ delete", "core", "pods"),
            On("create", "core", "pods/binding bindings"),
            On("patch update", "core", "pods/status"),
            On("READ", "core", "services replicationcontrollers"),
            On("READ", "apps extensions", "replicasets"),
            On("READ", "apps", "statefulsets"),
            On("READ", "policy", "poddisruptionbudgets"),
            On("READ", "core", "persistentvolumeclaims persistentvolumes"),
            On("create", AUTHENTICATION, "tokenreviews"),
            On("create", AUTHORIZATION, "subjectaccessreviews"),
            On("READ", STORAGE, "csinodes"),
            On("READ", STORAGE, "volumeattachments"),
            On("READ", "core", "namespaces"),
            On("READ", STORAGE, "csidrivers"),
            On("READ", STORAGE, "csistoragecapacities"),
            On("READ", RESOURCE, "deviceclasses"),
            On("READ update patch", RESOURCE, "resourceclaims"),
            On("READ update patch", RESOURCE, "resourceclaims/status"),
            On("update", "core", "pods/finalizers"),
            On("READ", RESOURCE, "resourceslices"),
            On("create delete", RESOURCE, "resourceclaims"),
            On("patch update", RESOURCE, "resourceclaims/binding"),
        ],
    ),
];

/// What a node may ask for at all; the node authorizer narrows it down to what its pods use.
pub(super) const NODE: &[Grant] = &[
    On("create", AUTHENTICATION, "tokenreviews"),
    On(
        "create",
        AUTHORIZATION,
        "subjectaccessreviews localsubjectaccessreviews",
    ),
    On("READ", "core", "services"),
    On("READ create", "core", "nodes"),
    On("update patch", "core", "nodes/status"),
    On("update patch", "core", "nodes"),
    On("create update patch", "core", "events"),
    On("READ", "core", "pods"),
    On("create delete", "core", "pods"),
    On("update patch", "core", "pods/status"),
    On("create", "core", "pods/eviction"),
    On("READ", "core", "secrets configmaps"),
    On("get", "core", "persistentvolumeclaims persistentvolumes"),
    On("get", "core", "endpoints"),
    On(
        "create get list watch",
        CERTIFICATES,
        "certificatesigningrequests",
    ),
    On("get create update patch delete", COORDINATION, "leases"),
    On("get", STORAGE, "volumeattachments"),
    On("get update patch", "core", "persistentvolumeclaims/status"),
    On("create", "core", "serviceaccounts/token"),
    On("READ", STORAGE, "csidrivers"),
    On("get create update patch delete", STORAGE, "csinodes"),
    On("READ", "node.k8s.io", "runtimeclasses"),
    On("get", RESOURCE, "resourceclaims"),
    On("deletecollection", RESOURCE, "resourceslices"),
    On("get", "core", "serviceaccounts"),
];

type Subjects = &'static [(&'static str, &'static str)];

/// Cluster roles and their subjects; a binding is named after its role.
pub(super) const BINDINGS: &[(&str, Subjects)] = &[
    ("cluster-admin", &[("Group", crate::MASTERS)]),
    ("system:monitoring", &[("Group", "system:monitoring")]),
    ("system:discovery", &[("Group", "system:authenticated")]),
    ("system:basic-user", &[("Group", "system:authenticated")]),
    (
        "system:public-info-viewer",
        &[
            ("Group", "system:authenticated"),
            ("Group", "system:unauthenticated"),
        ],
    ),
    ("system:node-proxier", &[("User", "system:kube-proxy")]),
    (
        "system:kube-controller-manager",
        &[("User", "system:kube-controller-manager")],
    ),
    ("system:kube-dns", &[("ServiceAccount", "kube-dns")]),
    (
        "system:kube-scheduler",
        &[("User", "system:kube-scheduler")],
    ),
    (
        "system:volume-scheduler",
        &[("User", "system:kube-scheduler")],
    ),
    // Nobody: nodes are the node authorizer's affair.
    ("system:node", &[]),
    (
        "system:service-account-issuer-discovery",
        &[("Group", "system:serviceaccounts")],
    ),
];

const SYSTEM: &str = "kube-system";
const PUBLIC: &str = "kube-public";

pub(super) const NAMESPACE_ROLES: &[(&str, &str, &[Grant])] = &[
    (
        PUBLIC,
        "system:controller:bootstrap-signer",
        &[
            On("READ", "core", "configmaps"),
            Named("update", "core", "configmaps", "cluster-info"),
            EVENTS,
        ],
    ),
    (
        SYSTEM,
        "extension-apiserver-authentication-reader",
        &[Named(
            "READ",
            "core",
            "configmaps",
            "extension-apiserver-authentication",
        )],
    ),
    (
        SYSTEM,
        "system:controller:bootstrap-signer",
        &[On("READ", "core", "secrets")],
    ),
    (
        SYSTEM,
        "system:controller:cloud-provider",
        &[On("READ create", "core", "configmaps")],
    ),
    (
        SYSTEM,
        "system:controller:token-cleaner",
        &[On("READ delete", "core", "secrets"), EVENTS],
    ),
    (
        SYSTEM,
        "system::leader-locking-kube-controller-manager",
        &[
            On("watch", "core", "configmaps"),
            Named(
                "get update",
                "core",
                "configmaps",
                "kube-controller-manager",
            ),
        ],
    ),
    (
        SYSTEM,
        "system::leader-locking-kube-scheduler",
        &[
            On("watch", "core", "configmaps"),
            Named("get update", "core", "configmaps", "kube-scheduler"),
        ],
    ),
];

pub(super) const NAMESPACE_BINDINGS: &[(&str, &str, &str, Subjects)] = &[
    (
        PUBLIC,
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[("ServiceAccount", "bootstrap-signer")],
    ),
    (
        SYSTEM,
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[
            ("User", "system:kube-controller-manager"),
            ("User", "system:kube-scheduler"),
        ],
    ),
    (
        SYSTEM,
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[
            ("User", "system:kube-controller-manager"),
            ("ServiceAccount", "kube-controller-manager"),
        ],
    ),
    (
        SYSTEM,
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[
            ("User", "system:kube-scheduler"),
            ("ServiceAccount", "kube-scheduler"),
        ],
    ),
    (
        SYSTEM,
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[("ServiceAccount", "bootstrap-signer")],
    ),
    (
        SYSTEM,
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &[("ServiceAccount", "cloud-provider")],
    ),
    (
        SYSTEM,
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &[("ServiceAccount", "token-cleaner")],
    ),
];
