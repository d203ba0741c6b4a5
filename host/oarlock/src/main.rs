//! The binary: flags, configuration, wiring, signals and the command line.
fn main() {}
