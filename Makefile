# `make run` starts the server, `make test` checks all that CI checks.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help run test hostile faults check simulate fuzz history upgrade image sbom web screenshots tools
.DEFAULT_GOAL := help

help:
	@echo 'make run    build the release binary and start the server; options: make run ARGS="--grpc-port 9000"'
	@echo 'make test   format, lints, documentation and all tests; installs PostgreSQL, PgBouncer, NATS and chromium if root and missing'
	@echo 'make hostile how much a well-behaved client feels of one that means harm'
	@echo 'make faults the fault tests at length: 50 kills, 20 database restarts, 50 cuts of each kind'
	@echo 'make check  100 runs against an adversary, proof that it can find what is wrong, and a soak; CHECK_RUNS=N, CHECK_SOAK=TIME, CHECK_NODES=N: of a cluster'
	@echo 'make simulate  the core under 1,000 seeds of crashes, lost answers and odd timing; SIMULATE="--for 10m"'
	@echo 'make fuzz   a million random inputs for each parser of what comes from outside; FUZZ_RUNS=N: so many'
	@echo 'make history times pages of a ten-million-row table'
	@echo 'make upgrade replaces the server of the previous commit by this one under load; UPGRADE_REV=REVISION'
	@echo 'make image  takes the steps of the Dockerfile by hand, release build included'
	@echo 'make sbom   lists the crates in the server, as CycloneDX, in $(TARGET)/chatd.cdx.json; installs cargo-cyclonedx there'
	@echo 'make web    builds the chat page anew from web/src, which needs Node'
	@echo 'make screenshots  makes the pictures of the README anew'
	@echo 'make help   this text'

# exec, so that the signals that stop `make run` reach the server itself.
run:
	cargo build --release --bin chatd
	exec $(TARGET)/release/chatd serve $(ARGS)

test: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	cargo test --workspace
	$(MAKE) hostile

# By itself, since it takes times.
hostile:
	ulimit -n $$(ulimit -Hn) && cargo test --workspace --test promises hardly_felt -- --ignored --nocapture

# The short form of these is in `make test`.
faults: tools
	FAULT_KILLS=$${FAULT_KILLS:-50} FAULT_RESTARTS=$${FAULT_RESTARTS:-20} FAULT_STALLS=$${FAULT_STALLS:-10} \
	FAULT_CUTS=$${FAULT_CUTS:-50} FAULT_PAIRS=$${FAULT_PAIRS:-10} \
	cargo test --test promises faults -- --nocapture

# The short form of this is in `make test`.
CHECK_NODES ?= 1
check: tools
	cargo run --release -p loadtest -- check --nodes $(CHECK_NODES) --prove
	cargo run --release -p loadtest -- check --nodes $(CHECK_NODES) --runs $${CHECK_RUNS:-100}
	cargo run --release -p loadtest -- check --nodes $(CHECK_NODES) --soak $${CHECK_SOAK:-30m}

# The short form of this is in `make test`.
SIMULATE ?= --seeds 1000
simulate:
	cargo run --release -p loadtest -- simulate $(SIMULATE)

# The short form of this is in `make test`.
fuzz:
	FUZZ_RUNS=$${FUZZ_RUNS:-1000000} cargo test --release --lib fuzz_ -- --nocapture

history: tools
	cargo test --release --test promises ten_million -- --ignored --nocapture

# In the same target folder, so that only this package is built again.
UPGRADE_REV ?= HEAD~1
upgrade: tools
	rm -rf $(TARGET)/upgrade && mkdir -p $(TARGET)/upgrade/source
	git archive $(UPGRADE_REV) | tar -x -C $(TARGET)/upgrade/source
	CARGO_TARGET_DIR=$(abspath $(TARGET)) cargo build --locked --bin chatd --manifest-path $(TARGET)/upgrade/source/Cargo.toml
	mv $(TARGET)/debug/chatd $(TARGET)/upgrade/chatd
	UPGRADE_FROM=$(abspath $(TARGET))/upgrade/chatd cargo test --test promises an_upgrade -- --nocapture

image: tools
	IMAGE_BUILD=1 cargo test --test promises the_images_steps -- --nocapture

# From Cargo.lock and the crates that are here: only the tool needs a network, once.
sbom:
	@test -x $(TARGET)/tools/bin/cargo-cyclonedx || cargo install --locked --root $(TARGET)/tools cargo-cyclonedx@0.5.9
	CARGO_NET_OFFLINE=true SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" $(TARGET)/tools/bin/cargo-cyclonedx cyclonedx \
	  --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps
	mv chatd_bin.cdx.json $(TARGET)/chatd.cdx.json
	rm loadtest/*_bin.cdx.json
	SBOM=$(abspath $(TARGET))/chatd.cdx.json cargo test --test promises the_sbom -- --ignored --nocapture

# What is built is committed, so that nobody else needs Node.
web:
	cd web && npm ci --no-audit --no-fund && npm run build

screenshots: tools
	cargo test --test promises screenshots -- --ignored --nocapture

tools:
	@command -v cargo >/dev/null || { echo 'make: cargo is needed: install Rust from https://rustup.rs' >&2; exit 1; }
	@if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql; \
	  else \
	    echo 'make: PostgreSQL is needed for the tests: install the package "postgresql" of your distribution' >&2; exit 1; \
	  fi; \
	fi
	@if ! command -v pgbouncer >/dev/null && ! test -x /usr/sbin/pgbouncer; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends pgbouncer; \
	  else \
	    echo 'make: PgBouncer is needed for the tests: install the package "pgbouncer" of your distribution' >&2; exit 1; \
	  fi; \
	fi
	@if ! command -v nats-server >/dev/null && ! test -x /usr/sbin/nats-server; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nats-server; \
	  else \
	    echo 'make: NATS is needed for the tests: install the package "nats-server" of your distribution' >&2; exit 1; \
	  fi; \
	fi
	@if ! command -v chromium >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; \
	  else \
	    echo 'make: chromium is needed for the tests: install the package "chromium" of your distribution' >&2; exit 1; \
	  fi; \
	fi
	@if ! command -v sqlite3 >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends sqlite3; \
	  else \
	    echo 'make: sqlite3 is needed for the tests: install the package "sqlite3" of your distribution' >&2; exit 1; \
	  fi; \
	fi
