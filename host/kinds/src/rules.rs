//! Rules: what a kind does that the table cannot say (defaults, preparation, validation, warnings).
//!
//! Defaults run on every decoded object and are idempotent; `prepare_*` runs after admission; validation runs last and
//! speaks in Kubernetes' own words, since clients match on them. Addresses and ports of services are handed out by the
//! registry, not here.

mod affinity;
mod api_service;
mod batch;
pub mod cel;
mod certificates;
mod check;
mod conditions;
mod config;
mod container;
mod cron;
mod csi;
pub(crate) mod custom_meta;
mod defaults;
pub mod definition;
mod devices;
mod env;
mod face;
mod flow;
mod go_value;
mod group_defaults;
mod job_status;
mod limits;
mod metadata;
mod names;
mod network;
mod network_kinds;
mod node;
mod path;
mod pod;
mod pod_defaults;
mod pod_spec;
mod pod_status;
mod policies;
mod prepare;
mod probe;
mod projected;
mod quantity;
mod resources;
mod scale;
mod security;
mod service;
mod slices;
mod storage;
mod volume;
mod warnings;
mod webhooks;
mod windows;
mod workload;

pub use node::finalize_update;
pub use pod::{ephemeral_update, resize_update};
pub use service::service_addresses;

use crate::Hooks;

/// Pods are given this long to end, unless they say otherwise.
const POD_GRACE_SECONDS: i64 = 30;

/// The rules of a built-in kind.
pub fn hooks(group: &str, kind: &str) -> Hooks {
    Hooks {
        default: defaults::of(group, kind),
        prepare_create: prepare::create_of(group, kind),
        prepare_update: prepare::update_of(group, kind),
        validate: check::of(group, kind),
        settle: prepare::settle_of(group, kind),
        warn: warnings::of(group, kind),
        grace_seconds: match (group, kind) {
            ("", "Pod") => |pod| {
                let stated = pod.pointer("/spec/terminationGracePeriodSeconds");
                Some(
                    stated
                        .and_then(serde_json::Value::as_i64)
                        .unwrap_or(POD_GRACE_SECONDS),
                )
            },
            _ => |_| None,
        },
        ..Hooks::default()
    }
}

#[cfg(test)]
mod tests;
