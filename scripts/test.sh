#!/usr/bin/env bash
# The whole test suite on a machine with Rust. Installs what it needs from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

# Property tests draw the same cases every time; unset to search for new ones.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED-20260101}"

install_missing() {
    local missing=()
    while [ $# -gt 0 ]; do
        command -v "$1" >/dev/null 2>&1 || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    say "installing ${missing[*]}"
    if ! { "${sudo[@]}" apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >/dev/null; then
        echo "cannot install ${missing[*]}: the suites that need them will say so" >&2
    fi
}

# Debian keeps the programs of each PostgreSQL release off the path.
postgres=$(find /usr/lib/postgresql -name postgres -path '*/bin/*' 2>/dev/null | head -n 1 || true)
install_missing cc gcc chromium chromium chromedriver chromium-driver redis-server redis-server \
    memcached memcached \
    "${postgres:-postgres}" postgresql /usr/sbin/mariadbd mariadb-server \
    /usr/sbin/pgbouncer pgbouncer nginx nginx node nodejs npm npm

say "the declared rust-version"
# `sqlx` needs a newer one, so the features that bring it are left out.
older=(--locked --features redis-rustls,memcached,testing)
rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if cargo "+$rust_version" --version >/dev/null 2>&1; then
    cargo "+$rust_version" check "${older[@]}"
else
    echo "toolchain $rust_version is not installed; clippy's incompatible_msrv looks with $(rustc --version)"
fi
cargo clippy --locked --lib --all-features -- -D clippy::incompatible_msrv

say "every feature alone"
cargo check --locked --lib --no-default-features
for feature in $(sed -n '/^\[features\]/,/^\[dep/s/^\([a-z][a-z0-9-]*\) = .*/\1/p' Cargo.toml); do
    cargo check --locked --lib --no-default-features --features "$feature"
done

say "tests without features"
cargo test --locked --no-default-features --lib

say "tests with all features"
cargo test --locked --all-features

say "what the comparison in README.md says of other libraries"
cargo test --locked --manifest-path benches/Cargo.toml --target-dir target/benches --test others
npm ci --silent --no-fund --no-audit --prefix benches/koa
npm test --silent --prefix benches/koa
