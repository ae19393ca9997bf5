# Everything a person does with the project; `make help` lists it. Needs python3 and a package index.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& { command -v $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# By all processors, where pip would take one; some packages have files for other Pythons.
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib recsys_assets serving || true
DEMO_FLAGS ?=
PYTEST_FLAGS ?=

# $(call need,PACKAGE,COMMAND): if COMMAND fails, a package of the system is missing; root installs it.
need = $(2) 2>/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq \
	&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(1) >/dev/null && $(2); } \
	|| { echo "A package of the system is missing: apt-get install $(1)"; exit 1; }

export DAGSTER_DISABLE_TELEMETRY := yes

.DEFAULT_GOAL := help

.PHONY: help
help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/local.stamp  ## Real orders to recommendations: load, materialize, show, stay up. DEMO_FLAGS=--exit ends after the tables.
	@$(BIN)/recsys demo $(DEMO_FLAGS)

.PHONY: serve
serve: .venv/local.stamp  ## Serve the API from what is published.
	@$(BIN)/recsys serve

.PHONY: evaluate
evaluate: export RECSYS_STATE_DIR := .recsys/evaluate
evaluate: export RECSYS_DATA_DIR := .recsys/evaluate/data
evaluate: .venv/local.stamp  ## Backtest both models on the sample shop, beside all baselines.
	@$(BIN)/recsys load-sample
	@$(BIN)/recsys evaluate

.PHONY: test
# The folders with the longest tests come first in the alphabet; pytest-xdist would put them last.
test: .venv/dev.stamp  ## Run all tests, by two processes, against servers that they start and end.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

.PHONY: test-faults
test-faults: .venv/dev.stamp  ## Kill processes, stop servers, fill disks: the long form, half an hour.
	RECSYS_TEST_FAULTS=full $(BIN)/python -m pytest tests/faults \
		tests/services/test_interactions_history.py tests/services/test_redis_sentinel.py $(PYTEST_FLAGS)

.PHONY: test-api
test-api: .venv/dev.stamp  ## Ask the API all that its OpenAPI document allows or forbids, and raw bytes: some minutes.
	RECSYS_TEST_API=full $(BIN)/python -m pytest tests/services/test_api_schema.py \
		tests/services/test_api_raw_bytes.py $(PYTEST_FLAGS)

.PHONY: test-slow
test-slow: .venv/dev.stamp  ## Run the tests that take long: decisions about models, and tuning.
	RECSYS_TEST_SLOW=1 $(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

.PHONY: test-browser
test-browser: .venv/dev.stamp  ## Use the explorer page in Chromium, the system's: all journeys, some half a minute.
	@$(call need,chromium,command -v chromium >/dev/null)
	RECSYS_TEST_BROWSER=1 $(BIN)/python -m pytest tests/browser $(PYTEST_FLAGS)

.PHONY: check
check: .venv/dev.stamp  ## Lint, formatting and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: .venv/dev.stamp  ## Format the code and mend what the linter can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: .venv/dev.stamp  ## Measure mining, training and publishing beside their peers.
	$(BIN)/python benchmarks/mining.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/publishing.py

.PHONY: bench-incremental
bench-incremental: .venv/dev.stamp  ## Measure refreshes beside rebuilds in shops of 1, 4 and 16 million lines.
	$(BIN)/python benchmarks/incremental.py

.PHONY: bench-freshness
bench-freshness: .venv/dev.stamp  ## Measure the time from an order to the changed answer, in a system of its own.
	$(BIN)/python benchmarks/freshness.py

.PHONY: bench-serving
bench-serving: .venv/bench.stamp  ## Measure the API beside Django and FastAPI; wants wrk and redis-tools.
	$(BIN)/python benchmarks/serving_api.py

.PHONY: soak
soak: .venv/bench.stamp  ## Ten minutes at half the peak rate while the whole graph republishes.
	$(BIN)/python benchmarks/soak.py

.PHONY: clean
clean:  ## Remove the environment, the embedded servers' data and the artifacts.
	rm -rf .venv .recsys .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find data -type f ! -name README.md -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/local.stamp: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing (a minute or two the first time) ..."
	@$(PIP) -e '.[local]'
	@$(COMPILE)
	@$(call need,libgomp1,$(BIN)/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")')
	@touch $@

.venv/dev.stamp: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing (a minute or two the first time) ..."
	@$(PIP) -e '.[local,dev]'
	@$(COMPILE)
	@$(call need,libgomp1,$(BIN)/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")')
	@touch $@ .venv/local.stamp

.venv/bench.stamp: .venv/local.stamp
	@$(PIP) -e '.[local,bench]'
	@$(COMPILE)
	@touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found: install one, or make PYTHON=/path/to/it"; exit 1; }
	@$(call need,python3-venv,$(PYTHON) -c 'import ensurepip')
	@$(PYTHON) -m venv .venv
