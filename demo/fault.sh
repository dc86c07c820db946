#!/usr/bin/env bash
# Breaks and repairs Edison Cars while it runs (make demo).
#
#   demo/fault.sh                                list of faults, and what is on
#   demo/fault.sh NAME on [SERVICE] [ORDERS]     ORDERS: order-7,order-9, or next; without: all
#   demo/fault.sh NAME off
#   demo/fault.sh off                            repairs everything
#   demo/fault.sh break                          breaks something and doesn't tell; tickets follow
#   demo/fault.sh reveal
#
# DEMO_PORT: the demo's first port (25701). Answers are JSON.
set -euo pipefail
control=http://127.0.0.1:$((${DEMO_PORT:-25701} + 30))
ask() { curl -sS --fail-with-body -H 'Accept: application/json' "$@"; }
case "${1-}/${2-}" in
/)
    echo "rejects hangs dies forgets no-queue late-queue slow poison aborts"
    ask "$control/state"
    ;;
off/ | break/ | reveal/) ask -X POST "$control/$1" ;;
*/on)
    service=${3-} orders=${4-}
    case $service in order-* | next) orders=$service service= ;; esac
    ask -X POST "$control/faults/$1/on?service=$service&orders=$orders"
    ;;
*/off) ask -X POST "$control/faults/$1/off" ;;
*)
    sed -n '4,9s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
