#!/usr/bin/env bash
# Prints how many bytes of this crate's code each further data type adds to a program.
set -euo pipefail
cd "$(dirname "$0")/.."

text() { cargo bench --quiet --target-dir target/benches --manifest-path benches/Cargo.toml --bench text "$@"; }

one=$(text)
six=$(text --features six-types)
echo "one type: $one bytes; each further type: $(((six - one) / 5)) bytes"
