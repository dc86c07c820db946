#!/bin/sh
# Cargo's runner for tests: lets the test harness print how long each test took. That option of the
# standard harness is behind a switch of the compiler, which would rebuild everything if it were
# set for cargo; here only the built test sees it.
case $1 in
*/deps/*) RUSTC_BOOTSTRAP=1 exec "$@" -Zunstable-options --report-time ;;
*) exec "$@" ;;
esac
