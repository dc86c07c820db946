#!/usr/bin/env bash
# Runs a RabbitMQ node of its own in the foreground: own name, ports, cookie, epmd and folders.
# Somebody's running broker is never touched. It ends with this process (or by SIGTERM to it).
#
#   scripts/rabbitmq.sh FOLDER PORT [3.10|4.0]      ports PORT to PORT+2 are used
#
# 3.10 is the system's package; 4.0 lies in the Debian 13 tree of scripts/setup.sh (needs root).
# FOLDER/rabbitmq.conf is made if there is none.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
port=$2
version=${3:-3.10}
tree=${FLOWTAP_CACHE:-$HOME/.cache/flowtap}/rabbitmq-4.0

[ -e "$folder/rabbitmq.conf" ] || printf '%s\n' "listeners.tcp.1 = 127.0.0.1:$port" \
    "log.console = true" "log.console.level = warning" "log.file = false" >"$folder/rabbitmq.conf"
[ -e "$folder/enabled_plugins" ] || echo '[].' >"$folder/enabled_plugins"
[ -e "$folder/.erlang.cookie" ] || (umask 377 && echo "flowtap$port" >"$folder/.erlang.cookie")
: >"$folder/rabbitmq-env.conf"

case $version in
    3.*) inside=$folder ;;
    4.*) inside=/mnt ;;
    *) echo "rabbitmq.sh: version $version: want 3.10 or 4.0" >&2; exit 2 ;;
esac
env=(PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$inside" LC_ALL=C.UTF-8
    ERL_EPMD_PORT=$((port + 1)) ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP="$inside/erl_crash.dump"
    RABBITMQ_NODENAME="flowtap$port@localhost" RABBITMQ_DIST_PORT=$((port + 2))
    RABBITMQ_MNESIA_BASE="$inside/data" RABBITMQ_LOG_BASE="$inside/log" RABBITMQ_LOGS=-
    RABBITMQ_PID_FILE="$inside/pid" RABBITMQ_CONFIG_FILE="$inside/rabbitmq.conf"
    RABBITMQ_CONF_ENV_FILE="$inside/rabbitmq-env.conf"
    RABBITMQ_ENABLED_PLUGINS_FILE="$inside/enabled_plugins"
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}")
# An epmd of its own, ended with the broker: a daemon would stay behind.
# shellcheck disable=SC2016
server='epmd -port "$ERL_EPMD_PORT" & epmd=$!
    trap "kill \$broker 2>/dev/null" TERM INT
    /usr/lib/rabbitmq/bin/rabbitmq-server & broker=$!
    while kill -0 $broker 2>/dev/null; do wait $broker || true; done
    kill $epmd'
case $version in
    3.*) exec env -i "${env[@]}" sh -c "$server" ;;
    4.*)
        # Its own mounts: the folder at /mnt and /proc, never the host's /dev.
        # shellcheck disable=SC2016
        exec unshare --mount sh -c 'mount -t proc proc "$0/proc" && mount --bind "$1" "$0/mnt" &&
            shift && exec chroot "$0" env -i "$@"' "$tree" "$folder" "${env[@]}" sh -c "$server"
        ;;
esac
