//! Values by a schema: objects of a kind to begin with, and fields more for those that are there.

use oarlock_schema::{Schema, Type};
use serde_json::{Map, Value, json};

use crate::random::Random;

const NAMES: &[&str] = &["a", "b", "web", "kube-system", "example.com/a", "x.y", ""];
const TIMES: &[&str] = &[
    "2026-01-02T03:04:05Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "1970-01-01T00:00:00+14:00",
];
const QUANTITIES: &[&str] = &[
    "1",
    "100m",
    "1Gi",
    "0",
    "-1",
    "9223372036854775807",
    "1e3",
    "0.5n",
];
const DURATIONS: &[&str] = &["1s", "0s", "-1h", "1h30m", "2562047h47m16.854775807s"];
/// Words of many enumerations; those of a field are not in the schema of a built-in kind.
const WORDS: &[&str] = &[
    "Always",
    "Never",
    "OnFailure",
    "ClusterIP",
    "NodePort",
    "LoadBalancer",
    "ExternalName",
    "TCP",
    "UDP",
    "IPv4",
    "IPv6",
    "RollingUpdate",
    "Recreate",
    "OnDelete",
    "Delete",
    "Retain",
    "Allow",
    "Forbid",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "Gt",
    "Equal",
    "NoSchedule",
    "NoExecute",
    "ReadWriteOnce",
    "Filesystem",
    "Block",
    "Ingress",
    "Egress",
    "Resource",
    "Pods",
    "Utilization",
    "AverageValue",
    "Value",
    "Indexed",
    "NonIndexed",
    "10.0.0.1",
    "10.0.0.0/8",
    "fd00::1",
    "2001:db8::/32",
    "*/5 * * * *",
    "TZ=UTC 0 0 1 1 0",
    "Europe/Berlin",
    "cpu",
    "memory",
    "v1",
    "apps/v1",
    "Pod",
    "kubernetes.io/hostname",
    "Exact",
    "Prefix",
    "Fail",
    "Ignore",
    "Namespaced",
    "Cluster",
    "create",
    "*",
    "pods",
    "User",
    "Group",
    "ServiceAccount",
    "rbac.authorization.k8s.io",
    "true",
    "Queue",
    "Reject",
    "Limited",
    "Exempt",
    "ByUser",
    "https://a.example/",
    "/a/b",
    "50%",
    "object.metadata.name == 'a'",
    "^a.*$",
    "None",
    "ClientIP",
    "Local",
    "SingleStack",
    "PreferDualStack",
    "Default",
];

/// A value of a schema; fewer fields the deeper it gets.
pub fn value(random: &mut Random, schema: &Schema, depth: usize) -> Value {
    match schema.ty {
        Type::Object => object(random, schema, depth),
        Type::Map => {
            let mut map = Map::new();
            for _ in 0..random.below(3) {
                let value = match &schema.additional {
                    Some(of) => value(random, of, depth + 1),
                    None => json!(word(random)),
                };
                map.insert(word(random), value);
            }
            Value::Object(map)
        }
        Type::Array => {
            let many = if random.one_in(8) {
                0
            } else {
                1 + random.below(2)
            };
            (0..many)
                .map(|_| match &schema.items {
                    Some(of) => value(random, of, depth + 1),
                    None => json!(word(random)),
                })
                .collect()
        }
        Type::Any => json!({"a": [1, "b"]}),
        Type::String => json!(word(random)),
        Type::Int32 | Type::Int64 => {
            json!([0, 1, 2, 3, 30, 80, 443, 8080, 65535, -1][random.below(10)])
        }
        Type::Double => json!(0.5),
        Type::Boolean => json!(random.one_in(2)),
        Type::IntOrString => {
            if random.one_in(2) {
                json!(random.below(100))
            } else {
                json!(["http", "50%", "100%", "a"][random.below(4)])
            }
        }
        Type::Quantity => json!(random.pick(QUANTITIES)),
        Type::Time => json!(random.pick(TIMES)),
        Type::MicroTime => json!("2026-01-02T03:04:05.678901Z"),
        Type::Duration => json!(random.pick(DURATIONS)),
        Type::Bytes => json!("aGVsbG8="),
    }
}

fn word(random: &mut Random) -> String {
    let from = if random.one_in(2) { NAMES } else { WORDS };
    random.pick(from).copied().unwrap_or_default().to_owned()
}

fn object(random: &mut Random, schema: &Schema, depth: usize) -> Value {
    let mut map = Map::new();
    for property in schema.properties.iter() {
        let wanted = match (&*property.name, depth) {
            ("apiVersion" | "kind" | "status" | "managedFields" | "deletionTimestamp", 0 | 1) => {
                false
            }
            ("spec" | "metadata", 0) => true,
            (_, 0) => random.one_in(2),
            _ => depth < 7 && (property.required || random.one_in(3 + 2 * depth)),
        };
        if wanted {
            map.insert(
                property.name.clone().into(),
                value(random, &property.schema, depth + 1),
            );
        }
    }
    Value::Object(map)
}

/// Adds or changes a field somewhere in an object of the schema.
pub fn field(random: &mut Random, schema: &Schema, at: &mut Value) {
    let stop = random.one_in(4);
    match at {
        Value::Object(map) if schema.ty == Type::Object && !schema.properties.is_empty() => {
            let mut properties = schema.properties.iter();
            let skip = random.below(schema.properties.len());
            let known = |property: &&oarlock_schema::Property| map.contains_key(&*property.name);
            let chosen = properties.clone().skip(skip).find(known);
            let chosen = chosen.or_else(|| properties.find(known));
            if let Some(property) = chosen
                && !stop
                && let Some(below) = map.get_mut(&*property.name)
            {
                field(random, &property.schema, below);
            } else if let Some(property) = random.pick(&schema.properties) {
                let value = value(random, &property.schema, 4);
                map.insert(property.name.clone().into(), value);
            }
        }
        Value::Array(items) if schema.ty == Type::Array => {
            let Some(of) = &schema.items else { return };
            let index = random.below(items.len());
            match items.get_mut(index) {
                Some(item) if !stop => field(random, of, item),
                _ => items.push(value(random, of, 4)),
            }
        }
        at => *at = value(random, schema, 4),
    }
}
