//! What the expressions of policies see: `object`, `oldObject`, `request`, `namespaceObject`, `params`, `authorizer`.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use oarlock_cel::{
    Activation, Attributes, Authorizer, Decision, Program, Shape, Value as Cel, authorizer,
    request_resource,
};
use oarlock_kinds::Row;
use oarlock_model::meta;
use serde_json::{Map, Value, json};

use crate::admission::{AdmissionRequest, Operation, matching};
use crate::{FieldValidation, Registry, User, strategy};

/// Who may do what, as expressions ask it.
pub trait Authorize: Send + Sync + std::fmt::Debug {
    fn decide(&self, user: &User, attributes: &Attributes) -> Decision;
}

const MASTERS: &str = "system:masters";

/// Asks for one user.
#[derive(Debug)]
struct For {
    by: Option<Arc<dyn Authorize>>,
    user: Arc<User>,
}

impl Authorizer for For {
    fn check(&self, attributes: &Attributes) -> Decision {
        match &self.by {
            Some(by) => by.decide(&self.user, attributes),
            // Without an authorizer only those may do something who may do everything.
            None => Decision {
                allowed: self.user.groups.iter().any(|group| group == MASTERS),
                ..Decision::default()
            },
        }
    }

    fn of_service_account<'a>(&'a self, namespace: &str, name: &str) -> Rc<dyn Authorizer + 'a> {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        Rc::new(Self {
            by: self.by.clone(),
            user: Arc::new(User {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: groups.into(),
                ..User::default()
            }),
        })
    }
}

/// A request as expressions see it. Made once for each parameter.
pub(crate) struct Names<'r> {
    object: Option<&'r Value>,
    old: Option<&'r Value>,
    request: Value,
    namespace: Option<Value>,
    params: Option<&'r Value>,
    asker: Rc<For>,
    itself: Attributes,
}

impl<'r> Names<'r> {
    pub fn new(
        registry: &Registry,
        request: &'r AdmissionRequest<'_>,
        params: Option<&'r Value>,
    ) -> Self {
        let target = request.target;
        let row = &target.row;
        let is_namespace = strategy::is(row, "", "Namespace");
        let namespace = Some(target.namespace.as_str())
            .filter(|name| !name.is_empty() && !is_namespace)
            .and_then(|name| matching::namespace(registry, name))
            .map(|mut namespace| {
                // Expressions know it by its Go name.
                let uid = meta::uid(&namespace).to_owned();
                meta::set(&mut namespace, "UID", uid);
                namespace
            });
        Self {
            object: request.object.as_deref(),
            old: request.old,
            request: describe(request),
            namespace,
            params,
            asker: Rc::new(For {
                by: registry.authorizer().cloned(),
                user: Arc::clone(&request.context.user),
            }),
            itself: Attributes {
                group: row.group.clone(),
                resource: row.resource.clone(),
                subresource: target.subresource.clone(),
                namespace: target.namespace.clone(),
                name: target.name.clone(),
                ..Attributes::default()
            },
        }
    }

    /// Sees the objects in another version of their kind.
    pub fn see(&mut self, seen: &'r Seen) {
        self.object = seen.object.as_ref();
        self.old = seen.old.as_ref();
        let row = &seen.row;
        self.request["kind"] =
            json!({"group": row.group, "version": row.version, "kind": row.kind});
        self.request["resource"] =
            json!({"group": row.group, "version": row.version, "resource": row.resource});
    }

    pub fn activation<'a>(&'a self, variables: &'a [(String, Program)]) -> Activation<'a> {
        let json = |value: Option<&'a Value>| value.map_or(Cel::Null, Cel::json);
        let asker: Rc<dyn Authorizer + 'a> = Rc::<For>::clone(&self.asker);
        let namespace = match (&self.namespace, &*NAMESPACE) {
            (Some(namespace), Some(shape)) => Cel::shaped(namespace, shape),
            _ => Cel::Null,
        };
        Activation::new()
            .with("object", json(self.object))
            .with("oldObject", json(self.old))
            .with("request", Cel::json(&self.request))
            .with("namespaceObject", namespace)
            .with("params", json(self.params))
            .with(
                "authorizer.requestResource",
                request_resource(Rc::clone(&asker), self.itself.clone()),
            )
            .with("authorizer", authorizer(asker))
            .with_variables(variables)
    }
}

/// The objects of a request in another version of their kind: the one that a policy's rules name.
pub(crate) struct Seen {
    row: Arc<Row>,
    object: Option<Value>,
    old: Option<Value>,
}

impl Seen {
    /// `None`: the request is in that version.
    pub fn of(request: &AdmissionRequest<'_>, row: &Arc<Row>) -> Option<Self> {
        let own = &request.target.row;
        if own.gvk() == row.gvk() {
            return None;
        }
        let turned = |object: &Value| in_version(object, own, row);
        Some(Self {
            row: Arc::clone(row),
            object: request.object.as_deref().map(turned),
            old: request.old.map(turned),
        })
    }

    /// The object in that version, or the given one if there is none.
    pub fn object<'s>(&'s self, given: &'s Value) -> &'s Value {
        self.object.as_ref().unwrap_or(given)
    }
}

/// An object of one kind as another version of it.
pub(crate) fn in_version(object: &Value, from: &Row, to: &Row) -> Value {
    let mut object = object.clone();
    if from.gvk() != to.gvk() {
        from.store(&mut object);
        to.show(&mut object);
        meta::set_type(&mut object, to.api_version(), to.kind.as_str());
    }
    object
}

/// How a namespace's times are read.
static NAMESPACE: LazyLock<Option<Shape>> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    let texts = json!({"type": "array", "items": text});
    let labels = json!({"type": "object", "additionalProperties": text});
    let object = |fields: Value| json!({"type": "object", "properties": fields});
    let condition = object(json!({
        "type": text, "status": text, "message": text, "reason": text, "lastTransitionTime": time,
    }));
    let schema = object(json!({
        "metadata": object(json!({
            "name": text, "generateName": text, "namespace": text, "labels": labels, "annotations": labels, "UID": text,
            "creationTimestamp": time, "deletionGracePeriodSeconds": {"type": "integer"}, "deletionTimestamp": time,
            "generation": {"type": "integer"}, "resourceVersion": text, "finalizers": texts,
        })),
        "spec": object(json!({"finalizers": texts})),
        "status": object(json!({"phase": text, "conditions": {"type": "array", "items": condition}})),
    }));
    Shape::of(&schema, "kubernetes.Namespace", false)
});

/// `request`: upstream's AdmissionRequest without the objects. Empty texts are left out.
pub(crate) fn describe(request: &AdmissionRequest<'_>) -> Value {
    let (target, context) = (request.target, request.context);
    let row = &target.row;
    let kind = json!({"group": row.group, "version": row.version, "kind": row.kind});
    let resource = json!({"group": row.group, "version": row.version, "resource": row.resource});
    let mut user = Map::new();
    let mut described = Map::new();
    let texts = |into: &mut Map<String, Value>, all: &[(&str, &str)]| {
        for (name, text) in all.iter().filter(|(_, text)| !text.is_empty()) {
            into.insert((*name).to_owned(), json!(text));
        }
    };
    texts(
        &mut user,
        &[("username", &context.user.name), ("uid", &context.user.uid)],
    );
    if !context.user.groups.is_empty() {
        user.insert("groups".to_owned(), json!(context.user.groups));
    }
    if !context.user.extra.is_empty() {
        let extra: Map<String, Value> = context
            .user
            .extra
            .iter()
            .map(|(name, values)| (name.clone(), json!(values)))
            .collect();
        user.insert("extra".to_owned(), extra.into());
    }
    let name = match request.object.as_deref().map(meta::name) {
        Some(name) if !name.is_empty() => name,
        _ => &target.name,
    };
    texts(
        &mut described,
        &[
            ("name", name),
            ("namespace", &target.namespace),
            ("operation", request.operation.as_str()),
            ("subResource", &target.subresource),
            ("requestSubResource", &target.subresource),
        ],
    );
    described.insert("kind".to_owned(), kind.clone());
    described.insert("requestKind".to_owned(), kind);
    described.insert("resource".to_owned(), resource.clone());
    described.insert("requestResource".to_owned(), resource);
    described.insert("userInfo".to_owned(), user.into());
    described.insert("dryRun".to_owned(), context.dry_run.into());
    let mut options = Map::new();
    let validation = match context.field_validation {
        FieldValidation::Ignore => "Ignore",
        FieldValidation::Warn => "Warn",
        FieldValidation::Strict => "Strict",
    };
    let (options_kind, writes) = match request.operation {
        Operation::Create => ("CreateOptions", true),
        Operation::Update => ("UpdateOptions", true),
        Operation::Delete => ("DeleteOptions", false),
        Operation::Connect => ("", false),
    };
    if !options_kind.is_empty() {
        texts(
            &mut options,
            &[("kind", options_kind), ("apiVersion", "meta.k8s.io/v1")],
        );
        if context.dry_run {
            options.insert("dryRun".to_owned(), json!(["All"]));
        }
        if writes {
            texts(
                &mut options,
                &[
                    ("fieldManager", &context.field_manager),
                    ("fieldValidation", validation),
                ],
            );
        }
        described.insert("options".to_owned(), options.into());
    }
    described.into()
}
