#!/usr/bin/env bash
# make bench-storage: builds the release `flowtap` and measures the table on a real S3 server.
# Arguments go to tests/bench/storage.py (--help).
set -euo pipefail
cd "$(dirname "$0")/../.."

# The whole workspace: one set of features, so that no benchmark compiles another's dependencies again.
cargo build --release --workspace --bin flowtap --example fill --example s3meter
target=${CARGO_TARGET_DIR:-target}/release
# The Python that has deltalake and DuckDB.
exec "${FLOWTAP_CACHE:-$HOME/.cache/flowtap}/venv-lake/bin/python" tests/bench/storage.py --flowtap "$target/flowtap" \
    --fill "$target/examples/fill" --s3meter "$target/examples/s3meter" "$@"
