//! `ApiError`: everything a caller can be told, in Kubernetes' own form (`meta/v1.Status`).
//!
//! Every room below HTTP returns its own error enum or this; [`ApiError::to_status`] is the one place where an
//! error becomes a `Status`. Message texts are facts of the interface: clients match on them.

use std::fmt;

use serde_json::{Map, Value, json};

pub type ApiResult<T> = Result<T, ApiError>;

/// `Status.reason`, with its HTTP code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    ServiceUnavailable,
    /// A plain error text: code 500 and no reason, as upstream answers where it has nothing better.
    Unknown,
}

impl Reason {
    pub const ALL: [Self; 20] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::Gone,
        Self::Expired,
        Self::Invalid,
        Self::ServerTimeout,
        Self::StoreReadError,
        Self::Timeout,
        Self::TooManyRequests,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestEntityTooLarge,
        Self::UnsupportedMediaType,
        Self::InternalError,
        Self::ServiceUnavailable,
        Self::Unknown,
    ];

    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::ServerTimeout | Self::StoreReadError | Self::Unknown => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::StoreReadError => "StorageReadError",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Unknown => "",
        }
    }
}

/// One entry of `Status.details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueForbidden`, …
    pub reason: String,
    /// The text after `FIELD: `.
    pub message: String,
    /// `spec.containers[0].name`.
    pub field: String,
}

impl Cause {
    pub fn new(reason: &str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.into(),
            field: field.into(),
        }
    }

    /// `Required value` or `Required value: DETAIL`.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(
            "FieldValueRequired",
            field,
            with_detail("Required value", detail),
        )
    }

    /// `Invalid value: VALUE: DETAIL`; `value` as [`show_value`] prints it.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            with_detail(&format!("Invalid value: {}", show_value(value)), detail),
        )
    }

    /// `Unsupported value: "X": supported values: "A", "B"`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported
            .iter()
            .map(|s| format!("{s:?}"))
            .collect::<Vec<_>>()
            .join(", ");
        let message = with_detail(
            &format!("Unsupported value: {}", show_value(value)),
            &if list.is_empty() {
                String::new()
            } else {
                format!("supported values: {list}")
            },
        );
        Self::new("FieldValueNotSupported", field, message)
    }

    /// `Forbidden: DETAIL`.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(
            "FieldValueForbidden",
            field,
            with_detail("Forbidden", detail),
        )
    }

    /// `Duplicate value: VALUE`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {}", show_value(value)),
        )
    }

    /// `Not found: VALUE`.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(
            "FieldValueNotFound",
            field,
            format!("Not found: {}", show_value(value)),
        )
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(field: impl Into<String>, max_bytes: usize) -> Self {
        Self::new(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {max_bytes} bytes"),
        )
    }

    /// `Too many: N: must have at most M items`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        Self::new(
            "FieldValueTooMany",
            field,
            format!("Too many: {actual}: must have at most {max} items"),
        )
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() {
        head.to_owned()
    } else {
        format!("{head}: {detail}")
    }
}

/// A text in quotes, as Go's `%q` has it: errors are read by machines, too.
pub fn quote(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() || matches!(c, '\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as field errors print it: texts quoted, scalars bare, maps and lists as compact JSON.
pub fn show_value(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

/// What the caller is told. `message` is complete; `kind`/`group`/`name` fill `Status.details`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub reason: Reason,
    pub message: String,
    pub group: String,
    /// In `details.kind`: the resource (plural) for most reasons, the kind for Invalid.
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: Option<u32>,
    /// In `metadata.continue`: how to go on with a list whose snapshot is gone (410). Empty: nothing.
    pub continue_token: String,
    /// `code`, where it is not the reason's own.
    pub status_code: Option<u16>,
}

impl ApiError {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            group: String::new(),
            kind: String::new(),
            name: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            continue_token: String::new(),
            status_code: None,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.group = group.to_owned();
        self.kind = kind.to_owned();
        self.name = name.to_owned();
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        let mut error = Self::new(
            Reason::InternalError,
            format!("Internal error occurred: {message}"),
        );
        error.causes.push(Cause {
            reason: String::new(),
            message: message.to_string(),
            field: String::new(),
        });
        error
    }

    /// `pods "x" not found`; `resource` plural.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(
            Reason::NotFound,
            format!("{} {} not found", qualified(group, resource), quote(name)),
        )
        .about(group, resource, name)
    }

    /// `pods "x" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(
            Reason::AlreadyExists,
            format!(
                "{} {} already exists",
                qualified(group, resource),
                quote(name)
            ),
        )
        .about(group, resource, name)
    }

    /// `Operation cannot be fulfilled on pods "x": WHY`.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {why}",
            qualified(group, resource),
            quote(name)
        );
        Self::new(Reason::Conflict, message).about(group, resource, name)
    }

    /// The conflict of a stale resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// `pods "x" is forbidden: WHY`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let head = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{head} is forbidden: {why}")
        } else {
            format!("{head} {} is forbidden: {why}", quote(name))
        };
        Self::new(Reason::Forbidden, message).about(group, resource, name)
    }

    /// `Pod "x" is invalid: FIELD: MESSAGE` or `…: [A, B]`; `kind` as in `Pod`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for cause in &causes {
            let text = if cause.field.is_empty() {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if texts.len() == 1 {
            texts.remove(0)
        } else {
            format!("[{}]", texts.join(", "))
        };
        let mut error = Self::new(
            Reason::Invalid,
            format!(
                "{} {} is invalid: {list}",
                qualified(group, kind),
                quote(name)
            ),
        )
        .about(group, kind, name);
        error.causes = causes;
        error
    }

    /// 410 for a resourceVersion that was compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    pub fn code(&self) -> u16 {
        self.status_code.unwrap_or_else(|| self.reason.code())
    }

    /// The `Status` object of this error.
    pub fn to_status(&self) -> Value {
        let mut details = Map::new();
        for (field, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            if !text.is_empty() {
                details.insert(field.to_owned(), Value::String(text.clone()));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|c| {
                let mut cause = Map::new();
                for (field, text) in [
                    ("reason", &c.reason),
                    ("message", &c.message),
                    ("field", &c.field),
                ] {
                    if !text.is_empty() {
                        cause.insert(field.to_owned(), Value::String(text.clone()));
                    }
                }
                Value::Object(cause)
            });
            details.insert("causes".to_owned(), Value::Array(causes.collect()));
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code(),
        });
        if self.reason != Reason::Unknown {
            status["reason"] = Value::String(self.reason.as_str().to_owned());
        }
        if !self.continue_token.is_empty() {
            status["metadata"]["continue"] = Value::String(self.continue_token.clone());
        }
        // Answers that upstream words by the HTTP code alone carry empty details.
        let by_code = self.reason == Reason::MethodNotAllowed
            || (self.reason == Reason::Invalid && self.causes.is_empty() && self.kind.is_empty());
        if by_code || !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |error: ApiError, code: u16, text: &str| {
            assert_eq!(error.code(), code);
            assert_eq!(error.message, text);
            assert_eq!(error.to_status()["message"], text);
        };
        check(
            ApiError::not_found("", "pods", "x"),
            404,
            r#"pods "x" not found"#,
        );
        check(
            ApiError::already_exists("apps", "deployments", "x"),
            409,
            r#"deployments.apps "x" already exists"#,
        );
        check(
            ApiError::invalid(
                "apps",
                "Deployment",
                "x",
                vec![Cause::required("spec.selector", "")],
            ),
            422,
            r#"Deployment.apps "x" is invalid: spec.selector: Required value"#,
        );
        check(
            ApiError::invalid(
                "",
                "Pod",
                "x",
                vec![
                    Cause::required("spec.containers", ""),
                    Cause::not_supported("spec.restartPolicy", &json!("Now"), &["Always", "Never"]),
                ],
            ),
            422,
            r#"Pod "x" is invalid: [spec.containers: Required value, spec.restartPolicy: Unsupported value: "Now": supported values: "Always", "Never"]"#,
        );
    }
}
