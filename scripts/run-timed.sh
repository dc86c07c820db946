#!/bin/sh
# Cargo's runner for tests: lets the test harness print how long each test took. That option of the
# standard harness is behind a switch of the compiler, which would rebuild everything if it were
# set for cargo; here only the built test sees it.
# One that hangs is ended, so that the others are still run and its output names what hung.
case $1 in
*/deps/*)
    limit=${FLOWTAP_TEST_LIMIT:-1500}
    status=0
    RUSTC_BOOTSTRAP=1 timeout --foreground --kill-after=10 "$limit" \
        "$@" -Zunstable-options --report-time || status=$?
    [ "$status" != 124 ] || echo "test result: FAILED. 0 passed; 1 failed; 0 ignored; ended after $limit s: ${1##*/}"
    exit "$status"
    ;;
*) exec "$@" ;;
esac
