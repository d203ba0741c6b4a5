//! hyper and TLS: authentication, audit, authorization, admission, registry; discovery, negotiation and watch framing.
//!
//! A request goes `server` (connection) → `handler` (who, may they) → `outside` (paths that are no resources) or `verbs`
//! (resources) → the registry → `respond` with a body from `encode`, `outgoing` or `watching`. Objects are copied as text, never
//! parsed, on the way out.

mod accounts;
mod aggregate;
mod approving;
mod audit;
mod auth;
mod body;
mod cbor;
mod connect;
mod discovery;
mod encode;
mod expressions;
mod failure;
mod flow;
mod follow;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod handler;
mod health;
mod impersonation;
mod metrics;
mod negotiate;
mod nodes;
mod oidc;
mod openapi;
mod outbound;
mod outgoing;
mod outside;
pub mod pki;
mod policies;
mod query;
mod rbac;
mod respond;
mod reviews;
mod route;
mod scan;
mod served;
mod server;
mod signing;
mod static_tokens;
mod timetravel;
mod tls;
mod verbs;
mod watching;

pub use accounts::{KeyRing, KeyRingError, ServiceAccounts};
pub use audit::{Audit, AuditConfig, AuditError, AuditLogConfig, AuditWebhookConfig, LogFormat};
pub use auth::{
    Access, AlwaysAllow, Attributes, Authenticated, Authorizer, Decision, Masters,
    TokenAuthenticator,
};
pub use health::HealthCheck;
pub use metrics::MoreMetrics;
pub use nodes::Nodes;
pub use oidc::{AuthenticationConfig, OidcError, OidcFlags, OidcIssuer};
pub use pki::{Identity, Pki, PkiError};
pub use policies::check_policies;
pub use rbac::Rbac;
pub use route::{ResourcePath, Verb};
pub use server::{Server, ServerConfig, ServerError};
pub use signing::sign_requests;
pub use static_tokens::{StaticTokens, StaticTokensError};
