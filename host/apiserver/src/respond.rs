//! Answers: status line, headers and body, in the media type that was asked for.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, RETRY_AFTER, VARY, WARNING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use oarlock_kinds::protobuf;
use serde_json::Value;

use crate::cbor;
use crate::failure::Failure;
use crate::negotiate::{Format, accepts_gzip, format_of_error};
use crate::outgoing::{GZIP_FROM_BYTES, Outgoing, gzip};

pub(crate) type Answer = Response<Outgoing>;

const TEXT: &str = "text/plain; charset=utf-8";
/// A Warning header is not longer than this.
const MAX_WARNING_BYTES: usize = 4096;
/// Upstream cuts longer names of requests.
const MAX_AUDIT_ID_BYTES: usize = 64;
/// More warnings than this are not sent.
const MAX_WARNINGS: usize = 100;

/// An answer with a body that is ready to go.
pub(crate) fn answer(code: u16, content_type: &'static str, body: Outgoing) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

pub(crate) fn text(code: u16, body: impl Into<Bytes>) -> Answer {
    let mut answer = answer(code, TEXT, Outgoing::whole(body));
    answer.headers_mut().insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    answer
}

/// JSON text as it is, or turned into what was asked for.
pub(crate) fn json(code: u16, text: Vec<u8>, format: Format, pretty: bool) -> Answer {
    if format == Format::Protobuf {
        return match binary(&text) {
            Some(bytes) => answer(code, format.content_type(), Outgoing::whole(bytes)),
            None => failure(&Failure::not_acceptable(), &HeaderMap::new()),
        };
    }
    if format == Format::Cbor
        && let Ok(value) = serde_json::from_slice(&text)
    {
        let bytes = cbor::encode(&value);
        return answer(code, format.content_type(), Outgoing::whole(bytes));
    }
    let text = match (format, pretty) {
        (Format::Json, false) => text,
        (Format::Json, true) => prettified(&text).unwrap_or(text),
        (Format::Yaml | Format::Protobuf | Format::Cbor, _) => yaml(&text).unwrap_or(text),
    };
    answer(code, format.content_type(), Outgoing::whole(text))
}

pub(crate) fn value(code: u16, value: &Value, format: Format, pretty: bool) -> Answer {
    let mut text = value.to_string().into_bytes();
    text.push(b'\n');
    json(code, text, format, pretty)
}

/// The object in a JSON text in protobuf.
pub(crate) fn binary(text: &[u8]) -> Option<Vec<u8>> {
    protobuf::encode(&oarlock_model::deep::from_stored(text).ok()?)
}

/// Compresses a whole answer that is large, for a caller who takes gzip.
pub(crate) fn compressed(mut answer: Answer, headers: &HeaderMap) -> Answer {
    let Outgoing::Whole(Some(bytes)) = answer.body() else {
        return answer;
    };
    if bytes.len() < GZIP_FROM_BYTES || !accepts_gzip(headers) {
        return answer;
    }
    if let Ok(packed) = gzip(bytes) {
        *answer.body_mut() = Outgoing::whole(packed);
        mark_gzip(&mut answer);
    }
    answer
}

pub(crate) fn mark_gzip(answer: &mut Answer) {
    answer
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// A document with an entity tag; 304 if the caller has it.
pub(crate) fn tagged(
    content_type: &'static str,
    body: Bytes,
    etag: &str,
    headers: &HeaderMap,
) -> Answer {
    let known = headers
        .get(http::header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|tags| {
            tags.split(',')
                .any(|tag| tag.trim() == etag || tag.trim() == "*")
        });
    let mut answer = if known {
        answer(304, content_type, Outgoing::empty())
    } else {
        answer(200, content_type, Outgoing::whole(body))
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

pub(crate) fn failure(failure: &Failure, headers: &HeaderMap) -> Answer {
    let mut answer = match failure.body() {
        Ok(status) => value(failure.code(), &status, format_of_error(headers), false),
        Err(body) => text(failure.code(), body),
    };
    if let Some(seconds) = failure.retry_after_seconds() {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    warn(&mut answer, failure.warnings());
    answer
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The name of a request: the one that the caller gave it, or a new one.
pub(crate) fn request_name(headers: &HeaderMap) -> Option<HeaderValue> {
    let given = headers
        .get(&AUDIT_ID)
        .and_then(|id| id.as_bytes().get(..id.len().min(MAX_AUDIT_ID_BYTES)))
        .filter(|id| !id.is_empty())
        .and_then(|id| HeaderValue::from_bytes(id).ok());
    given.or_else(|| {
        let mut text = uuid::Uuid::encode_buffer();
        HeaderValue::from_str(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text)).ok()
    })
}

/// Names the request in its answer.
pub(crate) fn name_request(answer: &mut Answer, name: Option<HeaderValue>) {
    if let Some(id) = name {
        answer.headers_mut().insert(AUDIT_ID, id);
    }
}

/// `299 - "text"`, once for each text.
pub(crate) fn warn(answer: &mut Answer, texts: &[String]) {
    for (at, text) in texts.iter().enumerate().take(MAX_WARNINGS) {
        if texts.get(..at).is_some_and(|before| before.contains(text)) {
            continue;
        }
        let mut quoted = String::from("299 - \"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' | '\t' => quoted.push(' '),
                c if c.is_control() => {}
                c => quoted.push(c),
            }
            if quoted.len() > MAX_WARNING_BYTES {
                break;
            }
        }
        quoted.push('"');
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

/// A warning before those that the answer has.
pub(crate) fn warn_first(answer: &mut Answer, text: &str) {
    let rest: Vec<HeaderValue> = answer.headers().get_all(WARNING).iter().cloned().collect();
    answer.headers_mut().remove(WARNING);
    warn(answer, &[text.to_owned()]);
    for value in rest {
        answer.headers_mut().append(WARNING, value);
    }
}

fn prettified(text: &[u8]) -> Option<Vec<u8>> {
    let value: Value = oarlock_model::deep::from_stored(text).ok()?;
    let mut pretty = serde_json::to_vec_pretty(&value).ok()?;
    pretty.push(b'\n');
    Some(pretty)
}

fn yaml(text: &[u8]) -> Option<Vec<u8>> {
    let value: Value = oarlock_model::deep::from_stored(text).ok()?;
    let mut text = serde_saphyr::to_string(&value).ok()?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oarlock_model::ApiError;

    #[test]
    fn yaml_reads_as_upstream_writes_it() {
        let status = ApiError::not_found("", "namespaces", "default-grove").to_status();
        let text = yaml(status.to_string().as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "apiVersion: v1\ncode: 404\ndetails:\n  kind: namespaces\n  name: default-grove\nkind: Status\nmessage: namespaces \
             \"default-grove\" not found\nmetadata: {}\nreason: NotFound\nstatus: Failure\n"
        );
    }

    #[test]
    fn warnings_are_quoted_and_told_once() {
        let mut answer = text(200, "");
        warn(
            &mut answer,
            &[
                "unknown field \"a\"".to_owned(),
                "unknown field \"a\"".to_owned(),
                "b\nc".to_owned(),
            ],
        );
        let all: Vec<_> = answer
            .headers()
            .get_all(WARNING)
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect();
        assert_eq!(all, [r#"299 - "unknown field \"a\"""#, r#"299 - "b c""#]);
    }
}
