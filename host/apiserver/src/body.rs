//! Request bodies: read within limits of size and time, and YAML turned into what JSON would have been.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use oarlock_model::{ApiError, Reason};
use oarlock_registry::{Body, DeleteOptions};
use oarlock_schema::{DecodeError, Property, Schema, SchemaRef, Type, decode, decode_value};
use serde_json::Value;

use crate::cbor;
use crate::failure::Failure;
use crate::negotiate::BodyFormat;
use crate::query::check_delete;

/// Upstream's limit of a request body.
pub(crate) const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// A body that is not there after this is given up: a slow sender must not hold a place for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read before it is refused, and for how long.
const DRAINED_BYTES: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a body an error message quotes.
const QUOTED_BYTES: usize = 30;

pub(crate) async fn read(body: Incoming) -> Result<Bytes, Failure> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        drain(body).await;
        return Err(Failure::too_large(MAX_BODY_BYTES));
    }
    match tokio::time::timeout(BODY_TIMEOUT, collect(body)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::new(
            Reason::Timeout,
            "Timeout: the request's body did not arrive in time",
        )
        .into()),
    }
}

/// Reads on for a while what is thrown away: a client that is still sending does not see an answer.
async fn drain(mut body: Incoming) {
    let rest = async {
        let mut left = DRAINED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whoever is slower than that does without.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, rest).await;
}

/// One frame is handed on as it is; more are put together.
async fn collect(mut body: Incoming) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|e| Failure::bad_request(format!("cannot read the request's body: {e}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(
                first.len()
                    + data.len()
                    + usize::try_from(body.size_hint().lower())
                        .unwrap_or(0)
                        .min(MAX_BODY_BYTES),
            );
            all.extend_from_slice(&first);
        }
        if all.len() + data.len() > MAX_BODY_BYTES {
            drain(body).await;
            return Err(Failure::too_large(MAX_BODY_BYTES));
        }
        all.extend_from_slice(&data);
    }
    if all.is_empty() {
        return if first.len() > MAX_BODY_BYTES {
            Err(Failure::too_large(MAX_BODY_BYTES))
        } else {
            Ok(first)
        };
    }
    Ok(all.freeze())
}

/// What the registry decodes. `kind`: what the route takes, for the message.
pub(crate) fn object(bytes: Bytes, format: BodyFormat, kind: &str) -> Result<Body, Failure> {
    match format {
        BodyFormat::Json => {
            // A map is the registry's to decode; something else that is JSON is no object at all.
            if !matches!(bytes.trim_ascii_start().first(), None | Some(b'{' | b'n'))
                && let Ok(value) = serde_json::from_slice(&bytes)
                && let Some(why) = not_a_map(&value)
            {
                return Err(unrecognized(kind, &why, &bytes));
            }
            Ok(Body::Json(bytes))
        }
        BodyFormat::Yaml => {
            let value = yaml(&bytes).map_err(|why| unrecognized(kind, &why, &bytes))?;
            if let Some(why) = not_a_map(&value) {
                return Err(unrecognized(kind, &why, &bytes));
            }
            Ok(Body::Value(value))
        }
        BodyFormat::Protobuf => Ok(Body::Value(protobuf(&bytes)?)),
        BodyFormat::Cbor => {
            let value = cbor::decode(&bytes).map_err(|why| unrecognized(kind, &why, &bytes))?;
            match not_a_map(&value) {
                Some(why) => Err(unrecognized(kind, &why, &bytes)),
                None => Ok(Body::Value(value)),
            }
        }
    }
}

fn unrecognized(kind: &str, why: &str, bytes: &[u8]) -> Failure {
    let quoted = quote(bytes);
    Failure::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({quoted})"
    ))
}

/// Upstream's message for JSON that is neither a map nor null.
fn not_a_map(value: &Value) -> Option<String> {
    let found = match value {
        Value::Object(_) | Value::Null => return None,
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    Some(format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value of type struct {{ \
         APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    ))
}

fn protobuf(bytes: &[u8]) -> Result<Value, Failure> {
    oarlock_kinds::protobuf::decode(bytes).map_err(|e| Failure::bad_request(e.to_string()))
}

/// One YAML document; the error is upstream's `yaml: …`.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, String> {
    // JSON is YAML, and most callers of the YAML path (kubectl apply --server-side) send JSON.
    if bytes.first() == Some(&b'{')
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return Ok(value);
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| "yaml: invalid leading UTF-8 octet".to_owned())?;
    let mut options = serde_saphyr::options!();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::LastWins;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet().to_string();
        let line = error.lines().next().unwrap_or("").trim();
        let line = line.strip_prefix("error: ").unwrap_or(line);
        let line = line.split_once(" at line ").map_or(line, |(text, _)| text);
        format!("yaml: {line}")
    })
}

/// The beginning of a body as upstream's messages show it.
fn quote(bytes: &[u8]) -> String {
    let head = bytes.get(..QUOTED_BYTES).unwrap_or(bytes);
    let more = if bytes.len() > QUOTED_BYTES {
        " ..."
    } else {
        ""
    };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", hex::encode(head)),
    }
}

/// A body of `DeleteOptions`, and whether it asks for a dry run.
pub(crate) fn delete_options(
    bytes: &[u8],
    format: BodyFormat,
) -> Result<(DeleteOptions, bool), Failure> {
    if format == BodyFormat::Json
        && let Ok(value) = serde_json::from_slice(bytes)
        && let Some(why) = not_a_map(&value)
    {
        return Err(Failure::bad_request(why));
    }
    let decoded = match format {
        BodyFormat::Json => decode(delete_schema(), bytes).map_err(|e| match e {
            DecodeError::Syntax(text) => Failure::bad_request(format!(
                "couldn't get version/kind; json parse error: {text}"
            )),
            DecodeError::Type(text) => Failure::bad_request(text),
        })?,
        BodyFormat::Yaml => {
            let value = yaml(bytes).map_err(Failure::bad_request)?;
            decode_value(delete_schema(), &value)
                .map_err(|e| Failure::bad_request(e.to_string()))?
        }
        BodyFormat::Cbor => {
            let value = cbor::decode(bytes).map_err(Failure::bad_request)?;
            decode_value(delete_schema(), &value)
                .map_err(|e| Failure::bad_request(e.to_string()))?
        }
        BodyFormat::Protobuf => decode_value(delete_schema(), &protobuf(bytes)?)
            .map_err(|e| Failure::bad_request(e.to_string()))?,
    };
    let value = decoded.value;
    if let Some(kind) = value
        .get("kind")
        .and_then(Value::as_str)
        .filter(|k| !matches!(*k, "" | "DeleteOptions"))
    {
        let version = value
            .get("apiVersion")
            .and_then(Value::as_str)
            .unwrap_or("");
        return Err(Failure::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \
             \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
        )));
    }
    let text = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let options = DeleteOptions {
        grace_period_seconds: value.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation_policy: text("/propagationPolicy"),
        orphan_dependents: value.get("orphanDependents").and_then(Value::as_bool),
        precondition_uid: text("/preconditions/uid"),
        precondition_resource_version: text("/preconditions/resourceVersion"),
    };
    let dry_run: Vec<&str> = value
        .get("dryRun")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let dry_run = check_delete(&options, &dry_run)?;
    Ok((options, dry_run))
}

fn delete_schema() -> &'static SchemaRef {
    static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let scalar = |name: &str, ty: Type, go: &str| {
            let mut schema = Schema::scalar(ty);
            schema.go_type = go.into();
            Property::new(name, SchemaRef::new(schema))
        };
        let mut preconditions = Schema::object(vec![
            scalar("uid", Type::String, "types.UID"),
            scalar("resourceVersion", Type::String, "string"),
        ]);
        preconditions.go_type = "v1.Preconditions".into();
        let mut item = Schema::scalar(Type::String);
        item.go_type = "string".into();
        let mut dry_run = Schema::array(SchemaRef::new(item));
        dry_run.go_type = "[]string".into();
        let mut options = Schema::object(vec![
            scalar("apiVersion", Type::String, "string"),
            scalar("kind", Type::String, "string"),
            scalar("gracePeriodSeconds", Type::Int64, "int64"),
            scalar("orphanDependents", Type::Boolean, "bool"),
            scalar("propagationPolicy", Type::String, "v1.DeletionPropagation"),
            scalar(
                "ignoreStoreReadErrorWithClusterBreakingPotential",
                Type::Boolean,
                "bool",
            ),
            Property::new("preconditions", SchemaRef::new(preconditions)),
            Property::new("dryRun", SchemaRef::new(dry_run)),
        ]);
        options.go_type = "v1.DeleteOptions".into();
        SchemaRef::new(options)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_bodies() {
        assert_eq!(
            yaml(b"a: 1\nb: |\n  x\n  y\n").unwrap(),
            json!({"a": 1, "b": "x\ny\n"})
        );
        assert_eq!(yaml(b"{\"a\": \"b\"}").unwrap(), json!({"a": "b"}));
        assert!(yaml(b"a: b: c\n").unwrap_err().starts_with("yaml: "));
        assert!(yaml(b"\xff").is_err());
    }

    #[test]
    fn quotes() {
        for (bytes, expect) in [
            (&b""[..], "<empty>"),
            (b"[]", "5b5d"),
            (b"{\"kind\":", "{\"kind\":"),
            (
                b"{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\"}",
                "{\"apiVersion\": \"v1\", \"kind\": \" ...",
            ),
        ] {
            assert_eq!(quote(bytes), expect);
        }
    }

    #[test]
    fn delete_bodies() {
        let (options, dry_run) = delete_options(
            br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":3,"preconditions":{"uid":"u"},"dryRun":["All"]}"#,
            BodyFormat::Json,
        )
        .unwrap();
        assert_eq!(options.grace_period_seconds, Some(3));
        assert_eq!(options.precondition_uid.as_deref(), Some("u"));
        assert!(dry_run);
        let message = |body: &[u8]| {
            delete_options(body, BodyFormat::Json)
                .unwrap_err()
                .body()
                .unwrap()["message"]
                .clone()
        };
        assert_eq!(
            message(br#"{"propagationPolicy":"Sideways"}"#),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: "Foreground", "Background", "Orphan", "nil""#
        );
        assert!(
            message(br#"{"kind":"Pod","apiVersion":"v1"}"#)
                .as_str()
                .unwrap()
                .starts_with("no kind \"Pod\"")
        );
    }
}
