//! `metadata.managedFields`: its entries, their order, and the limit on them.

use serde_json::{Map, Value};

use super::set::{Set, union};

/// Entries of updates beyond this are joined, oldest first.
pub const MAX_UPDATE_MANAGERS: usize = 10;
const JOINED_MANAGER: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339 in UTC with whole seconds, so that texts sort as times do; empty: none.
    pub time: String,
    pub fields: Set,
}

impl Entry {
    pub fn is_of(
        &self,
        manager: &str,
        operation: Operation,
        api_version: &str,
        subresource: &str,
    ) -> bool {
        self.manager == manager
            && self.operation == operation
            && self.subresource == subresource
            && (operation == Operation::Apply || self.api_version == api_version)
    }

    /// As conflicts name it: `"alice" with subresource "scale" using apps/v1`.
    pub fn description(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// `None` if any entry is malformed.
pub fn decode(list: Value) -> Option<Vec<Entry>> {
    let Value::Array(list) = list else {
        return None;
    };
    list.into_iter().map(decode_entry).collect()
}

fn decode_entry(entry: Value) -> Option<Entry> {
    let Value::Object(mut entry) = entry else {
        return None;
    };
    let mut text = |field: &str| match entry.remove(field) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text),
        Some(_) => None,
    };
    let operation = match text("operation")?.as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    if text("fieldsType")? != "FieldsV1" {
        return None;
    }
    let api_version = text("apiVersion").filter(|v| !v.is_empty())?;
    let (manager, subresource, time) = (text("manager")?, text("subresource")?, text("time")?);
    let fields = match entry.remove("fieldsV1") {
        Some(Value::Object(fields)) => fields,
        None | Some(Value::Null) => Map::new(),
        Some(_) => return None,
    };
    Some(Entry {
        manager,
        operation,
        api_version,
        subresource,
        time,
        fields,
    })
}

/// Sorted as Kubernetes sorts them; entries that own nothing are dropped. `None`: there is nothing to write.
pub fn encode(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|e| !e.fields.is_empty());
    if entries.is_empty() {
        return None;
    }
    entries.sort_by(|a, b| {
        fn key(e: &Entry) -> (Operation, [&str; 4]) {
            (
                e.operation,
                [&e.time, &e.manager, &e.api_version, &e.subresource],
            )
        }
        key(a).cmp(&key(b))
    });
    Some(Value::Array(
        entries.into_iter().map(encode_entry).collect(),
    ))
}

fn encode_entry(entry: Entry) -> Value {
    let mut map = Map::new();
    let mut put = |field: &str, text: String| {
        if !text.is_empty() {
            map.insert(field.to_owned(), Value::String(text));
        }
    };
    put("manager", entry.manager);
    put("operation", entry.operation.as_str().to_owned());
    put("apiVersion", entry.api_version);
    put("time", entry.time);
    put("fieldsType", "FieldsV1".to_owned());
    put("subresource", entry.subresource);
    map.insert("fieldsV1".to_owned(), Value::Object(entry.fields));
    Value::Object(map)
}

/// Joins the oldest updates, one bucket an API version, until there are no more than [`MAX_UPDATE_MANAGERS`].
pub fn cap(entries: &mut Vec<Entry>) {
    let updates = |entries: &[Entry]| {
        entries
            .iter()
            .filter(|e| e.operation == Operation::Update)
            .count()
    };
    if updates(entries) <= MAX_UPDATE_MANAGERS {
        return;
    }
    entries.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut at = 0;
    while updates(entries) > MAX_UPDATE_MANAGERS && at < entries.len() {
        let (version, update) = (
            entries[at].api_version.clone(),
            entries[at].operation == Operation::Update,
        );
        let later =
            entries.iter().enumerate().skip(at + 1).find(|(_, e)| {
                update && e.operation == Operation::Update && e.api_version == version
            });
        match later.map(|(i, _)| i) {
            Some(next) => {
                let newer = entries.remove(next);
                let bucket = &mut entries[at];
                union(&mut bucket.fields, &newer.fields);
                bucket.manager = JOINED_MANAGER.to_owned();
                bucket.subresource = String::new();
                bucket.time = newer.time;
            }
            None => at += 1,
        }
    }
}
