//! The audit seam: one record for each finished request, with fixed fields.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use oarlock_registry::User;

/// What is known when the head of the answer is written (for a watch: when it begins).
#[derive(Clone, Copy, Debug)]
pub struct AuditRecord<'a> {
    /// Who asked, after impersonation; `None`: not known (401).
    pub user: Option<&'a User>,
    /// `get`, `list`, …; outside the API empty.
    pub verb: &'a str,
    pub path: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub code: u16,
    pub took: Duration,
    pub source: SocketAddr,
}

/// Takes records; called on the request's own task, so it must not block.
pub trait AuditSink: Send + Sync + Debug {
    fn record(&self, record: &AuditRecord<'_>);
}
