# Everything sets itself up in .cache/ on first use; a second call starts at once. See docs/development.md.
VENV := .cache/venv
export FRANGIBLE_PROMETHEUS ?= $(CURDIR)/.cache/prometheus/prometheus
export FRANGIBLE_OPENSSH ?= $(CURDIR)/.cache/openssh

.DEFAULT_GOAL := help
.PHONY: help setup prometheus openssh demo demo-all test lint format imports typecheck unit lab campaign benchmark benchmark-cpu benchmark-journal benchmark-many benchmark-cluster benchmark-crosstalk constraints clean cluster cluster-deploy cluster-down test-cluster

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .cache/venv with the project, its extras and the tools
	@ci/setup

prometheus: ## make .cache/prometheus/ with a real Prometheus
	@ci/prometheus

openssh: ## make .cache/openssh/ with the OpenSSH that tests use
	@ci/openssh

demo: setup prometheus ## lab up, four experiments on a robust and on a fragile environment each, who is fragile to what, lab down
	@$(VENV)/bin/frangible demo

demo-all: setup prometheus ## the same with every experiment on every environment; twenty minutes
	@$(VENV)/bin/frangible demo --all

test: setup prometheus openssh ## all checks and tests, as CI runs them
	@$(VENV)/bin/python ci/check.py

lint: setup ## ruff: format and rules
	@$(VENV)/bin/python ci/check.py format lint

format: setup ## let ruff rewrite what it can
	@$(VENV)/bin/ruff format
	@$(VENV)/bin/ruff check --fix

imports: setup ## the import direction of docs/architecture.md
	@ci/imports

typecheck: setup ## mypy --strict over the project and its tests
	@ci/typecheck

unit: setup prometheus openssh ## unit and property tests only
	@$(VENV)/bin/python -m pytest -q -n 2 -m "not lab and not cluster"

lab: setup prometheus openssh ## tests that need the embedded lab only
	@$(VENV)/bin/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder -m lab

cluster: ## a real Kubernetes cluster of four nodes on this machine; docs/cluster.md
	@ci/cluster/cluster up

cluster-deploy: setup prometheus ## the trading estate in that cluster, with its Prometheus and its inventory
	@ci/cluster/cluster deploy

cluster-down: ## the cluster away, with everything that it left; what was built is kept
	@ci/cluster/cluster down

test-cluster: setup prometheus ## cluster up, estate deployed, tests that need them, cluster down (KEEP=1 keeps it)
	@ci/test-cluster

campaign: setup prometheus ## 200 kills of real runs, looked at in the target
	@$(VENV)/bin/python -m benchmarks.crash --kills 200

benchmark: setup prometheus ## what a user waits for, side by side with bare chaos run
	@$(VENV)/bin/python -m benchmarks.speed

benchmark-cpu: setup ## CPU utilisation achieved against requested, beside stress-ng where it is installed; on an idle machine
	@$(VENV)/bin/python -m benchmarks.cpu

benchmark-journal: setup ## a journal of a million runs: fragility and gate beside plain scans
	@$(VENV)/bin/python -m benchmarks.journal

benchmark-many: setup ## 265 trivial runs beside `xargs -P` over `chaos run` of the same file
	@$(VENV)/bin/python -m benchmarks.many

benchmark-cluster: setup ## on a cluster: drain beside chaostoolkit-kubernetes, abort to last revert, CPU achieved (`BENCHMARK="--environment k8s-robust"`)
	@$(VENV)/bin/python -m benchmarks.cluster $(BENCHMARK)

benchmark-crosstalk: setup prometheus ## how much a fault in one lab environment disturbs the others; on an idle machine
	@$(VENV)/bin/python -m benchmarks.crosstalk

constraints: setup ## resolve the dependencies anew into ci/constraints.txt
	@ci/constrain --upgrade

clean: ## remove everything that make made
	rm -rf .cache .typing* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* build *.egg-info
