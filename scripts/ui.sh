#!/usr/bin/env bash
# Builds the page into ui/dist, from where `flowtap` embeds it. Does nothing when nothing changed.
# With --check it also checks types and style and runs the page's unit tests.
set -euo pipefail
cd "$(dirname "$0")/.."

# Where Debian's Node is too old, scripts/setup.sh has put a newer one into the cache.
newer=${FLOWTAP_CACHE:-$HOME/.cache/flowtap}/nodejs/bin
[ ! -x "$newer/node" ] || PATH=$newer:$PATH

digest() { sha256sum "$@" | sha256sum | cut -c1-16; }

packages=$(digest ui/package.json ui/package-lock.json)
if [ "$(cat ui/node_modules/.flowtap 2>/dev/null)" != "$packages" ]; then
    echo "ui: fetching the page's packages, by lockfile" >&2
    (cd ui && npm ci --loglevel=error --no-audit --no-fund >&2)
    echo "$packages" >ui/node_modules/.flowtap
fi

mapfile -t sources < <(find ui/src ui/public ui/*.html ui/*.json ui/*.ts -type f | LC_ALL=C sort)
state=$(digest "${sources[@]}")
if [ "$(cat ui/dist/.flowtap 2>/dev/null)" != "$state" ]; then
    echo "ui: building the page" >&2
    (cd ui && npm run --silent build >&2)
    echo "$state" >ui/dist/.flowtap
fi

if [ "${1-}" = --check ] && [ "$(cat ui/node_modules/.flowtap-checked 2>/dev/null)" != "$state" ]; then
    echo "ui: checking types, style and unit tests" >&2
    (cd ui && npm run --silent check >&2)
    echo "$state" >ui/node_modules/.flowtap-checked
fi
