//! The guest components that ship with the binary, built from plugins/ and embedded.
