# Everything runs in a virtual environment of this folder; nothing is installed elsewhere but the
# servers of the embedded stack, which share one environment below ~/.cache/tritonpipe.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-unit test-exporters test-integration test-keras radosgw prove lint format check bench flavors clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## Make the virtual environment with every tested version pinned

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed; found $(PYTHON). Set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3.11-venv"; exit 1; }
	@echo "Installing into $(VENV): a few minutes and about 2.5 GB, without PyTorch's CUDA packages"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[sklearn,boosting,pytorch,transformers,signing,postgresql,tracing,dev]'
	@touch $@

demo: $(INSTALLED)  ## The main job on real servers: train, promote, query, roll back under load
	$(BIN)/tritonpipe demo $(DEMO_OPTIONS)

test: test-unit test-exporters test-integration  ## Prove it: unit tests, conversions, real servers

test-unit: $(INSTALLED)  ## Laws and examples without any server, on all processors
	$(BIN)/pytest -n auto --dist loadscope tests/unit

test-exporters: $(INSTALLED)  ## Real models of every flavor, converted by the real libraries
	$(BIN)/pytest -n auto --dist loadscope tests/exporters

test-integration: $(INSTALLED)  ## The same against real servers, on two stacks side by side
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests/integration

test-keras: $(INSTALLED)  ## Install Keras and TensorFlow (1.5 GB more), and run the tests that need them
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[keras]'
	$(BIN)/pytest tests/exporters/test_keras.py

radosgw: $(INSTALLED)  ## Ceph's gateway, from Debian 13, below ~/.cache: some tests use it if it is there
	$(BIN)/python -P -m pipeline.testing.radosgw

prove: $(INSTALLED)  ## Kill and break publications at every request, under load; prints a table
	$(BIN)/python -P -m pipeline.testing.prove $(PROVE_OPTIONS)

lint: $(INSTALLED)  ## ruff, mypy and the floors of the architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test  ## Everything that must pass before a change lands

bench: $(INSTALLED)  ## Measure serving, promotion, uploads and the mirror; prints tables
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/promotion.py
	$(BIN)/python benchmarks/alias_to_answer.py
	$(BIN)/python benchmarks/sync.py
	$(BIN)/python benchmarks/mirror.py

flavors: $(INSTALLED)  ## Export and check every kind of model, write docs/flavors.md
	$(BIN)/python benchmarks/flavors.py --write

clean:  ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
