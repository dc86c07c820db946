#!/usr/bin/env bash
# make bench-query: builds the release `flowtap` and measures `why` and `flows` over a million rows.
# Arguments go to tests/bench/query.py (--help).
set -euo pipefail
cd "$(dirname "$0")/../.."

# The whole workspace: one set of features, so that no benchmark compiles another's dependencies again.
cargo build --release --workspace --bin flowtap --example fill
target=${CARGO_TARGET_DIR:-target}/release
exec /usr/bin/python3 tests/bench/query.py --flowtap "$target/flowtap" --fill "$target/examples/fill" "$@"
