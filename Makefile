# `make help` lists the targets. Two of them do everything on a fresh machine with cargo and CPython 3.11:
# `make demo` and `make test`.

PYTHON ?= python3.11
DLGC_CACHE ?= $(HOME)/.cache/dlgc
# One environment for each set of pins; a change of the pins makes a new one.
ENV := $(DLGC_CACHE)/env-$(shell sha256sum requirements-dev.txt | cut -c1-12)
BIN := $(ENV)/bin
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help demo test env build lint test-rust test-python specs conformance fuzz fuzz-readers kill wheel bench profile clean explore

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## build, compile the examples, train a few steps, show what is trained
	rm -rf demo
	$(BIN)/dlgc compile examples/dialogues -o demo/shards --state json-after
	$(BIN)/dlgc show examples/dialogues/guide.jsonl:3
	$(BIN)/python -m dlgc.train demo/shards --max_steps 30 --output_dir demo/model --sample

test: lint test-rust test-python ## everything that CI runs

env: $(ENV)/ready ## the cached environment with the pinned Python packages

$(ENV)/ready:
	rm -rf $(ENV)
	$(PYTHON) -m venv $(ENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

build: env ## the extension, optimised, into the environment
	VIRTUAL_ENV=$(ENV) $(BIN)/maturin develop --release --quiet

lint: build ## rustfmt, clippy, ruff, mypy, stubs
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --package dlgc --no-deps --quiet
	$(BIN)/ruff format --check --quiet python tests scripts examples
	$(BIN)/ruff check --quiet python tests scripts examples
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest dlgc._dlgc

test-rust: ## the core's tests and doctests
	DLGC_CACHE_DIR=$(CURDIR)/target/cache cargo test --quiet --package dlgc

test-python: build ## everything a user would do
	$(BIN)/python scripts/train_tokenizer.py --check
	$(BIN)/python -m pytest --quiet

specs: build ## write the generated contracts in specs/
	$(BIN)/python -c "from dlgc import _dlgc; print(_dlgc.explain(), end='')" > specs/diagnostics.md

conformance: build ## real templates and tokenizers against transformers: specs/conformance.md
	$(BIN)/python scripts/conformance.py

fuzz-readers: build ## an hour of libFuzzer over the readers and the schema: specs/fuzz-readers.md
	$(BIN)/python scripts/fuzz_readers.py

explore: build ## the properties of the tests over thousands of new examples
	DLGC_HYPOTHESIS=new $(BIN)/python -m pytest --quiet tests/test_schema.py

kill: build ## kill compilations at a hundred random moments; each goes on to the same bytes
	$(BIN)/python scripts/kill.py

fuzz: build ## half an hour of random dialogues, their coverage, and planted bugs: specs/fuzz.md
	$(BIN)/python scripts/fuzz_proof.py

wheel: env ## a wheel as it is released, with profile-guided optimisation: target/wheels
	$(BIN)/python scripts/release.py

bench: env ## dlgc as it is released beside TRL and beside tokenizers, in one run of two hours: specs/benchmark.md
	$(BIN)/python scripts/release.py --develop
	$(BIN)/python scripts/scaling.py
	$(BIN)/python scripts/bench.py

profile: env ## what a compilation spends its time on, by perf: specs/profile.md
	$(BIN)/python scripts/stages.py

clean: ## what this folder's builds left; the cached environment stays
	cargo clean --quiet
	rm -rf demo python/dlgc/_dlgc*.so
