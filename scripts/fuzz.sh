#!/usr/bin/env bash
# Runs each fuzz target, or those named after the seconds, under libFuzzer: ./scripts/fuzz.sh 480 header token
# Needs a nightly toolchain, a C++ compiler and `cargo install cargo-fuzz`. What it finds stays in fuzz/corpus, and an
# input that fails in fuzz/artifacts. With KEEP=1 the fewest inputs that reach the same code become the new seeds.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-60}"
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || read -ra targets <<<"header token content record id merge"

for target in "${targets[@]}"; do
    corpus="fuzz/corpus/$target" seeds="tests/fuzz/seeds/$target.hex" number=0
    mkdir -p "$corpus"
    # A line of a file of seeds is one input in hexadecimal.
    while read -r line; do
        number=$((number + 1))
        printf "$(sed 's/../\\x&/g' <<<"$line")" >"$corpus/seed-$number"
    done <"$seeds"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -max_len=1024 -timeout=5 -print_final_stats=1
    [ -n "${KEEP:-}" ] || continue
    fewest=$(mktemp -d)
    cargo +nightly fuzz run "$target" "$fewest" "$corpus" -- -merge=1 -use_counters=0
    for input in "$fewest"/*; do
        od -An -v -tx1 "$input" | tr -d ' \n'
        echo
    done | sort >"$seeds"
    rm -r "$fewest"
done
