//! Warnings about a validating policy's expressions: checked against the types of the kinds that its rules name.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking>
//!
//! A warning changes nothing about what the policy does. Rules with `*` name no kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_cel::policy::{typed_env, warning_of};
use oarlock_cel::{Fields, ObjectType, Shape, Type, escape};
use oarlock_kinds::{Kinds, Row};
use oarlock_schema::{Schema, Type as Kind};
use serde_json::{Value, json};

/// More kinds than this of one rule are not looked at.
const MAX_KINDS: usize = 10;

/// `status.typeChecking.expressionWarnings` of a policy.
pub fn expression_warnings(kinds: &Kinds, policy: &Value) -> Vec<Value> {
    let spec = &policy["spec"];
    let param = &spec["paramKind"];
    let params = param["kind"].as_str().and_then(|kind| {
        let version = param["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        Some(type_of(&*kinds.kind(group, version, kind)?))
    });
    let envs: Vec<(String, _)> = named_kinds(kinds, spec)
        .into_iter()
        .map(|((group, version, kind), row)| {
            let env = typed_env(spec, type_of(&row), params.clone());
            (format!("{group}/{version}, Kind={kind}"), env)
        })
        .collect();
    let mut warnings = Vec::new();
    let validations = spec["validations"].as_array();
    for (index, validation) in validations.into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(text) = validation[field].as_str().filter(|text| !text.is_empty()) else {
                continue;
            };
            let told: Vec<String> = envs
                .iter()
                .filter_map(|(kind, env)| Some(format!("{kind}: {}\n", warning_of(text, env)?)))
                .collect();
            if !told.is_empty() {
                warnings.push(json!({
                    "fieldRef": format!("spec.validations[{index}].{field}"), "warning": told.join("\n"),
                }));
            }
        }
    }
    warnings
}

/// Group, version and kind.
type Name = (String, String, String);

fn named_kinds(kinds: &Kinds, spec: &Value) -> BTreeMap<Name, Arc<Row>> {
    let mut found = BTreeMap::new();
    let rules = spec["matchConstraints"]["resourceRules"].as_array();
    for rule in rules.into_iter().flatten() {
        let texts = |field: &str| {
            let list = rule[field].as_array().into_iter().flatten();
            let mut texts: Vec<&str> = list.filter_map(Value::as_str).collect();
            texts.sort_unstable();
            texts
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups
            .iter()
            .chain(&versions)
            .any(|text| text.contains('*'))
        {
            continue;
        }
        let mut resources = texts("resources");
        resources.retain(|resource| !resource.contains(['*', '/']));
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for resource in &resources {
                    let Some(row) = kinds.resource(group, version, resource) else {
                        continue;
                    };
                    let name = ((*group).to_owned(), (*version).to_owned(), row.kind.clone());
                    found.insert(name, row);
                    count += 1;
                    if count == MAX_KINDS {
                        return found;
                    }
                }
            }
        }
    }
    found
}

/// A kind as the checker sees it.
fn type_of(row: &Row) -> Type {
    let whole = of_schema(&row.schema, &row.kind, &mut Vec::new()).unwrap_or(Type::Dyn);
    let Some(custom) = &row.custom else {
        return whole;
    };
    // The document says more of formats; but metadata is every object's.
    let Some(Type::Object(own)) =
        Shape::of(&custom.document, &row.kind, true).map(|shape| shape.ty)
    else {
        return whole;
    };
    let (Fields::Known(fields), Type::Object(whole)) = (&own.fields, &whole) else {
        return Type::Object(own);
    };
    let mut fields = fields.clone();
    if let Fields::Known(all) = &whole.fields
        && let Some(metadata) = all.get("metadata")
    {
        fields.insert("metadata".to_owned(), metadata.clone());
    }
    known(&row.kind, fields)
}

fn known(name: &str, fields: BTreeMap<String, Type>) -> Type {
    let fields = Fields::Known(fields);
    let name = name.to_owned();
    Type::Object(Arc::new(ObjectType { name, fields }))
}

/// `None`: nothing is said of it, and it cannot be named. `around`: the definitions that it is inside of.
fn of_schema<'s>(schema: &'s Schema, name: &str, around: &mut Vec<&'s str>) -> Option<Type> {
    Some(match schema.ty {
        // Any fields: none of them can be named. Any type: it cannot be named itself.
        Kind::Any if schema.definition.ends_with("RawExtension") => known(name, BTreeMap::new()),
        Kind::Any if schema.definition.ends_with("FieldsV1") => known(name, BTreeMap::new()),
        Kind::Any => return None,
        Kind::Object => {
            let definition = &*schema.definition;
            if !definition.is_empty() && around.contains(&definition) {
                return None;
            }
            around.push(definition);
            let mut fields = BTreeMap::new();
            for property in schema.properties.iter() {
                let inside = format!("{name}.{}", property.name);
                let ty = of_schema(&property.schema, &inside, around);
                if let Some((field, ty)) = escape(&property.name).zip(ty) {
                    fields.insert(field, ty);
                }
            }
            around.pop();
            known(name, fields)
        }
        Kind::Map => {
            let values = schema.additional.as_ref()?;
            let inside = format!("{name}.@elem");
            Type::map(Type::String, of_schema(values, &inside, around)?)
        }
        Kind::Array => {
            let items = schema.items.as_ref()?;
            Type::list(of_schema(items, &format!("{name}.@idx"), around)?)
        }
        Kind::Int32 | Kind::Int64 => Type::Int,
        Kind::Double => Type::Double,
        Kind::Boolean => Type::Bool,
        Kind::IntOrString => Type::Dyn,
        Kind::Time | Kind::MicroTime => Type::Timestamp,
        Kind::Bytes => Type::Bytes,
        // A duration of `meta/v1` has no format.
        Kind::String | Kind::Quantity | Kind::Duration => Type::String,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_held_against_the_kinds_that_rules_name() {
        let kinds = Kinds::builtin();
        let policy = json!({"spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "deployments/scale", "*"]},
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
                {"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]},
            ]},
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "n", "expression": "object.metadata.name"}, {"name": "r", "expression": "request.userInfo"}],
            "validations": [
                {"expression": "variables.n.size() > params.data.size() && variables.r.nonsense == 1"},
                {"expression": "object.spec.replicas > 1", "messageExpression": "object.metadata.labels['a']"},
                {"expression": "object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z') && params.dato == null"},
            ],
        }});
        let warnings = expression_warnings(&kinds, &policy);
        let told: Vec<(&str, &str)> = warnings
            .iter()
            .map(|w| {
                (
                    w["fieldRef"].as_str().unwrap(),
                    w["warning"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(
            told[0],
            (
                "spec.validations[1].expression",
                "/v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'spec'\n | object.spec.replicas > 1\n | ......^\n"
            )
        );
        assert_eq!(told[1].0, "spec.validations[2].expression");
        let (first, second) = told[1].1.split_once("\n\n").unwrap();
        assert!(
            first.starts_with("/v1, Kind=ConfigMap: ") && first.contains("undefined field 'dato'")
        );
        assert!(second.starts_with("apps/v1, Kind=Deployment: "));
    }

    #[test]
    fn every_kind_has_a_type() {
        for row in Kinds::builtin().rows() {
            assert!(matches!(type_of(row), Type::Object(_)), "{}", row.kind);
        }
    }
}
