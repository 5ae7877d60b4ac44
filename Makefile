# `make demo` shows it, `make test` proves it, `make check` reads it. All of them want root: the first two build
# networks out of namespaces, and what is missing on the machine is installed.
#
#   make demo HOOK=xdp VIF_HOOK=xdp      XDP programs everywhere (default: auto, which is tc on the lab's veths)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):$(if $(CARGO_HOME),$(CARGO_HOME),$(HOME)/.cargo)/bin

flags := $(if $(HOOK),--hook $(HOOK)) $(if $(VIF_HOOK),--vif-hook $(VIF_HOOK)) $(FLAGS)
scripts := tools/lab tools/lab.d/linux-rules tools/lab.d/linux-walls tools/lab.d/udhcpc-script tools/lab.d/guest-init tools/test tools/demo tools/compare tools/bench tools/bench.d/report tools/bench.d/ovs tools/bench.d/instructions tools/bench.d/jumbo tools/bench.d/exhausted tools/bench.d/fairness tools/bench.d/rules tools/old-kernel tools/adopt-vlan tools/install-deps tools/fuzz/run tools/fuzz/sancov .ci/run

.PHONY: deps build demo compare bench test fuzz check lab-up lab-down clean

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

test: deps
	tools/test

# What the fuzz targets found before, and a little more. For longer: tools/fuzz/run [target [seconds]]
fuzz: deps
	tools/fuzz/run --corpus

check:
	tools/install-deps check
	cargo fmt --all --check
	cargo fmt --manifest-path tools/fuzz/Cargo.toml --check
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
