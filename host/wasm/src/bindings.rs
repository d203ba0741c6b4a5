//! The host's side of `wit/`: one world with everything that any guest may import or export.
//!
//! Invariant: exports are looked up interface by interface (`GuestIndices`), never through the world, since a guest exports
//! only the extension points that it implements.

wasmtime::component::bindgen!({
    inline: "
        package oarlock:host-side;
        world everything {
            import oarlock:host/log@0.1.0;
            import oarlock:host/clock@0.1.0;
            import oarlock:host/random@0.1.0;
            import oarlock:controller/objects@0.1.0;
            export oarlock:scheduler/snapshot@0.1.0;
            export oarlock:scheduler/placement@0.1.0;
            export oarlock:scheduler/queue@0.1.0;
            export oarlock:controller/reconciler@0.1.0;
        }
    ",
    path: ["../../wit/host", "../../wit/scheduler", "../../wit/controller"],
    world: "oarlock:host-side/everything",
    imports: { default: trappable },
    additional_derives: [PartialEq],
});

/// Admission policies run on the threads of requests, so calls into them are futures that give way at each tick.
pub(crate) mod admission {
    wasmtime::component::bindgen!({
        inline: "
            package oarlock:host-side;
            world admission {
                export oarlock:admission/policy@0.1.0;
            }
        ",
        path: ["../../wit/host", "../../wit/admission"],
        world: "oarlock:host-side/admission",
        exports: { default: async },
        additional_derives: [PartialEq],
    });
}
