//! One place where what the store says becomes what a caller is told.

use oarlock_kinds::Row;
use oarlock_model::status::quote;
use oarlock_model::{ApiError, Cause, Reason, meta};
use oarlock_store::{ReadError, Revision, TxnError, WatchEnd};
use serde_json::Value;

use crate::Target;

pub fn not_found(target: &Target) -> ApiError {
    let resource = match target.row.resource.as_str() {
        // Upstream's own word for it.
        "componentstatuses" => "componentstatus",
        resource => resource,
    };
    ApiError::not_found(&target.row.group, resource, &target.name)
}

pub fn modified(row: &Row, name: &str) -> ApiError {
    ApiError::modified(&row.group, &row.resource, name)
}

pub fn conflict(row: &Row, name: &str, why: &str) -> ApiError {
    ApiError::conflict(&row.group, &row.resource, name, why)
}

/// The conflict of a uid in a body or binding that is not the stored one.
pub fn uid_mismatch(row: &Row, namespace: &str, name: &str, wanted: &str, found: &str) -> ApiError {
    let mut path = storage_path(row);
    if row.namespaced {
        path = format!("{path}/{namespace}");
    }
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{path}/{name}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    );
    conflict(row, name, &why)
}

/// Where upstream keeps a resource, below `/registry/`: error texts name it.
fn storage_path(row: &Row) -> String {
    match (row.group.as_str(), row.resource.as_str()) {
        ("", "services") => "services/specs".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        ("", "nodes") => "minions".to_owned(),
        ("", "replicationcontrollers") => "controllers".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", resource) => {
            format!("{}/{resource}", row.group)
        }
        (_, resource) => resource.to_owned(),
    }
}

/// The kind is told as it is stored: an Event of either group is an `Event`.
pub fn invalid(row: &Row, name: &str, causes: Vec<Cause>) -> ApiError {
    ApiError::invalid(
        &row.storage_kind.group,
        &row.storage_kind.kind,
        name,
        causes,
    )
}

/// The same, of the kind that the object says it is.
pub fn invalid_object(row: &Row, object: &Value, causes: Vec<Cause>) -> ApiError {
    if row.custom.is_none() {
        return invalid(row, meta::name(object), causes);
    }
    let kind = match meta::kind(object) {
        "" => row.kind.as_str(),
        kind => kind,
    };
    ApiError::invalid(&row.group, kind, meta::name(object), causes)
}

/// A failed transaction; `Conflict` must have been dealt with before.
pub fn txn(error: TxnError) -> ApiError {
    match error {
        TxnError::Conflict { .. } => ApiError::internal(error),
        TxnError::Unavailable(_) => {
            let mut error = ApiError::new(Reason::ServiceUnavailable, error.to_string());
            error.retry_after_seconds = Some(1);
            error
        }
        TxnError::Overloaded => {
            let mut error = ApiError::new(
                Reason::TooManyRequests,
                "the store's write queue is full, please try again later",
            );
            error.retry_after_seconds = Some(1);
            error
        }
        TxnError::Closed => {
            ApiError::new(Reason::ServiceUnavailable, "the server is shutting down")
        }
    }
}

/// 504: a revision that has not been reached.
pub fn too_large_version(wanted: Revision, current: Revision) -> ApiError {
    let mut error = ApiError::new(
        Reason::Timeout,
        format!("Timeout: Too large resource version: {wanted}, current: {current}"),
    );
    error.retry_after_seconds = Some(1);
    error.causes.push(Cause::new(
        "ResourceVersionTooLarge",
        "",
        "Too large resource version",
    ));
    error
}

pub fn list_read(error: ReadError) -> ApiError {
    match error {
        ReadError::Compacted { .. } => {
            ApiError::expired("The resourceVersion for the provided list is too old.")
        }
        ReadError::Future { wanted, current } => too_large_version(wanted, current),
    }
}

pub fn too_old_watch(wanted: Revision, oldest: Revision) -> ApiError {
    ApiError::expired(format!("too old resource version: {wanted} ({oldest})"))
}

pub fn watch_end(end: WatchEnd, progress: Revision) -> ApiError {
    match end {
        WatchEnd::Compacted { oldest } => too_old_watch(progress, oldest),
        WatchEnd::Closed => {
            ApiError::new(Reason::ServiceUnavailable, "the server is shutting down")
        }
    }
}

pub fn invalid_version(text: &str) -> ApiError {
    let why = unparsed(text);
    ApiError::bad_request(format!("invalid resource version \"{text}\": {why}"))
}

/// An object's own resourceVersion that is none: upstream does not call this the caller's fault.
pub fn unreadable_version(text: &str) -> ApiError {
    ApiError::new(Reason::Unknown, unparsed(text))
}

fn unparsed(text: &str) -> String {
    let why = if text.is_empty() || text.bytes().any(|b| !b.is_ascii_digit()) {
        "invalid syntax"
    } else {
        "value out of range"
    };
    format!("strconv.ParseUint: parsing {}: {why}", quote(text))
}

/// A resourceVersion text; empty is `None`.
pub fn parse_version(text: &str) -> Result<Option<Revision>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid_version(text));
    }
    text.parse().map(Some).map_err(|_| invalid_version(text))
}
