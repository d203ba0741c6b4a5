//! Paths: every verb of every row and subresource, with its parameters, bodies and answers.

use std::collections::BTreeMap;

use oarlock_model::Gvk;
use oarlock_schema::SchemaRef;
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use super::{Dialect, root_path};
use crate::{Row, Subresource, schema_of_kind};

const BODY_TYPES: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Name, type and description of a query parameter.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', the output is indented.");
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "'All': go through all stages, but store nothing.",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "Name of the actor that makes the change.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What is done about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
);
const FORCE: Parameter = (
    "force",
    "boolean",
    "Apply only: take over the fields that other managers own.",
);
const RESOURCE_VERSION: Parameter = (
    "resourceVersion",
    "string",
    "The version that the answer must be at, or not older than.",
);
const LIST: [Parameter; 10] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "A watch may send events of type BOOKMARK.",
    ),
    (
        "continue",
        "string",
        "Token of the page before, to get the next one.",
    ),
    (
        "fieldSelector",
        "string",
        "Restricts the answer to objects with these field values.",
    ),
    (
        "labelSelector",
        "string",
        "Restricts the answer to objects with these labels.",
    ),
    ("limit", "integer", "Most objects of one page."),
    RESOURCE_VERSION,
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion is meant: Exact or NotOlderThan.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "A watch begins with the objects that are there.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "The call ends after so many seconds.",
    ),
    ("watch", "boolean", "Send changes as they happen."),
];
const DELETE: [Parameter; 4] = [
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "Seconds before the object goes; 0: at once.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Older form of propagationPolicy.",
    ),
    (
        "propagationPolicy",
        "string",
        "What happens to dependents: Orphan, Background or Foreground.",
    ),
];
const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: [Parameter; 4] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];

/// What a verb is in HTTP and in OpenAPI, and what it takes.
struct Verb {
    method: &'static str,
    action: &'static str,
    /// First word of the operation's id.
    word: &'static str,
    parameters: &'static [Parameter],
    status: &'static [(&'static str, &'static str)],
}

const OK: &[(&str, &str)] = &[("200", "OK")];
const OK_CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const OK_CREATED_ACCEPTED: &[(&str, &str)] =
    &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const OK_ACCEPTED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

const LIST_VERB: Verb = Verb {
    method: "get",
    action: "list",
    word: "list",
    parameters: &LIST,
    status: OK,
};
const CREATE_VERB: Verb = Verb {
    method: "post",
    action: "post",
    word: "create",
    parameters: &WRITE,
    status: OK_CREATED_ACCEPTED,
};
const DELETE_COLLECTION_VERB: Verb = Verb {
    method: "delete",
    action: "deletecollection",
    word: "deleteCollection",
    parameters: &[
        DELETE[0], DELETE[1], DELETE[2], DELETE[3], LIST[1], LIST[2], LIST[3], LIST[4], LIST[5],
        LIST[6], LIST[7], LIST[8],
    ],
    status: OK,
};
const GET_VERB: Verb = Verb {
    method: "get",
    action: "get",
    word: "read",
    parameters: &[RESOURCE_VERSION],
    status: OK,
};
const UPDATE_VERB: Verb = Verb {
    method: "put",
    action: "put",
    word: "replace",
    parameters: &WRITE,
    status: OK_CREATED,
};
const PATCH_VERB: Verb = Verb {
    method: "patch",
    action: "patch",
    word: "patch",
    parameters: &PATCH,
    status: OK_CREATED,
};
const DELETE_VERB: Verb = Verb {
    method: "delete",
    action: "delete",
    word: "delete",
    parameters: &DELETE,
    status: OK_ACCEPTED,
};

/// The verbs of an object's own path.
fn verb_of_item(verb: &str) -> Option<&'static Verb> {
    match verb {
        "get" => Some(&GET_VERB),
        "update" => Some(&UPDATE_VERB),
        "patch" => Some(&PATCH_VERB),
        "delete" => Some(&DELETE_VERB),
        _ => None,
    }
}

/// The paths of rows of one group version.
pub(super) fn of_rows(
    dialect: Dialect,
    rows: &[&Row],
    schemas: &mut Schemas,
) -> BTreeMap<String, Value> {
    let mut writer = Writer {
        dialect,
        schemas,
        paths: BTreeMap::new(),
    };
    for row in rows {
        writer.row(row);
    }
    writer.paths
}

struct Writer<'s> {
    dialect: Dialect,
    schemas: &'s mut Schemas,
    paths: BTreeMap<String, Value>,
}

/// References to the schemas of a kind, made once for all its operations.
struct Bodies {
    gvk: Value,
    object: Value,
    list: Value,
}

fn gvk_value(gvk: &Gvk) -> Value {
    json!({ "group": gvk.group, "version": gvk.version, "kind": gvk.kind })
}

impl Writer<'_> {
    fn row(&mut self, row: &Row) {
        let bodies = self.bodies(
            &row.schema,
            &row.gvk(),
            row.has_verb("list").then_some(&row.list_kind),
        );
        let root = root_path(&row.group, &row.version);
        let namespace = if row.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("{root}{namespace}/{}", row.resource);
        let item = format!("{collection}/{{name}}");
        for verb in &row.verbs {
            match verb.as_str() {
                "list" => {
                    self.operation(row, &collection, &LIST_VERB, "", &bodies);
                    if row.namespaced {
                        let all = format!("{root}/{}", row.resource);
                        self.operation(row, &all, &LIST_VERB, "ForAllNamespaces", &bodies);
                    }
                }
                "create" => self.operation(row, &collection, &CREATE_VERB, "", &bodies),
                "deletecollection" => {
                    self.operation(row, &collection, &DELETE_COLLECTION_VERB, "", &bodies);
                }
                verb => {
                    if let Some(verb) = verb_of_item(verb) {
                        self.operation(row, &item, verb, "", &bodies);
                    }
                }
            }
        }
        for subresource in &row.subresources {
            self.subresource(row, &item, subresource);
        }
    }

    fn bodies(&mut self, schema: &SchemaRef, gvk: &Gvk, list_kind: Option<&String>) -> Bodies {
        let value = gvk_value(gvk);
        let object = self.schemas.kind(schema, std::slice::from_ref(&value));
        let list = list_kind.map_or(Value::Null, |list_kind| {
            let list = gvk_value(&Gvk::new(
                gvk.group.clone(),
                gvk.version.clone(),
                list_kind.clone(),
            ));
            self.schemas.list(schema, &list)
        });
        Bodies {
            gvk: value,
            object,
            list,
        }
    }

    /// Subresources whose bodies are not objects of a kind that we have a schema of (exec, proxy, ...) have texts.
    fn subresource(&mut self, row: &Row, item: &str, subresource: &Subresource) {
        let kind = &subresource.kind;
        let same = kind.kind == row.kind && kind.group.is_empty();
        let gvk = if kind.group.is_empty() && kind.version.is_empty() {
            Gvk::new(row.group.clone(), row.version.clone(), kind.kind.clone())
        } else {
            kind.clone()
        };
        let schema = if same {
            Some(row.schema.clone())
        } else {
            schema_of_kind(&gvk.group, &gvk.version, &gvk.kind)
        };
        let is_text = schema.is_none() || subresource.name == "log";
        let bodies = match schema.filter(|_| !is_text) {
            Some(schema) => self.bodies(&schema, &gvk, None),
            None => Bodies {
                gvk: gvk_value(&gvk),
                object: json!({ "type": "string" }),
                list: Value::Null,
            },
        };
        let path = format!("{item}/{}", subresource.name);
        let suffix = capitalized(&subresource.name);
        for verb in &subresource.verbs {
            let verb = if verb == "create" {
                Some(&CREATE_VERB)
            } else {
                verb_of_item(verb)
            };
            if let Some(verb) = verb {
                self.operation(row, &path, verb, &suffix, &bodies);
            }
        }
    }

    fn operation(&mut self, row: &Row, path: &str, verb: &Verb, suffix: &str, bodies: &Bodies) {
        let answer = match verb.action {
            "list" => bodies.list.clone(),
            "delete" if !bodies.list.is_null() || suffix.is_empty() => self.schemas.meta("Status"),
            "deletecollection" => self.schemas.meta("Status"),
            _ => bodies.object.clone(),
        };
        let scope = if row.namespaced && suffix != "ForAllNamespaces" {
            "Namespaced"
        } else {
            ""
        };
        let group = if row.group.is_empty() {
            "core"
        } else {
            row.group.split('.').next().unwrap_or("")
        };
        let tag = format!("{}_{}", camel(group).to_lowercase(), row.version);
        let id = format!(
            "{}{}{}{scope}{}{suffix}",
            verb.word,
            camel(group),
            capitalized(&row.version),
            row.kind
        );
        let mut operation = json!({
            "operationId": id,
            "description": format!("{} {} of kind {}", verb.action, if suffix.is_empty() { "objects" } else { suffix }, row.kind),
            "tags": [tag],
            "parameters": self.query(verb.parameters),
            "responses": self.responses(verb.status, &answer),
            "x-kubernetes-action": verb.action,
            "x-kubernetes-group-version-kind": bodies.gvk,
        });
        let body = match verb.action {
            "post" | "put" => Some((bodies.object.clone(), &BODY_TYPES[..], true)),
            "patch" => Some((self.schemas.meta("Patch"), &PATCH_TYPES[..], true)),
            "delete" | "deletecollection" => {
                Some((self.schemas.meta("DeleteOptions"), &BODY_TYPES[..], false))
            }
            _ => None,
        };
        if let Some((schema, types, required)) = body {
            self.body(&mut operation, schema, types, required);
        }
        let item = self
            .paths
            .entry(path.to_owned())
            .or_insert_with(|| json!({}));
        item[verb.method] = operation;
        if item.get("parameters").is_none() {
            item["parameters"] = path_parameters(self.dialect, path);
        }
    }

    fn body(&self, operation: &mut Value, schema: Value, types: &[&str], required: bool) {
        match self.dialect {
            Dialect::V3 => {
                operation["requestBody"] =
                    json!({ "content": content(types, &schema), "required": required });
            }
            Dialect::V2 => {
                operation["consumes"] = json!(types);
                let body =
                    json!({ "name": "body", "in": "body", "required": required, "schema": schema });
                if let Some(Value::Array(parameters)) = operation.get_mut("parameters") {
                    parameters.insert(0, body);
                }
            }
        }
    }

    fn query(&self, parameters: &[Parameter]) -> Value {
        parameters
            .iter()
            .map(|p| query_parameter(self.dialect, p))
            .collect()
    }

    fn responses(&self, status: &[(&str, &str)], schema: &Value) -> Value {
        let mut responses: Map<String, Value> = status
            .iter()
            .map(|(code, text)| {
                let response = match self.dialect {
                    Dialect::V3 => {
                        json!({ "description": text, "content": content(&BODY_TYPES, schema) })
                    }
                    Dialect::V2 => json!({ "description": text, "schema": schema }),
                };
                ((*code).to_owned(), response)
            })
            .collect();
        responses.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
        Value::Object(responses)
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    types
        .iter()
        .map(|ty| ((*ty).to_owned(), json!({ "schema": schema })))
        .collect::<Map<_, _>>()
        .into()
}

fn query_parameter(dialect: Dialect, (name, ty, text): &Parameter) -> Value {
    match dialect {
        Dialect::V3 => {
            json!({ "name": name, "in": "query", "description": text, "schema": { "type": ty, "uniqueItems": true } })
        }
        Dialect::V2 => {
            json!({ "name": name, "in": "query", "description": text, "type": ty, "uniqueItems": true })
        }
    }
}

fn path_parameters(dialect: Dialect, path: &str) -> Value {
    let named = ["name", "namespace"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")));
    let mut parameters: Vec<Value> = named
        .map(|name| {
            let mut parameter = json!({
                "name": name, "in": "path", "required": true, "description": format!("{name} of the object"),
            });
            match dialect {
                Dialect::V3 => parameter["schema"] = json!({ "type": "string", "uniqueItems": true }),
                Dialect::V2 => parameter["type"] = json!("string"),
            }
            parameter
        })
        .collect();
    parameters.push(query_parameter(dialect, &PRETTY));
    parameters.into()
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}

/// `rbac-authorization` is `RbacAuthorization`.
fn camel(text: &str) -> String {
    text.split(['-', '_']).map(capitalized).collect()
}
