#!/bin/bash
# Makes PREFIX/rustc, a compiler with the target wasm32-unknown-unknown, from Debian's packages (rustc-web and its source),
# for machines on which rustup may not download. Usage: debian-target.sh PREFIX RUSTC
# RUSTC is the compiler at hand: cargo and the rest of its toolchain keep being used.
set -euo pipefail
target=wasm32-unknown-unknown
mkdir -p "$1"
prefix=$(cd "$1" && pwd)

works() {
    local dir
    dir=$("$prefix/rustc" --print target-libdir --target $target 2>/dev/null) && ls "$dir"/libstd-*.rlib >/dev/null 2>&1
}
[ -x "$prefix/rustc" ] && works && exit 0

version=$(apt-cache policy rustc-web | awk '/Candidate:/ { print $2 }')
if [ -z "$version" ] || [ "$version" = "(none)" ]; then
    echo "apt knows no package rustc-web (apt-get update?)" >&2
    exit 1
fi
std=$(apt-cache show "libstd-rust-web-dev=$version" | grep -oE 'libstd-rust-web-[0-9.]+' | head -1)
llvm=$(apt-cache show "$std=$version" | grep -oE 'libllvm[0-9]+' | head -1)
llvm_dir=llvm-${llvm#libllvm}

# Unpacked into the prefix, not installed: nothing of the machine's own changes.
rm -rf "$prefix/debs" "$prefix/root"
mkdir -p "$prefix/debs" "$prefix/root"
(cd "$prefix/debs" && apt-get download "rustc-web=$version" "$std=$version" "libstd-rust-web-dev=$version" \
    "rust-web-src=$version" "$llvm" libedit2 libz3-4 libxml2 libbsd0 libmd0 libicu72 2>/dev/null ||
    apt-get download "rustc-web=$version" "$std=$version" "libstd-rust-web-dev=$version" "rust-web-src=$version" "$llvm" libedit2 libz3-4 libxml2)
for deb in "$prefix"/debs/*.deb; do dpkg -x "$deb" "$prefix/root"; done
rm -rf "$prefix/debs"

libs="$prefix/root/usr/lib/x86_64-linux-gnu:$prefix/root/lib/x86_64-linux-gnu:$prefix/root/usr/lib/$llvm_dir/lib"
cat >"$prefix/rustc" <<X
#!/bin/sh
LD_LIBRARY_PATH="$libs\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "$prefix/root/usr/bin/rustc" "\$@"
X
chmod +x "$prefix/rustc"
"$prefix/rustc" -V >&2

# The target's standard library, from source: Debian packages none for this target.
library=$prefix/root/usr/lib/rustlib/src/rust/library
unset RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
export RUSTC=$prefix/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$prefix/std
export RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes" __CARGO_DEFAULT_LIB_METADATA=sysroot-$target
export CARGO_PROFILE_RELEASE_OPT_LEVEL=3 CARGO_PROFILE_RELEASE_DEBUG=0
(cd "$library/sysroot" && cargo build --quiet --release --locked --target $target \
    --features panic-unwind,backtrace,compiler-builtins-mem)
mkdir -p "$prefix/root/usr/lib/rustlib/$target/lib"
cp "$prefix/std/$target/release/deps/"*.rlib "$prefix/root/usr/lib/rustlib/$target/lib/"
rm -rf "$prefix/std"
works
