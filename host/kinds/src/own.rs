//! The rows of oarlock.dev/v1alpha1: components, their bytes, scheduler profiles, controllers and admission policies.
//! Hand-written schemas.

mod rules;

use oarlock_model::Gvk;
use oarlock_schema::{ListType, Presence, Property, Schema, SchemaRef, Type};
use serde_json::json;

use crate::builtin::{ALL_VERBS, storage_prefix, verbs};
use crate::facts::facts;
use crate::{Propagation, Row, Subresource};

pub const GROUP: &str = "oarlock.dev";
pub const VERSION: &str = "v1alpha1";

/// A chunk of a component holds at most so many bytes (before base64).
pub const MAX_CHUNK_BYTES: usize = 512 * 1024;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row(
            "AdmissionPolicy",
            "admissionpolicies",
            &["apol"],
            admission_policy(),
            true,
        ),
        row("Component", "components", &["comp"], component(), true),
        row(
            "ComponentChunk",
            "componentchunks",
            &[],
            component_chunk(),
            false,
        ),
        row("Controller", "controllers", &["ctl"], controller(), true),
        row(
            "SchedulerProfile",
            "schedulerprofiles",
            &["sprof"],
            scheduler_profile(),
            true,
        ),
    ]
}

fn row(
    kind: &str,
    resource: &str,
    short_names: &[&str],
    fields: Vec<Property>,
    status: bool,
) -> Row {
    let status_subresource = Subresource {
        name: "status".to_owned(),
        kind: Gvk::new("", "", kind),
        verbs: verbs("gpu"),
    };
    Row {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        resource: resource.to_owned(),
        singular: kind.to_lowercase(),
        short_names: short_names.iter().map(|&s| s.to_owned()).collect(),
        categories: vec!["oarlock".to_owned()],
        namespaced: false,
        verbs: verbs(ALL_VERBS),
        subresources: if status {
            vec![status_subresource]
        } else {
            Vec::new()
        },
        status_subresource: status,
        stored: true,
        generation: true,
        storage_prefix: storage_prefix(GROUP, resource),
        storage_kind: Gvk::new(GROUP, VERSION, kind),
        conversion: None,
        schema: top_level(kind, fields),
        selectable_fields: Vec::new(),
        default_propagation: Propagation::Background,
        columns: rules::columns(kind),
        hooks: rules::hooks(kind),
        custom: None,
    }
}

/// apiVersion, kind and metadata, and the kind's own fields.
fn top_level(kind: &str, mut fields: Vec<Property>) -> SchemaRef {
    let metadata = facts().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let metadata = metadata.map_or_else(SchemaRef::any, |d| d.schema.clone());
    fields.push(presence(string("apiVersion"), Presence::OmitZero));
    fields.push(presence(string("kind"), Presence::OmitZero));
    fields.push(presence(
        Property::new("metadata", metadata),
        Presence::Always,
    ));
    named(kind, fields)
}

fn named(name: &str, fields: Vec<Property>) -> SchemaRef {
    let mut schema = Schema::object(fields);
    schema.definition = format!("dev.oarlock.v1alpha1.{name}").into();
    schema.go_type = format!("v1alpha1.{name}").into();
    schema.into()
}

fn presence(mut property: Property, presence: Presence) -> Property {
    property.presence = presence;
    property
}

fn leaf(name: &str, ty: Type) -> Property {
    Property::new(name, Schema::scalar(ty))
}

fn string(name: &str) -> Property {
    leaf(name, Type::String)
}

fn strings(name: &str) -> Property {
    let mut list = Schema::array(Schema::scalar(Type::String).into());
    list.list_type = ListType::Atomic;
    Property::new(name, list)
}

fn keyed(name: &str, keys: &[&str], items: SchemaRef) -> Property {
    let mut list = Schema::array(items);
    list.list_type = ListType::Map;
    list.list_map_keys = keys.iter().map(|&k| k.into()).collect();
    list.merge_key = keys.first().copied().unwrap_or_default().into();
    list.patch_strategy.merge = true;
    Property::new(name, list)
}

fn conditions() -> Property {
    let condition = facts().definition("io.k8s.apimachinery.pkg.apis.meta.v1.Condition");
    keyed(
        "conditions",
        &["type"],
        condition.map_or_else(SchemaRef::any, |d| d.schema.clone()),
    )
}

fn any(name: &str) -> Property {
    Property::new(name, SchemaRef::any())
}

/// What a guest may use. Absent: the host's default.
fn limits() -> Property {
    Property::new(
        "limits",
        named(
            "Limits",
            vec![
                leaf("memoryMiB", Type::Int32),
                leaf("deadlineMilliseconds", Type::Int32),
                leaf("maxTraps", Type::Int32),
            ],
        ),
    )
}

fn component() -> Vec<Property> {
    let spec = vec![
        string("digest").required(),
        leaf("size", Type::Int64),
        leaf("chunks", Type::Int32),
        string("source"),
    ];
    let status = vec![
        leaf("observedGeneration", Type::Int64),
        conditions(),
        strings("imports"),
        strings("exports"),
        strings("points"),
        strings("plugins"),
        any("details"),
    ];
    vec![
        Property::new("spec", named("ComponentSpec", spec)).required(),
        Property::new("status", named("ComponentStatus", status)),
    ]
}

fn component_chunk() -> Vec<Property> {
    vec![
        string("digest").required(),
        leaf("index", Type::Int32),
        leaf("data", Type::Bytes).required(),
    ]
}

fn scheduler_profile() -> Vec<Property> {
    let plugin = named(
        "Plugin",
        vec![
            string("name").required(),
            leaf("weight", Type::Int32),
            string("component"),
        ],
    );
    let set = |enabled: &SchemaRef| {
        let list = |name: &str| Property::new(name, Schema::array(enabled.clone()));
        named("PluginSet", vec![list("enabled"), list("disabled")])
    };
    let plugin_set = set(&plugin);
    let points = [
        "preEnqueue",
        "queueSort",
        "preFilter",
        "filter",
        "postFilter",
        "preScore",
        "score",
        "reserve",
        "permit",
        "preBind",
        "bind",
        "postBind",
        "multiPoint",
    ];
    let plugins = named(
        "Plugins",
        points
            .iter()
            .map(|point| Property::new(point, plugin_set.clone()))
            .collect(),
    );
    let config = named("PluginConfig", vec![string("name").required(), any("args")]);
    let spec = vec![
        string("schedulerName").with_default(json!("default-scheduler")),
        string("component"),
        Property::new("plugins", plugins),
        keyed("pluginConfig", &["name"], config),
        leaf("percentageOfNodesToScore", Type::Int32),
        string("failurePolicy"),
        limits(),
    ];
    let status = vec![
        leaf("observedGeneration", Type::Int64),
        conditions(),
        string("activeComponent"),
        string("previousComponent"),
        any("receipt"),
        leaf("traps", Type::Int64),
        any("details"),
    ];
    vec![
        Property::new("spec", named("SchedulerProfileSpec", spec)).required(),
        Property::new("status", named("SchedulerProfileStatus", status)),
    ]
}

fn controller() -> Vec<Property> {
    let spec = vec![
        string("component").required(),
        any("config"),
        leaf("replicas", Type::Int32),
        leaf("workers", Type::Int32),
        string("serviceAccountName"),
        limits(),
    ];
    let status = vec![
        leaf("observedGeneration", Type::Int64),
        conditions(),
        string("activeComponent"),
        any("receipt"),
        leaf("traps", Type::Int64),
        any("details"),
    ];
    vec![
        Property::new("spec", named("ControllerSpec", spec)).required(),
        Property::new("status", named("ControllerStatus", status)),
    ]
}

fn admission_policy() -> Vec<Property> {
    let selector = |name: &str| {
        let selector = facts().definition("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector");
        Property::new(
            name,
            selector.map_or_else(SchemaRef::any, |d| d.schema.clone()),
        )
    };
    let rule = named(
        "AdmissionRule",
        vec![
            strings("operations"),
            strings("apiGroups"),
            strings("apiVersions"),
            strings("resources"),
        ],
    );
    let mut rules = Schema::array(rule);
    rules.list_type = ListType::Atomic;
    let matching = vec![
        Property::new("rules", rules),
        selector("namespaceSelector"),
        selector("objectSelector"),
    ];
    let spec = vec![
        string("component").required(),
        Property::new("match", named("AdmissionMatch", matching)),
        string("failurePolicy").with_default(json!("Fail")),
        string("mode").with_default(json!("Enforce")),
        leaf("order", Type::Int32),
        any("args"),
        limits(),
    ];
    let status = vec![
        leaf("observedGeneration", Type::Int64),
        conditions(),
        string("activeComponent"),
        string("previousComponent"),
        any("receipt"),
        any("policy"),
        any("counts"),
        leaf("traps", Type::Int64),
        any("details"),
    ];
    vec![
        Property::new("spec", named("AdmissionPolicySpec", spec)).required(),
        Property::new("status", named("AdmissionPolicyStatus", status)),
    ]
}
