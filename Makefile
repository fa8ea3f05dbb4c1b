# The first target explains the others. Every command here works from a fresh checkout.

SHELL := /bin/bash
CARGO ?= cargo
SEED ?= 1
RUNS ?= 100
FUZZ_SECONDS ?= 60

.PHONY: help demo demo-failover demo-balance demo-anycast test check bench bench-redirect bench-failover bench-check doc sim sim-soak attack compare paper fuzz hostile setup clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

setup: ## install missing Debian packages, check for Rust
	@scripts/setup.sh

demo: setup ## a download whose server is killed and restarted, beside kernel TCP; draws out/demo.svg
	$(CARGO) build --release --locked
	@scripts/demo.sh

demo-failover: setup ## one of four servers is killed under 16 downloads, beside kernel TCP; draws out/demo-failover.svg
demo-balance: setup ## 16 downloads over two servers, then four, then one; draws out/demo-balance.svg
demo-anycast: setup ## one address at two sites, announced by BGP, of which the near one fails; draws out/demo-anycast.svg
demo-failover demo-balance demo-anycast:
	$(CARGO) build --release --locked
	@scripts/demo-fleet.sh $(@:demo-%=%)

test: setup ## unit, property and simulation tests, then the namespace tests (as root)
	$(CARGO) build --release --locked
	@scripts/test.sh

check: setup ## format, lints, documentation, shell scripts; the measuring package and its tests
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) clippy --lib --no-default-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked
	shellcheck -x scripts/*.sh scripts/lib/*.sh scripts/topologies/*.sh scripts/scenarios/*.sh scripts/lab/*.sh .ci/run
	@scripts/lab/check.sh

bench: setup ## micro-benchmarks; requests, goodput, connections beside smoltcp's and the kernel's TCP
	$(CARGO) build --release --locked
	$(CARGO) bench --locked --bench packet --bench transport
	@scripts/bench.sh

bench-redirect: setup ## packets through the redirector beside nft and a bare device, and its memory (4 minutes)
	$(CARGO) build --release --locked
	@scripts/redirect-bench.sh

bench-failover: setup ## 200 downloads while one of four servers is taken away in three ways (3 minutes)
	$(CARGO) build --release --locked
	@scripts/failover-fleet.sh

bench-check: setup ## instructions of every step of the transport beside a baseline; UPDATE=1 renews it
	@UPDATE=$(UPDATE) CARGO=$(CARGO) scripts/bench-check.sh

compare: setup ## downloads beside kernel TCP over emulated paths (15 minutes); out/compare/report.html
	$(CARGO) build --release --locked
	@scripts/compare.sh

paper: setup ## the experiments of the Trickles paper beside kernel TCP (8 minutes); out/paper/report.html
	$(CARGO) build --release --locked
	@scripts/paper.sh

doc: ## documentation of the library without that of the program: target/doc/headwater/index.html
	$(CARGO) doc --lib --no-default-features --no-deps --locked

sim: ## seeded worlds on virtual time: make sim SEED=n RUNS=m
	$(CARGO) run --release --locked -- sim --seed $(SEED) --runs $(RUNS)

sim-soak: ## 10^5 worlds of seeds drawn from the clock, which stop at a broken law (50 minutes); RUNS=n
	$(CARGO) build --release --locked
	@scripts/soak.sh $(if $(filter file,$(origin RUNS)),100000,$(RUNS))

attack: ## attacks on the protocol in process: gain before, gain now, test (minutes)
	$(CARGO) run --release --locked -- attack --seed $(SEED)

fuzz: ## fuzz every target for FUZZ_SECONDS each (nightly Rust, cargo-fuzz)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

hostile: ## ten million mutated packets at a machine in use; prints the outcome
	HEADWATER_MUTATIONS=10000000 $(CARGO) test --release --locked --test hostile -- --nocapture

clean: ## remove build results and out/
	$(CARGO) clean
	rm -rf out
