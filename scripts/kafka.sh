#!/usr/bin/env bash
# Runs a Kafka node of its own in the foreground: own ports and folder, broker and controller in one.
# It ends with this process (or by SIGTERM to it).
#
#   scripts/kafka.sh FOLDER PORT [4|3.9]      ports PORT and PORT+1 are used
#
# The jars are those of scripts/setup.sh. FOLDER/server.properties is made if there is none; where
# FOLDER/data is there, the node goes on with what it holds.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
port=$2
version=${3:-4}
jars=$(readlink -e "${FLOWTAP_CACHE:-$HOME/.cache/flowtap}/kafka-$version") ||
    { echo "kafka.sh: Kafka $version is not there: run scripts/setup.sh test (or demo)" >&2; exit 2; }

[ -e "$folder/server.properties" ] || printf '%s\n' "process.roles=broker,controller" "node.id=1" \
    "controller.quorum.voters=1@127.0.0.1:$((port + 1))" \
    "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))" \
    "advertised.listeners=PLAINTEXT://127.0.0.1:$port" \
    "inter.broker.listener.name=PLAINTEXT" "controller.listener.names=CONTROLLER" \
    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT" \
    "log.dirs=$folder/data" "offsets.topic.replication.factor=1" "offsets.topic.num.partitions=4" \
    "transaction.state.log.replication.factor=1" "transaction.state.log.min.isr=1" \
    "transaction.state.log.num.partitions=4" "share.coordinator.state.topic.replication.factor=1" \
    "share.coordinator.state.topic.min.isr=1" "share.coordinator.state.topic.num.partitions=4" \
    "group.initial.rebalance.delay.ms=0" "log.cleaner.dedupe.buffer.size=2097152" \
    >"$folder/server.properties"
if [ ! -e "$folder/data" ]; then
    # What "kafka-storage format" would make, in no time: the features were written once by setup.sh.
    cp -r "$jars/formatted" "$folder/data.partial"
    cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' 'Aa' | cut -c1-22)
    directory=$(head -c 16 /dev/urandom | base64 | tr '+/' 'Aa' | cut -c1-22)
    printf '%s\n' "version=1" "cluster.id=$cluster" "node.id=1" "directory.id=$directory" \
        >"$folder/data.partial/meta.properties"
    mv "$folder/data.partial" "$folder/data"
fi
# shellcheck disable=SC2086
exec java ${KAFKA_HEAP:--Xms128m -Xmx512m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -XX:SharedArchiveFile="$jars/broker.jsa" -Xlog:disable -Xlog:all=error:stderr \
    -Dlog4j2.configurationFile="$here/tests/kafka/log4j2.properties" \
    -Dlog4j.configuration="file:$here/tests/kafka/log4j.properties" \
    -cp "$jars/libs/*" kafka.Kafka "$folder/server.properties"
