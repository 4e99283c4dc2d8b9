# fedproof: `make demo` and `make test` do all set-up themselves; `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SLITHER := .venv-slither
# The CPU build of PyTorch: the default index serves gigabytes of CUDA libraries that nothing here uses.
# An index that cannot be reached is passed over.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: help install tools demo test fuzz check format generate contracts-test contracts-campaign contracts-faults contracts-histories ledger-faults contracts-slither gas bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## install everything into .venv

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedproof needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Use: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --retries 1 --extra-index-url $(TORCH_INDEX) -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# solc, anvil, forge and cast come from npm and serve the tests only; without npm those tests say why they are skipped.
tools: ## install the contract tools, where npm is present
	@if command -v npm >/dev/null; then \
		[ contracts/node_modules/.package-lock.json -nt contracts/package-lock.json ] || npm ci --silent --no-fund --no-audit --prefix contracts; \
	else echo "npm is absent: tests on anvil will be skipped"; fi

demo: install ## five rounds among three hospitals on an embedded chain, then the audit
	$(BIN)/python scripts/demo.py $(ARGS)

# On two cores, three at a time: the tests with real processes wait for these much of the time.
test: install tools ## every test
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# For each parser; 2 run at a time. Needs Linux on x86-64, where atheris has builds.
SECONDS ?= 20

fuzz: install ## feed each parser a fuzzer's bytes, for SECONDS=20 each
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

check: install tools ## lint, types, and generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/python scripts/compile_contracts.py --check
	$(BIN)/python scripts/generate_reference.py --check

format: install ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: install tools ## regenerate protobuf code and contract artifacts
	$(BIN)/python scripts/generate_protos.py
	$(BIN)/python scripts/compile_contracts.py
	$(BIN)/python scripts/generate_reference.py

contracts-test: install tools ## the contracts in Foundry: unit tests, invariants (bounded), gas, coverage
	$(BIN)/python scripts/test_contracts.py check

# ARGS are the script's options: make contracts-campaign ARGS="--calls 100000"
contracts-campaign: install tools ## the invariants, over ten million calls
	$(BIN)/python scripts/test_contracts.py campaign $(ARGS)

# ARGS="WORD ..." tries only faults whose description has one of the words.
contracts-faults: install tools ## do the tests find each of the faults that are put into the contract?
	$(BIN)/python scripts/find_faults.py $(ARGS)

# --seed S and --first N play other histories, or one again.
contracts-histories: install ## random histories on the contract and on its model in Python, 100,000 of them
	$(BIN)/python -m tests.contracts.campaign $(or $(ARGS),--histories 100000 --processes 2)

# Each run has a seed of its own, which a failure names.
ledger-faults: install tools ## the ledger's client against reorganisations, dropped transactions and bad endpoints, 500 runs
	FEDPROOF_FAULT_RUNS=$(or $(RUNS),500) $(BIN)/python -m pytest --numprocesses 2 tests/ledger/test_faults.py tests/ledger/test_finality.py

contracts-slither: install tools $(SLITHER)/installed ## static analysis of the contracts
	$(BIN)/python scripts/test_contracts.py slither

# Slither wants an older web3 than the rest of this repository.
$(SLITHER)/installed:
	$(PYTHON) -m venv $(SLITHER)
	$(SLITHER)/bin/pip install --quiet slither-analyzer==0.11.6
	@touch $@

gas: install tools ## write the gas figures of the contracts anew
	$(BIN)/python scripts/test_contracts.py gas

# bench-codec makes a virtual environment for NVFlare, unless FEDPROOF_BENCH_NVFLARE names one. Left out of `bench` is
# bench-compression: over two hours. ARGS are one benchmark's options: make bench-codec ARGS=--help
bench: install ## the figures of docs/benchmarks.md, on a quiet machine (about half an hour)
	$(MAKE) -j1 bench-end_to_end bench-codec bench-round bench-aggregator_memory ARGS=

bench-%: install ## one benchmark: end_to_end, codec, round, quorum (10 minutes or less each), history, aggregator_memory, compression
	$(BIN)/python benchmarks/$*.py $(ARGS)

clean: ## remove the environment and all runs
	rm -rf $(VENV) $(SLITHER) runs contracts/node_modules contracts/out contracts/cache
