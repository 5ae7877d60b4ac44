# `make demo` shows it, `make test` proves it, `make check` reads it. All of them want root: the first two build
# networks out of namespaces, and what is missing on the machine is installed.
#
#   make demo HOOK=xdp VIF_HOOK=xdp      XDP programs everywhere (default: auto, which is tc on the lab's veths)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin

flags := $(if $(HOOK),--hook $(HOOK)) $(if $(VIF_HOOK),--vif-hook $(VIF_HOOK)) $(FLAGS)
scripts := tools/lab tools/lab.d/linux-rules tools/lab.d/guest-init tools/demo tools/compare tools/bench tools/bench.d/report tools/bench.d/ovs tools/bench.d/instructions tools/old-kernel tools/install-deps .ci/run

.PHONY: deps build demo compare bench test check lab-up lab-down clean

deps:
	tools/install-deps

build: deps
	cargo build --release --locked

demo: build
	tools/demo $(flags)

# Asks the same of Linux bridges and iptables, as nova-network set them up, hop by hop.
compare: build
	tools/compare $(flags)

# Beside the Linux nodes, alternating: packets, bulk TCP, latency. A quarter of an hour for three rounds; QUICK=1 asks each once.
bench: build
	tools/install-deps bench
	cargo build --release --locked -p pktgen
	cargo build --release --locked -p af_xdp --example l2fwd
	tools/bench $(if $(QUICK),--quick) $(FLAGS)

# The tests, and what runs in the lab for them, are built in the dev profile, with overflow checks. One at a time: there
# is one lab.
test: deps
	cargo test --locked --workspace -- --test-threads=1
	RUSTFLAGS="--cfg loom" cargo test --locked --release --target-dir target/loom -p conntrack --test loom

check:
	tools/install-deps check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources
	cargo xtask layers
	if command -v shellcheck >/dev/null; then shellcheck -x -a $(scripts); \
	else echo "shellcheck is not installed: shell scripts not checked"; fi

lab-up: build
	tools/lab up $(flags)

lab-down:
	tools/lab down

clean:
	cargo clean
