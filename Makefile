.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
DEMO_FLAGS ?=
BENCH_FLAGS ?=

.PHONY: help setup prepare demo test test-fast test-api test-e2e bench-checkpoint bench-operator bench-policy bench-plugin bench-trace soak simulate record check format lock generate clean

help: ## Show this list
	@grep -hE '^[a-z][a-z0-9-]*:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

setup: ## Make .venv from the lock files
	@hack/setup.sh

# Before the tests, not within one: a cold build takes longer than any test may.
prepare: setup ## Build and download what the tests and the local cluster need (cached)
	@hack/setup-transformers.sh
	@PYTHONPATH=hack $(PYTHON) -m localcluster prepare

demo: setup ## Train on an embedded cluster, lose its nodes, finish (DEMO_FLAGS=--volume, --keep)
	@PYTHONPATH=hack $(PYTHON) -m demo $(DEMO_FLAGS)

test: prepare ## All tests: unit, faults, API server, real kubelets
	@$(PYTEST) -n 2 tests

test-fast: setup ## Unit tests only: no cluster, no containers
	@$(PYTEST) tests/unit

test-api: prepare ## Tests against a real API server
	@$(PYTEST) tests/api

test-e2e: prepare ## Tests with real kubelets and containers
	@$(PYTEST) tests/e2e

SOAK_FLAGS ?=

soak: prepare ## Jobs under random disturbances, 20 minutes (SOAK_FLAGS="--jobs 8 --torch 3 --seconds 360")
	@PYTHONPATH=hack $(PYTHON) -m soak $(SOAK_FLAGS)

SEEDS ?= 2000
SIMULATE_FLAGS ?=

simulate: setup ## Play the operator against a model of a cluster (SEEDS=2000, SIMULATE_FLAGS="--seed 7")
	@PYTHONPATH=tests:operator:trainer $(PYTHON) -m simulation --seeds $(SEEDS) $(SIMULATE_FLAGS)

RECORD_FLAGS ?=

record: prepare ## Record again what a real control plane shows, for tests/simulation (RECORD_FLAGS="eviction reboot")
	@PYTHONPATH=hack $(PYTHON) -m recording $(RECORD_FLAGS)

bench-checkpoint: ## Measure checkpoints beside their peers (8 minutes; BENCH_FLAGS=--only s3)
	@hack/setup-bench.sh
	@PATH="$(CURDIR)/.venv/bin:$$PATH" PYTHONPATH=bench:trainer:tests/support \
		.venv-bench/bin/python -m checkpoint $(BENCH_FLAGS)

bench-policy: setup ## Play the capacity policy on recorded spot markets (10 minutes; skips without ../shared/traces)
	@PYTHONPATH=bench:operator:trainer $(PYTHON) -m policy $(BENCH_FLAGS)

bench-plugin: setup ## Time 1,000 simulated runs of a 48 h job (BENCH_FLAGS=--runs 200)
	@PYTHONPATH=bench:operator:trainer $(PYTHON) -m plugin $(BENCH_FLAGS)

bench-trace: prepare ## Run 20 jobs with deadlines under a replayed spot market (11 minutes; skips without ../shared/traces)
	@PYTHONPATH=bench:hack:operator:trainer $(PYTHON) -m trace_bench $(BENCH_FLAGS)

bench-operator: prepare ## Measure the operator beside the Job controller (30 minutes; BENCH_FLAGS=--jobs 100)
	@PYTHONPATH=bench:hack:operator:trainer $(PYTHON) -m operator_bench $(BENCH_FLAGS)

check: setup ## Lint, format, types, import contracts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@$(PYTHON) -m mypy operator/spot_operator operator/spot_plugin trainer/spot_trainer hack/localcluster hack/demo hack/soak hack/recording bench/checkpoint bench/operator_bench bench/plugin bench/policy bench/trace_bench bench/referee_policy.py
	@MYPYPATH=tests $(PYTHON) -m mypy -p simulation
	@.venv/bin/lint-imports --no-cache

format: setup ## Format the code
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

generate: setup ## Write the CRD from its types, for crds/ and for the chart
	@$(PYTHON) -m spot_operator.api.crd --write

lock: ## Renew the lock files (needs uv)
	@hack/lock.sh

clean: ## Remove what the targets above made in this folder (the cache in ~/.cache stays)
	@rm -rf .venv .venv-bench .venv-transformers demo-out e2e-out bench/out .mypy_cache .ruff_cache .pytest_cache
