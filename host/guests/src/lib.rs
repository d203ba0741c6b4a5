//! The guest components that ship with the binary, built from plugins/ and embedded.
//!
//! Invariant: each is a component that imports no WASI (the build script checks).

/// A component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// Its package in plugins/.
    pub name: &'static str,
    /// The component.
    pub bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// Components with scheduling plugins.
pub const SCHEDULING: &[Guest] = SCHEDULING_GUESTS;
/// Components with controllers.
pub const CONTROLLERS: &[Guest] = CONTROLLERS_GUESTS;
/// Components with admission policies.
pub const ADMISSION: &[Guest] = ADMISSION_GUESTS;
/// Components that misbehave, for tests. The binary does not name this, so they are not in it.
pub const HOSTILE: &[Guest] = HOSTILE_GUESTS;
/// All that ship.
pub const ALL: &[&[Guest]] = &[SCHEDULING, CONTROLLERS, ADMISSION];

/// A component that ships, by its package's name.
pub fn get(name: &str) -> Option<&'static Guest> {
    ALL.iter()
        .copied()
        .flatten()
        .find(|guest| guest.name == name)
}

/// One of the components for tests.
pub fn hostile(name: &str) -> Option<&'static Guest> {
    HOSTILE.iter().find(|guest| guest.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_found_by_name() {
        let check = |name: &str, expect: bool| assert_eq!(get(name).is_some(), expect, "{name}");
        check("cost-aware", true);
        check("node-annotation", true);
        check("image-registries", true);
        check("misbehaving-scheduler", false);
        assert!(hostile("misbehaving-scheduler").is_some());
    }
}
