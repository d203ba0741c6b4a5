//! One structural-schema engine for built-in kinds and CRDs alike; knows no kind by name.
//!
//! Modules: `types` (the schema itself), `decode` (type checks, unknown fields, duplicate keys), `default`, `prune`,
//! `patch` (JSON patch, merge patch, strategic merge), `apply` (server-side apply and managed fields), `openapi` (out).
