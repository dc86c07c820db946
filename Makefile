# What people run. `make` alone lists it. Variables: FLOWTAP_CACHE (default ~/.cache/flowtap) holds
# what scripts/setup.sh fetched; CARGO_TARGET_DIR as cargo knows it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
FLOWTAP_CACHE ?= $(HOME)/.cache/flowtap
export FLOWTAP_CACHE

# A fresh clone on CI finds what an earlier one compiled.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(FLOWTAP_CACHE)/target
endif

.PHONY: help ui demo demo-clean test test-long lint fmt bench bench-rabbitmq bench-kafka bench-query bench-storage clean

help: ## lists the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## runs Edison Cars: two brokers, eight services, their sidecars, and a stuck order to ask about
	@scripts/setup.sh build demo
	@scripts/ui.sh
	@IDS=$(IDS) demo/run.sh

demo-clean: ## removes what the demo keeps
	rm -rf demo/.run

ui: ## builds the page into ui/dist
	@scripts/setup.sh build demo
	@scripts/ui.sh --check

test: ## what CI runs: lint, then all tests but the long ones
	@scripts/setup.sh build test
	@scripts/ui.sh --check
	@$(MAKE) --no-print-directory lint
	@scripts/test.sh

test-long: ## all tests, also those that take long or much memory; checks licences
	@scripts/setup.sh build test lint
	@scripts/ui.sh --check
	@$(MAKE) --no-print-directory lint
	@FLOWTAP_LONG=1 FLOWTAP_TEST_LIMIT=7200 scripts/test.sh --include-ignored

lint: ## formatting, clippy, and cargo-deny where it is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	@PATH="$(FLOWTAP_CACHE)/bin:$$PATH"; if command -v cargo-deny >/dev/null; then \
	    echo "cargo deny check"; cargo deny --log-level error check licenses bans sources; \
	else echo "cargo-deny is not installed: licences are not checked (make test-long installs it)"; fi

fmt: ## formats the code
	cargo fmt --all

bench: ## all four below, RabbitMQ first
	@$(MAKE) --no-print-directory bench-rabbitmq
	@$(MAKE) --no-print-directory bench-kafka
	@$(MAKE) --no-print-directory bench-query
	@$(MAKE) --no-print-directory bench-storage

bench-rabbitmq: ## PerfTest with and without a sidecar: throughput, latency, CPU, memory
	@scripts/setup.sh build test bench
	@tests/bench/run.sh

bench-kafka: ## Kafka's performance tools with and without a sidecar
	@scripts/setup.sh build bench
	@tests/bench/kafka.sh

bench-query: ## how long `flowtap why` and `flowtap flows` take over a million rows
	@scripts/setup.sh build
	@tests/bench/query.sh

bench-storage: ## ten million rows over seven days on an S3 server: requests, bytes a row, beside DuckDB
	@scripts/setup.sh build test
	@tests/bench/storage.sh

clean: ## removes what was built here and what the demo left (not the cache)
	cargo clean --quiet
	rm -rf demo/.run ui/dist ui/node_modules
