#!/usr/bin/env bash
# Installs what a make target needs and is not there yet. It says beforehand what it will install
# and why, and does nothing when all is there. Groups: build, demo, test, bench, lint.
#
#   scripts/setup.sh [--dry-run] GROUP...
#
# What is not a Debian package goes to a cache outside of the clone (FLOWTAP_CACHE), so that a
# fresh clone finds it again. docs/testing.md lists everything with the reasons.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

CACHE=${FLOWTAP_CACHE:-$HOME/.cache/flowtap}
RUST_AT_LEAST=1.95.0
GO_AT_LEAST=1.25.0
NODE_AT_LEAST=20.19.0
NODE_VERSION=22.23.3
S3_MODULE=github.com/versity/versitygw/cmd/versitygw@v1.8.0
CARGO_DENY_VERSION=0.20.2
dry_run=
groups=()
for arg in "$@"; do
    case $arg in
        --dry-run) dry_run=1 ;;
        build | demo | test | bench | lint) groups+=("$arg") ;;
        *) echo "setup: unknown argument '$arg'; usage: scripts/setup.sh [--dry-run] build|demo|test|bench|lint" >&2; exit 2 ;;
    esac
done
[ ${#groups[@]} -gt 0 ] || groups=(build)

die() { echo "setup: $*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
wants() { case " ${groups[*]} " in *" $1 "*) ;; *) return 1 ;; esac }
# The first of two versions is at least the second.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
digest() { cat "$@" | sha256sum | cut -c1-12; }

# ---- what is wanted: Debian packages as "package|proof that it is there|why" -------------------

wanted=("gcc|cmd:cc|compiles the C in zstd and ring" "libc6-dev|file:/usr/include/stdlib.h|C headers"
    "make|cmd:make|runs the Makefile")
if wants demo || wants test; then
    wanted+=(
        "rabbitmq-server|file:/usr/lib/rabbitmq/bin/rabbitmq-server|a broker of our own (RabbitMQ 3.10); the system's is not started"
        "ruby-bunny|file:/usr/share/doc/ruby-bunny|Ruby services with the client Bunny"
        "python3-pika|file:/usr/lib/python3/dist-packages/pika/__init__.py|a Python service with the client pika"
        "python3-confluent-kafka|file:/usr/lib/python3/dist-packages/confluent_kafka/__init__.py|Python services with the client confluent-kafka"
        "default-jdk-headless|cmd:javac|Kafka and services with its Java client"
        "maven|cmd:mvn|fetches the jars"
        "curl|cmd:curl|asks a sidecar whether it is ready, and an S3 server for a policy"
        "procps|cmd:pgrep|finds what RAM the demo takes"
    )
fi
if wants demo || wants test; then
    wanted+=("nodejs|cmd:node|builds the page" "npm|cmd:npm|fetches the page's packages from the lockfile")
fi
if wants test; then
    wanted+=(
        "chromium|cmd:chromium|a real browser for the page"
        "g++|cmd:c++|what librdkafka's configure wants to find"
        "debootstrap|cmd:debootstrap|unpacks Debian 13 into a folder, for RabbitMQ 4.0"
        "python3-venv|file:/usr/share/doc/python3-venv|virtual environments for Python's clients"
        "e2fsprogs|cmd:mkfs.ext4|a small disk that the tests can stall"
        "util-linux|cmd:unshare|namespaces for the brokers, fsfreeze, taskset"
    )
fi
if wants bench; then
    wanted+=(
        "haproxy|cmd:haproxy|a hop that only passes bytes, to compare with; the system's is not started"
        "valgrind|cmd:valgrind|counts the sidecar's instructions"
    )
fi

missing=()
plan=()
for entry in "${wanted[@]}"; do
    IFS='|' read -r package proof why <<<"$entry"
    case $proof in
        cmd:*) has "${proof#cmd:}" || [ -x "/usr/sbin/${proof#cmd:}" ] && continue ;;
        file:*) [ -e "${proof#file:}" ] && continue ;;
    esac
    missing+=("$package")
    plan+=("Debian package $package: $why")
done

# ---- what is wanted besides: things built or fetched into the cache ----------------------------

venv=$CACHE/venv-$(digest tests/clients/python/requirements.txt)
venvold=$CACHE/venv-old-$(digest tests/clients/python/requirements-old.txt)
venvlake=$CACHE/venv-lake-$(digest tests/clients/python/requirements-lake.txt)
node=$CACHE/node-$(digest tests/clients/node/package-lock.json)
jars=$CACHE/jars-$(digest tests/clients/java/pom.xml)
kafka4=$CACHE/kafka-4-$(digest tests/kafka/4/pom.xml)
kafka39=$CACHE/kafka-3.9-$(digest tests/kafka/3.9/pom.xml)
kafka4cds=$kafka4/broker.jsa
kafka39cds=$kafka39/broker.jsa
kafkajava=$CACHE/kafka-service-$(digest tests/kafka/4/pom.xml tests/clients/java/KafkaService.java)
kafkajavacds=$kafkajava/service.jsa
kafkago=$CACHE/bin/kafka-go-$(digest tests/clients/go/*)
kafkarust=$CACHE/bin/kafka-rust-$(digest tests/clients/rust/Cargo.* tests/clients/rust/src/*)
tree=$CACHE/rabbitmq-4.0
s3=$CACHE/bin/versitygw-${S3_MODULE##*@}
deny=$CACHE/bin/cargo-deny
nodejs=$CACHE/nodejs
todo=()
cached() { # PATH STEP WHY
    [ -e "$1" ] && return
    todo+=("$2")
    plan+=("$3")
}
# Points a name without a digest at what this clone asks for; that is where the tests look.
current() { [ "$(readlink "$2" 2>/dev/null)" = "$1" ] || ln -sfn "$1" "$2"; }

if wants demo || wants test; then
    # A Debian package that is still to come is older than what is wanted, too.
    if ! has node || ! at_least "$(node --version | tr -d v)" "$NODE_AT_LEAST"; then
        cached "$nodejs" nodejs "Node $NODE_VERSION $nodejs: Debian's is too old to build the page"
    fi
fi
if wants demo || wants test || wants bench; then
    cached "$kafka4" kafka4 "Kafka 4 $kafka4: broker, Java client and tools (44 MB of jars)"
    cached "$kafka4cds" kafka4cds "class archive of Kafka 4 $kafka4cds: a node starts in fewer seconds"
fi
if wants test; then
    cached "$kafka39" kafka39 "Kafka 3.9 $kafka39 (47 MB of jars)"
    cached "$kafka39cds" kafka39cds "class archive of Kafka 3.9 $kafka39cds"
    cached "$kafkajava" kafkajava "Java service $kafkajava with Kafka's own client, compiled"
    cached "$kafkajavacds" kafkajavacds "class archive of that service"
    cached "$kafkago" kafkago "Go service $kafkago: franz-go, by go.sum"
    cached "$kafkarust" kafkarust "Rust service $kafkarust: rdkafka and the librdkafka in it, by Cargo.lock (2 to 3 minutes)"
    cached "$venv" venv "Python venv $venv: pika, Celery, confluent-kafka and aiokafka, pinned"
    cached "$venvold" venvold "Python venv $venvold: an old confluent-kafka"
    cached "$venvlake" venvlake "Python venv $venvlake: deltalake, Polars and DuckDB, which read the history's table"
    cached "$node" node "Node modules $node: amqplib and kafkajs, by lockfile"
    cached "$jars" jars "Java jars $jars: RabbitMQ's Java client and PerfTest"
    cached "$s3" s3 "S3 server $s3: built from the Go module ${S3_MODULE%/cmd*} (3 to 4 minutes)"
    if [ "$(id -u)" = 0 ]; then
        cached "$tree" tree "Debian 13 tree $tree: RabbitMQ 4.0 (1 to 3 minutes, 370 MB)"
    elif [ ! -e "$tree" ]; then
        echo "setup: RabbitMQ 4.0 needs root (debootstrap, chroot): its tests will be skipped" >&2
    fi
fi
if wants lint && ! has cargo-deny; then
    cached "$deny" deny "cargo-deny $deny: checks licences and doubled crates (about 5 minutes)"
fi

# ---- toolchains: checked, never installed ------------------------------------------------------

has cargo || die "Rust is missing: install rustc and cargo $RUST_AT_LEAST or newer (https://www.rust-lang.org/tools/install), then run this again"
rust=$(rustc --version | cut -d' ' -f2)
at_least "$rust" "$RUST_AT_LEAST" || die "Rust $rust is too old: $RUST_AT_LEAST or newer is wanted (rustup update)"
if [[ " ${todo[*]-} " =~ " "(s3|kafkago)" " ]]; then
    has go || die "Go is missing: the S3 server and a client of the tests are built with it. Install Go $GO_AT_LEAST or newer (https://go.dev/doc/install), then run this again"
    go_version=$(go env GOVERSION | sed 's/^go//')
    at_least "$go_version" "$GO_AT_LEAST" || die "Go $go_version is too old: $GO_AT_LEAST or newer is wanted for the S3 server and a client of the tests"
fi

if [ ${#plan[@]} -gt 0 ]; then
    echo "setup: to be installed for ${groups[*]}:"
    printf '  - %s\n' "${plan[@]}"
    [ -z "$dry_run" ] || exit 0
fi

# ---- installing --------------------------------------------------------------------------------

# Debian starts a service when it installs it. A broker that nobody asked for must not run, so
# service starts are refused while we install; one that is running already is not touched.
install_packages() {
    local sudo=() policy=/usr/sbin/policy-rc.d ours=
    if [ "$(id -u)" != 0 ]; then
        has sudo || die "not root and no sudo: run as root: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    if [[ " ${missing[*]} " =~ " "(rabbitmq-server|haproxy)" " && ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
        "${sudo[@]}" chmod 755 $policy
        ours=1
        # shellcheck disable=SC2064
        trap "${sudo[*]} rm -f $policy" EXIT
    fi
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1
    if [ -n "$ours" ]; then
        "${sudo[@]}" rm -f $policy
        trap - EXIT
    fi
    if [[ " ${missing[*]} " == *" rabbitmq-server "* ]]; then
        # Where somebody else's policy let it start after all, it is the one that we just installed.
        "${sudo[@]}" service rabbitmq-server stop >/dev/null 2>&1 || true
        # Nor at the next boot.
        [ ! -d /run/systemd/system ] || "${sudo[@]}" systemctl disable --quiet rabbitmq-server || true
    fi
}

step() { echo "setup: $1 ..." >&2; }

make_python() { # FOLDER REQUIREMENTS
    step "Python venv"
    /usr/bin/python3 -m venv "$1.partial"
    "$1.partial/bin/pip" install -q --disable-pip-version-check -r "tests/clients/python/$2" >"$log" 2>&1
    # Scripts in bin/ name the folder that they were made in: run everything by "python -m".
    mv "$1.partial" "$1"
}

make_venv() { make_python "$venv" requirements.txt; }
make_venvlake() { make_python "$venvlake" requirements-lake.txt; }
make_venvold() { make_python "$venvold" requirements-old.txt; }

make_node() {
    step "Node modules"
    mkdir -p "$node.partial"
    cp tests/clients/node/package.json tests/clients/node/package-lock.json "$node.partial/"
    (cd "$node.partial" && npm ci --silent --no-audit --no-fund --ignore-scripts >"$log" 2>&1)
    mv "$node.partial" "$node"
}

make_nodejs() {
    step "Node $NODE_VERSION"
    local machine
    case $(uname -m) in
        x86_64) machine=x64 ;;
        aarch64) machine=arm64 ;;
        *) die "Node $NODE_AT_LEAST or newer is wanted to build the page; install it (https://nodejs.org)" ;;
    esac
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$nodejs.partial" \
        "node-linux-$machine@$NODE_VERSION" >"$log" 2>&1
    mv "$nodejs.partial/node_modules/node-linux-$machine/bin" "$nodejs.partial/bin"
    mv "$nodejs.partial" "$nodejs"
}

make_jars() {
    step "Java jars"
    mkdir -p "$jars.partial"
    mvn -q -B -f tests/clients/java/pom.xml dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$jars.partial" >"$log" 2>&1
    mv "$jars.partial" "$jars"
}

make_kafka() { # FOLDER POM
    step "Kafka ${2%/pom.xml}"
    local to=$1.partial ready=$PWD/tests/kafka
    mvn -q -B -f "tests/kafka/$2" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$to/libs" >"$log" 2>&1
    # Formatted once: each new node gets a copy and an identity of its own. The user is the tests'.
    printf '%s\n' "process.roles=broker,controller" "node.id=1" "controller.quorum.voters=1@127.0.0.1:1" \
        "listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1" "controller.listener.names=CONTROLLER" \
        "advertised.listeners=PLAINTEXT://127.0.0.1:2" "log.dirs=$to/formatted" >"$to/format.properties"
    java -Dlog4j2.configurationFile="$ready/log4j2.properties" -Dlog4j.configuration="file:$ready/log4j.properties" \
        -cp "$to/libs/*" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAA \
        -c "$to/format.properties" -S "SCRAM-SHA-256=[name=alice,password=planted-password-of-alice]" >"$log" 2>&1
    rm "$to/format.properties" "$to/formatted/meta.properties"
    chmod -R u+w "$to/formatted"
    mv "$to" "$1"
}

make_kafka4() { make_kafka "$kafka4" 4/pom.xml; }
make_kafka39() { make_kafka "$kafka39" 3.9/pom.xml; }

# A Kafka node was started in the background; it ends with this script, whatever ends that, and does
# not hold the lock.
await_node() {
    node=$!
    trap 'kill -TERM "$node" 2>/dev/null' EXIT
    for _ in $(seq 600); do
        ! grep -q "Kafka Server started" "$log" || break
        kill -0 "$node" 2>/dev/null || break
        sleep 0.1
    done
}

end_node() {
    trap - EXIT
    kill -TERM "$node"
    wait "$node" || [ $? = 143 ]
}

# The archive names the jars' folder, so it is made where they stay.
make_archive() { # FOLDER
    step "class archive of $(basename "$1")"
    local at
    at=$(mktemp -d "${TMPDIR:-/tmp}/flowtap-kafka.XXXXXX")
    printf '%s\n' "process.roles=broker,controller" "node.id=1" "controller.quorum.voters=1@127.0.0.1:25393" \
        "listeners=PLAINTEXT://127.0.0.1:25392,CONTROLLER://127.0.0.1:25393" \
        "advertised.listeners=PLAINTEXT://127.0.0.1:25392" "controller.listener.names=CONTROLLER" \
        "offsets.topic.replication.factor=1" "log.dirs=$at/data" >"$at/server.properties"
    cp -r "$1/formatted" "$at/data"
    printf '%s\n' "version=1" "cluster.id=AAAAAAAAAAAAAAAAAAAAAA" "node.id=1" \
        "directory.id=BBBBBBBBBBBBBBBBBBBBBA" >"$at/data/meta.properties"
    java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
        -XX:ArchiveClassesAtExit="$1/broker.jsa.partial" -Xlog:disable \
        -Dlog4j2.configurationFile="$PWD/tests/kafka/log4j2.properties" \
        -Dlog4j.configuration="file:$PWD/tests/kafka/log4j.properties" \
        -cp "$1/libs/*" kafka.Kafka "$at/server.properties" >"$log" 2>&1 9>&- &
    await_node
    end_node
    rm -rf --one-file-system "$at"
    mv "$1/broker.jsa.partial" "$1/broker.jsa"
}

make_kafka4cds() { make_archive "$kafka4"; }
make_kafka39cds() { make_archive "$kafka39"; }

make_kafkajava() {
    step "Java service for Kafka"
    javac -encoding UTF-8 -cp "$kafka4/libs/*" -d "$kafkajava.partial/classes" \
        tests/clients/java/KafkaService.java >"$log" 2>&1
    jar cf "$kafkajava.partial/service.jar" -C "$kafkajava.partial/classes" .
    rm -r "$kafkajava.partial/classes"
    mv "$kafkajava.partial" "$kafkajava"
}

# From a run that consumes and produces in transactions: that takes most of the client.
make_kafkajavacds() {
    step "class archive of the Java service"
    local at role service=(-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1)
    at=$(mktemp -d "${TMPDIR:-/tmp}/flowtap-kafka.XXXXXX")
    current "$kafka4" "$CACHE/kafka-4"
    FLOWTAP_CACHE=$CACHE scripts/kafka.sh "$at" 25392 4 >"$log" 2>&1 9>&- &
    await_node
    role='"bootstrap":"127.0.0.1:25392","config":{"max.block.ms":30000}'
    java "${service[@]}" -cp "$kafkajava/service.jar:$kafka4/libs/*" KafkaService \
        "{\"role\":\"produce\",\"topic\":\"in\",\"count\":20,\"compression\":\"lz4\",$role}" >>"$log" 2>&1
    java "${service[@]}" -XX:ArchiveClassesAtExit="$kafkajavacds.partial" -Xlog:disable \
        -cp "$kafkajava/service.jar:$kafka4/libs/*" KafkaService \
        "{\"role\":\"consume\",\"topics\":[\"in\"],\"group\":\"g\",\"commit\":\"never\",\"records\":20,$role,
          \"to\":{\"topic\":\"in\",\"transaction\":\"t\",\"compression\":\"zstd\"}}" >>"$log" 2>&1
    end_node
    rm -rf --one-file-system "$at"
    mv "$kafkajavacds.partial" "$kafkajavacds"
}

make_kafkago() {
    step "Go service for Kafka"
    (cd tests/clients/go && GOFLAGS="-buildvcs=false -mod=readonly ${GOFLAGS:-}" CGO_ENABLED=0 \
        go build -ldflags='-s -w' -o "$kafkago.partial" . >"$log" 2>&1)
    mv "$kafkago.partial" "$kafkago"
}

make_kafkarust() {
    step "Rust service for Kafka"
    CARGO_TARGET_DIR="$CACHE/kafka-rust-build" cargo build -q --release --locked \
        --manifest-path tests/clients/rust/Cargo.toml >"$log" 2>&1
    mv "$CACHE/kafka-rust-build/release/kafka-rust" "$kafkarust"
    rm -rf "$CACHE/kafka-rust-build"
}

make_s3() {
    step "S3 server"
    GOBIN="$s3.partial" GOFLAGS="-buildvcs=false ${GOFLAGS:-}" CGO_ENABLED=0 \
        go install -ldflags='-s -w' "$S3_MODULE" >"$log" 2>&1
    mv "$s3.partial/versitygw" "$s3"
    rmdir "$s3.partial"
}

make_tree() {
    step "Debian 13 tree with RabbitMQ 4.0"
    local mirror
    # The same mirror that this system uses for itself.
    mirror=$(apt-cache policy | sed -nE 's,.*[0-9]+ (https?://[^ ]*/debian/?) .*/main .*,\1,p' | awk 'NR == 1')
    [ -n "$mirror" ] || die "apt-cache policy names no Debian mirror: RabbitMQ 4.0 can't be had"
    rm -rf --one-file-system "$tree.partial"
    debootstrap --variant=minbase --include=rabbitmq-server trixie "$tree.partial" "$mirror" >"$log" 2>&1
    # The package archives are not needed again.
    rm -f "$tree.partial"/var/cache/apt/archives/*.deb
    mv "$tree.partial" "$tree"
}

make_deny() {
    step "cargo-deny"
    CARGO_TARGET_DIR="$CACHE/cargo-deny-build" cargo install -q --locked --root "$CACHE" \
        "cargo-deny@$CARGO_DENY_VERSION" >"$log" 2>&1
    rm -rf "$CACHE/cargo-deny-build"
}

if [ ${#plan[@]} -gt 0 ]; then
    mkdir -p "$CACHE/bin"
    exec 9>"$CACHE/.lock"
    flock -n 9 || { echo "setup: another set-up is at work; waiting for it" >&2; flock 9; }
    log=$(mktemp "${TMPDIR:-/tmp}/flowtap-setup.XXXXXX")
    trap 'tail -n 20 "$log" >&2; echo "setup: failed; the whole output: $log" >&2' ERR
    if [ ${#missing[@]} -gt 0 ]; then
        if ! grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release 2>/dev/null || ! has apt-get; then
            die "this is not Debian or Ubuntu: install what these packages hold, then run this again: ${missing[*]}"
        fi
        step "Debian packages ${missing[*]}"
        install_packages
    fi
    for what in "${todo[@]}"; do
        target=${!what}
        [ -e "$target" ] && continue # another run made it while we waited for the lock
        rm -rf --one-file-system "$target.partial"
        started=$SECONDS
        "make_$what"
        echo "setup: $what done in $((SECONDS - started)) s" >&2
    done
    rm -f "$log"
fi
if wants demo || wants test || wants bench; then
    current "$kafka4" "$CACHE/kafka-4"
fi
if wants test; then
    mkdir -p "$CACHE/bin"
    current "$kafka39" "$CACHE/kafka-3.9"
    current "$kafkajava" "$CACHE/kafka-java"
    current "$kafkago" "$CACHE/bin/kafka-go"
    current "$kafkarust" "$CACHE/bin/kafka-rust"
    current "$venv" "$CACHE/venv"
    current "$venvlake" "$CACHE/venv-lake"
    current "$venvold" "$CACHE/venv-old"
    current "$node" "$CACHE/node"
    current "$jars" "$CACHE/jars"
    current "$s3" "$CACHE/bin/versitygw"
fi
