//! Runs the plugins' own unit tests, natively: they are a workspace of their own, and would be forgotten.

use std::path::Path;

#[path = "../../wasm/src/toolchain.rs"]
#[expect(
    dead_code,
    reason = "shared with the build script, which needs all of it"
)]
mod toolchain;

#[test]
fn the_plugins_own_tests_pass() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    let output = toolchain::clean_cargo()
        .current_dir(plugins)
        .args(["test", "--quiet", "--workspace", "--lib", "--target-dir"])
        .arg(target_dir)
        .output()
        .expect("cargo runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
