# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Without `env -u`, nproc would answer OMP_NUM_THREADS where that is set.
CORES ?= $(shell env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
CONFIG ?= config/config.yaml
# Any Python from 3.11 on: make demo PYTHON=/path/to/python3.12
PYTHON ?=
PYTEST_ARGS ?=

# What was installed is found first by everything these targets start.
demo test lint bench: export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help
help: ## show this
	@echo "dubito: an interatomic potential that knows when it doesn't know"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20
	@echo "Next: make demo"

.PHONY: demo
demo: env ## install what is needed and run a real campaign on ammonia (minutes on two cores)
	@snakemake --cores $(CORES) --configfile $(CONFIG)
	@dubito status --config $(CONFIG)

.PHONY: test
test: env-dev ## run all tests
	@OMP_NUM_THREADS=1 pytest -n $(CORES) --dist loadgroup $(PYTEST_ARGS)

.PHONY: lint
lint: env-dev ## check formatting, types, layers and workflow
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow/rules
	snakemake --lint
	codespell $(wildcard *.md) Makefile Snakefile benchmarks config docs envs profiles src tests workflow

# Only benchmarks that have a short form: all of them together stay under ten minutes on two cores.
.PHONY: bench
bench: env-dev ## run the short form of the benchmarks; each prints one line of JSON
	@for file in benchmarks/[a-z]*.py; do \
	  if grep -q -e '"--short"' "$$file"; then echo "== $$file --short"; python "$$file" --short; \
	  else echo "== $$file has no short form; run it by itself: python $$file"; fi; \
	done

.PHONY: clean
clean: ## remove caches and the environment; results stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: env env-dev
env: $(VENV)/.installed ## make .venv with all that campaigns need
env-dev: $(VENV)/.installed-dev ## the same, and what tests and lint need

# The stamps are written last: an installation that was killed is taken up again.
$(VENV)/.installed: envs/requirements.txt pyproject.toml | $(BIN)/python
	@start=$$SECONDS; echo "installing into $(VENV) (torch first, the largest) ..."; \
	"$(BIN)/python" -m pip install -qq --disable-pip-version-check "$$(grep -E '^torch==' $<)"; \
	"$(BIN)/python" -m pip install -qq --disable-pip-version-check -r $<; \
	"$(BIN)/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	touch $@; echo "installed in $$((SECONDS - start)) s"

$(VENV)/.installed-dev: envs/requirements-dev.txt envs/requirements-slurm.txt $(VENV)/.installed
	@start=$$SECONDS; echo "installing what tests and lint need ..."; \
	"$(BIN)/python" -m pip install -qq --disable-pip-version-check -r $< -r envs/requirements-slurm.txt; \
	touch $@; echo "installed in $$((SECONDS - start)) s"

$(BIN)/python:
	@found=""; \
	for python in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "dubito needs Python 3.11 or newer and found $$(python3 --version 2>&1 || echo none)." >&2; \
	  echo "Install one (for example: apt install python3.11 python3.11-venv) or name it: make demo PYTHON=/path/to/python3.11" >&2; \
	  exit 2; \
	fi; \
	if ! "$$found" -m venv $(VENV); then \
	  rm -rf $(VENV); \
	  echo "$$found can't make virtual environments. On Debian or Ubuntu: apt install python3-venv" >&2; exit 2; \
	fi; \
	"$(BIN)/python" --version
