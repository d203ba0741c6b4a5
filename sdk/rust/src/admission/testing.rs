//! Requests for unit tests of policies: natively, in no time, without a host.

use serde_json::Value;

use super::{Operation, Patch, Policy, Request, User};

/// The creation of an object by `tester`; kind, name and namespace are the object's own.
pub fn creation(resource: &str, object: &Value) -> Request {
    let text = |pointer: &str| {
        let found = object.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let api_version = text("/apiVersion");
    let (group, version) = match api_version.split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), api_version),
    };
    Request {
        operation: Operation::Create,
        user: User {
            name: "tester".to_owned(),
            uid: String::new(),
            groups: vec!["system:authenticated".to_owned()],
            extra: Vec::new(),
        },
        group,
        version,
        kind: text("/kind"),
        resource: resource.to_owned(),
        subresource: String::new(),
        namespace: text("/metadata/namespace"),
        namespace_labels: Vec::new(),
        name: text("/metadata/name"),
        object: Some(object.to_string()),
        old_object: None,
        dry_run: false,
    }
}

/// A change of an object by `tester`.
pub fn change(resource: &str, old: &Value, object: &Value) -> Request {
    Request {
        operation: Operation::Update,
        old_object: Some(old.to_string()),
        ..creation(resource, object)
    }
}

/// A policy with these arguments.
///
/// # Panics
/// If it refuses them.
pub fn configured<P: Policy>(args: &Value) -> P {
    let mut policy = P::default();
    policy
        .configure(&args.to_string())
        .expect("the arguments are good");
    policy
}

/// What a merge patch makes of an object.
///
/// # Panics
/// If it is a patch of another kind, or no JSON.
pub fn merged(object: &Value, patch: &Patch) -> Value {
    let Patch::Merge(text) = patch else {
        panic!("a merge patch is expected, not {patch:?}");
    };
    let mut object = object.clone();
    merge(
        &mut object,
        serde_json::from_str(text).expect("a patch is JSON"),
    );
    object
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(members) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (name, value) in members {
        match (target.as_object_mut(), value) {
            (Some(map), Value::Null) => drop(map.remove(&name)),
            (Some(map), value) => merge(map.entry(name).or_insert(Value::Null), value),
            (None, _) => {}
        }
    }
}
