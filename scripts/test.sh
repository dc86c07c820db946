#!/usr/bin/env bash
# Runs all tests of the workspace, lists the slowest, and closes with one line that counts them.
# Arguments go to the test executables (--include-ignored, a filter).
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp "${TMPDIR:-/tmp}/flowtap-test.XXXXXX")
trap 'rm -f "$log"' EXIT

# The tests run the programs that lie beside them.
cargo build --workspace --bins
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=$PWD/scripts/run-timed.sh"
status=0
cargo test --workspace --no-fail-fast -- "$@" 2>&1 | tee "$log" || status=$?
if [ "${FLOWTAP_LONG:-}" = 1 ]; then
    # A workspace of its own, with a folder of its own: it takes other features.
    cargo check --manifest-path agent/fuzz/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" || status=$?
    # Stores that are not built in by default: other features again.
    clouds=(--features azure,gcs --target-dir "${CARGO_TARGET_DIR:-target}/clouds")
    cargo test --quiet -p flowtap-place "${clouds[@]}" || status=$?
    cargo check --quiet -p flowtap-agent "${clouds[@]}" || status=$?
fi

echo
echo "slowest tests:"
sed -nE 's/^test (.*) \.\.\. (ok|FAILED) <([0-9.]+)s>$/\3 \1/p' "$log" | sort -rn |
    awk 'NR <= 15 { printf "  %7.1f s  %s\n", $1, $2 }'
if grep -q 'SKIPPED, NOT TESTED' "$log"; then
    echo
    echo "NOT TESTED on this machine:"
    grep 'SKIPPED, NOT TESTED' "$log" | sort | uniq -c
fi
echo
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
    END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$status"
