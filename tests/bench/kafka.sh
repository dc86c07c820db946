#!/usr/bin/env bash
# make bench-kafka: builds the release agent and runs Kafka's performance tools with and without it.
# Arguments go to tests/bench/kafka.py (--help).
set -euo pipefail
cd "$(dirname "$0")/../.."

# The whole workspace: one set of features, so that no benchmark compiles another's dependencies again.
cargo build --release --workspace --bin flowtap-agent
exec /usr/bin/python3 tests/bench/kafka.py --agent "${CARGO_TARGET_DIR:-target}/release/flowtap-agent" "$@"
