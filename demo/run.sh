#!/usr/bin/env bash
# make demo: Edison Cars. A RabbitMQ and a Kafka node of its own, eight ordinary services (Ruby with
# Bunny, Python with pika and confluent-kafka), a sidecar beside each, and `flowtap serve`. First many orders at once, kept until
# `make demo-clean`; then an order each second, one of them stuck. Ctrl-C stops everything.
#
#   IDS=none          services send no ids             DEMO_SECONDS=20  ends by itself
#   DEMO_ORDERS=6000  the first load                   DEMO_TICKET=0    no stuck order
#   DEMO_PORT=25701   first of 40 ports                DEMO_HTTP_PORT=8080
#   DEMO_RUN=FOLDER   instead of demo/.run             DEMO_BIN=FOLDER  of built programs
#   DEMO_PAUSE=1      seconds between two orders     DEMO_SIDECARS="shop"  the others go straight to
#                                                    the broker: see what Flowtap then does not claim
#
# A service whose name is a line of RUN/straight goes past its sidecar from its next start on.
set -euo pipefail
cd "$(dirname "$0")/.."
# An agent takes every FLOWTAP_ variable for a key of its own; those here are of other scripts.
for variable in "${!FLOWTAP_@}"; do unset "$variable"; done

orders=${DEMO_ORDERS:-6000}
port=${DEMO_PORT:-25701}
http=${DEMO_HTTP_PORT:-8080}
run=$(mkdir -p "${DEMO_RUN:-demo/.run}" && cd "${DEMO_RUN:-demo/.run}" && pwd)
bin=${DEMO_BIN:-${CARGO_TARGET_DIR:-target}/debug}
store=file://$run/store
control=http://127.0.0.1:$((port + 30))
page=http://127.0.0.1:$http
# In the order of the flow; consumers are started before who publishes to them.
services=(shop stock billing factory shipping notifications showroom delivery-desk)
# Those that use Kafka, and those that use nothing else.
on_kafka=(factory shipping showroom delivery-desk)
only_kafka=" showroom "
sidecars=${DEMO_SIDECARS-${services[*]}}
declare -A program=([shop]="ruby shop.rb" [stock]="python3 stock.py" [billing]="ruby billing.rb"
    [factory]="python3 factory.py" [shipping]="python3 shipping.py" [notifications]="python3 notifications.py"
    [showroom]="python3 showroom.py" [delivery-desk]="python3 delivery_desk.py")
has_sidecar() { [[ " $sidecars " == *" $1 "* ]]; }
goes_straight() { grep -qsx -- "$1" "$run/straight"; }
tap() { echo $((port + 10 + $1)); }
admin() { echo $((port + 20 + $1)); }
# The Kafka tap of a service, and behind it the port of the one broker; nothing if it uses no Kafka.
kafka_tap() { # NAME
    local i
    for i in "${!on_kafka[@]}"; do [ "${on_kafka[$i]}" != "$1" ] || echo $((port + 32 + 2 * i)); done
}

say() { printf '\033[1m%s\033[0m\n' "$*"; }
fail() {
    echo "demo: $1" >&2
    [ -z "${2-}" ] || tail -n 30 "$2" >&2
    exit 1
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# ---- starting and stopping ----------------------------------------------------------------------

# Children end with this script, also when it is killed; in order when it is asked to end. Services
# whose broker is gone would go on looking for it, so the kernel does not ask them.
declare -A pid=()
start() { # NAME COMMAND...
    local name=$1 signal=KILL
    shift
    case $name in broker | kafka | sidecar-* | serve) signal=TERM ;; esac
    setsid setpriv --pdeathsig $signal "$@" >>"$run/$name.log" 2>&1 </dev/null 8>&- &
    pid[$name]=$!
    echo "${pid[$name]}" >"$run/$name.pid"
}
stop() { # NAME...
    local name end=$((SECONDS + 5))
    # A broker writes what it has; one that was only starting may not hear.
    case $1 in broker | kafka) end=$((SECONDS + 20)) ;; esac
    for name in "$@"; do [ -z "${pid[$name]-}" ] || kill -TERM "${pid[$name]}" 2>/dev/null || true; done
    for name in "$@"; do
        [ -n "${pid[$name]-}" ] || continue
        # A service that hangs does not end when it is asked to.
        while [ $SECONDS -lt $end ] && kill -0 "${pid[$name]}" 2>/dev/null; do sleep 0.05; done
        kill -KILL -- "-${pid[$name]}" 2>/dev/null || true
        wait "${pid[$name]}" 2>/dev/null || true
        unset "pid[$name]"
    done
}
stop_all() {
    trap '' INT TERM HUP
    stop control import shop
    stop "${services[@]}"
    stop "${services[@]/#/sidecar-}"
    stop serve
    stop broker kafka
}
await() { # WHAT NAME CONDITION...
    local what=$1 name=$2 end=$((SECONDS + 60))
    shift 2
    until "$@" 2>/dev/null; do
        kill -0 "${pid[$name]}" 2>/dev/null || fail "$what ended at once:" "$run/$name.log"
        [ $SECONDS -lt $end ] || fail "$what does not get ready:" "$run/$name.log"
        sleep 0.1
    done
}
answers() { [ "$(curl -s -o /dev/null -w '%{http_code}' "$1")" = 200 ]; }
# It listens a little before the vhost is there: it is up when it answers AMQP.
broker_up() { /usr/bin/python3 - "$port" <<'P'
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2); s.settimeout(2)
s.sendall(b"AMQP\0\0\x09\x01"); sys.exit(s.recv(1) != b"\x01")
P
}
# A service's environment: the address of its sidecar is all that Flowtap changes in it.
service() { # NAME
    local i address=$port topics=$((port + 3))
    for i in "${!services[@]}"; do [ "${services[$i]}" != "$1" ] || break; done
    ! has_sidecar "$1" || goes_straight "$1" || address=$(tap $((i + 1))) topics=$(kafka_tap "$1")
    environment=(env "AMQP_URL=amqp://guest:guest@127.0.0.1:$address" "SERVICE=$1" "IDS=${IDS-}"
        "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:$topics" "SHOWROOM=$run/showroom.db" "SHOWROOM_PORT=$((port + 31))"
        "FAULTS=$run/faults.json" "LAST_ORDER=$run/last-order" "LISTEN_TO=$run/listen-to.json"
        "PAUSE=${DEMO_PAUSE:-1}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1)
}
start_service() { # NAME
    service "$1"
    # shellcheck disable=SC2206
    local command=(${program[$1]})
    start "$1" "${environment[@]}" "/usr/bin/${command[0]}" "demo/services/${command[1]}"
}
# What a scheduler does with a service that died: it starts it again after a while.
declare -A dead=()
restart_the_dead() {
    local name
    for name in "${services[@]}"; do
        if [ -z "${pid[$name]-}" ]; then
            [ $((SECONDS - dead[$name])) -lt 3 ] || start_service "$name"
        elif ! kill -0 "${pid[$name]}" 2>/dev/null; then
            wait "${pid[$name]}" 2>/dev/null || true
            unset "pid[$name]"
            dead[$name]=$SECONDS
        fi
    done
}

# ---- what is needed -----------------------------------------------------------------------------

if [ -z "${DEMO_BIN-}" ]; then
    say "Building (the first time takes some minutes, DataFusion is large)"
    cargo build --workspace --bins
fi
can_serve=
"$bin/flowtap" serve --help >/dev/null 2>&1 && can_serve=1
taken="$http"
for offset in {0..4} {11..18} {21..28} {30..39}; do taken+=" $((port + offset))"; done
for it in $taken; do
    ! listens "$it" || fail "port $it is taken: is another demo running? DEMO_PORT=26701 and DEMO_HTTP_PORT=8090 choose others"
done
exec 8>"$run/.lock"
flock -n 8 || fail "another demo runs in $run"
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A first load that was broken off is begun again.
[ -e "$run/loaded" ] || (cd "$run" && rm -rf -- broker kafka store spool-* ./*.log ./*.txt ./*.json ./*.db last-order)
: >"$run/tickets.txt"
rm -f "$run/straight"
echo '{"orders": "fanout", "stock": "topic", "payments": "topic", "cars": "topic", "shipping": "topic", "calls": "topic"}' >"$run/listen-to.partial"
[ -e "$run/listen-to.json" ] || mv "$run/listen-to.partial" "$run/listen-to.json"
[ -e "$run/last-order" ] || echo 1039 >"$run/last-order"
hurry=true
[ ! -e "$run/loaded" ] || hurry=false
echo "{\"hurry\": $hurry, \"faults\": {}}" >"$run/faults.json"

# ---- broker, sidecars, services -----------------------------------------------------------------

say "Starting RabbitMQ on port $port and Kafka on port $((port + 3)) (nodes of its own), eight services and their sidecars"
: >"$run/broker.log" >"$run/kafka.log"
start broker scripts/rabbitmq.sh "$run/broker" "$port"
KAFKA_HEAP="-Xms64m -Xmx256m" start kafka scripts/kafka.sh "$run/kafka" $((port + 3))
await "RabbitMQ" broker broker_up
await "Kafka" kafka grep -q "Kafka Server started" "$run/kafka.log"
for i in "${!services[@]}"; do
    name=${services[$i]}
    has_sidecar "$name" || continue
    taps=() number=0
    if [[ $only_kafka != *" $name "* ]]; then
        taps=(FLOWTAP_TAP_0_LISTEN="127.0.0.1:$(tap $((i + 1)))" FLOWTAP_TAP_0_BROKER="amqp://127.0.0.1:$port")
        number=1
    fi
    bootstrap=$(kafka_tap "$name")
    [ -z "$bootstrap" ] || taps+=("FLOWTAP_TAP_${number}_LISTEN=127.0.0.1:$bootstrap"
        "FLOWTAP_TAP_${number}_PORTS=$((bootstrap + 1))-$((bootstrap + 1))" "FLOWTAP_TAP_${number}_BROKER=127.0.0.1:$((port + 3))")
    start "sidecar-$name" env FLOWTAP_STORE="$store" FLOWTAP_SPOOL_PATH="$run/spool-$name" "${taps[@]}" \
        FLOWTAP_ADMIN_LISTEN="127.0.0.1:$(admin $((i + 1)))" \
        "$bin/flowtap-agent" --config "demo/sidecars/$name.toml"
done
for i in "${!services[@]}"; do
    has_sidecar "${services[$i]}" || continue
    await "the sidecar of ${services[$i]}" "sidecar-${services[$i]}" answers "http://127.0.0.1:$(admin $((i + 1)))/readyz"
done
consumers=(notifications showroom delivery-desk shipping factory billing stock)
for name in "${consumers[@]}"; do
    : >"$run/$name.log"
    start_service "$name"
done
for name in "${consumers[@]}"; do await "$name" "$name" grep -q ready "$run/$name.log"; done

# ---- the first load -----------------------------------------------------------------------------

if [ ! -e "$run/loaded" ]; then
    began=$EPOCHREALTIME
    service shop
    start import "${environment[@]}" /usr/bin/ruby demo/services/shop.rb import 100001 "$orders"
    # Customers are told of everything, so notifications knows how many orders came to their end.
    ended() { tail -n 1 "$run/notifications.log" | grep -oE '"(CarShipped|StockMissing)": [0-9]+' | awk '{ n += $2 } END { print n + 0 }'; }
    still=$SECONDS before=-1
    until done_=$(ended) && [ "$done_" -ge "$orders" ]; do
        printf '\rOrders of former years: %d of %d ' "$done_" "$orders"
        [ "$done_" = "$before" ] || still=$SECONDS before=$done_
        [ $((SECONDS - still)) -lt 60 ] || fail "the first load does not go on:" "$run/import.log"
        sleep 0.5 &
        wait $!
    done
    took=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    printf '\rOrders of former years: %d of %d, in %s s. They are kept until make demo-clean.\n' "$orders" "$orders" "$took"
    wait "${pid[import]}" || fail "the first load failed:" "$run/import.log"
    unset "pid[import]"
    echo "$orders orders in $took s" >"$run/loaded"
fi

# ---- ready --------------------------------------------------------------------------------------

if [ -n "$can_serve" ]; then
    start serve "$bin/flowtap" serve --store "$store" --listen "127.0.0.1:$http"
    await "flowtap serve" serve answers "$page/healthz"
fi
start control env RUN="$run" CONTROL_PORT="$((port + 30))" FLOWTAP_URL="$page" \
    BROKER_URL="amqp://guest:guest@127.0.0.1:$port" PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 demo/control.py
await "the control page" control answers "$control/state"

stuck=
if [ "${DEMO_TICKET:-1}" != 0 ]; then
    next=$(($(<"$run/last-order") + 3)) # two that go well come first
    [ $((next % 10)) != 7 ] || next=$((next + 1))
    stuck=order-$next
    DEMO_PORT=$port demo/fault.sh rejects on factory "$stuck" >/dev/null
fi
start_service shop

# RAM that belongs to these processes alone, shared pages counted by their part.
ram() {
    local group
    for group in "${pid[@]}"; do pgrep -g "$group" || true; done |
        while read -r it; do cat "/proc/$it/smaps_rollup" 2>/dev/null || true; done |
        awk '/^Pss:/ { kb += $2 } END { printf "%d MB", kb / 1024 }'
}
echo "READY control=$control flowtap=${can_serve:+$page} store=$store run=$run order=$stuck"
cat <<T

An order each second. RAM: $(ram) for brokers, services, sidecars and Flowtap. Disk: $(du -sh "$run" | cut -f1) in $run
The showroom:  http://127.0.0.1:$((port + 31))/cars/car-1040     how far a car is, made of the topic of cars
Control page:  $control     switches faults on and off, "Break something, don't tell me"
The same here: demo/fault.sh
T
[ -z "$can_serve" ] || echo "Flowtap:       $page"
echo "Ctrl-C stops everything; make demo-clean removes it."

# The ticket comes once the order is stuck and its record has arrived.
tell() {
    local flow=
    for ((i = 0; i < 25; i++)); do
        flow=$(curl -s "$page/api/v1/why?id=$stuck" | /usr/bin/python3 -c '
import json, sys, urllib.parse
flow = json.load(sys.stdin)["flow"]
if flow["summary"]["state"] == "broken": print(urllib.parse.quote(flow["summary"]["flow"], safe=""))' 2>/dev/null) && [ -n "$flow" ] && break
        # Without ids, or without a server to ask, there is no flow to wait for.
        [ -n "$can_serve" ] && [ "${IDS-}" != none ] || [ $i -lt 12 ] || break
        sleep 1 &
        wait $!
    done
    echo
    say "$(/usr/bin/python3 - "${stuck#order-}" <<'P'
import json, sys
names = json.load(open("demo/customers.json")); name, his = names[int(sys.argv[1]) % len(names)]
print(f"{name} paid for order-{sys.argv[1]}. Where is {his} car?")
P
)"
    if [ -n "$can_serve" ]; then
        local server=
        [ "$http" = 8080 ] || server=" --server $page"
        echo "  $bin/flowtap why $stuck$server"
        [ -z "$flow" ] || echo "  $page/flows/$flow"
    else
        echo "  $bin/flowtap sql --store $store \"SELECT at, service, kind, event_type, outcome FROM history WHERE field_get(keys, 'order_id') = '$stuck' ORDER BY at\""
    fi
}
ends=$((SECONDS + ${DEMO_SECONDS:-0}))
[ -z "$stuck" ] || tell
told=0
while kill -0 "${pid[broker]}" 2>/dev/null && kill -0 "${pid[kafka]}" 2>/dev/null; do
    [ "${DEMO_SECONDS:-0}" = 0 ] || [ $SECONDS -lt $ends ] || { say "Stopping (DEMO_SECONDS=$DEMO_SECONDS)"; exit 0; }
    lines=$(wc -l <"$run/tickets.txt")
    [ "$lines" = "$told" ] || { tail -n +$((told + 1)) "$run/tickets.txt"; told=$lines; }
    sleep 1 &
    wait $!
    restart_the_dead
done
kill -0 "${pid[broker]}" 2>/dev/null || fail "RabbitMQ ended:" "$run/broker.log"
fail "Kafka ended:" "$run/kafka.log"
