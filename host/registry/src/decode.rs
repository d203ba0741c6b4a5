//! Bodies into trees: type checks and unknown fields by the kind's schema, and Kubernetes' words for what is wrong.

use bytes::Bytes;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Cause, Reason, meta};
use oarlock_schema::{DecodeError, Decoded, decode, decode_untyped, decode_value};
use serde_json::Value;

use crate::{Body, Context, FieldValidation, Target, prepare};

/// How much of an unreadable body is told.
const SUMMARY_BYTES: usize = 30;

/// A body of a create or an update, as a tree that fits the schema. Sets apiVersion and kind if they are absent.
pub fn body(ctx: &Context, row: &Row, body: &Body) -> ApiResult<Value> {
    if row.custom.is_some() {
        return custom_body(ctx, row, body);
    }
    let decoded = match body {
        Body::Json(json) => {
            check_type_of_text(row, json)?;
            decode(&row.schema, json).map_err(|e| text_error(row, json, &e))?
        }
        Body::Value(value) => {
            check_type(row, meta::api_version(value), meta::kind(value))?;
            decode_value(&row.schema, value)
                .map_err(|e| cannot_be_handled(row, &row.kind, &e.to_string()))?
        }
    };
    let mut value = strictly(ctx, decoded, |text| cannot_be_handled(row, &row.kind, text))?;
    meta::set_type(&mut value, row.api_version(), row.kind.as_str());
    Ok(value)
}

/// A body as audit records it: what fits the kind has its defaults, anything else is as it came.
pub fn as_recorded(target: &Target, sent: &Body) -> Option<Value> {
    let row = &target.row;
    let ctx = Context {
        field_validation: FieldValidation::Ignore,
        ..Context::new(Default::default(), jiff::Timestamp::UNIX_EPOCH)
    };
    let whole = matches!(
        target.subresource.as_str(),
        "" | "status" | "finalize" | "approval"
    );
    if whole && let Ok(mut value) = body(&ctx, row, sent) {
        prepare::default(row, &mut value);
        return Some(value);
    }
    match sent {
        Body::Json(text) => serde_json::from_slice(text).ok(),
        Body::Value(value) => Some(value.clone()),
    }
}

/// The result of a patch. `shown`: how an error quotes it, and says why.
pub fn patched(
    ctx: &Context,
    row: &Row,
    value: &Value,
    shown: &dyn Fn(&str) -> (String, String),
) -> ApiResult<Value> {
    if row.custom.is_some() {
        return fitted(ctx, row, value.clone()).map_err(|error| match error.reason {
            Reason::BadRequest => {
                let why = error.message.split_once(": ").map_or("", |(_, why)| why);
                patch_error((value.to_string(), why.to_owned()))
            }
            _ => error,
        });
    }
    if let Value::Object(map) = value
        && (map.get("kind").is_some_and(|k| k != row.kind.as_str())
            || map
                .get("apiVersion")
                .is_some_and(|v| v.as_str() != Some(row.api_version().as_str())))
    {
        let (version, kind) = (
            meta::api_version(value).to_owned(),
            meta::kind(value).to_owned(),
        );
        let why = if version == row.api_version() {
            format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
            )
        } else {
            format!(
                "the API version in the data ({version}) does not match the expected API version ({})",
                row.api_version()
            )
        };
        return Err(patch_error(shown(&why)));
    }
    let decoded =
        decode_value(&row.schema, value).map_err(|e| patch_error(shown(&e.to_string())))?;
    let forget = forgets(value);
    let mut value = strictly(ctx, decoded, |text| patch_error(shown(text)))?;
    if forget {
        meta::metadata_mut(&mut value).insert("managedFields".to_owned(), Value::Array(Vec::new()));
    }
    meta::set_type(&mut value, row.api_version(), row.kind.as_str());
    Ok(value)
}

/// A body of a custom resource. Its kind is checked with the rest of it, later.
fn custom_body(ctx: &Context, row: &Row, body: &Body) -> ApiResult<Value> {
    let (mut decoded, text) = match body {
        Body::Json(json) => {
            let decoded = decode_untyped(json).map_err(|e| text_error(row, json, &e))?;
            (decoded, json.clone())
        }
        Body::Value(value) => {
            let decoded = Decoded {
                value: value.clone(),
                strict: Vec::new(),
            };
            (decoded, Bytes::from(value.to_string()))
        }
    };
    if meta::kind(&decoded.value).is_empty() {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing in '{}' ({})",
            row.kind,
            String::from_utf8_lossy(&text),
            summary(&text)
        )));
    }
    let mut value = decoded.value.take();
    let kind = meta::kind(&value).to_owned();
    fit(row, &mut value, &mut decoded.strict)?;
    decoded.value = value;
    let value = strictly(ctx, decoded, |text| cannot_be_handled(row, &kind, text))?;
    let (found, expected) = (meta::api_version(&value), row.api_version());
    if found != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({expected})"
        )));
    }
    Ok(value)
}

/// Fits an object to the schema of its definition; unknown fields are added to what a strict decoder would refuse.
fn fit(row: &Row, value: &mut Value, strict: &mut Vec<String>) -> ApiResult<()> {
    let Some(custom) = &row.custom else {
        return Ok(());
    };
    let kind = meta::kind(value).to_owned();
    let unknown = custom
        .fit(value)
        .map_err(|why| cannot_be_handled(row, &kind, &why))?;
    strict.extend(unknown.iter().map(|path| format!("unknown field {path:?}")));
    Ok(())
}

/// A custom resource that a patch or an apply has made.
pub fn fitted(ctx: &Context, row: &Row, mut value: Value) -> ApiResult<Value> {
    let mut strict = Vec::new();
    let forget = forgets(&value);
    fit(row, &mut value, &mut strict)?;
    let kind = meta::kind(&value).to_owned();
    let mut value = strictly(ctx, Decoded { value, strict }, |text| {
        cannot_be_handled(row, &kind, text)
    })?;
    if forget {
        meta::metadata_mut(&mut value).insert("managedFields".to_owned(), Value::Array(Vec::new()));
    }
    Ok(value)
}

/// An empty list of managed fields says: start over. Decoding drops empty lists.
fn forgets(value: &Value) -> bool {
    value
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .is_some_and(Vec::is_empty)
}

/// An applied configuration must say what it is.
pub fn applied_type(row: &Row, configuration: &Value) -> ApiResult<()> {
    let (version, kind) = (meta::api_version(configuration), meta::kind(configuration));
    if version == row.api_version() && kind == row.kind {
        return Ok(());
    }
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Err(ApiError::bad_request(format!(
        "invalid object type: {group}/{version}, Kind={kind}"
    )))
}

fn patch_error((patched, why): (String, String)) -> ApiError {
    let cause = Cause::invalid("patch", &Value::String(patched), &why);
    ApiError::invalid("", "", "", vec![cause])
}

fn strictly(ctx: &Context, decoded: Decoded, error: impl Fn(&str) -> ApiError) -> ApiResult<Value> {
    if decoded.strict.is_empty() {
        return Ok(decoded.value);
    }
    match ctx.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => decoded
            .strict
            .iter()
            .for_each(|text| ctx.warn(text.as_str())),
        FieldValidation::Strict => {
            return Err(error(&format!(
                "strict decoding error: {}",
                decoded.strict.join(", ")
            )));
        }
    }
    Ok(decoded.value)
}

fn cannot_be_handled(row: &Row, found: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{found} in version {:?} cannot be handled as a {}: {why}",
        row.version, row.kind
    ))
}

/// apiVersion and kind are looked at before anything else; absent ones are those of the request.
fn check_type_of_text(row: &Row, json: &[u8]) -> ApiResult<()> {
    #[derive(serde::Deserialize)]
    struct TypeMeta<'a> {
        #[serde(rename = "apiVersion", borrow, default)]
        api_version: std::borrow::Cow<'a, str>,
        #[serde(borrow, default)]
        kind: std::borrow::Cow<'a, str>,
    }
    // Duplicate and ill-typed fields fail here too; the full decoder words them.
    match serde_json::from_slice::<TypeMeta<'_>>(json) {
        Ok(found) => {
            foreign(row, &found.api_version, &found.kind, json)?;
            check_type(row, &found.api_version, &found.kind)
        }
        Err(_) => Ok(()),
    }
}

/// A body of another kind that we know is decoded as what it says it is, first.
fn foreign(row: &Row, api_version: &str, kind: &str, json: &[u8]) -> ApiResult<()> {
    if kind.is_empty() || kind == row.kind {
        return Ok(());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(schema) = oarlock_kinds::schema_of_kind(group, version, kind) else {
        return Ok(());
    };
    decode(&schema, json)
        .map(drop)
        .map_err(|why| cannot_be_handled(row, kind, &why.to_string()))
}

fn check_type(row: &Row, api_version: &str, kind: &str) -> ApiResult<()> {
    let expected = row.api_version();
    if !kind.is_empty() && kind != row.kind {
        let version = if api_version.is_empty() {
            expected.as_str()
        } else {
            api_version
        };
        let scheme = match row.group.as_str() {
            "apiextensions.k8s.io" => {
                "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55"
            }
            _ => "pkg/api/legacyscheme/scheme.go:30",
        };
        return Err(cannot_be_handled(
            row,
            kind,
            &format!("no kind {kind:?} is registered for version {version:?} in scheme {scheme:?}"),
        ));
    }
    if !api_version.is_empty() && api_version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    Ok(())
}

fn text_error(row: &Row, json: &Bytes, error: &DecodeError) -> ApiError {
    match error {
        DecodeError::Type(why) => cannot_be_handled(row, &row.kind, why),
        DecodeError::Syntax(why) => ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({})",
            row.kind,
            summary(json)
        )),
    }
}

fn summary(body: &[u8]) -> String {
    if body.is_empty() {
        return "<empty>".to_owned();
    }
    let cut = &body[..body.len().min(SUMMARY_BYTES)];
    let more = if body.len() > SUMMARY_BYTES {
        " ..."
    } else {
        ""
    };
    if body[0] == b'{' {
        return format!("{}{more}", String::from_utf8_lossy(cut));
    }
    let hex: String = cut.iter().map(|b| format!("{b:02x}")).collect();
    format!("{hex}{more}")
}
