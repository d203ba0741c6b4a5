//! `Failure`: whatever a request is refused with, before it is written in the caller's media type.

use bytes::Bytes;
use oarlock_model::{ApiError, Cause, Reason};
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Api(Box<ApiError>),
    /// A Status that is about no object: `details` is there and empty.
    Generic(Reason, String),
    /// Not a Status: what a path outside the API answers.
    Text(u16, &'static str),
    /// With texts for Warning headers that were gathered before the refusal.
    Warned(Box<Failure>, Vec<String>),
}

impl Failure {
    /// No such resource or subresource.
    pub fn no_resource() -> Self {
        Self::Generic(
            Reason::NotFound,
            "the server could not find the requested resource".to_owned(),
        )
    }

    pub fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::Generic(Reason::MethodNotAllowed, text.to_owned())
    }

    /// No such path.
    pub const fn page_not_found() -> Self {
        Self::Text(404, "404 page not found\n")
    }

    pub fn unauthorized() -> Self {
        ApiError::new(Reason::Unauthorized, "Unauthorized").into()
    }

    pub fn bad_request(text: impl Into<String>) -> Self {
        ApiError::bad_request(text).into()
    }

    pub fn unsupported_body() -> Self {
        let text = "the body of the request was in an unknown format - accepted media types include: \
                    application/json, application/yaml, application/vnd.kubernetes.protobuf";
        ApiError::new(Reason::UnsupportedMediaType, text).into()
    }

    pub fn not_acceptable() -> Self {
        let text = "only the following media types are accepted: application/json, application/yaml, \
                    application/vnd.kubernetes.protobuf";
        ApiError::new(Reason::NotAcceptable, text).into()
    }

    /// A watch is asked for in a format without frames.
    pub fn not_a_stream() -> Self {
        let text = "only the following media types are accepted: application/json;stream=watch, \
                    application/vnd.kubernetes.protobuf;stream=watch";
        ApiError::new(Reason::NotAcceptable, text).into()
    }

    pub fn too_large(limit: usize) -> Self {
        ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {limit}"),
        )
        .into()
    }

    pub fn too_many_requests() -> Self {
        let mut error = ApiError::new(
            Reason::TooManyRequests,
            "too many requests, please try again later",
        );
        error.retry_after_seconds = Some(1);
        error.into()
    }

    /// What flow control refuses with: upstream's text, not a Status.
    pub const fn come_back_later() -> Self {
        Self::Text(429, "Too many requests, please try again later.\n")
    }

    /// `OPTIONS.meta.k8s.io "" is invalid: …`.
    pub fn options(kind: &str, causes: Vec<Cause>) -> Self {
        ApiError::invalid("meta.k8s.io", kind, "", causes).into()
    }

    /// Adds texts for Warning headers.
    pub fn with_warnings(self, texts: Vec<String>) -> Self {
        if texts.is_empty() {
            self
        } else {
            Self::Warned(Box::new(self), texts)
        }
    }

    /// Adds a text before those that are there.
    pub fn with_first_warning(self, text: &str) -> Self {
        let mut texts = vec![text.to_owned()];
        match self {
            Self::Warned(inner, rest) => {
                texts.extend(rest);
                Self::Warned(inner, texts)
            }
            other => other.with_warnings(texts),
        }
    }

    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Warned(_, texts) => texts,
            _ => &[],
        }
    }

    pub fn code(&self) -> u16 {
        match self {
            Self::Warned(inner, _) => inner.code(),
            Self::Api(error) => error.code(),
            Self::Generic(reason, _) => reason.code(),
            Self::Text(code, _) => *code,
        }
    }

    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self {
            Self::Api(error) => error.retry_after_seconds,
            Self::Warned(inner, _) => inner.retry_after_seconds(),
            Self::Text(429, _) => Some(1),
            _ => None,
        }
    }

    /// The Status, or the text for what is not one.
    pub fn body(&self) -> Result<Value, Bytes> {
        match self {
            Self::Api(error) => Ok(error.to_status()),
            Self::Generic(reason, message) => Ok(json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                "reason": reason.as_str(), "details": {}, "code": reason.code(),
            })),
            Self::Text(_, text) => Err(Bytes::from_static(text.as_bytes())),
            Self::Warned(inner, _) => inner.body(),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(Box::new(error))
    }
}
