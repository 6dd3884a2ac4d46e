# `make` says what there is. CONTRIBUTING.md says how it is used.

CACHE := $(or $(MODELWAY_CACHE),$(HOME)/.cache/modelway)
export MODELWAY_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
# Where rustup puts cargo, for shells that do not know yet. First: a distribution's cargo may be too old.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# For test binaries, which have no lib folder beside them.
export ORT_DYLIB_PATH ?= $(CARGO_TARGET_DIR)/lib/libonnxruntime.so
# Or it keeps a database of its use in the home directory.
export ORT_DISABLE_TELEMETRY ?= 1

.DEFAULT_GOAL := help
.PHONY: help up build models setup test test-long lint fmt docs bench bench-serve env clean

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

up: ## install what is missing, build, start, deploy a model; Ctrl-C ends it
	@scripts/up.sh --check
	@$(MAKE) --no-print-directory build models
	@exec scripts/up.sh

build: ## bin/modelway, optimised, with ONNX Runtime and uv beside it
	@scripts/setup.sh
	cargo build --release --locked --package modelway-cli --bin modelway
	@install -m 755 -T $(CARGO_TARGET_DIR)/release/modelway bin/.modelway.new && mv -T bin/.modelway.new bin/modelway

models: ## the sample models and their golden examples, into $MODELWAY_CACHE/models
	@scripts/setup.sh
	@scripts/models.sh

setup: ## install everything that the tests need
	@scripts/setup.sh test
	@scripts/models.sh

test: setup ## everything that is promised, against the real binary
	PYTHONPATH=python/src PYTHONDONTWRITEBYTECODE=1 "$(CACHE)/venv/bin/python" -W error -m unittest discover -s python/tests
	cargo test --workspace --locked --no-fail-fast

test-long: setup ## the tests that take minutes; writes docs/test-long.md
	scripts/test-long.sh

lint: ## format and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

fmt: ## format everything
	cargo fmt --all

docs: ## the documentation of all crates, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

bench: build models ## every figure, the gateway's beside nginx; fails if a target is missed
	@scripts/setup.sh bench
	@bench/run.sh

bench-serve: build ## the model server beside all others, and docs/benchmarks.md; half an hour
	@scripts/setup.sh bench
	@bench/serve/run.sh

env: ## print what plain cargo needs: eval "$(make env)"
	@echo 'export MODELWAY_CACHE="$(CACHE)" CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)" ORT_DYLIB_PATH="$(ORT_DYLIB_PATH)" ORT_DISABLE_TELEMETRY=1'

clean: ## remove what was built; Python packages and test servers stay
	rm -rf bin "$(CARGO_TARGET_DIR)" "$(CACHE)/models"
