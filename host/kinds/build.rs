//! Takes the descriptions of fields from k8s-openapi's schemas into one compressed table, `descriptions.json.gz`:
//! definition -> field (empty: the definition itself) -> text. Structure comes from `data/facts.txt`, not from here.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps,
    authentication::v1 as authentication, authorization::v1 as authorization,
    autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling, batch::v1 as batch,
    certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, events::v1 as events, flowcontrol::v1 as flowcontrol,
    networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

macro_rules! visit {
    ($generator:ident: $($kind:ty),* $(,)?) => { $($generator.subschema_for::<$kind>();)* };
}

fn visit_kinds(generator: &mut SchemaGenerator) {
    visit!(generator:
        core::Binding, core::ComponentStatus, core::ConfigMap, core::Endpoints, core::Event, core::LimitRange,
        core::Namespace, core::Node, core::PersistentVolume, core::PersistentVolumeClaim, core::Pod, core::PodTemplate,
        core::ReplicationController, core::ResourceQuota, core::Secret, core::Service, core::ServiceAccount,
        apps::ControllerRevision, apps::DaemonSet, apps::Deployment, apps::ReplicaSet, apps::StatefulSet,
        events::Event, authentication::SelfSubjectReview, authentication::TokenRequest, authentication::TokenReview,
        authorization::LocalSubjectAccessReview, authorization::SelfSubjectAccessReview,
        authorization::SelfSubjectRulesReview, authorization::SubjectAccessReview,
        autoscaling::HorizontalPodAutoscaler, autoscaling_v1::Scale, batch::CronJob, batch::Job,
        certificates::CertificateSigningRequest, networking::IPAddress, networking::Ingress, networking::IngressClass,
        networking::NetworkPolicy, networking::ServiceCIDR, policy::Eviction, policy::PodDisruptionBudget,
        rbac::ClusterRole, rbac::ClusterRoleBinding, rbac::Role, rbac::RoleBinding, storage::CSIDriver, storage::CSINode,
        storage::CSIStorageCapacity, storage::StorageClass, storage::VolumeAttachment, storage::VolumeAttributesClass,
        admissionregistration::MutatingWebhookConfiguration, admissionregistration::ValidatingAdmissionPolicy,
        admissionregistration::ValidatingAdmissionPolicyBinding, admissionregistration::ValidatingWebhookConfiguration,
        apiextensions::CustomResourceDefinition, scheduling::PriorityClass, coordination::Lease, node::RuntimeClass,
        discovery::EndpointSlice, resource::DeviceClass, resource::ResourceClaim, resource::ResourceClaimTemplate,
        resource::ResourceSlice, flowcontrol::FlowSchema, flowcontrol::PriorityLevelConfiguration,
        meta::Status, meta::DeleteOptions, meta::ListMeta, meta::ObjectMeta, meta::Condition,
    );
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=data/columns.txt");
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    visit_kinds(&mut generator);
    let mut table: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    let definitions = generator.definitions();
    for (name, schema) in definitions {
        let fields = table.entry(name).or_default();
        if let Some(text) = description(schema) {
            fields.insert("", text);
        }
        for (field, property) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if let Some(text) = description(property) {
                fields.insert(field, text);
            }
        }
    }
    write_columns(&table);
    let json = serde_json::to_vec(&table).expect("maps of texts are JSON");
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
        .join("descriptions.json.gz");
    let file = std::fs::File::create(path).expect("OUT_DIR is writable");
    let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    out.write_all(&json).expect("OUT_DIR is writable");
    out.finish().expect("OUT_DIR is writable");
}

/// The descriptions of table columns that are those of fields: `data/columns.txt` says which. `column_texts.rs`:
/// (group/Kind, column, text).
fn write_columns(table: &BTreeMap<&str, BTreeMap<&str, &str>>) {
    let mut rust = String::from("[\n");
    let facts = include_str!("data/columns.txt");
    for line in facts
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let words: Vec<&str> = line.split('|').map(str::trim).collect();
        let [kind, column, definition, field] = words[..] else {
            panic!("data/columns.txt: {line:?} has not four parts");
        };
        let text = table
            .iter()
            .find(|(name, _)| {
                name.strip_prefix("io.k8s.")
                    .is_some_and(|n| n.ends_with(definition))
            })
            .and_then(|(_, fields)| fields.get(field))
            .unwrap_or_else(|| panic!("data/columns.txt: no text of {definition} {field}"));
        rust.push_str(&format!("    ({kind:?}, {column:?}, {text:?}),\n"));
    }
    rust.push_str("]\n");
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
        .join("column_texts.rs");
    std::fs::write(path, rust).expect("OUT_DIR is writable");
}

fn description(schema: &Value) -> Option<&str> {
    schema.get("description")?.as_str()
}
