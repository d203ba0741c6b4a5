//! Stored objects as the text that goes out: single objects, list items, Table rows, watch frames.
//!
//! Invariant: the JSON of an object is copied, never parsed, unless a Table is asked for.

use bytes::Bytes;
use jiff::Timestamp;
use oarlock_kinds::{Column, Columns, Row, protobuf};
use oarlock_model::{ApiError, deep};
use oarlock_registry::{EventType, List, Stored, WatchItem};
use serde_json::Value;
use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use crate::failure::Failure;
use crate::negotiate::{Format, MetaVersion, Shape};
use crate::{cbor, respond, scan};

/// Room for the text around an object.
const SLACK: usize = 96;
/// Memo slots of a store event that hold our frames.
const MEMO_OBJECT: usize = 0;
const MEMO_METADATA: usize = 1;
/// These two in protobuf stand behind those in JSON.
const MEMO_PROTOBUF: usize = 2;

/// What a Table row carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(text: Option<&str>) -> Result<Self, Failure> {
        match text.unwrap_or("") {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(Failure::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

/// The columns of a `Scale`, whatever is scaled.
pub(crate) fn scale_columns() -> &'static Columns {
    static COLUMNS: OnceLock<Columns> = OnceLock::new();
    COLUMNS.get_or_init(oarlock_kinds::columns::scale_columns)
}

/// How one item is written.
#[derive(Clone, Debug)]
pub(crate) struct ItemForm {
    pub row: Arc<Row>,
    pub shape: Shape,
    pub include: IncludeObject,
    pub now: Timestamp,
    /// Columns of a Table, where they are not the row's.
    pub columns: Option<&'static Columns>,
}

impl ItemForm {
    /// One item of a list.
    pub fn write_item(&self, out: &mut Vec<u8>, object: &Stored) {
        match self.shape {
            // Custom resources say in a list what they are.
            Shape::Object if self.row.custom.is_some() => object.write_json(out),
            Shape::Object => write_untyped(out, object),
            Shape::Metadata(version) | Shape::MetadataList(version) => {
                write_metadata(out, object, version);
            }
            Shape::Table(version) => self.write_row(out, object, version),
        }
    }

    /// The object alone, as the answer to a get or a write.
    pub fn write_single(&self, out: &mut Vec<u8>, object: &Stored) -> Result<(), Failure> {
        match self.shape {
            Shape::Object => {
                out.reserve(object.json.len() + SLACK);
                object.write_json(out);
            }
            Shape::Metadata(version) => write_metadata(out, object, version),
            Shape::MetadataList(_) => return Err(not_a_list(&self.row)),
            Shape::Table(version) => {
                let revision = if object.revision == 0 {
                    String::new()
                } else {
                    object.revision.to_string()
                };
                self.write_head(out, version, &revision, "", None);
                out.push(b'[');
                self.write_row(out, object, version);
                out.extend_from_slice(b"]}");
            }
        }
        out.push(b'\n');
        Ok(())
    }

    /// Everything in front of a list's first item; [`ItemForm::list_end`] closes it.
    pub fn write_list_head(&self, out: &mut Vec<u8>, list: &List) -> Result<(), Failure> {
        let revision = list.revision.to_string();
        let (kind, api_version) = match self.shape {
            Shape::Object => (self.row.list_kind.as_str(), self.row.api_version()),
            Shape::MetadataList(version) => (
                "PartialObjectMetadataList",
                version.api_version().to_owned(),
            ),
            Shape::Metadata(_) => return Err(a_list(&self.row)),
            Shape::Table(version) => {
                let token = &list.continue_token;
                self.write_head(out, version, &revision, token, list.remaining);
                out.extend_from_slice(self.list_start(list.items.is_empty()));
                return Ok(());
            }
        };
        push(
            out,
            &[
                "{\"kind\":\"",
                kind,
                "\",\"apiVersion\":\"",
                &api_version,
                "\",\"metadata\":",
            ],
        );
        if self.row.custom.is_some()
            && self.shape == Shape::Object
            && list.continue_token.is_empty()
        {
            push(
                out,
                &[
                    "{\"continue\":\"\",\"resourceVersion\":\"",
                    &revision,
                    "\"}",
                ],
            );
        } else {
            write_list_meta(out, &revision, &list.continue_token, list.remaining);
        }
        out.extend_from_slice(b",\"items\":");
        out.extend_from_slice(self.list_start(list.items.is_empty()));
        Ok(())
    }

    /// A list in protobuf. Its length stands in front, so it is put together as a whole.
    pub fn binary_list(&self, list: &List) -> Result<Vec<u8>, Failure> {
        let own = self.row.api_version();
        let (version, item, kind) = match self.shape {
            Shape::Object => (&*own, &*self.row.kind, &*self.row.list_kind),
            Shape::MetadataList(version) => (
                version.api_version(),
                "PartialObjectMetadata",
                "PartialObjectMetadataList",
            ),
            Shape::Metadata(_) => return Err(a_list(&self.row)),
            Shape::Table(_) => return Err(Failure::not_acceptable()),
        };
        let mut text = Vec::new();
        let parsed = |text: &[u8]| deep::from_stored(text).map_err(ApiError::internal);
        write_list_meta(
            &mut text,
            &list.revision.to_string(),
            &list.continue_token,
            list.remaining,
        );
        let mut out = protobuf::ListEncoder::new(version, item, &parsed(&text)?)
            .ok_or_else(Failure::not_acceptable)?;
        for object in &list.items {
            text.clear();
            self.write_item(&mut text, object);
            out.push(&parsed(&text)?);
        }
        Ok(out.finish(version, kind))
    }

    /// Whether an empty list is null and not `[]`: upstream's list of partial objects, and its Table of kinds that it has no
    /// columns for.
    fn null_when_empty(&self) -> bool {
        match self.shape {
            Shape::Object | Shape::Metadata(_) => false,
            Shape::Table(_) if self.row.custom.is_some() => true,
            Shape::MetadataList(_) => true,
            Shape::Table(_) => self
                .columns()
                .columns
                .get(1)
                .is_some_and(|c| c.name == "Created At"),
        }
    }

    fn list_start(&self, empty: bool) -> &'static [u8] {
        if empty && self.null_when_empty() {
            b"null"
        } else {
            b"["
        }
    }

    /// What closes a list.
    pub fn list_end(&self, empty: bool) -> &'static [u8] {
        if empty && self.null_when_empty() {
            b"}\n"
        } else {
            b"]}\n"
        }
    }

    /// A Table's head; columns of custom resources are their definition's.
    fn write_head(
        &self,
        out: &mut Vec<u8>,
        version: MetaVersion,
        revision: &str,
        token: &str,
        remaining: Option<usize>,
    ) {
        let definitions = match (self.columns, self.row.custom_columns()) {
            (None, Some(custom)) => custom,
            _ => definitions(self.columns()),
        };
        write_table_head(out, version, revision, token, remaining, Some(&definitions));
    }

    fn columns(&self) -> &Columns {
        self.columns.unwrap_or(&self.row.columns)
    }

    fn write_row(&self, out: &mut Vec<u8>, object: &Stored, version: MetaVersion) {
        let value = object.to_value().unwrap_or(Value::Null);
        let cells = match (self.columns, &self.row.custom) {
            (None, Some(custom)) => custom.cells(&value, self.now),
            _ => (self.columns().cells)(&value, self.now),
        };
        out.extend_from_slice(b"{\"cells\":");
        write_json(out, &cells);
        match self.include {
            IncludeObject::None => out.extend_from_slice(b",\"object\":null"),
            IncludeObject::Metadata => {
                out.extend_from_slice(b",\"object\":");
                write_metadata(out, object, version);
            }
            IncludeObject::Object => {
                out.extend_from_slice(b",\"object\":");
                object.write_json(out);
            }
        }
        out.push(b'}');
    }
}

/// 406 for a shape that does not fit a list or a single object; upstream's texts.
fn not_a_list(row: &Row) -> Failure {
    let text = format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list (*{})",
        go_type(row)
    );
    ApiError::new(oarlock_model::Reason::NotAcceptable, text).into()
}

fn a_list(row: &Row) -> Failure {
    let text = format!(
        "you requested PartialObjectMetadata, but the requested object is a list (*{}List)",
        go_type(row)
    );
    ApiError::new(oarlock_model::Reason::NotAcceptable, text).into()
}

fn go_type(row: &Row) -> String {
    let package = match row.group.split('.').next() {
        None | Some("") => "core",
        Some(first) => first,
    };
    format!("{package}.{}", row.kind)
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing to memory does not fail; a value that cannot be JSON (there is none here) is left out.
    let at = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(at);
        out.extend_from_slice(b"null");
    }
}

fn write_version(out: &mut Vec<u8>, object: &Stored) {
    if object.revision != 0 {
        let _ = write!(out, "\"resourceVersion\":\"{}\"", object.revision);
        if object.json.get(object.hole).is_some_and(|b| *b != b'}') {
            out.push(b',');
        }
    }
}

/// The object without `apiVersion` and `kind`, which a list says once. They stand in front of `metadata` in stored text.
fn write_untyped(out: &mut Vec<u8>, object: &Stored) {
    out.reserve(object.json.len() + SLACK);
    out.extend_from_slice(b"{\"metadata\":{");
    write_version(out, object);
    out.extend_from_slice(object.json.get(object.hole..).unwrap_or_default());
}

fn write_metadata(out: &mut Vec<u8>, object: &Stored, version: MetaVersion) {
    push(
        out,
        &[
            "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"",
            version.api_version(),
            "\",\"metadata\":{",
        ],
    );
    write_version(out, object);
    let tail = metadata_tail(object);
    match without_generation(tail) {
        None => out.extend_from_slice(tail),
        Some(tail) => out.extend_from_slice(&tail),
    }
    out.push(b'}');
}

/// A daemon set's generation as an annotation is there in the whole object only.
fn without_generation(tail: &[u8]) -> Option<Vec<u8>> {
    const GENERATION: &str = "deprecated.daemonset.template.generation";
    memchr::memmem::find(tail, GENERATION.as_bytes())?;
    let mut text = Vec::with_capacity(tail.len() + 1);
    text.push(b'{');
    text.extend_from_slice(tail);
    let mut metadata: serde_json::Map<String, Value> = serde_json::from_slice(&text).ok()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    annotations.remove(GENERATION)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    let text = serde_json::to_vec(&metadata).ok()?;
    Some(text.get(1..)?.to_vec())
}

/// The members of `metadata` and its closing brace.
fn metadata_tail(object: &Stored) -> &[u8] {
    let tail = object.json.get(object.hole..).unwrap_or_default();
    // `hole` is inside the braces, so the end of "the value" there is found by closing members one by one.
    let mut at = 0;
    while tail.get(at).is_some_and(|b| *b != b'}') {
        match scan::value_end(tail, at) {
            Some(end) if tail.get(end) == Some(&b',') => at = end + 1,
            Some(end) => at = end,
            None => return b"}",
        }
    }
    tail.get(..=at).unwrap_or(b"}")
}

/// `metadata.FIELD` of an object, if it is a plain text.
pub(crate) fn metadata_text<'a>(object: &'a Stored, field: &str) -> Option<&'a str> {
    let open = object.hole.checked_sub(1)?;
    scan::member(object.json.get(open..)?, field).and_then(scan::plain_text)
}

fn write_list_meta(out: &mut Vec<u8>, revision: &str, token: &str, remaining: Option<usize>) {
    out.push(b'{');
    if !revision.is_empty() {
        push(out, &["\"resourceVersion\":\"", revision, "\""]);
    }
    if !token.is_empty() {
        push(out, &[",\"continue\":\"", token, "\""]);
    }
    if let Some(remaining) = remaining.filter(|&n| n > 0) {
        let _ = write!(out, ",\"remainingItemCount\":{remaining}");
    }
    out.push(b'}');
}

fn definitions(columns: &Columns) -> Vec<Value> {
    let definition = |column: &Column| {
        serde_json::json!({
            "name": column.name, "type": column.ty, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    };
    columns.columns.iter().map(definition).collect()
}

fn write_table_head(
    out: &mut Vec<u8>,
    version: MetaVersion,
    revision: &str,
    token: &str,
    remaining: Option<usize>,
    columns: Option<&[Value]>,
) {
    push(
        out,
        &[
            "{\"kind\":\"Table\",\"apiVersion\":\"",
            version.api_version(),
            "\",\"metadata\":",
        ],
    );
    write_list_meta(out, revision, token, remaining);
    out.extend_from_slice(b",\"columnDefinitions\":");
    match columns {
        None => out.extend_from_slice(b"null"),
        Some(columns) => {
            write_json(out, &columns);
        }
    }
    out.extend_from_slice(b",\"rows\":");
}

/// Writes a watch's events. A Table's columns go out with the first event alone.
#[derive(Debug)]
pub(crate) struct Framer {
    form: ItemForm,
    format: Format,
    columns_sent: bool,
}

impl Framer {
    pub fn new(form: ItemForm, format: Format) -> Self {
        Self {
            form,
            format,
            columns_sent: false,
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The frame of one event. Frames of plain objects are made once per event, whoever watches.
    pub fn frame(&mut self, item: &WatchItem, now: Timestamp) -> Bytes {
        self.form.now = now;
        let slot = match self.form.shape {
            Shape::Object => MEMO_OBJECT,
            Shape::Metadata(MetaVersion::V1) | Shape::MetadataList(MetaVersion::V1) => {
                MEMO_METADATA
            }
            _ => return self.make(item),
        };
        let slot = match self.format {
            Format::Protobuf => MEMO_PROTOBUF + slot,
            // Rare enough to be made for each watcher.
            Format::Cbor => return self.make(item),
            _ => slot,
        };
        match item
            .event
            .as_ref()
            .filter(|_| is_own(item))
            .and_then(|e| e.memo.get(slot))
        {
            Some(memo) => memo.get_or_init(|| self.make(item)).clone(),
            None => self.make(item),
        }
    }

    fn make(&mut self, item: &WatchItem) -> Bytes {
        let mut out = Vec::with_capacity(item.object.json.len() + SLACK);
        let name = match item.kind {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark { .. } => "BOOKMARK",
        };
        let binary = matches!(self.format, Format::Protobuf | Format::Cbor);
        if !binary {
            push(&mut out, &["{\"type\":\"", name, "\",\"object\":"]);
        }
        if let EventType::Bookmark { initial_end } = item.kind {
            self.write_bookmark(&mut out, item.object.revision, initial_end);
        } else {
            self.write_object(&mut out, &item.object);
        }
        if self.format == Format::Cbor {
            // What was just written is JSON.
            let object = serde_json::from_slice(&out).unwrap_or_default();
            return Bytes::from(cbor::event(name, &object));
        }
        if binary {
            // What has no message was not negotiated; an event is never left out.
            let object = respond::binary(&out).unwrap_or_default();
            return Bytes::from(protobuf::event(name, &object));
        }
        out.extend_from_slice(b"}\n");
        Bytes::from(out)
    }

    fn write_object(&mut self, out: &mut Vec<u8>, object: &Stored) {
        match self.form.shape {
            Shape::Object => object.write_json(out),
            Shape::Metadata(version) | Shape::MetadataList(version) => {
                write_metadata(out, object, version);
            }
            Shape::Table(version) => {
                let revision = object.revision.to_string();
                if std::mem::replace(&mut self.columns_sent, true) {
                    write_table_head(out, version, &revision, "", None, None);
                } else {
                    self.form.write_head(out, version, &revision, "", None);
                }
                out.push(b'[');
                self.form.write_row(out, object, version);
                out.extend_from_slice(b"]}");
            }
        }
    }

    fn write_bookmark(&mut self, out: &mut Vec<u8>, revision: u64, initial_end: bool) {
        let row = &self.form.row;
        let (kind, api_version) = match self.form.shape {
            Shape::Object => (row.kind.as_str(), row.api_version()),
            Shape::Metadata(version) | Shape::MetadataList(version) => {
                ("PartialObjectMetadata", version.api_version().to_owned())
            }
            Shape::Table(version) => {
                write_table_head(out, version, &revision.to_string(), "", None, None);
                out.extend_from_slice(b"[]}");
                return;
            }
        };
        push(
            out,
            &[
                "{\"kind\":\"",
                kind,
                "\",\"apiVersion\":\"",
                &api_version,
                "\",\"metadata\":{",
            ],
        );
        let _ = write!(out, "\"resourceVersion\":\"{revision}\"");
        if initial_end {
            out.extend_from_slice(b",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}");
        }
        out.extend_from_slice(b"}}");
    }
}

/// The frame that ends a watch with an error.
pub(crate) fn error_frame(error: &ApiError, format: Format) -> Bytes {
    if format == Format::Cbor {
        return Bytes::from(cbor::event("ERROR", &error.to_status()));
    }
    if format == Format::Protobuf {
        let status = protobuf::encode(&error.to_status()).unwrap_or_default();
        return Bytes::from(protobuf::event("ERROR", &status));
    }
    let mut out = b"{\"type\":\"ERROR\",\"object\":".to_vec();
    write_json(&mut out, &error.to_status());
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

/// Whether the object's text is the event's own (a kind that is served from another kind's storage is rewritten).
fn is_own(item: &WatchItem) -> bool {
    let at = item.object.json.as_ptr() as usize;
    let records = item
        .event
        .iter()
        .flat_map(|event| [&event.after, &event.before]);
    records.flatten().any(|record| {
        let start = record.value.as_ptr() as usize;
        (start..start + record.value.len().max(1)).contains(&at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::MetaVersion::V1;

    fn stored(json: &'static str, revision: u64) -> Stored {
        let hole = json.find("\"metadata\":{").map_or(0, |at| at + 12);
        Stored {
            json: Bytes::from_static(json.as_bytes()),
            hole,
            revision,
        }
    }

    #[test]
    fn items_and_metadata() {
        let pod = stored(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"}"},"uid":"u"},"spec":{"a":[1]}}"#,
            7,
        );
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(&|out| write_untyped(out, &pod)),
            r#"{"metadata":{"resourceVersion":"7","name":"a","labels":{"x":"}"},"uid":"u"},"spec":{"a":[1]}}"#
        );
        assert_eq!(
            text(&|out| write_metadata(out, &pod, V1)),
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"7","name":"a","labels":{"x":"}"},"uid":"u"}}"#
        );
        assert_eq!(metadata_text(&pod, "uid"), Some("u"));
        let bare = stored(r#"{"metadata":{}}"#, 3);
        assert_eq!(
            text(&|out| write_untyped(out, &bare)),
            r#"{"metadata":{"resourceVersion":"3"}}"#
        );
        assert_eq!(
            text(&|out| write_metadata(out, &bare, V1)),
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"3"}}"#
        );
    }
}
