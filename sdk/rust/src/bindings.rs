//! The guest's side of `wit/`.
//!
//! Invariant: one module a world, so that a component says it exports only what its macro exports.

#![allow(
    missing_docs,
    clippy::all,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    rust_2018_idioms
)]

pub mod plugin {
    wit_bindgen::generate!({
        world: "oarlock:scheduler/scheduling-plugin",
        path: ["../../wit/host", "../../wit/scheduler"],
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_placement_raw",
        default_bindings_module: "oarlock_sdk::__private::bindings::plugin",
        disable_custom_section_link_helpers: true,
        additional_derives: [PartialEq],
    });
}

pub mod queueing {
    wit_bindgen::generate!({
        world: "oarlock:scheduler/queueing",
        path: ["../../wit/host", "../../wit/scheduler"],
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_queue_raw",
        default_bindings_module: "oarlock_sdk::__private::bindings::queueing",
        disable_custom_section_link_helpers: true,
        with: { "oarlock:scheduler/types@0.1.0": crate::bindings::plugin::oarlock::scheduler::types },
    });
}

pub mod controlling {
    wit_bindgen::generate!({
        world: "oarlock:controller/controller",
        path: ["../../wit/host", "../../wit/controller"],
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_reconciler_raw",
        default_bindings_module: "oarlock_sdk::__private::bindings::controlling",
        disable_custom_section_link_helpers: true,
        additional_derives: [PartialEq],
        with: {
            "oarlock:host/log@0.1.0": crate::bindings::plugin::oarlock::host::log,
            "oarlock:host/clock@0.1.0": crate::bindings::plugin::oarlock::host::clock,
            "oarlock:host/random@0.1.0": crate::bindings::plugin::oarlock::host::random,
        },
    });
}

pub mod admitting {
    wit_bindgen::generate!({
        world: "oarlock:admission/admission-policy",
        path: ["../../wit/host", "../../wit/admission"],
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_policy_raw",
        default_bindings_module: "oarlock_sdk::__private::bindings::admitting",
        disable_custom_section_link_helpers: true,
        additional_derives: [PartialEq, Clone],
        with: {
            "oarlock:host/log@0.1.0": crate::bindings::plugin::oarlock::host::log,
            "oarlock:host/clock@0.1.0": crate::bindings::plugin::oarlock::host::clock,
            "oarlock:host/random@0.1.0": crate::bindings::plugin::oarlock::host::random,
        },
    });
}
