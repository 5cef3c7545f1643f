#!/usr/bin/env bash
# What is too slow for every change, or depends on what others publish: once a week, and before a release.
#
#   ./scripts/scheduled.sh              all steps
#   ./scripts/scheduled.sh deny load    these
#
# It works in a fresh clone, and installs its tools into target/tools. It needs Rust with rustup, and the registry.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_PROFILE_DEV_DEBUG="${CARGO_PROFILE_DEV_DEBUG-0}" CARGO_INCREMENTAL="${CARGO_INCREMENTAL-0}"
tools="$PWD/target/tools"
skipped=()

say() { printf '\n== %s\n' "$*"; }
skip() { printf '!!! NOT done: %s\n' "$*" && skipped+=("$*"); }

install() {
    [ -x "$tools/bin/$1" ] ||
        cargo install --locked --quiet --root "$tools" --target-dir "$tools/build" "$1"
}

# Licences, sources, duplicates and known vulnerabilities of dependencies.
# Not in the test command: the tool takes minutes to build, and an advisory can fail a change that is not its cause.
step_deny() {
    install cargo-deny
    "$tools/bin/cargo-deny" check licenses sources
    "$tools/bin/cargo-deny" --exclude-dev check bans
    # The database is a repository, which not every network reaches.
    local database=https://github.com/RustSec/advisory-db
    if git ls-remote --quiet "$database" HEAD >/dev/null 2>&1; then
        "$tools/bin/cargo-deny" check advisories
    else
        skip "known vulnerabilities, since $database cannot be reached"
    fi
}

# Every pair of features. Not in the test command: 36 checks. Each feature alone, and all of them, are there.
step_features() {
    install cargo-hack
    "$tools/bin/cargo-hack" hack check --locked --lib --feature-powerset --depth 2
}

# The oldest versions that Cargo.toml names, with default features.
# Not in the test command: it resolves anew, so it depends on the day.
step_minimal() {
    rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
    local copy="$PWD/target/minimal"
    rm -rf "$copy" && mkdir -p "$copy"
    cp -r src README.md "$copy"
    awk -f scripts/default-dependencies.awk Cargo.toml >"$copy/Cargo.toml"
    (
        cd "$copy"
        cargo +nightly update --quiet -Z direct-minimal-versions
        CARGO_TARGET_DIR="$copy/target" cargo check --locked
    )
}

# The newest versions that Cargo.toml allows. Not in the test command: a change is not the cause of what breaks.
step_newest() {
    local copy="$PWD/target/newest"
    rm -rf "$copy" && mkdir -p "$copy"
    git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents -t "$copy"
    (
        cd "$copy"
        cargo update --quiet
        CARGO_TARGET_DIR="$copy/target" cargo test --quiet --features testing --lib --test api
    )
}

# The declared `rust-version`. The test command checks it where the toolchain is installed; this installs it.
step_rust_version() {
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    cargo "+$version" --version >/dev/null 2>&1 || rustup toolchain install "$version" --profile minimal
    cargo "+$version" check --locked --features redis-rustls,memcached,import,testing
}

# Tests that draw a million ids, nonces and tokens. Not in the test command, where the same tests draw 20,000: they take
# ten seconds and more, and are meant to find what one run in years would.
step_million() {
    cargo test --locked --all-features --lib -- --ignored
}

# The examples `counter` and `cart` under load, beside the same without sessions. Not in the test command: memory that
# grows shows after minutes, and the servers are built with optimization.
step_load() {
    cargo bench --locked --manifest-path benches/speed/Cargo.toml --target-dir target/benches --bench load -- \
        "${LOAD_SECONDS:-180}" "${LOAD_CLIENTS:-64}"
}

# Each fuzz target for eight minutes. Not in the test command: it needs a nightly toolchain, and finds more the longer it
# runs. The same targets get their seeds and some thousand edits of these there.
step_fuzz() {
    rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
    install cargo-fuzz
    PATH="$tools/bin:$PATH" ./scripts/fuzz.sh "${FUZZ_SECONDS:-480}"
}

# Edits of the core, each of which a test should notice. Not in the test command: there are two thousand of them, and each
# takes a minute. A week has one part of 53; `MUTANTS_SHARD=0/1` makes all edits.
step_mutants() {
    install cargo-mutants
    local shard="${MUTANTS_SHARD:-$((10#$(date +%V) - 1))/53}" status=0
    PATH="$tools/bin:$PATH" cargo mutants --features testing,redis,memcached --shard "$shard" --output target --no-shuffle \
        --file 'src/**' --exclude 'src/import/**' --exclude 'src/testing/**' --exclude 'src/store/*_store/**' \
        --exclude 'src/store/sql/**' --cargo-arg=--lib --cargo-arg=--test=api || status=$?
    # 2 and 3 mean that edits were not noticed, or that tests did not end.
    [ "$status" -eq 0 ] || [ "$status" -eq 2 ] || [ "$status" -eq 3 ] || return "$status"
    printf 'Edits that no test noticed; docs/security.md lists those that are known:\n'
    cat target/mutants.out/missed.txt
}

all=(deny features minimal newest rust_version million load fuzz mutants)
for step in "${@:-${all[@]}}"; do
    say "$step"
    start=$SECONDS
    "step_$step"
    printf '%s: %s s\n' "$step" $((SECONDS - start))
done

[ ${#skipped[@]} -eq 0 ] || printf '\n!!! NOT done: %s\n' "${skipped[@]}"
