#!/usr/bin/env bash
# make bench-kafka: builds the release agent and runs Kafka's performance tools with and without it.
# Arguments go to tests/bench/kafka.py (--help).
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --release -p flowtap-agent --bin flowtap-agent
exec /usr/bin/python3 tests/bench/kafka.py --agent "${CARGO_TARGET_DIR:-target}/release/flowtap-agent" "$@"
