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
const QUANTITIES: &[&str] = &["1", "100m", "1Gi", "0", "-1", "9223372036854775807", "1e3", "0.5n"];
const DURATIONS: &[&str] = &["1s", "0s", "-1h", "1h30m", "2562047h47m16.854775807s"];
/// Words of many enumerations; those of a field are not in the schema of a built-in kind.
const WORDS: &[&str] = &[
    "Always", "Never", "OnFailure", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "TCP", "UDP", "IPv4", "IPv6",
    "RollingUpdate", "Recreate", "OnDelete", "Delete", "Retain", "Allow", "Forbid", "In", "NotIn", "Exists", "DoesNotExist",
    "Gt", "Equal", "NoSchedule", "NoExecute", "ReadWriteOnce", "Filesystem", "Block", "Ingress", "Egress", "Resource", "Pods",
    "Utilization", "AverageValue", "Value", "Indexed", "NonIndexed", "10.0.0.1", "10.0.0.0/8", "fd00::1", "2001:db8::/32",
    "*/5 * * * *", "TZ=UTC 0 0 1 1 0", "Europe/Berlin", "cpu", "memory", "v1", "apps/v1", "Pod", "kubernetes.io/hostname",
    "Exact", "Prefix", "Fail", "Ignore", "Namespaced", "Cluster", "create", "*", "pods", "User", "Group", "ServiceAccount",
    "rbac.authorization.k8s.io", "true", "Queue", "Reject", "Limited", "Exempt", "ByUser", "https://a.example/", "/a/b", "50%",
    "object.metadata.name == 'a'", "^a.*$", "None", "ClientIP", "Local", "SingleStack", "PreferDualStack", "Default",
];

/// A value of a schema; fewer fields the deeper it gets.
pub fn value(random: &mut Random, schema: &Schema, depth: usize) -> Value {
    match schema.ty {
        Type::Object => object(random, schema, depth),
        Type::Map => {
            let mut map = Map::new();
            for _ in 0..random.below(3) {
                let of = schema.additional.as_ref();
                let value = of.map_or_else(|| json!(word(random)), |of| value(random, of, depth + 1));
                map.insert(word(random), value);
            }
            Value::Object(map)
        }
        Type::Array => {
            let many = if random.one_in(8) { 0 } else { 1 + random.below(2) };
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
pub fn field(random: &mut Random, schema: &Schema, object: &mut Value) {
    let (mut schema, mut at) = (schema, object);
    loop {
        let stop = random.one_in(4);
        match (schema.ty, at) {
            (Type::Object, Value::Object(map)) if !schema.properties.is_empty() => {
                let present: Vec<&str> = schema
                    .properties
                    .iter()
                    .filter(|p| map.contains_key(&*p.name))
                    .map(|p| &*p.name)
                    .collect();
                let chosen = random.pick(&present).map(|name| (*name).to_owned());
                let below = chosen
                    .as_deref()
                    .and_then(|name| schema.property(name).map(|p| (name, p)));
                match below {
                    Some((name, property)) if !stop && map.contains_key(name) => {
                        schema = &property.schema;
                        let Some(next) = map.get_mut(name) else { return };
                        at = next;
                    }
                    _ => {
                        let Some(property) = random.pick(&schema.properties) else {
                            return;
                        };
                        let value = value(random, &property.schema, 4);
                        map.insert(property.name.clone().into(), value);
                        return;
                    }
                }
            }
            (Type::Array, Value::Array(items)) => {
                let Some(of) = &schema.items else { return };
                let index = random.below(items.len());
                if stop || items.is_empty() {
                    items.push(value(random, of, 4));
                    return;
                }
                schema = of;
                at = &mut items[index];
            }
            (_, at) => {
                *at = value(random, schema, 4);
                return;
            }
        }
    }
}
