//! Objects in error texts about patches, which quote what the patch made of the object: fields that Go has marshalled stand in
//! the order of its structs, those that the patch went through in the order of their names.

use serde_json::{Map, Value};

use crate::protobuf::{definition, in_order};

/// The maps that a patch went through, by the names of what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched(std::collections::BTreeMap<String, Touched>);

impl Touched {
    /// By a merge patch: every map that it merges into.
    pub fn by_merge(patch: &Value) -> Self {
        let maps = patch
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| value.is_object());
        Self(
            maps.map(|(name, value)| (name.clone(), Self::by_merge(value)))
                .collect(),
        )
    }

    /// By a JSON patch: every container on the way to what an operation names.
    pub fn by_operations(patch: &Value) -> Self {
        let mut all = Self::default();
        let paths = patch
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|operation| [operation["path"].as_str(), operation["from"].as_str()])
            .flatten();
        for path in paths {
            let mut at = &mut all;
            let mut steps: Vec<String> = path
                .split('/')
                .skip(1)
                .map(|step| step.replace("~1", "/").replace("~0", "~"))
                .collect();
            steps.pop();
            for step in steps {
                at = at.0.entry(step).or_default();
            }
        }
        all
    }
}

/// The JSON text of an object that a patch made.
pub fn patched(object: &Value, touched: &Touched) -> String {
    let text = |field: &str| {
        object
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let of = definition(text("apiVersion"), text("kind"));
    let mut out = String::new();
    write(&mut out, object, of, Some(touched));
    out
}

fn write(out: &mut String, value: &Value, of: Option<&'static str>, touched: Option<&Touched>) {
    match value {
        Value::Object(map) => {
            out.push('{');
            for (i, (name, inner, of)) in
                members(map, of, touched.is_some()).into_iter().enumerate()
            {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name).to_string());
                out.push(':');
                write(out, inner, of, touched.and_then(|t| t.0.get(name)));
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(out, item, of, touched.and_then(|t| t.0.get(&i.to_string())));
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

type Member<'a> = (&'a str, &'a Value, Option<&'static str>);

fn members<'a>(
    map: &'a Map<String, Value>,
    of: Option<&'static str>,
    by_name: bool,
) -> Vec<Member<'a>> {
    let order = of.map(in_order).unwrap_or_default();
    let place = |name: &str| order.iter().position(|(field, _)| *field == name);
    let mut all: Vec<(usize, Member<'a>)> = map
        .iter()
        .map(|(name, value)| match place(name) {
            Some(at) => (at, (name.as_str(), value, order[at].1)),
            // A map's values are of one kind, its own.
            None if order.is_empty() => (0, (name.as_str(), value, None)),
            None => (usize::MAX, (name.as_str(), value, None)),
        })
        .collect();
    if by_name {
        all.sort_by_key(|(_, (name, ..))| *name);
    } else {
        // What every object begins with has no number.
        let head = |name: &str| match name {
            "kind" => 0,
            "apiVersion" => 1,
            _ => 2,
        };
        all.sort_by_key(|(at, (name, ..))| {
            let unnumbered = *at == usize::MAX && !order.is_empty();
            (if unnumbered { head(name) } else { 2 }, *at, *name)
        });
    }
    all.into_iter().map(|(_, member)| member).collect()
}

/// A tree as Go's `%+v` prints it: `map[a:1 b:[x y]]`.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_unstable();
            let members: Vec<String> = names
                .into_iter()
                .map(|name| format!("{name}:{}", plain(&map[name])))
                .collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// Why a tree cannot become a struct, in the words of Go's converter from trees, given those of its JSON decoder.
pub fn restoring(why: &str) -> String {
    let Some(rest) = why.strip_prefix("json: cannot unmarshal ") else {
        return why.to_owned();
    };
    let Some((_, wanted)) = rest.rsplit_once(" of type ") else {
        return why.to_owned();
    };
    let found = match rest.split_whitespace().next().unwrap_or_default() {
        "array" => "slice",
        "object" => "map",
        "number" if rest.contains('.') && rest.starts_with("number 1") => "float64",
        "number" => "int64",
        other => other,
    };
    match wanted {
        "string" if found == "int64" || found == "float64" => {
            format!("cannot convert {found} to {wanted}")
        }
        "string" | "bool" | "int" | "int32" | "int64" | "float64" => {
            format!("unrecognized type: {wanted}")
        }
        list if list.starts_with("[]") => format!("cannot restore slice from {found}"),
        map if map.starts_with("map[") => format!("cannot restore map from {found}"),
        _ => format!("cannot restore struct from: {found}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_patch_went_through_is_sorted_and_the_rest_is_as_declared() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "labels": {"b": "1", "a": "2"}, "creationTimestamp": "t", "uid": "u"},
            "spec": {"nodeName": "x", "zz": 1, "containers": [{"resources": {}, "name": "c", "image": "i"}]}});
        let touched = Touched::by_merge(&json!({"spec": {"zz": 1}}));
        assert_eq!(
            patched(&pod, &touched),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"n","uid":"u","creationTimestamp":"t","labels":{"a":"2","b":"1"}},"spec":{"containers":[{"name":"c","image":"i","resources":{}}],"nodeName":"x","zz":1}}"#
        );
        let touched = Touched::by_operations(&json!([{"op": "add", "path": "/metadata/labels/x"}]));
        assert!(
            patched(&pod, &touched).contains(r#""metadata":{"creationTimestamp":"t","labels""#)
        );
    }

    #[test]
    fn trees_print_as_go_prints_them() {
        assert_eq!(
            plain(&json!({"b": [1, "x"], "a": {"c": null}})),
            "map[a:map[c:<nil>] b:[1 x]]"
        );
        assert_eq!(
            restoring(
                "json: cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec"
            ),
            "cannot restore struct from: string"
        );
        assert_eq!(
            restoring("illegal base64 data at input byte 3"),
            "illegal base64 data at input byte 3"
        );
    }
}
